"""Thresholds against exhaustive search over every cut point, with scikit-learn's own metrics."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from snapfit.core.calibration import fit_lines
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores
from snapfit.core.thresholds import (
    DRAWS,
    RARE,
    TUNABLE,
    best_cuts,
    chance_cuts,
    cut_for_precision,
    cut_keeping,
    tune,
)

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


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(TUNABLE[:3]), ties=st.booleans())
def test_no_cuts_are_better(seed: int, metric: str, ties: bool) -> None:
    logits, truth = rows(9, 2, seed, ties=ties)
    got = METRICS[metric](truth, logits >= best_cuts(logits, truth, metric))
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
    cuts = best_cuts(logits, truth, "subset_accuracy")
    got = METRICS["subset_accuracy"](truth, logits >= cuts)
    assert got > METRICS["subset_accuracy"](truth, logits >= tune(logits, truth, "subset_accuracy").common)
    for label in range(3):
        for cut in cuts_of(logits[:, [label]]):
            other = cuts.copy()
            other[label] = cut
            assert METRICS["subset_accuracy"](truth, logits >= other) <= got + 1e-12


@pytest.mark.parametrize("metric", TUNABLE[:3])
def test_chance_cuts_are_the_best_for_truth_that_is_drawn_from_the_scores(metric: str) -> None:
    """Against the best cuts on many rows whose labels are drawn as often as the calibrated scores say."""
    logits, truth = rows(400, 2, 1)
    lines = fit_lines(logits, truth, 1.0)
    chances = logits_to_scores(logits * lines.slopes + lines.shifts, "multi")
    rng = np.random.default_rng(0)
    times = 300
    drawn = (rng.random((times, *truth.shape)) < chances).reshape(-1, 2)
    repeated = np.tile(logits, (times, 1))
    got = METRICS[metric](drawn, repeated >= chance_cuts(logits, truth, metric))
    best = METRICS[metric](drawn, repeated >= best_cuts(repeated, drawn, metric))
    assert best - 1e-3 < got <= best


@pytest.mark.parametrize("metric", TUNABLE[:3])
@pytest.mark.parametrize("ties", [False, True])
def test_what_is_tuned_is_half_the_mean_of_samples_and_half_of_chances(metric: str, ties: bool) -> None:
    """And a rare label's mean is drawn towards the common cut, as far as positives are missing."""
    logits, truth = rows(300, 4, 7, ties=ties)
    truth[:, 2] = 0
    truth[np.argsort(-logits[:, 2])[[0, 1, 3, 8, 20]], 2] = 1
    truth[:, 3] = 0
    made = tune(logits, truth, metric, seed=3)
    assert made.positives[2:].tolist() == [5, 0]
    assert made.rare.tolist() == [False, False, True, True]
    rng = np.random.default_rng(3)
    samples = [rng.integers(0, 300, 300) for _ in range(DRAWS)]
    found = np.array([best_cuts(logits[drawn], truth[drawn], metric) for drawn in samples])
    there = np.array([truth[drawn].any(axis=0) for drawn in samples])
    own = (found * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    share = np.array([1.0, 1.0, 5 / RARE, 0.0])
    expected = (share * own + (1 - share) * made.common + chance_cuts(logits, truth, metric)) / 2
    assert made.values == pytest.approx(expected)
    assert tune(logits, truth, metric, seed=3).values.tolist() == made.values.tolist()


def test_subset_accuracy_draws_rare_labels_too() -> None:
    logits, truth = rows(100, 2, 0)
    truth[:, 1] = 0
    truth[logits[:, 1].argmax(), 1] = 1
    made, own = tune(logits, truth, "subset_accuracy"), best_cuts(logits, truth, "subset_accuracy")
    assert made.values == pytest.approx([own[0], own[1] / RARE + made.common * (1 - 1 / RARE)])


def test_it_is_better_on_new_rows_than_what_is_best_on_the_rows_at_hand() -> None:
    """Over many small sets, on average."""
    fresh_logits, fresh = rows(20_000, 3, 99)
    gains = []
    for seed in range(30):
        logits, truth = rows(80, 3, seed)
        cuts = (tune(logits, truth, "macro_f1").values, best_cuts(logits, truth, "macro_f1"))
        tuned, best = (METRICS["macro_f1"](fresh, fresh_logits >= cut) for cut in cuts)
        gains.append(tuned - best)
    assert np.mean(gains) > 2 * np.std(gains) / len(gains) ** 0.5


def test_cuts_lie_between_rows_and_none_is_needed() -> None:
    logits, truth = np.array([[3.0], [1.0], [0.0], [-2.0]]), np.array([[1], [1], [0], [0]])
    assert best_cuts(logits, truth, "macro_f1").tolist() == [0.5]
    assert tune(logits, truth, "macro_f1").common == 0.5
    assert best_cuts(logits, np.ones((4, 1)), "micro_f1")[0] < -2.0
    assert best_cuts(logits, np.zeros((4, 1)), "micro_f1")[0] > 3.0


@pytest.mark.parametrize("metric", TUNABLE)
def test_order_of_rows_and_of_labels_changes_nothing(metric: str) -> None:
    logits, truth = rows(200, 3, 5)
    made = best_cuts(logits, truth, metric)
    order = np.random.default_rng(1).permutation(200)
    assert best_cuts(logits[order], truth[order], metric) == pytest.approx(made)
    if metric != "subset_accuracy":  # whose turns are taken in the order of the labels
        assert best_cuts(logits[:, ::-1], truth[:, ::-1], metric)[::-1] == pytest.approx(made)


def test_what_cannot_be_tuned() -> None:
    logits, truth = rows(10, 2, 0)
    for function in (tune, best_cuts, chance_cuts):
        with pytest.raises(BadInput, match="thresholds for 'nll'"):
            function(logits, truth, "nll")
        for one, other in ((logits[:0], truth[:0]), (logits, truth[:5]), (logits[:, 0], truth[:, 0])):
            with pytest.raises(BadInput, match="of shape"):
                function(one, other, "macro_f1")


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
