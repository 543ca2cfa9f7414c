"""The models of all folds as one answer: the mean of their scores, in a bundle of several models."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from snapfit.core.calibration import fit_temperature
from snapfit.core.errors import WorkFailed
from snapfit.core.rule_fitting import unfitted_rule
from snapfit.nn.backend import load_classifier
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.runtime.bundle import Bundle
from snapfit.ship.bundling import write_bundle
from snapfit.ship.fold_report import FoldReport, Metrics
from snapfit.ship.out_of_fold import Piece
from snapfit.training.answer import Answer
from snapfit.training.evaluation import evaluate, targets_in_units
from snapfit.training.fit import Fitted
from snapfit.training.loop import Examples
from snapfit.training.plan import Plan

NAME = "mean of the folds' models"
RULE = (
    "each model at a temperature fitted on the rows that it had not seen; no row is unseen by all of them, so that "
    "their mean is left as it is"
)


def mean_of_folds(
    folder: Path, folds: Sequence[Path], plan: Plan, report: FoldReport, some: Piece
) -> dict[str, Metrics]:
    """Write the bundle whose answer is the mean of the folds' models, equal shares; return its metrics by split.

    folder: of the bundle. folds: their runs, whose bundles are of one model each. plan: on all rows. some: out-of-fold
    logits. Metrics "out_of_fold" are those of single models on rows that they had not seen: what to expect at least.
    Raises BadInput for a fold's bundle that is damaged, WorkFailed when the bundle cannot be written.
    """
    label_set = plan.label_set
    models = [load_classifier(Bundle.open(fold / "bundle")) for fold in folds]
    shares = tuple(1.0 / len(models) for _ in models)
    settings = plan.recipe.decision
    heat = tuple(
        1.0
        if settings.calibrate is None
        else fit_temperature(some.logits[some.folds == fold], some.targets[some.folds == fold], label_set.task)
        for fold in range(1, len(models) + 1)
    )
    decided = unfitted_rule(settings, label_set.task, label_set.names)
    metrics = {"out_of_fold": report.out_of_fold}
    if "test" in plan.examples:
        backend = EnsembleBackend(models, shares=shares, temperatures=heat, task=label_set.task, device=plan.device)
        test = plan.examples["test"]
        in_units = Examples(test.tokens, targets_in_units(test, label_set), test.pad_id)
        as_they_are = replace(label_set, target_mean=0.0, target_scale=1.0)  # the bundles' logits are in units already
        found = evaluate(models[0], in_units, as_they_are, autocast=nullcontext, backend=backend, rule=decided.rule)
        if found is None:
            raise WorkFailed("an evaluation that nobody stopped has stopped")
        metrics["test"] = found.metrics
    fitted = Fitted(
        model=models[0],
        label_set=label_set,
        recipe=plan.recipe,
        reasons=plan.reasons,
        source=plan.source,
        tokenizer=plan.tokenizer,
        tokenizer_files=plan.tokenizer_files,
        metrics=metrics,
        best_step=0,
        steps=0,
        complete=True,
        train_seconds=0.0,
        rule=decided.rule,
        report=decided.report,
        answer=Answer(
            name=NAME,
            others=tuple(model.state_dict() for model in models[1:]),
            shares=shares,
            temperatures=heat,
            made_of={"parts": [f"fold {fold}" for fold in range(1, len(models) + 1)], "rule": RULE},
        ),
    )
    write_bundle(folder, fitted, plan.tables)
    return metrics
