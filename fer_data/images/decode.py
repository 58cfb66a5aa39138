"""Decodes one image file to grey levels; neither its name nor its header is trusted."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_data.faces import DataError, GreyLevels
from fer_data.images.transparency import on_white

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 2**24


def read_image(path: Path) -> GreyLevels:
    """Read a PNG or JPEG file: [height, width].

    Raises:
        DataError: the fault of the file, without its name.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(f"too large: {status.st_size / 2**20:,.0f} MiB, at most {MAX_BYTES / 2**20:.0f} MiB")
        return decode_image(path.read_bytes())
    except OSError as error:
        if path.is_symlink() and isinstance(error, FileNotFoundError):
            raise DataError(f"broken link to {path.readlink()}") from error
        raise DataError(f"cannot be read: {error.strerror}") from error


def decode_image(data: bytes) -> GreyLevels:
    """Decode a PNG or JPEG, with any file name: [height, width].

    Colours become grey by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), transparency becomes white, and the EXIF
    orientation is applied. Of an animation the first frame is used.

    Raises:
        DataError: the fault of the bytes.
    """
    if not data:
        raise DataError("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        _check(image)
        return np.asarray(on_white(ImageOps.exif_transpose(image)).convert("L"))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("neither PNG nor JPEG by its content") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too many pixels, at most {MAX_PIXELS:,}") from error
    except Exception as error:  # Pillow's decoders raise errors of many classes on damaged bytes
        raise DataError(f"damaged or cut short: {error}") from error


def _check(image: Image.Image) -> None:
    """Check the size and format in the header before any pixel is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"too many pixels: {image.width:,}×{image.height:,}, at most {MAX_PIXELS:,}")
    if image.mode.startswith("I"):
        raise DataError("16 bits per pixel, expected 8: convert it")
