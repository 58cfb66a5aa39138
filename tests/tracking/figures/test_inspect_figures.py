import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from tracking.errors import TrackingError
from tracking.figures.inspect_figures import (
    FaceSheet,
    drop_figure,
    evidence_figure,
    filters_figure,
    maps_figure,
    units_figure,
)
from tracking.figures.parts import png

FACES = np.full((2, 8, 8), 90, np.uint8)
SHEET = FaceSheet(FACES, ["Happy (0)\nsaid Sad 60%", "Sad (1)\nsaid Sad 70%"], [True, False])


def words(figure: Figure) -> str:
    inside = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([figure.get_suptitle(), *inside, *(axes.get_ylabel() for axes in figure.axes)])


def drawn(figure: Figure) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png(figure)))[..., :3]


def limits(figure: Figure) -> tuple[float, float]:
    """Of the scale at the right."""
    low, high = figure.axes[-1].get_ylim()
    return low, high


def test_filters_have_one_scale_around_zero() -> None:
    filters = np.zeros((3, 5, 5))
    filters[1, 2, 2] = -0.75
    figure = filters_figure(filters, "SYNTHETIC FACES\nconv1")
    assert limits(figure) == (-0.75, 0.75)
    assert words(figure).split("\n") == ["SYNTHETIC FACES", "conv1", "0", "1", "2", "", "weight"]


def test_filters_that_are_all_zero_can_be_drawn() -> None:
    assert drawn(filters_figure(np.zeros((1, 3, 3)), "none")).std() > 0


def test_maps_show_the_channels_that_vary_most_and_count_the_dead() -> None:
    maps = np.zeros((2, 20, 4, 4))
    for channel in range(18):
        maps[:, channel, 0, 0] = 18 - channel
    figure = maps_figure(SHEET, maps, "val, 2 of n = 10")
    shown = words(figure)
    assert "the 16 of 20 channels that vary most, maps of 4×4; 2 of 20 are constant over these faces" in shown
    assert [line for line in shown.split("\n") if line.isdecimal()] == [str(channel) for channel in range(16)]
    assert limits(figure)[0] == 0
    assert limits(maps_figure(SHEET, -maps, "signed"))[0] < 0


def test_a_wrong_answer_is_told_by_colour_and_word() -> None:
    figure = drop_figure(SHEET, np.zeros((2, 8, 8)), "t")
    inks = {text.get_text().split("\n")[-1]: text.get_color() for axes in figure.axes for text in axes.texts}
    assert inks["said Sad 60%"] != inks["said Sad 70%"] == "black"


def test_drops_are_in_points_on_one_scale() -> None:
    drops = np.zeros((2, 8, 8))
    drops[1, 3, 3] = -0.25
    figure = drop_figure(SHEET, drops, "t")
    assert limits(figure) == (-25, 25)
    assert "points" in words(figure)


def test_evidence_is_shown_where_there_is_some() -> None:
    nothing, some = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    some[:, :4] = 3.0
    figure = evidence_figure(SHEET, {"conv1, 8×8": some, "conv2, 4×4": nothing}, "t")
    assert words(figure).count("no evidence") == 2
    picture = drawn(figure)
    colourful = np.ptp(picture, axis=2) > 0.2
    assert colourful[:, : picture.shape[1] * 3 // 4].mean() > 0.02


def test_units_of_any_shape_are_a_line_a_face() -> None:
    figure = units_figure(SHEET, np.arange(12).reshape(2, 6, 1, 1), "t")
    assert figure.axes[0].get_xlim() == (-0.5, 5.5)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][1] == "Sad (1), said Sad 70%"


def test_a_caption_a_face() -> None:
    with pytest.raises(TrackingError, match=r"\(2, 1, 2\), expected one of each"):
        FaceSheet(FACES, ["Happy"], [True, False])
