"""Acts: changes to a sweep that persons request. Each is checked, done by the director, and recorded with its answer.

The driver of a sweep reads acts from its inbox. If the sweep has no driver, the command does the act itself.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_common.errors import did_you_mean
from sweeps.config import TrialConfig, parse_settings, with_settings
from sweeps.driver.director import Director
from sweeps.driver.lengthening import keep_lasting_states, lengthen
from sweeps.driver.trial_queue import known_trial
from sweeps.errors import InputError
from sweeps.search.drawn_as import drawn_as
from sweeps.search.samplers import refuse_beyond_grid
from sweeps.space import Space
from tracking.metrics.winner import winner_of
from tracking.record.best_epoch import KeepBest
from tracking.record.events import OBJECTIVE, Act, Lengthened, Wanted
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.inbox import Request, waiting_requests
from tracking.record.layout import SweepFolder, TrialFolder
from tracking.record.training_states import keep_state, lost_best, state_epoch

NOTHING_TO_STOP = "the sweep does not run, so there is nothing to stop"

_LOOK_SECONDS = 0.25
_KEPT_BY_A_FORK = ("net", "transfer", "preprocess")
_RATE = {"recipe.lr", "recipe.lr_policy"}
_SETTABLE = ("max-concurrent", "priority", "weight")

SetRank = Callable[[int, float], None]
"""Sets the sweep's priority and weight in the sharing of slots."""

Did = tuple[str, Mapping[str, Any]]
"""The answer, and further fields of the act's line in the journal."""


class Acts:
    """Does acts on one sweep. `most_slots` is how many trials its runner can run at once; None without a runner."""

    def __init__(
        self,
        folder: SweepFolder,
        space: Space,
        most_slots: int | None,
        set_rank: SetRank | None = None,
        check: Callable[[TrialConfig], None] = lambda _: None,
    ) -> None:
        """`check` raises UserError for a configuration that cannot be trained in this sweep."""
        self._folder, self._space, self._most_slots, self._set_rank = folder, space, most_slots, set_rank
        self._check = check
        self._look_at = 0.0

    def __call__(self, director: Director) -> None:
        """Read the inbox. A file is deleted once its act is in the journal."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        known = {act.act for act in director.history.acts}
        for path, request in waiting_requests(self._folder):
            if request is None:
                request = Request(act=path.stem.rpartition("-")[2], verb="unknown", who="unknown")
            if request.act not in known:
                self.perform(director, request)
            path.unlink(missing_ok=True)

    def perform(self, director: Director, request: Request) -> Act:
        """Do an act, or refuse it, and record it."""
        refused = False
        more: Mapping[str, Any] = {}
        try:
            asks_to_stop = request.verb == "stop" and not request.arguments
            if director.stop_reason is not None and not asks_to_stop:
                raise InputError(f"the sweep is stopping: {director.stop_reason}")
            answer, more = self._do(director, request)
        except Exception as error:  # whatever is wrong with a request, the sweep continues
            answer, refused = str(error), True
        act = Act(
            act=request.act,
            verb=request.verb,
            arguments=request.arguments,
            who=request.who,
            asked_ms=request.asked_ms,
            answer=answer,
            refused=refused,
            **more,
        )
        director.record_act(act)
        return act

    def _do(self, director: Director, request: Request) -> Did:
        verbs: dict[str, Callable[..., Did]] = {
            "stop": self._stop,
            "pause": self._pause,
            "unpause": self._unpause,
            "extend": self._extend,
            "set": self._set,
            "try": self._try,
            "fork": self._fork,
            "retry": self._retry,
        }
        if request.verb not in verbs:
            raise InputError(f"'{request.verb}' is not an act of this version")
        return verbs[request.verb](director, request, **request.arguments)

    def _stop(self, director: Director, request: Request, trial: int | None = None) -> Did:
        if trial is not None:
            return director.give_up(trial, f"stopped by {request.who}"), {}
        if self._most_slots is None:
            stopped = director.history.stopped
            if stopped and stopped.time_ms >= request.asked_ms:  # from afar, a signal may overtake the request
                return f"has stopped meanwhile, {stopped.reason}; it can be resumed", {}
            raise InputError(NOTHING_TO_STOP)
        director.request_stop(f"stopped by {request.who}")
        return f"stops {'when the running epochs end' if director.out else 'now'}; it can be resumed", {}

    def _pause(self, director: Director, request: Request, trial: int | None = None) -> Did:
        if trial is not None:
            if trial in director.out and director.history.trials[trial].is_in_last_epoch:
                raise InputError(f"trial {trial} is in its last epoch, and ends at its next report")
            director.pause(trial, "person", request.who)
            state = director.history.trials[trial].state
            return f"trial {trial} is paused" if state == "paused" else f"trial {trial} pauses at its next report", {}
        if self._most_slots is None:
            raise InputError("the sweep does not run, so there is nothing to pause")
        if director.held:
            raise InputError("the sweep is paused already")
        director.limit(0, "person", request.who)
        return "every trial pauses at its next report; unpause continues them", {}

    def _unpause(self, director: Director, request: Request, trial: int | None = None) -> Did:
        if trial is not None:
            director.unpause(trial, request.who)
            if director.is_at_rung(trial):
                return f"trial {trial} waits at its rung again; a second unpause promotes it", {}
            until = f"with the whole sweep: unpause {director.spec.name}" if director.held else "when a slot is free"
            return f"trial {trial} continues {until}", {}
        by_persons = [one.number for one in director.history.paused if one.paused and one.paused.reason == "person"]
        if not director.held and not by_persons:
            raise InputError("nothing is paused")
        director.limit(None, "person")
        for number in reversed(by_persons):
            director.unpause(number, request.who)
        return "the paused trials continue when slots are free", {}

    def _extend(
        self,
        director: Director,
        request: Request,
        trials: str | None = None,
        epochs: str | None = None,
        time_budget_seconds: float | None = None,
    ) -> Did:
        spec, answers = director.spec, []
        lengthened: tuple[Lengthened, ...] = ()
        if trials is not None:
            total = _more("trials", trials, spec.trials)
            refuse_beyond_grid(self._space, total, sum(len(act.wanted) for act in director.history.acts))
            answers.append(f"{total} trials instead of {spec.trials}")
            spec = spec.with_trials(total, self._space)
        if epochs is not None:
            total = _more("epochs", epochs, spec.max_epochs)
            begin = bool(spec.to_start(director.history) or director.history.wanted)
            lengthened, what = lengthen(self._folder, director.history, total, more_to_start=begin)
            answers.append(f"{total} epochs instead of {spec.max_epochs}: {what}")
            own = tuple(one.epochs_in(total) for one in self._space.baselines[: spec.trials])
            spec = spec.model_copy(update={"max_epochs": total, "baseline_epochs": own})
        if time_budget_seconds is not None:
            answers.append(director.add_time(time_budget_seconds))
        keep_lasting_states(self._folder, director.history, lengthened)
        more = {} if spec is director.spec else {"spec": spec.model_dump(mode="json"), "lengthened": lengthened}
        return "; ".join(answers), more

    def _set(self, director: Director, request: Request, **values: str) -> Did:
        if director.history.finished:
            raise InputError("the sweep is finished; extend it first")
        unknown = [name for name in values if name not in _SETTABLE]
        if unknown:
            raise InputError(f"'{unknown[0]}' cannot be set{did_you_mean(unknown[0], _SETTABLE)}")
        asked = {name.replace("-", "_"): _number(name, text) for name, text in values.items()}
        count = asked.get("max_concurrent")
        if count is not None and self._most_slots is not None and count > self._most_slots:
            raise InputError(f"max-concurrent={count}: at most {self._most_slots} trials fit at once")
        if count is not None:
            director.limit(int(count), "max-concurrent")
        spec = director.spec.model_copy(update=asked)
        if self._set_rank and asked.keys() & {"priority", "weight"}:
            self._set_rank(spec.priority, spec.weight)
        answer = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in asked.items())
        return answer, {"spec": spec.model_dump(mode="json")}

    def _try(self, director: Director, request: Request, settings: list[str]) -> Did:
        source = self._best(director.history)
        want = self._want(director, request, source, settings)
        learns = "" if want.params else "; the space cannot draw it, so the sampler does not learn from it"
        answer = f"starts next: the settings of trial {source.number} with {', '.join(settings)}{learns}"
        return answer, self._wanting(director, want)

    def _fork(
        self, director: Director, request: Request, trial: int, settings: list[str], epoch: int | None = None
    ) -> Did:
        source = known_trial(director.history, trial)
        want = self._want(director, request, source, settings)
        _check_fork(source, want.config)
        epoch = self._keep_state(source, request.act, want.config["keep_best"], epoch)
        want = want.model_copy(update={"epoch": epoch})
        if _RATE & parse_settings(settings).keys():
            want = want.model_copy(update={"plateau_from": epoch})
        return f"starts next: from trial {trial}'s state after epoch {epoch}", self._wanting(director, want)

    def _retry(self, director: Director, request: Request) -> Did:
        if not director.history.count("failed"):
            raise InputError("no trial has failed")
        states = {one.number: self._usable_states(one) for one in director.history.to_retry}
        again = [one for one in director.history.to_retry if states[one.number] or not one.started.began_from_state]
        if not again:
            raise InputError("the failed trials diverged and would do so again, are being trained again, or began from "
                             "another trial's state, which is lost")  # fmt: skip
        wants, answers = [self._want(director, request, one, []) for one in again], []
        for place, one in enumerate(again):
            epoch, name = max(states[one.number], default=None), f"{request.act}-{one.number}"
            if epoch is not None:
                self._keep_state(one, name, _keep_best(one), epoch)
            wants[place] = wants[place].model_copy(update={"epoch": epoch})
            answers.append(f"trial {one.number}" + (f" from its state after epoch {epoch}" if epoch else ""))
        return f"trains again: {', '.join(answers)}", self._wanting(director, *wants)

    def _want(self, director: Director, request: Request, source: TrialHistory, settings: list[str]) -> Wanted:
        started = source.started
        try:
            changes = parse_settings(settings)
            before = TrialConfig.parse(started.config, f"trial {source.number}")
            config = with_settings(before, changes)
        except InputError as error:
            raise InputError(str(error).removeprefix("--set: ")) from None
        if changes:
            self._check(config)
        named = {name.rpartition(".")[2]: value for name, value in changes.items()}
        changed = {}
        for name in started.params:
            # A space may put more before the name, as `lenet.lr`.
            setting = name if name in named else name.rpartition(".")[2]
            if setting in named and (setting == name or setting not in started.params):
                changed[name] = named[setting]
        drawn = drawn_as(self._space, config, started.params | changed)
        continues = started.wanted if request.verb != "try" else None
        return Wanted(
            act=request.act,
            verb=request.verb,
            source=source.number,
            config=config.model_dump(mode="json"),
            epochs=director.spec.max_epochs if request.verb == "try" else started.epochs,
            plateau_from=continues and continues.plateau_from,
            params=drawn.params if drawn else {},
            distributions=drawn.distributions if drawn else {},
        )

    def _best(self, history: SweepHistory) -> TrialHistory:
        """The trial whose settings `try` changes: the winner by `--prefer`, or the best so far."""
        ranked = history.ranked()
        if not ranked:
            raise InputError("no trial has a result yet; try again after the first epoch")
        winner = winner_of(self._folder, history) if history.spec.get("prefer") else None
        return history.trials[winner.trial] if winner else ranked[0]

    def _wanting(self, director: Director, *wants: Wanted) -> Mapping[str, Any]:
        sources = (director.history.trials[want.source].started for want in wants if want.verb == "retry")
        trials = director.spec.trials + len(wants) - sum(one.is_further_member for one in sources)
        spec = director.spec.with_trials(trials, self._space)
        return {"wanted": wants, "spec": spec.model_dump(mode="json")}

    def _states(self, trial: TrialHistory) -> dict[int, Path]:
        """The files of a trial's states, by the epoch of each."""
        files = self._folder.trial(trial.number)
        return {state_epoch(path): path for path in (files.previous, files.last) if path.is_file()}

    def _usable_states(self, trial: TrialHistory) -> list[int]:
        """The epochs of the states from which a trial without a worker can continue."""
        files = self._folder.trial(trial.number)
        return [epoch for epoch, path in self._states(trial).items() if not lost_best(files, path, _keep_best(trial))]

    def _keep_state(self, source: TrialHistory, name: str, keep_best: KeepBest, epoch: int | None = None) -> int:
        """Keep the state that a trial continues from, with the predictions of its best epoch. Returns its epoch."""
        files, kept = self._folder.trial(source.number), TrialFolder(self._folder.forks / name)
        states = self._states(source)
        if not states:
            why = (
                "has finished no epoch yet; fork it after its first"
                if source.state == "running"
                else f"is {source.state} and has no state to continue from; fork one that runs or is paused, or use try"
            )
            raise InputError(f"trial {source.number} {why}")
        chosen = max(states) if epoch is None else epoch
        if chosen not in states:
            raise InputError(f"--epoch {epoch}: trial {source.number} has only its state after epoch "
                             f"{' and '.join(map(str, sorted(states)))}")  # fmt: skip
        keep_state(files, states[chosen], kept)
        if not kept.last.is_file() or state_epoch(kept.last) != chosen:  # its worker has just written another one
            return self._keep_state(source, name, keep_best, epoch)
        if best := lost_best(kept, kept.last, keep_best):
            shutil.rmtree(kept.root)
            others = [other for other, path in states.items() if not lost_best(files, path, keep_best)]
            raise InputError(f"trial {source.number} cannot be continued after epoch {chosen}: of its best epoch until "
                             f"then by {keep_best}, {best}, weights and predictions are not kept; "
                             + (f"use --epoch {others[0]}" if others else "use try"))  # fmt: skip
        return chosen


def _keep_best(trial: TrialHistory) -> KeepBest:
    keep_best: KeepBest = trial.started.config.get("keep_best", OBJECTIVE)
    return keep_best


def _more(name: str, text: str, now: int) -> int:
    """The new total for N or +N. Raises InputError if it is not more than `now`."""
    total = now + int(text) if text.startswith("+") else int(text)
    if total <= now:
        raise InputError(f"--{name} {text}: the sweep has {now} {name}; give more, or +N")
    return total


def _number(name: str, text: str) -> float:
    try:
        value = float(text) if name == "weight" else int(text)
        is_finite = math.isfinite(value)
    except (ValueError, OverflowError):
        value, is_finite = math.nan, False
    if not is_finite or (name == "weight" and value <= 0) or (name == "max-concurrent" and value < 1):
        rule = {"weight": "a number above 0", "priority": "a whole number"}.get(name, "a whole number of at least 1")
        raise InputError(f"{name}={text}: must be {rule}")
    return value


def _check_fork(source: TrialHistory, config: Mapping[str, Any]) -> None:
    before = source.started.config
    if place := source.started.group:
        raise InputError(f"trial {source.number} is a member of a group of {place.size} trials, and a fork would "
                         "continue only this one; 'try' trains other settings in all members")  # fmt: skip
    changed = [part for part in _KEPT_BY_A_FORK if before[part] != config[part]]
    recipe, new = before["recipe"], config["recipe"]
    changed += ["optimizer"] if recipe["optimizer"] != new["optimizer"] else []
    changed += ["ema_decay"] if (recipe["ema_decay"] is None) != (new["ema_decay"] is None) else []
    if changed:
        raise InputError(f"a fork continues from trial {source.number}'s state, so it keeps its {', '.join(changed)}; "
                         "use 'try' for a new trial")  # fmt: skip
