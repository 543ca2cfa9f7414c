"""Which characters of a text a token stands for, and which tokens make up a word.

A word is what stands between spaces and punctuation, by Unicode's rules for word boundaries (UAX 29) as far as tokens
need them: "don't", "3,000.50" and "naïve" are one word each, "well-known" is three. In scripts that are written without
spaces, such as Chinese, Japanese and Thai, a token is a word.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snapfit.data.tokenizer import TextTokenizer, TokenIds

_UNSPACED = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals of Chinese characters
    (0x3005, 0x3007),  # their iteration mark, and the number zero
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # more of Myanmar
    (0xAA60, 0xAADF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # Katakana of half width
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""First and last code points of scripts that are written without spaces, ascending."""
_FIRSTS = [first for first, _ in _UNSPACED]
_APOSTROPHES = frozenset("'’")
_IN_NUMBERS = frozenset(".,")
_JOINER = "\u200d"


@dataclass(frozen=True)
class TokenSpan:
    """What a token stands for: characters `start` to before `end` of a text.

    part: 0, or 1 in the second text of a pair. piece: as the vocabulary has it. A token may stand for no character, and
    tokens that are bytes of one character stand for it together.
    """

    part: int
    start: int
    end: int
    piece: str


@dataclass(frozen=True)
class TracedRow:
    """A text, or a pair, as the model reads it, and where each token comes from.

    tokens: the one row. source: int64 [tokens of the row], for each which span it is, -1 for a special token; where
    windows overlap, two are the same span. spans: in the order of the texts; all that are read.
    """

    tokens: TokenIds
    source: np.ndarray
    spans: tuple[TokenSpan, ...]


@dataclass(frozen=True)
class Piece:
    """Tokens that belong together, and what is seen of them: characters `start` to before `end`, without spaces around.

    spans: the numbers of the tokens' spans. part: 0, or 1 in the second text of a pair.
    """

    part: int
    start: int
    end: int
    spans: tuple[int, ...]


def traced_row(tokenizer: TextTokenizer, texts: Sequence[str]) -> TracedRow:
    """What `tokenizer.encode` makes of a text, or of the two of a pair, with the source of each token.

    Raises as `TextTokenizer.encode` does.
    """
    tokens, source, accounts = tokenizer.encode_with_source(texts)
    read = np.unique(source[source >= 0])
    every = [
        TokenSpan(part, start, end, piece)
        for part, one in enumerate(accounts)
        for (start, end), piece in zip(one.offsets, one.tokens, strict=True)
    ]
    spans = tuple(every[number] for number in read.tolist())
    return TracedRow(tokens, np.where(source >= 0, np.searchsorted(read, source), -1), spans)


def word_pieces(texts: Sequence[str], spans: Sequence[TokenSpan]) -> list[Piece]:
    """The words that the tokens make up, in order; each token is in exactly one.

    texts: the text, or the two of a pair.
    """
    groups: list[list[int]] = []
    for number, span in enumerate(spans):
        if groups and _belongs(texts, spans[groups[-1][0] : number], span):
            groups[-1].append(number)
        else:
            groups.append([number])
    for i in reversed(range(1, len(groups))):  # spaces go with the word behind them, at the end with the one before
        last, before = spans[groups[i][0]], spans[groups[i - 1][0]]
        if last.part == before.part and not _is_seen(texts, [spans[number] for number in groups[i]]):
            groups[i - 1] += groups.pop(i)
    return [_piece(texts, spans, group) for group in groups]


def token_pieces(texts: Sequence[str], spans: Sequence[TokenSpan]) -> list[Piece]:
    """Each token by itself."""
    return [_piece(texts, spans, [number]) for number in range(len(spans))]


def merged_pieces(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """At most `most` pieces, of neighbours in one text, of as like sizes as can be; the same pieces where they are few.

    A pair needs two at least, and gets as many as that.
    """
    if len(pieces) <= most:
        return list(pieces)
    parts = [[piece for piece in pieces if piece.part == part] for part in (0, 1)]
    shares = [len(part) * most // len(pieces) for part in parts]
    merged = []
    for part, share in zip(parts, shares, strict=True):
        if part:
            for chunk in np.array_split(np.arange(len(part)), min(max(share, 1), len(part))):
                run = [part[i] for i in chunk]
                spans = tuple(span for piece in run for span in piece.spans)
                merged.append(Piece(run[0].part, run[0].start, max(piece.end for piece in run), spans))
    return merged


def unread(texts: Sequence[str], pieces: Sequence[Piece]) -> list[tuple[int, int, int]]:
    """(part, start, end) of what can be seen in the texts but is in no piece: cut off, or dropped by the tokenizer."""
    gaps = []
    for part, text in enumerate(texts):
        at = 0
        for start, end in [*sorted((p.start, p.end) for p in pieces if p.part == part), (len(text), len(text))]:
            gap = text[at:start]
            if any(unicodedata.category(character)[0] not in "CMZ" for character in gap):
                first = at + len(gap) - len(gap.lstrip())
                gaps.append((part, first, first + len(gap.strip())))
            at = max(at, end)
    return gaps


def _belongs(texts: Sequence[str], before: Sequence[TokenSpan], span: TokenSpan) -> bool:
    """Whether a token goes on with the word of the tokens before it."""
    text, last = texts[span.part], before[-1]
    if last.part != span.part:
        return False
    if not _is_seen(texts, before):  # as of a mark for a space
        return True
    start, end = _trimmed(text, span)
    reached = max(_trimmed(text, one)[1] for one in before)
    if start == end:  # stands for nothing: with the word where it touches it
        return span.start <= reached and not text[span.start : span.end]
    return start < reached or (start == reached and _is_inside_word(text, start))


def _is_seen(texts: Sequence[str], spans: Sequence[TokenSpan]) -> bool:
    """Whether tokens stand for anything but spaces."""
    return any(texts[span.part][span.start : span.end].strip() for span in spans)


def _is_inside_word(text: str, place: int) -> bool:
    """Whether the characters before and behind a place belong to one word."""
    before, behind = text[place - 1], text[place]
    if _is_mark(behind) or before == _JOINER:
        return True
    if _is_letter(before) and _is_letter(behind):
        return True
    if behind in _APOSTROPHES:
        return before.isalpha() and text[place + 1 : place + 2].isalpha()
    if before in _APOSTROPHES:
        return behind.isalpha() and place > 1 and text[place - 2].isalpha()
    if behind in _IN_NUMBERS:
        return before.isdigit() and text[place + 1 : place + 2].isdigit()
    if before in _IN_NUMBERS:
        return behind.isdigit() and place > 1 and text[place - 2].isdigit()
    return False


def _is_letter(character: str) -> bool:
    """Whether a character joins with others of its kind to a word: letters, digits, marks, "_"; of spaced scripts."""
    kind = unicodedata.category(character)
    if kind[0] not in "LMN" and kind != "Pc":
        return False
    code = ord(character)
    place = bisect_right(_FIRSTS, code) - 1
    return place < 0 or code > _UNSPACED[place][1]


def _is_mark(character: str) -> bool:
    """Whether a character only changes the one before it: accents, vowel signs, joiners, skin tones."""
    return (
        unicodedata.category(character)[0] == "M" or character == _JOINER or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _trimmed(text: str, span: TokenSpan) -> tuple[int, int]:
    """A token's characters without spaces around, with the marks behind them that the tokenizer may have dropped; where
    there are no others, nothing at its end.
    """
    seen = text[span.start : span.end]
    start = span.end - len(seen.lstrip())
    end = start + len(seen.strip())
    while start < end < len(text) and _is_mark(text[end]):
        end += 1
    return start, end


def _piece(texts: Sequence[str], spans: Sequence[TokenSpan], group: Sequence[int]) -> Piece:
    part = spans[group[0]].part
    places = [_trimmed(texts[part], spans[number]) for number in group]
    seen = [place for place in places if place[0] < place[1]] or places
    return Piece(part, min(start for start, _ in seen), max(end for _, end in seen), tuple(group))
