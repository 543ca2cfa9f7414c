"""The answer in the text: words and names that give a label away, a number of its own in each text, a common beginning.

Looked at is a sample of the training rows. A word is told of when it is measured to give a label away: nearly all texts
with it have the label, and nearly all texts of the label have it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.checks.findings import Example, Finding, Level, examples_of, percent, place, quantity, rows_at, shown
from snapfit.checks.index import Index
from snapfit.checks.reading import CheckedSplit
from snapfit.data.columns import is_text_type

SAMPLE_ROWS = 50_000
PRECISION, COVERAGE = 0.98, 0.9
"""A word gives a label away when so much of the rows with it have the label, and of the label's rows have it."""
NAME_COVERAGE = 0.5
"""As COVERAGE, for a label's own name."""
LEAST_ROWS = 20
"""Rows with a word, at least; fewer prove nothing."""
OVER_CHANCE = 0.15
"""How much more often a label must come with the word than it comes at all."""
SYSTEMATIC = 0.5
"""From this share of all rows on, with a word that gives their label away, it is a warning: no few words do that."""
_BLOCK = 512
_ALIKE, _ALIKE_LETTERS = 0.5, 16
_WITH_ID, _DISTINCT = 0.9, 0.95
_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_EDGE, _MOST_EDGE = 4, 20


@dataclass(frozen=True)
class Sample:
    """Some training rows. rows: their numbers, int64. texts: first and second text as one. labels: of each, a tuple."""

    rows: np.ndarray
    texts: list[str]
    labels: list[tuple[str, ...]]


def hint_findings(train: CheckedSplit, index: Index) -> Iterator[Finding]:
    """What in the training texts gives their labels away, or is the same in most of them."""
    sample = take_sample(train, index)
    if any(sample.labels):
        yield from _words(train, sample)
        yield from _names(train, sample)
    yield from _ids(train, sample)
    yield from _beginnings(train, sample)


def sample_rows(n: int, most: int, *, seed: int = 0) -> np.ndarray:
    """Rows of a table, in blocks of neighbours, int64 ascending: all of them where there are no more than `most`."""
    if n <= most:
        return np.arange(n)
    blocks = np.random.default_rng(seed).permutation(-(-n // _BLOCK))[: most // _BLOCK]
    rows = (np.sort(blocks)[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
    return np.asarray(rows[rows < n])


def take_sample(train: CheckedSplit, index: Index) -> Sample:
    """The rows that are looked at."""
    rows = sample_rows(len(train), SAMPLE_ROWS)
    texts = [" ".join(both) for both in zip(*_columns(train, rows), strict=True)]
    codes = index.labels["train"]
    if codes is None or codes.dtype.kind == "f":
        return Sample(rows, texts, [()] * len(rows))
    return Sample(rows, texts, [index.names[code] for code in codes[rows].tolist()])


def _columns(split: CheckedSplit, rows: np.ndarray) -> list[list[str]]:
    records: Any = split.records.take(rows)
    return [column.to_pylist() for column in (records.texts, records.pairs) if column is not None]


# ---------------------------------------------------------------- words


def features(text: str) -> set[str]:
    """What of a text may give a label away: its words, pairs of Han characters, its first and last characters."""
    found: set[str] = set()
    folded = text.casefold()
    for word in _WORD.findall(folded):
        if _HAN.search(word):
            found.update(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.add(word)
    whole = text.strip()
    if len(whole) > 2 * _EDGE:
        for edge in {whole[:_EDGE], *(word for word in whole.split(None, 1)[:1] if len(word) <= _MOST_EDGE)}:
            found.add(f"begins with {edge!r}")
        for edge in {whole[-_EDGE:], *(word for word in whole.rsplit(None, 1)[-1:] if len(word) <= _MOST_EDGE)}:
            found.add(f"ends with {edge!r}")
    return found


def _words(train: CheckedSplit, sample: Sample) -> Iterator[Finding]:
    with_word: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    of_label: Counter[str] = Counter()
    found = [features(text) for text in sample.texts]
    for words in found:
        with_word.update(words)
    for words, labels in zip(found, sample.labels, strict=True):
        often = [word for word in words if with_word[word] >= LEAST_ROWS]
        for label in labels:
            of_label[label] += 1
            together.update((word, label) for word in often)
    telling: dict[str, tuple[str, float, float]] = {}
    for (word, label), n in together.items():
        precision, coverage = n / with_word[word], n / of_label[label]
        likely = precision >= PRECISION and precision >= of_label[label] / len(found) + OVER_CHANCE
        if likely and coverage >= COVERAGE and (precision, coverage) > telling.get(label, ("", 0.0, 0.0))[1:]:
            telling[label] = (word, precision, coverage)
    if telling:
        chosen = [
            i
            for i, (words, labels) in enumerate(zip(found, sample.labels, strict=True))
            if any(label in telling and telling[label][0] in words for label in labels)
        ]
        yield _giving_away("telling_word", train, sample, chosen, telling)


def _names(train: CheckedSplit, sample: Sample) -> Iterator[Finding]:
    of_label: Counter[str] = Counter(label for labels in sample.labels for label in labels)
    folded = [" ".join(_WORD.findall(text.casefold())) for text in sample.texts]
    telling: dict[str, tuple[str, float, float]] = {}
    rows: list[int] = []
    names = {label: " ".join(_WORD.findall(label.replace("_", " ").casefold())) for label in of_label}
    for label, n in of_label.items():
        name = names[label]
        if len(name) < 2 or name.isdigit():
            continue
        longer = sorted({other for other in names.values() if name in other and name != other}, key=len, reverse=True)
        having = [i for i, text in enumerate(folded) if name in text and _names_it(text, name, longer)]
        own = [i for i in having if label in sample.labels[i]]
        precision, coverage = len(own) / max(len(having), 1), len(own) / n
        likely = precision >= PRECISION and precision >= n / len(folded) + OVER_CHANCE
        if len(having) >= LEAST_ROWS and likely and coverage >= NAME_COVERAGE:
            telling[label] = (name, precision, coverage)
            rows += own
    if telling:
        yield _giving_away("label_in_text", train, sample, sorted(set(rows)), telling)


def _names_it(text: str, name: str, longer: Sequence[str]) -> bool:
    """Whether a text has a name in it as whole words, and not as a part of longer names alone."""
    for other in longer:
        text = text.replace(other, " ")
    if name not in text:
        return False
    return _HAN.search(name) is not None or re.search(rf"\b{re.escape(name)}\b", text) is not None


def _giving_away(
    kind: str, train: CheckedSplit, sample: Sample, chosen: Sequence[int], telling: dict[str, tuple[str, float, float]]
) -> Finding:
    share = len(chosen) / len(sample.rows)
    level: Level = "warning" if share >= SYSTEMATIC else "note"
    ordered = sorted(telling.items(), key=lambda item: (-item[1][2], item[0]))
    listed = ", ".join(f"{shown(word, 40)!r} for {shown(label, 40)!r}" for label, (word, _, _) in ordered[:3])
    what = "a word" if kind == "telling_word" else "the label's own name"
    text = f"{what} gives {quantity(len(telling), 'label')} away, in {percent(share)} of the rows of train: {listed}"
    examples = [
        Example(
            [shown(next((sample.texts[i] for i in chosen if label in sample.labels[i]), ""))],
            [place(train, int(sample.rows[next(i for i in chosen if label in sample.labels[i])]))],
            [shown(label)],
            f"{shown(word, 40)}: {percent(precision)} of the rows with it have the label, "
            f"{percent(coverage)} of the label's rows have it",
        )
        for label, (word, precision, coverage) in ordered[:5]
    ]
    words = {label: {"word": word, "precision": p, "coverage": c} for label, (word, p, c) in ordered[:1000]}
    rows = rows_at(train, sample.rows[np.array(chosen, dtype=np.int64)])
    details = {"labels": words, "rows_looked_at": len(sample.rows)}
    return Finding(kind, level, "train", len(chosen), len(sample.rows), text, "rows", rows, examples, details)


# ---------------------------------------------------------------- numbers of their own, common beginnings


def _ids(train: CheckedSplit, sample: Sample) -> Iterator[Finding]:
    edges = {"first": [text.split(None, 1)[:1] for text in sample.texts]}
    edges["last"] = [text.rsplit(None, 1)[-1:] for text in sample.texts]
    for which, words in edges.items():
        having = [i for i, word in enumerate(words) if word and any(c.isdigit() for c in word[0])]
        distinct = len({words[i][0] for i in having})
        if len(having) >= max(LEAST_ROWS, _WITH_ID * len(words)) and distinct >= _DISTINCT * len(having):
            text = (
                f"the {which} word of {percent(len(having) / len(words))} of the texts of train is a number of its own"
            )
            yield _of_ids(train, sample, having, text + _order_told([words[i][0] for i in having], sample, having))
            return
    for name in _other_columns(train):
        cells = _cells(train, name, sample.rows)
        having = [i for i, cell in enumerate(cells) if len(cell) > 3 and cell in sample.texts[i]]
        if len(having) >= max(LEAST_ROWS, SYSTEMATIC * len(cells)) and len(set(cells)) >= _DISTINCT * len(cells):
            share = percent(len(having) / len(cells))
            text = f"{share} of the texts of train hold what the column {shown(name)!r} says of the row alone"
            yield _of_ids(train, sample, having, text)
            return


def _of_ids(train: CheckedSplit, sample: Sample, having: list[int], text: str) -> Finding:
    rows = sample.rows[np.array(having, dtype=np.int64)]
    where, examples = rows_at(train, rows), examples_of(train, rows)
    return Finding("id_in_text", "warning", "train", len(having), len(sample.rows), text, "rows", where, examples)


def _order_told(words: list[str], sample: Sample, having: list[int]) -> str:
    """Whether rows that follow one another by their numbers have the same label, in words."""
    numbers = [int("".join(c for c in word if c.isdecimal())[:18] or 0) for word in words]
    order = np.argsort(np.array(numbers), kind="stable")
    labels = [sample.labels[having[i]] for i in order.tolist()]
    if not any(labels):
        return ""
    same = sum(a == b for a, b in zip(labels, labels[1:], strict=False)) / max(len(labels) - 1, 1)
    chance = sum((n / len(labels)) ** 2 for n in Counter(labels).values())
    if same < chance + SYSTEMATIC * (1 - chance):
        return ""
    return f", and it tells the label: {percent(same)} of neighbours by it have the same one"


def _other_columns(train: CheckedSplit) -> list[str]:
    taken, table = train.records.columns, train.table
    names = [name for name in table.column_names if name not in (taken.text, taken.pair, taken.label)]
    kinds = {name: table.schema.field(name).type for name in names}
    return [name for name in names if is_text_type(kinds[name]) or pa.types.is_integer(kinds[name])]


def _cells(train: CheckedSplit, name: str, rows: np.ndarray) -> list[str]:
    values = train.table.column(name).take(pa.array(rows)).to_pylist()
    return ["" if value is None else str(value) for value in values]


def _beginnings(train: CheckedSplit, sample: Sample) -> Iterator[Finding]:
    starts = Counter(text[:_ALIKE_LETTERS] for text in sample.texts if len(text) > _ALIKE_LETTERS)
    start, n = starts.most_common(1)[0] if starts else ("", 0)
    if n < max(LEAST_ROWS, _ALIKE * len(sample.texts)):
        return
    having = [i for i, text in enumerate(sample.texts) if text.startswith(start)]
    rows = sample.rows[np.array(having, dtype=np.int64)]
    text = f"{percent(n / len(sample.texts))} of the texts of train begin with {shown(start)!r}"
    where, examples = rows_at(train, rows), examples_of(train, rows)
    yield Finding("same_beginning", "note", "train", n, len(sample.texts), text, "rows", where, examples)
