"""The main job: a table of labelled texts goes in, a run folder with a bundle comes out; also in several sittings."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.interrupts import StopRequest, exit_code
from snapfit.core.recipe import Recipe, chosen_recipe
from snapfit.runtime.bundle import Bundle
from snapfit.ship.bundling import write_bundle
from snapfit.ship.folding import CrossValidation, nothing_left
from snapfit.ship.result import TrainResult
from snapfit.ship.run_folder import TABLES, RunFolder, new_name, new_run, old_run, placed
from snapfit.ship.telling import Listener, announce, notifier, tell_of_resuming, teller
from snapfit.training.checkpoint import Checkpoint, newest_valid
from snapfit.training.fit import Fitted, fit
from snapfit.training.fold_tables import undivided
from snapfit.training.held_out import HeldOut
from snapfit.training.identity import check_unchanged, differences, leaves_work
from snapfit.training.journal import Journal
from snapfit.training.members import Members, keeps_weights
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import Notify, Tables, read_tables
from snapfit.training.saver import Saver
from snapfit.training.weighing import Beyond


def train(
    table: Any = None,
    *,
    valid: Any = None,
    test: Any = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    accept_changes: bool = False,
    continue_from: str | Path | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> TrainResult:
    """Fine-tune a classifier on a table and write its run folder, or go on with a run that was begun.

    table, valid, test: a path (CSV, TSV, JSONL, Parquet, or a folder of one kind), or a pandas, polars or Arrow
        table, or a list of dictionaries. Without `valid` a stratified part of `table` is held out.
    out: the run folder, which must not exist yet; by default a free name under runs/.
    resume: instead of `out`, the folder of a run to go on with: its newest valid checkpoint is taken, its tables and
        settings need not be given again. Where no run was begun yet and `table` is given, one begins.
    accept_changes: go on although settings or the machine are others than those of the checkpoint, where that makes
        sense; other data, labels or models never do.
    continue_from: an own bundle to start from, instead of an encoder with a fresh head: its head is kept for the labels
        that it knows. This is a new run, with its own table.
    recipe: a Recipe, a file, or nested settings. settings: single keys, alone (`epochs=3`) or in full with "__" for
        the dot (`train__epochs=3`); they win over the recipe.
    listener: hears of every event while it runs.

    Raises BadInput before any work for anything that cannot be used, WorkFailed when training cannot go on,
    Interrupted when it was stopped by a signal and there is no bundle yet; what was learnt is in a checkpoint then.
    """
    start = time.monotonic()
    sources = {"train": table, "valid": valid, "test": test}
    chosen = chosen_recipe(recipe, settings)
    if resume is not None and out is not None:
        raise BadInput("both out and resume", "one of them", "leave --out out: the run goes on where it is")
    if continue_from is not None:
        if resume is not None:
            raise BadInput("both continue_from and resume", "one of them", "a run that goes on has its own weights")
        chosen = _started_from(Path(continue_from), chosen)
    run: RunFolder | None = None
    with StopRequest() as stop:
        try:
            if resume is not None and (table is None or RunFolder(Path(resume)).is_run):
                with old_run(Path(resume)) as run:
                    result = _go_on(run, sources, chosen, stop, listener, accept_changes)
            else:
                _check_fold_bundle(chosen)
                tables = _read(sources, chosen, listener)
                path = new_name(table) if out is None and resume is None else Path(str(resume or out))
                with new_run(path) as run:
                    run.write_request(sources, chosen)
                    begin = _begin if chosen.train.folds is None else _cross_validated
                    result = begin(run, tables, chosen, stop, listener)
        except (KeyboardInterrupt, Interrupted) as error:
            raise Interrupted(str(error) or _cut_short(run), exit_code(stop.signal_number)) from error
    return replace(result, seconds=time.monotonic() - start)


def _cut_short(run: RunFolder | None) -> str:
    """What a signal that ended the work at once leaves behind, in words."""
    if run is None or not run.begun:
        return "interrupted; nothing was trained"
    return f"interrupted; go on with: snapfit train --resume {run.path}"


def _read(sources: Mapping[str, Any], recipe: Recipe, listener: Listener | None) -> Tables:
    if sources["train"] is None:
        raise BadInput("no table to train on", "a table", "snapfit train TABLE, or snapfit train --resume RUN")
    data = recipe.data if recipe.train.folds is None else undivided(recipe.data)
    return read_tables(sources["train"], sources["valid"], sources["test"], data, told=teller(listener))


def _begin(run: RunFolder, tables: Tables, recipe: Recipe, stop: StopRequest, listener: Listener | None) -> TrainResult:
    """Train from the first step."""
    with Journal(run.journal) as journal:
        notify = notifier(journal, listener, run)
        announce(notify, tables, run.path)
        plan = make_plan(tables, recipe, notify=notify, told=teller(listener))
        return carry_out(run, plan, journal, notify, stop, listener=listener)


def _go_on(
    run: RunFolder,
    sources: Mapping[str, Any],
    asked: Recipe,
    stop: StopRequest,
    listener: Listener | None,
    accept: bool,
) -> TrainResult:
    """Go on with a run from its newest valid checkpoint, or from the start where it has none."""
    settled, reasons = run.recipe(), run.reasons()
    stated = {k: v for k, v in placed(asked).stated().items() if v != "auto" or k.startswith("decision.")}
    recipe = settled.with_values(stated)
    _check_fold_bundle(recipe)
    if settled.train.folds is not None:
        return _folds_go_on(run, sources, recipe, stop, listener, accept)
    if not leaves_work(settled, recipe) and (done := run.result()) is not None:
        return _complete(run, done, listener)
    tables = _read(tables_again(run, sources), recipe, listener)
    checkpoint, skipped = newest_valid(run.checkpoints)
    heard: list[tuple[str, dict[str, Any]]] = []
    plan = make_plan(
        tables,
        recipe,
        notify=lambda kind, **fields: heard.append((kind, fields)),
        reasons=reasons,
        told=teller(listener),
    )
    changes = []
    if checkpoint is not None:
        changes = differences(checkpoint.identity, plan.identity())
        check_unchanged(changes, accept=accept, where=f"{run.path}, from step {checkpoint.step:,},")
    else:  # nothing of it can be used, but it is to become what it began as all the same
        begun = differences(run.begun_with(plan.identity()), plan.identity())
        check_unchanged([one for one in begun if one.weight == "forbidden"], accept=accept, where=str(run.path))
    with Journal(run.journal) as journal:
        notify = notifier(journal, listener, run)
        tell_of_resuming(notify, run, checkpoint, skipped, changes=changes)
        announce(notify, tables, run.path)
        for kind, fields in heard:
            notify(kind, **fields)
        return carry_out(run, plan, journal, notify, stop, checkpoint, listener=listener, changed=bool(changes))


def _folds_go_on(
    run: RunFolder,
    sources: Mapping[str, Any],
    recipe: Recipe,
    stop: StopRequest,
    listener: Listener | None,
    accept: bool,
) -> TrainResult:
    """Go on with a cross-validation, unless it has nothing left to do and what it is to ship is there."""
    done = run.result()
    if done is not None and nothing_left(done["folds"], recipe) and not leaves_work(run.recipe(), recipe):
        return _complete(run, done, listener)
    tables = _read(tables_again(run, sources), recipe, listener)
    return _cross_validated(run, tables, recipe, stop, listener, accept=accept, resumed=True)


def _check_fold_bundle(recipe: Recipe) -> None:
    """What ships of folds is nothing to a single run; no check of a recipe, for a run that goes on has the folds."""
    if recipe.train.folds is None and recipe.train.fold_bundle != "refit":
        found = f"train.fold_bundle is {recipe.train.fold_bundle!r}, train.folds is none"
        raise BadInput(found, "folds of which something ships", "--folds 5, or leave --fold-bundle out")


def _cross_validated(
    run: RunFolder, tables: Tables, recipe: Recipe, stop: StopRequest, listener: Listener | None, **how: bool
) -> TrainResult:
    return CrossValidation(run, tables, recipe, carry_out=carry_out, stop=stop, listener=listener, **how).result()


def tables_again(run: RunFolder, sources: Mapping[str, Any]) -> dict[str, Any]:
    """The tables that were given now or, where they were not, those of the run's request."""
    asked = run.request().tables
    again = {split: asked.get(split) if sources[split] is None else sources[split] for split in TABLES}
    for split, source in again.items():
        if source is None and split in asked:
            raise BadInput(
                f"the {split} table of {run.path} was not a file", f"the same {split} table", "give it again"
            )
    return again


def _complete(run: RunFolder, values: Mapping[str, Any], listener: Listener | None) -> TrainResult:
    """The result of a run that has nothing left to do."""
    if listener is not None:
        listener({"kind": "complete", "run": str(run.path), "steps": values["steps"]})
    return TrainResult.of_complete(run.path, run.bundle, values)


def carry_out(
    run: RunFolder,
    plan: Plan,
    journal: Journal,
    notify: Notify,
    stop: StopRequest,
    checkpoint: Checkpoint | None = None,
    *,
    listener: Listener | None = None,
    changed: bool = False,
    beyond: Beyond | None = None,
    held_out: HeldOut | None = None,
    folds: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train as planned, from a checkpoint where there is one, and write what ships. The arguments are those of `fit`.

    changed: whether the checkpoint was made with other settings. beyond: of a finished run that is weighed again,
    without its root and notify; the run stays as it is until that is done. folds: what the folds of the run came to.
    """
    start = time.monotonic()
    if beyond is None:
        run.write_settled(plan.recipe, plan.tables)
    members = Members(plan.recipe.ensemble.members, run.snapshots) if keeps_weights(plan.recipe) else None

    def before_a_checkpoint_is_seen() -> None:
        journal.sync()
        if members is not None:
            members.settle()

    saver = Saver(run.checkpoints, keep=plan.recipe.checkpoint.keep, before_rename=before_a_checkpoint_is_seen)
    try:
        with _students_journal(run, plan, listener) as told:
            fitted = fit(
                plan,
                notify=notify,
                stop=stop,
                saver=saver,
                members=members,
                resume=checkpoint,
                save_at_once=changed,
                beyond=replace(beyond or Beyond(), root=run.student, notify=told),
                held_out=held_out,
            )
    except Interrupted as error:
        if not run.begun:
            raise
        raise Interrupted(f"{error}; go on with: snapfit train --resume {run.path}") from error
    finally:
        if not stop.twice:
            _close(saver, members)
    if beyond is not None:
        if not fitted.complete:
            raise Interrupted(f"interrupted; the bundle of {run.path} is as it was")
        run.write_settled(plan.recipe, plan.tables)
    if members is not None and fitted.complete:
        members.close(prune=True)
    seconds = time.monotonic() - start
    return _write_down(run, fitted, plan, journal, notify, stop, checkpoint, seconds=seconds, folds=folds)


def _close(saver: Saver, members: Members | None) -> None:
    """Wait for what is being written."""
    saver.wait()
    if members is not None:
        members.close(prune=False)


def _write_down(
    run: RunFolder,
    fitted: Fitted,
    plan: Plan,
    journal: Journal,
    notify: Notify,
    stop: StopRequest,
    checkpoint: Checkpoint | None,
    *,
    seconds: float,
    folds: Mapping[str, Any] | None,
) -> TrainResult:
    """Write the bundle and the result."""
    write_bundle(run.bundle, fitted, plan.tables)
    verdict = None if fitted.verdict is None else fitted.verdict.to_dict()
    if verdict is not None:
        run.write_verdict(verdict)
    result = TrainResult(
        run=run.path,
        bundle=run.bundle,
        metrics=fitted.metrics,
        recipe=fitted.recipe,
        best_step=fitted.best_step,
        steps=fitted.steps,
        seconds=seconds,
        train_seconds=fitted.train_seconds,
        stopped_by=stop.signal_number,
        resumed_from=None if checkpoint is None else checkpoint.step,
        verdict=verdict,
        decision={"rule": fitted.rule.to_dict(), "report": fitted.report} if fitted.report else None,
        folds=None if folds is None else dict(folds),
    )
    if fitted.complete:
        journal.sync()  # after a power cut nothing may be missing of a run that is called complete
        run.write_result(result.to_dict())
    notify("end", **result.told())
    return result


@contextmanager
def _students_journal(run: RunFolder, plan: Plan, listener: Listener | None) -> Iterator[Notify]:
    """What hears of a student's training, whose steps are not the run's: a journal of its own, where there is one."""
    if not plan.recipe.ensemble.student_epochs:
        yield lambda kind, **fields: None
        return
    with Journal(run.student / "journal.jsonl") as journal:
        yield notifier(journal, listener)


def _started_from(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe that trains a bundle further."""
    bundle = Bundle.open(folder)
    fixed = {"model.encoder": str(folder), "model.pooling": bundle.info.pooling, "model.head": "kept"}
    lengths = {f"length.{name}": value for name, value in bundle.info.lengths.to_dict().items()}
    for key, value in recipe.stated().items():
        if value not in ("auto", fixed.get(key, value)):
            raise BadInput(
                f"{key} is {value!r} while the run starts from {folder}",
                f"{fixed[key]!r}, as it is there",
                "leave it out, or start from --encoder instead of --continue-from",
            )
    return recipe.with_values(fixed | {key: value for key, value in lengths.items() if key not in recipe.stated()})
