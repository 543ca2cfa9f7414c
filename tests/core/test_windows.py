"""Windows to one answer: each rule against a loop over texts, and what must change nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax

from snapfit.core.lengths import WindowPooling
from snapfit.core.windows import combine_windows

POOLINGS: tuple[WindowPooling, ...] = ("mean", "max", "attention", "max_states")
COUNTS = np.array([3, 1, 1, 8, 2])
FIRST = np.concatenate([[0], np.cumsum(COUNTS)])
RULES: dict[WindowPooling, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda part: part.mean(axis=0),
    "max": lambda part: part.max(axis=0),
    "attention": lambda part: softmax(part[:, -1]) @ part[:, :-1],
    "max_states": lambda part: part.max(axis=0),
}


def columns(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(int(FIRST[-1]), 5)).astype(np.float32)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_text_is_what_the_rule_makes_of_its_windows(pooling: WindowPooling) -> None:
    values = columns()
    found = combine_windows(values, FIRST, pooling)
    parts = np.split(values.astype(np.float64), FIRST[1:-1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack([RULES[pooling](part) for part in parts]), rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_one_window_is_its_own_answer_bit_for_bit(pooling: WindowPooling) -> None:
    values = columns()
    alone = combine_windows(values, np.arange(len(values) + 1), pooling)
    np.testing.assert_array_equal(alone, values[:, :-1] if pooling == "attention" else values)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_else_is_in_the_batch_changes_nothing(pooling: WindowPooling) -> None:
    values = columns()
    together = combine_windows(values, FIRST, pooling)
    for text, (start, end) in enumerate(zip(FIRST[:-1], FIRST[1:], strict=True)):
        alone = combine_windows(values[start:end], np.array([0, end - start]), pooling)
        np.testing.assert_array_equal(alone[0], together[text])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_windows_does_not_matter(pooling: WindowPooling) -> None:
    values = columns()
    turned = np.concatenate([part[::-1] for part in np.split(values, FIRST[1:-1])])
    found, expected = (combine_windows(one, FIRST, pooling) for one in (turned, values))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_attention_is_a_mean_where_all_scores_are_equal_and_no_score_is_too_large() -> None:
    values = columns()
    values[:, -1] = 1e4
    means = combine_windows(values[:, :-1], FIRST, "mean")
    np.testing.assert_allclose(combine_windows(values, FIRST, "attention"), means, rtol=1e-6)
    values[0, -1] = 3e4
    np.testing.assert_array_equal(combine_windows(values, FIRST, "attention")[0], values[0, :-1])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_with_a_window_that_is_not_a_number_is_none_and_no_other(pooling: WindowPooling) -> None:
    values = columns()
    values[5] = np.nan
    found = combine_windows(values, FIRST, pooling)
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_texts(pooling: WindowPooling) -> None:
    k = 4 if pooling == "attention" else 5
    assert combine_windows(np.empty((0, 5), np.float32), np.array([0]), pooling).shape == (0, k)
