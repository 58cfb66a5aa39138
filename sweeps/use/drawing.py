"""Draws a photograph with a box around each face, and the probabilities of each face as bars."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sweeps.use.predict import Answer, Answered
from tracking.figures.parts import BLUE, ORANGE

_MOST_BARS = 6
"""How many faces get bars; the others only get a box and a name."""


def answers_figure(answered: Answered) -> Figure:
    """The picture of a photograph with predictions."""
    photo = answered.photo
    assert photo is not None
    shown = answered.answers[:_MOST_BARS]
    height = max(4.0, 1.5 * len(shown))
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = np.ravel(np.asarray(figure.subfigures(1, 2, width_ratios=(3, 2))))
    axes = left.subplots()
    axes.imshow(photo.rgb, extent=(0, photo.width, photo.height, 0))
    axes.set_axis_off()
    for number, answer in enumerate(answered.answers, 1):
        if answer.box:
            box = answer.box
            axes.add_patch(Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=ORANGE, lw=2))
            axes.text(box.left, box.top, f"{number} {answer.expression} {answer.probabilities[answer.expression]:.0%}",
                      fontsize=8, va="bottom", color="white", backgroundcolor=ORANGE)  # fmt: skip
    for number, (bars, answer) in enumerate(zip(np.atleast_1d(right.subplots(len(shown), 1)), shown, strict=True), 1):
        _draw_bars(bars, number, answer)
    return figure


def _draw_bars(axes: Axes, number: int, answer: Answer) -> None:
    names, shares = list(answer.probabilities), list(answer.probabilities.values())
    bars = axes.barh(names, shares, color=[ORANGE if name == answer.expression else BLUE for name in names])
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=7, padding=2)
    axes.set_xlim(0, 1.12)
    axes.set_title(f"{number}: {answer.sentence}", fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.xaxis.set_visible(False)
