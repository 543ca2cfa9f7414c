"""The predictor: texts in, answers out, in order, whatever backend computes the logits.

Texts are tokenised in chunks; inside a chunk rows of like length share a batch, so little is padded and
memory stays flat. Scores and decisions are those of the bundle's rule, which evaluation uses too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from snapfit.core.decisions import Answers, Decision
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task
from snapfit.data.batches import Batch, pad, sorted_batches
from snapfit.data.tokenizer import TokenIds
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.explaining import MOST_PASSES, MOST_STEPS, TOLERANCE, Answerer, Explainer, Wanted

_CHUNK_ROWS = 4096
_WINDOW_ROWS = 65_536
_FIX_TEXTS = "turn every item into text; leave out or fill in missing ones"


class Backend(Protocol):
    """Computes logits. It may be called from many threads at once."""

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 [rows, n_outputs] of a padded batch; what is padding must not change them.

        Where the batch has `first_windows`, its sequences are windows, which the backend computes one by one and then
        combines to rows by `core.windows.combine_windows`.
        """
        ...


@runtime_checkable
class VectorBackend(Backend, Protocol):
    """A backend that also gives what logits are made of; rules with centroids need one."""

    def logits_and_vectors(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits as `logits` gives them, and vectors float32 [rows, width]: what the last linear layer takes, of
        several models the first one's.
        """
        ...


@dataclass(frozen=True)
class Prediction:
    """The answer on one text.

    label: a label (single), a list of labels (multi) or a number (regression); None where the rule gives no answer.
    scores: float64 [n_outputs]. refused: why there is no answer, "low score" or "out of scope"; else None.
    """

    label: Decision
    scores: np.ndarray
    refused: str | None = None


class Predictor:
    """Answers texts with a bundle's labels and decision rule.

    bundle: an opened bundle. backend: computes its logits. token_budget, max_rows: the most padded tokens,
    and the most rows, of one batch; they change speed and memory, never an answer beyond float32 rounding.
    Attribute: rule, how answers are made of logits. Raises BadInput for damaged centroids of the bundle, and for a rule
    that needs vectors which the backend does not give.

    Thread-safe: it holds nothing that changes, and tokenizer and backend are called as they may be.
    In every method, `texts` is a sequence of str, or of (first, second) tuples for a bundle of pairs; lists,
    numpy, Arrow, pandas and polars columns are taken. One str, or one tuple for pairs, stands for a sequence
    of one. All raise BadInput naming the index of an item that is not a text (or pair), WorkFailed for a
    failing backend.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, token_budget: int = 8192, max_rows: int = 256) -> None:
        if token_budget < 1 or max_rows < 1:
            found = f"token_budget {token_budget} and max_rows {max_rows}"
            raise BadInput(found, "at least 1 each", "leave them out for the defaults")
        self.bundle = bundle
        self.backend = backend
        self._token_budget, self._max_rows = token_budget, max_rows
        self._tokenizer = bundle.tokenizer()
        self.rule = bundle.rule()
        if self.rule.needs_vectors and not isinstance(backend, VectorBackend):
            found = f"the backend {type(backend).__name__}, which gives logits alone"
            fix = "use the torch backend, or fit another scope: snapfit decide BUNDLE TABLE"
            raise BadInput(found, "one that gives vectors, for a scope by centroids", fix)

    @property
    def task(self) -> Task:
        """single, multi or regression."""
        return self.bundle.label_set.task

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of the scores' columns."""
        return self.bundle.label_set.names

    def logits(self, texts: Any) -> np.ndarray:
        """Raw outputs of the model, float32 [n, n_outputs]."""
        items = self._items(texts)
        _check_items(items, pair=self.bundle.info.pair, start=0)
        return self._outputs(items)[0]

    def outputs(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [n, n_outputs], and vectors float32 [n, width]: what the last linear layer takes.

        Raises BadInput for a backend that does not give vectors.
        """
        if not isinstance(self.backend, VectorBackend):
            raise BadInput(f"the backend {type(self.backend).__name__}", "one that gives vectors", "use torch's")
        items = self._items(texts)
        _check_items(items, pair=self.bundle.info.pair, start=0)
        logits, vectors = np.empty((len(items), self.bundle.label_set.n_outputs), dtype=np.float32), None
        for rows, part, their in self._batches(items, vectors=True):
            if vectors is None:
                assert their is not None
                vectors = np.empty((len(items), their.shape[1]), dtype=np.float32)
            logits[rows], vectors[rows] = part, their
        return logits, np.empty((0, 0), dtype=np.float32) if vectors is None else vectors

    def scores(self, texts: Any) -> np.ndarray:
        """Scores float64 [n, n_outputs]: probabilities, or for a regression the number in the table's
        units.
        """
        return self.rule.scores(self.logits(texts))

    def answers(self, texts: Any, *, first: int = 0) -> Answers:
        """Scores, decisions, and why there are none, all together. first: the number of the first text, in errors."""
        items = self._items(texts)
        _check_items(items, pair=self.bundle.info.pair, start=first)
        return self._answers(items, first)

    def predict(self, texts: Any) -> Any:
        """The decisions: a list with one for each text, or a bare decision when `texts` is one text (or
        pair). Where the rule gives no answer it is None.
        """
        decisions = self.answers(texts).decisions(self.names)
        return decisions[0] if self._is_one(texts) else decisions

    def predict_proba(self, texts: Any) -> np.ndarray:
        """Probabilities float64 [n, n_outputs], columns as `names`. Raises BadInput for a regression."""
        if self.task == "regression":
            raise BadInput("predict_proba of a regression", "a classification bundle", "call predict for the numbers")
        return self.scores(texts)

    def predict_stream(self, texts: Iterable[Any], *, chunk: int = 1024) -> Iterator[Prediction]:
        """Answers on an iterable, one by one and in order; at most `chunk` texts are held at a time.

        Raises BadInput at once for a `chunk` below 1 or texts that cannot be iterated over, and on reaching
        the chunk of an item that is not a text; its index counts from the start of the stream.
        """
        if chunk < 1:
            raise BadInput(f"chunk {chunk}", "at least 1", "leave it out for the default")
        return self._stream(iter([texts] if self._is_one(texts) else _iterable(texts)), chunk)

    def explain(
        self,
        texts: Any,
        *,
        method: str = "auto",
        target: str | Sequence[str] | None = None,
        tokens: bool = False,
        check: bool = False,
        most_passes: int = MOST_PASSES,
        tolerance: float = TOLERANCE,
        most_steps: int = MOST_STEPS,
    ) -> Any:
        """Why texts are answered as they are, word by word: an `Explanation` of each, or a bare one when `texts` is one
        text (or pair). The options are those of `Wanted`; docs/explanations.md says what the numbers mean.

        Raises BadInput also for an unknown method or label, and for gradients of a model that gives none.
        """
        explainer = self.explainer(Wanted(method, target, tokens, check, most_passes, tolerance, most_steps))
        items = self._items(texts)
        _check_items(items, pair=self.bundle.info.pair, start=0)
        explained = [explainer.explain(item) for item in items]
        return explained[0] if self._is_one(texts) else explained

    def explainer(self, wanted: Wanted) -> Explainer:
        """What explains texts one by one, as they come. Raises BadInput for what cannot be asked of this model."""
        answerer = Answerer(self.rule, self._token_logits, self._answered)
        return Explainer(self.bundle, self._tokenizer, self.backend, answerer, wanted)

    def _answered(self, item: Any) -> tuple[np.ndarray, Answers]:
        logits, likeness = self._outputs([item])
        return logits, self.rule.answers(logits, likeness=likeness)

    def replay_probes(self, *, tolerance: float = 1e-4) -> float:
        """Score the bundle's probe texts again: the largest difference from the scores that were stored with
        it.

        tolerance: the difference allowed, relative to the larger of 1 and the score. A bundle without probes
        gives 0. Raises WorkFailed when a difference is larger: this backend does not give the answers that
        were shipped.
        """
        probes = self.bundle.probes()
        if probes is None or not probes[0]:
            return 0.0
        texts, expected = probes
        difference = np.abs(self.scores(texts) - expected) / np.maximum(1.0, np.abs(expected))
        worst = float(difference.max())
        if not worst <= tolerance:
            row = int(difference.max(axis=1).argmax())
            raise WorkFailed(
                f"the scores of probe {row} of {self.bundle.folder} differ by {worst:.2g} from those "
                f"that were stored with it; {tolerance:.2g} is allowed"
            )
        return worst

    def _stream(self, texts: Iterator[Any], chunk: int) -> Iterator[Prediction]:
        start = 0
        while items := list(islice(texts, chunk)):
            _check_items(items, pair=self.bundle.info.pair, start=start)
            found = self._answers(items, start)
            for label, row, refused in zip(found.decisions(self.names), found.scores, found.reasons(), strict=True):
                yield Prediction(label, row.copy(), refused)  # a view would keep the whole chunk alive
            start += len(items)

    def _answers(self, items: list[Any], first: int) -> Answers:
        logits, likeness = self._outputs(items)
        return self.rule.answers(logits, likeness=likeness, rows=first + np.arange(len(items)))

    def _token_logits(self, tokens: TokenIds) -> np.ndarray:
        return batched_logits(
            self.backend,
            tokens,
            pad_id=self.bundle.info.pad_id,
            n_outputs=self.bundle.label_set.n_outputs,
            token_budget=self._token_budget,
            max_rows=self._max_rows,
        )

    def _outputs(self, items: list[Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits of all items, and how much each is in scope where the rule asks for that."""
        logits = np.empty((len(items), self.bundle.label_set.n_outputs), dtype=np.float32)
        likeness = None if self.rule.scope is None else np.zeros(len(items))
        for start in range(0, len(items), _CHUNK_ROWS):
            part = items[start : start + _CHUNK_ROWS]
            for rows, found, vectors in self._batches(part, vectors=self.rule.needs_vectors):
                logits[start + rows] = found
                if likeness is not None and np.isfinite(found).all():  # else the scores will tell of the row
                    likeness[start + rows] = self.rule.likeness(found, vectors)
        return logits, likeness

    def _batches(
        self, items: list[Any], *, vectors: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """(rows, logits, vectors) of items that are tokenised together; vectors: whether they are wanted."""
        if self.bundle.info.pair:
            tokens = self._tokenizer.encode([first for first, _ in items], [second for _, second in items])
        else:
            tokens = self._tokenizer.encode(items)
        return outputs_by_batch(
            self.backend,
            tokens,
            pad_id=self.bundle.info.pad_id,
            n_outputs=self.bundle.label_set.n_outputs,
            token_budget=self._token_budget,
            max_rows=self._max_rows,
            vectors=vectors,
        )

    def _is_one(self, texts: Any) -> bool:
        if self.bundle.info.pair:
            return isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts)
        return isinstance(texts, str)

    def _items(self, texts: Any) -> list[Any]:
        return [texts] if self._is_one(texts) else list(_iterable(texts))


def outputs_by_batch(
    backend: Backend,
    tokens: TokenIds,
    *,
    pad_id: int,
    n_outputs: int | None = None,
    token_budget: int = 8192,
    max_rows: int = 256,
    vectors: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """(rows, logits, vectors) of tokenised rows, batch by batch, so that memory does not grow with the rows.

    rows: int64 [b]; each row comes once. Of every _WINDOW_ROWS, those of like length share a batch, the longest first.
    logits: float32 [b, n_outputs]. n_outputs: how many each row must have; None takes what the backend gives.
    token_budget, max_rows: the most padded tokens, and rows, of one batch. vectors: whether they are wanted, of a
    VectorBackend; else there are none.
    Raises WorkFailed when the backend gives another shape or dtype.
    """
    for start in range(0, len(tokens), _WINDOW_ROWS):
        end = min(start + _WINDOW_ROWS, len(tokens))
        part = tokens.part(start, end)
        for rows in sorted_batches(
            part.lengths, token_budget=token_budget, max_rows=max_rows, window_tokens=part.window_tokens
        ):
            batch, found = pad(part, rows, pad_id=pad_id), None
            if vectors:
                assert isinstance(backend, VectorBackend)
                logits, found = backend.logits_and_vectors(batch)
            else:
                logits = backend.logits(batch)
            n_outputs = logits.shape[-1] if n_outputs is None else n_outputs
            if logits.dtype != np.float32 or logits.shape != (len(rows), n_outputs):
                raise WorkFailed(
                    f"the backend gave {logits.dtype} logits of shape {logits.shape}; "
                    f"float32 of shape {(len(rows), n_outputs)} were due"
                )
            yield start + rows, logits, found


def batched_logits(
    backend: Backend,
    tokens: TokenIds,
    *,
    pad_id: int,
    n_outputs: int | None = None,
    token_budget: int = 8192,
    max_rows: int = 256,
) -> np.ndarray:
    """Logits float32 [n, n_outputs] of tokenised rows, in their order; see `outputs_by_batch`.

    Where n_outputs is None and there are no rows, there are no columns either.
    """
    logits = np.empty((len(tokens), n_outputs or 0), dtype=np.float32)
    for rows, part, _ in outputs_by_batch(
        backend, tokens, pad_id=pad_id, n_outputs=n_outputs, token_budget=token_budget, max_rows=max_rows
    ):
        if logits.shape[1] != part.shape[1]:
            logits = np.empty((len(tokens), part.shape[1]), dtype=np.float32)
        logits[rows] = part
    return logits


def _iterable(texts: Any) -> Iterable[Any]:
    """What gives the texts as Python values; refuses what would iterate over something else."""
    if hasattr(texts, "columns"):
        raise BadInput(f"a table ({type(texts).__name__})", "its column of texts", "pass table['text'] or the like")
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise BadInput(f"texts given as {type(texts).__name__}", "a sequence of texts", "pass a list")
    for convert in ("to_pylist", "tolist"):
        if hasattr(texts, convert):
            values: list[Any] = getattr(texts, convert)()
            return values
    return texts


def _check_items(items: list[Any], *, pair: bool, start: int) -> None:
    """Raise BadInput naming the first item that is not a text, or not a pair of texts for `pair`.

    start: the index of the first item in what the caller gave.
    """
    for index, item in enumerate(items, start):
        if not pair:
            _check_text(item, f"item {index}")
        elif isinstance(item, tuple | list) and len(item) == 2:
            for side, text in zip(("first", "second"), item, strict=True):
                _check_text(text, f"the {side} text of item {index}")
        else:
            fix = 'pass tuples, such as [("a question", "an answer")]'
            raise BadInput(f"item {index} is {_shown(item)}", "a (first, second) pair of texts", fix)


def _check_text(text: Any, place: str) -> None:
    if not isinstance(text, str):
        two = isinstance(text, tuple) and len(text) == 2
        fix = "pass one text an item: this bundle was trained on single texts" if two else _FIX_TEXTS
        raise BadInput(f"{place} is {_shown(text)}", "a text (str)", fix)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"{place} has half of a surrogate pair at character {error.start}"
            fix = "decode the text from its source again, or text.encode('utf-8', 'replace').decode()"
            raise BadInput(found, "valid Unicode", fix) from error


def _shown(item: Any) -> str:
    text = repr(item)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(item).__name__})"
