"""The nets that can be tried: each exported once by a process of its own, then answered for by ONNX Runtime.

So this process never loads PyTorch, and stays small.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from sweeps.cli.overview import all_sweeps
from sweeps.errors import InputError, did_you_mean
from sweeps.serve.command import run_verb
from sweeps.use.classifier import Classifier, OnnxClassifier
from tracking.record.layout import SweepFolder

_KEPT = 4
_EXPORT_SECONDS = 300


class ModelPool:
    """The best trial of each sweep whose weights are kept, and the exported files in the folder of all sweeps."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._loaded: dict[str, Classifier] = {}
        self._lock = threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="fer-sweeps-serve-")

    def names(self) -> list[str]:
        """What can be tried: nets of real faces before those of drawn ones, the best first within them."""
        rows = [row for row in all_sweeps(self._out) if row.digest.best is not None and row.digest.finished]
        best = [(row, row.digest.best) for row in rows if row.digest.best is not None]
        ranked = sorted(best, key=lambda pair: (pair[0].digest.synthetic, -pair[1].value))
        runs = [
            f"{row.name}/{one.trial}" for row, one in ranked
            if SweepFolder(self._out / row.name).trial(one.trial).best.is_file()
        ]  # fmt: skip
        return [*runs, *sorted(path.name for path in self._out.glob("*.onnx"))]

    def get(self, name: str | None) -> Classifier:
        """The net of that name, or the first. Raises InputError where it is unknown or cannot be exported."""
        known = self.names()
        if not known:
            raise InputError(
                f"no finished sweep in {self._out} has weights; run one: python -m sweeps.run alexnet_space"
            )
        name = name or known[0]
        if name not in known:
            raise InputError(f"no model '{name}'{did_you_mean(name, known)}")
        with self._lock:
            classifier = self._loaded.pop(name, None) or self._load(name)
            self._loaded[name] = classifier
            while len(self._loaded) > _KEPT:
                self._loaded.pop(next(iter(self._loaded)))
        return classifier

    def _load(self, name: str) -> Classifier:
        if name.endswith(".onnx"):
            return OnnxClassifier(self._out / name, threads=1)
        file = Path(self._scratch.name) / f"{name.replace('/', '-')}.onnx"
        if not file.is_file():
            words = ["export", name, "--format", "onnx", "--file", str(file), "--out", str(self._out)]
            try:
                run_verb(*words, timeout=_EXPORT_SECONDS)
            except InputError as error:
                raise InputError(f"{name} cannot be loaded: {error}") from None
        return OnnxClassifier(file, threads=1)
