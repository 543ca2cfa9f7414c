"""Tables that are read part by part, so that memory does not grow with their rows.

A file of up to WHOLE_BYTES is read at once. A larger one is read twice: once to check that nothing in it is odd, before
any work begins, and once to be used. Where a part cannot be read as all of it would be (rows that are damaged, JSON
whose columns change their type on the way), the whole table is read at once after all: `data.formats` decides what it
means, and names what is wrong with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from snapfit.core.errors import BadInput
from snapfit.data.columns import is_list_type
from snapfit.data.formats import table_files
from snapfit.data.json_tables import NotByPiecesError
from snapfit.data.records import Records
from snapfit.data.table_pieces import file_pieces

WHOLE_BYTES = 32 << 20
PART_ROWS = 16_384
PART_CHARACTERS = 16 << 20
"""A part ends at the first of both, see `file_pieces`."""

Check = Callable[[Records], object]
"""Raises BadInput for records that cannot be used."""


@dataclass(frozen=True)
class RecordParts:
    """Records, part by part; they can be gone through more than once, and are read anew each time.

    source: what the table is called. column_names: of the table. n_rows: of all parts together.
    """

    source: str
    column_names: list[str]
    n_rows: int
    _parts: Callable[[], Iterator[Records]]

    def __iter__(self) -> Iterator[Records]:
        return self._parts()

    def __len__(self) -> int:
        return self.n_rows

    @classmethod
    def of(cls, records: Records, check: Check = lambda records: None) -> "RecordParts":
        """The parts of records that are in memory. Raises what `check` raises on all of them."""

        def parts() -> Iterator[Records]:
            for start in range(0, len(records), PART_ROWS):
                yield records.slice(start, PART_ROWS)

        try:
            for part in parts():
                check(part)
        except BadInput:
            check(records)  # it tells of all rows, not only of those of one part
        return cls(records.source, records.table.column_names, len(records), parts)


def record_parts(
    source: str | Path,
    read: Callable[[object], Records],
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    check: Check = lambda records: None,
) -> RecordParts:
    """The records of a file, or of a folder of files, in parts.

    read: reads and checks `source`, or an Arrow table of some of its rows. format, encoding: of the files, as
    `read_table` takes them. check: does more checks.
    Raises BadInput, before any part is given, for whatever `read` or `check` refuses.
    """
    try:
        files = table_files(Path(source), format)
        if sum(path.stat().st_size for path in files) <= WHOLE_BYTES:
            raise _Odd
        n_rows, names = 0, list[str]()
        schema: pa.Schema | None = None
        for table in _tables(files, encoding):
            if schema is not None and table.schema != schema:
                raise _Odd
            schema, names = table.schema, table.column_names
            records = read(table)
            if _needs_all_labels(records):
                raise _Odd
            check(records)
            n_rows += table.num_rows
    except (_Odd, NotByPiecesError, BadInput, OSError, pa.ArrowException):
        return RecordParts.of(read(source), check)
    return RecordParts(str(source), names, n_rows, lambda: map(read, _tables(files, encoding)))


class _Odd(Exception):
    """This is better read at once."""


def _needs_all_labels(records: Records) -> bool:
    """Whether a label's name depends on the other rows: "1" for 1.0 where all numbers are whole, else "1.0"."""
    label = records.columns.label
    if label is None or records.columns.task == "regression":
        return False
    kind = records.table.schema.field(label).type
    return bool(pa.types.is_floating(kind.value_type if is_list_type(kind) else kind))


def _tables(files: dict[Path, str], encoding: str) -> Iterator[pa.Table]:
    """Tables of some PART_ROWS rows, all with the first one's order of columns; a file without rows is odd."""
    names: list[str] | None = None
    for path, kind in files.items():
        n_rows = 0
        for table in file_pieces(path, kind, encoding, rows=PART_ROWS, size=PART_CHARACTERS):
            names = names or table.column_names
            if set(table.column_names) != set(names):
                raise _Odd
            if table.num_rows:
                n_rows += table.num_rows
                yield table.select(names)
        if not n_rows:
            raise _Odd
