"""`snapfit check`: what it shows, what it writes, its exit codes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = ["--no-plan", "--near", "off", "--encoder", "none"]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, str]:
    """A training table with faults, and a validation table that leaks."""
    rows = "".join(f"text number {i},{'xy'[i % 2]}\n" for i in range(30))
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text(f"text,label\n{rows}bad\n,x\n", "utf-8")
    valid.write_text("text,label\ntext number 3,y\nsomething new,x\n", "utf-8")
    return {"train": str(train), "valid": str(valid)}


def test_findings_come_with_rows_examples_and_the_fix(run: Any, tables: dict[str, str]) -> None:
    outcome = run("check", tables["train"], "--valid", tables["valid"], *QUICK)
    assert (outcome.code, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    first = next(i for i, line in enumerate(lines) if "[leak]" in line)
    assert lines[first].startswith("error      1 row of valid (50 %) has a text that is in train too")
    assert lines[first + 1].split() == ["rows", "valid.csv:", "line", "2"]
    assert lines[first + 2].split() == ["rows", "train.csv:", "line", "5"]
    assert "like  text number 3" in lines[first + 3]
    assert lines[first + 5].strip().startswith("fix   take them out of the training table: --fix DIR")
    assert "[unreadable_row]" in outcome.out
    assert "found      2 errors, 2 warnings, 0 notes" in lines
    assert "skipped    encoder: no encoder" in outcome.out


def test_a_good_table_with_an_encoder_and_a_plan(run: Any, workplace: Path) -> None:
    table, encoder = workplace / "train.csv", workplace / "encoder"
    outcome = run("check", table, "--encoder", encoder, "--set", "train.precision=fp32", "--set", "train.epochs=1")
    assert outcome.code == 0, outcome.err
    assert "plan       steps" in outcome.out
    assert "found      0 errors" in outcome.out
    assert "tokens/s" in outcome.out


def test_json_is_the_last_line_and_the_rest_goes_to_standard_error(run: Any, tables: dict[str, str]) -> None:
    outcome = run("check", tables["train"], *QUICK, "--json")
    (line,) = outcome.out.splitlines()
    values = json.loads(line)
    assert values["levels"] == {"error": 1, "warning": 2, "note": 0}
    (unreadable,) = [one for one in values["findings"] if one["kind"] == "unreadable_row"]
    assert unreadable["rows"] == [{"split": "train", "file": tables["train"], "counted": "line", "numbers": [32]}]
    assert "[unreadable_row]" in outcome.err
    quiet = run("check", tables["train"], *QUICK, "--json", "--quiet")
    assert (json.loads(quiet.out)["levels"], quiet.err) == (values["levels"], "")


def test_copies_and_a_page_are_written_where_they_are_asked_for(
    run: Any, tables: dict[str, str], tmp_path: Path
) -> None:
    asked = ["--fix", tmp_path / "clean", "--html", tmp_path / "report.html"]
    outcome = run("check", tables["train"], "--valid", tables["valid"], *QUICK, *asked)
    assert outcome.code == 1
    assert "train: left out 1 empty_text, 1 leak, 1 unreadable_row" in outcome.out
    assert f"next       snapfit train {tmp_path}/clean/train.csv --valid {tmp_path}/clean/valid.csv" in outcome.out
    assert (tmp_path / "report.html").exists()
    again = run("check", tmp_path / "clean/train.csv", "--valid", tmp_path / "clean/valid.csv", *QUICK)
    assert again.code == 0, again.out


def test_what_texts_hold_reaches_no_terminal_as_it_is(run: Any, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("text\tlabel\n\x1b[31mred\tx\nother\ty\n", "utf-8")
    outcome = run("check", tmp_path / "t.tsv", *QUICK)
    assert "\x1b" not in outcome.out
    assert "\\x1b[31mred" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "does not exist"),
        (["{train}", "--near", "much"], "--near much"),
        (["{train}", "--near", "0.2"], "a similarity of 0.2"),
        (["{train}", "--drop", "leak"], "no cleaned copy"),
        (["{train}", "--fix", ".", "--drop", "leak"], "--drop leak"),
        (["{train}", "--encoder", "./none"], "no folder"),
        (["{train}", "--text", "nothing"], "no column 'nothing'"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_and_bad_input_are_code_2(run: Any, tables: dict[str, str], arguments: list[str], words: str) -> None:
    outcome = run("check", *(argument.format(**tables) for argument in arguments))
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.out == ""
