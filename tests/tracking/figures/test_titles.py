"""Titles of figures: a run's name and changes may be long."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tracking.figures.parts import png, svg

LONG = "teachers/2: compact_resnet, changed (size, rotate_deg, erase, views, widths, blocks), seed 3 of 3 on FER2013"


@pytest.mark.parametrize("words", ["night/3: lenet", LONG, f"{LONG}, PrivateTest, n = 3,589, epoch 12 of 12; {LONG}"])
def test_a_title_is_whole_and_inside_the_picture(words: str) -> None:
    for draw in (png, svg):
        figure = Figure(figsize=(9.2, 5.6))
        title = figure.suptitle(words, fontsize=12)
        draw(figure)
        extent = title.get_window_extent(FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.width
        assert title.get_text().split() == words.split()
        assert title.get_fontsize() >= 6
        assert title.get_fontsize() == 12 or words != "night/3: lenet"
