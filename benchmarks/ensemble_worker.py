"""One training of the ensemble table, in a process of its own, and everything that can be made of what it leaves.

Run as a script it takes what it is asked for as JSON and prints what came of it. The logits of all that a training left
are kept in the cache folder: what is made of them can be measured again, and a vote of several runs needs no training
of its own.
"""

import hashlib
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
SPLITS = ("valid", "test")
Record = dict[str, Any]


def logits_file(name: str, rows: str, settings: Mapping[str, Any]) -> Path:
    """Where the logits of what a training left are kept. rows: the fingerprint of its tables. settings: its own."""
    from snapfit.core.recipe import Recipe
    from snapfit.data.token_cache import default_cache_dir

    recipe = json.dumps(Recipe().with_values(settings).to_dict(), sort_keys=True)
    folder = default_cache_dir() or Path(tempfile.gettempdir())
    return folder / "benchmarks" / f"{name}-{rows}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"


def in_a_process(asked: Mapping[str, Any], work: Path) -> Record:
    """What a worker answers, with the seconds that it took."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        start = time.monotonic()
        answer = last_json([sys.executable, str(Path(__file__).resolve()), json.dumps(asked)], Path(scratch), **alone())
        return {**answer, "seconds": round(time.monotonic() - start, 1)}


def train(asked: Mapping[str, Any]) -> Record:
    """Train as asked, unless the logits of that are kept, and measure every candidate on both splits."""
    from snapfit.core.combining import choose, make_candidates

    kept = Path(asked["keep"])
    if not kept.exists():
        _train(asked, kept)
    models, targets, about = _read(kept)
    task, metric = about["task"], about["metric"]
    candidates = make_candidates(models["valid"], targets["valid"], task, metric)
    choice = choose(candidates, models["valid"], targets["valid"], task, metric)
    rows = _rows(candidates, choice.chosen, models, targets, task, metric)
    said = {key: about[key] for key in ("steps", "recipe")}
    return {"metric": metric, "rows": rows, "rule": choice.rule, "n_test": len(targets["test"]), **said}


def _train(asked: Mapping[str, Any], kept: Path) -> None:
    """Train as asked, and keep the logits of everything that was left, on both splits."""
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
    members, stop = Members(plan.recipe.ensemble.members), Stop()
    with torch_as_wanted(plan.recipe):
        training = Training(plan, notify=silent, stop=stop, members=members)
        training.run()
        training.assembly.finish()
        weighing = Weighing(plan, training, members, notify=silent, stop=stop)
        scored = weighing.scored(Beyond())
        on_test = [weighing.logits(plan.examples["test"], source.weights) for source in scored.sources]
    about = {
        "task": plan.label_set.task,
        "metric": str(plan.recipe.train.metric),
        "steps": training.progress.step + _student_steps(plan),
        "recipe": {
            "pooling": plan.recipe.model.pooling,
            "precision": plan.recipe.train.precision,
            "lr": plan.recipe.optim.lr,
        },
        "models": [
            {"name": one.name, "bytes": one.bytes, "single": one.single, "snapshot": one.snapshot}
            for one in scored.models
        ],
    }
    arrays = {
        "valid": np.stack([one.logits for one in scored.models]),
        "test": np.stack(on_test),
        "valid_targets": weighing.targets,
        "test_targets": targets_in_units(plan.examples["test"], plan.label_set),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    staged = kept.with_suffix(".tmp.npz")
    np.savez(staged, about=np.array(json.dumps(about)), **arrays)
    staged.replace(kept)


def _read(path: Path) -> tuple[dict[str, list[Any]], dict[str, np.ndarray], Record]:
    """(models by split, targets by split, what is said about the training) of logits that were kept."""
    from snapfit.core.combining import Model

    kept = np.load(path, allow_pickle=False)
    about = json.loads(str(kept["about"]))
    models = {
        split: [Model(logits=logits, **one) for one, logits in zip(about["models"], kept[split], strict=True)]
        for split in SPLITS
    }
    return models, {split: kept[f"{split}_targets"] for split in SPLITS}, about


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
    for split in SPLITS:
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


def vote(paths: Sequence[str]) -> Record:
    """The mean of several runs' scores, each of its best weights at their temperature."""
    from snapfit.core.combining import make_candidates

    parts = [_read(Path(path)) for path in paths]
    _, targets, about = parts[0]
    task, metric = about["task"], about["metric"]
    models = {split: [replace(part[0][split][0], name=f"run {i}") for i, part in enumerate(parts)] for split in SPLITS}
    mean = next(one for one in make_candidates(models["valid"], targets["valid"], task, metric) if one.is_mean)
    rows = [_measured(VOTE, mean, models, targets, task, metric)]
    rows.append({**_measured(CHOSEN, mean, models, targets, task, metric), "is": ""})
    return {"metric": metric, "rows": rows, "n_test": len(targets["test"])}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    from snapfit.core.process import settle_process

    settle_process()
    print(json.dumps(vote(given["vote"]) if "vote" in given else train(given)))
