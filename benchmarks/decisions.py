"""What decision rules give on real data: tuned thresholds, temperatures, texts out of scope, the same on all paths.

    python benchmarks/decisions.py --json benchmarks/results/decisions.json --check      everything, resumable
    python benchmarks/decisions.py --quick                                               Banking77, one epoch
    python benchmarks/decisions.py --only clinc150 --work runs/decisions                 keeps the runs, to take up

Trainings are by the command line with the default recipe, a process of its own with one thread each. Rules are fitted
to validation rows alone; test splits are scored once. The data are found in --data (or $SNAPFIT_REAL_DATA); parts whose
data are absent are left out.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy import ALONE
from harness import ROOT, Results, base_parser, check_floors, last_json, machine, table

N_PATHS = 10_000
"""Texts whose decisions are compared on all paths."""
OUT_OF_SCOPE = "oos"
METHODS = ("max_probability", "energy", "centroids")
ENCODER = {"layers": 2, "width": 128, "vocabulary": 6_000, "seed": 0, "characters": True}
"""Of the random encoder for Chinese, whose vocabulary is of the training texts."""
HEADER = ["data", "what", "as it comes", "with the rule", "cross-fitted"]


@dataclass(frozen=True)
class Case:
    """A set and how it is trained on. settings: beyond the default recipe. random: with a random encoder."""

    folder: str
    train: str
    test: str
    valid: str | None = None
    settings: tuple[str, ...] = ()
    random: bool = False


CASES = {
    "banking77": Case("banking77", "train.csv", "test.csv"),
    "clinc150": Case("clinc150_full", "train.tsv", "test.tsv", "dev.tsv"),
    "goemotions": Case("goemotions", "train.jsonl", "test.jsonl", "dev.jsonl", ("decision.threshold_metric=macro_f1",)),
    "baidu": Case(
        "baidu_event_multilabel",
        "train.jsonl",
        "test.jsonl",
        None,
        ("train.epochs=12", "decision.threshold_metric=macro_f1"),
        random=True,
    ),
}
QUICK = Case("banking77", "train.csv", "test.csv", None, ("train.epochs=1",))


class Bench:
    """Runs parts and keeps what they measured. work: where runs and bundles are written, and found again."""

    def __init__(self, results: Results, data: Path, work: Path) -> None:
        self.results, self.data, self.work = results, data, work

    def trained(self, name: str, case: Case) -> dict[str, Any]:
        """Train, unless the run is there already; what its result says."""
        folder, out = self.data / case.folder, self.work / name
        if not (out / "result.json").exists():
            command = ["train", str(folder / case.train), "--test", str(folder / case.test), "--out", str(out)]
            command += ["--seed", "1", "--set", "train.threads=1"]
            command += ["--valid", str(folder / case.valid)] if case.valid else []
            command += ["--encoder", str(self._random_encoder(folder / case.train))] if case.random else []
            for setting in case.settings:
                command += ["--set", setting]
            self.snapfit(*command)
        values: dict[str, Any] = json.loads((out / "result.json").read_text("utf-8"))
        return values

    def snapfit(self, *arguments: str) -> dict[str, Any]:
        """Run a command and return its JSON."""
        return last_json([sys.executable, "-m", "snapfit", *arguments, "--json"], self.work, **ALONE)

    def measure(self, key: str, part: Callable[[], Mapping[str, Any]]) -> None:
        """Do a part, unless it was done before, and keep its figures."""
        if key in self.results.runs:
            return
        start = time.monotonic()
        figures = part()
        self.results.add(key, {**figures, "seconds": round(time.monotonic() - start, 1)})
        print(f"{time.strftime('%H:%M:%S')} {key}: {json.dumps(self.results.runs[key])[:300]}", flush=True)

    def decided(self, name: str, label: str, table_path: Path, *settings: str, train: Path | None = None) -> Path:
        """A bundle of the run with another rule."""
        out = self.work / f"{name}-{label}"
        if not out.exists():
            command = ["decide", str(self.work / name / "bundle"), str(table_path), "--out", str(out)]
            command += ["--train", str(train)] if train else []
            for setting in settings:
                command += ["--set", setting]
            self.snapfit(*command)
        return out

    def _random_encoder(self, train: Path) -> Path:
        from snapfit.data.formats import read_table
        from snapfit.ship.random_encoder import write_random_encoder

        folder = self.work / "random-encoder"
        if not folder.exists():
            texts = read_table(train)["text"].to_pylist()
            write_random_encoder(folder, texts, **ENCODER)
        return folder


# ---------------------------------------------------------------- parts


def of_training(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a training's end says of its rule: on the validation rows, and on the test split."""
    report = result["decision"]["report"]
    kept = ("rows", "calibration", "thresholds", "metric", "rare", "why", "plain", "fitted", "expected")
    return {
        **{name: report[name] for name in kept if name in report},
        "rule": result["decision"]["rule"],
        "test": {"plain": report.get("test_plain", result["metrics"]["test"]), "rule": result["metrics"]["test"]},
        "steps": result["steps"],
        "train_seconds": result["train_seconds"],
        "recipe": result["recipe"],
    }


def out_of_scope(bench: Bench, method: str) -> dict[str, Any]:
    """A scope fitted to the development rows, measured on the test rows and those out of scope together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from snapfit.data.formats import read_table

    case = CASES["clinc150"]
    folder = bench.data / case.folder
    both = bench.work / "clinc150-test-and-oos.parquet"
    if not both.exists():
        tables = [read_table(folder / name).select(["text", "label"]) for name in (case.test, "oos_test.tsv")]
        pq.write_table(pa.concat_tables(tables), both)
    train = folder / case.train if method == "centroids" else None
    dev = folder / str(case.valid)
    bundle = bench.decided("clinc150", method, dev, f"decision.out_of_scope={method}", train=train)
    found = bench.snapfit("evaluate", str(bundle), str(both), "--out-of-scope-label", OUT_OF_SCOPE)["metrics"]
    plain = bench.snapfit("evaluate", str(bench.work / "clinc150/bundle"), str(folder / case.test))["metrics"]
    return {"method": method, "plain": plain, "rule": found, "loss": plain["accuracy"] - found["accuracy"]}


def other_metric(bench: Bench, name: str, metric: str) -> dict[str, Any]:
    """Thresholds for another metric, fitted to the same validation rows."""
    case = CASES[name]
    folder = bench.data / case.folder
    assert case.valid is not None
    settings = (f"decision.threshold_metric={metric}", "decision.thresholds=tuned")
    bundle = bench.decided(name, metric, folder / case.valid, *settings)
    decided = json.loads((bundle / "snapfit.json").read_text("utf-8"))["decided"]
    test = bench.snapfit("evaluate", str(bundle), str(folder / case.test))["metrics"]
    return {"metric": metric, "expected": decided["expected"], "fitted": decided["fitted"], "test": {"rule": test}}


def paths(bench: Bench, name: str, bundle: Path, texts: Path) -> dict[str, Any]:
    """Decisions on N_PATHS texts by every path there is, and how many differ."""
    worker = Path(__file__).with_name("decision_paths.py")
    asked = {"bundle": str(bundle), "table": str(texts), "rows": N_PATHS, "work": str(bench.work), "name": name}
    return last_json([sys.executable, str(worker), json.dumps(asked)], bench.work, **ALONE)


def run_all(bench: Bench, only: list[str]) -> None:
    """Everything whose data are there. only: names that a part's begins with; none means all."""

    def wanted(name: str) -> bool:
        there = (bench.data / CASES[name.split(" ")[0]].folder).exists()
        return there and (not only or any(name.startswith(one) for one in only))

    for name, case in CASES.items():
        if wanted(name):
            bench.measure(name, lambda name=name, case=case: of_training(bench.trained(name, case)))  # type: ignore[misc]
    for method in METHODS:
        if wanted(f"clinc150 {method}"):
            bench.measure(f"clinc150 {method}", lambda method=method: out_of_scope(bench, method))  # type: ignore[misc]
    if wanted("goemotions micro_f1"):
        bench.measure("goemotions micro_f1", lambda: other_metric(bench, "goemotions", "micro_f1"))
    for name, label in (("goemotions", ""), ("clinc150", "-energy")):
        if wanted(f"{name} paths") and (bench.work / name).exists():
            bundle = bench.work / f"{name}{label}" if label else bench.work / name / "bundle"
            texts = bench.data / CASES[name].folder / CASES[name].train
            bench.measure(f"{name} paths", lambda b=bundle, t=texts, n=name: paths(bench, n, b, t))  # type: ignore[misc]


def run_quick(bench: Bench) -> None:
    """One epoch on Banking77, and the paths of its bundle with a low score refused."""
    if not (bench.data / QUICK.folder).exists():
        return
    bench.measure("quick banking77", lambda: of_training(bench.trained("quick", QUICK)))
    folder = bench.data / QUICK.folder
    bundle = bench.decided("quick", "abstains", folder / QUICK.test, "decision.abstain_coverage=0.9")
    bench.measure("quick paths", lambda: paths(bench, "quick", bundle, folder / QUICK.train))


# ---------------------------------------------------------------- figures


def measured(results: Results) -> dict[str, float]:
    """What floors are held against, in percent and points; texts where decisions differ."""
    runs, found = results.runs, dict[str, float]()
    for name in ("banking77", "clinc150"):
        if name in runs:
            found[f"{name} ece"] = 100 * runs[name]["test"]["rule"]["ece"]
    for name in ("goemotions", "baidu"):
        if name in runs:
            test = runs[name]["test"]
            for metric in ("macro_f1", "micro_f1"):
                found[f"{name} {metric} gain"] = 100 * (test["rule"][metric] - test["plain"][metric])
    if "goemotions" in runs:
        expected, test = runs["goemotions"]["expected"], runs["goemotions"]["test"]["rule"]
        found["goemotions estimate off"] = 100 * abs(expected["macro_f1"] - test["macro_f1"])
    for method in METHODS:
        if (key := f"clinc150 {method}") in runs:
            found[f"{key} recall"] = 100 * runs[key]["rule"]["refusal_recall"]
            found[f"{key} loss"] = 100 * runs[key]["loss"]
    for key in [key for key in runs if key.endswith(" paths")]:
        found[f"{key} differences"] = sum(runs[key]["differences"].values())
        found[f"{key} texts"] = runs[key]["rows"]
    return found


def rows(results: Results) -> list[list[str]]:
    """Rows of the table: test splits, as the model comes and with the rule that ships; what was cross-fitted beside."""
    shown = []
    for name, run in results.runs.items():
        if "test" not in run or "plain" not in run["test"]:
            continue
        multi = "macro_f1" in run["test"]["plain"] and "micro_f1" in run["test"]["plain"]
        for metric in ("macro_f1", "micro_f1", "nll", "ece") if multi else ("accuracy", "nll", "ece"):
            cells = [run["test"]["plain"][metric], run["test"]["rule"][metric], (run["expected"] or {}).get(metric)]
            shown.append([name, metric, *("" if cell is None else f"{cell:.4f}" for cell in cells)])
    if "goemotions micro_f1" in results.runs:
        run = results.runs["goemotions micro_f1"]
        for metric in ("macro_f1", "micro_f1"):
            cells = [f"{run['test']['rule'][metric]:.4f}", f"{run['expected'][metric]:.4f}"]
            shown.append(["goemotions, tuned for micro_f1", metric, "", *cells])
    return shown


SCOPE_HEADER = ["method", "in-scope accuracy", "of it lost", "recall of refusal", "precision of refusal"]


def scope_rows(results: Results) -> list[list[str]]:
    """Texts out of scope, by method."""
    shown = []
    for method in METHODS:
        run = results.runs.get(f"clinc150 {method}")
        if run is not None:
            rule = run["rule"]
            figures = [rule["accuracy"], run["loss"], rule["refusal_recall"], rule["refusal_precision"]]
            shown.append([method, *(f"{100 * figure:.1f} %" for figure in figures)])
    return shown


PATHS_HEADER = ["bundle", "path", "texts", "decisions that differ"]


def paths_rows(results: Results) -> list[list[str]]:
    """Decisions on the same texts, by path."""
    return [
        [key.removesuffix(" paths"), path, f"{run['compared'][path]:,}", str(run["differences"][path])]
        for key, run in results.runs.items()
        if key.endswith(" paths") and "differences" in run
        for path in run["differences"]
    ]


def page(results: Results) -> str:
    """What docs/decisions.md shows."""
    parts = [table(HEADER, rows(results))]
    if scope := scope_rows(results):
        parts += [
            "CLINC150, 4,500 test texts in scope and 1,000 out of it; nothing was fitted to either, nor to any text "
            "out of scope:",
            table(SCOPE_HEADER, scope),
        ]
    if same := paths_rows(results):
        parts += ["Decisions by every path, beside those of `predict` on all texts at once:", table(PATHS_HEADER, same)]
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, print the tables, hold them against the floors."""
    parser = base_parser(__doc__ or "")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="parts whose name begins so")
    parser.add_argument("--work", type=Path, help="keep runs here, and take up those that are there")
    arguments = parser.parse_args()
    results = Results(arguments.json)
    work = arguments.work or Path(tempfile.mkdtemp(prefix="snapfit-decisions-"))
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(results, arguments.data.absolute(), work.absolute())
    if arguments.quick:
        run_quick(bench)
    else:
        run_all(bench, arguments.only)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows(results)))
    if scope := scope_rows(results):
        print("\nCLINC150, 4,500 test texts in scope and 1,000 out of it:\n")
        print(table(SCOPE_HEADER, scope))
    found = measured(results)
    print("\n" + "\n".join(f"{name}: {value:.4g}" for name, value in found.items()))
    if arguments.check:
        missed = check_floors("decisions", found)
        print("\n".join(missed) or "every floor holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
