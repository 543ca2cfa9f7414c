"""What each option for rare classes does on sets with a long tail, one at a time, beside the plain loss.

    python benchmarks/imbalance.py --json benchmarks/results/imbalance.json --check     everything, resumable
    python benchmarks/imbalance.py --quick                                               one small set, two seeds
    python benchmarks/imbalance.py --only goemotions-4000 --seeds 1                      one set, one seed

The trainings of a set and seed share a process with one thread; `--jobs` of these run at a time. Seeds and draws are
printed. No development split chooses weights: the last ones are taken, at equal steps. Test splits are scored once a
training. Of many labels the development split sets thresholds afterwards, one for each label. A set that is not there
is named, and left out.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import ROOT, Results, base_parser, check_floors, json_lines, machine, mean_and_spread, table
from regime_table import Record, alone
from subsets import BANKING_TAIL, EMOTION_TAIL, GOEMOTIONS_4K, TAIL_QUICK, DataSet, Files, write

SEEDS = (1, 2, 3)
PLAIN = "plain"
THRESHOLDS = np.arange(0.02, 0.99, 0.02)
"""Those that are tried for each label."""


@dataclass(frozen=True)
class Cell:
    """A row of the table for each data set. settings: beyond the default recipe."""

    name: str
    settings: Record = field(default_factory=dict)


_WEIGHTS = "loss.class_weights"
_COMMON = (
    Cell(PLAIN),
    Cell("weights balanced", {_WEIGHTS: "balanced"}),
    Cell("weights effective", {_WEIGHTS: "effective"}),
    Cell("focal", {"loss.function": "focal"}),
)
_SAMPLING = (
    Cell("sampling weighted", {"train.sampling": "weighted"}),
    Cell("sampling balanced", {"train.sampling": "balanced"}),
)
SINGLE = (*_COMMON, Cell("focal, weights effective", {"loss.function": "focal", _WEIGHTS: "effective"}), *_SAMPLING)
MULTI = (*_COMMON, Cell("asymmetric", {"loss.function": "asymmetric"}), *_SAMPLING)
SETS: dict[str, tuple[DataSet, tuple[Cell, ...]]] = {
    one.name: (one, cells) for one, cells in ((BANKING_TAIL, SINGLE), (EMOTION_TAIL, SINGLE), (GOEMOTIONS_4K, MULTI))
}
QUICK: dict[str, tuple[DataSet, tuple[Cell, ...]]] = {TAIL_QUICK.name: (TAIL_QUICK, (SINGLE[0], SINGLE[2]))}

SINGLE_HEADER = ["data", "option", "macro-F1", "less plain", "accuracy", "recall, rare third", "nll", "ECE", "seeds"]
MULTI_HEADER = ["data", "option", "macro-F1", "less plain", "micro-F1", "macro-F1, tuned", "nll", "ECE", "seeds"]


def run_all(one: DataSet, cells: Sequence[Cell], seed: int, files: Files, work: Path) -> Iterator[tuple[Cell, Record]]:
    """Trainings of one set and seed, one after another in a process of its own, and what each bundle answers."""
    common: Record = {"data.valid_fraction": 0.0, "train.patience": None, "train.epochs": one.epochs}
    common |= {"model.pooling": "mean", "train.seed": seed, "train.threads": 1}
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        asked = {"train": str(files.train), "valid": str(files.valid), "test": str(files.test), "label": one.label}
        asked |= {"out": scratch, "settings": [{**common, **cell.settings} for cell in cells]}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(asked)]
        answers = json_lines(command, Path(scratch), **alone())
        for cell, answer in zip(cells, answers, strict=True):
            yield cell, {"set": one.name, "cell": cell.name, "seed": seed, "split": files.about, **answer}


def worker(asked: Record) -> None:
    """Train, score, print what came of it, for each of the settings."""
    from snapfit.core.process import settle_process

    settle_process()
    for number, settings in enumerate(asked["settings"]):
        print(json.dumps(trained(asked, settings, Path(asked["out"]) / str(number))), flush=True)


def trained(asked: Record, settings: Record, out: Path) -> Record:
    """One training, and its bundle's answers."""
    import snapfit
    from snapfit.data.formats import read_table

    result = snapfit.train(asked["train"], out=out, **{key.replace(".", "__"): v for key, v in settings.items()})
    predictor = snapfit.load(result.bundle)
    label_set = predictor.bundle.label_set

    def scored(file: str) -> tuple[np.ndarray, np.ndarray]:
        rows = read_table(file)
        return predictor.scores(rows["text"].to_pylist()), label_set.encode(rows[asked["label"]].to_pylist())

    counts = label_set.counts(label_set.encode(read_table(asked["train"])[asked["label"]].to_pylist()))
    scores, targets = scored(asked["test"])
    if label_set.task == "single":
        measured = of_single(scores, targets, counts)
    else:
        measured = of_multi(scores, targets, *scored(asked["valid"]))
    recipe = result.recipe.to_dict()
    kept = {"batch": recipe["train"]["batch"], "precision": recipe["train"]["precision"], **recipe["loss"]}
    return {
        "task": label_set.task,
        **measured,
        "rows": [int(counts.max()), int(counts.min())],
        "steps": result.steps,
        "recipe": kept,
        "train_seconds": round(result.train_seconds, 1),
    }


def of_single(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Figures of one label a text. counts: training rows of each class; the rarest third of the classes is the tail."""
    from snapfit.core.calibration import calibration_error
    from snapfit.core.metrics import compute_metrics

    found = compute_metrics("single", scores, targets)
    right = scores.argmax(axis=1) == targets
    rare = np.argsort(counts, kind="stable")[: max(1, len(counts) // 3)]
    tail = float(np.mean([right[targets == label].mean() for label in rare if (targets == label).any()]))
    error = calibration_error(scores, targets, "single")
    return {**{name: found[name] for name in ("macro_f1", "accuracy", "nll")}, "tail": tail, "ece": float(error or 0)}


def of_multi(
    scores: np.ndarray, targets: np.ndarray, dev_scores: np.ndarray, dev_targets: np.ndarray
) -> dict[str, float]:
    """Figures of many labels a text, at 0.5; and macro-F1 at thresholds that are best on the development split."""
    from snapfit.core.calibration import calibration_error
    from snapfit.core.metrics import compute_metrics

    found = compute_metrics("multi", scores, targets)
    tuned = compute_metrics("multi", scores, targets, thresholds=best_thresholds(dev_scores, dev_targets))
    error = calibration_error(scores, targets, "multi")
    kept = {name: found[name] for name in ("macro_f1", "micro_f1", "nll")}
    return {**kept, "tuned": tuned["macro_f1"], "ece": float(error or 0)}


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of each label the threshold with the highest F1, float [labels]; of equals the one nearest to 0.5."""
    best = np.full(scores.shape[1], 0.5)
    reached = np.zeros(scores.shape[1])
    for threshold in sorted(THRESHOLDS, key=lambda value: abs(value - 0.5)):
        answers = scores >= threshold
        hits = (answers & (targets > 0)).sum(axis=0)
        f1 = 2 * hits / np.maximum(answers.sum(axis=0) + (targets > 0).sum(axis=0), 1)
        better = f1 > reached
        best[better], reached[better] = threshold, f1[better]
    return best


def key_of(name: str, cell: str, seed: int) -> str:
    """What a run's result is stored by."""
    return f"{name} {cell} {seed}"


def by_set(results: Results, *, quick: bool = False) -> dict[str, dict[str, list[Record]]]:
    """The runs that are there: set -> option -> runs, in the order of the table."""
    found: dict[str, dict[str, list[Record]]] = {}
    for name, (_, cells) in (QUICK if quick else SETS).items():
        runs = [one for one in results.runs.values() if one["set"] == name]
        groups = {cell.name: [one for one in runs if one["cell"] == cell.name] for cell in cells}
        if any(groups.values()):
            found[name] = {cell: sorted(group, key=lambda one: one["seed"]) for cell, group in groups.items() if group}
    return found


def rows(groups: dict[str, list[Record]]) -> list[list[str]]:
    """The table's rows of one set: means over seeds, in points but for the nll; the best macro-F1 marked."""
    means = {cell: mean_and_spread(100 * run["macro_f1"] for run in runs)[0] for cell, runs in groups.items()}
    shown = []
    for cell, runs in groups.items():
        mark = "**" if means[cell] == max(means.values()) else ""
        spread = mean_and_spread(100 * run["macro_f1"] for run in runs)[1]
        line = [
            runs[0]["set"],
            cell,
            f"{mark}{means[cell]:.2f}{mark} ± {spread:.2f}",
            _gain(runs, groups.get(PLAIN, [])),
        ]
        names = ("accuracy", "tail") if runs[0]["task"] == "single" else ("micro_f1", "tuned")
        line += [f"{mean_and_spread(100 * run[name] for run in runs)[0]:.2f}" for name in names]
        nll, ece = (mean_and_spread(run[name] for run in runs)[0] for name in ("nll", "ece"))
        shown.append([*line, f"{nll:.4f}", f"{100 * ece:.2f}", str(len(runs))])
    return shown


def _gain(runs: Sequence[Record], plain: Sequence[Record]) -> str:
    """Points of macro-F1 over the plain loss with the same seeds, and the standard error of their mean."""
    gaps = gains(runs, plain)
    if runs is plain or not gaps:
        return ""
    mean, spread = mean_and_spread(gaps)
    return f"{mean:+.2f}" + (f" ± {spread / len(gaps) ** 0.5:.2f}" if len(gaps) > 1 else "")


def gains(runs: Sequence[Record], plain: Sequence[Record]) -> list[float]:
    """Points of macro-F1 over the plain loss, of each seed that both have."""
    of_plain = {run["seed"]: run["macro_f1"] for run in plain}
    return [100 * (run["macro_f1"] - of_plain[run["seed"]]) for run in runs if run["seed"] in of_plain]


def figures(results: Results) -> dict[str, float]:
    """What floors.toml limits: of each set the seeds that all options have, how far steps are apart, the best gain."""
    found: dict[str, float] = {}
    for name, groups in by_set(results).items():
        if len(groups) < len(SETS[name][1]):
            continue
        seeds = set.intersection(*({run["seed"] for run in runs} for runs in groups.values()))
        steps = [run["steps"] for runs in groups.values() for run in runs]
        found[f"{name} seeds"] = len(seeds)
        found[f"{name} steps apart"] = max(steps) - min(steps)
        others = [runs for cell, runs in groups.items() if cell != PLAIN]
        found[f"{name} best gain"] = max(mean_and_spread(gains(runs, groups[PLAIN]))[0] for runs in others)
    return found


def page(results: Results, *, quick: bool = False) -> list[str]:
    """The tables in Markdown, with what is said below them."""
    lines: list[str] = []
    for groups in by_set(results, quick=quick).values():
        runs = [run for group in groups.values() for run in group]
        single = runs[0]["task"] == "single"
        loads = [run["machine"]["load"] for run in runs]
        steps = sorted({run["steps"] for run in runs})
        kinds = sorted({run["recipe"]["precision"] for run in runs})
        most, least = runs[0]["rows"]
        lines += [table(SINGLE_HEADER if single else MULTI_HEADER, rows(groups)), ""]
        lines += [f"- {split}" for split in dict.fromkeys(run["split"] for run in runs)]
        lines.append(f"- training rows of the most common label {most:,}, of the rarest {least:,}")
        lines.append(f"- steps {' or '.join(f'{n:,}' for n in steps)}, batches of {runs[0]['recipe']['batch']}")
        lines.append(f"- {' or '.join(kinds)}, mean pooling; load at the ends of runs {min(loads)} to {max(loads)}")
        lines.append("")
    return lines


def measure(arguments: Any, results: Results, work: Path) -> list[str]:
    """Do the runs that are missing; sentences about those that failed."""
    chosen = QUICK if arguments.quick else {name: SETS[name] for name in arguments.only}
    seeds = arguments.seeds or SEEDS[: 2 if arguments.quick else None]
    todo, files = [], {}
    for seed in seeds:  # seed after seed, so that what is there after a while is a whole table of fewer seeds
        for name, (one, cells) in chosen.items():
            missing = [cell for cell in cells if key_of(name, cell.name, seed) not in results.runs]
            if not (arguments.data / one.folder).exists():
                print(f"{name}: not measured: {arguments.data / one.folder} is absent; --data names another place")
            elif missing:
                if name not in files:
                    files[name] = write(one, arguments.data, work)
                    print(files[name].about, flush=True)
                todo.append((one, missing, seed))

    def do(item: tuple[DataSet, list[Cell], int]) -> str | None:
        one, cells, seed = item
        try:
            for cell, record in run_all(one, cells, seed, files[one.name], work):
                key = key_of(one.name, cell.name, seed)
                results.add(key, record)
                took = f"{record['train_seconds']:.0f} s, load {results.runs[key]['machine']['load']}"
                print(
                    f"{time.strftime('%H:%M:%S')} {key}: macro-F1 {100 * record['macro_f1']:.2f} in {took}", flush=True
                )
        except RuntimeError as error:
            return f"{one.name} {seed}: {error}"
        return None

    with ThreadPoolExecutor(arguments.jobs) as pool:
        return [sentence for sentence in pool.map(do, todo) if sentence]


def main() -> None:
    """Run what is missing, print the tables, hold them against their limits."""
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
        return
    parser = base_parser(__doc__ or "")
    shared = Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="the folder of the data sets")
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    arguments = parser.parse_args()
    arguments.data = arguments.data.resolve()
    results = Results(arguments.json)
    with tempfile.TemporaryDirectory(prefix="snapfit-imbalance-") as work:
        failed = measure(arguments, results, Path(work))
    print(f"\nmachine: {machine()}; {arguments.jobs} processes of one thread at a time\n")
    print("\n".join(page(results, quick=arguments.quick)))
    if failed:
        print("\n".join(["runs that failed:", *failed]))
    missed = check_floors("imbalance", figures(results)) if arguments.check else []
    if arguments.check:
        print("\n".join(missed) or "every limit holds")
    sys.exit(1 if missed or failed else 0)


if __name__ == "__main__":
    main()
