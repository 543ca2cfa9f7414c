"""Texts to token ids: the Rust tokenizer of a tokenizer.json, cut to a length, kept in flat arrays.

A million texts are three numpy arrays, not a million Python lists: all ids one after another, where each row
begins, and where its second text begins. They can be written to a file and memory-mapped as they are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from snapfit.core.errors import BadInput, WorkFailed

Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray

EncodedChunk: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""ids [tokens], lengths int64 [rows] and second_start [rows] of a piece, as in TokenIds."""

CHUNK_ROWS = 1024
"""Rows that are tokenised at a time: tokenizers' own result objects are far larger than the ids; few live at a time."""


class TokenRows(Protocol):
    """Tokenised rows that may be anywhere: in memory, in mapped files, or still to be made."""

    def __len__(self) -> int: ...

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of these rows, int64 [m]. rows: int [m]."""
        ...

    def take(self, rows: np.ndarray) -> "TokenIds":
        """The rows at these indices, in this order, copied. rows: int [m]."""
        ...

    def close(self) -> None:
        """End whatever goes on for these rows in the background."""
        ...


@dataclass(frozen=True)
class TokenIds:
    """Rows of token ids, special tokens included, without padding.

    ids: uint16 or uint32 [n_tokens], all rows one after another. offsets: int64 [n + 1]; row i is
    ids[offsets[i]:offsets[i + 1]]. second_start: uint16 or uint32 [n], the index in the row where token type
    1 begins; the row's length where there is none.
    """

    ids: np.ndarray
    offsets: np.ndarray
    second_start: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [n]."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of these rows, int64 [m]. rows: int [m], from 0 to n - 1."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths: np.ndarray = self.offsets[rows + 1] - self.offsets[rows]
        return lengths

    def close(self) -> None:
        """Nothing goes on in the background."""

    def take(self, rows: np.ndarray) -> "TokenIds":
        """The rows at these indices, in this order, copied. rows: int [m], from 0 to n - 1."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return TokenIds(self.ids[token_places(self.offsets[rows], lengths)], offsets, self.second_start[rows])


def token_places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of all tokens of rows that begin at `starts`, one row after another, int64 [sum of lengths]."""
    before = np.cumsum(lengths) - lengths
    places: np.ndarray = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return places


class TextTokenizer:
    """A tokenizer.json with a length limit. It holds nothing that changes: threads may share it.

    max_tokens: rows are cut to it, special tokens included; of a pair the longer text is cut first.
    pad_id: what batches are padded with; a row without any token becomes this one token, so that every row
    has something to attend to. identity: SHA-256 of the tokenizer.json. id_dtype, place_dtype: uint16 where every id,
    and every place in a row, fits.
    Truncation and padding that are set in the file are replaced.
    """

    def __init__(self, tokenizer: Tokenizer, *, identity: str, max_tokens: int, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self.identity = identity
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        largest = max([pad_id, *tokenizer.get_vocab(with_added_tokens=True).values()])
        self.id_dtype: np.dtype[Any] = np.dtype(np.uint16 if largest < 2**16 else np.uint32)
        self.place_dtype: np.dtype[Any] = np.dtype(np.uint16 if max_tokens < 2**16 else np.uint32)
        self._check_limit(pair=False)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens, strategy="longest_first", direction="right")
        self._types_of_pairs = self._check_types()

    @classmethod
    def from_file(cls, path: str | Path, *, max_tokens: int, pad_id: int) -> "TextTokenizer":
        """Read a tokenizer.json. Raises BadInput when it is missing, or no tokenizer of the `tokenizers`
        library.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            found = f"{path} cannot be read ({error.strerror or error})"
            raise BadInput(found, "a tokenizer.json", "check the path and its permissions") from error
        return cls._from(content, where=str(path), max_tokens=max_tokens, pad_id=pad_id)

    @classmethod
    def from_bytes(cls, content: bytes, *, max_tokens: int, pad_id: int) -> "TextTokenizer":
        """As `from_file`, from the file's content."""
        return cls._from(content, where="the tokenizer.json given", max_tokens=max_tokens, pad_id=pad_id)

    @classmethod
    def _from(cls, content: bytes, *, where: str, max_tokens: int, pad_id: int) -> "TextTokenizer":
        try:
            tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            found = f"{where} is not a tokenizer that can be read ({error})"
            fix = "copy the tokenizer.json of the encoder again, or upgrade the package tokenizers"
            raise BadInput(found, "the JSON of a fast tokenizer", fix) from error
        identity = hashlib.sha256(content).hexdigest()
        return cls(tokenizer, identity=identity, max_tokens=max_tokens, pad_id=pad_id)

    def n_special(self, pair: bool) -> int:
        """How many special tokens are added to a text, or to a pair."""
        return int(self._tokenizer.num_special_tokens_to_add(pair))

    def encode(self, texts: Texts, pairs: Texts | None = None) -> TokenIds:
        """Token ids of texts, or of pairs of them.

        texts, pairs: str, as a sequence or an Arrow array without nulls; pairs as many as texts. Raises
        BadInput when they are not, when a text is not valid Unicode, and when max_tokens leaves no room for
        a pair.
        """
        if pairs is not None and len(pairs) != len(texts):
            found = f"{len(texts)} texts and {len(pairs)} second texts"
            raise BadInput(found, "as many second texts as texts", "pass two columns of one table")
        parts = list(self.encode_chunks(_chunks(texts, pairs), pair=pairs is not None))
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(_joined([lengths for _, lengths, _ in parts], offsets.dtype), out=offsets[1:])
        ids = _joined([ids for ids, _, _ in parts], self.id_dtype)
        return TokenIds(ids, offsets, _joined([seconds for _, _, seconds in parts], self.place_dtype))

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[TokenIds, Any]:
        """A row as `encode` makes it, and the tokenizers library's account of it, which says where each token is from.

        texts: the one text, or the two of a pair. Raises as `encode` does.
        """
        (row,) = self._encode([texts[0] if len(texts) == 1 else tuple(texts)], 0, offsets=True)
        first, *second = [[text] for text in texts]
        return self.encode(first, *second), row

    def id_of(self, piece: str) -> int | None:
        """The id of a piece of the vocabulary; None where there is no such piece."""
        found: int | None = self._tokenizer.token_to_id(piece)
        return found

    def encode_chunks(self, chunks: Iterable[tuple[int, list[Any]]], *, pair: bool) -> Iterator[EncodedChunk]:
        """As `encode`, piece by piece: nothing but the piece at hand is held.

        chunks: (number of the first row from 0, texts or pairs of them), about CHUNK_ROWS at a time.
        """
        if pair:
            self._check_limit(pair=True)
        for start, chunk in chunks:
            encodings = self._encode(chunk, start)
            rows = [encoding.ids or [self.pad_id] for encoding in encodings]
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            flat = chain.from_iterable(rows)
            ids = np.fromiter(flat, dtype=self.id_dtype, count=int(lengths.sum()))
            seconds = lengths
            if pair and self._types_of_pairs:
                ones = (sum(encoding.type_ids) for encoding in encodings)
                seconds = lengths - np.fromiter(ones, dtype=np.int64, count=len(rows))
            yield ids, lengths, seconds.astype(self.place_dtype)

    def _encode(self, chunk: list[Any], start: int, *, offsets: bool = False) -> list[Any]:
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            encodings: list[Any] = encode(chunk, add_special_tokens=True)
        except (TypeError, UnicodeEncodeError) as error:
            _check_texts(chunk, start)
            raise WorkFailed(f"the tokenizer failed on rows from {start + 1} on: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # which the library's Rust raises, and no module exports
                raise
            raise WorkFailed(
                f"the tokenizer broke down on rows from {start + 1} on, as when memory or threads run out: {error}"
            ) from error
        return encodings

    def _check_limit(self, *, pair: bool) -> None:
        texts = "a pair of texts" if pair else "a text"
        least = self.n_special(pair) + (2 if pair else 1)
        if self.max_tokens < least:
            found = f"max_tokens {self.max_tokens}, with {self.n_special(pair)} special tokens in {texts}"
            fix = f"--set length.max_tokens={max(least, 128)}"
            raise BadInput(found, f"at least {least}", fix)

    def _check_types(self) -> bool:
        """Whether pairs have token type 1. A file's template is the same for all texts: two probes tell."""
        single = self._tokenizer.encode("a").type_ids
        has_room = self.max_tokens >= self.n_special(True) + 2
        pair = self._tokenizer.encode("a", "a").type_ids if has_room else []
        if any(single) or sorted(pair) != pair or not {0, 1}.issuperset(pair):
            found = f"a tokenizer whose token types are {single} for a text and {pair} for a pair"
            fix = "use an encoder of the BERT family"
            raise BadInput(found, "type 0, and after it type 1 for a second text", fix)
        return 1 in pair


def _chunks(texts: Texts, pairs: Texts | None) -> Iterator[tuple[int, list[Any]]]:
    """(index of the first row, what the tokenizer takes) of every chunk."""
    for start in range(0, len(texts), CHUNK_ROWS):
        first = _values(texts, start)
        yield start, first if pairs is None else list(zip(first, _values(pairs, start), strict=True))


def _values(texts: Texts, start: int) -> list[Any]:
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        return list(texts.slice(start, CHUNK_ROWS).to_pylist())
    return list(texts[start : start + CHUNK_ROWS])


def _joined(parts: list[np.ndarray], dtype: "np.dtype[Any]") -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _check_texts(chunk: list[Any], start: int) -> None:
    """Raise BadInput naming the first row that is not a text."""
    for row, item in enumerate(chunk, start + 1):
        for text in item if isinstance(item, tuple) else (item,):
            if not isinstance(text, str):
                found = f"row {row} is {text!r} ({type(text).__name__})"
                raise BadInput(found, "texts (str)", "leave out or fill in rows without a text")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                found = f"row {row} has half of a surrogate pair at character {error.start}"
                fix = "decode the text from its source again, or text.encode('utf-8', 'replace').decode()"
                raise BadInput(found, "valid Unicode", fix) from error
