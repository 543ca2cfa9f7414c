"""A compact table of word embeddings trains exactly as it would inside the whole one."""

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.nn.used_rows import UsedRows, used_ids, word_embedding

USED = np.array([0, 7, 8, 9, 20, 50, 99])


def batches(model: Classifier, n: int) -> list[dict[str, Tensor]]:
    """Padded batches of the used ids alone."""
    made = []
    for seed in range(n):
        batch = tiny.inputs(model.config, [6, 4, 2], seed=seed)
        words = torch.from_numpy(USED[1:])
        ids = words[batch["input_ids"] % len(words)]
        batch["input_ids"] = torch.where(batch["attention_mask"] == 1, ids, model.config.pad_token_id)
        made.append(batch)
    return made


def train(model: Classifier, rows: UsedRows | None, steps: int) -> torch.optim.Optimizer:
    table = word_embedding(model).weight
    others = [p for p in model.parameters() if p is not table]
    groups = [{"params": [table], "weight_decay": 0.1, "lr": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    if rows is not None:
        rows.watch(optimizer)
    for step, batch in enumerate(batches(model, steps)):
        optimizer.param_groups[0]["lr"] = 0.02 / (1 + step)
        model(**batch).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("family", tiny.ALL)
def test_training_gives_the_weights_of_dense_training(family: str) -> None:
    dense, compact = tiny.classifier(family, "mean"), tiny.classifier(family, "mean")
    rows = UsedRows(compact, USED)
    assert len(word_embedding(compact).weight) == len(np.union1d(USED, [compact.config.pad_token_id]))
    assert list(compact.state_dict()) == list(dense.state_dict())
    train(dense, None, 5)
    train(compact, rows, 5)
    rows.undo()
    assert compact.state_dict().keys() == dense.state_dict().keys()
    for name, expected in dense.state_dict().items():
        torch.testing.assert_close(compact.state_dict()[name], expected, atol=1e-6, rtol=1e-6)


def test_the_whole_table_is_there_while_it_is_looked_at() -> None:
    model = tiny.classifier("bert", "mean")
    everything = tiny.inputs(model.config, [9, 9])
    expected = model(**everything).logits
    rows = UsedRows(model, USED)
    compact = word_embedding(model).weight
    with pytest.raises(IndexError):
        model(**everything)
    with rows.whole():
        assert torch.equal(model(**everything).logits, expected)
    assert word_embedding(model).weight is compact
    with pytest.raises(IndexError):
        model(**everything)


def test_saved_and_restored_it_goes_on_to_the_same_bits() -> None:
    straight, stopped = tiny.classifier("bert", "mean"), tiny.classifier("bert", "mean")
    first, second = UsedRows(straight, USED), UsedRows(stopped, USED)
    train(straight, first, 4)
    train(stopped, second, 4)
    table, decay = second.raw().clone(), second.decay
    fresh = tiny.classifier("bert", "mean", seed=5)
    third = UsedRows(fresh, USED)
    assert third.fits(table)
    assert not third.fits(table[1:])
    fresh.load_state_dict({**stopped.state_dict(), third.name: table[third.used]})
    third.restore(table, decay)
    for model, rows in ((straight, first), (fresh, third)):
        train(model, rows, 3)
    assert torch.equal(first.whole_table(), third.whole_table())
    assert first.decay == third.decay < 1


def test_rows_do_not_decay_while_the_table_does_not_learn() -> None:
    dense, compact = tiny.classifier("bert", "mean"), tiny.classifier("bert", "mean")
    rows = UsedRows(compact, USED)
    for model, watched in ((dense, None), (compact, rows)):
        word_embedding(model).weight.requires_grad_(False)
        table, others = model.encoder.get_input_embeddings().weight, list(model.head.parameters())
        groups = [{"params": [table], "weight_decay": 0.1, "lr": 0.02}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        if watched is not None:
            watched.watch(optimizer)
        for step, batch in enumerate(batches(model, 5)):
            table.requires_grad_(step >= 3)
            model(**batch).logits.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step < 3 and watched is not None:
                assert watched.decay == 1.0
    assert rows.decay == pytest.approx((1 - 0.002) ** 2)
    rows.undo()
    for name, expected in dense.state_dict().items():
        torch.testing.assert_close(compact.state_dict()[name], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("change", ["scale_grad_by_freq", "sparse", "max_norm"])
def test_tables_that_are_more_than_tables_stay(change: str) -> None:
    model = tiny.classifier("bert", "mean")
    setattr(model.encoder.get_input_embeddings(), change, 1.0 if change == "max_norm" else True)
    assert word_embedding(model) is None


def test_a_frozen_table_stays() -> None:
    model = tiny.classifier("bert", "mean")
    model.encoder.get_input_embeddings().weight.requires_grad_(False)
    assert word_embedding(model) is None


def test_the_ids_that_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.nn.used_rows._CHUNK", 3)
    ids = np.array([5, 1, 1, 90, 7, 5, 2], dtype=np.uint16)
    tokens = TokenIds(ids, np.array([0, 7]), np.array([7], dtype=np.uint16))
    assert used_ids(tokens).tolist() == [1, 2, 5, 7, 90]
    assert used_ids(TokenIds(ids[:0], np.array([0]), ids[:0])).tolist() == []
