"""Fine-tuning, composed: a plan in, a trained classifier with its metrics out.

This module puts together what the other modules of its folder do; it prints nothing, and writes no files but
checkpoints. Whoever calls it hears of every step through `notify`.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import Interrupted
from snapfit.core.interrupts import Stop
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.data.tokenizer import TextTokenizer
from snapfit.nn.classifier import Classifier
from snapfit.nn.encoder import EncoderSource, TokenizerFiles
from snapfit.training.answer import Answer
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.checkpoint import Checkpoint
from snapfit.training.deciding import decide_and_measure
from snapfit.training.driver import Training
from snapfit.training.held_out import HeldOut
from snapfit.training.members import Members
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.saver import Saver
from snapfit.training.verdict import Verdict
from snapfit.training.weighing import Beyond, Stopped, Weighing


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, and all that a bundle says about it.

    model: on the CPU, in evaluation mode, with the best weights; a regression's logits are in target units.
    recipe: resolved. reasons: why each `auto` became what it is. metrics: by split, then by name.
    best_step: the step of the weights, steps: all that were done. complete: whether no step was left to do.
    train_seconds: of all steps, those before an interruption included. verdict: on its members, where it kept any.
    rule: how answers are made of the logits that ship. report: what is known about it (see `rule_fitting.FittedRule`).
    answer: whose scores ship, where that is not `model` alone.
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
    rule: DecisionRule
    report: dict[str, Any]
    verdict: Verdict | None = None
    answer: Answer | None = None


def fit(
    plan: Plan,
    *,
    notify: Notify,
    stop: Stop | None = None,
    saver: Saver | None = None,
    members: Members | None = None,
    resume: Checkpoint | None = None,
    save_at_once: bool = False,
    beyond: Beyond | None = None,
    held_out: HeldOut | None = None,
) -> Fitted:
    """Train as planned, and where members were kept let the verdict on them decide what ships.

    notify: hears of everything as events (see journal.py). stop: asked after every step and in evaluations; it ends
    the training with the best weights so far. saver: writes checkpoints; without one a run cannot go back when weights
    go wrong. members: keeps weights on the way; its owner closes it. resume: a verified checkpoint of the same training
    to go on from. held_out: what models made alike said of rows that they had not seen, to which the decision
    rule is fitted.
    Raises WorkFailed when numbers go wrong for good or the last state cannot be saved; Interrupted when stopped before
    the first step, or in a hurry, after the state was saved.
    """
    stop = stop or Stop()
    with closing(plan), torch_as_wanted(plan.recipe):
        training = Training(plan, notify=notify, stop=stop, saver=saver, members=members, resume=resume)
        with stop.deferred():
            training.run(save_at_once=save_at_once)
            verdict, complete = _weigh(plan, training, members, notify, stop, beyond or Beyond())
        return _finish(plan, training, verdict, notify, stop, complete=complete, held_out=held_out)


def _weigh(
    plan: Plan, training: Training, members: Members | None, notify: Notify, stop: Stop, beyond: Beyond
) -> tuple[Verdict | None, bool]:
    """The verdict, where there is something to choose and enough to choose by; and whether no work is left to do."""
    training.assembly.finish()
    if not training.over or members is None or "valid" not in plan.examples:
        return None, training.over
    weighing = Weighing(plan, training, members, notify=notify, stop=stop)
    if not weighing.possible:
        return None, True
    try:
        return weighing.verdict(beyond), True
    except Stopped:
        return None, False


def _finish(
    plan: Plan,
    training: Training,
    verdict: Verdict | None,
    notify: Notify,
    stop: Stop,
    *,
    complete: bool,
    held_out: HeldOut | None,
) -> Fitted:
    """What ships back in the model, final metrics of the held-out splits, and the model made ready to ship."""
    progress = training.progress
    if progress.step == 0:
        raise Interrupted("stopped before the first step; nothing was trained")
    if stop() and stop.hurry:
        raise Interrupted(f"stopped after step {progress.step:,} of {plan.total_steps:,}")
    model = training.assembly.model
    progress.best.put_into(model)
    if verdict is not None:
        notify("verdict", step=progress.step, **verdict.to_dict())
        model.load_state_dict(dict(verdict.team.weights[0]))
    team = None if verdict is None else verdict.team
    decided = decide_and_measure(plan, training, team, notify, held_out=held_out)
    training.assembly.release()
    torch.nn.Module.to(model, "cpu")
    others = () if verdict is None else verdict.team.weights[1:]
    if plan.label_set.task == "regression":
        others = tuple(_rescaled(model, weights, plan) for weights in others)
        if verdict is not None:
            model.load_state_dict(dict(verdict.team.weights[0]))
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
        metrics=decided.metrics,
        best_step=progress.best.step or progress.step,
        steps=progress.step,
        complete=complete,
        train_seconds=progress.seconds,
        verdict=verdict,
        answer=_answer(verdict, others, held_out),
        rule=decided.rule,
        report=decided.report,
    )


def _answer(
    verdict: Verdict | None, others: tuple[Mapping[str, Tensor], ...], held_out: HeldOut | None
) -> Answer | None:
    """What the bundle says of its models; None for one model as it came."""
    if verdict is None:
        return None if held_out is None else Answer(held_out.name, made_of={"rule": held_out.source})
    team = verdict.team
    return Answer(
        name=verdict.rows[verdict.chosen].name,
        others=others,
        shares=team.shares,
        temperatures=team.temperatures,
        made_of=verdict.made_of,
    )


def _rescaled(model: Classifier, weights: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Weights of a regression whose logits are in the units of the table."""
    model.load_state_dict(dict(weights))
    model.rescale_output(scale=plan.label_set.target_scale, shift=plan.label_set.target_mean)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
