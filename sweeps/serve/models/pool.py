"""The nets that can be tried: each is exported once by a separate process, and then run by ONNX Runtime.

So this process loads neither PyTorch nor MLflow, and stays small.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fer_common.files import cache_path
from sweeps.cli.overview import all_sweeps
from sweeps.errors import InputError, did_you_mean
from sweeps.serve.command import run_verb
from sweeps.use.classifier import OnnxClassifier
from tracking.record.layout import SweepFolder

_KEPT = 4
_KEPT_FILES = 32
_EXPORT_SECONDS = 600
_LIST_SECONDS = 60
_NEW_SECONDS = 10
_EXPORTS = "1"
"""To be changed with the format of exported files, so that older ones are not used."""


class ModelPool:
    """The registered models, the best run of each sweep whose weights are kept, and the exported files beside them.

    Args:
        out: the folder of all sweeps.
        tracking_uri: of MLflow, whose registry is queried in the background; None for the default.
    """

    def __init__(self, out: Path, tracking_uri: str | None = None) -> None:
        self._out = out
        self._words = [*(["--tracking-uri", tracking_uri] if tracking_uri else []), str(out)]
        self._loaded: dict[str, OnnxClassifier] = {}
        self._registered: dict[str, list[str]] = {}
        """The current name and version of each model reference."""
        self._listed = -float("inf")
        self._lock, self._listing, self._exporting = threading.Lock(), threading.Lock(), threading.Lock()

    def warm(self) -> None:
        """Look for registered models, and load the default net, before the first request."""
        self._list()
        with suppress(InputError):
            self.get(None)

    def names(self) -> list[str]:
        """The nets that can be tried: registered models first, real faces before synthetic ones, best first."""
        if time.monotonic() - self._listed > _LIST_SECONDS and not self._listing.locked():
            threading.Thread(target=self._list, daemon=True).start()
        return [*self._registered, *self._runs(), *sorted(path.name for path in self._out.glob("*.onnx"))]

    def get(self, name: str | None) -> OnnxClassifier:
        """The net of that name, or the first. Raises InputError if it is unknown or cannot be exported."""
        known = self.names()
        if not known:
            raise InputError(
                f"no finished sweep in {self._out} has weights; run one: python -m sweeps.run alexnet_space"
            )
        name = name or known[0]
        if name not in known and time.monotonic() - self._listed > _NEW_SECONDS:
            self._list()  # it may have been registered since
            known = self.names()
        if name not in known:
            raise InputError(f"no model '{name}'{did_you_mean(name, known)}")
        key = self._key(name)
        with self._lock:
            found = self._loaded.get(key)
        if found is None:
            found = OnnxClassifier(self._file(name, key), threads=1)
            return_freed_memory()
        with self._lock:
            self._loaded.pop(key, None)
            self._loaded[key] = found
            while len(self._loaded) > _KEPT:
                self._loaded.pop(next(iter(self._loaded)))
        return found

    def _list(self) -> None:
        with self._listing:
            self._listed = time.monotonic()
            with suppress(InputError):  # a registry that does not answer adds no models
                listed = json.loads(run_verb(*self._words, module="sweeps.serve.models.prepare", timeout=_LIST_SECONDS))
                self._registered = {one["name"]: one["version"] for one in listed}

    def _runs(self) -> dict[str, dict[Path, float]]:
        """The best run of each finished sweep whose weights are kept: their files, with their shares."""
        rows = [(row, row.digest.best) for row in all_sweeps(self._out) if row.digest.finished]
        best = [(row, one) for row, one in rows if one is not None]
        ranked = sorted(best, key=lambda pair: (pair[0].digest.synthetic, -pair[1].value))
        nets = {f"{row.name}/{one.trial}": one.nets for row, one in ranked}
        runs = {name: self._files(name, nets) for name in nets if nets[name]}
        return {name: files for name, files in runs.items() if all(file.is_file() for file in files)}

    def _files(self, run: str, nets: Mapping[str, dict[str, float]]) -> dict[Path, float]:
        """The weights of a run's nets, with their shares; a member of an ensemble can be an ensemble."""
        members = nets.get(run)
        if not members or run in members:
            sweep, _, trial = run.partition("/")
            return {SweepFolder(self._out / sweep).trial(int(trial)).best: 1.0}
        files: dict[Path, float] = defaultdict(float)
        others = {name: one for name, one in nets.items() if name != run}  # a name can be in use again: no loop
        for member, share in members.items():
            for file, part in self._files(member, others).items():
                files[file] += share * part
        return files

    def _key(self, name: str) -> str:
        """The name and the identity of its current weights."""
        if name in self._registered:
            return " ".join([*self._words, *self._registered[name]])
        files = {self._out / name: 1.0} if name.endswith(".onnx") else self._runs()[name]
        return " ".join(
            f"{path} {status.st_mtime_ns} {status.st_size} {share}"
            for path, share in files.items()
            for status in (path.stat(),)
        )

    def _file(self, name: str, key: str) -> Path:
        """The exported file, which is written if it is missing; files unused for long are deleted."""
        if name.endswith(".onnx"):
            return self._out / name
        folder = cache_path("nets")
        file = folder / f"{hashlib.sha256(f'{_EXPORTS} {key}'.encode()).hexdigest()[:32]}.onnx"
        if not file.is_file():
            with self._exporting:  # one at a time: each takes a core and a GB
                if not file.is_file():
                    self._export(name, file)
        file.touch()
        return file

    def _export(self, name: str, file: Path) -> None:
        try:
            run_verb(*self._words, name, str(file), module="sweeps.serve.models.prepare", timeout=_EXPORT_SECONDS)
        except InputError as error:
            raise InputError(f"{name} cannot be loaded: {error}") from None
        for old in sorted(file.parent.glob("*.onnx"), key=lambda path: path.stat().st_mtime)[:-_KEPT_FILES]:
            old.unlink(missing_ok=True)


def return_freed_memory() -> None:
    """Let the C library return freed memory to the system. It takes milliseconds, and exists only in glibc.

    ONNX Runtime frees two or three copies of a net's weights after loading; each photograph frees its pixels.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
