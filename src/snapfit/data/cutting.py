"""Which tokens of a text are read: the length policy, done on flat arrays of token ids.

Texts are tokenised whole; here they are cut and put between the tokenizer's special tokens. With n tokens of a text and
room for k of them:

    head       the first k
    tail       the last k
    head+tail  the first h = round(head_share * k), but one of each end at least, and the last k - h
    windows    m stretches of k tokens each, m as few as overlap by floor(overlap * k) or more, at most max_windows; the
               i-th of them (from 0) begins at floor(i * (n - k) / (m - 1)), so that the first begins and the last
               ends with the text, all are full, and they are evenly spread

Of a pair the longer text gives way first, as `longest_first` of the tokenizers library has it (`shares`), and each text
is cut by the policy to its share. The windows of a pair go through both texts side by side: a text that fits is whole
in each, the i-th window of one that does not is as far along as it is in the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, get_args

import numpy as np

from snapfit.core.lengths import LengthPolicy, Policy

Content: TypeAlias = tuple[np.ndarray, np.ndarray]
"""ids [tokens] of texts, one after another and without special tokens, and how many each has, int64 [texts]."""


@dataclass(frozen=True)
class Part:
    """A stretch of a row. text: 0 or 1 for the first or second text; None for special tokens, which are `ids`.
    second: whether its token type is 1.
    """

    text: int | None
    ids: tuple[int, ...]
    second: bool


Template: TypeAlias = tuple[Part, ...]
"""How a tokenizer makes a row of one text, or of two."""


def n_special(template: Template) -> int:
    """How many special tokens are in a row."""
    return sum(len(part.ids) for part in template)


@dataclass(frozen=True)
class Rows:
    """Rows that are cut; the first three as in `tokenizer.TokenIds`, `lengths` instead of offsets.

    ids [tokens], lengths int64 [rows] (of all windows), second_start int64 [rows].
    """

    ids: np.ndarray
    lengths: np.ndarray
    second_start: np.ndarray


def shares(lengths: Sequence[np.ndarray], room: int) -> list[np.ndarray]:
    """How many tokens of each text are read, int64 [rows] for each of one or two texts.

    lengths: int64 [rows] of each text. room: for both together.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    longer_kept = np.minimum(longer, np.maximum(room - shorter, room - room // 2))
    shorter_kept = np.minimum(shorter, room - longer_kept)
    first_is_longer = first > second
    return [
        np.where(first_is_longer, longer_kept, shorter_kept),
        np.where(first_is_longer, shorter_kept, longer_kept),
    ]


def count_windows(lengths: Sequence[np.ndarray], kept: Sequence[np.ndarray], policy: LengthPolicy) -> np.ndarray:
    """Into how many windows each row is cut, int64 [rows]; 1 where it fits, and under other policies."""
    windows = np.ones(len(lengths[0]), dtype=np.int64)
    if not policy.windowed:
        return windows
    for n, k in zip(lengths, kept, strict=True):
        stride = np.maximum(k - np.floor(policy.overlap * k).astype(np.int64), 1)
        windows = np.maximum(windows, 1 - (k - n) // stride)  # 1 + ceil((n - k) / stride)
    return np.minimum(windows, policy.max_windows)


def windows_of(lengths: np.ndarray, window_tokens: int | None) -> np.ndarray:
    """How many windows rows of so many tokens are, int64: all windows of a row of several are full.

    window_tokens: of a full one; None where every row is one sequence.
    """
    if window_tokens is None:
        return np.ones(len(lengths), dtype=np.int64)
    return np.maximum(-(-np.asarray(lengths, dtype=np.int64) // window_tokens), 1)


def cut(texts: Sequence[Content], template: Template, policy: LengthPolicy, *, max_tokens: int, pad_id: int) -> Rows:
    """Rows of at most max_tokens tokens, or of windows of so many, special tokens included.

    texts: the first texts and, where the template has two, the second ones, their ids of one dtype. A row without any
    token is one pad_id.
    """
    lengths = [counts for _, counts in texts]
    kept = shares(lengths, max_tokens - n_special(template))
    windows = count_windows(lengths, kept, policy)
    rows = np.repeat(np.arange(len(windows)), windows)
    number = np.arange(len(rows)) - (np.cumsum(windows) - windows)[rows]
    around = np.array([pad_id, *(one for part in template for one in part.ids)], dtype=texts[0][0].dtype)
    source = np.concatenate([around, *(ids for ids, _ in texts)])
    bases = len(around) + np.cumsum([0, *(len(ids) for ids, _ in texts)])
    stretches, special = [], 1
    seconds = np.zeros(len(windows), dtype=np.int64)
    for part in template:
        if part.text is None:
            stretches.append((np.full(len(rows), special), np.full(len(rows), len(part.ids))))
            special += len(part.ids)
        else:
            n, k = lengths[part.text], kept[part.text]
            begins = bases[part.text] + np.cumsum(n) - n
            stretches += _stretches(begins[rows], n[rows], k[rows], number, windows[rows], policy)
        if not part.second:
            seconds += len(part.ids) if part.text is None else kept[part.text]
    sizes = np.sum([size for _, size in stretches], axis=0)
    stretches.append((np.zeros(len(rows), dtype=np.int64), (sizes == 0).astype(np.int64)))
    starts, counts = (np.stack(one, axis=1).ravel() for one in zip(*stretches, strict=True))
    sizes = sizes[np.cumsum(windows) - windows]  # of a row's windows, which are all as long
    seconds = np.where(sizes == 0, 1, seconds)
    return Rows(source[token_places(starts, counts)], np.maximum(sizes, 1) * windows, seconds)


def _stretches(
    begins: np.ndarray, n: np.ndarray, k: np.ndarray, number: np.ndarray, windows: np.ndarray, policy: LengthPolicy
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(where they begin, how many tokens they have) of what is read of a text, for each sequence.

    begins, n, k: of the text: where it begins, how many tokens it has, how many are read of it. number, windows: which
    window of its row each sequence is, and of how many.
    """
    if policy.policy == "head":
        return [(begins, k)]
    if policy.policy == "tail":
        return [(begins + n - k, k)]
    if policy.windowed:
        return [(begins + number * (n - k) // np.maximum(windows - 1, 1), k)]
    first = np.clip(np.rint(policy.head_share * k).astype(np.int64), 1, np.maximum(k - 1, 1))
    first = np.where(n > k, first, k)
    return [(begins, first), (begins + n - (k - first), k - first)]


def token_places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of all tokens of stretches that begin at `starts`, one after another, int64 [sum of lengths]."""
    before = np.cumsum(lengths) - lengths
    places: np.ndarray = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return places


@dataclass(frozen=True)
class CutCount:
    """What a length policy does to the rows of a table.

    rows: how many. too_long: have more tokens than the limit. cut: of which some token is not read; with windows these
    are the rows that max_windows do not cover. sequences: rows, or with windows all windows. most_windows: of a row.
    tokens: that go through the model, special ones included. unread: tokens of texts that do not.
    """

    rows: int
    too_long: int
    cut: int
    sequences: int
    most_windows: int
    tokens: int
    unread: int


def count_cuts(
    lengths: Sequence[np.ndarray], *, max_tokens: int, n_special: int, policy: LengthPolicy
) -> dict[Policy, CutCount]:
    """What each length policy would do to texts, by the policy's name, from how long they are.

    lengths: tokens of each text uncut and without special tokens, int [rows]; of pairs those of the first and of the
    second texts. `TokenIds.uncut` and `TextTokenizer.count` have them. max_tokens: the limit of a row, n_special of
    them special (`TextTokenizer.n_special`). policy: says what the policies go by, such as max_windows.
    """
    lengths = [np.asarray(one, dtype=np.int64) for one in lengths]
    kept = shares(lengths, max_tokens - n_special)
    unread = np.sum([n - k for n, k in zip(lengths, kept, strict=True)], axis=0)
    too_long = int((unread > 0).sum())
    sizes = np.sum(kept, axis=0) + n_special
    found: dict[Policy, CutCount] = {}
    for name in get_args(Policy):
        windows = count_windows(lengths, kept, replace(policy, policy=name))
        left = unread
        if name == "windows":
            left = np.sum([_between(n, k, windows) for n, k in zip(lengths, kept, strict=True)], axis=0)
        found[name] = CutCount(
            rows=len(windows),
            too_long=too_long,
            cut=int((left > 0).sum()),
            sequences=int(windows.sum()),
            most_windows=int(windows.max(initial=0)),
            tokens=int((windows * sizes).sum()),
            unread=int(left.sum()),
        )
    return found


def _between(n: np.ndarray, k: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Tokens of texts that lie between their windows, or behind the only one."""
    steps = np.maximum(windows - 1, 1)
    step, longer = np.divmod(n - k, steps)  # so many of the steps are longer by one
    between = longer * np.maximum(step + 1 - k, 0) + (steps - longer) * np.maximum(step - k, 0)
    unread: np.ndarray = np.where(windows > 1, between, n - k)
    return unread
