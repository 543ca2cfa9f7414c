"""JSON lines and arrays: broken ones, and values of every kind."""

import json
from collections.abc import Iterator
from typing import Any

from malformed.case import COMMANDS, LABELS, TEXTS, Case, Table, as_jsonl, read, refuse, sane

GOOD = as_jsonl(sane())
LINES = GOOD.splitlines()


def cases() -> list[Case]:
    """All of them."""
    return [*_broken(), *_shapes(), *_values(), *_roles()]


def _with(line: str, at: int = 2) -> str:
    """The sane lines with one more; it is line at + 1."""
    return "\n".join([*LINES[:at], line, *LINES[at:]]) + "\n"


def _broken() -> Iterator[Case]:
    broken = {
        "cut short": ('{"text": "a", "label": ', "line 3, column 23"),
        "no quotes": ("{text: 1}", "line 3, column 2"),
        "single quotes": ("{'text': 'a'}", "line 3, column 2"),
        "a comma at the end": ('{"text": "a", "label": "food",}', "line 3, column 3"),
        "a comma behind the object": ('{"text": "a", "label": "food"},', "line 3, column 31"),
        "two objects": ('{"text": "a", "label": "food"} {"text": "b", "label": "food"}', "line 3, column 32"),
        "a remark": ("// a remark", "line 3, column 1"),
        "a tab in a text": ('{"text": "a\tb", "label": "food"}', "line 3, column 12"),
        "an unknown escape": ('{"text": "a\\x41", "label": "food"}', "line 3, column 12"),
        "a text cut short": ('{"text": "a, "label": "food"}', "line 3, column 15"),
        "a bare word": ("text", "line 3, column 1"),
        "NaN": ('{"text": "a", "label": "food", "n": NaN}', "line 3, column 37", "NaN"),
        "Infinity": ('{"text": "a", "label": "food", "n": Infinity}', "line 3, column 37", "Infinity"),
        "minus Infinity": ('{"text": "a", "label": "food", "n": [-Infinity]}', "line 3, column 38"),
        "a number that is too large": ('{"text": "a", "label": "food", "n": 1e400}', "line 3", "1e400"),
        "a number with zeros": ('{"text": "a", "label": "food", "n": 007}', "line 3, column 38"),
        "a number of 5,000 digits": (f'{{"text": "a", "label": "food", "n": {"9" * 5000}}}', "line 3", "digits"),
        "a name twice": ('{"text": "a", "text": "b", "label": "food"}', "line 3", "'text'", "twice"),
        "a name twice, deeper": ('{"text": "a", "label": "food", "m": {"k": 1, "k": 2}}', "line 3", "'k'", "twice"),
        "half a surrogate pair": ('{"text": "a\\ud800", "label": "food"}', "line 3", "surrogate", "'text'"),
        "half a pair, beside": ('{"text": "a", "label": "food", "n": "\\udc00"}', "line 3", "surrogate"),
        "half a pair in a name": ('{"text": "a", "label": "food", "\\ud83d": 1}', "line 3", "surrogate"),
        "half a pair, deeper": ('{"text": "a", "label": "food", "m": {"k": ["\\ud83d"]}}', "line 3", "surrogate"),
        "a list": ('["a", "food"]', "line 3, column 1", "a list"),
        "a text": ('"a"', "line 3, column 1", "a text, 'a'"),
        "a number": ("5", "line 3, column 1", "a number, 5"),
        "null": ("null", "line 3, column 1", "null"),
        "deeper than can be read": ("[" * 100_000, "line 3", "deep"),
        "an object deeper than that": ('{"text": "a", "m": ' + '{"k": ' * 50_000, "line 3", "deep"),
        "a form feed": ("\x0c", "line 3, column 1"),
    }
    quick = ("cut short", "two objects", "a tab in a text", "NaN", "a name twice", "half a surrogate pair", "a list")
    for name, (line, *words) in broken.items():
        yield refuse(f"jsonl: {name}", "t.jsonl", _with(line), "t.jsonl", *words, quick=name in quick)
        if not name.startswith(("a comma behind", "two objects", "a form feed")):
            array = "[\n" + ",\n".join([LINES[0], line, *LINES[1:]]) + "\n]\n"
            places = [word.partition(",")[0] for word in words]
            yield refuse(f"json array: {name}", "t.json", array, "t.json", *places)
    whole = json.dumps(dict(zip(("text", "label"), ("a", "food"), strict=True)), indent=2)
    yield refuse("jsonl: an object over several lines", "t.jsonl", whole, "line 1, column 2", "one JSON object a line")
    yield refuse("jsonl: CSV", "t.jsonl", "text,label\na,food\n", "line 1, column 1")
    yield refuse("json array: not closed", "t.json", "[" + ",".join(LINES), "t.json", "line 1")
    yield refuse("json array: more behind it", "t.json", "[" + ",".join(LINES) + "]\n[]\n", "line 2, column 1")
    yield refuse("json array: empty", "t.json", "[]", "t.json", "no rows")
    yield refuse("json array: of texts", "t.json", '["a",\n "b"]', "line 1, column 2", "a text, 'a'")
    yield refuse("jsonl: of lists", "t.jsonl", '["a", "food"]\n["b", "tools"]\n', "line", "t.jsonl")
    yield refuse("jsonl: empty objects", "t.jsonl", "{}\n{}\n", "t.jsonl", "no columns")
    record = json.dumps({"data": [json.loads(line) for line in LINES]})
    yield refuse("json: one object with all rows", "t.json", record, "t.json", "'data'")


def _shapes() -> Iterator[Case]:
    table = sane()
    quick = {"quick": True}
    yield read("jsonl: blank lines", "t.jsonl", GOOD.replace("\n", "\n\n \t\r\n"), table)
    yield read("jsonl: CR LF", "t.jsonl", GOOD.replace("\n", "\r\n"), table)
    yield read("jsonl: no line end at the end", "t.jsonl", GOOD.removesuffix("\n"), table)
    yield read("jsonl: padded lines", "t.jsonl", "".join(f"  {line}\t\n" for line in LINES), table)
    yield read("jsonl: a mark", "t.jsonl", "\ufeff" + GOOD, table, **quick)
    marked = "".join(f"\ufeff{line}\n" for line in LINES)
    yield read("jsonl: a mark on every line, of files put together", "t.jsonl", marked, table)
    yield refuse("jsonl: CR only", "t.jsonl", GOOD.replace("\n", "\r"), "t.jsonl", "carriage return", "line feed")
    yield read("json: an array on one line", "t.json", "[" + ",".join(LINES) + "]", table, **quick)
    indented = "\n [\n" + json.dumps([json.loads(line) for line in LINES], indent=1)[1:] + "\n"
    yield read("json: an array over many lines", "t.json", indented, table)
    yield read("ndjson", "t.ndjson", GOOD, table)
    one = {name: cells[:1] for name, cells in table.items()}
    refused = {"train": ("one label only", "t.jsonl")}
    yield read("jsonl: one row", "t.jsonl", LINES[0], one, refused=refused)
    yield read("json: one object on a line", "t.json", LINES[0], one, refused={"train": ("one label only", "t.json")})
    escaped = {"text": ["a\u0000b", "\u2028", "\U0001f600", "\x1b[31m", "/\b\f", "x"], "label": list(LABELS)}
    yield read("jsonl: escapes", "t.jsonl", as_jsonl(escaped, ascii_only=True), escaped, **quick)
    order = "".join(
        json.dumps(dict(reversed(json.loads(line).items())) if i % 2 else json.loads(line)) + "\n"
        for i, line in enumerate(LINES)
    )
    yield read("jsonl: keys in another order", "t.jsonl", order, table)


def _values() -> Iterator[Case]:
    """Values of a column beside; what is absent is None, and nothing else changes."""
    absent: Any = ...
    columns: dict[str, list[Any]] = {
        "absent in one row": [1, 2, absent, 4, 5, 6],
        "absent but in the last row": [absent] * 5 + ["x"],
        "null": [None] * 6,
        "null and texts": ["a", None, "null", "", "b", None],
        "true and false": [True, False, None, True, True, False],
        "true and 1": [True, 1, 0, False, 1, True],
        "true and 1.5": [1.5, True, 2.5, False, 0.5, 1.5],
        "integers": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 7],
        "integers beyond 64 bits": [1, 2**63, 2**64, 10**30, -(2**70), 0],
        "integers and fractions": [1, 2.5, -3, 1e300, 5e-324, 0],
        "large integers and fractions": [2**53 + 1, 0.5, 1, 2, 3, 4],
        "numbers and texts": [1, "1", 2.5, "x", True, "true"],
        "texts that look like JSON": ["1", "null", "[1]", '{"a": 1}', '"x"', "true"],
        "texts that look like JSON, and numbers": ["1", 1, "null", None, '"x"', "x"],
        "lists of texts": [["a"], [], ["b", "c"], ["a"], [""], ["x"]],
        "lists with null": [["a", None], [None], [], ["b"], None, ["c"]],
        "lists of numbers": [[1], [2.5], [], [3], [4, 5], [6]],
        "lists of kinds": [[1, "a"], [True], [None], [], ["b"], [2.5]],
        "lists and texts": [["a"], "a", [], "b", ["c"], "[]"],
        "lists of lists": [[[1]], [[]], [], [[2, 3]], [[4]], [[5]]],
        "objects": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}, {"a": 5}, {"a": 6}],
        "objects with other keys": [{"a": 1}, {"b": 2}, {}, None, {"a": None}, {"a": 1, "b": 2}],
        "objects of kinds": [{"a": 1}, {"a": "x"}, {"a": [1]}, {"a": {"b": 1}}, {"a": 2.5}, {"a": True}],
        "objects in lists": [[{"a": 1}], [{"b": 1}], [], [{}], [{"a": 1}, {"c": 1}], None],
        "objects and texts": [{"a": 1}, "x", {"a": 1}, "y", {"a": 1}, "{}"],
        "empty objects": [{}, {}, {}, {}, {}, {}],
        "deep": [json.loads('{"k":' * 90 + "1" + "}" * 90)] * 6,
        "dates": ["2020-01-01", "2020-01-02T00:00:00Z", "12:00", "1", "", "x"],
    }
    quick = ("absent in one row", "numbers and texts", "true and 1.5", "objects with other keys", "lists of kinds")
    for name, values in columns.items():
        rows = [
            {"text": text, "label": label} | ({} if value is absent else {"n": value})
            for text, label, value in zip(TEXTS, LABELS, values, strict=True)
        ]
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        table = sane(n=[None if value is absent else value for value in values])
        yield read(f"jsonl with {name}", "t.jsonl", content, table, quick=name in quick)
        yield read(f"json array with {name}", "t.json", json.dumps(rows, indent=1), table)
    for name, key in {
        "empty": "",
        "an escape sequence": "\x1b[31m",
        "with a NUL": "a\0b",
        "a dot": "a.b",
        "long": "k" * 10**6,
    }.items():
        table = sane(**{key: [1, 2, 3, 4, 5, 6]})
        yield read(f"jsonl: a name that is {name}", "t.jsonl", as_jsonl(table), table)


def _roles() -> Iterator[Case]:
    """Texts and labels that are of other kinds than text."""
    numbers: Table = {"text": list(TEXTS), "label": [1, 2, 3, 1, 2, 3]}
    unknown = {"evaluate": ("labels that are not among", "line 1")}
    yield read("jsonl: labels that are integers", "t.jsonl", as_jsonl(numbers), numbers, refused=unknown, quick=True)
    mixed: Table = {"text": list(TEXTS), "label": [1, "food", True, 2.5, "1", "food"]}
    yield read("jsonl: labels of kinds", "t.jsonl", as_jsonl(mixed), mixed, refused=unknown)
    flags: Table = {"text": list(TEXTS), "label": [True, False, True, False, True, False]}
    yield read("jsonl: labels that are true and false", "t.jsonl", as_jsonl(flags), flags, refused=unknown)
    lists: Table = {"text": list(TEXTS), "label": [["a", 1], ["b"], [], ["a"], ["b"], ["a"]]}
    wrong = {"evaluate": ("'label'", "t.jsonl")}
    yield read("jsonl: labels that are lists of kinds", "t.jsonl", as_jsonl(lists), lists, refused=wrong)
    for name, bad in {"a number": 5, "a list": ["a"], "an object": {"a": 1}, "true": True}.items():
        table: Table = {"text": [*TEXTS[:4], bad, TEXTS[5]], "label": list(LABELS)}
        refused = dict.fromkeys(COMMANDS, ("t.jsonl", "'text'", "line 5", "text"))
        yield read(f"jsonl: a text that is {name}", "t.jsonl", as_jsonl(table), table, refused=refused)
    for name, cells in {"null": [*TEXTS[:4], None, TEXTS[5]], "integers": [1, 2, 3, 4, 5, 6]}.items():
        table = {"text": cells, "label": list(LABELS)}
        refused = dict.fromkeys(COMMANDS, ("t.jsonl", "'text'", "line 5" if None in cells else "int64"))
        yield read(f"jsonl: texts with {name}", "t.jsonl", as_jsonl(table), table, refused=refused)
    for name, missing in {"null": None, "an object": {"a": 1}, "empty": ""}.items():
        table = {"text": list(TEXTS), "label": [*LABELS[:4], missing, LABELS[5]]}
        refused = dict.fromkeys(("train", "evaluate"), ("t.jsonl", "'label'", "line 5"))
        yield read(f"jsonl: a label that is {name}", "t.jsonl", as_jsonl(table), table, refused=refused)
    absent = _with('{"text": "a word"}', 4)
    table = {"text": [*TEXTS[:4], "a word", *TEXTS[4:]], "label": [*LABELS[:4], None, *LABELS[4:]]}
    refused = dict.fromkeys(("train", "evaluate"), ("t.jsonl", "'label'", "line 5", "missing"))
    yield read("jsonl: a label that is absent", "t.jsonl", absent, table, refused=refused, quick=True)
    spaced = absent.replace("\n", "\n\n\n")
    refused = dict.fromkeys(("train", "evaluate"), ("'label'", "line 13"))
    yield read("jsonl: a label that is absent, after blank lines", "t.jsonl", spaced, table, refused=refused)
    array = "[\n" + ",\n".join(line for line in absent.splitlines()) + "\n]"
    refused = dict.fromkeys(("train", "evaluate"), ("'label'", "line 6"))
    yield read("json array: a label that is absent", "t.json", array, table, refused=refused)
    scores: Table = {"text": list(TEXTS), "score": [1, 2.5, 3, "4", 5, 6]}
    refused = {"evaluate": ("'label'", "t.jsonl"), "predict": ("column 'score' already",)}
    yield read("jsonl: scores that are numbers and texts", "t.jsonl", as_jsonl(scores), scores, refused=refused)
