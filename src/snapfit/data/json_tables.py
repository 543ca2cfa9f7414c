"""JSON lines and JSON arrays as tables: every value as it is, and what is not JSON named by line and column.

JSON is taken strictly: NaN, numbers that no float can hold, a name twice in one object and half a surrogate pair are
errors, since each would come back as something else.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import pyarrow as pa

from snapfit.core.errors import BadInput, shown
from snapfit.data.json_cells import told
from snapfit.data.row_tables import dict_table
from snapfit.data.text_files import Piece, position

_FIX = 'write one object a line, such as {"text": "...", "label": "..."}'
_WHITE = " \t\n\r"
_BLANK = re.compile(r"[ \t\n\r]*")
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F]"
_HALF = re.compile(f"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")
_MAY_BE_INFINITE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
_MARK = "\ufeff"
Numbered = tuple[int, dict[str, Any]]
"""The number of a line, from 1, and the object that begins on it."""


def json_tables(
    pieces: Iterator[Piece], where: str, *, as_json: frozenset[str] = frozenset(), at_once: bool = False
) -> Iterator[pa.Table]:
    """The tables of a file's pieces, with the columns that the objects in a piece have; a missing name is null.

    as_json: columns that are to be of type JSON (see json_cells.py), as those are whose values are of several kinds.
    at_once: read a JSON array, which means something as a whole only; else it raises NotByPiecesError.
    Raises BadInput naming line and column of what is no object.
    """
    names: dict[str, None] = {}
    n_empty = 0  # objects without a name so far, which no table without columns could count
    for rows in json_rows(pieces, where, at_once=at_once):
        objects = [row for _, row in rows]
        if any(objects):
            table = dict_table([*([{}] * n_empty), *objects], as_json=as_json)
            n_empty, names = 0, names | dict.fromkeys(table.column_names)
            yield table
        else:
            n_empty += len(objects)
    if n_empty and names:
        yield dict_table([dict.fromkeys(names)] * n_empty, as_json=as_json)


def json_rows(pieces: Iterator[Piece], where: str, *, at_once: bool = True) -> Iterator[Iterable[Numbered]]:
    """The objects of a file with the numbers of their lines, piece by piece. Arguments, errors as for `json_tables`."""
    for line, data in pieces:
        if line == 1 and data.lstrip().startswith(b"["):
            if not at_once:
                raise NotByPiecesError
            yield _array_rows(b"".join([data, *(piece for _, piece in pieces)]), where)
            return
        yield _line_rows(data, where, line)


class NotByPiecesError(Exception):
    """The file means something as a whole only: it is a JSON array."""


def _line_rows(data: bytes, where: str, first_line: int) -> Iterator[Numbered]:
    """The objects of lines, one each; blank lines are none."""
    text = data.decode("utf-8")
    parse = _parser(text)
    for number, line in enumerate(text.split("\n"), first_line):
        line = line.removeprefix(_MARK).rstrip(_WHITE)  # files that were put together bring a mark each
        if line:
            yield number, parse.plain(line) or parse(line, _skip(line, 0), Spot(where, number, line))[0]


def _array_rows(data: bytes, where: str) -> Iterator[Numbered]:
    """The objects of one JSON array."""
    text = data.decode("utf-8")
    parse, spot = _parser(text), Spot(where, 1, text)
    place = _skip(text, _skip(text, 0) + 1)
    line, counted = 1, 0
    more = text[place : place + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, place), place
        row, place = parse(text, place, Spot(where, line, text, text.rfind("\n", 0, place) + 1), whole=False)
        yield line, row
        place = _skip(text, place)
        more = text[place : place + 1] == ","
        if more:
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "]":
            spot.fault(place, "no JSON (the array is not closed, or a comma is missing)")
    if (end := _skip(text, place + 1)) < len(text):
        spot.fault(end, "more behind the array")


# ---------------------------------------------------------------- one object


class Spot:
    """Where a text lies: it is, or from `start` on it continues, line `line` of the file."""

    def __init__(self, where: str, line: int, text: str, start: int = 0) -> None:
        self._where, self._line, self._text, self._start = where, line, text, start

    def fault(self, place: int, what: str, fix: str = _FIX) -> NoReturn:
        """Raise BadInput for what is wrong at this place of the text."""
        before = self._text[self._start : place].encode("utf-8")
        at = position(before, len(before), self._line)
        raise BadInput(f"{self._where}, {at}: {what}", "one JSON object a line", fix)


class _Parser:
    """Parses objects of one text; what is rare in texts is only looked for where it may be."""

    def __init__(self, *, surrogates: bool, infinite: bool) -> None:
        self._surrogates = surrogates
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite if infinite else None
        )

    def plain(self, text: str) -> dict[str, Any] | None:
        """The object that a text is, from its first character to its last; None for whatever needs a closer look."""
        if self._surrogates:
            return None
        try:
            value, end = self._decoder.raw_decode(text)
        except (ValueError, RecursionError, _FaultError):
            return None
        return value if end == len(text) and type(value) is dict else None

    def __call__(self, text: str, start: int, spot: Spot, *, whole: bool = True) -> tuple[dict[str, Any], int]:
        """The object that begins at `start`, and where it ends; whole: nothing may be behind it."""
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            spot.fault(error.pos, f"no JSON ({error.msg})")
        except _FaultError as error:
            spot.fault(error.place(text, start), error.what, error.fix)
        except RecursionError:
            spot.fault(start, "values in one another, deeper than can be read", "keep a row flat")
        except ValueError:
            spot.fault(start, "an integer of thousands of digits", "write it in quotes")
        if whole and end < len(text):
            if "\r" in text[start:end] + text[end:].lstrip(" \t")[:1]:
                spot.fault(
                    end, "a carriage return alone, and more behind it", "end lines in line feeds: tr '\\r' '\\n'"
                )
            spot.fault(_skip(text, end), "no JSON (Extra data)")
        if not isinstance(value, dict):
            spot.fault(start, f"{told(value)}, {shown(value)}" if value is not None else "null")
        if self._surrogates:
            _refuse_halves(value, spot, start)
        return value, end


def _parser(text: str) -> _Parser:
    surrogates, infinite = _HALF.search(text) is not None, _MAY_BE_INFINITE.search(text) is not None
    return _Parser(surrogates=surrogates, infinite=infinite)


class _FaultError(Exception):
    """What the parser's hooks find. near: what stands there in the text. again: it is there twice, this the second."""

    def __init__(self, what: str, near: str, fix: str, *, again: bool = False) -> None:
        super().__init__(what)
        self.what, self._near, self.fix, self._again = what, near, fix, again

    def place(self, text: str, start: int) -> int:
        """Where it seems to be, from `start` on; names and numbers may be in texts too."""
        places = [match.start() for match in re.finditer(re.escape(self._near), text[start:])][: 1 + self._again]
        return start + (places[-1] if len(places) > self._again else 0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise _FaultError(
            f"the name {shown(name)} twice in one object",
            json.dumps(name, ensure_ascii=False),
            "keep one of them",
            again=True,
        )
    return row


def _no_constant(name: str) -> NoReturn:
    raise _FaultError(f"{name}, which JSON does not have", name, "write null where there is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _FaultError(f"the number {shown(text)[1:-1]}, which is too large", text, "write it in quotes")
    return value


def _refuse_halves(row: dict[str, Any], spot: Spot, start: int) -> None:
    for name, value in row.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            what = f"half of a surrogate pair in {shown(name)}"
            spot.fault(start, what, "decode the text from its source again")


def _skip(text: str, place: int) -> int:
    """The place of the next character that is no white space."""
    match = _BLANK.match(text, place)
    return match.end() if match else place
