"""Faces: read once, checked once, memory-mapped by every trial on a machine.

Shapes used throughout: n images, height and width in pixels, grey levels 0..255 as uint8.
"""

from fer_data.augment_config import AugmentConfig
from fer_data.faces import EXPRESSIONS, SPLITS, DataError, Faces, Split, limit_train
from fer_data.store import open_cached, prepare

__all__ = [
    "EXPRESSIONS",
    "SPLITS",
    "AugmentConfig",
    "DataError",
    "Faces",
    "Split",
    "limit_train",
    "open_cached",
    "prepare",
]
