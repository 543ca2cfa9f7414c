"""Log-odds against their definition, where it can be computed, and against high precision where it cannot."""

import math
from fractions import Fraction

import numpy as np
import pytest

from snapfit.core.log_odds import Explained, log_odds
from snapfit.core.scores import logits_to_scores


@pytest.mark.parametrize("k", [2, 3, 17])
@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_they_are_those_of_the_scores(k: int, temperature: float) -> None:
    logits = np.random.default_rng(k).normal(size=(50, k)).astype(np.float32)
    for task in ("single", "multi"):
        scores = logits_to_scores(logits, task, temperature)
        np.testing.assert_allclose(log_odds(logits, task, temperature), np.log(scores) - np.log1p(-scores), atol=1e-9)


def test_scores_that_round_to_one_keep_their_odds() -> None:
    found = log_odds(np.array([[60.0, 0.0, 0.0]]), "single")
    assert found[0, 0] == pytest.approx(60.0 - math.log(2.0), abs=1e-12)
    assert found[0, 1] == pytest.approx(-60.0, abs=1e-12)  # p = e^-60 / (1 + 2 e^-60)
    assert np.isfinite(log_odds(np.array([[3e38, -3e38]], dtype=np.float32), "single")).all()


def test_the_best_label_is_exact_to_the_last_digits() -> None:
    """1 - p of 1 / (1 + e^-20) has seven digits in float64; its odds have sixteen."""
    powers = [Fraction(1), Fraction(math.exp(-20.0)), Fraction(math.exp(-21.0))]
    exact = math.log(powers[0] / (powers[1] + powers[2]))
    assert log_odds(np.array([[0.0, -20.0, -21.0]]), "single")[0, 0] == pytest.approx(exact, rel=1e-15)


def test_equal_logits_have_equal_odds() -> None:
    np.testing.assert_allclose(log_odds(np.zeros((1, 4)), "single"), np.full((1, 4), -math.log(3.0)))


def test_a_regression_is_its_number_whatever_the_temperature() -> None:
    logits = np.array([[2.5], [-1.0]], dtype=np.float32)
    assert np.array_equal(log_odds(logits, "regression", 3.0), logits)


def test_explained_takes_the_columns_in_the_order_given() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3))
    explained = Explained("multi", (2, 0), 2.0)
    assert np.array_equal(explained.of(logits), logits[:, [2, 0]] / 2.0)
    assert (explained.unit, Explained("regression", (0,)).unit) == ("log-odds", "number")
