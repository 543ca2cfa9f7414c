"""What a training on a checked table will take: steps, minutes, memory and disk, measured on a few of its own steps.

The steps are those that a training begins with: the same plan, model, optimizer, loss and rows. The model is thrown
away, and nothing is written but what every training keeps in the cache.
"""

import itertools
import mmap
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from snapfit.core.interrupts import Stop
from snapfit.core.recipe import Recipe, settled
from snapfit.data.columns import Columns
from snapfit.data.tokenizer import TokenIds
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.driver import Training, evaluation_steps
from snapfit.training.evaluation import evaluate
from snapfit.training.loop import Examples, Step, optimizer_steps
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import Notify, read_tables
from snapfit.training.regularise import step_loss, step_settings
from snapfit.training.room import room_needed

WARM_STEPS, STEPS, SECONDS = 2, 30, 8.0
"""Steps that are not timed, then at most so many, for at most so long."""
EVALUATED_ROWS = 256
_EVALUATED_SECONDS = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will take.

    rows: of each split. steps: of the optimizer. max_tokens: of a row. seconds: of the whole training at most, since it
    may stop early: train_seconds of steps, evaluation_seconds of evaluations.
    tokens_per_second: of steps, measured on measured_steps of them. memory_bytes: of the process, about; 0 where the
    system does not tell. disk_bytes: of the run folder at the most. bundle_bytes: of what ships. free_bytes: on the
    disk of the working folder. recipe: resolved. reasons: why each `auto` is what it is. device: torch's name.
    """

    rows: dict[str, int]
    steps: int
    epochs: float
    max_tokens: int
    seconds: float
    train_seconds: float
    evaluation_seconds: float
    evaluations: int
    tokens_per_second: float
    measured_steps: int
    memory_bytes: int
    disk_bytes: int
    bundle_bytes: int
    free_bytes: int
    device: str
    recipe: dict[str, Any]
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def measure_plan(tables: Mapping[str, pa.Table], columns: Columns, recipe: Recipe, *, notify: Notify) -> TrainingPlan:
    """Plan the training of these tables and run its first steps.

    tables: the rows that can be used, by split; train, and valid and test where there are such. columns: theirs.
    notify: hears of notices. Raises BadInput for what a training would refuse.
    """
    settings = recipe.with_values(
        {
            "data.text": columns.text,
            "data.pair": columns.pair,
            "data.label": columns.label or "auto",
            "data.task": columns.task,
        }
    )
    read = read_tables(tables["train"], tables.get("valid"), tables.get("test"), settings.data)
    plan = make_plan(read, settings, notify=notify)
    with closing(plan), torch_as_wanted(plan.recipe):
        training = Training(plan, notify=lambda kind, **fields: None, stop=Stop())
        steps, seconds = _timed_steps(plan, training)
        room = room_needed(plan, training.assembly)
        rate = _evaluation_rate(plan, training)
        used = _memory_in_use(plan.device)
    per_second = sum(step.tokens for step in steps) / seconds
    train_seconds = _tokens_to_train(plan) / per_second
    evaluations = len(_evaluations(plan)) if "valid" in plan.examples else 0
    rows = {name: len(part) for name, part in read.splits.items()}
    evaluated = evaluations * rows.get("valid", 0) + rows.get("test", 0)
    return TrainingPlan(
        rows=rows,
        steps=plan.total_steps,
        epochs=settled(plan.recipe.train.epochs),
        max_tokens=settled(plan.recipe.length.max_tokens),
        seconds=round(train_seconds + evaluated / rate, 1),
        train_seconds=round(train_seconds, 1),
        evaluation_seconds=round(evaluated / rate, 1),
        evaluations=evaluations,
        tokens_per_second=round(per_second, 1),
        measured_steps=len(steps),
        memory_bytes=used and used + room.held,
        disk_bytes=room.needed,
        bundle_bytes=room.model,
        free_bytes=shutil.disk_usage(Path.cwd()).free,
        device=plan.device,
        recipe=plan.recipe.to_dict(),
        reasons=plan.reasons,
    )


def _timed_steps(plan: Plan, training: Training) -> tuple[list[Step], float]:
    """(the steps that were timed, seconds of them together)."""
    assembly, recipe = training.assembly, plan.recipe
    walk = optimizer_steps(
        assembly.model,
        plan.examples["train"],
        assembly.optimizer,
        assembly.cycles.encoder,
        head_schedule=assembly.cycles.head,
        order=plan.order,
        loss_sum=step_loss(plan, assembly.model.device),
        settings=step_settings(recipe, assembly, micro_batches=recipe.train.accumulate, begin=assembly.begin),
        last_step=plan.total_steps,
    )
    for _ in itertools.islice(walk, min(WARM_STEPS, plan.total_steps - 1)):
        """Allocators and compiled kernels warm up."""
    steps: list[Step] = []
    began = time.perf_counter()
    for step in walk:
        steps.append(step)
        if len(steps) >= STEPS or time.perf_counter() - began > SECONDS:
            break
    return steps, max(time.perf_counter() - began, 1e-6)


def _evaluation_rate(plan: Plan, training: Training) -> float:
    """Rows a second when a split is scored, measured on rows of the training table."""
    train = plan.examples["train"]
    rows = np.arange(min(EVALUATED_ROWS, len(train.tokens)))
    some = Examples(train.tokens.take(rows), train.targets[rows], train.pad_id)
    n, began = 0, time.perf_counter()
    with training.assembly.whole():
        while n == 0 or time.perf_counter() - began < _EVALUATED_SECONDS:
            evaluate(training.assembly.model, some, plan.label_set, autocast=training.assembly.autocast)
            n += len(rows)
    return n / max(time.perf_counter() - began, 1e-6)


def _tokens_to_train(plan: Plan) -> float:
    """Tokens of all rows of all steps; of a large table by a sample of its rows."""
    tokens = plan.examples["train"].tokens
    n = len(tokens)
    if isinstance(tokens, TokenIds):
        mean = float(tokens.lengths.mean())
    else:
        mean = float(tokens.lengths_of(np.arange(min(n, 65_536))).mean())
    return mean * n * settled(plan.recipe.train.epochs)


def _evaluations(plan: Plan) -> set[int]:
    train = plan.recipe.train
    return evaluation_steps(plan.total_steps, settled(train.epochs), settled(train.evaluations_per_epoch))


def _memory_in_use(device: str) -> int:
    """Resident bytes of this process now, or the most that a GPU held; 0 where the system does not say."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):  # systems without it
        return 0
    return pages * mmap.PAGESIZE
