"""Text files as tables: their bytes checked and brought to UTF-8, CSV and TSV split into cells, piece by piece.

A small file is one piece; of a large one no more than a piece is held. What does not fit is named by its line.
"""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import IO, Any

import numpy as np
import pyarrow as pa

from snapfit.core.errors import BadInput
from snapfit.data.row_tables import check_names

_NO_TEXT = {
    b"\x1f\x8b": ("gzip-compressed", "decompress it with gunzip"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unzip it, or save the sheet as CSV UTF-8"),
    b"BZh": ("bzip2-compressed", "decompress it with bunzip2"),
    b"\xfd7zXZ": ("xz-compressed", "decompress it with unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd-compressed", "decompress it with unzstd"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV UTF-8"),
    b"PAR1": ("a Parquet file", "--format parquet"),
}
_UTF8 = {"utf8", "utf8sig", "u8", "ascii", "usascii"}
_BOM = b"\xef\xbb\xbf"
CHUNK_ROWS = 65_536
CHUNK_CHARACTERS = 2**24
_SHOWN = 3
Piece = tuple[int, bytes]
"""The number of its first line, from 1, and whole lines of a file as valid UTF-8."""
_Row = tuple[int, list[str]]  # the line on which it begins, and its cells


def whole_text(data: bytes, where: str, encoding: str) -> bytes:
    """A file as valid UTF-8 without a byte order mark. Raises BadInput naming the line that is not."""
    refuse_no_text(data, where, encoding)
    if not is_utf8_name(encoding):
        data = _transcoded(data, where, encoding)
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise BadInput(f"{where} is empty", "a header line and at least one row", "check the file")
    check_utf8(data, where)
    return data


def text_pieces(file: IO[bytes], where: str, encoding: str, piece_bytes: int) -> Iterator[Piece]:
    """A file as `whole_text` gives it, in pieces of whole lines of about `piece_bytes`."""
    line, rest, decoder = 1, b"", None
    while True:
        data = file.read(piece_bytes)
        if line == 1 and not rest:
            refuse_no_text(data, where, encoding)
            decoder = None if is_utf8_name(encoding) else _decoder(encoding)
        last = len(data) < piece_bytes
        if decoder is not None:
            try:
                data = decoder.decode(data, last).encode("utf-8")
            except UnicodeError as error:
                found = f"{where}, after line {line}: what is not {encoding} ({error})"
                raise BadInput(found, f"text in {encoding}", "give its real --encoding, such as utf-8") from error
        data = rest + data
        if line == 1:
            data = data.removeprefix(_BOM)
        cut = len(data) if last else data.rfind(b"\n") + 1
        piece, rest = data[:cut], data[cut:]
        if piece:
            check_utf8(piece, where, line)
            yield line, piece
            line += piece.count(b"\n")
        if last:
            return


def refuse_no_text(data: bytes, where: str, encoding: str) -> None:
    """Raise BadInput for the beginning of a file that is not text in this encoding by its first bytes."""
    for magic, (what, fix) in _NO_TEXT.items():
        if data.startswith(magic):
            raise BadInput(f"{where} is {what}", "plain text", fix)
    if is_utf8_name(encoding) and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{where} is UTF-16", "UTF-8, or the name of its encoding", "--encoding utf-16")


def is_utf8_name(encoding: str) -> bool:
    """Whether a name means UTF-8 or a part of it."""
    return encoding.lower().replace("-", "").replace("_", "") in _UTF8


def check_utf8(data: bytes, where: str, line: int = 1) -> None:
    """Raise BadInput naming the line of a NUL byte, or of what is not UTF-8. line: the number of the first one."""
    if (place := data.find(b"\0")) >= 0:
        found = f"{where}, line {_line_of(data, place) + line - 1}: a NUL byte"
        raise BadInput(found, "text", "check that it is a text file, and its --encoding")
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    try:  # Arrow checks without making a str of the whole file
        pa.Array.from_buffers(pa.large_utf8(), 1, [None, offsets, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        raise _not_utf8(data, where, line) from None


def text_tables(
    pieces: Iterable[Piece], where: str, format: str, *, rows: int = CHUNK_ROWS, size: int = CHUNK_CHARACTERS
) -> Iterator[pa.Table]:
    """The tables of a file's pieces, one after another, all with the columns of its header.

    format: csv, tsv or tsv-quoted. rows, size: where cells are quoted, rows may span pieces; a table then ends at the
    first of so many rows and characters. Raises BadInput naming the line of a row that does not fit.
    """
    if format == "tsv":
        return _unquoted(pieces, where)
    return _quoted(pieces, where, "," if format == "csv" else "\t", rows, size)


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        with suppress(UnicodeError):  # half a character of some encodings
            b" ".decode(encoding)  # which a codec that is not of text, such as hex, refuses
        return codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise _no_encoding(encoding) from error


def _no_encoding(encoding: str) -> BadInput:
    return BadInput(f"the encoding {encoding!r}", "an encoding of Python", "--encoding utf-8, or gb18030 for GBK")


def _transcoded(data: bytes, where: str, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode("utf-8")
    except LookupError as error:
        raise _no_encoding(encoding) from error
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        found = f"{where}, line {_line_of(data, place)}: byte {place} is not {encoding} ({error})"
        raise BadInput(found, f"text in {encoding}", "give its real --encoding, such as utf-8") from error


def _not_utf8(data: bytes, where: str, line: int) -> BadInput:
    try:
        data.decode("utf-8")
        place = 0
    except UnicodeDecodeError as error:
        place = error.start
    likely = next((name for name in ("gb18030", "cp1252") if _decodes(data, name)), "latin-1")
    found = f"{where}, line {_line_of(data, place) + line - 1}: byte {place} is not UTF-8"
    return BadInput(found, "text in UTF-8", f"name its encoding, perhaps --encoding {likely}")


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _line_of(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


def _unquoted(pieces: Iterable[Piece], where: str) -> Iterator[pa.Table]:
    """Split at tab and line feed; in a file whose header ends in CR LF, CR LF is the line end throughout.

    Blank lines are no rows, except in a table of one column, where they are empty cells.
    """
    names: list[str] = []
    has_returns = False
    for line, data in pieces:
        if line == 1:
            has_returns = data.partition(b"\n")[0].endswith(b"\r")
        text = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", dtype=np.uint8)
        if has_returns:
            text = np.delete(text, np.flatnonzero((text[:-1] == ord("\r")) & (text[1:] == ord("\n"))))
        is_separator = (text == ord("\t")) | (text == ord("\n"))
        ends = np.flatnonzero(is_separator)  # of each cell
        last_cells = np.flatnonzero(text[ends] == ord("\n"))  # of each line
        n_cells = np.diff(last_cells, prepend=-1)
        n_columns = len(names) if names else int(n_cells[0])
        is_row = np.ones(len(n_cells), dtype=bool)
        if n_columns > 1:
            cell_sizes = np.diff(ends, prepend=-1) - 1
            is_row = (n_cells > 1) | (cell_sizes[last_cells] > 0)
        wrong = np.flatnonzero(is_row & (n_cells != n_columns))
        if len(wrong):
            lines = [(line + int(i), int(n_cells[i])) for i in wrong[:_SHOWN]]
            raise _field_counts(where, lines, len(wrong), n_columns, "\t")
        offsets = np.zeros(len(ends) + 1, dtype=np.int64)
        offsets[1:] = ends - np.arange(len(ends))  # each cell moves back over the separators before it
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text[~is_separator])]
        cells = pa.Array.from_buffers(pa.large_utf8(), len(ends), buffers)
        firsts = (last_cells - n_cells + 1)[is_row]
        if not names:
            names = _unique(cells.slice(0, n_columns).to_pylist(), where)
            firsts = firsts[1:]
        yield pa.table([cells.take(pa.array(firsts + i)) for i in range(n_columns)], names=names)


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


def _quoted(pieces: Iterable[Piece], where: str, delimiter: str, most_rows: int, size: int) -> Iterator[pa.Table]:
    """CSV as RFC 4180 has it, strictly; blank lines are no rows, and a lone CR outside quotes ends one."""
    lines = chain.from_iterable(
        io.TextIOWrapper(io.BytesIO(piece), encoding="utf-8", newline="") for _, piece in pieces
    )
    # The limit on a cell's size is the whole process's; documents are longer than its 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = _numbered_rows(reader, where)
    _, header = next(rows, (0, []))
    if not header:
        raise BadInput(f"{where} is empty", "a header line and at least one row", "check the file")
    names = _unique(header, where)
    schema = pa.schema([(name, pa.large_string()) for name in names])
    yield schema.empty_table()
    for chunk in _grouped(rows, most_rows, size):
        wrong = [(line, len(row)) for line, row in chunk if len(row) != len(names)]
        if wrong:
            raise _field_counts(where, wrong[:_SHOWN], len(wrong), len(names), delimiter)
        columns = zip(*(row for _, row in chunk), strict=True)
        yield pa.table([pa.array(column, pa.large_string()) for column in columns], schema=schema)


def _grouped(rows: Iterator[_Row], most_rows: int, size: int) -> Iterator[list[_Row]]:
    """Rows in lists of at most `most_rows`, cut earlier where they hold `size` characters."""
    chunk: list[_Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += sum(map(len, row[1]))
        if len(chunk) >= most_rows or characters >= size:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _numbered_rows(reader: Any, where: str) -> Iterator[_Row]:
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


def _unique(names: list[str], where: str) -> list[str]:
    check_names(names, where)
    return names
