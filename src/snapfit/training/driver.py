"""Drives the loop: decides after every step whether to evaluate, save, go back or stop.

Everything that decides how a training goes on is in `Training.progress`, the weights and the optimizer. All of it is
in each checkpoint, so that a training that was stopped anywhere goes on to the same weights.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.interrupts import Stop
from snapfit.core.metrics import is_better
from snapfit.core.recipe import settled
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.used_rows import used_ids
from snapfit.nn.weights import LoadReport
from snapfit.training.assemble import assemble, build_model
from snapfit.training.checkpoint import AVERAGES, BEST, MODEL, OPTIMIZER, Checkpoint, newest_valid
from snapfit.training.cycling import Cycling
from snapfit.training.evaluation import BestWeights, Evaluation, evaluate
from snapfit.training.guard import FAULTS, Guard, collapse
from snapfit.training.kept_head import keep_head
from snapfit.training.loop import Examples, Step, all_finite, optimizer_steps
from snapfit.training.members import Members
from snapfit.training.optimizer_state import optimizer_state, restore_optimizer_state
from snapfit.training.param_groups import format_plan
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.progress import Progress
from snapfit.training.regularise import step_loss, step_settings
from snapfit.training.room import check_room
from snapfit.training.saver import Saver
from snapfit.training.trajectory import Trajectory


class Training:
    """A training from its first step, or from a checkpoint, to its end.

    The arguments are those of `fit.fit`; start: whole weights to begin with, instead of the encoder's.
    Building it puts the model together and loads what there is to load.
    Attributes: assembly (model, optimizer, schedule) and progress.
    Raises BadInput for a checkpoint that does not fit the plan, and for a disk with too little room.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        notify: Notify,
        stop: Stop,
        saver: Saver | None = None,
        members: Members | None = None,
        resume: Checkpoint | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.plan = plan
        self._notify, self._stop, self._saver = notify, stop, saver
        recipe = plan.recipe
        model, report = build_model(
            recipe,
            plan.source,
            task=plan.label_set.task,
            label_names=list(plan.label_set.names),
            pooling=recipe.model.pooling,
        )
        train = plan.examples["train"]
        self.assembly = assemble(
            model,
            report,
            recipe,
            total_steps=plan.total_steps,
            device=plan.device,
            used=_used(train),
        )
        metric = recipe.train.metric
        self.progress = Progress(
            BestWeights(lambda new, old: is_better(metric, new, old)),
            Guard(recipe.train.max_recoveries, heaviest=1.0 if plan.weights is None else float(plan.weights.max())),
            recipe.train.accumulate,
            members=members,
            trajectory=Trajectory.of(recipe, self.assembly),
        )
        self._cycling = Cycling(self.assembly, self.progress, metric=metric, notify=notify)
        self._evaluation_steps = evaluation_steps(
            plan.total_steps, settled(recipe.train.epochs), settled(recipe.train.evaluations_per_epoch)
        )
        if members is not None and members.most:
            self._evaluation_steps |= set(self.assembly.cycles.ends)
        self._identity = plan.identity()
        self._safe_step, self._save_error, self._collapsed = -1, "", False
        self._norms: dict[str, float] = {}
        if saver is not None:
            check_room(plan, self.assembly, saver)
        if resume is None:
            report = self._first_weights(report, start)
            notify("weights", lines=report.lines(), loaded=len(report.loaded), fresh=list(report.fresh))
        else:
            self._restore(resume)
        lines, trainable = format_plan(self.assembly.plan), self.assembly.plan.trainable_count
        notify("groups", lines=lines, trainable=trainable)
        notify("engine", lines=list(self.assembly.engine))
        self._seconds_before = self.progress.seconds
        self._began = time.monotonic()

    def _first_weights(self, report: LoadReport, start: Mapping[str, Tensor] | None) -> LoadReport:
        """Weights beyond the encoder's to begin with; what is loaded then."""
        if self.plan.recipe.model.head == "kept":
            model, source = self.assembly.model, self.plan.source
            self._notify("notice", text=keep_head(model, source.folder, self.plan.label_set))
        elif start is not None:
            self.assembly.take(start, 1.0, source="the weights to start with")
        else:
            return report
        return replace(report, loaded=report.loaded + report.fresh, fresh=())

    @property
    def over(self) -> bool:
        """Whether no step is left to do: all are done, or patience ran out."""
        patience = settled(self.plan.recipe.train.patience)
        impatient = patience is not None and self.progress.best.evaluations_since >= patience
        return self.progress.evaluated and (self.progress.step >= self.plan.total_steps or impatient)

    def run(self, *, save_at_once: bool = False) -> None:
        """Train to the end, or until asked to stop; the last state is saved either way.

        save_at_once: and the first one too, as that of a new training is.
        Raises WorkFailed when numbers go wrong too often, or when a stopped run cannot be saved.
        """
        if self._stop():
            return
        self._notify(
            "start",
            total_steps=self.plan.total_steps,
            step=self.progress.step,
            rows=len(self.plan.examples["train"].tokens),
        )
        if save_at_once or self.progress.step == 0:
            self._save()
        if not self.progress.evaluated:
            self._evaluate()
        while not (self.over or self._stop()):
            self._advance()
        if self.over:
            self._cycling.keep_averages()
        self._cycling.report(to_the_end=True)
        self._save_the_end()
        if self.over:
            if self.progress.step < self.plan.total_steps:
                self._notify("early_stop", step=self.progress.step, best_step=self.progress.best.step)
        else:
            self._notify("interrupted", step=self.progress.step, total_steps=self.plan.total_steps)
            if not self._stop.hurry and self.progress.step and self.progress.best.value is None:
                self._evaluate(to_the_end=True)

    # ---------------------------------------------------------------- steps

    def _advance(self) -> None:
        """Run the loop until the training is over, is stopped, or went back to a checkpoint."""
        for step in self._steps():
            self._take(step)
            if self._went_wrong(step):
                return
            self.progress.trajectory.after(step.number, self.assembly)
            if step.number in self._evaluation_steps:
                self.progress.evaluated = False
                self._evaluate()
            every = self.plan.recipe.checkpoint.every_steps
            if every is not None and step.number % settled(every) == 0 and not self._stop():
                self._save(patient=True)
            if self.over or self._stop():
                return

    def _steps(self) -> Iterator[Step]:
        progress, assembly, recipe, plan = self.progress, self.assembly, self.plan.recipe, self.plan
        guard, cycling = progress.guard, self._cycling
        return optimizer_steps(
            assembly.model,
            plan.examples["train"],
            assembly.optimizer,
            lambda number: cycling.rate(number) * guard.rate_factor,
            head_schedule=lambda number: cycling.rate(number, head=True) * guard.rate_factor,
            order=plan.order,
            loss_sum=step_loss(plan, assembly.model.device),
            settings=step_settings(
                recipe,
                assembly,
                micro_batches=progress.micro_batches,
                accepts=guard.accepts,
                begin=assembly.begin,
            ),
            last_step=plan.total_steps,
            first_step=progress.step,
            epoch=progress.epoch,
            position=progress.position,
        )

    def _take(self, step: Step) -> None:
        """Note what a step did."""
        progress = self.progress
        progress.step, progress.epoch, progress.position = step.number, step.epoch, step.position + 1
        progress.tokens += step.tokens
        progress.seconds = self._seconds_before + time.monotonic() - self._began
        self._norms = step.group_norms
        if step.micro_batches > progress.micro_batches:
            progress.micro_batches = step.micro_batches
            self._notify("memory", step=step.number, micro_batches=step.micro_batches, rows=step.rows)
        if step.fault is None:
            progress.guard.saw(step.loss)
        every, total = settled(self.plan.recipe.log.interval_steps), self.plan.total_steps
        if step.number % every == 0 or step.number in (1, total) or step.fault:
            self._notify("step", **vars(step), tokens_seen=progress.tokens, total_steps=total)

    # ---------------------------------------------------------------- when numbers go wrong

    def _went_wrong(self, step: Step) -> bool:
        """See to a step that went wrong, and to saves that ended; returns whether the run went back."""
        unsound = self._report_saves()
        if step.number in self._evaluation_steps and not all_finite(self.assembly.model.state_dict().values()):
            unsound = unsound or "a weight is not finite"  # now, for such weights cannot be evaluated
        if step.fault is None and unsound is None:
            return False
        why = unsound or FAULTS[step.fault or "weights"].format(loss=step.loss, grad_norm=step.grad_norm)
        self.progress.guard.count(step.number, why)
        if unsound is None and step.fault != "weights" and all_finite(self.assembly.model.state_dict().values()):
            self._notify("fault", step=step.number, why=why, action="its batch is skipped")
            return False
        self._go_back(why)
        return True

    def _go_back(self, why: str) -> None:
        """Restore the newest checkpoint, and cut the rates from there on."""
        progress, from_step = self.progress, self.progress.step
        recoveries, rate_factor = progress.guard.recoveries, progress.guard.rate_factor
        checkpoint = None
        if self._saver is not None:
            self._saver.wait()
            self._saver.outcomes()
            checkpoint, _ = newest_valid(self._saver.root)
        if checkpoint is None:
            raise WorkFailed(f"step {from_step}: {why}; there is no checkpoint to go back to; lower optim.lr")
        self._restore(checkpoint)
        progress.guard.recoveries, progress.guard.rate_factor = recoveries, rate_factor
        progress.guard.slow_down()
        self._notify(
            "rollback", step=progress.step, from_step=from_step, why=why, rate_factor=progress.guard.rate_factor
        )

    # ---------------------------------------------------------------- evaluation

    def _evaluate(self, *, to_the_end: bool = False) -> None:
        """Score the validation split and remember the best weights; a request to stop leaves that for later.

        to_the_end: do not ask whether to stop.
        """
        progress, plan, metric = self.progress, self.plan, self.plan.recipe.train.metric
        result = None
        if "valid" in plan.examples:
            with self.assembly.whole():
                result = evaluate(
                    self.assembly.model,
                    plan.examples["valid"],
                    plan.label_set,
                    autocast=self.assembly.autocast,
                    stop=Stop() if to_the_end else self._stop,
                )
                if result is None:
                    return
                nll = result.metrics.get("nll", math.inf)
                best = progress.best.offer(self.assembly.model, result.metrics[metric], progress.step, nll=nll)
            self._notify(
                "evaluation", split="valid", step=progress.step, metrics=result.metrics, best=best, metric=metric
            )
            self._look_for_collapse(result)
        if not progress.evaluated:
            self._cycling.evaluated(result)
        progress.evaluated = True

    def _look_for_collapse(self, result: Evaluation) -> None:
        """In the second half of a training, say once when it has learnt nothing."""
        if self._collapsed or 2 * self.progress.step < self.plan.total_steps:
            return
        text = collapse(result.rows, result.answer_range, self.plan.label_set, self._norms)
        if text is not None:
            self._collapsed = True
            self._notify("collapsed", step=self.progress.step, text=text)

    # ---------------------------------------------------------------- checkpoints

    def _save(self, *, patient: bool = False) -> None:
        """Begin to save the state as it is; see Saver.save for `patient`."""
        if self._saver is None:
            return
        progress = self.progress
        weights, decay = self.assembly.weights()
        tensors, values = optimizer_state(self.assembly.model, self.assembly.optimizer)
        state = {
            "step": progress.step,
            "progress": progress.to_dict(),
            "optimizer": values,
            "unused_rows_decay": decay,
            "identity": self._identity,
        }
        best = {} if progress.best.step == progress.step else progress.best.weights
        unchanging = {BEST: best, AVERAGES: progress.trajectory.tensors()}
        self._saver.save(state, {MODEL: weights, OPTIMIZER: tensors}, unchanging, patient=patient)

    def _save_the_end(self) -> None:
        """Save the last state, and wait for it. Raises WorkFailed when a stopped training cannot be saved."""
        if self._saver is None:
            return
        self._saver.wait()
        self._report_saves()
        if self.progress.step in (0, self._safe_step):
            return
        self._save()
        self._saver.wait()
        self._report_saves()
        if self._safe_step != self.progress.step and not self.over:
            raise WorkFailed(
                f"stopped after step {self.progress.step:,}, which could not be saved: {self._save_error}; "
                f"the last checkpoint is that of step {max(self._safe_step, 0):,}"
            )

    def _report_saves(self) -> str | None:
        """Tell of saves that ended; returns what is wrong with the state if one found that."""
        unsound = None
        for outcome in self._saver.outcomes() if self._saver is not None else ():
            if outcome.checkpoint is not None:
                self._safe_step = outcome.step
                self._notify(
                    "checkpoint",
                    step=outcome.step,
                    folder=outcome.checkpoint.folder.name,
                    blocked_seconds=round(outcome.blocked_seconds, 4),
                    seconds=round(outcome.seconds, 4),
                )
            if outcome.error is not None:
                self._save_error = outcome.error
                self._notify("checkpoint_failed", step=outcome.step, error=outcome.error)
            unsound = unsound or outcome.not_finite
        return None if unsound is None else f"{unsound} holds numbers that are not finite"

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state. Raises BadInput when it does not fit the plan."""
        model, state = self.assembly.model, checkpoint.state
        weights = checkpoint.tensors(MODEL)
        try:
            self.assembly.take(weights, float(state["unused_rows_decay"]), source=str(checkpoint.folder))
            values = state["progress"]
            restore_optimizer_state(model, self.assembly.optimizer, checkpoint.tensors(OPTIMIZER), state["optimizer"])
            best = checkpoint.tensors(BEST)
            if values["best"]["value"] is not None and not best:  # they are those of this very step
                with self.assembly.whole():
                    best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            anew = self.progress.restore(values, best, checkpoint.tensors(AVERAGES))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"the state in {checkpoint.folder} cannot be used: {error!r}", "a state of this snapfit", "remove it"
            ) from error
        for text in anew:
            self._notify("notice", text=text)
        self._safe_step = checkpoint.step
        self._seconds_before, self._began = self.progress.seconds, time.monotonic()


def evaluation_steps(total_steps: int, epochs: float, per_epoch: int) -> set[int]:
    """The steps after which the validation split is scored: evenly spread, the last one always among them."""
    count = max(1, round(epochs * per_epoch))
    return {max(1, round(total_steps * (i + 1) / count)) for i in range(count)}


def _used(train: Examples) -> np.ndarray | None:
    """The token ids that are trained on; None for a large table: not all of it is known yet, and few ids are unused."""
    if not isinstance(train.tokens, TokenIds):
        return None
    return np.union1d(used_ids(train.tokens), [train.pad_id])  # padded batches look up what they pad with
