"""The pieces of files joined into one table: columns in the order in which they turn up, types wide enough for all.

A column whose pieces are of types that have no common one without changing a value is read again as JSON (see
json_cells.py), so that what a table holds does not depend on where its pieces end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from snapfit.core.errors import BadInput, listed, shown
from snapfit.data.json_cells import JSON
from snapfit.data.table_pieces import file_pieces


@dataclass(frozen=True)
class Shape:
    """What is known of a table.

    types: of its columns, in their order. as_json: columns that are read as JSON. of_json: whether columns can be.
    """

    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    as_json: frozenset[str] = frozenset()
    of_json: bool = False

    @property
    def schema(self) -> pa.Schema:
        """As a schema of Arrow."""
        return pa.schema(list(self.types.items()))

    def joined(self, schema: pa.Schema) -> "Shape":
        """The shape that has room for a piece too. Raises ReadAgainError, and BadInput where there is none."""
        types = dict(self.types)
        for one in schema:
            kind = types.setdefault(one.name, one.type)
            if kind != one.type:
                types[one.name] = self._wider(one.name, kind, one.type)
        return replace(self, types=types)

    def cast(self, table: pa.Table) -> pa.Table:
        """A piece in this shape; columns that it has not are null. Raises as `joined` does."""
        columns, there = [], dict(zip(table.column_names, table.columns, strict=True))
        for name, kind in self.types.items():
            column = there.get(name, _NOTHING)
            if pa.types.is_null(column.type):
                column = pa.nulls(table.num_rows, kind)
            try:
                columns.append(column if column.type == kind else column.cast(kind))
            except pa.ArrowException as error:  # such as an integer that no floating-point number is
                raise self._several_kinds(name, column.type, kind) from error
        return pa.table(columns, schema=self.schema)

    def _wider(self, name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        """The common type of two."""
        if pa.types.is_null(one) or pa.types.is_null(other):
            return other if pa.types.is_null(one) else one
        one, other = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (one, other))
        try:
            both = [pa.schema([("value", kind)]) for kind in (one, other)]
            return pa.unify_schemas(both, promote_options="permissive").field("value").type
        except pa.ArrowException as error:
            raise self._several_kinds(name, one, other) from error

    def _several_kinds(self, name: str, one: pa.DataType, other: pa.DataType) -> Exception:
        """What to raise for a column without a type for all its values."""
        if self.of_json and name not in self.as_json:
            return ReadAgainError(replace(self, types={**self.types, name: JSON}, as_json=self.as_json | {name}))
        found = f"the column {shown(name)} holds {one} and {other}"
        return BadInput(found, "one kind of value in a column, in all files", "turn the column into text")


_NOTHING = pa.nulls(0)


class ReadAgainError(Exception):
    """What was read so far is to be read again in this shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape


def joined_table(files: Mapping[Path, str], encoding: str) -> pa.Table:
    """The table of all files, in memory. files: the format of each. Raises BadInput for what is not a table."""
    shape = Shape(of_json="jsonl" in files.values())
    while True:
        try:
            tables = []
            for table in pieces_of(files, encoding, shape, at_once=True):
                shape = shape.joined(table.schema)
                tables.append(table)
            return pa.concat_tables([shape.cast(table) for table in tables if table.num_rows])
        except ReadAgainError as again:
            shape = again.shape


def pieces_of(files: Mapping[Path, str], encoding: str, shape: Shape, *, at_once: bool = False) -> Iterator[pa.Table]:
    """The pieces of all files, with the columns of the first file in its order, and JSON lines' in any.

    Raises BadInput for a file without rows or with other columns, and as `file_pieces` does.
    """
    first: Path | None = None
    names: list[str] = []
    for path, kind in files.items():
        n_rows = n_columns = 0
        for table in file_pieces(path, kind, encoding, as_json=shape.as_json, at_once=at_once):
            if first is None:
                first, names = path, table.column_names
            if kind != "jsonl" and set(names) != set(table.column_names):
                found = f"{path} has the columns {listed(table.column_names)}, and {first} {listed(names)}"
                raise BadInput(found, "the same columns in all files of a folder", "name one file")
            n_rows, n_columns = n_rows + table.num_rows, table.num_columns
            yield (table if kind == "jsonl" else table.select(names)).replace_schema_metadata()
        if not n_rows:
            found = f"{path} has {'a header' if n_columns else 'no columns'} and no rows"
            raise BadInput(found, "at least one row", "check the table")
