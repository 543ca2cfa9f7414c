"""What reading accepts: the code that reads tables for training, asked about a few lines or one item."""

from pathlib import Path

from snapfit.core.errors import BadInput
from snapfit.data.json_tables import json_tables
from snapfit.data.text_tables import text_tables


def refusal_of_lines(path: Path, kind: str, header: bytes, lines: list[bytes], first: int) -> BadInput | None:
    """Why reading refuses these lines of a TSV file or of JSON lines, or None.

    header: the first line of a TSV file. lines: in UTF-8, with their ends. first: the number of the first one.
    """
    try:
        if kind == "jsonl":
            tables = json_tables(iter([(first, b"".join(lines))]), str(path))
        else:
            tables = text_tables([(1, header), (first, b"".join(lines))], str(path), kind)
        for _ in tables:
            """Whatever is wrong with the lines is raised here."""
    except BadInput as error:
        return error
    return None


def refusal_of_item(path: Path, item: str) -> BadInput | None:
    """Why reading refuses an item of a JSON array, or None. item: its JSON."""
    try:
        for _ in json_tables(iter([(1, f"[{item}]".encode())]), str(path), at_once=True):
            """Whatever is wrong with the item is raised here."""
    except BadInput as error:
        return error
    return None
