"""Pages from their templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


def page(template: str, **content: Any) -> str:
    """The page of this template. Raises UndefinedError if content that it needs is missing."""
    return _PAGES.get_template(template).render(**content)
