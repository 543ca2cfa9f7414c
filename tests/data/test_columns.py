"""Columns found by name: what is plain is taken, what is not is asked for."""

from typing import Any

import pyarrow as pa
import pytest

from snapfit.core.errors import BadInput
from snapfit.data.columns import find_columns, parse_number


def table(*names: str, **columns: list[Any]) -> pa.Table:
    return pa.table({**{name: ["one", "two"] for name in names}, **columns})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], ("text", None, "label")),
        (["Label", " Text "], (" Text ", None, "Label")),
        (["title", "text", "category"], ("text", None, "category")),
        (["review", "sentiment"], ("review", None, "sentiment")),
        (["id", "utterance", "intent"], ("utterance", None, "intent")),
        (["sentence1", "sentence2", "label"], ("sentence1", "sentence2", "label")),
        (["label", "Text A", "text-b"], ("Text A", "text-b", "label")),
        (["premise", "hypothesis", "label", "idx"], ("premise", "hypothesis", "label")),
        (["question", "sentence", "label"], ("question", "sentence", "label")),
        (["idx", "words", "class"], ("words", None, "class")),
        (["label", "topic", "text"], ("text", None, "label")),
        (["文本", "标签"], ("文本", None, "标签")),
    ],
)
def test_usual_names(names: list[str], expected: tuple[str, str | None, str]) -> None:
    found = find_columns(table(*names))
    assert (found.text, found.pair, found.label, found.task) == (*expected, "single")
    assert all(repr(name) in found.found for name in expected if name)


@pytest.mark.parametrize(
    ("names", "flags", "expected"),
    [
        (["a", "b", "c"], {"text": "b", "label": "c"}, ("b", None, "c")),
        (["a", "b", "c"], {"text": "b", "pair": "a", "label": "c"}, ("b", "a", "c")),
        (["sentence1", "sentence2", "label"], {"text": "sentence1"}, ("sentence1", "sentence2", "label")),
        (["sentence1", "sentence2", "label"], {"pair": "sentence2"}, ("sentence1", "sentence2", "label")),
        (
            ["sentence1", "sentence2", "label"],
            {"text": "sentence2", "pair": None},
            ("sentence2", None, "label"),
        ),
        (["text", "premise", "hypothesis", "label"], {"pair": None}, ("text", None, "label")),
        (["text", "title", "label"], {"pair": "title"}, ("text", "title", "label")),
        (["text", "label"], {"text": "label", "label": "text"}, ("label", None, "text")),
    ],
)
def test_named_columns(names: list[str], flags: dict[str, Any], expected: tuple[str, str | None, str]) -> None:
    found = find_columns(table(*names), **flags)
    assert (found.text, found.pair, found.label) == expected


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        (["title", "body", "label"], {}, "(?s)'body', 'title'.*--text body"),
        (["text", "premise", "hypothesis", "label"], {}, "(?s)'premise' with 'hypothesis', 'text'.*--pair none"),
        (["a", "b", "label"], {}, "(?s)no column of texts was found; the columns are 'a', 'b', 'label'.*--text"),
        (["text", "a"], {}, "(?s)no column of labels was found.*--label NAME"),
        (["text", "intent", "category"], {}, "(?s)'category', 'intent'.*--label"),
        (["text", "label"], {"text": "txt"}, "(?s)no column 'txt'.*did you mean --text 'text'"),
        (["text", "label"], {"label": "zzz"}, "(?s)no column 'zzz'.*--label NAME"),
        (["text", "label"], {"pair": "tex"}, "no column 'tex'"),
        (["text", "label"], {"text": "label", "label": "label"}, "one column in two roles"),
        (["text", "label"], {"pair": "text", "text": "text"}, "one column in two roles"),
        (["text", "label"], {"task": "multi"}, "(?s)no lists.*--delimiter"),
        (["text", "label"], {"task": "many"}, "the task 'many'"),
        (["text", "label"], {"task": "single", "delimiter": ","}, "task single with a delimiter"),
        (["text", "label"], {"delimiter": ""}, "an empty delimiter"),
        (
            ["text;label"],
            {},
            "(?s)no column of labels.*in its name what may separate columns, ';': save it with commas",
        ),
        (["text\tlabel"], {"label": "label"}, "(?s)no column 'label'.*a tab: --format tsv"),
        (["Text ", "label"], {"text": "text"}, "(?s)no column 'text'.*did you mean --text 'Text '"),
        ([f"c{i}" for i in range(10**5)], {}, "'c19' and 99,980 more"),
        (["text", "label"], {"where": "t.csv", "text": "x"}, "^t.csv: no column 'x'"),
    ],
)
def test_what_must_be_asked(names: list[str], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_columns(table(*names), **flags)


MANY = [str(i / 4) for i in range(40)]


@pytest.mark.parametrize(
    ("column", "cells", "task"),
    [
        ("label", ["1", "0"], "single"),
        ("label", [1, 0], "single"),
        ("label", MANY, "regression"),
        ("label", [float(cell) for cell in MANY], "regression"),
        ("label", [*MANY, "n/a"], "single"),
        ("label", [str(i) for i in range(40)], "single"),
        ("label", ["0.5", "1.5"], "single"),
        ("score", ["1", "5"], "regression"),
        ("rating", [1, 5], "regression"),
        ("rating", ["good", "bad"], "single"),
        ("label", [["x"], []], "multi"),
        ("labels", [["x"], []], "multi"),
        ("labels", ["x", "y"], "single"),
        ("labels", [0, 1], "single"),
        ("labels", ['["x"]', " []"], "multi"),
    ],
)
def test_the_task_by_name_and_cells(column: str, cells: list[Any], task: str) -> None:
    found = find_columns(table(**{"text": ["t"] * len(cells), column: cells}))
    assert (found.task, found.label) == (task, column)


def test_many_labels_in_text_cells() -> None:
    many = table(text=["t", "u"], labels=["x,y", "z"])
    with pytest.raises(BadInput, match="(?s)--delimiter ','.*--task single"):
        find_columns(many)
    assert find_columns(many, delimiter=",").task == "multi"
    assert find_columns(many, task="single").task == "single"
    lists = table(text=["t", "u"], label=[["x"], ["y"]])
    for flags in ({"task": "single"}, {"delimiter": ","}):
        with pytest.raises(BadInput, match="cells are lists"):
            find_columns(lists, **flags)


def test_labels_are_left_alone_where_they_are_not_required() -> None:
    found = find_columns(table("text", "label"), labels_required=False)
    assert (found.label, found.task) == (None, "single")
    assert find_columns(table("text"), labels_required=False, task="multi").task == "multi"
    assert find_columns(table("text", "label"), labels_required=False, label="label").label == "label"


@pytest.mark.parametrize(
    ("value", "number"),
    [("1.5", 1.5), (" 2 ", 2.0), (3, 3.0), ("1e3", 1000.0)]
    + [(x, None) for x in ("", "x", "nan", "inf", "1_0", "1,5", True, None, [])],
)
def test_numbers(value: Any, number: float | None) -> None:
    assert parse_number(value) == number


def test_a_few_bad_cells_do_not_make_a_score_column_a_set_of_labels() -> None:
    table = pa.table({"text": ["a", "b", "c", "d"], "score": ["1.5", "much", "2", "3"]})
    assert find_columns(table).task == "regression"
    assert find_columns(pa.table({"text": ["a", "b"], "score": ["good", "bad"]})).task == "single"
