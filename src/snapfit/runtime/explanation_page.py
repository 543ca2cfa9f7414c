"""Explanations as one HTML file that needs nothing else: no script, no font, nothing from elsewhere. Needs jinja2.

Blue is for a label and orange against it, in strengths; bold and underlined letters say the same without colour, and a
table below each text has every value.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snapfit.core.errors import MissingExtra
from snapfit.core.files import write_text_atomic
from snapfit.runtime.explanations import (
    LARGE_ERROR,
    Explanation,
    LabelExplanation,
    Segment,
    segments,
    strengths,
    strongest,
    visible,
)

_TEMPLATE = Path(__file__).with_name("explanation_page.html")
_KEPT = "\n\t"


def check_engine() -> None:
    """Raises MissingExtra where jinja2 is not installed."""
    _engine()


def write_page(path: str | Path, explanations: Sequence[Explanation], *, top: int = 5) -> None:
    """Write a page of these explanations, whole or not at all.

    top: how many words of each text are named above its table. Whatever is in the texts and labels is shown and does
    nothing. Raises MissingExtra without jinja2, WorkFailed when the file cannot be written.
    """
    write_text_atomic(path, page(explanations, top=top))


def page(explanations: Sequence[Explanation], *, top: int = 5) -> str:
    """The page itself."""
    environment = _engine().Environment(
        autoescape=True, undefined=_engine().StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    rendered: str = template.render(
        texts=[_text(one, top) for one in explanations], first=next(iter(explanations), None)
    )
    return rendered


def _engine() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingExtra("report", "jinja2") from error
    return jinja2


def _text(explanation: Explanation, top: int) -> dict[str, Any]:
    """What the template shows of a text."""
    return {
        "answer": explanation.answer,
        "labels": [_label(explanation, label, top) for label in explanation.labels],
        "unread": sum(one.end - one.start for one in explanation.unread),
    }


def _label(explanation: Explanation, label: LabelExplanation, top: int) -> dict[str, Any]:
    words = label.tokens or label.words
    strength = dict(zip(map(id, words), strengths(words), strict=True))
    checked = {(word.part, word.start): word.value for word in label.check.words} if label.check else {}
    number = explanation.number

    def stretch(segment: Segment) -> dict[str, Any]:
        shown = {"text": segment.text, "unread": segment.unread, "strength": 0, "value": None}
        if segment.word is not None:
            shown |= {"strength": strength[id(segment.word)], "value": number(segment.word.value)}
        return shown

    rows = [
        {
            "text": visible(word.text or "".join(word.tokens)),
            "value": number(word.value),
            "other": number(checked[word.part, word.start]) if (word.part, word.start) in checked else "",
        }
        for word in words
    ]
    return {
        "name": visible(label.label),
        "score": None if explanation.unit == "number" else f"{label.score:.4f}",
        "value": number(label.value),
        "baseline": number(label.baseline),
        "parts": [[stretch(one) for one in part] for part in segments(explanation, label, keep=_KEPT)],
        "strongest": [
            {"text": visible(word.text or "".join(word.tokens)), "value": number(word.value), "against": word.value < 0}
            for word in strongest(words, top)
        ],
        "rows": rows,
        "check": label.check,
        "error": label.error if (label.error or 0.0) > LARGE_ERROR else None,
    }
