"""What reading accepts: the code that reads tables for training, asked about a few lines or one item."""

from pathlib import Path

from snapfit.core.errors import BadInput
from snapfit.data.row_tables import json_lines_table, json_table
from snapfit.data.text_tables import text_tables


def refusal_of_lines(path: Path, kind: str, header: bytes, lines: list[bytes], first: int) -> BadInput | None:
    """Why reading refuses these lines of a TSV file or of JSON lines, or None.

    header: the first line of a TSV file. lines: in UTF-8, with their ends. first: the number of the first one.
    """
    try:
        if kind == "jsonl":
            json_lines_table(b"".join(lines), str(path), first_line=first)
        else:
            for _ in text_tables([(1, header), (first, b"".join(lines))], str(path), kind):
                """Whatever is wrong with the lines is raised here."""
    except BadInput as error:
        return error
    return None


def refusal_of_item(path: Path, item: str) -> BadInput | None:
    """Why reading refuses an item of a JSON array, or None. item: its JSON."""
    try:
        json_table(f"[{item}]".encode(), str(path))
    except BadInput as error:
        return error
    return None
