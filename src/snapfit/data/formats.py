"""Tables from files and from Python: CSV, TSV, JSONL and Parquet files, folders of them, data frames, lists.

Cells are exact. In CSV and TSV every cell is text, character for character: "007" keeps its zeros, "NA" is
two letters, an empty cell is "". TSV is unquoted: only tab and line feed separate, a quotation mark is a
character (`tsv-quoted` follows the rules of CSV). JSONL and Parquet keep their types. What cannot be read is
named by its line, counted from 1 as editors count.
"""

from pathlib import Path

import pyarrow as pa

from snapfit.core.errors import BadInput, nearest
from snapfit.data.joined_tables import joined_table
from snapfit.data.row_tables import check_names, is_python_table, python_table
from snapfit.data.stored_tables import stored_table
from snapfit.data.table_pieces import cannot_read

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
_SHEETS = {".xlsx", ".xls"}
_COMPRESSED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".zip", *_SHEETS}
_PACKED, _DEEPER = "is compressed, or an Excel workbook", "is a folder with tables of its own"
_FIX_LEFT_OUT = {
    _PACKED: "decompress it, or save the sheet as CSV UTF-8; or name one file",
    _DEEPER: "move its tables up, or it away; or name one file",
}
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
                return table
        return joined_table(files, encoding)
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
    """The files of a source, in order, with the format of each. Raises BadInput where there are none.

    Of a folder every table in it is meant: one that could not be read as part of it is an error, not left out.
    """
    try:
        if path.is_dir():
            return _folder_files(path, format)
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(path) from None
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:  # a NUL character
        raise BadInput(f"{str(path)!r} is no path ({error})", "a file or folder", "check the path") from error
    return {path: _format_of(path, format)}


def _absent(path: Path) -> BadInput:
    if path.is_symlink():
        return BadInput(f"{path} is a link to a file that is not there", "a file or folder", f"ls -l {path}")
    near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
    fix = f"did you mean {path.parent / near}?" if near else "check the path"
    return BadInput(f"{path} does not exist", "a file or folder", fix)


def _folder_files(folder: Path, format: str) -> dict[Path, str]:
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "_")))
    kinds = {p: SUFFIXES[p.suffix.lower()] for p in inside if p.suffix.lower() in SUFFIXES}
    wanted = None if format == "auto" else format.removesuffix("-quoted")
    if wanted is not None:
        kinds = {p: kind for p, kind in kinds.items() if kind == wanted}
    for p in kinds:
        if not p.is_file():
            found = f"{p} is no file that can be read: a link to nothing, a pipe or a folder"
            raise BadInput(found, "files of one format in a folder", f"remove {p}, or name one file")
    for p in inside:
        if (what := _left_out(p, wanted)) is not None:
            raise BadInput(f"{p} {what}", "all tables of a folder in it as they are", f"{_FIX_LEFT_OUT[what]}")
    if not kinds:
        expected = f"files of one format ({', '.join(SUFFIXES) if format == 'auto' else format})"
        raise BadInput(f"{folder} has no tables in it", expected, "check the path")
    if len(set(kinds.values())) > 1:
        found = f"{folder} has tables of several formats: {', '.join(sorted(set(kinds.values())))}"
        raise BadInput(found, "files of one format", "name one file, or choose with --format")
    return {p: _format_of(p, format) for p in kinds}


def _left_out(path: Path, wanted: str | None) -> str | None:
    """Why a table in a folder could not be read as part of it; None for what is no table.

    wanted: the format that is read, or any.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[-1:] and suffixes[-1] in _COMPRESSED_SUFFIXES
    if packed and path.is_file():
        kind = SUFFIXES.get(suffixes[0]) if len(suffixes) > 1 else None
        is_sheet = suffixes[-1] in _SHEETS and wanted is None
        return _PACKED if is_sheet or (kind is not None and wanted in (None, kind)) else None
    if path.is_dir():
        kinds = {SUFFIXES.get(p.suffix.lower()) for p in path.iterdir() if not p.name.startswith((".", "_"))} - {None}
        return _DEEPER if kinds and (wanted is None or wanted in kinds) else None
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # whoever reads it says what is wrong


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


# ---------------------------------------------------------------- what every table must have


def _checked(table: pa.Table, where: str) -> pa.Table:
    check_names(table.column_names, where)
    if table.num_rows == 0:
        found = f"{where} has {'a header' if table.num_columns else 'no columns'} and no rows"
        raise BadInput(found, "at least one row", "check the table")
    return table
