"""Why a text was answered as it was: what each word added to a label's score, by one of two methods.

    integrated_gradients   by a backend that has gradients: `nn/integrated_gradients.py`
    occlusion              by any backend: `occlusion.py`

Each text is explained by itself, so that neither other texts nor the sizes of batches change a value beyond rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from snapfit.core.correlation import RankPairs
from snapfit.core.decisions import Answers, Decision, DecisionRule
from snapfit.core.errors import BadInput, WorkFailed, nearest
from snapfit.core.log_odds import Explained
from snapfit.data.tokenizer import TextTokenizer, TokenIds
from snapfit.data.words import Piece, TracedRow, merged_pieces, token_pieces, traced_row, unread, word_pieces
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.explanations import Attribution, Check, Explanation, LabelExplanation, Unread
from snapfit.runtime.occlusion import blanked, find_mask, occlude

Method = Literal["auto", "occlusion", "integrated_gradients"]
METHODS: tuple[Method, ...] = get_args(Method)

MOST_PASSES = 128
"""Words of a text that occlusion takes away one by one, unless another bound is given."""
TOLERANCE = 0.01
MOST_STEPS = 256


@dataclass(frozen=True)
class PathIntegral:
    """Integrated gradients of a row.

    values: float64 [outputs, tokens of the row]. start, end: float64 [outputs], what is explained of the baseline and
    of the row. error: float64 [outputs]: how far the values' sum is from `end - start`, as a share of that difference,
    or of a twentieth of the sum of all values without their signs where they cancel one another to less. passes: rows
    that went through the model and back.
    """

    values: np.ndarray
    start: np.ndarray
    end: np.ndarray
    error: np.ndarray
    passes: int


@runtime_checkable
class PathBackend(Protocol):
    """A backend that has gradients.

    differentiable: whether it has them of this model.
    """

    @property
    def differentiable(self) -> bool: ...

    def integrated_gradients(
        self, row: TokenIds, baseline: TokenIds, explained: Explained, *, tolerance: float, most_steps: int
    ) -> PathIntegral:
        """The integral from a baseline, which is the row with other ids, to the row.

        tolerance: the error to come below, if `most_steps` points between the two are enough for it.
        """
        ...


@dataclass(frozen=True)
class Wanted:
    """What is asked of an explanation.

    method: integrated_gradients: a word's value is the integral of the gradient of what is explained along the straight
        line from the mask token's embedding to the word's own, all words at once (Sundararajan, Taly and Yan 2017); the
        values add up to what is explained less its baseline, that of the text with every word masked.
        occlusion: a word's value is by how much that falls when the mask token takes the word's place.
        auto: integrated_gradients where the model has gradients, else occlusion.
    target: names of labels; None: that of the decision, for multi each of its labels, or the likeliest if it has none.
    tokens: give the value of each token besides those of the words. check: do it by the other method too.
    most_passes: occlusion takes at most so many words away, of a longer text runs of neighbouring words; a text then
        costs two rows more than that, with `tokens` up to twice as many.
    tolerance: of the error that PathIntegral has. most_steps: points of the line, less one, that may be taken for it;
        where they are not enough, the larger error is told.
    Raises BadInput for what cannot be.
    """

    method: str = "auto"
    target: str | Sequence[str] | None = None
    tokens: bool = False
    check: bool = False
    most_passes: int = MOST_PASSES
    tolerance: float = TOLERANCE
    most_steps: int = MOST_STEPS

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            likely = nearest(str(self.method), METHODS)
            fix = f"did you mean {likely}?" if likely else "--method auto"
            raise BadInput(f"the method {self.method!r}", f"one of {', '.join(METHODS)}", fix)
        if self.most_passes < 2:
            raise BadInput(f"most_passes {self.most_passes}", "at least 2", "leave it out for the default")
        if not 0.0 < self.tolerance < 1.0:
            raise BadInput(f"tolerance {self.tolerance}", "above 0 and below 1", "leave it out for the default")
        if self.most_steps < 16:
            raise BadInput(f"most_steps {self.most_steps}", "at least 16", "leave it out for the default")

    def outputs(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """The columns that are asked for, each once; None where the decision says which. Raises BadInput."""
        if self.target is None:
            return None
        wanted = [self.target] if isinstance(self.target, str) else list(self.target)
        for name in wanted:
            if name not in names:
                likely = nearest(str(name), names)
                fix = f"did you mean {likely!r}?" if likely else "snapfit inspect BUNDLE lists its labels"
                raise BadInput(f"the label {name!r}", "a label of the bundle", fix)
        if not wanted:
            raise BadInput("no label to explain", "one or more", "leave the target out for the decision's own")
        return tuple(dict.fromkeys(names.index(name) for name in wanted))


@dataclass(frozen=True)
class Answerer:
    """How a predictor answers.

    rule: from logits to answers. logits: float32 [n, k] of rows that are tokenised. answer: of a text or pair its
    logits float32 [1, k], and what the rule says of it.
    """

    rule: DecisionRule
    logits: Callable[[TokenIds], np.ndarray]
    answer: Callable[[Any], tuple[np.ndarray, Answers]]


@dataclass(frozen=True)
class _Measured:
    """What pieces of a text added, by one method.

    of: float64 [outputs] of a piece. value, baseline: float64 [outputs], what is explained, of the text and with every
    word masked. passes: rows that went through the model. error: as in PathIntegral; None where values need not add up.
    """

    method: Method
    of: Callable[[Piece], np.ndarray]
    value: np.ndarray
    baseline: np.ndarray
    passes: int
    error: np.ndarray | None = None


class Explainer:
    """Explains texts one by one with a bundle's model. Raises BadInput for what cannot be asked of this one.

    Attributes: method, the one that is used.
    """

    def __init__(
        self, bundle: Bundle, tokenizer: TextTokenizer, backend: object, answerer: Answerer, wanted: Wanted
    ) -> None:
        self._info, self._names = bundle.info, bundle.label_set.names
        self._tokenizer, self._answerer, self._wanted = tokenizer, answerer, wanted
        self._outputs = wanted.outputs(self._names)
        self._mask = find_mask(bundle, tokenizer)
        self._path = backend if isinstance(backend, PathBackend) and backend.differentiable else None
        if self._path is None and (wanted.method == "integrated_gradients" or wanted.check):
            asked = "a check by both methods" if wanted.check else "integrated gradients"
            raise BadInput(
                f"{asked} where the model gives no gradients of its word embeddings",
                "a bundle that runs on torch, with an encoder whose word embeddings can be found",
                "ask for --method occlusion alone, which needs none",
            )
        by_path = self._path is not None and wanted.method != "occlusion"
        self.method: Method = "integrated_gradients" if by_path else "occlusion"

    def explain(self, item: Any) -> Explanation:
        """Explain a text, or a (first, second) pair of them; that it is one has been checked."""
        texts: tuple[str, ...] = tuple(item) if self._info.pair else (item,)
        row = traced_row(self._tokenizer, texts)
        logits, answered = self._answerer.answer(texts if self._info.pair else item)
        scores, decision = answered.scores, answered.decisions(self._names)[0]
        rule, outputs = self._answerer.rule, self._which(scores[0], decision)
        explained = Explained(self._info.task, outputs, rule.temperature, rule.slopes, rule.shifts)
        words, tokens = word_pieces(texts, row.spans), token_pieces(texts, row.spans) if self._wanted.tokens else []
        runs = merged_pieces(words, self._wanted.most_passes)
        if self.method == "occlusion":
            shown, tokens = runs, merged_pieces(tokens, self._wanted.most_passes)
            measured = self._by_occlusion(row, explained, logits, [*shown, *tokens])
        else:
            shown, measured = words, self._by_path(row, explained)
        other = self._other(row, explained, logits, runs) if self._wanted.check else None
        labels = tuple(
            LabelExplanation(
                label=self._names[output],
                score=float(scores[0, output]),
                value=float(measured.value[i]),
                baseline=float(measured.baseline[i]),
                words=_attributions(texts, row, shown, measured, i),
                tokens=_attributions(texts, row, tokens, measured, i),
                error=None if measured.error is None else float(measured.error[i]),
                check=None if other is None else _check(texts, row, runs, measured, other, i),
            )
            for i, output in enumerate(explained.outputs)
        )
        return Explanation(
            text=texts[0] if len(texts) == 1 else (texts[0], texts[1]),
            decision=decision,
            refused=answered.reasons()[0],
            method=self.method,
            unit=explained.unit,
            mask=self._mask.piece,
            labels=labels,
            unread=tuple(Unread(start, end, part) for part, start, end in unread(texts, words)),
            passes=1 + measured.passes + (0 if other is None else other.passes),
        )

    def _which(self, scores: np.ndarray, decision: Decision) -> tuple[int, ...]:
        """The columns to explain: those asked for, or those of the decision, or where it names none the likeliest."""
        if self._outputs is not None:
            return self._outputs
        named = tuple(self._names.index(name) for name in decision) if isinstance(decision, list) else ()
        return named or (int(scores.argmax()),)

    def _other(self, row: TracedRow, explained: Explained, logits: np.ndarray, pieces: Sequence[Piece]) -> _Measured:
        """The same by the method that was not chosen."""
        if self.method == "occlusion":
            return self._by_path(row, explained)
        return self._by_occlusion(row, explained, logits, pieces)

    def _by_occlusion(
        self, row: TracedRow, explained: Explained, logits: np.ndarray, pieces: Sequence[Piece]
    ) -> _Measured:
        everything = tuple(range(len(row.spans)))
        found = occlude(
            row,
            [everything, *(piece.spans for piece in pieces)],
            self._mask.id,
            lambda rows: explained.of(self._answerer.logits(rows)),
        )
        value = explained.of(logits)[0]
        return _Measured("occlusion", lambda piece: value - found[piece.spans], value, found[everything], len(found))

    def _by_path(self, row: TracedRow, explained: Explained) -> _Measured:
        assert self._path is not None  # as the constructor has seen to
        masked = blanked(row, [tuple(range(len(row.spans)))], self._mask.id)
        wanted = self._wanted
        found = self._path.integrated_gradients(
            row.tokens, masked, explained, tolerance=wanted.tolerance, most_steps=wanted.most_steps
        )
        if not np.isfinite(found.values).all():
            raise WorkFailed("the gradients of this text are not finite; --method occlusion needs none")
        by_span = np.zeros((len(row.spans), len(explained.outputs)))
        real = row.source >= 0
        np.add.at(by_span, row.source[real], found.values[:, real].T)
        return _Measured(
            "integrated_gradients",
            lambda piece: np.asarray(by_span[list(piece.spans)].sum(axis=0)),
            found.end,
            found.start,
            found.passes,
            found.error,
        )


def _attributions(
    texts: Sequence[str], row: TracedRow, pieces: Sequence[Piece], measured: _Measured, output: int
) -> tuple[Attribution, ...]:
    return tuple(
        Attribution(
            text=texts[piece.part][piece.start : piece.end],
            start=piece.start,
            end=piece.end,
            part=piece.part,
            value=float(measured.of(piece)[output]),
            tokens=tuple(row.spans[span].piece for span in piece.spans),
        )
        for piece in pieces
    )


def _check(
    texts: Sequence[str], row: TracedRow, pieces: Sequence[Piece], one: _Measured, other: _Measured, output: int
) -> Check:
    words = _attributions(texts, row, pieces, other, output)
    values = np.array([[one.of(piece)[output] for piece in pieces], [word.value for word in words]])
    agreement = None
    if len(words) >= 3 and (values.min(axis=1) < values.max(axis=1)).all():
        ranks = RankPairs()
        ranks.add(*values)
        agreement = ranks.correlation()
    return Check(other.method, words, agreement)
