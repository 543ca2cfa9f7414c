"""Tables from rows and from other libraries: JSON lines, lists of dicts or tuples, pandas, polars, Arrow."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from snapfit.core.errors import BadInput

_TUPLE_NAMES = {2: ("text", "label"), 3: ("text", "pair", "label")}
_FIX_JSON = 'write one object a line, such as {"text": "...", "label": "..."}'
_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def is_python_table(source: object) -> bool:
    """Whether `python_table` takes this."""
    return isinstance(source, pa.Table | list | tuple) or any(
        hasattr(source, name) for name in ("__arrow_c_stream__", "__dataframe__")
    )


def python_table(source: Any) -> pa.Table:
    """An Arrow table of a pandas, polars or Arrow table, of whatever gives an Arrow stream, or of a list.

    Lists hold dicts (a missing key is null), or tuples (text, label) or (text, second text, label).
    Raises BadInput for rows that differ in kind, and for columns that Arrow cannot hold.
    """
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, list | tuple):
        return _list_table(source)
    try:
        if type(source).__module__.split(".")[0] == "pandas":
            named = source.rename(columns=str)
            check_names(list(named.columns), f"the {type(source).__name__} given")
            return pa.Table.from_pandas(named, preserve_index=False).replace_schema_metadata()
        return pa.table(source)
    except _ARROW_ERRORS as error:
        found = f"the {type(source).__name__} given has a column that Arrow cannot hold ({error})"
        raise BadInput(found, "one type of value in a column", "turn the column into text") from error


def json_table(data: bytes, where: str) -> pa.Table:
    """The table of JSON lines, or of one JSON array of objects. data: UTF-8 without NUL bytes.

    A missing key is null. A column whose values are of several kinds becomes text: strings as they are, the
    rest as JSON. Raises BadInput naming the line that is no object or names a key twice.
    """
    if data.lstrip().startswith(b"["):
        rows = _parsed(data, where)
        return dict_table(rows, lambda i: f"{where}, item {i + 1}")
    return json_lines_table(data, where)


def json_lines_table(
    data: bytes, where: str, *, first_line: int = 1, as_text: frozenset[str] = frozenset()
) -> pa.Table:
    """As `json_table`, of lines only. first_line: the number of the first one. as_text: columns that become text."""
    lines: list[int] = []
    rows = []
    for number, line in enumerate(data.split(b"\n"), first_line):
        if line.strip():
            rows.append(_parsed(line, f"{where}, line {number}"))
            lines.append(number)
    return dict_table(rows, lambda i: f"{where}, line {lines[i]}", as_text=as_text)


def check_names(names: Sequence[str], where: str) -> None:
    """Raise BadInput when two columns have the same name."""
    repeated = [(name, count) for name, count in Counter(names).items() if count > 1]
    if repeated:
        found = f"{where} has {repeated[0][1]} columns named {repeated[0][0]!r}"
        fix = "rename one of them; a file without a header needs one, such as text and label"
        raise BadInput(found, "columns with names that differ", fix)


def dict_table(rows: Sequence[Any], place: Callable[[int], str], *, as_text: frozenset[str] = frozenset()) -> pa.Table:
    """The table of rows that are dicts with str keys. place(i): where row i (from 0) is, for errors.

    as_text: columns whose values become text, as they do in every column that holds several kinds.
    """
    names: dict[str, None] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadInput(f"{place(i)}: {_shown(row)}", "an object with names and values", _FIX_JSON)
        names.update(dict.fromkeys(row))
    for name in names:
        if not isinstance(name, str):
            raise BadInput(f"a column named {name!r}", "names that are text", "turn the keys into text")
    columns = {
        name: (_as_text if name in as_text else _column)([row.get(name) for row in rows], name, place) for name in names
    }
    return pa.table(columns)


def _list_table(rows: Sequence[Any]) -> pa.Table:
    if not rows or isinstance(rows[0], dict):
        return dict_table(rows, lambda i: f"item {i}")
    width = len(rows[0]) if isinstance(rows[0], tuple | list) else 0
    if width not in _TUPLE_NAMES:
        found = f"a list that begins with {_shown(rows[0])}"
        expected = "dicts, or tuples (text, label) or (text, second text, label)"
        raise BadInput(found, expected, "pass one of these, or a data frame with named columns")
    for i, row in enumerate(rows):
        if not isinstance(row, tuple | list) or len(row) != width:
            raise BadInput(f"item {i} is {_shown(row)}", f"a tuple of {width}, as item 0", "correct the item")
    columns = zip(*rows, strict=True)
    return pa.table(
        {
            name: _column(list(column), name, lambda i: f"item {i}")
            for name, column in zip(_TUPLE_NAMES[width], columns, strict=True)
        }
    )


def _column(values: list[Any], name: str, place: Callable[[int], str]) -> pa.Array:
    """An Arrow array of the values; as text when they are of several kinds."""
    try:
        array = pa.array(values)
    except UnicodeEncodeError:
        _refuse_unicode(values, name, place)
    except _ARROW_ERRORS:
        return _as_text(values, name, place)
    return array


def _as_text(values: list[Any], name: str, place: Callable[[int], str]) -> pa.Array:
    """Text of values that Arrow holds in no one type: element by element where all are lists."""
    nested = all(value is None or isinstance(value, list | tuple) for value in values)
    try:
        if nested:
            texts = [None if value is None else [_text(item) for item in value] for value in values]
            return pa.array(texts, pa.large_list(pa.large_string()))
        return pa.array([_text(value) for value in values], pa.large_string())
    except UnicodeEncodeError:
        _refuse_unicode(values, name, place)
    except _ARROW_ERRORS as error:
        found = f"the column {name!r} holds values that are no data ({error})"
        raise BadInput(found, "texts, numbers, booleans or lists of them", "turn them into text") from error


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse_unicode(values: list[Any], name: str, place: Callable[[int], str]) -> NoReturn:
    for i, value in enumerate(values):
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        except UnicodeEncodeError:
            found = f"{place(i)}: half of a surrogate pair in {name!r}"
            fix = "decode the text from its source again"
            raise BadInput(found, "valid Unicode", fix) from None
    raise BadInput(f"text in {name!r} that is not Unicode", "valid Unicode", "decode it again")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        found = f"{where}: no JSON ({error.msg} at character {error.pos + 1})"
        raise BadInput(found, "one JSON object a line", _FIX_JSON) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: {error}", "one JSON object a line", _FIX_JSON) from error


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a name that occurs twice in one object")
    return row


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
