"""The nets of the reports, and how one is trained. Importing this package does not import torch."""

from fer_models.config import (
    NET_NAMES,
    AlexNetConfig,
    LeNetConfig,
    MemoryFormat,
    NetConfig,
    Precision,
    Recipe,
)
from fer_models.errors import Diverged, ModelError

__all__ = [
    "NET_NAMES",
    "AlexNetConfig",
    "Diverged",
    "LeNetConfig",
    "MemoryFormat",
    "ModelError",
    "NetConfig",
    "Precision",
    "Recipe",
]
