import re
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from tracking.figure_text import drawable
from tracking.figures.parts import png, svg
from tracking.figures.trial_figures import confusion_figure

ONLY_IN_STIX = "\N{CIRCLED LATIN CAPITAL LETTER A}"  # a font that comes with matplotlib, beside its usual one
IN_NO_FONT = "\U000e0100"


def drawn(classes: list[str], title: str = "") -> tuple[bytes, str]:
    """The confusion matrix as PNG and SVG; whatever matplotlib would warn of is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [confusion_figure(np.eye(len(classes), dtype=np.int64), classes, title) for _ in range(2)]
        return png(figures[0]), svg(figures[1])


def test_names_that_no_font_can_write_are_numbers_in_pictures() -> None:
    assert drawable(["高兴" + IN_NO_FONT, "Éva, любовь", ONLY_IN_STIX]) == ["class 0", "Éva, любовь", ONLY_IN_STIX]


def test_other_scripts_are_drawn_by_a_font_that_has_them() -> None:
    usual, _ = drawn(["A", "b"])
    other, page = drawn([ONLY_IN_STIX, "b"])
    assert other != usual
    assert ONLY_IN_STIX in page


def test_a_title_in_no_font_is_no_warning_and_stays_in_the_page() -> None:
    picture, page = drawn(["a", "b"], title=f"faces{IN_NO_FONT}")
    assert picture == drawn(["a", "b"], title="faces?")[0]
    assert IN_NO_FONT in page


@pytest.mark.parametrize("name", ["$\\foo$", "$x$ and $y$", "100 % $"])
def test_dollar_signs_are_no_mathematics(name: str) -> None:
    _, page = drawn([name, "b"], title=name)
    assert page.count(name) == 5  # each axis of both matrices, and the title


def test_exponents_along_an_axis_stay() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(1e-5, 1)
    assert "mathdefault" not in re.sub("<!--.*?-->", "", svg(figure))
