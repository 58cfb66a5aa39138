"""The records of a sweep: its folder, its journal, and what is rebuilt from them."""

from tracking.errors import TrackingError
from tracking.record.events import (
    AttemptStarted,
    DriverStarted,
    DriverStopped,
    EpochDone,
    Event,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialPaused,
    TrialStarted,
    TrialState,
    TrialUnpaused,
    Verdict,
    now_ms,
)
from tracking.record.folder_lock import Holder, folder_holder, hold_folder
from tracking.record.history import SweepHistory, TrialHistory
from tracking.record.journal import Journal, read, read_from, trim_torn_tail
from tracking.record.layout import SweepFolder, TrialFolder

__all__ = [
    "AttemptStarted",
    "DriverStarted",
    "DriverStopped",
    "EpochDone",
    "Event",
    "Holder",
    "Journal",
    "SweepEnded",
    "SweepFolder",
    "SweepHistory",
    "SweepStarted",
    "TrackingError",
    "TrialEnded",
    "TrialFolder",
    "TrialHistory",
    "TrialPaused",
    "TrialStarted",
    "TrialState",
    "TrialUnpaused",
    "Verdict",
    "folder_holder",
    "hold_folder",
    "now_ms",
    "read",
    "read_from",
    "trim_torn_tail",
]
