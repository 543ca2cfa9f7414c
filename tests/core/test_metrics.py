"""Metrics against scikit-learn and scipy."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from snapfit.core import metrics
from snapfit.core.calibration import calibration_error
from snapfit.core.errors import BadInput
from snapfit.core.metrics import METRICS, compute_metrics, is_better, standard_error
from snapfit.core.scores import logits_to_scores

seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(seed=seeds, n=st.integers(1, 40), k=st.integers(2, 6), n_used=st.integers(1, 6))
def test_single_equals_scikit_learn(seed: int, n: int, k: int, n_used: int) -> None:
    rng = np.random.default_rng(seed)
    scores = logits_to_scores(rng.normal(size=(n, k)) * 3, "single")
    targets = rng.integers(0, min(k, n_used), n)
    predicted = scores.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(targets, predicted),
            "macro_f1": sk.f1_score(targets, predicted, average="macro"),
            "weighted_f1": sk.f1_score(targets, predicted, average="weighted"),
            "mcc": sk.matthews_corrcoef(targets, predicted),
            "nll": sk.log_loss(targets, scores, labels=range(k)),
            "ece": calibration_error(scores, targets, "single"),
        }
    got = compute_metrics("single", scores, targets)
    assert got == pytest.approx(expected, abs=1e-9)
    assert all(type(value) is float for value in got.values())


@settings(deadline=None)
@given(seed=seeds, n=st.integers(1, 40), k=st.integers(1, 6), density=st.floats(0, 1), own=st.booleans())
def test_multi_equals_scikit_learn(seed: int, n: int, k: int, density: float, own: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = logits_to_scores(rng.normal(size=(n, k)) * 3, "multi")
    targets = (rng.random((n, k)) < density).astype(np.float32)
    thresholds = rng.random(k) if own else None
    chosen = (scores >= (0.5 if thresholds is None else thresholds)).astype(int)
    truth, both = targets.astype(int), dict.fromkeys(("macro", "micro", "weighted"), 0.0)
    for average in both:
        # scikit-learn reads a single column of 0 and 1 as two classes, so it is asked for class 1 there.
        if k > 1:
            both[average] = sk.f1_score(truth, chosen, average=average, zero_division=0)
        else:
            both[average] = sk.f1_score(truth[:, 0], chosen[:, 0], zero_division=0)
    expected = {
        "macro_f1": both["macro"],
        "micro_f1": both["micro"],
        "weighted_f1": both["weighted"],
        "subset_accuracy": sk.accuracy_score(truth, chosen) if k > 1 else (truth == chosen).mean(),
        "nll": sk.log_loss(truth.ravel(), scores.ravel(), labels=[0, 1]),
        "ece": calibration_error(scores, truth, "multi"),
    }
    assert compute_metrics("multi", scores, targets, thresholds=thresholds) == pytest.approx(expected, abs=1e-9)


def test_multi_in_blocks_equals_multi_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.random((101, 4)), (rng.random((101, 4)) < 0.3).astype(np.float32)
    whole = compute_metrics("multi", scores, targets)
    monkeypatch.setattr(metrics, "_BLOCK_CELLS", 40)
    assert compute_metrics("multi", scores, targets) == pytest.approx(whole)


@settings(deadline=None)
@given(seed=seeds, n=st.integers(2, 40), ties=st.booleans(), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_regression_equals_scipy(seed: int, n: int, ties: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    predicted = truth + rng.normal(size=n) if seed % 2 else rng.integers(0, 4, n).astype(float)
    truth, predicted = truth * scale, predicted * scale
    constant = truth.min() == truth.max() or predicted.min() == predicted.max()
    expected = {
        "pearson": 0.0 if constant else scipy.stats.pearsonr(predicted, truth).statistic,
        "spearman": 0.0 if constant else scipy.stats.spearmanr(predicted, truth).statistic,
        "rmse": sk.root_mean_squared_error(truth, predicted),
        "mae": sk.mean_absolute_error(truth, predicted),
        "r2": sk.r2_score(truth, predicted),
    }
    got = compute_metrics("regression", predicted[:, None], truth[:, None])
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_regression_where_correlation_is_undefined() -> None:
    ones = np.full((5, 1), 0.1)
    got = compute_metrics("regression", ones, ones)
    assert got == {"pearson": 0.0, "spearman": 0.0, "rmse": 0.0, "mae": 0.0, "r2": 1.0}
    one_row = compute_metrics("regression", np.ones((1, 1)), np.ones((1, 1)))
    assert one_row["r2"] == one_row["pearson"] == 0.0


def test_scores_of_zero_keep_the_nll_finite() -> None:
    got = compute_metrics("single", np.array([[1.0, 0.0]]), np.array([1]))
    assert got["nll"] == pytest.approx(-math.log(np.finfo(float).eps))
    assert got["mcc"] == 0.0


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="at least one row"):
        compute_metrics("single", np.zeros((0, 2)), np.zeros(0, np.int64))
    with pytest.raises(BadInput, match="shapes that fit"):
        compute_metrics("single", np.zeros((3, 2)), np.zeros(2, np.int64))
    with pytest.raises(BadInput, match="shapes that fit"):
        compute_metrics("multi", np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(BadInput, match="shapes that fit"):
        compute_metrics("regression", np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(BadInput, match="targets from 0 to 2"):
        compute_metrics("single", np.zeros((2, 2)), np.array([0, 2]))


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_each_task_has_its_metrics(task: str) -> None:
    rng = np.random.default_rng(1)
    k = 1 if task == "regression" else 3
    targets = {
        "single": np.array([0, 1, 2]),
        "multi": np.eye(3, dtype=np.float32),
        "regression": np.array([[1.0], [2.0], [3.0]], dtype=np.float32),
    }[task]
    got = compute_metrics(task, rng.random((3, k)), targets)  # type: ignore[arg-type]
    assert tuple(got) == metrics.metrics_of(task)  # type: ignore[arg-type]
    assert metrics.default_metric(task) in got  # type: ignore[arg-type]
    assert all(task in METRICS[name].tasks for name in got)


def test_which_is_better() -> None:
    assert is_better("accuracy", 0.9, 0.8)
    assert not is_better("accuracy", 0.8, 0.8)
    assert is_better("nll", 0.1, 0.2)
    assert not is_better("rmse", 0.3, 0.2)
    assert is_better("accuracy", 0.1, None)
    assert is_better("accuracy", 0.1, float("nan"))
    assert not is_better("accuracy", float("nan"), None)
    with pytest.raises(BadInput, match="use 'accuracy'"):
        is_better("acuracy", 1.0, 0.0)


@pytest.mark.parametrize("rows", [1, 50, 3_080])
def test_the_standard_error_is_that_of_a_share_of_rows(rows: int) -> None:
    for share in (0.0, 0.25, 0.9, 1.0):
        expected = scipy.stats.binom(rows, share).std() / rows
        assert standard_error("accuracy", share, rows) == pytest.approx(expected)
    assert standard_error("rmse", 0.5, rows) is None
    assert standard_error("nll", 0.5, rows) is None
    assert standard_error("pearson", -0.1, rows) is None
