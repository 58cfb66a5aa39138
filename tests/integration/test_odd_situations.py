"""Situations and inputs that people report elsewhere, each met as a user meets it: by commands, in a folder of its own.

What each must do is tested closely beside the code that does it. Here all of them are run whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests import ROOT
from tracking.record.history import SweepHistory

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
HEAD = "from fer_models import LeNetConfig, Recipe\nfrom sweeps import Space, TrialConfig\n"
ONE = HEAD + (
    "def suggest(trial):\n    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=64))\n"
    "SPACE = Space(suggest=suggest, max_epochs=1, trials=1)\n"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Shell:
    """Runs the project's commands in one folder, which holds `one_space.py` of one short trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "one_space.py").write_text(ONE)

    def __call__(self, module: str, *words: str | Path, cwd: Path | None = None, **environment: str) -> tuple[int, str]:
        """Exit code, and all that is printed."""
        paths = [environment.pop("PYTHONPATH", ""), str(ROOT)]
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", timeout=300,
            check=False, cwd=cwd or self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def sweep(self, space: str | Path = "./one_space.py", *more: str, **environment: str) -> tuple[int, str]:
        """A sweep named `a` into `runs` (both as `more` says otherwise), in this process."""
        words = ["--limit-train", "300", "--runner", "inline"]
        named = [*([] if "--out" in more else ["--out", "runs"]), *([] if "--name" in more else ["--name", "a"])]
        return self("sweeps.run", space, *words, *named, *more, **environment)

    def describe(self, source: Path, *more: str) -> tuple[int, str]:
        return self("fer_data", "describe", source, *more)

    def history(self, name: str = "a", out: str = "runs") -> SweepHistory:
        return SweepHistory.load(self.folder / out / name / "journal.jsonl")

    def space(self, name: str, text: str) -> str:
        (self.folder / f"{name}.py").write_text(HEAD + text)
        return f"./{name}.py"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def tree(root: Path, splits: Mapping[str, int], classes: tuple[str, ...], name: str = "{}.png") -> Path:
    """Folders of noise: split → faces per class; the split "" is the root itself."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for label in classes:
            for number in range(count):
                file = root / split / label / name.format(number)
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(file)
    return root


def csv(file: Path, *, first_label: int = 0, without: str = "", tail: str = "") -> Path:
    rng = np.random.default_rng(1)
    lines = ["emotion,pixels,Usage"]
    for usage, count in (("Training", 140), ("PublicTest", 28), ("PrivateTest", 28)):
        for row in range(count):
            if usage != without:
                lines.append(f"{row % 7 + first_label},{' '.join(map(str, rng.integers(0, 256, 2304)))},{usage}")
    file.write_text("\n".join(lines) + "\n" + tail)
    return file


def test_1_mlflow_that_cannot_load_leaves_the_store_alone(shell: Shell) -> None:
    assert shell.sweep()[0] == 0
    store = shell.folder / "runs/mlflow.db"
    before = store.read_bytes()
    broken = shell.folder / "broken/alembic"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise ImportError("half installed")')
    code, printed = shell.sweep("./one_space.py", "--name", "b", PYTHONPATH=str(broken.parent))
    assert code == 0
    assert "half installed" in printed
    assert "python -m sweeps sync b" in printed
    assert store.read_bytes() == before
    assert shell("sweeps", "sync", "b", "--out", "runs")[0] == 0


def test_2_a_store_of_a_newer_mlflow_is_not_replaced(shell: Shell) -> None:
    assert shell.sweep()[0] == 0
    store = shell.folder / "runs/mlflow.db"
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    code, printed = shell.sweep("./one_space.py", "--name", "b")
    assert code == 0
    assert "ffffffffffff" in printed
    assert list(store.parent.glob("mlflow.db.*unreadable*")) == []
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() > (0,)


def test_3_moved_sweeps_keep_their_artifacts(shell: Shell) -> None:
    assert shell.sweep()[0] == 0
    (shell.folder / "runs").rename(shell.folder / "there")
    code, printed = shell.sweep("./one_space.py", "--name", "b", "--out", "there")
    assert code == 0
    assert "were moved from" in printed
    assert not (shell.folder / "runs").exists()


def test_4_a_password_is_never_printed(shell: Shell) -> None:
    code, printed = shell.sweep("./one_space.py", "--tracking-uri", "http://user:sesame@127.0.0.1:1")
    assert code == 0
    assert "127.0.0.1:1" in printed
    assert "sesame" not in printed


@pytest.mark.parametrize("what", ["address", "socket"])
def test_5_6_what_keeps_ray_from_starting_is_one_line(shell: Shell, what: str) -> None:
    words = ["lenet_space", "--limit-train", "300", "--trials", "2", "--epochs", "1", "--out", "runs"]
    deep = shell.folder / ("a" * 80)
    deep.mkdir()
    if what == "address":
        code, printed = shell("sweeps.run", *words, "--address", "127.0.0.1:7777", HOME=str(shell.folder))
        assert "no Ray answers" in printed
    else:
        code, printed = shell("sweeps.run", *words, TMPDIR=str(deep))
        assert "AF_UNIX path length" in printed
    assert code == 2
    assert not (shell.folder / "runs").exists()


def test_7_an_impossible_draw_fails_its_trial_alone(shell: Shell) -> None:
    space = shell.space(
        "rare_space",
        "from pathlib import Path\nDRAWS = []\ndef suggest(trial):\n"
        "    lr = trial.suggest_float('lr', 0.001, 0.1, log=True)\n    DRAWS.append(lr)\n"
        "    if len(DRAWS) == 23 and not Path('refused').exists():  # the 20 draws before a sweep pass\n"
        "        Path('refused').touch()  # so a resume, which draws again, meets no other\n"
        "        raise ValueError('kernel larger than the map')\n"
        "    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=64))\n"
        "SPACE = Space(suggest=suggest, max_epochs=1, trials=5)\n",
    )
    code, printed = shell.sweep(space)
    assert code == 1
    assert "kernel larger than the map" in printed
    states = [trial.state for trial in shell.history().trials.values()]
    assert states.count("failed") == 1
    assert len(states) == 5
    assert shell("sweeps", "resume", "a", "--out", "runs")[0] == 0


def test_8_a_terminal_that_is_not_utf8(shell: Shell) -> None:
    assert shell.sweep("lenet_space", "--trials", "2", "--epochs", "1", PYTHONIOENCODING="ascii")[0] == 0
    assert shell("sweeps", "report", "a", "--out", "runs", PYTHONIOENCODING="euc-jp", PYTHONUTF8="0")[0] == 0
    page = (shell.folder / "runs/a/figures/report.html").read_text(encoding="utf-8")
    assert "\ufffd" not in page


def test_9_numbered_folders(shell: Shell) -> None:
    numbers = tuple(str(number) for number in range(7))
    code, printed = shell.describe(tree(shell.folder / "affectnet", {"train": 12, "val": 12, "test": 12}, numbers))
    assert code == 0
    assert "0 Angry" in printed
    raf = tree(shell.folder / "raf", {"train": 12, "test": 12}, tuple("1234567"))
    (raf / "classes.txt").write_text("Surprise\nFear\nDisgust\nHappy\nSad\nAngry\nNeutral\n")
    code, printed = shell.describe(raf)
    assert code == 0
    assert "1 Surprise, 2 Fear" in printed


def test_10_a_folder_with_an_odd_name(shell: Shell) -> None:
    assert shell.sweep("./one_space.py", "--out", "a?b%20")[0] == 0
    assert {path.name for path in shell.folder.iterdir()} - {"__pycache__"} == {"one_space.py", "a?b%20"}
    assert (shell.folder / "a?b%20/mlflow.db").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_11_a_user_without_a_name_or_a_home(shell: Shell) -> None:
    shutil.chown(shell.folder, 12345, 12345)
    run = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "env", "-u", "HOME"]
    if subprocess.run([*run, sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode:
        pytest.skip("other users may not read this environment")
    done = subprocess.run(
        [*run, sys.executable, "-m", "sweeps.run", "./one_space.py", "--limit-train", "300", "--out", "runs"],
        capture_output=True, text=True, check=False, timeout=300, cwd=shell.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FER_CACHE": str(shell.folder / "cache")},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2), done.stderr
    if done.returncode:
        assert len(done.stderr.splitlines()) == 1


def test_12_a_reader_that_goes_away(shell: Shell) -> None:
    command = [sys.executable, "-m", "sweeps.run", "lenet_space", "--limit-train", "300", "--runner", "inline"]
    process = subprocess.Popen(
        [*command, "--trials", "3", "--epochs", "2", "--out", "runs", "--name", "a"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=shell.folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(300) == 0
    assert [trial.state in {"done", "pruned"} for trial in shell.history().trials.values()] == [True] * 3


def test_14_resumed_from_another_folder_with_its_neighbour(shell: Shell) -> None:
    (shell.folder / "my_helper.py").write_text("LR = (0.01, 0.1)\n")
    space = shell.space(
        "neighbour_space",
        "from my_helper import LR\ndef suggest(trial):\n    lr = trial.suggest_float('lr', *LR)\n"
        "    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=64))\n"
        "SPACE = Space(suggest=suggest, max_epochs=1, trials=2)\n",
    )
    assert shell.sweep(space, "--time-budget", "0.01s")[0] == 0
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    code, printed = shell("sweeps", "resume", "a", "--out", "../runs", cwd=elsewhere)
    assert code == 0, printed
    assert len(shell.history().trials) == 2
    (shell.folder / "ray.py").write_text("print('not Ray')\n")
    code, printed = shell("sweeps.run", "lenet_space", "--limit-train", "300", "--out", "other")
    assert code == 2, printed
    assert "ray.py" in printed


def test_15_a_space_that_changes_between_runs(shell: Shell) -> None:
    text = (
        "def suggest(trial):\n    size = trial.suggest_categorical('batch_size', SIZES)\n"
        "    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.01, batch_size=size))\n"
        "SPACE = Space(suggest=suggest, max_epochs=1, trials=2)\n"
    )
    space = shell.space("changing_space", text.replace("SIZES", "[64, 128]"))
    assert shell.sweep(space)[0] == 0
    shell.space("changing_space", text.replace("SIZES", "[64, 128, 256]"))
    code, printed = shell.sweep(space, "--resume", "--trials", "4")
    assert code in (0, 2), printed
    assert "batch_size" in printed
    assert "256" in printed


def test_16_why_all_trials_failed_is_still_known_later(shell: Shell) -> None:
    space = shell.space(
        "nan_space",
        "def suggest(trial):\n    lr = trial.suggest_categorical('lr', [1e12])\n"
        "    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr, batch_size=64))\n"
        "SPACE = Space(suggest=suggest, max_epochs=2, trials=2)\n",
    )
    shell.sweep(space)
    code, printed = shell("sweeps", "status", "a", "--out", "runs")
    assert code == 0
    assert "not finite" in printed or "diverged" in printed


@pytest.mark.parametrize("uri", ["./mlruns", "nonsense://x", "127.0.0.1:5791"])
def test_17_a_tracking_uri_that_can_never_work(shell: Shell, uri: str) -> None:
    code, printed = shell.sweep("./one_space.py", "--tracking-uri", uri)
    assert code == 2, printed
    assert not (shell.folder / "runs").exists()


def test_18_runs_deleted_in_mlflow(shell: Shell) -> None:
    assert shell.sweep()[0] == 0
    client = MlflowClient(f"sqlite:///{shell.folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("one_space")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)
    code, printed = shell("sweeps", "register", "a/0", "--out", "runs")
    assert code == 2
    assert "mlflow runs restore --run-id" in printed
    code, printed = shell("sweeps", "sync", "a", "--out", "runs")
    assert code == 0
    assert "mlflow runs restore --run-id" in printed


def _layouts() -> Iterator[tuple[str, Mapping[str, int], tuple[str, ...], str, str]]:
    yield "contempt", {"train": 12, "val": 12, "test": 12}, (*EXPRESSIONS, "contempt"), "{}.png", "Contempt"
    yield "train and val", {"train": 24, "val": 24}, EXPRESSIONS, "{}.png", "no test split in the source"
    yield "CK+48", {"": 24}, ("anger", "contempt", "happy"), "{}.png", "are val and 8 are test"
    yield "Chinese", {"train": 24, "test": 12}, ("高兴", "悲伤", "中性 表情"), "脸 {}.png", "高兴"


@pytest.mark.parametrize(
    ("name", "splits", "classes", "file", "expected"), _layouts(), ids=lambda value: str(value)[:12]
)
def test_19_layouts(
    shell: Shell, name: str, splits: Mapping[str, int], classes: tuple[str, ...], file: str, expected: str
) -> None:
    code, printed = shell.describe(tree(shell.folder / "faces", splits, classes, file))
    assert code == 0, printed
    assert expected in printed


def test_19_litter_and_files_of_another_kind(shell: Shell) -> None:
    faces = tree(shell.folder / "faces", {"train": 24, "test": 12}, EXPRESSIONS)
    for folder in (faces, faces / "train", faces / "train/angry"):
        (folder / "@eaDir").mkdir()
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert shell.describe(faces)[0] == 0
    code, printed = shell.describe(
        tree(shell.folder / "webp", {"train": 3, "test": 3}, EXPRESSIONS, "{}.webp"), "--skip-bad"
    )
    assert code == 2
    assert "not named .png, .jpg or .jpeg" in printed


def test_20_forms_of_the_csv(shell: Shell) -> None:
    code, printed = shell.describe(csv(shell.folder / "one_based.csv", first_label=1), "--skip-bad")
    assert code == 2
    assert "its labels count from 1" in printed
    code, printed = shell.describe(csv(shell.folder / "noval.csv", without="PublicTest"))
    assert code == 0
    assert "numbers do not compare with those of the official split" in printed
    tail = csv(shell.folder / "tail.csv", tail="some,notes,from,a,spread,sheet\n,,\n")
    code, printed = shell.describe(tail)
    assert code == 2
    assert "--skip-bad" in printed
    assert shell.describe(tail, "--skip-bad")[0] == 0
    good = csv(shell.folder / "good.csv")
    with tarfile.open(shell.folder / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(good, "fer2013/fer2013.csv")
    assert shell.describe(shell.folder / "fer2013.tar.gz")[0] == 0
    shutil.copy(good, shell.folder / "other_faces.csv")
    assert shell.describe(shell.folder / "other_faces.csv")[1].startswith("other_faces,")
