"""The validation split, and folds: stratified, repeatable, and never with the same text on both sides.

Rows whose texts are the same but for Unicode form, case and space around them are one group, and a group
stays together: a text that is in both splits would make the validation figures too good. Groups are drawn
stratum by stratum, so that every label has its share on both sides.
"""

import hashlib
import heapq
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.data.large_records import LargeRecords
from snapfit.data.records import Records

N_BINS = 10
"""Strata of a regression: equally many rows in each, by their number."""
_KEY_RANGE = float(2**64)


def train_valid_split(records: Records, task: Task, *, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices for training and for validation, int64, both ascending.

    records: with labels. fraction: of the rows that go to validation, above 0 and below 1; every stratum
    meets its share to within one group. seed: which groups are drawn.
    Strata: the label (single), the rarest label of the row (multi), tenths of the rows by their number
    (regression). Every label keeps a row in training. Raises BadInput for records without labels, a fraction
    out of range, and tables of which nothing can be held out.
    """
    _check(records, fraction)
    groups = _groups(records)
    label_rows, label_codes = _labels(records, task)
    strata = _strata(groups, label_rows, label_codes)
    held_out = _draw(groups, strata, fraction=fraction, seed=seed)
    if task != "regression":
        _keep_labels_in_training(held_out, groups[label_rows], label_codes)
    in_valid = held_out[groups]
    if not in_valid.any():
        n_groups = int(groups.max()) + 1
        found = f"{records.source} has {len(records)} rows, {n_groups} different: none can be held out"
        fix = "add rows, give a table with --valid, or train on everything: --set data.valid_fraction=0"
        raise BadInput(found, "at least two different texts of some label", fix)
    return np.flatnonzero(~in_valid), np.flatnonzero(in_valid)


def held_out_of_large(records: LargeRecords, task: Task, *, fraction: float, seed: int) -> np.ndarray:
    """Rows of a large table for validation, int64, ascending: those whose text has a small hash, keyed by the seed.

    As many as the fraction says but for chance, and so of each label; what counts as the same text is on one side,
    and every label keeps a row in training. Takes memory for the rows held out only: 16 bytes each. Raises as
    `train_valid_split`.
    """
    _check(records, fraction)
    rows, keys, start = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.uint64)], 0
    for texts, pairs in records.text_slabs():
        found = text_keys(texts, pairs, str(seed))
        chosen = np.flatnonzero(found < fraction * _KEY_RANGE)
        rows.append(chosen + start)
        keys.append(found[chosen])
        start += len(texts)
    held_out, drawn = np.concatenate(rows), np.concatenate(keys)
    if task != "regression" and len(held_out):
        given_back = _lost_labels(records, task, held_out)
        held_out = held_out[~np.isin(drawn, drawn[given_back])]
    if not len(held_out):
        found_text = f"{records.source} has {len(records)} rows, of which a share of {fraction} holds out none"
        raise BadInput(found_text, "a share that holds out some rows", "--set data.valid_fraction=0.01")
    return held_out


def fold_numbers(records: Records, task: Task, *, folds: int, seed: int) -> np.ndarray:
    """The fold that holds each row out, int8 [n]: 1 to `folds`, or 0 for a row that no fold holds out.

    records: with labels. folds: at least 2. seed: which groups go where.
    What counts as the same text is in one fold. Of every stratum (as in `train_valid_split`) each fold has its share
    to within the stratum's largest group. Whichever fold is held out, every label keeps a row in the others; a row is
    in no fold where that needs it, such as the only text of a label. Raises BadInput for records without labels, and
    when there is a fold without rows.
    """
    _check_labelled(records)
    groups = _groups(records)
    label_rows, label_codes = _labels(records, task)
    number = _dealt(groups, _strata(groups, label_rows, label_codes), folds=folds, seed=seed)
    if task != "regression":
        for fold in range(1, folds + 1):
            held_out = number == fold
            before = held_out.copy()
            _keep_labels_in_training(held_out, groups[label_rows], label_codes)
            number[before & ~held_out] = 0
    found: np.ndarray = number[groups]
    _check_folds(found, records, folds)
    return found


def fold_numbers_of_large(records: LargeRecords, task: Task, *, folds: int, seed: int) -> np.ndarray:
    """As `fold_numbers`, of a large table: the fold is that of a hash of the text, keyed by the seed.

    Shares of rows and labels hold but for chance. Takes one byte a row. Raises as `fold_numbers` does.
    """
    _check_labelled(records)

    def slabs() -> Iterator[np.ndarray]:
        for texts, pairs in records.text_slabs():
            yield text_keys(texts, pairs, f"fold {seed}")  # no key of a validation split, which may be drawn of a fold

    high = np.uint64(32)
    number = np.concatenate([(1 + ((keys >> high) * np.uint64(folds) >> high)).astype(np.int8) for keys in slabs()])
    lost = np.zeros(0, dtype=np.int64) if task == "regression" else _rows_of_one_fold(records, task, number)
    if len(lost):
        columns: tuple[Any, Any] = (records.texts, records.pairs)
        texts, pairs = (None if column is None else column.take(lost) for column in columns)
        given_back, start = text_keys(texts, pairs, f"fold {seed}"), 0
        for keys in slabs():
            number[start : start + len(keys)][np.isin(keys, given_back)] = 0
            start += len(keys)
    _check_folds(number, records, folds)
    return number


def _dealt(groups: np.ndarray, strata: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """The fold of each group, int8 [n_groups], from 1: in random order, stratum by stratum, to whichever fold has the
    fewest rows of the stratum, and among those the fewest of all.
    """
    sizes = np.bincount(groups)
    keys = np.random.Philox(key=np.array([seed, 1], dtype=np.uint64)).random_raw(len(sizes))
    order = np.lexsort((keys, strata))
    number, rows = np.zeros(len(sizes), dtype=np.int8), [0] * folds
    for part in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        heap = [(0, total, fold) for fold, total in enumerate(rows)]
        heapq.heapify(heap)
        for group, size in zip(part.tolist(), sizes[part].tolist(), strict=True):
            own, total, fold = heap[0]
            heapq.heapreplace(heap, (own + size, total + size, fold))
            number[group] = fold + 1
        for _, total, fold in heap:
            rows[fold] = total
    return number


def _rows_of_one_fold(records: LargeRecords, task: Task, number: np.ndarray) -> np.ndarray:
    """Of each label whose rows are all in one fold, one of these rows, int64, ascending."""
    every: Any = records.labels
    home: dict[str, tuple[int, int]] = {}  # label -> (its one fold, or 0 for several; a row of it)
    for row, labels in enumerate(chain.from_iterable(every.slabs())):
        fold = int(number[row])
        for label in (labels,) if task == "single" else labels:
            if home.setdefault(label, (fold, row))[0] not in (fold, 0):
                home[label] = (0, row)
    return np.array(sorted({row for fold, row in home.values() if fold}), dtype=np.int64)


def _check_folds(number: np.ndarray, records: Records, folds: int) -> None:
    empty = np.flatnonzero(np.bincount(number, minlength=folds + 1)[1:] == 0)
    if len(empty):
        found = f"{records.source} has {len(records)} rows, of which fold {empty[0] + 1} of {folds} would hold out none"
        raise BadInput(
            found, "more different texts than folds, and two for every label", "give fewer --folds, or add rows"
        )


def text_keys(texts: pa.Array, pairs: pa.Array | None, key: str) -> np.ndarray:
    """A number for each row, uint64 [n], the same for rows that count as the same, and else as good as random.

    key: other numbers for another one; its first 16 bytes count.
    """
    salt = key.encode()
    seconds: Iterable[str] = repeat("") if pairs is None else pairs.to_pylist()
    plain = (
        f"{normal_form(a)}\0{normal_form(b)}".encode()
        for a, b in zip(texts.to_pylist(), seconds, strict=pairs is not None)
    )
    digests = b"".join(hashlib.blake2b(text, digest_size=8, salt=salt[:16]).digest() for text in plain)
    return np.frombuffer(digests, dtype="<u8")


def _lost_labels(records: LargeRecords, task: Task, held_out: np.ndarray) -> np.ndarray:
    """Of each label that only rows held out have, the place of one of these in `held_out`, int64."""
    every: Any = records.labels
    chosen = every.only(held_out)
    left: Counter[str] = Counter()
    for slab in every.slabs():
        left.update(_flat(slab, task))
    for slab in chosen.slabs():
        left.subtract(_flat(slab, task))
    first: dict[str, int] = {}
    for place, row in enumerate(chain.from_iterable(chosen.slabs())):
        for label in (row,) if task == "single" else row:
            if left[label] == 0:
                first.setdefault(label, place)
    return np.array(sorted(set(first.values())), dtype=np.int64)


def _flat(labels: Any, task: Task) -> Iterable[str]:
    return labels if task == "single" else chain.from_iterable(labels)


def _check(records: Records, fraction: float) -> None:
    if not 0.0 < fraction < 1.0:
        found, fix = f"a validation fraction of {fraction}", "--set data.valid_fraction=0.1"
        raise BadInput(found, "more than 0 and less than 1", fix)
    _check_labelled(records)


def _check_labelled(records: Records) -> None:
    if records.labels is None:
        raise BadInput(f"{records.source} has no labels", "a label in every row", "--label NAME")


def _groups(records: Records) -> np.ndarray:
    """The group of each row, int64 [n], numbered from 0 without gaps."""
    groups = _codes(records.texts)
    if records.pairs is not None:
        seconds = _codes(records.pairs)
        groups = groups * (int(seconds.max(initial=0)) + 1) + seconds
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _codes(texts: pa.Array) -> np.ndarray:
    """A number for each text, int64 [n], the same for texts that count as the same."""
    plain = pa.array(map(normal_form, texts.to_pylist()), pa.large_string())
    codes: np.ndarray = plain.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def normal_form(text: str) -> str:
    if text.isascii():
        return text.strip().lower()
    return unicodedata.normalize("NFC", text).strip().casefold()


def _labels(records: Records, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(row, label's number) of every label in the table, int64 [m] each; bins stand for a regression's."""
    labels = records.labels
    n = len(records)
    if task == "regression":
        values = np.asarray(labels, dtype=np.float64)
        edges = np.quantile(values, np.linspace(0.0, 1.0, N_BINS + 1)[1:-1])
        return np.arange(n), np.searchsorted(edges, values, side="right")
    rows: Iterable[list[str]] = [[label] for label in labels] if task == "single" else labels  # type: ignore
    sizes = np.fromiter(map(len, rows), dtype=np.int64, count=n)
    flat = pa.array([label for row in rows for label in row], pa.large_string())
    codes = flat.dictionary_encode().indices.to_numpy().astype(np.int64)
    return np.repeat(np.arange(n), sizes), codes


def _strata(groups: np.ndarray, label_rows: np.ndarray, label_codes: np.ndarray) -> np.ndarray:
    """The stratum of each group, int64: its rarest label; groups without labels have their own."""
    counts = np.bincount(label_codes)
    rarity = np.empty(len(counts), dtype=np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    strata = np.full(int(groups.max()) + 1, len(counts), dtype=np.int64)
    np.minimum.at(strata, groups[label_rows], rarity[label_codes])
    return strata


def _draw(groups: np.ndarray, strata: np.ndarray, *, fraction: float, seed: int) -> np.ndarray:
    """Which groups are held out, bool [n_groups]."""
    sizes = np.bincount(groups)
    keys = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(len(sizes))
    order = np.lexsort((keys, strata))  # group by group in random order, stratum after stratum
    starts = np.flatnonzero(np.diff(strata[order], prepend=-1))
    members = np.split(order, starts[1:])
    wanted = _shares(np.array([sizes[part].sum() for part in members]), fraction)
    held_out = np.zeros(len(sizes), dtype=bool)
    for part, rows in zip(members, wanted.tolist(), strict=True):
        taken = np.concatenate(([0], np.cumsum(sizes[part[:-1]])))  # never the last one: training needs it
        held_out[part[: int(np.argmin(np.abs(taken - rows)))]] = True
    return held_out


def _shares(rows: np.ndarray, fraction: float) -> np.ndarray:
    """Rows to hold out of each stratum, int64: whole numbers that together are the fraction of all rows.

    What rounding down leaves goes to the strata with the largest remainders.
    """
    exact = fraction * rows
    shares = np.floor(exact).astype(np.int64)
    missing = max(1, round(fraction * int(rows.sum()))) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(missing, 0)]] += 1
    return shares


def _keep_labels_in_training(held_out: np.ndarray, label_groups: np.ndarray, label_codes: np.ndarray) -> None:
    """Take a group back for every label that would have none in training; changes `held_out`."""
    n_labels = int(label_codes.max(initial=-1)) + 1
    kept = np.bincount(label_codes[~held_out[label_groups]], minlength=n_labels)
    for code in np.flatnonzero(kept == 0).tolist():
        own = label_groups[label_codes == code]
        if held_out[own].all():
            held_out[own[0]] = False
