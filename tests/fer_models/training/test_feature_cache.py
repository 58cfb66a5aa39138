"""Training behind frozen stages on features that were computed once, against training on the faces."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fer_models import AlexNetConfig, ModelError, Recipe, VGG16CutConfig
from fer_models.configs.transfer_config import Transfer
from fer_models.nets.registry import build
from fer_models.training import computed, feature_cache
from fer_models.training.computed import Computing
from fer_models.training.feature_cache import fit_on_features
from fer_models.training.fit import Batches, Epoch, fit
from fer_models.training.state import TrainingState, new_state
from tests.fer_models.small_nets import changed, copied, make, names_in

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
RECIPE = Recipe(lr=0.02, batch_size=7, ema_decay=0.9)


def cached(state: TrainingState, faces: Faces, folder: Path, transfer: Transfer, **options: Any) -> list[Epoch]:
    settings: dict[str, Any] = {"recipe": RECIPE, "epochs": 2, "seed": 5, "fingerprint": "abc"} | options
    return list(fit_on_features(state, faces, faces, folder=folder, transfer=transfer, **settings))


@pytest.mark.parametrize(("freeze", "precision"), [(1, "fp32"), (3, "fp32"), ("all_but_head", "fp32"), (3, "bf16")])
def test_features_give_the_numbers_that_faces_give(
    freeze: Any, precision: Any, faces: Faces, batches_of: Callable[..., Batches], tmp_path: Path
) -> None:
    transfer = Transfer(weights="some", freeze=freeze, lr_decay_per_stage=0.9)
    plain, quick = new_state(make(), RECIPE, transfer), new_state(make(), RECIPE, transfer)
    expected = list(
        fit(
            plain,
            batches_of(*faces, 7),
            faces,
            recipe=RECIPE,
            transfer=transfer,
            epochs=2,
            seed=5,
            iterations_per_epoch=4,
            precision=precision,
        )
    )
    found = cached(quick, faces, tmp_path, transfer, precision=precision)
    assert quick.epoch == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        np.testing.assert_allclose(ours.val_probabilities, theirs.val_probabilities, atol=1e-4)
    for name, value in plain.net.state_dict().items():
        torch.testing.assert_close(quick.net.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_cache_is_used_again_for_the_same_weights_and_faces_only(faces: Faces, tmp_path: Path) -> None:
    transfer = Transfer(weights="some", freeze=2)

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    first = cached(new_state(make(), RECIPE, transfer), faces, tmp_path, transfer)
    once = files()
    assert len(once) == 2  # of train and val
    again = cached(new_state(make(), RECIPE, transfer), faces, tmp_path, transfer)
    assert files() == once
    assert [epoch.train_loss for epoch in again] == [epoch.train_loss for epoch in first]
    cached(new_state(make(seed=1), RECIPE, transfer), faces, tmp_path, transfer, epochs=1)
    assert len(files()) == 4
    cached(new_state(make(), RECIPE, transfer), faces, tmp_path, transfer, epochs=1, fingerprint="def")
    assert len(files()) == 6


def test_a_cache_that_was_cut_short_is_made_again(faces: Faces, tmp_path: Path) -> None:
    transfer = Transfer(weights="some", freeze=2)
    first = cached(new_state(make(), RECIPE, transfer), faces, tmp_path, transfer, epochs=1)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    again = cached(new_state(make(), RECIPE, transfer), faces, tmp_path, transfer, epochs=1)
    assert again[0].train_loss == first[0].train_loss


def test_features_that_a_process_left_unfinished_are_completed(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "EVALUATION_BATCH", 8)
    monkeypatch.setattr(computed, "_REPORT_SECONDS", -1.0)
    transfer = Transfer(weights="some", freeze=2)

    def begun(folder: Path) -> Iterator[Epoch | Computing]:
        options: dict[str, Any] = {"recipe": RECIPE, "epochs": 1, "seed": 5, "fingerprint": "abc"}
        state = new_state(make(), RECIPE, transfer)
        return fit_on_features(state, faces, faces, folder=folder, transfer=transfer, **options)

    whole = list(begun(tmp_path / "whole"))
    assert [str(whole[0]), whole[1]] == [
        f"features of the frozen stages: 8 of {len(faces[0])} faces",
        Computing("features of the frozen stages", 16, len(faces[0])),
    ]
    ended = begun(tmp_path / "ended")
    assert [next(ended), next(ended)] == whole[:2]
    ended.close()  # type: ignore[attr-defined]
    (part,) = (tmp_path / "ended").iterdir()
    part.write_bytes(part.read_bytes()[:-10])  # in the middle of a face
    rest = list(begun(tmp_path / "ended"))
    assert rest[0] == Computing("features of the frozen stages", 16, len(faces[0])), (
        "the first batch is not computed again"
    )
    assert isinstance(rest[-1], Epoch)
    assert isinstance(whole[-1], Epoch)
    assert rest[-1].train_loss == whole[-1].train_loss


def test_a_phase_in_which_all_learns_runs_on_the_faces(faces: Faces, tmp_path: Path) -> None:
    transfer = Transfer(weights="some", freeze=2, finetune_epochs_share=0.5, finetune_lr=0.01, finetune_freeze=0)
    net = make()
    start, state = copied(net), new_state(net, RECIPE, transfer)
    epochs = fit_on_features(
        state,
        faces,
        faces,
        folder=tmp_path,
        fingerprint="abc",
        recipe=RECIPE,
        transfer=transfer,
        epochs=2,
        seed=0,
    )
    assert next(epochs).number == 1
    frozen = names_in(net, ["stem", "group1"])
    assert not changed(net, start) & frozen
    assert next(epochs).number == state.epoch == 2
    assert frozen <= changed(net, start)
    assert next(epochs, None) is None


def test_an_average_of_stages_that_an_earlier_phase_trained_is_judged_as_a_whole(
    faces: Faces, batches_of: Callable[..., Batches], tmp_path: Path
) -> None:
    """The average follows these stages slowly: the features of the net are not those of the average."""
    recipe = RECIPE.model_copy(update={"ema_decay": 0.99, "lr": 0.05})
    transfer = Transfer(weights="some", freeze=1, finetune_epochs_share=1 / 3, finetune_lr=0.001, finetune_freeze=2)
    how: dict[str, Any] = {"recipe": recipe, "transfer": transfer, "epochs": 6, "seed": 5}
    plain, quick = new_state(make(), recipe, transfer), new_state(make(), recipe, transfer)
    expected = list(fit(plain, batches_of(*faces, 7), faces, iterations_per_epoch=4, **how))
    found = [
        epoch
        for epoch in fit_on_features(quick, faces, faces, folder=tmp_path, fingerprint="abc", **how)
        if isinstance(epoch, Epoch)
    ]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.val_probabilities, theirs.val_probabilities, atol=1e-4)


def test_what_cannot_be_cached_is_refused(faces: Faces, tmp_path: Path) -> None:
    transfer = Transfer(weights="some", freeze=1)
    ten = RECIPE.model_copy(update={"views": "ten_crop"})
    with pytest.raises(ModelError, match="views 'ten_crop' need the faces themselves"):
        cached(new_state(make(), ten), faces, tmp_path, transfer, recipe=ten)
    mean = np.full((48, 48), 128, dtype=np.float32)
    alexnet = build(AlexNetConfig(), classes=7, mean_image=mean, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="AlexNet cannot be cut"):
        cached(new_state(alexnet, RECIPE), faces, tmp_path, transfer)
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="the features of the frozen stages cannot be written: File exists"):
        cached(new_state(make(), RECIPE), faces, tmp_path / "file", transfer)


@pytest.mark.slow
def test_the_report_s_net_trains_faster_on_features(tmp_path: Path) -> None:
    """VGG-16 cut after block 4, blocks 1 to 3 frozen: processor seconds of the second of two epochs."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (256, 48, 48), dtype=np.uint8), rng.integers(0, 7, 256)
    recipe = Recipe(optimizer="adam", lr=1e-5, batch_size=64)
    transfer = Transfer(weights="some", freeze=3)
    seconds = []
    for epochs in (
        fit_on_features(
            new_state(make(VGG16CutConfig()), recipe, transfer),
            faces,
            faces,
            folder=tmp_path,
            fingerprint="abc",
            recipe=recipe,
            transfer=transfer,
            epochs=2,
            seed=0,
        ),
        fit(
            new_state(make(VGG16CutConfig()), recipe, transfer),
            lambda _: iter([(torch.tensor(x).float()[:, None], torch.tensor(y)) for x, y in _parts(faces, 64)]),
            faces,
            recipe=recipe,
            transfer=transfer,
            epochs=2,
            seed=0,
            iterations_per_epoch=4,
        ),
    ):
        next(epochs)
        started = time.process_time()
        next(epochs)
        seconds.append(time.process_time() - started)
    print(f"on features {seconds[0]:.2f} s, on faces {seconds[1]:.2f} s")
    assert seconds[0] < 0.7 * seconds[1]


def _parts(faces: Any, size: int) -> list[tuple[Any, Any]]:
    return [(faces[0][i : i + size], faces[1][i : i + size]) for i in range(0, len(faces[0]), size)]
