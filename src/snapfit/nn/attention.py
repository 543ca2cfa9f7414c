"""The attention of packed and padded batches, registered with transformers so that encoder classes stay theirs.

On a CPU it runs in float32 whatever the model runs in: the backward pass of torch's fused kernel is several times
slower in bf16. On CUDA packed rows go through torch's variable-length kernel where it can take them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from snapfit.nn.packing import Bucket, Packing, collect, spread

NAME = "snapfit_sdpa"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in the form that transformers calls; returns [batch, length, heads, head width].

    query, key, value: [batch, heads, length, head width]; batch 1 and rows one after another with `packing`, and
    attention_mask then says nothing. options: scaling, dropout, sliding_window and what else a family hands over.
    """
    dtype = query.dtype
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        if packing is None:
            if attention_mask is not None and attention_mask.dtype != torch.bool:
                attention_mask = attention_mask.to(query.dtype)
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        else:
            output = _packed([states[0].transpose(0, 1) for states in (query, key, value)], packing, **options)
    return output.to(dtype), None


def use_attention(model: PreTrainedModel) -> bool:
    """Switch a model that uses SDPA to `attention`; False if it uses another one and stays as it is."""
    if model.config._attn_implementation == NAME:
        return True
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME
    return True


def use_standard_attention(model: PreTrainedModel) -> None:
    """Undo `use_attention`: what is saved names only attentions that transformers knows."""
    if model.config._attn_implementation == NAME:
        model.config._attn_implementation = "sdpa"


def _packed(
    tokens: list[Tensor],
    packing: Packing,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **ignored: Any,
) -> Tensor:
    """Attention inside each row. tokens: query, key, value, each [tokens, heads, head width]; returns [1, ...].

    sliding_window: tokens at a distance below it see each other; None: all do.
    """
    if _has_kernel(tokens[0], dropout):
        return _variable_length(tokens, packing, scaling, sliding_window).unsqueeze(0)
    parts = [_bucket(tokens, bucket, scaling, dropout, sliding_window) for bucket in packing.buckets]
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).unsqueeze(0)


def _bucket(
    tokens: list[Tensor], bucket: Bucket, scaling: float | None, dropout: float, sliding_window: int | None
) -> Tensor:
    """Attention inside the rows of one bucket: [tokens of all, heads, width] -> [its tokens, heads, width]."""
    rows = []
    for states in tokens:
        part = states[bucket.tokens]
        if bucket.places is not None:
            part = spread(part, bucket.places, bucket.rows * bucket.width)
        rows.append(part.view(bucket.rows, bucket.width, *part.shape[1:]).transpose(1, 2))
    seen = bucket.mask()
    band = _band(bucket.width, sliding_window, tokens[0].device)
    if band is not None:
        seen = band if seen is None else seen & band
    query, key, value = rows
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout, scale=scaling)
    output = output.transpose(1, 2).flatten(0, 1)
    return output if bucket.places is None else collect(output, bucket.places)


def _band(width: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """Which tokens of a row see each other through a sliding window, bool [width, width]; None when all do."""
    if sliding_window is None or width <= sliding_window:
        return None
    places = torch.arange(width, device=device)
    return (places - places[:, None]).abs() < sliding_window


# ---------------------------------------------------------------- CUDA


def _has_kernel(tokens: Tensor, dropout: float) -> bool:
    """Whether torch's variable-length kernel takes these tokens: on CUDA, in half precision, without dropout."""
    return tokens.is_cuda and tokens.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0


def _variable_length(
    tokens: list[Tensor],
    packing: Packing,
    scaling: float | None,
    sliding_window: int | None,
    kernel: Any = None,
) -> Tensor:
    """All rows at once by a kernel that takes where each begins; `kernel`: torch's own by default."""
    if kernel is None:
        from torch.nn.attention.varlen import varlen_attn as kernel
    begins = packing.starts.int()
    longest = int(packing.lengths.max())
    window = (-1, -1) if sliding_window is None else (sliding_window - 1, sliding_window - 1)
    output: Tensor = kernel(
        *(states.contiguous() for states in tokens),
        begins,
        begins,
        longest,
        longest,
        scale=scaling,
        window_size=window,
    )
    return output
