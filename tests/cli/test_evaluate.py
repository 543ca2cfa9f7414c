"""`snapfit evaluate`: the figures, as tables and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import precision_recall_fscore_support

import snapfit
import trained


def test_tables(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "single/bundle", workplace / "test.csv")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "\r" not in outcome.out
    for word in ("accuracy", "macro_f1", "precision", "recall", "animals", "food", "tools", "mistakes"):
        assert word in outcome.out


def test_json_agrees_with_scikit_learn(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    rows = [line.split(",") for line in (workplace / "test.csv").read_text().splitlines()[1:]]
    predicted = snapfit.load(workplace / "single/bundle").predict([text for text, _ in rows])
    truth = [label for _, label in rows]
    assert result["metrics"]["accuracy"] == sum(map(str.__eq__, predicted, truth)) / len(truth)
    names = [one["label"] for one in result["per_label"]]
    figures = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        assert [one[key] for one in result["per_label"]] == list(values)
    assert sum(one["rows"] for one in result["mistakes"]) == sum(map(str.__ne__, predicted, truth))
    assert "accuracy" in outcome.err


def test_other_columns(run: Any, workplace: Path) -> None:
    lines = [line.split(",") for line in (workplace / "test.csv").read_text().splitlines()[1:]]
    trained.write_csv(Path("in.csv"), [{"topic": label, "review": text} for text, label in lines])
    outcome = run("evaluate", workplace / "single/bundle", "in.csv", "--text", "review", "--label", "topic", "--json")
    assert outcome.code == 0, outcome.err
    same = run("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    assert json.loads(outcome.out)["metrics"] == json.loads(same.out)["metrics"]


def test_a_large_table_is_measured_in_parts(run: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    whole = json.loads(run(*arguments).out)
    monkeypatch.setattr("snapfit.runtime.parts.WHOLE_BYTES", -1)
    monkeypatch.setattr("snapfit.runtime.parts.PART_ROWS", 7)
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    parts = json.loads(outcome.out)
    assert parts["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert (parts["rows"], parts["per_label"], parts["mistakes"]) == (
        whole["rows"],
        whole["per_label"],
        whole["mistakes"],
    )


def test_pairs(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "pairs/bundle", workplace / "pairs.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["rows"] == 90
