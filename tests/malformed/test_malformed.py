"""Every malformed file through every command: no traceback, no cell lost or changed, and a clear refusal.

The quick share runs with all tests, the whole corpus where `-m long` asks for it.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from malformed import corpus, runner
from malformed.case import ANY, COMMANDS, Case, Table, read, refuse, same, sane
from snapfit.core.errors import BadInput
from snapfit.data import formats, table_pieces
from snapfit.data.formats import read_table
from snapfit.data.json_cells import is_json_type, json_values
from snapfit.runtime import parts

CASES = corpus.cases()
N_PARTS = 20
"""Tests that the whole corpus is spread over."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder and a bundle."""
    return runner.workplace(tmp_path_factory.mktemp("places"))


def folder_for(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / str(number)
    folder.mkdir()
    return folder


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CASES) >= 500
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    for command in COMMANDS:
        assert sum(command in case.refused for case in CASES) > 300
        assert sum(command not in case.refused for case in CASES) > 300


@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.name)
def test_quick_share(case: Case, tmp_path: Path, places: Path) -> None:
    assert runner.faults(case, tmp_path, places, ("evaluate", "predict", "check")) == []


@pytest.mark.long
@pytest.mark.parametrize("part", range(N_PARTS))
def test_whole_corpus(part: int, tmp_path: Path, places: Path) -> None:
    found = []
    for number, case in enumerate(CASES[part::N_PARTS]):
        found += runner.faults(case, folder_for(tmp_path, number), places)
    assert found == []


def small_pieces(patch: pytest.MonkeyPatch, size: int) -> None:
    """Files of any size are streamed, in pieces of this many bytes, and answered two rows at a time."""
    patch.setattr(table_pieces, "PIECE_BYTES", size)
    patch.setattr(formats, "STREAMED_BYTES", -1)
    patch.setattr(parts, "WHOLE_BYTES", -1)
    patch.setattr(parts, "PART_ROWS", 2)
    patch.setattr(parts, "PART_CHARACTERS", size)


@pytest.mark.long
@pytest.mark.parametrize("part", range(N_PARTS))
def test_whole_corpus_in_pieces(part: int, tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number, case in enumerate(CASES[part::N_PARTS]):
        with monkeypatch.context() as patch:
            small_pieces(patch, 2**20 if case.large else 64)
            found += runner.faults(case, folder_for(tmp_path, number), places, ("evaluate", "predict"))
    assert found == []


def read_by(case: Case, **options: Any) -> Table | str:
    """The cells of a case's table, or the error."""
    how = {name: value for name, value in case.options.items() if name in ("encoding", "format")}
    try:
        table = read_table(case.source, **how, **options)
    except BadInput as error:
        return str(error)
    columns = zip(table.column_names, table.columns, strict=True)
    from_text = not case.source.endswith(".parquet")  # whose own JSON cells are texts to every reader
    return {
        name: json_values(column) if from_text and is_json_type(column.type) else column.to_pylist()
        for name, column in columns
    }


@pytest.mark.parametrize("share", ["quick", pytest.param("whole", marks=pytest.mark.long)])
def test_both_ways_to_read_give_the_same_cells(share: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, case in enumerate(CASES):
        if (case.quick or share == "whole") and "beyond 9999" not in case.name:
            folder = folder_for(tmp_path, number)
            case.make(folder)
            monkeypatch.chdir(folder)
            at_once = read_by(case)
            with monkeypatch.context() as patch:
                small_pieces(patch, 2**20 if case.large else 64)
                stored = read_by(case, cache_dir=tmp_path / "cache")
            assert repr(stored) == repr(at_once), case.name
            if case.table is not None and not any(ANY in cells for cells in case.table.values()):
                assert isinstance(at_once, dict), (case.name, at_once)
                assert list(at_once) == list(case.table)
                for name, cells in case.table.items():
                    assert all(map(same, cells, at_once[name])), (case.name, name)


# ---------------------------------------------------------------- the runner finds what is wrong

GOOD = "text,label\nbread,food\na saw,tools\na cat,animals\n"
TABLE = {"text": ["bread", "a saw", "a cat"], "label": ["food", "tools", "animals"]}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (read("a", "t.csv", GOOD, TABLE | {"text": ["Bread", "a saw", "a cat"]}), "row 1 of 'text'"),
        (read("a", "t.csv", GOOD, {"text": TABLE["text"]}), "columns"),
        (read("a", "t.csv", GOOD, sane()), "3 answers for 6 rows"),
        (read("a", "t.csv", GOOD + "alone\n", TABLE), "exit code 2, not 0"),
        (refuse("a", "t.csv", GOOD), "exit code 0, not 2"),
        (refuse("a", "t.csv", GOOD + "alone\n", "line 6"), "no 'line 6'"),
    ],
)
def test_the_runner_sees_a_wrong_expectation(case: Case, words: str, tmp_path: Path, places: Path) -> None:
    assert words in "".join(runner.faults(case, tmp_path, places, ("predict",)))


def test_the_runner_sees_tracebacks_and_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        print("\x1b[31m")
        (Path("t.csv")).write_text("other")
        raise KeyError(arguments[0])

    monkeypatch.setattr(runner, "main", broken)
    assert "a traceback" in runner.faults(refuse("a", "t.csv", GOOD), tmp_path, tmp_path, ("predict",))[0]

    def noisy(arguments: list[str]) -> int:
        print("\x1b[31m")
        (Path("t.csv")).write_text("other")
        (Path("left")).mkdir()
        return 2

    monkeypatch.setattr(runner, "main", noisy)
    found = "".join(runner.faults(refuse("a", "t.csv", GOOD), folder_for(tmp_path, 1), tmp_path, ("predict",)))
    for word in ("control characters", "input has changed", "left behind", "not one error", "no 't.csv'"):
        assert word in found
