"""What a training will do, settled before its first step: encoder, tokens, resolved recipe, order of rows."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from snapfit.core.labels import LabelSet
from snapfit.core.lengths import HEAD
from snapfit.core.maps import release_pages
from snapfit.core.recipe import Recipe, settled
from snapfit.core.rule_fitting import check_decision
from snapfit.data.tokenizer import TextTokenizer, TokenIds, TokenRows
from snapfit.nn.encoder import EncoderSource, TokenizerFiles
from snapfit.nn.families import max_positions
from snapfit.training.assemble import build_model, layer_parameters, pick_device, torch_as_wanted
from snapfit.training.class_weights import class_weights, natural_beta, told_weights
from snapfit.training.defaults import Facts, check_loss, check_metric, is_resolved, resolve
from snapfit.training.identity import machine
from snapfit.training.lengths import cut_notice, uncut_lengths
from snapfit.training.loop import Examples
from snapfit.training.order import DataOrder
from snapfit.training.pooling_probe import choose_pooling
from snapfit.training.precision import choose_precision
from snapfit.training.prepare import (
    Notify,
    Tables,
    Tokenised,
    encoder_limit,
    make_examples,
    open_encoder,
    tokenise,
    training_counts,
    training_sample,
)
from snapfit.training.sampling import check_sampling, drawn_by

MANY_ROWS = 50_000
"""Rows whose tokenising takes seconds, and is told of."""


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    recipe: resolved. reasons: why each `auto` became what it is. examples: by split. order: of the training rows.
    total_steps: optimizer steps to the end. device: torch's device type. weights: of the classes, as the loss takes
    them (see class_weights.py). taught_by: names the scores that are targets, where others than the labels are (see
    student.py).
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
    weights: np.ndarray | None = None
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
    n_held_out: int | None = None,
) -> Plan:
    """Open the encoder, tokenise, and replace every `auto` of the recipe by what it means here.

    notify: hears of notices and of the recipe. reasons: why settings that are resolved already are as they are.
    told: hears of what takes a while, before it is done. n_held_out: rows that a decision rule will be fitted to; by
    default those of the validation split.
    Raises BadInput for settings that do not fit the data or the encoder.
    """
    check_loss(recipe, tables.label_set)
    check_sampling(recipe, tables.label_set)
    n_held_out = len(tables.splits.get("valid", ())) if n_held_out is None else n_held_out
    check_decision(recipe.decision, tables.label_set.task, tables.label_set.names, n_rows=n_held_out)
    source, files = open_encoder(recipe)
    for notice in source.notices:
        notify("notice", text=notice)
    limit = recipe.length.max_tokens
    longest = encoder_limit(source) if limit == "auto" else limit
    sample = training_sample(tables, seed=recipe.data.split_seed)
    if text := _tokenising(tables):
        told(text)
    policy = recipe.length.chosen
    tokenised = looked_at = tokenise(
        sample or tables, source, files, longest, policy=HEAD if limit == "auto" else policy
    )
    counts = _counts(tables, recipe)
    with torch_as_wanted(recipe):
        train = make_examples(sample or tables, looked_at)["train"]
        recipe, found = _resolve(tables, recipe, source, looked_at, train, counts)
    weights, about = _weights(tables, recipe, counts)
    found = {key: why for key, why in (reasons or {}).items() if key != _WEIGHTS} | found | about
    notify("recipe", recipe=recipe.to_dict(), reasons=found)
    settled_limit = settled(recipe.length.max_tokens)
    if sample is not None or (settled_limit, policy) != (looked_at.tokenizer.max_tokens, looked_at.tokenizer.policy):
        tokenised = tokenise(tables, source, files, settled_limit, policy=policy, seed=recipe.train.seed)
    cut = cut_notice(_train_tokens(looked_at), tokenised.tokenizer, n_rows=len(tables.splits["train"]))
    if cut is not None:
        notify("notice", text=cut)
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
        weights=weights,
    )


def _counts(tables: Tables, recipe: Recipe) -> np.ndarray | None:
    """How many training rows carry each label, where something depends on it."""
    asks = recipe.train.metric == "auto" and tables.label_set.task == "single"
    return training_counts(tables) if asks or recipe.loss.class_weights is not None else None


def _weights(tables: Tables, recipe: Recipe, counts: np.ndarray | None) -> tuple[np.ndarray | None, dict[str, str]]:
    """Weights of the classes, and by setting what they came to."""
    setting, beta, label_set = recipe.loss.class_weights, recipe.loss.effective_beta, tables.label_set
    if counts is None or setting is None:
        return None, {}
    weights = class_weights(setting, label_set, counts, len(tables.splits["train"]), beta=beta)
    about = told_weights(weights, label_set, counts)
    if setting == "effective":
        about += f"; beta {natural_beta(counts) if beta is None else beta:.6g}"
    return weights, {_WEIGHTS: about}


_WEIGHTS = "loss.class_weights"


def _tokenising(tables: Tables) -> str:
    """What is about to be tokenised, where it takes a while."""
    rows = sum(map(len, tables.splits.values()))
    pool = tables.sizes.pool_rows
    if len(tables.splits["train"]) > pool:
        return f"tokenising {rows:,} rows as they are needed: the first step comes with the first {pool:,}"
    return f"tokenising {rows:,} rows, unless the cache has them" if rows > MANY_ROWS else ""


def _train_tokens(tokenised: Tokenised) -> TokenIds:
    """The training rows that are looked at: all, or of a large table a sample, which is held either way."""
    tokens = tokenised.tokens["train"]
    assert isinstance(tokens, TokenIds)
    return tokens


def _resolve(
    tables: Tables,
    recipe: Recipe,
    source: EncoderSource,
    looked_at: Tokenised,
    train: Examples,
    counts: np.ndarray | None,
) -> tuple[Recipe, dict[str, str]]:
    """Measure what the defaults depend on, and replace every `auto`. looked_at, train: of a large table a sample."""
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
        own = recipe.regularise.dropout_samples > 1  # which only snapfit's own head can draw, as it alone has scores
        own |= recipe.length.chosen.pools_windows_by in ("attention", "max_states")
        choice = choose_pooling(probe, train, label_set, seed=recipe.data.split_seed, autocast=half, native=not own)
        pooling = (choice.pooling, choice.reason)
    facts = Facts(
        task=label_set.task,
        n_rows=len(tables.splits["train"]),
        n_outputs=label_set.n_outputs,
        lengths=uncut_lengths(_train_tokens(looked_at), looked_at.tokenizer),
        layer_parameters=layer_parameters(probe),
        max_positions=max_positions(source.config),
        precision=precision,
        pooling=pooling,
        threads=torch.get_num_threads(),
        largest=None if counts is None else (label_set.names[int(counts.argmax())], float(counts.max() / counts.sum())),
    )
    resolved, reasons = resolve(recipe, facts)
    return resolved, found | reasons


_FOUND = {
    **dict.fromkeys(("data.text", "data.pair", "data.label", "data.task"), "found in the training table"),
    "data.valid_fraction": "a tenth up to 500 rows, then a twentieth up to 2,000; 0 with a validation table",
}
"""Why the data section became what it is, where it was `auto`."""


def _data_order(recipe: Recipe, train: Examples, tables: Tables) -> DataOrder:
    classes, weights = drawn_by(recipe, train.targets, tables.label_set)
    return DataOrder(
        lengths=_lengths(train.tokens),
        step_size=settled(recipe.train.batch) * recipe.train.accumulate,
        seed=recipe.train.seed,
        token_budget=recipe.train.token_budget,
        window=recipe.train.window,
        window_tokens=train.tokens.window_tokens,
        classes=classes,
        weights=weights,
        sizes=tables.sizes,
        after_pool=release_pages,
    )


def _lengths(tokens: TokenRows) -> Any:
    """Tokens of each row: an array, or for a large table what finds them as they are asked for."""
    return cast(Any, tokens).lengths


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
