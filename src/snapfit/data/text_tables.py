"""CSV and TSV as tables, piece by piece: cells exact, and rows that do not fit named by their lines.

Whole pieces are split at once, by arithmetic on the places of delimiters, line ends and quotes. A piece of CSV whose
quotes or carriage returns are not plainly those of RFC 4180 is read by Python's csv instead, which decides what it is.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa

from snapfit.core.errors import BadInput, shown
from snapfit.data.row_tables import check_names, separator_hint
from snapfit.data.text_files import Piece, line_ends, position

_LINE_END, _RETURN, _QUOTE = (ord(sign) for sign in '\n\r"')
_SHOWN = 3
Lines = np.ndarray
"""int64 [rows]: the line on which each row begins, from 1."""


def text_tables(pieces: Iterable[Piece], where: str, format: str) -> Iterator[pa.Table]:
    """The tables of a file's pieces, one after another, all with the columns of its header.

    format: csv, tsv or tsv-quoted. The first one is empty, for its columns. Raises BadInput naming the line of a row
    that does not fit, and the column of a quote that does not.
    """
    for table, _ in _numbered_tables(pieces, where, format):
        yield table


def row_lines(pieces: Iterable[Piece], where: str, format: str) -> Iterator[Lines]:
    """The lines on which the rows of a file begin, piece by piece. Arguments and errors as for `text_tables`."""
    for _, lines in _numbered_tables(pieces, where, format):
        yield lines()


@dataclass
class _Rows:
    """Some rows of a file, all their cells one after another.

    firsts, counts: of each row its first cell, and how many it has. blank: which of them are lines with nothing on
    them. lines: works out on which line each begins.
    """

    cells: pa.LargeStringArray
    firsts: np.ndarray
    counts: np.ndarray
    blank: np.ndarray
    lines: Callable[[], Lines]

    def only(self, chosen: np.ndarray) -> "_Rows":
        """Some of the rows. chosen: bool [rows]."""
        if chosen.all():
            return self
        lines = self.lines
        return _Rows(self.cells, self.firsts[chosen], self.counts[chosen], self.blank[chosen], lambda: lines()[chosen])


def _numbered_tables(
    pieces: Iterable[Piece], where: str, format: str
) -> Iterator[tuple[pa.Table, Callable[[], Lines]]]:
    """The tables, and what works out the lines of their rows."""
    names: list[str] = []
    ragged = _Ragged(where, format)
    split = _unquoted(pieces, where) if format == "tsv" else _quoted(pieces, where, "," if format == "csv" else "\t")
    for rows in ragged.told_before(split):
        if not names:
            filled = np.flatnonzero(~rows.blank)
            if not len(filled):
                continue
            names = rows.cells.slice(rows.firsts[filled[0]], rows.counts[filled[0]]).to_pylist()
            check_names(names, where)
            yield pa.table([pa.array([], pa.large_string()) for _ in names], names=names), _no_lines
            rows = rows.only(np.arange(len(rows.firsts)) > filled[0])
        if format != "tsv" or len(names) > 1:  # a blank line of one column is a cell where nothing is quoted
            rows = rows.only(~rows.blank)
        if not ragged.found(rows, names):
            columns = [rows.cells.take(pa.array(rows.firsts + i)) for i in range(len(names))]
            yield pa.table(columns, names=names), rows.lines


def _no_lines() -> Lines:
    return np.zeros(0, dtype=np.int64)


class _Ragged:
    """Rows with another number of cells than the header; they are counted to the end of the file and then told."""

    def __init__(self, where: str, format: str) -> None:
        self._where, self._format = where, format
        self._lines: list[tuple[int, int]] = []
        self._n_rows = 0
        self._names: list[str] = []

    def found(self, rows: _Rows, names: list[str]) -> bool:
        """Take note of the wrong ones among some rows; whether there were any so far."""
        wrong = np.flatnonzero(rows.counts != len(names))
        if len(wrong) and len(self._lines) < _SHOWN:
            lines = rows.lines()
            self._lines += [(int(lines[i]), int(rows.counts[i])) for i in wrong[: _SHOWN - len(self._lines)]]
        self._n_rows, self._names = self._n_rows + len(wrong), names
        return self._n_rows > 0

    def told_before(self, split: Iterator[_Rows]) -> Iterator[_Rows]:
        """The same rows; then, or before whatever else is wrong with what follows, the error is raised."""
        try:
            yield from split
        except BadInput:
            if not self._n_rows:
                raise
        if self._n_rows:
            raise self._error()

    def _error(self) -> BadInput:
        told = ", ".join(f"line {line} has {cells:,}" for line, cells in self._lines)
        more = f" (and so on, {self._n_rows:,} rows)" if self._n_rows > len(self._lines) else ""
        n = len(self._names)
        expected = f"{n:,} cells in every row, as in the header"
        if n == 1:
            expected = f"1 cell in every row, as in the header, {shown(self._names[0])}"
        fix = "correct these lines: a cell that holds a comma, quote or line break is put in double quotes"
        if self._format != "csv":
            fix = "correct these lines; --format tsv-quoted where cells are quoted as in CSV, tsv where not"
        return BadInput(f"{self._where}: {told} cells{more}", expected, separator_hint(self._names) + fix)


# ---------------------------------------------------------------- TSV


def _unquoted(pieces: Iterable[Piece], where: str) -> Iterator[_Rows]:
    """Split at tab and line feed; in a file whose first line ends in CR LF, CR LF is the line end throughout."""
    has_returns: bool | None = None
    for line, data in pieces:
        if has_returns is None:
            has_returns = _has_returns(data, where)
        text = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", dtype=np.uint8)
        ends = np.flatnonzero((text == ord("\t")) | (text == _LINE_END))
        dropped = ends
        if has_returns:
            returns = np.flatnonzero((text[:-1] == _RETURN) & (text[1:] == _LINE_END))
            dropped = np.sort(np.concatenate([ends, returns]), kind="stable")
        yield _rows(text, ends, dropped, partial(_each_a_line, line))


def _each_a_line(first: int, starts: np.ndarray) -> Lines:
    return np.arange(first, first + len(starts))


def _has_returns(data: bytes, where: str) -> bool:
    """Whether the first line with anything on it ends in CR LF. Raises BadInput when it holds another CR."""
    first = re.search(rb"(?m)^\r*[^\r\n][^\n]*", data)
    header = first[0] if first else b""
    place = header.removesuffix(b"\r").find(b"\r")
    if first and place >= 0:
        found = f"{where}, {position(data, first.start() + place)}: a carriage return within the header"
        fix = f"tr '\\r' '\\n' < {where} > converted.tsv"
        raise BadInput(found, "lines that end in a line feed, with or without a carriage return before it", fix)
    return header.endswith(b"\r")


def _rows(text: np.ndarray, ends: np.ndarray, dropped: np.ndarray, lines: Callable[[np.ndarray], Lines]) -> _Rows:
    """The rows of whole lines. text: uint8. ends: places of the delimiters and line ends behind cells, ascending.

    dropped: places of all that belongs to no cell, ascending. lines: works out the lines of rows from their places.
    """
    last_cells = np.flatnonzero(text[ends] == _LINE_END)  # of each row
    counts = np.diff(last_cells, prepend=-1)
    row_ends = ends[last_cells]
    starts = np.concatenate(([0], row_ends[:-1] + 1))
    sizes = row_ends - starts
    blank = (sizes == 0) | ((sizes == 1) & (text[starts] == _RETURN))
    kept = np.ones(len(text), dtype=bool)
    kept[dropped] = False
    offsets = np.zeros(len(ends) + 1, dtype=np.int64)  # each cell moves back over what is dropped before it
    offsets[1:] = ends - (np.arange(len(ends)) if dropped is ends else np.searchsorted(dropped, ends))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text[kept])]
    cells = pa.Array.from_buffers(pa.large_utf8(), len(ends), buffers)
    return _Rows(cells, last_cells - counts + 1, counts, blank, lambda: lines(starts))


# ---------------------------------------------------------------- CSV, and TSV with its rules


@dataclass
class _Split:
    """What could be split of some bytes. rest: what is left, which begins on `line`. fault: what is wrong there."""

    rows: list[_Rows]
    rest: bytes
    line: int
    fault: BadInput | None = None


def _quoted(pieces: Iterable[Piece], where: str, delimiter: str) -> Iterator[_Rows]:
    """CSV as RFC 4180 has it, strictly; a lone CR outside quotes ends a row, and a bare cell may hold quotes."""
    pieces, fault, ended = iter(pieces), None, False
    held, line, enough = list[bytes](), 1, 0
    while not ended:
        try:
            held.append(next(pieces)[1])
        except StopIteration:
            ended = True
        except BadInput as error:  # what is wrong before it comes first
            ended, fault = True, error
        if ended or sum(map(len, held)) >= enough:
            if fault is None:
                split = _split(b"".join(held), line, where, delimiter, last=ended)
            else:
                split = _careful(b"".join(held), line, where, delimiter, last=False)
            yield from split.rows
            if split.fault is not None:
                raise split.fault
            held, line = [split.rest], split.line
            enough = 2 * len(split.rest)  # so that a cell over many pieces is not read once for each of them
    if fault is not None:
        raise fault


def _split(data: bytes, line: int, where: str, delimiter: str, *, last: bool) -> _Split:
    """The rows that end in `data`, which begins on `line`. last: whether the file ends with it."""
    if last and data and not data.endswith(b"\n"):
        data += b"\n"
    text = np.frombuffer(data, dtype=np.uint8)
    plain = _plain_structure(text, ord(delimiter))
    if plain is None:
        return _careful(data, line, where, delimiter, last=last)
    ends, dropped, n_bytes = plain
    if last and n_bytes < len(text):
        return _careful(data, line, where, delimiter, last=last)  # a quote is not closed: it finds where it opens
    if not len(ends):
        return _Split([], data, line)
    text = text[:n_bytes]

    def lines(starts: np.ndarray) -> Lines:
        returns = np.flatnonzero(text == _RETURN)
        alone = returns[text[returns + 1] != _LINE_END]  # which are in quotes, and none is last
        before = np.searchsorted(np.flatnonzero(text == _LINE_END), starts) + np.searchsorted(alone, starts)
        return np.asarray(line + before)

    rows = _rows(text, ends, dropped, lines)
    return _Split([rows], data[n_bytes:], line + line_ends(data, n_bytes, returns=True))


def _plain_structure(text: np.ndarray, delimiter: int) -> tuple[np.ndarray, np.ndarray, int] | None:
    """The ends of cells, what belongs to no cell, and how many bytes are whole rows; None unless all is RFC 4180's.

    A quote that opens a cell has a delimiter, a line end or nothing before it, one that closes it has one behind it; in
    between quotes come in pairs. So a place is inside quotes when the number of quotes before it is odd.
    """
    quotes = np.flatnonzero(text == _QUOTE)
    ends = np.flatnonzero((text == delimiter) | (text == _LINE_END))
    ends = _outside(ends, quotes)
    row_ends = ends[text[ends] == _LINE_END]
    n_bytes = int(row_ends[-1]) + 1 if len(row_ends) else 0
    quotes, ends, text = quotes[quotes < n_bytes], ends[ends < n_bytes], text[:n_bytes]
    returns = _outside(np.flatnonzero(text == _RETURN), quotes)
    if (text[returns + 1] != _LINE_END).any():  # n_bytes end in a line end, so none is last
        return None
    if not len(quotes) and not len(returns):
        return ends, ends, n_bytes
    opening, closing = quotes[0::2], quotes[1::2]
    before, behind = text[opening - 1], text[closing + 1]
    doubled = (before == _QUOTE) & (opening > 0)
    opens = doubled | (opening == 0) | (before == delimiter) | (before == _LINE_END)
    closes = (behind == delimiter) | (behind == _LINE_END) | (behind == _QUOTE) | (behind == _RETURN)
    if not (opens.all() and closes.all()):
        return None
    dropped = np.concatenate([ends, returns, opening[~doubled], closing])
    dropped.sort(kind="stable")  # which merges what is sorted already
    return ends, dropped, n_bytes


def _outside(places: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """Those places that are not inside quotes."""
    return places[np.searchsorted(quotes, places) % 2 == 0] if len(quotes) else places


def _careful(data: bytes, line: int, where: str, delimiter: str, *, last: bool) -> _Split:
    """As `_split`, by Python's csv, which also knows quotes in bare cells and rows that end in CR."""
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # of the whole process: documents pass its 128 KiB
    lines = list(io.StringIO(data.decode("utf-8"), newline=""))  # which end in LF, CR or both
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows, begins, fault = list[list[str]](), [0], None
    try:
        for row in reader:
            rows.append(row)
            begins.append(reader.line_num)
    except csv.Error:
        text = "".join(lines[begins[-1] :])
        opened, place = _quote_fault(text, delimiter)
        if last or place is not None:
            at, begun = (_position(text, one, line + begins[-1]) for one in (place or opened, opened))
            what = f"more behind the double quote that ends the cell from {begun} on"
            if place is None:
                what = "a cell that begins with a double quote is never closed"
            expected = "a quoted cell to end in a double quote, and quotes inside it to be doubled"
            fix = "correct the quotes there; if quotes are plain characters in a tab-separated file, --format tsv"
            fault = BadInput(f"{where}, {at}: {what}", expected, fix)
    rest = "".join(lines[begins[-1] :]).encode("utf-8")
    return _Split([_python_rows(rows, begins, line)], rest, line + begins[-1], fault)


def _python_rows(rows: list[list[str]], begins: list[int], line: int) -> _Rows:
    """Rows of Python's csv. begins: the line on which each begins, from 0; line: the number of the first one."""
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    cells = pa.array(chain.from_iterable(rows), pa.large_string())
    numbers = line + np.array(begins[: len(rows)], dtype=np.int64)
    return _Rows(cells, np.cumsum(counts) - counts, counts, counts == 0, lambda: numbers)


def _position(text: str, place: int, line: int) -> str:
    before = text[:place].encode("utf-8")
    return position(before, len(before), line, returns=True)


def _quote_fault(text: str, delimiter: str) -> tuple[int, int | None]:
    """Where the first cell opens whose quotes are wrong, and where it goes on behind them; None: it never ends."""
    place = opened = 0
    bare = re.compile(f"[^{delimiter}\r\n]*")
    while place < len(text):
        if text[place] != '"':
            place = bare.match(text, place).end() + 1  # type: ignore[union-attr]  # it matches nothing, too
            continue
        opened, place = place, place + 1
        while (place := text.find('"', place)) >= 0 and text[place + 1 : place + 2] == '"':
            place += 2
        if place < 0:
            return opened, None
        if text[place + 1 : place + 2] not in ("", delimiter, "\n", "\r"):
            return opened, place + 1
        place += 2
    return opened, None
