"""What a training is a training of: recipe, data, labels, tokenizer, and the machine that it runs on.

The identity is stored with every checkpoint. When a run is to be continued, what differs is named exactly, and told
apart by what it means: nothing for the result, something that can be accepted, or another training altogether.
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers

from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe
from snapfit.core.recipe_words import shown
from snapfit.nn.kernels import load_kernels

Weight = Literal["free", "acceptable", "forbidden"]

FREE_SECTIONS = ("checkpoint", "log", "decision")
"""Their settings change nothing about the weights; a finished run is decided anew for those of `decision`."""
FREE_KEYS = frozenset({"train.max_recoveries", "train.fold_bundle"})
ACCEPTABLE_KEYS = frozenset(
    {
        "train.epochs",
        "train.patience",
        "train.evaluations_per_epoch",
        "train.threads",
        "train.precision",
        "optim.lr",
        "optim.head_lr_factor",
        "optim.layer_ratio",
        "optim.weight_decay",
        "optim.max_grad_norm",
    }
)
"""Settings with which a begun training can sensibly go on; so can those of the sections below."""
ACCEPTABLE_SECTIONS = ("schedule", "ensemble", "regularise", "loss")
ACCEPT = "--accept-changes"


@dataclass(frozen=True)
class Difference:
    """One thing that differs between a checkpoint and the run that wants to continue it."""

    what: str
    then: Any
    now: Any
    weight: Weight

    def __str__(self) -> str:
        return f"{self.what} was {shown(self.then)}, is {shown(self.now)}"


def machine(device: str) -> dict[str, str]:
    """What decides whether the same steps give the same bits; the thread count is in the recipe."""
    processor = torch.backends.cpu.get_cpu_capability() if device == "cpu" else torch.cuda.get_device_name()
    kernels = load_kernels() if device == "cpu" else None
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": device,
        "processor": f"{platform.machine()} {processor}",
        "kernels": kernels.identity[:16] if kernels is not None else "none",
    }


def setting_weight(key: str) -> Weight:
    """What a change of the setting "section.key" means for a run that is continued."""
    section = key.partition(".")[0]
    if section in FREE_SECTIONS or key in FREE_KEYS:
        return "free"
    return "acceptable" if section in ACCEPTABLE_SECTIONS or key in ACCEPTABLE_KEYS else "forbidden"


def leaves_work(then: Recipe, now: Recipe) -> bool:
    """Whether a finished run whose settings were `then` has something to do for those of `now`: further steps, or only
    another decision rule.
    """
    before = then.to_dict()
    given = ((key, *key.split("."), value) for key, value in now.stated().items())
    changed = [key for key, section, name, value in given if before[section][name] != value]
    return any(setting_weight(key) != "free" or key.startswith("decision.") for key in changed)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two identities: {"recipe", "data", "labels", "encoder", "tokenizer", "machine"}.

    A setting that was not there then, for there was none of its kind, had its default.
    """
    found: list[Difference] = []
    defaults = Recipe().to_dict()
    for key, old, new in _changed(then["recipe"], now["recipe"]):
        old = {name: defaults[key][name] for name in new or {} if key in defaults and name in defaults[key]} | (
            old or {}
        )
        found += [
            Difference(f"{key}.{name}", a, b, setting_weight(f"{key}.{name}"))
            for name, a, b in _changed(old, new or {})
        ]
    found += [_data_difference(split, old, new) for split, old, new in _changed(then["data"], now["data"])]
    for part in ("labels", "encoder", "tokenizer"):
        if then[part] != now[part]:
            old, new = (_label_names(value) if part == "labels" else value[:12] for value in (then[part], now[part]))
            found.append(Difference(part, old, new, "forbidden"))
    found += [Difference(name, old, new, "acceptable") for name, old, new in _changed(then["machine"], now["machine"])]
    return found


def check_unchanged(found: list[Difference], *, accept: bool, where: str) -> None:
    """Raise BadInput naming every difference that is not to be accepted. where: what is to be continued."""
    forbidden = [one for one in found if one.weight == "forbidden"]
    if forbidden:
        raise BadInput(
            f"{where} cannot be continued: {'; '.join(map(str, forbidden))}",
            "the tables, labels and settings that the run began with",
            "leave the changes out; for a new training give another --out, and --continue-from BUNDLE to start from "
            "what was learnt",
        )
    open_ones = [one for one in found if one.weight == "acceptable"]
    if open_ones and not accept:
        raise BadInput(
            f"{where} would be continued with changes: {'; '.join(map(str, open_ones))}",
            "the same settings on the same kind of machine, for the weights of an uninterrupted run",
            f"{ACCEPT} if you mean it",
        )


def _data_difference(split: str, old: Any, new: Any) -> Difference:
    """A split's tables in words: their rows and, where these agree, which part of them changed.

    The test table is only measured on.
    """
    weight: Weight = "free" if split == "test" else "forbidden"
    if old is None or new is None or old["rows"] != new["rows"]:
        then, now = (None if one is None else f"{one['rows']:,} rows" for one in (old, new))
        return Difference(f"the {split} table", then, now, weight)
    parts = [part for part in ("texts", "labels") if old[part] != new[part]]
    if not parts:  # a large table that was ordered by other pools
        return Difference(f"the pools of the {split} table", old.get("pools"), new.get("pools"), weight)
    what = f"the SHA-256 of the {' and '.join(parts)} in the {split} table"
    return Difference(what, old[parts[0]][:12], new[parts[0]][:12], weight)


def _label_names(labels: Mapping[str, Any]) -> Any:
    return labels.get("names") or labels


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)
