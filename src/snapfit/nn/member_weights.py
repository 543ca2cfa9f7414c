"""The weights of several models of one architecture, stored and held so that what is the same is there once.

    model.safetensors        the first model, whole
    members/N.safetensors    of model N the tensors whose bits differ from the first one's, under the same names

In memory the models share the tensors that are the same, so that a frozen embedding table is there once.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from snapfit.core.errors import BadInput
from snapfit.nn.classifier import Classifier
from snapfit.nn.weights import read_tensor_file


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape, one dtype and the same bits; unlike `==` also of NaN and of -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    return torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def changed_tensors(first: Mapping[str, Tensor], other: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """The tensors of `other` whose bits are not those of `first`: what is stored of it.

    first, other: whole state dicts. source: what `other` is called in errors.
    Raises BadInput unless both have the same names, shapes and dtypes.
    """
    _check_fit(first, other, source=source)
    missing = sorted(set(first) - set(other))
    if missing:
        raise BadInput(
            f"{source} lacks {len(missing)} of the {len(first)} weights of the first model, such as {missing[0]!r}",
            "a whole model of the same architecture",
            "give all its weights",
        )
    return {name: tensor for name, tensor in other.items() if not same_bits(first[name], tensor)}


def read_changed(path: Path, first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `changed_tensors` gave, from its file. first: the first model's state dict.

    Raises BadInput when the file is damaged, or holds what the first model does not have.
    """
    changed = read_tensor_file(path)
    _check_fit(first, changed, source=str(path))
    return changed


@torch.no_grad()
def with_changes(first: Classifier, changed: Mapping[str, Tensor]) -> Classifier:
    """A second model like `first` in which `changed` are other tensors; all other weights are the very same tensors.

    first: neither it nor what it computes is changed. changed: by name, of the first one's shapes.
    """
    own = first.state_dict(keep_vars=True)
    other = copy.deepcopy(first, {id(tensor): tensor for name, tensor in own.items() if name not in changed})
    theirs = other.state_dict(keep_vars=True)
    for name, tensor in changed.items():
        theirs[name].copy_(tensor)
    return other


def _check_fit(first: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, source: str) -> None:
    for name, tensor in tensors.items():
        if name not in first:
            raise BadInput(
                f"{source} has a weight {name!r}, which the first model does not have",
                "models of one architecture",
                "restore the folder from where it was made",
            )
        if (tensor.shape, tensor.dtype) != (first[name].shape, first[name].dtype):
            raise BadInput(
                f"{source}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}",
                f"{first[name].dtype} of shape {tuple(first[name].shape)}, as in the first model",
                "restore the folder from where it was made",
            )
