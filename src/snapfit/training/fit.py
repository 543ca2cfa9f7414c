"""Fine-tuning, composed: a plan in, a trained classifier with its metrics out.

This module puts together what the other modules of its folder do; it prints nothing, and writes no files but
checkpoints. Whoever calls it hears of every step through `notify`.
"""

from contextlib import closing, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snapfit.core.errors import Interrupted, WorkFailed
from snapfit.core.interrupts import Stop
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.data.tokenizer import TextTokenizer
from snapfit.nn.classifier import Classifier
from snapfit.nn.encoder import EncoderSource, TokenizerFiles
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.checkpoint import Checkpoint
from snapfit.training.driver import Training
from snapfit.training.evaluation import evaluate
from snapfit.training.members import Members
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.saver import Saver


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, and all that a bundle says about it.

    model: on the CPU, in evaluation mode, with the best weights; a regression's logits are in target units.
    recipe: resolved. reasons: why each `auto` became what it is. metrics: by split, then by name.
    best_step: the step of the weights, steps: all that were done. complete: whether no step was left to do.
    train_seconds: of all steps, those before an interruption included. averages: of the weights along the training, as
    `Trajectory.averages` gives them: a regression's are as it trained, before its logits came to target units.
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
    complete: bool
    train_seconds: float
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def fit(
    plan: Plan,
    *,
    notify: Notify,
    stop: Stop | None = None,
    saver: Saver | None = None,
    members: Members | None = None,
    resume: Checkpoint | None = None,
    save_at_once: bool = False,
) -> Fitted:
    """Train as planned.

    notify: hears of everything as events (see journal.py). stop: asked after every step and in evaluations; it ends
    the training with the best weights so far. saver: writes checkpoints; without one a run cannot go back when weights
    go wrong. members: keeps weights on the way; its owner closes it. resume: a verified checkpoint of the same training
    to go on from.
    Raises WorkFailed when numbers go wrong for good or the last state cannot be saved; Interrupted when stopped before
    the first step, or in a hurry, after the state was saved.
    """
    stop = stop or Stop()
    with closing(plan), torch_as_wanted(plan.recipe):
        training = Training(plan, notify=notify, stop=stop, saver=saver, members=members, resume=resume)
        with stop.deferred():
            training.run(save_at_once=save_at_once)
        return _finish(plan, training, notify, stop)


def _finish(plan: Plan, training: Training, notify: Notify, stop: Stop) -> Fitted:
    """The best weights back in the model, final metrics of the held-out splits, and the model made ready to ship."""
    progress = training.progress
    if progress.step == 0:
        raise Interrupted("stopped before the first step; nothing was trained")
    if stop() and stop.hurry:
        raise Interrupted(f"stopped after step {progress.step:,} of {plan.total_steps:,}")
    model = training.assembly.model
    training.assembly.finish()
    progress.best.put_into(model)
    metrics: dict[str, dict[str, float]] = {}
    for split in ("valid", "test"):
        if split in plan.examples:
            # In float32, whatever the training used: these are the figures of what the bundle will answer.
            result = evaluate(model, plan.examples[split], plan.label_set, autocast=nullcontext)
            if result is None:
                raise WorkFailed("an evaluation that nobody stopped has stopped")
            metrics[split] = result.metrics
            notify("final", split=split, step=progress.step, metrics=result.metrics)
    training.assembly.release()
    torch.nn.Module.to(model, "cpu")
    if plan.label_set.task == "regression":
        model.rescale_output(scale=plan.label_set.target_scale, shift=plan.label_set.target_mean)
    model.requires_grad_(True)
    model.train(False)
    return Fitted(
        model=model,
        label_set=plan.label_set,
        recipe=plan.recipe,
        reasons=plan.reasons,
        source=plan.source,
        tokenizer=plan.tokenizer,
        tokenizer_files=plan.tokenizer_files,
        metrics=metrics,
        best_step=progress.best.step or progress.step,
        steps=progress.step,
        complete=training.over,
        train_seconds=progress.seconds,
        averages=progress.trajectory.averages(),
    )
