"""Tables of predictions, read back with independent readers."""

import csv
import datetime
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.decisions import Answers, DecisionRule, Scope
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.places import Place
from snapfit.data.json_cells import json_array
from snapfit.runtime import tables
from snapfit.runtime.tables import check_output, check_table, write_predictions
from tiny_bundle import LABELS

TEXTS = ["plain", 'a "quoted", one', "two\nlines", " 007 ", "中\r"]
SCORES = {
    "single": np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0]]),
    "multi": np.array([[0.9, 0.2, 0.7], [0.1, 0.3, 0.2], [0.1, 0.8, 0.1], [0.5, 0.3, 0.3], [0.0, 0.0, 1.0]]),
    "regression": np.array([[1.5], [2.0], [1 / 3], [-1e-20], [4.0]]),
}
ANSWERS: dict[str, Answers] = {
    task: DecisionRule(task).decide(scores)  # type: ignore[arg-type]
    for task, scores in SCORES.items()
}
PREDICTED: dict[str, list[Any]] = {
    "single": ["good", "bad", "fair", "bad", "good"],
    "multi": [["drama", "war"], [], ["fun"], ["drama"], ["war"]],
    "regression": [1.5, 2.0, 1 / 3, -1e-20, 4.0],
}


def source() -> pa.Table:
    return pa.table({"text": TEXTS, "id": ["007", "", "NA", "1e5", "5"]})


@pytest.fixture(params=["single", "multi", "regression"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_csv(tmp_path: Path, task: str) -> None:
    out = tmp_path / "out.csv"
    write_predictions(source(), ANSWERS[task], out, label_set=LABELS[task])
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == ["007", "", "NA", "1e5", "5"]
    predicted = [row["predicted"] for row in rows]
    assert (predicted if task == "single" else [json.loads(cell) for cell in predicted]) == PREDICTED[task]
    if task == "single":
        assert [float(row["score"]) for row in rows] == [0.7, 0.5, 0.8, 0.4, 1.0]
    elif task == "multi":
        assert json.loads(rows[0]["score"]) == [0.9, 0.7]
        assert rows[1]["predicted"] == rows[1]["score"] == "[]"
    else:
        assert "score" not in rows[0]


def test_jsonl(tmp_path: Path, task: str) -> None:
    out = tmp_path / "out.jsonl"
    write_predictions(source(), ANSWERS[task], out, label_set=LABELS[task])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["predicted"] for row in rows] == PREDICTED[task]
    assert "中" in out.read_text(encoding="utf-8")


def test_parquet_keeps_every_type(tmp_path: Path, task: str) -> None:
    out = tmp_path / "out.parquet"
    table = source().append_column("tags", pa.array([["a"], [], None, ["b", "c"], ["d"]]))
    write_predictions(table, ANSWERS[task], out, label_set=LABELS[task])
    got = pq.read_table(out)
    assert got.select(table.column_names).equals(table)
    assert got.column("predicted").to_pylist() == PREDICTED[task]


def test_tsv_is_plain(tmp_path: Path) -> None:
    table = pa.table({"text": ['say "hi"', "中"], "n": [1, None]})
    write_predictions(table, ANSWERS["multi"].take(slice(0, 2)), tmp_path / "out.tsv", label_set=LABELS["multi"])
    lines = (tmp_path / "out.tsv").read_bytes().decode().split("\n")
    assert lines == [
        "text\tn\tpredicted\tscore",
        'say "hi"\t1\t["drama", "war"]\t[0.9, 0.7]',
        "中\t\t[]\t[]",
        "",
    ]
    with pytest.raises(BadInput, match="a cell of row 3"):
        write_predictions(source(), ANSWERS["single"], tmp_path / "new.tsv", label_set=LABELS["single"])
    assert not (tmp_path / "new.tsv").exists()


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
def test_slices_do_not_show(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["a", "b", "c", "d", "e"]})

    def written() -> bytes:
        out = io.BytesIO()
        write_predictions(table, ANSWERS["multi"], out, label_set=LABELS["multi"], format=format)
        return out.getvalue()

    whole = written()
    monkeypatch.setattr(tables, "_SLICE_ROWS", 2)
    sliced = written()
    if format == "parquet":
        assert pq.read_table(io.BytesIO(sliced)).equals(pq.read_table(io.BytesIO(whole)))
    else:
        assert sliced == whole
        assert sliced.count(b"\n") == 5 + (format != "jsonl")


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
def test_no_rows_give_a_header(format: str) -> None:
    out = io.BytesIO()
    write_predictions(
        source().slice(0, 0),
        DecisionRule("single").decide(np.zeros((0, 3))),
        out,
        label_set=LABELS["single"],
        format=format,
        all_scores=True,
    )
    names = ["text", "id", "predicted", "score", "score_bad", "score_fair", "score_good"]
    if format == "parquet":
        assert pq.read_table(io.BytesIO(out.getvalue())).column_names == names
    elif format == "jsonl":
        assert out.getvalue() == b""
    else:
        delimiter = "," if format == "csv" else "\t"
        assert next(csv.reader(io.StringIO(out.getvalue().decode()), delimiter=delimiter)) == names


def test_a_stream_stays_open_and_is_csv() -> None:
    out = io.BytesIO()
    write_predictions(source(), ANSWERS["single"], out, label_set=LABELS["single"])
    out.write(b"after")
    assert out.getvalue().startswith(b'"text","id","predicted","score"\n')


def test_all_scores_and_thresholds(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write_predictions(
        source(),
        DecisionRule("multi", thresholds=(0.95, 0.1, 0.6)).decide(SCORES["multi"]),
        out,
        label_set=LABELS["multi"],
        all_scores=True,
    )
    first = json.loads(out.read_text(encoding="utf-8").split("\n")[0])
    assert first["predicted"] == ["fun", "war"]
    assert first["score"] == [0.2, 0.7]
    assert [first[f"score_{name}"] for name in ("drama", "fun", "war")] == [0.9, 0.2, 0.7]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_without_an_answer(tmp_path: Path, suffix: str) -> None:
    rule = DecisionRule("single", least_score=0.45, scope=Scope("max_probability", 0.95))
    answers = rule.decide(SCORES["single"], np.array([0.99, 0.97, 0.5, 0.99, 1.0]))
    table, out = pa.table({"id": [1, 2, 3, 4, 5]}), tmp_path / f"out.{suffix}"
    write_predictions(table, answers, out, label_set=LABELS["single"], refuses=True)
    predicted, why = ["good", "bad", None, None, "good"], [None, None, "out of scope", "low score", None]
    if suffix == "parquet":
        read = pq.read_table(out)
        assert read.column_names == ["id", "predicted", "score", "refused"]
        assert (read["predicted"].to_pylist(), read["refused"].to_pylist()) == (predicted, why)
        assert read["score"].to_pylist() == [0.7, 0.5, 0.8, 0.4, 1.0]
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [(row["predicted"], row["refused"]) for row in rows] == list(zip(predicted, why, strict=True))
    else:
        with open(out, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="," if suffix == "csv" else "\t"))
        assert [row["predicted"] for row in rows] == [name or "" for name in predicted]
        assert [row["refused"] for row in rows] == [reason or "" for reason in why]
    with pytest.raises(BadInput, match="a column 'refused' already"):
        check_output(["refused"], out, label_set=LABELS["single"], refuses=True)
    assert check_output(["refused"], out, label_set=LABELS["single"]) == suffix


def test_columns_of_other_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a"],
            "list": [["x", 'y"']],
            "struct": [{"k": 1}],
            "when": [datetime.datetime(2026, 1, 2, 3, 4)],
            "day": [datetime.date(2026, 1, 2)],
            "took": [datetime.timedelta(seconds=90)],
            "price": [Decimal("1.50")],
            "raw": [b"\x00\xff"],
            "nan": [float("nan")],
            "nothing": pa.nulls(1),
            "kind": pa.array(["c"]).dictionary_encode(),
            "yes": [True],
        }
    )
    for name in ("out.csv", "out.tsv", "out.jsonl"):
        write_predictions(table, ANSWERS["single"].take(slice(0, 1)), tmp_path / name, label_set=LABELS["single"])
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        in_csv = next(csv.DictReader(file))
    assert json.loads(in_csv["list"]) == ["x", 'y"']
    assert json.loads(in_csv["struct"]) == {"k": 1}
    assert in_csv["when"].startswith("2026-01-02 03:04:00")
    got = [in_csv[name] for name in ("day", "took", "price", "raw", "nothing", "kind", "yes")]
    assert got == ["2026-01-02", "0:01:30", "1.50", "AP8=", "", "c", "true"]
    in_json = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (in_json["nan"], in_json["nothing"], in_json["yes"]) == (None, None, True)
    assert in_json["list"] == ["x", 'y"']
    assert in_json["when"] == "2026-01-02T03:04:00"
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").count("\n") == 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_text_survives_csv_and_jsonl(texts: list[str]) -> None:
    table = pa.table({"text": pa.array(texts, pa.string())})
    answers = DecisionRule("single").decide(np.tile([[0.2, 0.3, 0.5]], (len(texts), 1)))
    out = io.BytesIO()
    write_predictions(table, answers, out, label_set=LABELS["single"])
    rows = list(csv.reader(io.StringIO(out.getvalue().decode(), newline="")))
    assert [row[0] for row in rows[1:]] == texts
    out = io.BytesIO()
    write_predictions(table, answers, out, label_set=LABELS["single"], format="jsonl")
    assert [json.loads(line)["text"] for line in out.getvalue().split(b"\n")[:-1]] == texts


def test_what_cannot_be_written(tmp_path: Path) -> None:
    labels = LABELS["single"]
    with pytest.raises(BadInput, match=r"suffix '\.xlsx'"):
        check_output(["text"], tmp_path / "out.xlsx", label_set=labels)
    with pytest.raises(BadInput, match="the format 'xml'"):
        check_output(["text"], tmp_path / "out.csv", label_set=labels, format="xml")
    with pytest.raises(BadInput, match="a column 'predicted' already"):
        check_output(["text", "predicted"], tmp_path / "out.csv", label_set=labels)
    assert check_output(["score_bad"], tmp_path / "OUT.CSV", label_set=labels) == "csv"
    with pytest.raises(BadInput, match="a column 'score_bad' already"):
        check_output(["score_bad"], tmp_path / "out.csv", label_set=labels, all_scores=True)
    with pytest.raises(BadInput, match="a table of 5 rows"):
        write_predictions(source(), ANSWERS["single"].take(slice(0, 4)), tmp_path / "out.csv", label_set=labels)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFailed, match="could not write"):
        write_predictions(source(), ANSWERS["single"], tmp_path / "file" / "out.csv", label_set=labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def written(column: Any, suffix: str, folder: Path) -> bytes:
    """A table of one column beside the texts, as it is written."""
    table = pa.table({"text": TEXTS[:1] * len(column), "n": column})
    answers = DecisionRule("regression").decide(np.tile(SCORES["regression"][:1], (len(column), 1)))
    write_predictions(table, answers, folder / f"out.{suffix}", label_set=LABELS["regression"])
    return (folder / f"out.{suffix}").read_bytes()


def test_values_of_several_kinds_come_back(tmp_path: Path) -> None:
    values = [1, "1", "two, words", None, {"a": [True, 2**70]}, [], 0.1]
    lines = written(json_array(values), "jsonl", tmp_path).decode().splitlines()
    assert repr([json.loads(line)["n"] for line in lines]) == repr(values)
    with io.StringIO(written(json_array(values), "csv", tmp_path).decode(), newline="") as file:
        cells = [row["n"] for row in csv.DictReader(file)]
    assert cells == ["1", "1", "two, words", "", '{"a": [true, 1180591620717411303424]}', "[]", "0.1"]
    written(json_array(values), "parquet", tmp_path)
    back = pq.read_table(tmp_path / "out.parquet")["n"].to_pylist()
    assert back == [None if value is None else json.dumps(value) for value in values]


def test_times_that_python_has_no_type_for(tmp_path: Path) -> None:
    columns = {
        "1970-01-01T00:00:01.000000001": pa.array([10**9 + 1], pa.timestamp("ns")),
        "00:00:00.000000005": pa.array([5], pa.time64("ns")),
        "5": pa.array([5], pa.duration("ns")),
        "2941775-04-07": pa.array([2**30], pa.int32()).cast(pa.date32()),
        "1970-01-01T00:00:00.000000007+00:00": pa.array([7], pa.timestamp("ns", tz="Europe/Berlin")),
    }
    for text, column in columns.items():
        assert json.loads(written(column, "jsonl", tmp_path))["n"] == text
        assert written(column, "tsv", tmp_path).decode().splitlines()[1].split("\t")[1] == text
    assert b"2941775-04-07" in written(columns["2941775-04-07"], "csv", tmp_path)


def test_tsv_is_checked_before_any_work() -> None:
    told: dict[str, Any] = {"label_set": LABELS["single"], "out": "out.tsv"}
    good = pa.table({"text": ["a", "b"], "n": [1, 2], "j": json_array([["x\ny"], 1])})
    check_table(good, **told)
    place = Place.of("t.csv", first=10, locate=lambda rows: [f"line {row}" for row in rows])
    for bad in (["a", "b\tc"], ["a", "\n"], [None, "\r"], pa.array(["a", "\n"]).dictionary_encode()):
        table = pa.table({"text": bad})
        with pytest.raises(BadInput, match=r"t\.csv: a tab or a line break in 'text', in line 11"):
            check_table(table, where=place, **told)
        check_table(table, **told | {"out": "out.csv"})
    with pytest.raises(BadInput, match="in 'j', in row 2"):
        check_table(pa.table({"j": json_array([1, "\t"])}), **told)
    with pytest.raises(BadInput, match="a tab or a line break in a name"):
        check_table(pa.table({"a\tb": ["x"]}), **told)
    with pytest.raises(BadInput, match=r"t\.csv has a column 'predicted' already"):
        check_table(pa.table({"predicted": ["x"]}), where=place, **told)
