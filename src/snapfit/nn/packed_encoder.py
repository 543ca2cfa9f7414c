"""A classifier's encoder without padding: packed on the way in, padded again on the way out.

Position ids are those that a padded batch would have. As the states are padded again behind the encoder, poolings and
native heads are the same either way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snapfit.nn.attention import use_attention, use_standard_attention
from snapfit.nn.classifier import Classifier
from snapfit.nn.packing import ROUNDED, Packing

_UNDERSTOOD = {"token_type_ids", "output_hidden_states", "output_attentions", "return_dict"}
"""Options of a call that mean the same for packed rows."""


class PackedEncoder:
    """Takes the place of an encoder's `forward`: padded batches in and out, real tokens inside.

    encoder: a transformers encoder whose attention takes `packing`. pad_id: for families whose positions are counted
    from it, else None. A batch that cannot be packed goes through as it is.
    """

    def __init__(self, encoder: nn.Module, *, pad_id: int | None) -> None:
        self._encoder = encoder
        self._forward: Callable[..., Any] = encoder.forward
        self._pad_id = pad_id

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        options = {name: value for name, value in options.items() if value is not None}  # as native heads pass on
        rounded = ROUNDED if input_ids.device.type == "cpu" and torch.is_autocast_enabled("cpu") else 1
        packing = None if attention_mask is None else Packing.of(attention_mask, multiple=rounded)
        if packing is None or not options.keys() <= _UNDERSTOOD:
            return self._forward(input_ids=input_ids, attention_mask=attention_mask, **options)
        inputs = {"input_ids": input_ids, "position_ids": position_ids(input_ids, self._pad_id)}
        types = options.pop("token_type_ids", None)
        if types is not None:
            inputs["token_type_ids"] = types
        inputs = {name: packing.pack(ids) for name, ids in inputs.items()}
        # A mask of four dimensions is taken as it is, so that none is made; attention goes by `packing`.
        no_mask = torch.empty(1, 1, 1, 0, dtype=torch.bool, device=input_ids.device)
        output = self._forward(**inputs, **options, attention_mask=no_mask, packing=packing)
        output["last_hidden_state"] = packing.pad(output.last_hidden_state)
        if getattr(output, "hidden_states", None) is not None:
            output["hidden_states"] = tuple(packing.pad(states) for states in output.hidden_states)
        if getattr(output, "pooler_output", None) is not None:
            output["pooler_output"] = self._pooled(output.last_hidden_state)
        return output

    def undo(self) -> None:
        """Give the encoder its own `forward` back."""
        del self._encoder.forward

    def _pooled(self, states: Tensor) -> Tensor:
        """What the encoder's pooler makes of padded states; ALBERT's is a bare linear layer."""
        pooler: Any = self._encoder.pooler
        if isinstance(pooler, nn.Linear):
            activation: Any = self._encoder.pooler_activation
            return activation(pooler(states[:, 0]))  # type: ignore[no-any-return]
        return pooler(states)  # type: ignore[no-any-return]


def use_packing(model: Classifier) -> bool:
    """Send a classifier's batches through its encoder without padding; False for a family that cannot.

    Its attention is switched to that of attention.py, which packed rows need. Undo both before saving the config:
    `use_padding`.
    """
    encoder: Any = model.encoder
    if is_packed(model):
        return True
    if not (use_attention(model) and model.family.packs):
        return False
    pad = model.family.position_offset == "pad"
    encoder.forward = PackedEncoder(encoder, pad_id=model.config.pad_token_id if pad else None)
    return True


def is_packed(model: Classifier) -> bool:
    """Whether a classifier's batches go through its encoder without padding."""
    return isinstance(model.encoder.forward, PackedEncoder)


def use_padding(model: Classifier) -> None:
    """Undo `use_packing`."""
    encoder: Any = model.encoder
    if isinstance(encoder.forward, PackedEncoder):
        encoder.forward.undo()
    use_standard_attention(model)


def position_ids(input_ids: Tensor, pad_id: int | None) -> Tensor:
    """Positions in each row, int64 [rows, width]; with `pad_id` as RoBERTa counts them, from pad_id + 1 on."""
    if pad_id is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    counted = input_ids.ne(pad_id)
    return counted.cumsum(1) * counted + pad_id
