from pathlib import Path

import optuna
import pytest

from fer_data import AugmentConfig
from fer_models import AlexNetConfig, LeNetConfig
from sweeps import Baseline, InputError, Space, TrialConfig
from sweeps.spaces import SPACES
from sweeps.spaces.find import find_space

GOOD_FILE = """
from fer_models import LeNetConfig, Recipe
from sweeps import Baseline, Space, TrialConfig

def config(lr):
    return TrialConfig(net=LeNetConfig(), recipe=Recipe(lr=lr))

def suggest(trial):
    return config(trial.suggest_float("lr", 0.01, 0.1))

SPACE = Space(suggest=suggest, baselines=[Baseline("mine", config(0.05))], max_epochs=3, trials=5)
"""


def _space(baselines: int) -> Space:
    config = TrialConfig.model_validate({"net": {"name": "lenet"}, "recipe": {"lr": 0.1}})
    return Space(
        suggest=lambda trial: config,
        baselines=[Baseline(str(number), config) for number in range(baselines)],
        first_rung_epochs=2,
        reduction_factor=3,
    )


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [
        (1, 1),  # over before the first rung
        (2, 2),
        (3, 2 + 1 / 3),  # all train 2, a third a third epoch
        (18, 2 + 4 / 3 + 12 / 9),  # rungs at 2 and 6
        (20, 2 + 4 / 3 + 12 / 9 + 2 / 27),  # and at 18
    ],
)
def test_expected_epochs_of_a_sampled_trial(max_epochs: int, expected: float) -> None:
    assert _space(0).expected_epochs(max_epochs) == pytest.approx(expected)


@pytest.mark.parametrize(("own", "max_epochs", "each"), [(None, 36, 36), (174, 36, 36), (22, 36, 22), (36, 36, 36)])
def test_a_baseline_trains_as_long_as_trials_or_as_its_report_if_that_is_shorter(
    own: int | None, max_epochs: int, each: int
) -> None:
    baseline = Baseline("report", find_space("lenet_space").baselines[0].config, epochs=own)
    assert baseline.epochs_in(max_epochs) == each


@pytest.mark.parametrize("name", SPACES)
def test_fifty_samples_are_valid_and_differ(name: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = [find_space(name).suggest(study.ask()) for _ in range(50)]
    assert all(TrialConfig.model_validate_json(config.model_dump_json()) == config for config in configs)
    assert len({config.id for config in configs}) == 50


def test_alexnet_baselines_are_the_reports() -> None:
    space = find_space("alexnet_space")
    assert [baseline.name for baseline in space.baselines] == ["AlexNet 1", "AlexNet 2", "AlexNet 3"]
    for baseline, batch_size, gamma in zip(space.baselines, (100, 256, 100), (0.1, 0.1, 0.95), strict=True):
        recipe = baseline.config.recipe
        assert (recipe.batch_size, recipe.gamma) == (batch_size, gamma)
        assert (recipe.lr_policy, recipe.step_iterations, recipe.reference_iterations) == ("step", 10_000, 50_000)
        assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
        assert (recipe.bias_lr_factor, recipe.decay_bias_and_norm, recipe.schedule) == (2, False, "scaled")
        net = baseline.config.net
        assert isinstance(net, AlexNetConfig)
        assert (net.norm, net.dropout, net.normalisation, net.size) == ("lrn", 0.5, "mean_image", 48)
        assert baseline.config.augment == AugmentConfig(flip=0.5)
    assert "54.86 %" in space.baselines[0].reported
    assert "PublicTest" in space.baselines[0].reported


def test_lenet_baselines_are_the_reports() -> None:
    space = find_space("lenet_space")
    inv, *steps = (baseline.config.recipe for baseline in space.baselines)
    for recipe in (inv, *steps):
        assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
        assert (recipe.batch_size, recipe.reference_iterations, recipe.bias_lr_factor) == (64, 10_000, 2)
        # lenet_train_test.prototxt gives its biases an lr_mult of 2 and no decay_mult, which is 1 then.
        assert recipe.decay_bias_and_norm
    assert (inv.lr_policy, inv.gamma, inv.power) == ("inv", 1e-4, 0.75)
    assert [(step.lr_policy, step.gamma, step.step_iterations) for step in steps] == [
        ("step", gamma, 500) for gamma in (0.9, 0.8, 0.5)
    ]
    assert [baseline.config.recipe.gamma for baseline in space.baselines if "53.12 %" in baseline.reported] == [0.8]
    for baseline in space.baselines:
        assert baseline.config.net == LeNetConfig(dropout=0)
        assert baseline.config.augment == AugmentConfig()


def test_the_resnet_baseline_is_the_published_solver_s() -> None:
    """ybch14/Facial-Expression-Recognition-ResNet, pretrain/Resnet_pretrain_solver.prototxt and the net beside it."""
    (baseline,) = find_space("resnet50_v1_space").baselines
    recipe = baseline.config.recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.001, 0.9, 1e-4)
    assert (recipe.lr_policy, recipe.gamma, recipe.reference_iterations) == ("multistep", 0.1, 1_800_000)
    assert recipe.step_iterations == (150_000, 300_000, 450_000, 600_000, 750_000)
    assert (recipe.batch_size, recipe.bias_lr_factor, recipe.decay_bias_and_norm) == (10, 2, True)


def test_the_googlenet_baselines_are_bvlc_s_two_solvers() -> None:
    """BVLC/caffe, models/bvlc_googlenet: quick_solver, solver and train_val.prototxt."""
    quick, slow = (baseline.config for baseline in find_space("googlenet_space").baselines)
    for config in (quick, slow):
        recipe = config.recipe
        assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0.9, 2e-4)
        assert (recipe.batch_size, recipe.bias_lr_factor, recipe.decay_bias_and_norm) == (32, 2, False)
        assert config.augment == AugmentConfig(flip=0.5)
    assert (quick.recipe.lr_policy, quick.recipe.power, quick.recipe.reference_iterations) == ("poly", 0.5, 2_400_000)
    assert (slow.recipe.lr_policy, slow.recipe.gamma, slow.recipe.step_iterations) == ("step", 0.96, 320_000)
    assert slow.recipe.reference_iterations == 10_000_000


def test_the_course_s_numbers_are_those_of_what_its_program_computed() -> None:
    plain, both = find_space("deep_cnn_space").baselines
    assert (plain.config.augment, plain.reported) == (AugmentConfig(), "62.19 % PrivateTest")
    augment = both.config.augment
    assert (augment.plain_and_augmented, augment.engine) == (True, "batched_int64")
    assert (augment.flip, augment.cutout, augment.cutout_size, augment.noise_probability) == (0.5, 2, 2, 0.5)
    assert both.reported == "61.97 % PrivateTest"
    assert [one.name for one in find_space("augmentation_space").baselines if "61.97" in one.reported] == [both.name]


def test_an_unknown_space_is_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"unknown space 'alexnet_spcae'; did you mean 'alexnet_space'\?") as refused:
        find_space("alexnet_spcae")
    assert "lenet_space" in str(refused.value)


def test_a_users_file_is_a_space_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD_FILE)
    for name in (str(path), "./mine.py", "mine.py"):
        space = find_space(name)
        assert (space.name, space.max_epochs, space.trials) == ("mine", 3, 5)
        assert [baseline.name for baseline in space.baselines] == ["mine"]
        assert isinstance(space.suggest(optuna.create_study().ask()), TrialConfig)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("print('no space here', end='')", "defines no SPACE"),
        ("SPACE = 3", "defines no SPACE"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("from nowhere import nothing", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def suggest(:", "SyntaxError"),
        ("from fer_models import Recipe\nRecipe(lr=-1)", "Recipe: lr: must be above 0, got -1"),
    ],
)
def test_a_users_file_that_is_wrong_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as refused:
        find_space(str(path))
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_a_users_file_without_py_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(GOOD_FILE)
    with pytest.raises(InputError, match="not a Python file"):
        find_space("./mine")


def test_a_space_tells_all_its_faults_at_once() -> None:
    with pytest.raises(InputError) as refused:
        Space(suggest="nothing", max_epochs=0, trials=-1, reduction_factor=1, first_rung_epochs=1.5)  # type: ignore[arg-type]
    for fault in ("max_epochs", "got 0", "trials", "got -1", "reduction_factor", "at least 2", "first_rung_epochs", "got 1.5", "suggest"):  # fmt: skip
        assert fault in str(refused.value)


def test_baselines_that_are_none_are_refused() -> None:
    config = SPACES["lenet_space"].baselines[0].config
    with pytest.raises(InputError, match="baselines"):
        Space(suggest=SPACES["lenet_space"].suggest, baselines=[config])  # type: ignore[list-item]
    assert Space(suggest=SPACES["lenet_space"].suggest, baselines=[Baseline("mine", config)]).baselines
