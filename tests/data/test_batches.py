"""Batches: each row once, the order a pure function of its arguments, padding that nothing can be read from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.batches import balanced_draw, micro_batches, pad, sorted_batches, step_rows, weighted_draw
from snapfit.data.tokenizer import TokenIds

LENGTHS = st.lists(st.integers(1, 60), max_size=120).map(lambda v: np.array(v, dtype=np.int64))
SEEDS = st.integers(0, 2**32 - 1)


def token_ids(rows: list[list[int]], seconds: list[int]) -> TokenIds:
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.array([token for row in rows for token in row], dtype=np.uint16)
    return TokenIds(ids, offsets.astype(np.int64), np.array(seconds, dtype=np.uint16))


TOKENS = token_ids([[5, 6, 7], [8], [9, 10, 11, 12]], [3, 1, 2])


def padded_sizes(lengths: np.ndarray, batches: list[np.ndarray]) -> list[int]:
    return [int(lengths[rows].max()) * len(rows) for rows in batches]


def each_once(batches: list[np.ndarray], n: int) -> bool:
    return sorted(np.concatenate([np.empty(0, int), *batches]).tolist()) == list(range(n))


def test_padding_by_hand() -> None:
    batch = pad(TOKENS, np.array([2, 0, 1]), pad_id=99)
    assert batch.input_ids.tolist() == [[9, 10, 11, 12], [5, 6, 7, 99], [8, 99, 99, 99]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.rows.tolist() == [2, 0, 1]
    assert batch.first_windows is None
    assert all(array.dtype == np.int64 for array in vars(batch).values() if array is not None)


def test_no_rows_are_an_empty_batch() -> None:
    assert pad(TOKENS, np.array([], dtype=np.int64), pad_id=0).input_ids.shape == (0, 0)


def test_a_row_beyond_the_last_is_an_error() -> None:
    with pytest.raises(IndexError):
        pad(TOKENS, np.array([3]), pad_id=0)


@given(st.lists(st.integers(0, 2), max_size=8))
def test_taking_then_padding_is_padding(rows: list[int]) -> None:
    places = np.array(rows, dtype=np.int64)
    direct, taken = pad(TOKENS, places, pad_id=0), pad(TOKENS.take(places), np.arange(len(rows)), pad_id=0)
    assert (direct.input_ids == taken.input_ids).all()
    assert (direct.token_type_ids == taken.token_type_ids).all()


@given(LENGTHS, SEEDS, st.integers(0, 5), st.integers(1, 9), st.integers(1, 4))
def test_steps_hold_every_row_once(lengths: np.ndarray, seed: int, epoch: int, step_size: int, window: int) -> None:
    steps = step_rows(lengths, seed=seed, epoch=epoch, step_size=step_size, window=window)
    again = step_rows(lengths.copy(), seed=seed, epoch=epoch, step_size=step_size, window=window)
    assert each_once(steps, len(lengths))
    assert [rows.tolist() for rows in steps] == [rows.tolist() for rows in again]
    assert len(steps) == -(-len(lengths) // step_size)
    assert sum(len(rows) != step_size for rows in steps) <= 1


@given(LENGTHS, SEEDS, st.integers(1, 9), st.integers(1, 200))
def test_steps_keep_the_token_budget(lengths: np.ndarray, seed: int, step_size: int, budget: int) -> None:
    steps = step_rows(lengths, seed=seed, epoch=0, step_size=step_size, token_budget=budget)
    assert each_once(steps, len(lengths))
    assert all(0 < len(rows) <= step_size for rows in steps)
    sizes = padded_sizes(lengths, steps)
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, steps, strict=True))


def test_the_order_never_changes_between_versions() -> None:
    steps = step_rows(np.array([3, 1, 2, 5, 4, 9, 1, 7]), seed=1, epoch=2, step_size=3, window=1)
    assert [rows.tolist() for rows in steps] == [[3, 7], [6, 1, 5], [2, 0, 4]]


def test_seeds_and_epochs_differ() -> None:
    lengths = np.ones(100, dtype=np.int64)
    orders = {
        tuple(np.concatenate(step_rows(lengths, seed=seed, epoch=epoch, step_size=8)).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_steps_pad_little_and_still_mix() -> None:
    lengths = np.random.default_rng(0).integers(4, 128, 4096)
    steps = step_rows(lengths, seed=0, epoch=0, step_size=32)
    assert sum(padded_sizes(lengths, steps)) < 1.1 * lengths.sum()
    means = np.array([lengths[rows].mean() for rows in steps])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3  # neighbouring steps are not alike
    spread = [rows.max() - rows.min() for rows in steps]
    assert np.mean(spread) > 2000  # rows of a step come from all over the table


def test_equal_lengths_are_mixed_too() -> None:
    firsts = [step_rows(np.ones(50), seed=s, epoch=0, step_size=5)[0].tolist() for s in range(20)]
    assert len({tuple(rows) for rows in firsts}) > 15


@given(st.integers(0, 40), st.integers(1, 10))
def test_micro_batches_partition_a_step(n: int, accumulate: int) -> None:
    rows = np.arange(100, 100 + n)
    parts = micro_batches(rows, accumulate)
    assert np.concatenate([np.empty(0, int), *parts]).tolist() == rows.tolist()
    assert len(parts) == min(n, accumulate)
    sizes = [len(part) for part in parts]
    assert not sizes or (min(sizes) > 0 and max(sizes) - min(sizes) <= 1)


@given(LENGTHS, st.integers(1, 300), st.integers(1, 12))
def test_sorted_batches(lengths: np.ndarray, budget: int, max_rows: int) -> None:
    batches = sorted_batches(lengths, token_budget=budget, max_rows=max_rows)
    assert each_once(batches, len(lengths))
    in_order = lengths[np.concatenate([np.empty(0, int), *batches])]
    assert (np.diff(in_order) <= 0).all()
    assert all(0 < len(rows) <= max_rows for rows in batches)
    sizes = padded_sizes(lengths, batches)
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, batches, strict=True))


# ---------------------------------------------------------------- rows of several windows

WINDOW = 7
WINDOWED = st.lists(st.integers(1, WINDOW) | st.integers(2, 6).map(lambda m: m * WINDOW), max_size=40).map(np.array)
"""Tokens of rows of one window, or of several full ones."""


def padded_windows(lengths: np.ndarray, batches: list[np.ndarray]) -> list[int]:
    """What batches take: windows times the longest of them, counted row by row."""
    sizes = []
    for rows in batches:
        windows = [[WINDOW] * (n // WINDOW) if n > WINDOW else [n] for n in lengths[rows].tolist()]
        sizes.append(max(max(one) for one in windows) * sum(map(len, windows)))
    return sizes


@given(WINDOWED, st.integers(1, 200), st.integers(1, 12))
def test_batches_of_windows_keep_the_token_budget(lengths: np.ndarray, budget: int, max_rows: int) -> None:
    batches = sorted_batches(lengths, token_budget=budget, max_rows=max_rows, window_tokens=WINDOW)
    assert each_once(batches, len(lengths))
    assert all(0 < len(rows) <= max_rows for rows in batches)
    sizes = padded_windows(lengths, batches)
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, batches, strict=True))


@given(WINDOWED, SEEDS, st.integers(1, 9), st.integers(1, 200))
def test_steps_of_windows_keep_the_token_budget(lengths: np.ndarray, seed: int, step_size: int, budget: int) -> None:
    steps = step_rows(
        lengths, seed=seed, epoch=0, step_size=step_size, token_budget=budget, window_tokens=WINDOW, window=3
    )
    assert each_once(steps, len(lengths))
    assert all(0 < len(rows) <= step_size for rows in steps)
    sizes = padded_windows(lengths, steps)
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, steps, strict=True))


@given(LENGTHS, SEEDS, st.integers(1, 9), st.integers(1, 200))
def test_windows_that_are_never_full_change_nothing(lengths: np.ndarray, seed: int, size: int, budget: int) -> None:
    options = {"seed": seed, "epoch": 0, "step_size": size, "token_budget": budget}
    plain, windowed = (step_rows(lengths, **options, window_tokens=w) for w in (None, 10_000))  # type: ignore[arg-type]
    assert [rows.tolist() for rows in plain] == [rows.tolist() for rows in windowed]
    batches, others = (sorted_batches(lengths, token_budget=budget, window_tokens=w) for w in (None, 10_000))
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in others]


def test_windows_are_padded_by_hand() -> None:
    tokens = TokenIds(np.arange(10, 10 + 17), np.array([0, 3, 15, 17]), np.array([3, 2, 1]), 6)
    batch = pad(tokens, np.array([1, 0, 2]), pad_id=0)
    assert batch.input_ids.tolist() == [
        [13, 14, 15, 16, 17, 18],
        [19, 20, 21, 22, 23, 24],
        [10, 11, 12, 0, 0, 0],
        [25, 26, 0, 0, 0, 0],
    ]
    assert batch.token_type_ids.tolist() == [[0, 0, 1, 1, 1, 1]] * 2 + [[0] * 6, [0, 1, 0, 0, 0, 0]]
    assert batch.attention_mask.sum(1).tolist() == [6, 6, 3, 2]
    assert batch.first_windows is not None
    assert (batch.first_windows.tolist(), batch.first_windows.dtype) == ([0, 2, 3, 4], np.int64)
    part = tokens.part(1, 3)
    assert (len(part), part.lengths.tolist(), part.window_tokens) == (2, [12, 2], 6)
    assert pad(part, np.array([0]), pad_id=0).input_ids.tolist() == batch.input_ids[:2].tolist()


@pytest.mark.parametrize("wrong", [{"step_size": 0}, {"window": 0}, {"token_budget": 0}, {"seed": -1}, {"epoch": -1}])
def test_sizes_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        step_rows(np.ones(3), **({"seed": 0, "epoch": 0, "step_size": 2} | wrong))


def test_no_accumulation_below_one() -> None:
    with pytest.raises(BadInput, match="accumulate 0"):
        micro_batches(np.arange(3), 0)


def test_a_balanced_draw_brings_up_every_class_alike() -> None:
    classes = np.array([0] * 900 + [2] * 90 + [5] * 10)
    drawn = balanced_draw(classes, seed=3, epoch=1)
    assert drawn.shape == (1000,)
    shares = np.bincount(classes[drawn], minlength=6) / 1000
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 0, 0, 1 / 3], atol=0.05)
    rare = np.bincount(drawn, minlength=1000)[990:]
    assert rare.min() > 15  # and within a class every row
    assert np.array_equal(drawn, balanced_draw(classes, seed=3, epoch=1))
    assert not np.array_equal(drawn, balanced_draw(classes, seed=3, epoch=2))
    assert not np.array_equal(drawn, balanced_draw(classes, seed=4, epoch=1))


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.integers(0, 9), st.integers(0, 3))
def test_a_weighted_draw_is_as_even_as_whole_numbers_can_be(weights: list[int], seed: int, epoch: int) -> None:
    values = np.array(weights)
    drawn = weighted_draw(values, seed=seed, epoch=epoch)
    assert drawn.dtype == np.int64
    assert len(drawn) == len(values)
    times = np.bincount(drawn, minlength=len(values))
    total = sum(weights)
    for weight, found in zip(weights, times.tolist(), strict=True):
        assert found in (len(weights) * weight // total, -(-len(weights) * weight // total))
    assert np.array_equal(drawn, weighted_draw(values, seed=seed, epoch=epoch))


def test_over_many_epochs_rows_come_up_in_proportion_to_their_weights() -> None:
    weights = np.array([1, 2, 4, 8, 16, 1, 1, 7])
    times = sum(np.bincount(weighted_draw(weights, seed=5, epoch=epoch), minlength=8) for epoch in range(2_000))
    np.testing.assert_allclose(times / times.sum(), weights / weights.sum(), atol=0.006)
    one, other = weighted_draw(weights, seed=5, epoch=0), weighted_draw(weights, seed=6, epoch=0)
    assert not np.array_equal(one, other)


def test_a_weighted_draw_of_equal_weights_takes_every_row_once() -> None:
    assert sorted(weighted_draw(np.full(500, 7), seed=1, epoch=2)) == list(range(500))


def test_a_weighted_draw_of_a_whole_pool_does_not_overflow() -> None:
    weights = np.full(2**20, 2**20)
    weights[:3] = 1
    drawn = weighted_draw(weights, seed=0, epoch=0)
    assert drawn.min() >= 0
    assert np.bincount(drawn, minlength=2**20).max() <= 2
    assert len(np.unique(drawn)) >= 2**20 - 6
    with pytest.raises(BadInput, match="seed -1"):
        weighted_draw(weights, seed=-1, epoch=0)
