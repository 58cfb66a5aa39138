from pathlib import Path
from typing import BinaryIO

import pytest

from fer_common.files import sync_folder, write_synced, write_whole


def halfway(file: BinaryIO) -> None:
    file.write(b"hal")
    raise OSError(28, "No space left on device")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    for content in (b"old", b"new"):
        write_whole(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_halfway_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, halfway)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_on_the_disk_when_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    path = tmp_path / "state"
    monkeypatch.setattr("os.fsync", lambda _: seen.append(path.read_bytes()))
    write_synced(path, lambda file: file.write(b"whole"))
    assert seen == [b"whole"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "absent")
