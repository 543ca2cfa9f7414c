"""Cells that careless readers change: each in a text, a label and a side column, in every format that can hold it."""

from malformed.case import WRITERS, Case, Table, format_option, odd, read, suffix_of

CELLS = {
    "NA": "NA",
    "NA slash": "N/A",
    "null": "null",
    "NULL": "NULL",
    "None": "None",
    "nan": "nan",
    "NaN": "NaN",
    "minus inf": "-inf",
    "backslash N": "\\N",
    "zeros": "007",
    "exponent": "1e5",
    "too large": "1e999",
    "plus": "+5",
    "minus zero": "-0",
    "trailing zero": "1.10",
    "many digits": "0.1000000000000000055511151231257827021181583404541015625",
    "big integer": "123456789012345678901234567890",
    "hexadecimal": "0x1F",
    "underscored": "1_000",
    "full-width digits": "１２３",
    "thousands": "1,000.5",
    "True": "True",
    "yes": "yes",
    "date": "2020-01-01",
    "time": "12:00",
    "percent": "50%",
    "empty": "",
    "space": " ",
    "padded": "  padded  ",
    "no-break padded": "\u00a0padded\u3000",
    "tab inside": "a\tb",
    "formula": "=1+1",
    "formula at": "@SUM(A1)",
    "single quotes": "'quoted'",
    "double quotes": '"quoted"',
    "lone quote": '"',
    "two quotes": '""',
    "quote inside": '5" disk',
    "quote at the end": 'disk 5"',
    "comma and quote": 'a ", b',
    "line feed": "line\nbreak",
    "lone return": "line\rbreak",
    "both": "line\r\nbreak",
    "line ends only": "\n\n",
    "starts with a line feed": "\nb",
    "line separator": "a\u2028b\u2029c",
    "next line": "a\x85b",
    "vertical tab": "a\x0bb\x0cc\x1cd\x1ed",
    "Ctrl-Z": "a\x1ab",
    "escape sequence": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "eight-bit control": "a\x9b31mb",
    "backspace and delete": "a\x08\x7fb",
    "bidi override": "user\u202etxt.exe\u2066",
    "right to left": "שלום عليكم",
    "zero width": "a\u200bb\u2060c\u00ad",
    "mark inside": "\ufeffa\ufeff",
    "emoji": "👩\u200d👩\u200d👧 🇩🇪 ☝\U0001f3fd",
    "combining": "e\u0301 ñ n\u0303 가 \u1100\u1161",
    "Chinese": "电影，太长了。",
    "beyond the first plane": "𠜎 𝔘 \U000e0041",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "replacement character": "caf\ufffd",
    "mojibake": "cafÃ©",
    "backslashes": "C:\\new\\table\\",
    "JSON": '{"a": [1, null]}',
    "list": "['a', 'b']",
    "comment": "# a comment",
    "markup": "<script>&amp;</script>",
    "placeholders": "%s %(a)d {x} $(rm) `ls` ${HOME}",
    "path": "../../etc/passwd",
    "semicolon": "a;b|c",
    "rich markup": "[bold red]x[/bold red][/]",
}
"""By name; the text in the file is exactly this."""

QUICK = ("NA", "zeros", "padded", "both", "quote inside", "escape sequence", "bidi override", "emoji")
_WHITE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u00a0\u2028\u2029\u3000"


def cases() -> list[Case]:
    """Every cell in every format that can hold it."""
    made = []
    for number, (name, cell) in enumerate(CELLS.items()):
        for format in WRITERS:
            if format == "tsv" and any(sign in cell for sign in "\t\n"):
                continue  # they separate there
            column = ("text", "note", "label")[number % 3]
            for where in sorted({column, "text"}) if format in ("csv", "jsonl") else [column]:
                made.append(_case(name, cell, format, where))
    return made


def _case(name: str, cell: str, format: str, column: str) -> Case:
    table: Table = odd(column, cell)
    refused = {}
    line = {"jsonl": "line 4", "parquet": "row 4"}.get(format, "line 5")
    if column == "label":
        blank = not cell.strip(_WHITE)
        words = ["'label'", line, "empty"] if blank else ["labels that are not among", line]
        refused = {"evaluate": words} | ({"train": words} if blank else {})
    if format == "tsv" and "\r" in cell:
        refused["predict"] = ["a tab or a line break", line]  # which the TSV that is asked for cannot hold
    return read(
        f"{format}: {name} in {column}",
        f"t.{suffix_of(format)}",
        WRITERS[format](table),
        table,
        refused=refused,
        quick=name in QUICK and column != "label" or (name, format) == ("escape sequence", "csv"),
        **format_option(format),
    )
