"""How often the intervals of an evaluation hold the truth: simulated tables whose metrics in the population are known.

    python benchmarks/interval_coverage.py --json benchmarks/results/interval_coverage.json

A population is a joint distribution of true and given labels, drawn once from a seed; tables of some rows are drawn
from it, evaluated, and their 95 % intervals held against the population's metrics. Needs no data and no model.
"""

import argparse
import sys
from typing import Any, NamedTuple

import numpy as np

from harness import Results, base_parser, check_floors, machine, table
from snapfit.core.decisions import Answers
from snapfit.core.label_metrics import LabelCounts, label_metrics
from snapfit.core.labels import LabelSet, Task
from snapfit.core.outcome_sums import LabelSums
from snapfit.core.outcomes import Outcomes
from snapfit.runtime.evaluating import intervals_of, labels_of

BENCHMARK = "interval_coverage"
CONFIDENCE = 0.95
HEADER = ["task", "labels", "rows", "rows of the rarest label", "tables", *("accuracy", "micro F1", "macro F1")]
HEADER += ["weighted F1", "MCC", "precision", "recall", "F1 of a label"]
_COLUMNS = (("accuracy", "subset_accuracy"), ("micro_f1",), ("macro_f1",), ("weighted_f1",), ("mcc",))
_MANY = 400_000


class Case(NamedTuple):
    """A population: its task and labels, how often the answer is right, and how unevenly labels come."""

    task: str
    k: int
    right: float
    skew: float
    rows: int


CASES = [
    *(
        Case("single", k, right, skew, n)
        for k, right, skew in ((3, 0.9, 0.0), (10, 0.8, 0.8))
        for n in (50, 300, 2_000)
    ),
    *(Case("single", 50, 0.9, 0.3, n) for n in (300, 1_000, 3_000)),
    Case("single", 10, 0.8, 0.8, 20_000),
    *(Case("multi", 20, 0.85, 0.8, n) for n in (100, 1_000)),
]


def answers_of(case: Case, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truth and answers of n rows: int [n] twice, or bool [n, k] twice. The population is the case's own."""
    own = np.random.default_rng(case.k)
    shares = 1.0 / np.arange(1, case.k + 1) ** case.skew
    if case.task == "single":
        right = np.clip(case.right + own.normal(0, 0.06, case.k), 0.3, 0.98)
        joint = own.dirichlet(np.full(case.k, 0.5), size=case.k) * (1 - right)[:, None]
        joint[np.arange(case.k), np.arange(case.k)] += right
        joint *= (shares / shares.sum())[:, None]
        cells = rng.choice(case.k**2, size=n, p=joint.ravel())
        return cells // case.k, cells % case.k
    hard = rng.random((n, 1)) < 0.3  # rows on which more labels go wrong at once
    truth = rng.random((n, case.k)) < 0.4 * shares
    flip = rng.random((n, case.k)) < (1 - case.right) * np.where(hard, 1.5, 0.3)
    return truth, np.where(truth, ~flip, flip & (rng.random((n, case.k)) < 0.3))


def outcomes_of(case: Case, truth: np.ndarray, given: np.ndarray) -> Outcomes:
    """Rows as an evaluation has them; nothing here looks at scores."""
    scores = np.full((len(truth), case.k), 0.5)
    task: Task = "single" if case.task == "single" else "multi"
    answers = Answers(task, scores, given, np.zeros(len(truth), dtype=np.int8))
    return Outcomes(0, truth if task == "single" else truth.astype(np.float64), answers)


def summed(case: Case, truth: np.ndarray, given: np.ndarray) -> LabelSums:
    """The sums that a table of these rows gives."""
    names = tuple(f"label {i}" for i in range(case.k))
    sums = LabelSums(LabelSet("single" if case.task == "single" else "multi", names), len(truth))
    sums.add(outcomes_of(case, truth, given))
    return sums


def measure(case: Case, tables: int, seed: int) -> dict[str, Any]:
    """The share of tables whose interval holds the population's value, by metric."""
    rng = np.random.default_rng(seed)
    population = [summed(case, *answers_of(case, _MANY, rng)) for _ in range(5)]
    counts = LabelCounts(*(np.mean([one.all_counts()[i] for one in population], axis=0) for i in range(6)))
    truth = {name: float(np.squeeze(value)) for name, value in label_metrics(population[0].task, counts).items()}
    of_labels = labels_of(population[0], CONFIDENCE)
    held: dict[str, list[bool]] = {}
    for _ in range(tables):
        sums = summed(case, *answers_of(case, case.rows, rng))
        found = intervals_of(sums, sums.all_metrics(), CONFIDENCE)
        for name, ends in found.items():
            if name != "nll" and ends is not None:
                held.setdefault(name, []).append(ends[0] <= truth[name] <= ends[1])
        for one, known in zip(labels_of(sums, CONFIDENCE), of_labels, strict=True):
            for name, ends in one["intervals"].items():
                if ends is not None:
                    held.setdefault(f"label {name}", []).append(ends[0] <= known[name] <= ends[1])
    rarest = float(counts.support.min() / _MANY * case.rows)
    return {
        **case._asdict(),
        "tables": tables,
        "rarest": rarest,
        "held": {k: float(np.mean(v)) for k, v in held.items()},
    }


def row(run: dict[str, Any]) -> list[str]:
    """A run's line of the table."""
    held = run["held"]
    cells = [next((f"{100 * held[name]:.1f}" for name in names if name in held), "") for names in _COLUMNS]
    cells += [f"{100 * held[f'label {name}']:.1f}" for name in ("precision", "recall", "f1")]
    return [run["task"], str(run["k"]), f"{run['rows']:,}", f"{run['rarest']:.1f}", f"{run['tables']:,}", *cells]


def main() -> None:
    """Measure, print, keep, and hold the shares against their floors."""
    parser = base_parser(__doc__ or "")
    arguments: argparse.Namespace = parser.parse_args()
    results = Results(arguments.json)
    tables = 100 if arguments.quick else 1_000
    for seed, case in enumerate(CASES):
        key = f"{case.task}, {case.k} labels, {case.rows} rows"
        if arguments.quick and case.rows > 3_000:
            continue
        if key not in results.runs or arguments.quick:
            results.add(key, measure(case, tables, seed))
    print(f"\nmachine: {machine()}\nshare of tables, in percent, whose 95 % interval holds the population's value\n")
    print(table(HEADER, [row(run) for run in results.runs.values()]))
    if arguments.check:
        enough = [run["held"] for run in results.runs.values() if run["rarest"] >= 5]
        figures = {
            "least of a metric": min(v for held in enough for k, v in held.items() if not k.startswith("label")),
            "least of labels": min(v for held in enough for k, v in held.items() if k.startswith("label")),
        }
        missed = check_floors(BENCHMARK, figures)
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
