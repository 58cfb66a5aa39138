import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tracking.mlflow_sync.default_store import open_default_store

VERSION = "3.0"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FER_CACHE", str(folder))
    return folder


class Schema:
    """Stands for MLflow's own opening: brings an empty file to its schema, refuses a half-made one."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.migrations = 0

    def open(self, uri: str) -> None:
        self.opened.append(uri)
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                connection.execute("CREATE TABLE whole (x)")
                self.migrations += 1
            connection.execute("SELECT * FROM whole")


def test_a_new_store_is_made_beside_and_moved_into_place(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    made_while_absent = []
    schema = Schema()

    def try_open(uri: str) -> None:
        made_while_absent.append(not path.exists())
        schema.open(uri)

    opened = open_default_store(path, try_open, VERSION)
    assert (opened.uri, opened.set_aside) == (f"sqlite:///{path}", None)
    assert made_while_absent == [True]
    schema.open(opened.uri)
    assert open_default_store(path, schema.open, VERSION) == opened


def test_mlflow_migrates_a_store_once_per_version_and_each_is_empty(tmp_path: Path) -> None:
    schema = Schema()
    for folder, version, migrations in (("a", "3.0", 1), ("b", "3.0", 1), ("c", "3.1", 2), ("d", "3.1", 2)):
        path = tmp_path / folder / "mlflow.db"
        open_default_store(path, schema.open, version)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT * FROM whole").fetchall() == []
            connection.execute("INSERT INTO whole VALUES (1)")
            connection.commit()
        assert schema.migrations == migrations
        assert {file.name for file in path.parent.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_migrated_store_is_kept_without_what_mlflow_writes_into_a_new_one(tmp_path: Path) -> None:
    def try_open(uri: str) -> None:
        Schema().open(uri)
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            if connection.execute("SELECT count(*) FROM whole").fetchone() == (0,):
                connection.execute("INSERT INTO whole VALUES (?)", (uri,))  # as its experiment, with a folder
                connection.commit()

    for folder in ("a", "b"):
        path = tmp_path / folder / "mlflow.db"
        open_default_store(path, try_open, VERSION)
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT x FROM whole").fetchall()
        assert [row[0].startswith(f"sqlite:///{path.parent}/") for row in rows] == [True]


@pytest.mark.parametrize("damage", ["not a database", "of another schema", "not empty", "not to be read"])
def test_what_the_cache_keeps_is_replaced_where_mlflow_refuses_it(tmp_path: Path, cache: Path, damage: str) -> None:
    schema = Schema()
    open_default_store(tmp_path / "first/mlflow.db", schema.open, VERSION)
    (kept,) = (cache / "mlflow").iterdir()
    kept.unlink()
    match damage:
        case "not a database":
            kept.write_bytes(b"no database at all " * 99)
        case "of another schema":
            with closing(sqlite3.connect(kept)) as connection:
                connection.execute("CREATE TABLE other (x)")
        case "not empty":
            with closing(sqlite3.connect(kept)) as connection:
                connection.execute("CREATE TABLE whole (x)")
                connection.execute("INSERT INTO whole VALUES (1)")
                connection.commit()
        case _:
            (cache / "mlflow").rmdir()
            (cache / "mlflow").write_bytes(b"a file")
    for folder in ("second", "third"):
        opened = open_default_store(tmp_path / folder / "mlflow.db", schema.open, VERSION)
        assert opened.set_aside is None
        with closing(sqlite3.connect(tmp_path / folder / "mlflow.db")) as connection:
            assert connection.execute("SELECT * FROM whole").fetchall() == []
        assert {file.name for file in (tmp_path / folder).iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    assert schema.migrations == (3 if damage == "not to be read" else 2)
    # MLflow retries for minutes on a file that is not a database, so it gets none.
    copies = {"not a database": 1, "not empty": 1, "of another schema": 2, "not to be read": 0}
    assert len([uri for uri in schema.opened if uri.endswith(".copied")]) == copies[damage]


@pytest.mark.parametrize(
    ("half", "fault"), [(b"no database at all " * 99, "is damaged (file is not a database)"), (None, "is incomplete")]
)
def test_a_damaged_store_is_kept_under_another_name(tmp_path: Path, half: bytes | None, fault: str) -> None:
    path = tmp_path / "mlflow.db"
    if half is not None:
        path.write_bytes(half)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE half (x)")
            connection.execute("CREATE TABLE alembic_version (version_num)")
            connection.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
            connection.commit()
    before = path.read_bytes()
    schema = Schema()
    opened = open_default_store(path, schema.open, VERSION)
    assert opened.set_aside is not None
    assert opened.fault is not None
    assert fault in opened.fault
    assert opened.set_aside.read_bytes() == before
    assert opened.uri not in schema.opened, "a client keeps connections to the old file under the old URI"
    schema.open(opened.uri)
    assert Path(opened.uri.removeprefix("sqlite:///")).resolve() == path


def test_who_looks_does_not_wait_for_who_writes_nor_the_other_way(tmp_path: Path) -> None:
    """As people read in the UI while a sweep writes; with a rollback journal the commit would find the file locked."""
    path = tmp_path / "mlflow.db"
    open_default_store(path, Schema().open, VERSION)
    with closing(sqlite3.connect(path, timeout=0)) as writer, closing(sqlite3.connect(path, timeout=0)) as reader:
        writer.execute("INSERT INTO whole VALUES (1)")
        writer.commit()
        rows = reader.execute("SELECT x FROM whole UNION ALL SELECT x + 1 FROM whole")
        assert rows.fetchone() == (1,), "the reader is in the middle of its look"
        writer.execute("INSERT INTO whole VALUES (2)")
        writer.commit()
        assert rows.fetchall() == [(2,)]
        assert reader.execute("SELECT count(*) FROM whole").fetchone() == (2,)


def test_what_lies_beside_an_unreadable_store_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE half (x)")
        writer.commit()  # as yet in the log beside the file alone
        opened = open_default_store(path, Schema().open, VERSION)
        assert opened.set_aside is not None
        with closing(sqlite3.connect(opened.set_aside)) as old, closing(sqlite3.connect(path)) as new:
            assert old.execute("SELECT name FROM sqlite_master").fetchall() == [("half",)]
            assert new.execute("SELECT name FROM sqlite_master").fetchall() == [("whole",)]


def test_a_locked_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    open_default_store(path, Schema().open, VERSION)

    def locked(uri: str) -> None:
        with closing(sqlite3.connect(path)) as holder, closing(sqlite3.connect(path, timeout=0)) as other:
            holder.execute("BEGIN EXCLUSIVE")
            other.execute("INSERT INTO whole VALUES (1)")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_default_store(path, locked, VERSION)
    assert {found.name for found in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


class RefusalError(Exception):
    """What MLflow says of a store, or of its own installation."""


def refuse(uri: str) -> None:
    raise RefusalError("not this one")


def names(folder: Path) -> set[str]:
    return {found.name for found in folder.glob("mlflow.db*")}


def test_a_store_with_anything_in_it_stays_where_it_is_whatever_mlflow_says(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    open_default_store(path, Schema().open, VERSION)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO whole VALUES (7)")
        connection.commit()
    with pytest.raises(RefusalError):
        open_default_store(path, refuse, VERSION)
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


def test_nothing_is_moved_where_no_new_store_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"no database at all " * 99)
    with pytest.raises(RefusalError):
        open_default_store(path, refuse, VERSION)
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


def test_a_store_that_another_program_is_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE half (x)")
    words = [sys.executable, "-c", f"import sqlite3; c = sqlite3.connect({str(path)!r}); "
             "c.execute('SELECT * FROM half'); print(flush=True); input()"]  # fmt: skip
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match="another program is creating it"):
            open_default_store(path, Schema().open, VERSION)
        other.communicate(b"\n")
    assert open_default_store(path, Schema().open, VERSION).set_aside is not None
