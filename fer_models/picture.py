"""Draws a net: its layers in the order of the forward pass, each with its shape and parameters."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_common.files import write_whole
from fer_models.errors import ModelError
from fer_models.listing import Layer, NetSummary

_MOST_ROWS = 40
"""Maximum number of layers per column; a longer net has several columns of equal length."""
_COLUMN_INCHES, _ROW_INCHES, _HEAD_INCHES = 5.2, 0.3, 0.6
_COLOURS = {"Conv": "#cfe3f3", "Linear": "#f8d5bd", "Pool": "#c5e8dc", "Norm": "#efd9e6", "Dropout": "#e8e8e8"}
_PLAIN = "#f7f7f7"


def draw_net(summary: NetSummary, path: Path) -> None:
    """Write a PNG atomically. Raises ModelError for a disk error."""
    columns = -(-len(summary.layers) // _MOST_ROWS)
    rows = -(-len(summary.layers) // columns)
    width, height = _COLUMN_INCHES * columns, _HEAD_INCHES + _ROW_INCHES * (rows + 0.5)
    figure = Figure(figsize=(width, height))
    figure.suptitle(
        f"{summary.name}: {summary.parameters:,} parameters, {summary.megabytes:.1f} MB, "
        f"{summary.multiply_adds / 1e6:,.1f} M multiply-adds\n{len(summary.layers)} layers in the order of the "
        "forward pass, without branches",
        fontsize=9, y=1 - 0.12 / height, va="top", wrap=True,
    )  # fmt: skip
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - _HEAD_INCHES / height))
    axes.set(xlim=(0, columns), ylim=(rows + 0.2, -0.3))
    axes.set_axis_off()
    most = max(layer.parameters for layer in summary.layers) or 1
    for number, layer in enumerate(summary.layers):
        column, row = divmod(number, rows)
        _draw_layer(axes, layer, column, row, layer.parameters / most)
        if row:
            axes.annotate("", (column + 0.2, row + 0.1), (column + 0.2, row - 0.22), arrowprops={"arrowstyle": "-|>",
                          "lw": 0.7, "mutation_scale": 6})  # fmt: skip
    _save(figure, path)


def _draw_layer(axes: Axes, layer: Layer, column: int, row: int, share: float) -> None:
    colour = next((colour for kind, colour in _COLOURS.items() if kind in layer.kind), _PLAIN)
    axes.add_patch(
        FancyBboxPatch(
            (column + 0.02, row + 0.1), 0.72, 0.66, boxstyle="round,pad=0,rounding_size=0.01", mutation_aspect=12,
            facecolor=colour, edgecolor="#777777", linewidth=0.5,
        )
    )  # fmt: skip
    middle, shape = row + 0.45, "×".join(map(str, layer.output))
    name = layer.name if len(layer.name) <= 34 else f"…{layer.name[-33:]}"
    axes.text(column + 0.035, middle, name, va="center", fontsize=7, parse_math=False)
    axes.text(column + 0.55, middle, layer.kind[:16], va="center", ha="right", fontsize=6.5, color="#444444")
    axes.text(column + 0.73, middle, shape, va="center", ha="right", fontsize=7)
    if layer.parameters:
        axes.barh(middle, 0.11 * share, left=column + 0.76, height=0.5, color="#0072B2")
        axes.text(column + 0.765 + 0.11 * share, middle, f"{layer.parameters:,}", va="center", fontsize=6.5)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    try:
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=110))
    except OSError as error:
        raise ModelError(
            f"{path}: the picture cannot be written: {error.strerror}; choose another --picture"
        ) from error
