"""Near-duplicates: texts that differ in a few characters, found without comparing all with all.

MinHash signatures of character n-grams (Broder 1997; by the library rensa, in Rust) put similar texts into the same
buckets (Indyk and Motwani 1998); what meets in a bucket is then compared exactly (by rapidfuzz, in C++). So whatever is
reported is near, while a pair that never meets in a bucket is missed: `benchmarks/check.py` measures how many are.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snapfit.core.errors import BadInput, MissingExtra

SIMILARITY = 0.9
"""Shares of characters that two near texts have in common, in order: 1 - indel distance / characters of both."""
LEAST, MOST = 0.8, 1.0
"""Below the least too many pairs are missed to say that a table has none."""
MOST_TEXTS = 2**21
"""Texts that are compared at most; signatures of so many take two thirds of a gigabyte."""

_BANDS, _BAND_ROWS = 20, 4
"""A pair that shares 60 % of its n-grams meets in one of the bands with a chance of 94 %, at 70 % with 99.6 %."""
_SLAB_ROWS, _SLAB_CHARACTERS = 32_768, 2**21
"""What is hashed at a time."""
_COMPARED = 20_000
"""Characters of a text that are compared, from its beginning: the time that takes grows with their square."""
_LEAST_LETTERS = 5
"""Texts of fewer letters and digits are not compared: of "ok" and "OK!" nothing follows."""
_MOST_APART = 48
"""Of a bucket with more texts, each is compared with so many of its neighbours only."""
_BAND_PAIRS = 4
"""Pairs that are compared in a band at most, for each text: in tables that are made from a few templates."""
_VERIFIED_PAIRS = 131_072
_LEAST_ESTIMATE = 0.25
"""Pairs that share fewer n-grams by their signatures are not compared: near ones of these lengths share more."""
_WORDS = r"[^\p{L}\p{M}\p{N}]+"
_DENSE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""Scripts whose words are a few characters long: their n-grams are pairs, those of other scripts are triples."""
_MIX = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SEED = 7


@dataclass(frozen=True)
class NearTexts:
    """For each text, one that is near it in each group, or -1.

    twins: int64 [n, n_groups], the number of that text. similarity: float32 [n, n_groups], 0 where there is none.
    """

    twins: np.ndarray
    similarity: np.ndarray


def need_libraries() -> None:
    """Raise MissingExtra where what the search needs is not installed."""
    for name in ("rensa", "rapidfuzz"):
        try:
            __import__(name)
        except ImportError as error:
            raise MissingExtra("check", name) from error


def check_similarity(similarity: float) -> None:
    """Raise BadInput for a similarity that cannot be searched for."""
    if not LEAST <= similarity <= MOST:
        raise BadInput(f"a similarity of {similarity:g}", f"{LEAST:g} to {MOST:g}, or off", "--near 0.9")


def near_texts(
    texts: pa.ChunkedArray,
    pairs: pa.ChunkedArray | None,
    groups: np.ndarray,
    *,
    n_groups: int = 1,
    similarity: float = SIMILARITY,
    told: Callable[[str], None] = lambda text: None,
) -> NearTexts:
    """For each text a near one in each group, where the search meets one.

    texts, pairs: large_string, without nulls; of pairs both texts must be near. groups: of each text, int [n], from 0
    to n_groups - 1, such as its split. similarity: see SIMILARITY; compared are letters and digits in lower case, of
    texts longer than _COMPARED characters their beginning.
    told: hears of each stage. Takes some 600 bytes for each text.
    Raises MissingExtra without rensa and rapidfuzz, BadInput for a similarity out of range.
    """
    need_libraries()
    check_similarity(similarity)
    search = _Search(_plain(texts), None if pairs is None else _plain(pairs), groups, n_groups, similarity)
    told(f"near-duplicates: signatures of {len(texts):,} texts")
    search.sign()
    for band in range(_BANDS):
        if band % 5 == 0:
            told(f"near-duplicates: comparing, part {band // 5 + 1} of {_BANDS // 5}")
        search.compare(band)
    return NearTexts(search.twins, search.similarity)


class _Search:
    """What is known of the texts while band after band is compared."""

    def __init__(
        self, texts: pa.Array, pairs: pa.Array | None, groups: np.ndarray, n_groups: int, similarity: float
    ) -> None:
        self._columns = [texts] if pairs is None else [texts, pairs]
        self._groups, self._least = groups.astype(np.int64), similarity
        self._n = len(texts)
        self._lengths = [pc.utf8_length(column).to_numpy().astype(np.int64) for column in self._columns]
        self.twins = np.full((self._n, n_groups), -1, dtype=np.int64)
        self.similarity = np.zeros((self._n, n_groups), dtype=np.float32)
        self._signatures = np.zeros((0, 0), dtype=np.uint32)
        self._workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def sign(self) -> None:
        """Make the signatures."""
        from rensa import RMinHash

        size = _gram_size(self._columns)
        self._signatures = np.empty((self._n, _BANDS * _BAND_ROWS), dtype=np.uint32)
        for start, n in _slabs(sum(self._lengths)):
            slab = [column.slice(start, n) for column in self._columns]
            hashes, offsets = _grams(slab, size)
            matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, _BANDS * _BAND_ROWS, _SEED)
            self._signatures[start : start + n] = np.array(matrix.to_rows(), dtype=np.uint32)

    def compare(self, band: int) -> None:
        """Compare what is in one bucket of a band."""
        first, second = self._candidates(band)
        for start in range(0, len(first), _VERIFIED_PAIRS):
            chosen = slice(start, start + _VERIFIED_PAIRS)
            one, other = first[chosen], second[chosen]
            wanted = self._is_news(one, other)  # again: earlier ones of this band may have told
            self._verify(one[wanted], other[wanted])

    def _candidates(self, band: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of texts that are in one bucket of a band, may be near by their lengths, and would be news."""
        keys = _joined(self._signatures[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS])
        beside = (band + 1) % _BANDS  # within a bucket likely pairs are neighbours
        near = _joined(self._signatures[:, beside * _BAND_ROWS : (beside + 1) * _BAND_ROWS])
        order = np.lexsort((near, keys))
        keys = keys[order]
        shared = np.zeros(self._n, dtype=bool)
        shared[1:] = keys[1:] == keys[:-1]
        shared[:-1] |= shared[1:]
        order, keys = order[shared], keys[shared]
        found: list[tuple[np.ndarray, np.ndarray]] = []
        room = _BAND_PAIRS * self._n
        for apart in range(1, _MOST_APART + 1):
            same = keys[apart:] == keys[:-apart]
            if not same.any() or room <= 0:
                break
            one, other = order[:-apart][same], order[apart:][same]
            kept = self._may_be_near(one, other) & self._is_news(one, other)
            found.append((one[kept], other[kept]))
            room -= int(kept.sum())
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        first, second = (np.concatenate(part) for part in zip(*found, strict=True))
        likely = self._estimate(first, second) >= _LEAST_ESTIMATE
        return first[likely], second[likely]

    def _estimate(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The share of n-grams that two texts have in common, by their signatures, float64 [m]."""
        shares = np.empty(len(one))
        for start in range(0, len(one), _VERIFIED_PAIRS):
            part = slice(start, start + _VERIFIED_PAIRS)
            shares[part] = (self._signatures[one[part]] == self._signatures[other[part]]).mean(axis=1)
        return shares

    def _may_be_near(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether lengths allow the similarity: characters that only one text can have are at most what it leaves."""
        fits = np.asarray(sum(lengths[one] for lengths in self._lengths) >= _LEAST_LETTERS)
        for lengths in self._lengths:
            a, b = lengths[one], lengths[other]
            fits &= np.abs(a - b) <= (1.0 - self._least) * (a + b) + 1e-9
        return fits

    def _is_news(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether one of two texts has no near text in the other's group yet."""
        groups = self._groups
        return np.asarray((self.twins[one, groups[other]] < 0) | (self.twins[other, groups[one]] < 0))

    def _verify(self, one: np.ndarray, other: np.ndarray) -> None:
        from rapidfuzz.distance import Indel
        from rapidfuzz.process import cpdist

        if not len(one):
            return
        least = np.ones(len(one), dtype=np.float32)
        for column in self._columns:
            texts = [column.take(pa.array(rows)).to_pylist() for rows in (one, other)]
            shares: Any = cpdist(
                *texts,
                scorer=Indel.normalized_similarity,
                score_cutoff=self._least,
                dtype=np.float32,
                workers=self._workers,
            )
            least = np.minimum(least, shares)
        near = np.flatnonzero(least >= np.float32(self._least))
        for i in near[np.argsort(least[near], kind="stable")].tolist():  # the nearest last: it stays
            self._note(int(one[i]), int(other[i]), float(least[i]))

    def _note(self, one: int, other: int, similarity: float) -> None:
        for a, b in ((one, other), (other, one)):
            group = self._groups[b]
            if similarity >= self.similarity[a, group]:
                self.twins[a, group], self.similarity[a, group] = b, similarity


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Texts in lower case, compatibility forms made one, whatever is no letter or digit a single space."""
    parts = []
    for start in range(0, len(column), _SLAB_ROWS):
        for chunk in column.slice(start, _SLAB_ROWS).chunks:
            begun = pc.utf8_slice_codeunits(chunk, 0, _COMPARED)
            words = pc.replace_substring_regex(pc.utf8_lower(pc.utf8_normalize(begun, form="NFKC")), _WORDS, " ")
            parts.append(pc.utf8_trim_whitespace(words))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())


def _slabs(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of pieces of a bounded size. lengths: characters of each row."""
    ends = np.cumsum(lengths)
    start, before = 0, 0
    while start < len(ends):
        n = int(np.searchsorted(ends, before + _SLAB_CHARACTERS, side="right")) - start
        n = min(max(n, 1), _SLAB_ROWS)
        yield start, n
        start, before = start + n, int(ends[start + n - 1])


def _gram_size(columns: list[pa.Array]) -> int:
    """2 where most characters are of scripts with short words, else 3; by the first texts."""
    sample = pa.concat_arrays([column.slice(0, 10_000) for column in columns])
    dense = pc.sum(pc.count_substring_regex(sample, _DENSE)).as_py() or 0
    return 2 if 2 * dense > (pc.sum(pc.utf8_length(sample)).as_py() or 0) else 3


def _grams(columns: list[pa.Array], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of each row, one row after another, and where each row begins: uint64 each.

    A row shorter than an n-gram has one hash, of what there is.
    """
    rows = [" \n ".join(texts) for texts in zip(*(column.to_pylist() for column in columns), strict=True)]
    padded = [row.ljust(size) for row in rows]
    sizes = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    letters = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashes = letters[: len(letters) - size + 1].copy()
    for place in range(1, size):
        hashes = hashes * _MIX[0] + letters[place : len(letters) - size + 1 + place]
    hashes = _mixed(hashes)
    counts = sizes - (size - 1)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    starts = np.cumsum(sizes) - sizes
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return hashes[places], offsets.astype(np.uint64)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Each number as good as random, after splitmix64 (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[1]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[2]
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _joined(columns: np.ndarray) -> np.ndarray:
    """One number for the numbers of each row, uint64 [n]."""
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = _mixed((keys + _MIX[0]) ^ column)
    return keys
