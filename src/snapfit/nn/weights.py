"""Weights by name: from safetensors files into a model that was already built from its config.

Nothing here knows a model class. Names are matched exactly after two stated adjustments (the encoder's prefix, and
the `gamma`/`beta` of checkpoints from 2018); shapes must agree; what did not match is reported, and a missing
encoder weight is an error. Pickled checkpoints are refused, never opened.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from snapfit.core.errors import BadInput

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by parameter name.

    loaded: copied from the checkpoint. fresh: of the model, not in the checkpoint, left as initialised.
    unused: of the checkpoint, not in the model. source: where the weights came from.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    source: str

    def lines(self) -> list[str]:
        """The report as a few lines of text, long name lists shortened."""
        return [
            f"weights: {len(self.loaded)} tensors from {self.source}",
            f"  fresh  {len(self.fresh)}: {_some(self.fresh)}",
            f"  unused {len(self.unused)}: {_some(self.unused)}",
        ]


def _some(names: tuple[str, ...], most: int = 4) -> str:
    shown = ", ".join(names[:most]) or "none"
    return shown + (", …" if len(names) > most else "")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, from model.safetensors or the shards that its index names.

    Raises BadInput when there are none, when a file is damaged, or when the index points outside the folder.
    """
    if (folder / WEIGHTS_NAME).is_file():
        names = [WEIGHTS_NAME]
    elif (folder / INDEX_NAME).is_file():
        names = _shard_names(folder / INDEX_NAME)
    else:
        raise _no_weights(folder)
    state: dict[str, Tensor] = {}
    for name in names:
        state.update(read_tensor_file(folder / name))
    return state


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises BadInput when it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read: {error}",
            "a complete safetensors file",
            "copy the checkpoint again",
        ) from error


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{index} is not a shard index", "an index by save_pretrained", "copy it again") from error
    for name in names:
        if Path(name).name != name:
            raise BadInput(f"{index} names the shard {name!r}", "files beside the index", "get a clean copy")
    return names


def _no_weights(folder: Path) -> BadInput:
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    if pickled:
        return BadInput(
            f"{folder} has its weights as a pickle ({pickled[0]})",
            "model.safetensors; snapfit never opens pickles",
            'if you trust its origin, convert it once: python -c "from transformers import AutoModel; '
            f"AutoModel.from_pretrained('{folder}').save_pretrained('{folder}-safe')\", and copy its tokenizer files",
        )
    return BadInput(
        f"{folder} has no {WEIGHTS_NAME}", "a folder saved by transformers' save_pretrained", "check the path"
    )


def match_encoder_names(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names that a model with its encoder at `prefix` gives them.

    A checkpoint of the bare encoder gets the prefix put before every name; one of a whole model keeps its names.
    """
    bare = not any(name.startswith(prefix + ".") for name in state)
    renamed = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        name = f"{stem}.{_OLD_NAMES[last]}" if last in _OLD_NAMES and "LayerNorm" in stem else name
        renamed[f"{prefix}.{name}" if bare else name] = tensor
    return renamed


def load_encoder(
    model: nn.Module, state: Mapping[str, Tensor], *, prefix: str, optional: tuple[str, ...] = (), source: str
) -> LoadReport:
    """Load the encoder's part of `state` into `model`; the rest of the model keeps its initial weights.

    prefix: where the encoder stands in the model, such as "bert".
    optional: paths inside the model that may be fresh although they are under the prefix (a pooler).
    Raises BadInput for an encoder weight that is missing or has another shape: nothing is loaded then.
    """
    own = _own_tensors(model)
    given = match_encoder_names(state, prefix)
    wanted = {name for name in own if name.startswith(prefix + ".")}
    free = {n for n in wanted if any(n == part or n.startswith(part + ".") for part in optional)}
    missing = sorted(wanted - free - set(given))
    if missing:
        raise BadInput(
            f"{source} lacks {len(missing)} of the encoder's {len(wanted)} weights, such as {missing[0]!r}",
            "every weight of the encoder that its config.json describes",
            "check that config.json and the weights belong together",
        )
    return _copy(own, {n: given[n] for n in wanted & set(given)}, state_names=set(given), source=source)


def load_all(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Load a whole classifier: the names must agree exactly. Raises BadInput otherwise; nothing is loaded then."""
    own = _own_tensors(model)
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or extra:
        raise BadInput(
            f"{source} does not fit the model: {len(missing)} weights missing ({_some(tuple(missing))}), "
            f"{len(extra)} unknown ({_some(tuple(extra))})",
            "the weights of exactly this model",
            "use the config.json that was saved with them",
        )
    return _copy(own, state, state_names=set(state), source=source)


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict(keep_vars=True))


def _copy(own: Mapping[str, Tensor], chosen: Mapping[str, Tensor], *, state_names: set[str], source: str) -> LoadReport:
    for name, tensor in chosen.items():
        if own[name].shape != tensor.shape:
            raise BadInput(
                f"{source}: {name} has shape {tuple(tensor.shape)}",
                f"shape {tuple(own[name].shape)}, which its config describes",
                "check that config.json and the weights belong together",
            )
    with torch.no_grad():
        for name, tensor in chosen.items():
            own[name].copy_(tensor)
    return LoadReport(
        loaded=tuple(sorted(chosen)),
        fresh=tuple(sorted(set(own) - set(chosen))),
        unused=tuple(sorted(state_names - set(chosen))),
        source=source,
    )
