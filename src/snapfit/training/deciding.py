"""The end of a training, once its weights are settled: a decision rule is fitted, and every split measured by it.

In float32, whatever the training used: these are the logits that the bundle will answer with. A training on all rows
of a cross-validation is decided by what the folds' models said of rows that they had not seen.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import WorkFailed
from snapfit.core.recipe import Recipe
from snapfit.core.rule_fitting import FittedRule, HeldRows, fit_rule, sample_of, unfitted_rule
from snapfit.core.rule_words import rule_lines
from snapfit.core.scope import Centroids, fit_centroids
from snapfit.nn.backend import TorchBackend
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.nn.member_weights import with_changes
from snapfit.nn.packed_encoder import use_packing
from snapfit.training.driver import Training
from snapfit.training.evaluation import Evaluation, evaluate, split_outputs, targets_in_units
from snapfit.training.held_out import HeldOut
from snapfit.training.loop import Examples
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.verdict import Team

MOST_ROWS = 65_536
"""Of the validation split that a rule is fitted to, and of the training split that centroids are made of."""


@dataclass(frozen=True)
class Decided:
    """The rule that ships, what is known about it (see `FittedRule.report`), and metrics by split, then by name."""

    rule: DecisionRule
    report: dict[str, Any]
    metrics: dict[str, dict[str, float]]


def decide_and_measure(
    plan: Plan, training: Training, team: Team | None, notify: Notify, *, held_out: HeldOut | None = None
) -> Decided:
    """Fit the rule to the validation split, or to `held_out`, and measure the held-out splits by it.

    team: what answers, where that is not the training's model at temperature 1; the model holds its first weights.
    """
    backend, temperature = _backend(training, team, plan)
    fitted, to_all_of_valid = _fitted(plan, backend, temperature, held_out)
    metrics: dict[str, dict[str, float]] = {} if held_out is None else {"out_of_fold": held_out.metrics}
    report = dict(fitted.report)
    for split in ("valid", "test"):
        if split == "valid" and to_all_of_valid:
            metrics[split] = dict(report["fitted"])
        elif split in plan.examples:
            found = _measured(plan, split, training, backend, fitted.rule)
            metrics[split] = found.metrics
            if split == "test" and found.plain is not None:
                report["test_plain"] = found.plain
    step = training.progress.step
    if report:
        rule = fitted.rule.to_dict()
        lines = rule_lines(plan.label_set.task, rule, report)
        notify("decision", step=step, rule=rule, report=report, lines=lines)
    for split, values in metrics.items():
        if split != "out_of_fold":  # which the folds have told of
            notify("final", split=split, step=step, metrics=values)
    return Decided(fitted.rule, report, metrics)


def _measured(
    plan: Plan, split: str, training: Training, backend: TorchBackend | EnsembleBackend, rule: DecisionRule
) -> Evaluation:
    model, examples = training.assembly.model, plan.examples[split]
    result = evaluate(model, examples, plan.label_set, autocast=nullcontext, backend=backend, rule=rule)
    if result is None:
        raise WorkFailed("an evaluation that nobody stopped has stopped")
    return result


def _fitted(
    plan: Plan, backend: TorchBackend | EnsembleBackend, temperature: float, held_out: HeldOut | None
) -> tuple[FittedRule, bool]:
    """The rule, and whether it was fitted to all rows of the validation split, and to them alone."""
    settings, label_set = plan.recipe.decision, plan.label_set
    task, names = label_set.task, label_set.names
    by_centroids = settings.out_of_scope == "centroids"
    known: dict[str, Any] = {"metric": plan.recipe.train.metric, "seed": plan.recipe.data.split_seed}
    if held_out is not None and takes_held_out(plan.recipe):
        fitted = fit_rule(HeldRows(held_out.logits, held_out.targets), settings, task, names, **known)
        if task == "regression":
            return fitted, False
        return replace(fitted, rule=replace(fitted.rule, temperature=fitted.rule.temperature * temperature)), False
    if "valid" not in plan.examples or task == "regression":
        return unfitted_rule(settings, task, names, temperature=temperature), False
    valid = _sampled(plan.examples["valid"], label_set.n_outputs, seed=plan.recipe.data.split_seed)
    logits, vectors = split_outputs(backend, valid, label_set, vectors=by_centroids)
    rows = HeldRows(logits, targets_in_units(valid, label_set), vectors)
    centroids = _centroids(plan, backend) if by_centroids else None
    fitted = fit_rule(rows, settings, task, names, temperature=temperature, centroids=centroids, **known)
    return fitted, valid is plan.examples["valid"]


def takes_held_out(recipe: Recipe) -> bool:
    """Whether a rule can be fitted to what other models said of rows: centroids are of one model's own vectors."""
    return recipe.decision.out_of_scope != "centroids"


def _centroids(plan: Plan, backend: TorchBackend | EnsembleBackend) -> Centroids:
    """Of the training rows, or of a sample of them."""
    train = _sampled(plan.examples["train"], 1, seed=plan.recipe.data.split_seed)
    _, vectors = split_outputs(backend, train, plan.label_set, vectors=True)
    assert vectors is not None  # these backends give them
    return fit_centroids(vectors, targets_in_units(train, plan.label_set), plan.label_set.n_outputs)


def _sampled(examples: Examples, n_outputs: int, *, seed: int) -> Examples:
    rows = sample_of(len(examples.tokens), n_outputs, most_rows=MOST_ROWS, seed=seed)
    if rows is None:
        return examples
    return replace(examples, tokens=examples.tokens.take(rows), targets=examples.targets[rows])


def _backend(training: Training, team: Team | None, plan: Plan) -> tuple[TorchBackend | EnsembleBackend, float]:
    """What computes the logits that ship, and the temperature that they have of their own."""
    model = training.assembly.model
    if team is None or len(team.weights) == 1:
        backend = TorchBackend(model, device=next(model.parameters()).device.type)
        return backend, 1.0 if team is None else team.last_temperature
    training.assembly.release()
    models = [model, *(with_changes(model, weights) for weights in team.weights[1:])]
    for one in models:
        use_packing(one)
    ensemble = EnsembleBackend(
        models, shares=team.shares, temperatures=team.temperatures, task=plan.label_set.task, device=plan.device
    )
    return ensemble, team.last_temperature
