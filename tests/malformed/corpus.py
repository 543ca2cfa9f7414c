"""The corpus of malformed files: every case, from all its families; no two runs differ."""

from malformed import delimited, encodings, folders, json_files, odd_cells, parquet_files
from malformed.case import Case


def cases() -> list[Case]:
    """All cases; their names are unique."""
    families = (odd_cells, encodings, delimited, json_files, parquet_files, folders)
    return [case for family in families for case in family.cases()]
