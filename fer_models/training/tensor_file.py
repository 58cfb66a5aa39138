"""Tensors on disk: reads and writes our own safetensors files, written atomically, and reads files of others without
running code in them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fer_common.files import write_whole
from fer_models.errors import ModelError

_CHECKSUM = "checksum"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6, and plain pickle


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write atomically, with fsync. Raises ModelError; an earlier file of that name then stays."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(plain, {**metadata, _CHECKSUM: tensors_sha256(plain, metadata)})
    try:
        write_whole(path, lambda file: file.write(content))
    except OSError as error:
        kept = "; the earlier one is unchanged" if path.exists() else ""
        raise ModelError(f"{path}: cannot be written: {error.strerror}{kept}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata.

    Raises:
        ModelError: missing, truncated, corrupt, or a pickle, which is not opened.
    """
    if _is_pickle(path):
        raise ModelError(f"{path}: a pickle, which cannot be loaded safely; give a .safetensors file")
    tensors, metadata = _read_safetensors(path)
    if _CHECKSUM not in metadata:
        raise ModelError(f"{path}: has no checksum, so it was not written by this project")
    _check(path, tensors, metadata)
    return tensors, metadata


def read_foreign_tensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The tensors, on the CPU, of a .safetensors or .pth file of any origin.

    Args:
        path: of a `torch.save`d dictionary of tensors, which torch unpickles with `weights_only`, or of
            a safetensors file.
        sha256: the beginning of the file's SHA-256, in hex.

    Raises:
        ModelError: missing, truncated or corrupt, a file with another SHA-256, or one with more than tensors, of
            which nothing is run.
    """
    pickled = _is_pickle(path)
    if sha256 is not None:
        check_sha256(path, sha256)
    if pickled:
        return _unpickle(path)
    tensors, metadata = _read_safetensors(path)
    if _CHECKSUM in metadata:
        _check(path, tensors, metadata)
    return tensors


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def check_sha256(path: Path, expected: str) -> None:
    """Raise ModelError unless the file's SHA-256, in hex, begins with `expected`."""
    found = file_sha256(path)
    if not found.startswith(expected):
        shown = found[: len(expected)]
        raise ModelError(
            f"{path}: its SHA-256 begins with {shown}, expected {expected}: truncated, damaged or another file; "
            "download it again"
        )


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path}: has more than tensors, or is damaged; nothing in it was run ({reason})") from error
    except Exception as error:  # a damaged pickle may raise any exception
        raise ModelError(f"{path}: corrupt ({type(error).__name__}: {error}); download it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path}: expected a dictionary of tensors by name, as torch.save(net.state_dict()) writes")
    return {str(name): value for name, value in content.items()}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            # Copies, since the file may be replaced while the tensors are still in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: truncated or corrupt ({error}); use an earlier checkpoint") from error
    return tensors, metadata


def _check(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Remove the checksum from `metadata` and compare it."""
    if metadata.pop(_CHECKSUM) != tensors_sha256(tensors, metadata):
        raise ModelError(f"{path}: corrupt, its checksum does not match; use an earlier checkpoint")


def _is_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    # A safetensors file has eight bytes of header length, which may look like a pickle, and then JSON.
    return start[8:] != b"{" and start.startswith(_PICKLE_STARTS)


def tensors_sha256(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 in hex over names, types, shapes, values and metadata."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
