"""What a training will do, settled before its first step: encoder, tokens, resolved recipe, order of rows."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.maps import release_pages
from snapfit.core.recipe import Recipe, settled
from snapfit.core.rule_fitting import check_decision
from snapfit.data.tokenizer import TextTokenizer, TokenRows
from snapfit.nn.encoder import EncoderSource, TokenizerFiles
from snapfit.nn.families import max_positions
from snapfit.training.assemble import build_model, layer_parameters, pick_device, torch_as_wanted
from snapfit.training.defaults import Facts, check_metric, is_resolved, resolve
from snapfit.training.identity import machine
from snapfit.training.loop import Examples, Targets
from snapfit.training.order import ByRow, DataOrder
from snapfit.training.pooling_probe import choose_pooling
from snapfit.training.precision import choose_precision
from snapfit.training.prepare import (
    Notify,
    Tables,
    encoder_limit,
    label_counts,
    make_examples,
    open_encoder,
    tokenise,
    training_sample,
)

MANY_ROWS = 50_000
"""Rows whose tokenising takes seconds, and is told of."""


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    recipe: resolved. reasons: why each `auto` became what it is. examples: by split. order: of the training rows.
    total_steps: optimizer steps to the end. device: torch's device type. taught_by: names the scores that are targets,
    where others than the labels are (see student.py).
    """

    tables: Tables
    recipe: Recipe
    reasons: dict[str, str]
    source: EncoderSource
    tokenizer: TextTokenizer
    tokenizer_files: TokenizerFiles
    examples: dict[str, Examples]
    order: DataOrder
    total_steps: int
    device: str
    taught_by: str = ""

    @property
    def label_set(self) -> LabelSet:
        """The outputs of the classifier."""
        return self.tables.label_set

    def close(self) -> None:
        """End what still goes on in the background, such as tokenising a large table."""
        for examples in self.examples.values():
            examples.tokens.close()

    def identity(self) -> dict[str, Any]:
        """What this is a training of (see identity.py). Where the encoder lies is not part of it, what it is, is."""
        recipe = self.recipe.to_dict()
        recipe["model"] = {key: value for key, value in recipe["model"].items() if key != "encoder"}
        beside = ("transformers_version", "_name_or_path")  # what saved it and where it lies, not what it is
        # Without defaults, of which a newer transformers may have more.
        encoder = {key: value for key, value in self.source.config.to_diff_dict().items() if key not in beside}
        data = {
            split: {key: values[key] for key in ("rows", "texts", "labels", "pools") if key in values}
            for split, values in self.tables.identity.items()
        }
        if self.taught_by:
            data["train"] = {**data["train"], "rows": len(self.examples["train"].tokens), "labels": self.taught_by}
        return {
            "recipe": recipe,
            "data": data,
            "labels": self.label_set.to_dict(),
            "encoder": _digest(repr(sorted(encoder.items())).encode()),
            "tokenizer": _digest(self.tokenizer_files.tokenizer_json),
            "machine": machine(self.device),
        }


def make_plan(
    tables: Tables,
    recipe: Recipe,
    *,
    notify: Notify,
    reasons: Mapping[str, str] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Open the encoder, tokenise, and replace every `auto` of the recipe by what it means here.

    notify: hears of notices and of the recipe. reasons: why settings that are resolved already are as they are.
    told: hears of what takes a while, before it is done.
    Raises BadInput for settings that do not fit the data or the encoder.
    """
    names, held_out = tables.label_set.names, len(tables.splits.get("valid", ()))
    check_decision(recipe.decision, tables.label_set.task, names, n_rows=held_out)
    source, files = open_encoder(recipe)
    for notice in source.notices:
        notify("notice", text=notice)
    limit = recipe.length.max_tokens
    longest = encoder_limit(source) if limit == "auto" else limit
    sample = training_sample(tables, seed=recipe.data.split_seed)
    if text := _tokenising(tables):
        told(text)
    tokenised = tokenise(sample or tables, source, files, longest)
    with torch_as_wanted(recipe):
        recipe, found = _resolve(tables, recipe, source, make_examples(sample or tables, tokenised)["train"])
    found = {**(reasons or {}), **found}
    notify("recipe", recipe=recipe.to_dict(), reasons=found)
    if sample is not None or recipe.length.max_tokens != tokenised.tokenizer.max_tokens:
        tokenised = tokenise(tables, source, files, settled(recipe.length.max_tokens), seed=recipe.train.seed)
    examples = make_examples(tables, tokenised)
    order = _data_order(recipe, examples["train"], tables)
    return Plan(
        tables=tables,
        recipe=recipe,
        reasons=found,
        source=source,
        tokenizer=tokenised.tokenizer,
        tokenizer_files=files,
        examples=examples,
        order=order,
        total_steps=order.total_steps(settled(recipe.train.epochs)),
        device=pick_device(),
    )


def _tokenising(tables: Tables) -> str:
    """What is about to be tokenised, where it takes a while."""
    rows = sum(map(len, tables.splits.values()))
    pool = tables.sizes.pool_rows
    if len(tables.splits["train"]) > pool:
        return f"tokenising {rows:,} rows as they are needed: the first step comes with the first {pool:,}"
    return f"tokenising {rows:,} rows, unless the cache has them" if rows > MANY_ROWS else ""


def _resolve(tables: Tables, recipe: Recipe, source: EncoderSource, train: Examples) -> tuple[Recipe, dict[str, str]]:
    """Measure what the defaults depend on, and replace every `auto`. train: of a large table a sample."""
    label_set = tables.label_set
    stated = recipe.to_dict()["data"]
    found = {key: _FOUND[key] for key in tables.settings if stated[key.partition(".")[2]] == "auto"}
    recipe = recipe.with_values(tables.settings)
    if is_resolved(recipe):
        check_metric(settled(recipe.train.metric), label_set.task)
        return recipe, found
    names = list(label_set.names)
    probe, _ = build_model(
        recipe.with_values({"model.head": "fresh"}), source, task=label_set.task, label_names=names, pooling="mean"
    )
    stated_precision = recipe.train.precision
    precision = choose_precision(pick_device()) if stated_precision == "auto" else (stated_precision, "stated")
    pooling: tuple[Any, str] = (recipe.model.pooling, "stated")
    if recipe.model.pooling == "auto":
        half = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision[0] == "bf16")
        own = recipe.regularise.dropout_samples > 1  # which only snapfit's own head can draw
        choice = choose_pooling(probe, train, label_set, seed=recipe.data.split_seed, autocast=half, native=not own)
        pooling = (choice.pooling, choice.reason)
    facts = Facts(
        task=label_set.task,
        n_rows=len(tables.splits["train"]),
        n_outputs=label_set.n_outputs,
        lengths=_lengths(train.tokens),
        layer_parameters=layer_parameters(probe),
        max_positions=max_positions(source.config),
        precision=precision,
        pooling=pooling,
        threads=torch.get_num_threads(),
    )
    resolved, reasons = resolve(recipe, facts)
    return resolved, found | reasons


_FOUND = {
    **dict.fromkeys(("data.text", "data.pair", "data.label", "data.task"), "found in the training table"),
    "data.valid_fraction": "a tenth up to 500 rows, then a twentieth up to 2,000; 0 with a validation table",
}
"""Why the data section became what it is, where it was `auto`."""


def _data_order(recipe: Recipe, train: Examples, tables: Tables) -> DataOrder:
    return DataOrder(
        lengths=_lengths(train.tokens),
        step_size=settled(recipe.train.batch) * recipe.train.accumulate,
        seed=recipe.train.seed,
        token_budget=recipe.train.token_budget,
        window=recipe.train.window,
        classes=None if recipe.train.sampling == "all" else _classes(train.targets, tables.label_set),
        sizes=tables.sizes,
        after_pool=release_pages,
    )


def _lengths(tokens: TokenRows) -> Any:
    """Tokens of each row: an array, or for a large table what finds them as they are asked for."""
    return cast(Any, tokens).lengths


def _classes(targets: Targets, label_set: LabelSet) -> ByRow:
    """The class of each row for balanced sampling; of several labels the rarest, and without any a class of its own."""
    if label_set.task == "regression":
        raise BadInput(
            "train.sampling is 'balanced' for a regression", "a task with classes", "--set train.sampling=all"
        )
    if label_set.task == "single":
        return targets
    rarest = _Rarest(targets, label_counts(targets, label_set))
    return rarest[np.arange(len(targets))] if isinstance(targets, np.ndarray) else rarest


@dataclass(frozen=True)
class _Rarest:
    """The rarest label of each row. counts: rows with each label."""

    targets: Targets
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        targets = self.targets[rows]
        ranked = np.where(targets > 0, self.counts, len(self) + 1)
        return np.where(targets.any(axis=1), ranked.argmin(axis=1), len(self.counts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
