"""`sweeps ensemble --by joint|middle`: trained nets joined and trained as one."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_data import DataOptions
from fer_models import JointConfig, LeNetConfig, Recipe
from fer_models.training.tensor_file import read_tensors
from sweeps import Space, TrialConfig, run_sweep
from sweeps.cli.main import main, run_main
from sweeps.runs import find_run
from sweeps.sweep import run_plan
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import refused
from tracking.record.history import SweepHistory

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

Capture = pytest.CaptureFixture[str]
SPACE = Space(
    suggest=lambda trial: TrialConfig(
        net=LeNetConfig(), recipe=Recipe(lr=trial.suggest_float("lr", 0.001, 0.02), batch_size=8)
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path, face_cache: Path) -> Path:
    """A sweep of two trials, and one on other faces."""
    out = tmp_path_factory.mktemp("members")
    asked: dict[str, Any] = {"epochs": 2, "runner": "inline", "figures": False, "out": out, **QUIET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_CACHE", str(face_cache))
        run_sweep(SPACE, trials=2, name="night", data=tiny_csv, **asked)
        part = DataOptions(source=str(tiny_csv), limit_train=28)
        run_sweep(SPACE, trials=1, name="other", data=part, **asked)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs"))


@pytest.fixture(scope="module")
def combined(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside these sweeps an average, a joint net, nets joined in the middle, and a joint net that has diverged."""
    out = Path(shutil.copytree(finished, tmp_path_factory.mktemp("combined") / "runs"))
    both = ["ensemble", "night/0", "night/1", "--out", str(out), "--name"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeps.cli.run_verbs.run_plan", functools.partial(run_plan, **QUIET))
        assert main([*both, "averaged"]) == 0
        assert main([*both, "joined", "--by", "joint", "--epochs", "1"]) == 0
        assert main([*both, "middle", "--by", "middle", "--epochs", "1"]) == 0
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main([*both, "diverged", "--by", "joint", "--lr", "1e30"]) == 1
    assert "diverged/0 has failed: diverged" in said.getvalue()
    return out


@pytest.fixture
def ensemble(out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr("sweeps.cli.run_verbs.run_plan", functools.partial(run_plan, **QUIET))
    return lambda *words: main(["ensemble", *words, "--name", "both", "--out", str(out)])


@pytest.mark.parametrize("by", ["joint", "middle"])
def test_joined_nets_are_trained_and_shown_beside_average_and_best(
    ensemble: Callable[..., int], by: str, out: Path, no_mlflow: object, capsys: Capture
) -> None:
    assert ensemble("--sweep", "night", "--by", by, "--epochs", "2") == 0
    said = capsys.readouterr().out
    for row in ("night/0, alone", "night/1, alone", "average of 2", f"both/0, {by}, 2 epochs"):
        assert row in said
    run = find_run("both", out)
    assert isinstance(run.config.net, JointConfig)
    assert (run.config.net.at, len(run.config.net.members)) == ("middle" if by == "middle" else "output", 2)
    best = find_run("night", out)
    assert run.config.recipe.lr == pytest.approx(best.config.recipe.lr * (0.1 if by == "joint" else 1))
    np.testing.assert_allclose(run.predict("val"), run.predictions().probabilities, atol=0.02)  # bf16 in training
    assert main(["test", "both/0", "--out", str(out)]) == 0
    assert main(["rerun", "both/0", "--name", "again", "--out", str(out)]) == 0
    assert "to the last bit" in " ".join(capsys.readouterr().out.split())


def test_joined_nets_begin_as_the_mean_of_their_members(ensemble: Callable[..., int], out: Path) -> None:
    assert ensemble("night/0", "night/1", "--by", "joint", "--epochs", "1", "--lr", "1e-12") == 0
    faces = find_run("night/0", out).faces()
    logits = [np.log(find_run(f"night/{number}", out).predict("val").astype(np.float64)) for number in (0, 1)]
    mean = np.exp(sum(logits) / 2)
    found = find_run("both/0", out).predict("val")
    np.testing.assert_allclose(found, mean / mean.sum(1, keepdims=True), atol=1e-4)
    assert len(found) == len(faces.val)


def test_a_joint_net_that_was_stopped_is_resumed(combined: Path, tmp_path: Path, no_mlflow: object) -> None:
    out = Path(shutil.copytree(combined, tmp_path / "runs"))
    journal = out / "joined/journal.jsonl"
    ends = ('"event":"finished"', '"event":"ended"', '"event":"end"')
    journal.write_text("".join(line for line in journal.open() if not any(end in line for end in ends)))
    assert main(["resume", "joined", "--out", str(out)]) == 0
    assert SweepHistory.load(journal).trials[0].state == "done"


def test_a_joint_net_and_its_members_share_their_looks_at_the_test_split(
    combined: Path, tmp_path: Path, no_mlflow: object
) -> None:
    out = Path(shutil.copytree(combined, tmp_path / "runs"))
    for name in ("night/0", "joined/0", "night/1", "other/0"):
        assert main(["test", name, "--out", str(out)]) == 0
    looks = [find_run(name, out).trial.tests[0].metrics for name in ("night/0", "joined/0", "night/1", "other/0")]
    assert [one["test_looks_in_sweep"] for one in looks] == [1, 2, 3, 1]


@pytest.mark.parametrize("name", ["joined", "middle"])
def test_stages_of_joined_nets_can_be_frozen(
    name: str, combined: Path, out: Path, tiny_csv: Path, no_mlflow: object
) -> None:
    joint, place = combined / name / "joint", ["--data", str(tiny_csv), "--out", str(out), "--name", "frozen"]
    words = [str(joint / "joint_nets.json"), *place, "--runner", "inline", "--epochs", "1", "--set", "freeze=1"]
    assert run_main(words) == 0
    before = read_tensors(joint / "weights.safetensors")[0]
    after = read_tensors(out / "frozen/trials/0000/best.safetensors")[0]
    assert 0 < sum(before[name].equal(after[name]) for name in before) < len(before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("night/0 other/0 --by joint", "were trained on different data"),
        ("night/0 --by middle", "an ensemble needs at least two runs, got 1"),
        ("night/0 night/1 --by midle", "did you mean 'middle'?"),
        ("night/0 night/1 --by joint --lr 0", "--lr 0"),
        ("night/0 night/1 --by joint --method greedy", "--method greedy: applies to averages"),
        ("night/0 night/1 --lr 0.1", "--epochs and --lr are for a joint net's training"),
        ("night/0 averaged/0 --by joint", "averaged/0: is no single net; name trials to be joined"),
        ("night/0 joined/0 --by middle", "joined/0: is joint already; name trials of single nets"),
        (
            "night/0 diverged/0 --by joint",
            "diverged/0: this trial is failed and has no finished epoch (diverged: train_loss is",
        ),
    ],
)
def test_what_cannot_be_joined(words: str, said: str, combined: Path, capsys: Capture) -> None:
    asked = ["ensemble", *words.split(), "--name", "both", "--out", str(combined)]
    assert said in refused(capsys, lambda: main(asked))
    assert not (combined / "both").exists()
