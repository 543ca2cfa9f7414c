"""The decision rule: each step against a plain loop, values that cannot be, and there and back as plain data."""

import json
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snapfit.core.decisions import Answers, DecisionRule, Scope, choose_labels
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task
from snapfit.core.scope import Centroids

SCORES = np.array([[0.2, 0.8], [0.5, 0.5], [0.7, 0.1]])
CENTROIDS = Centroids(np.eye(2, dtype=np.float32), np.array([[0.0, 0.0], [4.0, 0.0]], dtype=np.float32))


def test_decisions_of_each_task() -> None:
    assert DecisionRule("single").decide(SCORES).decisions(["n", "y"]) == ["y", "n", "n"]
    assert DecisionRule("multi").decide(SCORES).decisions(["n", "y"]) == [["y"], ["n", "y"], ["n"]]
    rule = DecisionRule("multi", thresholds=(0.6, 0.9))
    assert rule.decide(SCORES).decisions(["n", "y"]) == [[], [], ["n"]]
    values = DecisionRule("regression").decide(np.array([[1.5], [2.0]])).decisions(["score"])
    assert values == [1.5, 2.0]
    assert all(type(value) is float for value in values)
    assert DecisionRule("single").decide(np.zeros((0, 2))).decisions(["a", "b"]) == []
    assert DecisionRule("multi", min_labels=1).decide(np.zeros((0, 2))).decisions(["a", "b"]) == []


@given(
    scores=hnp.arrays(np.float64, (4, 3), elements=st.floats(0, 1)),
    thresholds=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_many_labels_one_by_one(scores: np.ndarray, thresholds: tuple[float, ...]) -> None:
    names = ["a", "b", "c"]
    expected = [[n for n, s, t in zip(names, row, thresholds, strict=True) if s >= t] for row in scores]
    assert DecisionRule("multi", thresholds=thresholds).decide(scores).decisions(names) == expected


@given(
    scores=hnp.arrays(np.float64, (5, 4), elements=st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])),
    least=st.integers(0, 4),
    more=st.integers(0, 4),
)
def test_no_fewer_and_no_more_labels(scores: np.ndarray, least: int, more: int) -> None:
    most = max(least + more, 1)
    limits = np.array([0.5, 0.3, 0.7, 0.1])
    chosen = choose_labels(scores, limits, least=least, most=most)
    for row, given_row in zip(scores, chosen, strict=True):
        likeliest = sorted(range(4), key=lambda i: (-row[i], i))
        reached = [i for i in likeliest if row[i] >= limits[i]]
        others = [i for i in likeliest if i not in reached]
        expected = (reached + others[: max(least - len(reached), 0)])[:most]
        assert sorted(expected) == np.flatnonzero(given_row).tolist()


def test_slopes_and_shifts_are_lines_on_divided_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    rule = DecisionRule("multi", 2.0, slopes=(1.0, 0.5, 2.0), shifts=(0.0, -1.0, 0.25))
    expected = scipy.special.expit(logits.astype(float) / 2.0 * [1.0, 0.5, 2.0] + [0.0, -1.0, 0.25])
    np.testing.assert_allclose(rule.scores(logits), expected, rtol=1e-12)
    with pytest.raises(WorkFailed, match="row 7"):
        rule.scores(np.array([[1.0, np.nan, 1.0]]), rows=np.array([7]))
    with pytest.raises(BadInput, match="for 3 labels"):
        rule.scores(logits[:, :2])


def test_low_scores_are_refused() -> None:
    rule = DecisionRule("single", least_score=0.6)
    answers = rule.decide(SCORES)
    assert answers.decisions(["n", "y"]) == ["y", None, "n"]
    assert answers.reasons() == [None, "low score", None]
    assert rule.refuses
    assert not DecisionRule("single").refuses
    assert answers.take(slice(1, 3)).reasons() == ["low score", None]
    assert len(answers.take(slice(1, 3))) == 2


def test_scopes() -> None:
    logits = np.array([[8.0, 0.0], [0.5, 0.0], [1.0, -1.0]])
    by_score = DecisionRule("single", scope=Scope("max_probability", 0.9)).answers(logits)
    assert by_score.reasons() == [None, "out of scope", "out of scope"]
    energies = scipy.special.logsumexp(logits / 2.0, axis=1)
    rule = DecisionRule("single", 2.0, scope=Scope("energy", float(np.sort(energies)[1])))
    np.testing.assert_allclose(rule.likeness(logits), energies)
    assert rule.answers(logits).refused.tolist() == [
        0,
        0 if energies[1] > energies[2] else 2,
        2 * (energies[2] < energies[1]),
    ]
    near = DecisionRule("single", scope=Scope("centroids", -1.0, CENTROIDS))
    vectors = np.array([[0.5, 0.0], [2.0, 0.0], [4.0, 0.9]])
    assert near.answers(logits, vectors=vectors).reasons() == [None, "out of scope", None]
    assert near.needs_vectors
    assert near.answers(logits, likeness=np.array([-0.5, -4.0, -2.0])).refused.tolist() == [0, 2, 2]
    with pytest.raises(BadInput, match="logits alone"):
        near.answers(logits)
    with pytest.raises(BadInput, match="scores alone"):
        near.decide(SCORES)


def test_out_of_scope_goes_before_a_low_score() -> None:
    rule = DecisionRule("single", least_score=0.9, scope=Scope("max_probability", 0.75))
    assert rule.decide(SCORES, SCORES.max(axis=1)).reasons() == ["low score", "out of scope", "out of scope"]


@pytest.mark.parametrize(
    "values",
    [
        {"task": "single", "temperature": 0.0},
        {"task": "single", "temperature": float("nan")},
        {"task": "single", "thresholds": (0.5,)},
        {"task": "single", "min_labels": 1},
        {"task": "regression", "max_labels": 1},
        {"task": "multi", "least_score": 0.5},
        {"task": "multi", "scope": Scope("energy", 0.0)},
        {"task": "multi", "slopes": (1.0,)},
        {"task": "multi", "slopes": (1.0, 1.0), "shifts": (0.0,)},
        {"task": "multi", "slopes": (1.0, 0.0), "shifts": (0.0, 0.0)},
        {"task": "multi", "slopes": (1.0, 1.0), "shifts": (0.0, float("inf"))},
        {"task": "multi", "thresholds": (0.5, 1.5)},
        {"task": "multi", "thresholds": (0.5, float("nan"))},
        {"task": "multi", "min_labels": -1},
        {"task": "multi", "min_labels": 3, "max_labels": 2},
        {"task": "multi", "max_labels": 0},
        {"task": "single", "least_score": 1.5},
    ],
)
def test_rules_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        DecisionRule(**values)


@pytest.mark.parametrize(
    ("method", "least", "centroids"),
    [("energi", 0.0, None), ("energy", float("nan"), None), ("centroids", 0.0, None), ("energy", 0.0, CENTROIDS)],
)
def test_scopes_that_cannot_be(method: Any, least: float, centroids: Centroids | None) -> None:
    with pytest.raises(BadInput, match="scope"):
        Scope(method, least, centroids)


@pytest.mark.parametrize(
    "rule",
    [
        DecisionRule("single"),
        DecisionRule("regression"),
        DecisionRule("single", 0.7, least_score=0.3, scope=Scope("energy", -2.5)),
        DecisionRule("single", scope=Scope("centroids", -2.5, CENTROIDS)),
        DecisionRule("multi", 1.5, (1.0, 2.0), (0.0, -1.0), (0.25, 1.0), 1, 2),
        DecisionRule("multi", max_labels=1),
    ],
)
def test_there_and_back(rule: DecisionRule) -> None:
    values = json.loads(json.dumps(rule.to_dict()))
    centroids = rule.scope.centroids if rule.scope else None
    assert DecisionRule.from_dict(rule.task, values, centroids=centroids) == rule
    assert (values == {}) is (rule == DecisionRule(rule.task))


def test_the_label_set_must_be_that_of_the_scores() -> None:
    with pytest.raises(BadInput, match="for 3 labels"):
        DecisionRule("single").decide(np.zeros((2, 2))).decisions(["a", "b", "c"])
    with pytest.raises(BadInput, match="one threshold a label"):
        DecisionRule("multi", thresholds=(0.5,)).decide(np.zeros((2, 2)))
    assert isinstance(DecisionRule("single").decide(np.zeros((2, 2))), Answers)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_answers_in_another_order_of_labels(task: Task) -> None:
    names, others = ("a", "b", "c", "d"), ("c", "a", "d", "b")
    rule = DecisionRule(task, least_score=0.3) if task == "single" else DecisionRule(task, min_labels=1, max_labels=2)
    logits = np.random.default_rng(0).normal(size=(200, 4))
    answers = rule.answers(logits)
    again = answers.with_labels_of(names, others)
    assert again.scores.tolist() == answers.scores[:, [2, 0, 3, 1]].tolist()
    wanted = answers.decisions(names)
    assert (None in wanted) is (task == "single")
    got = again.decisions(others)
    assert [set(one) for one in got] == [set(one) for one in wanted] if task == "multi" else got == wanted
    assert again.refused.tolist() == answers.refused.tolist()


def test_answers_of_some_rows_and_of_parts() -> None:
    answers = DecisionRule("single", least_score=0.4).answers(np.random.default_rng(0).normal(size=(20, 3)))
    whole = answers.decisions("abc")
    assert answers.take(np.array([3, 1])).decisions("abc") == [whole[3], whole[1]]
    assert answers.take(answers.answered).decisions("abc") == [one for one in whole if one is not None]
    assert answers.answered.tolist() == [one is not None for one in whole]
