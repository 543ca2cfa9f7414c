"""Tables and streams for an existing bundle."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.runtime.inputs import read_for_bundle, read_lines, read_texts, text_columns, texts_table
from tiny_bundle import tiny_info

SINGLE = tiny_info()
PAIRS = tiny_info(pair=True, text_columns=["question", "answer"])
LINE = st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"]))


@given(st.lists(LINE, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lines_come_back_as_they_went_in(lines: list[str], end: str, closed: bool) -> None:
    text = end.join(lines) + (end if closed or lines[-1] == "" else "")
    if text.startswith("\ufeff"):
        return  # a mark of the encoding, not of the text
    assert read_lines(io.BytesIO(text.encode())) == lines


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", b"\xef\xbb\xbf"), ("UTF8", b""), ("gb18030", b"")])
def test_encodings(encoding: str, mark: bytes) -> None:
    assert read_lines(io.BytesIO(mark + "取消\n订单".encode(encoding)), encoding=encoding) == ["取消", "订单"]


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"", "utf-8", "empty"),
        (b"\xff", "utf-8", "line 1, column 1"),
        (b"a", "klingon", "klingon"),
        (b"a", "hex", "hex"),
    ],
)
def test_streams_that_cannot_be_read(data: bytes, encoding: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_lines(io.BytesIO(data), encoding=encoding)


def test_texts_become_the_bundles_columns() -> None:
    assert texts_table(SINGLE, ["a\tb"], place="line").to_pylist() == [{"text": "a\tb"}]
    pairs = texts_table(PAIRS, ["a\tb", "\t"], place="line")
    assert pairs.to_pylist() == [{"question": "a", "answer": "b"}, {"question": "", "answer": ""}]
    for bad in ("one", "a\tb\tc"):
        with pytest.raises(BadInput, match="line 2 has"):
            texts_table(PAIRS, ["a\tb", bad], place="line")


def test_columns_are_the_bundles_unless_named() -> None:
    assert text_columns(SINGLE, None, None) == ["text"]
    assert text_columns(SINGLE, "review", None) == ["review"]
    assert text_columns(PAIRS, None, "reply") == ["question", "reply"]
    with pytest.raises(BadInput, match="single texts"):
        text_columns(SINGLE, None, "reply")


def test_a_table_to_predict_on_keeps_its_columns_and_needs_no_label(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("label,score,text,labels\n,x,good,\n,y,bad,\n")
    records = read_texts(SINGLE, path)
    assert records.texts.to_pylist() == ["good", "bad"]
    assert records.labels is None
    assert records.table.column_names == ["label", "score", "text", "labels"]


def test_fixes_name_the_flags_of_predict(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("texts,other\ngood,x\n")
    with pytest.raises(BadInput) as caught:
        read_texts(SINGLE, path)
    assert "--text-column" in caught.value.fix
    with pytest.raises(BadInput) as caught:
        read_texts(SINGLE, path, format="excel")
    assert "--table-format" in caught.value.fix


def test_a_labelled_table_is_read_by_the_bundles_columns(tmp_path: Path) -> None:
    info = tiny_info("multi", label_column="kinds", delimiter=";")
    path = tmp_path / "t.csv"
    path.write_text("kinds,text,label\nfun;war,good,x\n")
    assert read_for_bundle(info, path).labels == [["fun", "war"]]
    path.write_text("genre,text\nfun|war,good\n")
    assert read_for_bundle(info, path, label="genre", delimiter="|").labels == [["fun", "war"]]
