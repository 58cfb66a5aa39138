"""The verb `export`: files that answer as the trained net does, by programs that know nothing of this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fer_data.augmentation.preprocess import preprocess
from fer_data.augmentation.preprocess_names import PREPROCESSINGS
from fer_models import CompactResNetConfig, JointConfig, LeNetConfig, NetConfig, Recipe
from fer_models.exported_graph import ExportedGraph
from fer_models.packed_nets import Member
from sweeps import Baseline, Space, TrialConfig, run_sweep
from sweeps.cli.main import main
from sweeps.runs import find_run
from sweeps.serve.models.pool import return_freed_memory
from sweeps.use.classifier import OnnxClassifier, inputs_of

pytestmark = pytest.mark.timeout(120)

Capture = pytest.CaptureFixture[str]


def _trial(net: NetConfig, preprocessing: str) -> TrialConfig:
    return TrialConfig(net=net, recipe=Recipe(lr=0.01, batch_size=8, views="mirror"), preprocess=preprocessing,
                       precision="fp32", memory_format="contiguous")  # type: ignore[arg-type]  # fmt: skip


SMALL = CompactResNetConfig(size=32, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1))
COMPACT = _trial(SMALL, "standardise")
CLAHE = _trial(LeNetConfig(), "clahe")
JOINED = _trial(JointConfig(members=(LeNetConfig(), SMALL), at="middle"), "none")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_csv: Path) -> Path:
    out = tmp_path_factory.mktemp("exported")
    space = Space(
        suggest=lambda trial: COMPACT,
        baselines=[Baseline("compact", COMPACT), Baseline("clahe", CLAHE), Baseline("joined", JOINED)],
    )
    run_sweep(space, data=tiny_csv, trials=3, epochs=1, name="night", out=out, runner="inline",
              figures=False)  # fmt: skip
    return out


@pytest.fixture
def export(finished: Path) -> Callable[..., int]:
    return lambda *words: main(["export", *words, "--out", str(finished)])


def expected(finished: Path, trial: int = 0) -> tuple[np.ndarray, np.ndarray]:
    run = find_run(f"night/{trial}", finished)
    return np.asarray(run.raw_faces().val.images), run.predict("val")


def test_an_onnx_file_answers_as_the_net_and_predict_takes_it(
    export: Callable[..., int], finished: Path, tiny_csv: Path, tmp_path: Path, capsys: Capture
) -> None:
    import onnxruntime

    assert export("night/0", "--format", "onnx", "--file", str(tmp_path / "net.onnx")) == 0
    assert "on 14 validation faces its probabilities differ from the net's by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    faces, wanted = expected(finished)
    for some in (slice(None), slice(1)):
        (answers,) = session.run(["probabilities"], {"faces": faces[some]})
        np.testing.assert_allclose(answers, wanted[some], atol=1e-4)
    card = (tmp_path / "net.onnx.md").read_text()
    for part in ("accuracy on val, n = 14", "95 % interval", "can be wrong about people", "InferenceSession"):
        assert part in card
    program = card.partition("```python\n")[2].partition("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(program, {})
    assert "'Happy': 0." in capsys.readouterr().out
    assert main(["predict", str(tiny_csv), "--model", str(tmp_path / "net.onnx"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"]["name"] == "night/0"


@pytest.mark.parametrize(("kind", "suffix"), [("torch-export", "pt2"), ("safetensors", "safetensors")])
def test_other_formats_answer_as_the_net(
    export: Callable[..., int], finished: Path, tmp_path: Path, capsys: Capture, kind: str, suffix: str
) -> None:
    import torch
    from safetensors import safe_open

    path = tmp_path / f"net.{suffix}"
    assert export("night/0", "--format", kind, "--file", str(path)) == 0
    assert sorted(found.name for found in tmp_path.iterdir()) == [path.name, f"{path.name}.md"]
    program = path.with_name(f"{path.name}.md").read_text().partition("```python\n")[2].partition("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(program, {})
    assert "'Happy': 0." in capsys.readouterr().out
    if kind == "torch-export":
        faces, wanted = expected(finished)
        answers = torch.export.load(path).module()(torch.tensor(faces)).detach().numpy()
        np.testing.assert_allclose(answers, wanted, atol=1e-4)
    else:
        assert json.loads(safe_open(path, "pt").metadata()["model"])["members"][0]["preprocess"] == "standardise"


@pytest.mark.long
def test_nets_joined_in_the_middle_answer_as_an_onnx_file_too(
    export: Callable[..., int], finished: Path, tmp_path: Path
) -> None:
    assert export("night/2", "--format", "onnx", "--file", str(tmp_path / "net.onnx")) == 0
    faces, wanted = expected(finished, 2)
    probabilities, looked = OnnxClassifier(tmp_path / "net.onnx").explained(faces)
    np.testing.assert_allclose(probabilities, wanted, atol=1e-4)
    assert looked is not None


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="glibc gives freed memory back")
def test_a_large_batch_leaves_no_memory_behind(export: Callable[..., int], tmp_path: Path) -> None:
    assert export("night/1", "--format", "onnx", "--file", str(tmp_path / "net.onnx")) == 0
    classifier, process = OnnxClassifier(tmp_path / "net.onnx", threads=1), psutil.Process()
    faces = np.random.default_rng(0).integers(0, 256, (256, 48, 48)).astype(np.uint8)
    classifier.probabilities(faces[:1])
    return_freed_memory()
    before = process.memory_info().rss
    classifier.probabilities(faces)
    return_freed_memory()
    assert process.memory_info().rss - before < 20e6


@pytest.mark.long
def test_int8_says_what_it_costs(export: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    assert export("night/0", "--format", "onnx", "--int8", "--file", str(tmp_path / "net.onnx")) == 0
    assert "int8 changes the accuracy on the validation split by" in capsys.readouterr().out
    assert "int8 changes the accuracy on val by" in (tmp_path / "net.onnx.md").read_text()


@pytest.mark.long
def test_int8_stores_fully_connected_layers_in_8_bits_too(export: Callable[..., int], tmp_path: Path) -> None:
    assert export("night/1", "--format", "onnx", "--int8", "--file", str(tmp_path / "net.onnx")) == 0
    assert (tmp_path / "net.onnx").stat().st_size < 1.5 * 2_054_577  # LeNet's parameters


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("night/0", "--format", "safetensors", "--int8"), "int8 is only for onnx"),
        (("night/0", "--format", "onnx", "--file", "net.pt"), "a file of --format onnx ends with .onnx"),
        (("night/0", "--format", "onnx", "--file", "no/net.onnx"), "there is no folder no"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    export: Callable[..., int], words: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
) -> None:
    before = sorted(tmp_path.iterdir())
    assert export(*words) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_a_graph_sees_faces_preprocessed_as_in_training(name: str) -> None:
    import torch

    class Seen(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.flatten(1)

    rng = np.random.default_rng(0)
    faces = np.concatenate([rng.integers(0, 256, (5, 8, 8)), np.full((1, 8, 8), 7)]).astype(np.uint8)
    mean = rng.uniform(0, 255, (8, 8)).astype(np.float32)
    graph = ExportedGraph([Member(Seen(), name, "plain", 1.0)], mean)
    wanted = torch.tensor(preprocess(faces, name, mean)).flatten(1).softmax(1).numpy()
    given = graph(*map(torch.tensor, inputs_of(faces, graph.before).values()))
    np.testing.assert_allclose(given.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize(("kind", "suffix"), [("onnx", "onnx"), ("torch-export", "pt2")])
def test_what_a_graph_cannot_express_is_done_before_it(
    export: Callable[..., int], finished: Path, tmp_path: Path, capsys: Capture, kind: str, suffix: str
) -> None:
    path = tmp_path / f"net.{suffix}"
    assert export("night/1", "--format", kind, "--file", str(path)) == 0
    assert "clahe is done before the graph" in " ".join(capsys.readouterr().out.split())
    program = path.with_name(f"{path.name}.md").read_text().partition("```python\n")[2].partition("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(program, {})
    assert "'Happy': 0." in capsys.readouterr().out
    if kind == "onnx":
        faces, wanted = expected(finished, 1)
        classifier = OnnxClassifier(path)
        np.testing.assert_allclose(classifier.probabilities(faces), wanted, atol=1e-4)
        probabilities, looked = classifier.explained(faces)
        np.testing.assert_allclose(probabilities, wanted, atol=1e-4)
        assert looked is not None
        assert looked.max() > 0
