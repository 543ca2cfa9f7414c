"""What an explanation is: plain values, which `to_dict` turns into what JSON holds, and a text cut up to be shown."""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snapfit.core.decisions import Decision

STRENGTHS = (0.15, 0.4, 0.75)
"""Shares of the strongest word's value from which a word is shown as strong as that; below the first it is plain."""
LARGE_ERROR = 0.05
"""An error of integrated gradients that is told: well above the tolerance, which some texts miss by a hair."""


@dataclass(frozen=True)
class Attribution:
    """What a piece of the text, a word or a token, added to the number that is explained.

    text: the piece. start, end: its characters in the text, as str counts them: text[start:end]. part: 0, or 1 where
    it is in the second text of a pair. value: what it added; below 0 it spoke against the label. tokens: that the
    tokenizer made of it, as the vocabulary has them.
    """

    text: str
    start: int
    end: int
    part: int
    value: float
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """The same by another method.

    words: in the text's order; of a long text runs of words, see `Predictor.explain`. agreement: Spearman's rank
    correlation between both methods over these words, in -1..1; None for fewer than three words, or where either
    method gives all of them the same value.
    """

    method: str
    words: tuple[Attribution, ...]
    agreement: float | None


@dataclass(frozen=True)
class LabelExplanation:
    """Why a label has its score.

    label: its name. score: as the predictor gives it. value: what is explained: the log-odds of the score, or a
    regression's number. baseline: the same with every word masked. words, tokens: in the text's order; tokens are
    empty unless they were asked for. error: how far the sum of the values is from `value - baseline`, of which see
    `PathIntegral`; None for occlusion, whose values need not add up.
    """

    label: str
    score: float
    value: float
    baseline: float
    words: tuple[Attribution, ...]
    tokens: tuple[Attribution, ...] = ()
    error: float | None = None
    check: Check | None = None


@dataclass(frozen=True)
class Unread:
    """What of a text the model never saw, because the text was cut or the tokenizer drops it: text[start:end]."""

    start: int
    end: int
    part: int


@dataclass(frozen=True)
class Explanation:
    """Why a text was answered as it was.

    text: the text, or the (first, second) of a pair. decision: as `Predictor.predict` gives it. refused: why there is
    no answer, where there is none. method: occlusion or integrated_gradients. unit: of the values: log-odds (natural
    logarithm), or number. mask: the token that stands for a word that is not there. labels: those that are explained.
    passes: rows that went through the model for it.
    """

    text: str | tuple[str, str]
    decision: Decision
    method: str
    unit: str
    mask: str
    labels: tuple[LabelExplanation, ...]
    unread: tuple[Unread, ...]
    passes: int
    refused: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The one text, or both of a pair."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def answer(self) -> str:
        """The decision in words, ready to be shown."""
        if isinstance(self.decision, list):
            return visible(", ".join(self.decision)) or "no label"
        if self.decision is None:
            return f"no answer ({self.refused})"
        return f"{self.decision:.6g}" if isinstance(self.decision, float) else visible(str(self.decision))

    def number(self, value: float) -> str:
        """A value, with its sign, in as many digits as say something."""
        return f"{value:+.3g}" if self.unit == "number" else f"{value:+.2f}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values: lists, dictionaries, texts and numbers."""
        values: dict[str, Any] = _plain(asdict(self))
        return values


@dataclass(frozen=True)
class Segment:
    """A stretch of a text. text: to be shown, see `visible`. word: the word or token that it is; None for what is
    between them. unread: whether the model never saw it.
    """

    text: str
    word: Attribution | None = None
    unread: bool = False


def segments(explanation: Explanation, label: LabelExplanation, *, keep: str = "") -> list[list[Segment]]:
    """Each text, cut at its words, or where there are tokens at these, and at what was not read; nothing is left out.

    keep: characters that may be shown as they are, such as line ends. A token that stands for nothing that can be seen
    is shown as the vocabulary has it.
    """
    shown = []
    for part, text in enumerate(explanation.texts):
        marked = [(one.start, one.end, one) for one in label.tokens or label.words if one.part == part]
        gaps = [(one.start, one.end, None) for one in explanation.unread if one.part == part]
        at, cut = 0, list[Segment]()
        for start, end, word in sorted([*marked, *gaps], key=lambda one: one[:2]):
            if text[at:start]:
                cut.append(Segment(visible(text[at:start], keep)))
            own = visible(text[max(at, start) : end], keep)
            if word is not None:
                cut.append(Segment(own or visible("".join(word.tokens)), word))
            elif own:
                cut.append(Segment(own, unread=True))
            at = max(at, end)
        if text[at:]:
            cut.append(Segment(visible(text[at:], keep)))
        shown.append(cut)
    return shown


def strongest(words: Sequence[Attribution], most: int) -> list[Attribution]:
    """The words that added or took away most, the strongest first; those that did nothing are left out."""
    return sorted((word for word in words if word.value), key=lambda word: -abs(word.value))[:most]


def strengths(words: Sequence[Attribution]) -> list[int]:
    """How strongly each word is to be shown, from -3 to 3: by its value as a share of the strongest one's."""
    largest = max((abs(word.value) for word in words), default=0.0) or 1.0
    steps = [sum(abs(word.value) / largest >= limit for limit in STRENGTHS) for word in words]
    return [-step if word.value < 0.0 else step for word, step in zip(words, steps, strict=True)]


def visible(text: str, keep: str = "") -> str:
    """A text that shows what is in it and does nothing else: controls, and what turns the direction of writing around,
    are written as escapes. keep: characters to leave as they are. Joiners, without which emoji and some scripts fall
    apart, are left too.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_hidden(character) else _escaped(character) for character in text
    )


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
