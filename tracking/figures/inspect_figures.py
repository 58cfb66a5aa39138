"""Figures of a net: its first filters, feature maps of a layer, and saliency maps of its predictions.

Legend: n faces, c channels, h and w height and width, o filters, k kernel size. Positions in a figure are in inches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracking.errors import TrackingError
from tracking.figures.parts import ORANGE

Floats = NDArray[np.floating]

_SIGNED, _UNSIGNED = "PuOr", "viridis"  # both suitable for colour-blind readers; the middle of PuOr is 0
_WIDTH, _LEFT, _RIGHT, _GAP = 13.0, 0.35, 1.25, 0.07
_LEAST_WIDTH = 7.5  # inches, for a title
_FILTERS_A_ROW = 16
_MAPS_A_FACE = 16
_CELLS_A_ROW = 8
_KEPT_PERCENT = 99.5  # of a layer's values inside its scale, so that a single maximum does not darken the rest
_ALIKE = 1e-6


@dataclass(frozen=True)
class FaceSheet:
    """Faces [n, h, w] in 0..255, with a caption for each, and whether its prediction is wrong: both [n]."""

    images: Floats | NDArray[np.uint8]
    captions: Sequence[str]
    wrong: Sequence[bool]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.captions) == len(self.wrong) > 0:
            counts = len(self.images), len(self.captions), len(self.wrong)
            raise TrackingError(f"faces, captions and verdicts: {counts}, expected one of each per face, 1 or more")


def filters_figure(filters: Floats, title: str) -> Figure:
    """Filters [o, k, k] as a grid, numbered in the net's order, all on one scale that is symmetric about zero."""
    columns = min(_FILTERS_A_ROW, math.ceil(math.sqrt(2 * len(filters))))
    sheet = _Sheet(math.ceil(len(filters) / columns), columns, title, side=0.9, line=0.2)
    scale = _Scale(float(np.abs(filters).max()) or 1.0, signed=True)
    for number, values in enumerate(filters):
        sheet.draw(number // columns, number % columns, values, scale, str(number))
    scale.show(sheet.figure, "weight")
    return sheet.figure


def maps_figure(faces: FaceSheet, maps: Floats, title: str) -> Figure:
    """Feature maps [n, c, h, w] of one layer, one face per row.

    The channels that vary most over these faces are drawn, on one scale. The subtitle gives the number of channels, and
    how many are constant.
    """
    spread = maps.std(axis=(2, 3)).mean(axis=0)
    chosen = np.argsort(-spread, kind="stable")[:_MAPS_A_FACE]
    sheet = _Sheet(len(maps), 1 + len(chosen), f"{title}\n{_about(maps, len(chosen))}", side=0.95, line=0.3)
    scale = _scale_of(maps[:, chosen])
    for row, channels in enumerate(maps):
        sheet.draw_face(row, 0, faces, row, fontsize=7)
        for column, channel in enumerate(chosen, 1):
            sheet.draw(row, column, channels[channel], scale, "" if row else str(channel))
    scale.show(sheet.figure, "output")
    return sheet.figure


def units_figure(faces: FaceSheet, units: Floats, title: str) -> Figure:
    """Outputs [n, ...] of a layer without feature maps: one face per row, one unit per column."""
    values = units.reshape(len(units), -1)
    height = 1.3 + 0.42 * len(values)
    figure = Figure(figsize=(_WIDTH, height))
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    figure.subplots_adjust(left=0.16, right=1 - _RIGHT / _WIDTH, top=1 - 0.65 / height, bottom=0.5 / height)
    axes = figure.subplots()
    scale = _scale_of(values)
    axes.imshow(values, cmap=scale.colours, norm=scale.norm, aspect="auto", interpolation="none")
    axes.set_yticks(range(len(values)), [caption.replace("\n", ", ") for caption in faces.captions], fontsize=8)
    axes.set_xlabel("unit")
    scale.show(figure, "output")
    return figure


def evidence_figure(faces: FaceSheet, layers: Mapping[str, Floats], title: str) -> Figure:
    """Grad-CAM maps [n, h, w] of the prediction, one per layer beside each face, each map on its own scale from 0."""
    sheet, places = _beside_faces(faces, 1 + len(layers), title)
    scale = _Scale(1.0, signed=False)
    for index, (row, column) in enumerate(places):
        for offset, (name, maps) in enumerate(layers.items(), 1):
            most = float(maps[index].max())
            face = faces.images[index]
            sheet.draw(row, column + offset, face, None, name if most > 0 else f"{name}\nno evidence", fontsize=9)
            if most > 0:
                sheet.draw(row, column + offset, maps[index] / most, scale, alpha=0.6)
    scale.show(sheet.figure, "share of the\nmap's maximum")
    return sheet.figure


def drop_figure(faces: FaceSheet, drops: Floats, title: str) -> Figure:
    """How much covering a region lowers the predicted probability: [n, h, w] beside each face, all on one scale."""
    sheet, places = _beside_faces(faces, 2, title)
    scale = _Scale(max(1.0, 100 * float(np.abs(drops).max())), signed=True)
    for index, (row, column) in enumerate(places):
        sheet.draw(row, column + 1, faces.images[index], None)
        sheet.draw(row, column + 1, 100 * drops[index], scale, alpha=0.6)
    scale.show(sheet.figure, "drop of the\nprobability, points")
    return sheet.figure


@dataclass(frozen=True)
class _Scale:
    """A colour scale from 0 to `reach`, or from -reach to reach. `beyond` means that some values are larger."""

    reach: float
    signed: bool
    beyond: bool = False

    @property
    def colours(self) -> str:
        return _SIGNED if self.signed else _UNSIGNED

    @property
    def norm(self) -> Normalize:
        return Normalize(-self.reach if self.signed else 0.0, self.reach)

    def show(self, figure: Figure, name: str) -> None:
        """Draw the colour bar at the right."""
        width, height = figure.get_size_inches()
        tall = min(3.2, height - 1.2)
        bar = figure.add_axes((1 - 1.05 / width, (height - 0.7 - tall) / height / 2, 0.16 / width, tall / height))
        extend = ("both" if self.signed else "max") if self.beyond else "neither"
        figure.colorbar(ScalarMappable(self.norm, self.colours), cax=bar, label=name, extend=extend)


class _Sheet:
    """Square images in rows and columns under a title, each with a caption above it.

    All are in one Axes, because drawing hundreds of Axes takes seconds.
    """

    def __init__(self, rows: int, columns: int, title: str, *, side: float, line: float) -> None:
        self.side = min(side, (_WIDTH - _LEFT - _RIGHT) / columns - _GAP)
        self.line = line
        self.head = 0.4 + 0.2 * (1 + title.count("\n"))
        width = max(_LEFT + columns * (self.side + _GAP) + _RIGHT, _LEAST_WIDTH)
        height = self.head + rows * (line + self.side + _GAP) + 0.1
        self.figure = Figure(figsize=(width, height))
        self.figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
        self._axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._axes.set_autoscale_on(False)

    def draw(
        self,
        row: int,
        column: int,
        values: Floats | NDArray[np.uint8],
        scale: _Scale | None,
        caption: str = "",
        *,
        alpha: float = 1.0,
        fontsize: float = 8,
        ink: str = "black",
    ) -> None:
        """Draw values [h, w] with a caption above them; without a scale they are grey levels 0..255."""
        left = _LEFT + column * (self.side + _GAP)
        top = self.head + row * (self.line + self.side + _GAP) + self.line
        look: dict[str, Any] = {"cmap": "gray", "norm": Normalize(0, 255)}
        if scale is not None:
            look = {"cmap": scale.colours, "norm": scale.norm}
        extent = (left, left + self.side, top + self.side, top)
        self._axes.imshow(values, extent=extent, aspect="auto", interpolation="none", alpha=alpha, **look)
        middle = left + self.side / 2
        self._axes.text(middle, top - 0.03, caption, ha="center", va="bottom", fontsize=fontsize, color=ink)

    def draw_face(self, row: int, column: int, faces: FaceSheet, index: int, *, fontsize: float) -> None:
        """Draw a face under its label and its prediction."""
        ink = ORANGE if faces.wrong[index] else "black"
        caption = faces.captions[index]
        self.draw(row, column, faces.images[index], None, caption, fontsize=fontsize, ink=ink)


def _beside_faces(faces: FaceSheet, width: int, title: str) -> tuple[_Sheet, list[tuple[int, int]]]:
    """A sheet with `width` cells per face and several faces per row, and the columns in which the faces are."""
    count = len(faces.images)
    across = min(count, max(1, _CELLS_A_ROW // width))
    sheet = _Sheet(math.ceil(count / across), across * width, title, side=1.7, line=0.4)
    places = [(index // across, index % across * width) for index in range(count)]
    for index, (row, column) in enumerate(places):
        sheet.draw_face(row, column, faces, index, fontsize=9)
    return sheet, places


def _about(maps: Floats, shown: int) -> str:
    channels, height, width = maps.shape[1:]
    which = f"the {shown} of {channels} channels that vary most" if shown < channels else f"all {channels} channels"
    largest = float(np.abs(maps).max())
    same = int((np.ptp(maps, axis=(0, 2, 3)) <= _ALIKE * largest).sum())
    return f"{which}, maps of {height}×{width}; {same} of {channels} are constant over these faces"


def _scale_of(values: Floats) -> _Scale:
    """A scale that is symmetric about 0 if some values are negative, else from 0; a few values may be beyond it."""
    largest = float(np.abs(values).max())
    reach = float(np.percentile(np.abs(values), _KEPT_PERCENT)) or largest or 1.0
    return _Scale(reach, signed=float(values.min()) < 0, beyond=largest > reach)
