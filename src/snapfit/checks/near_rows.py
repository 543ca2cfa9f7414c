"""Findings on near-duplicates: rows of a split that are nearly the same, and nearly the same rows across splits."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.checks import near
from snapfit.checks.findings import (
    EXAMPLES,
    Example,
    Finding,
    labels_at,
    percent,
    place,
    quantity,
    rows_at,
    texts_at,
    verb,
)
from snapfit.checks.hints import sample_rows
from snapfit.checks.index import Index
from snapfit.checks.reading import CheckedSplit

Splits = Mapping[str, CheckedSplit]
OTHER_LABEL_WARNING = 0.01
"""From this share of rows on with a near-duplicate of another label, near-duplicates are a warning."""


@dataclass(frozen=True)
class NearRows:
    """Near-duplicates by row; of several rows with the same text the first one stands for all.

    names: the splits, whose number is their place. split, row: of each text that was compared, int64 [n].
    found: their near texts. left_out: training rows that were not looked at, since there are too many.
    """

    names: list[str]
    split: np.ndarray
    row: np.ndarray
    found: near.NearTexts
    left_out: int = 0

    def rows(self, of: str, within: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows of the one split, near rows of the other, similarity), by row."""
        ours, theirs = self.names.index(of), self.names.index(within)
        chosen = np.flatnonzero((self.split == ours) & (self.found.twins[:, theirs] >= 0))
        twins = self.found.twins[chosen, theirs]
        order = np.argsort(self.row[chosen], kind="stable")
        return self.row[chosen][order], self.row[twins][order], self.found.similarity[chosen, theirs][order]


def find_near_rows(
    splits: Splits, index: Index, *, similarity: float, told: Callable[[str], None], most: int = near.MOST_TEXTS
) -> NearRows:
    """Search all splits together. most: texts that are compared; beyond, of the training table a sample is.

    Raises as `near.near_texts`.
    """
    names = list(splits)
    firsts, left_out = _firsts(names, index, most)
    split = np.concatenate([np.full(len(rows), i, dtype=np.int64) for i, rows in enumerate(firsts)])
    texts, pairs = [], []
    for name, rows in zip(names, firsts, strict=True):
        for part in np.array_split(rows, max(1, len(rows) // 65_536)):
            records: Any = splits[name].records.take(part)
            texts.append(records.texts)
            pairs.append(records.pairs)
    seconds = None if pairs[0] is None else pa.chunked_array(pairs)
    found = near.near_texts(
        pa.chunked_array(texts), seconds, split, n_groups=len(names), similarity=similarity, told=told
    )
    return NearRows(names, split, np.concatenate(firsts), found, left_out)


def near_findings(splits: Splits, index: Index, rows: NearRows) -> Iterator[Finding]:
    """Findings of what the search found."""
    for name in rows.names:
        yield from _within(splits[name], index, rows)
    for earlier, later in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if earlier in splits and later in splits:
            yield from _across(splits[earlier], splits[later], index, rows)


def _firsts(names: list[str], index: Index, most: int) -> tuple[list[np.ndarray], int]:
    """The first row of each different text, by split, int64 ascending; and how many training rows are left out."""
    seen = np.zeros(index.n_groups, dtype=bool)
    firsts = []
    for name in names:
        groups, rows = np.unique(index.groups[name], return_index=True)
        firsts.append(np.sort(rows[~seen[groups]]))
        seen[groups] = True
    over = sum(map(len, firsts)) - most
    if over > 0:
        kept = sample_rows(len(firsts[0]), max(len(firsts[0]) - over, 0))
        over = len(firsts[0]) - len(kept)
        firsts[0] = firsts[0][kept]
    return firsts, max(over, 0)


def _within(split: CheckedSplit, index: Index, near_rows: NearRows) -> Iterator[Finding]:
    rows, twins, similarity = near_rows.rows(split.name, split.name)
    if not len(rows):
        return
    other = _other_labels(index, split.name, rows, split.name, twins)
    n, share = len(rows), len(rows) / len(split)
    text = f"{quantity(n, 'row')} of {split.name} ({percent(share)}) {verb(n, 'have')} a near-duplicate in it"
    if other is not None and other.any():
        text += f"; {int(other.sum()):,} of them one with another label"
    yield Finding(
        "near_duplicate",
        "warning" if other is not None and other.sum() >= OTHER_LABEL_WARNING * len(split) else "note",
        split.name,
        n,
        len(split),
        text,
        where=rows_at(split, rows),
        examples=list(_shown(split, split, rows, twins, similarity, other)),
        details={"other_label": None if other is None else int(other.sum())},
    )


def _across(earlier: CheckedSplit, later: CheckedSplit, index: Index, near_rows: NearRows) -> Iterator[Finding]:
    rows, twins, similarity = near_rows.rows(later.name, earlier.name)
    if not len(rows):
        return
    other = _other_labels(index, later.name, rows, earlier.name, twins)
    n, share = len(rows), len(rows) / len(later)
    text = (
        f"{quantity(n, 'row')} of {later.name} ({percent(share)}) {verb(n, 'have')} a near-duplicate in {earlier.name}"
    )
    yield Finding(
        "near_leak",
        "warning" if earlier.name == "train" else "note",
        later.name,
        n,
        len(later),
        text,
        where=[*rows_at(later, rows), *rows_at(earlier, np.unique(twins))],
        examples=list(_shown(later, earlier, rows, twins, similarity, other)),
        details={"in": earlier.name, "other_label": None if other is None else int(other.sum())},
        fix="" if earlier.name == "train" else f"look at the pairs; take them out of {earlier.name} or {later.name}",
    )


def _other_labels(index: Index, one: str, rows: np.ndarray, other: str, twins: np.ndarray) -> np.ndarray | None:
    """Which rows have another label than their near-duplicate, bool; None where labels lack."""
    ours, theirs = index.labels[one], index.labels[other]
    if ours is None or theirs is None:
        return None
    return np.asarray(np.abs(ours[rows] - theirs[twins]) > index.tolerance)


def _shown(
    ours: CheckedSplit,
    theirs: CheckedSplit,
    rows: np.ndarray,
    twins: np.ndarray,
    similarity: np.ndarray,
    other: np.ndarray | None,
) -> Iterator[Example]:
    """Pairs with other labels first."""
    order = np.argsort(~other, kind="stable") if other is not None else np.arange(len(rows))
    for i in order.tolist()[: 2 * EXAMPLES : 2] if len(order) > 2 * EXAMPLES else order.tolist()[:EXAMPLES]:
        row, twin = int(rows[i]), int(twins[i])
        texts = [*texts_at(ours, row), *texts_at(theirs, twin)]
        labels = [*labels_at(ours, row), *labels_at(theirs, twin)]
        yield Example(texts, [place(ours, row), place(theirs, twin)], labels, f"{percent(float(similarity[i]))} alike")
