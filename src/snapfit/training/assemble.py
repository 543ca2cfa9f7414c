"""The one place that owns the order: build, load, move to the device, group, optimizer, schedule.

An optimizer made before the weights are in, or before the model moved, trains tensors that nobody uses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe, settled
from snapfit.nn.classifier import Classifier, classifier_config, encoder_layers, load_encoder_folder
from snapfit.nn.dropout import use_cheap_dropout
from snapfit.nn.encoder import EncoderSource
from snapfit.nn.families import depth_reader, n_depths, set_dropout
from snapfit.nn.fused_layer import use_fused_layers, use_separate_layers
from snapfit.nn.kernels import Kernels, load_kernels, why_no_kernels
from snapfit.nn.packed_encoder import use_packing, use_padding
from snapfit.nn.used_rows import WORTHWHILE_SHARE, UsedRows, word_embedding
from snapfit.nn.weights import LoadReport, load_all
from snapfit.training.adamw import KernelAdamW
from snapfit.training.adversary import Adversary
from snapfit.training.cycles import Cycles, plan_cycles
from snapfit.training.optimizers import build_optimizer, optimizer_class
from snapfit.training.param_groups import DepthOf, GroupingPlan, plan_groups, to_torch
from snapfit.training.unfreezing import Unfreezing


@dataclass(frozen=True)
class Assembly:
    """Everything that a training loop runs on, in agreement with one another.

    rows: the word embeddings that are trained, where they are a part. engine: in words, what a step runs on.
    unfreezing: says what learns in which step, where that is not all of it in all of them. adversary: moves the word
    embeddings for a part of each step, where it is to.
    """

    model: Classifier
    load_report: LoadReport
    plan: GroupingPlan
    optimizer: torch.optim.Optimizer
    cycles: Cycles
    autocast: Callable[[], AbstractContextManager[object]]
    rows: UsedRows | None = None
    engine: Sequence[str] = ()
    unfreezing: Unfreezing | None = None
    adversary: Adversary | None = None

    def begin(self, step: int) -> None:
        """Get ready for a step (from 0): what does not learn in it takes no gradient."""
        if self.unfreezing is not None:
            self.unfreezing.begin(step)

    def whole(self) -> AbstractContextManager[None]:
        """The model with its whole table of word embeddings, to be evaluated or copied."""
        return nullcontext() if self.rows is None else self.rows.whole()

    def weights(self) -> tuple[dict[str, torch.Tensor], float]:
        """All weights to save, not copied, and what unused word embeddings among them are to be multiplied by."""
        state = dict(self.model.state_dict())
        if self.rows is None:
            return state, 1.0
        return state | {self.rows.name: self.rows.raw()}, self.rows.decay

    def take(self, weights: Mapping[str, torch.Tensor], decay: float, *, source: str) -> None:
        """Take over what `weights` gave. Raises BadInput when it does not fit the model; source: for the message."""
        if self.rows is None:
            load_all(self.model, weights, source=source)
            return
        table = weights.get(self.rows.name)
        fits = table is not None and self.rows.fits(table)
        picked = {self.rows.name: table[self.rows.used]} if table is not None and fits else {}
        load_all(self.model, {**weights, **picked}, source=source)
        if table is not None:
            self.rows.restore(table, decay)

    def fixed(self) -> frozenset[str]:
        """Names of the weights that no step changes."""
        parameters = self.model.named_parameters(remove_duplicate=False)
        return frozenset(name for name, parameter in parameters if not parameter.requires_grad)

    def finish(self) -> None:
        """Put the whole table of word embeddings back into the model, for good."""
        if self.rows is not None:
            self.rows.undo()

    def release(self) -> None:
        """Give the encoder, its layers and its attention back to transformers' own code; the head has one output."""
        if self.model.pooling != "native":
            self.model.head.samples = 1
        use_separate_layers(self.model)
        use_padding(self.model)


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
        window_pooling=recipe.length.chosen.pools_windows_by,
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


def assemble(
    model: Classifier,
    report: LoadReport,
    recipe: Recipe,
    *,
    total_steps: int,
    device: str,
    used: np.ndarray | None = None,
) -> Assembly:
    """Move a loaded model to the device and put groups, optimizer and schedule on it, in that order.

    used: the token ids that will be trained on, ascending; then only their word embeddings are trained, where that is
    exact and worth it.
    """
    torch.nn.Module.to(model, device)  # in place; transformers' own wrapper is untyped
    optim, cycles = recipe.optim, plan_cycles(recipe, total_steps)
    kernels = load_kernels() if device == "cpu" else None
    rows = None if used is None else _used_rows(model, recipe, used)
    depth_of = depth_reader(model.config, model.encoder_prefix)
    plan = plan_groups(
        model,
        depth_of,
        lr=settled(optim.lr),
        head_lr_factor=settled(optim.head_lr_factor),
        layer_ratio=settled(optim.layer_ratio),
        weight_decay=optim.weight_decay,
        freeze_layers=optim.freeze_layers,
    )
    optimizer = build_optimizer(
        optim.name,
        to_torch(plan, model),
        betas=optim.betas,
        eps=optim.eps,
        momentum=optim.momentum,
        kernels=kernels,
    )
    if rows is not None:
        rows.watch(optimizer)
    bf16 = recipe.train.precision == "bf16"
    packs = use_packing(model)
    one_pass = recipe.train.accumulate == 1 and not recipe.regularise.adversarial  # else gradients are sums
    narrow = bf16 and isinstance(optimizer, KernelAdamW) and one_pass
    fused = _fuse_layers(model, kernels, optimizer, narrow=narrow) if packs else 0
    use_cheap_dropout(model)
    if model.pooling != "native":
        model.head.samples = recipe.regularise.dropout_samples
    adversary = Adversary(model, recipe.regularise.adversarial) if recipe.regularise.adversarial else None
    unfreezing = _unfreezing(model, plan, depth_of, recipe, cycles)
    engine = _engine(model, rows, packs=packs, fused=fused, kernels=kernels)
    if unfreezing is not None:
        engine.append(str(unfreezing.phases))

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)

    return Assembly(model, report, plan, optimizer, cycles, autocast, rows, engine, unfreezing, adversary)


def _fuse_layers(model: Classifier, kernels: Kernels | None, optimizer: torch.optim.Optimizer, *, narrow: bool) -> int:
    """Exchange layers of BERT's kind for fused ones, whose weights the optimizer copies if it can; returns how many."""
    layers = encoder_layers(model)
    if kernels is None or layers is None:
        return 0
    fused = use_fused_layers(layers, kernels, narrow=narrow, counted=isinstance(optimizer, KernelAdamW))
    if isinstance(optimizer, KernelAdamW):
        optimizer.copies = [copy for layer in fused for copy in layer.copies]
    return len(fused)


def _unfreezing(
    model: Classifier, plan: GroupingPlan, depth_of: DepthOf, recipe: Recipe, cycles: Cycles
) -> Unfreezing | None:
    """What begins to learn later. Shares are those of the run proper: in the rounds after it everything learns."""
    section = recipe.schedule
    if not section.head_first and not section.unfreeze_share:
        return None
    return Unfreezing(
        model,
        plan,
        depth_of,
        head_first=section.head_first,
        unfreeze_share=section.unfreeze_share,
        total_steps=cycles.ends[0] if cycles.rounds else cycles.ends[-1],
    )


def _engine(model: Classifier, rows: UsedRows | None, *, packs: bool, fused: int, kernels: Kernels | None) -> list[str]:
    """In words, what a step runs on."""
    lines = ["rows are packed" if packs else f"{model.config.model_type} cannot be packed: rows are padded, by length"]
    if kernels is not None:
        lines.append(f"compiled kernels step AdamW and {fused or 'none'} of {n_depths(model.config)} layers")
    elif next(model.parameters()).device.type == "cpu":
        lines.append(f"torch's own operators alone: {why_no_kernels()}")
    if rows is not None:
        lines.append(f"{rows.trained:,} of {rows.all:,} word embeddings occur and are trained")
    return lines


def _used_rows(model: Classifier, recipe: Recipe, used: np.ndarray) -> UsedRows | None:
    """A compact table of word embeddings, where nothing but decay would happen to the other rows."""
    table = word_embedding(model)
    exact = optimizer_class(recipe.optim.name) is torch.optim.AdamW and recipe.optim.freeze_layers == 0
    if table is None or not exact or len(used) > WORTHWHILE_SHARE * len(table.weight):
        return None
    return UsedRows(model, used)


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
