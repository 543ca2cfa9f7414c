"""Tokens traced to their characters and put together to words, with tokenizers of every kind that encoders have."""

import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from snapfit.core.lengths import LengthPolicy
from snapfit.data.tokenizer import TextTokenizer
from snapfit.data.words import Piece, merged_pieces, token_pieces, traced_row, unread, word_pieces

SENTENCES = [
    "Don't stop: 3,000.50 euros for a well-known naïve café_bar!",
    "cafe\u0301 re\u0301sume\u0301 at 9.30, o'clock 'quoted' words",
    "今天早上的火车晚点了二十分钟。",
    "我的iPhone在東京タワーで壊れた",
    "ภาษาไทยไม่มีช่องว่าง",
    "हिन्दी में शब्द",
    "한국어는 띄어쓰기가 있다",
    "thumbs 👍🏽 and a family 👨‍👩‍👧 here",
    "  spaces\tand\n\nlines  ",
    "",
    "   ",
    "[SEP] is [MASK] <s> text",
    "a\u200bb zero\u00adwidth",
    "\x07bell and \x1b[31mred",
]


def word_piece(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def byte_level(_: Path) -> Tokenizer:
    """RoBERTa's kind: bytes, some merges, a space before words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("o", "n"), ("s", "t")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *("".join(merge) for merge in merges)]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return made


def unigram(_: Path) -> Tokenizer:
    """XLM-R's kind: pieces of text with a mark for the space before them, and bytes of what is unknown."""
    texts = " ".join(SENTENCES)
    characters = sorted(set(texts) - {" ", "\n", "\t"})[::2]  # half of them are unknown
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "▁the", "stop", "euro", "今天", "早上", "▁शब्द", "ing"]
    made = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate([*pieces, *characters])], 3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def bare(_: Path) -> Tokenizer:
    """No special tokens at all."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


KINDS: list[Callable[[Path], Tokenizer]] = [word_piece, byte_level, unigram, bare]


def opened(kind: Callable[[Path], Tokenizer], path: Path, max_tokens: int = 64) -> TextTokenizer:
    content = kind(path).to_str().encode()
    return TextTokenizer.from_bytes(content, max_tokens=max_tokens, pad_id=0)


def shown(texts: Sequence[str], pieces: Sequence[Piece]) -> list[str]:
    return [texts[piece.part][piece.start : piece.end] for piece in pieces]


def words_of(tokenizer: TextTokenizer, *texts: str) -> list[str]:
    return shown(texts, word_pieces(texts, traced_row(tokenizer, texts).spans))


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [LengthPolicy("tail"), LengthPolicy("head+tail"), LengthPolicy("windows")])
def test_a_row_that_is_cut_is_traced_by_its_policy(
    kind: Callable[[Path], Tokenizer], policy: LengthPolicy, tiny_tokenizer_json: Path
) -> None:
    content = kind(tiny_tokenizer_json).to_str().encode()
    tokenizer = TextTokenizer.from_bytes(content, max_tokens=10, pad_id=0, policy=policy)
    whole = Tokenizer.from_str(content.decode())
    for i, text in enumerate(SENTENCES):
        for texts in ((text,), (text, SENTENCES[i - 1])):
            row = traced_row(tokenizer, texts)
            expected = tokenizer.encode(*([one] for one in texts))
            assert np.array_equal(row.tokens.ids, expected.ids)
            assert row.tokens.window_tokens == expected.window_tokens
            every = {
                (part, *offsets, piece, token)
                for part, one in enumerate(texts)
                for offsets, piece, token in zip(*_account(whole, one), strict=True)
            }
            for token, source in zip(row.tokens.ids.tolist(), row.source.tolist(), strict=True):
                if source >= 0:
                    span = row.spans[source]
                    assert (span.part, span.start, span.end, span.piece, token) in every
            assert set(row.source.tolist()) - {-1} == set(range(len(row.spans)))
            order = [(span.part, span.start) for span in row.spans]
            assert order == sorted(order)
            if policy.windowed and len(texts) == 1:
                assert len(row.spans) == len(whole.encode(text, add_special_tokens=False).ids)


def _account(tokenizer: Tokenizer, text: str) -> tuple[list[tuple[int, int]], list[str], list[int]]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return encoding.offsets, encoding.tokens, encoding.ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [6, 64])
def test_a_traced_row_is_the_row_that_is_predicted_on(
    kind: Callable[[Path], Tokenizer], max_tokens: int, tiny_tokenizer_json: Path
) -> None:
    tokenizer = opened(kind, tiny_tokenizer_json, max_tokens)
    for i, text in enumerate(SENTENCES):
        for texts in ((text,), (text, SENTENCES[i - 1])):
            row = traced_row(tokenizer, texts)
            expected = tokenizer.encode(*([one] for one in texts))
            assert np.array_equal(row.tokens.ids, expected.ids)
            assert np.array_equal(row.tokens.second_start, expected.second_start)
            assert len(row.source) == len(row.tokens.ids)
            real = row.source[row.source >= 0]
            assert list(real) == list(range(len(row.spans)))
            assert all(0 <= span.start <= span.end <= len(texts[span.part]) for span in row.spans)
            parts = [span.part for span in row.spans]
            assert parts == sorted(parts)


def test_special_tokens_have_no_source_but_what_looks_like_them_has(tiny_tokenizer_json: Path) -> None:
    row = traced_row(opened(word_piece, tiny_tokenizer_json), ("the [SEP] a", "[MASK]"))
    assert [span.piece for span in row.spans] == ["the", "[SEP]", "a", "[MASK]"]
    assert list(row.source) == [-1, 0, 1, 2, -1, 3, -1]


def test_a_row_without_tokens_is_padding_from_nowhere(tiny_tokenizer_json: Path) -> None:
    row = traced_row(opened(bare, tiny_tokenizer_json), ("",))
    assert (list(row.tokens.ids), list(row.source), row.spans) == ([0], [-1], ())


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("kind", [word_piece, byte_level])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop", ["Don't", "stop"]),
        ("the dogs' bowl", ["the", "dogs", "'", "bowl"]),
        ("'quoted'", ["'", "quoted", "'"]),
        ("it costs 3,000.50.", ["it", "costs", "3,000.50", "."]),
        ("a well-known fact", ["a", "well", "-", "known", "fact"]),
        ("snake_case", ["snake_case"]),
        ("U.S.A", ["U", ".", "S", ".", "A"]),
        ("!!?", ["!", "!", "?"]),
        ("naïve cafe\u0301s", ["naïve", "cafe\u0301s"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어는 띄어쓰기", ["한국어는", "띄어쓰기"]),
        ("  a \t b\n", ["a", "b"]),
        ("", []),
    ],
)
def test_words_of_spaced_scripts(
    kind: Callable[[Path], Tokenizer], text: str, words: list[str], tiny_tokenizer_json: Path
) -> None:
    assert words_of(opened(kind, tiny_tokenizer_json), text) == words


@pytest.mark.parametrize("text", ["今天早上的火车", "東京タワー", "ภาษาไทย"])
def test_in_scripts_without_spaces_a_token_is_a_word(text: str, tiny_tokenizer_json: Path) -> None:
    words = words_of(opened(byte_level, tiny_tokenizer_json), text)  # bytes: several tokens stand for a character
    marks = [i for i, one in enumerate(text) if unicodedata.category(one)[0] == "M"]
    assert len(words) == len(text) - len(marks)
    assert "".join(words) == text


def test_a_token_of_several_characters_stays_whole() -> None:
    assert words_of(opened(unigram, Path()), "今天早上") == ["今天", "早上"]


def test_scripts_that_meet_are_words_of_their_own(tiny_tokenizer_json: Path) -> None:
    assert words_of(opened(word_piece, tiny_tokenizer_json), "我的iPhone的") == ["我", "的", "iPhone", "的"]


@pytest.mark.parametrize("kind", [byte_level, unigram])
def test_what_is_one_sign_is_not_torn_apart(kind: Callable[[Path], Tokenizer], tiny_tokenizer_json: Path) -> None:
    tokenizer = opened(kind, tiny_tokenizer_json)
    assert words_of(tokenizer, "👍🏽 👨‍👩‍👧") == ["👍🏽", "👨‍👩‍👧"]


def test_a_mark_for_a_space_goes_with_the_word_behind_it() -> None:
    tokenizer = opened(unigram, Path())
    row = traced_row(tokenizer, ("今天 早上",))
    assert [span.piece for span in row.spans][0] == "▁"
    pieces = word_pieces(("今天 早上",), row.spans)
    assert shown(("今天 早上",), pieces) == ["今天", "早上"]
    assert pieces[0].spans == (0, 1)


def test_words_of_a_pair_do_not_mix(tiny_tokenizer_json: Path) -> None:
    texts = ("the train", "train")
    row = traced_row(opened(word_piece, tiny_tokenizer_json), texts)
    pieces = word_pieces(texts, row.spans)
    assert [(piece.part, text) for piece, text in zip(pieces, shown(texts, pieces), strict=True)] == [
        (0, "the"),
        (0, "train"),
        (1, "train"),
    ]


def check_pieces(tokenizer: TextTokenizer, texts: tuple[str, ...]) -> None:
    """What holds for words and tokens of whatever text."""
    row = traced_row(tokenizer, texts)
    for pieces in (word_pieces(texts, row.spans), token_pieces(texts, row.spans)):
        assert [span for piece in pieces for span in piece.spans] == list(range(len(row.spans)))
        for piece in pieces:
            seen = texts[piece.part][piece.start : piece.end]
            assert seen == seen.strip() or all(unicodedata.category(one)[0] in "CMZ" for one in seen)
    words = word_pieces(texts, row.spans)
    for before, behind in zip(words, words[1:], strict=False):
        assert before.part < behind.part or before.end <= behind.start or behind.start == behind.end
    for part, start, end in unread(texts, words):
        assert texts[part][start:end].strip() == texts[part][start:end] != ""
        assert not any(piece.part == part and piece.start < end and start < piece.end for piece in words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", SENTENCES)
def test_each_token_is_in_one_word(kind: Callable[[Path], Tokenizer], text: str, tiny_tokenizer_json: Path) -> None:
    check_pieces(opened(kind, tiny_tokenizer_json), (text,))
    check_pieces(opened(kind, tiny_tokenizer_json, 12), (text, "the " + text))


@pytest.fixture(scope="module")
def tokenizers(tiny_tokenizer_json: Path) -> list[TextTokenizer]:
    return [opened(kind, tiny_tokenizer_json, 24) for kind in KINDS]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(
        st.characters(exclude_categories=["Cs"]) | st.sampled_from("a'’., \n今ไ\u0301\u200d👨👍🏽"), max_size=30
    )
)
def test_each_token_is_in_one_word_of_any_text(tokenizers: list[TextTokenizer], text: str) -> None:
    for tokenizer in tokenizers:
        check_pieces(tokenizer, (text,))


# ---------------------------------------------------------------- what was not read


def test_what_is_cut_off_is_told(tiny_tokenizer_json: Path) -> None:
    tokenizer = opened(word_piece, tiny_tokenizer_json, 6)
    text = "the train to the coast leaves at seven "
    words = word_pieces((text,), traced_row(tokenizer, (text,)).spans)
    assert shown((text,), words) == ["the", "train", "to", "the"]
    ((part, start, end),) = unread((text,), words)
    assert (part, text[start:end]) == (0, "coast leaves at seven")


def test_of_a_pair_each_text_is_told(tiny_tokenizer_json: Path) -> None:
    tokenizer = opened(word_piece, tiny_tokenizer_json, 8)
    texts = ("the train to the coast", "the market in the city")
    words = word_pieces(texts, traced_row(tokenizer, texts).spans)
    gaps = [(part, texts[part][start:end]) for part, start, end in unread(texts, words)]
    assert [part for part, _ in gaps] == [0, 1]
    assert all(texts[part].endswith(gap) for part, gap in gaps)


def test_what_cannot_be_seen_is_not_missed(tiny_tokenizer_json: Path) -> None:
    text = "the\u0301 \x07 \u200b train \u00a0"
    words = word_pieces((text,), traced_row(opened(word_piece, tiny_tokenizer_json), (text,)).spans)
    assert unread((text,), words) == []


# ---------------------------------------------------------------- runs of words


def pieces_of(*counts: int) -> list[Piece]:
    """Pieces of one character each, so many of each part."""
    made, span = [], 0
    for part, count in enumerate(counts):
        for i in range(count):
            made.append(Piece(part, 2 * i, 2 * i + 1, (span,)))
            span += 1
    return made


@pytest.mark.parametrize("counts", [(5,), (8,), (9,), (100,), (3, 90), (90, 3), (50, 50), (0, 40), (1, 1)])
@pytest.mark.parametrize("most", [2, 3, 8, 40])
def test_runs_are_few_alike_and_in_order(counts: tuple[int, ...], most: int) -> None:
    pieces = pieces_of(*counts)
    merged = merged_pieces(pieces, most)
    assert len(merged) <= max(most, sum(count > 0 for count in counts))
    assert [span for piece in merged for span in piece.spans] == list(range(len(pieces)))
    for part in range(len(counts)):
        sizes = [len(piece.spans) for piece in merged if piece.part == part]
        assert not sizes or max(sizes) - min(sizes) <= 1
    if len(pieces) <= most:
        assert merged == pieces
    for piece in merged:
        assert (piece.start, piece.end) == (pieces[piece.spans[0]].start, pieces[piece.spans[-1]].end)


def test_any_counts_keep_to_the_bound() -> None:
    rng = random.Random(0)
    for _ in range(200):
        counts, most = (rng.randint(0, 60), rng.randint(0, 60)), rng.randint(2, 70)
        assert len(merged_pieces(pieces_of(*counts), most)) <= most
