"""Answers beside their truth, rows without an answer and rows out of scope among them, and what sums of them say."""

import numpy as np
import pytest

from snapfit.core.calibration import calibration_error
from snapfit.core.decisions import NO_LABEL, DecisionRule
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import compute_metrics, label_tally
from snapfit.core.outcome_sums import LabelSums, sums_of
from snapfit.core.outcomes import Outcomes

SETS = {
    "single": LabelSet("single", ("a", "b", "c")),
    "multi": LabelSet("multi", ("a", "b", "c")),
    "regression": LabelSet("regression", ("score",), 2.0, 1.0),
}
HESITANT = DecisionRule("single", least_score=0.6)


def outcomes_of(
    task: str, n: int, *, seed: int = 0, first: int = 0, rule: DecisionRule | None = None, outside: float = 0.0
) -> Outcomes:
    """Rows whose scores know something of the truth; a share of them out of scope."""
    rng, label_set = np.random.default_rng(seed), SETS[task]
    logits = rng.normal(size=(n, label_set.n_outputs))
    noisy = logits + rng.normal(size=logits.shape)
    targets = {"single": noisy.argmax(axis=1), "multi": (noisy > 0.4) * 1.0, "regression": noisy}[task]
    targets = np.where(rng.random(n) < outside, NO_LABEL, targets) if outside else targets
    return Outcomes(first, targets, (rule or DecisionRule(label_set.task)).answers(logits))


def test_what_is_right() -> None:
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45], [0.5, 0.5], [0.8, 0.2]])
    targets = np.array([0, 0, 0, NO_LABEL, NO_LABEL])
    outcomes = Outcomes(0, targets, HESITANT.decide(scores))
    assert outcomes.answers.chosen.tolist() == [0, 1, NO_LABEL, NO_LABEL, 0]
    assert outcomes.right.tolist() == [True, False, False, True, False]
    assert outcomes.inside.tolist() == [True, True, True, False, False]
    assert [part.sum() for part in outcomes.parts] == [1, 3]


@pytest.mark.parametrize("task", list(SETS))
def test_sums_of_all_rows_give_their_metrics(task: str) -> None:
    sums = sums_of(SETS[task], 200)
    for first in range(0, 200, 40):
        sums.add(outcomes_of(task, 40, seed=first, first=first))
    scores, targets = (
        np.concatenate([getattr(outcomes_of(task, 40, seed=first), name) for first in range(0, 200, 40)])
        for name in ("scores", "targets")
    )
    assert sums.rows == 200
    assert sums.all_metrics() == pytest.approx(compute_metrics(SETS[task].task, scores, targets))
    one = sums.metrics(sums.table.sum(axis=0, keepdims=True))
    assert {name: value[0] for name, value in one.items()} == pytest.approx(
        {name: sums.all_metrics()[name] for name in one}
    )


@pytest.mark.parametrize("outside", [0.0, 0.3])
def test_sums_and_tallies_know_the_same_metrics(outside: float) -> None:
    outcomes = outcomes_of("single", 500, rule=HESITANT, outside=outside)
    sums = LabelSums(SETS["single"], 500, refuses=True, out_of_scope=outside > 0)
    sums.add(outcomes)
    counted = label_tally("single", 3, rule=HESITANT, out_of_scope=outside > 0)
    counted.add_answers(outcomes.answers, outcomes.targets)
    got = sums.all_metrics()
    assert got == pytest.approx(counted.metrics())
    assert list(got) == list(counted.metrics())
    assert {"coverage", "answered_accuracy"} <= got.keys()
    assert ("refusal_recall" in got) is (outside > 0)
    for name, (part, whole) in sums.all_shares().items():
        assert got[name] == pytest.approx(part / whole)
    assert sums.out_of_scope_rows == (outcomes.targets == NO_LABEL).sum()
    assert sums.refused.tolist() == [outcomes.answers.answered.sum(), (~outcomes.answers.answered).sum(), 0]


def test_rows_without_an_answer_are_counted_apart() -> None:
    outcomes = outcomes_of("single", 500, rule=HESITANT)
    sums = LabelSums(SETS["single"], 500, refuses=True)
    sums.add(outcomes)
    chosen, answered = outcomes.answers.chosen, outcomes.answers.answered
    assert 0 < answered.sum() < 500
    assert sums.all_metrics()["accuracy"] == (chosen == outcomes.targets).mean()
    assert sums.all_metrics()["coverage"] == answered.mean()
    assert sums.all_counts().given.tolist() == np.bincount(chosen[answered], minlength=3).tolist()
    assert sums.all_counts().support.sum() == 500
    expected = calibration_error(outcomes.scores, outcomes.targets, "single")
    assert sums.all_metrics()["ece"] == pytest.approx(expected)


@pytest.mark.parametrize("task", list(SETS))
def test_parts_of_a_slice_are_its_metric(task: str) -> None:
    single = task == "single"
    outcomes = outcomes_of(task, 200, rule=HESITANT if single else None, outside=0.2 if single else 0.0)
    x, y = outcomes.parts
    sums = sums_of(SETS[task], 200, out_of_scope=single)
    sums.add(outcomes)
    name = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}[task]
    assert x.sum() / y.sum() == pytest.approx(sums.all_metrics()[name])
