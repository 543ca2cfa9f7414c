"""Attention in float32 inside a bf16 model on a CPU.

Under bf16 autocast torch's fused CPU attention runs in bf16 too, and its backward pass is then several times slower
than in float32. `use_float32_attention` keeps the fused kernel and its mask handling, and lifts only this one
operator back to float32; matrix products stay in bf16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "snapfit_float32_sdpa"


def float32_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA attention on float32 copies; the result has the query's dtype again."""
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(query.dtype), None


def use_float32_attention(model: PreTrainedModel) -> bool:
    """Switch a model that uses SDPA to `float32_sdpa`; False if it uses another attention and stays as it is."""
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(NAME, float32_sdpa)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME
    return True


def use_standard_attention(model: PreTrainedModel) -> None:
    """Undo `use_float32_attention`: what is saved names only attentions that transformers knows."""
    if model.config._attn_implementation == NAME:
        model.config._attn_implementation = "sdpa"
