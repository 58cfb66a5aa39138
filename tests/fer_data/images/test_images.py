import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_data import DataError
from fer_data.images.decode import decode_image, read_image
from fer_data.photos.crop import whole
from fer_data.photos.photo import read_photo
from tests.fer_data.image_trees import grey, save


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def fault(data: bytes) -> str:
    with pytest.raises(DataError) as raised:
        decode_image(data)
    return str(raised.value)


def test_grey_levels_come_back_as_they_are():
    image = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    assert np.array_equal(decode_image(encoded(Image.fromarray(image))), image)


def test_a_jpeg_is_read_near_its_levels():
    gradient = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    decoded = decode_image(encoded(Image.fromarray(gradient), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - gradient).max() <= 3


@pytest.mark.parametrize(
    ("colour", "level"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((255, 255, 255), 255)]
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_becomes_grey_by_itu_r_601(mode, colour, level):  # 0.299, 0.587, 0.114 of 255
    image = Image.new(mode, (3, 2), colour if mode == "RGB" else (*colour, 255))
    assert decode_image(encoded(image)).tolist() == [[level] * 3] * 2


def transparent(mode: str) -> Image.Image:
    """A black picture whose second column is fully transparent, and its third half, if the mode has halves."""
    image = Image.new("RGBA", (3, 3))
    image.putalpha(Image.fromarray(np.tile(np.array([255, 0, 128], np.uint8), (3, 1))))
    if mode == "P":
        picture = Image.fromarray(np.tile(np.array([0, 1, 2], np.uint8), (3, 1)))
        picture.putpalette([0] * 9)
        picture.info["transparency"] = bytes([255, 0, 128])
        return picture
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_as_in_photographs(tmp_path, mode):
    path = tmp_path / "face.png"
    path.write_bytes(encoded(transparent(mode)))
    face = read_image(path)
    assert face.tolist() == [[0, 255, 127]] * 3  # black of 128 / 255 on white: 255 * (1 - 128 / 255)
    assert np.array_equal(face, whole(read_photo(path), 3, "area"))


def test_a_cameras_orientation_is_obeyed():
    image, exif = Image.fromarray(np.array([[0, 255], [0, 255], [0, 255]], np.uint8)), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    decoded = decode_image(encoded(image, exif=exif))
    assert decoded.tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_forms_are_refused_whatever_they_are_called(tmp_path, form):
    path = tmp_path / "face.png"
    path.write_bytes(encoded(Image.fromarray(grey(7)), form))
    with pytest.raises(DataError, match="neither PNG nor JPEG by its content"):
        read_image(path)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_file_cut_short_is_named_so(form):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    assert "damaged or cut short" in fault(whole[: len(whole) // 2])


@pytest.mark.parametrize(("width", "height"), [(5_000, 5_000), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_an_error_without_decoding_and_without_a_warning(recwarn, width, height):
    assert "too many pixels" in fault(png_header(width, height))
    assert not recwarn.list


def test_sixteen_bits_are_refused_and_not_clipped():
    assert "16 bits" in fault(encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16))))


def test_files_that_are_no_files_are_named(tmp_path):
    pipe, empty, huge = tmp_path / "pipe.png", tmp_path / "empty.png", tmp_path / "huge.png"
    os.mkfifo(pipe)
    empty.touch()
    with huge.open("wb") as file:
        file.truncate(40 * 2**20)
    loop, broken = tmp_path / "loop.png", tmp_path / "broken.png"
    loop.symlink_to(loop)
    broken.symlink_to("gone.png")
    cases = [
        (pipe, "not a regular file"),
        (empty, "is empty"),
        (huge, "too large: 40 MiB, at most 32 MiB"),
        (loop, "cannot be read: Too many levels of symbolic links"),
        (broken, "broken link to gone.png"),
    ]
    for path, says in cases:
        with pytest.raises(DataError, match=says):
            read_image(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 200), byte=st.integers(0, 255), form=st.sampled_from(["PNG", "JPEG"]))
def test_damage_is_a_data_error_or_an_image(position, byte, form):
    data = bytearray(encoded(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)), form))
    data[position % len(data)] = byte
    with contextlib.suppress(DataError):
        assert decode_image(bytes(data)).dtype == np.uint8


def test_a_saved_face_is_read_from_its_file(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "face.jpeg", grey(100))), grey(100))
