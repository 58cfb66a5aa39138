"""Stops a sweep most of whose trials fail: the cause is then not their settings."""

from __future__ import annotations

from collections import Counter

from sweeps.planning.budgets import Stoppable
from tracking.record.history import SweepHistory

_LEAST_ENDED = 4


class FailureLimit:
    """Counts the trials that ended since it was made, so a resume starts to count again."""

    def __init__(self, share: float, history: SweepHistory) -> None:
        self._share = share
        self._before = {trial.number for trial in history.trials.values() if trial.is_over}

    def __call__(self, sweep: Stoppable) -> None:
        """Stop the sweep if more than the share has failed."""
        trials = sweep.history.trials.values()
        ends = [trial.end for trial in trials if trial.end and trial.is_over and trial.number not in self._before]
        failed = [end for end in ends if end.state == "failed"]
        if len(ends) < _LEAST_ENDED or len(failed) <= self._share * len(ends):
            return
        reasons = Counter((end.reason or "").partition(" (traceback in ")[0] for end in failed)
        reason, count = reasons.most_common(1)[0]
        sweep.request_stop(
            f"{len(failed)} of {len(ends)} trials failed, more than --max-failed {self._share:.0%} allows; "
            f"{count} of them: {reason}"
        )
