"""Tables of trainings that differ in a few settings: every cell on the same rows and seeds, each held against the
default recipe row by row.

Run as a script with --worker it is one training: snapfit's own, in this process, and then the bundle's answers on the
test split. Two such tables are in `regime_schedules.py` and `regime_rates.py`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import last_json, mean_and_spread
from paired import compare, right_answers, rows_as_text
from regime_table import OfDataSets, Place, Record, Run, alone, shared_by_seeds
from subsets import DataSet, Files

KEPT = {
    "optim": ("lr", "layer_ratio", "head_lr_factor"),
    "schedule": ("shape", "cycles", "warmup_fraction"),
    "train": ("epochs", "batch", "precision", "patience"),
    "model": ("pooling",),
}
"""Settings that are stored with a run, as they were resolved."""
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Cell:
    """A row of the table for each data set. settings: beyond the default recipe. default: whether it is that."""

    name: str
    settings: Record = field(default_factory=dict)
    default: bool = False


class TrainingTable(OfDataSets):
    """A table of cells by data sets by seeds.

    cells: made when they are needed. check: told of every record of the default cell, raises where it is not what the
    other cells were made for. told: words for a cell of the table that its settings as resolved give.
    """

    columns = (
        *("development", "test accuracy", "test nll", "less default, points", "95 % interval"),
        *("right alone", "McNemar p", "seeds", "steps"),
    )

    def __init__(
        self,
        name: str,
        *,
        title: str,
        about: str,
        kind: str,
        cells: Callable[[], list[Cell]],
        sets: Sequence[DataSet],
        quick_sets: Sequence[DataSet],
        quick_cells: Sequence[str],
        told: tuple[str, Callable[[Record], str]] | None = None,
        check: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self.name, self.title, self.about = name, title, about
        self.header = ["data", kind, *([told[0]] if told else []), *self.columns]
        super().__init__(sets)
        self._cells, self._quick_sets, self._quick_cells = cells, quick_sets, quick_cells
        self._told, self._check = told, check

    def runs(self, *, quick: bool, seeds: Sequence[int] | None) -> list[Run]:
        """Seed after seed, so that what is there after a while is a whole table of fewer seeds."""
        cells = [cell for cell in self._cells() if not quick or cell.default or cell.name in self._quick_cells]
        sets = self._quick_sets if quick else self._sets
        return [
            Run(f"{one.name} {cell.name} {seed}", {"set": one, "cell": cell, "seed": seed})
            for seed in seeds or SEEDS[: 2 if quick else None]
            for one in sets
            for cell in cells
        ]

    def run(self, run: Run, place: Place) -> Record:
        """One training in a process of its own."""
        one, cell, seed = run.asked["set"], run.asked["cell"], run.asked["seed"]
        files = self._files[one.name]
        settings: Record = {"train.patience": None, **cell.settings}
        if one.epochs is not None:
            settings["train.epochs"] = one.epochs
        answer = train_alone(files, settings, seed, place.work)
        record = {"set": one.name, "cell": cell.name, "seed": seed, "rows": files.rows, "split": files.about, **answer}
        if cell.default:
            self._check(record)
        return record

    def _default(self) -> str:
        """The cell that is the default recipe as it is now, whichever it was when the runs were made; "" for none."""
        return next((cell.name for cell in self._cells() if cell.default), "")

    def line(self, record: Record) -> str:
        """What came of a run."""
        return f"accuracy {record['accuracy']:.4f}, nll {record['nll']:.4f} in {record['seconds']:.0f} s"

    def rows(self, records: Sequence[Record]) -> list[list[str]]:
        """Data set by data set: the default recipe is named, the best test accuracy marked."""
        rows = []
        for of_set in _grouped(records, "set").values():
            cells = _grouped(of_set, "cell")
            means = {name: mean_and_spread(100 * r["accuracy"] for r in found)[0] for name, found in cells.items()}
            default = cells.get(self._default(), [])
            for name, found in cells.items():
                best = "**" if means[name] == max(means.values()) else ""
                shown = [found[0]["set"], name + (" (default)" if found is default else "")]
                shown += [self._told[1](found[0])] if self._told else []
                rows.append([*shown, *_measured(found, best), *_compared(found, default), *_extent(found)])
        return rows

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Of each data set of which every cell is there: how far the default is below the best, and on how many seeds.

        Only seeds that every cell has count. `steps apart`: whether any cell had more steps than another.
        """
        found: dict[str, float] = {}
        wanted = {cell.name for cell in self._cells()}
        for name, of_set in _grouped(records, "set").items():
            cells = _grouped(of_set, "cell")
            seeds = shared_by_seeds([[r["seed"] for r in runs] for runs in cells.values()])
            if set(cells) != wanted or self._default() not in wanted or not seeds:
                continue
            means = {
                cell: mean_and_spread(100 * r["accuracy"] for r in runs if r["seed"] in seeds)[0]
                for cell, runs in cells.items()
            }
            steps = [r["steps"] for r in of_set]
            found[f"{name} default below best"] = max(means.values()) - means[self._default()]
            found[f"{name} seeds"] = len(seeds)
            found[f"{name} steps apart"] = max(steps) - min(steps)
        return found

    def notes(self, records: Sequence[Record]) -> list[str]:
        """The splits, and what all runs share."""
        if not records:
            return []
        lines = list(dict.fromkeys(record["split"] for record in records))
        kinds = sorted({f"{r['recipe']['train.precision']}, {r['recipe']['model.pooling']} pooling" for r in records})
        gap = max(abs(r["accuracy"] - r["bundle_accuracy"]) for r in records)
        lines.append(f"precision and pooling: {'; '.join(kinds)}")
        lines.append(f"largest gap between the accuracy of the run and of its bundle's answers: {100 * gap:.2f} points")
        return lines


def _grouped(records: Sequence[Record], key: str) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return groups


def _measured(records: Sequence[Record], best: str) -> list[str]:
    """Mean and standard deviation over seeds: development accuracy, test accuracy, test nll."""
    development, _ = mean_and_spread(100 * r["dev_accuracy"] for r in records)
    accuracy, spread = mean_and_spread(100 * r["accuracy"] for r in records)
    nll, nll_spread = mean_and_spread(r["nll"] for r in records)
    several = len(records) > 1
    shown = f"{best}{accuracy:.2f}{best}" + (f" ± {spread:.2f}" if several else "")
    return [f"{development:.2f}", shown, f"{nll:.4f}" + (f" ± {nll_spread:.4f}" if several else "")]


def _compared(records: Sequence[Record], default: Sequence[Record]) -> list[str]:
    """Against the default recipe, on the seeds and rows that both have."""
    seeds = shared_by_seeds([[r["seed"] for r in records], [r["seed"] for r in default]])
    if records is default or not seeds:
        return ["", "", "", ""]
    n = records[0]["n_test"]
    this, other = (
        right_answers([r["wrong"] for seed in seeds for r in runs if r["seed"] == seed], n)
        for runs in (records, default)
    )
    found = compare(this, other)
    interval = f"{found.low:+.2f} to {found.high:+.2f}"
    return [f"{found.points:+.2f}", interval, f"{found.this_only} : {found.other_only}", _chance(found.p)]


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _extent(records: Sequence[Record]) -> list[str]:
    steps = sorted({r["steps"] for r in records})
    return [str(len(records)), " or ".join(f"{one:,}" for one in steps)]


def train_alone(files: Files, settings: Record, seed: int, work: Path) -> Record:
    """One training of snapfit's in a process of its own with one thread, and its bundle's answers on the test split.

    settings: full keys of the recipe, plain values. Returned: accuracy and nll of the test split, dev_accuracy and
    dev_nll, wrong (the rows of the test split that the bundle has wrong), n_test, bundle_accuracy, steps, best_step,
    recipe (some settings as resolved), layers (of the encoder), train_seconds, seconds.
    """
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        asked = {"train": str(files.train), "valid": str(files.valid), "test": str(files.test)}
        asked |= {"out": str(Path(scratch) / "run")}
        whole = {**asked, "settings": {**settings, "train.seed": seed, "train.threads": 1}}
        start = time.monotonic()
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(whole)]
        answer = last_json(command, Path(scratch), **alone())
        return {**answer, "seconds": round(time.monotonic() - start, 1)}


def worker(asked: dict[str, Any]) -> None:
    """Train, score the test split row by row, print what came of it."""
    from snapfit.core.process import settle_process

    settle_process()
    import snapfit
    from snapfit.data.formats import read_table

    result = snapfit.train(
        asked["train"],
        valid=asked["valid"],
        test=asked["test"],
        out=asked["out"],
        **{key.replace(".", "__"): value for key, value in asked["settings"].items()},
    )
    test = read_table(asked["test"])
    answers = snapfit.load(result.bundle).predict(test["text"].to_pylist())
    wrong = np.array(answers) != np.array(test["label"].to_pylist())
    values = result.recipe.to_dict()
    scored, chosen = result.metrics["test"], result.metrics["valid"]
    print(
        json.dumps(
            {
                "accuracy": scored["accuracy"],
                "nll": scored["nll"],
                "dev_accuracy": chosen["accuracy"],
                "dev_nll": chosen["nll"],
                "wrong": rows_as_text(wrong),
                "n_test": len(wrong),
                "bundle_accuracy": float(1 - wrong.mean()),
                "steps": result.steps,
                "best_step": result.best_step,
                "recipe": {f"{section}.{key}": values[section][key] for section, keys in KEPT.items() for key in keys},
                "layers": json.loads((result.bundle / "config.json").read_text("utf-8"))["num_hidden_layers"],
                "train_seconds": round(result.train_seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    worker(json.loads(sys.argv[2]))
