"""Findings as values: their order, what is shown of a text, where rows are; and that each kind is documented."""

import re
from pathlib import Path

import numpy as np
import pytest

import checking
from snapfit.checks.findings import Example, Finding, Where, percent, quantity, ranked, rows_at, shown, verb
from snapfit.checks.kinds import KINDS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "check.md"


def test_errors_come_first_and_then_what_harms_most() -> None:
    findings = [
        Finding("html", "note", "train", 90, 100, ""),
        Finding("duplicate_text", "warning", "train", 90, 100, ""),
        Finding("leak", "warning", "valid", 40, 100, ""),
        Finding("bad_label", "error", "train", 1, 100, ""),
        Finding("leak", "error", "valid", 2, 100, ""),
    ]
    assert [(one.level, one.kind) for one in ranked(reversed(findings))] == [
        ("error", "leak"),
        ("error", "bad_label"),
        ("warning", "leak"),
        ("warning", "duplicate_text"),
        ("note", "html"),
    ]


def test_a_finding_is_plain_values() -> None:
    where = [Where("train", "a.csv", "line", np.array([2, 3])), Where("valid", "", "row", np.array([5, 6, 7]))]
    one = Finding("leak", "error", "valid", 3, 12, "text", where=where, examples=[Example(["a"], ["p"], ["x"], "n")])
    values = checking.plain(one)
    assert (values["share"], values["fix"], values["title"]) == (0.25, KINDS["leak"].fix, KINDS["leak"].title)
    assert values["rows"][1] == {"split": "valid", "file": "", "counted": "row", "numbers": [5, 6, 7]}
    assert [len(part["numbers"]) for part in one.to_dict(3)["rows"]] == [2, 1]
    assert [str(part) for part in where] == ["a.csv: line 2", "row 5"]
    assert Finding("leak", "error", "valid", 3, 12, "", fix="own").what_to_do == "own"


def test_rows_are_told_by_file(tmp_path: Path) -> None:
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_text("text\tlabel\none\tx\n\ntwo\ty\n")
    split = checking.splits_of(train=str(tmp_path))["train"]
    found = rows_at(split, np.array([0, 1, 3]))
    assert [(Path(one.file).name, one.numbers.tolist()) for one in found] == [("a.tsv", [2, 4]), ("b.tsv", [4])]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain 中文 é", "plain 中文 é"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\x1b[31mred\u202e", "\\x1b[31mred\\u202e"),
        ("x" * 200, "x" * 100 + "…"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_shown_of_a_text_obeys_no_terminal(text: str, wanted: str) -> None:
    assert shown(text) == wanted


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.00017, "0.017 %"), (0.0031, "0.3 %"), (0.25, "25 %"), (1, "100 %"), (0.0999, "10.0 %")],
)
def test_shares_have_as_many_digits_as_say_something(share: float, words: str) -> None:
    assert percent(share) == words


def test_numbers_and_verbs_agree() -> None:
    assert (quantity(1, "row"), quantity(1099, "row")) == ("1 row", "1,099 rows")
    assert [verb(1, word) for word in ("have", "are", "hold")] == ["has", "is", "holds"]
    assert verb(2, "have") == "have"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="documentation that is not there")
def test_every_kind_is_documented_once_and_no_other() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(KINDS)
