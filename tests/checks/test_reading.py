"""Tables as they are checked: what can be used, where it is, and what stops any checking."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checking
from snapfit.checks import reading
from snapfit.checks.reading import Source, slabs
from snapfit.core.errors import BadInput
from snapfit.data.large_records import LargeRecords
from snapfit.data.records import Records, read_records

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


def put(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


def test_bad_rows_are_set_aside_with_their_places(tmp_path: Path) -> None:
    table = put(tmp_path / "t.csv", 'text,label\na,x\nb\n"c\nd",y\ne,\n,x\nf,y\n')
    split = checking.splits_of(train=table)["train"]
    assert split.records.texts.to_pylist() == ["a", "c\nd", "", "f"]
    assert split.places.numbers(np.arange(4)).tolist() == [2, 4, 7, 8]
    assert split.places.of(1) == (tmp_path / "t.csv", "line", 4)
    assert [line.first for _, line in split.unreadable] == [3]
    (missing,) = split.unusable.values()
    assert missing.numbers(np.arange(1)).tolist() == [6]
    assert (split.n_read, len(split), split.table.num_rows) == (5, 4, 4)


def test_rows_of_a_folder_are_in_their_files(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", '{"text":"a","label":"x"}\nnot json\n')
    put(tmp_path / "b.jsonl", '\n{"text":"b","label":"y"}\n{"text":"c","label":null}\n{"text":"d","label":"x"}\n')
    split = checking.splits_of(train=str(tmp_path))["train"]
    assert split.records.texts.to_pylist() == ["a", "b", "d"]
    assert [split.places.of(row) for row in range(3)] == [
        (tmp_path / "a.jsonl", "line", 1),
        (tmp_path / "b.jsonl", "line", 2),
        (tmp_path / "b.jsonl", "line", 4),
    ]
    assert split.places.file_of(np.arange(3)).tolist() == [0, 1, 1]
    with pytest.raises(IndexError):
        split.places.of(3)


def test_tables_in_memory_are_numbered_from_one() -> None:
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": ["x", "y", "x"]})
    split = checking.splits_of(train=frame)["train"]
    assert split.places.of(1) == (None, "row", 3)
    assert split.unusable["missing_text"].numbers(np.arange(1)).tolist() == [2]
    assert not split.is_file


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", None]}), tmp_path / "t.parquet")
    split = checking.splits_of(train=str(tmp_path / "t.parquet"))["train"]
    assert split.unusable["missing_label"].numbers(np.arange(1)).tolist() == [2]


def test_another_split_is_read_by_the_columns_of_the_first(tmp_path: Path) -> None:
    train = [{"body": "a", "text": "b", "kind": "x"}, {"body": "c", "text": "d", "kind": "y"}]
    test = put(tmp_path / "t.csv", "body,text\ne,f\n")
    splits = checking.splits_of(Source(text="body", label="kind"), train=train, test=test)
    assert splits["test"].records.texts.to_pylist() == ["e"]
    assert splits["test"].records.labels is None


def test_a_large_table_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": None if i % 7 == 0 else f"text {i}", "label": "xy"[i % 2]} for i in range(50)]
    small = checking.splits_of(train=rows)["train"]
    monkeypatch.setattr(reading, "POOL_ROWS", 20)
    monkeypatch.setattr(reading, "SLAB_ROWS", 8)
    large = checking.splits_of(train=rows)["train"]
    assert isinstance(large.records, LargeRecords)
    for split in (small, large):
        parts = list(slabs(split.records, 8))
        assert [part.start for part in parts] == list(range(0, 42, 8))
        assert [text for part in parts for text in part.texts.to_pylist()] == [r["text"] for r in rows if r["text"]]
        assert [label for part in parts for label in part.labels] == [r["label"] for r in rows if r["text"]]
    assert np.array_equal(small.places.rows, large.places.rows)
    assert large.table.equals(small.table)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "text,label\n", "no rows"),
        ("t.csv", "words,label\na,x\n", "no column of texts|one text"),
        ("t.tsv", "text\tlabel\n" + "a\n" * 30 + "b\tx\n", "cells"),
        ("t.csv", "text,label\na,\nb,\n", "is empty"),
        ("t.csv", "text,label\n,x\n,y\n", "every text"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b"}\n', "no column of labels"),
    ],
)
def test_what_stops_any_checking_is_one_error(tmp_path: Path, name: str, text: str, words: str) -> None:
    table = put(tmp_path / name, text)
    if "words" in text:
        table = put(tmp_path / name, "n,m,label\na,b,x\n")
    with pytest.raises(BadInput, match=words):
        checking.splits_of(train=table)


def test_a_few_bad_rows_of_a_tiny_table_are_no_other_file(tmp_path: Path) -> None:
    split = checking.splits_of(train=put(tmp_path / "t.tsv", "text\tlabel\na\tx\nb\nc\n"))["train"]
    assert (len(split), len(split.unreadable)) == (1, 2)


# ---------------------------------------------------------------- damaged files: what training refuses, a check names

BASES = {
    "t.csv": b'text,label\r\nan ordinary text,x\r\n"a, quoted ""one""",y\r\n\r\n"of two\nlines",x\r\nlast,y',
    "t.tsv": "text\tlabel\nan ordinary text\tx\n中文\ty\n\nlast\tx\n".encode(),
    "t.jsonl": b'{"text": "ordinary", "label": "x"}\n\n{"text": "\\u00e9", "label": "y"}\n{"text": "c", "label": "x"}',
    "t.json": b'[{"text": "an ordinary text", "label": "x"},\n {"text": "b", "label": "y"}]\n',
}
NASTY = [
    b"\xff",
    b"\0",
    b'"',
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b" ",
    b":",
]
NASTY += [b"\xef\xbb\xbf", "é".encode("cp1252"), b"1e999", b"NaN", b""]


@SAME_FOLDER
@given(
    name=st.sampled_from(sorted(BASES)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(NASTY)), max_size=4),
)
def test_of_a_damaged_file_all_is_read_or_something_is_told(
    tmp_path: Path, name: str, edits: list[tuple[float, int, bytes]]
) -> None:
    content = BASES[name]
    for share, cut, piece in edits:
        at = round(share * len(content))
        content = content[:at] + piece + content[at + cut :]
    (tmp_path / name).write_bytes(content)
    strict: Records | None
    try:
        strict = read_records(str(tmp_path / name))
    except BadInput:
        strict = None
    try:
        split = checking.splits_of(train=str(tmp_path / name))["train"]
    except BadInput:
        assert strict is None
        return
    if strict is None:
        assert split.unreadable or split.unusable
    else:
        assert not split.unreadable
        assert not split.unusable
        assert split.records.texts.equals(strict.texts)
        assert split.records.labels == strict.labels
    every = [split.places, *split.unusable.values()]
    assert len({place.of(row) for place in every for row in range(len(place.rows))}) == split.n_read
