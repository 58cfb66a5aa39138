import subprocess
import sys

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from fer_models import AlexNetConfig, LeNetConfig, NetConfig, Recipe

MULTISTEP = {"lr": 0.1, "lr_policy": "multistep", "gamma": 0.1, "step_iterations": [5, 8], "reference_iterations": 9}


class _Trial(BaseModel):
    net: NetConfig
    recipe: Recipe


def test_every_fault_of_a_recipe_is_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(
            {"lr": -1, "optimiser": "sgd", "optimizer": "nesterov", "momentum": 0, "lr_policy": "step", "power": 1.0}
        )
    assert {error["loc"][0] for error in caught.value.errors()} == {
        "lr",
        "optimiser",
        "momentum",
        "gamma",
        "step_iterations",
        "reference_iterations",
        "power",
    }


def test_faults_inside_a_larger_configuration_carry_their_place() -> None:
    with pytest.raises(ValidationError) as caught:
        _Trial.model_validate({"net": {"name": "alexnet", "norm": "group"}, "recipe": {"lr": 0, "gamma": 0.1}})
    assert {error["loc"] for error in caught.value.errors()} >= {("recipe", "lr"), ("recipe", "gamma")}
    assert any("norm" in error["loc"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"lr": float("nan")}, "finite number"),
        ({"lr": 0.1, "momentum": 1}, "less than 1"),
        ({"lr": 0.1, "ema_decay": 1.0}, "less than 1"),
        ({"lr": 0.1, "gamma": 0.5}, "'constant' does not use gamma"),
        ({"lr": 0.1, "reference_iterations": 10}, "always spans the run"),
        ({"lr": 0.1, "lr_policy": "inv", "gamma": 1e-4, "power": 0.75}, "needs the length of the report's run"),
        ({"lr": 0.1, "lr_policy": "plateau", "gamma": 1.5, "patience_epochs": 2}, "below 1"),
        ({"lr": 0.1, "lr_policy": "stairs"}, "'step'"),
        ({"lr": 0.1, "lr_policy": "poly", "reference_iterations": 9}, "'poly' needs power"),
        ({"lr": 0.1, "lr_policy": "poly", "power": 1, "gamma": 1, "reference_iterations": 9}, "does not use gamma"),
        ({"lr": 0.1, "lr_policy": "poly", "power": 1, "schedule": "exact"}, "iteration at which the rate is 0"),
        ({**MULTISTEP, "step_iterations": None}, "'multistep' needs step_iterations"),
        ({**MULTISTEP, "step_iterations": 5}, r"takes a list of iterations, as \[150,300\]"),
        ({**MULTISTEP, "step_iterations": []}, "one iteration or more"),
        ({**MULTISTEP, "step_iterations": [5, 5]}, "each above the one before"),
        ({**MULTISTEP, "step_iterations": [5, 4]}, "each above the one before"),
        ({**MULTISTEP, "step_iterations": [0, 4]}, "a whole number from 1 on, or for 'multistep' a list of them"),
        ({**MULTISTEP, "step_iterations": [5, "later"]}, "a whole number from 1 on"),
        ({**MULTISTEP, "lr_policy": "step"}, "'step' takes one length for all steps"),
    ],
)
def test_a_fault_names_the_rule(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Recipe.model_validate(fields)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(lr=0.01, lr_policy="inv", gamma=1e-4, power=0.75, reference_iterations=10_000),
        Recipe(lr=0.01, lr_policy="step", gamma=0.1, step_iterations=500, schedule="exact"),
        Recipe.model_validate(MULTISTEP),
    ],
)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_net_is_chosen_by_its_name() -> None:
    adapter: TypeAdapter[LeNetConfig | AlexNetConfig] = TypeAdapter(NetConfig)
    assert adapter.validate_python({"name": "alexnet", "norm": "batch"}) == AlexNetConfig(norm="batch")
    with pytest.raises(ValidationError, match="'lenet', 'alexnet'"):
        adapter.validate_python({"name": "lenot"})


def test_configuration_imports_no_torch() -> None:
    code = "import sys, fer_models, fer_models.training.schedule, fer_models.configs.precision; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
