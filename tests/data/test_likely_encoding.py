"""Suggestions for lines that are not UTF-8."""

import pytest

from malformed.encodings import SUGGESTED, WORDS
from snapfit.data.likely_encoding import likely_encoding, wide_encoding


@pytest.mark.parametrize("encoding", SUGGESTED)
def test_a_line_in_an_encoding_suggests_it(encoding: str) -> None:
    assert likely_encoding(f"{WORDS[encoding]},label".encode(encoding)) == SUGGESTED[encoding]


def test_whatever_the_bytes_a_codec_is_named() -> None:
    for first in range(256):
        for second in range(0, 256, 5):
            line = bytes([65, first, second, 66])
            line.decode(likely_encoding(line))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_told_by_their_nul_bytes(encoding: str) -> None:
    assert wide_encoding("text,label\n电影,x\n".encode(encoding)) == encoding


@pytest.mark.parametrize("head", [b"", b"text,label\n", b"a\0b", b"\0" * 64, bytes(range(256))])
def test_other_bytes_are_no_wide_encoding(head: bytes) -> None:
    assert wide_encoding(head) is None
