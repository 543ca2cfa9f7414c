"""Class weights against scikit-learn and the formula of Cui et al., their mean of 1, and their bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.training.class_weights import MOST_WEIGHT, class_weights, effective_numbers, natural_beta, told_weights

SINGLE = LabelSet("single", ("a", "b", "c"))
MULTI = LabelSet("multi", ("a", "b", "c"))
TARGETS = np.array([0] * 6 + [1] * 3 + [2])
COUNTS = np.bincount(TARGETS)


def mean_weight(weights: np.ndarray, counts: np.ndarray) -> float:
    return float((weights * counts).sum() / counts.sum())


# ---------------------------------------------------------------- one label a text


def test_balanced_is_scikit_learns() -> None:
    weights = class_weights("balanced", SINGLE, COUNTS, 10)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=TARGETS), rtol=1e-6)
    assert weights.dtype == np.float32
    assert weights[TARGETS].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99, 0.9999])
def test_effective_is_the_papers_formula(beta: float) -> None:
    weights = class_weights("effective", SINGLE, COUNTS, 10, beta=beta)
    numbers = np.array([sum(beta**i for i in range(n)) for n in COUNTS])  # 1 + beta + beta ** 2 + ...
    np.testing.assert_allclose(effective_numbers(COUNTS, beta), numbers, rtol=1e-9)
    np.testing.assert_allclose(weights * numbers, weights[0] * numbers[0], rtol=1e-5)
    assert mean_weight(weights, COUNTS) == pytest.approx(1.0, rel=1e-6)


def test_effective_is_between_none_and_balanced() -> None:
    none, balanced = np.ones(3), class_weights("balanced", SINGLE, COUNTS, 10)
    np.testing.assert_allclose(class_weights("effective", SINGLE, COUNTS, 10, beta=0.0), none)
    almost = class_weights("effective", SINGLE, COUNTS, 10, beta=1 - 1e-9)
    np.testing.assert_allclose(almost, balanced, rtol=1e-5)
    between = class_weights("effective", SINGLE, COUNTS, 10)
    assert 1.0 < between[2] / between[0] < balanced[2] / balanced[0]


def test_the_natural_beta_knows_as_many_texts_as_the_mean_class_has_rows() -> None:
    assert natural_beta(np.array([6, 3, 3])) == pytest.approx(1 - 1 / 4)
    assert natural_beta(np.array([1, 1])) == natural_beta(np.array([0, 1])) == 0.0
    found = class_weights("effective", SINGLE, COUNTS, 10)
    np.testing.assert_array_equal(found, class_weights("effective", SINGLE, COUNTS, 10, beta=1 - 3 / 10))
    many = effective_numbers(np.array([1, 10**9]), natural_beta(np.array([50, 150])))
    np.testing.assert_allclose(many, [1.0, 100.0])


def test_stated_weights_have_a_mean_of_one_over_the_rows() -> None:
    weights = class_weights({"b": 4.0}, SINGLE, COUNTS, 10)
    assert weights[TARGETS].mean() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(4.0)
    assert weights[2] == weights[0]


def test_a_class_without_training_rows() -> None:
    weights = class_weights("balanced", SINGLE, np.array([8, 2, 0]), 10)
    assert np.isfinite(weights).all()
    assert weights[2] == weights.max()


# ---------------------------------------------------------------- many labels a text


@pytest.mark.parametrize("setting", ["balanced", "effective", {"b": 4.0, "c": 0.5}])
def test_each_label_is_a_question_of_two_classes(setting: object) -> None:
    n, counts = 400, np.array([200, 40, 100])
    weights = class_weights(setting, MULTI, counts, n)
    assert weights.shape == (2, 3)
    assert weights.dtype == np.float32
    yes_or_no = LabelSet("single", ("no", "yes"))
    for label, count in enumerate(counts):
        rows = np.array([n - count, count])
        asked = {"yes": setting.get("abc"[label], 1.0)} if isinstance(setting, dict) else setting
        alone = class_weights(asked, yes_or_no, rows, n, beta=natural_beta(counts))
        np.testing.assert_allclose(weights[:, label], alone, rtol=1e-6)
        assert mean_weight(weights[:, label], rows) == pytest.approx(1.0, rel=1e-6)


def test_balanced_labels_weigh_as_much_where_they_hold_as_where_they_do_not() -> None:
    counts = np.array([200, 40, 100])
    weights = class_weights("balanced", MULTI, counts, 400)
    np.testing.assert_allclose(weights[1] * counts, weights[0] * (400 - counts), rtol=1e-6)


def test_a_label_that_always_or_never_holds() -> None:
    weights = class_weights("balanced", MULTI, np.array([10, 0, 5]), 10)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


# ---------------------------------------------------------------- the bound


@pytest.mark.parametrize("setting", ["balanced", "effective"])
def test_a_label_with_three_rows_does_not_explode(setting: str) -> None:
    counts = np.array([9_000, 5_000, 3])
    weights = class_weights(setting, MULTI, counts, 10_000, beta=0.9999)
    assert weights[1, 2] == pytest.approx(MOST_WEIGHT)
    assert weights.max() == weights[1, 2]
    single = class_weights(setting, SINGLE, counts, int(counts.sum()), beta=0.9999)
    assert single[2] == pytest.approx(MOST_WEIGHT)
    assert mean_weight(single, counts) == pytest.approx(1.0, rel=1e-6)
    assert single[1] > single[0]


def test_stated_weights_are_not_bounded() -> None:
    weights = class_weights({"c": 1000.0}, SINGLE, np.array([9_000, 900, 3]), 9_903)
    assert weights[2] / weights[0] == pytest.approx(1000.0, rel=1e-5)


@given(st.lists(st.integers(1, 10**7), min_size=2, max_size=30), st.sampled_from(["balanced", "effective"]))
def test_weights_of_any_counts(counts: list[int], setting: str) -> None:
    rows = np.array(counts)
    label_set = LabelSet("single", tuple(f"c{i}" for i in range(len(rows))))
    weights = class_weights(setting, label_set, rows, int(rows.sum()))
    assert mean_weight(weights.astype(np.float64), rows) == pytest.approx(1.0, rel=1e-5)
    assert 0 < weights.min() <= 1.0 + 1e-6
    assert weights.max() <= MOST_WEIGHT * (1 + 1e-6)
    order = np.argsort(rows, kind="stable")
    assert (np.diff(weights[order]) <= 1e-6).all()  # the more rows, the less each weighs


# ---------------------------------------------------------------- words and errors


def test_weights_that_fit_nothing() -> None:
    with pytest.raises(BadInput, match="'zebra'"):
        class_weights({"zebra": 2.0}, SINGLE, COUNTS, 10)
    with pytest.raises(BadInput, match="'foood'") as caught:
        class_weights({"foood": 2.0}, LabelSet("single", ("food", "tools")), COUNTS, 10)
    assert caught.value.fix == "did you mean 'food'?"
    with pytest.raises(BadInput, match="for a regression"):
        class_weights("balanced", LabelSet("regression", ("score",)), np.array([3]), 3)


def test_the_ends_are_told() -> None:
    single = told_weights(class_weights("balanced", SINGLE, COUNTS, 10), SINGLE, COUNTS)
    assert single == "rows weigh 0.556 ('a', 6 rows) to 3.33 ('c', 1 rows), the mean row 1"
    counts = np.array([200, 40, 100])
    multi = told_weights(class_weights("balanced", MULTI, counts, 400), MULTI, counts)
    assert multi == "labels that hold weigh 1 ('a', 200 rows) to 5 ('b', 40 rows), the mean row 1"
