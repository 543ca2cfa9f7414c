"""Tables from files and from Python: CSV, TSV, JSONL and Parquet files, folders of them, data frames, lists.

Cells are exact. In CSV and TSV every cell is text, character for character: "007" keeps its zeros, "NA" is
two letters, an empty cell is "". TSV is unquoted: only tab and line feed separate, a quotation mark is a
character (`tsv-quoted` follows the rules of CSV). JSONL and Parquet keep their types. What cannot be read is
named by its line, counted from 1 as editors count.
"""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import BadInput, nearest
from snapfit.data.row_tables import check_names, is_python_table, json_table, python_table

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
_NO_TEXT = {
    b"\x1f\x8b": ("gzip-compressed", "decompress it with gunzip"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unzip it, or save the sheet as CSV UTF-8"),
    b"BZh": ("bzip2-compressed", "decompress it with bunzip2"),
    b"\xfd7zXZ": ("xz-compressed", "decompress it with unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd-compressed", "decompress it with unzstd"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV UTF-8"),
    b"PAR1": ("a Parquet file", "--format parquet"),
}
_COMPRESSED_SUFFIXES = {".gz", ".bz2", ".xz", ".zst", ".zip", ".xlsx", ".xls"}
_UTF8 = {"utf8", "utf8sig", "u8", "ascii", "usascii"}
_BOM = b"\xef\xbb\xbf"
_CHUNK_ROWS = 65_536
_SHOWN = 3


def read_table(source: object, *, format: str = "auto", encoding: str = "utf-8") -> pa.Table:
    """Read a table with at least one row.

    source: the path of a file, or of a folder whose tables (all of one format and with the same columns) are
    read in order of their names; or a pandas, polars or Arrow table, a list of dicts, or a list of
    (text, label) or (text, second text, label) tuples.
    format: one of FORMATS; auto goes by the suffix. encoding: of text files; a byte order mark is skipped.
    CSV and TSV give columns of large_string without nulls. Raises BadInput naming file and line for whatever
    is not a table.
    """
    if format not in FORMATS:
        meant = nearest(format, FORMATS)
        fix = f"did you mean {meant}?" if meant else "leave it out"
        raise BadInput(f"the format {format!r}", f"one of {', '.join(FORMATS)}", fix)
    if isinstance(source, str | Path):
        return _read_path(Path(source), format, encoding)
    if not is_python_table(source):
        found = f"a table given as {type(source).__name__}"
        expected = "a path, a pandas, polars or Arrow table, or a list of dicts or tuples"
        raise BadInput(found, expected, "pass one of these")
    return _checked(python_table(source), describe(source))


def describe(source: object) -> str:
    """What a source is called in messages: its path, or its type."""
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__} given"


# ---------------------------------------------------------------- paths


def _read_path(path: Path, format: str, encoding: str) -> pa.Table:
    if path.is_dir():
        return _read_folder(path, format, encoding)
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
        fix = f"did you mean {path.parent / near}?" if near else "check the path"
        raise BadInput(f"{path} does not exist", "a file or folder", fix)
    return _read_file(path, _format_of(path, format), encoding)


def _read_folder(folder: Path, format: str, encoding: str) -> pa.Table:
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
    return _concatenated({p: _read_file(p, _format_of(p, format), encoding) for p in kinds})


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
        data = _utf8(path.read_bytes(), where, encoding)
    except OSError as error:
        found = f"{path} cannot be read ({error.strerror or error})"
        raise BadInput(found, "a readable file", "check the path and its permissions") from error
    readers: dict[str, Callable[[bytes, str], pa.Table]] = {
        "csv": lambda data, where: _read_quoted(data, where, ","),
        "tsv": _read_unquoted,
        "tsv-quoted": lambda data, where: _read_quoted(data, where, "\t"),
        "jsonl": json_table,
    }
    return _checked(readers[format](data, where), where)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pa.parquet.read_table(path, partitioning=None)
    except pa.ArrowException as error:
        found = f"{path} is no Parquet file that can be read ({str(error).splitlines()[0]})"
        raise BadInput(found, "a whole Parquet file", "write it again, or give its --format") from error


# ---------------------------------------------------------------- bytes to UTF-8


def _utf8(data: bytes, where: str, encoding: str) -> bytes:
    """The file as valid UTF-8 without a byte order mark."""
    for magic, (what, fix) in _NO_TEXT.items():
        if data.startswith(magic):
            raise BadInput(f"{where} is {what}", "plain text", fix)
    if encoding.lower().replace("-", "").replace("_", "") not in _UTF8:
        data = _transcoded(data, where, encoding)
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{where} is UTF-16", "UTF-8, or the name of its encoding", "--encoding utf-16")
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise BadInput(f"{where} is empty", "a header line and at least one row", "check the file")
    if (place := data.find(b"\0")) >= 0:
        found = f"{where}, line {_line_of(data, place)}: a NUL byte"
        raise BadInput(found, "text", "check that it is a text file, and its --encoding")
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    try:  # Arrow checks without making a str of the whole file
        pa.Array.from_buffers(pa.large_utf8(), 1, [None, offsets, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        raise _not_utf8(data, where) from None
    return data


def _transcoded(data: bytes, where: str, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode("utf-8")
    except LookupError as error:
        found = f"the encoding {encoding!r}"
        raise BadInput(found, "an encoding of Python", "--encoding utf-8, or gb18030 for GBK") from error
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        found = f"{where}, line {_line_of(data, place)}: byte {place} is not {encoding} ({error})"
        raise BadInput(found, f"text in {encoding}", "give its real --encoding, such as utf-8") from error


def _not_utf8(data: bytes, where: str) -> BadInput:
    try:
        data.decode("utf-8")
        place = 0
    except UnicodeDecodeError as error:
        place = error.start
    likely = next((name for name in ("gb18030", "cp1252") if _decodes(data, name)), "latin-1")
    found = f"{where}, line {_line_of(data, place)}: byte {place} is not UTF-8"
    return BadInput(found, "text in UTF-8", f"name its encoding, perhaps --encoding {likely}")


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _line_of(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


# ---------------------------------------------------------------- TSV without quotes


def _read_unquoted(data: bytes, where: str) -> pa.Table:
    """Split at tab and line feed; in a file whose header ends in CR LF, CR LF is the line end throughout.

    Blank lines are no rows, except in a table of one column, where they are empty cells.
    """
    text = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", dtype=np.uint8)
    if data.partition(b"\n")[0].endswith(b"\r"):
        returns = np.flatnonzero((text[:-1] == ord("\r")) & (text[1:] == ord("\n")))
        text = np.delete(text, returns)
    is_separator = (text == ord("\t")) | (text == ord("\n"))
    ends = np.flatnonzero(is_separator)  # of each cell
    last_cells = np.flatnonzero(text[ends] == ord("\n"))  # of each line
    n_cells = np.diff(last_cells, prepend=-1)
    n_columns = int(n_cells[0])
    is_row = np.ones(len(n_cells), dtype=bool)
    if n_columns > 1:
        cell_sizes = np.diff(ends, prepend=-1) - 1
        is_row = (n_cells > 1) | (cell_sizes[last_cells] > 0)
    wrong = np.flatnonzero(is_row & (n_cells != n_columns))
    if len(wrong):
        lines = [(int(i) + 1, int(n_cells[i])) for i in wrong[:_SHOWN]]
        raise _field_counts(where, lines, len(wrong), n_columns, "\t")
    offsets = np.zeros(len(ends) + 1, dtype=np.int64)
    offsets[1:] = ends - np.arange(len(ends))  # each cell moves back over the separators before it
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text[~is_separator])]
    cells = pa.Array.from_buffers(pa.large_utf8(), len(ends), buffers)
    names = _unique(cells.slice(0, n_columns).to_pylist(), where)
    firsts = (last_cells - n_cells + 1)[is_row][1:]
    return pa.table([cells.take(pa.array(firsts + i)) for i in range(n_columns)], names=names)


def _field_counts(where: str, lines: list[tuple[int, int]], n_wrong: int, n_columns: int, delimiter: str) -> BadInput:
    """The error for rows with another number of cells. lines: (line, cells) of the first few."""
    shown = ", ".join(f"line {line} has {cells}" for line, cells in lines)
    more = f" (and so on, {n_wrong} rows)" if n_wrong > len(lines) else ""
    expected = f"{n_columns} {'cell' if n_columns == 1 else 'cells'} in every row, as in the header"
    if delimiter == "\t":
        fix = "correct these lines; --format tsv-quoted where cells are quoted as in CSV, tsv where not"
    else:
        fix = "correct these lines: a cell that holds a comma, quote or line break is put in double quotes"
    return BadInput(f"{where}: {shown} cells{more}", expected, fix)


# ---------------------------------------------------------------- CSV, and TSV with its rules


def _read_quoted(data: bytes, where: str, delimiter: str) -> pa.Table:
    """CSV as RFC 4180 has it, strictly; blank lines are no rows, and a lone CR outside quotes ends one."""
    stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    # The limit on a cell's size is the whole process's; documents are longer than its 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    rows = _numbered_rows(reader, where)
    _, header = next(rows)
    names = _unique(header, where)
    schema = pa.schema([(name, pa.large_string()) for name in names])
    batches = []
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        wrong = [(line, len(row)) for line, row in chunk if len(row) != len(names)]
        if wrong:
            raise _field_counts(where, wrong[:_SHOWN], len(wrong), len(names), delimiter)
        columns = zip(*(row for _, row in chunk), strict=True)
        arrays = [pa.array(column, pa.large_string()) for column in columns]
        batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def _numbered_rows(reader: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row begins, its cells), without blank lines."""
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        found = f"{where}, line {line}: {error}"
        if "unexpected end" in str(error):
            found = f"{where}, line {line}: a cell that begins with a double quote is never closed"
        expected = "a quoted cell to end in a double quote, and quotes inside it to be doubled"
        fix = "correct the quotes there; if quotes are plain characters in a tab-separated file, --format tsv"
        raise BadInput(found, expected, fix) from error


# ---------------------------------------------------------------- what every table must have


def _unique(names: list[str], where: str) -> list[str]:
    check_names(names, where)
    return names


def _checked(table: pa.Table, where: str) -> pa.Table:
    check_names(table.column_names, where)
    if table.num_rows == 0:
        found = f"{where} has {'a header' if table.num_columns else 'no columns'} and no rows"
        raise BadInput(found, "at least one row", "check the table")
    return table


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
