"""Cleaned copies: what is left out and what stays, byte for byte; the log says all of it; originals are untouched."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import checking
from snapfit.checks import cleaning
from snapfit.checks.cleaning import Cleaned, check_target, rows_to_drop, write_cleaned
from snapfit.checks.near_rows import find_near_rows
from snapfit.checks.reading import Source
from snapfit.checks.texts import survey_texts
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.data.formats import read_table

TRAIN = 'text,label|keep one,x|,y|in valid,x|KEEP ONE ,x|keep one,y|bad||"two|lines",y|no label,|'.replace("|", "\r\n")
VALID = "text,label\nin valid,x\nanother,y\nanother,y\nhalf a row\n"


def clean(
    folder: Path, tables: Mapping[str, Path], *, drop: Sequence[str] = (), near: bool = False, **asked: Any
) -> Cleaned:
    splits, index = checking.indexed(Source(**asked), **{name: str(path) for name, path in tables.items()})
    empty = survey_texts(splits["train"]).rows["empty_text"]
    found = find_near_rows(splits, index, similarity=0.9, told=lambda text: None) if near else None
    dropped, kept = rows_to_drop(splits, index, empty, found, drop)
    options = {"encoding": asked.get("encoding", "utf-8"), "format": asked.get("format", "auto")}
    return write_cleaned(folder, splits, tables, dropped, kept, **options)


def log_of(cleaned: Cleaned) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cleaned.log.read_text("utf-8").splitlines()]


def put(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def test_rows_are_left_out_kind_by_kind_and_the_rest_stays_byte_for_byte(tmp_path: Path) -> None:
    tables = {"train": put(tmp_path / "train.csv", TRAIN), "valid": put(tmp_path / "valid.csv", VALID)}
    before = {name: path.read_bytes() for name, path in tables.items()}
    cleaned = clean(tmp_path / "out", tables)
    assert cleaned.tables["train"].read_bytes() == (
        b'text,label\r\nkeep one,x\r\nkeep one,y\r\n\r\n"two\r\nlines",y\r\n'
    )
    assert cleaned.tables["valid"].read_bytes() == b"text,label\nin valid,x\nanother,y\nanother,y\n"
    assert {name: path.read_bytes() for name, path in tables.items()} == before
    changes = log_of(cleaned)
    assert [(c["split"], c["number"], c["kind"], c["before"]) for c in changes] == [
        ("train", 3, "empty_text", ",y"),
        ("train", 4, "leak", "in valid,x"),
        ("train", 5, "duplicate_text", "KEEP ONE ,x"),
        ("train", 7, "unreadable_row", "bad"),
        ("train", 11, "missing_label", "no label,"),
        ("valid", 5, "unreadable_row", "half a row"),
    ]
    assert {(c["counted"], c["after"]) for c in changes} == {("line", None)}
    assert cleaned.left_out["valid"] == {"unreadable_row": 1}
    assert cleaned.to_dict()["log"] == str(tmp_path / "out" / "changes.jsonl")


def test_conflicting_labels_go_when_they_are_named(tmp_path: Path) -> None:
    tables = {"train": put(tmp_path / "t.tsv", "text\tlabel\na\tx\nb\ty\nA\ty\nc\tx\n")}
    assert clean(tmp_path / "kept", tables).left_out == {}
    cleaned = clean(tmp_path / "gone", tables, drop=["conflicting_labels"])
    assert cleaned.tables["train"].read_text() == "text\tlabel\nb\ty\nc\tx\n"


def test_near_leaks_go_when_they_are_named(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    late = "the train to the coast is late\tx\n"
    train = f"text\tlabel\n{late}another text altogether\ty\n{late}b\tx\n"
    tables = {
        "train": put(tmp_path / "t.tsv", train),
        "valid": put(tmp_path / "v.tsv", "text\tlabel\nthe train to the coast is late!!\tx\n"),
    }
    assert clean(tmp_path / "kept", tables, near=True).left_out == {"train": {"duplicate_text": 1}}
    cleaned = clean(tmp_path / "gone", tables, drop=["near_leak"], near=True)
    assert cleaned.tables["train"].read_text() == "text\tlabel\nanother text altogether\ty\nb\tx\n"


def test_a_row_stays_when_its_label_would_be_lost(tmp_path: Path) -> None:
    tables = {
        "train": put(tmp_path / "t.tsv", "text\tlabel\na\tx\nb\ty\nc\tx\n"),
        "valid": put(tmp_path / "v.tsv", "text\tlabel\nb\ty\na\tx\n"),
    }
    cleaned = clean(tmp_path / "out", tables)
    assert cleaned.tables["train"].read_text() == "text\tlabel\nb\ty\nc\tx\n"
    assert cleaned.kept == 1
    assert [(c["number"], c["kind"]) for c in log_of(cleaned)] == [(2, "leak"), (3, "kept")]


def test_no_label_is_ever_lost() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        train = [(f"t{rng.integers(6)}", f"l{rng.integers(5)}") for _ in range(12)]
        valid = [(f"t{rng.integers(6)}", "l0") for _ in range(4)]
        splits, index = checking.indexed(train=train, valid=valid)
        dropped, _ = rows_to_drop(splits, index, np.zeros(0, dtype=np.int64), None, ["conflicting_labels"])
        gone = {row for rows in dropped["train"].values() for row in rows.tolist()}
        assert {label for i, (_, label) in enumerate(train) if i not in gone} == {label for _, label in train}
        assert sum(map(len, dropped["train"].values())) == len(gone)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_other_encodings_stay_what_they_are(tmp_path: Path, encoding: str) -> None:
    tables = {"train": put(tmp_path / "t.tsv", "text\tlabel\n好\tx\n\ty\n好\tx\n中\ty\n", encoding)}
    cleaned = clean(tmp_path / "out", tables, encoding=encoding)
    table = read_table(cleaned.tables["train"], encoding=encoding)
    assert table.to_pylist() == [{"text": "好", "label": "x"}, {"text": "中", "label": "y"}]
    assert [c["before"] for c in log_of(cleaned)] == ["\ty", "好\tx"]


def test_parquet_keeps_its_schema_and_compression(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), ("label", pa.dictionary(pa.int8(), pa.string()))], {"made by": "hand"})
    table = pa.table({"text": ["a", "", "b", "a"], "label": ["x", "y", "y", "x"]}).cast(schema)
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd", row_group_size=2)
    cleaned = clean(tmp_path / "out", {"train": tmp_path / "t.parquet"})
    copy = pq.ParquetFile(cleaned.tables["train"])
    assert copy.read().to_pylist() == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert copy.schema_arrow.metadata[b"made by"] == b"hand"
    assert copy.schema_arrow.field("label").type == schema.field("label").type
    assert (copy.num_row_groups, copy.metadata.row_group(0).column(0).compression) == (2, "ZSTD")
    assert [(c["number"], json.loads(c["before"])) for c in log_of(cleaned)] == [
        (2, {"text": "", "label": "y"}),
        (4, {"text": "a", "label": "x"}),
    ]


def test_json_lines_arrays_and_folders(tmp_path: Path) -> None:
    put(tmp_path / "parts" / "a.jsonl", '{"text": "a", "label": "x", "n": 1.50}\n{"text": "", "label": "y", "n": 0}\n')
    put(
        tmp_path / "parts" / "b.jsonl", '{"text": "A", "label": "x", "n": 2}\n{"text": "b", "label": "y", "n": 3}\nno\n'
    )
    cleaned = clean(tmp_path / "out", {"train": tmp_path / "parts"})
    assert (cleaned.tables["train"] / "a.jsonl").read_text() == '{"text": "a", "label": "x", "n": 1.50}\n'
    assert (cleaned.tables["train"] / "b.jsonl").read_text() == '{"text": "b", "label": "y", "n": 3}\n'
    items = put(
        tmp_path / "t.json",
        '[{"text": "a", "label": "x"}, {"text": "a", "label": "x"}, 7, {"text": "b", "label": "y"}]',
    )
    cleaned = clean(tmp_path / "items", {"train": items})
    assert [row["text"] for row in json.loads(cleaned.tables["train"].read_text())] == ["a", "b"]
    assert [(c["counted"], c["number"], c["before"]) for c in log_of(cleaned)][1] == ("item", 3, "7")


def test_tables_of_one_name_do_not_take_each_others_place(tmp_path: Path) -> None:
    tables = {
        "train": put(tmp_path / "a" / "data.csv", "text,label\na,x\nb,y\n"),
        "valid": put(tmp_path / "b" / "data.csv", "text,label\nc,x\n"),
        "test": put(tmp_path / "changes.jsonl", '{"text": "d", "label": "x"}\n'),
    }
    cleaned = clean(tmp_path / "out", tables)
    assert [path.name for path in cleaned.tables.values()] == ["data.csv", "valid-data.csv", "test-changes.jsonl"]
    assert cleaned.log.read_text() == ""


def test_nothing_is_left_when_a_copy_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"train": put(tmp_path / "t.csv", TRAIN)}

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cleaning, "write_without", fail)
    with pytest.raises(WorkFailed, match="No space left"):
        clean(tmp_path / "out", tables)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


def test_what_cannot_be_cleaned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    put(tmp_path / "full" / "x", "")
    for folder, sources, drop, words in [
        (tmp_path / "full", {"train": "t.csv"}, [], "exists already"),
        (tmp_path / "full" / "x", {"train": "t.csv"}, [], "exists already"),
        (tmp_path / "new", {"train": [("a", "x")]}, [], "no file"),
        (tmp_path / "new", {"train": "t.csv"}, ["duplicates"], "--drop duplicates"),
    ]:
        with pytest.raises(BadInput, match=words):
            check_target(folder, sources, drop)  # type: ignore[arg-type]
    check_target(tmp_path / "new", {"train": "t.csv"}, ["near_leak"])
