"""How many of the wrong labels that were put into a table a cross-validation finds, and how many of its suspects are.

    python benchmarks/label_errors.py --json benchmarks/results/label_errors.json --check     everything, resumable
    python benchmarks/label_errors.py --quick                             a tenth of CLINC150's labels, one epoch

A share of the labels is flipped, by a seed: evenly to any other label, or to one of the three nearest, as people err.
Then `snapfit train --folds 5 --fold-bundle none` ranks the labels that look wrong. Precision at k counts the flipped
ones among the first k, k being how many were flipped, so that it is the recall at k too. A set's own mistakes count as
wrongly suspected: where there are many, the figure is too low. Runs are kept in --work, and gone on with.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cleanlab.rank import get_label_quality_scores

from accuracy import ALONE
from harness import ROOT, Results, base_parser, check_floors, last_json, machine, table
from snapfit.core.labels import LabelSet
from snapfit.data.records import read_records
from snapfit.ship.label_errors import find_label_errors

BENCHMARK = "label_errors"
FOLDS, SHARE, NEAREST = 5, 0.05, 3
OTHER_RANKINGS = {"normalized_margin": "by margin", "confidence_weighted_entropy": "by weighted entropy"}
"""cleanlab's, beside the one that snapfit takes."""
HEADER = ["case", "rows", "flipped", "precision at k", "at k / 2", *OTHER_RANKINGS.values()]
HEADER += ["suspected", "of these flipped", "found", "put right"]


@dataclass(frozen=True)
class Case:
    """folder: of the data set, train: its file. near: flips go to near labels. labels: only so many of them."""

    folder: str
    train: str
    near: bool = False
    labels: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "clinc150 any label": Case("clinc150_full", "train.tsv"),
    "clinc150 near label": Case("clinc150_full", "train.tsv", near=True),
    "banking77 any label": Case("banking77", "train.csv"),
    "banking77 near label": Case("banking77", "train.csv", near=True),
}
QUICK = {"quick": Case("clinc150_full", "train.tsv", labels=15, settings={"train.epochs": 3})}


def flipped_labels(texts: list[str], labels: list[str], *, near: bool, seed: int) -> tuple[list[str], np.ndarray]:
    """The labels, a share of them flipped; and which rows these are, int64, ascending."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    rows = np.sort(rng.choice(len(labels), round(SHARE * len(labels)), replace=False))
    others = _nearest(texts, labels, names) if near else {name: [o for o in names if o != name] for name in names}
    changed = list(labels)
    for row in rows.tolist():
        changed[row] = str(rng.choice(others[labels[row]]))
    return changed, rows


def _nearest(texts: list[str], labels: list[str], names: list[str]) -> dict[str, list[str]]:
    """The labels whose texts are most alike: by the cosine of their mean TF-IDF vectors, which know no encoder."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    codes = np.array([names.index(label) for label in labels])
    means = normalize(np.stack([np.asarray(vectors[codes == i].mean(axis=0))[0] for i in range(len(names))]))
    alike = means @ means.T
    np.fill_diagonal(alike, -1.0)
    return {name: [names[j] for j in np.argsort(-alike[i], kind="stable")[:NEAREST]] for i, name in enumerate(names)}


def run_case(name: str, case: Case, *, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """Flip labels, cross-validate by the command line, as a user would, and measure the ranking."""
    records = read_records(data / case.folder / case.train)
    texts, labels = records.texts.to_pylist(), list(records.labels)  # type: ignore[arg-type]
    if case.labels is not None:
        kept = [i for i, label in enumerate(labels) if label in sorted(set(labels))[: case.labels]]
        texts, labels = [texts[i] for i in kept], [labels[i] for i in kept]
    given, rows = flipped_labels(texts, labels, near=case.near, seed=seed)
    place = work / f"{name.replace(' ', '-')}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    noisy = place / "train.jsonl"
    lines = (json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(texts, given, strict=True))
    noisy.write_text("".join(lines), "utf-8")
    command = [sys.executable, "-m", "snapfit", "train", str(noisy), "--resume", str(place / "run"), "--json"]
    command += ["--folds", str(FOLDS), "--fold-bundle", "none", "--seed", str(seed), "--set", "train.threads=1"]
    for key, value in case.settings.items():
        command += ["--set", f"{key}={value}"]
    result = last_json(command, work, **ALONE)
    return {
        "case": name,
        "seed": seed,
        "rows": len(labels),
        "flipped": len(rows),
        **measured(place / "run", labels, given, rows),
        "out_of_fold": result["metrics"]["out_of_fold"],
    }


def measured(run: Path, labels: list[str], given: list[str], rows: np.ndarray) -> dict[str, Any]:
    """How good a run's ranking is. labels: before labels were flipped. rows: that were."""
    scored = pq.read_table(run / "out_of_fold.parquet")
    label_set = LabelSet.fit("single", given)
    scores = np.stack([scored.column(f"score_{label}").to_numpy() for label in label_set.names], axis=1)
    places = scored.column("row").to_numpy() - 1
    targets = label_set.encode([given[row] for row in places.tolist()])
    found = find_label_errors(lambda: [(places, scores, targets)], label_set)
    is_flipped = np.zeros(len(labels), dtype=bool)
    is_flipped[rows] = True
    hits, suspected = is_flipped[found.rows], slice(found.n_suspected)
    right = found.suggested == label_set.encode([labels[row] for row in found.rows.tolist()])
    n_found = int(hits[suspected].sum())
    others = {}
    for name in OTHER_RANKINGS:
        belief = get_label_quality_scores(targets, scores, method=name)
        others[name] = float(is_flipped[places[np.argsort(belief, kind="stable")[: len(rows)]]].mean())
    return {
        "precision_at_k": float(hits[: len(rows)].sum() / len(rows)),
        "precision_at_half_k": float(hits[: len(rows) // 2].sum() / (len(rows) // 2)),
        "suspected": found.n_suspected,
        "suspected_flipped": n_found / max(found.n_suspected, 1),
        "found": n_found / len(rows),
        "put_right": float((hits & right)[suspected].sum() / max(n_found, 1)),
        "precision_at_k_otherwise": others,
    }


def rows_of(results: Results) -> list[list[str]]:
    """Lines of the table."""
    return [
        [
            f"{run['case']}, seed {run['seed']}",
            f"{run['rows']:,}",
            f"{run['flipped']:,}",
            f"{run['precision_at_k']:.1%}",
            f"{run['precision_at_half_k']:.1%}",
            *(f"{run['precision_at_k_otherwise'][name]:.1%}" for name in OTHER_RANKINGS),
            f"{run['suspected']:,}",
            f"{run['suspected_flipped']:.1%}",
            f"{run['found']:.1%}",
            f"{run['put_right']:.1%}",
        ]
        for run in results.runs.values()
    ]


def main() -> None:
    """Run what is missing, print the table, hold it against the floors."""
    parser = base_parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--work", type=Path, help="where runs are kept; default: a temporary folder")
    parser.add_argument("--only", nargs="*", metavar="CASE", help="cases whose name begins so")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    arguments = parser.parse_args()
    results = Results(arguments.json)
    work = (arguments.work or Path(tempfile.mkdtemp(prefix="snapfit-label-errors-"))).absolute()
    for name, case in (QUICK if arguments.quick else CASES).items():
        for seed in arguments.seeds:
            key = f"{name} {seed}"
            chosen = not arguments.only or any(name.startswith(one) for one in arguments.only)
            if not chosen or key in results.runs or not (arguments.data / case.folder).exists():
                continue
            results.add(key, run_case(name, case, seed=seed, data=arguments.data, work=work))
            print(f"{time.strftime('%H:%M:%S')} {key}: {results.runs[key]['precision_at_k']:.4f}", flush=True)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows_of(results)))
    if arguments.check:
        found = {f"{run['case']} precision_at_k": run["precision_at_k"] for run in results.runs.values()}
        missed = check_floors(BENCHMARK, found)
        print("\n".join(missed) or "every floor holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
