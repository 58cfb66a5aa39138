"""The nets of the reports, and how one is trained. Importing this package does not import torch."""

from fer_models.errors import Diverged, ModelError
from fer_models.net_config import NET_NAMES, AlexNetConfig, LeNetConfig, NetConfig
from fer_models.recipe import MemoryFormat, Precision, Recipe

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
