"""The bootstrap by groups: the ordinary one for few rows, as good for many, and right as often as it says."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats

from snapfit.core import resampling
from snapfit.core.intervals import Interval
from snapfit.core.resampling import GroupSums, resampled_intervals


def table_of(values: np.ndarray, *, cut: int = 7) -> np.ndarray:
    """Sums of ones and of values, added piece by piece."""
    sums = GroupSums(len(values), 2)
    for start in range(0, len(values), cut):
        part = values[start : start + cut]
        groups = sums.groups_of(start, len(part))
        sums.add(groups, 0, np.ones(len(part)))
        sums.add(groups, 1, part)
    return sums.table


def mean(tables: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {"mean": tables[0][:, 1] / np.maximum(tables[0][:, 0], 1e-9)}


def interval(values: np.ndarray, **options: float) -> Interval | None:
    confidence = options.get("confidence", 0.95)
    return resampled_intervals([table_of(values)], mean, confidence=confidence)["mean"][0]


def test_few_rows_are_resampled_as_scipy_does() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert interval(values, confidence=0.9) == pytest.approx((expected.low, expected.high), abs=0.02)


@pytest.mark.parametrize("order", ["random", "sorted", "periodic"])
def test_many_rows_in_groups_give_the_same_width(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a table that is sorted, or whose rows repeat in a period, as of one in any order."""
    monkeypatch.setattr(resampling, "MAX_GROUPS", 1_024)
    values = np.random.default_rng(0).exponential(size=20_480)
    if order != "random":
        values.sort()
    if order == "periodic":
        values = values.reshape(1_024, 20).T.reshape(-1)
    got = interval(values)
    assert got is not None
    error = values.std() / np.sqrt(len(values))
    assert (got.high - got.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.08)
    assert (got.low + got.high) / 2 == pytest.approx(values.mean(), abs=0.3 * error)


def test_it_holds_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 1_000)
    rng = np.random.default_rng(7)
    held = [interval(rng.exponential(size=120)) for _ in range(300)]
    assert 0.91 < np.mean([one is not None and one.low <= 1.0 <= one.high for one in held]) < 0.98


def test_resamples_of_two_draw_the_same_rows() -> None:
    """A constant difference has no spread, however much both vary."""
    values = np.random.default_rng(2).normal(size=300)

    def difference(tables: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        first, second = (table[:, 1] / table[:, 0] for table in tables)
        return {"difference": first - second, "both": np.stack([first, second], axis=1)}

    found = resampled_intervals([table_of(values + 1.0), table_of(values)], difference, confidence=0.95)
    assert found["difference"] == [None]
    first, second = found["both"]
    assert first is not None
    assert second is not None
    assert first.low - second.low == pytest.approx(1.0)


def test_the_same_rows_give_the_same_interval_however_they_come() -> None:
    values = np.round(np.random.default_rng(3).normal(size=500), 3)
    whole = resampled_intervals([table_of(values, cut=500)], mean, confidence=0.95)
    assert resampled_intervals([table_of(values, cut=3)], mean, confidence=0.95) == whole


def test_nothing_is_said_of_what_does_not_vary() -> None:
    assert interval(np.ones(50)) is None
    assert interval(np.array([3.0])) is None


def test_more_confidence_takes_more_resamples_and_gives_a_wider_interval() -> None:
    values = np.random.default_rng(4).normal(size=200)
    found = [interval(values, confidence=level) for level in (0.5, 0.9, 0.99, 0.999)]
    widths = [one.high - one.low for one in found if one is not None]
    assert len(widths) == 4
    assert widths == sorted(widths)
    assert widths[3] / widths[1] == pytest.approx(3.29 / 1.645, rel=0.15)


def test_rows_are_spread_evenly_over_groups() -> None:
    sums = GroupSums(10_000_000, 2)
    groups = np.concatenate([sums.groups_of(start, 4_096) for start in range(0, 819_200, 4_096)])
    counts = np.bincount(groups, minlength=len(sums.table))
    assert len(sums.table) == resampling.MAX_GROUPS
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    assert np.array_equal(sums.groups_of(5, 3), groups[5:8])


def test_memory_does_not_grow_with_rows_or_columns() -> None:
    tracemalloc.start()
    try:
        for n_rows, n_columns in ((10**9, 10), (10**9, 100_000)):
            assert GroupSums(n_rows, n_columns).table.nbytes <= max(
                8 * resampling.GROUP_CELLS, 8 * n_columns * resampling.MIN_GROUPS
            )
        tracemalloc.reset_peak()
        interval(np.random.default_rng(0).normal(size=20_000))
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()
