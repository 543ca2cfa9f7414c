"""Names of rows in messages."""

from collections.abc import Sequence

from snapfit.core.places import Place, rows_at


def lines(rows: Sequence[int]) -> list[str]:
    return [f"line {row + 2}" for row in rows]


def test_rows_have_numbers_where_there_are_no_lines() -> None:
    assert rows_at("t", [4]) == "row 5"
    assert rows_at(Place.of("t", first=10), [0, 2]) == "2 rows: row 11, row 13"


def test_rows_of_a_file_have_lines() -> None:
    place = Place.of("t.csv", locate=lines)
    assert place == "t.csv"
    assert rows_at(place, [4]) == "line 6"
    assert rows_at(Place.of(place, first=100), range(7)) == (
        "7 rows: line 102, line 103, line 104, line 105, line 106, ..."
    )
