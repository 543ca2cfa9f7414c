"""The verdict: every model that a training left, alone and combined, on the validation split; and which one ships.

Weights come from anywhere (the best evaluation, members, averages, a student). Each is scored once (`score`), soups are
made of those the training itself came to, and `core/combining` states the rule (`settle`). What is only to be seen
beside them, such as a single run of equal compute, is measured and cannot be chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snapfit.core.calibration import fit_temperature
from snapfit.core.combining import (
    Candidate,
    Model,
    Quality,
    choose,
    cross_fitted,
    error_name,
    make_candidates,
    measure,
    merge_picks,
    scores_of,
)
from snapfit.core.labels import LabelSet
from snapfit.core.scores import logits_to_scores
from snapfit.training.averaging import make_soups

LEAST_ROWS = 4
"""Rows of the validation split that a verdict needs: two halves of two."""

LogitsOf = Callable[[Mapping[str, Tensor]], np.ndarray]
"""Weights -> logits float [rows, n_outputs] of the validation split."""


@dataclass(frozen=True)
class Source:
    """Weights that may be part of the answer.

    name: for people. single: whether the training itself came to them, rather than making them of such.
    snapshot: whether they are those of a cycle's end. made_of: what they were made of, in words.
    """

    name: str
    weights: Mapping[str, Tensor]
    single: bool = True
    snapshot: bool = False
    made_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A candidate's line in the table.

    made_of: what it is made of, in words. quality: on the validation split, scores at their temperature.
    cost: forward passes of a prediction, the model's own one being 1. bytes: of its weights.
    """

    name: str
    made_of: tuple[str, ...]
    quality: Quality
    cost: float
    bytes: int
    contends: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "made_of": list(self.made_of),
            **_plain(self.quality),
            "cost": round(self.cost, 3),
            "bytes": self.bytes,
            "contends": self.contends,
        }


@dataclass(frozen=True)
class Team:
    """Models that answer together, or one alone.

    weights: of each different one, the first one's with the largest share. shares: add up to 1. temperatures: of each
    one's logits; temperature: of their mean's (see `combining.combine`).
    """

    weights: tuple[Mapping[str, Tensor], ...]
    shares: tuple[float, ...]
    temperatures: tuple[float, ...]
    temperature: float

    @property
    def last_temperature(self) -> float:
        """Of the logits that they answer with: those of the mean, or of the one model, of which both are."""
        return self.temperature if len(self.weights) > 1 else self.temperature * self.temperatures[0]


@dataclass(frozen=True)
class Scored:
    """Sources and soups whose logits on the validation split are known.

    sources, models: the same ones, in the same order. notes: in words, members that are in no soup. shared_bytes: of
    the weights that all have alike.
    """

    sources: tuple[Source, ...]
    models: tuple[Model, ...]
    notes: tuple[str, ...]
    shared_bytes: int

    def joined_by(self, source: Source, logits: np.ndarray) -> "Scored":
        """With one more model."""
        model = Model(source.name, logits, _bytes(source.weights), source.single, source.snapshot)
        return replace(self, sources=(*self.sources, source), models=(*self.models, model))

    def team(self, candidate: Candidate) -> Team:
        """The models of a candidate."""
        picks, shares = merge_picks(sorted(candidate.picks, key=lambda i: (-candidate.picks.count(i), i)))
        heat = dict(zip(candidate.picks, candidate.temperatures, strict=True))
        return Team(
            weights=tuple(self.sources[i].weights for i in picks),
            shares=tuple(shares),
            temperatures=tuple(heat[i] for i in picks),
            temperature=candidate.temperature,
        )


@dataclass(frozen=True)
class Verdict:
    """What was found, and what ships.

    metric: its name; error: that of what `Quality.error` holds. rows: a line a candidate. chosen, best_single: numbers
    of rows. rule: why, in words. expected, expected_single: cross-fitted, what to expect on new rows of the one chosen
    and of the best single one. notes: what else is to be known. team: the models that answer.
    """

    metric: str
    error: str
    rows: tuple[Row, ...]
    chosen: int
    best_single: int
    rule: str
    expected: Quality
    expected_single: Quality
    notes: tuple[str, ...]
    team: Team

    @property
    def made_of(self) -> dict[str, Any]:
        """What the bundle says of its answer."""
        row = self.rows[self.chosen]
        return {
            "parts": list(row.made_of),
            "rule": self.rule,
            "expected": _plain(self.expected),
            "expected_single": _plain(self.expected_single),
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as plain values."""
        return {
            "metric": self.metric,
            "error": self.error,
            "rows": [row.to_dict() for row in self.rows],
            "chosen": self.chosen,
            "best_single": self.best_single,
            "rule": self.rule,
            "expected": _plain(self.expected),
            "expected_single": _plain(self.expected_single),
            "notes": list(self.notes),
            "shares": list(self.team.shares),
            "temperatures": list(self.team.temperatures),
            "temperature": self.team.temperature,
        }


def score(
    sources: Sequence[Source], logits_of: LogitsOf, targets: np.ndarray, label_set: LabelSet, metric: str
) -> Scored:
    """Score the sources, and the soups of those that are single.

    sources: at least one of them single. logits_of: scores weights, a regression's in the table's units, as `targets`
    are; whatever it raises goes through.
    """
    found = [logits_of(source.weights) for source in sources]
    singles = [i for i, source in enumerate(sources) if source.single]
    members = [sources[i].weights for i in singles]
    soups, barriers = make_soups(members, [found[i] for i in singles], logits_of, targets, label_set.task, metric)
    names = [sources[i].name for i in singles]
    notes = tuple(f"{names[one.member]} is in no soup: {one.why}" for one in barriers)
    scored = Scored((), (), notes, _shared_bytes(members))
    for source, logits in zip(sources, found, strict=True):
        scored = scored.joined_by(source, logits)
    for soup in soups:
        made_of = tuple(names[i] for i in soup.ingredients)
        scored = scored.joined_by(Source(soup.name, soup.weights, single=False, made_of=made_of), soup.logits)
    return scored


def best_teacher(scored: Scored, targets: np.ndarray, label_set: LabelSet, metric: str) -> tuple[Team, Source]:
    """Who teaches a student, and what it begins with: the mean with the least error, and the single model or soup with
    the least. Where there is no mean the two are the same.
    """
    candidates = make_candidates(scored.models, targets, label_set.task, metric)

    def error(candidate: Candidate) -> float:
        return measure(scores_of(candidate, scored.models, label_set.task), targets, label_set.task, metric).error

    alone = min((one for one in candidates if not one.is_mean), key=error)
    teacher = min((one for one in candidates if one.is_mean), key=error, default=alone)
    return scored.team(teacher), scored.sources[alone.picks[0]]


def settle(
    scored: Scored,
    targets: np.ndarray,
    label_set: LabelSet,
    metric: str,
    *,
    trunk: float = 0.0,
    beside: Sequence[tuple[Source, np.ndarray]] = (),
) -> Verdict:
    """Make candidates of what was scored, and choose.

    trunk: the share of a forward pass that several models make only once. beside: what is only shown, with its logits.
    Raises BadInput for fewer than LEAST_ROWS rows.
    """
    task, models = label_set.task, scored.models
    candidates = make_candidates(models, targets, task, metric, trunk=trunk, shared_bytes=scored.shared_bytes)
    choice = choose(candidates, models, targets, task, metric)
    expected, expected_single = cross_fitted(models, targets, task, metric)
    return Verdict(
        metric=metric,
        error=error_name(task),
        rows=(
            *(_row(one, scored, targets, label_set, metric) for one in candidates),
            *(_beside(source, logits, targets, label_set, metric) for source, logits in beside),
        ),
        chosen=choice.chosen,
        best_single=choice.best_single,
        rule=choice.rule,
        expected=expected,
        expected_single=expected_single,
        notes=scored.notes,
        team=scored.team(candidates[choice.chosen]),
    )


def _row(candidate: Candidate, scored: Scored, targets: np.ndarray, label_set: LabelSet, metric: str) -> Row:
    quality = measure(scores_of(candidate, scored.models, label_set.task), targets, label_set.task, metric)
    made_of = scored.sources[candidate.picks[0]].made_of
    if candidate.is_mean:
        times = {i: candidate.picks.count(i) for i in candidate.picks}
        made_of = tuple(scored.sources[i].name + (f" x {n}" if n > 1 else "") for i, n in times.items())
    return Row(candidate.name, made_of, quality, candidate.cost, candidate.bytes)


def _beside(source: Source, logits: np.ndarray, targets: np.ndarray, label_set: LabelSet, metric: str) -> Row:
    heat = fit_temperature(logits, targets, label_set.task)
    quality = measure(logits_to_scores(logits, label_set.task, heat), targets, label_set.task, metric)
    return Row(source.name, source.made_of, quality, 1.0, _bytes(source.weights), contends=False)


def _shared_bytes(weights: Sequence[Mapping[str, Tensor]]) -> int:
    """Of the tensors that all have alike."""
    first, others = weights[0], weights[1:]
    alike = (name for name in first if others and all(torch.equal(first[name], other[name]) for other in others))
    return sum(first[name].nbytes for name in alike)


def _bytes(weights: Mapping[str, Tensor]) -> int:
    return sum(weights[name].nbytes for name in weights)


def _plain(quality: Quality) -> dict[str, Any]:
    return {
        "metric": quality.metric,
        "error": quality.error,
        "calibration": quality.calibration,
        "metrics": quality.metrics,
    }
