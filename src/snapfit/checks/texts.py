"""What is odd about texts by themselves: empty, broken, hidden or left-over characters, far too long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snapfit.checks.findings import (
    EXAMPLES,
    Example,
    Finding,
    Level,
    labels_at,
    percent,
    place,
    quantity,
    rows_at,
    shown,
    texts_at,
    verb,
)
from snapfit.checks.reading import CheckedSplit, Slab, slabs

_BROKEN = r"\x{80}-\x{bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
"""What bytes 80 to BF are in Windows-1252: the later bytes of a character in UTF-8 that was read as such."""

PATTERNS = {
    "control_characters": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{fffe}\x{ffff}]",
    "invisible_characters": r"[\x{ad}\x{180e}\x{200b}\x{2060}\x{feff}\x{202a}-\x{202e}\x{2066}-\x{2069}]",
    "mojibake": (
        rf"\x{{fffd}}|锟斤拷|烫烫烫|ï¿½|ï»¿|Ã[{_BROKEN}]|Â[\x{{a0}}-\x{{bf}}]|â€[{_BROKEN}]|ðŸ[{_BROKEN}]"
        rf"|([ã-é][{_BROKEN}]{{2}}){{2}}|([Ã-ß][{_BROKEN}]){{2}}"
    ),
    "html": (
        r"(?i)</?(a|b|br|div|em|font|h[1-6]|i|img|li|ol|p|script|span|strong|style|table|td|tr|u|ul)(\s[^<>]{0,200})?\s*/?>"
        r"|&(amp|apos|gt|lt|nbsp|quot|#[0-9]{2,6}|#x[0-9a-f]{2,6});"
    ),
}
"""Regular expressions (RE2) of texts with a fault, by kind of finding."""
_VISIBLE = r"[^\p{Z}\p{C}\s]"
_WORDS = r"[\p{L}\p{N}]"
_TOLD = {
    "control_characters": ("warning", "hold control characters"),
    "invisible_characters": ("note", "hold characters that cannot be seen, such as zero-width spaces"),
    "mojibake": ("warning", "hold characters that were read in the wrong encoding"),
    "html": ("note", "hold tags or entities of HTML"),
    "no_words": ("note", "have no letter and no digit"),
    "half_pair": ("warning", "have one empty text"),
    "empty_text": ("warning", "have an empty text"),
    "extreme_length": ("note", "are far longer than all others"),
}
_MUCH_LONGER, _LONG = 30, 2_000
"""A text is extreme beyond so many times the median, and so many characters."""
_CONTEXT = 30
_BINS = 24


@dataclass(frozen=True)
class TextSurvey:
    """What was seen of a split's texts.

    rows: by kind of finding, int64 ascending. characters: of each row, both texts of a pair together, int64 [n].
    """

    rows: dict[str, np.ndarray]
    characters: np.ndarray

    def lengths(self) -> dict[str, Any]:
        """The distribution of characters a row; histogram: counts of _BINS equal steps up to the 99th percentile."""
        at = np.quantile(self.characters, [0.0, 0.5, 0.95, 0.99, 1.0])
        names = ("least", "median", "p95", "p99", "most")
        counts = np.histogram(np.minimum(self.characters, at[3]), bins=_BINS, range=(0.0, max(float(at[3]), 1.0)))[0]
        return {
            **dict(zip(names, at.tolist(), strict=True)),
            "mean": round(float(self.characters.mean()), 2),
            "histogram": counts.tolist(),
        }


def survey_texts(split: CheckedSplit) -> TextSurvey:
    """Look at each text of a split once."""
    rows: dict[str, list[np.ndarray]] = {}
    characters = np.zeros(len(split), dtype=np.int64)
    for slab in slabs(split.records):
        for kind, mask in _masks(slab).items():
            rows.setdefault(kind, []).append(np.flatnonzero(mask) + slab.start)
        for column in slab.both():
            characters[slab.start : slab.start + len(column)] += pc.utf8_length(column).to_numpy()
    found = {kind: np.concatenate(parts) for kind, parts in rows.items()}
    if len(characters):
        limit = max(_MUCH_LONGER * float(np.median(characters)), _LONG)
        found["extreme_length"] = np.flatnonzero(characters > limit)
    return TextSurvey(found, characters)


def text_findings(split: CheckedSplit, survey: TextSurvey) -> Iterator[Finding]:
    """A finding for each kind of fault that some texts have."""
    for kind, rows in survey.rows.items():
        if not len(rows):
            continue
        level, what = _TOLD[kind]
        word, _, rest = what.partition(" ")
        n = len(rows)
        yield Finding(
            kind,
            _level(kind, level, n / len(split)),
            split.name,
            n,
            len(split),
            f"{quantity(n, 'row')} of {split.name} ({percent(n / len(split))}) {verb(n, word)} {rest}",
            where=rows_at(split, rows),
            examples=[_example(split, int(row), kind, survey) for row in rows[:EXAMPLES]],
            fix="fill in or remove these rows" if kind == "empty_text" and split.name != "train" else "",
        )


def _level(kind: str, level: str, share: float) -> Level:
    if kind == "invisible_characters" and share >= 0.01:
        return "warning"
    return "warning" if level == "warning" else "note"


def _masks(slab: Slab) -> dict[str, np.ndarray]:
    """Which rows of a slab have which fault."""
    columns = list(slab.both())
    empty = [~_matches(column, _VISIBLE) for column in columns]
    found = {"empty_text": np.logical_and.reduce(empty)}
    if len(columns) == 2:
        found["half_pair"] = empty[0] ^ empty[1]
    for kind, pattern in PATTERNS.items():
        found[kind] = np.logical_or.reduce([_matches(column, pattern) for column in columns])
    wordless = np.logical_and.reduce([~_matches(column, _WORDS) for column in columns])
    found["no_words"] = wordless & ~found["empty_text"]
    return found


def _matches(column: pa.LargeStringArray, pattern: str) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False), dtype=bool)


def _example(split: CheckedSplit, row: int, kind: str, survey: TextSurvey) -> Example:
    labels, places = labels_at(split, row), [place(split, row)]
    if kind == "extreme_length":
        return Example(texts_at(split, row), places, labels, f"{int(survey.characters[row]):,} characters")
    if kind not in PATTERNS:
        return Example(texts_at(split, row), places, labels)
    return Example([_around(split, row, PATTERNS[kind])], places, labels)


def _around(split: CheckedSplit, row: int, pattern: str) -> str:
    """The first match in a row's texts with what is beside it."""
    for column in (split.records.texts, split.records.pairs):
        if column is None:
            continue
        text = column.slice(row, 1)[0].as_py()
        places = pc.find_substring_regex(pa.array([text]), pattern)[0].as_py()
        if places >= 0:
            start = max(len(text.encode()[:places].decode("utf-8", "ignore")) - _CONTEXT, 0)
            return ("…" if start else "") + shown(text[start:])
    return shown("")
