"""One safetensors file, written whole or not at all, and verified by its checksum when read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fer_models.errors import ModelError

_CHECKSUM = "checksum"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6, and plain pickle


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside, fsync, replace. Raises ModelError; an earlier file of that name is then still whole."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(plain, {**metadata, _CHECKSUM: _checksum(plain, metadata)})
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ModelError(f"{path}: cannot be written: {error.strerror}; an earlier one is whole") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata.

    Raises:
        ModelError: missing, truncated, corrupt, or a pickle, which is not opened.
    """
    _refuse_pickle(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            # Copies, since the file may be replaced while the tensors are still in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: truncated or corrupt ({error}); take an earlier checkpoint") from error
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum is None:
        raise ModelError(f"{path}: carries no checksum, so it was not written by this project")
    if checksum != _checksum(tensors, metadata):
        raise ModelError(f"{path}: corrupt, its checksum does not match; take an earlier checkpoint")
    return tensors, metadata


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    # Eight bytes of header length, which may look like anything, and then JSON, is a safetensors file.
    if start[8:] != b"{" and start.startswith(_PICKLE_STARTS):
        raise ModelError(f"{path}: a pickle, which cannot be loaded safely; give a .safetensors file")


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
