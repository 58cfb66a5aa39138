"""Parts of pages: templates, formats of numbers, faces as embedded images.

A page is one file with its style, script and images; it loads nothing from elsewhere.
"""

import base64
import io
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from tracking.metrics.compare import Disagreement, Pair
from tracking.metrics.scores import Interval
from tracking.metrics.significance import RESAMPLES
from tracking.metrics.summary import LOWER_IS_BETTER, METRIC_NAMES, data_name

_TEMPLATES = Path(__file__).parent / "templates"
_IN_POINTS = ("accuracy", "balanced_accuracy", "ece", "ece_calibrated")


class _Bounded(Protocol):
    low: float
    high: float


def render(template: str, **content: object) -> str:
    """Render a template with `content`; every text is escaped."""
    return _environment().get_template(template).render(**content)


def where(dataset: str, split: str, n: int | None, synthetic: bool) -> str:
    """The caption of every number: data set, split, n."""
    return f"{data_name(dataset, synthetic)}, {split}" + (f", n = {n:,}" if n is not None else "")


def face_uris(faces: NDArray[np.uint8]) -> list[str]:
    """Faces [k, height, width] or [k, height, width, 3] as data URIs."""
    from PIL import Image

    addresses = []
    for face in faces:
        picture = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(face)).save(picture, "PNG")
        addresses.append(f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}")
    return addresses


def short_setting(value: str) -> str:
    """The value of a setting; fractions have four digits."""
    try:
        return f"{float(value):.4g}" if "." in value or "e" in value else value
    except ValueError:
        return value


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names for narrow columns: an ellipsis replaces the words with which all of them begin."""
    shared = re.match(r".*[-_/]|", os.path.commonprefix(list(names)))  # noqa: RUF071, characters are meant
    cut = len(shared[0]) if shared else 0
    return {name: f"…{name[cut:]}" if cut > 3 else name for name in names}


def sentence(pair: Pair) -> str:
    """The result of a pair, in words."""
    gap = pair.differences["accuracy"]
    points = (
        f"{_signed(100 * gap.value)} points of accuracy (95 % {_signed(100 * gap.low)} to {_signed(100 * gap.high)})"
    )
    p = f"p\u00a0{_p_value(pair.p_holm)}" if pair.p_holm < 0.0005 else f"p\u00a0=\u00a0{_p_value(pair.p_holm)}"
    if not pair.is_beyond_chance:
        return f"{pair.second} against {pair.first}: {points}, which could be chance ({p})."
    side = "better" if gap.value > 0 else "worse"
    return f"{pair.second} is {side} than {pair.first}: {points}, {p}."


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.globals |= {
        "source": lambda name: Markup((_TEMPLATES / name).read_text(encoding="utf-8")),
        "resamples": f"{RESAMPLES:,}",
        "metric_names": METRIC_NAMES,
        "lower": LOWER_IS_BETTER,
    }
    made.filters |= {
        "percent": _percent,
        "bounds": _bounds,
        "score": _score,
        "difference": _difference,
        "p_value": _p_value,
        "signed": _signed,
        "short_setting": short_setting,
        "short_names": short_names,
        "who_is_right": _who_is_right,
    }
    return made


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _bounds(interval: _Bounded) -> str:
    return f"{_percent(interval.low, 1)}\u00a0to\u00a0{_percent(interval.high, 1)}"


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _score(value: float | None, metric: str) -> str:
    if value is None or math.isnan(value):
        return "none"
    return _percent(value) if metric in _IN_POINTS else f"{value:.3f}"


def _difference(gap: Interval, metric: str) -> str:
    scale, digits = (100, 1) if metric in _IN_POINTS else (1, 3)
    value, low, high = (_signed(scale * bound, digits) for bound in (gap.value, gap.low, gap.high))
    return f"{value} ({low} to {high})"


def _p_value(p: float) -> str:
    return "<\u00a0.001" if p < 0.0005 else f"{p:.3f}"


def _who_is_right(one: Disagreement, names: Sequence[str]) -> str:
    right = [name for name, said in zip(names, one.said, strict=True) if said.prediction == one.label]
    return " | ".join(right) or "none"
