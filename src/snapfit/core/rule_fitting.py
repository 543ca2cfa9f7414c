"""Fits a decision rule to held-out rows: temperature or lines, thresholds, and where no answer is given.

Whatever is fitted is measured twice: on the rows that it was fitted on, which is optimistic, and cross-fitted, which is
what to expect on new rows: the rows are cut into folds, and each fold is decided by a rule that was fitted on the
others. What `auto` may leave out is taken only where the second figure says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from snapfit.core.calibration import doubt_of, fit_lines, fit_temperature
from snapfit.core.combining import row_errors
from snapfit.core.decisions import Answers, DecisionRule, Scope, measure_likeness
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.metrics import default_metric, is_better, label_tally
from snapfit.core.recipe_sections import DecisionSection
from snapfit.core.scope import Centroids
from snapfit.core.scores import logits_to_scores
from snapfit.core.tallies import LabelTally
from snapfit.core.thresholds import TUNABLE, cut_for_precision, cut_keeping, tune

FOLDS = 5
CALIBRATION_ROWS, THRESHOLD_ROWS, REFUSAL_ROWS = 50, 100, 50
"""Held-out rows from which on scores are calibrated and thresholds tuned by `auto`, and refusals can be asked for."""
MOST_CELLS = 1 << 22
"""Rows times labels that a rule is fitted to; of more rows a sample is enough."""

Method = str
"""How scores are calibrated: none, temperature or platt."""


@dataclass(frozen=True)
class HeldRows:
    """Rows that a rule is fitted to.

    logits: float [n, k]. targets: as `LabelSet.encode` gives them; of a single label -1 for a row out of scope.
    vectors: float [n, width], for centroids.
    """

    logits: np.ndarray
    targets: np.ndarray
    vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: np.ndarray) -> "HeldRows":
        """Some of them. rows: numbers, or bool of each."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return HeldRows(self.logits[rows], self.targets[rows], vectors)


@dataclass(frozen=True)
class FittedRule:
    """A rule, and what is known about it.

    report: plain values, empty for a regression: rows (in scope), out_of_scope_rows, calibration (none, temperature or
    platt), why {calibration, thresholds: in words}; of many labels thresholds (tuned, stated, or default: what 0.5 was
    before calibration), metric (what
    they were tuned for, or None) and rare (labels drawn towards the common threshold); of one label refusals
    [{reason, by, target, least, reached}]. Metrics of these rows by name: plain (temperature 1, thresholds 0.5, every
    row answered), fitted (the rule on the rows it was fitted on), expected (cross-fitted; None for too few rows); and
    reliability, `Reliability.table` of each. Where nothing was held out there is nothing but rows: 0.
    """

    rule: DecisionRule
    report: dict[str, Any] = field(default_factory=dict)


def check_decision(settings: DecisionSection, task: Task, names: Sequence[str], *, n_rows: int) -> None:
    """Raise BadInput for settings that the task, its labels, or so many held-out rows have no use for."""
    stated = {
        "multi": {"thresholds": settings.thresholds != "auto", "min_labels": settings.min_labels > 0}
        | {"max_labels": settings.max_labels is not None, "threshold_metric": settings.threshold_metric != "auto"},
        "single": {name: getattr(settings, name) is not None for name in _REFUSALS},
    }
    for other, keys in stated.items():
        for key, given in keys.items():
            if given and task != other:
                raise _useless(key, settings, f"the task {task!r}", f"a task of the kind {other!r}")
    if settings.calibrate == "platt" and task == "single":
        raise _useless("calibrate", settings, "the task 'single'", "temperature: one line a label is for many labels")
    if settings.calibrate in ("temperature", "platt") and task == "regression":
        raise _useless("calibrate", settings, "the task 'regression'", "auto or none: a number is no probability")
    if settings.min_labels > len(names) and task == "multi":
        raise _useless("min_labels", settings, f"{len(names)} labels", f"at most {len(names)}")
    if isinstance(settings.thresholds, dict) and (unknown := sorted(set(settings.thresholds) - set(names))):
        found = f"decision.thresholds names the label {unknown[0]!r}"
        raise BadInput(found, f"labels of the training table, such as {names[0]!r}", "correct the name")
    wanted = {"calibrate": 2 if settings.calibrate in ("temperature", "platt") else 0}
    wanted["thresholds"] = 2 if settings.thresholds == "tuned" else 0
    wanted |= {name: REFUSAL_ROWS for name in _REFUSALS if getattr(settings, name) is not None}
    for key, least in wanted.items():
        if n_rows < least:
            fix = "hold more rows out (--set data.valid_fraction=0.1, or --valid FILE), or leave it out"
            found = f"decision.{key} is {getattr(settings, key)!r}, with {n_rows} held-out rows"
            raise BadInput(found, f"at least {least} held-out rows to fit it to", fix)


_REFUSALS = ("abstain_precision", "abstain_coverage", "out_of_scope")


def _useless(key: str, settings: DecisionSection, beside: str, expected: str) -> BadInput:
    default = DecisionSection.model_fields[key].default
    found = f"decision.{key} is {getattr(settings, key)!r}, with {beside}"
    return BadInput(found, expected, f"--set decision.{key}={'none' if default is None else default}")


def unfitted_rule(
    settings: DecisionSection, task: Task, names: Sequence[str], *, temperature: float = 1.0
) -> FittedRule:
    """The rule where no rows were held out: what is stated, and nothing that is fitted.

    temperature: of the logits' own, where they have one.
    """
    if task == "regression":
        return FittedRule(DecisionRule(task))
    return FittedRule(_with_counts(DecisionRule(task, temperature), settings, _stated(settings, names)), {"rows": 0})


def fit_rule(
    rows: HeldRows,
    settings: DecisionSection,
    task: Task,
    names: Sequence[str],
    *,
    metric: str | None = None,
    temperature: float = 1.0,
    centroids: Centroids | None = None,
    seed: int = 0,
) -> FittedRule:
    """The rule that the settings ask for, fitted to held-out rows, with its report.

    metric: of the training, which `threshold_metric: auto` follows where thresholds can be tuned for it.
    temperature: of the logits' own, which stays where nothing is calibrated. centroids: for that scope.
    Raises BadInput as `check_decision` does.
    """
    if task == "regression":
        return FittedRule(DecisionRule(task))
    inside = rows if task == "multi" else rows.take(rows.targets >= 0)
    check_decision(settings, task, names, n_rows=len(inside))
    if not len(inside):
        raise BadInput("no rows in scope to fit a decision rule to", "labelled rows", "give a table with some")
    fitting = _Fitting(settings, task, names, temperature, centroids, seed)
    method, why_calibration = fitting.choose_calibration(inside)
    wanted = metric_for_thresholds(settings, metric)
    tuned, why_thresholds = fitting.choose_thresholds(inside, method, wanted)
    goal = wanted if tuned else None
    rule, rare = fitting.rule(inside, method, goal)
    report: dict[str, Any] = {"rows": len(inside), "out_of_scope_rows": len(rows) - len(inside)}
    report |= {"calibration": method, "why": {"calibration": why_calibration}}
    if task == "multi":
        stated = not isinstance(settings.thresholds, str)
        report["thresholds"] = "tuned" if tuned else "stated" if stated else "default"
        report["metric"] = goal
        report["why"]["thresholds"] = why_thresholds
        report["rare"] = [names[i] for i in rare]
    else:
        report["refusals"] = fitting.refusals(inside, rule)
    counted = {
        "plain": _counted(rows, DecisionRule(task)),
        "fitted": _counted(rows, rule),
        "expected": fitting.expected(rows, rule, method, goal),
    }
    report |= {name: None if one is None else one.metrics() for name, one in counted.items()}
    report["reliability"] = {name: one.reliability.table() for name, one in counted.items() if one is not None}
    return FittedRule(rule, report)


def metric_for_thresholds(settings: DecisionSection, metric: str | None) -> str:
    """What thresholds are tuned for."""
    if settings.threshold_metric != "auto":
        return settings.threshold_metric
    return metric if metric in TUNABLE else default_metric("multi")


def fold_numbers(targets: np.ndarray, *, seed: int, folds: int = FOLDS) -> np.ndarray:
    """int64 [n]: which fold each row is in. Rows of a class, or of many labels those with the same rarest one, are
    dealt out one after another, in an order drawn by the seed, so that folds are alike.
    """
    classes = targets
    if targets.ndim == 2:
        counts = (targets > 0).sum(axis=0)
        classes = np.where(targets > 0, counts, len(targets) + 1).argmin(axis=1)
        classes = np.where((targets > 0).any(axis=1), classes, -1)
    order = np.lexsort((np.random.default_rng(seed).random(len(targets)), classes))
    numbers = np.empty(len(targets), dtype=np.int64)
    numbers[order] = np.arange(len(targets)) % folds
    return numbers


def sample_of(n_rows: int, n_outputs: int, *, most_rows: int, seed: int) -> np.ndarray | None:
    """Ascending numbers of the rows that a rule is fitted to; None for all of them."""
    most = min(most_rows, max(MOST_CELLS // n_outputs, 1_000))
    if n_rows <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(n_rows, most, replace=False))


@dataclass(frozen=True)
class _Fitting:
    """Fits rules to rows by the same settings."""

    settings: DecisionSection
    task: Task
    names: Sequence[str]
    temperature: float
    centroids: Centroids | None
    seed: int

    # ---------------------------------------------------------------- what to take

    def choose_calibration(self, rows: HeldRows) -> tuple[Method, str]:
        """How scores are calibrated, and why. Each method must be better than the simpler one, by its cross-fitted nll
        and by more than the standard error of the difference.
        """
        asked = self.settings.calibrate
        if asked is None:
            return "none", "as asked for"
        if asked != "auto":
            return asked, "as asked for"
        if len(rows) < CALIBRATION_ROWS:
            return "none", f"{len(rows)} held-out rows, of {CALIBRATION_ROWS} that it takes"
        methods = ("none", "temperature", "platt") if self.task == "multi" else ("none", "temperature")
        errors = {method: self._errors(rows, method) for method in methods}
        taken = "none"
        for method in methods[1:]:
            gain = errors[taken] - errors[method]
            if gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5:
                taken = method
        nll = ", ".join(f"{method} {one.mean():.4f}" for method, one in errors.items())
        return taken, f"cross-fitted nll: {nll}"

    def choose_thresholds(self, rows: HeldRows, method: Method, metric: str) -> tuple[bool, str]:
        """Whether thresholds are tuned, and why."""
        asked = self.settings.thresholds
        if self.task != "multi" or asked not in ("auto", "tuned"):
            return False, "as asked for"
        if asked == "tuned":
            return True, f"for {metric}, as asked for"
        if len(rows) < THRESHOLD_ROWS:
            return False, f"{len(rows)} held-out rows, of {THRESHOLD_ROWS} that tuned thresholds take"
        found = [self.expected(rows, self.rule(rows, method, goal)[0], method, goal) for goal in (metric, None)]
        tuned, plain = (0.0 if one is None else one.metrics()[metric] for one in found)
        figures = f"cross-fitted {metric} {tuned:.4f} tuned, {plain:.4f} with 0.5"
        return not is_better(metric, plain, tuned), figures

    # ---------------------------------------------------------------- one rule

    def rule(self, rows: HeldRows, method: Method, metric: str | None) -> tuple[DecisionRule, list[int]]:
        """The rule fitted to rows in scope, and the numbers of labels that were drawn towards the common threshold.

        metric: what thresholds are tuned for; None leaves them as they are stated.
        """
        rule, rare = self._calibrated(rows, method), list[int]()
        thresholds = _stated(self.settings, self.names)
        if thresholds is None and rule.shifts is not None:  # what was 0.5, so that lines alone change no decision
            thresholds = tuple(logits_to_scores(np.array([rule.shifts]), "multi")[0].tolist())
        if metric is not None:
            slopes, shifts = (1.0, 0.0) if rule.slopes is None else (np.array(rule.slopes), np.array(rule.shifts))
            cuts = tune(
                rows.logits.astype(np.float64) / rule.temperature * slopes + shifts,
                rows.targets,
                metric,
                seed=self.seed,
            )
            thresholds = tuple(logits_to_scores(cuts.values[None], "multi")[0].tolist())
            rare = np.flatnonzero(cuts.rare).tolist()
        if self.task == "multi":
            return _with_counts(rule, self.settings, thresholds), rare
        return self._refusing(rows, rule), rare

    def refusals(self, rows: HeldRows, rule: DecisionRule) -> list[dict[str, Any]]:
        """What the report says of rows without an answer."""
        settings, found = self.settings, list[dict[str, Any]]()
        if rule.scope is not None:
            scope = {"by": rule.scope.method, "target": settings.in_scope_share, "least": rule.scope.least}
            found.append({"reason": "out of scope", **scope, "reached": True})
        for by, target in (("precision", settings.abstain_precision), ("coverage", settings.abstain_coverage)):
            if target is not None:
                least = self._least_score(rows, rule)
                reached = {"least": rule.least_score, "reached": least is not None}
                found.append({"reason": "low score", "by": by, "target": target, **reached})
        return found

    def expected(self, rows: HeldRows, rule: DecisionRule, method: Method, metric: str | None) -> LabelTally | None:
        """All rows, each decided by a rule that was fitted without it; None for too few rows. rule: that of all."""
        if len(rows) < 2 * FOLDS:
            return None
        counted, numbers = _tally(rows, rule), fold_numbers(rows.targets, seed=self.seed)
        inside = np.ones(len(rows), dtype=bool) if self.task == "multi" else rows.targets >= 0
        for fold in range(FOLDS):
            held = rows.take(numbers == fold)
            others = rows.take((numbers != fold) & inside)
            counted.add_answers(_answers(held, self.rule(others, method, metric)[0]), held.targets)
        return counted

    # ---------------------------------------------------------------- parts

    def _calibrated(self, rows: HeldRows, method: Method) -> DecisionRule:
        if method == "none":
            return DecisionRule(self.task, self.temperature)
        temperature = fit_temperature(rows.logits, rows.targets, self.task, doubt=doubt_of(rows.targets))
        if method == "temperature":
            return DecisionRule(self.task, temperature)
        lines = fit_lines(rows.logits, rows.targets, temperature)
        slopes, shifts = tuple(lines.slopes.tolist()), tuple(lines.shifts.tolist())
        return DecisionRule(self.task, temperature, slopes, shifts)

    def _errors(self, rows: HeldRows, method: Method) -> np.ndarray:
        """float64 [n]: the nll of each row by a calibration that was fitted without it."""
        errors = np.empty(len(rows))
        numbers = fold_numbers(rows.targets, seed=self.seed)
        for fold in range(FOLDS):
            held = numbers == fold
            rule = self._calibrated(rows.take(~held), method)
            errors[held] = row_errors(rule.scores(rows.logits[held]), rows.targets[held], self.task)
        return errors

    def _refusing(self, rows: HeldRows, rule: DecisionRule) -> DecisionRule:
        settings = self.settings
        if settings.out_of_scope is not None:
            method = settings.out_of_scope
            alike = measure_likeness(method, rows.logits, rule, rows.vectors, centroids=self.centroids)
            least = cut_keeping(alike, settings.in_scope_share)
            rule = replace(rule, scope=Scope(method, least, self.centroids if method == "centroids" else None))
        if settings.abstain_precision is not None or settings.abstain_coverage is not None:
            rule = replace(rule, least_score=self._least_score(rows, rule) or 0.0)
        return rule

    def _least_score(self, rows: HeldRows, rule: DecisionRule) -> float | None:
        """The lowest score that is answered, 0 where every one is; None where the precision cannot be reached.

        rule: what it says of scores is left out.
        """
        settings = self.settings
        answers = _answers(rows, replace(rule, least_score=0.0))
        kept = answers.refused == 0
        score = answers.scores.max(axis=1)[kept]
        if settings.abstain_coverage is not None:
            share = settings.abstain_coverage * len(rows) / max(int(kept.sum()), 1)
            return cut_keeping(score, share) if share < 1.0 else 0.0
        assert settings.abstain_precision is not None
        right = answers.scores.argmax(axis=1)[kept] == rows.targets[kept]
        return cut_for_precision(score, right, settings.abstain_precision)


def _stated(settings: DecisionSection, names: Sequence[str]) -> tuple[float, ...] | None:
    """Thresholds that are given as numbers."""
    given = settings.thresholds
    if isinstance(given, str):
        return None
    if isinstance(given, Mapping):
        return tuple(float(given.get(name, 0.5)) for name in names)
    return (float(given),) * len(names)


def _with_counts(rule: DecisionRule, settings: DecisionSection, thresholds: tuple[float, ...] | None) -> DecisionRule:
    if rule.task != "multi":
        return rule
    counts: dict[str, Any] = {"min_labels": settings.min_labels, "max_labels": settings.max_labels}
    return replace(rule, thresholds=thresholds, **counts)


def _answers(rows: HeldRows, rule: DecisionRule) -> Answers:
    return rule.answers(rows.logits, vectors=rows.vectors)


def _tally(rows: HeldRows, rule: DecisionRule) -> LabelTally:
    outside = rule.task == "single" and bool((rows.targets < 0).any())
    return label_tally(rule.task, rows.logits.shape[1], rule=rule, out_of_scope=outside)


def _counted(rows: HeldRows, rule: DecisionRule) -> LabelTally:
    counted = _tally(rows, rule)
    counted.add_answers(_answers(rows, rule), rows.targets)
    return counted
