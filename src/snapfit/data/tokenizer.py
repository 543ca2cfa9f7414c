"""Texts to token ids: the Rust tokenizer of a tokenizer.json, cut to a length, kept in flat arrays.

A million texts are a few numpy arrays, not a million Python lists: all ids one after another, where each row
begins, and where its second text begins. They can be written to a file and memory-mapped as they are.
Texts are tokenised whole and cut afterwards (`cutting.py`), so that how long they were is known.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.lengths import HEAD, LengthPolicy
from snapfit.data.cutting import Content, Part, Template, cut, token_places

Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray

EncodedChunk: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""ids [tokens], lengths int64 [rows], second_start [rows] and uncut [rows, texts] of a piece, as in TokenIds."""

CHUNK_ROWS = 1024
"""Rows that are tokenised at a time: tokenizers' own result objects are far larger than the ids; few live at a time."""
CHUNK_CHARACTERS = 4_000_000
"""And characters, but for a single row that has more: such objects take some forty bytes for each."""
_PROBES = ("a", "A", "0", ".", "的")
"""Texts of which a tokenizer makes tokens, one or another."""


class TokenRows(Protocol):
    """Tokenised rows that may be anywhere: in memory, in mapped files, or still to be made."""

    def __len__(self) -> int: ...

    @property
    def window_tokens(self) -> int | None:
        """As in TokenIds."""
        ...

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
    window_tokens: where a row may be several windows, how many tokens a full one has. A row is its windows one after
    another, all full if they are several, and second_start counts in each; see `cutting.windows_of`. None: rows are
    one sequence each.
    uncut: uint32 [n, texts], tokens of the row's one or two texts before they were cut, special ones not counted; None
    where that is not known.
    """

    ids: np.ndarray
    offsets: np.ndarray
    second_start: np.ndarray
    window_tokens: int | None = None
    uncut: np.ndarray | None = None

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
        return replace(
            self,
            ids=self.ids[token_places(self.offsets[rows], lengths)],
            offsets=offsets,
            second_start=self.second_start[rows],
            uncut=None if self.uncut is None else self.uncut[rows],
        )

    def part(self, start: int, end: int) -> "TokenIds":
        """Rows from `start` to before `end`, which share the ids."""
        uncut = None if self.uncut is None else self.uncut[start:end]
        offsets, seconds = self.offsets[start : end + 1], self.second_start[start:end]
        return replace(self, offsets=offsets, second_start=seconds, uncut=uncut)


class TextTokenizer:
    """A tokenizer.json with a length limit. It holds nothing that changes: threads may share it.

    max_tokens: rows are cut to it, special tokens included; of a pair the longer text is cut first. policy: what is
    left of a text that is cut; with windows a row is several sequences of max_tokens.
    pad_id: what batches are padded with; a row without any token becomes this one token, so that every row
    has something to attend to. identity: SHA-256 of the tokenizer.json. id_dtype, place_dtype: uint16 where every id,
    and every place in a row, fits.
    Truncation and padding that are set in the file are replaced.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, identity: str, max_tokens: int, pad_id: int, policy: LengthPolicy = HEAD
    ) -> None:
        self._tokenizer = tokenizer
        self.identity = identity
        self.max_tokens = max_tokens
        self.policy = policy
        self.pad_id = pad_id
        largest = max([pad_id, *tokenizer.get_vocab(with_added_tokens=True).values()])
        self.id_dtype: np.dtype[Any] = np.dtype(np.uint16 if largest < 2**16 else np.uint32)
        self.place_dtype: np.dtype[Any] = np.dtype(np.uint16 if max_tokens < 2**16 else np.uint32)
        self._check_limit(pair=False)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._templates = {pair: _template(tokenizer, pair=pair) for pair in (False, True)}

    @classmethod
    def from_file(
        cls, path: str | Path, *, max_tokens: int, pad_id: int, policy: LengthPolicy = HEAD
    ) -> "TextTokenizer":
        """Read a tokenizer.json. Raises BadInput when it is missing, or no tokenizer of the `tokenizers`
        library.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            found = f"{path} cannot be read ({error.strerror or error})"
            raise BadInput(found, "a tokenizer.json", "check the path and its permissions") from error
        return cls._from(content, where=str(path), max_tokens=max_tokens, pad_id=pad_id, policy=policy)

    @classmethod
    def from_bytes(
        cls, content: bytes, *, max_tokens: int, pad_id: int, policy: LengthPolicy = HEAD
    ) -> "TextTokenizer":
        """As `from_file`, from the file's content."""
        return cls._from(content, where="the tokenizer.json given", max_tokens=max_tokens, pad_id=pad_id, policy=policy)

    @classmethod
    def _from(
        cls, content: bytes, *, where: str, max_tokens: int, pad_id: int, policy: LengthPolicy
    ) -> "TextTokenizer":
        try:
            tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            found = f"{where} is not a tokenizer that can be read ({error})"
            fix = "copy the tokenizer.json of the encoder again, or upgrade the package tokenizers"
            raise BadInput(found, "the JSON of a fast tokenizer", fix) from error
        identity = hashlib.sha256(content).hexdigest()
        return cls(tokenizer, identity=identity, max_tokens=max_tokens, pad_id=pad_id, policy=policy)

    @property
    def window_tokens(self) -> int | None:
        """As in TokenIds."""
        return self.max_tokens if self.policy.windowed else None

    def n_special(self, pair: bool) -> int:
        """How many special tokens are added to a text, or to a pair."""
        return int(self._tokenizer.num_special_tokens_to_add(pair))

    def encode(self, texts: Texts, pairs: Texts | None = None) -> TokenIds:
        """Token ids of texts, or of pairs of them.

        texts, pairs: str, as a sequence or an Arrow array without nulls; pairs as many as texts. Raises
        BadInput when they are not, when a text is not valid Unicode, and when max_tokens leaves no room for
        a pair.
        """
        pair = _is_pair(texts, pairs)
        return self.joined(list(self.encode_chunks(_chunks(texts, pairs), pair=pair)), pair=pair)

    def joined(self, chunks: Sequence[EncodedChunk], *, pair: bool) -> TokenIds:
        """The rows of pieces that `encode_chunks` gave, one after another."""
        ids, lengths, seconds, uncut = zip(*chunks, strict=True) if chunks else ((), (), (), ())
        offsets = np.concatenate([[0], np.cumsum(_joined(lengths, np.dtype(np.int64)))])
        return TokenIds(
            _joined(ids, self.id_dtype),
            offsets.astype(np.int64),
            _joined(seconds, self.place_dtype),
            self.window_tokens,
            np.concatenate(uncut) if uncut else np.empty((0, 2 if pair else 1), dtype=np.uint32),
        )

    def encode_with_source(self, texts: Sequence[str]) -> tuple[TokenIds, np.ndarray, list[Any]]:
        """A row as `encode` makes it, and where its tokens are from.

        texts: the one text, or the two of a pair. Returns the row; for each of its tokens which one it is among the
        uncut tokens of all texts, one text after another, -1 for a special token, int64; and the tokenizers library's
        account of each text, which says what its tokens stand for. Raises as `encode` does.
        """
        pair = len(texts) == 2
        first, *second = [[text] for text in texts]
        tokens = self.encode(first, *second)
        accounts = [self._encodings([text], [tuple(texts) if pair else text], 0, offsets=True)[0] for text in texts]
        numbers = np.split(np.arange(sum(map(len, accounts))), [len(accounts[0])])[: len(texts)]
        template = tuple(replace(part, ids=(-1,) * len(part.ids)) for part in self._templates[pair])
        contents = [(one, np.array([len(one)])) for one in numbers]
        return tokens, cut(contents, template, self.policy, max_tokens=self.max_tokens, pad_id=-1).ids, accounts

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
        for _, texts in self._contents(chunks, pair=pair):
            rows = cut(texts, self._templates[pair], self.policy, max_tokens=self.max_tokens, pad_id=self.pad_id)
            uncut = np.stack([counts for _, counts in texts], axis=1).astype(np.uint32)
            yield rows.ids, rows.lengths, rows.second_start.astype(self.place_dtype), uncut

    def count(self, texts: Texts, pairs: Texts | None = None) -> np.ndarray:
        """How many tokens each text has, uncut and without special ones: `TokenIds.uncut` alone. Raises as `encode`."""
        pair = _is_pair(texts, pairs)
        counts = [
            np.stack([lengths for _, lengths in contents], axis=1)
            for _, contents in self._contents(_chunks(texts, pairs), pair=pair)
        ]
        return np.concatenate([np.empty((0, 2 if pair else 1), dtype=np.uint32), *counts]).astype(np.uint32)

    def _contents(self, chunks: Iterable[tuple[int, list[Any]]], *, pair: bool) -> Iterator[tuple[int, list[Content]]]:
        """(number of the first row, the tokens of its one text or two) of pieces whose texts are not too much."""
        for start, chunk in chunks:
            for first, rows in _portions(chunk, start):
                if not pair:
                    yield first, [self._content(rows, rows, first)]
                else:
                    sides = [[row[side] for row in rows] for side in (0, 1)]
                    yield first, [self._content(side, rows, first) for side in sides]

    def _content(self, texts: list[str], rows: list[Any], start: int) -> Content:
        """The tokens of texts without special ones. rows, start: what the texts are of, for messages."""
        encodings = self._encodings(texts, rows, start)
        counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        flat = chain.from_iterable(encoding.ids for encoding in encodings)
        return np.fromiter(flat, dtype=self.id_dtype, count=int(counts.sum())), counts

    def _encodings(self, texts: list[str], rows: list[Any], start: int, *, offsets: bool = False) -> list[Any]:
        """The tokenizers library's account of texts without special tokens. offsets: also of where tokens are from."""
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            return list(encode(texts, add_special_tokens=False))
        except (TypeError, UnicodeEncodeError) as error:
            _check_texts(rows, start)
            raise WorkFailed(f"the tokenizer failed on rows from {start + 1} on: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # which the library's Rust raises, and no module exports
                raise
            raise WorkFailed(
                f"the tokenizer broke down on rows from {start + 1} on, as when memory or threads run out: {error}"
            ) from error

    def _check_limit(self, *, pair: bool) -> None:
        texts = "a pair of texts" if pair else "a text"
        least = self.n_special(pair) + (2 if pair else 1)
        if self.max_tokens < least:
            found = f"max_tokens {self.max_tokens}, with {self.n_special(pair)} special tokens in {texts}"
            fix = f"--set length.max_tokens={max(least, 128)}"
            raise BadInput(found, f"at least {least}", fix)


def _template(tokenizer: Tokenizer, *, pair: bool) -> Template:
    """How the tokenizer makes a row of a text or a pair, read off a probe: a file's template is the same for all texts.

    Raises BadInput for token types that are none of BERT's, and for rows in which a text is not one stretch.
    """
    encoding = _probe(tokenizer, pair=pair)
    ids, types, texts = encoding.ids, encoding.type_ids, encoding.sequence_ids
    what = "a pair" if pair else "a text"
    if sorted(types) != types or not {0, 1}.issuperset(types) or (any(types) and not pair):
        found = f"a tokenizer whose token types are {types} for {what}"
        raise BadInput(found, "type 0, and after it type 1 for a second text", _OTHER_ENCODER)
    parts = []
    for (text, kind), places in groupby(range(len(ids)), key=lambda place: (texts[place], types[place])):
        special = () if text is not None else tuple(ids[place] for place in places)
        parts.append(Part(text, special, kind == 1))
    outside = [int(text is None) for text in texts]
    if sorted(part.text for part in parts if part.text is not None) != [0, 1][: 1 + pair] or (
        outside != encoding.special_tokens_mask
    ):
        found = f"a tokenizer that makes the row {encoding.tokens} of {what}"
        raise BadInput(found, "each text in one piece, with special tokens around it", _OTHER_ENCODER)
    return tuple(parts)


def _probe(tokenizer: Tokenizer, *, pair: bool) -> Any:
    """A row of one or two short texts, of which each has tokens."""
    pieces = sorted(tokenizer.get_vocab(with_added_tokens=False), key=lambda piece: (len(piece), piece))
    for text in (*_PROBES, *pieces[:100]):
        with suppress(Exception):  # the library raises bare Exception where a model knows no unknown token
            encoding = tokenizer.encode(text, text if pair else None)
            if {0, 1}.issubset(encoding.sequence_ids) if pair else 0 in encoding.sequence_ids:
                return encoding
    raise BadInput("a tokenizer that makes no tokens of any text", "a tokenizer with a vocabulary", _OTHER_ENCODER)


_OTHER_ENCODER = "use an encoder of the BERT family"


def _is_pair(texts: Texts, pairs: Texts | None) -> bool:
    """Whether there are two texts a row. Raises BadInput when they are not as many."""
    if pairs is not None and len(pairs) != len(texts):
        found = f"{len(texts)} texts and {len(pairs)} second texts"
        raise BadInput(found, "as many second texts as texts", "pass two columns of one table")
    return pairs is not None


def _portions(rows: list[Any], start: int) -> Iterator[tuple[int, list[Any]]]:
    """(number of the first row, rows) in portions of at most CHUNK_CHARACTERS, or of one row."""
    begin, total = 0, 0
    for place, row in enumerate(rows):
        size = sum(len(text) for text in (row if isinstance(row, tuple) else (row,)) if isinstance(text, str))
        if total + size > CHUNK_CHARACTERS and place > begin:
            yield start + begin, rows[begin:place]
            begin, total = place, 0
        total += size
    if rows:
        yield start + begin, rows[begin:]


def _chunks(texts: Texts, pairs: Texts | None) -> Iterator[tuple[int, list[Any]]]:
    """(index of the first row, what the tokenizer takes) of every chunk."""
    for start in range(0, len(texts), CHUNK_ROWS):
        first = _values(texts, start)
        yield start, first if pairs is None else list(zip(first, _values(pairs, start), strict=True))


def _values(texts: Texts, start: int) -> list[Any]:
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        return list(texts.slice(start, CHUNK_ROWS).to_pylist())
    return list(texts[start : start + CHUNK_ROWS])


def _joined(parts: Sequence[np.ndarray], dtype: "np.dtype[Any]") -> np.ndarray:
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
