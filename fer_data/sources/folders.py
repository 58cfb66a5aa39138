"""Folders of images: train|val|test/<class>/*.png|jpg|jpeg, or only <class>/…, in any usual spelling."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fer_common.errors import nearest
from fer_data.class_names import Classes, named_classes, natural
from fer_data.faces import SPLITS, DataError
from fer_data.images.decode import SUFFIXES, read_image
from fer_data.options import DataOptions
from fer_data.sources.gather import (
    SPLIT_NAMES,
    SPLIT_OF,
    Faults,
    ImageFile,
    Sample,
    gather,
    given_name,
    own_name,
    printable,
    three_splits,
    without_contradictions,
)
from fer_data.sources.read_faces import ReadFaces

# Written by Windows, macOS, Linux, Synology and QNAP; hidden files are ignored too.
_LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "lost+found", "picasa.ini"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
}
_LIKE_A_SPLIT = re.compile("train|valid|test", re.IGNORECASE)
_USAGE = re.compile(r"(PublicTest|PrivateTest)[_-]", re.IGNORECASE)
_SPLIT_OF_USAGE = {"publictest": "val", "privatetest": "test"}

_ClassFolders = dict[str, Path]


def read_folders(path: Path, options: DataOptions) -> ReadFaces:
    """Read folders of PNG or JPEG images into train, val and test.

    The images of a split are in the natural order of their file names, over all classes, so numbered files keep their
    order. A test folder with files named PublicTest_… and PrivateTest_…, as in Kaggle's folders of FER2013, is val and
    test. Otherwise, if val or test is missing, a tenth of train is used for it. If class folders are not in folders of
    splits, all images are train at first.

    Links to files are followed. Colour becomes grey. All images must have one size, unless `options.resize` is given.

    Raises:
        DataError: folders of train or of classes are missing, unknown or doubled; or images are unreadable, of
            different sizes, or in two classes. All faults at once, except those that `options.skip_bad` leaves out.
        OSError: there is no space for the images.
    """
    class_folders = {split: _class_folders(folder) for split, folder in _split_folders(path).items()}
    classes = named_classes(path, {name for folders in class_folders.values() for name in folders})
    faults = Faults(path)
    _check_classes(faults, class_folders, classes)
    files = without_contradictions(
        _image_files(path, class_folders, classes.label_of, faults),
        faults,
        lambda _, other: f"is the same file as {other.name}, under another class",
    )
    files, usage_notes = _by_usage(files)
    files.sort(key=lambda file: (SPLITS.index(file.split), natural(file.path.name), file.label))
    found = gather(_samples(files, faults), len(files), options, faults)
    splits, notes = three_splits(faults, classes.names, class_folders, found)
    return ReadFaces(
        own_name(given_name(path)),
        tuple(map(printable, classes.names)),
        splits,
        (*classes.notes, *usage_notes, *notes),
        tuple(faults.skippable),
    )


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that exists. If the root has class folders, it is the folder of train."""
    names = _folders_in(root)
    if _are_classes(root, names):
        return {"train": root}
    folders: dict[str, Path] = {}
    faults = []
    for name in names:
        split = SPLIT_OF.get(name.casefold())
        if split is None:
            faults.append(f"'{name}' is no split{nearest(name, list(SPLIT_OF))}{_splits_within(root / name)}")
        elif split in folders:
            faults.append(f"'{folders[split].name}' and '{name}' are both {split}")
        else:
            folders[split] = root / name
    if "train" not in folders:
        faults.append("no train folder")
    if faults:
        known = "; ".join(f"{split}: {', '.join(names)}" for split, names in SPLIT_NAMES.items())
        raise DataError(
            printable(f"{root}: {'; '.join(faults)}. Expected the folder train and perhaps val and test ({known}), ")
            + "with one folder per class in each; or class folders alone, with images in them"
        )
    return folders


def _are_classes(root: Path, names: Sequence[str]) -> bool:
    """Whether some of the folders have images, and no name resembles that of a split."""
    like_splits = any(nearest(name, list(SPLIT_OF)) or _LIKE_A_SPLIT.search(name) for name in names)
    return len(names) > 1 and not like_splits and any(_holds_images(root / name) for name in names)


def _holds_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(Path(e.name).suffix.casefold() in SUFFIXES and not _is_litter(e.name) for e in entries)
    except OSError:  # reported when it is read
        return False


def _splits_within(folder: Path) -> str:
    inner = [name for name in _folders_in(folder) if name.casefold() in SPLIT_OF]
    return f" (but it holds {', '.join(inner)}: give {folder})" if inner else ""


def _class_folders(split: Path) -> _ClassFolders:
    return {name: split / name for name in _folders_in(split)}


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e.name for e in entries if not _is_litter(e.name) and Path(e.path).is_dir()), key=natural)
    except OSError as error:
        raise DataError(printable(f"{folder}: cannot be read: {error.strerror}; check its permissions")) from error


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _check_classes(faults: Faults, class_folders: Mapping[str, _ClassFolders], classes: Classes[str]) -> None:
    """Check that each class has one folder in each split."""
    for split, folders in class_folders.items():
        for label, title in enumerate(classes.names):
            names = [name for name in folders if classes.label_of[name] == label]
            if not names:
                hint = nearest(title, list(folders)) if title not in folders else ""
                where = folders[next(iter(folders))].parent.name if folders else split
                faults.leave_out(where, f"no folder for the class {title}{hint}")
            elif len(names) > 1:
                faults.fatal.append(f"{split}: the folders {' and '.join(names)} are both {title}; join them")


def _image_files(
    root: Path, class_folders: Mapping[str, _ClassFolders], labels: Mapping[str, int], faults: Faults
) -> list[ImageFile]:
    files: list[ImageFile] = []
    for split, folders in class_folders.items():
        for name, folder in folders.items():
            before = len(files)
            files += _files_of_class(root, folder, split, labels[name], faults)
            if len(files) == before:
                faults.leave_out(str(folder.relative_to(root)), "no images")
    return files


def _files_of_class(root: Path, folder: Path, split: str, label: int, faults: Faults) -> Iterator[ImageFile]:
    try:
        names = sorted((path.name for path in folder.iterdir() if not _is_litter(path.name)), key=natural)
    except OSError as error:
        faults.leave_out(str(folder.relative_to(root)), f"cannot be read: {error.strerror}")
        return
    for name in names:
        path = folder / name
        shown = str(path.relative_to(root))
        if path.is_dir():
            faults.leave_out(shown, "a folder within a class folder; images must be in the class folder itself")
        elif path.suffix.casefold() not in SUFFIXES:
            faults.leave_out(shown, f"not named {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        else:
            yield ImageFile(path, shown, split, label)


def _by_usage(files: Sequence[ImageFile]) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Divide test into val and test by the file names of Kaggle's folders, if there is no val."""
    usages = {file: match[1].casefold() for file in files if (match := _USAGE.match(file.path.name))}
    tests = [file for file in files if file.split == "test"]
    divided = (
        all(file.split != "val" for file in files)
        and all(file in usages for file in tests)
        and len({usages[file] for file in tests}) == len(_SPLIT_OF_USAGE)
    )
    if not divided:
        return list(files), ()
    moved = [replace(file, split=_SPLIT_OF_USAGE[usages[file]]) if file.split == "test" else file for file in files]
    count = sum(file.split == "val" for file in moved)
    note = (
        f"the test folder is divided by its file names: {count:,} PublicTest are val, "
        f"{len(tests) - count:,} PrivateTest are test"
    )
    return moved, (note,)


def _samples(files: Sequence[ImageFile], faults: Faults) -> Iterator[Sample]:
    for file in files:
        try:
            yield Sample(file.split, file.label, read_image(file.path))
        except DataError as error:
            faults.leave_out(file.name, str(error))
