"""Opens a csv as one seekable file, also from a gzip, xz, zip or tar archive."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fer_common.files import cache_path
from fer_data.faces import DataError

MAX_BYTES = 2 * 2**30

_CHUNK = 2**20
_MAX_XZ_MEMORY = 256 * 2**20  # xz -9 needs 65 MiB, but a file may require 4 GiB
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ARCHIVES = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
_DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, EOFError, NotImplementedError)


@dataclass(frozen=True)
class Text:
    """An open csv: the file, positioned at its start, its name in messages, and its length."""

    file: IO[bytes]
    shown: str
    bytes: int


@contextmanager
def opened(path: Path) -> Iterator[Text]:
    """Open a file. An archive, recognised by its first bytes, is unpacked into a nameless file in the cache folder.

    A zip or tar archive must have exactly one csv; messages call it archive/member. A tar archive may be compressed.

    Raises:
        DataError: the file is too large, packed or unpacked; or the archive is truncated, damaged or encrypted, or has
            no csv or several.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        kind = next((kind for magic, kind in _ARCHIVES.items() if _first_bytes(file).startswith(magic)), None)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _too_large(path, f"{size / 2**30:.1f} GiB")
        if kind is None:
            yield _within_tar(path, Text(file, str(path), size))
            return
        with _room_on_disk(path) as plain:
            shown = _unpack(path, file, kind, plain)
            size = plain.tell()
            yield _within_tar(path, Text(plain, shown, size))


def _within_tar(path: Path, text: Text) -> Text:
    """The only csv in a tar archive, as a part of its file. Any other file is returned unchanged."""
    text.file.seek(0)
    try:
        archive = tarfile.TarFile(fileobj=text.file)
    except tarfile.TarError:
        text.file.seek(0)
        return text
    try:
        members = {member.name: member for member in archive if member.isfile()}
    except tarfile.TarError as error:
        raise DataError(f"{path}: truncated or damaged tar archive: {error}; get it again") from error
    if not archive.getnames():  # to tarfile a file of zeros is an empty archive
        text.file.seek(0)
        return text
    name = _only_csv(path, list(members))
    return Text(cast(IO[bytes], archive.extractfile(name)), f"{text.shown}/{name}", members[name].size)


def _first_bytes(file: IO[bytes]) -> bytes:
    file.seek(0)
    first = file.read(6)
    file.seek(0)
    return first


def _room_on_disk(path: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=cache_path())
    except OSError as error:
        raise _no_room(path, error) from error


def _unpack(path: Path, packed: IO[bytes], kind: str, plain: IO[bytes]) -> str:
    """Unpack into the plain file; return the file's name in messages."""
    try:
        if kind == "zip":
            return _unpack_zip(path, packed, plain)
        _copy(path, _gzip_chunks(packed) if kind == "gzip" else _xz_chunks(packed), plain)
    except _DAMAGE as error:
        what = "ends too early" if isinstance(error, EOFError) else str(error)
        raise DataError(f"{path}: truncated or damaged {kind} archive: {what}; get it again") from error
    return str(path)


def _unpack_zip(path: Path, packed: IO[bytes], plain: IO[bytes]) -> str:
    with zipfile.ZipFile(packed) as archive:
        member = archive.getinfo(_only_csv(path, archive.namelist()))
        if member.flag_bits & 1:
            raise DataError(f"{path}: {member.filename} is encrypted; unpack it with its password and give the csv")
        if member.compress_type not in _ZIP_METHODS:
            raise DataError(f"{path}: {member.filename} is packed by a method other than deflate; unpack it")
        with archive.open(member) as file:
            _copy(path, iter(lambda: file.read(_CHUNK), b""), plain)
    return f"{path}/{member.filename}"


def _only_csv(path: Path, names: Sequence[str]) -> str:
    """The only member of an archive that is a csv. The files that macOS adds (._name) are ignored."""
    tables = [name for name in names if name.lower().endswith(".csv") and not PurePosixPath(name).name.startswith("._")]
    if len(tables) != 1:
        found = tables or names
        listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        what = (
            f"{len(tables)} csv files in it ({listed})" if tables else f"no csv in it (it holds {listed or 'nothing'})"
        )
        raise DataError(f"{path}: {what}; expected exactly one: unpack it and give the csv")
    return tables[0]


def _copy(path: Path, chunks: Iterator[bytes], plain: IO[bytes]) -> None:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_BYTES:
            raise _too_large(path, f"unpacks to more than {MAX_BYTES / 2**30:.0f} GiB")
        try:
            plain.write(chunk)
        except OSError as error:
            raise _no_room(path, error) from error


def _gzip_chunks(packed: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=packed) as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _xz_chunks(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack concatenated streams, as lzma.open does, but with bounded memory."""
    data = packed.read(_CHUNK)
    while data:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
        while not stream.eof:
            yield stream.decompress(data, _CHUNK)
            data = packed.read(_CHUNK) if stream.needs_input else b""
            if stream.needs_input and not data:
                raise EOFError
        data = (stream.unused_data or packed.read(_CHUNK)).lstrip(b"\0")


def _too_large(path: Path, what: str) -> DataError:
    return DataError(f"{path}: too large: {what}, at most {MAX_BYTES / 2**30:.0f} GiB (FER2013's csv has 0.3 GiB)")


def _no_room(path: Path, error: OSError) -> DataError:
    way_out = "set FER_CACHE to a writable folder with space"
    return DataError(f"{path}: cannot unpack it into the cache of faces: {error}; {way_out}")
