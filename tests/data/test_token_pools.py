"""Tokens of a large table: what is made in the background, pool by pool, is what the tokenizer gives at once."""

import errno
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.lengths import LengthPolicy
from snapfit.data.batches import PoolSizes, block_pools, block_rows_of
from snapfit.data.token_pools import PooledTokens
from snapfit.data.tokenizer import TextTokenizer, TokenIds

N, SIZES = 203, PoolSizes(pool_rows=32, block_rows=8)
TEXTS = pa.array([f"bread number {i} and honey {'again ' * (i % 7)}" for i in range(N)], pa.large_string())
PAIRS = pa.array([f"a boat {'of two ' * (i % 3)}" for i in range(N)], pa.large_string())
ARRAYS = ("ids", "offsets", "second_start", "uncut")


@pytest.fixture(params=["head", "windows"])
def tokenizer(tiny_tokenizer_json: Path, request: pytest.FixtureRequest) -> TextTokenizer:
    policy = LengthPolicy(request.param, max_windows=2)
    return TextTokenizer.from_file(
        tiny_tokenizer_json, max_tokens=16 if request.param == "head" else 9, pad_id=0, policy=policy
    )


@pytest.fixture
def make(tokenizer: TextTokenizer, tmp_path: Path) -> Iterator[Any]:
    made: list[PooledTokens] = []

    def tokens(texts: Any = TEXTS, pairs: Any = None, cache: Path | None = tmp_path, seed: int = 1) -> PooledTokens:
        made.append(PooledTokens(tokenizer, texts, pairs, content_hash="x", cache_dir=cache, seed=seed, sizes=SIZES))
        return made[-1]

    yield tokens
    for one in made:
        one.close()


def same(a: TokenIds, b: TokenIds) -> bool:
    return a.window_tokens == b.window_tokens and all(
        np.array_equal(getattr(a, x), getattr(b, x)) and getattr(a, x).dtype == getattr(b, x).dtype for x in ARRAYS
    )


def everything(tokens: PooledTokens) -> TokenIds:
    return tokens.take(np.arange(N))


def pools(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.rglob("MANIFEST.json"))


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("cached", [True, False])
def test_rows_are_those_of_the_tokenizer(
    make: Any, tokenizer: TextTokenizer, tmp_path: Path, pairs: Any, cached: bool
) -> None:
    direct = tokenizer.encode(TEXTS, pairs)
    tokens = make(pairs=pairs, cache=tmp_path if cached else None)
    rows = np.random.default_rng(0).integers(0, N, 50)
    assert same(tokens.take(rows), direct.take(rows))
    assert tokens.lengths_of(rows).tolist() == direct.lengths[rows].tolist()
    assert same(everything(tokens), direct)
    assert same(everything(make(pairs=pairs, cache=tmp_path if cached else None)), direct)
    assert len(tokens) == len(tokens.lengths) == N
    assert len(pools(tmp_path)) == (7 if cached else 0)
    assert len(tokens.take(np.array([], dtype=np.int64))) == 0


class Gate:
    """A column whose later rows are only given once it is open."""

    def __init__(self, free: set[int]) -> None:
        self.free, self.open, self.asked = free, threading.Event(), 0

    def __len__(self) -> int:
        return N

    def slice(self, start: int, n: int) -> Any:
        if start not in self.free:
            self.asked += 1
            self.open.wait(timeout=60)
        return TEXTS.slice(start, n)


def test_the_first_pool_is_there_before_the_others(make: Any, tokenizer: TextTokenizer) -> None:
    first = block_pools(N, seed=1, epoch=0, sizes=SIZES)[0]
    gate = Gate(set((first * SIZES.block_rows).tolist()))
    tokens = make(gate)
    rows = block_rows_of(first, N, SIZES)
    assert same(tokens.take(rows), tokenizer.encode(TEXTS).take(rows))
    assert (tokens.n_made, tokens.n_pools) == (1, 7)
    gate.open.set()
    assert same(everything(tokens), tokenizer.encode(TEXTS))


def test_what_was_cut_short_goes_on_where_it_ended(make: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    first = block_pools(N, seed=1, epoch=0, sizes=SIZES)[0]
    gate = Gate(set((first * SIZES.block_rows).tolist()))
    tokens = make(gate)
    tokens.take(block_rows_of(first, N, SIZES))
    closing = threading.Thread(target=tokens.close)
    closing.start()
    while not tokens._closed:
        time.sleep(0.001)
    gate.open.set()
    closing.join()
    (whole,) = pools(tmp_path)
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]  # nothing half-written
    with pytest.raises(WorkFailed, match="ended"):
        everything(tokens)
    written = whole.stat().st_mtime_ns
    assert same(everything(make()), tokenizer.encode(TEXTS))
    assert whole.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "MANIFEST.json"])
def test_damage_costs_only_time(make: Any, tokenizer: TextTokenizer, tmp_path: Path, name: str) -> None:
    everything(make())
    path = pools(tmp_path)[3] / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert same(everything(make()), tokenizer.encode(TEXTS))
    assert path.read_bytes() == data


def test_another_seed_reads_what_is_whole(make: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    everything(make(seed=1))
    before = pools(tmp_path)
    assert same(everything(make(seed=2)), tokenizer.encode(TEXTS))
    assert pools(tmp_path) == before
    (before[2] / "MANIFEST.json").unlink()
    assert same(everything(make(seed=2)), tokenizer.encode(TEXTS))
    assert len(pools(tmp_path)) == 6 + 7


class Broken:
    """A column that fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self) -> int:
        return N

    def slice(self, start: int, n: int) -> Any:
        if start > 64:
            raise self.error
        return TEXTS.slice(start, n)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.ENOSPC, "No space left on device"), WorkFailed), (KeyError("odd"), KeyError)],
)
def test_an_error_in_the_background_reaches_whoever_waits(make: Any, error: Exception, kind: type[Exception]) -> None:
    tokens = make(Broken(error))
    for _ in range(2):
        with pytest.raises(kind, match="SNAPFIT_CACHE" if kind is WorkFailed else "odd"):
            everything(tokens)


def test_a_disk_that_is_full(make: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokens, before = make(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(WorkFailed, match="SNAPFIT_CACHE"):
            everything(tokens)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert pools(tmp_path) == []
    assert same(everything(make()), tokenizer.encode(TEXTS))


class Values(list[str]):
    """Texts that Arrow would not take."""

    def slice(self, start: int, n: int) -> Any:
        return pa.array([], pa.string()) if start >= len(self) else _Plain(self[start : start + n])


class _Plain(list[str]):
    def to_pylist(self) -> list[str]:
        return list(self)


def test_a_text_that_is_not_unicode_is_named(make: Any) -> None:
    texts = Values(TEXTS.to_pylist())
    texts[150] = "half \ud800 a pair"
    with pytest.raises(BadInput, match="row 151 has half of a surrogate pair"):
        everything(make(texts))


def test_a_cache_that_cannot_be_made_is_done_without(make: Any, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert same(everything(make(cache=tmp_path / "file")), tokenizer.encode(TEXTS))
    assert (tmp_path / "file").read_text() == "not a folder"


def test_nothing_runs_before_rows_are_asked_for(make: Any) -> None:
    tokens = make(Broken(RuntimeError("asked")))
    assert len(tokens.lengths) == N
    tokens.close()
