"""Budgets hold over all trials and resumes, a sweep whose trials fail stops, and both stay resumable."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sweeps.after.report_input import sweep_page
from sweeps.errors import InputError
from sweeps.options import Options
from sweeps.planning.budgets import Budgets
from sweeps.spec import recorded_spec
from sweeps.sweep import SweepResult, run_plan
from sweeps.trial.messages import EpochReport, Message, Task, TrialEnd
from tests.stand_ins import QUIET
from tests.sweeps.fake_trials import good_body, metrics, only_sampled, refused, slow_body, spec
from tracking.record.events import (
    Act,
    AttemptStarted,
    DriverStarted,
    EpochDone,
    Event,
    Lengthened,
    SweepStarted,
    TrialEnded,
    TrialStarted,
)
from tracking.record.history import SweepHistory
from tracking.record.layout import SweepFolder

HOUR = 3_600_000
ACCURACY = {"val_accuracy": 0.5}


def history(*events: Event) -> SweepHistory:
    opening = SweepStarted(
        sweep_id="0" * 32, name="night", space="fake", spec=spec().model_dump(mode="json"), time_ms=0
    )
    return SweepHistory.replay([opening, *events])


def driver(hour: float, **more: object) -> DriverStarted:
    asked = spec(**more).model_dump(mode="json")  # type: ignore[arg-type]
    return DriverStarted(host="here", pid=1, versions={}, spec=asked, time_ms=int(hour * HOUR))


def started(trial: int, hour: float) -> TrialStarted:
    return TrialStarted(
        trial=trial, config_id="x", config={"net": {"name": "lenet"}}, seed=1, epochs=9, time_ms=int(hour * HOUR)
    )


def epoch(trial: int, number: int, hour: float) -> EpochDone:
    return EpochDone(trial=trial, epoch=number, metrics=ACCURACY, time_ms=int(hour * HOUR))


def test_a_trial_uses_its_cores_while_it_has_a_worker() -> None:
    """Two hours on two cores, killed; then one on four, and half an hour that still runs."""
    two = {"cpus_per_trial": 2.0}
    four = {"cpus_per_trial": 4.0, "max_cost": 100.0, "price_per_hour": 3.0, "cpu_hours": 12.0}
    so_far = history(
        driver(0, **two),
        started(0, 0),
        epoch(0, 1, 1),
        epoch(0, 2, 2),
        driver(10, **four),
        AttemptStarted(trial=0, attempt=1, reason="resumed", time_ms=10 * HOUR),
        epoch(0, 3, 11),
        TrialEnded(trial=0, state="done", epochs=3, time_ms=11 * HOUR),
        started(1, 11),
    )
    budgets = Budgets(spec(**four), clock=lambda: int(11.5 * HOUR))  # type: ignore[arg-type]
    used = budgets.used(so_far)
    assert used.cpu_hours == pytest.approx(2 * 2 + 4 * 1 + 4 * 0.5)
    assert used.hours == pytest.approx(2 + 1.5)
    assert budgets.exceeded(so_far) is None
    assert budgets.lines(so_far) == ["10.00 of 12 CPU hours", "10.50 of 100 spent"]
    later = Budgets(spec(**four), clock=lambda: 12 * HOUR)  # type: ignore[arg-type]
    assert later.exceeded(so_far) == "--cpu-hours 12 is used up: 12.00 CPU hours"


def test_the_cost_counts_from_the_first_trial_of_each_driver() -> None:
    """Each driver waits an hour for a slot; the first works one hour, the second two."""
    asked = {"max_cost": 100.0, "price_per_hour": 3.0}
    first = [driver(0, **asked), started(0, 1), epoch(0, 1, 2)]
    queued = driver(10, **asked)
    again = [AttemptStarted(trial=0, attempt=1, reason="resumed", time_ms=11 * HOUR), epoch(0, 2, 13)]
    budgets = Budgets(spec(**asked), clock=lambda: 13 * HOUR)  # type: ignore[arg-type]
    assert budgets.used(history(driver(0, **asked))).hours == 0
    assert budgets.used(history(*first, queued)).hours == pytest.approx(1)
    assert budgets.used(history(*first, queued, *again)).hours == pytest.approx(1 + 2)


def test_the_time_since_a_driver_was_killed_is_not_used() -> None:
    asked = {"cpu_hours": 12.0, "max_cost": 30.0, "price_per_hour": 3.0}
    so_far = history(driver(0, **asked), started(0, 0), epoch(0, 1, 1))
    budgets = Budgets(spec(**asked), clock=lambda: 60 * HOUR)  # type: ignore[arg-type]
    so_far.end_driver()
    budgets.refuse_if_used_up(so_far)
    assert budgets.lines(so_far) == ["1.00 of 12 CPU hours", "3.00 of 30 spent"]
    so_far.apply(driver(60, **asked))
    assert budgets.lines(so_far) == ["1.00 of 12 CPU hours", "3.00 of 30 spent"], "its trial has no worker yet"
    so_far.apply(AttemptStarted(trial=0, attempt=1, reason="resumed", time_ms=60 * HOUR))
    later = Budgets(spec(**asked), clock=lambda: 62 * HOUR)  # type: ignore[arg-type]
    assert later.lines(so_far) == ["3.00 of 12 CPU hours", "9.00 of 30 spent"]


def test_a_sweep_whose_driver_was_killed_days_ago_is_resumed_within_its_budget(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--cpu-hours", "50") == 0
    journal = out / "night/journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = lines[: next(place for place, line in enumerate(lines) if line["event"] == "epoch") + 1]
    killed = [line | {"time_ms": line["time_ms"] - 60 * HOUR} for line in kept]
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in killed))
    assert "of 50 CPU hours" in sweep_page(SweepFolder(out / "night"), SweepHistory.load(journal))
    assert "60.00 of 50 CPU hours" not in sweep_page(SweepFolder(out / "night"), SweepHistory.load(journal))
    capsys.readouterr()
    assert run("--resume") == 0
    assert "budget: 60" not in capsys.readouterr().out
    assert SweepHistory.load(journal).finished


def test_a_trial_that_is_given_more_epochs_uses_more() -> None:
    """Ten hours of training; then it continues from its eighth epoch, and trains the last two again."""
    asked = {"cpu_hours": 50.0}
    done = TrialEnded(trial=0, state="done", epochs=10, time_ms=10 * HOUR)
    so_far = history(driver(0, **asked), started(0, 0), *(epoch(0, number, number) for number in range(1, 11)), done)
    at_12 = Budgets(spec(**asked), clock=lambda: 12 * HOUR)  # type: ignore[arg-type]
    assert at_12.used(so_far).cpu_hours == pytest.approx(10)
    change = Lengthened(trial=0, epochs=20, epoch=8)
    so_far.apply(Act(act="a", verb="extend", who="ana", asked_ms=0, answer="", lengthened=(change,)))
    assert at_12.used(so_far).cpu_hours == pytest.approx(10)
    so_far.apply(AttemptStarted(trial=0, attempt=1, reason="extended", time_ms=12 * HOUR))
    assert at_12.used(so_far).cpu_hours == pytest.approx(10)
    at_14 = Budgets(spec(**asked), clock=lambda: 14 * HOUR)  # type: ignore[arg-type]
    assert at_14.used(so_far).cpu_hours == pytest.approx(10 + 2)
    for number in range(9, 21):
        so_far.apply(epoch(0, number, 12 + number - 8))
    so_far.apply(TrialEnded(trial=0, state="done", epochs=20, time_ms=24 * HOUR))
    assert at_14.used(so_far).cpu_hours == pytest.approx(10 + 12)


def test_amounts_are_readable_whether_small_or_large() -> None:
    so_far = history(driver(0, cpu_hours=0.01), started(0, 0))
    assert Budgets(spec(cpu_hours=0.01), clock=lambda: 12_564).lines(so_far) == ["0.00349 of 0.01 CPU hours"]
    large = Budgets(spec(cpu_hours=2000), clock=lambda: 2345 * HOUR)
    assert large.exceeded(so_far) == "--cpu-hours 2000 is used up: 2345.00 CPU hours"


def test_gpu_hours_count_the_share_of_a_trial() -> None:
    asked = {"device": "cuda", "gpus_per_trial": 0.25, "gpu_hours": 1.0}
    so_far = history(driver(0, **asked), started(0, 0), started(1, 0))
    budgets = Budgets(spec(**asked), clock=lambda: 2 * HOUR)  # type: ignore[arg-type]
    assert budgets.used(so_far).gpu_hours == pytest.approx(1.0)
    assert budgets.exceeded(so_far) == "--gpu-hours 1 is used up: 1.00 GPU hours"


def test_a_budget_that_is_used_up_stops_the_sweep_within_a_report(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.cli.main.run_plan", functools.partial(run_plan, body=slow_body, **QUIET))
    assert run("--cpu-hours", "1e-9") == 0
    printed = capsys.readouterr().out
    assert "budget: 0 of 1e-09 CPU hours" in printed
    assert "not finished (--cpu-hours 1e-09 is used up: " in printed
    assert "To continue, repeat its command with another limit, --name night and --resume" in printed
    assert "sweeps resume" not in printed, "which would be refused"
    stopped = SweepHistory.load(out / "night/journal.jsonl")
    assert sum(trial.last_epoch for trial in stopped.trials.values()) <= 1
    assert {(trial.state, trial.reason) for trial in stopped.trials.values()} == {("paused", "a budget is used up")}
    assert "night: --cpu-hours 1e-09 is used up" in refused(capsys, lambda: run("--resume"))
    assert run("--resume", "--cpu-hours", "5") == 0
    assert SweepHistory.load(out / "night/journal.jsonl").finished


def test_until_a_time(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    soon = (datetime.now() + timedelta(minutes=5)).isoformat()
    assert run("--until", soon) == 0
    assert "budget: until " in capsys.readouterr().out
    budgets = Budgets(spec(), until=datetime.now().astimezone() - timedelta(seconds=1))
    assert str(budgets.exceeded(history())).startswith("it is past ")


@pytest.mark.parametrize(("day", "shown"), [(30, "2030-01-31 08:00"), (31, "08:00")])
def test_until_a_time_of_another_day_is_shown_with_its_date(day: int, shown: str) -> None:
    now = datetime(2030, 1, day, 7, tzinfo=UTC)
    budgets = Budgets(spec(), until=datetime(2030, 1, 31, 8, tzinfo=UTC), clock=lambda: int(now.timestamp() * 1000))
    assert budgets.lines(None) == [f"until {shown}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--until", "25:00"], "'25:00': expected a time"),
        (["--until", "2001-01-01T10:00"], "'2001-01-01T10:00': is in the past; now it is "),
        (["--cpu-hours", "0"], "--cpu-hours 0: must be above 0"),
        (["--max-cost", "5"], "--max-cost 5: needs --price-per-hour"),
        (["--price-per-hour", "3"], "--price-per-hour 3: is for --max-cost; give both"),
        (["--gpu-hours", "2"], "--gpu-hours 2: trials on cpu use no GPU; give --cpu-hours"),
        (["--until-gain", "0"], "--until-gain 0: must be above 0"),
        (["--until-gain", "nan"], "--until-gain nan: must be a finite number"),
        (["--until-gain", "little"], "argument --until-gain: 'little': expected a number"),
        (
            ["--until-gain", "0.2"],
            "--until-gain 0.2: takes effect after 30 drawn trials, and the sweep has only 3; use --trials N",
        ),
        (
            ["--until-gain", "0.2", "--trials", "30", "--baselines", "none"],
            "takes effect after 30 drawn trials, and the sweep has only 30; use --trials N with N above 30, or omit it",
        ),
        (["--max-failed", "much"], "'much': expected a share, as 50% or 0.5"),
        (["--max-failed", "150%"], "'150%': expected a share, as 50% or 0.5"),
        (["--weight", "0"], "--weight 0: must be above 0"),
        (["--priority", "high"], "'high': expected a whole number"),
        (["--notify", "nowhere"], "--notify nowhere: expected http://"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refused(capsys, lambda: run(*words))
    assert not (out / "night").exists()


def failing_body(task: Task) -> Iterator[Message]:
    """Every odd trial fails, most of them for one reason."""
    if task.trial % 2 == 0 and task.trial:
        yield from good_body(task)
        return
    why = "ValueError: no such thing" if task.trial else "RuntimeError: once"
    yield TrialEnd(attempt=task.attempt, state="failed", reason=f"{why} (traceback in /x/{task.trial}/error.txt)")


def test_a_sweep_most_of_whose_trials_fail_stops_resumable(sweep: Callable[..., SweepResult]) -> None:
    first = sweep(trials=12, max_failed=0.5, body=failing_body)
    assert first.stop_reason == (
        "3 of 4 trials failed, more than --max-failed 50% allows; 2 of them: ValueError: no such thing"
    )
    assert len(first) == 4
    assert first.exit_code == 1
    second = sweep(trials=12, resume=True)
    assert len(second) == 12
    assert second.history.finished
    assert len(sweep(name="day", trials=12, max_failed=0.6, body=failing_body)) == 4
    assert len(sweep(name="patient", trials=12, max_failed=1.0, body=failing_body)) == 12


def test_trials_that_wait_at_a_rung_have_not_failed(sweep: Callable[..., SweepResult]) -> None:
    def body(task: Task) -> Iterator[Message]:
        if task.trial % 3 == 1:
            yield TrialEnd(attempt=task.attempt, state="failed", reason="its own")
        else:
            yield from good_body(task)

    result = sweep(trials=15, max_failed=0.5, body=body, space=only_sampled(), pruner="promoting", baselines="none")
    assert result.history.finished
    assert result.history.count("failed") == 5


def test_the_words_of_a_command_give_the_options_again() -> None:
    asked = Options.parse(
        {"cpu_hours": 2.5, "max_failed": 0.5, "priority": 3, "weight": 2.0, "until": "2999-01-01T10:00:00+00:00"}
    )
    from fer_common.flags import command_line

    assert command_line(asked) == [
        "--cpu-hours", "2.5", "--max-failed", "0.5", "--priority", "3", "--weight", "2.0", "--until", "2999-01-01T10:00:00+00:00",
    ]  # fmt: skip


def level_body(task: Task) -> Iterator[Message]:
    """Trials that end alike: more of them gain next to nothing. Trial 40 is a surprise."""
    value = 0.4 + (task.trial * 7 % 20) / 10_000 + 0.2 * (task.trial == 40)
    for epoch in (1, 2, 3):
        yield EpochReport(attempt=task.attempt, epoch=epoch, metrics=metrics(value - 0.01 * (3 - epoch)))
    yield TrialEnd(attempt=task.attempt, state="ended")


def test_a_sweep_ends_where_little_is_left_to_gain(sweep: Callable[..., SweepResult]) -> None:
    asked = {"space": only_sampled(), "pruner": "none", "epochs": 3, "body": level_body, "sampler": "random"}
    first = sweep(trials=50, until_gain=0.5, **asked)
    assert 30 <= len(first) <= 32
    assert first.stop_reason is not None
    assert first.stop_reason.startswith("15 more trials are expected to gain 0.0")
    assert first.stop_reason.endswith(" points, less than --until-gain 0.5")
    assert first.exit_code == 0
    with pytest.raises(InputError, match=r"night: 15 more trials .* repeat its command with another limit"):
        sweep(resume=True, **asked)
    second = sweep(resume=True, until_gain=0.001, **asked)
    assert second.history.finished
    assert len(second) == 50
    assert "0.5 points (0.0" in Budgets(recorded_spec(first.history)).lines(first.history)[0]


def test_a_small_gain_ends_no_sweep_whose_trials_have_all_started(sweep: Callable[..., SweepResult]) -> None:
    """More is expected of the 30 first trials than of the 31: only the last two are good, and alike."""

    def body(task: Task) -> Iterator[Message]:
        yield EpochReport(attempt=task.attempt, epoch=1, metrics=metrics(0.415 if task.trial in (29, 30) else 0.4))
        yield TrialEnd(attempt=task.attempt, state="ended")

    asked = {"space": only_sampled(), "pruner": "none", "epochs": 1, "body": body, "sampler": "random"}
    whole = sweep(trials=31, until_gain=0.5, confirm=1, name="whole", **asked)
    assert whole.history.finished
    assert len(whole) == 34, "the best is confirmed under three seeds"
    stopped = sweep(trials=50, until_gain=0.5, **asked)
    assert (len(stopped), stopped.history.finished) == (31, None)
    assert sweep(resume=True, trials=31, until_gain=0.5, **asked).history.finished


def test_what_is_left_to_gain_is_not_known_from_few_trials(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--trials", "32", "--epochs", "1", "--baselines", "none", "--until-gain", "0.2") == 0
    line = "budget: until 50 % more trials are expected to gain less than 0.2 points (known after 30 drawn trials, 5 of them done)"
    assert line in " ".join(capsys.readouterr().out.split())
