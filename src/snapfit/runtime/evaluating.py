"""How good a bundle is on a labelled table: metrics, labels and slices with intervals, mistakes with examples; and
which of two bundles is better.

Scores and decisions come from the predictor, formulas from the core: what is measured is what is served. Rows are read,
scored, counted and forgotten piece by piece, so that memory does not grow with the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from snapfit.core.errors import BadInput, nearest
from snapfit.core.intervals import Interval, check_confidence, correlation_interval, f1_interval, wilson
from snapfit.core.label_metrics import per_class
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import METRICS
from snapfit.core.outcome_sums import LabelSums, NumberSums, sums_of
from snapfit.core.outcomes import Answers, Outcomes
from snapfit.core.resampling import resampled_intervals
from snapfit.data.records import Records
from snapfit.data.tokenizer import TextTokenizer
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.comparing import Comparison, as_list, check_comparable
from snapfit.runtime.confusions import Confusions
from snapfit.runtime.parts import RecordParts
from snapfit.runtime.predictor import Predictor
from snapfit.runtime.slices import Slices

CONFIDENCE = 0.95
TOP_MISTAKES = 100
PIECE_ROWS = 4_096
"""Rows that are scored and counted together: whole chunks of the predictor, so that batches are a prediction's."""
_NO_LIMIT = 1 << 30
_CORRELATIONS = ("pearson", "spearman")


class Piece(NamedTuple):
    """Rows as they were evaluated. scores, other_scores: float64 [n, k], columns in each bundle's own order."""

    records: Records
    outcomes: Outcomes
    scores: np.ndarray
    other_outcomes: Outcomes | None = None
    other_scores: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of an evaluation besides its metrics.

    slices: columns of the table to slice by. length_edges: where slices of length end, in tokens, ascending; by default
    there are four of about as many rows. confidence: of intervals; slices differ where the adjusted p is below 1 less
    this. mistakes: how many kinds to tell of, None for all.
    Raises BadInput for a confidence that cannot be, and for edges that do not ascend.
    """

    slices: Sequence[str] = ()
    length_edges: Sequence[int] = ()
    confidence: float = CONFIDENCE
    mistakes: int | None = TOP_MISTAKES

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        edges = list(self.length_edges)
        if edges != sorted(set(edges)) or any(edge < 1 for edge in edges):
            found = f"edges of lengths {', '.join(map(str, edges))}"
            raise BadInput(found, "numbers of tokens from 1 on, each above the one before", "--length-edges 16,32,64")

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise BadInput for a column that is none of `names`."""
        for column in self.slices:
            if column not in names:
                meant = nearest(column, names)
                fix = f"did you mean --slice {meant!r}?" if meant else "name one of these"
                raise BadInput(f"no column {column!r} to slice by", f"one of {', '.join(map(repr, names))}", fix)


def evaluate_bundle(
    predictor: Predictor,
    records: Records | RecordParts,
    *,
    against: Predictor | None = None,
    questions: Questions | None = None,
    on_piece: Callable[[Piece], object] = lambda piece: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a bundle on labelled records.

    records: read with the bundle's columns; their labels must be among the bundle's. against: another bundle of the
    same task and labels, to compare with on the same rows. on_piece: hears every piece of rows, in order. progress:
    hears how many rows are done, and of how many.

    Returns plain values, intervals as [low, high] or None where nothing is known:
    source, task, rows, confidence, metrics {name: value}, intervals {name: interval};
    coverage {answered, unanswered, value, interval, accuracy, accuracy_interval}, where accuracy is that of the rows
    with an answer, None for a regression;
    per_label [{label, precision, recall, f1, support, given, hits, intervals {precision, recall, f1}}] in the label
    set's order, and mistakes (see `Confusions.to_list`), both [] for a regression; slices (see `Slices.to_list`);
    comparison (see `Comparison.to_dict`), or None. Of a regression of more than RANK_ROWS rows Spearman's correlation
    is one of binned ranks, see `RankPairs`.
    Raises BadInput for records without labels, with unknown ones, or without rows, for an unknown column to slice by,
    and for a bundle to compare with that answers another question.
    """
    questions = questions or Questions()
    label_set = predictor.bundle.label_set
    parts = RecordParts.of(records, lambda part: encoded(part, label_set)) if isinstance(records, Records) else records
    questions.check_columns(parts.column_names)
    if against is not None:
        check_comparable(predictor.bundle, against.bundle)
    found = _Findings(predictor, questions, n_rows=len(parts), compared=against is not None)
    done = 0
    for piece in _pieces(parts, predictor, against):
        found.add(piece)
        on_piece(piece)
        done += len(piece.records)
        progress(done, len(parts))
    return {"source": parts.source, **found.to_dict()}


class _Findings:
    """All that is counted while pieces pass by, in the order of `predictor`'s labels. compared: with another bundle."""

    def __init__(self, predictor: Predictor, questions: Questions, *, n_rows: int, compared: bool) -> None:
        self._labels, self._questions = predictor.bundle.label_set, questions
        self._sums, self._other_sums = sums_of(self._labels, n_rows), sums_of(self._labels, n_rows)
        self._confusions, self._comparison = Confusions(self._labels), Comparison(self._labels) if compared else None
        self._lengths = Lengths(predictor.bundle)
        self._slices = Slices(
            self._labels.task,
            questions.slices,
            length_edges=questions.length_edges,
            limit=predictor.bundle.info.max_tokens,
        )

    def add(self, piece: Piece) -> None:
        """Count a piece in."""
        self._sums.add(piece.outcomes)
        if self._labels.task != "regression":
            self._confusions.add(piece.outcomes, piece.records)
        self._slices.add(piece.outcomes, self._lengths(piece.records), piece.records.table)
        if self._comparison is not None and piece.other_outcomes is not None:
            self._other_sums.add(piece.other_outcomes)
            self._comparison.add(piece.outcomes, piece.other_outcomes, piece.records)

    def to_dict(self) -> dict[str, Any]:
        """What `evaluate_bundle` returns, but for the source."""
        sums, confidence, comparison = self._sums, self._questions.confidence, None
        metrics = sums.all_metrics()
        if self._comparison is not None:
            comparison = self._comparison.to_dict(sums, self._other_sums, confidence=confidence)
        return {
            "task": self._labels.task,
            "rows": sums.rows,
            "confidence": confidence,
            "metrics": metrics,
            "intervals": intervals_of(sums, metrics, confidence),
            "coverage": _coverage(sums, confidence),
            "per_label": labels_of(sums, confidence) if isinstance(sums, LabelSums) else [],
            "mistakes": self._confusions.to_list(self._questions.mistakes),
            "slices": self._slices.to_list(confidence),
            "comparison": comparison,
        }


def encoded(records: Records, label_set: LabelSet) -> np.ndarray:
    """The records' targets. Raises BadInput when they have no labels, or unknown ones."""
    if records.labels is None:
        found = f"{records.source} has no labels"
        raise BadInput(found, "a label for every row", "name the column with --label NAME")
    return label_set.encode(records.labels, where=records.source)


def examples_of(records: Records) -> list[Any]:
    """The records' texts as the predictor takes them: str, or (first, second) tuples for pairs."""
    texts = records.texts.to_pylist()
    if records.pairs is None:
        return list(texts)
    return list(zip(texts, records.pairs.to_pylist(), strict=True))


class Lengths:
    """Counts the tokens of whole texts, special ones included, with a bundle's tokenizer."""

    def __init__(self, bundle: Bundle) -> None:
        path = bundle.folder / "tokenizer.json"
        self._tokenizer = TextTokenizer.from_file(path, max_tokens=_NO_LIMIT, pad_id=bundle.info.pad_id)

    def __call__(self, records: Records) -> np.ndarray:
        """int64 [n], of both texts of a pair together."""
        return self._tokenizer.encode(records.texts, records.pairs).lengths


def _pieces(parts: RecordParts, predictor: Predictor, against: Predictor | None) -> Iterator[Piece]:
    first, label_set = 0, predictor.bundle.label_set
    for part in parts:
        for start in range(0, len(part), PIECE_ROWS):
            records = part.slice(start, PIECE_ROWS)
            examples, targets = examples_of(records), encoded(records, label_set)
            scores = _scores(predictor, examples, first)
            outcomes = _outcomes(predictor, label_set, scores, targets, first)
            if against is None:
                yield Piece(records, outcomes, scores)
            else:
                other = _scores(against, examples, first)
                yield Piece(records, outcomes, scores, _outcomes(against, label_set, other, targets, first), other)
            first += len(records)


def _scores(predictor: Predictor, examples: list[Any], first: int) -> np.ndarray:
    """float64 [n, k] in order; errors name rows by their number in the table."""
    scores = np.empty((len(examples), len(predictor.names)))
    for rows, part in predictor.scores_by_batch(examples, first=first):
        scores[rows - first] = part
    return scores


def _outcomes(
    predictor: Predictor, label_set: LabelSet, scores: np.ndarray, targets: np.ndarray, first: int
) -> Outcomes:
    """What came of rows, in the order of `label_set`, which may be another than the predictor's."""
    answers = Answers.of(predictor.decide(scores), label_set)
    if predictor.names != label_set.names and label_set.task != "regression":
        scores = scores[:, [predictor.names.index(name) for name in label_set.names]]
    return Outcomes(label_set.task, first, scores, targets, answers)


def intervals_of(sums: LabelSums | NumberSums, metrics: dict[str, float], confidence: float) -> dict[str, Any]:
    """An interval, or None, for every metric of all rows, as lists. metrics: of the same sums."""
    resampled = resampled_intervals([sums.table], lambda tables: sums.metrics(tables[0]), confidence=confidence)
    found: dict[str, Interval | None] = {}
    for name, value in metrics.items():
        if name in ("accuracy", "subset_accuracy"):
            found[name] = wilson(round(value * sums.rows), sums.rows, confidence)
        elif name in _CORRELATIONS:
            found[name] = correlation_interval(value, sums.answered, confidence, of_ranks=name == "spearman")
        else:
            found[name] = resampled[name][0] or _at_the_end(name, value, sums.rows, confidence)
    return {name: as_list(interval) for name, interval in found.items()}


def _at_the_end(name: str, value: float, rows: int, confidence: float) -> Interval | None:
    """Wilson's interval of a share of rows for a metric that no resample changes, as where all answers are right."""
    if not METRICS[name].higher_is_better or name == "r2" or value not in (0.0, 1.0):
        return None
    share = wilson(rows if value == 1.0 else 0, rows, confidence)
    if share is None or name != "mcc":
        return share
    return Interval(2 * share.low - 1, 1.0) if value == 1.0 else None


def _coverage(sums: LabelSums | NumberSums, confidence: float) -> dict[str, Any]:
    """How many rows have an answer, and how many of these answers are right."""
    found: dict[str, Any] = {
        "answered": sums.answered,
        "unanswered": sums.rows - sums.answered,
        "value": sums.answered / sums.rows,
        "interval": as_list(wilson(sums.answered, sums.rows, confidence)),
        "accuracy": None,
        "accuracy_interval": None,
    }
    if isinstance(sums, LabelSums) and sums.answered:
        right = int(sums.all_counts().right)
        found["accuracy"] = right / sums.answered
        found["accuracy_interval"] = as_list(wilson(right, sums.answered, confidence))
    return found


def labels_of(sums: LabelSums, confidence: float) -> list[dict[str, Any]]:
    """The figures of each label, with their intervals and what they were counted from."""
    *_, hits, given, support = sums.all_counts()
    found = []
    for i, figures in enumerate(zip(*per_class(hits, given, support)[:3], strict=True)):
        of_label = int(hits[i]), int(given[i]), int(support[i])
        intervals = {
            "precision": as_list(wilson(of_label[0], of_label[1], confidence)),
            "recall": as_list(wilson(of_label[0], of_label[2], confidence)),
            "f1": as_list(f1_interval(*of_label, confidence)),
        }
        precision, recall, f1 = map(float, figures)
        counts = {"support": of_label[2], "given": of_label[1], "hits": of_label[0]}
        found.append(
            {
                "label": sums.names[i],
                "precision": precision,
                "recall": recall,
                "f1": f1,
                **counts,
                "intervals": intervals,
            }
        )
    return found
