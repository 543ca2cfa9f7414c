"""Tables from files and from Python: CSV, TSV, JSONL and Parquet files, folders of them, data frames, lists.

Cells are exact. In CSV and TSV every cell is text, character for character: "007" keeps its zeros, "NA" is
two letters, an empty cell is "". TSV is unquoted: only tab and line feed separate, a quotation mark is a
character (`tsv-quoted` follows the rules of CSV). JSONL and Parquet keep their types. What cannot be read is
named by its line, counted from 1 as editors count.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import BadInput, nearest
from snapfit.data.row_tables import check_names, is_python_table, json_table, python_table
from snapfit.data.stored_tables import cannot_read, stored_table
from snapfit.data.table_pieces import bad_parquet
from snapfit.data.text_tables import text_tables, whole_text

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMATS = ("auto", "csv", "tsv", "tsv-quoted", "jsonl", "parquet")
_COMPRESSED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".zip", ".xlsx", ".xls"}
STREAMED_BYTES = 2**26
"""Files beyond this size are not held in memory where there is a cache folder: they become a mapped table there."""


def read_table(
    source: object,
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    cache_dir: Path | None = None,
    streamed_bytes: int | None = None,
) -> pa.Table:
    """Read a table with at least one row.

    source: the path of a file, or of a folder whose tables (all of one format and with the same columns) are
    read in order of their names; or a pandas, polars or Arrow table, a list of dicts, or a list of
    (text, label) or (text, second text, label) tuples.
    format: one of FORMATS; auto goes by the suffix. encoding: of text files; a byte order mark is skipped.
    cache_dir: files of more than `streamed_bytes` (default STREAMED_BYTES) together are read piece by piece into a
    file there, named by their content, which is memory-mapped; without it, or where it cannot be made, they are read
    into memory.
    CSV and TSV give columns of large_string without nulls. Raises BadInput naming file and line for whatever
    is not a table, WorkFailed when the disk is full.
    """
    if format not in FORMATS:
        meant = nearest(format, FORMATS)
        fix = f"did you mean {meant}?" if meant else "leave it out"
        raise BadInput(f"the format {format!r}", f"one of {', '.join(FORMATS)}", fix)
    if isinstance(source, str | Path):
        files = table_files(Path(source), format)
        most = STREAMED_BYTES if streamed_bytes is None else streamed_bytes
        if cache_dir is not None and sum(map(_size, files)) > most:
            table = stored_table(files, encoding=encoding, cache_dir=cache_dir)
            if table is not None:
                return _checked(table, describe(source))
        return _concatenated({path: _read_file(path, kind, encoding) for path, kind in files.items()})
    if not is_python_table(source):
        found = f"a table given as {type(source).__name__}"
        expected = "a path, a pandas, polars or Arrow table, or a list of dicts or tuples"
        raise BadInput(found, expected, "pass one of these")
    return _checked(python_table(source), describe(source))


def table_bytes(source: object, *, format: str = "auto") -> int:
    """Bytes of a source's files, 0 of a table that is no file. Raises BadInput for files that are not there."""
    return sum(map(_size, table_files(Path(source), format))) if isinstance(source, str | Path) else 0


def describe(source: object) -> str:
    """What a source is called in messages: its path, or its type."""
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__} given"


# ---------------------------------------------------------------- paths


def table_files(path: Path, format: str = "auto") -> dict[Path, str]:
    """The files of a source, in order, with the format of each. Raises BadInput where there are none."""
    if path.is_dir():
        return _folder_files(path, format)
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
        fix = f"did you mean {path.parent / near}?" if near else "check the path"
        raise BadInput(f"{path} does not exist", "a file or folder", fix)
    return {path: _format_of(path, format)}


def _folder_files(folder: Path, format: str) -> dict[Path, str]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    kinds = {p: SUFFIXES[p.suffix.lower()] for p in files if p.suffix.lower() in SUFFIXES}
    if format != "auto":
        wanted = format.removesuffix("-quoted")
        kinds = {p: kind for p, kind in kinds.items() if kind == wanted}
    if not kinds:
        wanted = ", ".join(SUFFIXES) if format == "auto" else format
        raise BadInput(f"{folder} has no tables in it", f"files of one format ({wanted})", "check the path")
    if len(set(kinds.values())) > 1:
        found = f"{folder} has tables of several formats: {', '.join(sorted(set(kinds.values())))}"
        raise BadInput(found, "files of one format", "name one file, or choose with --format")
    return {p: _format_of(p, format) for p in kinds}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # whoever reads it says what is wrong


def _concatenated(tables: dict[Path, pa.Table]) -> pa.Table:
    first = next(iter(tables))
    names = tables[first].column_names
    for path, table in tables.items():
        if set(table.column_names) != set(names):
            found = f"{path} has the columns {_listed(table.column_names)}, and {first} {_listed(names)}"
            raise BadInput(found, "the same columns in all files of a folder", "name one file")
    try:
        parts = [table.select(names) for table in tables.values()]
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        found = f"the files of {first.parent} do not fit together ({error})"
        raise BadInput(found, "columns of the same type in all files", "name one file") from error


def _format_of(path: Path, format: str) -> str:
    if format != "auto":
        return format
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    expected = f"a name that ends in {', '.join(SUFFIXES)}"
    fix = f"name the format, such as --format {'tsv' if suffix == '.txt' else 'csv'}"
    if suffix in _COMPRESSED_SUFFIXES:
        fix = "decompress it, or save the sheet as CSV UTF-8"
    raise BadInput(f"{path}, whose suffix {suffix!r} names no format", expected, fix)


def _read_file(path: Path, format: str, encoding: str) -> pa.Table:
    where = str(path)
    try:
        if format == "parquet":
            return _checked(_read_parquet(path), where)
        data = whole_text(path.read_bytes(), where, encoding)
    except OSError as error:
        raise cannot_read(path, error) from error
    if format == "jsonl":
        return _checked(json_table(data, where), where)
    return _checked(pa.concat_tables(text_tables([(1, data)], where, format)), where)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pa.parquet.read_table(path, partitioning=None)
    except pa.ArrowException as error:
        raise bad_parquet(path, error) from error


# ---------------------------------------------------------------- what every table must have


def _checked(table: pa.Table, where: str) -> pa.Table:
    check_names(table.column_names, where)
    if table.num_rows == 0:
        found = f"{where} has {'a header' if table.num_columns else 'no columns'} and no rows"
        raise BadInput(found, "at least one row", "check the table")
    return table


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
