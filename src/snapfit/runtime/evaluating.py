"""How good a bundle is on a labelled table: metrics, figures of each label, and the mistakes it makes most.

Scores and decisions come from the predictor, metrics from the core: what is measured is what is served.
"""

from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.metrics import PerClass, compute_metrics, confusion, confusion_summary, per_class
from snapfit.core.scores import above_thresholds
from snapfit.data.records import Records
from snapfit.runtime.predictor import Predictor

TOP_MISTAKES = 20


def evaluate_bundle(predictor: Predictor, records: Records) -> dict[str, Any]:
    """Measure a bundle on labelled records.

    records: read with the bundle's columns; their labels must be among the bundle's.

    Returns plain values: source, task, rows (int), metrics {name: value}, and for tasks with labels
    per_label [{label, precision, recall, f1, support}] in the label set's order and mistakes
    [{true, predicted, rows}], most frequent first, at most TOP_MISTAKES. Of a multi-label task a mistake is
    a label that was missed in a row, together with one that was wrongly given there.
    Raises BadInput for records without labels, with unknown ones, or without rows.
    """
    bundle = predictor.bundle
    label_set = bundle.label_set
    if records.labels is None:
        found = f"{records.source} has no labels"
        raise BadInput(found, "a label for every row", "name the column with --label NAME")
    targets = label_set.encode(records.labels, where=records.source)
    scores = predictor.scores(examples_of(records))
    result: dict[str, Any] = {
        "source": records.source,
        "task": label_set.task,
        "rows": len(records),
        "metrics": compute_metrics(label_set.task, scores, targets, thresholds=bundle.thresholds),
        "per_label": [],
        "mistakes": [],
    }
    if label_set.task != "regression":
        figures, mistakes = _by_label(label_set.task, scores, targets, bundle.thresholds)
        result["per_label"] = [
            {"label": name, "precision": float(p), "recall": float(r), "f1": float(f1), "support": int(n)}
            for name, p, r, f1, n in zip(label_set.names, *figures, strict=True)
        ]
        result["mistakes"] = [
            {"true": true, "predicted": predicted, "rows": rows}
            for true, predicted, rows in confusion_summary(mistakes, label_set.names, top=TOP_MISTAKES)
        ]
    return result


def examples_of(records: Records) -> list[Any]:
    """The records' texts as the predictor takes them: str, or (first, second) tuples for pairs."""
    texts = records.texts.to_pylist()
    if records.pairs is None:
        return list(texts)
    return list(zip(texts, records.pairs.to_pylist(), strict=True))


def _by_label(
    task: Task, scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None
) -> tuple[PerClass, np.ndarray]:
    """The figures of each label, and int64 [k, k]: rows in which a label was missed and another given."""
    k = scores.shape[1]
    if task == "single":
        matrix = confusion(targets, scores.argmax(axis=1), k)
        return per_class(matrix), matrix
    truth, given = targets > 0, above_thresholds(scores, thresholds)
    missed, wrong = (truth & ~given).astype(np.float64), (given & ~truth).astype(np.float64)
    hits, support, n_given = (truth & given).sum(axis=0), truth.sum(axis=0), given.sum(axis=0)
    figures = PerClass(_ratio(hits, n_given), _ratio(hits, support), _ratio(2 * hits, n_given + support), support)
    return figures, (missed.T @ wrong).astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0))
