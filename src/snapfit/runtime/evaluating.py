"""How good a bundle is on a labelled table: metrics, figures of each label, and the mistakes it makes most.

Scores and decisions come from the predictor, metrics from the core: what is measured is what is served. Rows are read,
scored, counted and forgotten part by part, so that memory does not grow with the table.
"""

from typing import Any

import numpy as np

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import label_tally, tally
from snapfit.core.rule_words import rule_lines
from snapfit.core.tallies import LabelTally, Tally, confusion_summary
from snapfit.data.records import Records
from snapfit.runtime.parts import RecordParts
from snapfit.runtime.predictor import Predictor

TOP_MISTAKES = 20


def evaluate_bundle(
    predictor: Predictor, records: Records | RecordParts, *, out_of_scope: str | None = None
) -> dict[str, Any]:
    """Measure a bundle on labelled records, as its rule decides.

    records: read with the bundle's columns; their labels must be among the bundle's. out_of_scope: for a single label,
    what rows are labelled that are right when they are refused (see `SingleTally`).

    Returns plain values: source, task, rows (int), decides (the rule in words), metrics {name: value}, reliability (see
    `Reliability.table`), and for tasks with labels per_label [{label, precision, recall, f1, support}] in the label
    set's order and mistakes [{true, predicted, rows}], most frequent first, at most TOP_MISTAKES. Of a multi-label task
    a mistake is a label that was missed in a row, together with one that was wrongly given there. Of a regression of
    more than RANK_ROWS rows Spearman's correlation is one of binned ranks, see `RankPairs`.
    Raises BadInput for records without labels, with unknown ones, or without rows.
    """
    label_set = predictor.bundle.label_set

    def targets_of(part: Records) -> np.ndarray:
        return encoded(part, label_set, out_of_scope=out_of_scope)

    parts = RecordParts.of(records, targets_of) if isinstance(records, Records) else records
    counted = _tally(label_set, predictor.rule, out_of_scope)
    for part in parts:
        first, targets = counted.rows, targets_of(part)
        for rows, answers in predictor.answers_by_batch(examples_of(part), first=first):
            counted.add_answers(answers, targets[rows - first])
    result: dict[str, Any] = {
        "source": parts.source,
        "task": label_set.task,
        "rows": counted.rows,
        "decides": rule_lines(label_set.task, predictor.bundle.info.rule_values, {}),
        "metrics": counted.metrics(),
        "reliability": [],
        "per_label": [],
        "mistakes": [],
    }
    if isinstance(counted, LabelTally):
        result["reliability"] = counted.reliability.table()
        result["per_label"] = [
            {"label": name, "precision": float(p), "recall": float(r), "f1": float(f1), "support": int(n)}
            for name, p, r, f1, n in zip(label_set.names, *counted.per_label(), strict=True)
        ]
        result["mistakes"] = [
            {"true": true, "predicted": predicted, "rows": rows}
            for true, predicted, rows in confusion_summary(counted.mistakes(), label_set.names, top=TOP_MISTAKES)
        ]
    return result


def _tally(label_set: LabelSet, rule: DecisionRule, out_of_scope: str | None) -> Tally:
    if label_set.task == "regression":
        return tally(label_set.task, label_set.n_outputs)
    outside = out_of_scope is not None
    return label_tally(label_set.task, label_set.n_outputs, rule=rule, with_mistakes=True, out_of_scope=outside)


def encoded(records: Records, label_set: LabelSet, *, out_of_scope: str | None = None) -> np.ndarray:
    """The records' targets. out_of_scope: the label of rows that none of the labels is right for; theirs is -1.

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
    targets = np.full(len(labels), -1, dtype=np.int64)
    inside = [label for label in labels if label != out_of_scope]
    targets[~outside] = label_set.encode(inside, where=records.source)
    return targets


def check_out_of_scope(label_set: LabelSet, out_of_scope: str) -> None:
    """Raise BadInput for a task other than single, and for a label that the bundle gives itself."""
    if label_set.task != "single":
        found = f"rows out of scope of the task {label_set.task!r}"
        raise BadInput(found, "a task with one label a row", "leave --out-of-scope out")
    if out_of_scope in label_set.names:
        found = f"{out_of_scope!r} as the label of rows out of scope"
        raise BadInput(found, "a label that the bundle was not trained to give", "leave --out-of-scope out")


def examples_of(records: Records) -> list[Any]:
    """The records' texts as the predictor takes them: str, or (first, second) tuples for pairs."""
    texts = records.texts.to_pylist()
    if records.pairs is None:
        return list(texts)
    return list(zip(texts, records.pairs.to_pylist(), strict=True))
