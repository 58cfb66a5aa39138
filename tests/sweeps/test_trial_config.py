import pytest
from pydantic import ValidationError

from fer_data import AugmentConfig
from fer_models import AlexNetConfig, LeNetConfig, Recipe
from sweeps import InputError, TrialConfig
from sweeps.config import parse_settings, setting_names, with_settings
from tracking.flatten import flatten

STEP = TrialConfig(
    net=AlexNetConfig(dropout=0.3),
    recipe=Recipe(lr=0.01, lr_policy="step", gamma=0.1, step_iterations=10_000, reference_iterations=50_000),
    augment=AugmentConfig(flip=0.5),
)
LENET = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.1))


def refusal(content: dict[str, object]) -> str:
    with pytest.raises(InputError) as refused:
        TrialConfig.parse(content, "config.json")
    return str(refused.value)


def set_refusal(config: TrialConfig, *assignments: str) -> str:
    with pytest.raises(InputError) as refused:
        with_settings(config, parse_settings(assignments))
    return str(refused.value)


@pytest.mark.parametrize("config", [STEP, LENET], ids=["alexnet", "lenet"])
def test_json_gives_the_same_configuration_back(config: TrialConfig) -> None:
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config
    assert TrialConfig.parse(config.model_dump(mode="json"), "config") == config


def test_the_id_depends_on_the_content_alone() -> None:
    spelled_out = TrialConfig.model_validate(
        {"recipe": {"momentum": 0.9, "lr": 0.1}, "augment": {}, "net": {"dropout": 0, "name": "lenet"}}
    )
    assert spelled_out.id == LENET.id == TrialConfig.model_validate_json(LENET.model_dump_json()).id
    assert len(LENET.id) == 12
    int(LENET.id, 16)


def test_a_setting_of_a_later_version_leaves_ids_as_they_were() -> None:
    """The id, which seeds come from, as version 0.1.0 computed it."""
    assert LENET.id == "1c764476d64c"
    assert with_settings(LENET, {"keep_best": "val_accuracy"}).id == LENET.id


def test_any_other_content_has_another_id() -> None:
    others = [
        with_settings(LENET, {name: value})
        for name, value in {
            "net.dropout": "0.1",
            "recipe.lr": 0.1 + 1e-12,
            "recipe.decay_bias_and_norm": True,
            "augment.erase": 0.1,
            "precision": "bf16",
            "memory_format": "channels_last",
            "keep_best": "val_loss",
        }.items()
    ]
    assert len({LENET.id, *(other.id for other in others)}) == 8


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        LENET.precision = "bf16"  # type: ignore[misc]


def test_every_fault_is_told_at_once_with_rule_and_value() -> None:
    message = refusal(
        {
            "net": {"name": "lenet", "dropout": 1.5},
            "recipe": {"lr": -1, "momentum": float("nan"), "batch_size": 0, "optimizer": "sdg"},
            "augment": {"flip": 2},
            "precision": "fp8",
        }
    )
    lines = message.splitlines()
    assert lines[0] == "config.json: 7 faults"
    for field, rule, value in (
        ("net.dropout", "below 1", "got 1.5"),
        ("recipe.lr", "above 0", "got -1"),
        ("recipe.momentum", "finite", "got nan"),
        ("recipe.batch_size", "at least 1", "got 0"),
        ("recipe.optimizer", "'nesterov'", "got 'sdg'"),
        ("augment.flip", "at most 1", "got 2"),
        ("precision", "'bf16'", "got 'fp8'"),
    ):
        (line,) = [line for line in lines if line.strip().startswith(f"{field}:")]
        assert rule in line
        assert line.endswith(value)


def test_faults_between_fields_come_with_those_of_fields() -> None:
    message = refusal({"net": {"name": "lenet", "dropout": 2}, "recipe": {"lr": 0, "lr_policy": "step", "gamma": 0.1}})
    assert "net.dropout" in message
    assert "recipe.lr: must be above 0, got 0" in message
    assert "lr_policy 'step' needs step_iterations" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"net": {"name": "alexnte"}, "recipe": {"lr": 1}}, "net.name: unknown net 'alexnte'; did you mean 'alexnet'?"),
        ({"net": {"name": "lenet"}, "recipe": {"lr": 1, "momentun": 0}}, "recipe.momentun: unknown setting; did you mean 'momentum'?"),
        ({"net": {"name": "lenet"}, "recipe": {"lr": 1}, "augment": {"flips": 0}}, "augment.flips: unknown setting; did you mean 'flip'?"),
        ({"net": {"name": "lenet"}, "recipe": {"lr": 1}, "precison": "fp32"}, "precison: unknown setting; did you mean 'precision'?"),
        ({"net": {"name": "lenet"}, "recipe": {}}, "recipe.lr: required"),
        ({"net": {"name": "lenet"}}, "recipe: required"),
    ],
)  # fmt: skip
def test_unknown_and_missing_names(content: dict[str, object], said: str) -> None:
    assert refusal(content).startswith(f"config.json: {said}")


def test_a_setting_of_another_net_is_not_offered_back() -> None:
    """LeNet has no norm: to suggest 'norm' for 'net.norm' leads nowhere."""
    message = set_refusal(LENET, "norm=batch")
    assert "net.norm" in message
    assert "did you mean 'norm'" not in message


def test_settings_are_read_as_json_or_text() -> None:
    assert parse_settings(["lr=1e-2", "augment.flip=0.5", "decay_bias_and_norm=true", "clip_norm=null", "norm=batch"]) == {
        "recipe.lr": 0.01,
        "augment.flip": 0.5,
        "recipe.decay_bias_and_norm": True,
        "recipe.clip_norm": None,
        "net.norm": "batch",
    }  # fmt: skip
    assert parse_settings([]) == {}


def test_every_field_of_a_configuration_can_be_set() -> None:
    parts = {"net", "recipe", "augment", "transfer"}
    assert TrialConfig.model_fields.keys() - parts <= set(setting_names())
    assert parse_settings(["keep_best=val_loss"]) == {"keep_best": "val_loss"}


def test_every_malformed_and_unknown_setting_is_told_at_once() -> None:
    with pytest.raises(InputError) as refused:
        parse_settings(["lr", "=3", "momentun=0.9", "recipe.gama=1", "lr=0.1"])
    message = str(refused.value)
    assert message.startswith("--set: 4 faults")
    assert "'lr': expected key=value" in message
    assert "'=3': expected key=value" in message
    assert "'momentun': unknown setting; did you mean 'momentum'?" in message
    assert "'recipe.gama': unknown setting" in message


def test_a_name_of_two_settings_must_be_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*setting_names(), "augment.momentum"]
    monkeypatch.setattr("sweeps.config.setting_names", lambda: names)
    with pytest.raises(InputError, match=r"'momentum': could be recipe\.momentum or augment\.momentum"):
        parse_settings(["momentum=0.5"])
    assert parse_settings(["recipe.momentum=0.5"]) == {"recipe.momentum": 0.5}


def test_settings_replace_values_and_nothing_else() -> None:
    changed = with_settings(STEP, parse_settings(["lr=0.5", "dropout=0.1", "precision=fp32"]))
    before, after = flatten(STEP.model_dump()), flatten(changed.model_dump())
    assert {name: after[name] for name in after if after[name] != before[name]} == {
        "recipe.lr": "0.5",
        "net.dropout": "0.1",
        "precision": "fp32",
    }
    assert with_settings(STEP, {}) == STEP


def test_wrong_values_of_settings_are_told_at_once() -> None:
    message = set_refusal(STEP, "lr=0", "batch_size=1.5", "flip=maybe")
    assert message.startswith("--set: 3 faults")
    for part in ("recipe.lr", "got 0", "recipe.batch_size", "got 1.5", "augment.flip", "got 'maybe'"):
        assert part in message


@pytest.mark.parametrize("name", setting_names())
def test_no_value_of_a_setting_is_more_than_refused(name: str) -> None:
    """A value of a wrong type is bad input, not a fault of the program."""
    for value in ("[1]", '{"a": 1}', "NaN"):
        part, _, field = name.rpartition(".")
        message = set_refusal(STEP, f"{name}={value}")
        assert part in message
        assert field in message


def test_a_new_policy_drops_the_old_ones_knobs() -> None:
    recipe = with_settings(STEP, parse_settings(["lr_policy=cosine"])).recipe
    assert (recipe.lr_policy, recipe.gamma, recipe.step_iterations, recipe.reference_iterations) == (
        "cosine",
        None,
        None,
        None,
    )


def test_a_new_policy_takes_its_own_knobs() -> None:
    recipe = with_settings(
        STEP, parse_settings(["lr_policy=inv", "gamma=1e-4", "power=0.75", "reference_iterations=10000"])
    ).recipe
    assert (recipe.gamma, recipe.power, recipe.step_iterations, recipe.reference_iterations) == (
        1e-4,
        0.75,
        None,
        10_000,
    )


def test_a_new_policy_without_its_knobs_is_refused() -> None:
    message = set_refusal(STEP, "lr_policy=inv", "schedule=exact")
    assert "lr_policy 'inv' needs gamma" in message
    assert "lr_policy 'inv' needs power" in message


def test_the_same_policy_keeps_its_knobs() -> None:
    recipe = with_settings(STEP, parse_settings(["lr_policy=step", "gamma=0.5"])).recipe
    assert (recipe.gamma, recipe.step_iterations, recipe.reference_iterations) == (0.5, 10_000, 50_000)


def test_an_exact_schedule_keeps_the_reports_iterations() -> None:
    from fer_models.training.schedule import learning_rate

    exact = with_settings(STEP, parse_settings(["schedule=exact"])).recipe
    assert exact.schedule == "exact"
    # A run of 1,000 iterations: scaled, it has the report's five steps; exact, it is over before the first.
    assert learning_rate(STEP.recipe, 999, 1000) == pytest.approx(0.01 * 0.1**4)
    assert learning_rate(exact, 999, 1000) == pytest.approx(0.01)


def test_a_plateau_that_raises_the_rate_is_refused_whatever_the_number_s_type() -> None:
    assert "gamma must be below 1" in set_refusal(LENET, "lr_policy=plateau", "patience_epochs=2", "gamma=2.0")
    assert "gamma must be below 1" in set_refusal(LENET, "lr_policy=plateau", "patience_epochs=2", "gamma=2")


def test_other_teachers_drop_what_was_recorded_of_the_old_ones() -> None:
    recorded = {"distill": "night/0,night/1", "distill_sha256": ("0" * 64, "1" * 64), "distill_temperature": 4.0}
    taught = TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=0.1, **recorded))
    other = with_settings(taught, {"recipe.distill": "day"}).recipe
    assert (other.distill, other.distill_sha256, other.distill_temperature) == ("day", None, 4.0)
    assert with_settings(taught, {"recipe.distill": "none"}) == LENET
    assert with_settings(taught, {"recipe.lr": 0.2}).recipe.distill_sha256 == taught.recipe.distill_sha256
    wrong = {"net": {"name": "lenet"}, "recipe": {"lr": 0.1, **recorded, "distill": "night/0"}}
    assert "distill_sha256: one for each of the 1 teachers, or leave it out" in refusal(wrong)
