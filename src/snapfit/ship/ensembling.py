"""Weighing a finished run again: with a student, with texts that have no labels, beside a run of equal compute."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.interrupts import StopRequest, exit_code
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe, settled
from snapfit.data.records import read_records
from snapfit.data.token_cache import cached_token_ids, default_cache_dir
from snapfit.nn.backend import load_classifier
from snapfit.runtime.bundle import Bundle
from snapfit.ship.pipeline import carry_out, tables_again, train
from snapfit.ship.result import TrainResult
from snapfit.ship.run_folder import TABLES, RunFolder, old_run
from snapfit.ship.telling import Listener, announce, notifier, teller
from snapfit.training.checkpoint import Checkpoint, newest_valid
from snapfit.training.identity import check_unchanged, differences
from snapfit.training.journal import Journal
from snapfit.training.members import keeps_weights
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables
from snapfit.training.student import as_a_whole
from snapfit.training.weighing import Beyond

CONTROL = "single run of equal compute"
STUDENT_EPOCHS = 1.0
"""Of a student where the recipe names none."""
_BACKWARD = 2.0
"""Forward passes that the backward pass of a step costs as much as."""


def ensemble(
    run: str | Path,
    *,
    table: Any = None,
    valid: Any = None,
    test: Any = None,
    student: bool = False,
    unlabelled: Any = None,
    with_control: bool = False,
    listener: Listener | None = None,
) -> TrainResult:
    """Weigh what a finished run left, and let its bundle hold what is chosen.

    run: its folder; it must have kept members (`ensemble.members`) or averages. table, valid, test: the run's tables,
    where they were no files or are elsewhere now; others are refused. student: train one model on what they know
    together; one that was trained before is taken, or gone on with. unlabelled: a table of more texts for it, with the
    text columns of the training table; implies `student`. with_control: train a single run of equal compute beside
    it, below RUN/control, to be shown in the table; it is never chosen.

    Returns what `train` does, with its verdict. Raises BadInput before any work for a run that is not finished or has
    nothing to choose from, Interrupted when it was stopped; what was trained so far is taken up by the next call.
    """
    start = time.monotonic()
    student = student or unlabelled is not None
    with StopRequest() as stop:
        try:
            folder, recipe, checkpoint = _finished(Path(run))
            sources = tables_again(folder, {"train": table, "valid": valid, "test": test})
            if student and not recipe.ensemble.student_epochs:
                recipe = recipe.with_values({"ensemble.student_epochs": STUDENT_EPOCHS})
            with old_run(folder.path), ExitStack() as stack:
                train_table, valid_table, test_table = (sources[split] for split in TABLES)
                tables = read_tables(train_table, valid_table, test_table, recipe.data, told=teller(listener))
                journal = stack.enter_context(Journal(folder.journal))
                notify = notifier(journal, listener, folder)
                announce(notify, tables, folder.path)
                plan = make_plan(tables, recipe, notify=notify, reasons=folder.reasons(), told=teller(listener))
                changes = differences(checkpoint.identity, plan.identity())
                check_unchanged([one for one in changes if one.weight == "forbidden"], accept=False, where=str(run))
                beyond = _beyond(plan, unlabelled)
                if with_control:
                    control = _control(folder, recipe, checkpoint, sources, listener)
                    beyond = replace(beyond, beside={CONTROL: control})
                result = carry_out(folder, plan, journal, notify, stop, checkpoint, listener=listener, beyond=beyond)
        except (KeyboardInterrupt, Interrupted) as error:
            text = str(error) or f"interrupted; the bundle of {run} is as it was"
            raise Interrupted(text, exit_code(stop.signal_number)) from error
    return replace(result, seconds=time.monotonic() - start)


def _finished(path: Path) -> tuple[RunFolder, Recipe, Checkpoint]:
    """A finished run that kept members, with its recipe and its last checkpoint."""
    with old_run(path) as folder:
        if folder.result() is None:
            fix = f"finish it: snapfit train --resume {path}"
            raise BadInput(f"{path} is not finished", "a run that is complete", fix)
        recipe = folder.recipe()
        if recipe.train.folds is not None:
            fix = "its bundle can hold them all: snapfit train --resume RUN --fold-bundle ensemble"
            raise BadInput(f"{path} is a cross-validation", "one training that kept members", fix)
        if not keeps_weights(recipe):
            raise BadInput(
                f"{path} kept no members",
                "a run with members to choose from",
                "train one that keeps some: snapfit train TABLE --set ensemble.members=6",
            )
        checkpoint, skipped = newest_valid(folder.checkpoints)
        if checkpoint is None:
            why = f": {skipped[0].why}" if skipped else ""
            raise BadInput(f"{path} has no valid checkpoint{why}", "the last one of the run", "train again")
        if "valid" not in checkpoint.identity["data"]:
            raise BadInput(f"{path} held no rows out", "rows to choose by", "train with --set data.valid_fraction=0.1")
    return folder, recipe, checkpoint


def _control(
    folder: RunFolder,
    recipe: Recipe,
    checkpoint: Checkpoint,
    sources: Mapping[str, Any],
    listener: Listener | None,
) -> Mapping[str, Tensor]:
    """The weights of a single run that took as much compute, trained now or before.

    Each length has a folder of its own: a run that was made longer afterwards is not one of that length.
    """
    epochs = settled(recipe.train.epochs) + _extra_epochs(recipe, checkpoint)
    alone = {
        "ensemble.members": 0,
        "ensemble.rounds": 0,
        "ensemble.student_epochs": 0.0,
        "ensemble.ema_share": 0.0,
        "ensemble.tail_share": 0.0,
        "train.epochs": epochs,
    }
    values, run = recipe.with_values(alone), RunFolder(folder.control / f"{epochs:.4g}-epochs")
    tables = {"table": sources["train"], "valid": sources["valid"], "recipe": values, "listener": listener}
    if run.is_run:
        train(**tables, resume=run.path, accept_changes=True)  # of the machine, that is
    else:
        train(**tables, out=run.path)
    bundle = Bundle.open(run.bundle)
    model = load_classifier(bundle)
    label_set: LabelSet = bundle.label_set
    if label_set.task == "regression":
        scale = label_set.target_scale
        model.rescale_output(scale=1.0 / scale, shift=-label_set.target_mean / scale)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _extra_epochs(recipe: Recipe, checkpoint: Checkpoint) -> float:
    """What a student takes beyond the run: its own epochs, and a forward pass of each member over the texts."""
    if not recipe.ensemble.student_epochs:
        return 0.0
    teachers = len(checkpoint.state["progress"].get("members", ())) + 1
    return recipe.ensemble.student_epochs + teachers / (1.0 + _BACKWARD)


def _beyond(plan: Plan, unlabelled: Any) -> Beyond:
    if unlabelled is None:
        return Beyond()
    as_a_whole(plan.examples["train"].tokens)  # refused now, before any work
    columns, data = plan.tables.columns, plan.recipe.data
    records = read_records(
        unlabelled,
        text=columns.text,
        pair=columns.pair,
        encoding=data.encoding,
        format=data.format,
        labels_required=False,
    )
    name = records.content_hash()
    tokens = cached_token_ids(
        plan.tokenizer, records.texts, records.pairs, cache_dir=default_cache_dir(), content_hash=name
    )
    return Beyond(unlabelled=tokens, unlabelled_hash=name)
