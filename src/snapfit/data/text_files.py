"""Text files as valid UTF-8, in pieces of whole lines: what is no text is refused with its line and column.

Nothing is guessed: a file is in the encoding that was named, and what does not fit is an error that suggests another.
An error comes when everything before it has been given, so that the first fault of a file is the one that is told of,
whatever the pieces.
"""

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import numpy as np
import pyarrow as pa

from snapfit.core.errors import BadInput
from snapfit.data.likely_encoding import likely_encoding, wide_encoding

Piece = tuple[int, bytes]
"""The number of its first line, from 1, and whole lines of a file as valid UTF-8."""

_NO_TEXT: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x1f\x8b", "gzip-compressed", "decompress it with gunzip"),
    (rb"PK\x03\x04", "a zip archive or an Excel workbook", "unzip it, or save the sheet as CSV UTF-8"),
    (rb"BZh[1-9]1AY&SY", "bzip2-compressed", "decompress it with bunzip2"),
    (rb"\xfd7zXZ\x00", "xz-compressed", "decompress it with unxz"),
    (rb"\x28\xb5\x2f\xfd", "zstd-compressed", "decompress it with unzstd"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV UTF-8"),
    (rb"PAR1[\x00-\x1f]", "a Parquet file", "--format parquet"),
    (rb"ARROW1\x00\x00", "an Arrow file", "write it as Parquet"),
    (rb"SQLite format 3\x00", "an SQLite database", "export the table as CSV UTF-8"),
    (rb"%PDF-", "a PDF document", "export its table as CSV UTF-8"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (rb"\s*<(?i:!doctype html|html)", "an HTML page", "download the file itself: this may be a page to sign in"),
)
"""How a file begins that is no table of text; what it is; what to do."""
_UTF8 = {"utf8", "utf8sig", "u8", "ascii", "usascii"}
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TAKE_THEIR_MARK = {"utf-16", "utf-32", "utf-8-sig"}
"""Codecs that leave a byte order mark out themselves."""
HEAD_BYTES = 512
"""What is looked at of a file to tell what it is."""


def text_pieces(
    file: IO[bytes], where: str, encoding: str, piece_bytes: int, *, returns: bool = False
) -> Iterator[Piece]:
    """A file as valid UTF-8 without NUL bytes and byte order mark, in pieces of whole lines of about `piece_bytes`.

    returns: whether a carriage return alone ends a line too, as in CSV; it decides the numbers of lines.
    Raises BadInput for what is no text, with its line and column, and for a file of white space only.
    """
    line, held, is_blank = 1, list[bytes](), True
    head = file.read(HEAD_BYTES)
    _refuse_no_text(head, where, encoding)
    for data, fault in _decoded(head, file, encoding, piece_bytes):
        cut = len(data) if fault == _END else data.rfind(b"\n") + 1
        piece = b""
        if cut or fault == _END:
            piece, held = b"".join([*held, data[:cut]]), [data[cut:]]
        else:
            held.append(data)
        if is_blank and (not piece or piece.isspace()):
            piece, held = b"", [piece, *held]
        is_blank = is_blank and not piece
        if piece:
            place = _first_fault(piece)
            good = piece if place is None else piece[: _line_start(piece, place, returns=False)]
            if good:
                yield line, good
            if place is not None:
                raise _no_text(piece, place, where, line, head, returns=returns)
            line += line_ends(piece, len(piece), returns=returns)
        if fault not in ("", _END):
            rest = b"".join(held)
            at = position(rest, len(rest), line, returns=returns)
            fix = f"give its real --encoding, such as {'utf-8' if 'utf' not in encoding.lower() else 'gb18030'}"
            raise BadInput(f"{where}, {at}: what is not {encoding} ({fault})", f"text in {encoding}", fix)
    if is_blank:
        raise BadInput(f"{where} is empty", "a header line and at least one row", "check the file")


def position(data: bytes, place: int, line: int = 1, *, returns: bool = False) -> str:
    """Where a byte is, as "line 3, column 7": columns are characters, from 1. line: the number of the first one."""
    start = _line_start(data, place, returns=returns)
    column = len(data[start:place].decode("utf-8", "replace")) + 1
    return f"line {line + line_ends(data, place, returns=returns)}, column {column}"


def line_ends(data: bytes, place: int, *, returns: bool) -> int:
    """How many lines end before a byte."""
    ends = data.count(b"\n", 0, place)
    if returns and (n_returns := data.count(b"\r", 0, place)):
        ends += n_returns - data.count(b"\r\n", 0, place)
    return ends


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins so, if it is no table of text, and what to do with it."""
    return next(((what, fix) for begins, what, fix in _NO_TEXT if re.match(begins, head)), None)


def is_utf8_name(encoding: str) -> bool:
    """Whether a name means UTF-8 or a part of it."""
    return encoding.lower().replace("-", "").replace("_", "") in _UTF8


# ---------------------------------------------------------------- from bytes to UTF-8

_END = "end"


def _decoded(head: bytes, file: IO[bytes], encoding: str, piece_bytes: int) -> Iterator[tuple[bytes, str]]:
    """The file in pieces, in UTF-8 but for what is no text in files that should be; with "", or _END for the last.

    Of a file in another encoding, what comes before bytes that are not of it, with what is wrong with them.
    """
    decoder = None if is_utf8_name(encoding) else _decoder(encoding)
    has_mark = decoder is None or codecs.lookup(encoding).name not in _TAKE_THEIR_MARK
    for data, last in _chunks(head, file, max(piece_bytes, len(codecs.BOM_UTF8))):
        fault = _END if last else ""
        if decoder is not None:
            data, fault = _decode(decoder, data, last)
        if has_mark and data:
            data, has_mark = data.removeprefix(codecs.BOM_UTF8), False
        yield data, fault
        if fault:
            return


def _chunks(head: bytes, file: IO[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """What begins with `head` and goes on in the file, `size` bytes at a time, and whether it is the last."""
    while True:
        data, head = head[:size], head[size:]
        data += file.read(size - len(data)) if len(data) < size else b""
        yield data, len(data) < size
        if len(data) < size:
            return


def _refuse_no_text(head: bytes, where: str, encoding: str) -> None:
    if found := what_it_is(head):
        raise BadInput(f"{where} is {found[0]}", "plain text", found[1])
    if is_utf8_name(encoding):
        for mark, wide in _MARKS:
            if head.startswith(mark):
                raise BadInput(f"{where} is {wide.upper()}", "UTF-8, or the name of its encoding", f"--encoding {wide}")


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        with suppress(UnicodeError):  # half a character of some encodings
            b" ".decode(encoding)  # which a codec that is not of text, such as hex, refuses
        return codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        fix = "--encoding utf-8, or gb18030 for GBK"
        raise BadInput(f"the encoding {encoding!r}", "an encoding of Python", fix) from error


def _decode(decoder: codecs.IncrementalDecoder, data: bytes, last: bool) -> tuple[bytes, str]:
    before = decoder.getstate()

    def decoded(n_bytes: int, final: bool) -> bytes:
        decoder.setstate(before)
        return decoder.decode(data[:n_bytes], final).encode("utf-8")

    try:
        return decoded(len(data), last), _END if last else ""
    except UnicodeError as error:
        reason = str(getattr(error, "reason", error))
    good, bad = 0, len(data)  # the longest beginning that is of the encoding
    while good < bad:
        middle = (good + bad + 1) // 2
        try:
            decoded(middle, False)
            good = middle
        except UnicodeError:
            bad = middle - 1
    return decoded(good, False), reason


# ---------------------------------------------------------------- what is no text


def _first_fault(data: bytes) -> int | None:
    """The place of the first NUL byte, or of the first byte that is not UTF-8."""
    places = []
    if (nul := data.find(b"\0")) >= 0:
        places.append(nul)
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int64))
    try:  # Arrow checks without making a str of it all
        pa.Array.from_buffers(pa.large_utf8(), 1, [None, offsets, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            places.append(error.start)
    return min(places, default=None)


def _no_text(data: bytes, place: int, where: str, line: int, head: bytes, *, returns: bool) -> BadInput:
    at = f"{where}, {position(data, place, line, returns=returns)}"
    if data[place] == 0:
        wide = wide_encoding(head)
        fix = f"--encoding {wide}" if wide else "check that it is a text file, and its --encoding"
        return BadInput(f"{at}: a NUL byte", "text", fix)
    start, end = _line_start(data, place, returns=returns), data.find(b"\n", place)
    likely = likely_encoding(data[start : end if end >= 0 else len(data)])
    found = f"{at}: the byte 0x{data[place]:02x} is not UTF-8"
    return BadInput(found, "text in UTF-8", f"name its encoding, perhaps --encoding {likely}")


def _line_start(data: bytes, place: int, *, returns: bool) -> int:
    start = data.rfind(b"\n", 0, place)
    return max(start, data.rfind(b"\r", 0, place) if returns else -1) + 1
