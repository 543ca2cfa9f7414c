"""How good a bundle is on a labelled table: metrics, labels and slices with intervals, mistakes with examples; and
which of two bundles is better.

Answers come from the predictor, formulas from the core: what is measured is what is served. Rows are read, answered,
counted and forgotten piece by piece, so that memory does not grow with the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from snapfit.core.decisions import NO_LABEL, REFUSALS, Answers
from snapfit.core.errors import BadInput, nearest
from snapfit.core.intervals import Interval, check_confidence, correlation_interval, f1_interval, wilson
from snapfit.core.label_metrics import per_class
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import METRICS
from snapfit.core.outcome_sums import LabelSums, NumberSums, sums_of
from snapfit.core.outcomes import Outcomes
from snapfit.core.resampling import resampled_intervals
from snapfit.core.rule_words import rule_lines
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
    """Rows as they were evaluated. other_answers: those of the other bundle, labels in its own order."""

    records: Records
    outcomes: Outcomes
    other_outcomes: Outcomes | None = None
    other_answers: Answers | None = None


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
    out_of_scope: str | None = None,
    on_piece: Callable[[Piece], object] = lambda piece: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a bundle on labelled records, as its rule decides.

    records: read with the bundle's columns; their labels must be among the bundle's. against: another bundle of the
    same task and labels, to compare with on the same rows. out_of_scope: for a single label, how rows are labelled that
    none of the labels is right for: no answer is right for them. on_piece: hears every piece of rows, in order.
    progress: hears how many rows are done, and of how many.

    Returns plain values, intervals as [low, high] or None where nothing is known:
    source, task, rows, decides (the rule, in lines), confidence, metrics {name: value} (see `label_metrics`; coverage
    and the like where either bundle may refuse to answer, or rows are out of scope), intervals {name: interval};
    unanswered {why: rows}, out_of_scope (None, or {label, rows}), reliability (see `Reliability.table`);
    per_label [{label, precision, recall, f1, support, given, hits, intervals {precision, recall, f1}}] in the label
    set's order, and mistakes (see `Confusions.to_list`), both [] for a regression; slices (see `Slices.to_list`);
    comparison (see `Comparison.to_dict`, and decides), or None. Of a regression of more than RANK_ROWS rows Spearman's
    correlation is one of binned ranks, see `RankPairs`.
    Raises BadInput for records without labels, with unknown ones, or without rows, for an unknown column to slice by,
    for a bundle to compare with that answers another question, and as `encoded` does for rows out of scope.
    """
    questions = questions or Questions()
    label_set = predictor.bundle.label_set
    if isinstance(records, Records):
        records = RecordParts.of(records, lambda part: encoded(part, label_set, out_of_scope=out_of_scope))
    parts = records
    questions.check_columns(parts.column_names)
    if against is not None:
        check_comparable(predictor.bundle, against.bundle)
    found = _Findings(predictor, against, questions, n_rows=len(parts), out_of_scope=out_of_scope)
    done = 0
    for piece in _pieces(parts, predictor, against, out_of_scope):
        found.add(piece)
        on_piece(piece)
        done += len(piece.records)
        progress(done, len(parts))
    return {"source": parts.source, **found.to_dict()}


class _Findings:
    """All that is counted while pieces pass by, in the order of `predictor`'s labels."""

    def __init__(
        self,
        predictor: Predictor,
        against: Predictor | None,
        questions: Questions,
        *,
        n_rows: int,
        out_of_scope: str | None,
    ) -> None:
        labels = self._labels = predictor.bundle.label_set
        self._both, self._questions, self._outside = (predictor, against), questions, out_of_scope
        refuses = any(one.rule.refuses for one in self._both if one is not None)
        may = {"refuses": refuses, "out_of_scope": out_of_scope is not None}
        self._sums, self._other_sums = sums_of(labels, n_rows, **may), sums_of(labels, n_rows, **may)
        self._confusions = Confusions(labels, out_of_scope=out_of_scope)
        self._comparison = None if against is None else Comparison(labels, out_of_scope=out_of_scope)
        self._lengths = Lengths(predictor.bundle)
        self._slices = Slices(
            labels.task,
            questions.slices,
            length_edges=questions.length_edges,
            limit=predictor.bundle.info.max_tokens,
        )

    def add(self, piece: Piece) -> None:
        """Count a piece in."""
        self._sums.add(piece.outcomes)
        self._confusions.add(piece.outcomes, piece.records)
        self._slices.add(piece.outcomes, self._lengths(piece.records), piece.records.table)
        if self._comparison is not None and piece.other_outcomes is not None:
            self._other_sums.add(piece.other_outcomes)
            self._comparison.add(piece.outcomes, piece.other_outcomes, piece.records)

    def to_dict(self) -> dict[str, Any]:
        """What `evaluate_bundle` returns, but for the source."""
        sums, confidence, comparison = self._sums, self._questions.confidence, None
        metrics = sums.all_metrics()
        decides = [None if one is None else _decides(one) for one in self._both]
        if self._comparison is not None:
            comparison = self._comparison.to_dict(sums, self._other_sums, confidence=confidence)
            comparison["decides"] = decides[1]
        return {
            "task": self._labels.task,
            "rows": sums.rows,
            "decides": decides[0],
            "confidence": confidence,
            "metrics": metrics,
            "intervals": intervals_of(sums, metrics, confidence),
            **self._unanswered(),
            "per_label": labels_of(sums, confidence) if isinstance(sums, LabelSums) else [],
            "mistakes": self._confusions.to_list(self._questions.mistakes),
            "slices": self._slices.to_list(confidence),
            "comparison": comparison,
        }

    def _unanswered(self) -> dict[str, Any]:
        """Rows without an answer, rows out of scope, and how confident answers are."""
        sums = self._sums
        if isinstance(sums, NumberSums):
            return {"unanswered": {}, "out_of_scope": None, "reliability": []}
        why = {name: rows for name, rows in zip(REFUSALS, sums.refused.tolist(), strict=True) if name and rows}
        outside = None if self._outside is None else {"label": self._outside, "rows": sums.out_of_scope_rows}
        return {"unanswered": why, "out_of_scope": outside, "reliability": sums.reliability.table()}


def _decides(predictor: Predictor) -> list[str]:
    """A bundle's rule, in words."""
    info = predictor.bundle.info
    return rule_lines(info.task, info.rule_values, {})


def encoded(records: Records, label_set: LabelSet, *, out_of_scope: str | None = None) -> np.ndarray:
    """The records' targets. out_of_scope: the label of rows that none of the labels is right for; theirs is NO_LABEL.

    Raises BadInput when they have no labels, or unknown ones, and for rows out of scope where they cannot be.
    """
    if records.labels is None:
        found = f"{records.source} has no labels"
        raise BadInput(found, "a label for every row", "name the column with --label NAME")
    if out_of_scope is None:
        return label_set.encode(records.labels, where=records.source)
    check_out_of_scope(label_set, out_of_scope)
    labels = list(records.labels)
    outside = np.array([label == out_of_scope for label in labels], dtype=bool)
    stood_in = [label_set.names[0] if out else label for label, out in zip(labels, outside, strict=True)]
    return np.where(outside, NO_LABEL, label_set.encode(stood_in, where=records.source))


def check_out_of_scope(label_set: LabelSet, out_of_scope: str) -> None:
    """Raise BadInput for a task other than single, and for a label that the bundle gives itself."""
    if label_set.task != "single":
        found = f"rows out of scope of the task {label_set.task!r}"
        raise BadInput(found, "a task with one label a row", "leave --out-of-scope-label out")
    if out_of_scope in label_set.names:
        found = f"{out_of_scope!r} as the label of rows out of scope"
        raise BadInput(found, "a label that the bundle was not trained to give", "leave --out-of-scope-label out")


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


def _pieces(
    parts: RecordParts, predictor: Predictor, against: Predictor | None, out_of_scope: str | None
) -> Iterator[Piece]:
    first, label_set = 0, predictor.bundle.label_set
    for part in parts:
        for start in range(0, len(part), PIECE_ROWS):
            records = part.slice(start, PIECE_ROWS)
            examples, targets = examples_of(records), encoded(records, label_set, out_of_scope=out_of_scope)
            outcomes = Outcomes(first, targets, predictor.answers(examples, first=first))
            if against is None:
                yield Piece(records, outcomes)
            else:
                answers = against.answers(examples, first=first)
                in_order = answers.with_labels_of(against.names, label_set.names)
                yield Piece(records, outcomes, Outcomes(first, targets, in_order), answers)
            first += len(records)


def intervals_of(sums: LabelSums | NumberSums, metrics: dict[str, float], confidence: float) -> dict[str, Any]:
    """An interval, or None, for every metric of all rows, as lists. metrics: of the same sums."""
    resampled = resampled_intervals([sums.table], lambda tables: sums.metrics(tables[0]), confidence=confidence)
    shares = sums.all_shares() if isinstance(sums, LabelSums) else {}
    found: dict[str, Interval | None] = {}
    for name, value in metrics.items():
        if name in shares:
            part, whole = shares[name]
            found[name] = wilson(round(float(part)), round(float(whole)), confidence)
        elif name in _CORRELATIONS:
            found[name] = correlation_interval(value, sums.rows, confidence, of_ranks=name == "spearman")
        elif name == "ece":  # a resample's is too large: it grows with any scatter, and never falls below 0
            found[name] = None
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


def labels_of(sums: LabelSums, confidence: float) -> list[dict[str, Any]]:
    """The figures of each label, with their intervals and what they were counted from."""
    hits, given, support = sums.all_counts()[3:6]
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
