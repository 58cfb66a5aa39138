import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fer_data

Rows = list[str]
WriteCsv = Callable[..., Path]


def row(emotion: object, value: int = 7, usage: str = "Training", pixels: int = 2304) -> str:
    return f"{emotion},{' '.join([str(value)] * pixels)},{usage}"


def refusal(path: object, **options: object) -> str:
    """What is said of a source that is refused."""
    with pytest.raises(fer_data.DataError) as raised:
        fer_data.prepare(fer_data.DataOptions(source=str(path), **options))  # type: ignore[arg-type]
    return str(raised.value)


@pytest.fixture
def good_rows() -> Rows:
    """Three train faces, two val, one test; grey level = 10 × position, except one with a gradient."""
    gradient = f"3,{' '.join(str(i % 256) for i in range(2304))},Training"
    return [
        row(0, 0),
        row(6, 10),
        gradient,
        row(1, 30, "PublicTest"),
        row(2, 40, "PublicTest"),
        row(5, 255, "PrivateTest"),
    ]


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    def write(rows: Rows, header: str = "emotion,pixels,Usage", newline: str = "\n", name: str = "faces.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(newline.join([header, *rows, ""]).encode())
        return path

    return write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own; none touches the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def synthetic_faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fer_data.Faces]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(tmp_path_factory.mktemp("synthetic")))
        yield fer_data.open_cached(fer_data.prepare(None))


@pytest.fixture
def official_csv() -> Path:
    """The real FER2013, where somebody has it."""
    path = os.environ.get("FER2013_CSV")
    if not path:
        pytest.skip("needs the real FER2013: set FER2013_CSV to its csv")
    return Path(path)
