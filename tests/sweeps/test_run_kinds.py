"""Recorded configurations tell what a run is, those of earlier versions too."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.run_kinds import Ensemble, RunKind, SvmHead, TrainedNet, kind_of

MEMBERS = {"night/0": 0.25, "night/3": 0.75}
SVM = {"member": "night/0", "kernel": "linear", "c": 0.1, "tried": [0.1, 1.0], "held_out_accuracy": 0.5}


@pytest.mark.parametrize(
    ("config", "kind", "sources"),
    [
        ({"net": {"name": "lenet"}}, TrainedNet(), ()),
        ({}, TrainedNet(), ()),
        (
            {"ensemble": {"method": "mean", "members": MEMBERS}, "net": {"name": "mean of 2"}},
            Ensemble(method="mean", members=MEMBERS),
            ("night/0", "night/3"),
        ),
        (
            {"svm": SVM, "net": {"name": "lenet"}},
            SvmHead(member="night/0", kernel="linear", c=0.1, tried=(0.1, 1.0), held_out_accuracy=0.5),
            ("night/0",),
        ),
    ],
)
def test_the_kind_is_in_the_configuration(config: dict[str, Any], kind: RunKind, sources: tuple[str, ...]) -> None:
    assert kind_of(config) == kind
    assert kind.sources == sources


def test_what_is_recorded_is_read_back_as_it_was() -> None:
    made = Ensemble(method="greedy", members=MEMBERS, candidates=("night/0", "night/1", "night/3"))
    assert kind_of({"ensemble": made.model_dump(mode="json")}) == made
    assert made.is_fitted
