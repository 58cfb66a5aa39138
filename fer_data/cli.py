"""`python -m fer_data describe|show|export|download`: describe, draw, convert and download data sets."""

from __future__ import annotations

import argparse
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from rich.text import Text

from fer_common.console import new_console
from fer_common.errors import Parser
from fer_common.flags import Flag, add_flags, flags
from fer_common.verbs import Verb, add_verbs, run_verb
from fer_data.cache.cache_folder import open_cached
from fer_data.cache.store import prepare
from fer_data.faces import Faces
from fer_data.options import DataOptions

_SOURCE = (
    "csv, folder of images, of Caffe lists or LMDB; or 'synthetic'. If classes are only numbered, "
    "classes.txt in the folder names them, one per line in the order of the numbers"
)
Face = Annotated[int, Flag("its index in the train split", "N")]
Count = Annotated[int, Field(ge=1, le=1024)]


class _OfSource(Verb):
    """A verb for one data set."""

    source: Annotated[str, Flag(_SOURCE, "SOURCE", positional=True)]
    data: DataOptions

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments and the options of the data set."""
        add_flags(parser, cls)
        group = parser.add_argument_group("how the data is read, and which part is used")
        add_flags(group, DataOptions, [name for name in flags(DataOptions) if name != "source"])

    @classmethod
    def fields_given(cls, given: argparse.Namespace) -> dict[str, Any]:
        """The given fields of the verb and the options of the data set."""
        return super().fields_given(given) | {"data": DataOptions.given(given, given.source)}

    def faces(self) -> Faces:
        """Read the data set."""
        return open_cached(prepare(self.data))


class Describe(_OfSource):
    """Count and draw what a data set contains.

    Example: python -m fer_data describe fer2013.csv
    """

    as_json: Annotated[bool, Flag("print JSON; draw only with --picture", name="json")] = False
    picture: Annotated[Path | None, Flag("file of the picture (default NAME-overview.png)", "FILE.png")] = None

    def __call__(self) -> int:
        from fer_data.describe import counts_table, describe, remarks
        from fer_data.overview import draw_overview

        faces = self.faces()
        description = describe(faces)
        picture = self.picture or (None if self.as_json else _default_picture(faces, "overview"))
        if picture:
            draw_overview(picture, faces)
        console = new_console()
        if self.as_json:
            console.print(json.dumps(description, indent=1, ensure_ascii=False))
            return 0
        if faces.synthetic:
            console.print(
                Text("SYNTHETIC FACES, drawn by this program: they say nothing about people", style="bold yellow")
            )
        console.print(f"{faces.name}, fingerprint {faces.fingerprint}")
        console.print(counts_table(faces))
        for remark in (*remarks(description), *(f"note: {note}" for note in faces.notes), f"picture: {picture}"):
            console.print(remark)
        return 0


class _Show(_OfSource):
    picture: Annotated[Path | None, Flag("default NAME-WHAT.png", "FILE.png")] = None

    @abstractmethod
    def drawing(self) -> Callable[[Path, Faces], None]:
        """A function that draws the picture. Raises errors of the arguments before the data is read."""

    def __call__(self) -> int:
        draw, faces = self.drawing(), self.faces()
        picture = self.picture or _default_picture(faces, type(self).__name__.lower())
        draw(picture, faces)
        new_console().print(f"picture: {picture}")
        return 0


class Augment(_Show):
    """Draw one face and random augmentations of it, as in training.

    Example: python -m fer_data show augment fer2013.csv --set flip=0.5 --set rotate_deg=12
    """

    face: Face = 0
    settings: Annotated[
        tuple[str, ...],
        Flag("an augmentation setting, as flip=0.5 (repeatable)", "KEY=VALUE", name="set", repeat=True),
    ] = ()
    config: Annotated[Path | None, Flag("a trial's config.json with the augmentation", "FILE")] = None
    count: Annotated[Count, Flag("number of versions", "N")] = 31
    seed: Annotated[int, Flag("random seed", "N")] = 0

    def drawing(self) -> Callable[[Path, Faces], None]:
        from fer_data.show import draw_augmented, read_augmentation

        config = read_augmentation(self.settings, self.config)
        return partial(draw_augmented, place=self.face, config=config, count=self.count, seed=self.seed)


class Preprocess(_Show):
    """Draw one face under every preprocessing.

    Example: python -m fer_data show preprocess fer2013.csv --face 7
    """

    face: Face = 0

    def drawing(self) -> Callable[[Path, Faces], None]:
        from fer_data.show import draw_preprocessed

        return partial(draw_preprocessed, place=self.face)


class First(_Show):
    """Draw the class counts and the first train faces.

    Example: python -m fer_data show first fer2013.csv
    """

    count: Annotated[Count, Flag("number of faces", "N")] = 128

    def drawing(self) -> Callable[[Path, Faces], None]:
        from fer_data.show import draw_first

        return partial(draw_first, count=self.count)


def _default_picture(faces: Faces, what: str) -> Path:
    return Path(re.sub(r"[^\w.-]+", "-", faces.name).strip("-.") + f"-{what}.png")


class Export(_OfSource):
    """Write a data set for Caffe: images or LMDB, index lists, mean image.

    Example: python -m fer_data export fer2013.csv faces --format png
    """

    destination: Annotated[Path, Flag("new folder; must not exist", "DEST", positional=True)]
    format: Annotated[Literal["png", "jpg", "lmdb"], Flag("png and lmdb are exact, jpg has quality 95")]

    def __call__(self) -> int:
        from fer_data.export import JPEG_QUALITY, check_new, export

        check_new(self.destination)
        faces = self.faces()
        export(faces, self.destination, self.format)
        quality = f" of quality {JPEG_QUALITY}" if self.format == "jpg" else ""
        console = new_console()
        console.print(f"{self.destination}: {faces.name} as {self.format}{quality}: {faces.sizes}")
        for note in faces.notes:
            console.print(f"note: {note}")
        return 0


class Download(Verb):
    """Download fer2013.csv with your Kaggle account.

    Example: python -m fer_data download
    """

    destination: Annotated[
        Path, Flag("folder for fer2013.csv (default: the current folder)", "DEST", positional=True)
    ] = Path()

    def __call__(self) -> int:
        from fer_data.download import OFFICIAL_MD5, download

        path, official = download(self.destination)
        what = "the official file" if official else f"NOT the official file, which has MD5 {OFFICIAL_MD5}"
        new_console().print(f"{path}: {what}\nnext:\n  python -m fer_data describe {path}")
        return 0


def parser() -> Parser:
    """The command line of `python -m fer_data`."""
    top = Parser(prog="python -m fer_data", description="Describe, draw or convert a data set, or download FER2013.")
    verbs = add_verbs(top, {"describe": Describe, "export": Export, "download": Download})
    show = verbs.add_parser("show", help="draw augmented or preprocessed versions of a face")
    add_verbs(show, {"augment": Augment, "preprocess": Preprocess, "first": First}, "WHAT")
    return top


def main(argv: Sequence[str]) -> int:
    """Run `python -m fer_data VERB …`; return the exit code."""
    return run_verb(parser, argv, lambda line: new_console(stderr=True).print(Text(line, style="red")))
