import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import bootstrap
from sklearn import metrics as sk

from tracking.errors import TrackingError
from tracking.metrics.significance import BoolArray, holm, mcnemar_mid_p, paired_bootstrap, selected_p

RNG = np.random.default_rng(9)
LABELS = RNG.integers(0, 3, 300)
A = softmax(1.5 * np.eye(3)[LABELS] + RNG.normal(size=(300, 3)), axis=1)
B = softmax(0.9 * np.eye(3)[LABELS] + RNG.normal(size=(300, 3)), axis=1)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91, table 1: 1 and 7. Others by hand: of 4 tosses, none:
    # 2/16 - 1/16; 2 and 2: 1 - 6/16/2.
    [(1, 7, 0.0391), (7, 1, 0.0391), (0, 4, 0.0625), (2, 2, 0.8125), (0, 0, 1.0)],
)
def test_mcnemar_mid_p(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_mid_p(only_a, only_b) == pytest.approx(p, abs=5e-5)


def test_holm() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1, never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def nets(rng: np.random.Generator, count: int, faces: int, gain: float | list[float] = 0.0) -> BoolArray:
    """What nets have right, [count, faces]: 64 % each, two of them disagree on 27 %; a gain of .155 is two points."""
    of_face, of_both = rng.normal(0, 2.0, faces), rng.normal(0, 1.6, (count, faces))
    return 0.9 + np.broadcast_to(gain, (count,))[:, None] - of_face + of_both > 0


def wins(right: BoolArray) -> tuple[bool, bool]:
    """Whether the best of the others beats the first net: by the test for a selected one, and by McNemar's alone."""
    present, candidates = right[0], right[1:]
    best = candidates[candidates.sum(1).argmax()]
    counts = int((best & ~present).sum()), int((present & ~best).sum())
    better = counts[0] > counts[1]
    p = selected_p(best, present, candidates, np.random.default_rng(0)) if better else 1.0
    return p < 0.05, better and mcnemar_mid_p(*counts) < 0.05


@pytest.mark.parametrize("count", [1, 5, 12, 50])
def test_among_equal_nets_the_best_of_many_is_no_better(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.5 % of the comparisons is what chance may win, however many nets the best is chosen from."""
    monkeypatch.setattr("tracking.metrics.significance._DRAWS", 2000)
    rng = np.random.default_rng(5)
    allowed, alone = np.mean([wins(nets(rng, 1 + count, 1000)) for _ in range(150)], axis=0)
    assert allowed <= 0.045
    assert count < 12 or alone > 0.08


@pytest.mark.parametrize(("gain", "power"), [([0.0, 0.155, *[0.0] * 11], 0.3), ([0.0, *[0.155] * 12], 0.7)])
def test_a_net_that_is_two_points_better_can_win(
    gain: list[float], power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of FER2013's PublicTest, the best of 12 of which one is better, or all."""
    monkeypatch.setattr("tracking.metrics.significance._DRAWS", 2000)
    rng = np.random.default_rng(6)
    assert np.mean([wins(nets(rng, 13, 3589, gain))[0] for _ in range(50)]) >= power


def test_p_of_a_selected_net_at_its_bounds() -> None:
    rng = np.random.default_rng(7)
    right = nets(rng, 4, 500, [0.0, 0.3, 0.0, 0.0])
    present, chosen = right[0], right[1]
    alone = mcnemar_mid_p(int((chosen & ~present).sum()), int((present & ~chosen).sum()))
    assert selected_p(chosen, present, chosen[None], rng) == pytest.approx(alone)
    assert selected_p(chosen, present, np.stack([chosen] * 9 + [present]), rng) == pytest.approx(alone, abs=5e-3)
    among_4, among_many = (selected_p(chosen, present, nets_, rng) for nets_ in (right, np.tile(right, (400, 1))))
    assert alone < among_4 < among_many
    assert selected_p(present, chosen, right[:1], rng) > 0.5
    assert selected_p(present, present, present[None], rng) == 1.0


def test_bootstrap_differences_are_the_metrics_own() -> None:
    found = paired_bootstrap(LABELS, A, B, np.random.default_rng(1))
    a, b = A.argmax(1), B.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(LABELS, a) - sk.accuracy_score(LABELS, b),
        "macro_f1": sk.f1_score(LABELS, a, average="macro") - sk.f1_score(LABELS, b, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(LABELS, a) - sk.balanced_accuracy_score(LABELS, b),
        "log_loss": sk.log_loss(LABELS, A) - sk.log_loss(LABELS, B),
    }
    assert {name: found.metrics[name].value for name in expected} == pytest.approx(expected)
    f1 = sk.f1_score(LABELS, a, average=None) - sk.f1_score(LABELS, b, average=None)
    assert [one.value for one in found.class_f1] == pytest.approx(list(f1))


def test_bootstrap_intervals_are_scipy_s() -> None:
    found = paired_bootstrap(LABELS, A, B, np.random.default_rng(1), resamples=6000)
    right_a, right_b = A.argmax(1) == LABELS, B.argmax(1) == LABELS
    theirs = bootstrap(
        (right_a.astype(float) - right_b,), np.mean, n_resamples=6000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    ours = found.metrics["accuracy"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)

    def macro_f1(index: np.ndarray) -> float:
        return sk.f1_score(LABELS[index], A.argmax(1)[index], average="macro") - sk.f1_score(
            LABELS[index], B.argmax(1)[index], average="macro"
        )

    rng = np.random.default_rng(3)
    slow = np.quantile([macro_f1(rng.integers(0, 300, 300)) for _ in range(300)], [0.025, 0.975])
    ours = found.metrics["macro_f1"]
    assert (ours.low, ours.high) == pytest.approx(tuple(slow), abs=0.025)


def test_the_bootstrap_holds_a_part_of_its_resamples_at_a_time() -> None:
    count = 4000 // len(LABELS)
    labels, a, b = np.tile(LABELS, count), np.tile(A, (count, 1)), np.tile(B, (count, 1))
    tracemalloc.start()
    paired_bootstrap(labels, a, b, np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20, "all 2,000 resamples of 4,000 images are 64 MB"


def test_the_same_generator_draws_the_same() -> None:
    first, second = (paired_bootstrap(LABELS, A, B, np.random.default_rng(4), resamples=50) for _ in range(2))
    assert first == second


def test_one_and_the_same_net_differs_by_nothing() -> None:
    found = paired_bootstrap(LABELS, A, A, np.random.default_rng(4), resamples=50)
    bounds = [bound for one in found.metrics.values() for bound in (one.low, one.value, one.high)]
    assert bounds == pytest.approx([0.0] * 18, abs=1e-15)


def test_other_faces_are_refused() -> None:
    with pytest.raises(TrackingError, match="labels"):
        paired_bootstrap(LABELS, A, B[:-1], np.random.default_rng(0))
    with pytest.raises(TrackingError, match="expected counts >= 0"):
        mcnemar_mid_p(-1, 2)
