"""What a sweep was asked to do, as its journal has it."""

from fer_data import DataOptions
from sweeps.spec import SweepSpec
from tests.sweeps.fake_trials import spec


def test_early_journals_are_read() -> None:
    early = spec().model_dump(mode="json") | {
        "data": "fer2013.csv",
        "faces": {"folder": "/cache/00ff", "limit_train": None, "limit_seed": 0},
    }
    read = SweepSpec.model_validate(early)
    assert read.data == DataOptions(source="fer2013.csv")
    assert read.faces == "/cache/00ff"


def test_the_one_length_of_baselines_in_older_journals_is_read() -> None:
    content = spec(baselines={"first report": "", "second report": ""}).model_dump(mode="json")
    assert SweepSpec.model_validate(content | {"baseline_epochs": 13}).baseline_epochs == (13, 13)
