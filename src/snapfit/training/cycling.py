"""What happens where a cycle ends: its weights are kept, unless they left the basin, and a round may begin anew."""

from collections.abc import Mapping

import torch
from torch import Tensor

from snapfit.core.errors import WorkFailed
from snapfit.core.metrics import standard_error
from snapfit.training.assemble import Assembly
from snapfit.training.evaluation import Evaluation
from snapfit.training.members import Member, Members
from snapfit.training.optimizer_state import forget_momentum
from snapfit.training.prepare import Notify
from snapfit.training.progress import Progress
from snapfit.training.trajectory import AVERAGES

MOST_NLL = 1.25
"""Times the anchor's nll (or error) from which a round counts as having left the basin of the anchor."""
STANDARD_ERRORS = 2.0
"""By which its metric must be worse than the anchor's to count so."""
COOLER = 0.5
"""What the rates of the rounds after such a one are multiplied by."""


class Cycling:
    """Keeps a training's members and begins its rounds.

    metric: what decides which weights are best. Its state is in the progress: the members, and `restart_factor`.
    """

    def __init__(self, assembly: Assembly, progress: Progress, *, metric: str, notify: Notify) -> None:
        self._assembly, self._progress, self._metric, self._notify = assembly, progress, metric, notify
        self._members, self._fixed = progress.members, assembly.fixed()

    def rate(self, step: int, *, head: bool = False) -> float:
        """The multiplier of the peak rates in a step (from 0)."""
        cycles = self._assembly.cycles
        multiplier = (cycles.head if head else cycles.encoder)(step)
        return multiplier * self._progress.restart_factor if cycles.in_rounds(step) else multiplier

    def evaluated(self, result: Evaluation | None) -> None:
        """See to what is due after the step that was just evaluated. result: None without a validation split."""
        progress, cycles = self._progress, self._assembly.cycles
        if self._members is not None:
            self._keep(self._members, result)
        if cycles.restarts_after(progress.step):
            self._begin_round()

    def keep_averages(self) -> None:
        """Put the averages along the training beside the members; for its end."""
        if self._members is None:
            return
        trajectory = self._progress.trajectory
        averages = trajectory.averages()
        for name in AVERAGES:
            if name in averages:
                member = Member(trajectory.last_step(name), name, {})
                self._members.add(member, averages[name], fixed=self._fixed)

    def report(self, *, to_the_end: bool = False) -> None:
        """Tell of members that could not be written. to_the_end: wait for those that are being written."""
        for error in self._members.failures(to_the_end=to_the_end) if self._members is not None else ():
            self._notify("notice", text=f"a member could not be kept: {error}")

    # ---------------------------------------------------------------- parts

    def _keep(self, members: Members, result: Evaluation | None) -> None:
        """Make the weights a member, where they are to be one."""
        progress, cycles = self._progress, self._assembly.cycles
        step, metrics = progress.step, {} if result is None else result.metrics
        ends = step in cycles.ends
        if not ends and result is None:
            return
        left = self._left_the_basin(members, result) if ends and cycles.rounds else None
        if left is not None:
            progress.restart_factor *= COOLER
            self._notify("left_basin", step=step, why=left, restart_factor=progress.restart_factor)
            return
        anchor = ends and cycles.rounds > 0 and step == cycles.ends[0]
        member = Member(step, "anchor" if anchor else "cycle" if ends else "best", metrics)
        if members.would_keep(member):
            members.add(member, self._weights(), fixed=self._fixed)
            self._notify("member", step=step, why=member.why, metrics=metrics)
        self.report()

    def _left_the_basin(self, members: Members, result: Evaluation | None) -> str | None:
        """In words, by what a round is clearly worse than the anchor; None if it is not."""
        anchor = next((member for member in members.all if member.why == "anchor"), None)
        if anchor is None or result is None:
            return None
        error = "nll" if "nll" in result.metrics else "rmse"
        then, now = anchor.metrics[error], result.metrics[error]
        if now > MOST_NLL * then:
            return f"its {error} is {now:.4f}, the anchor's {then:.4f}"
        then, now = anchor.metrics[self._metric], result.metrics[self._metric]
        spread = standard_error(self._metric, then, result.rows)
        if spread is not None and then - now > STANDARD_ERRORS * spread:
            return f"its {self._metric} is {now:.4f}, the anchor's {then:.4f} +- {spread:.4f}"
        return None

    def _begin_round(self) -> None:
        """Weights of the anchor where rounds are a star, and no heading from before."""
        if self._assembly.cycles.star and self._progress.step != self._assembly.cycles.ends[0]:
            members = self._members
            anchor = None if members is None else next((one for one in members.all if one.why == "anchor"), None)
            if members is None or anchor is None:
                raise WorkFailed("the snapshot of the anchor is gone, from which the next round was to begin")
            self._assembly.take(members.weights(anchor), 1.0, source="the anchor's snapshot")
        forget_momentum(self._assembly.optimizer)
        self._notify("round", step=self._progress.step, star=self._assembly.cycles.star)

    def _weights(self) -> Mapping[str, Tensor]:
        """The weights as they are now, the best ones' copy where they are those."""
        if self._progress.best.step == self._progress.step and self._progress.best.weights:
            return self._progress.best.weights
        with torch.no_grad(), self._assembly.whole():
            return {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in self._assembly.model.state_dict().items()
            }
