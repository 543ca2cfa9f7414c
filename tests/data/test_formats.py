"""Files to tables: cells exact, and errors that name the line."""

import csv
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.formats import FORMATS, read_table

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
TSV_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\t\n"), max_size=12)
WIDTH_AND_ROWS = st.integers(1, 4)


def rows_of(cell: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    def of_width(width: int) -> st.SearchStrategy[list[list[str]]]:
        return st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=12)

    return WIDTH_AND_ROWS.flatmap(of_width)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def cells(table: pa.Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def header(width: int) -> list[str]:
    return [f"column {i}" for i in range(width)]


# ---------------------------------------------------------------- cells exact


@SAME_FOLDER
@given(rows=rows_of(CELL), line_end=st.sampled_from(["\n", "\r\n"]), delimiter=st.sampled_from(",\t"))
def test_csv_that_the_standard_library_wrote(
    tmp_path: Path, rows: list[list[str]], line_end: str, delimiter: str
) -> None:
    text = io.StringIO()
    # Older versions of csv leave a cell with a carriage return unquoted, which no reader can undo.
    quoting = csv.QUOTE_ALL if any("\r" in cell for row in rows for cell in row) else csv.QUOTE_MINIMAL
    writer = csv.writer(text, lineterminator=line_end, delimiter=delimiter, quoting=quoting)
    writer.writerow(header(len(rows[0])))
    writer.writerows(rows)
    path = put(tmp_path / "t.csv", text.getvalue())
    table = read_table(path, format="csv" if delimiter == "," else "tsv-quoted")
    assert cells(table) == rows
    assert table.column_names == header(len(rows[0]))
    assert set(table.schema.types) == {pa.large_string()}


@SAME_FOLDER
@given(rows=rows_of(CELL))
def test_csv_and_parquet_that_arrow_wrote(tmp_path: Path, rows: list[list[str]]) -> None:
    table = pa.table(dict(zip(header(len(rows[0])), zip(*rows, strict=True), strict=True)))
    pa.csv.write_csv(table, tmp_path / "t.csv")
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    assert cells(read_table(tmp_path / "t.csv")) == rows
    assert read_table(tmp_path / "t.parquet").equals(table)


@SAME_FOLDER
@given(rows=rows_of(TSV_CELL), bom=st.booleans(), last=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]))
def test_tsv_is_split_at_tab_and_line_feed_only(
    tmp_path: Path, rows: list[list[str]], bom: bool, last: bool, line_end: str
) -> None:
    width = len(rows[0])
    rows = [row for row in rows if width == 1 or row != [""] * width] or [["x"] * width]
    if rows[-1][-1] == "" or rows[-1][-1].endswith("\r"):
        last = True  # without a line end an empty last cell would be no line at all
    text = line_end.join("\t".join(row) for row in [header(width), *rows]) + (line_end if last else "")
    path = put(tmp_path / "t.tsv", b"\xef\xbb\xbf" * bom + text.encode("utf-8"))
    table = read_table(path)
    assert cells(table) == rows
    assert table.column_names == header(width)


@SAME_FOLDER
@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": CELL, "labels": st.lists(CELL, max_size=3)},
            optional={"n": st.integers(-(2**63), 2**63 - 1)},
        ),
        min_size=1,
        max_size=12,
    )
)
def test_jsonl_keeps_its_types(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    names = {name for row in rows for name in row}
    expected = [{name: row.get(name) for name in names} for row in rows]
    for ascii_only in (True, False):
        lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
        assert read_table(put(tmp_path / "t.jsonl", "\n".join(lines))).to_pylist() == expected
    assert read_table(put(tmp_path / "t.json", json.dumps(rows, indent=1))).to_pylist() == expected


def test_nothing_is_taken_for_a_number_or_for_missing(tmp_path: Path) -> None:
    rows = [["007", "NA"], ["", "null"], ["1e5", "NaN"], [" x ", "True"], ['"q"', "2020-01-01"]]
    text = "\n".join("\t".join(row) for row in [["a", "b"], *rows])
    assert cells(read_table(put(tmp_path / "t.tsv", text))) == rows
    assert cells(read_table(put(tmp_path / "t.csv", text.replace("\t", ",").replace('"q"', '"""q"""')))) == rows


def test_line_ends_of_tsv(tmp_path: Path) -> None:
    path = put(tmp_path / "t.tsv", b"a\tb\r\n1\r\t2\r\n\r\n3\t4\r")
    assert cells(read_table(path)) == [["1\r", "2"], ["3", "4"]]
    path = put(tmp_path / "t.tsv", b"a\tb\n1\t2\r\n\n\n3\t4\n\n")
    assert cells(read_table(path)) == [["1", "2\r"], ["3", "4"]]
    assert cells(read_table(put(tmp_path / "t.tsv", "a\nx\n\ny\n"))) == [["x"], [""], ["y"]]


def test_cells_may_be_long_and_hold_lines(tmp_path: Path) -> None:
    long = "word " * 60_000
    path = put(tmp_path / "t.csv", f'text,label\n"{long}\nsecond ""line""",x\n')
    assert cells(read_table(path)) == [[f'{long}\nsecond "line"', "x"]]


def test_more_csv_rows_than_a_chunk(tmp_path: Path) -> None:
    rows = [[str(i), str(i % 7)] for i in range(70_000)]
    path = put(tmp_path / "t.csv", "a,b\n" + "\n".join(",".join(row) for row in rows))
    assert cells(read_table(path)) == rows


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16", "utf-8-sig", "big5"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "text\tlabel\n電影 a\tb\n"
    path = put(tmp_path / "t.tsv", text.encode(encoding))
    assert cells(read_table(path, encoding=encoding)) == [["電影 a", "b"]]


# ---------------------------------------------------------------- folders


def test_a_folder_is_one_table(tmp_path: Path) -> None:
    put(tmp_path / "b.csv", "text,label\nthree,x\n")
    put(tmp_path / "a.csv", "label,text\nx,one\ny,two\n")
    put(tmp_path / ".hidden.csv", "nothing")
    put(tmp_path / "README.txt", "about")
    assert read_table(tmp_path)["text"].to_pylist() == ["one", "two", "three"]
    put(tmp_path / "c.jsonl", '{"text": "four", "label": "x"}')
    with pytest.raises(BadInput, match="several formats: csv, jsonl"):
        read_table(tmp_path)
    assert read_table(tmp_path, format="jsonl").num_rows == 1
    put(tmp_path / "d.csv", "text,other\nfive,x\n")
    with pytest.raises(BadInput, match=r"d\.csv has the columns 'text', 'other'"):
        read_table(tmp_path, format="csv")


def test_folders_that_hold_no_one_table(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no tables"):
        read_table(tmp_path)
    for name, values in {"a": [1], "b": [[1]]}.items():
        pa.parquet.write_table(pa.table({"text": ["a"], "n": values}), tmp_path / f"{name}.parquet")
    with pytest.raises(BadInput, match="the column 'n' holds int64 and list"):
        read_table(tmp_path)
    put(tmp_path / "b.jsonl", '{"text": "a", "n": [1]}')
    put(tmp_path / "a.jsonl", '{"text": "a", "n": 1}')
    assert read_table(tmp_path, format="jsonl")["n"].to_pylist() == ["1", "[1]"]


# ---------------------------------------------------------------- errors

ERRORS = [
    ("t.tsv", "a\tb\n1\t2\n3\n\n4\t5\t6\n", "line 3 has 1, line 5 has 3 cells"),
    ("t.tsv", "a\n1\n1\t2\n", "line 3 has 2 cells"),
    ("t.csv", 'a,b\n"x\ny",2\n\n3\n', "line 5 has 1 cells"),
    ("t.csv", "a,b\n" + "1\n" * 9, "line 4 has 1 cells.*9 rows"),
    ("t.csv", 'a,b\n1,2\n"open,2\nx,y\n', "line 3, column 1: a cell that begins with a double quote is never closed"),
    (
        "t.csv",
        'a,b\n"x" y,2\n',
        "line 2, column 4: more behind the double quote that ends the cell from line 2, column 1 on",
    ),
    ("t.csv", 'a,"b', "line 1, column 3: a cell that begins"),
    ("t.csv", "a,b,a\n1,2,3\n", "2 columns named 'a'"),
    ("t.tsv", "a\ta\n1\t2\n", "2 columns named 'a'"),
    ("t.csv", "a,b\n", "a header and no rows"),
    ("t.tsv", "a\tb\n\n\n", "a header and no rows"),
    ("t.csv", "", "is empty"),
    ("t.csv", " \r\n\n", "is empty"),
    ("t.csv", b"\xef\xbb\xbf", "is empty"),
    ("t.tsv", b"a\tb\n1\t\0\n", "line 2, column 3: a NUL byte"),
    ("t.csv", b"a,b\n1,\xff\n", "line 2, column 3: the byte 0xff is not UTF-8"),
    ("t.csv", "a,b\n電影,x\n".encode("gbk"), "perhaps --encoding gb18030"),
    ("t.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16"),
    ("t.csv", b"\x1f\x8b\x08", "is gzip-compressed"),
    ("t.csv", b"PK\x03\x04", "Excel"),
    ("t.csv.gz", b"\x1f\x8b\x08", "decompress"),
    ("t.txt", "a\tb\n1\t2\n", "--format tsv"),
    ("t.parquet", b"PAR1", "no Parquet file"),
    ("t.jsonl", '{"a": 1}\n\n{"a": \n', "line 3, column 6: no JSON"),
    ("t.jsonl", '{"a": 1}\n[1]\n', r"line 2, column 1: a list, \[1\]"),
    ("t.jsonl", '{"a": 1, "a": 2}\n', "line 1, column 10: the name 'a' twice"),
    ("t.jsonl", '\n{"a": "\\ud800"}\n', "line 2, column 1: half of a surrogate pair in 'a'"),
    ("t.json", '[{"a": 1}, 2]', "line 1, column 12: a number, 2"),
    ("t.jsonl", "[" * 100_000, "line 1, column 2: values in one another"),
]


@pytest.mark.parametrize(("name", "content", "message"), ERRORS)
def test_errors_say_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(BadInput, match=f"(?s){message}") as caught:
        read_table(path)
    assert str(path) in caught.value.found


def test_files_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", "a,b\n1,2\n")
    with pytest.raises(BadInput, match=r"did you mean .*train\.csv"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(BadInput, match="does not exist"):
        read_table(str(tmp_path / "no" / "such.csv"))


def test_what_a_folder_holds_is_read_or_told(tmp_path: Path) -> None:
    good = "text,label\na,x\n"
    put(tmp_path / "a.csv", good)
    for name in ("b.csv.gz", "b.xlsx"):
        put(tmp_path / name, "x")
        with pytest.raises(BadInput, match=f"{name} is compressed, or an Excel workbook"):
            read_table(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "more").mkdir()
    put(tmp_path / "more" / "c.csv", good)
    with pytest.raises(BadInput, match="more is a folder with tables of its own"):
        read_table(tmp_path)
    (tmp_path / "more" / "c.csv").rename(tmp_path / "more" / "c.jsonl")
    put(tmp_path / "c.jsonl.gz", "x")
    assert read_table(tmp_path, format="csv").num_rows == 1  # others are not meant
    put(tmp_path / "c.md.gz", "x")
    (tmp_path / "c.jsonl.gz").unlink()
    (tmp_path / "more" / "c.jsonl").unlink()
    assert read_table(tmp_path).num_rows == 1
    (tmp_path / "b.csv").symlink_to("none.csv")
    with pytest.raises(BadInput, match=r"b\.csv is no file that can be read: a link to nothing"):
        read_table(tmp_path)


def test_paths_that_the_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "l.csv").symlink_to("none.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for name, words in {
        "l.csv": "is a link to a file that is not there",
        "loop.csv": "loop.csv",
        "n" * 300: "cannot be read",
        "a\0b": "is no path",
    }.items():
        with pytest.raises(BadInput, match=words):
            read_table(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
def test_a_file_that_may_not_be_read() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to other users
    folder.chmod(0o755)
    paths = [put(folder / name, "text,label\na,x\n") for name in ("t.csv", "t.parquet")]
    closed = folder / "closed"
    closed.mkdir()
    for path in (*paths, closed):
        path.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        for path in (*paths, closed, closed / "t.csv"):
            with pytest.raises(BadInput, match="cannot be read"):
                read_table(path)
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(0o700)
        shutil.rmtree(folder)


def test_wrong_settings(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "a,b\n1,2\n")
    with pytest.raises(BadInput, match="did you mean tsv"):
        read_table(path, format="tvs")
    with pytest.raises(BadInput, match="the encoding 'latn'"):
        read_table(path, encoding="latn")
    with pytest.raises(BadInput, match="line 2, column 2: what is not gb18030"):
        read_table(put(tmp_path / "u.csv", b"a,b\n1\xff,2\n"), encoding="gb18030")
    with pytest.raises(BadInput, match="given as int"):
        read_table(5)
    assert FORMATS[0] == "auto"


# ---------------------------------------------------------------- real files


def test_real_tsv_cells_are_those_between_tabs(real_data: Path) -> None:
    for path in sorted(real_data.glob("*/*.tsv")):
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        table = read_table(path)
        assert [table.column_names, *cells(table)] == [line.split("\t") for line in lines]


def test_real_csv_and_jsonl(real_data: Path) -> None:
    for path in sorted(real_data.glob("*/*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            assert [read_table(path).column_names, *cells(read_table(path))] == list(csv.reader(file))
    for path in sorted(real_data.glob("*/*.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        assert read_table(path).to_pylist() == rows
