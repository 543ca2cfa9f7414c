"""Puts malformed files through the commands, and says what was wrong with how they went.

What holds for every file and every command: the exit code is 0 or 2; nothing escapes as a traceback; a refusal is one
error that names the file, says where and what to do, and leaves nothing behind; nothing of the file reaches the
terminal as a control character; an answer has a row for each row, in their order, with every cell as it was. `check`
reads on behind what training refuses: it refuses only that, or ends with 1 and says what is wrong.
"""

import csv
import io
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import toys
import trained
from malformed.case import ANY, COMMANDS, Case, Table, same
from snapfit.cli.app import main

_STEP = ["--epochs", "1", "--set", "train.batch=64", "--set", "data.valid_fraction=0", "--set", "model.pooling=native"]
_QUICK = [*_STEP, "--set", "train.precision=fp32", "--set", "length.max_tokens=16"]
_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Outcome:
    """How a command went. code: None where it crashed, with the traceback in `error`."""

    code: int | None
    output: str
    error: str


def workplace(folder: Path) -> Path:
    """A folder with a tiny encoder, and a bundle that was trained on sane rows."""
    toys.encoder_folder(folder / "encoder")
    trained.write_csv(folder / "train.csv", toys.single_rows(30))
    arguments = ["train", str(folder / "train.csv"), "--encoder", str(folder / "encoder"), "--out", str(folder / "run")]
    outcome = run([*arguments, *_QUICK], folder)
    assert outcome.code == 0, outcome
    return folder


def faults(case: Case, folder: Path, places: Path, commands: tuple[str, ...] = (*COMMANDS, "check")) -> list[str]:
    """What is wrong with how the commands take a case; nothing where all is right.

    folder: empty; the case's files are written into it. places: a `workplace`.
    """
    case.make(folder)
    before = listing(folder)
    found = []
    for command in commands:
        outcome = run(_arguments(case, command, places), folder)
        wrong = list(_wrong(case, command, outcome, folder, before))
        found += [f"{case.name}, {command}: {what}\n{outcome.output}{outcome.error}" for what in wrong]
        _clear(folder, before)
    return found


def run(arguments: list[str], folder: Path) -> Outcome:
    """A command line, in this process and in this folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    code: int | None = None
    with _inside(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]
    return Outcome(code, *texts)


def listing(folder: Path) -> dict[str, str]:
    """What is in a folder, with a hash of each file."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(root, name)
            found[path] = sha256(Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else "no file"
    return found


def shown(text: str) -> str:
    """A name as a message may show it: what would do something to a terminal is escaped."""
    return "".join(c.encode("unicode_escape").decode("ascii") if is_control(c) else c for c in text)


def is_control(character: str) -> bool:
    """Whether a terminal would act on it, or not know what it is."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI


# ---------------------------------------------------------------- one command


def _arguments(case: Case, command: str, places: Path) -> list[str]:
    renamed = {"format": "table-format", "text": "text-column"} if command == "predict" else {}
    flags = []
    for name, value in case.options.items():
        if name != "out":
            flags += [f"--{renamed.get(name, name)}", value]
    if command == "train":
        return ["train", case.source, "--encoder", str(places / "encoder"), "--out", "out", *_QUICK, *flags]
    if command == "check":
        return ["check", case.source, "--encoder", str(places / "encoder"), "--no-plan", *flags]
    if command == "predict":
        flags += ["--out", f"out.{_output(case)}"]
    return [command, str(places / "run" / "bundle"), case.source, *flags]


def _output(case: Case) -> str:
    """The format that answers are asked for in: the table's own."""
    if "out" in case.options:
        return case.options["out"]
    suffix = os.path.splitext(case.source)[1].lower().removeprefix(".")
    if suffix not in ("csv", "tsv", "jsonl", "parquet"):
        suffix = {"json": "jsonl", "ndjson": "jsonl"}.get(suffix, case.options.get("format", "jsonl"))
    return "csv" if suffix == "tsv" and case.options.get("format") == "tsv-quoted" or suffix == "tsv-quoted" else suffix


def _wrong(case: Case, command: str, outcome: Outcome, folder: Path, before: Mapping[str, str]) -> Iterator[str]:
    if outcome.code is None:
        yield "a traceback"
        return
    bad = sorted({c for c in outcome.output + outcome.error if is_control(c) and c != "\n"})
    if bad:
        yield f"control characters {bad!r}"
    after = listing(folder)
    if any(after.get(path) != content for path, content in before.items()):
        yield "the input has changed"
    words = case.refused.get("train" if command == "check" else command)
    told = command == "check" and outcome.code == 1
    if (words is not None or told) and after != before:
        yield f"left behind: {sorted(set(after) - set(before))}"
    if told:
        if "error" not in outcome.output:
            yield "exit code 1 without an error that is told"
    elif outcome.code != (0 if words is None else 2):
        yield f"exit code {outcome.code}, not {0 if words is None else 2}"
    elif words is not None:
        yield from _unclear(case, words, outcome.error)
    elif command == "predict" and case.table is not None:
        yield from _other_cells(case.table, folder / f"out.{_output(case)}")


def _unclear(case: Case, words: Any, error: str) -> Iterator[str]:
    if not error.startswith("error: ") or error.count("error: ") != 1:
        yield "not one error"
    for part in ("\n  expected: ", "\n  fix: "):
        if error.count(part) != 1:
            yield f"not one line of {part.strip()!r}"
    if len(error) > 3_000:
        yield f"{len(error):,} characters"
    name = shown(str(Path(case.source)))
    for word in [*words, *([name] if case.names_file else [])]:
        if word.lower() not in error.lower():
            yield f"no {word!r}"


def _other_cells(table: Table, path: Path) -> Iterator[str]:
    """How the answers differ from the table that was answered."""
    found = read_back(path)
    names = [*table, "predicted", "score"]
    if list(found) != names:
        yield f"columns {list(found)!r:.300}, not {names!r:.300}"
        return
    n_rows = len(next(iter(table.values())))
    if len(found["predicted"]) != n_rows or not all(found["predicted"]):
        yield f"{len(found['predicted'])} answers for {n_rows} rows"
        return
    for name, cells in table.items():
        for i, (cell, back) in enumerate(zip(cells, found[name], strict=True)):
            if cell is not ANY and not same(cell, back):
                yield f"row {i + 1} of {name!r:.60} was {cell!r:.200} and is {back!r:.200}"


def read_back(path: Path) -> Table:
    """A table by other readers than snapfit's."""
    if path.suffix == ".parquet":
        table: Table = pq.read_table(path).to_pydict()
        return table
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
        return {name: [row[name] for row in rows] for name in rows[0]}
    if path.suffix == ".tsv":
        lines = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    else:
        csv.field_size_limit(2**31 - 1)
        lines = list(csv.reader(io.StringIO(text, newline="")))
    return {name: [line[i] for line in lines[1:]] for i, name in enumerate(lines[0])}


# ---------------------------------------------------------------- the folder


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before, stdin = os.getcwd(), sys.stdin
    os.chdir(folder)
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    try:
        yield
    finally:
        os.chdir(before)
        sys.stdin = stdin


def _clear(folder: Path, before: Mapping[str, str]) -> None:
    """Remove what a command wrote."""
    for path in sorted(set(listing(folder)) - set(before), key=len, reverse=True):
        (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
