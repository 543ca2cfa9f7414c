"""Large files as memory-mapped Arrow tables in the cache folder: read once piece by piece, then opened in no time.

An entry is named by a hash of the files' content and of how they are read, appears whole or not at all, and is checked
before use: one that is damaged is made again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from snapfit.core.errors import SnapfitError, WorkFailed
from snapfit.core.files import cannot_write, make_folder, sha256_file
from snapfit.core.folders import staged_folder, verify_manifest, write_manifest
from snapfit.core.maps import map_file
from snapfit.data.joined_tables import ReadAgainError, Shape, pieces_of
from snapfit.data.json_tables import NotByPiecesError
from snapfit.data.table_pieces import PIECE_ROWS, cannot_read

FORMAT = 2
_HASHED_BYTES = 256 * 1024 * 1024  # up to here comparing SHA-256 takes less than a second
_TABLE = "table.arrow"


def stored_table(files: Mapping[Path, str], *, encoding: str, cache_dir: Path) -> pa.Table | None:
    """The table of all files, in their order, memory-mapped.

    files: the format of each (csv, tsv, tsv-quoted, jsonl or parquet). None for what cannot be read piece by piece (a
    JSON array), and where the folder cannot be made. Raises BadInput for what is not a table, WorkFailed when the disk
    is full. What is in it is what `joined_tables.joined_table` gives.
    """
    folder = cache_dir / "tables" / _name(files, encoding)
    try:
        make_folder(folder.parent)
    except OSError:
        return None
    table = _open(folder)
    if table is not None:
        return table
    shape = Shape(of_json="jsonl" in files.values())
    while True:
        try:
            _write(folder, files, encoding, shape)
            break
        except ReadAgainError as again:
            shape = again.shape
        except NotByPiecesError:
            return None
    table = _open(folder)
    if table is None:
        raise WorkFailed(f"the table in {folder} is not what was written: check the disk")
    return table


def _name(files: Mapping[Path, str], encoding: str) -> str:
    parts = {
        "format": FORMAT,
        "pyarrow": pa.__version__,
        "encoding": encoding,
        "files": [[kind, _hash(path)] for path, kind in files.items()],
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def _open(folder: Path) -> pa.Table | None:
    """The entry, memory-mapped; None when it is absent or anything about it is not right."""
    try:
        size = (folder / _TABLE).stat().st_size
        verify_manifest(folder, hashes=size <= _HASHED_BYTES)
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(map_file(folder / _TABLE)))).read_all()
    except (OSError, ValueError, SnapfitError, pa.ArrowException):
        return None


def _write(folder: Path, files: Mapping[Path, str], encoding: str, shape: Shape) -> None:
    """Write the entry. Raises ReadAgainError when the columns turn out to be others than `shape` says."""
    with staged_folder(folder) as staged:
        writer: Any = None
        try:
            with open(staged / _TABLE, "wb") as file:
                for table in map(_plain, pieces_of(files, encoding, shape)):
                    wider = shape.joined(table.schema)
                    if writer is not None and wider != shape:
                        raise ReadAgainError(wider)
                    shape = wider
                    if writer is None:
                        writer = pa.ipc.new_file(file, shape.schema)
                    writer.write_table(shape.cast(table), max_chunksize=PIECE_ROWS)
                if writer is not None:
                    writer.close()
        except OSError as error:
            raise WorkFailed(f"{cannot_write(folder, error)}; free space there, or set SNAPFIT_CACHE") from error
        write_manifest(staged)


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionaries, which an Arrow file cannot hold in several versions."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    return table
