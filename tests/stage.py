"""A tiny training on the driver alone, without run folder and bundle, on which tests can act after every event."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

import toys
from snapfit.core.interrupts import Stop
from snapfit.core.recipe import Recipe
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.checkpoint import Checkpoint, newest_valid
from snapfit.training.driver import Training
from snapfit.training.members import Members
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables
from snapfit.training.saver import Saver

Event = dict[str, Any]
SETTINGS = toys.QUICK | {
    "model__pooling": "mean",
    "model__dropout": 0.2,
    "train__epochs": 2,
    "train__threads": 1,
    "train__evaluations_per_epoch": 2,
    "checkpoint__every_steps": 4,
    "log__interval_steps": 1,
}
"""12 steps over 48 rows, evaluations after steps 3, 6, 9 and 12, saves after 4, 8 and 12."""


def make_plan_on(encoder: Path, *, valid: bool = True, **settings: Any) -> Plan:
    """The plan of the training of SETTINGS, with 24 validation rows or none."""
    values = {"model__encoder": str(encoder)} | SETTINGS | ({} if valid else {"data__valid_fraction": 0.0})
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in (values | settings).items()})
    held_out = toys.single_rows(24, seed=1) if valid else None
    tables = read_tables(toys.single_rows(48), held_out, None, recipe.data)
    return make_plan(tables, recipe, notify=lambda kind, **fields: None)


class StopWhenTold(Stop):
    """Asks to stop once `asked` is set."""

    def __init__(self, *, hurry: bool = False) -> None:
        self.hurry, self.asked = hurry, False

    def __call__(self) -> bool:
        return self.asked


class Stage:
    """One training and everything that was heard of it.

    on: hears each event after it was noted, with the stage, and may do something to the training.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path | None = None,
        *,
        members: Members | None = None,
        resume: Checkpoint | None = None,
        hurry: bool = False,
        on: Callable[["Stage", Event], None] = lambda stage, event: None,
    ) -> None:
        self.plan, self.events, self.stop, self._on = plan, [], StopWhenTold(hurry=hurry), on
        self.saver = None if root is None else Saver(root, keep=3)
        self.events: list[Event] = []
        self._ready = False
        with torch_as_wanted(plan.recipe):
            self.training = Training(
                plan, notify=self._notify, stop=self.stop, saver=self.saver, members=members, resume=resume
            )
        self._ready = True

    def _notify(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})
        if self._ready:
            self._on(self, self.events[-1])

    def run(self, **options: Any) -> "Stage":
        with torch_as_wanted(self.plan.recipe):
            self.training.run(**options)
        return self

    @property
    def model(self) -> nn.Module:
        return self.training.assembly.model

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["kind"] == kind]

    def state(self) -> dict[str, Any]:
        """All that must be the same however the training came here."""
        progress = self.training.progress
        values = {key: value for key, value in progress.to_dict().items() if key != "seconds"}
        optimizer = self.training.assembly.optimizer.state_dict()["state"]
        return {
            "progress": values,
            "weights": {name: tensor.tolist() for name, tensor in self.model.state_dict().items()},
            "best": {name: tensor.tolist() for name, tensor in progress.best.weights.items()},
            "optimizer": {n: {key: value.tolist() for key, value in of.items()} for n, of in optimizer.items()},
        }


def stop_at_step(step: int) -> Callable[[Stage, Event], None]:
    """Asks to stop when a step has ended."""

    def on(stage: Stage, event: Event) -> None:
        if event["kind"] == "step" and event["number"] == step:
            stage.stop.asked = True

    return on


def newest(root: Path) -> Checkpoint:
    """The newest checkpoint, which must be there."""
    checkpoint, _ = newest_valid(root)
    assert checkpoint is not None
    return checkpoint
