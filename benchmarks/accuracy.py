"""Accuracy on real data: snapfit's default recipe beside transformers' Trainer, mean over seeds.

    python benchmarks/accuracy.py --json benchmarks/results/accuracy.json          everything, resumable
    python benchmarks/accuracy.py --quick                                           Banking77, one epoch, one seed
    python benchmarks/accuracy.py --only banking77 --systems snapfit hf-tuned --seeds 1 2 3

Each run is a process of its own with one thread; `--jobs` run at a time. Test splits are only scored, never chosen by.
The data are found in --data (or $SNAPFIT_REAL_DATA), the Trainer script in --peer; runs of what is absent are left out.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT, Results, base_parser, check_floors, last_json, machine, mean_and_spread, table

IN_ORDER = """
import runpy, sys
from torch.utils.data import SequentialSampler
from transformers import Trainer
Trainer._get_eval_sampler = lambda self, dataset: SequentialSampler(dataset)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the Trainer script with predictions in the order of the rows. With lengths grouped, transformers 5.23 predicts
in an order of its own and does not say which: answers would be held against the labels of other rows, and Trainer would
be given chance. What it learnt is what is to be compared."""

ALONE = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
"""One thread a process; freed memory is kept, for returning it to the system costs a step more than its products."""
SNAPFIT, HF_DEFAULT, HF_TUNED = "snapfit", "hf-default", "hf-tuned"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    folder: of the data set. train, valid, test: its files; without `valid` snapfit holds a part of train out.
    metrics: names in snapfit's results. seeds: how many. settings: beyond the default recipe.
    epochs, batch: what Trainer is given, which is what snapfit used; None where Trainer is not compared.
    random_encoder: train a small encoder from scratch, with a character vocabulary, instead of the starter.
    """

    folder: str
    train: str
    test: str
    valid: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    seeds: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    batch: int | None = None
    random_encoder: bool = False


_BANKING = {"folder": "banking77", "train": "train.csv", "test": "test.csv"}
CASES: dict[str, Case] = {
    "banking77/default": Case(**_BANKING, seeds=3, epochs=4, batch=32),
    "banking77/3-epochs": Case(**_BANKING, seeds=3, settings={"train.epochs": 3}),
    "banking77/1-epoch": Case(**_BANKING, seeds=3, settings={"train.epochs": 1, "data.valid_fraction": 0.0}),
    "clinc150/default": Case("clinc150_full", "train.tsv", "test.tsv", "dev.tsv"),
    "emotion/default": Case("emotion", "train.tsv", "test.tsv", "dev.tsv"),
    "stsb/default": Case("stsb", "train.tsv", "dev.tsv", metrics=("pearson", "spearman")),
    "goemotions/default": Case(
        "goemotions", "train.jsonl", "test.jsonl", "dev.jsonl", metrics=("micro_f1", "macro_f1")
    ),
    "thucnews/random-encoder": Case(
        "thucnews_title",
        "train.tsv",
        "test.tsv",
        "dev.tsv",
        settings={"train.epochs": 8},
        random_encoder=True,
    ),
    "sst2/default": Case("sst2", "train.tsv", "dev.tsv"),
    "mrpc/default": Case(
        "mrpc",
        "train.tsv",
        "test.tsv",
        seeds=5,
        settings={"train.epochs": 3, "train.batch": 32},
        epochs=3,
        batch=32,
    ),
}


def run_snapfit(name: str, case: Case, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """One training by the command line, as a user would; its metrics on the test file."""
    folder = data / case.folder
    out = Path(tempfile.mkdtemp(dir=work)) / "run"
    command = [
        sys.executable,
        "-m",
        "snapfit",
        "train",
        str(folder / case.train),
        "--test",
        str(folder / case.test),
    ]
    command += ["--out", str(out), "--seed", str(seed), "--json", "--set", "train.threads=1"]
    if case.valid:
        command += ["--valid", str(folder / case.valid)]
    for key, value in case.settings.items():
        command += ["--set", f"{key}={value}"]
    if case.random_encoder:
        command += ["--encoder", str(_random_encoder(folder / case.train, work))]
    result = last_json(command, work, **ALONE)
    return {
        "system": SNAPFIT,
        "case": name,
        "seed": seed,
        "metrics": result["metrics"]["test"],
        "steps": result["steps"],
        "train_seconds": result["train_seconds"],
        "seconds": result["seconds"],
        "recipe": result["recipe"],
    }


def run_peer(name: str, case: Case, seed: int, data: Path, work: Path, *, peer: Path, setting: str) -> dict[str, Any]:
    """One training by transformers' Trainer with the same data, epochs and (tuned) batch."""
    folder = data / case.folder
    starter = subprocess.run(
        [sys.executable, "-c", "from snapfit.nn.encoder import starter_folder; print(starter_folder())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    command = [
        sys.executable,
        "-c",
        IN_ORDER,
        str(peer),
        "--train",
        str(folder / case.train),
        "--test",
        str(folder / case.test),
    ]
    command += ["--encoder", starter, "--seed", str(seed), "--epochs", str(case.epochs)]
    command += (
        ["--setting", "default"]
        if setting == HF_DEFAULT
        else ["--setting", "tuned", "--batch", str(case.batch), "--lr", "1e-4"]
    )
    start = time.monotonic()
    result = last_json(command, Path(tempfile.mkdtemp(dir=work)), **ALONE)
    return {
        "system": setting,
        "case": name,
        "seed": seed,
        "metrics": {k.removesuffix("_at_0.5"): v for k, v in result.items() if isinstance(v, float)},
        "steps": result["steps"],
        "train_seconds": result["train_wall_s"],
        "seconds": time.monotonic() - start,
    }


def _random_encoder(train: Path, work: Path) -> Path:
    """A 4-layer, 256-wide encoder without pretraining, its character vocabulary from the training texts."""
    from snapfit.data.formats import read_table
    from snapfit.ship.random_encoder import write_random_encoder

    folder = work / "random-encoder"
    if not folder.exists():
        texts = read_table(train)["text"].to_pylist()
        write_random_encoder(folder, texts, layers=4, width=256, vocabulary=6_000, seed=0, characters=True)
    return folder


def summarise(results: Results) -> tuple[list[list[str]], dict[str, float]]:
    """Rows of the table and the means that floors are held against."""
    rows, means = [], {}
    by_group: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in results.runs.values():
        by_group.setdefault((run["case"], run["system"]), []).append(run)
    order = {name: i for i, name in enumerate(CASES)}
    for (case, system), runs in sorted(by_group.items(), key=lambda item: (order.get(item[0][0], 99), item[0][1])):
        seconds, _ = mean_and_spread(run["train_seconds"] for run in runs)
        for metric in CASES[case].metrics:
            values = [run["metrics"][metric] for run in runs if metric in run["metrics"]]
            if not values:
                continue
            mean, spread = mean_and_spread(values)
            means[f"{case} {metric}" + ("" if system == SNAPFIT else f" {system}")] = mean
            shown = f"{mean:.4f}" + (f" ± {spread:.4f}" if len(values) > 1 else "")
            rows.append([case, system, metric, shown, str(len(values)), f"{runs[0]['steps']:,}", f"{seconds:,.0f}"])
    if {"mrpc/default accuracy", "mrpc/default accuracy hf-tuned"} <= set(means):
        means["mrpc/default accuracy minus hf-tuned"] = (
            means["mrpc/default accuracy"] - means["mrpc/default accuracy hf-tuned"]
        )
    return rows, means


def planned(arguments: Any) -> list[tuple[str, str, int]]:
    """(case, system, seed) of every run asked for."""
    names = [n for n in CASES if not arguments.only or any(n.startswith(o) for o in arguments.only)]
    if arguments.quick:
        return [("banking77/1-epoch", SNAPFIT, 1)]
    runs = []
    for name in names:
        seeds = arguments.seeds or list(range(1, CASES[name].seeds + 1))
        for system in arguments.systems:
            if system == SNAPFIT or CASES[name].epochs is not None:
                runs += [(name, system, seed) for seed in seeds]
    return runs


def main() -> None:
    """Run what is missing, print the table, hold it against the floors."""
    parser = base_parser(__doc__ or "")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--peer", type=Path, default=ROOT.parent / "shared/peers/hf_trainer.py")
    parser.add_argument("--only", nargs="*", metavar="CASE", help="cases whose name begins so")
    parser.add_argument("--systems", nargs="*", default=[SNAPFIT, HF_DEFAULT, HF_TUNED])
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    results = Results(arguments.json)
    work = Path(tempfile.mkdtemp(prefix="snapfit-accuracy-"))

    def run(item: tuple[str, str, int]) -> None:
        name, system, seed = item
        key = f"{name} {system} {seed}"
        if key in results.runs or not (arguments.data / CASES[name].folder).exists():
            return
        if system == SNAPFIT:
            result = run_snapfit(name, CASES[name], seed, arguments.data, work)
        elif arguments.peer.exists():
            result = run_peer(name, CASES[name], seed, arguments.data, work, peer=arguments.peer, setting=system)
        else:
            return
        results.add(key, result)
        print(
            f"{time.strftime('%H:%M:%S')} {key}: {result['metrics']} in {result['train_seconds']:.0f} s",
            flush=True,
        )

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, planned(arguments)))
    rows, means = summarise(results)
    print(f"\nmachine: {machine()}; {arguments.jobs} processes of one thread at a time\n")
    print(table(["case", "system", "metric", "mean ± sd", "seeds", "steps", "train s"], rows))
    if arguments.check:
        missed = check_floors("accuracy", means)
        print("\n".join(missed) or "every floor holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
