"""The arithmetic of the benchmark for rare classes: the long tail, its figures against scikit-learn, its tables."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from snapfit.core.recipe import Recipe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="a source distribution has no benchmarks")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules in question, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("harness", "subsets", "imbalance")})


# ---------------------------------------------------------------- the tail

LABELS = [f"c{i % 5}" for i in range(500)] + ["c0"] * 100


def test_a_long_tail_falls_by_a_factor_from_class_to_class(modules: SimpleNamespace) -> None:
    rows = modules.subsets.draw_long_tail(LABELS, 81, 81, seed=3)
    found = Counter(LABELS[i] for i in rows)
    assert found == {"c0": 81, "c1": 27, "c2": 9, "c3": 3, "c4": 1}  # the largest class stays the largest
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, modules.subsets.draw_long_tail(LABELS, 81, 81, seed=3))
    assert not np.array_equal(rows, modules.subsets.draw_long_tail(LABELS, 81, 81, seed=4))
    with pytest.raises(ValueError, match=r"100 rows of 'c1', of which 101 are wanted"):
        modules.subsets.draw_long_tail(LABELS, 101, 1, seed=3)


def test_no_development_rows_are_set_aside_where_none_are_wanted(modules: SimpleNamespace) -> None:
    tail = modules.subsets.DataSet("toy", "", "", "", longest=81, ratio=81, dev_share=0)
    train, dev = tail.drawn(LABELS)
    assert (len(train), len(dev)) == (121, 0)


# ---------------------------------------------------------------- figures


def test_figures_of_one_label(modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 300)
    scores = rng.dirichlet(np.ones(6), 300) + 0.4 * np.eye(6)[targets]
    scores /= scores.sum(axis=1, keepdims=True)
    found = modules.imbalance.of_single(scores, targets, np.array([9, 50, 3, 80, 70, 60]))
    answers = scores.argmax(axis=1)
    recall = sk.recall_score(targets, answers, average=None)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(targets, answers, average="macro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(targets, answers))
    assert found["nll"] == pytest.approx(sk.log_loss(targets, scores))
    assert found["tail"] == pytest.approx(recall[[0, 2]].mean())
    assert 0 < found["ece"] < 1


def test_figures_of_many_labels(modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((400, 3)) < [0.5, 0.1, 0.03]).astype(np.float32)
    scores = np.clip(rng.random((400, 3)) * 0.6 + 0.3 * targets, 0, 1)
    found = modules.imbalance.of_multi(scores[:200], targets[:200], scores[200:], targets[200:])
    best = modules.imbalance.best_thresholds(scores[200:], targets[200:])
    assert found["macro_f1"] == pytest.approx(sk.f1_score(targets[:200], scores[:200] >= 0.5, average="macro"))
    assert found["micro_f1"] == pytest.approx(sk.f1_score(targets[:200], scores[:200] >= 0.5, average="micro"))
    assert found["tuned"] == pytest.approx(sk.f1_score(targets[:200], scores[:200] >= best, average="macro"))
    for label in range(3):
        tried = [
            sk.f1_score(targets[200:, label], scores[200:, label] >= one, zero_division=0)
            for one in modules.imbalance.THRESHOLDS
        ]
        reached = sk.f1_score(targets[200:, label], scores[200:, label] >= best[label])
        assert reached == pytest.approx(max(tried))


def test_a_label_that_is_never_found_keeps_a_half(modules: SimpleNamespace) -> None:
    assert modules.imbalance.best_thresholds(np.zeros((5, 2)), np.ones((5, 2))).tolist() == [0.5, 0.5]


# ---------------------------------------------------------------- tables


def record(name: str, cell: str, seed: int, macro_f1: float, task: str = "single") -> dict[str, Any]:
    more = {"accuracy": 0.5, "tail": 0.25} if task == "single" else {"micro_f1": 0.5, "tuned": 0.25}
    where = {"set": name, "cell": cell, "seed": seed, "split": "drawn so", "task": task, "rows": [9, 1], "steps": 7}
    scored = {"macro_f1": macro_f1, "nll": 1.0, "ece": 0.02, **more, "train_seconds": 1.0}
    return {**where, **scored, "recipe": {"batch": 16, "precision": "fp32"}}


def results_of(modules: SimpleNamespace, *records: dict[str, Any]) -> Any:
    results = modules.harness.Results(None)
    for one in records:
        results.add(modules.imbalance.key_of(one["set"], one["cell"], one["seed"]), one)
    return results


def test_every_option_is_held_against_the_plain_loss(modules: SimpleNamespace) -> None:
    imbalance = modules.imbalance
    name = "emotion-long-tail"
    gained = {"plain": 0.0, "focal": 0.03}
    records = [
        record(name, cell.name, seed, 0.5 + 0.01 * seed + gained.get(cell.name, -0.01))
        for seed in (1, 2)
        for cell in imbalance.SINGLE
    ]
    results = results_of(modules, *records)
    rows = {row[1]: row for row in imbalance.rows(imbalance.by_set(results)[name])}
    assert set(rows) == {cell.name for cell in imbalance.SINGLE}
    assert all(len(row) == len(imbalance.SINGLE_HEADER) for row in rows.values())
    assert rows["plain"][2:4] == ["51.50 ± 0.71", ""]
    assert rows["focal"][2:] == ["**54.50** ± 0.71", "+3.00 ± 0.00", "50.00", "25.00", "1.0000", "2.00", "2"]
    figures = imbalance.figures(results)
    assert figures == pytest.approx({f"{name} seeds": 2, f"{name} steps apart": 0, f"{name} best gain": 3.0})
    assert imbalance.figures(results_of(modules, *records[:-1]))[f"{name} seeds"] == 1
    assert imbalance.figures(results_of(modules, *[one for one in records if one["cell"] != "focal"])) == {}
    page = "\n".join(imbalance.page(results))
    assert "| emotion-long-tail | focal " in page
    assert "- drawn so" in page
    assert imbalance.page(modules.harness.Results(None)) == []


def test_many_labels_have_columns_of_their_own(modules: SimpleNamespace) -> None:
    imbalance = modules.imbalance
    results = results_of(modules, record("goemotions-4000", "plain", 1, 0.4, "multi"))
    (row,) = imbalance.rows(imbalance.by_set(results)["goemotions-4000"])
    assert len(row) == len(imbalance.MULTI_HEADER)
    assert row[2] == "**40.00** ± 0.00"


def test_cells_are_recipes_and_differ(modules: SimpleNamespace) -> None:
    for _, cells in (*modules.imbalance.SETS.values(), *modules.imbalance.QUICK.values()):
        made = [Recipe().with_values(cell.settings).to_dict() for cell in cells]
        assert made[0] == Recipe().to_dict()
        assert all(one != other for i, one in enumerate(made) for other in made[:i])
        assert len({cell.name for cell in cells}) == len(cells)
    assert not set(modules.imbalance.SETS) & set(modules.imbalance.QUICK)


# ---------------------------------------------------------------- lines of a process


def test_lines_come_as_they_are_printed_and_a_failure_is_told(modules: SimpleNamespace, tmp_path: Path) -> None:
    program = "import json, sys\nfor n in range(3): print(json.dumps([n]))\nif sys.argv[1:]: sys.exit('broken')"
    command = [sys.executable, "-c", program]
    assert list(modules.harness.json_lines(command, tmp_path)) == [[0], [1], [2]]
    lines = modules.harness.json_lines([*command, "fail"], tmp_path)
    assert [next(lines) for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(RuntimeError, match=r"ended with 1:\nbroken"):
        next(lines)
