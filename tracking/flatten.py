"""Nested settings by dotted names."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration by dotted names, as MLflow's parameters: values are JSON, strings are unchanged."""
    params: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            params |= flatten(value, f"{prefix}{key}.")
        else:
            params[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return params
