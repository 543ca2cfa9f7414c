"""The end of a training, once its weights are settled: a decision rule is fitted, and every split measured by it.

In float32, whatever the training used: these are the logits that the bundle will answer with.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import WorkFailed
from snapfit.core.rule_fitting import FittedRule, HeldRows, fit_rule, sample_of, unfitted_rule
from snapfit.core.rule_words import rule_lines
from snapfit.core.scope import Centroids, fit_centroids
from snapfit.nn.backend import TorchBackend
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.nn.member_weights import with_changes
from snapfit.nn.packed_encoder import use_packing
from snapfit.training.driver import Training
from snapfit.training.evaluation import Evaluation, evaluate, split_outputs, targets_in_units
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


def decide_and_measure(plan: Plan, training: Training, team: Team | None, notify: Notify) -> Decided:
    """Fit the rule to the validation split, and measure the held-out splits by it.

    team: what answers, where that is not the training's model at temperature 1; the model holds its first weights.
    """
    backend, temperature = _backend(training, team, plan)
    fitted, sampled = _fitted(plan, backend, temperature)
    metrics: dict[str, dict[str, float]] = {}
    report = dict(fitted.report)
    for split in ("valid", "test"):
        if split == "valid" and "fitted" in report and not sampled:
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


def _fitted(plan: Plan, backend: TorchBackend | EnsembleBackend, temperature: float) -> tuple[FittedRule, bool]:
    """The rule, and whether it was fitted to a sample of the validation rows only."""
    settings, label_set = plan.recipe.decision, plan.label_set
    task, names = label_set.task, label_set.names
    if "valid" not in plan.examples or task == "regression":
        return unfitted_rule(settings, task, names, temperature=temperature), False
    by_centroids = settings.out_of_scope == "centroids"
    valid = _sampled(plan.examples["valid"], label_set.n_outputs, seed=plan.recipe.data.split_seed)
    logits, vectors = split_outputs(backend, valid, label_set, vectors=by_centroids)
    fitted = fit_rule(
        HeldRows(logits, targets_in_units(valid, label_set), vectors),
        settings,
        task,
        names,
        metric=plan.recipe.train.metric,
        temperature=temperature,
        centroids=_centroids(plan, backend) if by_centroids else None,
        seed=plan.recipe.data.split_seed,
    )
    return fitted, valid is not plan.examples["valid"]


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
