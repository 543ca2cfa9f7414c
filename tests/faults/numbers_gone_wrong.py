"""Numbers that go wrong in a training: noticed at once, never saved, and recovered from.

The faults come in through torch's own hooks, and a wrapper around the loss; what is trained is a toy table that is
learnt without an error, so that a training which a fault has harmed shows it.
"""

import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

import snapfit.training.regularise as regularise
import toys
import trained
from scene import Scene, make_scene, seeded
from snapfit.core.errors import SnapfitError
from snapfit.nn.classifier import Classifier
from snapfit.training.checkpoint import find_checkpoints
from snapfit.training.tensor_files import read_tensors

STEPS, EVERY = 60, 4
"""Steps of a training, and between its checkpoints."""
TOLERANCE = 0.005
"""How much worse a training may end than one without a fault: half a point of macro-F1 on the test table."""
SETTINGS: dict[str, Any] = {
    "train__epochs": 5,
    "train__evaluations_per_epoch": 1,
    "train__patience": None,
    "data__valid_fraction": 0.25,
    "optim__lr": 4e-3,
    "model__dropout": 0.0,
    "checkpoint__every_steps": EVERY,
    "checkpoint__keep": 1000,
}
"""Every checkpoint stays, to be looked into."""


@dataclass(frozen=True)
class Numbers:
    """How the trials went. by_kind: the latest that a fault of each kind was noticed, in steps after the expected."""

    trials: int
    by_kind: dict[str, int]
    bad: list[str]
    seconds: float
    seed: int


def run_numbers(folder: Path, *, trials: int, seed: int) -> Numbers:
    """Spoil one number of a training, in so many trainings, and look at what became of each.

    folder: an empty one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    scene = learnable_scene(folder / "stage")
    clean = scene.train(folder / "clean").metrics["test"]["macro_f1"]
    bad: list[str] = []
    by_kind: dict[str, int] = {}
    for trial in range(trials):
        dice = seeded(seed, trial)
        kind = tuple(KINDS)[trial % len(KINDS)]
        fault = Fault(kind, dice.randint(9, STEPS if kind in WEIGHTS else 24), dice)
        late, wrong = _one_trial(scene, folder / f"run-{trial}", fault, clean)
        by_kind[kind] = max(by_kind.get(kind, 0), late)
        if wrong:
            bad.append(f"trial {trial}, {kind} at step {fault.step}: {wrong}")
        else:
            shutil.rmtree(folder / f"run-{trial}")
    return Numbers(trials, by_kind, bad, time.monotonic() - began, seed)


def learnable_scene(folder: Path, **settings: Any) -> Scene:
    """A scene whose texts have three words of one topic alone; its training ends without an error on the test table."""
    scene = make_scene(folder, **(SETTINGS | settings))
    for name, n_rows, seed in (("train.csv", 128, 0), ("test.csv", 60, 1)):
        dice, names = random.Random(seed), sorted(toys.TOPICS)
        rows = [(" ".join(dice.choices(toys.TOPICS[names[i % 3]][:3], k=4)), names[i % 3]) for i in range(n_rows)]
        trained.write_csv(folder / name, [{"text": text, "label": label} for text, label in rows])
    return scene


@dataclass
class Fault:
    """One fault. kind: a key of KINDS. step: the number of the step that it strikes, or after which it does.

    A listener of the training. forever: strike every step from there on. Attributes: done, steps so far; struck;
    model and optimizer, as soon as they are seen; events, all that were heard.
    """

    kind: str
    step: int
    dice: random.Random
    forever: bool = False
    done: int = 0
    struck: bool = False
    model: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["kind"] == "step":
            self.done = event["number"]
            if self.done == self.step and not self.struck and self.kind in BETWEEN_STEPS:
                self.struck = True
                with torch.no_grad():
                    BETWEEN_STEPS[self.kind](self)
        elif event["kind"] in ("start", "rollback"):
            self.done = event["step"]

    def strikes(self, kind: str) -> bool:
        """Whether this very moment of a step is the one for a fault of that kind."""
        due = self.done + 1 >= self.step if self.forever else self.done + 1 == self.step and not self.struck
        self.struck = self.struck or (due and kind == self.kind)
        return due and kind == self.kind


@contextmanager
def injected(fault: Fault) -> Iterator[None]:
    """Trainings inside suffer from the fault."""
    usual = regularise.loss_sum

    def loss_sum(*arguments: Any, **options: Any) -> Tensor:
        loss = usual(*arguments, **options)
        for kind, spoil in IN_THE_LOSS.items():
            if fault.strikes(kind):
                loss = spoil(loss)
        return loss

    def see_optimizer(optimizer: torch.optim.Optimizer, *ignored: Any) -> None:
        fault.optimizer = optimizer

    handles = (
        register_module_forward_hook(partial(_see_module, fault)),
        register_optimizer_step_post_hook(see_optimizer),
    )
    regularise.loss_sum = loss_sum
    try:
        yield
    finally:
        regularise.loss_sum = usual
        for handle in handles:
            handle.remove()


def _see_module(fault: Fault, module: nn.Module, inputs: Any, output: Any) -> Any:
    """A forward hook: spoils what comes out of the model, or of its embeddings, or what will come back as gradient."""
    if module.training and isinstance(module, Classifier):
        fault.model = module
        _spoil_gradient(fault, module)
        if fault.strikes("logits NaN"):
            output.logits = output.logits * math.nan
    elif module.training and isinstance(module, nn.Embedding):
        for kind, number in (("batch NaN", math.nan), ("batch inf", math.inf)):
            if fault.strikes(kind):
                output = output.clone()
                output[0, 0, 0] = number
    return output


def not_finite(run: Path) -> list[str]:
    """The tensors with a number that is not finite, in any checkpoint of a run and in its bundle."""
    folders = [one.folder for one in find_checkpoints(run / "checkpoints")[0]] + [run / "bundle"]
    return [
        f"{path.parent.name}/{path.name}: {name}"
        for folder in folders
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in read_tensors(path).items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]


def _one_trial(scene: Scene, run: Path, fault: Fault, clean: float) -> tuple[int, str]:
    """How many steps too late the fault was noticed, and what was wrong."""
    try:
        with injected(fault):
            result = scene.train(run, listener=fault)
    except SnapfitError as error:
        return 0, f"the training failed: {str(error).splitlines()[0]}"
    noticed = [
        event["step"] if event["kind"] == "fault" else event["from_step"]
        for event in fault.events
        if event["kind"] in ("fault", "rollback")
    ]
    late = noticed[0] - fault.step if noticed else 0
    spoilt = not_finite(run)
    score = result.metrics["test"]["macro_f1"]
    wrong = [
        "" if fault.struck else "it never struck",
        "" if noticed else "nobody noticed",
        "" if 0 <= late <= KINDS[fault.kind] else f"noticed {late} steps after",
        f"not finite: {spoilt[0]} and {len(spoilt) - 1} more" if spoilt else "",
        f"macro-F1 {score:.4f}, {clean:.4f} without the fault" if score < clean - TOLERANCE else "",
    ]
    return late, "; ".join(filter(None, wrong))


# ---------------------------------------------------------------- kinds of faults


def _spoil_gradient(fault: Fault, model: nn.Module) -> None:
    """Let the gradient of some parameter go wrong in the coming backward pass."""
    for kind, number in (("gradient NaN", math.nan), ("gradient inf", math.inf)):
        if fault.strikes(kind):
            parameter = fault.dice.choice([p for p in model.parameters() if p.requires_grad])
            handles: list[RemovableHandle] = []
            handles.append(parameter.register_hook(partial(_spoilt_once, handles, number)))


def _spoilt_once(handles: list[RemovableHandle], number: float, gradient: Tensor) -> Tensor:
    handles.pop().remove()
    spoilt = gradient.clone()
    spoilt.view(-1)[0] = number
    return spoilt


def _weight(number: float) -> Callable[[Fault], None]:
    """Any number of any parameter."""

    def spoil(fault: Fault) -> None:
        assert fault.model is not None
        parameter = fault.dice.choice(list(fault.model.parameters()))
        parameter.view(-1)[fault.dice.randrange(parameter.numel())] = number

    return spoil


def _unused_row(fault: Fault) -> None:
    """The last row of the largest embedding table, a token that no text has."""
    assert fault.model is not None
    tables = [module.weight for module in fault.model.modules() if isinstance(module, nn.Embedding)]
    max(tables, key=len)[-1] = math.nan


def _remembered(key: str, number: float) -> Callable[[Fault], None]:
    """Any number of what the optimizer remembers of any parameter."""

    def spoil(fault: Fault) -> None:
        assert fault.optimizer is not None
        states = [state for state in fault.optimizer.state.values() if key in state]
        tensor = fault.dice.choice(states)[key]
        tensor.view(-1)[fault.dice.randrange(tensor.numel())] = number

    return spoil


BETWEEN_STEPS: Mapping[str, Callable[[Fault], None]] = {
    "weight NaN": _weight(math.nan),
    "weight inf": _weight(math.inf),
    "unused row NaN": _unused_row,
    "exp_avg NaN": _remembered("exp_avg", math.nan),
    "exp_avg_sq inf": _remembered("exp_avg_sq", math.inf),
}
WEIGHTS = ("weight NaN", "weight inf", "unused row NaN")
IN_THE_LOSS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "loss NaN": lambda loss: loss * math.nan,
    "loss inf": lambda loss: loss + math.inf,
    "loss x1000": lambda loss: loss * 1000.0,
}
KINDS: Mapping[str, int] = {
    **dict.fromkeys(IN_THE_LOSS, 0),
    **dict.fromkeys(("logits NaN", "batch NaN", "batch inf", "gradient NaN", "gradient inf"), 0),
    **dict.fromkeys((*WEIGHTS, "exp_avg NaN"), 1),
    "exp_avg_sq inf": 2 * EVERY + 1,
}
"""How many steps after the fault's own it must be noticed. An infinite `exp_avg_sq` only stops a weight from being
trained; it is noticed when it would be saved."""
