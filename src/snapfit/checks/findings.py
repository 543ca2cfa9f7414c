"""What a check finds: a kind, a level, the rows with their places, examples, and what to do."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from snapfit.checks.kinds import KINDS, Kind
from snapfit.checks.places import Places
from snapfit.checks.reading import CheckedSplit

Level = Literal["error", "warning", "note"]
"""error: training would fail, or its figures would be wrong; warning: they may be; note: good to know."""
LEVELS: tuple[Level, ...] = get_args(Level)

EXAMPLES = 5
"""Examples of a finding at most."""
_SHOWN_CHARACTERS = 100
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that are not shown as they are: a terminal would obey some of them."""


@dataclass(frozen=True)
class Where:
    """Rows of one file. split: train, valid or test. file: its name, "" for a table in memory.

    word: what the numbers count: line, row, item or label. numbers: int64, ascending but for ties.
    """

    split: str
    file: str
    word: str
    numbers: np.ndarray

    def __str__(self) -> str:
        return f"{self.file}: {self.word} {int(self.numbers[0])}" if self.file else f"{self.word} {self.numbers[0]}"


@dataclass(frozen=True)
class Example:
    """A case of a finding. texts: shortened, without characters that are not shown. places: where they are.

    labels: of these rows. note: what is the matter, where that is not plain.
    """

    texts: Sequence[str]
    places: Sequence[str] = ()
    labels: Sequence[str] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "texts": list(self.texts),
            "places": list(self.places),
            "labels": list(self.labels),
            "note": self.note,
        }


@dataclass(frozen=True)
class Finding:
    """Something about a table that its owner should know.

    kind: a key of KINDS. split: the table it is about. count of total: how many `unit` (rows, labels) are concerned.
    text: one sentence. where: all the rows. examples: a few. details: numbers by name. fix: instead of the kind's.
    """

    kind: str
    level: Level
    split: str
    count: int
    total: int
    text: str
    unit: str = "rows"
    where: Sequence[Where] = ()
    examples: Sequence[Example] = ()
    details: dict[str, Any] = field(default_factory=dict)
    fix: str = ""

    @property
    def of_kind(self) -> Kind:
        """What all findings of the kind have in common."""
        return KINDS[self.kind]

    @property
    def share(self) -> float:
        """The concerned part, 0 to 1."""
        return self.count / self.total if self.total else 0.0

    @property
    def what_to_do(self) -> str:
        """A command, a setting, or an edit."""
        return self.fix or self.of_kind.fix

    def to_dict(self, most_rows: int | None = None) -> dict[str, Any]:
        """Plain values, for JSON. most_rows: numbers of rows at most; none: all."""
        left = most_rows
        where = []
        for one in self.where:
            numbers = one.numbers if left is None else one.numbers[: max(left, 0)]
            left = None if left is None else left - len(numbers)
            where.append({"split": one.split, "file": one.file, "counted": one.word, "numbers": numbers.tolist()})
        return {
            "kind": self.kind,
            "title": self.of_kind.title,
            "level": self.level,
            "split": self.split,
            "count": self.count,
            "total": self.total,
            "unit": self.unit,
            "share": round(self.share, 6),
            "text": self.text,
            "effect": self.of_kind.effect,
            "fix": self.what_to_do,
            "details": self.details,
            "examples": [example.to_dict() for example in self.examples],
            "rows": where,
        }


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; in each by estimated harm: the kind's weight times the share."""
    return sorted(findings, key=lambda one: (LEVELS.index(one.level), -one.of_kind.weight * one.share, one.kind))


def level_by(share: float, *, error: float = 2.0, warning: float = 0.0) -> Level:
    """A level by the share of rows: error from `error` on, warning from `warning` on, else note."""
    return "error" if share >= error else "warning" if share >= warning else "note"


def rows_at(split: CheckedSplit, rows: np.ndarray) -> list[Where]:
    """Where the records of a split are. rows: int, from 0, ascending."""
    return places_at(split.name, split.places, np.asarray(rows, dtype=np.int64))


def places_at(name: str, places: Places, rows: np.ndarray) -> list[Where]:
    """Where some of these places are. rows: indices of them, int64 ascending."""
    files, numbers = places.file_of(rows), places.numbers(rows)
    found = []
    for i, one in enumerate(places.files):
        chosen = numbers[files == i]
        if len(chosen):
            found.append(Where(name, str(one.path) if one.path.name else "", one.word, chosen))
    return found


def place(split: CheckedSplit, row: int) -> str:
    """A row's place in words, such as "train.csv: line 12"."""
    path, word, number = split.places.of(row)
    return f"{split.name} {word} {number}" if path is None else f"{path.name}: {word} {number}"


def examples_of(split: CheckedSplit, rows: Sequence[int] | np.ndarray, notes: Sequence[str] = ()) -> list[Example]:
    """An example of each of the first few rows. notes: on each of them."""
    shown = [int(row) for row in rows[:EXAMPLES]]
    return [
        Example(texts_at(split, row), [place(split, row)], labels_at(split, row), note=notes[i] if notes else "")
        for i, row in enumerate(shown)
    ]


def texts_at(split: CheckedSplit, row: int) -> list[str]:
    """The text of a row, and the second one, as they are shown."""
    records: Any = split.records
    columns = [column for column in (records.texts, records.pairs) if column is not None]
    return [shown(column.slice(row, 1)[0].as_py()) for column in columns]


def labels_at(split: CheckedSplit, row: int) -> list[str]:
    """The label of a row as it is shown; nothing without labels."""
    labels: Any = split.records.labels
    if labels is None:
        return []
    value = labels.slice(row, 1)[0] if hasattr(labels, "slabs") else labels[row]
    if isinstance(value, str):
        return [shown(value)]
    return [", ".join(map(shown, value)) or "no label"] if isinstance(value, list) else [f"{float(value):g}"]


def shown(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """A text on one line, shortened; characters that cannot be seen or would be obeyed are written as escapes."""
    cut = text[: most + 1]
    plain = "".join(
        character if unicodedata.category(character) not in _HIDDEN else ascii(character)[1:-1] for character in cut
    )
    return plain if len(text) <= most else plain[:most].rstrip() + "…"


def quantity(count: int, word: str) -> str:
    """A number with its word, such as "1 row" or "1,099 rows"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def verb(count: int, plural: str) -> str:
    """The form of a verb that goes with a number, such as "has" with 1 and "have" with more."""
    return {"have": "has", "are": "is"}.get(plural, f"{plural}s") if count == 1 else plural


def percent(share: float) -> str:
    """A share in words, with as many digits as say something."""
    value = 100 * share
    if value == 0 or value >= 10:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else f"{value:.2g} %"
