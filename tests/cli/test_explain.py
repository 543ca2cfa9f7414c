"""`snapfit explain`: marks, colours, a page and JSON lines that say what the library says."""

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import snapfit
import trained
from snapfit.cli.app import main

TEXT = "the bread was very good with honey"


@pytest.fixture(scope="module")
def predictor(workplace: Path) -> Any:
    return snapfit.load(workplace / "single/bundle")


@pytest.fixture(scope="module")
def multi(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that gives any number of labels."""
    folder = tmp_path_factory.mktemp("multi") / "run"
    arguments = [workplace / "multi.jsonl", "--encoder", workplace / "encoder", "--out", folder]
    assert main(["train", *map(str, arguments), *trained.QUICK]) == 0
    return folder / "bundle"


def test_a_text_with_its_words_marked(run: Any, workplace: Path, predictor: Any) -> None:
    outcome = run("explain", workplace / "single/bundle", "--text", TEXT, "--top", "2")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    explanation = predictor.explain(TEXT)
    (label,) = explanation.labels
    answer, why, marked, marks, legend = outcome.out.splitlines()
    assert answer == f"answer     {explanation.decision}"
    assert f"{label.label}, score {label.score:.4f}: log-odds {label.value:+.2f}" in why
    assert f"with every word masked {label.baseline:+.2f}; the words add {label.value - label.baseline:+.2f}" in why
    strongest = sorted(label.words, key=lambda word: -abs(word.value))[:2]
    assert re.findall(r"\[([+-]\d+\.\d\d) (\w+)\]", marked) == [
        (f"{word.value:+.2f}", word.text) for word in label.words if word in strongest
    ]
    assert re.sub(r"\[[+-]\S+ (\w+)\]", r"\1", marked).strip() == TEXT
    assert marks.startswith("legend     [+0.10 word] added 0.10 to the label's log-odds")
    assert legend.strip() == "by integrated gradients, with [MASK] for a word that is not there"


def test_labels_methods_tokens_and_the_check(run: Any, workplace: Path, predictor: Any) -> None:
    options = ["--label", "tools", "--label", "food", "--method", "occlusion", "--check", "--tokens"]
    outcome = run("explain", workplace / "single/bundle", "--text", TEXT, *options)
    assert outcome.code == 0, outcome.err
    explanation = predictor.explain(TEXT, method="occlusion", target=["tools", "food"], check=True, tokens=True)
    lines = outcome.out.splitlines()
    assert [line.split()[1].rstrip(",") for line in lines if line.startswith("why")] == ["tools", "food"]
    agreements = [f"alike to {label.check.agreement:.2f}" for label in explanation.labels]
    checks = [line for line in lines if line.startswith("check")]
    assert all(agreement in line for agreement, line in zip(agreements, checks, strict=True))
    assert "taking away one word at a time" in lines[-1]


def test_a_table_is_explained_up_to_a_bound(run: Any, workplace: Path) -> None:
    bundle, table = workplace / "single/bundle", workplace / "test.csv"
    outcome = run("explain", bundle, table, "--rows", "3", "--method", "occlusion")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line for line in lines if line.startswith("row ")] == ["row        1", "row        2", "row        3"]
    assert lines[-1] == "rows       only the first 3 of the table; --rows N takes more"
    few = run("explain", bundle, "-", "--rows", "2", "--method", "occlusion", stdin=b"bread\nsaw\n")
    assert "only the first" not in few.out
    default = json.loads(run("explain", bundle, table, "--json", "--method", "occlusion").out)
    assert (default["rows"], default["more_rows"]) == (20, True)


def test_files_hold_what_the_library_says(run: Any, workplace: Path, predictor: Any) -> None:
    with open(workplace / "test.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:4]
    arguments = ["--rows", "4", "--html", "a.html", "--out", "a.jsonl", "--method", "occlusion", "--json"]
    outcome = run("explain", workplace / "single/bundle", workplace / "test.csv", *arguments)
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in Path("a.jsonl").read_text("utf-8").splitlines()]
    expected = [one.to_dict() for one in predictor.explain(texts, method="occlusion")]
    assert [line.pop("row") for line in lines] == [1, 2, 3, 4]
    assert lines == expected
    page = Path("a.html").read_text("utf-8")
    assert all(text.split()[0] in page for text in texts)
    (summary,) = map(json.loads, outcome.out.splitlines())
    seconds = summary.pop("seconds")
    assert seconds > 0
    assert summary == {"rows": 4, "more_rows": True, "method": "occlusion", "html": "a.html", "out": "a.jsonl"}
    assert "explain    4 of 4" in outcome.err
    assert "4 explanations to a.html" in outcome.err
    assert sorted(path.name for path in Path().iterdir()) == ["a.html", "a.jsonl"]


def test_json_carries_the_values_where_no_file_does(run: Any, workplace: Path, predictor: Any) -> None:
    outcome = run("explain", workplace / "single/bundle", "--text", TEXT, "--text", "", "--json")
    result = json.loads(outcome.out)
    assert result["explanations"] == [one.to_dict() for one in predictor.explain([TEXT, ""])]
    assert (result["rows"], result["more_rows"], result["html"], result["out"]) == (2, False, None, None)


def test_pairs(run: Any, workplace: Path) -> None:
    bundle = workplace / "pairs/bundle"
    pair = ("the bread here", "a saw and this nail")
    outcome = run("explain", bundle, "--text", "\t".join(pair), "--json")
    (explanation,) = json.loads(outcome.out)["explanations"]
    assert explanation == snapfit.load(bundle).explain(pair).to_dict()
    shown = run("explain", bundle, "--text", "\t".join(pair)).out.splitlines()
    assert [re.sub(r"\[[+-]\S+ (\w+)\]", r"\1", line).strip() for line in shown[2:4]] == list(pair)


def test_many_labels_and_none(run: Any, multi: Path) -> None:
    predictor = snapfit.load(multi)
    texts = ["bread and a hammer", "cat", "the"]
    for text in texts:
        outcome = run("explain", multi, "--text", text, "--method", "occlusion")
        given = predictor.predict(text)
        assert outcome.out.splitlines()[0] == f"answer     {', '.join(given) or 'no label'}"
        assert outcome.out.count("\nwhy ") == max(len(given), 1)


def test_a_regression_has_no_score(run: Any, workplace: Path) -> None:
    arguments = [workplace / "scores.csv", "--encoder", workplace / "encoder", "--out", "scores", *trained.QUICK]
    assert run("train", *arguments).code == 0
    outcome = run("explain", "scores/bundle", "--text", "bread and a saw", "--json")
    (explanation,) = json.loads(outcome.out)["explanations"]
    assert explanation["unit"] == "number"
    (label,) = explanation["labels"]
    assert label["score"] == explanation["decision"]
    assert label["value"] == pytest.approx(label["score"], abs=1e-5)
    assert sum(word["value"] for word in label["words"]) == pytest.approx(label["value"] - label["baseline"], abs=0.05)
    shown = run("explain", "scores/bundle", "--text", "bread and a saw").out
    assert "score: number" in shown
    assert ", score" not in shown


def test_what_was_cut_off_is_told(run: Any, workplace: Path) -> None:
    long = " ".join(["bread"] * 80)
    outcome = run("explain", workplace / "single/bundle", "--text", long, "--method", "occlusion")
    assert re.search(r"^unread +[\d,]+ characters$", outcome.out, re.MULTILINE)
    assert " … " in outcome.out


@pytest.mark.parametrize("text", ["\x1b[31mbread\x07 [bold]soup[/bold] \u202e", "bread\nsoup\rsalt"])
def test_what_would_act_on_a_terminal_is_written_out(run: Any, workplace: Path, text: str) -> None:
    outcome = run("explain", workplace / "single/bundle", "--text", text, "--method", "occlusion", "--out", "a.jsonl")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("a.jsonl").read_text("utf-8"))["text"] == text
    shown = run("explain", workplace / "single/bundle", "--text", text, "--method", "occlusion").out
    assert not set(shown) & {"\x1b", "\x07", "\u202e", "\r"}
    assert len(shown.splitlines()) == 5


def on_a_terminal(folder: Path, *arguments: object, **environment: str) -> str:
    """What a command writes to a terminal that is wide enough."""
    leader, follower = pty.openpty()
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "snapfit.cli.app", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "TERM": "xterm-256color", "COLUMNS": "200", **environment},
    )
    os.close(follower)
    written = b""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        ready, _, _ = select.select([leader], [], [], 1.0)
        try:
            part = os.read(leader, 65_536) if ready else b""
        except OSError:  # how Linux tells that the other side was closed
            break
        if ready and not part:
            break
        written += part
    os.close(leader)
    assert process.wait(timeout=60) == 0, written.decode()
    return written.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_colours_with_bold_and_underlined_letters(workplace: Path, tmp_path: Path) -> None:
    command = [
        "explain",
        workplace / "single/bundle",
        "--text",
        f"{TEXT} [bold]x[/bold]",
        "--label",
        "food",
        "--label",
        "tools",
    ]
    written = on_a_terminal(tmp_path, *command)
    styles = set(re.findall(r"\x1b\[([\d;]+)m", written))
    assert any(style.startswith("1;") and ";48;" in style for style in styles)  # bold on a ground
    assert any(style.startswith("4;") and ";48;" in style for style in styles)  # underlined on a ground
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
    assert f"{TEXT} [bold]x[/bold]" in plain
    assert re.search(r"[+-]\d\.\d\d bread", plain)
    assert " added  to the label's log-odds" in plain
    without = on_a_terminal(tmp_path, *command, NO_COLOR="1")
    styles = set(re.findall(r"\x1b\[([\d;]+)m", without))
    assert {"1", "4"} <= styles
    assert not any("48;" in style for style in styles)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_while_files_are_made(workplace: Path, tmp_path: Path) -> None:
    command = ["explain", workplace / "single/bundle", workplace / "test.csv", "--rows", "2", "--out", "a.jsonl"]
    written = on_a_terminal(tmp_path, *command)
    assert "2/2" in written
    assert "2 explanations to a.jsonl" in written


def test_an_interrupt_leaves_no_half_written_file(workplace: Path, tmp_path: Path) -> None:
    rows = [{"text": f"bread and {i}"} for i in range(5000)]
    trained.write_csv(tmp_path / "t.csv", rows)
    command = ["explain", workplace / "single/bundle", "t.csv", "--rows", "5000", "--method", "occlusion"]
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "snapfit.cli.app", *map(str, command), "--out", "a.jsonl", "--html", "a.html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"explain    500 of 5,000\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == b"error: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
