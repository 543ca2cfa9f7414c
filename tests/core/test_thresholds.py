"""Thresholds against exhaustive search over every cut point, with scikit-learn's own metrics."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from snapfit.core.errors import BadInput
from snapfit.core.thresholds import RARE, TUNABLE, Cuts, cut_for_precision, cut_keeping, tune

METRICS = {
    "macro_f1": lambda truth, given_: reference.f1_score(truth, given_, average="macro", zero_division=0),
    "micro_f1": lambda truth, given_: reference.f1_score(truth, given_, average="micro", zero_division=0),
    "weighted_f1": lambda truth, given_: reference.f1_score(truth, given_, average="weighted", zero_division=0),
    "subset_accuracy": lambda truth, given_: reference.accuracy_score(truth, given_),
}


def rows(n: int, k: int, seed: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2 - 1
    truth = (logits + rng.normal(size=(n, k)) * 1.5 > 0).astype(np.float32)
    return (np.round(logits) if ties else logits), truth


def cuts_of(column: np.ndarray) -> list[float]:
    """One of every kind: above all, between each two, below all."""
    values = np.unique(column)
    return [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]


def best_by_hand(logits: np.ndarray, truth: np.ndarray, metric: str) -> float:
    every = product(*(cuts_of(column) for column in logits.T))
    return max(METRICS[metric](truth, logits >= np.array(cuts)) for cuts in every)


def own_cuts(logits: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """Cuts without restraint: rows are repeated until no label is rare, which changes no metric."""
    times = -(-RARE // max(int(truth.sum(axis=0).min()), 1))
    return tune(np.repeat(logits, times, axis=0), np.repeat(truth, times, axis=0), metric, draws=0).values


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(TUNABLE[:3]), ties=st.booleans())
def test_no_cuts_are_better(seed: int, metric: str, ties: bool) -> None:
    logits, truth = rows(9, 2, seed, ties=ties)
    truth[0] = 1  # each label has a row: without any its cut is the common one
    got = METRICS[metric](truth, logits >= own_cuts(logits, truth, metric))
    assert got == pytest.approx(best_by_hand(logits, truth, metric), abs=1e-12)


@pytest.mark.parametrize("metric", TUNABLE)
@pytest.mark.parametrize("ties", [False, True])
def test_the_common_cut_is_the_best_common_one(metric: str, ties: bool) -> None:
    logits, truth = rows(60, 4, 3, ties=ties)
    common = tune(logits, truth, metric).common
    best = max(METRICS[metric](truth, logits >= cut) for cut in cuts_of(logits.reshape(-1, 1)))
    assert METRICS[metric](truth, logits >= common) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_subset_accuracy_is_not_worse_than_with_one_cut_and_ends_where_no_label_can_help(seed: int) -> None:
    logits, truth = rows(80, 3, seed)
    truth[:, 0] = logits[:, 0] > 1.5  # labels that want cuts of their own
    truth[:, 1] = logits[:, 1] > -1.5
    logits, truth = np.repeat(logits, 8, axis=0), np.repeat(truth, 8, axis=0)  # so that no label is rare
    made = tune(logits, truth, "subset_accuracy")
    got = METRICS["subset_accuracy"](truth, logits >= made.values)
    assert got > METRICS["subset_accuracy"](truth, logits >= made.common)
    for label in range(3):
        for cut in cuts_of(logits[:, [label]]):
            other = made.values.copy()
            other[label] = cut
            assert METRICS["subset_accuracy"](truth, logits >= other) <= got + 1e-12


def test_rare_labels_are_drawn_towards_the_common_cut() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 4))
    truth = np.zeros((400, 4))
    for label, positives in enumerate((100, 20, 5, 0)):
        truth[np.argsort(-logits[:, label] + rng.normal(size=400) * 0.3)[:positives], label] = 1
    made = tune(logits, truth, "macro_f1", draws=0)
    assert made.positives.tolist() == [100, 20, 5, 0]
    assert made.rare.tolist() == [False, False, True, True]
    alone = [
        tune(np.repeat(logits[:, [i]], 4, 0), np.repeat(truth[:, [i]], 4, 0), "macro_f1", draws=0).values[0]
        for i in range(3)
    ]
    assert made.values[:2] == pytest.approx(alone[:2])
    assert made.values[2] == pytest.approx(0.25 * alone[2] + 0.75 * made.common)
    assert made.values[3] == made.common


def test_cuts_lie_between_rows_and_none_is_needed() -> None:
    truth = np.repeat([[1], [1], [0], [0]], 15, axis=0)
    made = tune(np.repeat([[3.0], [1.0], [0.0], [-2.0]], 15, axis=0), truth, "macro_f1", draws=0)
    assert made == Cuts(made.values, 0.5, made.positives)
    assert made.values.tolist() == [0.5]
    all_true = tune(np.array([[2.0], [1.0]] * RARE), np.ones((2 * RARE, 1)), "micro_f1", draws=0)
    assert all_true.values[0] < 1.0


@pytest.mark.parametrize("metric", TUNABLE)
def test_order_of_rows_and_of_labels_changes_nothing(metric: str) -> None:
    logits, truth = rows(200, 3, 5)
    made = tune(logits, truth, metric, draws=0)
    order = np.random.default_rng(1).permutation(200)
    assert tune(logits[order], truth[order], metric, draws=0).values == pytest.approx(made.values)
    if metric != "subset_accuracy":  # whose turns are taken in the order of the labels
        assert tune(logits[:, ::-1], truth[:, ::-1], metric, draws=0).values[::-1] == pytest.approx(made.values)


@pytest.mark.parametrize("metric", TUNABLE[:3])
@pytest.mark.parametrize("ties", [False, True])
def test_with_draws_a_cut_is_the_mean_of_those_of_bootstrap_samples(metric: str, ties: bool) -> None:
    logits, truth = rows(300, 3, 7, ties=ties)
    made = tune(logits, truth, metric, draws=6, seed=3)
    rng = np.random.default_rng(3)
    samples = [rng.integers(0, 300, 300) for _ in range(6)]
    alone = [tune(logits[drawn], truth[drawn], metric, draws=0).values for drawn in samples]
    assert made.values == pytest.approx(np.mean(alone, axis=0))
    assert tune(logits, truth, metric, draws=6, seed=3).values.tolist() == made.values.tolist()


def test_draws_help_on_new_rows() -> None:
    """Many small sets: on average the mean of draws is better on other rows than the best of each set."""
    fresh_logits, fresh = rows(20_000, 3, 99)
    gains = []
    for seed in range(30):
        logits, truth = rows(80, 3, seed)
        cuts = [tune(logits, truth, "macro_f1", draws=draws).values for draws in (20, 0)]
        with_draws, without = (METRICS["macro_f1"](fresh, fresh_logits >= cut) for cut in cuts)
        gains.append(with_draws - without)
    assert np.mean(gains) > 2 * np.std(gains) / len(gains) ** 0.5


def test_what_cannot_be_tuned() -> None:
    logits, truth = rows(10, 2, 0)
    with pytest.raises(BadInput, match="thresholds for 'nll'"):
        tune(logits, truth, "nll")
    for one, other in ((logits[:0], truth[:0]), (logits, truth[:5]), (logits[:, 0], truth[:, 0])):
        with pytest.raises(BadInput, match="of shape"):
            tune(one, other, "macro_f1")


# ---------------------------------------------------------------- who is answered


@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=40), share=st.floats(0.01, 0.99)
)
def test_at_least_the_share_is_kept_and_no_more_than_ties_ask_for(values: list[float], share: float) -> None:
    array = np.array(values)
    cut = cut_keeping(array, share)
    kept = array >= cut
    assert kept.mean() >= share - 1e-9
    lowest = array[kept].min()
    assert (array > lowest).mean() < share + 1 / len(array)  # without the lowest kept ones it would be too few
    assert not (array == cut).any() or len(np.unique(array)) == 1


def test_a_precision_by_hand() -> None:
    scores = np.repeat([0.9, 0.8, 0.6, 0.5], 10)
    right = np.array([True] * 20 + [True] * 5 + [False] * 5 + [False] * 10)
    assert cut_for_precision(scores, right, 0.99) == pytest.approx(0.7)
    assert cut_for_precision(scores, right, 0.8) == pytest.approx(0.55)
    assert cut_for_precision(scores, right, 0.6) == 0.0
    assert cut_for_precision(scores, ~right, 0.9) is None
    assert cut_for_precision(scores[:10], right[:10], 0.5) is None  # too few rows to tell


@settings(deadline=None)
@given(seed=st.integers(0, 1000), precision=st.floats(0.3, 0.99))
def test_no_lower_score_reaches_the_precision(seed: int, precision: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(60), 1)
    right = rng.random(60) < scores
    cut = cut_for_precision(scores, right, precision)
    reached = [
        value
        for value in np.unique(scores)
        if (scores >= value).sum() >= 20 and right[scores >= value].mean() >= precision
    ]
    if not reached:
        assert cut is None
    else:
        assert cut is not None
        np.testing.assert_array_equal(scores >= cut, scores >= min(reached))
