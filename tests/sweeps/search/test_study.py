import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import optuna
import pytest

from sweeps.driver.runner import InlineRunner
from sweeps.search.proposals import Proposal
from sweeps.search.seeds import derive_seed
from sweeps.search.study import Study
from tests import ROOT
from tests.sweeps.fake_trials import (
    PATIENT,
    SPACE,
    diverging_body,
    good_body,
    only_sampled,
    open_desk,
    scripted_body,
    spec,
    with_reports_of,
)
from tracking.record.events import EpochDone, Event, TrialEnded, TrialStarted, Verdict
from tracking.record.history import SweepHistory

TRIALS = 15
"""Enough for the sampler to leave its ten random trials behind."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """The journal of a sweep with done, pruned and failed trials."""
    desk = open_desk(
        tmp_path_factory.mktemp("played"),
        with_reports_of(2, PATIENT),
        spec(trials=TRIALS, max_epochs=3, baseline_epochs=2),
    )
    InlineRunner().run(desk.director, diverging_body)
    states = {trial.state for trial in desk.director.history.trials.values()}
    assert states == {"done", "pruned", "failed"}, "the sweep that the tests below play must have every state"
    return desk.events()


def play(study: Study, events: Iterable[Event]) -> None:
    """What a director asks of a study while it writes these events."""
    for event in events:
        match event:
            case TrialStarted(baseline=None):
                study.propose(event.trial)
            case TrialStarted():
                study.add_undrawn(event.trial)
            case EpochDone():
                study.report(event.trial, event.epoch, event.metrics["val_accuracy"])
            case Verdict():
                study.finish(event.trial, "pruned")
            case TrialEnded(told=str() as told):
                study.finish(event.trial, told, event.best.get("best_val_accuracy"))


def proposal_after(folder: Path, events: list[Event], number: int) -> Proposal:
    return Study(folder / "rebuilt.log", PATIENT, 7, events).propose(number)


def test_a_rebuilt_study_goes_on_as_the_sweep_did(played: list[Event], tmp_path: Path) -> None:
    """At each sampled trial of the sweep, a study laid from the journal so far proposes what was proposed."""
    for index, event in enumerate(played):
        if isinstance(event, TrialStarted) and event.baseline is None:
            proposal = proposal_after(tmp_path, played[:index], event.trial)
            assert (proposal.params, proposal.distributions) == (event.params, event.distributions)
            assert proposal.config.id == event.config_id


def test_a_rebuilt_study_proposes_what_the_living_one_would_at_every_line(played: list[Event], tmp_path: Path) -> None:
    learning = next(i for i, event in enumerate(played) if isinstance(event, TrialStarted) and event.trial == 10)
    for end in range(learning, len(played) + 1):
        number = SweepHistory.replay(played[:end]).next_number
        living = Study(tmp_path / "living.log", PATIENT, 7)
        play(living, played[1:end])
        rebuilt = proposal_after(tmp_path, played[:end], number)
        assert rebuilt.params == living.propose(number).params, f"after line {end}"


def started(number: int, proposal: Proposal) -> TrialStarted:
    return TrialStarted(
        trial=number,
        config_id=proposal.config.id,
        config=proposal.config.model_dump(mode="json"),
        seed=0,
        epochs=3,
        params=proposal.params,
        distributions=proposal.distributions,
    )


def test_another_process_with_other_hashes_proposes_the_same(played: list[Event], tmp_path: Path) -> None:
    last = next(i for i, event in enumerate(played) if isinstance(event, TrialStarted) and event.trial == TRIALS - 1)
    journal = tmp_path / "journal.jsonl"
    journal.write_text("".join(event.model_dump_json() + "\n" for event in played[:last]))
    script = (
        "import json, pathlib; from tests.sweeps.fake_trials import PATIENT; from sweeps.search.study import Study; "
        "from tracking.record.journal import read; here = pathlib.Path('.'); "
        "study = Study(here / 'study.log', PATIENT, 7, read(here / 'journal.jsonl')); "
        f"print(json.dumps(study.propose({TRIALS - 1}).params))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    expected = played[last]
    assert isinstance(expected, TrialStarted)
    assert json.loads(done.stdout) == expected.params


def test_the_seed_and_the_number_decide_the_proposal(tmp_path: Path) -> None:
    def first(seed: int, number: int) -> dict[str, object]:
        return Study(tmp_path / "study.log", SPACE, seed).propose(number).params

    assert first(7, 3) == first(7, 3)
    assert first(7, 3) != first(7, 4)
    assert first(7, 3) != first(8, 3)


def test_derived_seeds_are_stable_and_apart() -> None:
    # sha256("7/sampler/3") begins 0x…, computed with coreutils' sha256sum; 63 bits of it.
    digest = subprocess.run(["sha256sum"], input=b"7/sampler/3", capture_output=True, check=True).stdout
    assert derive_seed(7, "sampler", 3) == int(digest[:16], 16) >> 1
    assert len({derive_seed(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_failed_trials_teach_nothing(tmp_path: Path) -> None:
    """Ten told trials and three failed ones lead to the proposal of the ten alone."""

    def proposal(failed: int) -> dict[str, object]:
        study = Study(tmp_path / f"{failed}.log", only_sampled(first_rung_epochs=9), 7)
        for number in range(10):
            study.propose(number)
            study.report(number, 1, number / 10)
            study.finish(number, "value", number / 10)
        for number in range(10, 10 + failed):
            study.propose(number)
            study.report(number, 1, 0.99)
            study.finish(number, study.lesson(number, "failed", unfit=False), 0.99)
        return study.propose(20).params

    assert proposal(3) == proposal(0)


def test_done_trials_do_teach(tmp_path: Path) -> None:
    def proposal(last: float) -> dict[str, object]:
        study = Study(tmp_path / f"{last}.log", only_sampled(first_rung_epochs=9), 7)
        for number in range(12):
            study.propose(number)
            study.finish(number, "value", last if number == 11 else number / 100)
        return study.propose(20).params

    assert proposal(0.99) != proposal(-0.99)


# Asynchronous successive halving by hand: at a rung, the top floor(n / 3) of the n trials so far continue, one at least.
RUNG_1 = [
    (0.50, None),
    (0.40, "0.4000 under the cut 0.5000, rank 2 of 2"),
    (0.60, None),
    (0.45, "0.4500 under the cut 0.6000, rank 3 of 4"),
    (0.55, "0.5500 under the cut 0.6000, rank 2 of 5"),
    (0.58, None),  # 6 trials: the second best continues too
    (0.57, "0.5700 under the cut 0.5800, rank 3 of 7"),
]


def test_successive_halving_by_hand(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.log", only_sampled(first_rung_epochs=2), 7)
    for number, (value, why) in enumerate(RUNG_1):
        study.propose(number)
        assert study.report(number, 1, 0.01 * number) is None, "no rung before the second epoch"
        assert study.report(number, 2, value) == (why and f"stopped at epoch 2: {why}")


def test_later_rungs_come_after_three_times_as_many_epochs(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.log", only_sampled(first_rung_epochs=1), 7)
    for number, value in enumerate((0.5, 0.6)):
        study.propose(number)
        assert [study.report(number, epoch, value) for epoch in (1, 2)] == [None, None]
    assert study.report(1, 3, 0.70) is None
    assert study.report(0, 3, 0.65) == "stopped at epoch 3: 0.6500 under the cut 0.7000, rank 2 of 2"


def test_baselines_compete_but_are_spared(tmp_path: Path) -> None:
    values = {0: [0.8, 0.8, 0.8], 1: [0.1, 0.1, 0.1], 2: [0.5, 0.5, 0.5], 3: [0.9, 0.9, 0.9]}
    desk = open_desk(tmp_path / "night", asked=spec(trials=4, max_epochs=3))
    InlineRunner().run(desk.director, scripted_body(values))
    trials = desk.director.history.trials
    assert [trials[number].state for number in range(4)] == ["done", "done", "pruned", "done"]
    verdict = trials[2].verdict
    assert verdict is not None
    assert (verdict.epoch, verdict.reason) == (1, "stopped at epoch 1: 0.5000 under the cut 0.8000, rank 2 of 3")
    assert trials[1].last_epoch == 3


def test_study_log_opens_in_optuna_with_the_journals_states(played: list[Event], tmp_path: Path) -> None:
    def states_and_values(log: Path) -> list[tuple[str, dict[str, object], dict[int, float]]]:
        backend = optuna.storages.journal.JournalFileBackend(str(log))
        study = optuna.load_study(study_name=SPACE.name, storage=optuna.storages.JournalStorage(backend))
        assert study.direction.name == "MAXIMIZE"
        return [(trial.state.name, trial.params, trial.intermediate_values) for trial in study.trials]

    history = SweepHistory.replay(played)
    names = {"value": "COMPLETE", "pruned": "PRUNED", "worst": "PRUNED", "nothing": "FAIL"}
    expected = []
    for trial in history.trials.values():
        assert trial.end is not None
        assert trial.end.told is not None
        unseen = trial.started.baseline or trial.end.diverged
        curve = {} if unseen else {epoch.epoch: epoch.metrics["val_accuracy"] for epoch in trial.epochs}
        expected.append((names[trial.end.told], trial.started.params, curve))
    Study(tmp_path / "rebuilt.log", PATIENT, 7, played)
    assert states_and_values(tmp_path / "rebuilt.log") == expected

    desk = open_desk(tmp_path / "live", with_reports_of(2, PATIENT), spec(trials=TRIALS, max_epochs=3))
    InlineRunner().run(desk.director, diverging_body)
    assert states_and_values(desk.folder.study_log) == expected


def test_a_foreign_or_torn_study_log_is_laid_anew(played: list[Event], tmp_path: Path) -> None:
    log = tmp_path / "rebuilt.log"
    expected = proposal_after(tmp_path, played, TRIALS).params
    log.write_text('{"op_code": 0, "worker')
    Path(f"{log}.lock").touch()
    assert proposal_after(tmp_path, played, TRIALS).params == expected


def test_a_late_report_after_the_verdict_does_no_harm(played: list[Event], tmp_path: Path) -> None:
    """A worker that sees the verdict late (a network file system) has run one epoch more."""
    at, verdict = next((i, event) for i, event in enumerate(played) if isinstance(event, Verdict))
    late = EpochDone(trial=verdict.trial, epoch=verdict.epoch + 1, metrics={"val_accuracy": 0.9})
    Study(tmp_path / "study.log", PATIENT, 7, [*played[: at + 1], late, *played[at + 1 :]])


def test_good_body_is_what_the_other_tests_take_it_for(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "night")
    InlineRunner().run(desk.director, good_body)
    assert {trial.state for trial in desk.director.history.trials.values()} <= {"done", "pruned"}
