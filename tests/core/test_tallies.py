"""Tallies: rows in any batches and any order give the same metrics, and memory does not grow with the rows."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, matthews_corrcoef

from snapfit.core.calibration import calibration_error
from snapfit.core.correlation import RegressionTally
from snapfit.core.decisions import DecisionRule, Scope
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.metrics import compute_metrics, label_tally, tally
from snapfit.core.scores import logits_to_scores
from snapfit.core.tallies import MultiTally, RunningSum, SingleTally, Tally

TASKS = st.sampled_from(["single", "multi", "regression"])
COUNTED = ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "mcc", "subset_accuracy")


def rows_of(task: Task, n: int, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets that know something of each other."""
    k = 1 if task == "regression" else k
    logits = rng.normal(size=(n, k)).astype(np.float32)
    noisy = logits + rng.normal(size=(n, k))
    targets = {
        "single": noisy.argmax(axis=1),
        "multi": (noisy > 0.4).astype(np.float32),
        "regression": noisy.astype(np.float32),
    }[task]
    return logits_to_scores(logits, task), targets


def added(counted: Tally, scores: np.ndarray, targets: np.ndarray, cuts: list[int]) -> Tally:
    for part in np.split(np.arange(len(scores)), sorted(cuts)):
        counted.add(scores[part], targets[part])
    return counted


@settings(deadline=None)
@given(
    task=TASKS,
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    k=st.integers(2, 5),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_batches_and_their_order_change_nothing(task: Task, seed: int, n: int, k: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = rows_of(task, n, k, rng)
    whole = compute_metrics(task, scores, targets)
    order = rng.permutation(n)
    got = added(tally(task, scores.shape[1]), scores[order], targets[order], cuts).metrics()
    assert got == pytest.approx(whole, rel=1e-12, abs=1e-12)
    assert {name: got[name] for name in COUNTED if name in got} == {
        name: whole[name] for name in COUNTED if name in whole
    }


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_many_batches_lose_no_digits(task: Task) -> None:
    scores, targets = rows_of(task, 30_000, 4, np.random.default_rng(5))
    got = added(tally(task, scores.shape[1]), scores, targets, list(range(0, 30_000, 7))).metrics()
    assert got == pytest.approx(compute_metrics(task, scores, targets), rel=1e-13)


def test_a_running_sum_keeps_what_rounding_loses() -> None:
    total = RunningSum()
    for part in (1.0, 1e100, 1.0, -1e100, *[1e-17] * 1000):
        total.add(part)
    assert total.value == pytest.approx(2.0 + 1e-14, abs=1e-16)


def test_the_range_of_the_answers() -> None:
    single, multi, number = SingleTally(3), MultiTally(3), RegressionTally()
    assert single.answer_range() is multi.answer_range() is number.answer_range() is None
    for best in (1, 2, 1):
        single.add(np.eye(3)[[best]], np.array([0]))
    multi.add(np.eye(3), np.eye(3))
    number.add(np.array([[4.5], [-2.0], [3.0]]), np.zeros((3, 1)))
    assert (single.answer_range(), multi.answer_range(), number.answer_range()) == ((1.0, 2.0), None, (-2.0, 4.5))


# ---------------------------------------------------------------- rows without an answer


def test_refused_rows_and_rows_out_of_scope_by_hand() -> None:
    """Six rows in scope and four out of it, of two labels; a row is refused below 0.7."""
    best = np.array([0.9, 0.8, 0.6, 0.9, 0.9, 0.6, 0.9, 0.6, 0.6, 0.6])
    answers = np.array([0, 1, 0, 1, 1, 1, 0, 0, 1, 0])
    targets = np.array([0, 1, 0, 0, 1, 0, -1, -1, -1, -1])
    scores = np.where(np.arange(2) == answers[:, None], best[:, None], 1.0 - best[:, None])
    counted = SingleTally(2, rule=DecisionRule("single", least_score=0.7), out_of_scope=True)
    added(counted, scores, targets, [2, 5, 8])
    got = counted.metrics()
    assert got["accuracy"] == pytest.approx(3 / 6)  # rows 0, 1 and 4; row 3 is wrong, rows 2 and 5 have no answer
    assert (got["coverage"], got["answered_accuracy"]) == pytest.approx((4 / 6, 3 / 4))
    assert (got["refusal_recall"], got["refusal_precision"]) == pytest.approx((3 / 4, 3 / 5))
    assert got["overall_accuracy"] == pytest.approx(6 / 10)
    f1 = 2 * 1 / (2 + 4), 2 * 2 / (3 + 2)  # 0 is given to rows 0 and 6 and true of 4 rows; 1 to 1, 3 and 4, and of 2
    assert (got["macro_f1"], got["weighted_f1"]) == pytest.approx((sum(f1) / 2, (4 * f1[0] + 2 * f1[1]) / 6))
    inside = targets >= 0
    told = np.where(best < 0.7, 2, answers)
    assert got["mcc"] == pytest.approx(matthews_corrcoef(np.where(inside, targets, 2), told))
    assert got["nll"] == pytest.approx(log_loss(targets[inside], scores[inside], labels=[0, 1]))
    assert got["ece"] == pytest.approx(calibration_error(scores[inside], targets[inside], "single"))


def test_a_rule_that_refuses_nothing_changes_nothing() -> None:
    scores, targets = rows_of("single", 200, 4, np.random.default_rng(4))
    plain = added(SingleTally(4), scores, targets, []).metrics()
    rule = DecisionRule("single", scope=Scope("max_probability", 0.0))
    counted = SingleTally(4, rule=rule)
    counted.add_answers(rule.decide(scores, scores.max(axis=1)), targets)
    got = counted.metrics()
    assert (got.pop("coverage"), got.pop("answered_accuracy")) == (1.0, plain["accuracy"])
    assert got == plain
    outside = SingleTally(4, rule=rule, out_of_scope=True)
    outside.add_answers(rule.decide(scores[:5], np.full(5, -1.0)), np.full(5, -1))
    metrics = outside.metrics()
    assert (metrics["refusal_recall"], metrics["refusal_precision"], metrics["overall_accuracy"]) == (1.0, 1.0, 1.0)
    assert metrics["accuracy"] == metrics["nll"] == metrics["macro_f1"] == 0.0  # no row in scope: undefined


def test_rows_out_of_scope_must_be_announced() -> None:
    with pytest.raises(BadInput, match="class numbers from 0"):
        SingleTally(3).add(np.zeros((1, 3)), np.array([-1]))
    with pytest.raises(BadInput, match="many labels a row"):
        label_tally("multi", 3, out_of_scope=True)


# ---------------------------------------------------------------- what cannot be counted


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_numbers_that_are_not_finite(task: Task) -> None:
    scores, targets = rows_of(task, 9, 3, np.random.default_rng(2))
    counted = tally(task, scores.shape[1])
    for bad in (np.nan, np.inf):
        damaged = scores.copy()
        damaged[6, 0] = bad
        with pytest.raises(BadInput, match="scores that are not finite in row 6"):
            counted.add(damaged, targets)
        with pytest.raises(BadInput, match="not finite"):
            compute_metrics(task, damaged, targets)
    if task != "single":
        damaged = targets.copy()
        damaged[4, 0] = np.nan
        with pytest.raises(BadInput, match="targets that are not finite in row 4"):
            counted.add(scores, damaged)
    assert counted.rows == 0


def test_rows_that_do_not_fit() -> None:
    counted = tally("single", 3)
    for targets in ([0, 3], [-1, 0]):
        with pytest.raises(BadInput, match="class numbers from 0 to 2"):
            counted.add(np.zeros((2, 3)), np.array(targets))
    for scores, targets in ((np.zeros((2, 2)), np.zeros(2, int)), (np.zeros((2, 3)), np.zeros(3, int))):
        with pytest.raises(BadInput, match="shapes that fit"):
            counted.add(scores, targets)
    with pytest.raises(BadInput, match="shapes that fit"):
        tally("multi", 3).add(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(BadInput, match="one threshold a label"):
        tally("multi", 3, rule=DecisionRule("multi", thresholds=(0.5, 0.5))).add(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(BadInput, match="at least one"):
        tally("multi", 0)
    assert counted.rows == 0


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_no_rows_cannot_be_measured(task: Task) -> None:
    counted, k = tally(task, 1 if task == "regression" else 2), 1 if task == "regression" else 2
    counted.add(np.zeros((0, k)), np.zeros(0, np.int64) if task == "single" else np.zeros((0, k)))
    with pytest.raises(BadInput, match="at least one row"):
        counted.metrics()


# ---------------------------------------------------------------- memory


def peak_bytes(task: Task, batches: int) -> int:
    """The most that a tally of so many batches of 200 rows takes."""
    scores, targets = rows_of(task, 200, 20, np.random.default_rng(3))
    tracemalloc.start()
    try:
        counted = tally(task, scores.shape[1], rank_rows=1000)
        for _ in range(batches):
            counted.add(scores, targets)
        counted.metrics()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_memory_does_not_grow_with_the_rows(task: Task) -> None:
    peak_bytes(task, 10)  # what numpy sets up once
    few, many = peak_bytes(task, 25), peak_bytes(task, 500)
    assert many < few + 50_000  # 95,000 more rows; a byte a row would show
