"""A fused layer is transformers' layer: states, gradients, dropout, and every way round it."""

import pytest
import torch
from torch import Tensor

import tiny
from snapfit.nn.classifier import Classifier
from snapfit.nn.fused_layer import FusedLayer, fits, use_fused_layers, use_separate_layers, widen_gradients
from snapfit.nn.kernels import Kernels
from snapfit.nn.packed_encoder import use_packing

FITTING = ("bert", "ernie", "roberta", "xlm-roberta", "camembert", "electra")
LENGTHS = [9, 3, 12, 3, 1, 7, 12, 5, 2, 8]


def make(
    family: str, kernels: Kernels, pooling: str = "mean", *, narrow: bool = False, **changes: object
) -> Classifier:
    model = tiny.classifier(family, pooling, **changes)
    assert use_packing(model)
    assert len(use_fused_layers(model.encoder.encoder.layer, kernels, narrow=narrow)) == 3
    return model


def gradients(model: Classifier, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    model(**batch).logits.float().square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def largest(tensors: dict[str, Tensor]) -> float:
    return max(float(tensor.abs().max()) for tensor in tensors.values())


@pytest.mark.parametrize("pooling", ["native", "mean", "last4_concat"])
@pytest.mark.parametrize("family", FITTING)
def test_logits_and_gradients_are_those_of_transformers(kernels: Kernels, family: str, pooling: str) -> None:
    plain, fused = tiny.classifier(family, pooling), make(family, kernels, pooling)
    batch = tiny.inputs(plain.config, LENGTHS, width=15)
    torch.testing.assert_close(fused(**batch).logits, plain(**batch).logits, atol=1e-5, rtol=1e-5)
    expected, found = gradients(plain, batch), gradients(fused, batch)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert float((gradient - expected[name]).abs().max()) < 1e-5 * largest(expected), name


@pytest.mark.parametrize("narrow", [False, True])
def test_under_autocast_it_is_as_near_to_float32_as_transformers(kernels: Kernels, narrow: bool) -> None:
    exact, plain = tiny.classifier("bert", "mean"), tiny.classifier("bert", "mean")
    fused = make("bert", kernels, narrow=narrow)
    batch = tiny.inputs(exact.config, LENGTHS)
    expected = gradients(exact, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_plain, by_fused = gradients(plain, batch), gradients(fused, batch)
    wide = {name: by_fused[name].dtype for name in by_fused if ".layer." in name and by_fused[name].ndim == 2}
    assert set(wide.values()) == {torch.bfloat16 if narrow else torch.float32}

    def error(found: dict[str, Tensor]) -> float:
        return float(sum((found[n].float() - expected[n]).square().sum() for n in expected)) ** 0.5

    assert error(by_fused) < 1.5 * error(by_plain)


def test_dropout_is_a_function_of_the_seed(kernels: Kernels) -> None:
    model = make("bert", kernels, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    batch = tiny.inputs(model.config, LENGTHS)
    calm = model(**batch).logits
    model.train()

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(**batch).logits.detach()

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    model.eval()
    assert torch.equal(model(**batch).logits, calm)


def test_the_gradient_of_what_is_dropped(kernels: Kernels) -> None:
    model = make("bert", kernels, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    model.train()
    batch = tiny.inputs(model.config, [5, 4])

    def loss() -> Tensor:
        torch.manual_seed(3)
        return model(**batch).logits.square().sum()

    model.zero_grad()
    loss().backward()
    layer = model.encoder.encoder.layer[1]
    for parameter in (
        layer.output.dense.bias,
        layer.attention.self.value.weight,
        layer.attention.output.LayerNorm.weight,
    ):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter.add_(1e-3 * direction)
            up = loss()
            parameter.sub_(2e-3 * direction)
            down = loss()
            parameter.add_(1e-3 * direction)
        slope = float((up - down) / 2e-3)
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=2e-2, abs=2e-2)


def test_attention_dropout_goes_the_other_way(kernels: Kernels) -> None:
    model = make("bert", kernels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    batch = tiny.inputs(model.config, LENGTHS)
    calm = model(**batch).logits
    model.train()
    assert (model(**batch).logits - calm).abs().max() > 1e-3


def test_weights_that_change_are_seen(kernels: Kernels) -> None:
    model = make("bert", kernels)
    batch = tiny.inputs(model.config, LENGTHS)
    for _ in range(2):
        with torch.no_grad():
            model.encoder.encoder.layer[0].attention.self.key.weight.mul_(0.5)
        twin = tiny.classifier("bert", "mean")
        twin.load_state_dict(model.state_dict())
        for half in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                torch.testing.assert_close(
                    model(**batch).logits.float(), twin(**batch).logits.float(), atol=0.1 if half else 1e-5, rtol=1e-5
                )


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_a_fused_optimizer_wrote_are_seen(kernels: Kernels, half: bool) -> None:
    """torch's fused optimizers do not count what they write as a version."""
    model = make("bert", kernels)
    batch = tiny.inputs(model.config, LENGTHS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    for evaluates in (True, False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            gradients(model, batch)
        optimizer.step()
        twin = make("bert", kernels)
        twin.load_state_dict(model.state_dict())
        with torch.inference_mode(evaluates), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            assert torch.equal(model(**batch).logits.clone(), twin(**batch).logits.clone())


def test_an_evaluation_before_the_first_step_is_no_hindrance(kernels: Kernels) -> None:
    model = make("bert", kernels)
    batch = tiny.inputs(model.config, LENGTHS)
    with torch.inference_mode():
        before = model(**batch).logits.clone()
    assert torch.equal(model(**batch).logits.detach(), before)
    assert gradients(model, batch)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("distilbert", {}),
        ("albert", {}),
        ("modernbert", {}),
        ("mpnet", {}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"chunk_size_feed_forward": 1}),
    ],
)
def test_layers_that_are_not_of_this_kind_do_not_fit(family: str, changes: dict[str, object]) -> None:
    model = tiny.classifier(family, "mean", **changes)
    assert not any(fits(layer) for layer in model.encoder.get_submodule(model.family.layers))


def test_undone_nothing_is_left(kernels: Kernels) -> None:
    model = make("bert", kernels, narrow=True)
    use_separate_layers(model)
    assert not any(isinstance(vars(module).get("forward"), FusedLayer) for module in model.modules())
    assert all(parameter.grad_dtype == parameter.dtype for parameter in model.parameters())


def test_sums_of_parts_are_wide(kernels: Kernels) -> None:
    model = make("bert", kernels, narrow=True)
    widen_gradients(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(model, tiny.inputs(model.config, LENGTHS))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


def test_layers_that_do_not_learn_take_no_part_in_the_backward_pass(kernels: Kernels) -> None:
    plain, fused = tiny.classifier("bert", "mean"), make("bert", kernels)
    batch = tiny.inputs(plain.config, LENGTHS)
    grew = []
    for layer in fused.encoder.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: grew.append(output.requires_grad))
    for learning in (3, 2, 0, 1, 3):  # the lowest layer that learns, and back again
        for model in (plain, fused):
            for number, layer in enumerate([model.encoder.embeddings, *model.encoder.encoder.layer]):
                layer.requires_grad_(number >= learning)
        grew.clear()
        expected, found = gradients(plain, batch), gradients(fused, batch)
        assert grew == [number >= learning for number in (1, 2, 3)]
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert float((gradient - expected[name]).abs().max()) < 1e-5 * largest(expected), name


def test_states_that_are_changed_between_layers_are_seen(kernels: Kernels) -> None:
    model = make("bert", kernels)
    batch = tiny.inputs(model.config, LENGTHS)
    layers = model.encoder.encoder.layer
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(**batch).logits
        changing = layers[0].register_forward_hook(lambda module, inputs, output: output.mul_(0.5))
        in_place = model(**batch).logits
        changing.remove()
        layers[0].register_forward_hook(lambda module, inputs, output: output * 0.5)
        anew = model(**batch).logits
    assert torch.equal(in_place, anew)
    assert not torch.equal(plain, anew)
