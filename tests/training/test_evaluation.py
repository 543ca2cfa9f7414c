"""Scoring a split against scikit-learn on rows scored one at a time, and the keeping of the best weights."""

import gc
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import tiny
from snapfit.core import metrics
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import LabelSet
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.runtime import predictor
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


def test_scores_are_kept_only_when_asked_for() -> None:
    model, (_, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    examples, label_set = Examples(tokens, np.arange(ROWS) % 3, 0), LabelSet("single", ("a", "b", "c"))
    lean = evaluate(model, examples, label_set, autocast=nullcontext)
    full = evaluate(model, examples, label_set, autocast=nullcontext, keep_scores=True)
    assert lean.scores is None
    assert lean.rows == full.rows == ROWS
    assert lean.metrics == full.metrics
    answers = full.scores.argmax(axis=1)
    assert lean.answer_range == (answers.min(), answers.max())


def test_windows_of_rows_change_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (_, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    examples, label_set = Examples(tokens, np.arange(ROWS) % 3, 0), LabelSet("single", ("a", "b", "c"))
    whole = evaluate(model, examples, label_set, autocast=nullcontext, keep_scores=True)
    monkeypatch.setattr(predictor, "_WINDOW_ROWS", 7)
    parts = evaluate(model, examples, label_set, autocast=nullcontext, keep_scores=True)
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    assert parts.metrics == pytest.approx(whole.metrics, abs=1e-6)


def test_an_evaluation_stops_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (_, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    examples, label_set = Examples(tokens, np.arange(ROWS) % 3, 0), LabelSet("single", ("a", "b", "c"))
    monkeypatch.setattr(predictor, "_WINDOW_ROWS", 10)
    for last in (1, 2, 3):
        answers = iter([False] * (last - 1) + [True])
        assert evaluate(model, examples, label_set, autocast=nullcontext, stop=lambda it=answers: next(it)) is None
        assert next(answers, None) is None
    assert evaluate(model, examples, label_set, autocast=nullcontext, stop=lambda: False) is not None


def test_rows_that_cannot_be_scored_or_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (_, tokens) = tiny.classifier("bert", "mean"), rows_and_tokens()
    label_set = LabelSet("single", ("a", "b", "c"))
    with pytest.raises(BadInput, match="targets from"):
        evaluate(model, Examples(tokens, np.arange(ROWS), 0), label_set, autocast=nullcontext)
    nothing = Examples(tokens.take(np.zeros(0, np.int64)), np.zeros(0, np.int64), 0)
    with pytest.raises(BadInput, match="at least one row"):
        evaluate(model, nothing, label_set, autocast=nullcontext)
    with torch.no_grad():
        model.get_input_embeddings().weight[100 - 1] = torch.nan
    row = max(row for row in range(ROWS) if 99 in tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]])
    only = np.array([*(i for i in range(ROWS) if 99 not in tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]]), row])
    examples = Examples(tokens.take(only), np.zeros(len(only), np.int64), 0)
    monkeypatch.setattr(predictor, "_WINDOW_ROWS", 4)
    with pytest.raises(WorkFailed, match=f"for row {len(only) - 1}:"):
        evaluate(model, examples, label_set, autocast=nullcontext)


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_memory_does_not_grow_with_the_rows(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "_WINDOW_ROWS", 256)
    monkeypatch.setitem(metrics.tally.__kwdefaults__, "rank_rows", 256)
    monkeypatch.setattr("snapfit.core.correlation.RANK_BINS", 16)
    k = 1 if task == "regression" else 3
    label_set = LabelSet(task, ("a", "b", "c")[:k])
    model = tiny.classifier("bert", "mean", task=task, n_labels=k)

    def collected() -> bool:
        return gc.collect() < 0  # every batch leaves some cycles of transformers behind

    def peak(n: int, **kept: bool) -> int:
        offsets = np.arange(n + 1) * 3
        tokens = TokenIds(np.random.default_rng(0).integers(5, 100, 3 * n).astype(np.uint16), offsets, np.full(n, 3))
        targets = np.zeros(n, np.int64) if task == "single" else np.zeros((n, k), np.float32)
        gc.freeze()  # what was there before, so that collecting takes no time
        tracemalloc.start()
        try:
            evaluate(model, Examples(tokens, targets, 0), label_set, autocast=nullcontext, stop=collected, **kept)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.unfreeze()

    peak(256)  # what is set up once
    few, many = peak(2048), peak(20 * 2048)
    bound = few + 2 * 19 * 2048  # two bytes a row
    assert many < bound
    assert peak(20 * 2048, keep_scores=True) > bound  # the measure sees what grows


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
