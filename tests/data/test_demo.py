"""The demo set: enough real texts for every chapter, none that gives its label away, split without leaks."""

import csv
import dataclasses
import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import WorkFailed
from snapfit.data import demo
from snapfit.data.demo import (
    MAX_WORDS,
    PLACEHOLDER,
    DemoRow,
    demo_rows,
    demo_split,
    demo_text,
    write_demo_tables,
)
from snapfit.data.demo_chapters import CHAPTERS


@pytest.fixture(scope="module")
def rows() -> list[DemoRow]:
    return demo_rows()


def test_every_chapter_has_rows_enough(rows: list[DemoRow]) -> None:
    counts = Counter(row.label for row in rows)
    assert set(counts) == set(CHAPTERS)
    assert min(counts.values()) >= 100
    assert len(rows) >= 5_500


def test_chapters_share_no_module() -> None:
    modules = [module for names in CHAPTERS.values() for module in names.split()]
    assert len(set(modules)) == len(modules)
    newer = {"annotationlib", "tomllib"}  # since 3.14 and 3.11
    assert {module.split(".")[0] for module in modules} <= {*sys.stdlib_module_names} | newer


def test_a_text_stands_once_and_its_space_is_plain(rows: list[DemoRow]) -> None:
    texts = [row.text.casefold() for row in rows]
    assert len(set(texts)) == len(texts)
    for row in rows:
        assert row.text == " ".join(row.text.split())
        assert len(row.text.split()) <= MAX_WORDS


def test_names_are_masked(rows: list[DemoRow]) -> None:
    for row in rows:
        hidden = {part.strip("_").casefold() for part in row.name.split(".")} - {"", PLACEHOLDER}
        words = "".join(c if c.isalnum() or c == "_" else " " for c in row.text).split()
        assert not hidden & {word.strip("_").casefold() for word in words}, row


def test_the_known_is_there(rows: list[DemoRow]) -> None:
    by_name = {row.name: row for row in rows}
    for name, label in {
        "shutil.copytree": "files",
        "decimal.Decimal.sqrt": "mathematics",
        "json.dumps": "internet-data",
        "asyncio.tasks.gather": "networking",
        "os.urandom": "operating-system",
        "builtins.str.upper": "builtins",
    }.items():
        assert by_name[name].label == label
    # re-exported, and so only where it is defined
    assert "glob.fnmatch" not in by_name
    assert not [name for name in by_name if name.startswith(("tkinter", "idlelib", "this", "antigravity"))]


def test_the_split_is_of_the_text_alone(rows: list[DemoRow]) -> None:
    parts = demo_split(rows)
    assert list(parts) == ["train", "valid", "test"]
    assert sum(map(len, parts.values())) == len(rows)
    shares = [len(part) / len(rows) for part in parts.values()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    texts = [{row.text for row in part} for part in parts.values()]
    assert not (texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2])
    for part in parts.values():
        assert {row.label for row in part} == set(CHAPTERS)
        assert all(DemoRow(row.text, "?", "?", "?").split == row.split for row in part)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("Return the sum of two numbers.", "train"),
        ("Open a file and read its lines.", "train"),
        ("Close the connection to the server.", "test"),
    ],
)
def test_the_split_of_a_text_never_changes(text: str, split: str) -> None:
    assert DemoRow(text, "a", "b", "c").split == split


@pytest.mark.parametrize("loaded_before", ["sys", "torch, transformers, typing_extensions, typer, pandas"])
def test_what_else_is_loaded_does_not_matter(rows: list[DemoRow], loaded_before: str) -> None:
    code = f"import dataclasses, json, {loaded_before}\nfrom snapfit.data.demo import demo_rows\n"
    code += "print(json.dumps([dataclasses.astuple(row) for row in demo_rows()]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout) == [list(dataclasses.astuple(row)) for row in rows]


def test_reading_starts_nothing() -> None:
    code = (
        "import sys, threading\n"
        "from snapfit.data.demo import demo_rows\n"
        "demo_rows()\n"
        "assert threading.active_count() == 1\n"
        "assert not {'readline', 'tkinter', 'this', 'antigravity', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_call_finds_the_same_rows(rows: list[DemoRow]) -> None:
    assert demo_rows() == rows


def test_the_tables_hold_the_rows(rows: list[DemoRow], tmp_path: Path) -> None:
    paths = write_demo_tables(tmp_path / "new" / "folder")
    for split, part in demo_split(rows).items():
        assert paths[split] == tmp_path / "new" / "folder" / f"{split}.csv"
        with open(paths[split], encoding="utf-8", newline="") as file:
            header, *cells = csv.reader(file)
        assert header == ["text", "label", "name"]
        assert cells == [[row.text, row.label, row.name] for row in part]
        assert paths[split].read_text("utf-8").startswith('"text","label","name"\n"')
    assert sorted(path.name for path in paths["train"].parent.iterdir()) == [
        "test.csv",
        "train.csv",
        "valid.csv",
    ]


def test_without_docstrings_it_says_so() -> None:
    code = "from snapfit.core.errors import WorkFailed\nfrom snapfit.data.demo import demo_rows\n"
    code += "try:\n    demo_rows()\nexcept WorkFailed as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "start it without -OO" in done.stdout


def test_few_docstrings_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CHAPTERS", {"gone": "a_module_that_nobody_has", "small": "bisect"})
    with pytest.raises(WorkFailed, match="docstrings"):
        demo_rows()


def test_what_two_chapters_say_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FEWEST_ROWS", 1)
    monkeypatch.setattr(demo, "CHAPTERS", {"one": "bisect", "two": "heapq"})
    both = demo_rows()
    assert {row.label for row in both} == {"one", "two"}
    monkeypatch.setattr(demo, "CHAPTERS", {"one": "bisect heapq", "two": "heapq"})
    assert {row.module for row in demo_rows()} == {"bisect"}


def test_warnings_elsewhere_stay_as_they_were() -> None:
    filters = list(warnings.filters)
    demo_rows()
    assert warnings.filters == filters


# ---------------------------------------------------------------- one text


@pytest.mark.parametrize(
    ("doc", "hidden", "text"),
    [
        (
            "join(a, *p) -> str\n\n  Join one or more\tpath components, see os.path.split.",
            ["os.path.join", "os.path"],
            "thing(a, *p) -> str thing one or more thing components, see thing.split.",
        ),
        (
            "Email messages: email.message.Message holds what EMAIL brings.",
            ["email.message.Message", "email.message"],
            "thing messages: thing holds what thing brings.",
        ),
        (
            "The socket type of _socket.socket, unlike websockets or socket_x.",
            ["socket.socket", "socket"],
            "The thing type of thing, unlike websockets or socket_x.",
        ),
        ("See numpy.random.bytes and random.choice for more.", ["random"], None),
    ],
)
def test_masking(doc: str, hidden: list[str], text: str | None) -> None:
    expected = text if text is not None else "See numpy.thing.bytes and thing.choice for more."
    assert demo_text(doc, hidden=hidden) == expected


@pytest.mark.parametrize(
    "doc",
    [
        "",
        "   \n",
        "Nothing here.",
        "point(x, y)",
        "Alias for field number 3",
        "f(a: int, b: str) -> None",
        "a b c d e f",
    ],
)
def test_what_is_no_prose_is_left_out(doc: str) -> None:
    assert demo_text(doc, hidden=["module.f"]) is None


def test_long_texts_are_cut() -> None:
    text = demo_text("word " * 500, hidden=["a.b"])
    assert text is not None
    assert len(text.split()) == MAX_WORDS


@given(doc=st.text(), hidden=st.lists(st.sampled_from(["os.path.join", "email", "A._b.c"]), min_size=1))
def test_any_text_is_handled(doc: str, hidden: list[str]) -> None:
    text = demo_text(doc, hidden=hidden)
    assert text is None or (text and len(text.split()) <= MAX_WORDS)
