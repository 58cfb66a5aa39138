"""A sweep's best net as an MLflow model: loaded by a process that knows MLflow alone, it answers as the trial did."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from fer_data import DataOptions
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.after.register import _CODE, register_best
from sweeps.cli.main import main
from sweeps.sweep import SweepResult
from sweeps.use.find_model import find_model
from tests import ROOT
from tests.ports import free_port
from tests.sweeps.fake_trials import refused
from tracking.mlflow_sync.default_store import default_uri
from tracking.mlflow_sync.models import CHAMPION
from tracking.mlflow_sync.upkeep import opened
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]

# Run by an interpreter that does not find the project: what it needs of it, the model has.
_STRANGER = """
import sys
sys.path = [place for place in sys.path if place != sys.argv[4]]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
import mlflow
import numpy as np
mlflow.set_tracking_uri(sys.argv[1])
net = mlflow.pyfunc.load_model(sys.argv[2])
given = np.load(sys.argv[3])
answers = {name: net.predict(given[name]) for name in given.files}
import fer_models
assert "code" in fer_models.__file__.split("/"), fer_models.__file__
assert not any(name.split(".")[0] in ("sweeps", "tracking") for name in sys.modules)
np.savez("answers.npz", columns=list(answers["raw"].columns), **answers)
"""


def test_a_model_has_copies_of_all_packages_that_its_code_imports() -> None:
    named = {
        (name.split(".")[0])
        for package in _CODE
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [one.name for one in node.names] if isinstance(node, ast.Import) else [])
    }  # fmt: skip
    ours = {path.name for path in Path(__file__).parents[3].iterdir() if (path / "__init__.py").is_file()}
    assert named & ours == {package.name for package in _CODE}


def _config(net: dict[str, Any], preprocess: str = "none", views: str = "plain") -> TrialConfig:
    content = {"net": net, "recipe": {"lr": 0.01, "batch_size": 8, "views": views}, "preprocess": preprocess}
    return TrialConfig.model_validate({**content, "precision": "fp32", "memory_format": "contiguous"})


LENET = {"name": "lenet"}
CONFIGS = [
    _config(LENET),
    _config({"name": "alexnet"}, "mean_image", "mirror"),
    _config(LENET, "equalise_global", "ten_crop"),
]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Three real trials, and their ensemble `both`, in MLflow's store beside them."""
    out = tmp_path_factory.mktemp("registered")
    rng = np.random.default_rng(0)
    np.save(out / "val.npy", val := rng.integers(0, 256, (21, 48, 48), np.uint8))
    train, test = rng.integers(0, 256, (2, 56, 48, 48), np.uint8)
    rows = ["emotion,pixels,Usage"]
    for usage, images in (("Training", train), ("PublicTest", val), ("PrivateTest", test)):
        rows += [f"{n % 7},{' '.join(map(str, image.ravel()))},{usage}" for n, image in enumerate(images)]
    (out / "noise.csv").write_text("\n".join(rows) + "\n")
    space = Space(suggest=lambda trial: CONFIGS[0], max_epochs=2, name="night_space",
                  baselines=[Baseline(f"net {number}", config) for number, config in enumerate(CONFIGS)])  # fmt: skip
    data = DataOptions(source=str(out / "noise.csv"), resize=40, resize_method="lanczos")
    run_sweep(space, data=data, trials=3, epochs=2, name="night", out=out, runner="inline")
    members = [f"night/{number}" for number in range(3)]
    assert main(["ensemble", *members, "--name", "all", "--method", "weighted", "--out", str(out)]) == 0
    return SweepFolder(out / "night")


def asked_of(address: str, night: SweepFolder, here: Path) -> dict[str, np.ndarray]:
    """What a process that knows MLflow alone is answered by a model, on val as it stands in the csv and in colour."""
    out = night.root.parent
    raw = np.load(out / "val.npy")
    np.savez(
        here / "given.npz", raw=raw, colour=np.repeat(raw[..., None], 3, axis=3), big=np.zeros((2, 9, 77), np.uint8)
    )
    (here / "stranger.py").write_text(_STRANGER)
    words = [sys.executable, "stranger.py", default_uri(out), address, "given.npz", str(ROOT)]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with np.load(here / "answers.npz") as answers:
        return dict(answers)


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["night/0", "night/1", "night/2", "all/0"])
def test_a_model_answers_as_the_trial_did(reference: str, night: SweepFolder, tmp_path: Path, capsys: Capture) -> None:
    out = night.root.parent
    assert main(["register", reference, "--out", str(out)]) == 0
    line = capsys.readouterr().out
    name, _, number = reference.partition("/")
    address = re.search(r"logged as model (runs:/[0-9a-f]{32}/model); registered as", line)
    assert address is not None, line
    answers = asked_of(address[1], night, tmp_path)
    with np.load(out / name / f"trials/000{number}/val_probabilities.npz") as kept:
        np.testing.assert_allclose(answers["raw"], kept["probabilities"], atol=2e-5)
    np.testing.assert_allclose(answers["colour"], answers["raw"], atol=1e-6)
    np.testing.assert_allclose(answers["big"].sum(axis=1), 1, atol=1e-5)
    assert answers["columns"].tolist() == ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"]
    saved = [path for path in out.rglob("mlartifacts/**/model/**/*") if path.is_file()]
    assert not [path for path in saved if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]


@pytest.mark.slow
def test_the_best_trial_is_the_first_champion_and_stays_it(night: SweepFolder) -> None:
    uri = default_uri(night.root.parent)
    with opened(uri) as client:
        for model in client.search_registered_models():
            client.delete_registered_model(model.name)
        first, again = register_best(night, uri), register_best(night, uri)
        (name,) = [model.name for model in client.search_registered_models()]
        champion = client.get_model_version_by_alias(name, CHAMPION)
        number = int(client.get_run(champion.run_id).data.tags["trial"])
    history = SweepHistory.load(night.journal)
    assert name == f"night_space-{history.started.tags['dataset.fingerprint'][:12]}"
    assert first is not None
    assert first.endswith(f"as {name} version 1, champion: the first of its space on these faces")
    assert again is not None
    assert again.endswith(f"as {name} version 1, champion: it is already the champion")
    accuracies = {trial.number: trial.end.best["best_val_accuracy"] for trial in history.trials.values() if trial.end}
    assert accuracies[number] == max(accuracies.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mlflow_serves_the_champion(night: SweepFolder, tmp_path: Path) -> None:
    out = night.root.parent
    register_best(night, default_uri(out))
    with opened(default_uri(out)) as client:
        (name,) = [model.name for model in client.search_registered_models()]
        champion = client.get_model_version_by_alias(name, CHAMPION)
        number = int(client.get_run(champion.run_id).data.tags["trial"])
    port, val = free_port(), np.load(out / "val.npy")
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@{CHAMPION}", "--env-manager", "local",
             "--port", str(port)]  # fmt: skip
    environment = os.environ | {"MLFLOW_TRACKING_URI": default_uri(out), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
    log = tmp_path / "server.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=file, stderr=file, start_new_session=True
        ) as server,
    ):
        try:
            answer = answered(f"http://127.0.0.1:{port}/invocations", {"inputs": val.tolist()}, server, log)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    given = np.array([[row[name] for name in ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")]
                      for row in answer["predictions"]])  # fmt: skip
    with np.load(out / f"night/trials/000{number}/val_probabilities.npz") as kept:
        np.testing.assert_allclose(given, kept["probabilities"], atol=2e-5)


def answered(address: str, content: dict[str, Any], server: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """What a server that is about to start answers."""
    while server.poll() is None:
        try:
            answer = requests.post(address, json=content, timeout=60)
        except requests.ConnectionError:
            time.sleep(0.5)
            continue
        assert answer.status_code == 200, answer.text + log.read_text()
        found: dict[str, Any] = answer.json()
        return found
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_synthetic_faces_are_logged_and_never_registered(tmp_path: Path, capsys: Capture) -> None:
    space = Space(suggest=lambda trial: CONFIGS[0], max_epochs=1, name="drawn_space")
    done = run_sweep(space, data=DataOptions(limit_train=70), trials=1, epochs=1, name="drawn", out=tmp_path,
                     runner="inline")  # fmt: skip
    line = register_best(done.folder, default_uri(tmp_path))
    assert line is not None
    assert line.endswith("/model; trained on synthetic faces: never registered")
    with opened(default_uri(tmp_path)) as client:
        assert client.search_registered_models() == []
        assert [one.path for one in client.list_artifacts(line.split("/")[2], "model") if one.path.endswith("MLmodel")]


@pytest.mark.long
def test_a_registered_net_of_a_fold_is_said_to_be_judged_on_it(tmp_path: Path, tiny_csv: Path) -> None:
    space = Space(suggest=lambda trial: CONFIGS[0], max_epochs=1, name="fold_space")
    data = DataOptions(source=str(tiny_csv), fold=1, folds=2)
    done = run_sweep(space, data=data, trials=1, epochs=1, name="night", out=tmp_path, runner="inline", figures=False)
    register_best(done.folder, default_uri(tmp_path))
    of_run, of_champion = (find_model(name, tmp_path).about for name in ("night/0", CHAMPION))
    assert of_champion.split == of_run.split == "val, fold 1 of 2"
    assert (of_champion.right, of_champion.n) == (of_run.right, of_run.n)


def test_a_sweep_without_weights_has_nothing_to_register(
    sweep: Callable[..., SweepResult], out: Path, capsys: Capture
) -> None:
    done = sweep(trials=1, figures=False)
    said = refused(capsys, lambda: main(["register", "night/0", "--out", str(out)]))
    assert said == "night/0: has no probabilities of its best epoch in " + str(done.folder.trial(0).root)
