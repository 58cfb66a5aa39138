from pathlib import Path

import pytest
from pydantic import ValidationError

from fer_data import DataOptions


def test_a_source_may_be_a_path_and_synthetic_is_none():
    assert DataOptions(source=Path("a.csv")) == DataOptions(source="a.csv")
    assert DataOptions(source="synthetic") == DataOptions()


@pytest.mark.parametrize(
    ("given", "has_subset"),
    [
        ({}, False),
        ({"source": "a.csv", "resize": 64, "skip_bad": True}, False),
        ({"fold_seed": 3, "limit_seed": 3}, False),
        ({"classes": ("happy", "sad")}, True),
        ({"fold": 1, "folds": 2}, True),
        ({"dedupe": "train"}, True),
        ({"limit_train": 7}, True),
    ],
)
def test_what_is_a_subset(given, has_subset):
    assert DataOptions(**given).has_subset is has_subset


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fold": 1}, "fold and folds belong together"),
        ({"folds": 5}, "fold and folds belong together"),
        ({"fold": 6, "folds": 5}, "fold 6 of 5: choose 1 to 5"),
        ({"labels": "ferplus-majority"}, "labels 'ferplus-majority' needs ferplus"),
        ({"ferplus": "votes.csv"}, "choose labels ferplus-plurality, ferplus-majority, ferplus-soft"),
        ({"fold": 6, "folds": 5, "labels": "ferplus-soft"}, "fold 6 of 5.*labels 'ferplus-soft' needs"),
        ({"resize": 7}, "resize"),
        ({"resize": 513}, "resize"),
        ({"resize_method": "nearest"}, "resize_method"),
        ({"limit_train": 0}, "limit_train"),
        ({"sauce": "a.csv"}, "sauce"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        DataOptions(**given)


def test_options_survive_json():
    options = DataOptions(source="a.csv", classes=("happy", "sad"), fold=1, folds=5, labels="ferplus", ferplus="b.csv")
    assert DataOptions.model_validate_json(options.model_dump_json()) == options
