"""Tests of differences against scipy's, and the correction for many."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.intervals import QuotientSums
from snapfit.core.significance import (
    FEWEST_ROWS,
    compare_quotients,
    compare_shares,
    fisher_exact,
    holm,
    mcnemar,
)


@given(this=st.integers(0, 400), other=st.integers(0, 400))
def test_mcnemars_test_is_the_exact_binomial(this: int, other: int) -> None:
    expected = scipy.stats.binomtest(this, this + other).pvalue if this + other else 1.0
    assert mcnemar(this, other) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(this, other) == mcnemar(other, this)


@pytest.mark.parametrize(("this", "other"), [(50_000, 50_900), (999_000, 1_000_000), (0, 5_000)])
def test_mcnemars_test_of_many_rows(this: int, other: int) -> None:
    assert mcnemar(this, other) == pytest.approx(2 * scipy.stats.binom(this + other, 0.5).cdf(this), rel=1e-6)


counts = st.integers(0, 60)


@given(a=counts, b=counts, c=counts, d=counts)
def test_fishers_test_is_scipys(a: int, b: int, c: int, d: int) -> None:
    expected = scipy.stats.fisher_exact([[a, b], [c, d]]).pvalue
    assert fisher_exact(a, a + b, c, c + d) == pytest.approx(expected, rel=1e-9)


def test_shares_of_many_rows_are_compared_by_chi_square() -> None:
    table = [[400, 100], [3_700, 1_300]]
    expected = scipy.stats.chi2_contingency(table, correction=False).pvalue
    assert compare_shares(400, 500, 3_700, 5_000) == pytest.approx(expected)
    assert compare_shares(400, 500, 3_700, 5_000) == compare_shares(3_700, 5_000, 400, 500)


def test_shares_of_few_rows_are_compared_exactly() -> None:
    assert compare_shares(3, 6, 95, 100) == pytest.approx(scipy.stats.fisher_exact([[3, 3], [95, 5]]).pvalue)
    assert compare_shares(6, 6, 100, 100) == 1.0
    assert compare_shares(0, 0, 5, 9) is None
    assert compare_shares(5, 9, 0, 0) is None


def sums_of(x: np.ndarray) -> QuotientSums:
    y = np.ones(len(x))
    return QuotientSums(len(x), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum())


def test_means_are_compared_as_by_welch() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.exponential(size=300), 1.2 * rng.exponential(size=5_000)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False)
    got = compare_quotients(sums_of(first), sums_of(second))
    assert got == pytest.approx(2 * scipy.stats.norm.sf(abs(expected.statistic)))
    assert got == pytest.approx(expected.pvalue, abs=2e-3)


def test_too_few_rows_are_not_compared() -> None:
    few, many = np.arange(FEWEST_ROWS - 1.0), np.arange(100.0)
    assert compare_quotients(sums_of(few), sums_of(many)) is None
    assert compare_quotients(sums_of(np.ones(40)), sums_of(np.ones(40))) == 1.0
    assert compare_quotients(sums_of(np.ones(40)), sums_of(np.zeros(40))) is None


def test_equal_shares_are_found_different_as_rarely_as_they_should() -> None:
    rng = np.random.default_rng(2)
    p = [compare_shares(int(a), 40, int(b), 400) for a, b in rng.binomial([40, 400], 0.9, size=(3_000, 2))]
    assert np.mean([one is not None and one < 0.05 for one in p]) < 0.06


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_errs_in_a_family_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(4)
    families = [holm(row) for row in rng.random((2_000, 12)).tolist()]
    assert np.mean([min(one for one in family if one is not None) < 0.05 for family in families]) < 0.06
