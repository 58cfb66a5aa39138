"""The claims of one Ray cluster's sweeps, in the key-value store of its head."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from ray.exceptions import RayError
from ray.experimental import internal_kv

from sweeps.sharing.division import Claim

BEAT_SECONDS = 2.0
_DEAD_SECONDS = 8.0
_NAMESPACE = b"fer-sweeps"
_PREFIX = b"claims/"


class RayClaims:
    """One key per claim. Its counter increases while its driver runs; each reader uses its own clock."""

    def __init__(self) -> None:
        self._own: Claim | None = None
        self._beat = 0
        self._seen: dict[bytes, tuple[int, float]] = {}  # key -> counter, and when it last changed
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="claim", daemon=True)

    def put(self, claim: Claim) -> None:
        """Write this driver's claim."""
        with self._lock, _as_os_error():
            self._own, self._beat = claim, self._beat + 1
            value = json.dumps({"beat": self._beat, "claim": claim.model_dump(mode="json")}).encode()
            internal_kv._internal_kv_put(_key(claim), value, overwrite=True, namespace=_NAMESPACE)
        if not self._heart.is_alive() and not self._closed.is_set():
            self._heart.start()

    def all(self) -> list[Claim]:
        """The claims of all live drivers; those of dead ones are removed."""
        found = []
        with _as_os_error():
            for key in internal_kv._internal_kv_list(_PREFIX, namespace=_NAMESPACE):
                value = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
                try:
                    record = json.loads(value or b"")
                    claim = Claim.model_validate(record["claim"])
                    alive = self._is_alive(key, int(record["beat"]))
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    ValidationError,
                ):  # removed meanwhile, or not ours
                    continue
                if alive:
                    found.append(claim)
                else:
                    internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
        return found

    def close(self) -> None:
        """Remove this driver's claim."""
        self._closed.set()
        if self._heart.is_alive():
            self._heart.join()
        if self._own:
            with _as_os_error():
                internal_kv._internal_kv_del(_key(self._own), namespace=_NAMESPACE)

    def _is_alive(self, key: bytes, beat: int) -> bool:
        known, since = self._seen.get(key, (-1, 0.0))
        if beat != known:
            self._seen[key] = beat, time.monotonic()
            return True
        return time.monotonic() - since < _DEAD_SECONDS

    def _beat_on(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            if self._own:
                try:
                    self.put(self._own)
                except OSError:
                    continue  # the head does not answer, which is handled elsewhere


def _key(claim: Claim) -> bytes:
    return _PREFIX + claim.id.encode()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except (RayError, RuntimeError) as error:
        raise OSError(f"Ray's head does not answer: {error}") from error
