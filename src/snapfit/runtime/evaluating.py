"""How good a bundle is on a labelled table: metrics, figures of each label, and the mistakes it makes most.

Scores and decisions come from the predictor, metrics from the core: what is measured is what is served. Rows are read,
scored, counted and forgotten part by part, so that memory does not grow with the table.
"""

from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import label_tally, tally
from snapfit.core.tallies import LabelTally, confusion_summary
from snapfit.data.records import Records
from snapfit.runtime.parts import RecordParts
from snapfit.runtime.predictor import Predictor

TOP_MISTAKES = 20


def evaluate_bundle(predictor: Predictor, records: Records | RecordParts) -> dict[str, Any]:
    """Measure a bundle on labelled records.

    records: read with the bundle's columns; their labels must be among the bundle's.

    Returns plain values: source, task, rows (int), metrics {name: value}, and for tasks with labels
    per_label [{label, precision, recall, f1, support}] in the label set's order and mistakes
    [{true, predicted, rows}], most frequent first, at most TOP_MISTAKES. Of a multi-label task a mistake is
    a label that was missed in a row, together with one that was wrongly given there. Of a regression of more than
    RANK_ROWS rows Spearman's correlation is one of binned ranks, see `RankPairs`.
    Raises BadInput for records without labels, with unknown ones, or without rows.
    """
    bundle = predictor.bundle
    label_set = bundle.label_set
    parts = RecordParts.of(records, lambda part: encoded(part, label_set)) if isinstance(records, Records) else records
    if label_set.task == "regression":
        counted = tally(label_set.task, label_set.n_outputs)
    else:
        counted = label_tally(label_set.task, label_set.n_outputs, thresholds=bundle.thresholds, with_mistakes=True)
    for part in parts:
        first, targets = counted.rows, encoded(part, label_set)
        for rows, scores in predictor.scores_by_batch(examples_of(part), first=first):
            counted.add(scores, targets[rows - first])
    result: dict[str, Any] = {
        "source": parts.source,
        "task": label_set.task,
        "rows": counted.rows,
        "metrics": counted.metrics(),
        "per_label": [],
        "mistakes": [],
    }
    if isinstance(counted, LabelTally):
        result["per_label"] = [
            {"label": name, "precision": float(p), "recall": float(r), "f1": float(f1), "support": int(n)}
            for name, p, r, f1, n in zip(label_set.names, *counted.per_label(), strict=True)
        ]
        result["mistakes"] = [
            {"true": true, "predicted": predicted, "rows": rows}
            for true, predicted, rows in confusion_summary(counted.mistakes(), label_set.names, top=TOP_MISTAKES)
        ]
    return result


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
