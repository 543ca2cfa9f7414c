"""The one place that owns the order: build, load, move to the device, group, optimizer, schedule.

An optimizer made before the weights are in, or before the model moved, trains tensors that nobody uses.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe, settled
from snapfit.nn.attention import use_float32_attention
from snapfit.nn.classifier import Classifier, classifier_config, load_encoder_folder
from snapfit.nn.encoder import EncoderSource
from snapfit.nn.families import depth_reader, n_depths, set_dropout
from snapfit.nn.weights import LoadReport
from snapfit.training.optimizers import build_optimizer
from snapfit.training.param_groups import GroupingPlan, plan_groups, to_torch
from snapfit.training.schedules import Schedule, build_schedule


@dataclass(frozen=True)
class Assembly:
    """Everything that a training loop runs on, in agreement with one another."""

    model: Classifier
    load_report: LoadReport
    plan: GroupingPlan
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    autocast: Callable[[], AbstractContextManager[object]]


def build_model(
    recipe: Recipe, source: EncoderSource, *, task: str, label_names: list[str], pooling: str
) -> tuple[Classifier, LoadReport]:
    """A classifier with the pretrained encoder in it and a fresh head, on the CPU.

    The head's random weights come from `train.seed` alone. pooling: resolved, not "auto".
    With model.reinit_layers = n the encoder's top n layers keep fresh weights too.
    """
    torch.manual_seed(recipe.train.seed)
    config = classifier_config(
        source.config,
        task=task,  # type: ignore[arg-type]  # one of the three, checked with the label set
        label_names=label_names,
        pooling=pooling,
        head_dropout=0.1 if recipe.model.dropout == "auto" else recipe.model.dropout,
    )
    set_dropout(
        config,
        hidden=None if recipe.model.dropout == "auto" else recipe.model.dropout,
        attention=None if recipe.model.attention_dropout == "auto" else recipe.model.attention_dropout,
    )
    model = Classifier(config)
    fresh = _top_layers(model, recipe.model.reinit_layers)
    report = load_encoder_folder(model, source.folder)
    if fresh:
        model.load_state_dict(fresh, strict=False)
    return model, report


def assemble(model: Classifier, report: LoadReport, recipe: Recipe, *, total_steps: int, device: str) -> Assembly:
    """Move a loaded model to the device and put groups, optimizer and schedule on it, in that order."""
    torch.nn.Module.to(model, device)  # in place; transformers' own wrapper is untyped
    optim = recipe.optim
    plan = plan_groups(
        model,
        depth_reader(model.config, model.encoder_prefix),
        lr=settled(optim.lr),
        head_lr_factor=settled(optim.head_lr_factor),
        layer_ratio=settled(optim.layer_ratio),
        weight_decay=optim.weight_decay,
        freeze_layers=optim.freeze_layers,
    )
    optimizer = build_optimizer(
        optim.name, to_torch(plan, model), betas=optim.betas, eps=optim.eps, momentum=optim.momentum
    )
    section = recipe.schedule
    schedule = build_schedule(
        shape=section.shape,
        total_steps=total_steps,
        warmup_steps=min(round(section.warmup_fraction * total_steps), total_steps - 1),
        cycles=section.cycles,
        cycle_mult=section.cycle_mult,
        cycle_decay=section.cycle_decay,
        floor=section.floor,
        decay_fraction=section.decay_fraction,
    )
    bf16 = recipe.train.precision == "bf16"
    if bf16 and device == "cpu":
        use_float32_attention(model)

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)

    return Assembly(model, report, plan, optimizer, schedule, autocast)


@contextmanager
def torch_as_wanted(recipe: Recipe) -> Iterator[None]:
    """torch with the recipe's number of threads; afterwards threads and random generator are the caller's again."""
    threads, generator_state = torch.get_num_threads(), torch.get_rng_state()
    try:
        if recipe.train.threads != "auto":
            torch.set_num_threads(recipe.train.threads)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(generator_state)


def pick_device() -> str:
    """The torch device type that training uses: CUDA where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def layer_parameters(model: Classifier) -> int:
    """Numbers in the encoder without its embedding tables: what the default rate goes by."""
    tables = {id(p) for m in model.encoder.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    return sum(p.numel() for p in model.encoder.parameters() if id(p) not in tables)


def _top_layers(model: Classifier, n_layers: int) -> dict[str, torch.Tensor]:
    """Copies of the top layers' weights as the constructor made them."""
    if n_layers == 0:
        return {}
    depth, last = depth_reader(model.config, model.encoder_prefix), n_depths(model.config)
    if n_layers > last:
        raise BadInput(
            f"model.reinit_layers is {n_layers}",
            f"0 to {last}, the encoder's layers",
            f"--set model.reinit_layers={last}",
        )
    chosen = [name for name, _ in model.named_parameters() if (d := depth(name)) != "head" and d > last - n_layers]
    state = model.state_dict()
    return {name: state[name].clone() for name in chosen}
