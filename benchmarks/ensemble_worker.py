"""One training of the ensemble table, in a process of its own, and everything that can be made of what it leaves.

Run as a script it takes what it is asked for as JSON and prints what came of it. Logits of the run's best weights may
be kept in the cache folder, so that a vote of several runs needs no training of its own.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import last_json
from paired import rows_as_text
from regime_table import alone

SINGLE, AS_IT_COMES, CHOSEN, VOTE = "single", "as it comes", "chosen", "vote"
Record = dict[str, Any]


def logits_file(name: str, rows: str, seed: int) -> Path:
    """Where the logits of a plain run are kept. rows: the fingerprint of its tables."""
    from snapfit.data.token_cache import default_cache_dir

    folder = default_cache_dir() or Path(tempfile.gettempdir())
    return folder / "benchmarks" / f"{name}-{rows}-{seed}.npz"


def in_a_process(asked: Mapping[str, Any], work: Path) -> Record:
    """What a worker answers, with the seconds that it took."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        start = time.monotonic()
        answer = last_json([sys.executable, str(Path(__file__).resolve()), json.dumps(asked)], Path(scratch), **alone())
        return {**answer, "seconds": round(time.monotonic() - start, 1)}


def train(asked: Mapping[str, Any]) -> Record:
    """Train as asked and measure every candidate on both splits."""
    from snapfit.core.combining import choose, make_candidates
    from snapfit.core.interrupts import Stop
    from snapfit.core.recipe import Recipe
    from snapfit.training.assemble import torch_as_wanted
    from snapfit.training.driver import Training
    from snapfit.training.evaluation import targets_in_units
    from snapfit.training.members import Members
    from snapfit.training.plan import make_plan
    from snapfit.training.prepare import read_tables
    from snapfit.training.weighing import Beyond, Weighing

    def silent(kind: str, **fields: Any) -> None:
        """Nobody listens."""

    recipe = Recipe().with_values(asked["settings"])
    tables = read_tables(asked["train"], asked["valid"], asked["test"], recipe.data)
    plan = make_plan(tables, recipe, notify=silent)
    members, stop, metric = Members(plan.recipe.ensemble.members), Stop(), str(plan.recipe.train.metric)
    with torch_as_wanted(plan.recipe):
        training = Training(plan, notify=silent, stop=stop, members=members)
        training.run()
        training.assembly.finish()
        weighing = Weighing(plan, training, members, notify=silent, stop=stop)
        scored = weighing.scored(Beyond())
        on_test = [weighing.logits(plan.examples["test"], source.weights) for source in scored.sources]
    task = plan.label_set.task
    candidates = make_candidates(scored.models, weighing.targets, task, metric)
    choice = choose(candidates, scored.models, weighing.targets, task, metric)
    tests = [replace(one, logits=logits) for one, logits in zip(scored.models, on_test, strict=True)]
    targets = {"valid": weighing.targets, "test": targets_in_units(plan.examples["test"], plan.label_set)}
    models = {"valid": scored.models, "test": tests}
    if asked.get("keep"):
        _keep(Path(asked["keep"]), models, targets, task, metric)
    rows = _rows(candidates, choice.chosen, models, targets, task, metric)
    pooling, precision = plan.recipe.model.pooling, plan.recipe.train.precision
    return {
        "metric": metric,
        "rows": rows,
        "rule": choice.rule,
        "steps": training.progress.step + _student_steps(plan),
        "n_test": len(targets["test"]),
        "recipe": {"pooling": pooling, "precision": precision, "lr": plan.recipe.optim.lr},
    }


def _student_steps(plan: Any) -> int:
    epochs = plan.recipe.ensemble.student_epochs
    return plan.order.total_steps(epochs) if epochs else 0


def _rows(candidates: Any, chosen: int, models: Any, targets: Any, task: Any, metric: str) -> list[Record]:
    """What is shown: the best weights with and without a temperature, everything made of several, the choice."""
    best = next(i for i, one in enumerate(candidates) if one.name.startswith("best evaluation"))
    shown = [(SINGLE, candidates[best])]
    shown += [(one.name, one) for one in candidates if one.is_mean or not models["valid"][one.picks[0]].single]
    rows = [_measured(AS_IT_COMES, candidates[best], models, targets, task, metric, untempered=True)]
    rows += [_measured(name, one, models, targets, task, metric) for name, one in shown]
    row = _measured(CHOSEN, candidates[chosen], models, targets, task, metric)
    is_single = not candidates[chosen].is_mean and models["valid"][candidates[chosen].picks[0]].single
    return [*rows, {**row, "is": "single weights" if is_single else candidates[chosen].name}]


def _measured(
    name: str, candidate: Any, models: Any, targets: Any, task: Any, metric: str, *, untempered: bool = False
) -> Record:
    from snapfit.core.combining import measure, scores_of
    from snapfit.core.scores import logits_to_scores

    row: Record = {"name": name, "cost": candidate.cost}
    for split in ("valid", "test"):
        if untempered:
            scores = logits_to_scores(models[split][candidate.picks[0]].logits, task)
        else:
            scores = scores_of(candidate, models[split], task)
        found = measure(scores, targets[split], task, metric)
        row[split] = {"metric": found.metric, "error": found.error, "calibration": found.calibration}
        if split == "test" and task != "regression":
            answers = scores.argmax(axis=1) if task == "single" else scores >= 0.5
            wrong = answers != targets[split] if task == "single" else (answers != (targets[split] > 0)).any(axis=1)
            row["wrong"] = rows_as_text(wrong)
    return row


def _keep(path: Path, models: Any, targets: Any, task: str, metric: str) -> None:
    """Logits of the best weights, and what they are held against."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{split}_logits": models[split][0].logits for split in models}
    arrays |= {f"{split}_targets": targets[split] for split in targets}
    staged = path.with_suffix(".tmp.npz")
    np.savez(staged, about=np.array([task, metric]), **arrays)
    staged.replace(path)


def vote(paths: Sequence[str]) -> Record:
    """The mean of several runs' scores, each at its temperature."""
    from snapfit.core.combining import Model, make_candidates

    parts = [np.load(path, allow_pickle=False) for path in paths]
    task, metric = parts[0]["about"].tolist()
    targets = {split: parts[0][f"{split}_targets"] for split in ("valid", "test")}
    models = {
        split: [Model(f"run {i}", part[f"{split}_logits"], 1) for i, part in enumerate(parts)] for split in targets
    }
    mean = next(one for one in make_candidates(models["valid"], targets["valid"], task, metric) if one.is_mean)
    rows = [_measured(VOTE, mean, models, targets, task, metric)]
    rows.append({**_measured(CHOSEN, mean, models, targets, task, metric), "is": ""})
    return {"metric": metric, "rows": rows, "n_test": len(targets["test"])}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    from snapfit.core.process import settle_process

    settle_process()
    print(json.dumps(vote(given["vote"]) if "vote" in given else train(given)))
