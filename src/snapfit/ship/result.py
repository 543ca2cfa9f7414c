"""What a training leaves behind, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapfit.core.recipe import Recipe


@dataclass(frozen=True)
class TrainResult:
    """What `train` leaves behind.

    run, bundle: folders. metrics: by split, then by name. recipe: resolved. seconds: of this call;
    train_seconds: of the loop, in all sittings. stopped_by: the signal that ended it early, or None.
    resumed_from: the step that this call went on from, or None. already_complete: nothing was left to do.
    verdict: on what a run that keeps members left, as plain values (see `training.verdict.Verdict`), or None.
    decision: {rule, report} of how answers are made of logits (see `core.rule_fitting.FittedRule`), or None.
    folds: what the folds of a run with `train.folds` came to, as plain values (see `folding.FoldReport`), or None;
    with `train.fold_bundle: none` such a run has no bundle, and `bundle` is where there would be one.
    """

    run: Path
    bundle: Path
    metrics: dict[str, dict[str, float]]
    recipe: Recipe
    best_step: int
    steps: int
    seconds: float
    train_seconds: float
    stopped_by: int | None = None
    resumed_from: int | None = None
    already_complete: bool = False
    verdict: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    folds: dict[str, Any] | None = None

    @property
    def has_bundle(self) -> bool:
        """Whether there is a bundle: but for a run of folds that was to make none."""
        return self.folds is None or self.folds["bundle"] != "none"

    @classmethod
    def of_complete(cls, run: Path, bundle: Path, values: Mapping[str, Any]) -> "TrainResult":
        """The result of a run that has nothing left to do. values: those of its result.json."""
        return cls(
            run=run,
            bundle=bundle,
            metrics=values["metrics"],
            recipe=Recipe.from_dict(values["recipe"]),
            best_step=values["best_step"],
            steps=values["steps"],
            seconds=0.0,
            train_seconds=values["train_seconds"],
            already_complete=True,
            verdict=values.get("verdict"),
            decision=values.get("decision"),
            folds=values.get("folds"),
        )

    def told(self) -> dict[str, Any]:
        """What the journal says at the end of a run: all that it does not say elsewhere."""
        elsewhere = ("recipe", "verdict", "folds", "decision")
        return {name: value for name, value in self.to_dict().items() if name not in elsewhere}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle) if self.has_bundle else None,
            "metrics": self.metrics,
            "best_step": self.best_step,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "train_seconds": round(self.train_seconds, 2),
            "stopped_by": self.stopped_by,
            "resumed_from": self.resumed_from,
            "already_complete": self.already_complete,
            "verdict": self.verdict,
            "decision": self.decision,
            "folds": self.folds,
            "recipe": self.recipe.to_dict(),
        }
