"""The same text again: within a split, with other labels, and across splits, where it makes figures too good."""

from collections.abc import Iterator, Mapping

import numpy as np

from snapfit.checks.findings import (
    EXAMPLES,
    Example,
    Finding,
    labels_at,
    level_by,
    percent,
    place,
    quantity,
    rows_at,
    texts_at,
    verb,
)
from snapfit.checks.index import Index, raw_keys
from snapfit.checks.reading import CheckedSplit

LEAK_ERROR = 0.005
"""From this share of a split's rows on a leak is an error: an accuracy can be half a point too good."""
CONFLICT_ERROR = 0.01
"""From this share of the training rows on conflicting labels are an error."""
DUPLICATE_WARNING = 0.01
_SHOWN_ROWS = 4
Splits = Mapping[str, CheckedSplit]


def duplicate_findings(splits: Splits, index: Index) -> Iterator[Finding]:
    """Texts that are the same but for case, outer space and Unicode form, within and across splits."""
    for name, split in splits.items():
        yield from _within(split, index.groups[name], index)
    for earlier, later in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if earlier in splits and later in splits:
            yield from _across(splits[earlier], splits[later], index)


def conflicting_groups(groups: np.ndarray, labels: np.ndarray | None, tolerance: float) -> np.ndarray:
    """Groups of rows of one split whose labels differ, int64 ascending. groups, labels: of its rows."""
    if labels is None or not len(groups):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    least, most = (ufunc.reduceat(labels[order], starts) for ufunc in (np.minimum, np.maximum))
    return np.asarray(groups[order][starts][most - least > tolerance])


def repeated(groups: np.ndarray) -> np.ndarray:
    """Which rows have a text that an earlier row has, bool [n]."""
    again = np.ones(len(groups), dtype=bool)
    again[np.unique(groups, return_index=True)[1]] = False
    return again


# ---------------------------------------------------------------- within a split


def _within(split: CheckedSplit, groups: np.ndarray, index: Index) -> Iterator[Finding]:
    again = repeated(groups)
    if not again.any():
        return
    shared = np.flatnonzero(np.isin(groups, groups[again]))
    raw = raw_keys(split, shared)
    alike = np.unique(np.stack([groups[shared].astype(np.uint64), raw]), axis=1).shape[1]
    n, share = int(again.sum()), float(again.mean())
    identical = len(shared) - alike
    text = f"{quantity(n, 'row')} of {split.name} ({percent(share)}) {verb(n, 'repeat')} the text of an earlier row"
    yield Finding(
        "duplicate_text",
        level_by(share, warning=DUPLICATE_WARNING),
        split.name,
        n,
        len(split),
        f"{text}{_identical(identical, n)}",
        where=rows_at(split, np.flatnonzero(again)),
        examples=list(_groups_shown(split, groups, groups[again])),
        details={"identical": identical},
        fix="" if split.name == "train" else "leave out repeated rows of the file",
    )
    yield from _conflicts(split, groups, index, shared, raw)


def _conflicts(
    split: CheckedSplit, groups: np.ndarray, index: Index, shared: np.ndarray, raw: np.ndarray
) -> Iterator[Finding]:
    labels = index.labels[split.name]
    conflicts = conflicting_groups(groups, labels, index.tolerance)
    if labels is None or not len(conflicts):
        return
    rows = np.flatnonzero(np.isin(groups, conflicts))
    share = len(rows) / len(split)
    raw_numbers = np.unique(raw, return_inverse=True)[1].astype(np.int64)
    identical = len(conflicting_groups(raw_numbers, labels[shared], index.tolerance))
    stated = "numbers" if index.tolerance else "labels"
    yield Finding(
        "conflicting_labels",
        level_by(share, error=CONFLICT_ERROR if split.name == "train" else 2.0),
        split.name,
        len(rows),
        len(split),
        f"{quantity(len(conflicts), 'text')} of {split.name} {verb(len(conflicts), 'have')} different "
        f"{stated}, in {quantity(len(rows), 'row')} ({percent(share)})",
        where=rows_at(split, rows),
        examples=list(_groups_shown(split, groups, conflicts)),
        details={"texts": len(conflicts), "identical_texts": identical},
        fix="" if split.name == "train" else f"correct the {stated}",
    )


def _identical(identical: int, n: int) -> str:
    if identical == n:
        return ", character for character"
    return f", {identical:,} of them character for character" if identical else ", but for case or outer space"


def _groups_shown(split: CheckedSplit, groups: np.ndarray, wanted: np.ndarray) -> Iterator[Example]:
    for group in list(dict.fromkeys(wanted.tolist()))[:EXAMPLES]:
        rows = np.flatnonzero(groups == group)[:_SHOWN_ROWS].tolist()
        labels = [label for row in rows for label in labels_at(split, row)]
        yield Example(texts_at(split, rows[0]), [place(split, row) for row in rows], labels)


# ---------------------------------------------------------------- across splits


def _across(earlier: CheckedSplit, later: CheckedSplit, index: Index) -> Iterator[Finding]:
    ours, theirs = index.groups[later.name], index.groups[earlier.name]
    rows = np.flatnonzero(np.isin(ours, theirs))
    if not len(rows):
        return
    sources = np.flatnonzero(np.isin(theirs, ours[rows]))
    identical = int(np.isin(raw_keys(later, rows), raw_keys(earlier, sources)).sum())
    same = _same_labels(index, earlier.name, later.name, sources, rows)
    share = len(rows) / len(later)
    told = "" if same is None else f"; {same:,} with the same label"
    what = f"{verb(len(rows), 'have')} a text that is in {earlier.name} too{_identical(identical, len(rows))}{told}"
    yield Finding(
        "leak",
        level_by(share, error=LEAK_ERROR if earlier.name == "train" else 2.0),
        later.name,
        len(rows),
        len(later),
        f"{quantity(len(rows), 'row')} of {later.name} ({percent(share)}) {what}",
        where=[*rows_at(later, rows), *rows_at(earlier, sources)],
        examples=list(_leaks_shown(earlier, later, theirs, ours, rows)),
        details={"identical": identical, "same_label": same, "in": earlier.name, "rows_there": len(sources)},
        fix="" if earlier.name == "train" else f"take them out of {earlier.name} or {later.name}",
    )


def _same_labels(index: Index, earlier: str, later: str, sources: np.ndarray, rows: np.ndarray) -> int | None:
    """How many rows of `later` have the label of a row of `earlier` with their text; None where labels lack."""
    theirs, ours = index.labels[earlier], index.labels[later]
    if theirs is None or ours is None:
        return None
    if index.tolerance or ours.dtype.kind == "f":
        of_group = dict(zip(index.groups[earlier][sources].tolist(), theirs[sources].tolist(), strict=True))
        known = np.array([of_group[group] for group in index.groups[later][rows].tolist()])
        return int((np.abs(known - ours[rows]) <= index.tolerance).sum())
    many = len(index.names) + 1
    pairs = index.groups[earlier][sources] * many + theirs[sources]
    return int(np.isin(index.groups[later][rows] * many + ours[rows], pairs).sum())


def _leaks_shown(
    earlier: CheckedSplit, later: CheckedSplit, theirs: np.ndarray, ours: np.ndarray, rows: np.ndarray
) -> Iterator[Example]:
    for row in rows[:EXAMPLES].tolist():
        twin = int(np.flatnonzero(theirs == ours[row])[0])
        labels = [*labels_at(later, row), *labels_at(earlier, twin)]
        yield Example(texts_at(later, row), [place(later, row), place(earlier, twin)], labels)
