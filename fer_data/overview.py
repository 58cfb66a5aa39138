"""A picture of a data set: the distribution of its classes, and some of its faces.

The three colours are distinguishable for colour-blind readers (Okabe & Ito 2008).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator

from fer_common.files import write_whole
from fer_data.faces import DataError, Faces, Images, Split

_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73"}
_DPI = 100
_WIDTH_INCHES = 12.0
_BARS_INCHES, _ROW_INCHES, _MARGINS_INCHES = 3.6, 0.92, 1.9
_MAX_CLASSES_SHOWN = 16
_FACES_A_CLASS = 12
_GAP = 1 / 12  # between faces, in sides
_SEED = 0


def draw_overview(path: Path, faces: Faces) -> None:
    """Write a PNG with the counts of each class in each split, and random train faces of each class.

    Of more than 16 classes the first 16 are drawn, and a caption mentions this. A class whose name has characters that
    matplotlib's font lacks is named by its label, for example `class 3`.

    Raises:
        DataError: a disk error.
    """
    shown = faces.classes[:_MAX_CLASSES_SHOWN]
    height = _BARS_INCHES + _MARGINS_INCHES + _ROW_INCHES * len(shown)
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    top, middle, bottom = 1 - 0.95 / height, 1 - (0.95 + _BARS_INCHES) / height, 0.1 / height
    figure.suptitle(writable(_title(faces)), fontsize=13, y=1 - 0.25 / height, va="top", parse_math=False)
    names = [_shortened(name, 10) if writable(name) == name else f"class {label}" for label, name in enumerate(shown)]
    bars = figure.add_axes((0.075, middle + 0.45 / height, 0.91, top - middle - 0.45 / height))
    draw_counts(bars, faces, names)
    sheet = figure.add_gridspec(
        len(shown), 1, left=0.075, right=0.985, top=middle - 0.45 / height, bottom=bottom, hspace=0.06
    )
    strips = [figure.add_subplot(sheet[row, 0]) for row in range(len(shown))]
    strips[0].set_title(f"train, n = {len(faces.train):,}: random faces of each class", fontsize=11, loc="left")
    for label, (axes, name) in enumerate(zip(strips, names, strict=True)):
        _draw_faces(axes, faces.train, label, name)
    save(figure, path)


def _title(faces: Faces) -> str:
    kind = "SYNTHETIC FACES, " if faces.synthetic else ""
    height, width = faces.train.images.shape[1:]
    more = len(faces.classes) - _MAX_CLASSES_SHOWN
    rest = f"; the first {_MAX_CLASSES_SHOWN} of {len(faces.classes)} classes" if more > 0 else ""
    images = f"{faces.sizes} images of {width}×{height}{rest}"
    return f"{kind}{_shortened(faces.name, 60)}: {images}\nfingerprint {faces.fingerprint}"


def writable(text: str) -> str:
    """The text with `?` for each character that matplotlib's font lacks."""
    known = FT2Font(findfont("DejaVu Sans")).get_charmap()
    return "".join(character if character.isspace() or ord(character) in known else "?" for character in text)


def draw_counts(axes: Axes, faces: Faces, names: Sequence[str]) -> None:
    """Draw the number of images of each class in each split as bars."""
    width = 0.27
    for offset, split in enumerate(faces.splits, start=-1):
        counts = split.counts(len(faces.classes))[: len(names)]
        places = np.arange(len(names)) + offset * width
        bars = axes.bar(places, counts, width, color=_COLOURS[split.name], label=f"{split.name} (n = {len(split):,})")
        axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8 if len(names) <= 8 else 6, padding=1)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="x", length=0, rotation=0 if len(names) <= 8 else 20)
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.01, y=0.1)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)


def _draw_faces(axes: Axes, train: Split, label: int, name: str) -> None:
    of_class = np.flatnonzero(train.labels == label)
    rng = np.random.default_rng((_SEED, label))
    chosen = np.sort(rng.permutation(of_class)[:_FACES_A_CLASS])
    axes.imshow(_strip(train.images[chosen]), cmap="gray", vmin=0, vmax=255, aspect="equal")
    axes.set_anchor("W")
    axes.set_axis_off()
    title = f"{name}\n{len(of_class):,}"
    axes.text(-0.008, 0.5, title, transform=axes.transAxes, ha="right", va="center", fontsize=9, parse_math=False)


def _shortened(name: str, length: int) -> str:
    """Omit the middle of a long name: names with the same beginning often differ at the end."""
    kept = (length - 1) // 2
    return name if len(name) <= length else f"{name[:kept]}…{name[-kept:]}"


def _strip(images: Images) -> Images:
    """Place images [n, height, width] side by side on white."""
    height, width = images.shape[1:]
    step = width + max(round(width * _GAP), 1)
    strip = np.full((height, step * _FACES_A_CLASS), 255, dtype=images.dtype)
    for place, image in enumerate(images):
        strip[:, place * step : place * step + width] = image
    return strip


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, atomically. Raises DataError for a disk error."""
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    try:
        write_whole(path, lambda file: file.write(picture.getvalue()))
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be written: {error}; choose another --picture") from error
