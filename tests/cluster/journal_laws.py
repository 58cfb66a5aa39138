"""What must hold of a sweep's records whatever has been killed meanwhile (the oracle after every recovery)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.cluster.quick_trials import diaries, val_accuracy
from tests.integration.conftest import check_mlflow
from tests.journal_laws import check_trials
from tracking.record.events import AttemptStarted, EpochDone, Event, SweepEnded, TrialEnded, TrialPaused, TrialStarted
from tracking.record.journal import read
from tracking.record.layout import SweepFolder


def check_so_far(sweep: Path, *, quick: bool = True) -> None:
    """The laws that hold at every moment, a killed driver's leavings included; `quick` are `quick_trials`."""
    events = list(read(sweep / "journal.jsonl"))
    numbers = [event.trial for event in events if isinstance(event, TrialStarted)]
    check_trials(events)
    for number in numbers if quick else ():
        _check_numbers([event for event in events if getattr(event, "trial", None) == number])
        _check_no_epoch_of_a_disowned_attempt(sweep, number)


def _check_numbers(events: list[Event]) -> None:
    seed = next(event.seed for event in events if isinstance(event, TrialStarted))
    for event in events:
        if isinstance(event, EpochDone):
            assert event.metrics == {"val_accuracy": val_accuracy(seed, event.epoch)}


def _check_no_epoch_of_a_disowned_attempt(sweep: Path, number: int) -> None:
    """Once a later attempt has written its first epoch, an earlier one writes none."""
    mine = [line for line in diaries(sweep) if int(line["trial"]) == number]
    order = [line["attempt"] for line in mine]
    assert order == sorted(order), f"trial {number}: epochs of attempts {order}"


def check_finished(sweep: Path, trials: int, *, space: str = "quick") -> None:
    """The laws of a sweep that has come to its end, in journal, study and MLflow."""
    check_so_far(sweep, quick=space == "quick")
    events = list(read(sweep / "journal.jsonl"))
    final = [event for event in events if isinstance(event, TrialEnded) and event.final]
    assert sorted(event.trial for event in final) == list(range(trials)), "as many trials as asked, each ended"
    assert Counter(event.state for event in final).keys() <= {"done", "pruned"}
    assert isinstance(events[-1], SweepEnded)
    _check_study(SweepFolder(sweep), final)
    check_mlflow(f"sqlite:///{sweep.parent}/mlflow.db", sweep / "journal.jsonl", space)


def _check_study(folder: SweepFolder, final: list[TrialEnded]) -> None:
    storage = JournalStorage(JournalFileBackend(str(folder.study_log)))
    (summary,) = optuna.get_all_study_summaries(storage)
    told = {
        trial.number: trial.state.name
        for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials
    }
    names = {"value": "COMPLETE", "pruned": "PRUNED", "worst": "PRUNED", "nothing": "FAIL"}
    assert told == {event.trial: names[str(event.told)] for event in final}


def epochs_done(journal: Path) -> int:
    """Epochs in a journal that may not be there yet."""
    return journal.read_text().count('"event":"epoch"') if journal.exists() else 0


def attempts_begun(journal: Path) -> list[str]:
    """Why trials were handed out again, in order."""
    return [event.reason for event in read(journal) if isinstance(event, AttemptStarted)]


def most_out_at_once(journal: Path) -> int:
    """How many trials were handed out at the same moment."""
    out, most = set[int](), 0
    for event in read(journal):
        if isinstance(event, TrialStarted | AttemptStarted):
            out.add(event.trial)
        elif isinstance(event, TrialEnded | TrialPaused):
            out.discard(event.trial)
        most = max(most, len(out))
    return most
