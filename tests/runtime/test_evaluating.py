"""Measuring a bundle: the figures agree with scikit-learn's for every task."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, r2_score

from snapfit.core.errors import BadInput
from snapfit.data.records import Records, read_records
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import evaluate_bundle, examples_of
from snapfit.runtime.predictor import Predictor
from tiny_bundle import LABELS, WORDS, BagOfWords, write_tiny_bundle

N = 200


def predictor(folder: Path, task: str, **changes: Any) -> Predictor:
    bundle = Bundle.open(write_tiny_bundle(folder / "bundle", task, **changes))
    return Predictor(bundle, BagOfWords(bundle.label_set.n_outputs))


def rows(label: str, choose: Any) -> list[dict[str, Any]]:
    rng = random.Random(3)
    return [{"text": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))), label: choose(rng)} for _ in range(N)]


def test_single(tmp_path: Path) -> None:
    names = list(LABELS["single"].names)
    made = predictor(tmp_path, "single")
    records = read_records(rows("label", lambda rng: rng.choice(names)))
    result = evaluate_bundle(made, records)
    truth, predicted = records.labels, made.predict(examples_of(records))
    figures = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    assert (result["task"], result["rows"]) == ("single", N)
    assert result["metrics"]["accuracy"] == pytest.approx(np.mean(np.array(truth) == np.array(predicted)))
    for key, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        assert [one[key] for one in result["per_label"]] == pytest.approx(list(values))
    matrix = confusion_matrix(truth, predicted, labels=names)
    for mistake in result["mistakes"]:
        assert mistake["rows"] == matrix[names.index(mistake["true"]), names.index(mistake["predicted"])]
    counts = [mistake["rows"] for mistake in result["mistakes"]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == matrix.sum() - np.trace(matrix)


@pytest.mark.parametrize("thresholds", [None, [0.2, 0.5, 0.9]])
def test_multi(tmp_path: Path, thresholds: list[float] | None) -> None:
    names = list(LABELS["multi"].names)
    made = predictor(tmp_path, "multi", thresholds=thresholds)
    records = read_records(rows("labels", lambda rng: [name for name in names if rng.random() < 0.5]))
    result = evaluate_bundle(made, records)
    truth = np.array([[name in row for name in names] for row in records.labels or ()])
    given = np.array([[name in row for name in names] for row in made.predict(examples_of(records))])
    figures = precision_recall_fscore_support(truth, given, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        assert [one[key] for one in result["per_label"]] == pytest.approx(list(values))
    for mistake in result["mistakes"]:
        i, j = names.index(mistake["true"]), names.index(mistake["predicted"])
        assert mistake["rows"] == np.sum(truth[:, i] & ~given[:, i] & given[:, j] & ~truth[:, j])
    assert 0 < len(result["mistakes"]) <= TOP_MISTAKES


def test_regression(tmp_path: Path) -> None:
    made = predictor(tmp_path, "regression")
    records = read_records(rows("score", lambda rng: rng.uniform(1, 5)), task="regression")
    result = evaluate_bundle(made, records)
    assert result["metrics"]["r2"] == pytest.approx(r2_score(records.labels, made.predict(examples_of(records))))
    assert result["per_label"] == result["mistakes"] == []


def test_pairs_are_scored_as_pairs(tmp_path: Path) -> None:
    made = predictor(tmp_path, "single", pair=True, text_columns=["a", "b"])
    table = [{"a": "the film", "b": word, "label": "good"} for word in WORDS]
    records = read_records(table, text="a", pair="b")
    assert examples_of(records)[0] == ("the film", WORDS[0])
    predicted = made.predict([("the film", word) for word in WORDS])
    assert evaluate_bundle(made, records)["metrics"]["accuracy"] == np.mean([label == "good" for label in predicted])


def test_records_that_cannot_be_measured(tmp_path: Path) -> None:
    made = predictor(tmp_path, "single")
    unlabelled: Records = read_records(["good film"], labels_required=False)
    with pytest.raises(BadInput, match="no labels"):
        evaluate_bundle(made, unlabelled)
    unknown = read_records([{"text": "film", "label": "superb"}, {"text": "plot", "label": "good"}])
    with pytest.raises(BadInput, match="'superb'"):
        evaluate_bundle(made, unknown)
