"""`snapfit ensemble`: the table, what ships, and one clear error for what cannot be weighed."""

import json
from pathlib import Path
from typing import Any

from trained import QUICK

Run = Any


def test_the_table_marks_what_ships(run: Run, workplace: Path, tmp_path: Path) -> None:
    members = ["--set", "ensemble.members=3", "--set", "ensemble.rounds=1"]
    encoder = workplace / "encoder"
    done = run("train", workplace / "train.csv", "--encoder", encoder, *members, "--out", tmp_path / "run", *QUICK)
    assert done.code == 0, done.err
    again = run("ensemble", tmp_path / "run", "--student")
    assert again.code == 0, again.err
    lines = again.out.splitlines()
    table = [line for line in lines if "best evaluation, step" in line or "student" in line.split()[:2]]
    assert len(table) >= 2
    assert sum(line.split()[0] == "*" for line in lines if line.split()) >= 1
    assert "to expect on new texts" in again.out
    assert "\r" not in again.out
    shown = run("inspect", tmp_path / "run")
    assert [line for line in again.out.splitlines() if "ships: " in line][0].strip() in shown.out
    quiet = run("ensemble", tmp_path / "run", "--quiet")
    assert "ships: " in quiet.out
    as_json = run("ensemble", tmp_path / "run", "--json", "--quiet")
    values = json.loads(as_json.out.splitlines()[-1])
    assert values["verdict"]["rows"][values["verdict"]["chosen"]]["contends"]


def test_what_is_no_run_is_one_error(run: Run, workplace: Path, tmp_path: Path) -> None:
    outcome = run("ensemble", tmp_path)
    assert outcome.code == 2
    assert "is not a run's folder" in outcome.err
    assert "Traceback" not in outcome.err
