"""Where a training step's time goes, by part: some steps more, under torch's profiler, after those that were timed.

Every operation counts once, for itself, without what it calls. What an operation belongs to is told by marks around
the loop's pieces, by its name, and in the backward pass by the operation whose gradient it computes. Shares are of the
profiled steps; looking costs time too, so they are shares and no seconds of their own.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface

from snapfit.nn import attention
from snapfit.nn.fused_layer import FusedLayer
from snapfit.training import driver, loop

LOOP = "batch making, the loop"
EMBEDDINGS = "embeddings"
PRODUCTS = "products"
ATTENTION = "attention"
NORMS = "norms, dropout"
GELU = "gelu"
SUMS = "column sums"
COPIES = "copies for products"
HEAD = "head, loss"
OPTIMIZER = "optimizer"
REST = "the rest"
PARTS = (LOOP, EMBEDDINGS, PRODUCTS, ATTENTION, NORMS, GELU, SUMS, COPIES, HEAD, OPTIMIZER, REST)

_MARK = "part: "
_GRADIENT = "autograd::engine::evaluate_function"
_WORDS = {"attention": ATTENTION, "norm": NORMS, "gelu": GELU, "column": SUMS, "adamw": OPTIMIZER, "squares": OPTIMIZER}
"""What a kernel's name says it is for; others are the rest."""
_NAMES = tuple(
    (re.compile(pattern), part)
    for pattern, part in (
        (r"aten::(linear|addmm|mm)$|mkldnn_linear", PRODUCTS),
        (r"scaled_dot_product|softmax|aten::(bmm|baddbmm)$", ATTENTION),
        (r"layer_norm|dropout|_Drop|aten::random_", NORMS),
        (r"aten::(gelu|silu|tanh)", GELU),
        (r"aten::sum$", SUMS),
        (r"aten::(to|_to_copy)$|ToCopyBackward", COPIES),
    )
)
_CASTS = re.compile(r"aten::(to|_to_copy)$")


class StepParts:
    """Marks a training's pieces while it is open, and counts what the profiler saw of them.

    training: whose steps are looked at; what is marked is put back at the end.
    """

    def __init__(self, training: Any) -> None:
        self._training = training
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "StepParts":
        model = self._training.assembly.model
        self._wrap(loop, "pad", LOOP)
        for name in ("group_norms", "clip_gradients", "_sound"):
            self._wrap(loop, name, OPTIMIZER)
        for name in ("step", "zero_grad"):
            self._wrap(self._training.assembly.optimizer, name, OPTIMIZER)
        self._wrap(torch.autograd, "backward", REST)
        self._wrap(driver, "loss_sum", HEAD)
        self._wrap(FusedLayer, "numbers", COPIES)
        self._hook(model, HEAD)
        self._hook(model.encoder, REST)
        for name, module in model.encoder.named_modules():
            if name in model.family.bottom:
                self._hook(module, EMBEDDINGS)
        kernels = {id(m.forward.kernels): m.forward.kernels for m in model.modules() if _is_fused(m)}
        for one in kernels.values():
            for name in (name for name in dir(type(one)) if not name.startswith("_")):
                part = next((part for word, part in _WORDS.items() if word in name), REST)
                self._wrap(one, name, part)
        marked = _marked(attention.attention, ATTENTION)
        AttentionInterface.register(attention.NAME, marked)
        self._undo.callback(AttentionInterface.register, attention.NAME, attention.attention)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def shares(self, steps: int) -> dict[str, float]:
        """Each part's share of `steps` more steps; parts that took nothing are left out."""
        walk: Iterator[Any] = self._training._steps()
        next(walk)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(steps):
                with record_function(_MARK + LOOP):
                    next(walk)
        return shares(list(seen.events() or ()))

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        """Mark a function wherever it is looked up by this name; one that is no longer there is the rest's."""
        function = getattr(owner, name, None)
        if not callable(function):
            return
        own = vars(owner).get(name)
        setattr(owner, name, _marked(function, part))
        if own is None:
            self._undo.callback(delattr, owner, name)
        else:
            self._undo.callback(setattr, owner, name, own)

    def _hook(self, module: torch.nn.Module, part: str) -> None:
        """Mark a module's forward pass."""
        inside: list[Any] = []

        def enter(*_: Any) -> None:
            inside.append(record_function(_MARK + part))
            inside[-1].__enter__()

        def leave(*_: Any) -> None:
            inside.pop().__exit__(None, None, None)

        self._undo.callback(module.register_forward_pre_hook(enter).remove)
        self._undo.callback(module.register_forward_hook(leave).remove)


def shares(events: list[Any]) -> dict[str, float]:
    """Shares by part of the profiler's events, in the order of PARTS."""
    roots = [event for event in events if event.cpu_parent is None and event.name == _MARK + LOOP]
    forward = _contexts(roots)
    seconds = dict.fromkeys(PARTS, 0.0)
    left = [(root, REST) for root in roots]
    while left:
        event, outer = left.pop()
        part = _part(event, outer, forward)
        seconds[part] += event.self_cpu_time_total
        left += [(child, part) for child in event.cpu_children]
    total = sum(seconds.values())
    return {part: value / total for part, value in seconds.items() if value > 0}


def _contexts(roots: list[Any]) -> dict[int, str]:
    """The mark that each operation of the forward pass stood in, by the number that its gradient carries too."""
    found: dict[int, str] = {}
    left = [(root, LOOP) for root in reversed(roots)]
    while left:
        event, mark = left.pop()
        if event.name.startswith(_GRADIENT):
            continue
        if event.name.startswith(_MARK):
            mark = event.name[len(_MARK) :]
        elif event.sequence_nr >= 0:
            found[event.sequence_nr] = mark  # several may carry a number; the last one has the gradient
        left += [(child, mark) for child in reversed(event.cpu_children)]
    return found


def _part(event: Any, outer: str, forward: dict[int, str]) -> str:
    """What an event's own time belongs to, given what it is called from."""
    name: str = event.name
    if outer == OPTIMIZER:
        return outer
    if name.startswith(_MARK):
        return name[len(_MARK) :]
    if name.startswith(_GRADIENT):
        context = forward.get(event.sequence_nr, REST)
        return REST if context == LOOP else context
    if outer == PRODUCTS and _CASTS.match(name):
        return COPIES  # autocast's, before the product
    if outer != REST:
        return outer
    return next((part for pattern, part in _NAMES if pattern.search(name)), REST)


def _marked(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def marked(*arguments: Any, **options: Any) -> Any:
        with record_function(_MARK + part):
            return function(*arguments, **options)

    return marked


def _is_fused(module: torch.nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), FusedLayer)
