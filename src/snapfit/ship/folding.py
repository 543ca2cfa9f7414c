"""A cross-validation: every row is scored by a model that has not seen it, and what ships is made of all rows.

Each fold is a run of its own in RUN/folds, by the same path as any other, so it can be stopped and goes on; one that
has scored the rows that it holds out is not trained again. Then out-of-fold scores are put together, suspected label
errors ranked, and what is to ship is made: a training on all rows in RUN itself, or the mean of the folds' models.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from snapfit.core.errors import Interrupted, MissingExtra, WorkFailed
from snapfit.core.folders import remove_folder
from snapfit.core.interrupts import StopRequest
from snapfit.core.labels import Task
from snapfit.core.recipe import Recipe
from snapfit.core.rule_fitting import unfitted_rule
from snapfit.core.scores import DEFAULT_THRESHOLD
from snapfit.ship.fold_ensemble import mean_of_folds
from snapfit.ship.fold_report import (
    HELD_OUT_FILE,
    Fold,
    FoldReport,
    finished_folds,
    fold_folder,
    is_finished,
    write_report,
)
from snapfit.ship.label_errors import can_rank, find_label_errors, require_cleanlab, write_suspects
from snapfit.ship.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold, Piece, score_held_out
from snapfit.ship.result import TrainResult
from snapfit.ship.run_folder import RunFolder, new_run, old_run
from snapfit.ship.telling import Listener, announce, notifier, tell_of_resuming, teller
from snapfit.training.checkpoint import Checkpoint, newest_valid
from snapfit.training.deciding import MOST_ROWS, takes_held_out
from snapfit.training.fold_tables import draw_folds, tables_without, with_fold_fraction
from snapfit.training.held_out import HeldOut
from snapfit.training.identity import check_unchanged, differences
from snapfit.training.journal import Journal, read_journal
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import Notify, Tables

CarryOut = Callable[..., TrainResult]
"""`pipeline.carry_out`: trains as planned in a run's folder, from a checkpoint where there is one."""
Heard = tuple[str, dict[str, Any]]
"""An event's kind and fields."""

_OF_THE_TABLE = ("data", "recipe", "end")
_OF_THE_MODEL = ("weights", "groups", "engine")
"""Events that are the same in every fold: the first is told in full, and of the others no more than how they go."""


class CrossValidation:
    """The folds of one run, and what ships of them.

    run: a folder that is ours, with its request. whole: tables whose training split is undivided.
    carry_out: `pipeline.carry_out`. accept: go on although the machine is another one than a checkpoint's.
    resumed: whether the run was begun before.
    """

    def __init__(
        self,
        run: RunFolder,
        whole: Tables,
        recipe: Recipe,
        *,
        carry_out: CarryOut,
        stop: StopRequest,
        listener: Listener | None,
        accept: bool = False,
        resumed: bool = False,
    ) -> None:
        self.run, self.whole = run, whole
        self._carry_out, self._stop, self._listener = carry_out, stop, listener
        self._accept, self._resumed = accept, resumed
        self._told_of_model = False
        self._recipe, self._why = with_fold_fraction(recipe)
        self._number = draw_folds(whole, recipe)
        self._n_folds = recipe.train.folds or 0

    def result(self) -> TrainResult:
        """Train what is not trained yet, and write everything.

        Raises BadInput before any work for what cannot be used or goes on otherwise than it began, WorkFailed when a
        training cannot go on, Interrupted when it was stopped: everything that was learnt is kept, and
        `snapfit train --resume` goes on with it.
        """
        plan, heard = self._settled()
        with Journal(self.run.journal) as journal:
            notify = notifier(journal, self._listener, self.run)
            self._tell(plan, heard, notify)
            self.run.write_settled(plan.recipe, plan.tables)
            results = [self._fold(fold, plan.recipe, notify) for fold in range(1, self._n_folds + 1)]
            report, some = self._report(results, notify)
            return self._ship(plan, report, some, results, journal, notify)

    # ---------------------------------------------------------------- before the first fold

    def _settled(self) -> tuple[Plan, list[Heard]]:
        """The recipe resolved on all rows, held against what the run began with; and what was told of it."""
        heard: list[Heard] = []
        plan = make_plan(
            tables_without(self.whole, np.zeros(0, dtype=np.int64), self._recipe),
            self._recipe,
            notify=lambda kind, **fields: heard.append((kind, fields)),
            reasons=self._why | self.run.reasons(),
            told=teller(self._listener),
            n_held_out=self._n_decided(),
        )
        plan.close()
        if self._resumed:
            now = plan.identity()
            found = differences(self.run.begun_with(now), now)
            changes = [one for one in found if one.weight != "free" or one.what.endswith("test table")]
            where = f"{self.run.path}, whose folds are all to be trained and measured alike,"
            check_unchanged([replace(one, weight="forbidden") for one in changes], accept=False, where=where)
        return plan, heard

    def _n_decided(self) -> int | None:
        """Rows that the decision rule will be fitted to; None for those of a validation split."""
        return int((self._number > 0).sum()) if takes_held_out(self._recipe) else None

    def _tell(self, plan: Plan, heard: list[Heard], notify: Notify) -> None:
        """Tell of the tables, the recipe and the folds."""
        if self._resumed:
            finished = finished_folds(self.run.path, self._n_folds)
            notify("folds_go_on", run=str(self.run.path), finished=len(finished), folds=self._n_folds)
        announce(notify, plan.tables, self.run.path)
        for kind, fields in heard:
            notify(kind, **fields)
        rows = np.bincount(self._number, minlength=self._n_folds + 1).tolist()
        notify("folds", folds=self._n_folds, rows=rows[1:], left_out=rows[0])
        try:
            require_cleanlab(self.whole.label_set.task)
        except MissingExtra as error:
            again = f"then `snapfit train --resume {self.run.path}` ranks them, also when the run is complete"
            notify("notice", text=f"suspected label errors will not be ranked, {error.found}: {error.fix}; {again}")

    # ---------------------------------------------------------------- one fold

    def _fold(self, fold: int, recipe: Recipe, notify: Notify) -> TrainResult:
        """Train a fold, or go on with it, and score the rows that it holds out; a finished one says what it came to."""
        folder = RunFolder(fold_folder(self.run.path, fold))
        held_out = np.flatnonzero(self._number == fold)
        counts = {"fold": fold, "folds": self._n_folds, "held_out": len(held_out)}
        if is_finished(folder):
            notify("fold", **counts, does="nothing")
        else:
            notify("fold", **counts, does="go on" if folder.is_run else "begin")
            self._train(folder, fold, held_out, recipe)
            teller(self._listener)(f"fold {fold} of {self._n_folds}: scoring the {len(held_out):,} rows held out")
            records = self.whole.splits["train"]
            score_held_out(folder.bundle, records, held_out, folder.path / HELD_OUT_FILE)
        if folder.checkpoints.exists():  # the fold is done, and they are several times as large as its bundle
            remove_folder(folder.checkpoints)
        return _result_of(folder)

    def _train(self, folder: RunFolder, fold: int, held_out: np.ndarray, recipe: Recipe) -> None:
        """Bring the training of a fold to its end. Raises Interrupted when it was stopped before."""
        tables = tables_without(self.whole, held_out, recipe)
        alone = _plainly_decided(recipe, self.whole.label_set.task).with_values(
            {"train.folds": None, "train.fold_bundle": "refit"}
        )
        with (old_run if folder.is_run else new_run)(folder.path) as run:
            if run.result() is not None:
                return
            if not run.is_run:
                run.write_request(tables.splits, alone)
            try:
                with Journal(run.journal) as journal:
                    told = self._listener_of(fold)
                    notify = notifier(journal, told, run)
                    plan = make_plan(tables, alone, notify=notify, reasons=run.reasons(), told=teller(told))
                    checkpoint, changed = self._checkpoint_of(run, plan, notify)
                    goes_on = {"listener": told, "changed": changed}
                    self._carry_out(run, plan, journal, notify, self._stop, checkpoint, **goes_on)
            except Interrupted as error:
                raise Interrupted("", error.exit_code) from error  # it is the whole run that goes on
            finally:
                self.run.begun = self.run.begun or run.begun
        if self._stop():
            raise Interrupted("")

    def _checkpoint_of(self, run: RunFolder, plan: Plan, notify: Notify) -> tuple[Checkpoint | None, bool]:
        """The newest valid checkpoint of a run, held against the plan; and whether the machine is another one now."""
        checkpoint, skipped = newest_valid(run.checkpoints)
        changes = [] if checkpoint is None else differences(checkpoint.identity, plan.identity())
        check_unchanged(changes, accept=self._accept, where=f"{run.path}, from step {checkpoint and checkpoint.step},")
        if any(event["kind"] == "step" for event in read_journal(run.journal)):  # else it begins
            tell_of_resuming(notify, run, checkpoint, skipped, changes=changes)
        return checkpoint, bool(changes)

    def _listener_of(self, fold: int | None) -> Listener:
        """Hears of a fold (None: of the training on all rows) what was not told before."""
        hidden: set[str] = set() if fold is None else set(_OF_THE_TABLE)
        if self._told_of_model:
            hidden.update(_OF_THE_MODEL)
        self._told_of_model = True
        of_fold = {} if fold is None else {"fold": fold, "folds": self._n_folds}

        def listen(event: dict[str, Any]) -> None:
            if self._listener is not None and event["kind"] not in hidden:
                self._listener({**event, **of_fold})

        return listen

    # ---------------------------------------------------------------- all folds

    def _report(self, results: list[TrainResult], notify: Notify) -> tuple[FoldReport, Piece]:
        """Put the folds' scores together; write them, what they measure, and the ranking of suspected labels."""
        run, task = self.run.path, self.whole.label_set.task
        files = {fold: fold_folder(run, fold) / HELD_OUT_FILE for fold in range(1, self._n_folds + 1)}
        rule = unfitted_rule(self._recipe.decision, task, self.whole.label_set.names).rule
        every = OutOfFold(files, self.whole.splits["train"], self.whole.label_set, rule=rule)
        by_fold, rows, pooled = every.metrics()
        every.write(run / OUT_OF_FOLD_FILE)
        some = every.at_most(MOST_ROWS, seed=self._recipe.data.split_seed)
        report = FoldReport(
            bundle=self._recipe.train.fold_bundle,
            folds=tuple(
                Fold(fold, rows[fold], by_fold[fold], one.metrics.get("test"), one.train_seconds)
                for fold, one in enumerate(results, 1)
            ),
            left_out=int((self._number == 0).sum()),
            out_of_fold=pooled,
            label_errors=self._label_errors(every),
        )
        write_report(run, report)
        values = report.to_dict()
        notify("out_of_fold", **{name: values[name] for name in ("mean", "sd", "out_of_fold", "label_errors")})
        return report, some

    def _label_errors(self, every: OutOfFold) -> dict[str, Any] | None:
        """Rank the labels that look wrong; None where the library for it is not installed."""
        try:
            found = find_label_errors(every.scores, self.whole.label_set)
        except MissingExtra:  # which was told of before any work
            return None
        write_suspects(self.run.path, found, self.whole.splits["train"])
        return {"suspected": found.n_suspected, "labels": found.n_labels}

    # ---------------------------------------------------------------- what ships

    def _ship(
        self,
        plan: Plan,
        report: FoldReport,
        some: Piece,
        results: list[TrainResult],
        journal: Journal,
        notify: Notify,
    ) -> TrainResult:
        """Make the bundle that is asked for, and say that the run is complete."""
        if report.bundle == "refit":
            return self._refit(plan, report, some, journal)
        metrics = {"out_of_fold": report.out_of_fold}
        if report.bundle == "ensemble":
            folders = [fold_folder(self.run.path, fold) for fold in range(1, self._n_folds + 1)]
            with closing(self._again(plan)) as whole:
                metrics = mean_of_folds(self.run.bundle, folders, whole, report, some)
        result = TrainResult(
            run=self.run.path,
            bundle=self.run.bundle,
            metrics=metrics,
            recipe=plan.recipe,
            best_step=0,
            steps=sum(one.steps for one in results),
            seconds=0.0,
            train_seconds=sum(one.train_seconds for one in results),
            folds=report.to_dict(),
        )
        journal.sync()
        self.run.write_result(result.to_dict())
        notify("end", **result.told())
        return result

    def _again(self, plan: Plan) -> Plan:
        """A plan that was closed, open again; what it tells was told."""
        return make_plan(
            plan.tables,
            plan.recipe,
            notify=lambda kind, **fields: None,
            reasons=plan.reasons,
            n_held_out=self._n_decided(),
        )

    def _refit(self, plan: Plan, report: FoldReport, some: Piece, journal: Journal) -> TrainResult:
        """Train on all rows as each fold was trained; the decision rule comes from what the folds had not seen."""
        notify = notifier(journal, self._listener_of(None), self.run)
        plan = self._again(plan)
        checkpoint, changed = self._checkpoint_of(self.run, plan, notify)
        source = f"its decision rule is fitted to {len(some.rows):,} rows that the models of folds had not seen"
        if not takes_held_out(plan.recipe):
            source = "its decision rule is fitted to its own validation rows, for centroids are its own"
        return self._carry_out(
            self.run,
            plan,
            journal,
            notify,
            self._stop,
            checkpoint,
            listener=self._listener,
            changed=changed,
            held_out=HeldOut(some.logits, some.targets, report.out_of_fold, "a training on all rows", source),
            folds=report.to_dict(),
        )


def _result_of(folder: RunFolder) -> TrainResult:
    """What a finished fold came to, as its folder says."""
    values = folder.result()
    if values is None:
        raise WorkFailed(f"the result of {folder.path} is gone")
    return TrainResult.of_complete(folder.path, folder.bundle, values)


def _plainly_decided(recipe: Recipe, task: Task) -> Recipe:
    """The recipe of a fold: whatever is fitted to decide by is fitted once, to what all folds hold out."""
    fitted = ("calibrate", "abstain_precision", "abstain_coverage", "out_of_scope")
    plain: dict[str, Any] = {f"decision.{name}": None for name in fitted}
    if task == "multi" and isinstance(recipe.decision.thresholds, str):
        plain["decision.thresholds"] = DEFAULT_THRESHOLD
    return recipe.with_values(plain)


def nothing_left(report: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a complete cross-validation has made what is asked for now. report: its folds.json."""
    ranked = report["label_errors"] is not None or not can_rank()
    return recipe.train.fold_bundle in (report["bundle"], "none") and ranked
