"""FGM against plain PyTorch; the table comes back bit for bit, whatever happens; micro-batches change nothing."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny
import toys
from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.nn.losses import loss_sum
from snapfit.nn.used_rows import word_embedding
from snapfit.nn.weights import LoadReport
from snapfit.training.adversary import Adversary
from snapfit.training.assemble import Assembly, assemble
from snapfit.training.loop import DataOrder, Examples, StepSettings, optimizer_steps
from stage import Stage, make_plan_on

SIZE = 0.7
ROWS = 24


def examples() -> Examples:
    lengths = np.array([3 + (7 * i) % 10 for i in range(ROWS)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = (tiny.FIRST_WORD + (np.arange(offsets[-1]) * 37) % 40).astype(np.uint16)
    return Examples(TokenIds(ids, offsets, lengths.astype(np.uint32)), np.arange(ROWS, dtype=np.int64) % 3, pad_id=0)


def calm(family: str = "bert") -> Classifier:
    """A classifier without dropout."""
    return tiny.classifier(family, "mean", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def put_together(model: Classifier, *, used: bool = True, **settings: Any) -> Assembly:
    values = {"regularise__adversarial": SIZE, "optim__name": "sgd", "optim__lr": 1e-9, "optim__momentum": 0.0}
    values |= {"optim__weight_decay": 0.0, "optim__max_grad_norm": 0.0} | settings
    recipe = Recipe().with_values(
        {key.replace("__", "."): value for key, value in (values | {"train__precision": "fp32"}).items()}
        | {key: value for key, value in {"optim.head_lr_factor": 1.0, "optim.layer_ratio": 1.0}.items()}
    )
    ids = np.unique(np.append(examples().tokens.ids, 0)).astype(np.int64) if used else None
    return assemble(model, LoadReport((), (), (), ""), recipe, total_steps=4, device="cpu", used=ids)


def steps(assembly: Assembly, *, parts: int = 1, batch: int = 8, last_step: int = 1, loss: Any = None) -> Any:
    return optimizer_steps(
        assembly.model,
        examples(),
        assembly.optimizer,
        lambda step: 1.0,
        order=DataOrder(examples().tokens.lengths, batch, 3),
        loss_sum=loss or (lambda logits, targets: loss_sum(logits, targets, task="single")),
        settings=StepSettings(parts, 0.0, 11, nullcontext, begin=assembly.begin, adversary=assembly.adversary),
        last_step=last_step,
    )


def gradients_of_a_step(assembly: Assembly, **options: Any) -> dict[str, Tensor]:
    """What the optimizer is given."""
    found: dict[str, Tensor] = {}

    def note(*_: Any) -> None:
        for name, parameter in assembly.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.float().clone()

    assembly.optimizer.register_step_pre_hook(note)
    list(steps(assembly, **options))
    return found


def plain_pytorch(model: Classifier) -> dict[str, Tensor]:
    """The first step's gradients, written from scratch: no packing, kernels or loop of snapfit."""
    data = examples()
    rows = next(DataOrder(data.tokens.lengths, 8, 3).walk(0, 0))[2]
    texts = [torch.from_numpy(data.tokens.take(np.array([row])).ids.astype(np.int64)) for row in rows]
    ids = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    table = model.bert.embeddings.word_embeddings.weight

    def backward() -> None:
        states = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        means = torch.stack([state[: len(text)].mean(0) for state, text in zip(states, texts, strict=True)])
        nn.CrossEntropyLoss()(model.head.output(means), torch.from_numpy(data.targets[rows])).backward()

    backward()
    before = table.detach().clone()
    with torch.no_grad():
        table += SIZE * table.grad / table.grad.norm()
    backward()
    with torch.no_grad():
        table.copy_(before)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_are_those_of_plain_pytorch(optimizer: str, parts: int) -> None:
    expected = plain_pytorch(calm())
    assembly = put_together(calm(), optim__name=optimizer)
    assert (assembly.rows is not None) == (optimizer == "adamw")
    found = gradients_of_a_step(assembly, parts=parts)
    if assembly.rows is not None:
        expected[assembly.rows.name] = expected[assembly.rows.name][assembly.rows.used]
    assert found.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        assert float((gradient - expected[name]).abs().max()) < 2e-5 * scale, name
    clean = gradients_of_a_step(put_together(calm(), regularise__adversarial=0.0))
    assert float((2 * clean["head.output.weight"] - found["head.output.weight"]).abs().max()) > 1e-3 * scale


@pytest.mark.parametrize("family", ["bert", "mpnet", "albert"])
def test_the_table_comes_back_bit_for_bit(family: str) -> None:
    model = calm(family)
    assembly = put_together(model, optim__name="adamw")
    table = word_embedding(model).weight
    before = table.detach().clone()
    torch.manual_seed(0)
    table.grad = torch.randn_like(table)
    with assembly.adversary() as due:
        assert due
        move = table.detach() - before
        assert float(move.norm()) == pytest.approx(SIZE, rel=1e-4)
        torch.testing.assert_close(move, SIZE * table.grad / table.grad.norm(), atol=1e-6, rtol=1e-4)
    assert torch.equal(table, before)
    with pytest.raises(RuntimeError, match="a defect"), assembly.adversary():
        raise RuntimeError("a defect")
    assert torch.equal(table, before)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_gradients_of_any_size_have_a_direction(scale: float) -> None:
    model = calm()
    table = word_embedding(model).weight
    before = table.detach().clone()
    table.grad = torch.full_like(table, scale)
    with Adversary(model, SIZE)() as moved:
        assert moved
        assert float((table.detach() - before).norm()) == pytest.approx(SIZE, rel=1e-3)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    model = calm()
    with torch.no_grad():
        model.head.output.weight.zero_()  # nothing reaches the encoder
    found = gradients_of_a_step(put_together(model))
    assert float(found["bert.embeddings.word_embeddings.weight"].abs().max()) == 0.0
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    twin = calm()
    with torch.no_grad():
        twin.head.output.weight.zero_()
    clean = gradients_of_a_step(put_together(twin, regularise__adversarial=0.0))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, 2 * clean[name])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_ends_the_step(value: float) -> None:
    model = calm()
    assembly = put_together(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(logits))
        return loss_sum(logits, targets, task="single") * value

    (step,) = steps(assembly, loss=loss)
    assert step.fault == "loss"
    assert calls == [8]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_memory_that_runs_out_in_either_pass(failing: int) -> None:
    """The step is begun again from the unmoved table, in parts."""
    calls = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(logits))
        if len(calls) == failing:
            raise MemoryError
        return loss_sum(logits, targets, task="single")

    enough = [calm() for _ in range(2)]
    expected = [step.loss for step in steps(put_together(enough[0], optim__lr=0.01), last_step=3)]
    found = list(steps(put_together(enough[1], optim__lr=0.01), last_step=3, loss=loss))
    np.testing.assert_allclose([step.loss for step in found], expected, rtol=1e-5)
    assert found[-1].micro_batches == 2
    assert {step.rows for step in found} == {8}
    for name, tensor in enough[0].state_dict().items():
        torch.testing.assert_close(enough[1].state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_embeddings_that_do_not_learn_are_refused() -> None:
    model = calm()
    model.bert.embeddings.requires_grad_(False)
    with pytest.raises(BadInput, match=r"regularise\.adversarial with bert, whose word embeddings do not learn"):
        put_together(model)
    with pytest.raises(BadInput, match=r"adversarial is 0\.7, optim\.freeze_layers is 2"):
        put_together(calm(), optim__freeze_layers=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_embeddings_that_do_not_learn_yet_are_not_moved(tmp_path: Path, precision: str) -> None:
    encoder = toys.encoder_folder(tmp_path)
    late = {"schedule__head_first": 0.5, "train__precision": precision}
    plain = Stage(make_plan_on(encoder, **late)).run().of_kind("step")
    moved = Stage(make_plan_on(encoder, regularise__adversarial=SIZE, **late)).run().of_kind("step")
    assert [one["loss"] for one in moved[:7]] == [one["loss"] for one in plain[:7]]
    assert [one["grad_norm"] for one in moved[:6]] == [one["grad_norm"] for one in plain[:6]]
    assert moved[6]["grad_norm"] > 1.2 * plain[6]["grad_norm"]
