"""Caffe's two messages with images, in protobuf's wire format, without Caffe or a compiled schema.

    message Datum { channels = 1; height = 2; width = 3; bytes data = 4; label = 5; repeated float float_data = 6;
                    bool encoded = 7; }
    message BlobProto { num = 1; channels = 2; height = 3; width = 4; repeated float data = 5 [packed]; }

(src/caffe/proto/caffe.proto in BVLC/caffe.) A Datum is one image, channels first, BGR if there are three; if `encoded`,
data is an image file. A mean image is a BlobProto of shape 1×channels×height×width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fer_data.faces import DataError, GreyLevels, MeanImage
from fer_data.images.decode import MAX_PIXELS, decode_image

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOAT_DATA, _ENCODED = range(1, 8)
_INTEGERS = (_CHANNELS, _HEIGHT, _WIDTH, _LABEL)
_BGR_TO_GREY = np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
_MAX_LABEL = 255


def datum(image: GreyLevels, label: int) -> bytes:
    """Encode an image [height, width] and its label as a Datum with one channel."""
    height, width = image.shape
    return b"".join(
        (
            _integer(_CHANNELS, 1),
            _integer(_HEIGHT, height),
            _integer(_WIDTH, width),
            _length_delimited(_DATA, image.tobytes()),
            _integer(_LABEL, label),
        )
    )


def parse_datum(message: bytes) -> tuple[GreyLevels, int]:
    """The image [height, width] of a Datum, converted to grey, and its label.

    Raises:
        DataError: the fault of the message; messages of other programs are not a Datum.
    """
    try:
        fields = dict(_fields(message))
    except (ValueError, IndexError) as error:
        raise DataError("not a Caffe Datum") from error
    data, label = fields.get(_DATA), fields.get(_LABEL)
    if _FLOAT_DATA in fields and not data:
        raise DataError("holds floats, not grey levels; export it from images of 8 bits")
    if not isinstance(data, bytes) or any(not isinstance(fields.get(number, 0), int) for number in _INTEGERS):
        raise DataError("not a Caffe Datum")
    if not isinstance(label, int):
        raise DataError("has no label")
    if label > _MAX_LABEL:
        raise DataError(f"label outside 0..{_MAX_LABEL}")
    if fields.get(_ENCODED):
        return decode_image(data), label
    return _grey(data, *(int(fields.get(number, 0)) for number in (_CHANNELS, _HEIGHT, _WIDTH))), label


def blob(image: MeanImage) -> bytes:
    """Encode a mean image [height, width] as Caffe's binaryproto: a BlobProto of shape 1×1×height×width."""
    height, width = image.shape
    sizes = (_integer(number, size) for number, size in enumerate((1, 1, height, width), start=1))
    return b"".join((*sizes, _length_delimited(5, image.astype("<f4").tobytes())))


def _grey(data: bytes, channels: int, height: int, width: int) -> GreyLevels:
    if not height or not width or channels not in (1, 3):
        raise DataError(f"not a Caffe Datum of an image: {channels} channels of {width}×{height}, expected 1 or 3")
    if height * width > MAX_PIXELS:
        raise DataError(f"too many pixels: {width:,}×{height:,}, at most {MAX_PIXELS:,}")
    if len(data) != channels * height * width:
        raise DataError(
            f"{len(data):,} bytes for {channels} channels of {width}×{height}: cut short, or not a Caffe Datum"
        )
    planes = np.frombuffer(data, np.uint8).reshape(channels, height, width)
    if channels == 1:
        return np.asarray(planes[0])
    return np.rint(np.tensordot(_BGR_TO_GREY, planes, axes=1)).astype(np.uint8)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _length_delimited(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Encode a number >= 0 in groups of 7 bits, the lowest first; the high bit marks that another group follows."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field. Raises ValueError or IndexError if this is not a protobuf message."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _read_varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0 or position + length > len(message):
            raise ValueError("cut short")
        yield number, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number longer than 64 bits")
