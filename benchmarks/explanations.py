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
    replace(BANKING, name="banking77-20-shot", a_class=20, dev_a_class=5, epochs=2),
)
PARTS, TEXTS, SCORED = 3, 20, 100
"""So many processes, one after another, each of which explains so many texts, and answers so many for the accuracy."""
LEAST_WORDS = 6
TAKEN = (1, 2, 3)
DRAWS = 5
METHODS = ("integrated_gradients", "occlusion")
ORDERS = {"integrated_gradients": "integrated gradients", "occlusion": "occlusion", "random": "random words"}
HEADER = ["set", "words taken", "log-odds lost: 1", "2", "3 words", "other answers: 1", "2", "3 words"]
COSTS = [
    *("set", "method", "words a text", "ms a text", "passes a text", "passes, 90 % below"),
    *("largest error of the sum", "agreement"),
]
Record = dict[str, Any]


def train(data_set: DataSet, data: Path, work: Path) -> dict[str, str]:
    """Train in a process of its own: where the bundle and the test table are."""
    files = write(data_set, data, work)
    command = [sys.executable, "-m", "snapfit", "train", str(files.train), "--valid", str(files.valid)]
    command += ["--out", str(work / "run"), "--seed", "1", "--epochs", str(data_set.epochs), "--json"]
    return {"bundle": str(work / last_json(command, work)["bundle"]), "test": str(files.test)}


def measure(bundle: str, test: str, part: int) -> Record:
    """What comes of a part's texts, which have some words and are drawn by a seed: lists of one entry a text."""
    import snapfit
    from snapfit.data.records import read_records

    predictor, records = snapfit.load(bundle), read_records(test)
    drawn = np.random.default_rng(0).permutation(len(records))
    every, labels = records.texts.to_pylist(), list(records.labels)
    scored = drawn[part * SCORED : (part + 1) * SCORED]
    right = [labels[i] == one for i, one in zip(scored, predictor.predict([every[i] for i in scored]), strict=True)]
    texts = [every[i] for i in drawn if len(every[i].split()) >= LEAST_WORDS][part * TEXTS : (part + 1) * TEXTS]
    predictor.explain(texts[0])  # what is done once is not timed
    rng = np.random.default_rng(part)
    rows = [of_text(predictor, text, rng) for text in texts]
    found: Record = {name: [row[name] for row in rows] for name in ("words", "agreement")}
    for name in ("lost", "changed"):
        found[name] = {order: [row[name][order] for row in rows] for order in ORDERS}
    for name in ("cpu", "passes", "error"):
        found[name] = {method: [row[name][method] for row in rows] for method in METHODS}
    return {"right": right, **found, "threads": os.environ.get("OMP_NUM_THREADS", "not set")}


def of_text(predictor: Any, text: str, rng: np.random.Generator) -> Record:
    """All that is measured of a text."""
    from snapfit.core.log_odds import log_odds

    found: Record = {"cpu": {}, "passes": {}, "error": {}, "lost": {}, "changed": {}}
    by_method = {}
    for method in METHODS:
        before = time.process_time()
        explanation = predictor.explain(text, method=method)
        found["cpu"][method] = time.process_time() - before
        found["passes"][method] = explanation.passes
        (by_method[method],) = explanation.labels
        found["error"][method] = by_method[method].error
    words = by_method["occlusion"].words
    orders = {name: [np.argsort([-word.value for word in label.words])] for name, label in by_method.items()}
    orders["random"] = [rng.permutation(len(words)) for _ in range(DRAWS)]
    variants = [without(text, [words[i] for i in order[:n]]) for one in orders.values() for order in one for n in TAKEN]
    logits = predictor.logits([text, *variants])
    output = predictor.names.index(by_method["occlusion"].label)
    odds = log_odds(logits, predictor.task, predictor.bundle.info.temperature)[:, output]
    losses = (odds[0] - odds[1:]).reshape(-1, len(TAKEN))
    others = (logits[1:].argmax(axis=1) != logits[0].argmax()).reshape(-1, len(TAKEN))
    place = 0
    for name, one in orders.items():
        found["lost"][name] = losses[place : place + len(one)].mean(axis=0).tolist()
        found["changed"][name] = others[place : place + len(one)].mean(axis=0).tolist()
        place += len(one)
    found["words"] = len(words)
    found["agreement"] = agreement(*(label.words for label in by_method.values()))
    return found


def without(text: str, words: Sequence[Any]) -> str:
    """The text with these words taken out."""
    for word in sorted(words, key=lambda word: -word.start):
        text = text[: word.start] + text[word.end :]
    return " ".join(text.split())


def agreement(one: Sequence[Any], other: Sequence[Any]) -> float | None:
    """Spearman's rank correlation of the same words."""
    from scipy.stats import spearmanr

    values = [[word.value for word in words] for words in (one, other)]
    return float(spearmanr(*values).statistic) if all(len(set(row)) > 1 for row in values) else None


def joined(results: Results) -> dict[str, Record]:
    """By the set's name, the parts' lists one after another; `runs` are the parts themselves."""

    def chain(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: chain([value[key] for value in values]) for key in values[0]}
        return [one for value in values for one in value]

    sets: dict[str, list[Record]] = {}
    for key, run in results.runs.items():
        sets.setdefault(key.split(" ")[0], []).append(run)
    names = ("right", "words", "agreement", "lost", "changed", "cpu", "passes", "error")
    return {
        name: {one: chain([run[one] for run in runs]) for one in names} | {"runs": runs} for name, runs in sets.items()
    }


def summarise(results: Results) -> tuple[list[list[str]], list[list[str]], dict[str, float]]:
    """The table of the deletion test, that of costs, and what limits are held against."""
    deletions, costs, measured = [], [], {}
    for name, found in joined(results).items():
        lost = {order: np.array(rows) for order, rows in found["lost"].items()}
        for order, title in ORDERS.items():
            error = lost[order].std(axis=0, ddof=1) / len(lost[order]) ** 0.5
            cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(lost[order].mean(axis=0), error, strict=True)]
            cells += [f"{share:.0%}" for share in np.mean(found["changed"][order], axis=0)]
            deletions.append([name, title, *cells])
        agreed = float(np.mean([one for one in found["agreement"] if one is not None]))
        for method in METHODS:
            errors = [one for one in found["error"][method] if one is not None]
            cells = [f"{1000 * np.mean(found['cpu'][method]):.0f}"]
            cells += [f"{np.mean(found['passes'][method]):.0f}", f"{np.quantile(found['passes'][method], 0.9):.0f}"]
            cells += [f"{max(errors):.2%}" if errors else "", f"{agreed:.2f}"]
            costs.append([name, ORDERS[method], f"{np.mean(found['words']):.1f}", *cells])
            measured[f"{name} {method} beyond random"] = (lost[method] - lost["random"])[:, -1].mean()
            if errors:
                measured[f"{name} error"] = max(errors)
        measured[f"{name} agreement"] = agreed
    return deletions, costs, measured


def page(results: Results) -> str:
    """The tables of docs/explanations.md, and what they were measured on."""
    deletions, costs, _ = summarise(results)
    about = []
    for name, found in joined(results).items():
        machines = [run["machine"] for run in found["runs"]]
        loads = [machine["load"] for machine in machines]
        about.append(
            f"- {name}: {np.mean(found['right']):.0%} of {len(found['right'])} test rows right; "
            f"{len(found['words'])} texts explained; threads: {found['runs'][0]['threads']}; "
            f"{processor_of(machines[0])}, load {min(loads):.1f} to {max(loads):.1f}; {found['runs'][0]['date']}"
        )
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
        missing = [i for i in range(1 if arguments.quick else PARTS) if f"{data_set.name} {i}" not in results.runs]
        with tempfile.TemporaryDirectory() as work:
            places = train(data_set, arguments.data, Path(work)) if missing else {}
            for part in missing:
                asked = json.dumps({**places, "part": part})
                command = [sys.executable, str(Path(__file__).resolve()), "--measure", asked]
                results.add(f"{data_set.name} {part}", last_json(command, Path(work)))
                print(f"{data_set.name}: part {part + 1} of {PARTS}", flush=True)
    print(f"\nmachine: {machine()}\n\n{page(results)}")
    if arguments.check:
        missed = check_floors("explanations", summarise(results)[2])
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
