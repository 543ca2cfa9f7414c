"""Which encoding a line that is not UTF-8 may be in: a suggestion for the message, never a decision.

Each multi-byte encoding is judged by how many of the characters that it gives are frequent ones of its language; what
is left is told by whether accented letters stand alone, as in Western Europe, or side by side, as in Cyrillic.
"""

import re
from collections.abc import Callable

_KANA = re.compile("[\u3041-\u30ff]")
_PUNCTUATION = re.compile("[\u00a0-\u00bf\u2010-\u203b\u3000-\u3017\uff01-\uff5e]")
_RUNS = re.compile(rb"[\x80-\xff]{3,}")
_ENOUGH = 0.8


def likely_encoding(line: bytes) -> str:
    """The encoding that a line seems to be in."""
    n_high = sum(byte > 127 for byte in line)
    if n_high > 10 and _share(line, "euc_kr", lambda c: "\uac00" <= c <= "\ud7a3") > 0.99:
        return "euc_kr"  # whose bytes could all be Chinese, so not of a word alone
    if _share(line, "shift_jis", _is_japanese) > _ENOUGH and _KANA.search(line.decode("shift_jis")):
        return "shift_jis"
    if _share(line, "gb18030", lambda c: _is_row(c, "gb2312", 0xB0, 0xD7)) > _ENOUGH:
        return "gb18030"
    if _share(line, "euc_jp", _is_japanese) > _ENOUGH and _KANA.search(line.decode("euc_jp")):
        return "euc_jp"
    if _share(line, "big5", lambda c: _is_row(c, "big5", 0xA4, 0xC6)) > _ENOUGH:
        return "big5"
    if sum(len(run) for run in _RUNS.findall(line)) * 2 > n_high:
        for name in ("gb18030", "cp1251"):
            if _share(line, name, str.isalpha) > 0:
                return name
    return "cp1252" if _share(line, "cp1252", str.isprintable) > 0 else "latin-1"


def wide_encoding(head: bytes) -> str | None:
    """The UTF-16 or UTF-32 without a byte order mark that a file begins in, told by where its NUL bytes are."""
    for name, width, places, most in (
        ("utf-32-le", 4, (1, 2, 3), 0.6),
        ("utf-32-be", 4, (0, 1, 2), 0.6),
        ("utf-16-le", 2, (1,), 0.3),
        ("utf-16-be", 2, (0,), 0.3),
    ):
        whole = head[: min(len(head), 64) // width * width]
        n_nul = sum(whole[i::width].count(0) for i in places)
        if len(whole) >= 8 and n_nul == whole.count(0) > len(whole) * most:
            return name
    return None


def _share(line: bytes, encoding: str, is_usual: Callable[[str], bool]) -> float:
    """How many of the characters beyond ASCII are usual, from 0 to 1; 0 for a line that is not in the encoding."""
    try:
        characters = [c for c in line.decode(encoding) if c > "\x7f"]
    except UnicodeDecodeError:
        return 0.0
    letters = [c for c in characters if not _PUNCTUATION.match(c)] or characters
    return sum(map(is_usual, letters)) / max(len(letters), 1)


def _is_row(character: str, encoding: str, first: int, last: int) -> bool:
    """Whether it is in these rows of a table of characters: those of the frequent ones."""
    try:
        return first <= character.encode(encoding)[0] <= last
    except UnicodeEncodeError:
        return False


def _is_japanese(character: str) -> bool:
    return bool(_KANA.match(character)) or _is_row(character, "euc_jp", 0xB0, 0xCF)
