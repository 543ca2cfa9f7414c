"""Lines of rows, found again when an error is due."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from snapfit.core.errors import BadInput
from snapfit.core.places import rows_at
from snapfit.data import table_pieces
from snapfit.data.large_records import read_for_training
from snapfit.data.records import read_records
from snapfit.data.table_places import place_of


@pytest.mark.parametrize("piece", [4, 2**24])
@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("t.csv", 'text\n"a\nb"\n\n"c\r\nd"\ne', ["line 2", "line 5", "line 7"]),
        ("t.tsv", "text\tn\na\t1\n\n\nb\t2\n", ["line 2", "line 5"]),
        ("t.jsonl", '{"a": 1}\n\n{"a": 2}\n', ["line 1", "line 3"]),
        ("t.json", '[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}]', ["line 2", "line 4", "line 5"]),
    ],
)
def test_rows_of_a_file(
    tmp_path: Path, name: str, content: str, lines: list[str], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_pieces, "PIECE_BYTES", piece)
    path = tmp_path / name
    path.write_text(content, newline="")
    place = place_of(path)
    assert place.locate is not None
    assert place.locate(range(len(lines))) == lines
    assert [place.locate([row]) for row in range(len(lines))] == [[line] for line in lines]


def test_rows_of_a_folder_and_of_parquet(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pa.parquet.write_table(pa.table({"text": ["x"] * 3}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.csv").write_text("text\nx\n\ny\n")
    assert rows_at(place_of(tmp_path, format="parquet"), [1, 4]) == "2 rows: a.parquet row 2, b.parquet row 2"
    assert rows_at(place_of(tmp_path, format="csv"), [1, 2]) == "2 rows: a.csv line 4, b.csv line 2"


def test_other_sources_and_files_that_are_gone(tmp_path: Path) -> None:
    assert rows_at(place_of([("a", "b")]), [3]) == "row 4"
    path = tmp_path / "t.csv"
    path.write_text("text\nx\n")
    place = place_of(path)
    assert rows_at(place, [0]) == "line 2"
    assert rows_at(place, [5]) == "row 6"
    path.unlink()
    assert rows_at(place, [0]) == "row 1"


def test_bad_rows_are_told_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\n"one\ntwo",x\n\nthree,\nfour,y\nfive, \n')
    for reader in (read_records, read_for_training):
        with pytest.raises(BadInput, match=r"t\.csv: 'label' is empty in 2 rows: line 5, line 7"):
            reader(path)
    with pytest.raises(BadInput, match="is empty in 2 rows: line 5, line 7"):
        read_for_training(path, large_rows=1)
