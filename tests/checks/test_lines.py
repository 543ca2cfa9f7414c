"""Rows of files and lines that are none: the same rows that reading takes, and every bad line with its reason."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapfit.checks.lines import array_items, rows_as_written, rows_of_file, sift_file, write_without
from snapfit.core.errors import BadInput
from snapfit.data.formats import read_table, table_files

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
CELL = st.text(st.sampled_from('ab",\n\t é中'), max_size=6)


def put(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def kind_of(path: Path) -> str:
    return table_files(path)[path]


# ---------------------------------------------------------------- the rows of good files


@SAME_FOLDER
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), ends=st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_of_csv_are_those_that_are_read_and_lines_are_where_they_stand(
    tmp_path: Path, rows: list[tuple[str, str]], ends: str
) -> None:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if ends == "\r" else csv.QUOTE_MINIMAL  # the writer quotes what ends its own lines
    writer = csv.writer(text, lineterminator=ends, quoting=quoting)
    writer.writerows([("one", "other"), *rows])
    path = put(tmp_path / "t.csv", text.getvalue())
    found = rows_of_file(path, "csv", "utf-8")
    assert len(found) == read_table(path).num_rows
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)", text.getvalue())
    whole = ["".join(lines[a - 1 : b]) for a, b in zip(found.first, found.last, strict=True)]
    assert [next(csv.reader(io.StringIO(row, newline=""))) for row in whole] == [list(row) for row in rows]


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("t.tsv", "text\tlabel\na\tx\n\nb\ty", [2, 4]),
        ("t.tsv", "text\tlabel\r\na\tx\r\n\r\nb\ty\r\n", [2, 4]),
        ("t.tsv", "text\na\n\nb\n", [2, 3, 4]),
        ("t.jsonl", '\n{"text": "a"}\n\n{"text": "b"}\n', [2, 4]),
        ("t.csv", '\ufefftext,label\n\n"a\nb",x\nc,y\n', [3, 5]),
        ("t.json", '[{"text": "a"},\n {"text": "]"}]', [1, 2]),
    ],
)
def test_rows_are_numbered_as_an_editor_numbers_lines(
    tmp_path: Path, name: str, content: str, lines: list[int]
) -> None:
    path = put(tmp_path / name, content)
    found = rows_of_file(path, kind_of(path), "utf-8")
    assert found.first.tolist() == lines
    assert len(found) == read_table(path).num_rows


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig", "cp1252"])
def test_other_encodings_have_the_same_rows(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path / "t.tsv", "text\tlabel\ncafé\tx\nthé\ty\n", encoding)
    assert rows_of_file(path, "tsv", encoding).first.tolist() == [2, 3]
    assert sift_file(path, "tsv", encoding).first.tolist() == [2, 3]


def test_rows_of_parquet_are_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "t.parquet")
    found = sift_file(tmp_path / "t.parquet", "parquet", "utf-8")
    assert (found.first.tolist(), found.word) == ([1, 2, 3], "row")


# ---------------------------------------------------------------- lines that are no row


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        ("t.tsv", "text\tlabel\na\tx\nb\nc\ty\td\n\ne\ty\n", [2, 6], {3: "1 cells", 4: "3 cells"}),
        ("t.tsv", b"text\tlabel\na\tx\n\xff\tx\nb\ty\n\0c\ty\n", [2, 4], {3: "not UTF-8", 5: "NUL"}),
        ("t.csv", "text,label\na,x\nb\nc,y,z\nd,y\n", [2, 5], {3: "1 cells", 4: "3 cells"}),
        ("t.csv", 'text,label\n"a"b,x\nc,y\n', [3], {2: "expected after"}),
        ("t.csv", 'text,label\na,x\n"b,x\nc,y\nd,z\n', [2, 4, 5], {3: "never closed"}),
        ("t.csv", b'text,label\na,x\n"b\n\xff",x\nc,y\n', [2, 5], {3: "not UTF-8"}),
        ("t.jsonl", '{"text":"a"}\n[1]\n{"text":\n{"text":"b"}\n', [1, 4], {2: "a list", 3: "no JSON"}),
        ("t.jsonl", '{"text":"a"}\n{"text":"a","text":"b"}\n{"text":"\\ud800"}\n', [1], {2: "twice", 3: "surrogate"}),
        ("t.json", '[{"text": "a"}, 5, {"text": "b"}]', [1, 3], {2: "a number"}),
    ],
)
def test_bad_lines_are_named_with_their_reason_and_the_rest_is_read(
    tmp_path: Path, name: str, content: str | bytes, good: list[int], bad: dict[int, str]
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(BadInput):
        read_table(path)
    found = sift_file(path, kind_of(path), "utf-8")
    assert found.first.tolist() == good
    assert [one.first for one in found.unreadable] == list(bad)
    for one in found.unreadable:
        assert bad[one.first] in one.why
        assert one.fix
    copy = tmp_path / f"copy{path.suffix}"
    write_without(found, "utf-8", np.zeros(len(found), dtype=bool), copy, as_utf8=True)
    assert read_table(copy).num_rows == len(good)


def test_a_broken_line_of_another_encoding_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "t.tsv", "text\tlabel\n中文\tx\n".encode("gb18030") + b"\xff\xff\ty\n")
    found = sift_file(path, "tsv", "gb18030")
    assert (found.first.tolist(), [one.why for one in found.unreadable]) == ([2], ["byte 1 of the line is not GB18030"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.tsv", b"te\xffxt\tlabel\na\tx\n", "line 1"),
        ("t.csv", 'text,"label\na,x\n', "line 1"),
        ("t.json", '[{"text": "a"}, {"text"', "no JSON"),
        ("t.json", '[{"text": "a"} {"text": "b"}]', "comma"),
        ("t.json", b'[{"text": "a"},\n{"text": "\xff"}]', "line 2: byte 11 of the line is not UTF-8"),
    ],
)
def test_what_cannot_be_told_line_by_line_is_refused(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(BadInput, match=words):
        sift_file(path, kind_of(path), "utf-8")


def test_quotes_that_never_match_do_not_take_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.checks.csv_records._MOST_REREAD", 10_000)
    path = put(tmp_path / "t.csv", "text,label\n" + '"never,x\n' * 2_000)
    with pytest.raises(BadInput, match="never closed"):
        sift_file(path, "csv", "utf-8")


# ---------------------------------------------------------------- copies


@SAME_FOLDER
@given(data=st.data(), n=st.integers(1, 12))
def test_a_copy_lacks_the_dropped_rows_and_nothing_else(tmp_path: Path, data: st.DataObject, n: int) -> None:
    cells = data.draw(st.lists(st.text(st.sampled_from('ab",\n é'), max_size=5), min_size=n, max_size=n))
    dropped = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([("text", "n"), *((cell, i) for i, cell in enumerate(cells))])
    path = put(tmp_path / "t.csv", "\ufeff" + text.getvalue())
    found = rows_of_file(path, "csv", "utf-8")
    write_without(found, "utf-8", dropped, tmp_path / "copy.csv")
    wanted = [row for row, gone in zip(read_table(path).to_pylist(), dropped.tolist(), strict=True) if not gone]
    copied = (tmp_path / "copy.csv").read_bytes()
    assert copied.startswith(b"\xef\xbb\xbftext,n\r\n")
    assert [row for row in csv.DictReader(io.StringIO(copied.decode("utf-8-sig"), newline=""))] == wanted
    before = rows_as_written(found, "utf-8", found.first[dropped])
    assert len(copied) + sum(len(line.encode()) for line in before) <= path.stat().st_size


def test_a_copy_of_utf_16_and_of_a_json_array_can_be_read(tmp_path: Path) -> None:
    path = put(tmp_path / "t.tsv", "text\tlabel\né\tx\nb\ty\n", "utf-16")
    write_without(rows_of_file(path, "tsv", "utf-16"), "utf-16", np.array([True, False]), tmp_path / "copy.tsv")
    assert read_table(tmp_path / "copy.tsv", encoding="utf-16").to_pylist() == [{"text": "b", "label": "y"}]
    items = put(tmp_path / "t.json", '[{"text": "a"},\n {"text": 1.50}]')
    write_without(rows_of_file(items, "jsonl", "utf-8"), "utf-8", np.array([True, False]), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text() == '[\n{"text": 1.50}\n]\n'


def test_rows_of_csv_may_end_in_carriage_returns_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", 'text,label\ra,x\r"b\rc",y\rd,y')
    found = rows_of_file(path, "csv", "utf-8")
    assert (found.first.tolist(), found.last.tolist()) == ([2, 3, 5], [2, 4, 5])
    write_without(found, "utf-8", np.array([True, False, False]), tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == b'text,label\r"b\rc",y\rd,y'
    assert rows_as_written(found, "utf-8", np.array([3, 4])) == ['"b\r', 'c",y\r']


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2), max_size=5), st.integers(0, 3))
def test_items_of_an_array_are_where_they_begin_and_end(items: list[dict[str, str]], indent: int) -> None:
    text = json.dumps(items, indent=indent or None)
    assert [json.loads(text[a:b]) for a, b in array_items(text)] == items


def test_items_that_are_too_deep_are_no_items() -> None:
    with pytest.raises(ValueError, match="too deep"):
        array_items('[{"a":1},' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]")
