import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fer_models import AlexNetConfig, LeNetConfig, ModelError, Recipe, VGGSmallTunedConfig
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training.fit import Batches, Epoch, fit
from fer_models.training.state import TrainingState, new_state
from fer_models.training.tensor_file import read_tensors
from fer_models.training.weights import load_state, load_weights, save_state, save_weights, take_snapshot

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def make(config: LeNetConfig | AlexNetConfig, classes: int = 7, seed: int = 0) -> nn.Module:
    mean = np.full((48, 48), 100 + seed, dtype=np.float32)
    return build(config, classes=classes, mean_image=mean, generator=torch.Generator().manual_seed(seed))


def test_weights_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    net, other = make(AlexNetConfig()), make(AlexNetConfig(), seed=1)
    save_weights(net, path, {"net": "alexnet"})
    assert load_weights(other, path) == {"net": "alexnet"} == read_tensors(path)[1]
    for name, value in net.state_dict().items():  # the mean image too
        assert torch.equal(other.state_dict()[name], value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.safetensors: no such file"):
        load_weights(make(LeNetConfig()), tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        load_weights(make(LeNetConfig()), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(LeNetConfig()), path, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"w\.safetensors: truncated or corrupt"):
        load_weights(make(LeNetConfig()), path)


def test_one_flipped_bit_is_noticed_and_the_net_untouched(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(LeNetConfig()), path, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    net = make(LeNetConfig(), seed=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ModelError, match="checksum does not match"):
        load_weights(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_metadata_is_under_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(LeNetConfig()), path, {"seed": "1234"})
    path.write_bytes(path.read_bytes().replace(b'"1234"', b'"1235"'))
    with pytest.raises(ModelError, match="checksum does not match"):
        read_tensors(path)


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(AlexNetConfig(), classes=1000), path, {})
    with pytest.raises(ModelError, match=r"fc8\.weight \(7, 1000\) vs \(1000, 1000\) in the file"):
        load_weights(make(AlexNetConfig()), path)


def test_missing_and_unexpected_weights_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    save_weights(nn.Sequential(nn.Linear(2, 2, bias=False), nn.Identity(), nn.Linear(2, 2, bias=False)), path, {})
    with pytest.raises(ModelError, match=r"missing 3, unexpected 1 \(-0\.bias, -1\.weight, -1\.bias, \+2\.weight\)"):
        load_weights(net, path)


def test_a_file_without_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(dict(make(LeNetConfig()).state_dict()), path)
    with pytest.raises(ModelError, match="has no checksum"):
        load_weights(make(LeNetConfig()), path)


class _Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", [0, 2, 5, "torch"])
def test_a_pickle_is_never_opened(protocol: int | str, tmp_path: Path) -> None:
    path, trace = tmp_path / "w.safetensors", tmp_path / "trace"
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps(_Payload(trace), protocol=protocol))
    else:
        torch.save({"payload": _Payload(trace)}, path)
    with pytest.raises(ModelError, match="cannot be loaded safely" if protocol != 0 else "corrupt"):
        load_weights(make(LeNetConfig()), path)
    with pytest.raises(ModelError):
        load_state(new_state(make(LeNetConfig()), Recipe(lr=0.1)), path)
    assert not trace.exists()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(LeNetConfig()), path, {"n": "1"})

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ModelError, match=r"w\.safetensors: cannot be written: .* device; the earlier one is unchanged$"
    ):
        save_weights(make(LeNetConfig()), path, {"n": "2"})
    with pytest.raises(ModelError, match=r"new\.safetensors: cannot be written: No space left on device$"):
        save_weights(make(LeNetConfig()), tmp_path / "new.safetensors", {"n": "2"})
    assert read_tensors(path)[1] == {"n": "1"}
    assert list(tmp_path.iterdir()) == [path]


SGD = Recipe(lr=0.005, weight_decay=5e-4, lr_policy="cosine")
ADAMW = Recipe(optimizer="adamw", lr=1e-4, weight_decay=0.01, lr_policy="onecycle")
EMA = Recipe(optimizer="nesterov", lr=0.005, ema_decay=0.99, clip_norm=1.0)
PLATEAU = Recipe(lr=0.005, lr_policy="plateau", gamma=0.5, patience_epochs=0)
BATCH = AlexNetConfig(norm="batch")


def train(state: TrainingState, faces: Faces, batches: Batches, recipe: Recipe, options: dict[str, Any]) -> list[Epoch]:
    return list(fit(state, batches, faces, recipe=recipe, epochs=3, seed=9, iterations_per_epoch=2, **options))


@pytest.mark.parametrize(
    ("config", "recipe", "options"),
    [
        (LeNetConfig(dropout=0.5), SGD, {}),
        (LeNetConfig(dropout=0.5), ADAMW, {"memory_format": "channels_last"}),
        (LeNetConfig(), PLATEAU, {}),
        pytest.param(BATCH, EMA, {"precision": "bf16", "memory_format": "channels_last"}, marks=pytest.mark.long),
        (LeNetConfig(), EMA, {"precision": "fp16"}),
    ],
    ids=["sgd", "adamw", "plateau", "ema-bf16", "fp16"],
)
def test_a_resumed_run_is_the_undisturbed_run_to_the_last_bit(
    config: LeNetConfig | AlexNetConfig,
    recipe: Recipe,
    options: dict[str, Any],
    faces: Faces,
    batches_of: Callable[..., Batches],
    tmp_path: Path,
) -> None:
    batches = batches_of(*faces, 14)
    path = tmp_path / "last.safetensors"
    undisturbed = new_state(make(config), recipe)
    expected = train(undisturbed, faces, batches, recipe, options)

    stopped = new_state(make(config), recipe)
    epochs = fit(stopped, batches, faces, recipe=recipe, epochs=3, seed=9, iterations_per_epoch=2, **options)
    first = next(epochs)
    save_state(take_snapshot(stopped), path, {"history": [first.metrics()]})

    resumed = new_state(make(config, seed=1), recipe)
    assert load_state(resumed, path) == {"history": [first.metrics()]}
    assert resumed.epoch == 1
    rest = train(resumed, faces, batches, recipe, options)

    assert [epoch.number for epoch in rest] == [2, 3]
    for ours, theirs in zip([first, *rest], expected, strict=True):
        assert (ours.train_loss, ours.val_loss, ours.learning_rate) == (
            theirs.train_loss,
            theirs.val_loss,
            theirs.learning_rate,
        )
        assert np.array_equal(ours.val_probabilities, theirs.val_probabilities)
    save_state(take_snapshot(undisturbed), path)
    wanted = load_file(path)
    save_state(take_snapshot(resumed), path)
    assert all(torch.equal(value, wanted[name]) for name, value in load_file(path).items())
    assert resumed.plateau == undisturbed.plateau
    assert resumed.loss_scale == undisturbed.loss_scale


def test_a_state_numbers_the_optimizers_memories_weights_first_then_biases_then_norms() -> None:
    """Earlier versions wrote files in this order, by which memories and parameters are brought together."""
    net = build(
        VGGSmallTunedConfig(), classes=7, mean_image=np.zeros((48, 48), np.float32), generator=torch.Generator()
    )
    state = new_state(net, Recipe(lr=0.1, weight_decay=1e-4, bias_lr_factor=2), Transfer(lr_decay_per_stage=0.9))
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    order = [names[id(parameter)] for group in state.optimizer.param_groups for parameter in group["params"]]
    layers = [
        *(
            f"backbone.block{block}_conv{conv}"
            for block, convs in ((1, 2), (2, 2), (3, 3))
            for conv in range(1, convs + 1)
        ),
        *("neck.fc6", "neck.fc7", "head"),
    ]
    assert order[:10] == [f"{layer}.weight" for layer in layers]
    assert order[10:20] == [f"{layer}.bias" for layer in layers]
    assert order[20:] == [f"{layer}_norm.{kind}" for layer in layers[:-1] for kind in ("weight", "bias")]


def test_weights_are_not_a_training_state(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(make(LeNetConfig()), path, {})
    with pytest.raises(ModelError, match="has only weights"):
        load_state(new_state(make(LeNetConfig()), SGD), path)


def test_a_state_of_another_recipe_is_refused(faces: Faces, batches_of: Callable[..., Batches], tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    state = new_state(make(LeNetConfig()), ADAMW)
    train(state, faces, batches_of(*faces, 14), ADAMW, {})
    save_state(take_snapshot(state), path)
    with pytest.raises(ModelError, match=r"optimizer tensor '0\..*' does not belong to this recipe's SGD"):
        load_state(new_state(make(LeNetConfig()), SGD), path)
    averaging = new_state(make(LeNetConfig()), ADAMW.model_copy(update={"ema_decay": 0.9}))
    # 8 parameters and 2 buffers
    with pytest.raises(ModelError, match="missing 10, unexpected 0"):
        load_state(averaging, path)


def test_a_snapshot_is_pickled_in_its_size() -> None:
    net = make(AlexNetConfig())
    snapshot = take_snapshot(new_state(net, Recipe(optimizer="sgd", lr=0.1)))
    content = pickle.dumps(snapshot)
    assert len(content) < 1.1 * sum(tensor.nbytes for tensor in snapshot.tensors.values())
    again = pickle.loads(content)
    assert again.tensors.keys() == snapshot.tensors.keys()
    assert all(torch.equal(again.tensors[name], snapshot.tensors[name]) for name in snapshot.tensors)
    assert (again.epoch, again.plateau) == (snapshot.epoch, snapshot.plateau)
