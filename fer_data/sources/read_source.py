"""Reads a source. Its format is recognised by its content, not by its name."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

from fer_common.errors import nearest
from fer_data.cache.leaks import mark_leaks
from fer_data.faces import EXPRESSIONS, DataError, Faces, derived_fingerprint, fingerprint_of
from fer_data.images.resizing import all_resized
from fer_data.options import DataOptions
from fer_data.sources import fer2013, synthetic
from fer_data.sources.gather import OFFICIAL_NAME
from fer_data.sources.read_faces import ReadFaces

_LEFT_OUT_SHOWN = 5


def read_source(options: DataOptions) -> Faces:
    """Read the whole source that the options name; subsets are taken later.

    A file is a FER2013 csv, plain or in an archive. A folder has LMDB databases, Caffe's index lists, or images.

    Raises:
        DataError: there is no such source, or it has none of these formats.
        OSError: the cache has no space for it.
    """
    read = _read(options)
    fingerprint = fingerprint_of(read.splits)
    if read.classes != EXPRESSIONS or read.left_out:
        fingerprint = derived_fingerprint(fingerprint, json.dumps([read.classes, read.left_out]))
    train, val, test = read.splits
    name = OFFICIAL_NAME if fingerprint == fer2013.OFFICIAL_FINGERPRINT else read.name
    notes = (*read.notes, *([_left_out_note(read)] if read.left_out else []))
    return mark_leaks(
        Faces(name, fingerprint, read.classes, train, val, test, synthetic=options.source is None, notes=notes)
    )


def _read(options: DataOptions) -> ReadFaces:
    if options.source is not None:
        path = Path(options.source)
        _check(path)
        if path.is_file():
            return fer2013.read_csv(path, options)
    if options.labels != "fer":
        source = options.source or "synthetic faces"
        raise DataError(f"{source}: FER+'s labels belong to the rows of FER2013's csv; give that, or labels 'fer'")
    return _read_synthetic(options) if options.source is None else _read_folder(Path(options.source), options)


def _read_synthetic(options: DataOptions) -> ReadFaces:
    splits = synthetic.draw_splits()
    side = options.resize or synthetic.SIDE
    train, val, test = (
        replace(split, images=all_resized(split.images, side, options.resize_method)) for split in splits
    )
    return ReadFaces("synthetic faces", EXPRESSIONS, (train, val, test))


def _read_folder(path: Path, options: DataOptions) -> ReadFaces:
    from fer_data.sources.caffe import index_lists, read_caffe

    if any(path.glob("data.mdb")) or any(path.glob("*/data.mdb")):
        from fer_data.sources.lmdb_faces import read_lmdb

        return read_lmdb(path, options)
    if index_lists(path):
        return read_caffe(path, options)
    _refuse_folder_of_tables(path)
    from fer_data.sources.folders import read_folders

    return read_folders(path, options)


def _refuse_folder_of_tables(path: Path) -> None:
    entries = sorted(path.iterdir())
    tables = [entry.name for entry in entries if ".csv" in entry.suffixes]
    if tables and not any(entry.is_dir() for entry in entries):
        raise DataError(f"{path}: is a folder without images; give the csv in it: {', '.join(tables[:5])}")


def _check(path: Path) -> None:
    """Refuse a path that cannot be a source, with the reason."""
    try:
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path}: broken link to {path.readlink()}; point it at the data")
        if not path.exists():
            raise DataError(f"{path}: no such file{_similar_name(path)}; give the path of fer2013.csv or of a folder")
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise DataError(f"{path}: not a regular file; give a csv or a folder")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise DataError(f"{path}: is empty; expected a csv with the columns emotion, pixels, Usage")


def _similar_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()])


def _left_out_note(read: ReadFaces) -> str:
    more = len(read.left_out) - _LEFT_OUT_SHOWN
    first = "; ".join(read.left_out[:_LEFT_OUT_SHOWN])
    return f"{len(read.left_out):,} faulty left out: {first}{f'; and {more:,} more' if more > 0 else ''}"
