"""Data sets of faces. Each is read and checked once, and memory-mapped by every trial on a machine.

Shapes used throughout: n images, height and width in pixels, grey levels on the scale 0..255.
"""

from fer_data.augmentation.augment_config import AugmentConfig, read_pipeline
from fer_data.cache.cache_folder import open_cached
from fer_data.cache.store import prepare
from fer_data.cache.subsets import limit_train
from fer_data.faces import EXPRESSIONS, SPLITS, DataError, Faces, Split
from fer_data.options import DataOptions

__all__ = [
    "EXPRESSIONS",
    "SPLITS",
    "AugmentConfig",
    "DataError",
    "DataOptions",
    "Faces",
    "Split",
    "limit_train",
    "open_cached",
    "prepare",
    "read_pipeline",
]
