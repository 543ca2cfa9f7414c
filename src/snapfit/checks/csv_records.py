"""Where the records of a CSV file are, which may span lines; one without an end is left at its first line.

Records are those of Python's csv module in strict mode, as in `data.text_tables`.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from snapfit.checks.places import FileRows, Unreadable
from snapfit.core.errors import BadInput

MOST_RECORD = 2**24
"""Characters after which a quoted cell counts as never closed, where something is wrong with a file."""
_MOST_REREAD = 2**28
"""Characters that are looked at again, behind quotes that are never closed, before the file is given up."""


class Records:
    """The records of a CSV file, one after another; where one has no end, the walk goes on with its second line."""

    def __init__(self, lines: Iterable[str], kind: str, *, most_held: int = 2**62) -> None:
        self._delimiter = "," if kind == "csv" else "\t"
        self._kind = kind
        self._source = iter(lines)
        self._most_held = most_held
        self._again: list[str] = []
        self._taken: list[str] = []
        self._reread = 0
        csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))

    def __iter__(self) -> "Records":
        return self

    def __next__(self) -> str:
        """The next line, for the csv module."""
        if len(self._taken) > 1 and self._held > self._most_held:
            raise csv.Error("unexpected end")
        line = self._again.pop() if self._again else next(self._source)
        self._taken.append(line)
        self._held += len(line)
        return line

    def walk(self, path: Path, bad: dict[int, tuple[str, str]]) -> FileRows:
        """All records. bad: what is wrong with single lines, filled while they are read."""
        first: list[int] = []
        last: list[int] = []
        unreadable: list[Unreadable] = []
        n_columns, line = 0, 1
        reader: Any = csv.reader(self, delimiter=self._delimiter, strict=True)
        while True:
            self._taken, self._held = [], 0
            problem: tuple[str, str] | None
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if not n_columns:
                    refuse_header(path, line, *_quotes(error))
                self._give_back(path, line)
                reader = csv.reader(self, delimiter=self._delimiter, strict=True)
                cells, problem = None, _quotes(error)
            else:
                problem = _wrong_count(cells, n_columns)
            end = line + len(self._taken)
            stop = end - 1
            noted = next((bad[i] for i in range(line, stop + 1) if i in bad), None) if bad else None
            if cells is None or (cells and n_columns and (problem or noted)):
                unreadable.append(Unreadable(line, stop, *(noted or problem or ("", ""))))
            elif cells and n_columns:
                first.append(line)
                last.append(stop)
            elif cells:
                n_columns = len(cells)
                if noted:
                    refuse_header(path, line, *noted)
            line = end
        begin, stop_at = np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)
        return FileRows(path, self._kind, "line", begin, stop_at, unreadable)

    def _give_back(self, path: Path, line: int) -> None:
        """Let all lines of a record but its first be read again."""
        self._again.extend(reversed(self._taken[1:]))
        self._reread += self._held
        self._taken = self._taken[:1]
        if self._reread > _MOST_REREAD:
            found = f"{path}: from line {line} on many cells begin with a double quote that is never closed"
            fix = "correct the quotes; if they are plain characters in a tab-separated file, --format tsv"
            raise BadInput(found, "quotes that match", fix)


def refuse_header(path: Path, line: int, why: str, fix: str) -> NoReturn:
    """Raise BadInput for a header that cannot be read."""
    raise BadInput(f"{path}, line {line}: {why}", "a header line that can be read", fix)


def _quotes(error: csv.Error) -> tuple[str, str]:
    why = str(error)
    if "unexpected end" in why:
        why = "a cell that begins with a double quote is never closed"
    fix = "double the quotes inside a cell and close it; if quotes are plain characters, --format tsv"
    return why, fix


def _wrong_count(cells: list[str], n_columns: int) -> tuple[str, str] | None:
    if not cells or not n_columns or len(cells) == n_columns:
        return None
    fix = "put a cell that holds a comma, quote or line break in double quotes"
    return f"has {len(cells)} cells, and the header {n_columns}", fix
