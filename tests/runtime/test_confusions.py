"""Mistakes by kind: every missed and every wrongly given label is in one, and the examples are the surest ones."""

import random
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from snapfit.core.decisions import LOW_SCORE, NO_LABEL, Answers
from snapfit.core.labels import LabelSet
from snapfit.core.outcomes import Outcomes
from snapfit.data.records import Records, read_records
from snapfit.runtime import confusions as confusions_module
from snapfit.runtime.confusions import EXAMPLES, Confusions
from snapfit.runtime.examples import MOST_CHARACTERS, Foremost

NAMES = ("a", "b", "c", "d")
LABELS: dict[str, LabelSet] = {task: LabelSet(task, NAMES) for task in ("single", "multi")}  # type: ignore[arg-type]


def some_rows(task: str, n: int, *, seed: int = 0) -> tuple[Records, np.ndarray, np.ndarray, list[Any]]:
    """Records, scores, targets and decisions, some of which are missing where a row has one label."""
    rng = np.random.default_rng(seed)
    records = read_records([{"text": f"text {i}", "label": "a"} for i in range(n)])
    scores = rng.random((n, 4))
    chosen = scores > 0.6
    decisions: list[Any]
    if task == "single":
        targets, decisions = rng.integers(0, 4, n), [NAMES[i] for i in scores.argmax(axis=1)]
    else:
        targets = (rng.random((n, 4)) < 0.4).astype(np.float32)
        decisions = [[NAMES[i] for i in np.flatnonzero(row)] for row in chosen]
    if task == "single":
        decisions = [None if rng.random() < 0.1 else one for one in decisions]
    return records, scores, targets, decisions


def counted(task: str, rows: tuple[Records, np.ndarray, np.ndarray, list[Any]], cut: int, **options: Any) -> Confusions:
    records, scores, targets, decisions = rows
    label_set = LABELS[task]
    made = Confusions(label_set, **options)
    for start in range(0, len(records), cut):
        part = slice(start, start + cut)
        answers = answers_of(label_set, scores[part], decisions[part])
        made.add(Outcomes(start, targets[part], answers), records.slice(start, cut))
    return made


def answers_of(label_set: LabelSet, scores: np.ndarray, decisions: list[Any]) -> Answers:
    """Decisions as a rule gives them."""
    refused = np.array([LOW_SCORE if one is None else 0 for one in decisions], dtype=np.int8)
    if label_set.task == "single":
        chosen = np.array([NO_LABEL if one is None else NAMES.index(one) for one in decisions])
    else:
        chosen = np.array([[name in one for name in NAMES] for one in decisions], dtype=bool).reshape(-1, 4)
    return Answers(label_set.task, scores, chosen, refused)


def by_hand(rows: tuple[Records, np.ndarray, np.ndarray, list[Any]]) -> dict[tuple[Any, Any], list[tuple[float, int]]]:
    """(key, row) of every mistake of a multi-label table, by kind."""
    found: dict[tuple[Any, Any], list[tuple[float, int]]] = {}
    _, scores, targets, decisions = rows
    for row, given in enumerate(decisions):
        true = {NAMES[i] for i in np.flatnonzero(targets[row])}
        missed, wrong = sorted(true - set(given or ())), sorted(set(given or ()) - true)
        for t in missed or ([None] if wrong else []):
            for p in wrong or [None]:
                key = scores[row, NAMES.index(p)] if p is not None else 1.0 - scores[row, NAMES.index(t)]
                found.setdefault((t, p), []).append((-float(key), row + 1))
    return found


def test_single_is_the_confusion_matrix_and_a_column_for_no_answer() -> None:
    rows = some_rows("single", 400)
    _, _, targets, decisions = rows
    found = counted("single", rows, 64).to_list()
    matrix = confusion_matrix([NAMES[t] for t in targets], [d or "none" for d in decisions], labels=[*NAMES, "none"])
    np.fill_diagonal(matrix, 0)
    got = {(one["true"], one["predicted"]): one["rows"] for one in found}
    labels: list[Any] = [*NAMES, None]
    expected = {(t, p): matrix[i, j] for i, t in enumerate(labels) for j, p in enumerate(labels) if matrix[i, j]}
    assert got == expected
    counts = [one["rows"] for one in found]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_multi_pairs_what_is_missed_with_what_is_wrong(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusions_module, "_BLOCK_PAIRS", block)
    rows = some_rows("multi", 300)
    expected = by_hand(rows)
    assert any(None in kind for kind in expected)
    found = counted("multi", rows, 50).to_list()
    assert {(one["true"], one["predicted"]): one["rows"] for one in found} == {k: len(v) for k, v in expected.items()}
    for one in found:
        surest = sorted(expected[one["true"], one["predicted"]])[:EXAMPLES]
        assert [example["row"] for example in one["examples"]] == [row for _, row in surest]
        for example in one["examples"]:
            score = rows[1][example["row"] - 1]
            assert example["text"] == f"text {example['row'] - 1}"
            for name, label in (("predicted_score", one["predicted"]), ("true_score", one["true"])):
                assert example[name] == (None if label is None else score[NAMES.index(label)])


@pytest.mark.parametrize("task", ["single", "multi"])
def test_how_the_table_is_cut_changes_nothing(task: str) -> None:
    rows = some_rows(task, 200, seed=1)
    whole = counted(task, rows, 200).to_list()
    assert counted(task, rows, 1).to_list() == counted(task, rows, 33).to_list() == whole
    assert counted(task, rows, 33).to_list(2) == whole[:2]


def test_examples_are_held_for_the_frequent_kinds_only() -> None:
    """Counts stay whole, and the most frequent kinds keep their examples."""
    rows = some_rows("multi", 500, seed=4)
    few, all_kinds = counted("multi", rows, 20, most_kinds=8), counted("multi", rows, 20)
    found, expected = few.to_list(), all_kinds.to_list()
    assert [one["rows"] for one in found] == [one["rows"] for one in expected]
    assert found[:2] == expected[:2]
    assert sum(bool(one["examples"]) for one in found) <= 8 < len(found)


def test_the_foremost_are_the_same_in_any_order() -> None:
    offers = [(key, row) for row, key in enumerate([0.5, 0.9, 0.9, 0.1, 0.7])]
    for seed in range(5):
        random.Random(seed).shuffle(offers)
        kept = Foremost(3)
        for key, row in offers:
            if kept.would_take(key, row):
                kept.take(key, row, {"key": key})
        assert kept.to_list() == [{"row": 2, "key": 0.9}, {"row": 3, "key": 0.9}, {"row": 5, "key": 0.7}]


def test_long_texts_are_shortened() -> None:
    label_set = LABELS["single"]
    records = read_records([{"text": "x" * 5_000, "label": "a"}])
    answers = answers_of(label_set, np.full((1, 4), 0.25), ["b"])
    made = Confusions(label_set)
    made.add(Outcomes(0, np.array([0]), answers), records)
    (example,) = made.to_list()[0]["examples"]
    assert len(example["text"]) == MOST_CHARACTERS
    assert example["text"].endswith("…")
