"""Shared by all figures: colours, plain axes, and output as a file or as a part of a page.

Colours are Okabe & Ito's (2008), which colour-blind readers can distinguish; lines differ by more than colour. In
a page black becomes the colour of the text, in light and dark.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from tracking.figure_text import as_written, in_fonts_that_exist
from tracking.record.files import write_bytes

BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#7F7F7F",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, GREY)
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_DPI = 100
_SMALLEST_TITLE = 7.5


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure; atomically.

    Raises:
        TrackingError: a disk error.
    """
    write_bytes(path, png(figure))


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    in_fonts_that_exist(as_written(figure))
    _fit_title(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI, pil_kwargs={"compress_level": 3})
    return picture.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an inline `<svg>` that scales to its container and uses the page's text colour and font."""
    as_written(figure)
    _fit_title(figure)
    FigureCanvasSVG(figure)
    picture = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser may have the fonts
        nobody = {"Date": None, "Creator": None}
        figure.savefig(picture, format="svg", transparent=True, bbox_inches="tight", metadata=nobody)
    drawn = picture.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", drawn)
    # Names of groups repeat in each figure, and an id must be unique in a page.
    drawn = re.sub(r'<g id="[a-zA-Z]+\d*_\d+">', "<g>", drawn)
    return drawn.replace("#000000", "currentColor")


def _fit_title(figure: Figure) -> None:
    """Make a title that is wider than the figure smaller; one that would be too small to read takes two lines."""
    renderer: RendererAgg = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    room = 0.98 * figure.bbox.width
    for text in figure.texts:
        words, size = text.get_text(), float(text.get_fontsize())
        if not words or words != figure.get_suptitle():
            continue
        fitting = size * room / text.get_window_extent(renderer).width
        if fitting < _SMALLEST_TITLE:
            text.set_text("\n".join(textwrap.wrap(words, len(words) // 2 + len(words) // 10)))
            fitting = min(size * room / text.get_window_extent(renderer).width, _SMALLEST_TITLE)
        text.set_fontsize(min(fitting, size))


def as_percent(axis: Axis) -> None:
    """Show the axis's shares 0..1 in percent, with the fewest decimals that are exact."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # a step of 2.5 would need a further decimal
    axis.set_major_formatter(_Percent(1))


class _Percent(PercentFormatter):
    def format_ticks(self, values: list[float]) -> list[str]:
        percents = 100 * np.asarray(values)
        self.decimals = next(
            (places for places in range(4) if np.allclose(percents.round(places), percents, rtol=0, atol=1e-6)), 4
        )
        return super().format_ticks(values)


def plain(axes: Axes) -> None:
    """Draw a light grid and no box."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_cells(
    axes: Axes,
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    classes: Sequence[str],
    *,
    colours: str = "Blues",
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw a matrix [classes, classes] as coloured cells with one text each; row = label, column = prediction."""
    picture = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="none")
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    shades = picture.to_rgba(values)[..., :3] @ np.array([0.2126, 0.7152, 0.0722])
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            ink = "white" if shades[row, column] < 0.45 else "#1a1a1a"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=10)
