"""How soon snapfit is as accurate as transformers' Trainer after ten epochs: whole processes, Banking77, the starter.

    python benchmarks/time_to_accuracy.py --json benchmarks/results/time_to_accuracy.json --check    all, resumable
    python benchmarks/time_to_accuracy.py --quick                                      snapfit alone, one seed

Trainer runs in its tuned setting with the rate 1e-4 by the script --peer. snapfit runs its default recipe for one
to two epochs, nothing held out. Seconds are of the whole command, from its start to its end: reading, tokenising,
training, scoring the test split and writing the bundle. One run at a time; snapfit's are spread over Trainer's.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from accuracy import IN_ORDER
from harness import ROOT, Results, base_parser, check_floors, last_json, machine, mean_and_spread, table
from speed import DRIFT, calibration, encoder_of

HEADER = ["what", "test accuracy", "seconds of the command", "runs"]
EPOCHS = (1, 1.25, 1.5, 2)
SEEDS = (1, 2, 3)
THEIR_SEEDS = (1, 2, 3)


def ours(epochs: float, seed: int, data: Path) -> dict[str, Any]:
    """One training by the command line."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "snapfit", "train", str(data / "train.csv"), "--test", str(data / "test.csv")]
        command += ["--out", str(Path(scratch) / "run"), "--seed", str(seed), "--json"]
        command += ["--set", f"train.epochs={epochs}", "--set", "data.valid_fraction=0.0"]
        start = time.monotonic()
        answer = last_json(command, Path(scratch))
        wall = time.monotonic() - start
    return {"accuracy": answer["metrics"]["test"]["accuracy"], "wall": wall, "train_seconds": answer["train_seconds"]}


def theirs(seed: int, data: Path, encoder: str, peer: Path) -> dict[str, Any]:
    """Ten epochs of Trainer."""
    command = [sys.executable, "-c", IN_ORDER, str(peer), "--train", str(data / "train.csv"), "--encoder", encoder]
    command += ["--test", str(data / "test.csv"), "--setting", "tuned", "--batch", "32", "--lr", "1e-4"]
    command += ["--epochs", "10", "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as scratch:
        start = time.monotonic()
        answer = last_json(command, Path(scratch))
        wall = time.monotonic() - start
    return {"accuracy": answer["accuracy"], "wall": wall, "train_seconds": answer["train_wall_s"]}


def summarise(results: Results) -> tuple[list[list[str]], dict[str, float]]:
    """The table, and what limits are held against."""
    rows, measured = [], {}
    runs = results.runs.values()
    for epochs in EPOCHS:
        mine = [run for run in runs if run["system"] == "snapfit" and run["epochs"] == epochs]
        if not mine:
            continue
        accuracy, spread = mean_and_spread(100 * run["accuracy"] for run in mine)
        wall, wall_spread = mean_and_spread(run["wall"] for run in mine)
        row = [f"snapfit, {epochs} epoch{'s' if epochs > 1 else ''}", f"{accuracy:.2f} ± {spread:.2f}"]
        rows.append([*row, f"{wall:.1f} ± {wall_spread:.1f}", str(len(mine))])
        measured[f"accuracy after {epochs}"], measured[f"wall of {epochs}"] = accuracy, wall
    other = [run for run in runs if run["system"] == "trainer"]
    if other:
        accuracy, _ = mean_and_spread(100 * run["accuracy"] for run in other)
        wall, _ = mean_and_spread(run["wall"] for run in other)
        rows.append(["Trainer tuned, 10 epochs", f"{accuracy:.2f}", f"{wall:.1f}", str(len(other))])
        reached = [epochs for epochs in EPOCHS if measured.get(f"accuracy after {epochs}", 0.0) >= accuracy]
        if reached:
            measured["trainer over snapfit"] = wall / measured[f"wall of {reached[0]}"]
            measured["epochs needed"] = reached[0]
    return rows, measured


def main() -> None:
    """Run what is missing, print the table, hold the ratio against its limit."""
    parser = base_parser(__doc__ or "")
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", shared / "data")))
    parser.add_argument("--peer", type=Path, default=shared / "peers/hf_trainer.py", help="the Trainer script")
    arguments = parser.parse_args()
    data = arguments.data / "banking77"
    for needed in (data, arguments.peer):
        if not needed.exists():
            sys.exit(f"{needed} is absent; --data and --peer name other places")
    results = Results(arguments.json)
    with tempfile.TemporaryDirectory() as folder:
        encoder = encoder_of(None, Path(folder))
        planned: list[tuple[str, float, int]] = [("snapfit", 1, 1)] if arguments.quick else []
        for seed in () if arguments.quick else SEEDS:
            planned += [("snapfit", epochs, seed) for epochs in EPOCHS]
            planned += [("trainer", 10, seed)] if seed in THEIR_SEEDS else []
        for system, epochs, seed in planned:
            key = f"{system} {epochs} {seed}"
            if key in results.runs:
                continue
            before = calibration()
            run = ours(epochs, seed, data) if system == "snapfit" else theirs(seed, data, encoder, arguments.peer)
            drift = abs(calibration() / before - 1)
            results.add(key, {"system": system, "epochs": epochs, "seed": seed, **run, "drift": drift})
            print(f"{key}: {json.dumps(run)}{' (the machine drifted)' if drift > DRIFT else ''}", flush=True)
    rows, measured = summarise(results)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows))
    if "trainer over snapfit" in measured:
        print(f"\nas accurate in 1/{measured['trainer over snapfit']:.1f} of the time")
    if arguments.check:
        missed = check_floors("time_to_accuracy", measured)
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
