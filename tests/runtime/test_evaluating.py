"""Measuring a bundle: the figures agree with scikit-learn's for every task, and decisions are the predictor's."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, matthews_corrcoef, precision_recall_fscore_support, r2_score

from snapfit.core.calibration import calibration_error
from snapfit.core.errors import BadInput
from snapfit.core.intervals import wilson
from snapfit.data.records import Records, read_records
from snapfit.runtime import evaluating
from snapfit.runtime import parts as parts_module
from snapfit.runtime import predictor as predictor_module
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import Questions, evaluate_bundle, examples_of
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
    missed, wrong = (np.column_stack([one, ~one.any(axis=1)]) for one in (truth & ~given, given & ~truth))
    for mistake in result["mistakes"]:
        i, j = ([*names, None].index(mistake[key]) for key in ("true", "predicted"))
        assert mistake["rows"] == np.sum(missed[:, i] & wrong[:, j])
    assert result["mistakes"]


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


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_every_metric_has_an_interval_around_it(tmp_path: Path, task: str) -> None:
    choose = {
        "single": lambda rng: rng.choice(LABELS["single"].names),
        "multi": lambda rng: [name for name in LABELS["multi"].names if rng.random() < 0.5],
        "regression": lambda rng: rng.uniform(1, 5),
    }[task]
    records = read_records(rows("label", choose), task=task)
    made = predictor(tmp_path, task)
    found = {level: evaluate_bundle(made, records, questions=Questions(confidence=level)) for level in (0.8, 0.95)}
    assert found[0.8]["intervals"].keys() == found[0.8]["metrics"].keys()
    for name, value in found[0.95]["metrics"].items():
        if name == "ece":
            continue
        wide, narrow = found[0.95]["intervals"][name], found[0.8]["intervals"][name]
        assert wide[0] < narrow[0] < value < narrow[1] < wide[1]
    for one in found[0.95]["per_label"]:
        for name, (low, high) in one["intervals"].items():
            assert low <= one[name] <= high
    assert sum(one["rows"] for one in found[0.95]["slices"]) == N


def test_slices_by_length_count_whole_texts(tmp_path: Path) -> None:
    """Longer ones than the bundle reads are a slice of their own; [CLS] and [SEP] count."""
    made = predictor(tmp_path, "single", max_tokens=6)
    table = [{"text": " ".join(["film"] * n), "label": "good"} for n in (1, 2, 3, 4, 5, 9)]
    lengths = [one["slice"] for one in evaluate_bundle(made, read_records(table))["slices"]]
    assert lengths[-1] == "7–11 tokens"
    edges = evaluate_bundle(made, read_records(table), questions=Questions(length_edges=[4, 6]))["slices"]
    assert [(one["slice"], one["rows"]) for one in edges] == [("3–4 tokens", 2), ("5–6 tokens", 2), ("7–11 tokens", 2)]


def test_rows_without_an_answer_are_told_of_apart(tmp_path: Path) -> None:
    names = list(LABELS["single"].names)
    made = predictor(tmp_path, "single", decision={"least_score": 0.8}, format_version=3)
    records = read_records(rows("label", lambda rng: rng.choice(names)))
    result, predicted = evaluate_bundle(made, records), made.predict(examples_of(records))
    answered = [i for i, one in enumerate(predicted) if one is not None]
    right = sum(predicted[i] == records.labels[i] for i in answered)  # type: ignore[index]
    assert 0 < len(answered) < N
    metrics, intervals = result["metrics"], result["intervals"]
    assert result["unanswered"] == {"low score": N - len(answered)}
    assert (metrics["coverage"], metrics["answered_accuracy"]) == (len(answered) / N, right / len(answered))
    assert metrics["accuracy"] == right / N
    assert intervals["coverage"] == list(wilson(len(answered), N, 0.95) or ())
    assert intervals["answered_accuracy"] == list(wilson(right, len(answered), 0.95) or ())
    assert sum(one["given"] for one in result["per_label"]) == len(answered)
    unanswered = [one for one in result["mistakes"] if one["predicted"] is None]
    assert sum(one["rows"] for one in unanswered) == N - len(answered)
    assert all(one["true"] in names for one in result["mistakes"])
    assert all(example["predicted_score"] is None for one in unanswered for example in one["examples"])
    assert any("below 0.8" in line for line in result["decides"])


def test_rows_out_of_scope_are_right_without_an_answer(tmp_path: Path) -> None:
    names = [*LABELS["single"].names, "none of these"]
    made = predictor(tmp_path, "single", decision={"least_score": 0.8}, format_version=3)
    records = read_records(rows("label", lambda rng: rng.choice(names)))
    result, predicted = evaluate_bundle(made, records, out_of_scope=names[3]), made.predict(examples_of(records))
    truth = list(records.labels or ())
    inside = [i for i, label in enumerate(truth) if label != names[3]]
    outside = [i for i, label in enumerate(truth) if label == names[3]]
    silent = [i for i, one in enumerate(predicted) if one is None]
    right = sum(predicted[i] == truth[i] for i in inside)
    kept = sum(predicted[i] is not None for i in inside)
    refused = len(set(silent) & set(outside))
    assert 0 < refused < len(outside)
    expected = {
        "accuracy": (right, len(inside)),
        "coverage": (kept, len(inside)),
        "answered_accuracy": (right, kept),
        "refusal_recall": (refused, len(outside)),
        "refusal_precision": (refused, len(silent)),
        "overall_accuracy": (right + refused, N),
    }
    for name, (part, whole) in expected.items():
        assert result["metrics"][name] == pytest.approx(part / whole)
        assert result["intervals"][name] == pytest.approx(list(wilson(part, whole, 0.95) or ()))
    assert result["out_of_scope"] == {"label": names[3], "rows": len(outside)}
    told = np.array([names[3] if one is None else one for one in predicted])
    assert result["metrics"]["mcc"] == pytest.approx(matthews_corrcoef(truth, told))
    matrix = confusion_matrix(truth, told, labels=names)
    for one in result["mistakes"]:
        row, column = names.index(one["true"]), names.index(one["predicted"] or names[3])
        assert one["rows"] == matrix[row, column]
    assert sum(one["rows"] for one in result["mistakes"]) == matrix.sum() - np.trace(matrix)
    assert sum(one["support"] for one in result["per_label"]) == len(inside)
    lengths = [one for one in result["slices"] if one["by"] == "length"]
    assert sum(one["rows"] for one in lengths) == N
    with pytest.raises(BadInput, match="'none of these'"):
        evaluate_bundle(made, records)
    unknown = read_records([{"text": "film", "label": label} for label in (names[3], "good", names[3], "superb")])
    with pytest.raises(BadInput, match="'superb' .*in row 4"):
        evaluate_bundle(made, unknown, out_of_scope=names[3])


def test_how_sure_answers_are_is_told_in_ranges(tmp_path: Path) -> None:
    made = predictor(tmp_path, "single", temperature=3.0)
    records = read_records(rows("label", lambda rng: rng.choice(LABELS["single"].names)))
    result, scores = evaluate_bundle(made, records), made.scores(examples_of(records))
    targets = LABELS["single"].encode(records.labels or (), where="here")
    assert result["metrics"]["ece"] == pytest.approx(calibration_error(scores, targets, "single"))
    assert result["intervals"]["ece"] is None
    assert sum(one["answers"] for one in result["reliability"]) == N
    found = sum(one["answers"] / N * abs(one["confidence"] - one["right"]) for one in result["reliability"])
    assert result["metrics"]["ece"] == pytest.approx(found)


def test_progress_ends_with_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.runtime.evaluating.PIECE_ROWS", 64)
    heard: list[tuple[int, int]] = []
    records = read_records(rows("label", lambda rng: "good"))
    evaluate_bundle(predictor(tmp_path, "single"), records, progress=lambda *now: heard.append(now))
    assert heard == [(64, N), (128, N), (192, N), (N, N)]


def test_pieces_are_whole_chunks_of_the_predictor() -> None:
    """So that the batches of an evaluation, and with them the last bits of its scores, are those of a prediction."""
    assert evaluating.PIECE_ROWS % predictor_module._CHUNK_ROWS == 0
    assert parts_module.PART_ROWS % evaluating.PIECE_ROWS == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"slices": ["txet"]}, "did you mean --slice 'text'"),
        ({"slices": ["unheard of"]}, "no column 'unheard of'"),
        ({"confidence": 95}, "a confidence of 95"),
        ({"length_edges": [8, 4]}, "edges of lengths 8, 4"),
        ({"length_edges": [0, 4]}, "edges of lengths 0, 4"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    records = read_records(rows("label", lambda rng: "good"))
    with pytest.raises(BadInput, match=word):
        evaluate_bundle(predictor(tmp_path, "single"), records, questions=Questions(**changes))


def test_records_that_cannot_be_measured(tmp_path: Path) -> None:
    made = predictor(tmp_path, "single")
    unlabelled: Records = read_records(["good film"], labels_required=False)
    with pytest.raises(BadInput, match="no labels"):
        evaluate_bundle(made, unlabelled)
    unknown = read_records([{"text": "film", "label": "superb"}, {"text": "plot", "label": "good"}])
    with pytest.raises(BadInput, match="'superb'"):
        evaluate_bundle(made, unknown)
