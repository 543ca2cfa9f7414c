"""Where the rows of a file are, and which of them cannot be read: line by line, with the reason.

What is readable is decided by the code that reads tables for training, given the file piece by piece: a piece that it
refuses is halved until single lines are left. Only CSV, whose rows may span lines, is walked through record by record.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from snapfit.checks.accepts import refusal_of_item, refusal_of_lines
from snapfit.checks.csv_records import MOST_RECORD, Records, refuse_header
from snapfit.checks.places import FileRows, Unreadable
from snapfit.core.errors import BadInput
from snapfit.data.text_files import is_utf8_name

_PIECE_LINES = 4_096
_QUOTED = ("csv", "tsv-quoted")
_BOM = b"\xef\xbb\xbf"
_ONE_BYTE_LINES = re.compile(
    r"ascii|utf-8|iso8859-.*|latin.*|cp(125\d|437|85\d|866|932|936|949|950)|gb.*|big5.*|euc_.*|"
    r"shift_jis.*|johab|koi8.*|mac.*|tis-620"
)
"""Encodings in which the byte of a line feed is nothing else, so that lines can be told apart before decoding."""
_PLACE = re.compile(r"^.*?\b(?:line|item) \d+\b(?:, column \d+)?[:,]?\s*", re.DOTALL)


def rows_of_file(path: Path, kind: str, encoding: str) -> FileRows:
    """The rows of a file that can be read. kind: as `formats.table_files` gives it. Raises OSError."""
    if kind == "parquet":
        return _counted(path, kind, "row", pq.ParquetFile(path).metadata.num_rows)
    if kind == "jsonl" and is_json_array(path, encoding):
        return _counted(path, kind, "item", len(array_items(_whole(path, encoding))))
    lines = _lines(path, encoding, kind)
    if kind in _QUOTED:
        records = Records((line.decode("utf-8") for line in lines), kind)
        return records.walk(path, {})
    numbers = _row_lines(lines, kind)
    return FileRows(path, kind, "line", numbers, numbers)


def sift_file(path: Path, kind: str, encoding: str) -> FileRows:
    """The rows of a file, and the lines that are none, whatever is wrong with them.

    Raises BadInput where nothing can be told line by line: encodings in which lines cannot be told apart before
    decoding, quotes that never match, a broken JSON array, Parquet.
    """
    if kind == "parquet":
        return rows_of_file(path, kind, encoding)
    bad: dict[int, tuple[str, str]] = {}
    if kind == "jsonl" and is_json_array(path, encoding):
        return _sift_items(path, encoding)
    lines = readable_lines(path, encoding, kind, bad)
    if kind in _QUOTED:
        records = Records((line.decode("utf-8") for line in lines), kind, most_held=MOST_RECORD)
        return records.walk(path, bad)
    return _sift_lines(path, kind, lines, bad)


def readable_lines(path: Path, encoding: str, kind: str, bad: dict[int, tuple[str, str]]) -> Iterator[bytes]:
    """The lines of a text file in UTF-8; what is not in its encoding is replaced, and noted in `bad` by line.

    A carriage return alone ends a line of CSV too.

    Raises BadInput for encodings whose lines cannot be told apart before decoding, where something is wrong.
    """
    if not _ONE_BYTE_LINES.fullmatch(_codec(encoding)):
        yield from _lines(path, encoding, kind)
        return
    with open(path, "rb") as file:
        for number, raw in enumerate(_at_returns(file, kind), 1):
            raw = raw.removeprefix(_BOM) if number == 1 and is_utf8_name(encoding) else raw
            try:
                text = raw.decode("utf-8" if is_utf8_name(encoding) else encoding)
            except UnicodeDecodeError as error:
                text = raw.decode("utf-8" if is_utf8_name(encoding) else encoding, errors="replace")
                bad[number] = (f"byte {error.start + 1} of the line is not {encoding.upper()}", _other_encoding(raw))
            if "\0" in text:
                bad[number] = ("a NUL byte", "take the NUL bytes out")
                text = text.replace("\0", "\ufffd")
            yield text.encode("utf-8")


def is_json_array(path: Path, encoding: str) -> bool:
    """Whether a file's first sign is that of a JSON array."""
    for line in _lines(path, encoding, "jsonl"):
        if line.strip():
            return line.lstrip().startswith(b"[")
    return False


def array_items(text: str) -> list[tuple[int, int]]:
    """Where each item of a JSON array begins and ends, in characters. Raises ValueError for what is none."""
    decoder, places = json.JSONDecoder(), []
    place = _past_space(text, text.index("[") + 1)
    while not text.startswith("]", place):
        try:
            _, end = decoder.raw_decode(text, place)
        except RecursionError:
            raise ValueError(f"character {place + 1} begins an object that is too deep") from None
        places.append((place, end))
        place = _past_space(text, end)
        if text.startswith(",", place):
            place = _past_space(text, place + 1)
        elif not text.startswith("]", place):
            raise ValueError(f"character {place + 1} is neither a comma nor the end of the list")
    return places


def rows_as_written(rows: FileRows, encoding: str, wanted: np.ndarray) -> list[str]:
    """Some rows of a text file as they stand in it, line ends included. wanted: numbers of lines or items, ascending.

    What is not in the encoding is written as escapes.
    """
    if rows.word == "item":
        text = _whole(rows.path, encoding)
        places = array_items(text)
        return [text[slice(*places[number - 1])] for number in wanted.tolist()]
    by_line = _ONE_BYTE_LINES.fullmatch(_codec(encoding)) is not None
    chosen, found = set(wanted.tolist()), []
    lines = _as_they_are(rows.path, rows.kind) if by_line else _lines(rows.path, encoding, rows.kind)
    for number, line in enumerate(lines, 1):
        if number in chosen:
            found.append(line.decode(encoding if by_line else "utf-8", errors="backslashreplace"))
    return found


def write_without(rows: FileRows, encoding: str, dropped: np.ndarray, target: Path, *, as_utf8: bool = False) -> None:
    """Write a copy of a text file without some rows and without what is unreadable; all else byte for byte.

    dropped: bool [n]. as_utf8: write UTF-8, with what is not in the encoding replaced. Raises OSError.
    """
    if rows.word == "item":
        text = _whole(rows.path, encoding)
        bad = {one.first for one in rows.unreadable} | {int(item) for item in rows.first[dropped]}
        kept = [text[a:b] for number, (a, b) in enumerate(array_items(text), 1) if number not in bad]
        target.write_bytes(("[\n" + ",\n".join(kept) + "\n]\n").encode("utf-8" if as_utf8 else encoding))
        return
    spans = [*zip(rows.first[dropped].tolist(), rows.last[dropped].tolist(), strict=True)]
    spans += [(one.first, one.last) for one in rows.unreadable]
    left_out = {line for first, last in spans for line in range(first, last + 1)}
    with open(target, "wb") as file:
        if as_utf8 or _ONE_BYTE_LINES.fullmatch(_codec(encoding)):
            raw = _as_they_are(rows.path, rows.kind)
            lines = readable_lines(rows.path, encoding, rows.kind, {}) if as_utf8 else raw
            file.writelines(line for number, line in enumerate(lines, 1) if number not in left_out)
        else:
            encode = codecs.getincrementalencoder(encoding)().encode
            lines = _lines(rows.path, encoding, rows.kind)
            file.writelines(encode(line.decode()) for n, line in enumerate(lines, 1) if n not in left_out)


# ---------------------------------------------------------------- lines


def _lines(path: Path, encoding: str, kind: str) -> Iterator[bytes]:
    """The lines of a file in UTF-8, without a byte order mark."""
    if is_utf8_name(encoding):
        for number, line in enumerate(_as_they_are(path, kind)):
            yield line if number else line.removeprefix(_BOM)
        return
    with open(path, encoding=encoding, newline="\n") as file:
        try:
            texts = (text if number else text.removeprefix("\ufeff") for number, text in enumerate(file))
            yield from _at_returns((text.encode("utf-8") for text in texts), kind)
        except UnicodeError as error:
            fix = "give its real --encoding, such as utf-8"
            raise BadInput(f"{path}: what is not {encoding} ({error})", f"text in {encoding}", fix) from error


def _as_they_are(path: Path, kind: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from _at_returns(file, kind)


def _at_returns(lines: Iterable[bytes], kind: str) -> Iterator[bytes]:
    """Lines that end in line feeds, split where a carriage return alone ends one, which it does in CSV."""
    for line in lines:
        if kind in _QUOTED and b"\r" in line:
            yield from line.splitlines(keepends=True)
        else:
            yield line


def _whole(path: Path, encoding: str) -> str:
    bad: dict[int, tuple[str, str]] = {}
    content = b"".join(readable_lines(path, encoding, "jsonl", bad))
    for line, (why, fix) in bad.items():
        raise BadInput(f"{path}, line {line}: {why}", "a JSON array that can be read as a whole", fix)
    return content.decode("utf-8")


def _codec(encoding: str) -> str:
    with suppress(LookupError):
        return codecs.lookup(encoding).name
    return ""


def _other_encoding(raw: bytes) -> str:
    for name in ("gb18030", "cp1252"):
        with suppress(UnicodeDecodeError):
            raw.decode(name)
            return f"write the line in UTF-8, or name the file's encoding, perhaps --encoding {name}"
    return "write the line in UTF-8"


def _counted(path: Path, kind: str, word: str, n: int) -> FileRows:
    numbers = np.arange(1, n + 1, dtype=np.int64)
    return FileRows(path, kind, word, numbers, numbers)


def _row_lines(lines: Iterable[bytes], kind: str) -> np.ndarray:
    """Numbers of the lines that are rows, int64; blank ones are none, but in a TSV file of one column."""
    numbered = enumerate(lines, 1)
    _, header = _header(numbered) if kind == "tsv" else (0, b"")
    return np.array([number for number, line in numbered if _is_row(line, header, kind)], dtype=np.int64)


def _header(numbered: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
    """The first line of a TSV file with anything on it, and its number."""
    return next((one for one in numbered if not _is_blank(one[1])), (0, b""))


def _is_row(line: bytes, header: bytes, kind: str) -> bool:
    if kind == "jsonl":
        return bool(line.removeprefix(_BOM).strip(b" \t\n\r"))
    return b"\t" not in header or not _is_blank(line)


def _is_blank(line: bytes) -> bool:
    return line.removesuffix(b"\n") in (b"", b"\r")


def _past_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\n", "\r"):
        place += 1
    return place


# ---------------------------------------------------------------- TSV and JSON lines: refused pieces, halved


def _sift_lines(path: Path, kind: str, lines: Iterator[bytes], bad: dict[int, tuple[str, str]]) -> FileRows:
    numbered = enumerate(lines, 1)
    number, header = _header(numbered) if kind == "tsv" else (0, b"")
    if number in bad:
        refuse_header(path, number, *bad[number])
    number += 1
    numbers: list[int] = []
    unreadable: list[Unreadable] = []
    while piece := [line for _, line in islice(numbered, _PIECE_LINES)]:
        wrong = dict(_wrong_lines(piece, number, partial(refusal_of_lines, path, kind, header)))
        for i, line in enumerate(piece, number):
            if not _is_row(line, header, kind):
                continue
            if i in bad:
                unreadable.append(Unreadable(i, i, *bad[i]))
            elif i in wrong:
                unreadable.append(_in_words(wrong[i], i, i))
            else:
                numbers.append(i)
        number += len(piece)
    found = np.array(numbers, dtype=np.int64)
    return FileRows(path, kind, "line", found, found, unreadable)


def _wrong_lines(
    piece: list[bytes], first: int, refusal: Callable[[list[bytes], int], BadInput | None]
) -> Iterator[tuple[int, BadInput]]:
    """(number, error) of each line that is refused by itself."""
    error = refusal(piece, first)
    if error is None:
        return
    if len(piece) == 1:
        yield first, error
        return
    half = len(piece) // 2
    yield from _wrong_lines(piece[:half], first, refusal)
    yield from _wrong_lines(piece[half:], first + half, refusal)


def _in_words(error: BadInput, first: int, last: int) -> Unreadable:
    return Unreadable(first, last, _PLACE.sub("", error.found, count=1) or error.found, error.fix)


def _sift_items(path: Path, encoding: str) -> FileRows:
    text = _whole(path, encoding)
    try:
        places = array_items(text)
    except ValueError as error:
        raise BadInput(
            f"{path}: no JSON ({error})", "a whole JSON array", "write it again, one object a line"
        ) from error
    numbers: list[int] = []
    unreadable: list[Unreadable] = []
    for number, (start, end) in enumerate(places, 1):
        refusal = refusal_of_item(path, text[start:end])
        if refusal is None:
            numbers.append(number)
        else:
            unreadable.append(_in_words(refusal, number, number))
    found = np.array(numbers, dtype=np.int64)
    return FileRows(path, "jsonl", "item", found, found, unreadable)
