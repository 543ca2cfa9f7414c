"""What an evaluation writes: whole folders or none, tables that read back, and rows beside what they came with."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from snapfit.core.errors import BadInput
from snapfit.data.records import read_records
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import Questions, evaluate_bundle
from snapfit.runtime.evaluation_files import check_folder, evaluation_folder
from snapfit.runtime.predictor import Predictor
from tiny_bundle import LABELS, WORDS, BagOfWords, write_tiny_bundle

TASKS = ("single", "multi", "regression")


def rows_of(task: str, n: int = 60) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    labels: dict[str, Any] = {
        "single": lambda: str(rng.choice(LABELS["single"].names)),
        "multi": lambda: [name for name in LABELS["multi"].names if rng.random() < 0.5],
        "regression": lambda: float(rng.random() * 4),
    }
    return [{"id": i, "text": " ".join(rng.choice(WORDS, 5)), "label": labels[task]()} for i in range(n)]


def predictor(folder: Path, task: str) -> Predictor:
    bundle = Bundle.open(write_tiny_bundle(folder, task))
    return Predictor(bundle, BagOfWords(bundle.label_set.n_outputs))


def written(folder: Path, task: str, *, compared: bool = False, **options: Any) -> tuple[Path, dict[str, Any]]:
    """A folder of an evaluation, and what was found."""
    made, out = predictor(folder / "bundle", task), folder / "out"
    other = Predictor(made.bundle, BagOfWords(made.bundle.label_set.n_outputs)) if compared else None
    if other is not None:
        other.backend.matrix = other.backend.matrix[::-1]  # type: ignore[attr-defined]
    records = read_records(rows_of(task), task=task)
    options["against"] = None if other is None else other.bundle
    with evaluation_folder(out, records.table.column_names, made.bundle, **options) as (write, finish):
        result = evaluate_bundle(made, records, against=other, on_piece=write, questions=Questions(slices=["id"]))
        finish(result)
    return out, result


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rows_format", ["csv", "jsonl", "parquet"])
def test_rows_have_truth_and_answer(tmp_path: Path, task: str, rows_format: str) -> None:
    out, _ = written(tmp_path, task, rows_format=rows_format)
    path, came = out / f"rows.{rows_format}", rows_of(task)
    if rows_format == "csv":
        found: list[dict[str, Any]] = [
            {key: cell if key == "text" else _value(cell) for key, cell in row.items()} for row in read_csv(path)
        ]
    elif rows_format == "jsonl":
        found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    else:
        found = pq.read_table(path).to_pylist()
    made = predictor(tmp_path / "again", task)
    predicted = made.predict([row["text"] for row in came])
    assert [row["predicted"] for row in found] == (pytest.approx(predicted) if task == "regression" else predicted)
    for row, original in zip(found, came, strict=True):
        assert row["id"] == original["id"]
        assert row["text"] == original["text"]
        if task == "regression":
            assert row["expected"] == pytest.approx(original["label"])
            assert row["error"] == pytest.approx(row["predicted"] - row["expected"])
        else:
            assert row["expected"] == original["label"]
            assert row["right"] is (row["expected"] == row["predicted"])


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell


@pytest.mark.parametrize("task", TASKS)
def test_tables_say_what_the_result_says(tmp_path: Path, task: str) -> None:
    out, result = written(tmp_path, task, compared=True)
    assert json.loads((out / "evaluation.json").read_text("utf-8")) == json.loads(json.dumps(result))
    slices = read_csv(out / "slices.csv")
    assert [one["slice"] for one in slices] == [one["slice"] for one in result["slices"]]
    names = {"evaluation.json", "slices.csv", "rows.csv"}
    if task != "regression":
        names |= {"per_label.csv", "confusions.csv", "changed_labels.csv"}
        for line, one in zip(read_csv(out / "per_label.csv"), result["per_label"], strict=True):
            assert line["label"] == one["label"]
            assert float(line["f1_interval_high"]) == one["intervals"]["f1"][1]
        for line, one in zip(read_csv(out / "confusions.csv"), result["mistakes"], strict=True):
            assert (line["true"] or None, line["predicted"] or None) == (one["true"], one["predicted"])
            assert line["example_rows"] == " ".join(str(example["row"]) for example in one["examples"])
        assert len(read_csv(out / "changed_labels.csv")) == len(result["per_label"])
    assert {path.name for path in out.iterdir()} == names


def test_rows_of_two_bundles_stand_beside_each_other(tmp_path: Path) -> None:
    out, result = written(tmp_path, "single", compared=True)
    rows = read_csv(out / "rows.csv")
    assert list(rows[0]) == [
        *("id", "text", "label", "expected", "right", "other_predicted", "other_score", "other_right"),
        *("predicted", "score"),
    ]
    only = sum(row["right"] == "true" and row["other_right"] == "false" for row in rows)
    assert only == result["comparison"]["answers"]["this_only"] > 0


def test_all_mistakes_are_in_the_table_and_the_foremost_in_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapfit.runtime.evaluation_files.TOP_MISTAKES", 2)
    out, result = written(tmp_path, "single", rows_format="none")
    assert len(read_csv(out / "confusions.csv")) == len(result["mistakes"]) > 2
    assert json.loads((out / "evaluation.json").read_text())["mistakes"] == result["mistakes"][:2]
    assert not list(out.glob("rows*"))


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    bundle = predictor(tmp_path / "bundle", "single").bundle
    with (
        pytest.raises(RuntimeError, match="half way"),
        evaluation_folder(tmp_path / "out", ["text", "label"], bundle),
    ):
        raise RuntimeError("half way")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_earlier_evaluation_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    out, _ = written(tmp_path, "single", rows_format="jsonl")
    bundle = Bundle.open(tmp_path / "bundle")
    check_folder(out, ["text"], bundle, read=[])
    written(tmp_path / "again", "single")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds 'notes.txt'"):
        check_folder(out, ["text"], bundle, read=[])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "rows.csv").write_text("someone else's")
    with pytest.raises(BadInput, match="holds 'rows.csv'"):
        check_folder(tmp_path / "full", ["text"], bundle, read=[])


@pytest.mark.parametrize(
    ("out", "columns", "options", "words"),
    [
        ("bundle/report", ["text"], {}, "which is read"),
        (".", ["text"], {}, "exists already"),
        ("new", ["text", "expected"], {}, "'expected'"),
        ("new", ["text", "predicted"], {}, "'predicted'"),
        ("new", ["text", "score_good"], {"all_scores": True}, "'score_good'"),
        ("new", ["text"], {"rows_format": "tsv"}, "the format 'tsv' of rows"),
        ("bundle/snapfit.json", ["text"], {}, "is a file"),
    ],
)
def test_folders_that_cannot_be_written(
    tmp_path: Path, out: str, columns: list[str], options: dict[str, Any], words: str
) -> None:
    bundle = predictor(tmp_path / "bundle", "single").bundle
    with pytest.raises(BadInput, match=words):
        check_folder(tmp_path / out, columns, bundle, read=[bundle.folder], **options)


def test_columns_may_have_any_name_without_rows(tmp_path: Path) -> None:
    bundle = predictor(tmp_path / "bundle", "single").bundle
    check_folder(tmp_path / "new", ["text", "expected", "predicted"], bundle, read=[], rows_format="none")


def test_a_folder_that_holds_what_is_read_is_not_written(tmp_path: Path) -> None:
    out, _ = written(tmp_path, "single")
    bundle = Bundle.open(tmp_path / "bundle")
    with pytest.raises(BadInput, match="which is read"):
        check_folder(out, ["text"], bundle, read=[out / "rows.csv"])
