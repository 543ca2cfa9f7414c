"""The data of the regime benchmarks: which rows of a set are trained on, chosen by and scored, drawn by stated seeds.

Rows are only ever written to a scratch folder. Drawing needs numpy alone; pyarrow reads and writes the tables.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class DataSet:
    """A set and how it is cut.

    folder, train, test: where it is. valid: its development file, or None to carve one out of train.
    rows: a stratified subset of so many rows of train. a_class: instead, so many of each class. longest, ratio:
    instead, a long tail, see `draw_long_tail`.
    dev_a_class: development rows of each class, from the rest of train; else a stratified dev_share of what was drawn.
    epochs: that it is trained for; None leaves it to the recipe. seed: of both draws. label: the column; rows with
    the same labels are a class.
    """

    name: str
    folder: str
    train: str
    test: str
    valid: str | None = None
    rows: int | None = None
    a_class: int | None = None
    longest: int | None = None
    ratio: float = 1.0
    dev_a_class: int | None = None
    dev_share: float = 0.1
    epochs: int | None = None
    seed: int = 7
    label: str = "label"

    def drawn(self, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and development rows (none where there is a file of them), both ascending, int64."""
        every = np.arange(len(labels))
        if self.a_class is not None:
            chosen = draw_per_class(labels, self.a_class, seed=self.seed)
        elif self.longest is not None:
            chosen = draw_long_tail(labels, self.longest, self.ratio, seed=self.seed)
        else:
            chosen = every if self.rows is None else draw_stratified(labels, self.rows, seed=self.seed)
        if self.valid is not None or self.dev_share == 0:
            return chosen, np.zeros(0, dtype=np.int64)
        if self.dev_a_class is not None:
            rest = np.setdiff1d(every, chosen)
            held = draw_per_class([labels[i] for i in rest], self.dev_a_class, seed=self.seed + 1)
            return chosen, rest[held]
        count = round(self.dev_share * len(chosen))
        held = chosen[draw_stratified([labels[i] for i in chosen], count, seed=self.seed + 1)]
        return np.setdiff1d(chosen, held), held


@dataclass(frozen=True)
class Files:
    """The tables of one set. rows: a fingerprint of the numbers of the rows drawn. about: the split in words.

    valid: None where no rows were set aside for development.
    """

    train: Path
    valid: Path | None
    test: Path
    rows: str
    about: str


def draw_per_class(labels: Sequence[str], count: int, *, seed: int) -> np.ndarray:
    """`count` rows of each class, ascending, int64; ValueError for a class that has fewer."""
    rng = np.random.default_rng(seed)
    kept = []
    for rows in _by_class(labels):
        if len(rows) < count:
            raise ValueError(f"{len(rows)} rows of {labels[rows[0]]!r}, of which {count} are wanted")
        kept.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


def draw_long_tail(labels: Sequence[str], longest: int, ratio: float, *, seed: int) -> np.ndarray:
    """Rows of an exponential long tail, ascending, int64: `longest` of the largest class, of the last a `ratio`th.

    Of k + 1 classes, the largest first, among equals by name, the i-th (from 0) has longest * ratio ** (-i / k) rows,
    rounded, at least 1: the rule of Cui et al. 2019. The seed picks the rows. ValueError for a class that has fewer.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(_by_class(labels), key=len, reverse=True)
    wanted = [max(1, round(longest * ratio ** (-i / max(len(classes) - 1, 1)))) for i in range(len(classes))]
    for rows, count in zip(classes, wanted, strict=True):
        if len(rows) < count:
            raise ValueError(f"{len(rows)} rows of {labels[rows[0]]!r}, of which {count} are wanted")
    return np.sort(np.concatenate([rng.permutation(rows)[:n] for rows, n in zip(classes, wanted, strict=True)]))


def draw_stratified(labels: Sequence[str], count: int, *, seed: int) -> np.ndarray:
    """`count` rows in all, each class having its share to within one row, ascending, int64.

    What rounding down leaves goes to the classes with the largest remainders; among equals the seed decides.
    """
    if not 0 < count <= len(labels):
        raise ValueError(f"{count} rows of {len(labels)}")
    rng = np.random.default_rng(seed)
    classes = _by_class(labels)
    exact = np.array([len(rows) for rows in classes]) * count / len(labels)
    shares = np.floor(exact + 1e-9).astype(np.int64)
    order = np.lexsort((rng.random(len(classes)), shares - exact))
    shares[order[: count - int(shares.sum())]] += 1
    return np.sort(np.concatenate([rng.permutation(rows)[:n] for rows, n in zip(classes, shares, strict=True)]))


def _by_class(labels: Sequence[str]) -> list[np.ndarray]:
    """The rows of each class, ascending, int64; classes in the order of their names."""
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def write(data_set: DataSet, data: Path, work: Path) -> Files:
    """Draw the rows of a set and write them below the scratch folder `work`; what is used whole stays where it is."""
    import pyarrow.parquet as pq

    from snapfit.data.formats import read_table

    source, folder = data / data_set.folder, work / data_set.name
    whole = read_table(source / data_set.train)
    labels = whole[data_set.label].to_pylist()
    chosen, held = data_set.drawn([one if isinstance(one, str) else " ".join(sorted(one)) for one in labels])
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(whole.take(chosen), folder / "train.parquet")
    valid: Path | None = folder / "valid.parquet"
    if data_set.valid is not None:
        valid = source / data_set.valid
    elif len(held):
        pq.write_table(whole.take(held), valid)
    else:
        valid = None
    test = source / data_set.test
    rows = hashlib.sha256(np.concatenate([chosen, held]).astype("<i8").tobytes()).hexdigest()[:8]
    about = f"{data_set.name}: {len(chosen):,} of {len(whole):,} rows to train on, "
    if valid is None:
        about += "no development rows"
    else:
        about += f"{len(read_table(valid)):,} development rows ({data_set.valid or 'carved out of train'})"
    about += f", {len(read_table(test)):,} test rows; seed of the draw {data_set.seed}, rows {rows}"
    return Files(folder / "train.parquet", valid, test, rows, about)


_BANKING = {"folder": "banking77", "train": "train.csv", "test": "test.csv"}
_CLINC = {"folder": "clinc150_full", "train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
BANKING_10_SHOT = DataSet("banking77-10-shot", **_BANKING, a_class=10, dev_a_class=10)
BANKING = DataSet("banking77", **_BANKING, epochs=3)
CLINC_HALF = DataSet("clinc150-7500", **_CLINC, rows=7_500, epochs=3)
EMOTION = DataSet("emotion", "emotion", "train.tsv", "test.tsv", valid="dev.tsv", epochs=3)
GOEMOTIONS_10K = DataSet(
    "goemotions-10000", "goemotions", "train.jsonl", "test.jsonl", "dev.jsonl", rows=10_000, epochs=4, label="labels"
)
BANKING_TAIL = DataSet("banking77-long-tail", **_BANKING, longest=60, ratio=30, dev_share=0, epochs=4)
EMOTION_TAIL = DataSet(
    "emotion-long-tail", "emotion", "train.tsv", "test.tsv", longest=500, ratio=50, dev_share=0, epochs=6
)
GOEMOTIONS_4K = DataSet(
    "goemotions-4000", "goemotions", "train.jsonl", "test.jsonl", "dev.jsonl", rows=4_000, epochs=3, label="labels"
)
TAIL_QUICK = DataSet("banking77-tail-quick", **_BANKING, longest=20, ratio=10, dev_share=0, epochs=2)
BANKING_QUICK = DataSet("banking77-quick", **_BANKING, a_class=2, dev_a_class=2, epochs=2)
CLINC_QUICK = DataSet("clinc150-quick", **_CLINC, rows=600, epochs=1)
