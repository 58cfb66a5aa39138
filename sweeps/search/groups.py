"""Groups: trials of one configuration under several seeds or on several folds, which are one trial to the sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from tracking.record.events import Told, TrialStarted


@dataclass
class _Group:
    """A group; `members` has the trial of each member, `ended` what was learned from each trial that is over."""

    size: int
    members: dict[int, int] = field(default_factory=dict)
    ended: dict[int, tuple[Told, float | None]] = field(default_factory=dict)
    is_closed: bool = False
    is_told: bool = False

    @property
    def first(self) -> int:
        """The trial of its first member, by which the group competes."""
        return self.members[0]


class Groups:
    """A sweep's groups of trials. `close` is called once per finished group, with its first trial and what the sampler
    learns: the mean of its members.

    A group is finished when all started members are over and no further one will start: the group is complete, or its
    first member is over and another group has started. A retry replaces the failed trial of its member; with a retry
    of the first member, the group competes and is finished anew.
    """

    def __init__(self, close: Callable[[int, Told, float | None], None]) -> None:
        self._close = close
        self._by_trial: dict[int, _Group] = {}
        self._confirming: set[int] = set()
        self.further = 0
        """Members of groups, except the first of each."""

    def __contains__(self, number: int) -> bool:
        """Whether the trial is a member of a group."""
        return number in self._by_trial

    def enter(self, started: TrialStarted) -> None:
        """Register a trial's group."""
        place = started.group
        self.further += started.is_further_member
        if place is None:
            return
        if place.confirms is not None:
            self._confirming.add(started.trial)
            return
        group = self._by_trial.get(place.first)
        if group is None:
            self.close_begun()
            group = _Group(place.size)
        elif place.member == 0:
            self._begin_anew(group)
        group.members[place.member] = started.trial
        group.is_closed |= len(group.members) == group.size
        self._by_trial[started.trial] = group

    def _begin_anew(self, group: _Group) -> None:
        """Prepare a group for a retry of its first member, which is a new trial to the sampler."""
        if not group.is_told:
            self._close(group.first, *group.ended[group.first])
        group.is_closed = group.is_told = False

    def close_begun(self) -> None:
        """Let the started groups take no further members, since another group starts."""
        for group in list(self._by_trial.values()):
            group.is_closed |= group.first in group.ended
            self._settle(group)

    def competes(self, number: int) -> bool:
        """Whether a trial's values count at the rungs: of a group only the first member's, of a confirmation none."""
        group = self._by_trial.get(number)
        return number not in self._confirming and (
            group is None or (number == group.first and number not in group.ended)
        )

    def first_of(self, number: int) -> int:
        """The first trial of this trial's group, which counts at the rungs; the trial itself if it has no group."""
        group = self._by_trial.get(number)
        return group.first if group else number

    def end(self, number: int, told: Told, best: float | None) -> None:
        """Register the end of a member, once."""
        group = self._by_trial[number]
        if number in group.ended:
            return
        group.ended[number] = told, best
        if number != group.first:
            self._close(number, "nothing", None)
        self._settle(group)

    def lengthen(self, number: int) -> bool:
        """Forget the end of a member that gets more epochs, unless the sampler has learned from the group. Returns
        whether it was over, so that it ends again.
        """
        group = self._by_trial.get(number)
        return group is not None and not group.is_told and group.ended.pop(number, None) is not None

    def _settle(self, group: _Group) -> None:
        """Report a finished group to the sampler, once."""
        if not group.is_closed or group.is_told or not group.ended.keys() >= set(group.members.values()):
            return
        group.is_told = True
        told, best = group.ended[group.first]
        lessons = [group.ended[number] for number in group.members.values()]
        values = [value for lesson, value in lessons if lesson == "value" and value is not None]
        self._close(group.first, told, fmean(values) if told == "value" and values else best)
