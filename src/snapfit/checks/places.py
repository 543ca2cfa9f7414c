"""Where rows are: the lines of files that they were read from, and lines that are no row."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from snapfit.core.places import Place


@dataclass(frozen=True)
class Unreadable:
    """Lines that are no row. first, last: their numbers, from 1 (of a JSON array: of the item). why: in words."""

    first: int
    last: int
    why: str
    fix: str


@dataclass(frozen=True)
class FileRows:
    """The rows of a file.

    first, last: int64 [n], the lines on which each begins and ends, from 1; of Parquet the row, of a JSON array the
    item. word: what they count, "line", "row" or "item". unreadable: what is none.
    """

    path: Path
    kind: str
    word: str
    first: np.ndarray
    last: np.ndarray
    unreadable: list[Unreadable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Places:
    """Where rows are. files: those of the table, or one without a path for a table in memory.

    rows: int64 [n], the number of each row among all that can be read, file after file.
    """

    files: list[FileRows]
    rows: np.ndarray

    def of(self, row: int) -> tuple[Path | None, str, int]:
        """(file, word, number): the place of a row, such as (train.csv, "line", 12)."""
        number = int(self.rows[row])
        for one in self.files:
            if number < len(one):
                return (one.path if one.path.name else None), one.word, int(one.first[number])
            number -= len(one)
        raise IndexError(row)

    def named(self, table: str) -> Place:
        """The table by that name, whose rows messages tell by their lines."""
        return Place.of(table, locate=lambda rows: [self._name(row) for row in rows])

    def _name(self, row: int) -> str:
        path, word, number = self.of(row)
        return f"{path.name} {word} {number:,}" if path is not None and len(self.files) > 1 else f"{word} {number:,}"

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """The line, item or row number of each of these rows in its file, int64."""
        every = np.concatenate([one.first for one in self.files])
        numbers: np.ndarray = every[self.rows[rows]]
        return numbers

    def file_of(self, rows: np.ndarray) -> np.ndarray:
        """Which of the files each of these rows is in, int64."""
        ends = np.cumsum([len(one) for one in self.files])
        return np.asarray(np.searchsorted(ends, self.rows[rows], side="right"), dtype=np.int64)
