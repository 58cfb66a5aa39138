"""Writes a data set in the layout of Caffe's data step: images or LMDB, index lists, mean image.

DEST/
    train|val|test/<label>/<00111>.png or jpg; or, as LMDB, train|val|test/data.mdb
    train.txt, val.txt, test.txt     index lists, "0/00111.png 0"; not with LMDB, which has the labels itself
    classes.txt                      one class per line, in the order of the labels
    mean.npy, mean.binaryproto       mean image of train, [height, width] float32 0..255
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from fer_data.class_names import CLASSES_FILE, write_class_names
from fer_data.faces import DataError, Faces, Split
from fer_data.sources.caffe import index_line
from fer_data.sources.caffe_proto import blob
from fer_data.sources.lmdb_faces import write_lmdb

Format = Literal["png", "jpg", "lmdb"]
FORMATS: tuple[Format, ...] = get_args(Format)
JPEG_QUALITY = 95  # of 100; png and lmdb are lossless


def export(faces: Faces, destination: Path, form: Format) -> None:
    """Write a data set into a new folder, which appears only when it is complete.

    Images are numbered by their position in the split. Reading the folder therefore gives the same order and, except
    for jpg, the same fingerprint. The quality of jpg is 95.

    Raises:
        DataError: the folder exists or cannot be written, or the faces have soft labels, for which there is no format.
    """
    destination = destination.expanduser()
    check_new(destination)
    if faces.train.soft_labels is not None:
        raise DataError(f"{faces.name} has soft labels, but an export has one label per image; choose other labels")
    beside = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        _write(faces, beside, form)
        os.sync()  # once for all files: fsync of each of 36,000 takes minutes
        beside.rename(destination)
    except OSError as error:
        raise DataError(f"{destination}: cannot be written: {error}; choose a folder with space") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_new(destination: Path) -> None:
    """Raise DataError if the destination exists: nothing is overwritten."""
    if os.path.lexists(destination.expanduser()):
        raise DataError(f"{destination}: exists already; give a new folder, or remove it")


def _write(faces: Faces, folder: Path, form: Format) -> None:
    for split in faces.splits:
        if form == "lmdb":
            write_lmdb(folder / split.name, split)
        else:
            _write_images(folder, split, len(faces.classes), form)
    write_class_names(folder / CLASSES_FILE, faces.classes)
    mean = faces.mean_image()
    np.save(folder / "mean.npy", mean, allow_pickle=False)
    (folder / "mean.binaryproto").write_bytes(blob(mean))


def _write_images(folder: Path, split: Split, classes: int, form: Format) -> None:
    for label in range(classes):
        (folder / split.name / str(label)).mkdir(parents=True)
    with (folder / f"{split.name}.txt").open("w", encoding="utf-8") as index:
        for position, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            name = f"{label}/{position:05d}.{form}"
            _save_image(Image.fromarray(image), folder / split.name / name, form)
            index.write(index_line(name, int(label)))


def _save_image(image: Image.Image, path: Path, form: Format) -> None:
    if form == "png":
        image.save(path, format="PNG")
    else:
        image.save(path, format="JPEG", quality=JPEG_QUALITY)
