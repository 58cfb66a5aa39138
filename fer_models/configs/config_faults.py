"""Reports faults between the fields of a configuration together with those of single fields. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Model = TypeVar("Model", bound=BaseModel)

CrossFaults = Callable[[dict[str, Any]], list[tuple[str, str]]]
"""Maps all values, with defaults and unchecked types, to faults as (field, message)."""


def validate_with(
    cls: type[Model], data: Any, handler: ModelWrapValidatorHandler[Model], cross_faults: CrossFaults
) -> Model:
    """The model that `handler` makes from `data`. A ValidationError has the faults of both kinds."""
    faults: list[InitErrorDetails] = []
    model: Model | None = None
    try:
        model = handler(data)
    except ValidationError as error:
        faults = [_line(one["loc"], one["type"], one["msg"], one["input"]) for one in error.errors()]
    if isinstance(data, dict):
        crossed = {name: field.default for name, field in cls.model_fields.items()} | data
        faults += [_line((name,), cls.__name__.lower(), text, crossed[name]) for name, text in cross_faults(crossed)]
    if faults or model is None:
        raise ValidationError.from_exception_data(cls.__name__, faults)
    return model


def _line(loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> InitErrorDetails:
    escaped = message.replace("{", "{{").replace("}", "}}")
    return InitErrorDetails(type=PydanticCustomError(kind, escaped), loc=loc, input=value)
