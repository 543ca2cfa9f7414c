"""Scores against scipy's closed forms, and thresholds."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import TASKS
from snapfit.core.scores import above_thresholds, logits_to_scores

logit_arrays = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=st.floats(-1e4, 1e4, width=32)
)


@given(logits=logit_arrays, temperature=st.floats(0.1, 10.0))
def test_softmax_and_sigmoid_equal_scipys(logits: np.ndarray, temperature: float) -> None:
    scaled = logits.astype(np.float64) / temperature
    single = logits_to_scores(logits, "single", temperature)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, scipy.special.softmax(scaled, axis=1), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(single.sum(axis=1), 1.0)
    multi = logits_to_scores(logits, "multi", temperature)
    np.testing.assert_allclose(multi, scipy.special.expit(scaled), rtol=1e-9, atol=1e-300)


@given(logits=logit_arrays)
def test_regression_is_left_alone(logits: np.ndarray) -> None:
    scores = logits_to_scores(logits, "regression", 7.0)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, logits)


def test_the_largest_logits_give_numbers() -> None:
    top = np.finfo(np.float32).max
    logits = np.array([[top, -top, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(logits_to_scores(logits, "single"), [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(logits_to_scores(logits, "multi"), [[1.0, 0.0, 0.5]])


def test_logits_are_not_changed() -> None:
    logits = np.array([[1.0, 2.0]])
    for task in TASKS:
        logits_to_scores(logits, task, 2.0)
    np.testing.assert_array_equal(logits, [[1.0, 2.0]])


def test_logits_that_are_no_answer() -> None:
    with pytest.raises(WorkFailed, match="row 1"):
        logits_to_scores(np.array([[0.0, 1.0], [np.nan, 1.0]]), "single")
    with pytest.raises(WorkFailed, match="row 0"):
        logits_to_scores(np.array([[np.inf]]), "regression")
    with pytest.raises(BadInput, match="shape"):
        logits_to_scores(np.zeros(3), "single")
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="temperature"):
            logits_to_scores(np.zeros((1, 2)), "single", temperature)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="thresholds"):
        above_thresholds(np.zeros((2, 2)), np.zeros(3))
