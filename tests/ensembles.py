"""Models that differ from a first one above a trunk, for tests of answers that several models give."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import toys
from snapfit.core.decisions import DecisionRule
from snapfit.core.recipe import Recipe
from snapfit.data.batches import Batch
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier
from snapfit.nn.families import depth_reader
from snapfit.nn.weights import load_all
from snapfit.training.answer import Answer
from snapfit.training.fit import Fitted, fit
from snapfit.training.plan import make_plan
from snapfit.training.prepare import Tables, read_tables

SHARES, TEMPERATURES, TEMPERATURE = (0.5, 0.25, 0.25), (1.5, 0.75, 2.0), 1.25
PICKS = (0, 0, 1, 2)
"""What these shares are as picks."""


def changed_above(model: Classifier, trunk: int, *, seed: int) -> dict[str, Tensor]:
    """A whole state dict that differs from a model's in all layers above `trunk` and in the head; -1: everywhere."""
    depth_of = depth_reader(model.config, model.encoder_prefix)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        depth = depth_of(name)
        moves = depth == "head" or depth > trunk
        noise = 0.2 * torch.randn(tensor.shape, generator=generator) if moves else torch.zeros(())
        state[name] = tensor + noise if moves else tensor.clone()
    return state


def whole(model: Classifier, state: dict[str, Tensor]) -> Classifier:
    """A model of the same config with these weights, which shares nothing with any other."""
    made = Classifier(model.config)
    load_all(made, state, source="the test")
    return made


def logits_apart(models: Sequence[Classifier], batch: Batch) -> list[np.ndarray]:
    """Of each model by itself."""
    return [TorchBackend(model, device="cpu").logits(batch) for model in models]


def fitted_on(folder: str, kind: str = "single", *, pooling: str = "mean") -> tuple[Fitted, Tables]:
    """A model trained for one epoch on a toy table, with the encoder in a folder."""
    values = toys.QUICK | {"model__encoder": folder, "model__pooling": pooling, "train__epochs": 1}
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    tables = read_tables(toys.ROWS[kind](60), None, None, recipe.data)
    plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
    return fit(plan, notify=lambda kind, **fields: None), tables


def answer_of_three(model: Classifier, *, trunks: tuple[int, int] = (1, 2)) -> Answer:
    """The answer of a model and of two that differ from it above these trunks."""
    others = tuple(changed_above(model, trunk, seed=7 + i) for i, trunk in enumerate(trunks))
    made_of = {"rule": "the least error", "expected": {"accuracy": 0.9}}
    return Answer("greedy selection", others, SHARES, TEMPERATURES, made_of)


def with_answer(fitted: Fitted, answer: Answer | None, temperature: float = 1.0) -> Fitted:
    """What was fitted, with another answer, whose logits are divided by a temperature."""
    return replace(fitted, answer=answer, rule=DecisionRule(fitted.label_set.task, temperature), report={})
