"""`snapfit.evaluate`: the same answers as `snapfit predict`, on every row, for every task."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import snapfit
import toys
import trained
from snapfit.cli.app import main
from snapfit.core.errors import BadInput
from snapfit.core.files import write_json_atomic
from snapfit.core.folders import write_manifest
from snapfit.ship.measuring import evaluate

KINDS = ("single", "multi", "pair", "regression")


def bundle_of(kind: str, folder: Path) -> Path:
    """A trained bundle; the one of many labels with a threshold of its own for each."""
    bundle = toys.trained(kind).result.bundle
    if kind != "multi":
        return bundle
    copied = folder / "bundle"
    copied.mkdir()
    for path in bundle.iterdir():
        if path.is_file():
            (copied / path.name).write_bytes(path.read_bytes())
    info = json.loads((copied / "snapfit.json").read_text("utf-8"))
    write_json_atomic(copied / "snapfit.json", {**info, "thresholds": [0.35, 0.5, 0.8]})
    write_manifest(copied)
    return copied


def differences(kind: str, folder: Path, n: int) -> int:
    """Rows of the two files that differ in anything predicted, and rows that the predictor itself answers otherwise."""
    bundle, rows = bundle_of(kind, folder), toys.ROWS[kind](n, seed=7)
    table = trained.write_jsonl(folder / "t.jsonl", rows)
    assert main(["predict", str(bundle), str(table), "--out", str(folder / "p.parquet"), "--all-scores"]) == 0
    arguments = ["--out", str(folder / "e"), "--rows", "parquet", "--all-scores"]
    assert main(["evaluate", str(bundle), str(table), *arguments]) == 0
    predicted, evaluated = pq.read_table(folder / "p.parquet"), pq.read_table(folder / "e" / "rows.parquet")
    names = [name for name in predicted.column_names if name not in rows[0]]
    assert "predicted" in names
    assert evaluated.num_rows == predicted.num_rows == n
    pairs = zip(predicted.select(names).to_pylist(), evaluated.select(names).to_pylist(), strict=True)
    between_files = sum(one != other for one, other in pairs)
    texts = [tuple(row[key] for key in ("sentence1", "sentence2")) if kind == "pair" else row["text"] for row in rows]
    answers = snapfit.load(bundle).predict(texts)
    return between_files + sum(a != b for a, b in zip(evaluated["predicted"].to_pylist(), answers, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_answers_as_predict_does(kind: str, tmp_path: Path) -> None:
    assert differences(kind, tmp_path, 400) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_answers_as_predict_does_on_ten_thousand_texts(kind: str, tmp_path: Path) -> None:
    assert differences(kind, tmp_path, 10_000) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_file_is_answered_in_parts_as_predict_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapfit.runtime.parts.WHOLE_BYTES", -1)
    monkeypatch.setattr("snapfit.runtime.parts.PART_ROWS", 64)
    monkeypatch.setattr("snapfit.runtime.predictor._CHUNK_ROWS", 32)
    assert differences(kind, tmp_path, 200) == 0


def test_tables_of_all_kinds_are_measured(tmp_path: Path) -> None:
    bundle, rows = toys.trained().result.bundle, toys.single_rows(40, seed=3)
    from_file = evaluate(bundle, trained.write_csv(tmp_path / "t.csv", rows))
    for table in (rows, pd.DataFrame(rows)):
        found = evaluate(str(bundle), table)
        assert found["metrics"] == from_file["metrics"]
        assert (found["bundle"], found["against"], found["out"]) == (str(bundle), None, None)
        assert found["seconds"] >= 0


def test_a_comparison_with_columns_and_slices(tmp_path: Path) -> None:
    bundle = toys.trained().result.bundle
    rows = [{"review": one["text"], "topic": one["label"], "day": i % 3} for i, one in enumerate(toys.single_rows(40))]
    found = evaluate(
        bundle, rows, against=bundle, slices=["day"], text="review", label="topic", out=tmp_path / "out", confidence=0.9
    )
    assert found["confidence"] == 0.9
    assert found["comparison"]["answers"]["same"] == 40
    assert [one["slice"] for one in found["slices"] if one["column"] == "day"] == ["0", "1", "2"]
    kept = json.loads((tmp_path / "out" / "evaluation.json").read_text("utf-8"))
    assert kept == {name: value for name, value in json.loads(json.dumps(found)).items() if name != "seconds"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slices": ["dya"]}, "no column 'dya'"),
        ({"confidence": 1.0}, "a confidence of 1.0"),
        ({"against": "nowhere"}, "nowhere"),
        ({"out": "t.csv"}, "t.csv"),
        ({"rows": "xlsx", "out": "new"}, "'xlsx'"),
        ({"label": "lable"}, "'lable'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snapfit.ship.measuring.load", lambda *args, **more: pytest.fail("the model was loaded"))
    table = trained.write_csv(tmp_path / "t.csv", toys.single_rows(10))
    with pytest.raises(BadInput, match=words):
        evaluate(toys.trained().result.bundle, table, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
