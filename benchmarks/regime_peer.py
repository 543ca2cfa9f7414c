"""The table `peer`: snapshot ensembles by torchensemble and by snapfit's schedule and cycle functions, on a toy.

Run as a script with --worker it is one training, or for snapfit one of the snapshots and one of a single cycle, in this
process. torchensemble (`pip install torchensemble`) is no dependency of snapfit: without it the table is not measured.
"""

import copy
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import last_json, mean_and_spread
from regime_table import Place, Record, Run, alone, shared_by_seeds

PEER, OURS = "torchensemble", "snapfit"
SEEDS = tuple(range(1, 11))
CLASSES, FEATURES, WIDTH = 10, 20, 64
TRAIN_ROWS, TEST_ROWS, BATCH = 3_200, 5_000, 64
EPOCHS, QUICK_EPOCHS, CYCLES, LAST = 50, 10, 5, 3
OPTIMIZER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ALL, FEWER = f"mean of all {CYCLES}", f"mean of the last {LAST}"
NEWEST, SINGLE = "the last alone", "one cycle, no mean"
PARTS = ((PEER, ALL), (OURS, ALL), (OURS, FEWER), (OURS, NEWEST), (OURS, SINGLE))
ABOUT = f"""Snapshot ensembles as they were published (Huang et al. 2017): {CYCLES} equal cosine cycles of SGD with
momentum from rate {OPTIMIZER["lr"]}, a snapshot at the end of each, the mean of their scores. torchensemble's
`SnapshotEnsembleClassifier` beside a plain loop over `training/cycles.py`, `training/schedules.py` and
`core/combining.py`: the same perceptron (two hidden layers of {WIDTH}), the same first weights and order of rows,
{EPOCHS} epochs of {TRAIN_ROWS:,} rows of scikit-learn's `make_classification` ({CLASSES} classes, a tenth of the labels
drawn at random), {TEST_ROWS:,} test rows; data, weights and order anew with each seed; the two by turns. torchensemble
takes the mean of all snapshots; snapfit's run is also shown with fewer, and beside one cosine over all epochs.
Differences are of seeds in pairs, with their standard error."""


class PeerTable:
    """torchensemble beside snapfit: accuracy and nll on the toy."""

    name = "peer"
    title = "Snapshot ensembles beside torchensemble"
    about = ABOUT
    header = ["system", "answers", "accuracy", "nll", "accuracy less torchensemble's, points", "nll less its", "seeds"]

    def runs(self, *, quick: bool, seeds: Sequence[int] | None) -> list[Run]:
        """By turns, and each first as often as the other."""
        runs = []
        for seed in seeds or SEEDS[: 2 if quick else None]:
            for system in (PEER, OURS) if seed % 2 else (OURS, PEER):
                asked = {"system": system, "seed": seed, "epochs": QUICK_EPOCHS if quick else EPOCHS}
                runs.append(Run(f"{'quick ' if quick else ''}{system} {seed}", asked))
        return runs

    def absent(self, place: Place) -> str | None:
        """The packages beyond snapfit's."""
        for module, package in (("torchensemble", "torchensemble"), ("sklearn", "scikit-learn")):
            if importlib.util.find_spec(module) is None:
                return f"{package} is not installed; pip install {package} brings it"
        return None

    def prepare(self, runs: Sequence[Run], place: Place) -> list[str]:
        """Nothing: each process makes its data from the seed."""
        return [f"make_classification: {TRAIN_ROWS:,} rows to train on, {TEST_ROWS:,} test rows, by each run's seed"]

    def run(self, run: Run, place: Place) -> Record:
        """One process."""
        start = time.monotonic()
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(run.asked)]
        answer = last_json(command, place.work, **alone())
        return {**run.asked, "measured": answer, "seconds": round(time.monotonic() - start, 1)}

    def line(self, record: Record) -> str:
        """The mean of all snapshots."""
        found = record["measured"][ALL]
        return f"accuracy {found['accuracy']:.4f}, nll {found['nll']:.4f} in {record['seconds']:.0f} s"

    def rows(self, records: Sequence[Record]) -> list[list[str]]:
        """torchensemble first."""
        rows = []
        for system, part in PARTS:
            found = _of(records, system)
            if not found:
                continue
            accuracy, spread = mean_and_spread(100 * one["measured"][part]["accuracy"] for one in found.values())
            nll, nll_spread = mean_and_spread(one["measured"][part]["nll"] for one in found.values())
            row = [system, part, f"{accuracy:.2f} ± {spread:.2f}", f"{nll:.4f} ± {nll_spread:.4f}"]
            if system != PEER and (pairs := _pairs(records, part)):
                (points, error), (less, less_error) = _gap(pairs, "accuracy", 100), _gap(pairs, "nll", 1)
                row += [f"{points:+.2f} ± {error:.2f}", f"{less:+.4f} ± {less_error:.4f}"]
            else:
                row += ["", ""]
            rows.append([*row, str(len(found))])
        return rows

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """The same mean of both: accuracy and nll of snapfit's less torchensemble's."""
        pairs = _pairs(records, ALL)
        if not pairs:
            return {}
        gaps = {"accuracy less torchensemble": _gap(pairs, "accuracy", 100)[0], "nll less": _gap(pairs, "nll", 1)[0]}
        return {**gaps, "seeds": len(pairs)}

    def notes(self, records: Sequence[Record]) -> list[str]:
        """The peer's version."""
        return [f"torchensemble {version}" for version in dict.fromkeys(_versions(records))]


TABLE = PeerTable()


def _of(records: Sequence[Record], system: str) -> dict[int, Record]:
    return {one["seed"]: one for one in records if one["system"] == system}


def _pairs(records: Sequence[Record], part: str) -> list[tuple[Record, Record]]:
    """(snapfit's figures of a part, torchensemble's), seed by seed."""
    ours, theirs = _of(records, OURS), _of(records, PEER)
    seeds = shared_by_seeds([list(ours), list(theirs)])
    return [(ours[seed]["measured"][part], theirs[seed]["measured"][ALL]) for seed in seeds]


def _gap(pairs: Sequence[tuple[Record, Record]], figure: str, scale: float) -> tuple[float, float]:
    """Mean difference and its standard error."""
    mean, spread = mean_and_spread(scale * (this[figure] - other[figure]) for this, other in pairs)
    return mean, spread / len(pairs) ** 0.5


def _versions(records: Sequence[Record]) -> list[str]:
    return [one["measured"]["version"] for one in records if "version" in one["measured"]]


def toy(seed: int) -> tuple[Any, Any, Any, Any]:
    """Training rows and labels, test rows and labels, as tensors: float32 [n, FEATURES] and int64 [n]."""
    import torch
    from sklearn.datasets import make_classification

    rows, labels = make_classification(
        TRAIN_ROWS + TEST_ROWS,
        FEATURES,
        n_informative=12,
        n_redundant=4,
        n_classes=CLASSES,
        n_clusters_per_class=2,
        class_sep=1.5,
        flip_y=0.1,
        random_state=seed,
    )
    mean, deviation = rows[:TRAIN_ROWS].mean(axis=0), rows[:TRAIN_ROWS].std(axis=0)
    inputs = torch.from_numpy((rows - mean) / deviation).float()
    targets = torch.from_numpy(labels).long()
    return inputs[:TRAIN_ROWS], targets[:TRAIN_ROWS], inputs[TRAIN_ROWS:], targets[TRAIN_ROWS:]


def worker(asked: Record) -> None:
    """Train one of the two, print accuracy and nll of its answers."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from snapfit.core.combining import measure

    inputs, targets, test_inputs, test_targets = toy(asked["seed"])
    torch.manual_seed(asked["seed"])
    hidden = [nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))
    rows = TensorDataset(inputs, targets)
    rows.classes = range(CLASSES)  # torchensemble would else go through the rows once, and the order would be another

    def loader() -> DataLoader[Any]:
        order = torch.Generator().manual_seed(asked["seed"])
        return DataLoader(rows, batch_size=BATCH, shuffle=True, generator=order)

    answers = theirs if asked["system"] == PEER else ours
    found: Record = {}
    for name, scores in answers(model, loader, asked["epochs"], test_inputs).items():
        quality = measure(scores, test_targets.numpy(), "single", "accuracy")
        found[name] = {"accuracy": quality.metric, "nll": quality.error}
    if asked["system"] == PEER:
        from importlib.metadata import version

        found["version"] = version("torchensemble")
    print(json.dumps(found))


def theirs(model: Any, loader: Any, epochs: int, test_inputs: Any) -> dict[str, Any]:
    """Scores of torchensemble's ensemble, float64 [n, CLASSES]."""
    import torch
    from torchensemble import SnapshotEnsembleClassifier

    ensemble = SnapshotEnsembleClassifier(estimator=model, n_estimators=CYCLES, cuda=False)
    ensemble.set_optimizer("SGD", **OPTIMIZER)
    ensemble.fit(loader(), epochs=epochs, log_interval=sys.maxsize, save_model=False)
    ensemble.eval()
    with torch.no_grad():
        return {ALL: ensemble(test_inputs).double().numpy()}


def ours(model: Any, loader: Any, epochs: int, test_inputs: Any) -> dict[str, Any]:
    """Scores by snapfit's cycles and its mean, float64 [n, CLASSES]: of all snapshots, the last ones, one cycle."""
    from snapfit.core.combining import combine

    logits = snapshots(copy.deepcopy(model), loader(), epochs, CYCLES, test_inputs)
    single = snapshots(copy.deepcopy(model), loader(), epochs, 1, test_inputs)
    parts = {ALL: logits, FEWER: logits[-LAST:], NEWEST: logits[-1:], SINGLE: single}
    return {name: combine(members, [1.0] * len(members), "single", 1.0) for name, members in parts.items()}


def snapshots(model: Any, loader: Any, epochs: int, cycles: int, test_inputs: Any) -> list[Any]:
    """Test logits float [n, CLASSES] at each cycle's end of a plain loop whose rates snapfit's cycles give."""
    import torch
    from torch.nn.functional import cross_entropy

    from snapfit.core.recipe import Recipe
    from snapfit.training.cycles import plan_cycles

    settings = {"schedule.shape": "cosine_restarts", "schedule.cycles": cycles, "schedule.warmup_fraction": 0.0}
    plan = plan_cycles(Recipe().with_values(settings), epochs * len(loader))
    optimizer = torch.optim.SGD(model.parameters(), **OPTIMIZER)
    found, step = [], 0
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.param_groups[0]["lr"] = OPTIMIZER["lr"] * plan.encoder(step)
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if step in plan.ends:
                with torch.no_grad():
                    found.append(model(test_inputs).double().numpy())
    return found


if __name__ == "__main__":
    worker(json.loads(sys.argv[2]))
