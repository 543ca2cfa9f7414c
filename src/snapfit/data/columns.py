"""Which columns of a table hold texts and labels, and which task they make: as named, or by usual names.

Nothing is guessed between equals: where two columns could be meant, or none, the error lists the columns and
names the flag that settles it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from snapfit.core.errors import BadInput, listed, nearest, shown
from snapfit.core.labels import TASKS, Task
from snapfit.core.maps import release_pages
from snapfit.data.json_cells import is_json_type, json_text, json_values
from snapfit.data.row_tables import separator_hint

TEXTS = tuple(
    "text sentence content review query utterance comment message body title document question tweet "
    "文本 内容 句子 评论 标题".split()
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "answer"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
    ("text", "pair"),
    ("s1", "s2"),
)
LABELS = tuple("label category class intent target sentiment emotion topic y 标签 类别 分类".split())
LABEL_LISTS = tuple("labels tags categories topics".split())
NUMBERS = tuple("score similarity rating value 分数".split())
_IDENTIFIERS = {"id", "idx", "index", "guid", ""}
_LIST_SIGNS = (",", ";", "|")
_NO_HEADER = "a file without a header needs one as its first line, such as text and label"
_CHUNK_ROWS = 65_536
MIN_DISTINCT_NUMBERS = 20
"""A label column of numbers, some with fractions, is a regression when more than these are different."""


@dataclass(frozen=True)
class Columns:
    """Where a table keeps what is learnt from.

    text, pair: columns of the first and second texts; pair is None for single texts. label: the column of
    labels, None where they are not read. task: what the labels make. found: one sentence with what was
    taken, and why.
    """

    text: str
    pair: str | None
    label: str | None
    task: Task
    found: str


def find_columns(
    table: pa.Table,
    *,
    text: str = "auto",
    pair: str | None = "auto",
    label: str = "auto",
    task: str = "auto",
    delimiter: str | None = None,
    labels_required: bool = True,
    where: str = "",
) -> Columns:
    """The columns of a table; "auto" looks for the names that are usual, in any case.

    pair: None says that there is no second text. delimiter: what separates many labels in one cell; it makes
    the task multi. labels_required: without, labels are left alone unless `label` names their column.
    where: what the table is called in errors.
    Raises BadInput for a name that is absent, for ambiguity, and for settings that exclude each other.
    """
    try:
        return _found(table, text, pair, label, task, delimiter, required=labels_required)
    except BadInput as error:
        raise BadInput(f"{where}: {error.found}" if where else error.found, error.expected, error.fix) from None


def _found(
    table: pa.Table, text: str, pair: str | None, label: str, task: str, delimiter: str | None, *, required: bool
) -> Columns:
    if task not in ("auto", *TASKS):
        raise BadInput(f"the task {task!r}", f"auto, {', '.join(TASKS)}", "--task single")
    if delimiter == "":
        raise BadInput("an empty delimiter", "what separates labels, such as ','", "--delimiter ','")
    names = table.column_names
    label_column = _label_column(names, label, [text, pair], required=required)
    text_column, pair_column = _text_columns(table, text, pair, label_column)
    chosen: Task
    if label_column is None:
        chosen, why = ("single" if task == "auto" else cast(Task, task)), ""
    else:
        labels_there = table.column(label_column)
        if is_json_type(labels_there.type):
            labels_there = _different_values(labels_there)
        chosen, why = _task(labels_there, label_column, task, delimiter)
    roles = [role for role in (text_column, pair_column, label_column) if role is not None]
    if len(set(roles)) < len(roles):
        found = f"one column in two roles: text {text_column!r}, pair {pair_column!r}, label {label_column!r}"
        raise BadInput(found, "a column for each", f"name others (--text, --pair, --label){_listing(names)}")
    texts = f"texts in {text_column!r}" if pair_column is None else f"pairs in {text_column!r} and {pair_column!r}"
    labels = "labels not read" if label_column is None else f"labels in {label_column!r}: {chosen} ({why})"
    return Columns(text_column, pair_column, label_column, chosen, f"{texts}, {labels}")


def parse_number(value: Any) -> float | None:
    """The finite number that a cell holds, as a number or as text; None for whatever else."""
    number = _parse_float(value)
    return number if number is not None and math.isfinite(number) else None


def _parse_float(value: Any) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_list_type(kind: pa.DataType) -> bool:
    """Whether cells of this Arrow type are lists."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_text_type(kind: pa.DataType) -> bool:
    """Whether cells of this Arrow type are text, plain or dictionary-encoded."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# ---------------------------------------------------------------- names


def _by_key(names: list[str]) -> dict[str, str]:
    """Columns by name in lower case with "_" between words; the first one wins."""
    keys: dict[str, str] = {}
    for name in names:
        keys.setdefault(_key(name), name)
    return keys


def _key(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def _named(names: list[str], name: str, flag: str) -> str:
    if name in names:
        return name
    meant = _by_key(names).get(_key(name)) or nearest(name, names)
    fix = f"did you mean {flag} {meant!r}?" if meant else f"{flag} NAME, with one of the columns; {_NO_HEADER}"
    raise BadInput(f"no column {shown(name)}{_listing(names)}", "the name of a column", separator_hint(names) + fix)


def _listing(names: list[str]) -> str:
    return f"; the columns are {listed(names)}"


def _no_column(names: list[str], what: str, expected: str, flags: str) -> BadInput:
    """The error for a table without a column that could be meant."""
    fix = f"{flags}; {_NO_HEADER}"
    return BadInput(f"no column of {what} was found{_listing(names)}", expected, separator_hint(names) + fix)


def _label_column(names: list[str], label: str, texts: list[str | None], *, required: bool) -> str | None:
    if label != "auto":
        return _named(names, label, "--label")
    if not required:
        return None
    keys = _by_key([name for name in names if name not in texts])
    for group in (LABELS[:1], LABELS + LABEL_LISTS, NUMBERS):
        found = [keys[key] for key in group if key in keys]
        if len(found) > 1:
            several = f"several columns that could hold labels: {listed(found)}"
            raise BadInput(several + _listing(names), "one of them", f"--label {found[0]}, or another")
        if found:
            return found[0]
    expected = f"a column named {', '.join(LABELS[:4])}, {LABEL_LISTS[0]} or {NUMBERS[0]}"
    raise _no_column(names, "labels", expected, "--label NAME")


def _text_columns(table: pa.Table, text: str, pair: str | None, label: str | None) -> tuple[str, str | None]:
    names: list[str] = table.column_names
    keys = _by_key([name for name in names if name != label])
    if text != "auto" and pair != "auto":
        return _named(names, text, "--text"), None if pair is None else _named(names, pair, "--pair")
    known_pairs = [(keys[a], keys[b]) for a, b in PAIRS if a in keys and b in keys]
    if text != "auto":
        first = _named(names, text, "--text")
        return first, next((b for a, b in known_pairs if a == first), None)
    if pair is not None and pair != "auto":
        second = _named(names, pair, "--pair")
        known = [a for a, b in known_pairs if b == second]
        return known[0] if known else _single_text(table, keys, without={label, second}), second
    if pair == "auto" and known_pairs:
        return _only_pair(names, keys, known_pairs)
    return _single_text(table, keys, without={label}), None


def _only_pair(names: list[str], keys: dict[str, str], pairs: list[tuple[str, str]]) -> tuple[str, str]:
    others = [keys[key] for key in TEXTS if key in keys and keys[key] not in pairs[0]]
    if len(pairs) > 1 or others:
        options = [f"{a!r} with {b!r}" for a, b in pairs] + [repr(name) for name in others]
        found = f"several columns that could hold texts: {', '.join(options)}{_listing(names)}"
        raise BadInput(found, "one text, or one pair", "--text NAME, with --pair NAME or --pair none")
    return pairs[0]


def _single_text(table: pa.Table, keys: dict[str, str], *, without: set[str | None]) -> str:
    names: list[str] = table.column_names
    usual = [keys[key] for key in TEXTS if key in keys and keys[key] not in without]
    if keys.get(TEXTS[0]) in usual[:1] or len(usual) == 1:
        return usual[0]
    if usual:
        several = f"several columns that could hold texts: {listed(usual)}"
        raise BadInput(several + _listing(names), "one of them", f"--text {usual[0]}, or another")
    taken = {*_IDENTIFIERS, *LABELS, *LABEL_LISTS, *NUMBERS}
    rest = [name for key, name in keys.items() if key not in taken and name not in without]
    texts = [name for name in rest if is_text_type(table.schema.field(name).type)]
    if len(texts) == 1:
        return texts[0]
    expected = f"a column named {', '.join(TEXTS[:4])}, or a pair such as sentence1 and sentence2"
    raise _no_column(names, "texts", expected, "--text NAME (and --pair NAME)")


# ---------------------------------------------------------------- the task


def _task(column: pa.ChunkedArray, name: str, task: str, delimiter: str | None) -> tuple[Task, str]:
    """The task and why."""
    if is_list_type(column.type):
        if task in ("single", "regression") or delimiter is not None:
            given = f"the delimiter {delimiter!r}" if delimiter is not None else f"task {task}"
            found = f"{given} for {name!r}, whose cells are lists"
            fix = "leave it out, or name a column of single labels with --label NAME"
            raise BadInput(found, "task multi without a delimiter for lists", fix)
        return "multi", "its cells are lists"
    if delimiter is not None:
        if task in ("single", "regression"):
            found = f"task {task} with a delimiter between labels"
            raise BadInput(found, "task multi where a cell holds many labels", "leave out one of the two")
        return "multi", f"cells are split at {delimiter!r}"
    if task == "multi" and not _has_json_lists(column):
        found = f"task multi, and {name!r} holds cells that are no lists ({column.type})"
        raise BadInput(found, "lists, or what separates the labels of a cell", "--delimiter ','")
    if task != "auto":
        return cast(Task, task), "as given"
    key = next(iter(_by_key([name])))
    if key in LABEL_LISTS:
        return _task_of_lists(column, name)
    distinct = _distinct_numbers(column)
    if key in NUMBERS and (distinct is not None or _mostly_numbers(column)):
        return "regression", f"the column is called {name!r} and holds numbers"
    fractional = distinct is not None and any(not number.is_integer() for number in distinct)
    if distinct is not None and fractional and len(distinct) > MIN_DISTINCT_NUMBERS:
        return "regression", f"{len(distinct)} different numbers, some with fractions"
    return "single", "one label a row"


def _task_of_lists(column: pa.ChunkedArray, name: str) -> tuple[Task, str]:
    """The task of a column whose name means many labels and whose cells are no lists."""
    if _has_json_lists(column):
        return "multi", "its cells are JSON lists"
    if is_text_type(column.type):
        signs = [s for s in _LIST_SIGNS if any(pc.any(pc.match_substring(c, s)).as_py() for c in _text_chunks(column))]
        if signs:
            found = f"{name!r} may hold many labels in a cell: some have {signs[0]!r} in them"
            expected = "what separates them, or the word that each cell is one label"
            raise BadInput(found, expected, f"--delimiter '{signs[0]}', or --task single")
    return "single", "no cell holds several labels"


def _has_json_lists(column: pa.ChunkedArray) -> bool:
    """Whether every cell is the JSON of a list, as lists are written in CSV."""
    if not is_text_type(column.type) or column.null_count == len(column):
        return False
    for chunk in _text_chunks(column):
        cells = pc.utf8_trim_whitespace(chunk)
        if not pc.all(pc.and_(pc.starts_with(cells, "["), pc.ends_with(cells, "]"))).as_py():
            return False
    return True


def _different_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The different values of a column of type JSON: as lists where all are, else as texts."""
    seen: dict[str, Any] = {}
    for start in range(0, len(column), _CHUNK_ROWS):
        for value in json_values(column.slice(start, _CHUNK_ROWS)):
            if value is not None:
                seen.setdefault(json_text(value), value)
        release_pages()
    if all(isinstance(value, list) for value in seen.values()):
        lists = [[json_text(item) for item in value] for value in seen.values()]
        return pa.chunked_array([pa.array(lists, pa.list_(pa.large_string()))])
    return pa.chunked_array([pa.array(list(seen), pa.large_string())])


def _text_chunks(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """A column of text piece by piece, so that copies of a large one stay small."""
    for start in range(0, len(column), _CHUNK_ROWS):
        for chunk in column.slice(start, _CHUNK_ROWS).chunks:
            yield chunk.cast(pa.large_string())
        release_pages()


def _mostly_numbers(column: pa.ChunkedArray) -> bool:
    """Whether more than half of a text column's different cells are numbers: the others are then bad cells,
    which are named with their rows later, and no labels.
    """
    if not is_text_type(column.type):
        return False
    cells = list(_distinct(column))
    return sum(_parse_float(value) is not None for value in cells) * 2 > len(cells)


def _distinct_numbers(column: pa.ChunkedArray) -> set[float] | None:
    """The different numbers of a column, missing cells aside; None when a cell is not a number."""
    if not (is_text_type(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    numbers = set()
    for value in _distinct(column):
        number = _parse_float(value)  # infinities too: they are refused later, with their rows
        if number is None:
            return None
        numbers.add(number)
    return numbers or None


def _distinct(column: pa.ChunkedArray) -> Iterator[Any]:
    """The different values of a column but for missing ones, found piece by piece."""
    seen: set[Any] = {None}
    for start in range(0, len(column), _CHUNK_ROWS):
        for value in column.slice(start, _CHUNK_ROWS).unique().to_pylist():
            if value not in seen:
                seen.add(value)
                yield value
        release_pages()
