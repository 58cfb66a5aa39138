"""Downloads FER2013 from Kaggle, with Kaggle's client and the user's account."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from fer_data.faces import DataError

COMPETITION = "challenges-in-representation-learning-facial-expression-recognition-challenge"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
CSV_NAME = "fer2013.csv"
OFFICIAL_MD5 = "f8428a1edbd21e88f42c73edd2a14f95"

_ARCHIVE = "fer2013.tar.gz"
_MAX_BYTES = 2 * 2**30
_NEEDED_BYTES = 500 * 10**6  # for the archive and the csv in it
_HOW_TO_GET_CREDENTIALS = (
    "create a token at https://www.kaggle.com/settings (API) and save it as ~/.kaggle/kaggle.json, "
    "or set KAGGLE_USERNAME and KAGGLE_KEY"
)


def download(folder: Path) -> tuple[Path, bool]:
    """Download FER2013's csv into a folder. Returns its path, and whether it is the official file, byte for byte.

    This needs the package kaggle, a token of a Kaggle account, and that account's consent to the competition's rules.

    Raises:
        DataError: one of these is missing, the file already exists, or the download failed.
    """
    target = folder.expanduser() / CSV_NAME
    if os.path.lexists(target):
        raise DataError(f"{target}: exists already; remove it, or give another folder")
    faults = [*_package_faults(), *credential_faults()]
    if faults:
        raise DataError("cannot download from Kaggle: " + "; and ".join(faults))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent)
        with tempfile.TemporaryDirectory(prefix=".download.", dir=target.parent) as beside:
            _fetch(Path(beside))
            found = _unpack(Path(beside))
            official = _md5(found) == OFFICIAL_MD5
            found.replace(target)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}; give a folder with space") from error
    return target, official


def credential_faults() -> list[str]:
    """Which Kaggle credentials are missing; empty if none.

    Kaggle's client exits the process if it finds no credentials, so this searches the same places before it is
    imported.
    """
    environment = os.environ
    if environment.get("KAGGLE_API_TOKEN") or (environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")):
        return []
    for given, absent in (("KAGGLE_USERNAME", "KAGGLE_KEY"), ("KAGGLE_KEY", "KAGGLE_USERNAME")):
        if environment.get(given):
            return [f"{given} is set but {absent} is not: set both"]
    files = [folder / name for folder in _config_folders() for name in ("access_token", "kaggle.json")]
    present = [path for path in files if path.is_file()]
    if not present:
        return [f"no credentials: {_HOW_TO_GET_CREDENTIALS}"]
    return _token_faults(present[0])


def _config_folders() -> list[Path]:
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    home = Path(os.environ.get("HOME") or "~").expanduser()
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [*([Path(given)] if given else []), home / ".kaggle", xdg / "kaggle"]


def _token_faults(path: Path) -> list[str]:
    if path.suffix != ".json":
        return []
    try:
        token = json.loads(path.read_bytes())
        if token["username"] and token["key"]:
            return []
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [f"{path} has no username and key: {_HOW_TO_GET_CREDENTIALS}"]


def _package_faults() -> list[str]:
    if importlib.util.find_spec("kaggle"):
        return []
    return ['the package kaggle is not installed: pip install "fer-sweeps[kaggle]"']


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise DataError(f"{folder}: {free / 1e6:,.0f} MB free, {_NEEDED_BYTES / 1e6:,.0f} MB needed")


def _fetch(folder: Path) -> None:
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi

        api = KaggleApi()
        api.authenticate()
        api.competition_download_file(COMPETITION, _ARCHIVE, path=str(folder))
    except (
        Exception,
        SystemExit,
    ) as error:  # its HTTP library's errors; it exits on bad credentials
        raise DataError(
            f"Kaggle did not give {_ARCHIVE}: {error}; check that the token is valid, that you have accepted the "
            f"rules at {PAGE}/rules, and that kaggle.com can be reached"
        ) from error


def _unpack(folder: Path) -> Path:
    """Extract only the csv from the archive, into the same folder."""
    try:
        with tarfile.open(folder / _ARCHIVE) as archive:
            member = next((m for m in archive if m.isfile() and Path(m.name).name == CSV_NAME), None)
            source = archive.extractfile(member) if member else None
            if member is None or source is None or member.size > _MAX_BYTES:
                raise DataError(f"Kaggle's {_ARCHIVE} has no {CSV_NAME} of at most 2 GiB; see {PAGE}/data")
            with (folder / CSV_NAME).open("wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, FileNotFoundError) as error:
        raise DataError(f"Kaggle's {_ARCHIVE} is missing or damaged: {error}; try again") from error
    return folder / CSV_NAME


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
