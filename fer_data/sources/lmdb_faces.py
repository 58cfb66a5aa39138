"""LMDB in Caffe's format: one database per split, keys "00000000_name", values of type Datum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import lmdb

from fer_data.faces import SPLITS, DataError, Split
from fer_data.options import DataOptions
from fer_data.sources.caffe_proto import datum, parse_datum
from fer_data.sources.gather import SPLIT_OF, Faults, Sample, gather, numbered_faces
from fer_data.sources.read_faces import ReadFaces

DATA_FILE = "data.mdb"

_LOCK_FILE = "lock.mdb"
_PER_IMAGE = 4096  # bytes: LMDB rounds values up to pages
_MAX_KEY_SHOWN = 60


def databases(folder: Path) -> dict[str, Path]:
    """The database folder of each split that exists (train, or train_lmdb), in the order train, val, test.

    Raises:
        DataError: there are two databases for one split.
        OSError: the folder cannot be read.
    """
    found: dict[str, Path] = {}
    for data in sorted(folder.glob(f"*/{DATA_FILE}")):
        name = data.parent.name.casefold()
        split = SPLIT_OF.get(name.removesuffix("_lmdb").removesuffix(".lmdb"))
        if split in found:
            raise DataError(f"{folder}: {found[split].name} and {data.parent.name} are both {split}; remove one")
        if split:
            found[split] = data.parent
    return {split: found[split] for split in SPLITS if split in found}


def write_lmdb(folder: Path, split: Split) -> None:
    """Write a split into a new database in a new folder, with the images in order.

    Keys are those of convert_imageset for the lines "<label>/<position>" of an index list.

    Raises:
        OSError: a disk error.
    """
    height, width = split.images.shape[1:]
    folder.mkdir()
    size = len(split) * 2 * (height * width + _PER_IMAGE) + 2**24
    try:
        with lmdb.open(str(folder), map_size=size) as environment, environment.begin(write=True) as transaction:
            for position, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                key = f"{position:08d}_{label}/{position:05d}"
                transaction.put(key.encode(), datum(image, int(label)), append=True)
    except lmdb.Error as error:
        raise OSError(f"LMDB cannot write {folder}: {error}") from error
    (folder / _LOCK_FILE).unlink(missing_ok=True)  # specific to this machine; opening the database makes a new one


def read_lmdb(path: Path, options: DataOptions) -> ReadFaces:
    """Read the databases train, val and test, with images in the order of their keys.

    Class names come from a classes.txt beside the databases; without it labels 0..6 are FER's expressions.

    Raises:
        DataError: train is missing, a database is damaged or not Caffe's, or entries are faulty. All faults at once,
            except those that `options.skip_bad` leaves out.
        OSError: there is no space for the images.
    """
    if (path / DATA_FILE).is_file():
        raise DataError(f"{path}: one LMDB, expected one per split: give the folder that holds train, val and test")
    faults, folders = Faults(path), databases(path)
    try:
        with ExitStack() as stack:
            opened = {split: stack.enter_context(_open(folder)) for split, folder in folders.items()}
            count = sum(environment.stat()["entries"] for environment in opened.values())
            found = gather(_samples(opened, faults), count, options, faults)
    except lmdb.Error as error:
        raise DataError(f"{path}: a database is damaged: {error}; copy or export it again") from error
    return numbered_faces(faults, folders, found)


def _open(folder: Path) -> lmdb.Environment:
    """Open a database read-only and without a lock file, so that its folder may be read-only."""
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise DataError(f"{folder}: not an LMDB, damaged, or not readable: {error}; export it again") from error
    whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    actual = (folder / DATA_FILE).stat().st_size
    if actual < whole:  # LMDB maps the file, and a missing page would crash the process
        environment.close()
        raise DataError(f"{folder / DATA_FILE}: cut short: {actual:,} of {whole:,} bytes; copy it again")
    return environment


def _samples(opened: dict[str, lmdb.Environment], faults: Faults) -> Iterator[Sample]:
    for split, environment in opened.items():
        with environment.begin() as transaction, transaction.cursor() as cursor:
            for key, value in cursor:
                try:
                    image, label = parse_datum(value)
                except DataError as error:
                    faults.leave_out(
                        f"{split} key {key[:_MAX_KEY_SHOWN].decode(errors='backslashreplace')}", str(error)
                    )
                    continue
                yield Sample(split, label, image)
