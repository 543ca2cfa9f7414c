"""From tables to what the loop eats: records, split, label set, token ids, targets; all checked before work."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe, settled
from snapfit.core.recipe_sections import DataSection
from snapfit.data.columns import Columns
from snapfit.data.records import Records, read_records
from snapfit.data.splits import train_valid_split
from snapfit.data.token_cache import cached_token_ids, default_cache_dir
from snapfit.data.tokenizer import TextTokenizer, TokenIds
from snapfit.nn.encoder import EncoderSource, TokenizerFiles, find_encoder, read_tokenizer
from snapfit.nn.families import max_positions
from snapfit.training.loop import Examples

LONGEST_ROW = 512
"""Tokens that `length.max_tokens: auto` looks at, at most."""

SplitRecords = dict[str, Records]
"""Records by split: "train", and "valid" and "test" where there are such."""


@dataclass(frozen=True)
class Tables:
    """The splits' records and what was found about them.

    splits: by name. columns: of the training table. label_set: from training labels.
    split_note: how the validation split came about. valid_fraction: share that was held out for it.
    identity: hashes that name data, split and labels.
    """

    splits: SplitRecords
    columns: Columns
    label_set: LabelSet
    split_note: str
    valid_fraction: float
    identity: dict[str, Any]

    @property
    def pair(self) -> bool:
        """Whether an example is two texts."""
        return self.splits["train"].pairs is not None

    @property
    def settings(self) -> dict[str, Any]:
        """What `auto` in the recipe's data section came to, by full key."""
        return {
            "data.text": self.columns.text,
            "data.pair": self.columns.pair,
            "data.label": self.columns.label,
            "data.task": self.columns.task,
            "data.valid_fraction": self.valid_fraction,
        }


def read_tables(train: object, valid: object, test: object, data: DataSection) -> Tables:
    """Read and check every table before any work is done.

    train, valid, test: whatever `records.read_records` takes; valid and test may be None.
    Raises BadInput for anything that training would later trip over.
    """
    records = _read(train, data)
    columns = records.columns
    label_set = LabelSet.fit(columns.task, _labels(records), name=columns.label or "score")
    fraction = 0.0
    if valid is not None:
        splits = {"train": records, "valid": _read_like(valid, data, columns)}
        note = f"validation: {len(splits['valid']):,} rows of {splits['valid'].source}"
    else:
        fraction = _fraction(len(records), data)
        splits, note = _split(records, label_set, fraction, seed=data.split_seed)
    if test is not None:
        splits["test"] = _read_like(test, data, columns)
    for name, part in splits.items():
        label_set.encode(_labels(part), where=f"{name} table {part.source}")
    identity = {
        name: {
            "source": part.source,
            "rows": len(part),
            "texts": part.content_hash(),
            "labels": part.label_hash(),
        }
        for name, part in splits.items()
    }
    return Tables(splits, columns, label_set, note, fraction, identity)


def _read(source: object, data: DataSection) -> Records:
    return read_records(
        source,
        text=data.text,
        pair=data.pair,
        label=data.label,
        task=data.task,
        delimiter=data.delimiter,
        encoding=data.encoding,
        format=data.format,
    )


def _read_like(source: object, data: DataSection, columns: Columns) -> Records:
    """Another split, with the columns that the training table settled on."""
    return read_records(
        source,
        text=columns.text,
        pair=columns.pair,
        label=columns.label or "auto",
        task=columns.task,
        delimiter=data.delimiter,
        encoding=data.encoding,
        format=data.format,
    )


def _labels(records: Records) -> Any:
    if records.labels is None:
        raise BadInput(f"{records.source} has no labels", "a label for every row", "name the column with --label")
    return records.labels


def _fraction(n_rows: int, data: DataSection) -> float:
    """The share to hold out for validation: as stated, or enough rows to choose by (see `held_out_rows`)."""
    stated = data.valid_fraction
    return round(held_out_rows(n_rows) / n_rows, 4) if stated == "auto" else settled(stated)


def held_out_rows(n_rows: int) -> int:
    """Rows that `data.valid_fraction: auto` holds out: a tenth up to 500, then a twentieth up to 2,000.

    What is held out is not learnt from; 500 rows tell accuracies apart to about one point.
    """
    return max(1, round(min(max(n_rows / 20, min(n_rows / 10, 500)), 2_000)))


def _split(records: Records, label_set: LabelSet, fraction: float, *, seed: int) -> tuple[SplitRecords, str]:
    if fraction == 0:
        return {"train": records}, "no validation: every row is trained on, the last weights are kept"
    train_rows, valid_rows = train_valid_split(records, label_set.task, fraction=fraction, seed=seed)
    note = f"validation: {len(valid_rows):,} of {len(records):,} rows, stratified, duplicates kept together"
    return {"train": records.take(train_rows), "valid": records.take(valid_rows)}, note


@dataclass(frozen=True)
class Tokenised:
    """Token ids of every split, at a stated limit.

    tokens: by split. tokenizer: the one that made them. files: what a bundle needs of it. source: of the encoder.
    """

    tokens: dict[str, TokenIds]
    tokenizer: TextTokenizer
    files: TokenizerFiles
    source: EncoderSource


def encoder_limit(source: EncoderSource) -> int:
    """The longest row that is ever made for an encoder under `length.max_tokens: auto`."""
    return min(max_positions(source.config) or LONGEST_ROW, LONGEST_ROW)


def tokenise(tables: Tables, source: EncoderSource, files: TokenizerFiles, max_tokens: int) -> Tokenised:
    """Token ids of all splits, from the cache where the same texts met the same tokenizer before.

    max_tokens: rows are cut to it. Raises BadInput when the encoder has fewer positions.
    """
    limit = max_positions(source.config)
    if limit is not None and max_tokens > limit:
        raise BadInput(
            f"length.max_tokens is {max_tokens}",
            f"at most {limit}, the encoder's positions",
            f"--set length.max_tokens={limit}",
        )
    tokenizer = TextTokenizer.from_bytes(files.tokenizer_json, max_tokens=max_tokens, pad_id=files.pad_id)
    tokens = {
        name: cached_token_ids(
            tokenizer, part.texts, part.pairs, cache_dir=default_cache_dir(), content_hash=part.content_hash()
        )
        for name, part in tables.splits.items()
    }
    return Tokenised(tokens, tokenizer, files, source)


def open_encoder(recipe: Recipe) -> tuple[EncoderSource, TokenizerFiles]:
    """The encoder that the recipe names, and its tokenizer's files."""
    source = find_encoder(recipe.model.encoder)
    return source, read_tokenizer(source)


def make_examples(tables: Tables, tokenised: Tokenised) -> dict[str, Examples]:
    """Tokens and targets of every split; a regression's targets standardised by the training split's."""
    label_set = tables.label_set
    examples = {}
    for name, part in tables.splits.items():
        targets = label_set.encode(_labels(part), where=f"{name} table {part.source}")
        if label_set.task == "regression":
            targets = ((targets - label_set.target_mean) / label_set.target_scale).astype(np.float32)
        examples[name] = Examples(tokenised.tokens[name], targets, tokenised.files.pad_id)
    return examples


def class_weights(setting: Any, label_set: LabelSet, targets: np.ndarray) -> np.ndarray | None:
    """Weights of the classes for the loss, float32 [n_outputs], with mean 1 over the training rows; or None.

    setting: None, "balanced" (inverse to the class's rows; multi-label: negatives per positive), or name -> weight.
    """
    if setting is None:
        return None
    if label_set.task == "regression":
        raise BadInput("loss.class_weights for a regression", "a task with classes", "--set loss.class_weights=null")
    counts = np.maximum(label_set.counts(targets), 1).astype(np.float64)
    if setting == "balanced":
        if label_set.task == "multi":
            return np.asarray((len(targets) - counts).clip(min=1) / counts, np.float32)
        return np.asarray(len(targets) / (label_set.n_outputs * counts), np.float32)
    unknown = sorted(set(setting) - set(label_set.names))
    if unknown:
        raise BadInput(
            f"loss.class_weights names the label {unknown[0]!r}",
            f"labels of the training table, such as {label_set.names[0]!r}",
            "correct the name",
        )
    weights = np.array([float(setting.get(name, 1.0)) for name in label_set.names])
    if label_set.task == "single":
        weights = weights / ((weights * counts).sum() / counts.sum())
    return np.asarray(weights, np.float32)


def identity_hash(identity: dict[str, Any]) -> str:
    """One SHA-256 that names the data of a run."""
    return hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()


Notify = Callable[..., None]
"""notify(kind, **fields): takes one event of the journal."""
