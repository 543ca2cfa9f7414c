"""Which rows have the same text and the same label, over all splits: numbers instead of texts, some 24 bytes a row."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.checks.reading import CheckedSplit, slabs
from snapfit.data.splits import text_keys

SAME_NUMBER = 0.1
"""Numbers of the same text that are apart by more than this share of the training numbers' deviation are different."""


@dataclass(frozen=True)
class Index:
    """Texts and labels of all splits as numbers.

    groups: by split, int64 [n], the same for rows whose texts count as the same (see `data.splits.normal_form`).
    labels: by split, int64 [n], the same for the same label or set of labels; float64 for a regression; None without.
    names: what each label number stands for: one label, or several. n_groups: of all splits.
    tolerance: numbers closer than this are the same; 0 for labels.
    """

    groups: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray | None]
    names: list[tuple[str, ...]]
    n_groups: int
    tolerance: float = 0.0

    def rows_of_label(self, split: str) -> Counter[str]:
        """How many rows of a split carry each label; nothing for a regression."""
        codes = self.labels[split]
        counts: Counter[str] = Counter()
        if codes is None or codes.dtype.kind == "f":
            return counts
        for code, count in enumerate(np.bincount(codes, minlength=len(self.names)).tolist()):
            for name in self.names[code] if count else ():
                counts[name] += count
        return counts


def make_index(splits: Mapping[str, CheckedSplit]) -> Index:
    """Go through all texts and labels once."""
    keys = {name: _keys(split) for name, split in splits.items()}
    every, numbers = np.unique(np.concatenate(list(keys.values())), return_inverse=True)
    cuts = np.cumsum([len(one) for one in keys.values()])[:-1]
    groups = dict(zip(keys, np.split(numbers.astype(np.int64), cuts), strict=True))
    codes: dict[tuple[str, ...], int] = {}
    labels = {name: _labels(split, codes) for name, split in splits.items()}
    train = labels["train"]
    tolerance = 0.0
    if train is not None and train.dtype.kind == "f":
        tolerance = SAME_NUMBER * float(train.std())
    return Index(groups, labels, list(codes), len(every), tolerance)


def raw_keys(split: CheckedSplit, rows: np.ndarray) -> np.ndarray:
    """A number for each of these rows, uint64, the same for texts that are the same character for character."""
    records: Any = split.records
    digests = []
    for start in range(0, len(rows), 65_536):
        part = rows[start : start + 65_536]
        chosen = part if hasattr(records.texts, "slabs") else pa.array(part)
        texts = [c.take(chosen).to_pylist() for c in (records.texts, records.pairs) if c is not None]
        for both in zip(*texts, strict=True):
            digests.append(hashlib.blake2b("\0".join(both).encode(), digest_size=8).digest())
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _keys(split: CheckedSplit) -> np.ndarray:
    return np.concatenate([text_keys(slab.texts, slab.pairs, "0") for slab in slabs(split.records)])


def _labels(split: CheckedSplit, codes: dict[tuple[str, ...], int]) -> np.ndarray | None:
    if split.records.labels is None:
        return None
    if split.records.columns.task == "regression":
        return np.concatenate([np.asarray(slab.labels, dtype=np.float64) for slab in slabs(split.records)])
    found = np.empty(len(split.records), dtype=np.int64)
    for slab in slabs(split.records):
        keys = list(_label_sets(slab.labels))
        for key in keys:
            codes.setdefault(key, len(codes))
        found[slab.start : slab.start + len(keys)] = [codes[key] for key in keys]
    return found


def _label_sets(labels: Any) -> Iterator[tuple[str, ...]]:
    for label in labels:
        yield (label,) if isinstance(label, str) else tuple(sorted(label))
