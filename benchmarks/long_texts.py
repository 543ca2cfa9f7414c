"""What to read of long texts: length policies side by side on imdb_5k, cut to 256 tokens, the starter encoder.

    python benchmarks/long_texts.py --json benchmarks/results/long_texts.json --check       everything, resumable
    python benchmarks/long_texts.py --quick                                              head and windows, 300 rows
    python benchmarks/long_texts.py --only head tail --seeds 1 2

Each run is a process of its own with one thread: `snapfit.train` for one epoch with mean pooling and bf16, the rest of
the recipe as it is, a tenth of the training table held out; then `snapfit.load` and the test split, once. Policies see
the same rows under the same seeds, so what is compared are pairs: the mean difference over seeds and rows, with a
bootstrap over rows. Seconds are of the processor, for the machine may be shared.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from accuracy import ALONE
from harness import ROOT, Results, base_parser, check_floors, last_json, machine, mean_and_spread, table
from paired import compare, right_answers, rows_as_text

BENCHMARK = "long_texts"
LIMIT = 256
EPOCHS = 1
SEEDS = (1, 2, 3)
HEADER = ["policy", "test accuracy", "over head, points", "seeds", "tokens a row", "train CPU s", "predict CPU s"]
WINDOWS = {"length.policy": "windows"}
CASES: dict[str, dict[str, Any]] = {
    "head": {"length.policy": "head"},
    "tail": {"length.policy": "tail"},
    "head+tail": {"length.policy": "head+tail"},
    "windows, mean": WINDOWS | {"length.window_pooling": "mean"},
    "windows, attention": WINDOWS | {"length.window_pooling": "attention"},
    "windows, max": WINDOWS | {"length.window_pooling": "max"},
    "windows, max_states": WINDOWS | {"length.window_pooling": "max_states"},
}
"""Settings of each policy beyond the limit, by what it is called."""
QUICK = ("head", "windows, mean")
QUICK_ROWS = 300


def worker(asked: Mapping[str, Any]) -> None:
    """One training and one pass over the test split; prints what came of it."""
    from snapfit.core.process import settle_process

    settle_process()
    import snapfit
    from snapfit.data.formats import read_table

    train, test = (read_table(Path(asked["data"]) / f"{split}.jsonl") for split in ("train", "test"))
    if asked["rows"]:
        train, test = (part.take(np.arange(0, len(part), len(part) // asked["rows"])) for part in (train, test))
    steps: list[dict[str, Any]] = []
    clocks: dict[str, float] = {}

    def listen(event: dict[str, Any]) -> None:
        clocks.setdefault(event["kind"], time.process_time())
        if event["kind"] == "step":
            steps.append(event)
            clocks["last step"] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        settings = {"length.max_tokens": LIMIT, "train.epochs": asked["epochs"], "train.seed": asked["seed"]}
        settings |= {"train.threads": 1, "train.precision": "bf16", "model.pooling": "mean", "log.interval_steps": 1}
        settings |= {"train.evaluations_per_epoch": 1, "checkpoint.every_steps": None, **asked["settings"]}
        result = snapfit.train(
            train, out=Path(folder) / "run", listener=listen, **{k.replace(".", "__"): v for k, v in settings.items()}
        )
        predictor = snapfit.load(result.bundle)
        start = time.process_time()
        answers = predictor.predict(test["text"])
        seconds = time.process_time() - start
    wrong = np.array([one != true for one, true in zip(answers, test["label"].to_pylist(), strict=True)])
    print(
        json.dumps(
            {
                "accuracy": 1.0 - float(wrong.mean()),
                "valid": result.metrics["valid"],
                "tokens_a_row": sum(one["tokens"] for one in steps) / sum(one["rows"] for one in steps),
                "steps": result.steps,
                "train_cpu_seconds": clocks["last step"] - clocks["start"],
                "train_seconds": result.train_seconds,
                "predict_cpu_seconds": seconds,
                "test_rows": len(wrong),
                "wrong": rows_as_text(wrong),
            }
        )
    )


def run(name: str, seed: int, data: Path, *, quick: bool) -> dict[str, Any]:
    """One run in a process of its own."""
    asked = {"data": str(data), "settings": CASES[name], "seed": seed}
    asked |= {"rows": QUICK_ROWS if quick else 0, "epochs": EPOCHS}
    answer = last_json([sys.executable, __file__, "--worker", json.dumps(asked)], **ALONE)
    return {"case": name, "seed": seed, "quick": quick, **answer}


def summarise(results: Results, *, quick: bool = False) -> tuple[list[list[str]], dict[str, float]]:
    """Rows of the table, and what limits are held against, in points."""
    by_case: dict[str, dict[int, dict[str, Any]]] = {}
    for one in results.runs.values():
        if one["quick"] == quick:
            by_case.setdefault(one["case"], {})[one["seed"]] = one
    rows, measured = [], {}
    head = by_case.get("head", {})
    for name in CASES:
        runs = by_case.get(name, {})
        if not runs:
            continue
        mean, spread = mean_and_spread(100 * one["accuracy"] for one in runs.values())
        cells = [name, f"{mean:.2f}" + (f" ± {spread:.2f}" if len(runs) > 1 else "")]
        shared = sorted(set(runs) & set(head))
        if name == "head" or not shared:
            cells.append("")
        else:
            ours, theirs = (
                right_answers([of[seed]["wrong"] for seed in shared], of[shared[0]]["test_rows"]) for of in (runs, head)
            )
            found = compare(ours, theirs)
            cells.append(f"{found.points:+.2f} ({found.low:+.2f} to {found.high:+.2f})")
            measured[f"{name} over head"] = found.points
        measured[f"{name} seeds"] = len(runs)
        figures = ("tokens_a_row", "train_cpu_seconds", "predict_cpu_seconds")
        means = [mean_and_spread(one[key] for one in runs.values())[0] for key in figures]
        rows.append([*cells, str(len(runs)), *(f"{value:,.0f}" for value in means)])
    gains = [value for key, value in measured.items() if key in ("head+tail over head", "windows, mean over head")]
    if gains:
        measured["best of head+tail and windows over head"] = max(gains)
    return rows, measured


def main() -> None:
    """Run what is missing, print the table, hold the gain against its limit."""
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
        return
    parser = base_parser(__doc__ or "")
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", shared / "data")))
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    arguments = parser.parse_args()
    data = arguments.data / "imdb_5k"
    if not data.exists():
        sys.exit(f"{data} is absent; --data names another place")
    results = Results(arguments.json)
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    names = arguments.only or (QUICK if arguments.quick else list(CASES))

    def one(item: tuple[str, int]) -> None:
        key = "{} {}".format(*item) + (" quick" if arguments.quick else "")
        if key in results.runs:
            return
        results.add(key, run(*item, data, quick=arguments.quick))
        found = results.runs[key]
        took = f"{found['train_cpu_seconds']:.0f} s, {found['predict_cpu_seconds']:.0f} s to predict"
        print(f"{time.strftime('%H:%M:%S')} {key}: {found['accuracy']:.4f} in {took}", flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, [(name, seed) for seed in seeds for name in names]))
    rows, measured = summarise(results, quick=arguments.quick)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows))
    if arguments.check:
        missed = check_floors(BENCHMARK, measured)
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
