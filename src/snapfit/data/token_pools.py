"""Token ids of a large table, pool by pool: made in the background, in the order in which the first epoch reads them.

The rows of each pool of the first epoch (see batches.py) are one entry of the token cache, whole or not there. So the
first step can be taken when the first pool is tokenised, what was cut short goes on where it ended, a damaged entry is
made again, and what is in memory is bounded whatever the table's size. When the ids are made decides nothing about
them, nor about the order of rows.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from snapfit.core.errors import SnapfitError, WorkFailed
from snapfit.core.files import make_folder
from snapfit.core.folders import MANIFEST
from snapfit.core.maps import release_pages, touched
from snapfit.data.batches import SIZES, PoolSizes, block_pools, n_block_rows
from snapfit.data.cutting import token_places
from snapfit.data.token_cache import entry_name, read_entry, write_entry
from snapfit.data.tokenizer import EncodedChunk, TextTokenizer, TokenIds

_RELEASE_EVERY = 16  # blocks


class TextColumn(Protocol):
    """Texts of a large table."""

    def __len__(self) -> int: ...

    def slice(self, start: int, n: int) -> Any:
        """Rows from `start` on, `n` or as many as there are, with `to_pylist`."""
        ...


class PooledTokens:
    """Token ids of a large table, waiting for those that are not yet made. A TokenRows.

    texts, pairs: the columns. content_hash: of both. cache_dir: where entries are kept; None, or a folder that cannot
    be made, keeps them in memory. seed: of the training, whose first epoch gives the order of tokenising; a table that
    was wholly tokenised for another seed is taken as it is. sizes: how the table is cut.
    Nothing is done before the first row is asked for. Whatever then goes wrong in the background, such as BadInput for
    a text that is not Unicode or WorkFailed for a full disk, is raised to whoever asks for rows.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        texts: TextColumn,
        pairs: TextColumn | None,
        *,
        content_hash: str,
        cache_dir: Path | None,
        seed: int,
        sizes: PoolSizes = SIZES,
    ) -> None:
        self._tokenizer, self._texts, self._pairs = tokenizer, texts, pairs
        self._n, self._sizes = len(texts), sizes
        self._folder = None if cache_dir is None else _made(cache_dir / "tokens", tokenizer, pairs, content_hash)
        self._pools = block_pools(self._n, seed=seed, epoch=0, sizes=sizes)
        if self._folder is not None:
            found = _whole_layout(self._folder, seed, len(self._pools), sizes)
            self._pools = block_pools(self._n, seed=found, epoch=0, sizes=sizes)
            self._folder = self._folder / _layout_name(found, sizes)
        self._pool_of, self._start = _places(self._pools, self._n, sizes.block_rows)
        self._made: list[TokenIds | None] = [None] * len(self._pools)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._closed = False

    def __len__(self) -> int:
        return self._n

    @property
    def lengths(self) -> "_Lengths":
        """Tokens of each row, found as they are asked for."""
        return _Lengths(self)

    @property
    def window_tokens(self) -> int | None:
        """As in TokenIds."""
        return self._tokenizer.window_tokens

    @property
    def n_made(self) -> int:
        """How many pools are tokenised by now."""
        return sum(made is not None for made in self._made)

    @property
    def n_pools(self) -> int:
        """How many pools there are."""
        return len(self._pools)

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of these rows, int64 [m]. rows: int [m], from 0 to n - 1."""
        lengths = np.empty(len(rows), dtype=np.int64)
        for tokens, places, chosen in self._by_pool(rows):
            lengths[chosen] = tokens.lengths_of(places)
        return lengths

    def take(self, rows: np.ndarray) -> TokenIds:
        """The rows at these indices, in this order, copied. rows: int [m], from 0 to n - 1."""
        parts = [(tokens.take(places), chosen) for tokens, places, chosen in self._by_pool(rows)]
        lengths = np.empty(len(rows), dtype=np.int64)
        seconds = np.empty(len(rows), dtype=self._tokenizer.place_dtype)
        uncut = np.empty((len(rows), 1 if self._pairs is None else 2), dtype=np.uint32)
        for part, chosen in parts:
            assert part.uncut is not None  # which a tokenizer always tells
            lengths[chosen], seconds[chosen], uncut[chosen] = part.lengths, part.second_start, part.uncut
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        ids = np.empty(int(offsets[-1]), dtype=self._tokenizer.id_dtype)
        for part, chosen in parts:
            ids[token_places(offsets[chosen], part.lengths)] = part.ids
        return TokenIds(ids, offsets, seconds, self.window_tokens, uncut)

    def close(self) -> None:
        """End tokenising in the background; pools that are whole stay in the cache."""
        with self._changed:
            self._closed = True
        if self._thread is not None:
            self._thread.join()

    # ---------------------------------------------------------------- who asks

    def _by_pool(self, rows: np.ndarray) -> Iterator[tuple[TokenIds, np.ndarray, np.ndarray]]:
        """(the pool's tokens, places in them, where these are among `rows`) of each pool that has some of the rows."""
        rows = np.asarray(rows, dtype=np.int64)
        blocks = rows // self._sizes.block_rows
        pools, places = self._pool_of[blocks], self._start[blocks] + rows % self._sizes.block_rows
        for pool in np.unique(pools).tolist():
            chosen = np.flatnonzero(pools == pool)
            yield self._wait_for(pool), places[chosen], chosen
            touched(len(chosen))

    def _wait_for(self, pool: int) -> TokenIds:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._make_all, name="snapfit-tokenise", daemon=True)
                self._thread.start()
            while (made := self._made[pool]) is None:
                if self._error is not None:
                    raise self._error
                if self._closed:
                    raise WorkFailed("rows were asked for after tokenising was ended")
                self._changed.wait()
            return made

    # ---------------------------------------------------------------- in the background

    def _make_all(self) -> None:
        try:
            for pool in range(len(self._pools)):
                tokens = self._make(pool)
                release_pages()
                with self._changed:
                    self._made[pool] = tokens
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, who waits for rows must hear of it
            with self._changed:
                self._error = None if isinstance(error, _Closed) else error
                self._changed.notify_all()

    def _make(self, pool: int) -> TokenIds:
        """A pool's tokens: from the cache, or tokenised and written there."""
        n = n_block_rows(self._pools[pool], self._n, self._sizes)
        if self._folder is None:
            return self._tokenizer.joined(list(self._encoded(pool)), pair=self._pairs is not None)
        folder = self._folder / f"{pool:06d}"
        found = read_entry(folder, n, self._tokenizer)
        if found is None:
            try:
                write_entry(folder, self._encoded(pool), self._tokenizer)
            except OSError as error:
                raise WorkFailed(f"could not write token ids to {folder}: {error.strerror or error}") from error
            except WorkFailed as error:
                raise WorkFailed(f"{error}; free space there, or set SNAPFIT_CACHE to a folder that has it") from error
            found = read_entry(folder, n, self._tokenizer)
        if found is None:
            raise WorkFailed(f"token ids in {folder} are not what was written: check the disk")
        return found

    def _encoded(self, pool: int) -> Iterator[EncodedChunk]:
        return self._tokenizer.encode_chunks(self._chunks(pool), pair=self._pairs is not None)

    def _chunks(self, pool: int) -> Iterator[tuple[int, list[Any]]]:
        """The texts of a pool, block by block, with the number of their first row."""
        for number, block in enumerate(self._pools[pool].tolist()):
            if self._closed:
                raise _Closed
            if number % _RELEASE_EVERY == 0:
                release_pages()
            start = block * self._sizes.block_rows
            first = self._texts.slice(start, self._sizes.block_rows).to_pylist()
            if self._pairs is None:
                yield start, first
            else:
                yield start, list(zip(first, self._pairs.slice(start, self._sizes.block_rows).to_pylist(), strict=True))


class _Lengths:
    """Lengths of rows by row."""

    def __init__(self, tokens: PooledTokens) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens.lengths_of(rows)


class _Closed(SnapfitError):
    """Tokenising in the background was ended."""


def _made(parent: Path, tokenizer: TextTokenizer, pairs: TextColumn | None, content_hash: str) -> Path | None:
    """The folder of a table's pools; None where it cannot be made."""
    folder = parent / f"{entry_name(tokenizer, pair=pairs is not None, content_hash=content_hash)}.pools"
    try:
        make_folder(folder)
    except OSError:
        return None
    return folder


def _layout_name(seed: int, sizes: PoolSizes) -> str:
    return f"{seed}-{sizes.pool_rows}-{sizes.block_rows}"


def _whole_layout(folder: Path, seed: int, n_pools: int, sizes: PoolSizes) -> int:
    """The seed whose layout to use: the training's own, but for one for which all pools are there already."""
    own, ending = _layout_name(seed, sizes), _layout_name(0, sizes)[1:]
    if not (folder / own).is_dir():
        for other in sorted(folder.glob(f"*{ending}")):
            whole = all((other / f"{pool:06d}" / MANIFEST).is_file() for pool in range(n_pools))
            if whole and other.name.removesuffix(ending).isdigit():
                return int(other.name.removesuffix(ending))
    return seed


def _places(pools: list[np.ndarray], n: int, block_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The pool of each block, int32, and the block's first place in it, int64."""
    pool_of, start = np.empty(-(-n // block_rows), np.int32), np.empty(-(-n // block_rows), np.int64)
    for pool, blocks in enumerate(pools):
        sizes = np.minimum(n - blocks * block_rows, block_rows)
        pool_of[blocks], start[blocks] = pool, np.cumsum(sizes) - sizes
    return pool_of, start
