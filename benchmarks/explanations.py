"""Whether the words that explanations name are those that count, how far both methods agree, and what they cost.

    python benchmarks/explanations.py --json benchmarks/results/explanations.json --check    all, resumable
    python benchmarks/explanations.py --quick                                                 fewer texts of one set

The deletion test: words are taken out of the text itself, the rest is tokenised and answered anew, and the log-odds of
the label that was given are compared. Neither method sees texts of that kind: both put the mask token in a word's
place. Words go in the order of their values, or in an order drawn by a seed. Trained as stated, with the starter
encoder, and explained one text at a time.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import ROOT, Results, base_parser, check_floors, last_json, machine, processor_of, table
from subsets import BANKING, DataSet, write

SETS = (
    DataSet("sst2-3000", "sst2", "train.tsv", "dev.tsv", rows=3_000, epochs=1),
    replace(BANKING, name="banking77-3000", rows=3_000, epochs=2),
)
TEXTS, QUICK_TEXTS = 40, 10
SCORED = 200
"""Rows of the test table that the accuracy is told of."""
LEAST_WORDS = 6
TAKEN = (1, 2, 3)
DRAWS = 5
METHODS = ("integrated_gradients", "occlusion")
ORDERS = {"integrated_gradients": "integrated gradients", "occlusion": "occlusion", "random": "random words"}
HEADER = [
    "set",
    "words taken",
    *[f"log-odds lost with {n}" for n in TAKEN],
    *[f"other answers with {n}" for n in TAKEN],
]
COSTS = [
    *("set", "method", "words a text", "CPU ms a text", "wall ms a text", "passes a text", "passes, 90 % below"),
    *("largest error of the sum", "agreement"),
]
Record = dict[str, Any]


def run(data_set: DataSet, data: Path, work: Path, count: int) -> Record:
    """Train and measure, each in a process of its own."""
    files = write(data_set, data, work)
    command = [sys.executable, "-m", "snapfit", "train", str(files.train), "--valid", str(files.valid)]
    command += ["--out", str(work / "run"), "--seed", "1", "--epochs", str(data_set.epochs), "--json"]
    bundle = last_json(command, work)["bundle"]
    print(f"{data_set.name}: trained", flush=True)
    asked = json.dumps({"bundle": str(work / bundle), "test": str(files.test), "count": count})
    return last_json([sys.executable, str(Path(__file__).resolve()), "--measure", asked], work)


def without(text: str, words: Sequence[Any]) -> str:
    """The text with these words taken out."""
    for word in sorted(words, key=lambda word: -word.start):
        text = text[: word.start] + text[word.end :]
    return " ".join(text.split())


def measure(bundle: str, test: str, count: int) -> Record:
    """All figures of one bundle, on texts of some words, drawn by a seed."""
    import snapfit
    from snapfit.core.log_odds import log_odds
    from snapfit.data.records import read_records

    predictor, records = snapfit.load(bundle), read_records(test)
    drawn = np.random.default_rng(0).permutation(len(records))
    every, labels = records.texts.to_pylist(), list(records.labels)
    answers = predictor.predict([every[i] for i in drawn[:SCORED]])
    texts = [every[i] for i in drawn if len(every[i].split()) >= LEAST_WORDS][:count]
    predictor.explain(texts[0])  # what is done once is not timed
    found = {method: explained(predictor, texts, method) for method in METHODS}
    lost: dict[str, list[list[float]]] = {name: [] for name in ORDERS}
    changed: dict[str, list[list[float]]] = {name: [] for name in ORDERS}
    agreements, rng = [], np.random.default_rng(0)
    for number, text in enumerate(texts):
        by_method = {method: found[method]["labels"][number] for method in METHODS}
        words = by_method["occlusion"].words
        output = predictor.names.index(by_method["occlusion"].label)
        orders = {name: [np.argsort([-w.value for w in label.words])] for name, label in by_method.items()}
        orders["random"] = [rng.permutation(len(words)) for _ in range(DRAWS)]
        variants = [
            without(text, [words[i] for i in order[:n]]) for one in orders.values() for order in one for n in TAKEN
        ]
        logits = predictor.logits([text, *variants])
        odds = log_odds(logits, predictor.task, predictor.bundle.info.temperature)[:, output]
        losses = (odds[0] - odds[1:]).reshape(-1, len(TAKEN))
        others = (logits[1:].argmax(axis=1) != logits[0].argmax()).reshape(-1, len(TAKEN))
        place = 0
        for name, one in orders.items():
            lost[name].append(losses[place : place + len(one)].mean(axis=0).tolist())
            changed[name].append(others[place : place + len(one)].mean(axis=0).tolist())
            place += len(one)
        agreements.append(agreement(*(label.words for label in by_method.values())))
    known = [one for one in agreements if one is not None]
    return {
        "accuracy": float(np.mean([labels[i] == one for i, one in zip(drawn, answers, strict=False)])),
        "texts": len(texts),
        "words": float(np.mean([len(label.words) for label in found["occlusion"]["labels"]])),
        "lost": {name: np.mean(rows, axis=0).tolist() for name, rows in lost.items()},
        "changed": {name: np.mean(rows, axis=0).tolist() for name, rows in changed.items()},
        "agreement": float(np.mean(known)),
        "methods": {method: found[method]["figures"] for method in METHODS},
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def explained(predictor: Any, texts: Sequence[str], method: str) -> Record:
    """The labels that explain each text, and what it took."""
    labels, passes, cpu, wall = [], [], [], []
    for text in texts:
        before = time.process_time(), time.perf_counter()
        explanation = predictor.explain(text, method=method)
        cpu.append(time.process_time() - before[0])
        wall.append(time.perf_counter() - before[1])
        labels.append(explanation.labels[0])
        passes.append(explanation.passes)
    errors = [label.error for label in labels if label.error is not None]
    figures = {
        "cpu_ms": 1000 * float(np.mean(cpu)),
        "wall_ms": 1000 * float(np.mean(wall)),
        "passes": float(np.mean(passes)),
        "passes_90": float(np.quantile(passes, 0.9)),
        "largest_error": max(errors) if errors else None,
    }
    return {"labels": labels, "figures": figures}


def agreement(one: Sequence[Any], other: Sequence[Any]) -> float | None:
    """Spearman's rank correlation of the same words."""
    from scipy.stats import spearmanr

    values = [[word.value for word in words] for words in (one, other)]
    return float(spearmanr(*values).statistic) if all(len(set(row)) > 1 for row in values) else None


def summarise(results: Results) -> tuple[list[list[str]], list[list[str]], dict[str, float]]:
    """The table of the deletion test, that of costs, and what limits are held against."""
    deletions, costs, measured = [], [], {}
    for name, run in results.runs.items():
        for order, title in ORDERS.items():
            cells = [f"{value:.2f}" for value in run["lost"][order]]
            cells += [f"{value:.0%}" for value in run["changed"][order]]
            deletions.append([name, title, *cells])
        for method, found in run["methods"].items():
            error = found["largest_error"]
            costs.append(
                [
                    *(name, ORDERS[method], f"{run['words']:.1f}"),
                    *(f"{found['cpu_ms']:.0f}", f"{found['wall_ms']:.0f}"),
                    *(f"{found['passes']:.0f}", f"{found['passes_90']:.0f}"),
                    *("" if error is None else f"{error:.2%}", f"{run['agreement']:.2f}"),
                ]
            )
            lost = run["lost"][method][-1]
            measured[f"{name} {method} over random"] = lost / run["lost"]["random"][-1]
            if error is not None:
                measured[f"{name} error"] = error
        measured[f"{name} agreement"] = run["agreement"]
    return deletions, costs, measured


def page(results: Results) -> str:
    """The tables of docs/explanations.md, and what they were measured on."""
    deletions, costs, _ = summarise(results)
    about = [
        f"- {name}: accuracy {run['accuracy']:.3f}, {run['texts']} texts, {run['threads']} thread, "
        f"{processor_of(run['machine'])}, load {run['machine']['load']}, {run['date']}"
        for name, run in results.runs.items()
    ]
    return "\n".join([table(HEADER, deletions), "", table(COSTS, costs), "", *about])


def main() -> None:
    """Run what is missing, print the tables, hold them against their limits."""
    parser = base_parser(__doc__ or "")
    default = Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="the real data sets")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(**json.loads(arguments.measure))))
        return
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is absent; --data names another place")
    results = Results(arguments.json)
    for data_set in SETS[:1] if arguments.quick else SETS:
        if data_set.name in results.runs:
            continue
        with tempfile.TemporaryDirectory() as work:
            count = QUICK_TEXTS if arguments.quick else TEXTS
            results.add(data_set.name, run(data_set, arguments.data, Path(work), count))
    print(f"\nmachine: {machine()}\n\n{page(results)}")
    if arguments.check:
        missed = check_floors("explanations", summarise(results)[2])
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
