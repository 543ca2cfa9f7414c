"""Batches: which rows go together, in which order, and how they are padded.

The order of an epoch is a pure function of (lengths, seed, epoch, sizes). It is made of raw Philox bits and a
stable sort, which numpy guarantees not to change, so a run can be repeated or continued anywhere, from three
integers: seed, epoch and position. A table beyond POOL_ROWS is read pool by pool, so that what is held in memory is
bounded whatever its size: blocks of neighbouring rows are shuffled, and the rows of a pool of blocks among themselves.
"""

from dataclasses import dataclass

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.data.cutting import token_places, windows_of
from snapfit.data.tokenizer import TokenIds

BLOCK_ROWS = 1024
"""Neighbouring rows that stay in one pool of a large table: what is read from disk in one piece."""
POOL_ROWS = 2**20
"""Rows that are shuffled together: a table of up to so many is one pool, a larger one is cut into pools of so many."""
_STREAM = 1 << 128
"""Draws of a Philox counter that are set aside for each purpose; 0: steps, 1: draws by class or weight, 2: blocks of a
large table, then two for each of its pools."""


def _check_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise BadInput(f"{name} {value}", f"at least {least}", "correct the number")


@dataclass(frozen=True)
class PoolSizes:
    """How large tables are cut. pool_rows: of a pool, a multiple of block_rows. block_rows: of a block.

    Raises BadInput for sizes below 1, or that are no multiple.
    """

    pool_rows: int = POOL_ROWS
    block_rows: int = BLOCK_ROWS

    def __post_init__(self) -> None:
        _check_least(1, block_rows=self.block_rows, pool_rows=self.pool_rows)
        if self.pool_rows % self.block_rows:
            found = f"pools of {self.pool_rows} rows"
            raise BadInput(found, f"a multiple of {self.block_rows}, a block", "correct the number")


SIZES = PoolSizes()
"""What is used wherever nothing else is said."""


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them.

    input_ids, attention_mask, token_type_ids: int64 [sequences, width]; mask 1 on real tokens, type 1 on those of
    a second text, 0 on padding. rows: int64 [rows], where each came from. first_windows: int64 [rows + 1], where the
    windows of each row begin among the sequences, and their number; None where every row is one sequence.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray
    rows: np.ndarray
    first_windows: np.ndarray | None = None


def pad(tokens: TokenIds, rows: np.ndarray, *, pad_id: int) -> Batch:
    """The rows of `tokens` at these indices as one batch, in this order, padded on the right with `pad_id`.

    rows: int [b], from 0 to len(tokens) - 1. Raises IndexError for one beyond. All windows of a row are in the batch.
    """
    rows = np.asarray(rows, dtype=np.int64)
    starts = tokens.offsets[rows]
    lengths = tokens.offsets[rows + 1] - starts
    seconds, first_windows = tokens.second_start[rows].astype(np.int64), None
    if tokens.window_tokens is not None:
        windows = windows_of(lengths, tokens.window_tokens)
        first_windows = np.concatenate(([0], np.cumsum(windows)))
        starts, seconds = np.repeat(starts, windows), np.repeat(seconds, windows)
        starts = starts + tokens.window_tokens * (np.arange(len(starts)) - np.repeat(first_windows[:-1], windows))
        lengths = np.minimum(np.repeat(lengths, windows), tokens.window_tokens)
    places = np.arange(int(lengths.max(initial=0)), dtype=np.int64)
    real = places < lengths[:, None]
    input_ids = np.full(real.shape, pad_id, dtype=np.int64)
    input_ids[real] = tokens.ids[token_places(starts, lengths)]
    second = real & (places >= seconds[:, None])
    return Batch(input_ids, real.astype(np.int64), second.astype(np.int64), rows, first_windows)


def step_rows(
    lengths: np.ndarray,
    *,
    seed: int,
    epoch: int,
    step_size: int,
    window: int = 64,
    token_budget: int | None = None,
    stream: int = 0,
    window_tokens: int | None = None,
) -> list[np.ndarray]:
    """The rows of every optimizer step of an epoch, in order; each row exactly once.

    All rows are shuffled and cut into windows of `window * step_size`. Inside a window they are sorted by
    length, so that a step pads little, and cut into steps; then the steps of the epoch are shuffled.
    lengths: tokens of each row, int [n]. step_size: rows of a step; one step of the epoch may have fewer.
    token_budget: cut steps shorter still, so that rows * longest row never exceeds it; a row that is longer
    on its own is a step on its own. stream: which of independent random streams of (seed, epoch) is drawn from.
    window_tokens: of a full window where rows may be several; then windows * longest window is held to the budget.
    Raises BadInput for sizes below 1 and a seed or epoch below 0.

    Returns int64 arrays. Without a budget there are ceil(n / step_size) of them in every epoch.
    """
    _check_least(1, step_size=step_size, window=window, token_budget=token_budget)
    _check_least(0, seed=seed, epoch=epoch)
    lengths = np.asarray(lengths, dtype=np.int64)
    n = len(lengths)
    bits = _bits(seed, epoch, stream)
    shuffled = np.argsort(bits.random_raw(n), kind="stable")
    windows = np.arange(n) // (window * step_size)
    rows = shuffled[np.lexsort((lengths[shuffled], windows))]  # stable: equal lengths stay shuffled
    if token_budget is None:
        cuts = np.arange(0, n, step_size)
    else:
        cuts = _budget_cuts(lengths[rows], window * step_size, step_size, token_budget, window_tokens)
    ends = np.append(cuts[1:], n)
    order = np.argsort(bits.random_raw(len(cuts)), kind="stable")
    return [rows[start:end] for start, end in zip(cuts[order], ends[order], strict=True)]


def block_pools(n: int, *, seed: int, epoch: int, sizes: PoolSizes = SIZES) -> list[np.ndarray]:
    """The blocks of each pool of an epoch, in order: int64 numbers of blocks, each block in exactly one pool.

    n: rows of the table; block i is its rows from i * block_rows on, the last one may be shorter. A table of at most
    `pool_rows` is one pool with its blocks in order, for its rows are shuffled all together. A pure function of its
    arguments, which takes 8 bytes a block. Raises BadInput for a seed or epoch below 0.
    """
    _check_least(0, seed=seed, epoch=epoch)
    n_blocks = -(-n // sizes.block_rows)
    if n <= sizes.pool_rows:
        return [np.arange(n_blocks)]
    order = np.argsort(_bits(seed, epoch, 2).random_raw(n_blocks), kind="stable")
    size = sizes.pool_rows // sizes.block_rows
    return [order[start : start + size] for start in range(0, n_blocks, size)]


def block_rows_of(blocks: np.ndarray, n: int, sizes: PoolSizes = SIZES) -> np.ndarray:
    """The rows of blocks, one block after another, int64. n: rows of the table."""
    firsts = np.asarray(blocks, dtype=np.int64)[:, None] * sizes.block_rows
    rows: np.ndarray = (firsts + np.arange(sizes.block_rows)).ravel()
    return rows[rows < n]


def n_block_rows(blocks: np.ndarray, n: int, sizes: PoolSizes = SIZES) -> int:
    """How many rows `block_rows_of` gives."""
    return int(np.minimum(n - np.asarray(blocks, dtype=np.int64) * sizes.block_rows, sizes.block_rows).sum())


def pool_streams(pool: int, n_pools: int) -> tuple[int, int]:
    """The random streams of a pool's steps and of the draw of its rows; an only pool has those of a small table."""
    return (0, 1) if n_pools == 1 else (3 + 2 * pool, 4 + 2 * pool)


def balanced_draw(classes: np.ndarray, *, seed: int, epoch: int, stream: int = 1) -> np.ndarray:
    """As many rows as there are, drawn with replacement so that every class comes up as often: int64 [n].

    classes: the class of each row, int [n]. A pure function of (classes, seed, epoch): raw Philox bits, of a stream of
    its own, pick the class and the row in it. stream: see `step_rows`. Raises BadInput for a seed or epoch below 0.
    """
    _check_least(0, seed=seed, epoch=epoch)
    counts = np.bincount(classes)
    present = np.flatnonzero(counts)
    starts = np.cumsum(counts) - counts
    by_class = np.argsort(classes, kind="stable")
    bits = _bits(seed, epoch, stream)
    chosen = present[bits.random_raw(len(classes)) % np.uint64(len(present))]
    places = (bits.random_raw(len(classes)) % counts[chosen].astype(np.uint64)).astype(np.int64)
    return np.asarray(by_class[starts[chosen] + places], dtype=np.int64)


def weighted_draw(weights: np.ndarray, *, seed: int, epoch: int, stream: int = 1) -> np.ndarray:
    """As many rows as there are, each drawn in proportion to its weight, as evenly as can be: int64 [n].

    weights: of each row, int64 [n], none below 1, their sum below 2^62. Of n rows whose weights add up to w, one of
    weight v comes up floor(n v / w) or ceil(n v / w) times, and n v / w times over many epochs: systematic sampling,
    in a random order. A pure function of (weights, seed, epoch) in whole numbers. stream: see `step_rows`.
    Raises BadInput for a seed or epoch below 0.
    """
    _check_least(0, seed=seed, epoch=epoch)
    n, bits = len(weights), _bits(seed, epoch, stream)
    order = np.argsort(bits.random_raw(n), kind="stable")
    ends = np.cumsum(weights[order])
    total = int(ends[-1])
    start, steps = int(bits.random_raw()) % total, np.arange(n)
    points = steps * (total // n) + (start + steps * (total % n)) // n  # (start + step * total) // n, without overflow
    return np.asarray(order[np.searchsorted(ends, points, side="right")], dtype=np.int64)


def micro_batches(rows: np.ndarray, accumulate: int) -> list[np.ndarray]:
    """A step's rows in at most `accumulate` contiguous parts, none empty, sizes differing by at most one.

    rows: [b]. Fewer rows than `accumulate` give one part a row. Raises BadInput for `accumulate` below 1.
    """
    _check_least(1, accumulate=accumulate)
    return np.array_split(rows, min(accumulate, len(rows))) if len(rows) else []


def sorted_batches(
    lengths: np.ndarray, *, token_budget: int = 8192, max_rows: int = 256, window_tokens: int | None = None
) -> list[np.ndarray]:
    """Rows in batches for evaluation and prediction, longest first: running out of memory shows at once.

    lengths: tokens of each row, int [n]. token_budget: the most that rows * longest row may be; a row that is
    longer on its own is a batch on its own. max_rows: the most rows. Raises BadInput for either below 1.
    window_tokens: of a full window where rows may be several; then windows * longest window is held to the budget.
    Returns int64 arrays; every row is in exactly one.
    """
    _check_least(1, token_budget=token_budget, max_rows=max_rows)
    lengths = np.asarray(lengths, dtype=np.int64)
    rows = np.argsort(-lengths, kind="stable")
    windows = windows_of(lengths[rows], window_tokens)
    batches = []
    start = 0
    while start < len(rows):
        longest = max(int(_width(lengths[rows[start]], window_tokens)), 1)
        so_far = np.cumsum(windows[start : start + max_rows])
        end = start + max(int(np.searchsorted(so_far, token_budget // longest, side="right")), 1)
        batches.append(rows[start:end])
        start = end
    return batches


def _width(lengths: np.ndarray, window_tokens: int | None) -> np.ndarray:
    """How wide rows of so many tokens are in a batch."""
    return lengths if window_tokens is None else np.minimum(lengths, window_tokens)


def _budget_cuts(
    lengths: np.ndarray, window_rows: int, step_size: int, token_budget: int, window_tokens: int | None
) -> np.ndarray:
    """Where each step begins, int64. lengths: in windows of `window_rows`, ascending inside each."""
    sequences, widths = windows_of(lengths, window_tokens), _width(lengths, window_tokens)
    cuts = []
    start, n = 0, len(lengths)
    while start < n:
        cuts.append(start)
        end = min(start + step_size, (start // window_rows + 1) * window_rows)
        padded = widths[start:end] * np.cumsum(sequences[start:end])  # ascending, as both factors are
        start += max(int(np.searchsorted(padded, token_budget, side="right")), 1)
    return np.array(cuts, dtype=np.int64)


def _bits(seed: int, epoch: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=stream * _STREAM)
