"""Starts trials: gets their configurations, records them and makes the tasks that workers run."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.config import TrialConfig
from sweeps.driver.endings import Endings
from sweeps.driver.recorder import Recorder
from sweeps.planning.seeds import derive_seed
from sweeps.planning.study import Proposal, Study
from sweeps.space import Space
from sweeps.spec import SweepSpec
from sweeps.trial.messages import EpochReport, Task
from tracking.record.events import TrialStarted, Wanted
from tracking.record.files import write_json
from tracking.record.history import TrialHistory
from tracking.record.layout import SweepFolder, TrialFolder


class Starting:
    """Starts the trials of one sweep. Each start is recorded before its task is made."""

    def __init__(
        self,
        recorder: Recorder,
        study: Study,
        space: Space,
        folder: SweepFolder,
        endings: Endings,
        resolve: Callable[[TrialConfig], TrialConfig],
    ) -> None:
        self._recorder, self._history = recorder, recorder.history
        self._study, self._space, self._folder = study, space, folder
        self._endings, self._resolve = endings, resolve

    def start_next(self, spec: SweepSpec) -> TrialHistory | None:
        """Record the next baseline, or the sampler's next proposal.

        None where the trial is over at once: the space made no configuration of the proposal, which is a failed trial,
        or an equal trial is done.
        """
        number = self._history.next_number
        begun = sum(trial.started.baseline is not None for trial in self._history.trials.values())
        baseline = next(iter(self._space.baselines[begun:]), None)
        if baseline:
            self._study.add_undrawn(number)
            proposal = Proposal(baseline.config, {}, {})
        else:
            proposal = self._study.propose(number)
        config = self._resolve(proposal.config) if proposal.config else None
        config_id = config.id if config else ""
        self._recorder.record(
            TrialStarted(
                trial=number,
                config_id=config_id,
                config=config.model_dump(mode="json") if config else {},
                seed=derive_seed(spec.seed, config_id),
                epochs=baseline.epochs_in(spec.max_epochs) if baseline else spec.max_epochs,
                report_epochs=baseline.epochs if baseline else None,
                baseline=baseline.name if baseline else None,
                params=proposal.params,
                distributions=proposal.distributions,
            )
        )
        trial = self._history.trials[number]
        if config is None:
            self._endings.close(number, "failed", proposal.fault)
        elif equal := self._done_equal(trial):
            self._endings.take_over(number, equal)
        else:
            return trial
        return None

    def start_wanted(self, wanted: Wanted) -> TrialHistory:
        """Record a trial that a person asked for; the sampler sees it where the space can draw it."""
        number, config = self._history.next_number, self._resolve(TrialConfig.model_validate(wanted.config))
        started = TrialStarted(
            trial=number,
            config_id=config.id,
            config=config.model_dump(mode="json"),
            seed=self._history.trials[wanted.source].started.seed,
            epochs=wanted.epochs,
            params=wanted.params,
            distributions=wanted.distributions,
            wanted=wanted,
        )
        if wanted.params:
            self._study.add_drawn(started)
        else:
            self._study.add_undrawn(number)
        self._recorder.record(started)
        return self._history.trials[number]

    def task(self, trial: TrialHistory, attempt: int, spec: SweepSpec) -> Task:
        """The task of an attempt at the trial, its folder made ready."""
        folder = self._folder.trial(trial.number).create()
        self._move_state(trial.started, folder)
        write_json(folder.config, trial.started.config)
        config = TrialConfig.model_validate(trial.started.config)
        return Task(
            trial=trial.number,
            attempt=attempt,
            folder=str(folder.root.absolute()),
            config=config,
            gpu_share=spec.gpu_share(config.net.name),
            seed=trial.started.seed,
            epochs=trial.started.epochs,
            faces=spec.faces,
            data=spec.data,
            device=spec.device,
            threads=spec.threads,
            figures=spec.figures,
            recorded=tuple(
                EpochReport(attempt=attempt, epoch=done.epoch, metrics=done.metrics, iterations=done.iterations)
                for done in trial.epochs
            ),
        )

    def _done_equal(self, trial: TrialHistory) -> TrialHistory | None:
        """A trial that is done with the same configuration, seed and length, from its beginning: the same result."""

        def work(one: TrialHistory) -> tuple[str, int, int]:
            return one.started.config_id, one.started.seed, one.started.epochs

        done = (one for one in self._history.trials.values() if one.state == "done" and one.epochs)
        return next((one for one in done if work(one) == work(trial) and one.started.wanted is None), None)

    def _move_state(self, started: TrialStarted, folder: TrialFolder) -> None:
        """Give a fork the state that was kept for it: to its worker it is a trial that continues."""
        kept = self._folder.forks / started.wanted.act if started.wanted else None
        if kept and kept.is_dir():
            for path in kept.iterdir():
                path.replace(folder.root / path.name)
            kept.rmdir()
