"""Large files as memory-mapped Arrow tables in the cache folder: read once piece by piece, then opened in no time.

An entry is named by a hash of the files' content and of how they are read, appears whole or not at all, and is checked
before use: one that is damaged is made again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from snapfit.core.errors import BadInput, SnapfitError, WorkFailed
from snapfit.core.files import cannot_write, make_folder, sha256_file
from snapfit.core.folders import staged_folder, verify_manifest, write_manifest
from snapfit.core.maps import map_file
from snapfit.data.table_pieces import NotByPiecesError, file_pieces

FORMAT = 1
PIECE_BYTES = 2**24
"""What is read of a text file at a time."""
_BATCH_ROWS = 65_536
_HASHED_BYTES = 256 * 1024 * 1024  # up to here comparing SHA-256 takes less than a second
_TABLE = "table.arrow"


def stored_table(files: Mapping[Path, str], *, encoding: str, cache_dir: Path) -> pa.Table | None:
    """The table of all files, in their order, memory-mapped.

    files: the format of each (csv, tsv, tsv-quoted, jsonl or parquet). None for what cannot be read piece by piece (a
    JSON array), and where the folder cannot be made. Raises BadInput for what is not a table, WorkFailed when the disk
    is full. Columns that are of several kinds in JSON lines become text, as in a table that is read as a whole.
    """
    try:
        folder = cache_dir / "tables" / _name(files, encoding)
    except OSError as error:
        raise cannot_read(next(iter(files)), error) from error
    try:
        make_folder(folder.parent)
    except OSError:
        return None
    table = _open(folder)
    if table is not None:
        return table
    shape = _Shape(None, frozenset())
    while True:
        try:
            _write(folder, files, encoding, shape)
            break
        except _OtherShapeError as other:
            shape = other.shape
        except NotByPiecesError:
            return None
    table = _open(folder)
    if table is None:
        raise WorkFailed(f"the table in {folder} is not what was written: check the disk")
    return table


def cannot_read(path: Path, error: OSError) -> BadInput:
    """The error for a file that the system would not read."""
    found = f"{path} cannot be read ({error.strerror or error})"
    return BadInput(found, "a readable file", "check the path and its permissions")


class _Shape:
    """What is known of the columns. schema: None before anything is. as_text: columns that hold several kinds."""

    def __init__(self, schema: pa.Schema | None, as_text: frozenset[str]) -> None:
        self.schema, self.as_text = schema, as_text


class _OtherShapeError(Exception):
    """The table is wider than what was written so far: it is to be written again."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.shape = shape


def _name(files: Mapping[Path, str], encoding: str) -> str:
    parts = {
        "format": FORMAT,
        "pyarrow": pa.__version__,
        "encoding": encoding,
        "files": [[kind, sha256_file(path)] for path, kind in files.items()],
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _open(folder: Path) -> pa.Table | None:
    """The entry, memory-mapped; None when it is absent or anything about it is not right."""
    try:
        size = (folder / _TABLE).stat().st_size
        verify_manifest(folder, hashes=size <= _HASHED_BYTES)
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(map_file(folder / _TABLE)))).read_all()
    except (OSError, ValueError, SnapfitError, pa.ArrowException):
        return None


def _write(folder: Path, files: Mapping[Path, str], encoding: str, shape: _Shape) -> None:
    """Write the entry. Raises _OtherShapeError when the columns turn out to be others than `shape` says."""
    with staged_folder(folder) as staged:
        writer, schema = None, shape.schema
        try:
            with open(staged / _TABLE, "wb") as file:
                for table in _tables(files, encoding, shape):
                    if writer is None:
                        schema = _joined(shape, table.schema).schema
                        writer = pa.ipc.new_file(file, schema)
                    wider = _joined(_Shape(schema, shape.as_text), table.schema)
                    if wider.schema != schema:
                        raise _OtherShapeError(wider)
                    writer.write_table(_cast(table, schema), max_chunksize=_BATCH_ROWS)
                if writer is not None:
                    writer.close()
        except OSError as error:
            raise WorkFailed(f"{cannot_write(folder, error)}; free space there, or set SNAPFIT_CACHE") from error
        write_manifest(staged)


def _tables(files: Mapping[Path, str], encoding: str, shape: _Shape) -> Iterator[pa.Table]:
    """The pieces of all files, with plain columns in the order of the first file's."""
    first: Path | None = None
    names: list[str] = []
    for path, kind in files.items():
        for table in file_pieces(path, kind, encoding, rows=_BATCH_ROWS, size=PIECE_BYTES, as_text=shape.as_text):
            if kind != "jsonl" and first is None:
                first, names = path, table.column_names
            if kind != "jsonl" and set(names) != set(table.column_names):
                listed = [", ".join(map(repr, one)) for one in (table.column_names, names)]
                found = f"{path} has the columns {listed[0]}, and {first} {listed[1]}"
                raise BadInput(found, "the same columns in all files of a folder", "name one file")
            yield _plain(table.select(names) if names else table)


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionaries, which an Arrow file cannot hold in several versions, and without metadata."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    return table.replace_schema_metadata()


def _joined(shape: _Shape, schema: pa.Schema) -> _Shape:
    """A shape that has room for `schema` too."""
    if shape.schema is None:
        return _Shape(schema, shape.as_text)
    as_text, fields = set(shape.as_text), {field.name: field.type for field in shape.schema}
    for field in schema:
        if field.name not in fields:
            fields[field.name] = field.type
            continue
        one, other = (pa.schema([("value", kind)]) for kind in (fields[field.name], field.type))
        try:
            fields[field.name] = pa.unify_schemas([one, other], promote_options="permissive").field("value").type
        except pa.ArrowException as error:
            if field.name in as_text:
                found = f"the column {field.name!r} holds {fields[field.name]} and {field.type}"
                raise BadInput(found, "one kind of value in a column", "turn the column into text") from error
            as_text.add(field.name)
    if as_text != shape.as_text:  # what their type is shows when all is read again as text
        known = pa.schema([(name, kind) for name, kind in fields.items() if name not in as_text - shape.as_text])
        raise _OtherShapeError(_Shape(known, frozenset(as_text)))
    return _Shape(pa.schema(list(fields.items())), shape.as_text)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
