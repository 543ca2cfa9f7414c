"""`snapfit predict`: every way in, every way out, the same answers."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import snapfit
import trained


@pytest.fixture(scope="module")
def rows(workplace: Path) -> list[dict[str, str]]:
    with open(workplace / "test.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def expected(workplace: Path, rows: list[dict[str, str]]) -> tuple[list[str], np.ndarray]:
    predictor = snapfit.load(workplace / "single/bundle")
    texts = [row["text"] for row in rows]
    return predictor.predict(texts), predictor.scores(texts)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_in_and_out(
    run: Any, workplace: Path, rows: list[dict[str, str]], expected: Any, source: str, target: str
) -> None:
    table = Path(f"in.{source}")
    if source == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif source == "jsonl":
        trained.write_jsonl(table, rows)
    else:
        content = "".join(f"{row['text']}\t{row['label']}\n" for row in [{"text": "text", "label": "label"}, *rows])
        table.write_text(content if source == "tsv" else content.replace("\t", ","))
    outcome = run("predict", workplace / "single/bundle", table, "--out", f"out.{target}")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert f"{len(rows)} answers to out.{target}" in outcome.out
    answers = read(Path(f"out.{target}"))
    assert [(row["text"], row["label"]) for row in answers] == [(row["text"], row["label"]) for row in rows]
    assert [row["predicted"] for row in answers] == expected[0]
    assert np.allclose([float(row["score"]) for row in answers], expected[1].max(axis=1), atol=1e-6)


def test_table_to_standard_output(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    outcome = run("predict", workplace / "single/bundle", workplace / "test.csv")
    assert outcome.code == 0
    assert [row["predicted"] for row in csv.DictReader(io.StringIO(outcome.out))] == expected[0]
    lines = run("predict", workplace / "single/bundle", workplace / "test.csv", "--format", "jsonl", "--out", "-")
    assert [json.loads(line)["predicted"] for line in lines.out.splitlines()] == expected[0]


def test_lines_of_standard_input(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    text = "\r\n".join(row["text"] for row in rows)
    outcome = run("predict", workplace / "single/bundle", "-", stdin=b"\xef\xbb\xbf" + text.encode())
    assert outcome.code == 0, outcome.err
    answers = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["text"] for row in answers] == [row["text"] for row in rows]
    assert [row["predicted"] for row in answers] == expected[0]


def test_an_empty_line_is_an_empty_text(run: Any, workplace: Path) -> None:
    outcome = run("predict", workplace / "single/bundle", "-", "--format", "jsonl", stdin=b"bread\n\nsoup\n")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["bread", "", "soup"]


def test_standard_input_in_another_encoding(run: Any, workplace: Path) -> None:
    outcome = run(
        "predict", workplace / "single/bundle", "-", "--encoding", "gb18030", "--json",
        stdin="我想取消\n".encode("gb18030"),
    )  # fmt: skip
    assert json.loads(outcome.out)["answers"][0]["text"] == "我想取消"


def test_texts_of_the_command_line(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    texts = [part for row in rows[:3] for part in ("--text", row["text"])]
    outcome = run("predict", workplace / "single/bundle", *texts, "--all-scores")
    answers = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["predicted"] for row in answers] == expected[0][:3]
    scores = [[float(row[f"score_{name}"]) for name in ("animals", "food", "tools")] for row in answers]
    assert np.allclose(scores, expected[1][:3], atol=1e-6)


def test_json_carries_the_answers_or_a_summary(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    outcome = run("predict", workplace / "single/bundle", workplace / "test.csv", "--json")
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    assert result["rows"] == len(rows)
    assert result["out"] is None
    assert [answer["predicted"] for answer in result["answers"]] == expected[0]
    assert result["given"] == {name: expected[0].count(name) for name in result["given"]}
    filed = run("predict", workplace / "single/bundle", workplace / "test.csv", "--json", "--out", "a.csv")
    summary = json.loads(filed.out)
    assert summary["out"] == "a.csv"
    assert "answers" not in summary
    assert "30 answers" in filed.err


@pytest.fixture
def _in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.runtime.parts.WHOLE_BYTES", -1)
    monkeypatch.setattr("snapfit.runtime.parts.PART_ROWS", 7)


@pytest.mark.usefixtures("_in_parts")
def test_a_large_table_is_answered_in_parts(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    outcome = run("predict", workplace / "single/bundle", workplace / "test.csv", "--json", "--out", "a.csv")
    assert outcome.code == 0, outcome.err
    assert [row["predicted"] for row in read(Path("a.csv"))] == expected[0]
    assert json.loads(outcome.out)["given"] == {name: expected[0].count(name) for name in set(expected[0])}
    carried = json.loads(run("predict", workplace / "single/bundle", workplace / "test.csv", "--json").out)
    assert [answer["predicted"] for answer in carried["answers"]] == expected[0]
    stream = run("predict", workplace / "single/bundle", "-", stdin="\n".join(row["text"] for row in rows).encode())
    assert [row["predicted"] for row in csv.DictReader(io.StringIO(stream.out))] == expected[0]


def test_pairs(run: Any, workplace: Path) -> None:
    bundle = workplace / "pairs/bundle"
    predictor = snapfit.load(bundle)
    pair = ("the bread here", "a saw and this nail")
    expected = predictor.predict(pair)
    for arguments, stdin in ((["--text", "\t".join(pair)], b""), (["-"], "\t".join(pair).encode())):
        outcome = run("predict", bundle, *arguments, "--json", stdin=stdin)
        (answer,) = json.loads(outcome.out)["answers"]
        assert (answer["sentence1"], answer["sentence2"]) == pair
        assert answer["predicted"] == expected
    assert run("predict", bundle, workplace / "pairs.csv", "--out", "a.csv").code == 0
    assert len(read(Path("a.csv"))) == 90


def test_other_column_names_and_an_unlabelled_table(run: Any, workplace: Path, rows: Any, expected: Any) -> None:
    trained.write_csv(Path("in.csv"), [{"id": str(i), "review": row["text"]} for i, row in enumerate(rows)])
    outcome = run("predict", workplace / "single/bundle", "in.csv", "--text-column", "review", "--out", "a.jsonl")
    assert outcome.code == 0, outcome.err
    answers = read(Path("a.jsonl"))
    assert [(row["id"], row["predicted"]) for row in answers] == [(str(i), p) for i, p in enumerate(expected[0])]


def test_an_existing_file_is_replaced(run: Any, workplace: Path) -> None:
    Path("a.csv").write_text("old")
    assert run("predict", workplace / "single/bundle", workplace / "test.csv", "--out", "a.csv").code == 0
    assert len(read(Path("a.csv"))) == 30
    assert [path.name for path in Path().iterdir()] == ["a.csv"]
