"""The order of the data: which rows a step takes is a function of seed, epoch and position, from any place on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.batches import PoolSizes, block_pools, n_block_rows, step_rows
from snapfit.training.order import DataOrder

ROWS, STEP_SIZE = 40, 8
LENGTHS = np.array([3 + (7 * i) % 10 for i in range(ROWS)])


def make_order(seed: int = 3) -> DataOrder:
    return DataOrder(LENGTHS, STEP_SIZE, seed)


def test_the_walk_goes_on_from_any_place() -> None:
    order = make_order()
    walk = order.walk()
    whole = [next(walk) for _ in range(12)]
    for start in range(12):
        epoch, position, rows = whole[start]
        again = next(order.walk(epoch, position))
        assert again[:2] == (epoch, position)
        assert np.array_equal(again[2], rows)
    after_the_end = next(order.walk(0, 5))
    assert after_the_end[:2] == (1, 0)


@pytest.mark.parametrize(("epochs", "total"), [(1, 5), (4, 20), (0.2, 1), (0.01, 1), (2.5, 12), (1.6, 8)])
def test_total_steps(epochs: float, total: int) -> None:
    assert make_order().total_steps(epochs) == total


@pytest.mark.parametrize("window", [1, 2, 64])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_window_and_the_classes_reach_the_order(window: int, balanced: bool) -> None:
    classes = np.where(np.arange(ROWS) < 4, 1, 0) if balanced else None
    order = DataOrder(LENGTHS, STEP_SIZE, seed=3, window=window, classes=classes)
    first, again, second = (np.concatenate(list(order.steps(epoch))) for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert len(first) == ROWS
    if classes is None:
        assert sorted(first) == list(range(ROWS))
        padded = sum(int(LENGTHS[rows].max()) * len(rows) - int(LENGTHS[rows].sum()) for rows in order.steps(0))
        assert (padded < 0.1 * LENGTHS.sum()) == (window == 64)
    else:
        rare = np.mean([classes[np.concatenate(list(order.steps(epoch)))].mean() for epoch in range(8)])
        assert 0.4 < rare < 0.6  # a tenth of the rows
    assert order.total_steps(1) == 5


def test_the_weights_reach_the_order() -> None:
    weights = np.where(np.arange(ROWS) < 4, 9, 1)  # half of the draws
    order = DataOrder(LENGTHS, STEP_SIZE, seed=3, weights=weights)
    first, again, second = (np.concatenate(list(order.steps(epoch))) for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    for rows in (first, second):
        assert len(rows) == ROWS
        assert np.count_nonzero(rows < 4) == pytest.approx(ROWS / 2, abs=4)


# ---------------------------------------------------------------- tables of many pools

SIZES = PoolSizes(pool_rows=32, block_rows=4)


def large_order(n: int = 203, *, step_size: int = 8, seed: int = 3, **fields: object) -> DataOrder:
    lengths = np.array([3 + (7 * i) % 10 for i in range(n)])
    return DataOrder(lengths, step_size, seed, sizes=SIZES, **fields)  # type: ignore[arg-type]


@given(st.integers(33, 300), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3), st.sampled_from([None, 40]))
def test_pools_hold_every_row_once(n: int, step_size: int, seed: int, epoch: int, token_budget: int | None) -> None:
    order = large_order(n, step_size=step_size, seed=seed, token_budget=token_budget)
    steps = list(order.steps(epoch))
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))
    assert len(steps) == order.n_steps(epoch)
    assert all(len(rows) <= step_size for rows in steps)
    again = list(large_order(n, step_size=step_size, seed=seed, token_budget=token_budget).steps(epoch))
    assert [rows.tolist() for rows in steps] == [rows.tolist() for rows in again]


@pytest.mark.parametrize("token_budget", [None, 40])
@pytest.mark.parametrize("drawn", [{}, {"classes": np.arange(203) % 5}, {"weights": 1 + np.arange(203) % 9}])
def test_a_large_walk_goes_on_from_any_place(token_budget: int | None, drawn: dict[str, np.ndarray]) -> None:
    order = large_order(token_budget=token_budget, **drawn)
    walk = order.walk()
    whole = [next(walk) for _ in range(2 * order.n_steps(0) + 3)]
    for start, (epoch, position, rows) in enumerate(whole[:-2]):
        again = large_order(token_budget=token_budget, **drawn).walk(epoch, position)
        for expected in whole[start : start + 3]:
            found = next(again)
            assert found[:2] == expected[:2]
            assert np.array_equal(found[2], expected[2])
        assert rows.dtype == np.int64
    assert whole[-1][0] == 2


def test_of_a_large_table_each_pool_is_drawn_from_by_its_weights() -> None:
    weights = np.where(np.arange(203) % 8 == 0, 21, 1)  # three quarters of the draws
    order = large_order(weights=weights)
    for epoch in range(2):
        rows = np.concatenate(list(order.steps(epoch)))
        assert len(rows) == 203
        assert np.mean(rows % 8 == 0) == pytest.approx(0.75, abs=0.03)


def test_total_steps_of_a_large_table() -> None:
    for budget in (None, 40):
        order = large_order(token_budget=budget)
        counts = [len(list(order.steps(epoch))) for epoch in range(3)]
        assert order.total_steps(2) == sum(counts[:2])
        assert order.total_steps(2.5) == sum(counts[:2]) + round(0.5 * counts[2])


def test_a_table_of_one_pool_keeps_its_order() -> None:
    lengths = np.array([3 + (7 * i) % 10 for i in range(32)])
    expected = step_rows(lengths, seed=3, epoch=1, step_size=8)
    found = list(DataOrder(lengths, 8, 3, sizes=SIZES).steps(1))
    assert [rows.tolist() for rows in found] == [rows.tolist() for rows in expected]


def test_rows_of_a_step_come_from_one_pool_of_scattered_blocks() -> None:
    pools = block_pools(203, seed=3, epoch=0, sizes=SIZES)
    assert sorted(np.concatenate(pools).tolist()) == list(range(51))
    assert [n_block_rows(blocks, 203, SIZES) for blocks in pools].count(32) >= 5
    of_row = {row: i for i, blocks in enumerate(pools) for block in blocks for row in range(4 * block, 4 * block + 4)}
    numbers = [{of_row[row] for row in rows.tolist()} for rows in large_order().steps(0)]
    assert all(len(one) == 1 for one in numbers)
    assert [min(one) for one in numbers] == sorted(min(one) for one in numbers)
    other = block_pools(203, seed=3, epoch=1, sizes=SIZES)
    assert [blocks.tolist() for blocks in pools] != [blocks.tolist() for blocks in other]


class Counted:
    """Lengths that know which rows were asked for."""

    def __init__(self, n: int) -> None:
        self.n, self.asked = n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.asked += len(rows)
        return 1 + rows % 7


def test_only_the_pools_at_hand_are_looked_at() -> None:
    lengths, released = Counted(320), []
    order = DataOrder(lengths, 8, 3, sizes=SIZES, after_pool=lambda: released.append(lengths.asked))
    assert order.total_steps(3) == 120
    assert lengths.asked == 0
    walk = order.walk(0, 13)
    for _ in range(7):
        next(walk)
    assert (lengths.asked, released) == (2 * 32, [32])


@pytest.mark.parametrize(("pool_rows", "block_rows"), [(0, 1), (8, 0), (10, 4)])
def test_pools_of_no_sense_are_refused(pool_rows: int, block_rows: int) -> None:
    with pytest.raises(BadInput):
        PoolSizes(pool_rows, block_rows)
