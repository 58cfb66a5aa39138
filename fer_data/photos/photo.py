"""Decodes a photograph of any kind to RGB; neither its name nor its header is trusted."""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_data.faces import DataError
from fer_data.images.transparency import on_white

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OTHER_SUFFIXES = (".heic", ".heif", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".svg")
"""Of pictures that cannot be read, so that a folder of them is not passed over in silence."""
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000

_DETAIL = 2048
"""Longest side that is kept, in pixels: a face as wide as a fortieth of it is still wider than FER2013's 48 pixels."""

Rgb = NDArray[np.uint8]
"""Colours [height, width, 3]."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph. `rgb` is `scale` times as large as the upright original of `width` x `height`."""

    rgb: Rgb
    width: int
    height: int
    notes: tuple[str, ...] = ()
    """Changes that the user should know about."""

    @property
    def scale(self) -> float:
        """Pixels of `rgb` per pixel of the original."""
        return float(self.rgb.shape[1] / self.width)


def read_photo(path: Path, max_bytes: int = MAX_BYTES) -> Photo:
    """Read a PNG, JPEG or WebP file. Raises DataError with the fault, without the file's name."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")
        if status.st_size > max_bytes:
            raise DataError(_too_large(status.st_size, max_bytes))
        return decode_photo(path.read_bytes(), max_bytes)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error


def decode_photo(data: bytes, max_bytes: int = MAX_BYTES) -> Photo:
    """Decode a PNG, JPEG or WebP, with any file name.

    The EXIF orientation is applied, transparency becomes white, 16 bits become 8, and of an animation the first frame
    is used. Images with more than 2,048 pixels per side are reduced, so that memory is bounded.

    Raises:
        DataError: the fault of the bytes.
    """
    if not data:
        raise DataError("is empty (0 bytes)")
    if len(data) > max_bytes:
        raise DataError(_too_large(len(data), max_bytes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            return _decoded(image)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        kind = " (SVG is a drawing, not a photograph)" if b"<svg" in data[:1024].lower() else ""
        raise DataError(f"is neither PNG nor JPEG nor WebP by its content{kind}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has too many pixels, at most {MAX_PIXELS:,}") from error
    except Exception as error:  # Pillow's decoders raise errors of many classes on damaged bytes
        raise DataError(f"is damaged or cut short: {error}") from error


def _too_large(size: int, most: int) -> str:
    return f"is too large: {size / 2**20:,.1f} MiB, at most {most / 2**20:.0f} MiB"


def _decoded(image: Image.Image) -> Photo:
    if image.width * image.height > MAX_PIXELS:  # by the header, before any pixel is decoded
        raise DataError(f"has too many pixels: {image.width:,}×{image.height:,}, at most {MAX_PIXELS:,}")
    notes = []
    if getattr(image, "is_animated", False):
        notes.append("an animation: its first picture was taken")
    width, height = image.size
    image.draft(None, (_DETAIL, _DETAIL))  # decodes a JPEG at 1/2, 1/4 or 1/8 of its size if enough
    image.thumbnail((_DETAIL, _DETAIL), Image.Resampling.BOX)
    was_wide = image.width > image.height
    ImageOps.exif_transpose(image, in_place=True)
    if (image.width > image.height) != was_wide:
        width, height = height, width
    return Photo(np.asarray(_rgb(image)), width, height, tuple(notes))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    image = on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies in any case
