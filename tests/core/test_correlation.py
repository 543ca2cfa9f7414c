"""Moments and ranks of pairs that come in batches, against numpy and scipy."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from snapfit.core import correlation
from snapfit.core.correlation import Moments, RankPairs, RegressionTally


def in_batches(counted: Moments | RankPairs, a: np.ndarray, b: np.ndarray, size: int) -> float:
    for start in range(0, len(a), size):
        counted.add(a[start : start + size], b[start : start + size])
    return counted.correlation()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 200),
    size=st.integers(1, 50),
    place=st.sampled_from([0.0, 1.0, -1e6, 1e9]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
)
def test_moments_far_from_zero_keep_their_digits(seed: int, n: int, size: int, place: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    b = a + rng.normal(size=n)
    a, b = (place + a) * scale, (b - place) * scale
    moments = Moments()
    assert in_batches(moments, a, b, size) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-7 if place else 1e-12)
    exact = float(np.square(b.astype(np.longdouble) - b.astype(np.longdouble).mean()).sum())
    assert moments.spread_b == pytest.approx(exact, rel=1e-12)
    assert moments.range_a == (a.min(), a.max())


def test_constant_sides_have_no_correlation() -> None:
    a, b = np.full(50, 0.1), np.arange(50.0)
    for counted in (Moments(), RankPairs(), RankPairs(10)):
        assert in_batches(counted, a, b, 7) == 0.0
    assert in_batches(Moments(), np.array([0.1] * 49 + [0.2]), b, 7) > 0.0
    assert Moments().correlation() == RankPairs().correlation() == 0.0
    moments = Moments()
    in_batches(moments, b, a, 7)
    assert moments.spread_b == 0.0


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 300), size=st.integers(1, 50), levels=st.integers(2, 400))
def test_ranks_are_exact_while_rows_are_held(seed: int, n: int, size: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, levels, n) / 7.0, rng.integers(0, levels, n) * 1e-3
    if len(set(a)) > 1 and len(set(b)) > 1:
        expected = scipy.stats.spearmanr(a, b).statistic
        assert in_batches(RankPairs(300), a, b, size) == pytest.approx(expected, abs=1e-12)


def test_what_float32_cannot_tell_apart_is_told_apart() -> None:
    a, b = 1.0 + np.array([0, 3, 1, 2]) * 1e-12, np.array([0.0, 3.0, 1.0, 2.0])
    assert in_batches(RankPairs(), a, b, 1) == pytest.approx(1.0)
    mixed = np.array([0.0, 1.0, 2.0, 1e300, 3.0]), np.array([0.0, 1.0, 2.0, 4.0, 3.0])
    assert in_batches(RankPairs(), *mixed, 2) == pytest.approx(1.0)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_few_different_values_stay_exact_however_many_rows(levels: int) -> None:
    rng = np.random.default_rng(levels)
    a = rng.integers(0, levels, 20_000)
    b = (a + rng.integers(0, levels, 20_000)) % 1024
    expected = scipy.stats.spearmanr(a, b).statistic
    assert in_batches(RankPairs(3000), a, b, 700) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", ["as they come", "by a", "by b", "worst last"])
@pytest.mark.parametrize("noise", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("shape", ["normal", "skewed", "half are zero"])
def test_binned_ranks_are_close(order: str, noise: float, shape: str) -> None:
    rng = np.random.default_rng(11)
    n = 60_000
    a = rng.normal(size=n)
    b = a + noise * rng.normal(size=n)
    if shape == "skewed":
        a, b = np.exp(3.0 * a), np.exp(b)
    elif shape == "half are zero":
        a, b = np.maximum(a, 0.0), np.maximum(b, 0.0)
    places = {
        "as they come": np.arange(n),
        "by a": np.argsort(a, kind="stable"),
        "by b": np.argsort(b, kind="stable"),
        "worst last": np.argsort(np.abs(scipy.stats.rankdata(a) - scipy.stats.rankdata(b))),
    }[order]
    expected = scipy.stats.spearmanr(a, b).statistic
    pairs = RankPairs(6000)
    got = in_batches(pairs, a[places], b[places], 1000)
    assert got == pytest.approx(expected, abs=1e-3)
    assert pairs.correlation() == got  # asking changes nothing


def test_the_grid_never_has_more_values_than_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "RANK_BINS", 16)
    a = np.random.default_rng(0).normal(size=5000)
    pairs = RankPairs(100)
    assert in_batches(pairs, a, -a, 64) < -0.98
    grid = pairs._whole_grid()
    assert grid.counts.shape[0] <= 16
    assert grid.counts.shape[1] <= 16
    assert grid.counts.sum() == 5000
    assert (np.diff(grid.a_values) > 0).all()


def test_a_held_row_takes_eight_bytes() -> None:
    values = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    RegressionTally().add(values, values)
    tracemalloc.start()
    try:
        counted = RegressionTally(rank_rows=100_000)
        for _ in range(1000):
            counted.add(values, values)
        assert tracemalloc.get_traced_memory()[0] < 8.2 * 100_000
    finally:
        tracemalloc.stop()
