"""Where rows of a source are: found when an error is due, by reading the files once more."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import SnapfitError
from snapfit.core.places import Place, by_number
from snapfit.data.formats import describe, table_files
from snapfit.data.table_pieces import file_lines


def place_of(source: object, *, format: str = "auto", encoding: str = "utf-8") -> Place:
    """What a source is called in messages; of files it also tells the lines of rows. Arguments as for `read_table`."""
    if not isinstance(source, str | Path):
        return Place(describe(source))

    def locate(rows: Sequence[int]) -> list[str]:
        try:
            return _names(table_files(Path(source), format), rows, encoding)
        except (SnapfitError, OSError, pa.ArrowException):  # the files are others than they were
            return by_number(rows)

    return Place.of(describe(source), locate=locate)


def _names(files: dict[Path, str], rows: Sequence[int], encoding: str) -> list[str]:
    """Names of rows, ascending, of all files one after another."""
    names: list[str] = []
    first = 0
    for path, kind in files.items():
        prefix = f"{path.name} " if len(files) > 1 else ""
        if kind == "parquet":
            with open(path, "rb") as file:
                n_rows = pa.parquet.read_metadata(file).num_rows
            pieces: Iterator[Sequence[int]] = iter([range(1, n_rows + 1)])
        else:
            pieces = file_lines(path, kind, encoding)
        for numbers in pieces:
            inside = [row - first for row in rows[len(names) :] if row < first + len(numbers)]
            names += [f"{prefix}{'row' if kind == 'parquet' else 'line'} {numbers[row]:,}" for row in inside]
            if len(names) == len(rows):
                return names
            first += len(numbers)
    return names + by_number(rows[len(names) :])
