"""What happens when numbers go wrong: which losses are learnt from, and when a run goes back, goes on or gives up.

The rules, in the order in which they apply to a step:

- A loss or gradient that is not finite, or a loss beyond SPIKE times what a model that knows nothing has (where rows
  have weights, SPIKE times the largest of them): nothing of the step is applied, its batch is skipped, the schedule
  goes on.
- A weight or an optimizer's number that is not finite: back to the last checkpoint, and every rate is halved from
  there on, for the same steps at the same rates would end in the same place.
- More than `train.max_recoveries` of these in one run, and it fails.
"""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from snapfit.core.errors import WorkFailed
from snapfit.core.labels import LabelSet

SPIKE = 20.0
"""How many times the usual loss is too much. A mean loss of 20 times that of an untrained model is no mislabelled
batch: the logits, or the weights behind them, have gone astray."""
RECENT_STEPS = 32
FIRST_STEPS = 8
RATE_CUT = 0.5


class Guard:
    """Watches the losses of a run and counts what went wrong in it.

    max_recoveries: how many skipped batches and rollbacks are borne. heaviest: what a row weighs in the loss at most,
    the mean row weighing 1: a step of such rows alone is no spike.
    Attributes: recoveries, so far; rate_factor, what every rate is multiplied by.
    """

    def __init__(self, max_recoveries: int, *, heaviest: float = 1.0) -> None:
        self._max_recoveries, self._spike = max_recoveries, SPIKE * max(heaviest, 1.0)
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._usual: float | None = None
        self.recoveries = 0
        self.rate_factor = 1.0

    def accepts(self, loss: float) -> bool:
        """Whether a finite loss may be learnt from: it is not far beyond both the first and the latest losses."""
        if self._usual is None:
            return True
        return loss <= self._spike * max(self._usual, median(self._recent))

    def saw(self, loss: float) -> None:
        """Take note of the loss of a step that was learnt from."""
        self._recent.append(loss)
        if self._usual is None and len(self._recent) == FIRST_STEPS:
            self._usual = median(self._recent)

    def count(self, step: int, what: str) -> None:
        """Count a recovery. Raises WorkFailed when there were too many."""
        self.recoveries += 1
        if self.recoveries > self._max_recoveries:
            raise WorkFailed(
                f"step {step}: {what}; {self._max_recoveries} steps of this run were skipped or undone before "
                "(train.max_recoveries); lower optim.lr, or look for damaged rows and weights"
            )

    def slow_down(self) -> None:
        """Cut every rate from here on."""
        self.rate_factor *= RATE_CUT

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `restore` makes an equal guard."""
        return {
            "recent": list(self._recent),
            "usual": self._usual,
            "recoveries": self.recoveries,
            "rate_factor": self.rate_factor,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take over what `to_dict` gave."""
        self._recent = deque((float(loss) for loss in values["recent"]), maxlen=RECENT_STEPS)
        self._usual = None if values["usual"] is None else float(values["usual"])
        self.recoveries = int(values["recoveries"])
        self.rate_factor = float(values["rate_factor"])


FEWEST_ROWS = 20
"""Fewer validation rows with the same answer prove nothing."""
DEAD_SHARE = 1e-4
"""A group whose gradients' norm is below this share of the largest group's gets no signal to learn from."""


def collapse(
    rows: int, answer_range: tuple[float, float] | None, label_set: LabelSet, group_norms: Mapping[str, float]
) -> str | None:
    """What a training that learnt nothing looks like, in words; None when it does not look like that.

    rows, answer_range: of an evaluation of the validation split. group_norms: of the latest step's gradients, by group.
    """
    if rows < FEWEST_ROWS or answer_range is None:
        return None
    lowest, highest = answer_range
    if label_set.task == "single":
        if lowest != highest:
            return None
        text = f"all {rows:,} validation rows are answered {label_set.names[int(lowest)]!r}"
    else:
        if highest - lowest > 1e-3 * label_set.target_scale:
            return None
        text = f"all {rows:,} validation rows are answered {lowest:.4g}"
    text += ", as by a model that learnt nothing"
    largest = max(group_norms.values(), default=0.0)
    dead = [name for name, norm in group_norms.items() if norm < DEAD_SHARE * largest]
    if dead:
        text += f"; hardly any gradient reaches {', '.join(dead[:3])}{' and others' if len(dead) > 3 else ''}"
    return f"{text}; lower optim.lr or raise schedule.warmup_fraction, and look at the labels"


FAULTS = {
    "loss": "the loss is {loss:.4g}",
    "gradient": "the gradient's norm is {grad_norm:.4g}",
    "spike": "the loss is {loss:.4g}, far beyond all before it",
    "weights": "the update left weights that are not finite",
}
"""What a step's fault is, in words."""
