"""Scripts: in which letters texts are written, by Unicode's blocks, and rows that differ from the rest."""

import functools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from snapfit.checks.findings import Finding, examples_of, percent, quantity, rows_at, verb
from snapfit.checks.reading import CheckedSplit, slabs

SCRIPTS = (
    "none Latin Greek Cyrillic Armenian Hebrew Arabic Indic Thai Tibetan Myanmar Georgian Hangul Kana Han other".split()
)
"""What a letter may belong to; "none" are digits, punctuation and signs. Indic: the scripts of India and Sri Lanka."""
_RANGES = (
    (
        "Latin",
        "41-5a 61-7a aa ba c0-d6 d8-f6 f8-2af 1e00-1eff 2c60-2c7f a720-a7ff ab30-ab6f fb00-fb06 ff21-ff3a ff41-ff5a",
    ),
    ("Greek", "370-3ff 1f00-1fff"),
    ("Cyrillic", "400-52f 1c80-1c8f 2de0-2dff a640-a69f"),
    ("Armenian", "530-58f fb13-fb17"),
    ("Hebrew", "590-5ff fb1d-fb4f"),
    ("Arabic", "600-65f 66a-6ef 6fa-6ff 750-77f 8a0-8ff fb50-fdff fe70-fefc"),
    ("Indic", "900-dff a8e0-a8ff"),
    ("Thai", "e00-eff"),
    ("Tibetan", "f00-fff"),
    ("Myanmar", "1000-109f a9e0-a9ff aa60-aa7f"),
    ("Georgian", "10a0-10ff 1c90-1cbf 2d00-2d2f"),
    ("Hangul", "1100-11ff 3130-318f a960-a97f ac00-d7ff"),
    ("Kana", "3041-3096 309d-30ff 31f0-31ff ff66-ff9d"),
    ("Han", "3005-3007 3400-4dbf 4e00-9fff f900-faff 20000-323af"),
    ("other", "700-74f 780-7ff 1200-139f 13a0-17ff 1800-18af 1900-1c7f a000-a4cf"),
)
_KINDS = len(SCRIPTS)
_SLAB_ROWS = 2_048
RARE = 0.3
"""Rows of a script that fewer than this share of all rows are written in are told of."""
SHIFT = 0.2
"""Shares of two splits that are apart by more than this in total variation are told of."""


@functools.cache
def _script_of() -> np.ndarray:
    """The script of each code point, uint8 [0x110000]."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for name, ranges in _RANGES:
        for part in ranges.split():
            first, _, last = part.partition("-")
            table[int(first, 16) : int(last or first, 16) + 1] = SCRIPTS.index(name)
    return table


def script_counts(texts: pa.LargeStringArray) -> np.ndarray:
    """How many characters of each text are of each script, int64 [n, len(SCRIPTS)]."""
    values = texts.to_pylist()
    letters = np.frombuffer("".join(values).encode("utf-32-le"), dtype=np.uint32)
    sizes = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    rows = np.repeat(np.arange(len(values)), sizes)
    found = np.bincount(rows * _KINDS + _script_of()[letters], minlength=len(values) * _KINDS)
    return np.asarray(found.reshape(len(values), _KINDS), dtype=np.int64)


def main_scripts(split: CheckedSplit) -> np.ndarray:
    """The script that most letters of each row are of, as a place in SCRIPTS, uint8 [n]; 0 without letters.

    A row with Han and Kana is Japanese: all of it counts as Kana.
    """
    found = np.zeros(len(split), dtype=np.uint8)
    for slab in slabs(split.records, _SLAB_ROWS):
        counts = sum(script_counts(column) for column in slab.both())
        letters = np.asarray(counts)
        kana, han = SCRIPTS.index("Kana"), SCRIPTS.index("Han")
        letters[:, kana] += np.where(letters[:, kana] > 0, letters[:, han], 0)
        letters[:, 0] = 0
        found[slab.start : slab.start + len(letters)] = letters.argmax(axis=1)
    return found


def script_shares(scripts: np.ndarray) -> dict[str, float]:
    """The share of rows in each script, largest first; rows without letters are left out."""
    counts = np.bincount(scripts, minlength=_KINDS)
    counts[0] = 0
    total = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    return {SCRIPTS[i]: round(int(counts[i]) / total, 6) for i in order.tolist() if counts[i]}


def script_findings(splits: Mapping[str, CheckedSplit], scripts: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Rows in other scripts than most, and splits whose scripts are others than the training table's."""
    for name, split in splits.items():
        shares = script_shares(scripts[name])
        rare = [script for script, share in shares.items() if share < RARE and script != next(iter(shares))]
        rows = np.flatnonzero(np.isin(scripts[name], [SCRIPTS.index(script) for script in rare]))
        if len(rows):
            told = ", ".join(f"{script} {percent(shares[script])}" for script in rare[:4])
            yield Finding(
                "script_mix",
                "note",
                name,
                len(rows),
                len(split),
                f"{quantity(len(rows), 'row')} of {name} {verb(len(rows), 'are')} in another script than most "
                f"({next(iter(shares))}): {told}",
                where=rows_at(split, rows),
                examples=examples_of(split, rows),
            )
        if name != "train":
            yield from _shift(split, shares, script_shares(scripts["train"]))


def _shift(split: CheckedSplit, ours: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[Finding]:
    apart = sum(abs(ours.get(script, 0.0) - theirs.get(script, 0.0)) for script in {*ours, *theirs}) / 2
    if apart <= SHIFT:
        return
    told = [", ".join(f"{name} {percent(share)}" for name, share in list(one.items())[:3]) for one in (ours, theirs)]
    yield Finding(
        "script_shift",
        "warning",
        split.name,
        round(apart * len(split)),
        len(split),
        f"{split.name} is written in other scripts than train: {told[0] or 'none'}, and there {told[1] or 'none'}",
        details={"apart": round(apart, 4)},
    )
