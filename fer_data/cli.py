"""`python -m fer_data describe|show|export|download`: look at a data set, convert it, fetch FER2013."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.text import Text

from fer_common.console import new_console
from fer_common.errors import Parser, run_command
from fer_common.flags import add_flags, flags
from fer_data.cache.cache_folder import open_cached
from fer_data.cache.store import prepare
from fer_data.faces import Faces
from fer_data.options import DataOptions

_FORMATS = ("png", "jpg", "lmdb")


def main(argv: Sequence[str]) -> int:
    """Run `python -m fer_data VERB …`; return the exit code."""
    verbs: dict[str, Callable[[argparse.Namespace], None]] = {
        "describe": _describe,
        "show": _show,
        "export": _export,
        "download": _download,
    }

    def act() -> int:
        given = parser().parse_args(argv)
        verbs[given.verb](given)
        return 0

    return run_command(argv, act, lambda line: new_console(stderr=True).print(Text(line, style="red")))


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m fer_data`."""
    top = Parser(prog="python -m fer_data", description="Look at a data set of faces, convert it, or fetch FER2013.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    describe = verbs.add_parser("describe", help="count what is in a data set, and draw it")
    _add_source(describe)
    describe.add_argument("--json", action="store_true", help="print JSON, and draw only where --picture says")
    describe.add_argument("--picture", type=Path, metavar="FILE.png", help="default NAME-overview.png, here")
    shows = _add_show(verbs.add_parser("show", help="draw faces as a recipe varies or preprocesses them"))
    export = verbs.add_parser("export", help="write a data set as Caffe's data step does: images or LMDB, lists, mean")
    _add_source(export)
    export.add_argument("destination", type=Path, metavar="DEST", help="folder to write; must not exist")
    export.add_argument("--format", choices=_FORMATS, required=True, help="png and lmdb are exact, jpg has quality 95")
    download = verbs.add_parser("download", help="fetch fer2013.csv with your Kaggle account")
    download.add_argument("destination", nargs="?", type=Path, default=Path(), metavar="DEST",
                          help="folder for fer2013.csv (default: this one)")  # fmt: skip
    for verb in (describe, *shows, export, download):
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def _add_show(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    augment = what.add_parser("augment", help="one face and variations of it, drawn as in training")
    preprocess = what.add_parser("preprocess", help="one face under every preprocessing")
    first = what.add_parser("first", help="the counts of the classes, and the first train faces")
    for verb in (augment, preprocess, first):
        _add_source(verb)
        verb.add_argument("--picture", type=Path, metavar="FILE.png", help="default NAME-WHAT.png, here")
    for verb in (augment, preprocess):
        verb.add_argument("--face", type=int, default=0, metavar="N", help="its place in train (default 0)")
    augment.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                         help="a setting of the augmentation, as flip=0.5 (repeatable)")  # fmt: skip
    augment.add_argument(
        "--config", type=Path, metavar="FILE", help="a trial's config.json, whose augmentation is shown"
    )
    augment.add_argument("--count", type=_count, default=31, metavar="N", help="how many variations (default 31)")
    augment.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    first.add_argument("--count", type=_count, default=128, metavar="N", help="how many faces (default 128)")
    return [augment, preprocess, first]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"'{text}': expected 1 to 1024")
    return int(text)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="csv, folder of images, of Caffe lists or LMDB; or 'synthetic'. Where classes are only numbered, "
        "classes.txt in the folder names them, one per line in the order of the numbers",
    )
    group = parser.add_argument_group("how it is read, and which part of it")
    add_flags(group, DataOptions, [name for name in flags(DataOptions) if name != "source"])


def _opened(given: argparse.Namespace) -> Faces:
    return open_cached(prepare(DataOptions.given(given, given.source)))


def _describe(given: argparse.Namespace) -> None:
    from fer_data.describe import counts_table, describe, remarks
    from fer_data.overview import draw_overview

    faces = _opened(given)
    description = describe(faces)
    picture = given.picture or (None if given.json else _default_picture(faces))
    if picture:
        draw_overview(picture, faces)
    console = new_console()
    if given.json:
        console.print(json.dumps(description, indent=1, ensure_ascii=False))
        return
    if faces.synthetic:
        console.print(
            Text("SYNTHETIC FACES, drawn by this program: they say nothing about people", style="bold yellow")
        )
    console.print(f"{faces.name}, fingerprint {faces.fingerprint}")
    console.print(counts_table(faces))
    for remark in (*remarks(description), *(f"note: {note}" for note in faces.notes), f"picture: {picture}"):
        console.print(remark)


def _show(given: argparse.Namespace) -> None:
    from fer_data.show import draw_augmented, draw_first, draw_preprocessed, read_augmentation

    config = read_augmentation(given.settings, given.config) if given.what == "augment" else None
    faces = _opened(given)
    picture = given.picture or _default_picture(faces, given.what)
    if config is not None:
        draw_augmented(picture, faces, given.face, config, given.count, given.seed)
    elif given.what == "preprocess":
        draw_preprocessed(picture, faces, given.face)
    else:
        draw_first(picture, faces, given.count)
    new_console().print(f"picture: {picture}")


def _default_picture(faces: Faces, what: str = "overview") -> Path:
    return Path(re.sub(r"[^\w.-]+", "-", faces.name).strip("-.") + f"-{what}.png")


def _export(given: argparse.Namespace) -> None:
    from fer_data.export import JPEG_QUALITY, check_new, export

    check_new(given.destination)
    faces = _opened(given)
    export(faces, given.destination, given.format)
    sizes = ", ".join(f"{split.name} {len(split):,}" for split in (faces.train, faces.val, faces.test))
    quality = f" of quality {JPEG_QUALITY}" if given.format == "jpg" else ""
    console = new_console()
    console.print(f"{given.destination}: {faces.name} as {given.format}{quality}: {sizes}")
    for note in faces.notes:
        console.print(f"note: {note}")


def _download(given: argparse.Namespace) -> None:
    from fer_data.download import OFFICIAL_MD5, download

    path, official = download(given.destination)
    console = new_console()
    what = "the official file" if official else f"NOT the official file, whose MD5 is {OFFICIAL_MD5}"
    console.print(f"{path}: {what}\nlook at it:\n  python -m fer_data describe {path}")
