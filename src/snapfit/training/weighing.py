"""What happens when a training is over: its weights are weighed, a student may learn from them, one answer ships."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from snapfit.core.interrupts import Stop
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import encoder_layers
from snapfit.training.checkpoint import newest_valid
from snapfit.training.driver import Training
from snapfit.training.evaluation import split_logits, targets_in_units
from snapfit.training.identity import differences
from snapfit.training.loop import Examples
from snapfit.training.members import Members
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.saver import Saver
from snapfit.training.student import student_plan, team_scores
from snapfit.training.verdict import LEAST_ROWS, Scored, Source, Team, Verdict, best_teacher, score, settle

_KINDS = {
    "anchor": "anchor",
    "cycle": "snapshot",
    "best": "evaluation",
    "ema": "exponential average",
    "tail": "average of the tail",
}


MOST_ROWS = 65_536
"""Of a validation split that are chosen by: the logits of every candidate are held."""


@dataclass(frozen=True)
class Beyond:
    """What a training's end may need beside the training.

    root: where a student's targets and checkpoints are kept; None keeps none. notify: hears of the student's training.
    unlabelled: texts for the student alone, and what names them. beside: weights that are only shown, by name.
    """

    root: Path | None = None
    notify: Notify = lambda kind, **fields: None
    unlabelled: TokenIds | None = None
    unlabelled_hash: str = ""
    beside: Mapping[str, Mapping[str, Tensor]] | None = None


class Stopped(Exception):
    """The weighing was asked to stop."""


class Weighing:
    """Weighs what a finished training left. The model of the training is used for it, and holds other weights then.

    training: over, its whole table of word embeddings back in the model. members: its members.
    Attributes: valid, the rows to choose by; targets, of these, a regression's in the table's units.
    """

    def __init__(self, plan: Plan, training: Training, members: Members, *, notify: Notify, stop: Stop) -> None:
        self._plan, self._training, self._members = plan, training, members
        self._notify, self._stop = notify, stop
        self.valid = _at_most(plan.examples["valid"], MOST_ROWS, seed=plan.recipe.data.split_seed)
        self.targets = targets_in_units(self.valid, plan.label_set)

    @property
    def possible(self) -> bool:
        """Whether there are enough rows to choose by."""
        return len(self.targets) >= LEAST_ROWS

    def scored(self, beyond: Beyond) -> Scored:
        """Everything that can be chosen, scored on the validation split. Raises as `verdict` does."""
        plan = self._plan
        sources = self.sources()
        self._notify("working", text=f"weighing {len(sources)} sets of weights and what can be made of them")
        on_valid = partial(self.logits, self.valid)
        scored = score(sources, on_valid, self.targets, plan.label_set, plan.recipe.train.metric)
        if plan.recipe.ensemble.student_epochs:
            student = self._student(scored, beyond)
            scored = scored.joined_by(student, on_valid(student.weights))
        return scored

    def verdict(self, beyond: Beyond) -> Verdict:
        """The verdict. Raises Stopped when asked to stop, and whatever a student's training raises."""
        plan = self._plan
        scored = self.scored(beyond)
        beside = [
            (Source(name, weights), self.logits(self.valid, weights))
            for name, weights in dict(beyond.beside or {}).items()
        ]
        metric = plan.recipe.train.metric
        return settle(scored, self.targets, plan.label_set, metric, trunk=self._trunk(), beside=beside)

    def sources(self) -> list[Source]:
        """The best weights, members and averages."""
        best, members = self._training.progress.best, self._members
        snapshots = {member.step for member in members.all if member.why != "best"}
        sources = [Source(f"best evaluation, step {best.step:,}", best.weights, snapshot=best.step in snapshots)]
        for member in members.all:
            if member.step != best.step:
                name = f"{_KINDS[member.why]}, step {member.step:,}"
                sources.append(Source(name, members.weights(member), snapshot=member.step in snapshots))
        for name, weights in self._training.progress.trajectory.averages().items():
            sources.append(Source(_KINDS[name], weights, single=False))
        return sources

    def logits(self, examples: Examples, weights: Mapping[str, Tensor], *, in_units: bool = True) -> np.ndarray:
        """Logits float32 [rows, n_outputs] with these weights. Raises Stopped when asked to stop."""
        model, assembly = self._training.assembly.model, self._training.assembly
        model.load_state_dict({name: weights[name] for name in weights})
        logits = split_logits(
            model, examples, self._plan.label_set, autocast=assembly.autocast, stop=self._stop, in_units=in_units
        )
        if logits is None:
            raise Stopped
        return logits

    # ---------------------------------------------------------------- parts

    def _student(self, scored: Scored, beyond: Beyond) -> Source:
        """Train the student, or go on with it."""
        plan, label_set = self._plan, self._plan.label_set
        team, start = best_teacher(scored, self.targets, label_set, plan.recipe.train.metric)
        self._notify("working", text=f"{len(team.weights)} sets of weights score the training texts for the student")
        train = plan.examples["train"]
        soft = self._taught(train, team=team, texts=plan.tables.identity["train"]["texts"], root=beyond.root)
        if beyond.unlabelled is not None:
            more = Examples(beyond.unlabelled, np.arange(len(beyond.unlabelled)), train.pad_id)
            unknown = self._taught(more, team=team, texts=beyond.unlabelled_hash, root=beyond.root)
            soft = np.concatenate([soft, unknown])
        taught = student_plan(plan, soft, beyond.unlabelled)
        self._notify(
            "student",
            step=self._training.progress.step,
            steps=taught.total_steps,
            rows=len(taught.examples["train"].tokens),
            start=start.name,
            teachers=len(team.weights),
        )
        weights = self._trained(taught, start, beyond)
        return Source("student", weights, single=False, made_of=(f"from {start.name}",))

    def _taught(self, examples: Examples, *, team: Team, texts: str, root: Path | None) -> np.ndarray:
        def of_rows(weights: Mapping[str, Tensor], rows: np.ndarray) -> np.ndarray:
            part = Examples(examples.tokens.take(rows), rows, examples.pad_id)  # whose targets are not looked at
            return self.logits(part, weights, in_units=False)

        return team_scores(team, of_rows, self._plan.label_set, len(examples.tokens), texts=texts, root=root)

    def _trained(self, plan: Plan, start: Source, beyond: Beyond) -> Mapping[str, Tensor]:
        saver, resume = None, None
        if beyond.root is not None:
            saver = Saver(beyond.root / "checkpoints", keep=1)
            newest, _ = newest_valid(saver.root)
            if newest is not None and not differences(newest.identity, plan.identity()):
                resume = newest
        training = Training(
            plan, notify=beyond.notify, stop=self._stop, saver=saver, resume=resume, start=start.weights
        )
        try:
            training.run()
        finally:
            if saver is not None:
                saver.wait()
        if not training.over:
            raise Stopped
        return training.progress.best.weights

    def _trunk(self) -> float:
        """The share of a forward pass that members have in common."""
        model, frozen = self._training.assembly.model, self._plan.recipe.optim.freeze_layers
        layers = encoder_layers(model)
        if layers is None or model.family.shared_layers:
            return 0.0
        most = len(layers) - (3 if model.pooling.startswith("last4") else 0)  # see ensemble.shared_layers
        return max(min(frozen, most), 0) / len(layers)


def _at_most(examples: Examples, most: int, *, seed: int) -> Examples:
    """The rows, or of more of them a sample, in their order."""
    if len(examples.tokens) <= most:
        return examples
    rows = np.sort(np.random.default_rng(seed).choice(len(examples.tokens), most, replace=False))
    return Examples(examples.tokens.take(rows), examples.targets[rows], examples.pad_id)
