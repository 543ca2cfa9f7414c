"""`snapfit find-lr`: what it shows, what it writes, how it ends, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snapfit.cli.find_lr import loss_picture

QUICK = ["--steps", "80", "--lowest", "1e-5", "--set", "train.batch=32"]


@pytest.fixture
def base(workplace: Path) -> list[str]:
    """A range test that takes a second."""
    return ["find-lr", str(workplace / "train.csv"), "--encoder", str(workplace / "encoder"), *QUICK]


def test_the_test_is_told_in_plain_lines(run: Any, base: list[str]) -> None:
    outcome = run(*base)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "\r" not in outcome.out
    assert "\x1b" not in outcome.out
    lines = outcome.out.splitlines()
    words = [line.split()[0] for line in lines if not line.startswith(" ")]
    for word in ("data", "recipe", "groups", "train", "step", "loss", "ended", "rates", "set", "time"):
        assert word in words, word
    assert "run" not in words
    picture = lines[next(i for i, line in enumerate(lines) if line.startswith("loss ")) :]
    assert all(len(line) < 80 for line in picture[:15])
    assert any("*" in line for line in picture[:15])
    assert "a tenth" in outcome.out
    assert "--set optim.lr=" in outcome.out
    assert list(Path().iterdir()) == []  # nothing is left behind


def test_json_is_the_last_and_only_line_on_stdout(run: Any, base: list[str]) -> None:
    outcome = run(*base, "--json", "--seed", "3")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    curve = result["curve"]
    assert {len(values) for values in curve.values()} == {result["steps"]}
    assert curve["rates"][0] == 1e-5
    assert result["set"] == f"optim.lr={result['rate']:g}"
    assert result["tenth_of_least"] == pytest.approx(result["least"] / 10)
    assert result["recipe_rate"] == result["recipe"]["optim"]["lr"]
    assert result["recipe"]["train"]["seed"] == 3
    assert result["stopped_by"] is None
    assert result["plot"] is None
    assert "--set optim.lr=" in outcome.err
    again = json.loads(run(*base, "--json", "--quiet", "--seed", "3").out)
    assert again["curve"] == curve


def test_quiet_leaves_only_the_result(run: Any, base: list[str]) -> None:
    outcome = run(*base, "--quiet")
    assert outcome.err == ""
    assert [line.split()[0] for line in outcome.out.splitlines() if not line.startswith(" ")] == ["rates", "set"]
    assert run(*base, "--quiet", "--json").err == ""


def test_what_is_suggested_trains(run: Any, base: list[str], workplace: Path) -> None:
    chosen = json.loads(run(*base, "--json", "--quiet").out)["set"]
    flags = ["--encoder", str(workplace / "encoder"), "--out", "first", "--quiet", "--epochs", "1", "--set", chosen]
    assert run("train", workplace / "train.csv", *flags).code == 0


@pytest.mark.parametrize(("table", "options"), [("multi.jsonl", []), ("scores.csv", []), ("pairs.csv", [])])
def test_every_task_can_be_tried(run: Any, workplace: Path, table: str, options: list[str]) -> None:
    outcome = run("find-lr", workplace / table, "--encoder", workplace / "encoder", *QUICK, "--json", *options)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["steps"] > 10


def test_where_the_loss_does_not_fall_it_says_so(run: Any, base: list[str]) -> None:
    outcome = run(*base, "--lowest", "1e-9", "--highest", "1e-8")
    assert outcome.code == 0
    assert "set        nothing: " in outcome.out
    assert "--set optim.lr" not in outcome.out
    assert json.loads(run(*base, "--lowest", "1e-9", "--highest", "1e-8", "--json", "--quiet").out)["rate"] is None


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("width", [40, 41, 57, 68, 200])
def test_no_line_of_the_picture_is_too_wide(width: int) -> None:
    rates = [10 ** (-7 + 0.07 * i) for i in range(100)]
    losses = [4.0 - 0.03 * i if i < 70 else 2.0 * 1.3 ** (i - 70) for i in range(100)]
    lines = loss_picture(rates, losses, mark=1e-4, width=width)
    assert len(lines) == 15
    assert all(len(line) <= width for line in lines)
    assert all(line.isascii() for line in lines)
    assert "4" in lines[0]
    assert "1e-07" in lines[-2]
    assert lines[-1].strip() == "| is 1.0e-04"
    assert sum("|" in line[6:] for line in lines) >= 10  # the mark, where the curve does not cover it


def test_a_picture_without_room_or_points_is_left_out() -> None:
    assert loss_picture([1e-3, 1e-2], [1.0, 0.5], mark=None, width=39) == []
    assert loss_picture([1e-3], [1.0], mark=None, width=80) == []


def test_a_flat_curve_is_a_flat_picture() -> None:
    lines = loss_picture([1e-3, 1e-2, 1e-1], [1.0, 1.0, 1.0], mark=None, width=60)
    assert sum("*" in line for line in lines) == 1


# ---------------------------------------------------------------- the plot


@pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("b.PNG", b"\x89PNG\r\n"), ("c.pdf", b"%PDF-")])
def test_the_plot_is_a_file_of_its_kind(run: Any, base: list[str], name: str, start: bytes) -> None:
    outcome = run(*base, "--plot", name)
    assert outcome.code == 0, outcome.err
    assert f"plot       {name}" in outcome.out
    assert Path(name).read_bytes().startswith(start)
    assert [path.name for path in Path().iterdir()] == [name]


WITHOUT = """
import sys
sys.modules["matplotlib"] = None  # as if it were not installed
from snapfit.cli.app import main
sys.exit(main({arguments!r}))
"""


def test_without_matplotlib_the_extra_is_named_before_any_work(base: list[str], tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    code = WITHOUT.format(arguments=[*base, "--plot", "a.svg"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "error: the package 'matplotlib' is not installed",
        "  expected: snapfit with its [plot] extra",
        "  fix: pip install 'snapfit[plot]'",
    ]


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_was_found(base: list[str], tmp_path: Path, number: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "snapfit.cli.app", *base, "--steps", "1000000", "--set", "log.level=debug"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=env) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"step "):
                break
        process.send_signal(number)
        out, err = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err == b""
        assert b"interrupted at a rate of 1.0e-05" in out
        assert b"set        nothing: " in out
    else:
        assert process.returncode == 143
        assert err.startswith(b"error: stopped after step ")
    assert list(tmp_path.iterdir()) == []
