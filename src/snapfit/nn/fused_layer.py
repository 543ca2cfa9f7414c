"""A layer of BERT's kind on packed rows, forwards and backwards in one piece: products by torch, the rest by kernels.c.

transformers' modules keep their parameters and names; what is exchanged is a layer's `forward` while training. The
mathematics is theirs. What goes into products and comes out of them is bf16 under bf16 autocast, else float32; the
states that layers hand on, biases, norms, softmax and all sums are in float32. What is dropped is a function of torch's
seed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from snapfit.nn.kernels import DropoutKey, Kernels
from snapfit.nn.number_copies import NumberCopy
from snapfit.nn.packing import Packing


class FusedLayer:
    """Takes the place of the `forward` of a layer like transformers' BertLayer, whenever it gets packed rows."""

    def __init__(self, layer: nn.Module, kernels: Kernels, *, counted: bool = False) -> None:
        self._layer: Any = layer
        self._forward = layer.forward
        self.changing = True
        self.kernels = kernels
        parts: Any = layer
        attention, first, second = parts.attention.self, parts.attention.output, parts.output
        linear = (attention.query, attention.key, attention.value, first.dense, parts.intermediate.dense, second.dense)
        norms = (first.LayerNorm, second.LayerNorm)
        self._parameters = tuple(tensor for module in (*linear, *norms) for tensor in (module.weight, module.bias))
        wq, wk, wv, wo, w1, w2 = (module.weight for module in linear)
        self.copies = [NumberCopy(weights, counted=counted) for weights in ((wq, wk, wv), (wo,), (w1,), (w2,))]
        self._attention_dropout = attention.dropout
        self.dropouts = (first.dropout, second.dropout)
        self.heads, self.scale = int(attention.num_attention_heads), float(attention.scaling)
        self.eps = (float(first.LayerNorm.eps), float(second.LayerNorm.eps))

    def __call__(
        self, hidden_states: Tensor, *arguments: Any, packing: Packing | None = None, **options: Any
    ) -> Tensor:
        dropout = self._attention_dropout.p if self._layer.training else 0.0
        if packing is None or hidden_states.device.type != "cpu" or dropout > 0.0:
            return self._forward(hidden_states, *arguments, packing=packing, **options)  # type: ignore[no-any-return]
        learns = torch.is_grad_enabled()
        self.changing |= learns
        half = torch.is_autocast_enabled("cpu")
        dtype = torch.bfloat16 if half else torch.float32
        states, narrow = hidden_states[0].float().contiguous(), _handed_on(hidden_states, dtype)
        output, narrow = _Layer.apply(states, narrow, dtype, packing.starts, self, *self._parameters)  # type: ignore[no-untyped-call]
        self.changing = learns  # after a pass without gradients all copies are as the weights are
        return _hand_on(output.unsqueeze(0), narrow)

    def drops(self) -> tuple[DropoutKey, DropoutKey]:
        """What this pass drops: nothing in evaluation."""
        first, second = (DropoutKey.draw(part.p if self._layer.training else 0.0) for part in self.dropouts)
        return first, second

    def numbers(self, dtype: torch.dtype) -> list[Tensor]:
        """The matrices into query, key and value together, out of attention, into and out of the inner states."""
        return [copy.current(dtype, changing=self.changing) for copy in self.copies]


def fits(layer: nn.Module) -> bool:
    """Whether a layer is built and computes like BertLayer, with the exact gelu and standard layer norms."""
    module: Any = layer
    try:
        attention, first, inner, second = (
            module.attention.self,
            module.attention.output,
            module.intermediate,
            module.output,
        )
        linear = (attention.query, attention.key, attention.value, first.dense, inner.dense, second.dense)
        norms, activation = (first.LayerNorm, second.LayerNorm), inner.intermediate_act_fn
        return (
            all(type(part) is nn.Linear and part.bias is not None for part in linear)
            and all(type(norm) is nn.LayerNorm and norm.elementwise_affine for norm in norms)
            and all(isinstance(part.dropout, nn.Dropout) for part in (attention, first, second))
            and type(activation).__name__ == "GELUActivation"
            and activation.act is nn.functional.gelu
            and not getattr(module, "is_decoder", False)
            and not getattr(module, "chunk_size_feed_forward", 0)
            and attention.attention_head_size * attention.num_attention_heads == attention.query.in_features
        )
    except AttributeError:
        return False


def use_fused_layers(
    layers: nn.ModuleList, kernels: Kernels, *, narrow: bool = False, counted: bool = False
) -> list[FusedLayer]:
    """Exchange the `forward` of every layer that fits; returns what took their places.

    counted: the optimizer counts what it writes as a version, see `NumberCopy`. narrow: let the gradients of matrices
    be bf16, as products of bf16 numbers are, for an optimizer that takes them so.
    """
    fused = []
    for layer in filter(fits, layers):
        exchanged: Any = layer
        exchanged.forward = FusedLayer(layer, kernels, counted=counted)
        fused.append(exchanged.forward)
        for parameter in layer.parameters() if narrow else ():
            if parameter.ndim == 2:
                parameter.grad_dtype = torch.bfloat16
    return fused


def use_separate_layers(model: nn.Module) -> None:
    """Undo `use_fused_layers` everywhere below a module."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), FusedLayer):
            del module.forward
    widen_gradients(model)


def widen_gradients(model: nn.Module) -> None:
    """Let every gradient have its parameter's dtype, as sums of several parts of a step must."""
    for parameter in model.parameters():
        if parameter.grad_dtype != parameter.dtype:
            parameter.grad_dtype = parameter.dtype


def _hand_on(states: Tensor, narrow: Tensor) -> Tensor:
    """The states with what they are as numbers for products; empty where they are that themselves.

    Inference mode counts no versions, so that nobody could tell whether they were changed since.
    """
    if narrow.numel() and not states.is_inference():
        states.as_numbers = (narrow, states._version)  # type: ignore[attr-defined]
    return states


def _handed_on(states: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What the layer before made of these very states for products, unless they were changed since."""
    narrow, version = getattr(states, "as_numbers", (None, 0))
    return narrow if narrow is not None and narrow.dtype == dtype and version == states._version else None


class _Layer(torch.autograd.Function):
    """x -> norm(h + W2 gelu(W1 h)) with h = norm(x + Wo attention(x)), dropout before both sums."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        narrow_x: Tensor | None,
        dtype: torch.dtype,
        starts: Tensor,
        fused: FusedLayer,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        kernels, heads, scale = fused.kernels, fused.heads, fused.scale
        _, bq, _, bk, _, bv, _, bo, _, b1, _, b2, g1, c1, g2, c2 = (weight.detach() for weight in weights)
        drops = fused.drops()
        into_qkv, into_out, into_inner, into_state = fused.numbers(dtype)
        bias, narrow_x = torch.cat((bq, bk, bv)), x.to(dtype) if narrow_x is None else narrow_x
        qkv = narrow_x @ into_qkv.t()
        mixed = kernels.attention(qkv, bias, starts, heads, scale)
        normal1 = mixed @ into_out.t()
        h, narrow_h, inverse1 = kernels.norm(normal1, bo, x, (g1, c1, fused.eps[0]), drops[0])
        u = narrow_h @ into_inner.t()
        active = kernels.gelu(u, b1)
        normal2 = active @ into_state.t()
        out, narrow_out, inverse2 = kernels.norm(normal2, b2, h, (g2, c2, fused.eps[1]), drops[1])
        context.save_for_backward(
            narrow_x, qkv, mixed, normal1, inverse1, narrow_h, u, active, normal2, inverse2, starts
        )
        context.rest = (fused, drops, bias, b1, g1, g2, into_qkv, into_out, into_inner, into_state)
        context.dtypes = [weight.grad_dtype for weight in weights]
        if narrow_out is out:
            narrow_out = out.new_empty(0)
        context.mark_non_differentiable(narrow_out)
        return out, narrow_out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, qkv, mixed, normal1, inverse1, h, u, active, normal2, inverse2, starts = context.saved_tensors
        fused, drops, bias, b1, g1, g2, into_qkv, into_out, into_inner, into_state = context.rest
        kernels = fused.kernels
        through, y, sums2 = kernels.norm_gradient(normal2, gradients[0].contiguous(), None, inverse2, g2, drops[1])
        dw2 = y.t() @ active
        du = y @ into_state
        db1 = kernels.gelu_gradient(du, u, b1)
        dw1 = du.t() @ h
        through, y, sums1 = kernels.norm_gradient(normal1, through, du @ into_inner, inverse1, g1, drops[0])
        dwo = y.t() @ mixed
        dqkv = kernels.attention_gradient(qkv, bias, starts, fused.heads, fused.scale, y @ into_out)
        dwq, dwk, dwv = (dqkv.t() @ x).chunk(3)
        dx = through.add_(dqkv @ into_qkv) if context.needs_input_grad[0] else None  # below, nothing learns
        dbq, dbk, dbv = kernels.column_sums(dqkv).chunk(3)
        (dg1, dc1, dbo), (dg2, dc2, db2) = sums1, sums2
        found = (dwq, dbq, dwk, dbk, dwv, dbv, dwo, dbo, dw1, db1, dw2, db2, dg1, dc1, dg2, dc2)
        cast = (tensor.to(dtype) for tensor, dtype in zip(found, context.dtypes, strict=True))
        return (dx, None, None, None, None, *cast)
