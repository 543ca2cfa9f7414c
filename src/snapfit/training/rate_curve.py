"""What a range test saw, loss over rate, and which rate it suggests: plain arithmetic, without a model.

The test (Smith 2017; fastai's `lr_find`) raises the rate exponentially from step to step, until the loss runs away.
Losses are smoothed twice. While the test runs, an exponential mean with bias correction (Kingma and Ba 2015, section 3)
tells when it is over. Such a mean is behind, by several steps, in which the rate doubled and more. So the curve that
rates are read from is an exponential mean to both sides, which is not behind. See docs/learning-rates.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import median

from snapfit.core.errors import BadInput

DIVERGED = 4.0
"""The test is over where the running mean is more than so many times its least so far, as in fastai."""
RUNNING = 0.9
"""Weight of the past in the running mean. fastai's 0.98 is made for whole trainings: it averages some fifty steps."""
SMOOTHING = 0.8
"""Weight of each further neighbour in the smoothed curve."""
FEWEST_STEPS = 10
"""A test of fewer says nothing. So many at its beginning say what a model that has learnt nothing has."""
HALF_WINDOW = 0.05
"""A slope is taken over this share of all steps on both sides."""
CLEAR = 2.0
"""A fall is clear from so many standard deviations of a single step's loss on: eight or so of the smoothed curve's."""
SAFETY = 10.0
"""The rate of the least loss is divided by this for the cautious choice, as in fastai."""


def exponential_rates(lowest: float, highest: float, steps: int) -> Callable[[int], float]:
    """The rate of each step (from 0): `lowest` at first, `highest` at the last, by an equal factor from step to step.

    Raises BadInput unless 0 < lowest < highest, both finite, and steps is at least FEWEST_STEPS.
    """
    if not (math.isfinite(highest) and 0 < lowest < highest):
        raise BadInput(
            f"rates from {lowest:g} to {highest:g}",
            "a lowest rate above 0 and a highest above it",
            "--lowest 1e-7 --highest 1",
        )
    if steps < FEWEST_STEPS:
        raise BadInput(f"a range test of {steps} steps", f"at least {FEWEST_STEPS} steps", "--steps 100")
    growth = math.log(highest) - math.log(lowest)  # of their quotient it would overflow sooner
    last = steps - 1
    return lambda step: highest if step >= last else lowest * math.exp(growth * step / last)


@dataclass
class RateCurve:
    """The steps of a range test, in order.

    rates, losses: of each step; losses are finite. over: why no more are taken, "diverged" or "not finite"; else "".
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    over: str = ""

    def __post_init__(self) -> None:
        self._sum, self._least = 0.0, math.inf

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, rate: float, loss: float) -> None:
        """Note a step. A loss that is not finite is not kept; it ends the test."""
        if not math.isfinite(loss):
            self.over = "not finite"
            return
        self.rates.append(rate)
        self.losses.append(loss)
        self._sum = RUNNING * self._sum + (1 - RUNNING) * loss
        running = self._sum / (1 - RUNNING ** len(self))  # the sum began with 0, which has the rest of the weight
        self._least = min(self._least, running)
        if len(self) > FEWEST_STEPS and running > DIVERGED * self._least:
            self.over = "diverged"

    def smoothed(self) -> list[float]:
        """The smoothed loss of each step: a mean of all losses, SMOOTHING to the power of the distance their weights.

        A loss that has run away is cut off a little above where the test began, or the last ones would hide what was
        before them: how far a model that is lost went astray says nothing.
        """
        ceiling = median(self.losses[:FEWEST_STEPS]) + 3 * spread(self.losses)
        losses = [min(loss, ceiling) for loss in self.losses]
        sums, weights = _both_ways(losses), _both_ways([1.0] * len(losses))
        return [total / weight for total, weight in zip(sums, weights, strict=True)]


def _both_ways(values: Sequence[float]) -> list[float]:
    """The sum of all values around each one, weighted by SMOOTHING to the power of their distance."""

    def before(ordered: Sequence[float]) -> list[float]:
        return list(accumulate(ordered, lambda total, value: SMOOTHING * total + value))

    return [a + b - c for a, b, c in zip(before(values), before(values[::-1])[::-1], values, strict=True)]


def spread(losses: Sequence[float]) -> float:
    """The standard deviation of a step's loss around its trend, 0 of fewer than two steps.

    From the differences of neighbours, and by their median, so that neither the trend nor losses that run away count
    (1.4826: for a normal distribution).
    """
    differences = [abs(after - before) for before, after in pairwise(losses)]
    return 1.4826 * median(differences) / math.sqrt(2.0) if differences else 0.0


# ---------------------------------------------------------------- which rate


@dataclass(frozen=True)
class Suggestion:
    """Rates that a curve suggests.

    steepest: where the loss falls fastest over the rate's logarithm. least: where it is lowest.
    rate: the one to take, which is the steepest to two digits. All three are None where the loss does not fall clearly.
    why: of the choice, or of there being none.
    """

    steepest: float | None
    least: float | None
    rate: float | None
    why: str

    @property
    def tenth(self) -> float | None:
        """A tenth of the rate of the least loss."""
        return None if self.least is None else self.least / SAFETY


def suggest(curve: RateCurve) -> Suggestion:
    """The rates that a curve suggests; the rule is in docs/learning-rates.md."""
    if len(curve) <= FEWEST_STEPS:
        return _none(f"{len(curve)} steps are too few")
    losses, noise = curve.smoothed(), spread(curve.losses)
    start = median(curve.losses[:FEWEST_STEPS])
    lowest = min(range(len(losses)), key=losses.__getitem__)
    fall = start - losses[lowest]
    if not fall > CLEAR * noise:
        return _none(f"the loss fell by {fall:.2g} at most, while single steps vary by {noise:.2g}")
    # The fall begins where a tenth of it is done for good; before, the steepest place is one of chance.
    begin = max((step for step in range(lowest) if losses[step] >= start - 0.1 * fall), default=0)
    steepest = _steepest(curve.rates, losses, begin, lowest)
    rose = bool(curve.over) or losses[-1] - losses[lowest] > noise
    why = "the steepest: there a step gains most" + ("" if rose else _NOT_RISEN)
    return Suggestion(steepest, curve.rates[lowest], float(f"{steepest:.1e}"), why)


_NOT_RISEN = "; the loss had not risen again at the end, so a test up to a higher rate may find a higher one"


def _none(why: str) -> Suggestion:
    return Suggestion(None, None, None, why)


def _steepest(rates: Sequence[float], losses: Sequence[float], begin: int, lowest: int) -> float:
    """The rate at which the smoothed loss falls fastest, between two steps."""
    half, last = max(round(HALF_WINDOW * len(rates)), 1), len(rates) - 1

    def slope(step: int) -> float:
        before, after = max(step - half, 0), min(step + half, last)
        return (losses[after] - losses[before]) / math.log(rates[after] / rates[before])

    return rates[min(range(begin, lowest + 1), key=slope)]
