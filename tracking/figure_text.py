"""Prepares user text for figures: any script that an installed font supports, without mathtext."""

from collections.abc import Sequence
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

_USUAL = "DejaVu Sans"  # comes with matplotlib
_BOXES = "Last Resort"  # likewise; draws a box for every character
_EXPONENT = r"\mathdefault{"  # in matplotlib's own tick labels


def drawable(names: Sequence[str]) -> list[str]:
    """Class names for a figure. A name with characters that no installed font has becomes `class 3`, by its label."""
    return [name if all(map(_font_of, name)) else f"class {label}" for label, name in enumerate(names)]


def as_written(figure: Figure) -> list[Text]:
    """Turn off math in all texts of the figure, so that dollar signs are drawn as they are; return the texts."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # tick labels are created on request
    texts = [text for text in figure.findobj(Text) if text.get_text() and _EXPONENT not in text.get_text()]
    for text in texts:
        text.set_parse_math(False)
    return texts


def in_fonts_that_exist(texts: Sequence[Text]) -> None:
    """Give texts in other scripts a font that has their characters; a character that no font has becomes `?`."""
    for text in texts:
        fonts = {_font_of(character) for character in text.get_text()}
        if fonts != {_USUAL}:
            text.set_fontfamily([_USUAL, *sorted(fonts - {_USUAL, ""})])
            text.set_text("".join(character if _font_of(character) else "?" for character in text.get_text()))


@cache
def _font_of(character: str) -> str:
    """The font that has a character: matplotlib's own if it does, empty if none does."""
    if character.isspace() or ord(character) in _usual_characters():
        return _USUAL
    others = (font for font in fontManager.ttflist if not font.name.startswith(_BOXES))
    return next((font.name for font in others if _has(font.fname, character)), "")


@cache
def _usual_characters() -> frozenset[int]:
    return frozenset(FT2Font(findfont(_USUAL)).get_charmap())


def _has(file: str, character: str) -> bool:
    try:
        return bool(FT2Font(file).get_char_index(ord(character)))
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or unreadable
        return False
