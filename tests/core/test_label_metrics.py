"""Metrics from counts: for many sets of counts at once as for each alone, and with rows that have no answer."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk

from snapfit.core.label_metrics import LabelCounts, label_metrics, per_class
from snapfit.core.labels import Task


def some_counts(rng: np.random.Generator, n: int, k: int) -> LabelCounts:
    hits = rng.integers(0, 9, (n, k))
    given, support = hits + rng.integers(0, 5, (n, k)), hits + rng.integers(0, 5, (n, k))
    outside = rng.integers(0, 9, n)
    rows = np.maximum(given.sum(axis=1), support.sum(axis=1)) + outside + 1
    return LabelCounts(
        rows, rng.integers(0, rows), -rng.random(n), hits, given, support, outside, rng.integers(0, outside + 1)
    )


@pytest.mark.parametrize("task", ["single", "multi"])
def test_many_at_once_are_each_alone(task: Task) -> None:
    counts, outside = some_counts(np.random.default_rng(0), 40, 5), task == "single"
    together = label_metrics(task, counts, refuses=True, out_of_scope=outside)
    assert ("refusal_recall" in together) is outside
    for i in range(40):
        one = LabelCounts(*(part[i] for part in counts))
        alone = {k: float(v) for k, v in label_metrics(task, one, refuses=True, out_of_scope=outside).items()}
        assert {name: value[i] for name, value in together.items()} == pytest.approx(alone)


def test_counts_of_nothing_are_no_error() -> None:
    zeros = LabelCounts(*(np.zeros(2) for _ in range(3)), *(np.zeros((2, 3)) for _ in range(3)))
    for task in ("single", "multi"):
        assert all((value == 0).all() for value in label_metrics(task, zeros).values())  # type: ignore[arg-type]


def test_per_class_equals_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    truth[truth == 2] = 0
    hits, given, support = (np.bincount(x, minlength=5) for x in (truth[truth == predicted], predicted, truth))
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    for ours, theirs in zip(per_class(hits, given, support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_rows_without_an_answer_are_a_class_that_is_never_true() -> None:
    """As scikit-learn has it when they are given a class of their own, which the means over labels leave out."""
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, 3, 80), rng.integers(-1, 3, 80)
    predicted[:40] = truth[:40]
    hits, support = np.bincount(truth[truth == predicted], minlength=3), np.bincount(truth, minlength=3)
    given = np.bincount(predicted[predicted >= 0], minlength=3)
    got = label_metrics("single", LabelCounts(np.array(80), hits.sum(), np.array(0.0), hits, given, support))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert got["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted))
        expected = sk.f1_score(truth, predicted, labels=range(3), average="macro")
    assert got["macro_f1"] == pytest.approx(expected)
    assert got["accuracy"] == pytest.approx(np.mean(truth == predicted))
