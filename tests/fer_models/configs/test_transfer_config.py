import pytest
from pydantic import ValidationError

from fer_models import Recipe
from fer_models.configs.transfer_config import Transfer
from fer_models.training.schedule import phases


def test_every_fault_of_a_transfer_is_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Transfer.model_validate({"sha256": "ab", "freeze": 2, "lr_decay_per_stage": 0, "finetune_lr": 1e-6, "head": 1})
    assert {error["loc"][0] for error in caught.value.errors()} == {
        "sha256",
        "freeze",
        "lr_decay_per_stage",
        "finetune_lr",
        "head",
    }


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"freeze": 1}, "weights 'none' are random and must learn"),
        ({"weights": "imagenet", "sha256": "a" * 64}, "not a file of yours"),
        ({"weights": "imagenet", "finetune_freeze": 0}, "needs a second phase"),
        ({"weights": "imagenet", "finetune_epochs_share": 0.5}, "needs finetune_lr or finetune_freeze"),
        ({"weights": "imagenet", "freeze": -1}, "greater than or equal to 0"),
        ({"weights": "imagenet", "freeze": "most"}, "'all_but_head'"),
    ],
)
def test_a_fault_names_the_rule(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Transfer.model_validate(fields)


def test_only_a_net_with_weights_of_another_training_is_pretrained() -> None:
    assert not Transfer().pretrained
    assert Transfer(weights="imagenet").pretrained
    assert Transfer(weights="best.safetensors").pretrained


def test_the_vgg_report_s_two_runs_are_two_phases() -> None:
    recipe = Recipe(optimizer="adam", lr=1e-5)
    whole = Transfer(weights="imagenet", freeze=3, finetune_epochs_share=0.25, finetune_lr=1e-6, finetune_freeze=0)
    first, second = phases(recipe, whole, 20)
    assert (first.first_epoch, first.last_epoch, first.recipe.lr, first.freeze) == (1, 15, 1e-5, 3)
    assert (second.first_epoch, second.last_epoch, second.recipe.lr, second.freeze) == (16, 20, 1e-6, 0)
    kept = Transfer(weights="imagenet", freeze=3, finetune_epochs_share=0.25, finetune_lr=1e-6)
    assert phases(recipe, kept, 20)[1].freeze == 3


@pytest.mark.parametrize(
    ("share", "epochs", "lengths"), [(0.0, 9, [9]), (0.1, 3, [2, 1]), (0.9, 3, [1, 2]), (0.5, 1, [1])]
)
def test_both_phases_have_an_epoch_where_there_are_two(share: float, epochs: int, lengths: list[int]) -> None:
    transfer = Transfer(finetune_epochs_share=share, finetune_lr=1e-3 if share else None)
    assert [phase.epochs for phase in phases(Recipe(lr=0.1), transfer, epochs)] == lengths
