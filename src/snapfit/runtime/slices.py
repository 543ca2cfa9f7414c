"""Where in a table a classifier is better or worse: by the length of its texts, and by any column.

A slice is measured by the metric of its task that is a quotient of two sums over rows (`SLICE_METRICS`), so that six
sums say all of it: its value, its interval, and whether it differs from the rest of the table beyond chance.

One pass is enough, and memory is bounded. A column of words has a slice for each of the first MOST_VALUES different
values, and one for all others. A column of numbers (also when they are written as text) has a slice for each value up
to FEW_NUMBERS of them, else four of about as many rows; sums are held for up to 2 * HELD_NUMBERS different numbers, and
beyond for as many ranges of neighbouring ones. Lengths are in tokens of the whole text, before it is cut.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from snapfit.core.intervals import QuotientSums, quotient, quotient_interval, wilson
from snapfit.core.labels import Task
from snapfit.core.outcomes import SLICE_METRICS, Outcomes
from snapfit.core.significance import compare_quotients, compare_shares, holm
from snapfit.data.columns import parse_number
from snapfit.runtime.examples import shortened

LENGTH = "length"
MOST_VALUES = 1_000
FEW_NUMBERS = 12
PARTS = 4
HELD_NUMBERS = 4_096
_N_SUMS = len(QuotientSums._fields)


class Slice(NamedTuple):
    """A part of the table. name: what people call it. low, high: the numbers in it, or None. sums: float64 [6]."""

    name: str
    low: float | None
    high: float | None
    sums: np.ndarray


class WordSlices:
    """A slice for each value of a column; None stands for a missing one."""

    def __init__(self) -> None:
        self._sums: dict[str | None, np.ndarray] = {}
        self._others = np.zeros(_N_SUMS)

    def add(self, cells: Sequence[str | None], terms: np.ndarray) -> None:
        """Count rows in. cells: of the column. terms: float64 [n, 6], see `terms_of`."""
        places: dict[str | None, int] = {}
        codes = np.fromiter((places.setdefault(cell, len(places)) for cell in cells), dtype=np.int64, count=len(cells))
        sums = _summed(codes, terms, len(places))
        for value, i in places.items():
            if value in self._sums:
                self._sums[value] += sums[i]
            elif len(self._sums) < MOST_VALUES:
                self._sums[value] = sums[i].copy()
            else:
                self._others += sums[i]

    def slices(self) -> list[Slice]:
        """Those with most rows first, of equal ones in the order of their first rows; all others last."""
        order = sorted(self._sums, key=lambda value: -self._sums[value][0])
        found = [Slice(_named(value), None, None, self._sums[value]) for value in order]
        return [*found, Slice("other values", None, None, self._others)] if self._others[0] else found


class NumberSlices:
    """Slices of a number's ranges.

    edges: where given, ranges end at these numbers, each of which is still inside. limit: what is beyond it is a slice
    of its own. unit: of the numbers, for the names of slices; numbers with a unit are cut into ranges however few.
    """

    def __init__(self, *, edges: Sequence[float] = (), limit: float | None = None, unit: str = "") -> None:
        self._edges, self._limit, self._unit = tuple(edges), limit, unit
        self._low, self._high = np.empty(0), np.empty(0)
        self._sums = np.empty((0, _N_SUMS))

    def add(self, values: np.ndarray, terms: np.ndarray) -> None:
        """Count rows in. values: float64 [n], finite. terms: float64 [n, 6]."""
        distinct, codes = np.unique(values, return_inverse=True)
        low, high = np.concatenate([self._low, distinct]), np.concatenate([self._high, distinct])
        sums = np.concatenate([self._sums, _summed(codes, terms, len(distinct))])
        order = np.argsort(low, kind="stable")
        low, high, sums = low[order], high[order], sums[order]
        # a number that lies in a range which is held already belongs to it
        starts = np.flatnonzero(np.concatenate([[True], low[1:] > np.maximum.accumulate(high)[:-1]]))
        self._low, self._high, self._sums = _joined(low, high, sums, starts)
        if len(self._low) > 2 * HELD_NUMBERS:
            self._thin_out()

    @property
    def n_different(self) -> int:
        """How many different numbers, or ranges, are held."""
        return len(self._low)

    def slices(self) -> list[Slice]:
        """In ascending order."""
        if not len(self._low):
            return []
        starts = np.flatnonzero(np.diff(self._groups(), prepend=-1))
        low, high, sums = _joined(self._low, self._high, self._sums, starts)
        return [Slice(self._range(a, b), float(a), float(b), s) for a, b, s in zip(low, high, sums, strict=True)]

    def _groups(self) -> np.ndarray:
        """The slice of each number held, ascending."""
        if self._edges:
            return np.searchsorted(np.array(self._edges), self._low, side="left")
        beyond = np.zeros(len(self._low), dtype=np.int64)
        if self._limit is not None:
            beyond = (self._low > self._limit).astype(np.int64)
        rows = self._sums[:, 0] * (1 - beyond)
        if not self._unit and len(self._low) <= FEW_NUMBERS:
            return np.arange(len(self._low))
        middles = np.cumsum(rows) - rows / 2
        quarters = np.minimum(PARTS - 1, np.floor(middles * PARTS / max(rows.sum(), 1.0))).astype(np.int64)
        return np.where(beyond == 1, PARTS, quarters)

    def _thin_out(self) -> None:
        """Join neighbours, so that each range has about as many rows, but none reaches over an edge."""
        rows = self._sums[:, 0]
        places = np.floor((np.cumsum(rows) - rows / 2) * HELD_NUMBERS / rows.sum()).astype(np.int64)
        walls = [*self._edges, *([] if self._limit is None else [self._limit])]
        places += np.searchsorted(np.array(walls), self._low, side="left") * (HELD_NUMBERS + 1)
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        self._low, self._high, self._sums = _joined(self._low, self._high, self._sums, starts)

    def _range(self, low: float, high: float) -> str:
        ends = _plain(low) if low == high else f"{_plain(low)}–{_plain(high)}"
        return f"{ends}{self._unit}"


class ColumnSlices:
    """Slices of a column: by number where every cell is one, else by value. Missing and empty cells are values."""

    def __init__(self) -> None:
        self._words, self._blanks = WordSlices(), WordSlices()
        self._numbers: NumberSlices | None = NumberSlices()

    def add(self, column: pa.ChunkedArray, terms: np.ndarray) -> None:
        """Count rows in."""
        values = [None if value != value else value for value in column.to_pylist()]  # NaN is a missing number
        cells = [None if value is None else _text(value) for value in values]
        self._words.add(cells, terms)
        if self._numbers is None:
            return
        blank = np.array([cell is None or not cell.strip() for cell in cells], dtype=bool)
        numbers = [None if empty else _number(value) for value, empty in zip(values, blank, strict=True)]
        if any(number is None and not empty for number, empty in zip(numbers, blank, strict=True)):
            self._numbers = None
            return
        kept = np.array([number for number in numbers if number is not None], dtype=np.float64)
        self._numbers.add(kept, terms[~blank])
        self._blanks.add([cell for cell, empty in zip(cells, blank, strict=True) if empty], terms[blank])

    def slices(self) -> list[Slice]:
        """By number in ascending order, or by value, the most frequent first."""
        if self._numbers is None or not self._numbers.n_different:
            return self._words.slices()
        return [*self._numbers.slices(), *self._blanks.slices()]


class Slices:
    """Slices by length and by columns, of rows as they come.

    columns: of the table. length_edges: where slices of length end, in tokens, ascending; else there are four of about
    as many rows. limit: the longest text that the bundle reads whole, in tokens; longer ones are a slice of their own.
    """

    def __init__(self, task: Task, columns: Sequence[str], *, length_edges: Sequence[int] = (), limit: int) -> None:
        self._task = task
        edges = tuple(float(edge) for edge in length_edges)
        self._lengths = NumberSlices(edges=edges, limit=None if edges else float(limit), unit=" tokens")
        self._columns = {name: ColumnSlices() for name in dict.fromkeys(columns)}

    def add(self, outcomes: Outcomes, lengths: np.ndarray, table: pa.Table) -> None:
        """Count rows in. lengths: int64 [n], tokens. table: the same rows with all columns."""
        terms = terms_of(outcomes)
        self._lengths.add(lengths.astype(np.float64), terms)
        for name, slices in self._columns.items():
            slices.add(table.column(name), terms)

    def to_list(self, confidence: float) -> list[dict[str, Any]]:
        """The slices as plain values; a column of one slice only has nothing to be compared with.

        Each has by ("length" or "column"), column (None for length), slice, low, high, rows, metric, value, interval
        (or None), rest (the value of all other rows, or None), p (or None), p_adjusted (Holm's, over all slices) and
        differs (whether that is below 1 - confidence).
        """
        found: list[dict[str, Any]] = []
        tests: list[float | None] = []
        test_of: list[int] = []
        for by, column, slices in self._all():
            total = np.sum([one.sums for one in slices], axis=0)
            for i, one in enumerate(slices):
                p = self._p(one.sums, total - one.sums)
                if i == 0 or len(slices) > 2:  # of two slices each is the other's rest: one test, and counted as one
                    tests.append(p)
                test_of.append(len(tests) - 1)
                found.append({"by": by, "column": column, **self._described(one, total, confidence), "p": p})
        adjusted = holm(tests)
        for described, test in zip(found, test_of, strict=True):
            p = adjusted[test]
            described |= {"p_adjusted": p, "differs": p is not None and p < 1 - confidence}
        return found

    def _all(self) -> Iterator[tuple[str, str | None, list[Slice]]]:
        yield LENGTH, None, self._lengths.slices()
        for name, slices in self._columns.items():
            yield "column", name, slices.slices()

    def _described(self, one: Slice, total: np.ndarray, confidence: float) -> dict[str, Any]:
        sums, rest = QuotientSums(*one.sums), QuotientSums(*(total - one.sums))
        if self._task == "single":
            interval = wilson(float(sums.x), float(sums.y), confidence)
        else:
            interval = quotient_interval(sums, confidence, is_share=self._task == "multi")
        return {
            "slice": one.name,
            "low": one.low,
            "high": one.high,
            "rows": int(sums.rows),
            "metric": SLICE_METRICS[self._task],
            "value": quotient(sums),
            "interval": None if interval is None else list(interval),
            "rest": quotient(rest) if rest.rows else None,
        }

    def _p(self, sums: np.ndarray, rest: np.ndarray) -> float | None:
        first, second = QuotientSums(*sums), QuotientSums(*rest)
        if self._task == "single":
            return compare_shares(int(first.x), int(first.y), int(second.x), int(second.y))
        return compare_quotients(first, second)


def terms_of(outcomes: Outcomes) -> np.ndarray:
    """float64 [n, 6]: what each row adds to `QuotientSums`."""
    x, y = outcomes.parts
    return np.column_stack([np.ones(len(x)), x, y, x * x, x * y, y * y])


def _summed(codes: np.ndarray, terms: np.ndarray, n: int) -> np.ndarray:
    """float64 [n, 6]: the terms of each code."""
    return np.stack([np.bincount(codes, weights=column, minlength=n) for column in terms.T], axis=1)


def _joined(
    low: np.ndarray, high: np.ndarray, sums: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours together, a range beginning at each of `starts`."""
    if not len(low):
        return low, high, sums
    return low[starts], np.maximum.reduceat(high, starts), np.add.reduceat(sums, starts, axis=0)


def _number(value: Any) -> float | None:
    """The number that a cell is; a text with zeros in front, such as a postcode, is none."""
    if isinstance(value, str):
        digits = value.strip().lstrip("+-")
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            return None
    number = parse_number(value)
    return number if number is not None and math.isfinite(number) else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _named(value: str | None) -> str:
    if value is None:
        return "(missing)"
    return shortened(value) if value else "(empty)"


def _plain(number: float) -> str:
    return f"{number:.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.6g}"
