"""Scoring a split against scikit-learn on rows scored one at a time, and the keeping of the best weights."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import tiny
from snapfit.core.labels import LabelSet
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.training.evaluation import BestWeights, evaluate
from snapfit.training.loop import Examples

ROWS = 30


def rows_and_tokens() -> tuple[list[np.ndarray], TokenIds]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 100, size=rng.integers(2, 15)).astype(np.uint16) for _ in range(ROWS)]
    lengths = np.array([len(row) for row in rows])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rows, TokenIds(np.concatenate(rows), offsets, lengths.astype(np.uint32))


def logits_one_at_a_time(model: Classifier, rows: list[np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        parts = [model(torch.from_numpy(row.astype(np.int64))[None]).logits for row in rows]
    return torch.cat(parts).double().numpy()


def test_single() -> None:
    model, (rows, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    targets = np.arange(ROWS) % 3
    label_set = LabelSet("single", ("a", "b", "c"))
    result = evaluate(model.train(), Examples(tokens, targets, 0), label_set, autocast=nullcontext, keep_scores=True)
    assert not model.training
    logits = logits_one_at_a_time(model, rows)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(result.scores, expected, atol=1e-6)
    assert result.metrics["accuracy"] == reference.accuracy_score(targets, logits.argmax(1))
    assert result.metrics["macro_f1"] == pytest.approx(
        reference.f1_score(targets, logits.argmax(1), average="macro", zero_division=0)
    )
    assert result.metrics["nll"] == pytest.approx(reference.log_loss(targets, expected), abs=1e-5)


def test_multi() -> None:
    model, (rows, tokens) = tiny.classifier("bert", "mean", task="multi"), rows_and_tokens()
    targets = np.random.default_rng(1).integers(0, 2, (ROWS, 3)).astype(np.float32)
    label_set = LabelSet("multi", ("a", "b", "c"))
    result = evaluate(model, Examples(tokens, targets, 0), label_set, autocast=nullcontext, keep_scores=True)
    logits = logits_one_at_a_time(model, rows)
    np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert result.metrics["micro_f1"] == pytest.approx(reference.f1_score(targets, logits > 0, average="micro"))


def test_regression_is_measured_in_the_tables_units() -> None:
    model, (rows, tokens) = tiny.classifier("bert", "mean", task="regression", n_labels=1), rows_and_tokens()
    prices = np.random.default_rng(1).normal(1e5, 250.0, ROWS)
    label_set = LabelSet.fit("regression", prices, name="price")
    standardised = ((prices - label_set.target_mean) / label_set.target_scale).astype(np.float32)[:, None]
    result = evaluate(model, Examples(tokens, standardised, 0), label_set, autocast=nullcontext, keep_scores=True)
    predicted = logits_one_at_a_time(model, rows)[:, 0] * label_set.target_scale + label_set.target_mean
    np.testing.assert_allclose(result.scores[:, 0], predicted, rtol=1e-6)
    assert result.metrics["rmse"] == pytest.approx(reference.root_mean_squared_error(prices, predicted), rel=1e-4)
    assert result.metrics["pearson"] == pytest.approx(np.corrcoef(prices, predicted)[0, 1], abs=1e-4)


def test_autocast_is_used() -> None:
    model, (_, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    examples, label_set = Examples(tokens, np.arange(ROWS) % 3, 0), LabelSet("single", ("a", "b", "c"))

    def bf16() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    exact = evaluate(model, examples, label_set, autocast=nullcontext, keep_scores=True).scores
    half = evaluate(model, examples, label_set, autocast=bf16, keep_scores=True).scores
    assert 1e-5 < np.abs(exact - half).max() < 0.2


# ---------------------------------------------------------------- the best weights


def higher(new: float, old: float) -> bool:
    return new > old


def set_bias(model: Classifier, value: float) -> None:
    with torch.no_grad():
        model.output.bias.fill_(value)


def test_the_best_evaluation_is_restored() -> None:
    model, best = tiny.classifier("bert", "mean"), BestWeights(higher)
    offered = []
    for step, value in enumerate([0.5, 0.7, 0.6, 0.7, 0.2], start=1):
        set_bias(model, step)
        offered.append(best.offer(model, value, step))
    assert offered == [True, True, False, False, False]
    assert (best.value, best.step, best.evaluations_since) == (0.7, 2, 3)
    best.put_into(model)
    assert model.output.bias.tolist() == [2.0, 2.0, 2.0]


def test_a_metric_where_lower_is_better() -> None:
    model, best = tiny.classifier("bert", "mean"), BestWeights(lambda new, old: new < old)
    assert [best.offer(model, value, step) for step, value in enumerate([3.0, 2.0, 2.5], 1)] == [
        True,
        True,
        False,
    ]
    assert best.value == 2.0


def test_of_equal_values_the_more_certain_one_stays() -> None:
    model, best = tiny.classifier("bert", "mean"), BestWeights(higher)
    evaluations = [(0.7, 0.9), (0.7, 0.5), (0.7, 0.5), (0.7, 0.6), (0.6, 0.1), (0.8, 3.0)]
    offered = [best.offer(model, value, step, nll=nll) for step, (value, nll) in enumerate(evaluations, start=1)]
    assert offered == [True, True, False, False, False, True]
    assert (best.value, best.step, best.evaluations_since) == (0.8, 6, 0)


def test_without_evaluations_nothing_is_restored() -> None:
    model, best = tiny.classifier("bert", "mean"), BestWeights(higher)
    set_bias(model, 4.0)
    best.put_into(model)
    assert (best.value, best.step) == (None, 0)
    assert model.output.bias.tolist() == [4.0, 4.0, 4.0]


def test_later_training_does_not_reach_what_is_held() -> None:
    model, best = tiny.classifier("bert", "native"), BestWeights(higher)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best.offer(model, 1.0, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    best.put_into(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
