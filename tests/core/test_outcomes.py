"""Decisions as arrays, rows without an answer among them, and what sums of them say."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from snapfit.core.errors import WorkFailed
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import compute_metrics
from snapfit.core.outcome_sums import LabelSums, NumberSums, sums_of
from snapfit.core.outcomes import NO_LABEL, Answers, Outcomes
from snapfit.core.scores import decide, logits_to_scores

SETS = {
    "single": LabelSet("single", ("a", "b", "c")),
    "multi": LabelSet("multi", ("a", "b", "c")),
    "regression": LabelSet("regression", ("score",), 2.0, 1.0),
}


def outcomes_of(task: str, n: int, *, seed: int = 0, first: int = 0, silent: float = 0.0) -> Outcomes:
    """Rows whose scores know something of the truth; a share of them without an answer."""
    rng, label_set = np.random.default_rng(seed), SETS[task]
    logits = rng.normal(size=(n, label_set.n_outputs))
    noisy = logits + rng.normal(size=logits.shape)
    targets = {"single": noisy.argmax(axis=1), "multi": (noisy > 0.4) * 1.0, "regression": noisy}[task]
    scores = logits_to_scores(logits, label_set.task)
    decisions: list[Any] = decide(scores, label_set.task, label_set.names)
    quiet = rng.random(n) < silent
    answers = Answers.of([None if q else d for q, d in zip(quiet, decisions, strict=True)], label_set)
    return Outcomes(label_set.task, first, scores, np.asarray(targets), answers)


def test_decisions_become_arrays_by_name() -> None:
    single = Answers.of(["c", None, "a"], SETS["single"])
    assert single.chosen.tolist() == [2, NO_LABEL, 0]
    assert single.answered.tolist() == [True, False, True]
    multi = Answers.of([["c", "a"], [], None], SETS["multi"])
    assert multi.chosen.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert multi.answered.tolist() == [True, True, False]
    number = Answers.of([1.5, None], SETS["regression"])
    assert number.answered.tolist() == [True, False]
    assert np.isnan(number.chosen[1])
    for label_set in SETS.values():
        assert len(Answers.of([], label_set).answered) == 0


@pytest.mark.parametrize(("task", "bad"), [("single", ["d"]), ("multi", [["a", "d"]])])
def test_a_label_that_is_none(task: str, bad: list[Any]) -> None:
    with pytest.raises(WorkFailed, match="'d' is none of the 3 labels"):
        Answers.of(bad, SETS[task])


def test_a_row_without_an_answer_is_never_right() -> None:
    nothing_true = np.zeros((1, 3))
    for decision, right in (([], True), (None, False)):
        outcomes = Outcomes("multi", 0, np.zeros((1, 3)), nothing_true, Answers.of([decision], SETS["multi"]))
        assert outcomes.right.tolist() == [right]


@pytest.mark.parametrize("task", list(SETS))
def test_sums_of_all_rows_give_their_metrics(task: str) -> None:
    sums = sums_of(SETS[task], 200)
    for first in range(0, 200, 40):
        sums.add(outcomes_of(task, 40, seed=first, first=first))
    scores, targets = (
        np.concatenate([getattr(outcomes_of(task, 40, seed=first), name) for first in range(0, 200, 40)])
        for name in ("scores", "targets")
    )
    assert (sums.rows, sums.answered) == (200, 200)
    assert sums.all_metrics() == pytest.approx(compute_metrics(SETS[task].task, scores, targets))
    one = sums.metrics(sums.table.sum(axis=0, keepdims=True))
    assert {name: value[0] for name, value in one.items()} == pytest.approx(
        {name: sums.all_metrics()[name] for name in one}
    )


def test_rows_without_an_answer_are_counted_apart() -> None:
    outcomes = outcomes_of("single", 500, silent=0.3)
    sums = LabelSums(SETS["single"], 500)
    sums.add(outcomes)
    chosen, answered = outcomes.answers.chosen, outcomes.answers.answered
    assert sums.answered == answered.sum() < 500
    assert sums.all_metrics()["accuracy"] == (chosen == outcomes.targets).mean()
    assert sums.all_counts().given.tolist() == np.bincount(chosen[answered], minlength=3).tolist()
    assert sums.all_counts().support.sum() == 500


def test_a_regression_is_measured_where_it_answers() -> None:
    outcomes = outcomes_of("regression", 300, silent=0.2)
    sums = NumberSums(SETS["regression"], 300)
    sums.add(outcomes)
    kept = outcomes.answers.answered
    got, error = sums.all_metrics(), outcomes.scores[kept, 0] - outcomes.targets[kept, 0]
    assert (sums.rows, sums.answered) == (300, kept.sum())
    assert got["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    expected = scipy.stats.pearsonr(outcomes.scores[kept, 0], outcomes.targets[kept, 0]).statistic
    assert got["pearson"] == pytest.approx(expected)


@pytest.mark.parametrize("task", list(SETS))
def test_parts_of_a_slice_are_its_metric(task: str) -> None:
    outcomes = outcomes_of(task, 200, silent=0.1)
    x, y = outcomes.parts
    sums = sums_of(SETS[task], 200)
    sums.add(outcomes)
    name = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}[task]
    assert x.sum() / y.sum() == pytest.approx(sums.all_metrics()[name])
