"""Whether the fast step learns as well as the plain one: the same data, seeds and recipe on both, accuracy compared.

    python benchmarks/parity.py --json benchmarks/results/parity.json --check       everything, resumable
    python benchmarks/parity.py --quick                                              MRPC, one seed
    python benchmarks/parity.py --only banking77 --paths plain --seeds 1 2

"fast" is what `snapfit train` does here. "plain" is the same recipe in float32 on padded rows with torch's own
operators and attention dropout as the encoder was trained with. Nothing is held out or chosen by: the last weights are
scored on rows that were not trained on. Each run is a process of its own with one thread; `--jobs` run at a time.
"""

import csv
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT, Results, base_parser, check_floors, last_json, machine, mean_and_spread, table

FAST, PLAIN = "fast", "plain"
HEADER = ["data", "fast", "plain", "difference ± its error", "seeds"]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    folder, train, test: the data. epochs: of both paths. rows: to train on, drawn once by a fixed seed, instead of all;
    as many of the rest as `test_rows` says are then scored instead of `test`, which is smaller.
    """

    folder: str
    train: str
    test: str
    epochs: int = 1
    rows: int | None = None
    test_rows: int = 0


CASES = {
    "banking77": Case("banking77", "train.csv", "test.csv"),
    "clinc150": Case("clinc150_full", "train.tsv", "test.tsv"),
    "sst2": Case("sst2", "train.tsv", "dev.tsv", rows=20_000, test_rows=10_000),
    "mrpc": Case("mrpc", "train.tsv", "test.tsv", epochs=2),
}


def files(case: Case, data: Path, work: Path) -> tuple[Path, Path]:
    """The tables to train on and to score."""
    folder = data / case.folder
    if case.rows is None:
        return folder / case.train, folder / case.test
    parts = (work / f"{case.folder}-train.tsv", work / f"{case.folder}-test.tsv")
    if not parts[1].exists():
        import numpy as np

        with (folder / case.train).open(encoding="utf-8", newline="") as source:
            header, *lines = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
        order = np.random.default_rng(0).permutation(len(lines))
        ends = (0, case.rows, case.rows + case.test_rows)
        for path, start, end in zip(parts, ends, ends[1:], strict=False):
            with path.open("w", encoding="utf-8", newline="") as out:
                writer = csv.writer(out, delimiter="\t", lineterminator="\n")
                writer.writerows([header, *(lines[i] for i in order[start:end])])
    return parts


def worker(asked: dict[str, Any]) -> None:
    """One training; prints what came of it."""
    from snapfit.core.process import settle_process

    settle_process()
    if asked["path"] == PLAIN:
        from snapfit.nn import backend
        from snapfit.training import assemble

        assemble.use_packing = backend.use_packing = lambda model: False  # type: ignore[attr-defined]
    import snapfit

    settings: dict[str, Any] = {"train.epochs": asked["epochs"], "train.seed": asked["seed"], "train.threads": 1}
    settings |= {"data.valid_fraction": 0.0}
    if asked["path"] == PLAIN:
        settings |= {"train.precision": "fp32", "model.attention_dropout": "auto"}
    engine: list[str] = []

    def listen(event: dict[str, Any]) -> None:
        if event.get("kind") == "engine":
            engine.extend(event["lines"])

    result = snapfit.train(
        asked["train"],
        test=asked["test"],
        out=asked["out"],
        listener=listen,
        **{k.replace(".", "__"): v for k, v in settings.items()},
    )
    print(
        json.dumps(
            {
                "accuracy": result.metrics["test"]["accuracy"],
                "nll": result.metrics["test"].get("nll"),
                "train_seconds": result.train_seconds,
                "steps": result.steps,
                "engine": engine,
            }
        )
    )


def run(name: str, path: str, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    case = CASES[name]
    train, test = files(case, data, work)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        asked = {"path": path, "seed": seed, "epochs": case.epochs, "train": str(train), "test": str(test)}
        asked["out"] = str(Path(scratch) / "run")
        environment = {"OMP_NUM_THREADS": "1", **({"SNAPFIT_KERNELS": "off"} if path == PLAIN else {})}
        answer = last_json([sys.executable, __file__, "--worker", json.dumps(asked)], Path(scratch), **environment)
    return {"case": name, "path": path, "seed": seed, **answer}


def summarise(results: Results) -> tuple[list[list[str]], dict[str, float]]:
    """Rows of the table, and the differences that limits are held against, in points."""
    rows, differences = [], {}
    for name in CASES:
        accuracy = {
            path: {
                r["seed"]: 100 * r["accuracy"] for r in results.runs.values() if (r["case"], r["path"]) == (name, path)
            }
            for path in (FAST, PLAIN)
        }
        seeds = sorted(set(accuracy[FAST]) & set(accuracy[PLAIN]))
        if not seeds:
            continue
        shown = []
        for path in (FAST, PLAIN):
            mean, spread = mean_and_spread(accuracy[path][seed] for seed in seeds)
            shown.append(f"{mean:.2f} ± {spread:.2f}")
        gap, spread = mean_and_spread(accuracy[FAST][seed] - accuracy[PLAIN][seed] for seed in seeds)
        error = spread / len(seeds) ** 0.5
        rows.append([name, *shown, f"{gap:+.2f} ± {error:.2f}", str(len(seeds))])
        differences[f"{name} difference"] = abs(gap)
        differences[f"{name} seeds"] = len(seeds)
    return rows, differences


def main() -> None:
    """Run what is missing, print the table, hold the differences against their limits."""
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
        return
    parser = base_parser(__doc__ or "")
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", shared / "data")))
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    parser.add_argument("--paths", nargs="*", choices=[FAST, PLAIN], default=[FAST, PLAIN])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        sys.exit(f"{arguments.data} is absent; --data names another place")
    results = Results(arguments.json)
    names = arguments.only or (["mrpc"] if arguments.quick else list(CASES))
    seeds = [1] if arguments.quick else arguments.seeds
    planned = [(n, p, s) for s in seeds for n in names for p in arguments.paths]
    with tempfile.TemporaryDirectory(prefix="snapfit-parity-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:

        def one(item: tuple[str, str, int]) -> None:
            key = "{} {} {}".format(*item)
            if key not in results.runs:
                results.add(key, run(*item, arguments.data, Path(folder)))
                found = results.runs[key]
                took = f"{found['train_seconds']:.0f} s"
                print(f"{time.strftime('%H:%M:%S')} {key}: {found['accuracy']:.4f} in {took}", flush=True)

        for name in names:
            files(CASES[name], arguments.data, Path(folder))
        list(pool.map(one, planned))
    rows, differences = summarise(results)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows))
    if arguments.check:
        missed = check_floors("parity", differences)
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
