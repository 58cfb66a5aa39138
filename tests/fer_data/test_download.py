import io
import sys
import tarfile
import types
from pathlib import Path

import pytest

from fer_data import DataError
from fer_data import download as download_module
from fer_data.download import download

CSV = b"emotion,pixels,Usage\n"


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch) -> Path:
    """A home folder without credentials."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def install(monkeypatch):
    """Put a package in the place of kaggle, whose client does what it is told to; None: nothing is installed."""

    def put(fetch) -> None:
        monkeypatch.setattr(
            download_module.importlib.util, "find_spec", lambda name: None if fetch is None else object()
        )
        if fetch is None:
            return

        class KaggleApi:
            def authenticate(self) -> None:
                pass

            def competition_download_file(self, competition, file_name, path) -> None:
                assert competition.startswith("challenges-in-representation-learning-facial")
                fetch(Path(path) / file_name)

        extended = types.ModuleType("kaggle.api.kaggle_api_extended")
        extended.KaggleApi = KaggleApi
        for name in ("kaggle", "kaggle.api"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", extended)

    return put


@pytest.fixture
def credentials(monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "secret")


def archive(path: Path, name: str = "fer2013/fer2013.csv") -> None:
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo(name)
        member.size = len(CSV)
        file.addfile(member, io.BytesIO(CSV))


def fault(folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        download(folder)
    assert not folder.exists() or list(folder.iterdir()) == []
    return str(raised.value)


def test_says_all_that_is_missing(install, tmp_path):
    install(None)
    text = fault(tmp_path / "data")
    assert 'pip install "fer-sweeps[kaggle]"' in text
    assert "no credentials: create a token at https://www.kaggle.com/settings" in text


def test_half_of_the_credentials_is_told(install, tmp_path, monkeypatch):
    install(archive)
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    assert "KAGGLE_USERNAME is set but KAGGLE_KEY is not" in fault(tmp_path / "data")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"username": "someone"}', "\xff"])
def test_a_token_file_without_a_token_is_told(install, tmp_path, nobody, text):
    install(archive)
    (nobody / ".kaggle" / "kaggle.json").write_text(text)
    assert "kaggle.json has no username and key" in fault(tmp_path / "data")


def test_the_csv_is_taken_out_of_the_archive(install, tmp_path, nobody, monkeypatch):
    (nobody / ".kaggle" / "kaggle.json").write_text('{"username": "someone", "key": "secret"}')
    install(archive)
    path, official = download(tmp_path / "data")
    assert (path, path.read_bytes(), official) == (tmp_path / "data" / "fer2013.csv", CSV, False)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(DataError, match="exists already"):
        download(tmp_path / "data")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("error", [RuntimeError("403 Client Error: Forbidden"), SystemExit(1), OSError("no network")])
def test_a_refusal_names_the_rules_to_accept(install, tmp_path, error):
    def refuse(_: Path) -> None:
        raise error

    install(refuse)
    text = fault(tmp_path / "data")
    assert "recognition-challenge/rules" in text
    assert str(error) in text


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("fetch", "says"),
    [
        (lambda path: None, "missing or damaged"),
        (lambda path: path.write_bytes(b"<html>"), "missing or damaged"),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08\x00" + b"\0" * 20), "missing or damaged"),
        (lambda path: archive(path, "../other.csv"), "has no fer2013.csv"),
    ],
)
def test_what_is_not_the_archive_is_told(install, tmp_path, fetch, says):
    install(fetch)
    assert says in fault(tmp_path / "data")


@pytest.mark.usefixtures("credentials")
def test_a_full_disk_is_told_before_anything_is_fetched(install, tmp_path, monkeypatch):
    install(archive)
    monkeypatch.setattr(download_module, "_NEEDED_BYTES", 10**18)
    assert "MB needed" in fault(tmp_path / "data")
