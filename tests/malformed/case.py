"""What a malformed file must come to: the cells that are in it, or a refusal that says where and what to do.

A case writes its files into an empty folder. `table` says, independently of snapfit's readers, what is in them;
`refused` says which commands must refuse them, and what the message must then hold. Any other command must succeed.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMMANDS = ("train", "evaluate", "predict")
"""The commands that every case is run through."""
Table = dict[str, list[Any]]
"""Cells by column, in the order of the file."""
Content = bytes | str
ANY: Any = ...
"""A cell that may come back as whatever the format of the output has for it."""

TEXTS = ("fresh bread and soup", "a hammer and a saw", "the cat saw an owl", "cheese, rice", "one drill", "a wolf")
LABELS = ("food", "tools", "animals", "food", "tools", "animals")
ODD_ROW = 3
"""The row, from 0, that cases put something odd into; the rows around it are sane."""


@dataclass(frozen=True)
class Case:
    """A malformed file, or several.

    name: unique. make: writes the files into a folder. source: what is handed to the commands, below that folder.
    table: the cells; None where no command can read them. refused: by command, what its message must hold, whatever
    the case. options: how the file is to be read: encoding, format, text, label, delimiter. quick: in the share of the
    corpus that runs with every test.
    """

    name: str
    make: Callable[[Path], object]
    source: str
    table: Table | None
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False
    names_file: bool = True

    @property
    def large(self) -> bool:
        """Whether its files are too large to be read a line at a time."""
        return any(word in self.name for word in ("00,0", "characters", "1 MB", "very long", "deeper", "digits"))


def read(name: str, file: str, content: Content, table: Table, *, quick: bool = False, **options: Any) -> Case:
    """A file that is read; `refused` among the options says what is refused all the same, by command."""
    refused = options.pop("refused", {})
    return Case(name, writer({file: content}), file, table, refused, options, quick)


def refuse(name: str, file: str, content: Content, *words: str, quick: bool = False, **options: str) -> Case:
    """A file that every command refuses."""
    return Case(name, writer({file: content}), file, None, dict.fromkeys(COMMANDS, words), options, quick)


def writer(files: Mapping[str, Content]) -> Callable[[Path], None]:
    """Writes files into a folder, and the folders that they are in."""

    def make(folder: Path) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)

    return make


def same(cell: Any, back: Any) -> bool:
    """Equal, and of the same kind: 1 is not True, though Python finds them equal; 1.0 is 1, as in JSON."""
    if isinstance(cell, dict) and isinstance(back, dict):
        return cell.keys() == back.keys() and all(same(value, back[key]) for key, value in cell.items())
    if isinstance(cell, list) and isinstance(back, list):
        return len(cell) == len(back) and all(map(same, cell, back))
    if isinstance(cell, bool) or isinstance(back, bool):
        return cell is back
    return bool(cell == back) or (cell != cell and back != back)


# ---------------------------------------------------------------- tables, and files of them


def sane(**columns: Iterable[Any]) -> Table:
    """A table that a classifier can be trained on; columns: others beside its texts and labels, or in their place."""
    return {name: list(cells) for name, cells in ({"text": TEXTS, "label": LABELS} | columns).items()}


def odd(column: str, cell: Any) -> Table:
    """The sane table with one odd cell: in `text`, `label`, or a column beside them."""
    table = sane() if column in ("text", "label") else sane(**{column: [f"note {i}" for i in range(len(TEXTS))]})
    table[column][ODD_ROW] = cell
    return table


def rows_of(table: Table) -> list[list[Any]]:
    """Its rows, without the header."""
    return [list(row) for row in zip(*table.values(), strict=True)]


def as_csv(table: Table, *, delimiter: str = ",", end: str = "\n") -> str:
    """As Python's csv writes it."""
    rows = [list(table), *rows_of(table)]
    quoted = any("\r" in str(cell) for row in rows for cell in row)  # which older versions leave unquoted
    text = io.StringIO()
    made = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=[csv.QUOTE_MINIMAL, csv.QUOTE_ALL][quoted])
    made.writerows(rows)
    return text.getvalue()


def as_tsv(table: Table, *, end: str = "\n") -> str:
    """Without quotes."""
    return "".join("\t".join(row) + end for row in [list(table), *rows_of(table)])


def as_jsonl(table: Table, *, ascii_only: bool = False, end: str = "\n") -> str:
    """One object a line."""
    rows = [dict(zip(table, row, strict=True)) for row in rows_of(table)]
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows)


def as_parquet(table: Table | pa.Table, **options: Any) -> bytes:
    """As Arrow writes it."""
    file = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file, **options)
    return file.getvalue()


WRITERS: dict[str, Callable[[Table], Content]] = {
    "csv": as_csv,
    "tsv": as_tsv,
    "tsv-quoted": lambda table: as_csv(table, delimiter="\t"),
    "jsonl": as_jsonl,
    "parquet": as_parquet,
}
"""By format; a file of a format has that suffix, but for tsv-quoted."""


def suffix_of(format: str) -> str:
    """What a file of this format is called by."""
    return format.removesuffix("-quoted")


def format_option(format: str) -> dict[str, str]:
    """What says how to read a file whose suffix does not."""
    return {"format": format} if format == "tsv-quoted" else {}
