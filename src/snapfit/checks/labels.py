"""What is odd about labels: missing in a split, too few, written in two ways, in other shares, out of range."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from snapfit.checks.findings import Example, Finding, examples_of, percent, quantity, rows_at, shown, verb
from snapfit.checks.index import Index
from snapfit.checks.reading import CheckedSplit

SMALL = 8
"""Labels with fewer training rows are told of."""
MAJORITY, ONE_SIDED = 0.6, 0.95
"""From these shares of the training rows on one label is a note, and a warning."""
SHIFT = 0.2
"""Shares of labels that are apart by more than this in total variation are told of."""
SORTED = 0.5
"""Rows count as sorted when neighbours have the same label so much more often than by chance, 0 to 1."""
_FAR = 10
"""Interquartile ranges from the median at which a number is far."""
_ODD = {"", "?", "-", "--", "n/a", "na", "nan", "nil", "none", "null", "undefined", "#n/a", "<na>"}
_BINS = 10
_SHOWN = 5
Splits = Mapping[str, CheckedSplit]


def label_findings(splits: Splits, index: Index) -> Iterator[Finding]:
    """Everything about labels, of all splits."""
    for name, split in splits.items():
        if index.labels[name] is None:
            text = f"{name} has no column of labels: {split.source}"
            yield Finding("no_labels", "warning", name, len(split), len(split), text)
    if splits["train"].records.columns.task == "regression":
        yield from _numbers(splits, index)
        return
    counts = {name: index.rows_of_label(name) for name in splits if index.labels[name] is not None}
    yield from _of_train(splits, index, counts["train"])
    for name in counts:
        if name != "train":
            yield from _of_another(splits[name], index, counts["train"], counts[name])


# ---------------------------------------------------------------- the training table


def _of_train(splits: Splits, index: Index, counts: Counter[str]) -> Iterator[Finding]:
    train = splits["train"]
    if len(counts) == 1 and train.records.columns.task == "single":
        name = next(iter(counts))
        text = f"every row of train has the label {shown(name)!r}"
        yield Finding("one_label", "error", "train", 1, 1, text, unit="labels")
        return
    yield from _small(train, index, counts, alone="valid" not in splits)
    yield from _alike(train, index, counts)
    odd = [name for name in counts if name.strip().casefold() in _ODD]
    if odd:
        text = f"{quantity(len(odd), 'label')} of train {verb(len(odd), 'look')} like a missing value: {_listed(odd)}"
        yield _of_labels("odd_label", "note", train, index, odd, counts, text)
    most, n = counts.most_common(1)[0] if counts else ("", 0)
    share = n / len(train)
    if share >= MAJORITY and train.records.columns.task == "single":
        level = "warning" if share >= ONE_SIDED else "note"
        text = f"{percent(share)} of the rows of train have the label {shown(most)!r}"
        yield Finding("imbalance", level, "train", n, len(train), text)  # type: ignore[arg-type]
    labels = index.labels["train"]
    if labels is not None:
        yield from _sorted(train, labels)


def _small(train: CheckedSplit, index: Index, counts: Counter[str], *, alone: bool) -> Iterator[Finding]:
    small = sorted((name for name, n in counts.items() if n < SMALL), key=lambda name: (counts[name], name))
    if not small:
        return
    listed = ", ".join(f"{shown(name, 40)!r} ({counts[name]})" for name in small[:_SHOWN])
    more = f" and {len(small) - _SHOWN:,} more" if len(small) > _SHOWN else ""
    single = sum(counts[name] == 1 for name in small)
    split = f"; {single:,} with one row cannot be in a validation split too" if single and alone else ""
    text = f"{quantity(len(small), 'label')} of train {verb(len(small), 'have')} fewer than {SMALL} rows: "
    yield _of_labels("small_class", "warning", train, index, small, counts, f"{text}{listed}{more}{split}")


def _alike(train: CheckedSplit, index: Index, counts: Counter[str]) -> Iterator[Finding]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in counts:
        spellings[_plain(name)].append(name)
    groups = [sorted(names, key=lambda name: (-counts[name], name)) for names in spellings.values() if len(names) > 1]
    if groups:
        listed = "; ".join(" and ".join(f"{shown(name)!r}" for name in names) for names in groups[:_SHOWN])
        text = f"labels of train that differ in case, space or punctuation only: {listed}"
        rare = [name for names in groups for name in names[1:]]
        yield _of_labels("similar_labels", "warning", train, index, rare, counts, text)


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in letters if c.isalnum()) or letters.strip()


def _sorted(train: CheckedSplit, labels: np.ndarray) -> Iterator[Finding]:
    if len(labels) < 2 * SMALL:
        return
    same = float((labels[1:] == labels[:-1]).mean())
    chance = float(((np.bincount(labels) / len(labels)) ** 2).sum())
    if chance < 1 and (same - chance) / (1 - chance) >= SORTED:
        text = (
            f"{percent(same)} of the rows of train have the label of the row before, by chance {percent(chance)} would"
        )
        yield Finding("sorted_rows", "note", "train", round(same * len(train)), len(train), text)


def _of_labels(
    kind: str,
    level: str,
    split: CheckedSplit,
    index: Index,
    names: Sequence[str],
    counts: Counter[str],
    text: str,
) -> Finding:
    """A finding about some labels, with their rows."""
    rows = _rows_of(index, split.name, names)
    return Finding(
        kind,
        level,  # type: ignore[arg-type]
        split.name,
        len(names),
        len(counts),
        text,
        unit="labels",
        where=rows_at(split, rows),
        examples=examples_of(split, rows),
        details={"labels": {name: counts[name] for name in names[:1000]}, "rows": len(rows)},
    )


def _rows_of(index: Index, split: str, names: Sequence[str]) -> np.ndarray:
    labels, wanted = index.labels[split], set(names)
    codes = [code for code, one in enumerate(index.names) if wanted.intersection(one)]
    return np.flatnonzero(np.isin(np.asarray(labels), codes))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{shown(name)!r}" for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


# ---------------------------------------------------------------- another split


def _of_another(split: CheckedSplit, index: Index, train: Counter[str], counts: Counter[str]) -> Iterator[Finding]:
    unknown = sorted(set(counts) - set(train), key=lambda name: (-counts[name], name))
    if unknown:
        rows = sum(counts[name] for name in unknown)
        text = (
            f"{quantity(len(unknown), 'label')} of {split.name} {verb(len(unknown), 'are')} not in train, in "
            f"{quantity(rows, 'row')}: {_listed(unknown)}"
        )
        yield _of_labels("label_not_in_train", "error", split, index, unknown, counts, text)
    missing = sorted(set(train) - set(counts), key=lambda name: (-train[name], name))
    if missing:
        text = f"{quantity(len(missing), 'label')} of train {verb(len(missing), 'have')} no row in {split.name}: "
        examples = [Example([shown(name)], note=f"{train[name]:,} rows of train") for name in missing[:_SHOWN]]
        yield Finding(
            "label_missing",
            "note",
            split.name,
            len(missing),
            len(train),
            text + _listed(missing),
            unit="labels",
            examples=examples,
            details={"labels": {name: train[name] for name in missing[:1000]}},
        )
    yield from _shift(split, _shares(train), _shares(counts))


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = max(sum(counts.values()), 1)
    return {name: n / total for name, n in counts.items()}


def _shift(split: CheckedSplit, train: Mapping[str, float], shares: Mapping[str, float]) -> Iterator[Finding]:
    gaps = {name: shares.get(name, 0.0) - train.get(name, 0.0) for name in {*train, *shares}}
    apart = sum(map(abs, gaps.values())) / 2
    noise = np.sqrt(len(gaps) / max(len(split), 1))  # about what chance alone does
    if apart <= SHIFT + noise:
        return
    widest = sorted(gaps, key=lambda name: (-abs(gaps[name]), name))[:3]
    told = ", ".join(
        f"{shown(name, 40)!r} {percent(shares.get(name, 0.0))} instead of {percent(train.get(name, 0.0))}"
        for name in widest
    )
    yield Finding(
        "label_shift",
        "warning",
        split.name,
        round(apart * len(split)),
        len(split),
        f"labels of {split.name} are in other shares than in train: {told}",
        details={"apart": round(apart, 4)},
    )


# ---------------------------------------------------------------- numbers


def _numbers(splits: Splits, index: Index) -> Iterator[Finding]:
    values = np.asarray(index.labels["train"])
    if values.min() == values.max():
        text = f"every row of train has the number {values[0]:g}"
        yield Finding("constant_target", "error", "train", len(values), len(values), text)
        return
    quarters = np.quantile(values, [0.25, 0.5, 0.75])
    reach = _FAR * float(quarters[2] - quarters[0])
    edges = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])
    train = _binned(values, edges)
    for name, split in splits.items():
        numbers = index.labels[name]
        if numbers is None:
            continue
        far = np.flatnonzero(np.abs(numbers - quarters[1]) > reach) if reach > 0 else np.zeros(0, dtype=np.int64)
        if len(far):
            text = f"{quantity(len(far), 'number')} of {name} {verb(len(far), 'are')} far from the median of train, "
            yield Finding(
                "far_number",
                "warning",
                name,
                len(far),
                len(split),
                f"{text}{quarters[1]:g}: the farthest is {numbers[far[np.abs(numbers[far] - quarters[1]).argmax()]]:g}",
                where=rows_at(split, far),
                examples=examples_of(split, far),
            )
        if name != "train":
            yield from _shift(split, train, _binned(numbers, edges))


def _binned(values: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """Shares of numbers between the training numbers' tenths."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=_BINS) / max(len(values), 1)
    names = [f"up to {edge:g}" for edge in edges] + ["more"]
    shares: dict[str, float] = {}
    for name, share in zip(names, counts.tolist(), strict=True):
        shares[name] = shares.get(name, 0.0) + share
    return shares
