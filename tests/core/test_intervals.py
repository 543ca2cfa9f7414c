"""Intervals against scipy, published examples, and the share of the time that they hold the truth."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.core.intervals import (
    QuotientSums,
    check_confidence,
    correlation_difference,
    correlation_interval,
    f1_interval,
    normal_quantile,
    quotient,
    quotient_interval,
    quotient_variance,
    wilson,
)

levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@given(whole=st.integers(1, 5_000), share=st.floats(0, 1), level=levels)
def test_a_share_has_wilsons_interval(whole: int, share: float, level: float) -> None:
    part = round(share * whole)
    expected = scipy.stats.binomtest(part, whole).proportion_ci(level, method="wilson")
    got = wilson(part, whole, level)
    assert got is not None
    assert got == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0.0 <= got.low <= part / whole <= got.high <= 1.0


def test_nothing_is_known_of_no_rows() -> None:
    assert wilson(0, 0, 0.95) is None
    assert f1_interval(0, 0, 0, 0.95) is None
    assert f1_interval(0, 0, 3, 0.95) is not None


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_wilsons_interval_holds_the_share_as_often_as_it_says(share: float) -> None:
    n = 80
    hits = np.arange(n + 1)
    held = [wilson(k, n, 0.95) for k in hits.tolist()]
    inside = np.array([one is not None and one.low <= share <= one.high for one in held])
    assert 0.92 < scipy.stats.binom(n, share).pmf(hits) @ inside < 0.99


@given(hits=st.integers(0, 60), missed=st.integers(0, 60), wrong=st.integers(0, 60), level=levels)
def test_an_f1_is_inside_its_interval(hits: int, missed: int, wrong: int, level: float) -> None:
    if hits + missed + wrong == 0:
        return
    got = f1_interval(hits, hits + wrong, hits + missed, level)
    assert got is not None
    assert 0.0 <= got.low <= 2 * hits / (2 * hits + missed + wrong) + 1e-12
    assert 2 * hits / (2 * hits + missed + wrong) - 1e-12 <= got.high <= 1.0


@pytest.mark.parametrize(("n", "hit", "missed", "wrong"), [(60, 0.3, 0.05, 0.1), (400, 0.05, 0.02, 0.01)])
def test_the_interval_of_an_f1_holds_it_as_often_as_it_says(n: int, hit: float, missed: float, wrong: float) -> None:
    truth = 2 * hit / (2 * hit + missed + wrong)
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(n, [hit, missed, wrong, 1 - hit - missed - wrong], size=4_000)
    held = [f1_interval(h, h + w, h + m, 0.95) for h, m, w, _ in drawn.tolist()]
    assert 0.93 < np.mean([one is not None and one.low <= truth <= one.high for one in held]) < 0.97


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 60), level=levels)
def test_pearsons_interval_is_scipys(seed: int, n: int, level: float) -> None:
    x = np.random.default_rng(seed).normal(size=(2, n))
    found = scipy.stats.pearsonr(x[0], x[0] + x[1])
    expected = found.confidence_interval(level)
    got = correlation_interval(found.statistic, n, level)
    assert got == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_spearmans_interval_is_bonett_and_wrights() -> None:
    got = correlation_interval(0.6, 43, 0.95, of_ranks=True)
    reach = 1.959963985 * math.sqrt((1 + 0.18) / 40)
    assert got == pytest.approx((math.tanh(math.atanh(0.6) - reach), math.tanh(math.atanh(0.6) + reach)))
    assert correlation_interval(0.6, 3, 0.95) is None
    assert correlation_interval(1.0, 9, 0.95) == (1.0, 1.0)


def test_the_difference_of_correlations_is_that_of_zous_example() -> None:
    """Zou 2007, overlapping correlations: r12 = .396, r13 = .179, r23 = .088, n = 66 give -.093 to .517."""
    got = correlation_difference(0.396, 0.179, 0.088, 66, 0.95)
    assert got == pytest.approx((-0.093, 0.517), abs=5e-4)
    other = correlation_difference(0.179, 0.396, 0.088, 66, 0.95)
    assert got is not None
    assert other == pytest.approx((-got.high, -got.low))
    assert correlation_difference(0.5, 0.4, 0.1, 3, 0.95) is None
    same = correlation_difference(0.9, 0.9, 1.0, 500, 0.95)
    assert same == pytest.approx((0.0, 0.0), abs=0.005)  # what is left is by how much a single interval is lopsided
    assert correlation_difference(1.0, 1.0, 1.0, 50, 0.95) == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("of_ranks", [False, True])
def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(of_ranks: bool) -> None:
    """Two predictions with the same noise around the truth, and some of it in common: no difference."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(600):
        truth, common, first, second = rng.normal(size=(4, 80))
        three = np.stack([truth, truth + common + first, truth + common + second])
        if of_ranks:
            three = np.argsort(np.argsort(three, axis=1), axis=1)
        r = np.corrcoef(three)
        got = correlation_difference(r[0, 1], r[0, 2], r[1, 2], 80, 0.95, of_ranks=of_ranks)
        held.append(got is not None and got.low <= 0.0 <= got.high)
    assert 0.92 < np.mean(held) < 0.98


# ---------------------------------------------------------------- quotients of sums


def sums_of(x: np.ndarray, y: np.ndarray) -> QuotientSums:
    return QuotientSums(len(x), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum())


def test_a_quotient_over_ones_is_a_mean() -> None:
    x = np.random.default_rng(0).exponential(size=50)
    sums = sums_of(x, np.ones(50))
    assert quotient(sums) == pytest.approx(x.mean())
    assert quotient_variance(sums) == pytest.approx(x.var(ddof=1) / 50)
    reach = normal_quantile(0.9) * math.sqrt(x.var(ddof=1) / 50)
    assert quotient_interval(sums, 0.9, is_share=False) == pytest.approx((x.mean() - reach, x.mean() + reach))


@pytest.mark.parametrize("n", [60, 500])
def test_the_interval_of_a_micro_f1_holds_it_as_often_as_it_says(n: int) -> None:
    """Rows whose labels come together: the rows, and not the labels, are what is drawn."""
    rng = np.random.default_rng(8)
    hits, given_and_true = np.array([0, 1, 2, 3, 1]), np.array([2, 2, 5, 6, 3])
    chances = [0.2, 0.3, 0.1, 0.3, 0.1]
    truth = 2 * (hits @ chances) / (given_and_true @ chances)
    held = []
    for _ in range(800):
        rows = rng.choice(5, size=n, p=chances)
        got = quotient_interval(sums_of(2.0 * hits[rows], 1.0 * given_and_true[rows]), 0.95, is_share=True)
        held.append(got is not None and got.low <= truth <= got.high)
    assert 0.92 < np.mean(held) < 0.98


def test_quotients_at_their_ends() -> None:
    ones, zeros = np.ones(20), np.zeros(20)
    assert quotient_interval(sums_of(ones, ones), 0.95, is_share=True) == wilson(20, 20, 0.95)
    assert quotient_interval(sums_of(zeros, ones), 0.95, is_share=True) == wilson(0, 20, 0.95)
    assert quotient_interval(sums_of(zeros, ones), 0.95, is_share=False) == (0.0, 0.0)
    assert quotient_interval(sums_of(zeros, zeros), 0.95, is_share=True) is None
    assert quotient_variance(sums_of(ones[:1], ones[:1])) is None
    assert quotient(sums_of(zeros, zeros)) == 0.0


@pytest.mark.parametrize("bad", [0.0, 0.4999, 1.0, 95.0, float("nan")])
def test_a_confidence_that_cannot_be(bad: float) -> None:
    with pytest.raises(BadInput, match="a confidence of"):
        check_confidence(bad)
    assert check_confidence(0.95) == 0.95
