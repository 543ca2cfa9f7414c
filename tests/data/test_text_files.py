"""Bytes to pieces of UTF-8: the same text whatever the pieces, and faults with line and column."""

import codecs
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.text_files import position, text_pieces

TEXT = st.text(st.sampled_from("ab é电🎬\n\r\u2028\ufeff"), max_size=40)
MARKED = {"utf-8", "utf-8-sig", "utf-16", "utf-32"}


def pieces(data: bytes, encoding: str, size: int, *, returns: bool = False) -> list[tuple[int, bytes]]:
    return list(text_pieces(io.BytesIO(data), "t", encoding, size, returns=returns))


@settings(max_examples=300, deadline=None)
@given(
    text=TEXT,
    encoding=st.sampled_from(["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be", "gb18030"]),
    size=st.integers(1, 50),
    returns=st.booleans(),
)
def test_pieces_are_whole_lines_of_the_text(text: str, encoding: str, size: int, returns: bool) -> None:
    data = text.encode(encoding)
    if not text.encode().strip():
        with pytest.raises(BadInput, match="empty"):
            pieces(data, encoding, size)
        return
    if encoding in ("utf-8", "UTF8", "utf-16-le", "utf-32-be", "gb18030"):
        text = text.removeprefix("\ufeff")
    if not text.encode().strip():
        return
    made = pieces(data, encoding, size, returns=returns)
    assert b"".join(piece for _, piece in made).decode() == text
    assert all(piece.endswith(b"\n") for _, piece in made[:-1])
    line = 1
    for number, piece in made:
        assert number == line
        ends = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n" if returns else b"\r")
        line += ends.count(b"\n")


@settings(max_examples=300, deadline=None)
@given(
    before=TEXT,
    fault=st.sampled_from([b"\0", b"\xff", b"\xe7\x94", b"\xc0\xaf"]),
    after=st.sampled_from(["", "a", "\nb", "\0"]),
    size=st.integers(1, 30),
    returns=st.booleans(),
)
def test_the_place_of_a_fault(before: str, fault: bytes, after: str, size: int, returns: bool) -> None:
    before = before.lstrip("\ufeff")
    lines = before.replace("\r\n", "\n")
    lines = (lines.replace("\r", "\n") if returns else before).split("\n")
    if returns and before.endswith("\r") is False:
        expected = f"line {len(lines)}, column {len(lines[-1]) + 1}:"
    else:
        expected = f"line {len(lines)}, column"
    found, given = list[bytes](), before.encode() + fault + after.encode()
    made = text_pieces(io.BytesIO(given), "t", "utf-8", size, returns=returns)
    with pytest.raises(BadInput) as caught:
        found.extend(piece for _, piece in made)
    assert expected in caught.value.found
    good = before.encode()[: before.encode().rfind(b"\n") + 1]
    assert b"".join(found) == (good if good.strip() else b"".join(found))  # all lines before it were given


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        ("a\n电影".encode("gb18030") + b"\xff\n", "gb18030", "line 2, column 3: what is not gb18030"),
        ("a\n电影".encode("gb18030")[:-1], "gb18030", "line 2, column 2: what is not gb18030"),
        ("a\nbc".encode("utf-16")[:-1], "utf-16", "line 2, column 2: what is not utf-16"),
        ("ab".encode("utf-16-le") + b"\x00\xd8", "utf-16-le", "line 1, column 3: what is not utf-16-le"),
        (b"\x81\x39", "cp932", "line 1, column 1: what is not cp932"),
        (codecs.BOM_UTF16_BE + b"\0a", "utf-8", "is UTF-16"),
        (codecs.BOM_UTF32_LE + b"a\0\0\0", "utf-8", "is UTF-32"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_not_of_the_encoding(data: bytes, encoding: str, words: str, size: int) -> None:
    with pytest.raises(BadInput) as caught:
        pieces(data, encoding, size)
    assert words in caught.value.found


def test_columns_are_characters() -> None:
    data = "a\n电影🎬x".encode()
    assert position(data, data.index(b"x")) == "line 2, column 4"
    assert position(b"a\rb", 2, returns=True) == "line 2, column 1"
    assert position(b"a\rb", 2) == "line 1, column 3"
