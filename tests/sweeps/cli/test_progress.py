import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.cli.progress import Progress
from sweeps.driver.acts import Acts
from sweeps.driver.runner import InlineRunner
from sweeps.time_left import duration, epochs_left, seconds_left
from tests.sweeps.fake_trials import config, metrics, only_sampled, open_desk, report, scripted_body, spec
from tracking.record.events import AttemptStarted, EpochDone, Event, SweepStarted, TrialEnded, TrialPaused, TrialStarted
from tracking.record.history import SweepHistory
from tracking.record.inbox import Request


def history(*events: Event) -> SweepHistory:
    return SweepHistory.replay([SweepStarted(sweep_id="0" * 32, name="night", space="fake_space", spec={}), *events])


def started(number: int, epochs: int = 10, baseline: str | None = None) -> TrialStarted:
    content = config().model_dump(mode="json")
    return TrialStarted(trial=number, config_id="0", config=content, seed=1, epochs=epochs, baseline=baseline)


def epochs(number: int, last: int, seconds: float = 2.0) -> list[Event]:
    return [EpochDone(trial=number, epoch=epoch, metrics=metrics(0.5, seconds)) for epoch in range(1, last + 1)]


def waits(number: int, epoch: int) -> TrialPaused:
    return TrialPaused(trial=number, epoch=epoch, reason="rung")


def over(number: int, last: int, state: str = "done") -> TrialEnded:
    return TrialEnded.model_validate({"trial": number, "state": state, "epochs": last})


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (12, "12 s"), (59.6, "1 min 00 s"), (250, "4 min 10 s"), (3599.7, "1 h 00 min"), (3900, "1 h 05 min"), (90_000, "25 h 00 min")],
)  # fmt: skip
def test_durations_are_readable(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_epochs_left_before_anything_is_known() -> None:
    # Half of 10 epochs for each of 4 trials.
    assert epochs_left(history(), spec(trials=4, max_epochs=10)) == 20


def test_epochs_left_learns_from_the_sampled_trials_that_are_over() -> None:
    now = history(
        started(0, epochs=6, baseline="report"), *epochs(0, 6), over(0, 6),  # says nothing of sampled trials
        started(1), *epochs(1, 10), over(1, 10),
        started(2), *epochs(2, 2), over(2, 2, "pruned"),
        started(3), *epochs(3, 3), over(3, 3, "failed"),  # (10 + 2 + 3) / 3 = 5 epochs a trial
        started(4), *epochs(4, 1),  # 4 more
        started(5), *epochs(5, 7),  # only trial 1 came further, to 10: 3 more
        started(6), *epochs(6, 10),  # has all its epochs
    )  # fmt: skip
    # and 2 of 9 trials to come, 5 each
    assert epochs_left(now, spec(trials=9, max_epochs=10)) == pytest.approx(4 + 3 + 2 * 5)


def test_few_of_the_trials_that_wait_at_a_rung_are_expected_to_continue() -> None:
    now = history(
        *(event for number in range(4) for event in (started(number), *epochs(number, 2), waits(number, 2))),
        AttemptStarted(trial=0, attempt=1, reason="promoted"), *epochs(0, 6), waits(0, 6),
    )  # fmt: skip
    # As if one more were done: of 5 that reached epoch 2 two came 4 and 8 epochs further, of 2 that reached 6 one came 4.
    assert epochs_left(now, spec(trials=5, max_epochs=10)) == pytest.approx(3 * 12 / 5 + 4 / 2 + (3 * 2 + 6 + 10) / 5)


def test_a_baseline_runs_to_its_end() -> None:
    now = history(started(0, epochs=6, baseline="report"), *epochs(0, 2), started(1, epochs=10), *epochs(1, 10))
    # 4 of the baseline's; trial 1 has all its epochs and only winds up; 1 of 3 trials to come, half of 10
    assert epochs_left(now, spec(trials=3, max_epochs=10)) == 4 + 5


def test_baselines_to_come_train_all_their_epochs() -> None:
    now = history(started(0, 6, "first report"))
    asked = spec(trials=4, max_epochs=10, baseline_epochs=6, baselines={"first report": "", "second report": ""})
    assert epochs_left(now, asked) == 6 + 6 + 2 * 5  # two baselines, then two samples of half of 10


def test_nothing_is_left_of_a_finished_sweep() -> None:
    now = history(started(0), *epochs(0, 4), over(0, 4))
    assert epochs_left(now, spec(trials=1, max_epochs=10)) == 0


def test_seconds_left_by_hand() -> None:
    now = history(started(0), *epochs(0, 4, seconds=2), over(0, 4), started(1), *epochs(1, 1, seconds=7))
    # (4 * 2 + 7) / 5 = 3 s an epoch; 4 epochs a trial: 3 of trial 1, 8 of two to come; two at once
    assert seconds_left(now, spec(trials=4, max_epochs=10), 2) == pytest.approx(11 * 3 / 2)
    assert seconds_left(history(started(0)), spec(), 2) is None


def piped(terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=40, force_terminal=terminal, highlight=False), text


def test_plain_lines_where_there_is_no_terminal() -> None:
    console, text = piped()
    show = Progress(console, spec(trials=2, max_epochs=2))
    now = history()
    pruned = TrialEnded(
        trial=1, state="pruned", reason="said already", best={"best_val_accuracy": 0.25, "best_epoch": 1}, epochs=1
    )
    with show.showing():
        for event in (
            started(0, 2, "AlexNet 1"),
            *epochs(0, 2),
            TrialEnded(trial=0, state="done", best={"best_val_accuracy": 0.5, "best_epoch": 1.0}, epochs=2),
            started(1, 2),
            AttemptStarted(trial=1, attempt=1, reason="resumed"),
            *epochs(1, 1),
            waits(1, 1),
            pruned,
        ):
            now.apply(event)
            show(event, now)
    # Left after the first epoch: 1 of the baseline's, half of 2 for the other; 2 s each.
    assert text.getvalue().splitlines() == [
        "trial 0 AlexNet 1: started (at most 2 epochs)",
        "trial 0 AlexNet 1: epoch 1/2 train_loss 1.0000 val_accuracy 50.00% (1000 images/s); about 4 s left",
        "trial 0 AlexNet 1: epoch 2/2 train_loss 1.0000 val_accuracy 50.00% (1000 images/s); about 2 s left",
        "trial 0 AlexNet 1: done, best val_accuracy 50.00% at epoch 1",
        "trial 1 lenet: started (at most 2 epochs)",
        "trial 1 lenet: starts again (resumed)",
        "trial 1 lenet: epoch 1/2 train_loss 1.0000 val_accuracy 50.00% (1000 images/s); about 2 s left",
        "trial 1 lenet: waits at the rung after epoch 1, rank 2 of 2",
        "trial 1 lenet: pruned, best val_accuracy 25.00% at epoch 1",
    ]


def test_a_terminal_has_a_live_table() -> None:
    console, text = piped(terminal=True)
    show = Progress(console, spec(trials=2, max_epochs=2))
    now = history()
    with show.showing():
        for event in (started(0, 2, "AlexNet 1"), *epochs(0, 1)):
            now.apply(event)
            show(event, now)
    shown = text.getvalue()
    for part in ("AlexNet 1", "1/2", "50.00%", "best so far"):
        assert part in shown


def test_the_live_table_leaves_room_for_its_last_lines() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, height=26, force_terminal=True, highlight=False)
    show = Progress(console, spec(trials=100, max_epochs=2))
    now = history(*(started(number) for number in range(60)), *epochs(7, 1))
    with show.showing():
        show(epochs(7, 1)[0], now)
    assert "and 40 more" in text.getvalue()
    assert "best so far: 50.00% val_accuracy, trial 7 lenet" in text.getvalue()


def test_what_only_a_person_reads_takes_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def dear(*_: object) -> float:
        asked.append(began := time.thread_time())
        while time.thread_time() < began + 0.005:
            pass
        return 60.0

    monkeypatch.setattr("sweeps.cli.progress.seconds_left", dear)
    console, text = piped()
    now, told = history(started(0, 10)), epochs(0, 10)
    show, began = Progress(console, spec()), time.monotonic()
    for event in told:
        now.apply(event)
        show(event, now)
    assert len(asked) <= 1 + (time.monotonic() - began) / 0.5
    assert text.getvalue().count("about 1 min 00 s left") == 10


def test_the_time_left_follows_an_act_that_limits_the_trials_at_once(tmp_path: Path) -> None:
    console, text = piped()
    asked, space = spec(trials=2, max_epochs=4), only_sampled(first_rung_epochs=9)
    held = open_desk(tmp_path / "night", space, asked, listeners=(Progress(console, asked),))
    first, second = held.task(), held.task()
    held.director.take(0, report(first, 1, 0.5))
    limit = Request(verb="set", arguments={"max-concurrent": "1"})
    Acts(held.folder, space, 2).perform(held.director, limit)
    held.director.take(1, report(second, 1, 0.4))
    assert held.director.history.trials[1].paused, "the less promising one"
    held.director.take(0, report(first, 2, 0.5))
    left = [line.rpartition("; about ")[2] for line in text.getvalue().splitlines() if "about" in line]
    # 2 s an epoch: 3 + 4 epochs on two slots, 3 + 3 on two, 2 + 3 on one
    assert left == ["7 s left", "6 s left", "10 s left"]


def test_lines_of_a_whole_sweep_say_why_a_trial_was_given_up(tmp_path: Path) -> None:
    console, text = piped()
    asked = spec(trials=2, max_epochs=2)
    desk = open_desk(tmp_path / "night", only_sampled(), asked, listeners=(Progress(console, asked),))
    InlineRunner().run(desk.director, scripted_body({0: [0.6, 0.7], 1: [0.5, 0.5]}))
    lines = text.getvalue().splitlines()
    assert "trial 1: pruned: stopped at epoch 1: 0.5000 under the cut 0.6000, rank 2 of 2" in lines
    assert [line for line in lines if line.startswith("trial 0")][-1].endswith(
        "done, best val_accuracy 70.00% at epoch 2"
    )
