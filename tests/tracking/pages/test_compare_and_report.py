import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.special import softmax

from tests.tracking.small_sweep import Sweep
from tracking.errors import TrackingError
from tracking.figures.sweep_figures import timeline_figure
from tracking.metrics.compare import ComparedRun, Comparison, compare
from tracking.metrics.scores import Interval
from tracking.pages.compare_page import comparison_page
from tracking.pages.report import DataFacts, SweepReport, report_page
from tracking.record.events import AttemptStarted, TrialPaused, TrialStarted
from tracking.record.history import SweepHistory
from tracking.record.predictions import Predictions, read_predictions
from tracking.record.spans import attempt_spans, trial_minutes

CLASSES = ("Angry", "Happy", "Sad")
N = 120
LABELS = np.arange(N) % 3
FACES = np.random.default_rng(0).integers(0, 255, (N, 8, 8), dtype=np.uint8)
LEAKED = np.arange(N) < 10


def answers(sureness: float, seed: int) -> Predictions:
    logits = sureness * np.eye(3)[LABELS] + np.random.default_rng(seed).normal(size=(N, 3))
    return Predictions(LABELS, softmax(logits, axis=1).astype(np.float32), 3)


def compared_run(name: str, sureness: float = 1.0, seed: int = 1) -> ComparedRun:
    return ComparedRun(
        name=name, settings={"recipe.lr": str(sureness), "net.name": "lenet"}, metrics={"best_val_accuracy": 0.5},
        dataset="FER2013", fingerprint="ab12", split="PublicTest (val)", classes=CLASSES, synthetic=False,
        answers=answers(sureness, seed), leaked=LEAKED,
    )  # fmt: skip


class Page(HTMLParser):
    """Checks that tags close in order, and gathers what a page would fetch and what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in ("meta", "img", "br", "link", "input", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_better_net_is_told_from_a_worse_one() -> None:
    found = compare([compared_run("worse", 0.3), compared_run("better", 4.0, 2), compared_run("twin", 0.3)])  # fmt: skip
    verdicts = {(pair.first, pair.second): pair.is_beyond_chance for pair in found.pairs}
    assert verdicts == {("worse", "better"): True, ("worse", "twin"): False, ("better", "twin"): True}
    first = found.pairs[0]
    right = [(one.probabilities.argmax(1) == LABELS).sum() for one in (answers(4.0, 2), answers(0.3, 1))]
    assert first.differences["accuracy"].value == pytest.approx((right[0] - right[1]) / N)
    assert first.only_second_right - first.only_first_right == right[0] - right[1]
    assert {one.verdict for one in first.classes} == {"won"}
    assert {one.verdict for one in found.pairs[1].classes} == {"even"}
    assert found.settings == {"recipe.lr": ("0.3", "4.0", "0.3")}
    assert (found.n, found.n_leaked) == (N, 10)
    assert Comparison.model_validate_json(found.to_json()) == found


def test_faces_they_disagree_on_are_those_predicted_otherwise() -> None:
    pair = compared_run("a", 1.0), compared_run("b", 1.0, 2)
    found = compare(pair)
    said = [np.asarray(one.answers.probabilities).argmax(1) for one in pair if one.answers]
    differ = set(np.flatnonzero(said[0] != said[1]).tolist())
    assert found.disagreed == len(differ)
    assert {one.face for one in found.disagreements} <= differ
    gaps = [abs(one.said[0].of_label - one.said[1].of_label) for one in found.disagreements]
    assert gaps == sorted(gaps, reverse=True)
    assert all(one.label == CLASSES[LABELS[one.face]] and one.leaked == (one.face < 10) for one in found.disagreements)


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "cd34"},
        {"split": "val"},
        {"answers": Predictions((LABELS + 1) % 3, answers(1, 1).probabilities, 3)},
    ],
)
def test_other_faces_are_refused_but_for_their_numbers(other: dict[str, object]) -> None:
    pair = [compared_run("a"), replace(compared_run("b"), **other)]  # type: ignore[arg-type]
    with pytest.raises(TrackingError, match="only be compared on the same faces"):
        compare(pair)
    found = compare(pair, numbers_only=True)
    assert (found.n, found.pairs) == (None, ())
    assert found.metrics == {"best_val_accuracy": (0.5, 0.5)}
    Page(comparison_page(found))


def test_two_of_one_name_or_one_alone_are_refused() -> None:
    with pytest.raises(TrackingError, match="equal names"):
        compare([compared_run("a"), compared_run("a")])
    with pytest.raises(TrackingError, match="at least two"):
        compare([compared_run("a")])


def test_the_comparison_s_page_stands_alone_and_escapes() -> None:
    name = "<script>alert(1)</script>"
    synthetic = [replace(compared_run(one, 1.0, seed), synthetic=True) for seed, one in enumerate(("b", name))]
    found = compare(synthetic)
    page = comparison_page(found, FACES)
    assert name not in page
    parsed = Page(page)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert page.count('class="face"') == len(found.disagreements) > 0
    assert "SYNTHETIC FACES" in parsed.text
    assert f"n = {N}" in parsed.text
    assert not re.search(r"url\(http|@import", page)


@pytest.fixture
def swept(sweep: Sweep) -> Sweep:
    sweep.whole()
    for number in range(3):
        folder = sweep.folder.trial(number).create()
        kept = answers(0.5 + number, number)
        np.savez(folder.val_probabilities, labels=kept.labels, probabilities=kept.probabilities, epoch=3)
    return sweep


def report(sweep: Sweep) -> SweepReport:
    history = SweepHistory.load(sweep.folder.journal)
    data = DataFacts(
        dataset="FER2013", fingerprint="ab12", split="PublicTest (val)", n=N, sizes={"train": 500, "PublicTest (val)": N},
        classes=CLASSES, synthetic=False, notes=("10 faces stand in Training too",), leaked=LEAKED,
    )  # fmt: skip
    return SweepReport(
        history, sweep.folder, data, question="Which <lr>?", asked={"trials": "3"},
        published={"LENET_1": "53.1 % validation"}, commands={"again": "python -m sweeps.run lenet_space"},
        importances={"lr": Interval(0.75, 0.6, 0.9), "dropout": Interval(0.25, 0.1, 0.4)}, parameters={0: 60_000, 1: 60_000, 2: 60_000},
    )  # fmt: skip


def test_the_report_says_data_split_and_n_wherever_numbers_stand(swept: Sweep) -> None:
    page = report_page(report(swept), FACES)
    parsed = Page(page)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert parsed.text.count("FER2013, PublicTest (val), n = 120") >= 8
    assert "n = 110" in parsed.text, "leak-free"
    assert "SYNTHETIC" not in parsed.text
    assert "Which <lr>?" in parsed.text
    for words in ("53.1 % validation", "LENET_1 (trial 0)", "python -m sweeps.run", "10 faces stand", "Importances"):
        assert words in parsed.text
    assert len(page) < 5e6


def test_a_report_of_a_sweep_that_has_just_begun(sweep: Sweep) -> None:
    sweep.start()
    sweep.trial(0)
    parsed = Page(report_page(report(sweep)))
    assert "not finished: 1 running so far" in parsed.text


def test_a_report_where_nobody_knows_how_many_faces_there_were(sweep: Sweep) -> None:
    sweep.whole()
    asked = report(sweep)
    parsed = Page(report_page(replace(asked, data=replace(asked.data, n=0))))
    assert "58.57\u00a0%" in parsed.text, "the best of trial 2: 0.3 + 2/7"


def test_answers_of_another_epoch_are_not_taken(swept: Sweep) -> None:
    folder = swept.folder.trial(1)
    assert read_predictions(folder, 3) is not None
    assert read_predictions(folder, 2) is None
    folder.val_probabilities.write_bytes(folder.val_probabilities.read_bytes()[:200])
    assert read_predictions(folder, 3) is None


def test_a_trial_that_waits_and_is_pruned_holds_no_worker(sweep: Sweep) -> None:
    sweep.start()
    begin = sweep.tick()
    sweep.write(TrialStarted(time_ms=begin, trial=0, config_id="c", config={}, seed=0, epochs=3))
    sweep.epoch(0, 1)
    sweep.write(TrialPaused(time_ms=sweep.tick(), trial=0, epoch=1, reason="rung"))
    sweep.time_ms += 3_600_000
    sweep.end(0, "pruned")
    (trial,) = SweepHistory.load(sweep.folder.journal).trials.values()
    assert trial.state == "pruned"
    assert attempt_spans(trial) == [(begin, begin + 1)]


def test_time_between_two_attempts_is_nobody_s(sweep: Sweep) -> None:
    sweep.start()
    begin = sweep.tick()
    sweep.write(TrialStarted(time_ms=begin, trial=0, config_id="c", config={}, seed=0, epochs=3))
    sweep.epoch(0, 1)
    sweep.time_ms += 60_000
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="resumed"))
    sweep.time_ms += 30_000
    sweep.end(0)
    history = SweepHistory.load(sweep.folder.journal)
    assert attempt_spans(history.trials[0]) == [(begin, begin + 1), (begin + 60_002, begin + 90_003)]
    assert trial_minutes(history.trials[0]) == pytest.approx(30_002 / 60_000)
    (axes,) = timeline_figure(history, "t").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["done, 1"]  # type: ignore[union-attr]


def test_a_stopped_trial_that_is_given_up_the_next_morning_did_not_train_at_night(sweep: Sweep) -> None:
    sweep.start()
    begin = sweep.tick()
    sweep.write(TrialStarted(time_ms=begin, trial=0, config_id="c", config={}, seed=0, epochs=3))
    sweep.time_ms += 3_600_000
    sweep.epoch(0, 1)
    sweep.end(0, "stopped", final=False)
    sweep.stop()
    stopped = trial_minutes(SweepHistory.load(sweep.folder.journal).trials[0])
    sweep.time_ms += 15 * 3_600_000
    sweep.end(0, "stopped", reason="stopped by ana")
    trial = SweepHistory.load(sweep.folder.journal).trials[0]
    assert trial_minutes(trial) == stopped == pytest.approx(60, abs=0.01)
    assert attempt_spans(trial) == [(begin, begin + 3_600_002)]


def test_a_trial_whose_driver_was_killed_and_that_ends_without_another_worker_did_not_train_since(sweep: Sweep) -> None:
    sweep.start()
    begin = sweep.tick()
    sweep.write(TrialStarted(time_ms=begin, trial=0, config_id="c", config={}, seed=0, epochs=3))
    sweep.epoch(0, 1)
    sweep.time_ms += 60 * 3_600_000
    sweep.write(sweep.driver(resumed=True))
    sweep.end(0, "stopped", reason="SIGINT", final=False)
    assert attempt_spans(SweepHistory.load(sweep.folder.journal).trials[0]) == [(begin, begin + 1)]
    sweep.write(AttemptStarted(time_ms=sweep.tick(), trial=0, attempt=1, reason="resumed"))
    again = sweep.time_ms
    sweep.end(0, "stopped", reason="SIGINT", final=False)
    assert attempt_spans(SweepHistory.load(sweep.folder.journal).trials[0])[1:] == [(again, again + 1)]
