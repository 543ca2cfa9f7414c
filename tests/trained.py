"""A tiny run for tests of the command line: toy tables in files, an encoder folder, and bundles trained on them.

Everything goes through `snapfit.cli.app.main`, in this process, as a user's command line would.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import toys
from snapfit.cli.app import main

QUICK = ["--epochs", "2", "--set", "optim.lr=0.003", "--set", "train.batch=16", "--quiet"]
"""Enough for a tiny encoder to beat chance, in about a second."""


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as CSV; a list of labels is joined with "|"."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow("|".join(cell) if isinstance(cell, list) else cell for cell in row.values())
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def workplace(folder: Path) -> Path:
    """A folder with an encoder, tables of every task, and a bundle of single texts and one of pairs.

    encoder/, train.csv, test.csv, multi.jsonl, scores.csv, pairs.csv, single/bundle, pairs/bundle.
    """
    toys.encoder_folder(folder / "encoder")
    write_csv(folder / "train.csv", toys.single_rows(90))
    write_csv(folder / "test.csv", toys.single_rows(30, seed=1))
    write_jsonl(folder / "multi.jsonl", [row for row in toys.multi_rows(90) if row["labels"]])
    write_csv(folder / "scores.csv", toys.regression_rows(90, scale=3.3))
    write_csv(folder / "pairs.csv", toys.pair_rows(90))
    for table, run in (("train.csv", "single"), ("pairs.csv", "pairs")):
        arguments = [
            "train",
            str(folder / table),
            "--encoder",
            str(folder / "encoder"),
            "--out",
            str(folder / run),
        ]
        assert main([*arguments, *QUICK]) == 0
    return folder
