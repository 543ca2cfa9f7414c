"""Which parameter learns at which rate and with which weight decay: a plan that partitions the model, proven.

The plan is data. It can be printed (`format_plan`), written to the journal and turned into torch's parameter
groups (`to_torch`), which checks it once more against the model that the optimizer is going to see.

This file knows no architecture. Where a parameter stands comes from a callable, parameter name -> depth:
"head", or 0 for the embeddings and i for the encoder's i-th layer from below, counted from 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.nn.families import Depth

DepthOf = Callable[[str], Depth]


@dataclass(frozen=True)
class Rule:
    """An exception for the parameters whose name matches a pattern.

    pattern: shell-style (`*`, `?`, `[...]`), case-sensitive, over the whole name: "*.attention.*".
    lr_factor: multiplies the rate that they would have had.
    weight_decay: replaces theirs, whatever kind of parameter it is; None leaves it.
    """

    pattern: str
    lr_factor: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        for value in (self.lr_factor, self.weight_decay or 0.0):
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"{self}", "a factor and a decay of 0 or more", "correct the rule")


@dataclass(frozen=True)
class GroupPlan:
    """Parameters that share a rate and a decay.

    lr: peak learning rate. parameters: names in the model's order. count: numbers in them, shared ones once.
    examples: up to two of the names, for printing. head: whether they are the head's.
    """

    name: str
    lr: float
    weight_decay: float
    parameters: tuple[str, ...]
    count: int
    examples: tuple[str, ...]
    head: bool = False


@dataclass(frozen=True)
class GroupingPlan:
    """A partition of a model's parameters: every one in exactly one group or frozen.

    groups: from the embeddings up to the head. frozen: names of the parameters that do not learn.
    frozen_count: numbers in them. n_layers: depth that the rates were spread over.
    """

    groups: tuple[GroupPlan, ...]
    frozen: tuple[str, ...] = ()
    frozen_count: int = 0
    n_layers: int = 0

    @property
    def trainable_count(self) -> int:
        """Numbers that learn."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True)
class _Parameter:
    names: tuple[str, ...]  # the first is the one used; a tied parameter has several
    tensor: nn.Parameter
    depth: Depth
    decays: bool


def plan_groups(
    model: nn.Module,
    family_depths: DepthOf,
    *,
    lr: float,
    head_lr_factor: float,
    layer_ratio: float,
    weight_decay: float,
    freeze_layers: int = 0,
    rules: Sequence[Rule] = (),
) -> GroupingPlan:
    """The groups of a model; the model itself is not changed (see `to_torch`).

    lr: rate of the encoder's top layer. head_lr_factor: the head's rate over it.
    layer_ratio: rate of the bottom layer over that of the top one, in (0, 1]; the rates between them are
        geometric, so the value means the same at any depth. The embeddings share the bottom layer's rate.
    weight_decay: of matrices, embeddings included. Biases, parameters of normalisation modules and whatever
        has fewer than two dimensions get none: told from the modules, for names differ between models.
    freeze_layers: n > 0 freezes the embeddings and the lowest n layers; what takes no gradient stays frozen.
    rules: exceptions; each must match something that learns, and none may match what another matched.

    Raises BadInput for settings that fit nothing, WorkFailed when the result is no partition of the model.
    """
    _check_rates(lr, head_lr_factor, layer_ratio, weight_decay)
    parameters = list(_parameters(model, family_depths))
    n_layers = max((p.depth for p in parameters if p.depth != "head"), default=0)
    learning, frozen = _split_frozen(parameters, freeze_layers, n_layers)
    rule_of = _claims(learning, rules)
    groups: dict[tuple[str, float, float], list[_Parameter]] = {}
    for parameter in learning:
        rate = _rate(parameter.depth, n_layers, lr, head_lr_factor, layer_ratio)
        decay = weight_decay if parameter.decays else 0.0
        key = _group_key(parameter.depth, rate, decay, rule_of.get(parameter.names[0]), weight_decay)
        groups.setdefault(key, []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: _height(item[1][0].depth))
    plan = GroupingPlan(
        groups=tuple(_group(*key, members) for key, members in ordered),
        frozen=tuple(p.names[0] for p in frozen),
        frozen_count=sum(p.tensor.numel() for p in frozen),
        n_layers=n_layers,
    )
    prove_partition(plan, model)
    return plan


def prove_partition(plan: GroupingPlan, model: nn.Module) -> None:
    """Raise WorkFailed unless every parameter of the model is in exactly one group of the plan or frozen in
    it.

    Catches a plan that was made before a module was replaced, tied, added or taken out.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    learning = [name for group in plan.groups for name in group.parameters]
    seen: dict[int, str] = {}
    for name in (*learning, *plan.frozen):
        if name not in tensors:
            raise WorkFailed(f"the plan of parameter groups names {name!r}, which the model does not have")
        if (other := seen.get(id(tensors[name]))) is not None:
            raise WorkFailed(f"the parameter groups hold one parameter twice, as {other!r} and as {name!r}")
        seen[id(tensors[name])] = name
    missing = [name for name, tensor in tensors.items() if id(tensor) not in seen]
    if missing:
        raise WorkFailed(f"{len(missing)} parameters are in no group, the first is {missing[0]!r}")
    if dull := [name for name in learning if not tensors[name].requires_grad]:
        raise WorkFailed(f"{len(dull)} parameters are to learn but take no gradient, the first is {dull[0]!r}")
    counted = plan.trainable_count + plan.frozen_count
    held = sum(tensor.numel() for tensor in model.parameters())
    if counted != held:
        raise WorkFailed(f"the parameter groups count {counted} numbers, the model has {held}")


def to_torch(plan: GroupingPlan, model: nn.Module) -> list[dict[str, Any]]:
    """Apply the plan: switch off the gradients of frozen parameters, return the groups for a torch optimizer.

    Each group is a dictionary with `params`, `lr`, `weight_decay` and, for the schedule and the journal,
    `base_lr` (the peak rate, never changed), `name` and `head`. Raises WorkFailed when the plan does not fit the
    model.
    """
    prove_partition(plan, model)
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name in plan.frozen:
        tensors[name].requires_grad_(False)
    return [
        {
            "params": [tensors[name] for name in group.parameters],
            "lr": group.lr,
            "base_lr": group.lr,
            "weight_decay": group.weight_decay,
            "name": group.name,
            "head": group.head,
        }
        for group in plan.groups
    ]


def format_plan(plan: GroupingPlan) -> list[str]:
    """The plan as the lines of a table, head line first, for the console and the log."""
    rows = [("group", "rate", "decay", "tensors", "numbers", "example")]
    for group in plan.groups:
        cells = (
            f"{group.lr:.3g}",
            f"{group.weight_decay:g}",
            f"{len(group.parameters):,}",
            f"{group.count:,}",
        )
        rows.append((group.name, *cells, group.examples[0]))
    if plan.frozen:
        rows.append(("frozen", "0", "0", f"{len(plan.frozen):,}", f"{plan.frozen_count:,}", plan.frozen[0]))
    total = len(plan.frozen) + sum(len(group.parameters) for group in plan.groups)
    rows.append(("all", "", "", f"{total:,}", f"{plan.trainable_count + plan.frozen_count:,}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:5], widths[1:], strict=True)),
                row[5],
            ]
        ).rstrip()
        for row in rows
    ]


def _check_rates(lr: float, head_lr_factor: float, layer_ratio: float, weight_decay: float) -> None:
    for key, value, allowed, fits in (
        ("lr", lr, "a number above 0", lr > 0),
        ("head_lr_factor", head_lr_factor, "a number above 0", head_lr_factor > 0),
        ("layer_ratio", layer_ratio, "a number above 0, at most 1", 0 < layer_ratio <= 1),
        ("weight_decay", weight_decay, "0 or a number above it", weight_decay >= 0),
    ):
        if not (fits and math.isfinite(value)):
            raise BadInput(f"optim.{key} is {value}", allowed, f"--set optim.{key}=NUMBER")


def _parameters(model: nn.Module, family_depths: DepthOf) -> Iterator[_Parameter]:
    """Every parameter of the model once, with all of its names, its depth and whether it may decay."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    undecayed = {
        id(tensor)
        for module in model.modules()
        for leaf, tensor in module.named_parameters(recurse=False)
        if tensor.ndim < 2 or leaf == "bias" or leaf.endswith("_bias") or _normalises(module)
    }
    for name, tensor in model.named_parameters():
        depth = family_depths(name)
        if depth != "head" and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 0):
            raise WorkFailed(f"the depth of the parameter {name!r} is {depth!r}, not 'head' or a number from 0 up")
        yield _Parameter(tuple(names[id(tensor)]), tensor, depth, decays=id(tensor) not in undecayed)


def _normalises(module: nn.Module) -> bool:
    """Layer, RMS, group, batch normalisation, also those that a model brings in a class of its own."""
    kind = type(module).__name__.rstrip("0123456789d").lower()
    return hasattr(module, "normalized_shape") or kind.endswith("norm")


def _claims(learning: Sequence[_Parameter], rules: Sequence[Rule]) -> dict[str, Rule]:
    """Parameter name -> the one rule that matches it; a tied parameter is matched by any of its names."""
    claimed: dict[str, Rule] = {}
    for rule in rules:
        matched = [p for p in learning if any(fnmatchcase(name, rule.pattern) for name in p.names)]
        if not matched:
            raise BadInput(
                f"the rule {rule.pattern!r} matches no parameter that learns",
                f"a pattern over names such as {learning[0].names[0]!r}",
                "correct the pattern or take the rule out",
            )
        for parameter in matched:
            name = parameter.names[0]
            if (other := claimed.setdefault(name, rule)) is not rule:
                raise BadInput(
                    f"the rules {other.pattern!r} and {rule.pattern!r} both match {name!r}",
                    "at most one rule for a parameter",
                    "narrow one of the patterns",
                )
    return claimed


def _rate(depth: Depth, n_layers: int, lr: float, head_lr_factor: float, layer_ratio: float) -> float:
    if depth == "head":
        return lr * head_lr_factor
    below_top = max(n_layers, 1) - max(depth, 1)
    return lr * float(layer_ratio ** (below_top / max(n_layers - 1, 1)))


def _split_frozen(
    parameters: Sequence[_Parameter], freeze_layers: int, n_layers: int
) -> tuple[list[_Parameter], list[_Parameter]]:
    """The parameters that learn and those that do not."""
    if not 0 <= freeze_layers <= n_layers:
        raise BadInput(
            f"optim.freeze_layers is {freeze_layers}",
            f"0 to {n_layers}, the number of layers with parameters of their own in this encoder",
            "--set optim.freeze_layers=0",
        )
    learning: list[_Parameter] = []
    frozen: list[_Parameter] = []
    for parameter in parameters:
        below = freeze_layers > 0 and parameter.depth != "head" and parameter.depth <= freeze_layers
        (frozen if below or not parameter.tensor.requires_grad else learning).append(parameter)
    if not learning:
        raise BadInput(
            "a model in which nothing is left to learn",
            "at least one parameter that is not frozen",
            "lower optim.freeze_layers, or give some parameters their gradient back",
        )
    return learning, frozen


def _group_key(
    depth: Depth, rate: float, decay: float, rule: Rule | None, weight_decay: float
) -> tuple[str, float, float]:
    """Name, rate and decay of the group that a parameter belongs to, with its rule applied."""
    name = "head" if depth == "head" else f"layer {depth}" if depth else "embeddings"
    if rule is not None:
        rate *= rule.lr_factor
        decay = decay if rule.weight_decay is None else rule.weight_decay
        name += f" [{rule.pattern}]"
    if decay == 0.0 and weight_decay > 0.0:
        name += ", no decay"
    return name, rate, decay


def _height(depth: Depth) -> float:
    return math.inf if depth == "head" else depth


def _group(name: str, rate: float, decay: float, members: Sequence[_Parameter]) -> GroupPlan:
    names = tuple(member.names[0] for member in members)
    count, head = sum(member.tensor.numel() for member in members), members[0].depth == "head"
    return GroupPlan(name, rate, decay, names, count, names[:2], head)
