"""Fine-tuning, composed: tables and a recipe in, a trained classifier with its metrics out.

This module decides when the loop is interrupted for an evaluation, what is best, and when to stop; it writes no files
and prints nothing. Whoever calls it hears of every step through `notify`.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from snapfit.core.errors import Interrupted
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import is_better
from snapfit.core.recipe import Recipe, settled
from snapfit.data.tokenizer import TextTokenizer
from snapfit.nn.attention import use_standard_attention
from snapfit.nn.classifier import Classifier
from snapfit.nn.encoder import EncoderSource, TokenizerFiles
from snapfit.nn.families import max_positions
from snapfit.nn.losses import loss_sum
from snapfit.training.assemble import Assembly, assemble, build_model, layer_parameters, pick_device
from snapfit.training.defaults import Facts, resolve
from snapfit.training.evaluation import BestWeights, evaluate
from snapfit.training.loop import DataOrder, Examples, LossSum, StepSettings, optimizer_steps
from snapfit.training.param_groups import format_plan
from snapfit.training.pooling_probe import choose_pooling
from snapfit.training.precision import choose_precision
from snapfit.training.prepare import (
    Notify,
    Tables,
    class_weights,
    encoder_limit,
    make_examples,
    open_encoder,
    tokenise,
)


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, and all that a bundle says about it.

    model: on the CPU, in evaluation mode, with the best weights; a regression's logits are in target units.
    recipe: resolved. reasons: why each `auto` became what it is. metrics: by split, then by name.
    best_step: the step of the weights, steps: all that were done. interrupted: whether the user stopped it.
    """

    model: Classifier
    label_set: LabelSet
    recipe: Recipe
    reasons: dict[str, str]
    source: EncoderSource
    tokenizer: TextTokenizer
    tokenizer_files: TokenizerFiles
    metrics: dict[str, dict[str, float]]
    best_step: int
    steps: int
    interrupted: bool
    train_seconds: float


@dataclass
class _Progress:
    """What the run has come to; `best` belongs to the validation split."""

    best: BestWeights
    steps: int = 0
    tokens: int = 0
    interrupted: bool = False
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def fit(tables: Tables, recipe: Recipe, *, notify: Notify, stop: Callable[[], bool] = lambda: False) -> Fitted:
    """Train on tables that were read, following a recipe.

    notify: hears of everything as events (see journal.py). stop: asked after every step; True ends the run with the
    best weights so far. Raises BadInput for settings that do not fit the data, WorkFailed when numbers go wrong,
    Interrupted when stopped before the first step.
    """
    threads, generator_state = torch.get_num_threads(), torch.get_rng_state()
    try:
        if recipe.train.threads != "auto":
            torch.set_num_threads(recipe.train.threads)
        return _fit(tables, recipe, notify, stop)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(generator_state)


def _fit(tables: Tables, recipe: Recipe, notify: Notify, stop: Callable[[], bool]) -> Fitted:
    source, files = open_encoder(recipe)
    for notice in source.notices:
        notify("notice", text=notice)
    limit = recipe.length.max_tokens
    tokenised = tokenise(tables, source, files, encoder_limit(source) if limit == "auto" else limit)
    recipe, reasons = _resolve(tables, recipe, source, make_examples(tables, tokenised)["train"])
    notify("recipe", recipe=recipe.to_dict(), reasons=reasons)
    if recipe.length.max_tokens != tokenised.tokenizer.max_tokens:
        tokenised = tokenise(tables, source, files, settled(recipe.length.max_tokens))
    examples = make_examples(tables, tokenised)
    order = _data_order(recipe, examples["train"])
    total_steps = order.total_steps(settled(recipe.train.epochs))
    model, report = build_model(
        recipe,
        source,
        task=tables.label_set.task,
        label_names=list(tables.label_set.names),
        pooling=recipe.model.pooling,
    )
    assembly = assemble(model, report, recipe, total_steps=total_steps, device=pick_device())
    notify("weights", lines=report.lines(), loaded=len(report.loaded), fresh=list(report.fresh))
    notify("groups", lines=format_plan(assembly.plan), trainable=assembly.plan.trainable_count)
    start = time.monotonic()
    progress = _train(assembly, examples, tables.label_set, recipe, order, total_steps, notify, stop)
    seconds = time.monotonic() - start
    if progress.steps == 0:
        raise Interrupted("stopped before the first step; nothing was trained")
    model = _finish(assembly, progress, examples, tables.label_set, notify)
    return Fitted(
        model=model,
        label_set=tables.label_set,
        recipe=recipe,
        reasons=reasons,
        source=source,
        tokenizer=tokenised.tokenizer,
        tokenizer_files=files,
        metrics=progress.metrics,
        best_step=progress.best.step or progress.steps,
        steps=progress.steps,
        interrupted=progress.interrupted,
        train_seconds=seconds,
    )


def _resolve(tables: Tables, recipe: Recipe, source: EncoderSource, train: Examples) -> tuple[Recipe, dict[str, str]]:
    """Measure what the defaults depend on, and replace every `auto`."""
    label_set = tables.label_set
    names = list(label_set.names)
    probe, _ = build_model(recipe, source, task=label_set.task, label_names=names, pooling="mean")
    pooling: tuple[Any, str] = (recipe.model.pooling, "stated")
    if recipe.model.pooling == "auto":
        choice = choose_pooling(probe, train, label_set, seed=recipe.data.split_seed)
        pooling = (choice.pooling, choice.reason)
    facts = Facts(
        task=label_set.task,
        n_rows=len(train.tokens),
        n_outputs=label_set.n_outputs,
        lengths=train.tokens.lengths,
        layer_parameters=layer_parameters(probe),
        max_positions=max_positions(source.config),
        precision=choose_precision(pick_device()) if recipe.train.precision == "auto" else ("fp32", "stated"),
        pooling=pooling,
        threads=torch.get_num_threads(),
    )
    stated = recipe.to_dict()["data"]
    found = {key: _FOUND[key] for key in tables.settings if stated[key.partition(".")[2]] == "auto"}
    resolved, reasons = resolve(recipe.with_values(tables.settings), facts)
    return resolved, found | reasons


_FOUND = {
    **dict.fromkeys(("data.text", "data.pair", "data.label", "data.task"), "found in the training table"),
    "data.valid_fraction": "a tenth up to 500 rows, then a twentieth up to 2,000; 0 with a validation table",
}
"""Why the data section became what it is, where it was `auto`."""


def _data_order(recipe: Recipe, train: Examples) -> DataOrder:
    return DataOrder(
        lengths=train.tokens.lengths,
        step_size=settled(recipe.train.batch) * recipe.train.accumulate,
        seed=recipe.train.seed,
        token_budget=recipe.train.token_budget,
    )


def evaluation_steps(total_steps: int, epochs: float, per_epoch: int) -> set[int]:
    """The steps after which the validation split is scored: evenly spread, the last one always among them."""
    count = max(1, round(epochs * per_epoch))
    return {max(1, round(total_steps * (i + 1) / count)) for i in range(count)}


def _loss(recipe: Recipe, label_set: LabelSet, train: Examples, device: torch.device) -> LossSum:
    """The task's loss with the recipe's weights and smoothing."""
    weights = class_weights(recipe.loss.class_weights, label_set, train.targets)
    on_device = None if weights is None else torch.from_numpy(weights).to(device)
    return partial(
        loss_sum, task=label_set.task, class_weights=on_device, label_smoothing=settled(recipe.loss.label_smoothing)
    )


def _train(
    assembly: Assembly,
    examples: dict[str, Examples],
    label_set: LabelSet,
    recipe: Recipe,
    order: DataOrder,
    total_steps: int,
    notify: Notify,
    stop: Callable[[], bool],
) -> _Progress:
    """Run the loop to its end, to the end of patience, or until the user stops it."""
    metric, patience = recipe.train.metric, settled(recipe.train.patience)
    every_steps = settled(recipe.log.every_steps)
    progress = _Progress(BestWeights(lambda new, old: is_better(metric, new, old)))
    due = evaluation_steps(total_steps, settled(recipe.train.epochs), settled(recipe.train.evaluations_per_epoch))
    steps = optimizer_steps(
        assembly.model,
        examples["train"],
        assembly.optimizer,
        assembly.schedule,
        order=order,
        loss_sum=_loss(recipe, label_set, examples["train"], assembly.model.device),
        settings=StepSettings(
            recipe.train.accumulate, recipe.optim.max_grad_norm, recipe.train.seed, assembly.autocast
        ),
        last_step=total_steps,
    )
    if stop():
        return progress
    notify("start", total_steps=total_steps, rows=len(examples["train"].tokens))
    for step in steps:
        progress.steps = step.number
        progress.tokens += step.tokens
        if step.number % every_steps == 0 or step.number in (1, total_steps):
            notify("step", **vars(step), tokens_seen=progress.tokens, total_steps=total_steps)
        progress.interrupted = stop() and step.number < total_steps
        if "valid" in examples and (step.number in due or (progress.interrupted and progress.best.value is None)):
            result = evaluate(assembly.model, examples["valid"], label_set, autocast=assembly.autocast)
            best = progress.best.offer(
                assembly.model, result.metrics[metric], step.number, nll=result.metrics.get("nll", math.inf)
            )
            notify(
                "evaluation",
                split="valid",
                step=step.number,
                metrics=result.metrics,
                best=best,
                metric=metric,
            )
        if progress.interrupted:
            notify("interrupted", step=step.number, total_steps=total_steps)
            break
        if patience is not None and progress.best.evaluations_since >= patience:
            notify("early_stop", step=step.number, best_step=progress.best.step)
            break
    return progress


def _finish(
    assembly: Assembly,
    progress: _Progress,
    examples: dict[str, Examples],
    label_set: LabelSet,
    notify: Notify,
) -> Classifier:
    """The best weights back in the model, final metrics of the held-out splits, and the model made ready to ship."""
    model = assembly.model
    progress.best.restore(model)
    use_standard_attention(model)
    for split in ("valid", "test"):
        if split in examples:
            # In float32, whatever the training used: these are the figures of what the bundle will answer.
            result = evaluate(model, examples[split], label_set, autocast=nullcontext)
            progress.metrics[split] = result.metrics
            notify("final", split=split, metrics=result.metrics)
    torch.nn.Module.to(model, "cpu")
    if label_set.task == "regression":
        model.rescale_output(scale=label_set.target_scale, shift=label_set.target_mean)
    model.requires_grad_(True)
    model.train(False)
    return model
