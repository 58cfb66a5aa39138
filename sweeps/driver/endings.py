"""Ends trials: done, failed, pruned, stopped for good by a person, or stopped until a resume."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from sweeps.driver.recorder import Recorder
from sweeps.driver.trial_queue import TrialQueue
from sweeps.search.study import Study
from sweeps.trial.messages import OBJECTIVE, SYSTEM, TrialEnd
from tracking.errors import TrackingError
from tracking.metrics.groups import why_given_up
from tracking.record.cleaning import remove, states
from tracking.record.events import Told, TrialEnded, TrialState, Verdict
from tracking.record.files import write_json
from tracking.record.history import TrialHistory
from tracking.record.layout import SweepFolder
from tracking.record.objectives import rank_in_words


class Endings:
    """Ends the trials of one sweep. Each end is in the journal before the study and the worker receive it."""

    def __init__(self, recorder: Recorder, study: Study, queue: TrialQueue, folder: SweepFolder) -> None:
        self._recorder, self._history = recorder, recorder.history
        self._study, self._queue, self._folder = study, queue, folder
        self._lost: set[int] = set()  # members of groups that were given up

    def apply_pruner(self, trial: TrialHistory, reason: str | None) -> None:
        """Prune the trial if the pruner gives a reason and the trial may be pruned."""
        if reason is not None and not self.is_spared(trial) and trial.verdict is None:
            self._decide(Verdict(trial=trial.number, state="pruned", epoch=trial.last_epoch, reason=reason), "pruned")

    def is_spared(self, trial: TrialHistory) -> bool:
        """Whether a trial cannot be pruned: a baseline, a trial in its last epoch, or a fork in the epochs of its
        source.
        """
        wanted = trial.started.wanted
        of_source = wanted is not None and wanted.epoch is not None and trial.last_epoch <= wanted.epoch
        return trial.started.baseline is not None or trial.last_epoch == trial.started.epochs or of_source

    def prune_waiting(self, trial: TrialHistory) -> None:
        """Prune a trial that waits at a rung, at the end of the sweep."""
        rank, count = self._study.rank(trial.number)
        place = rank_in_words(rank, count, trial.last_epoch, self._history.loss_epochs)
        reason = f"stopped at epoch {trial.last_epoch}: not promoted, {place}"
        self._close_idle(trial, "pruned", reason)

    def _close_idle(self, trial: TrialHistory, state: TrialState, reason: str) -> None:
        """End a trial that has no worker, and delete its state, as a worker would."""
        self.close(trial.number, state, reason)
        with suppress(TrackingError):  # `clean` finds what is left
            remove(list(states(self._folder, trial)))

    def give_up(self, number: int, reason: str) -> str:
        """Stop a trial for good, because a person asked. Returns the answer. Raises InputError."""
        trial = self._queue.open_trial(number)
        if number in self._queue.out:
            self._decide(Verdict(trial=number, state="stopped", epoch=trial.last_epoch, reason=reason), "nothing")
            return f"trial {number} finishes at its next report"
        self._queue.remove(number)
        self._close_idle(trial, "stopped", reason)
        return f"trial {number} is stopped"

    def _decide(self, verdict: Verdict, told: Told) -> None:
        self._recorder.record(verdict)
        self._study.finish(verdict.trial, told)
        self.write_verdict(verdict)
        self._give_up_lost_group(self._history.trials[verdict.trial])

    def _give_up_lost_group(self, trial: TrialHistory) -> None:
        """Prune the other trials of a group that can no longer win."""
        if trial.started.group is None:
            return
        group = self._history.group_of(trial)
        left = [one for one in group.members.values() if not one.is_over and one.verdict is None]
        left = [one for one in left if one.number not in self._lost]  # the end of each one calls this again
        if not left or (reason := why_given_up(self._history, group)) is None:
            return
        self._lost |= {one.number for one in left}
        for one in left:
            if one.number in self._queue.out:
                verdict = Verdict(trial=one.number, state="pruned", epoch=one.last_epoch, reason=reason)
                self._decide(verdict, "pruned")
            else:
                self._queue.remove(one.number)
                self._close_idle(one, "pruned", reason)

    def write_verdict(self, verdict: Verdict) -> None:
        """Write the verdict where the trial's worker looks for it."""
        write_json(self._folder.trial(verdict.trial).verdict, {"state": verdict.state, "reason": verdict.reason})

    def end(self, number: int, end: TrialEnd) -> None:
        """End a trial as its worker reported."""
        trial = self._history.trials[number]
        verdict = trial.verdict
        if end.state == "blocked":
            self.stop(number, end.reason)
        elif end.state == "failed":
            self.close(number, "failed", end.reason, diverged=end.diverged, note=end.note)
        elif verdict is not None:
            self.close(number, verdict.state, verdict.reason, note=end.note, scores=end.scores, undrawn=end.undrawn)
        elif trial.epochs and trial.best_epoch() is None:
            reason = f"val_accuracy is not a number in any of {trial.last_epoch} epochs"
            self.close(number, "failed", reason, diverged=True, note=end.note)
        else:
            self.close(number, "done", None, note=end.note, scores=end.scores, undrawn=end.undrawn)

    def stop(self, number: int, reason: str | None) -> None:
        """Stop a trial, which a later driver can resume."""
        self.close(number, "stopped", reason, final=False)

    def take_over(self, number: int, equal: TrialHistory) -> None:
        """End a trial without training, with the result of an equal trial. The sampler learns from it as usual."""
        assert equal.end
        reason = f"equal to trial {equal.number}, whose result is reused"
        self.close(number, "done", reason, results=equal.end.best)

    def close(
        self,
        number: int,
        state: TrialState,
        reason: str | None,
        *,
        diverged: bool = False,
        final: bool = True,
        note: str | None = None,
        undrawn: bool = False,
        scores: Mapping[str, float] = MappingProxyType({}),
        results: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Record the end of a trial, free its slot and, if the end is final, let the sampler learn from it.

        `scores` are those of the best epoch; `results` replace them for a trial that has no epoch.
        """
        trial = self._history.trials[number]
        best = trial.best_epoch()
        values = dict(results)
        if best:
            own = {f"best_{name}": value for name, value in best.metrics.items() if not name.startswith(SYSTEM)}
            values = {**scores, **own, "best_epoch": float(best.epoch)}
        unfit = diverged or not trial.started.config
        told = self._study.lesson(number, state, unfit=unfit) if final else None
        ended = TrialEnded(
            trial=number,
            state=state,
            reason=reason,
            note=note,
            best=values,
            epochs=trial.last_epoch,
            diverged=diverged,
            final=final,
            told=told,
            undrawn=undrawn,
        )
        self._recorder.record(ended)
        self._queue.release(number)
        if ended.drops_out:
            self._study.drop_out(number)
        if told:
            self._study.finish(number, told, values.get(f"best_{OBJECTIVE}"), values)
            self._give_up_lost_group(trial)
