"""Starts trials: obtains their configurations, records them and makes the tasks that workers run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fer_common.errors import UserError
from sweeps.config import TrialConfig
from sweeps.driver.endings import Endings
from sweeps.driver.lengthening import epochs_of
from sweeps.driver.recorder import Recorder
from sweeps.search.drawn_as import drawn_as
from sweeps.search.proposals import Proposal
from sweeps.search.seeds import derive_seed
from sweeps.search.study import Study
from sweeps.space import Space
from sweeps.spec import SweepSpec
from sweeps.trial.messages import Task
from tracking.metrics.groups import to_confirm
from tracking.record.events import Group, TrialStarted, Wanted, now_ms
from tracking.record.files import write_json
from tracking.record.history import TrialGroup, TrialHistory
from tracking.record.layout import SweepFolder, TrialFolder
from tracking.record.training_states import take_state

_NO_CONFIGURATION = "the space could not make its configuration; the driver died before it recorded why"


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

    def can_start(self, spec: SweepSpec) -> bool:
        """Whether there is a trial to start now. Confirmations start once all other trials are over."""
        if spec.to_begin(self._history) or spec.next_member(self._history):
            return True
        others_are_over = all(trial.is_confirming for trial in self._history.unfinished)
        return others_are_over and bool(spec.confirmations_left(self._history))

    def start_next(self, spec: SweepSpec) -> TrialHistory | None:
        """Record the next member of a started group, the next baseline, or the sampler's next proposal.

        None if the trial ends at once: the space could not make its configuration, so it failed, or an equal trial is
        done.
        """
        if begun := spec.next_member(self._history):
            return self._start_or_end(self._member(spec, *begun))
        if not spec.to_begin(self._history):
            return self._start_or_end(self._confirmation(spec))
        number = self._history.next_number
        trained = self._history.baselines
        baseline = next((one for one in self._space.baselines if not one.is_in(trained)), None)
        if baseline:
            self._study.add_undrawn(number)
            proposal = Proposal(baseline.config, {}, {})
        else:
            proposal = self._study.propose(number)
        config = self._resolve(proposal.config) if proposal.config else None
        config_id = config.id if config else ""
        grouped = config is not None and spec.members > 1
        return self._start_or_end(
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
                group=Group(first=number, member=0, size=spec.members) if grouped else None,
                fold=1 if grouped and spec.folds else None,
            ),
            proposal.fault,
        )

    def _confirmation(self, spec: SweepSpec) -> TrialStarted:
        """The first confirmation of the best configuration that is not yet confirmed, under a new seed."""
        assert spec.confirm
        begun = {one.confirms for one in self._history.groups()}
        source = next(one for one in to_confirm(self._history, spec.confirm) if one.first.number not in begun)
        place = Group(
            first=self._history.next_number, member=0, size=spec.confirming_members, confirms=source.first.number
        )
        used = max(int(trial.started.config.get("replicate", 0)) for trial in self._history.trials.values())
        return self._again(spec, source.first.started, place, used + 1)

    def _member(self, spec: SweepSpec, group: TrialGroup, member: int) -> TrialStarted:
        """The next member of a group: the same configuration under another seed, or on another fold."""
        first = group.first.started
        assert first.group
        replicate = int(first.config.get("replicate", 0)) + (0 if spec.folds else member)
        return self._again(spec, first, first.group.model_copy(update={"member": member}), replicate)

    def _again(self, spec: SweepSpec, first: TrialStarted, place: Group, replicate: int) -> TrialStarted:
        """A trial of a configuration that was trained before. The sampler does not see it."""
        number = self._history.next_number
        config = TrialConfig.model_validate(first.config | {"replicate": replicate})
        started = first.model_copy(
            update={
                "time_ms": now_ms(),
                "trial": number,
                "config_id": config.id,
                "config": config.model_dump(mode="json"),
                "seed": derive_seed(spec.seed, config.id),
                "params": {},
                "distributions": {},
                "wanted": None,
                "group": place,
                "fold": place.member + 1 if spec.folds else None,
            }
        )
        self._study.add_undrawn(number)
        return started

    def _start_or_end(self, started: TrialStarted, fault: str | None = None) -> TrialHistory | None:
        """Record a trial. None if it ends at once."""
        self._study.enter(started)
        self._recorder.record(started)
        trial = self._history.trials[started.trial]
        return None if self.end_at_once(trial, fault) else trial

    def end_at_once(self, trial: TrialHistory, fault: str | None = None) -> bool:
        """End a trial that needs no training, for example without a configuration. Returns whether it did."""
        started = trial.started
        if not started.config:
            self._endings.close(started.trial, "failed", fault or _NO_CONFIGURATION)
        elif not trial.epochs and started.wanted is None and (equal := self._done_equal(trial)):
            self._endings.take_over(started.trial, equal)
        else:
            return False
        return True

    def start_wanted(self, wanted: Wanted, spec: SweepSpec) -> TrialHistory | None:
        """Record a trial that a person asked for. The sampler learns from it if the space can draw it.

        None if it fails at once: what its configuration names is gone, such as another trial's weights.
        """
        number, fault = self._history.next_number, None
        config = asked = TrialConfig.model_validate(wanted.config)
        try:
            config = self._resolve(asked)
        except (UserError, OSError) as error:
            fault = str(error)
        source = self._history.trials[wanted.source].started
        same = source if wanted.verb == "retry" else None
        # The space may have been edited since the person asked for it.
        drawn = drawn_as(self._space, asked, wanted.params) if wanted.params else None
        started = TrialStarted(
            trial=number,
            config_id=config.id,
            config=config.model_dump(mode="json"),
            seed=source.seed,
            epochs=epochs_of(wanted, source, spec.max_epochs),
            baseline=same and same.baseline,
            report_epochs=same and same.report_epochs,
            params=drawn.params if drawn else {},
            distributions=drawn.distributions if drawn else {},
            wanted=wanted,
            **self._place_of(wanted, spec),
        )
        self._study.enter(started)
        if drawn:
            self._study.add_drawn(started)
        else:
            self._study.add_undrawn(number)
        self._recorder.record(started)
        trial = self._history.trials[number]
        if fault:
            self._folder.trial(number).create()
            self.take_kept_state(trial)  # so that a retry can continue from it
            self._endings.close(number, "failed", fault)
            return None
        return trial

    def _place_of(self, wanted: Wanted, spec: SweepSpec) -> dict[str, Any]:
        """The trial's place in a group: a new configuration starts a group, a repeated trial takes the old trial's
        place.
        """
        source = self._history.trials[wanted.source].started
        if wanted.verb == "try" and spec.members > 1:
            number = self._history.next_number
            return {"group": Group(first=number, member=0, size=spec.members), "fold": 1 if spec.folds else None}
        return {"group": source.group if wanted.verb == "retry" else None, "fold": source.fold}

    def task(self, trial: TrialHistory, attempt: int, spec: SweepSpec, deaths: int) -> Task:
        """The task of an attempt at the trial; prepares its folder."""
        folder = self._folder.trial(trial.number).create()
        self.take_kept_state(trial)
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
            faces=spec.faces_of(trial.started),
            data=spec.data_of(trial.started),
            device=spec.device,
            threads=spec.threads,
            workers=spec.workers,
            cuda_graphs=spec.cuda_graphs == "on",
            deaths=deaths,
            figures=spec.figures,
            objectives=spec.objectives,
            began_from_state=trial.started.began_from_state,
            plateau_from=trial.started.wanted and trial.started.wanted.plateau_from,
            recorded=tuple(trial.epochs),
        )

    def _done_equal(self, trial: TrialHistory) -> TrialHistory | None:
        """A finished trial with the same configuration, seed and length, trained from epoch 0."""

        def work(one: TrialHistory) -> tuple[str, int, int, int | None]:
            return one.started.config_id, one.started.seed, one.started.epochs, one.started.fold

        done = (one for one in self._history.trials.values() if one.state == "done" and one.epochs)
        return next((one for one in done if work(one) == work(trial) and one.started.wanted is None), None)

    def take_kept_state(self, trial: TrialHistory) -> None:
        """Copy the state from which a fork, a retry, or a trial with more epochs continues into the trial's folder."""
        files, wanted = self._folder.trial(trial.number), trial.started.wanted
        if wanted:
            kept = wanted.act if wanted.verb == "fork" else f"{wanted.act}-{wanted.source}"
            take_state(TrialFolder(self._folder.forks / kept), files)
        take_state(self._folder.lengthened(trial.number), files)
