"""The decision rule: from logits to scores to decisions, one object for evaluation, prediction, export and serving.

task         score of a label                                  decision
single       softmax over the labels                           the label with the highest score, the first of equals;
                                                               none where the rule refuses to answer
multi        sigmoid of each label by itself                   every label whose score reaches its threshold, no fewer
                                                               and no more labels than stated
regression   the logit itself                                  the number

A rule is plain data. What is refused has a reason: "low score" or "out of scope".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.scope import METHODS, Centroids, Method, energy
from snapfit.core.scores import above_thresholds, logits_to_scores

Decision = str | list[str] | float | None
"""What is said about one text: a label, or None where none is given (single), labels (multi), a number (regression)."""

REFUSALS = ("", "low score", "out of scope")
"""Why a row has no answer, by its code in `Answers.refused`; 0 is an answer."""
LOW_SCORE, OUT_OF_SCOPE = 1, 2
NO_LABEL = -1
"""The class of a row without an answer, and the truth of a row that is out of scope."""


@dataclass(frozen=True)
class Scope:
    """Which texts are answered: those that are enough like the ones trained on, see scope.py.

    least: the lowest likeness that is in scope. centroids: for the method of that name, and only for it.
    """

    method: Method
    least: float
    centroids: Centroids | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS or not np.isfinite(self.least):
            found = f"the scope {self.method!r} from {self.least}"
            raise BadInput(found, f"one of {', '.join(METHODS)}, from a finite number", "fit the rule again")
        if (self.centroids is not None) != (self.method == "centroids"):
            raise BadInput(f"the scope {self.method!r}", "centroids for the method of that name", "fit the rule again")


@dataclass(frozen=True)
class DecisionRule:
    """How answers are made of logits.

    temperature: > 0; divides all logits. slopes, shifts: one a label, for multi: what a divided logit is multiplied by
    (> 0), and what is added then; both or neither. thresholds: one a label in 0..1, for multi; None: 0.5 each.
    min_labels, max_labels: for multi: where fewer reach their threshold the likeliest others are given too; where more
    do, the likeliest of them. least_score: for single: rows whose highest score is lower are not answered.
    scope: for single, which rows are answered at all; None: every one.
    Raises BadInput for values that do not fit together.
    """

    task: Task
    temperature: float = 1.0
    slopes: tuple[float, ...] | None = None
    shifts: tuple[float, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    min_labels: int = 0
    max_labels: int | None = None
    least_score: float = 0.0
    scope: Scope | None = None

    def __post_init__(self) -> None:
        fix = "fit the rule again"
        if not 0.0 < self.temperature < np.inf:
            raise BadInput(f"temperature {self.temperature}", "a finite number above 0", fix)
        lists = (self.slopes, self.shifts, self.thresholds)
        if self.task != "multi" and (any(one is not None for one in lists) or self.min_labels or self.max_labels):
            found = f"slopes, thresholds or numbers of labels for the task {self.task!r}"
            raise BadInput(found, "these for multi only", fix)
        if self.task != "single" and (self.least_score or self.scope is not None):
            raise BadInput(f"rows without an answer for the task {self.task!r}", "these for single only", fix)
        if (self.slopes is None) != (self.shifts is None) or len({len(one) for one in lists if one is not None}) > 1:
            raise BadInput("slopes, shifts and thresholds of unlike number", "one of each a label", fix)
        numbers = np.array([*(self.slopes or ()), *(self.shifts or ())], dtype=np.float64)
        if not np.isfinite(numbers).all() or not all(slope > 0 for slope in self.slopes or ()):
            raise BadInput("slopes or shifts that cannot be used", "finite numbers, slopes above 0", fix)
        if not all(0.0 <= limit <= 1.0 for limit in (*(self.thresholds or ()), self.least_score)):
            raise BadInput("thresholds outside 0..1", "numbers in 0..1", fix)
        if self.min_labels < 0 or (self.max_labels is not None and self.max_labels < max(self.min_labels, 1)):
            found = f"at least {self.min_labels} and at most {self.max_labels} labels"
            raise BadInput(found, "a range of counts that is not empty", fix)

    @property
    def refuses(self) -> bool:
        """Whether there may be rows without an answer."""
        return self.least_score > 0.0 or self.scope is not None

    @property
    def needs_vectors(self) -> bool:
        """Whether logits alone are not enough."""
        return self.scope is not None and self.scope.centroids is not None

    def scores(self, logits: np.ndarray, *, rows: np.ndarray | None = None) -> np.ndarray:
        """Scores float64 [n, k] of logits float [n, k]; see `logits_to_scores` for `rows` and errors."""
        if self.slopes is None:
            return logits_to_scores(logits, self.task, self.temperature, rows=rows)
        if logits.ndim != 2 or logits.shape[1] != len(self.slopes):
            found = f"logits of shape {logits.shape} for {len(self.slopes)} labels"
            raise BadInput(found, f"[rows, {len(self.slopes)}]", "pass logits of the model that the rule is for")
        slopes, shifts = self._lines
        return logits_to_scores(logits.astype(np.float64) / self.temperature * slopes + shifts, self.task, rows=rows)

    def likeness(
        self, logits: np.ndarray, vectors: np.ndarray | None = None, *, scores: np.ndarray | None = None
    ) -> np.ndarray | None:
        """How much each row is in scope, float64 [n], higher is more; None for a rule without a scope.

        vectors: float [n, width], for centroids. scores: of the same rows, where they are known already.
        Raises BadInput for centroids without vectors.
        """
        if self.scope is None:
            return None
        return measure_likeness(self.scope.method, logits, self, vectors, centroids=self.scope.centroids, scores=scores)

    def answers(
        self,
        logits: np.ndarray,
        *,
        likeness: np.ndarray | None = None,
        vectors: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> "Answers":
        """The answers on rows of logits float [n, k].

        likeness: what `likeness` gave for them, or vectors float [n, width]: one of them where the rule needs vectors.
        rows: int [n], what these rows are called in errors. Raises what `logits_to_scores` and `likeness` raise.
        """
        scores = self.scores(logits, rows=rows)
        if likeness is None:
            likeness = self.likeness(logits, vectors, scores=scores)
        return self.decide(scores, likeness)

    def decide(self, scores: np.ndarray, likeness: np.ndarray | None = None) -> "Answers":
        """The answers on rows whose scores float [n, k], and likeness for a rule with a scope, are known."""
        refused = np.zeros(len(scores), dtype=np.int8)
        if self.task == "multi":
            limits = None if self.thresholds is None else np.array(self.thresholds)
            chosen = choose_labels(scores, limits, least=self.min_labels, most=self.max_labels)
        elif self.task == "single":
            if self.least_score > 0.0:
                refused[scores.max(axis=1, initial=0.0) < self.least_score] = LOW_SCORE
            if self.scope is not None:
                if likeness is None:
                    raise BadInput("scores alone", "how much each row is in scope, besides", "use DecisionRule.answers")
                refused[likeness < self.scope.least] = OUT_OF_SCOPE
            chosen = np.where(refused > 0, NO_LABEL, scores.argmax(axis=1))
        else:
            chosen = scores[:, 0].astype(np.float64)
        return Answers(self.task, scores, chosen, refused)

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.slopes), np.array(self.shifts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all that is not as in a rule that only has a task; centroids are left to their file."""
        scope = None if self.scope is None else {"method": self.scope.method, "least": self.scope.least}
        lists = {name: getattr(self, name) for name in ("slopes", "shifts", "thresholds")}
        values: dict[str, Any] = {"temperature": self.temperature}
        values |= {name: None if one is None else list(one) for name, one in lists.items()}
        values |= {"min_labels": self.min_labels, "max_labels": self.max_labels}
        values |= {"least_score": self.least_score, "scope": scope}
        plain = {"temperature": 1.0, "min_labels": 0, "least_score": 0.0}
        return {name: value for name, value in values.items() if value != plain.get(name)}

    @classmethod
    def from_dict(cls, task: Task, values: Mapping[str, Any], *, centroids: Centroids | None = None) -> "DecisionRule":
        """The rule that gave `values`, which hold what they may. Raises BadInput for what does not fit together."""
        given = dict(values)
        scope = given.pop("scope", None)
        for name in ("slopes", "shifts", "thresholds"):
            if given.get(name) is not None:
                given[name] = tuple(float(value) for value in given[name])
        if scope is not None:
            given["scope"] = Scope(scope["method"], float(scope["least"]), centroids)
        return cls(task, **given)


@dataclass(frozen=True)
class Answers:
    """What a rule said about rows.

    scores: float64 [n, k]. chosen: single: int64 [n], the label's number, NO_LABEL where there is no answer; multi:
    bool [n, k]; regression: float64 [n]. refused: int8 [n], a place in REFUSALS.
    """

    task: Task
    scores: np.ndarray
    chosen: np.ndarray
    refused: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def answered(self) -> np.ndarray:
        """bool [n]: whether there is an answer, which may be that there is no label."""
        return np.asarray(self.refused == 0)

    def take(self, rows: np.ndarray | slice) -> "Answers":
        """Those of some rows. rows: numbers, bool of each, or a slice."""
        return Answers(self.task, self.scores[rows], self.chosen[rows], self.refused[rows])

    def with_labels_of(self, names: Sequence[str], others: Sequence[str]) -> "Answers":
        """The same answers, labels in another order. names: the labels of the columns; others: the same ones."""
        if self.task == "regression" or tuple(names) == tuple(others):
            return self
        columns = np.array([names.index(name) for name in others])
        if self.task == "multi":
            return replace(self, scores=self.scores[:, columns], chosen=self.chosen[:, columns])
        places = np.append(np.argsort(columns), NO_LABEL)  # so that NO_LABEL, which is the last place, stays
        return replace(self, scores=self.scores[:, columns], chosen=places[self.chosen])

    def decisions(self, names: Sequence[str]) -> list[Any]:
        """The decision (see `Decision`) on each row.

        names: the labels, in the order of the columns; a multi-label decision lists labels in this order.
        Raises BadInput when their number is not that of the columns.
        """
        if self.scores.ndim != 2 or self.scores.shape[1] != len(names):
            found = f"scores of shape {self.scores.shape} for {len(names)} labels"
            raise BadInput(found, f"[rows, {len(names)}]", "pass the label set that the scores were made with")
        if self.task == "regression":
            values: list[float] = self.chosen.tolist()
            return values
        if self.task == "single":
            return [names[i] if i >= 0 else None for i in self.chosen.tolist()]
        given: list[list[str]] = [[] for _ in range(len(self.scores))]
        for row, column in zip(*(part.tolist() for part in np.nonzero(self.chosen)), strict=True):
            given[row].append(names[column])
        return given

    def reasons(self) -> list[str | None]:
        """Why each row has no answer; None for those that have one."""
        return [REFUSALS[code] or None for code in self.refused.tolist()]


def measure_likeness(
    method: Method,
    logits: np.ndarray,
    rule: DecisionRule,
    vectors: np.ndarray | None = None,
    *,
    centroids: Centroids | None = None,
    scores: np.ndarray | None = None,
) -> np.ndarray:
    """How much each row is in scope by a method, float64 [n]. rule: says how logits become scores.

    Raises BadInput for centroids without vectors.
    """
    if method == "max_probability":
        return np.asarray((rule.scores(logits) if scores is None else scores).max(axis=1, initial=0.0))
    if method == "energy":
        return energy(logits, rule.temperature)
    if vectors is None or centroids is None:
        found = "logits alone for a scope by centroids"
        raise BadInput(found, "vectors of the texts besides", "use a backend that gives vectors")
    return centroids.alike(vectors)


def choose_labels(
    scores: np.ndarray, thresholds: np.ndarray | None = None, *, least: int = 0, most: int | None = None
) -> np.ndarray:
    """bool [n, k]: the labels that are given to rows of scores in 0..1 [n, k].

    Those whose score reaches the threshold; where these are fewer than `least`, the likeliest others too; where they
    are more than `most`, the likeliest of them. Of equal scores the first label is the likelier.
    Raises BadInput when there are other numbers of thresholds than of labels.
    """
    reached = above_thresholds(scores, thresholds)
    if not least and most is None:
        return reached
    order = np.lexsort((-scores, ~reached), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(scores.shape[1]), order.shape), axis=1)
    kept: np.ndarray = (reached | (rank < least)) & (rank < (scores.shape[1] if most is None else most))
    return kept
