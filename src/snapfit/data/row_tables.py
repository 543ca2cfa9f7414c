"""Tables from rows and from other libraries: lists of dicts or tuples, pandas, polars, Arrow."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from snapfit.core.errors import BadInput, shown
from snapfit.data.json_cells import is_json_kinds, json_array

_TUPLE_NAMES = {2: ("text", "label"), 3: ("text", "pair", "label")}
_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError)

_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
"""Types of views that many of Arrow's functions do not take, and what holds the same values."""


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
        return checked_text(source, "the Table given")
    if isinstance(source, list | tuple):
        return _list_table(source)
    try:
        if type(source).__module__.split(".")[0] == "pandas":
            named = source.rename(columns=str)
            check_names(list(named.columns), f"the {type(source).__name__} given")
            return without_views(pa.Table.from_pandas(named, preserve_index=False).replace_schema_metadata())
        return without_views(pa.table(source))
    except _ARROW_ERRORS as error:
        found = f"the {type(source).__name__} given has a column that Arrow cannot hold ({error})"
        raise BadInput(found, "one type of value in a column", "turn the column into text") from error


def check_names(names: Sequence[str], where: str) -> None:
    """Raise BadInput when two columns have the same name."""
    repeated = [(name, count) for name, count in Counter(names).items() if count > 1]
    if repeated:
        found = f"{where} has {repeated[0][1]} columns named {shown(repeated[0][0])}"
        fix = "rename one of them; a file without a header needs one, such as text and label"
        raise BadInput(found, "columns with names that differ", fix)


def separator_hint(names: Sequence[str]) -> str:
    """What is likely the matter with a table of one column whose name holds what separates columns elsewhere."""
    sign = next((sign for sign in "\t;|," if sign in names[0]), None) if len(names) == 1 else None
    if sign is None:
        return ""
    what = {"\t": "a tab: --format tsv", ",": "',': --format csv"}.get(sign, f"{sign!r}: save it with commas, as CSV")
    return f"the one column has in its name what may separate columns, {what}. Or "


def without_views(table: Any) -> Any:
    """The same table or batch, with texts and bytes that Arrow holds as views as plain ones, which can be taken."""
    for place, field in enumerate(table.schema):
        plain = _PLAIN.get(field.type)
        if plain is not None:
            table = table.set_column(place, field.with_type(plain), table.column(place).cast(plain))
    return table


def checked_text(table: Any, where: str, *, first: int = 0) -> Any:
    """The same table or batch, without views; BadInput where a text is not UTF-8, which Arrow takes as it comes.

    first: the number of its first row in the whole table.
    """
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        for name, column in zip(table.schema.names, table.columns, strict=True):
            if (row := _first_invalid(column)) is not None:
                found = f"{where}: {shown(name)} in row {first + row + 1:,} is not UTF-8, or not valid otherwise"
                raise BadInput(found, "valid Unicode", "write the table again from its source") from error
        raise
    return without_views(table)


def _first_invalid(column: Any) -> int | None:
    """The first row of a column that is not valid."""
    good, bad = 0, len(column) + 1  # rows from the start that are valid, and as many that are not
    while good + 1 < bad:
        middle = (good + bad) // 2
        try:
            column.slice(0, middle).validate(full=True)
            good = middle
        except pa.ArrowInvalid:
            bad = middle
    return good if good < len(column) else None


def dict_table(
    rows: Sequence[Mapping[str, Any]], *, as_json: frozenset[str] = frozenset(), where: str = "the list given"
) -> pa.Table:
    """The table of rows that are dicts with str keys; a missing key is null.

    Values are kept as they are: a column that no type of Arrow holds without changing them is of type JSON (see
    json_cells.py), and so are those named in `as_json`.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows], name, where, name in as_json) for name in names})


def _list_table(rows: Sequence[Any]) -> pa.Table:
    if not rows or isinstance(rows[0], dict):
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                found = f"item {i}: {shown(row)} ({type(row).__name__})"
                raise BadInput(found, "a dict, as item 0", "correct the item")
            for name in row:
                if not isinstance(name, str):
                    raise BadInput(f"a column named {name!r}", "names that are text", "turn the keys into text")
        return dict_table(rows)
    width = len(rows[0]) if isinstance(rows[0], tuple | list) else 0
    if width not in _TUPLE_NAMES:
        found = f"a list that begins with {shown(rows[0])} ({type(rows[0]).__name__})"
        expected = "dicts, or tuples (text, label) or (text, second text, label)"
        raise BadInput(found, expected, "pass one of these, or a data frame with named columns")
    for i, row in enumerate(rows):
        if not isinstance(row, tuple | list) or len(row) != width:
            found = f"item {i} is {shown(row)} ({type(row).__name__})"
            raise BadInput(found, f"a tuple of {width}, as item 0", "correct the item")
    return dict_table([dict(zip(_TUPLE_NAMES[width], row, strict=True)) for row in rows])


def _column(values: list[Any], name: str, where: str, as_json: bool) -> pa.Array:
    """An Arrow array of the values."""
    try:
        return json_array(values, as_json=as_json) if as_json or is_json_kinds(values) else pa.array(values)
    except UnicodeEncodeError:
        raise _half_a_pair(values, name) from None
    except _ARROW_ERRORS as error:
        found = f"{where} has a column {shown(name)} whose values are no data ({error})"
        raise BadInput(found, "texts, numbers, booleans or lists of them", "turn them into text") from error


def _half_a_pair(values: list[Any], name: str) -> BadInput:
    place = ""
    for i, value in enumerate(values):
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        except UnicodeEncodeError:
            place = f"item {i}: "
            break
    found = f"{place}half of a surrogate pair in {shown(name)}"
    return BadInput(found, "valid Unicode", "decode the text from its source again")
