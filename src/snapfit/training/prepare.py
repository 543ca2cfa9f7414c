"""From tables to what the loop eats: records, split, label set, token ids, targets; all checked before work.

A table of more than POOL_ROWS rows is read piece by piece, and its rows are tokenised and encoded as they are needed.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.lengths import HEAD, LengthPolicy
from snapfit.core.places import Place
from snapfit.core.recipe import Recipe, settled
from snapfit.core.recipe_sections import DataSection
from snapfit.data.batches import POOL_ROWS, SIZES, PoolSizes, block_rows_of
from snapfit.data.columns import Columns
from snapfit.data.formats import STREAMED_BYTES, describe, table_bytes
from snapfit.data.large_records import LargeRecords, read_for_training
from snapfit.data.records import Records
from snapfit.data.splits import held_out_of_large, train_valid_split
from snapfit.data.token_cache import cached_token_ids, default_cache_dir
from snapfit.data.token_pools import PooledTokens
from snapfit.data.tokenizer import TextTokenizer, TokenRows
from snapfit.nn.encoder import EncoderSource, TokenizerFiles, find_encoder, read_tokenizer
from snapfit.nn.families import max_positions
from snapfit.training.loop import Examples, Targets

LONGEST_ROW = 512
"""Tokens that `length.max_tokens: auto` looks at, at most."""

SAMPLE_BLOCKS = 64
"""Blocks of a large training table that the defaults look at."""

SplitRecords = dict[str, Records]
"""Records by split: "train", and "valid" and "test" where there are such."""


@dataclass(frozen=True)
class Drawn:
    """The table that splits were drawn from, whose token ids are made once for all of them.

    texts: its content hash. rows: of each of these splits, int64.
    """

    records: Records
    texts: str
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Tables:
    """The splits' records and what was found about them.

    splits: by name. columns: of the training table. label_set: from training labels.
    split_note: how the validation split came about. valid_fraction: share that was held out for it.
    identity: hashes that name data, split and labels. sizes: how large tables are cut.
    drawn: what splits have token ids in common with, where they do.
    """

    splits: SplitRecords
    columns: Columns
    label_set: LabelSet
    split_note: str
    valid_fraction: float
    identity: dict[str, Any]
    sizes: PoolSizes = SIZES
    drawn: Drawn | None = None

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


def read_tables(
    train: object,
    valid: object,
    test: object,
    data: DataSection,
    *,
    sizes: PoolSizes | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Tables:
    """Read and check every table before any work is done.

    train, valid, test: whatever `records.read_records` takes; valid and test may be None.
    sizes: how large tables are cut; tables of more than a pool are read piece by piece.
    told: hears of what takes a while, before it is done.
    Raises BadInput for anything that training would later trip over.
    """
    sizes = sizes or SIZES
    for source in (train, valid, test):
        if source is not None and (size := table_bytes(source, format=data.format)) > STREAMED_BYTES:
            told(f"reading {describe(source)}, {size / 1e6:,.0f} MB; what comes of it is kept in the cache")
    records = _read(train, data, sizes)
    columns = records.columns
    label_set = _label_set(records, columns)
    fraction = 0.0
    if valid is not None:
        splits = {"train": records, "valid": _read_like(valid, data, columns, sizes)}
        note = f"validation: {len(splits['valid']):,} rows of {splits['valid'].source}"
    else:
        fraction = _fraction(len(records), data)
        splits, note = _split(records, label_set, fraction, seed=data.split_seed)
    if test is not None:
        splits["test"] = _read_like(test, data, columns, sizes)
    for name, part in splits.items():
        first = 0
        for labels in label_parts(part):
            label_set.encode(labels, where=_place(name, part, first))
            first += len(labels)
    identity = {name: split_identity(part, sizes) for name, part in splits.items()}
    return Tables(splits, columns, label_set, note, fraction, identity, sizes)


def split_identity(part: Records, sizes: PoolSizes) -> dict[str, Any]:
    """What names a split: its source, its rows, and hashes of them."""
    pools = {"pools": f"{sizes.pool_rows}/{sizes.block_rows}"} if isinstance(part, LargeRecords) else {}
    return {
        "source": part.source,
        "rows": len(part),
        "texts": part.content_hash(),
        "labels": part.label_hash(),
        **pools,
    }


def _read(source: object, data: DataSection, sizes: PoolSizes) -> Records:
    return read_for_training(
        source,
        cache_dir=default_cache_dir(),
        large_rows=sizes.pool_rows,
        text=data.text,
        pair=data.pair,
        label=data.label,
        task=data.task,
        delimiter=data.delimiter,
        encoding=data.encoding,
        format=data.format,
    )


def _read_like(source: object, data: DataSection, columns: Columns, sizes: PoolSizes) -> Records:
    """Another split, with the columns that the training table settled on."""
    return read_for_training(
        source,
        cache_dir=default_cache_dir(),
        large_rows=sizes.pool_rows,
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


def label_parts(records: Records) -> Iterable[Any]:
    """All labels in one part; of a large table piece by piece. Raises BadInput where there are none."""
    labels: Any = _labels(records)
    return labels.slabs() if isinstance(records, LargeRecords) else [labels]


def _label_set(records: Records, columns: Columns) -> LabelSet:
    name = columns.label or "score"
    if isinstance(records, LargeRecords):
        return LabelSet.fit_parts(columns.task, label_parts(records), name=name, where=records.source)
    return LabelSet.fit(columns.task, _labels(records), name=name, where=records.source)


def _fraction(n_rows: int, data: DataSection) -> float:
    """The share to hold out for validation: as stated, or enough rows to choose by (see `held_out_rows`)."""
    stated = data.valid_fraction
    if stated != "auto":
        return settled(stated)
    share = held_out_rows(n_rows) / n_rows
    return round(share, 4) if n_rows <= POOL_ROWS else float(f"{share:.4g}")


def held_out_rows(n_rows: int) -> int:
    """Rows that `data.valid_fraction: auto` holds out: a tenth up to 500, then a twentieth up to 2,000.

    What is held out is not learnt from; 500 rows tell accuracies apart to about one point.
    """
    return max(1, round(min(max(n_rows / 20, min(n_rows / 10, 500)), 2_000)))


def _split(records: Records, label_set: LabelSet, fraction: float, *, seed: int) -> tuple[SplitRecords, str]:
    if fraction == 0:
        return {"train": records}, "no validation: every row is trained on, the last weights are kept"
    if isinstance(records, LargeRecords):
        held_out = held_out_of_large(records, label_set.task, fraction=fraction, seed=seed)
        note = f"validation: {len(held_out):,} of {len(records):,} rows, drawn by their texts, duplicates kept together"
        return {"train": records.without(held_out), "valid": records.take(held_out)}, note
    train_rows, valid_rows = train_valid_split(records, label_set.task, fraction=fraction, seed=seed)
    note = f"validation: {len(valid_rows):,} of {len(records):,} rows, stratified, duplicates kept together"
    return {"train": records.take(train_rows), "valid": records.take(valid_rows)}, note


@dataclass(frozen=True)
class Tokenised:
    """Token ids of every split, at a stated limit.

    tokens: by split. tokenizer: the one that made them. files: what a bundle needs of it. source: of the encoder.
    """

    tokens: Mapping[str, TokenRows]
    tokenizer: TextTokenizer
    files: TokenizerFiles
    source: EncoderSource


def encoder_limit(source: EncoderSource) -> int:
    """The longest row that is ever made for an encoder under `length.max_tokens: auto`."""
    return min(max_positions(source.config) or LONGEST_ROW, LONGEST_ROW)


def tokenise(
    tables: Tables,
    source: EncoderSource,
    files: TokenizerFiles,
    max_tokens: int,
    *,
    policy: LengthPolicy = HEAD,
    seed: int = 0,
) -> Tokenised:
    """Token ids of all splits, from the cache where the same texts met the same tokenizer before.

    max_tokens, policy: how rows are cut. seed: of the training; rows of a large split are tokenised when they are asked
    for, in the order of its first epoch. Raises BadInput when the encoder has fewer positions.
    """
    limit = max_positions(source.config)
    if limit is not None and max_tokens > limit:
        raise BadInput(
            f"length.max_tokens is {max_tokens}",
            f"at most {limit}, the encoder's positions",
            f"--set length.max_tokens={limit}",
        )
    tokenizer = TextTokenizer.from_bytes(
        files.tokenizer_json, max_tokens=max_tokens, pad_id=files.pad_id, policy=policy
    )
    drawn = tables.drawn
    tokens: dict[str, TokenRows] = {}
    for name, part in tables.splits.items():
        if drawn is not None and name in drawn.rows:
            whole = _token_rows(tokenizer, drawn.records, content_hash=drawn.texts, seed=seed, sizes=tables.sizes)
            tokens[name] = whole.take(drawn.rows[name])
        else:
            texts = tables.identity[name]["texts"]
            tokens[name] = _token_rows(tokenizer, part, content_hash=texts, seed=seed, sizes=tables.sizes)
    return Tokenised(tokens, tokenizer, files, source)


def _token_rows(
    tokenizer: TextTokenizer, part: Records, *, content_hash: str, seed: int, sizes: PoolSizes
) -> TokenRows:
    cache_dir = default_cache_dir()
    if not isinstance(part, LargeRecords):
        return cached_token_ids(tokenizer, part.texts, part.pairs, cache_dir=cache_dir, content_hash=content_hash)
    texts: Any = part.texts
    return PooledTokens(
        tokenizer, texts, part.pairs, content_hash=content_hash, cache_dir=cache_dir, seed=seed, sizes=sizes
    )


def training_sample(tables: Tables, *, seed: int) -> Tables | None:
    """Tables with a sample of a large training table in its place: blocks of neighbouring rows, SAMPLE_BLOCKS at most.

    None where the training table is small enough to be looked at as a whole.
    """
    train = tables.splits["train"]
    if not isinstance(train, LargeRecords):
        return None
    n_blocks = -(-len(train) // tables.sizes.block_rows)
    most = min(SAMPLE_BLOCKS, tables.sizes.pool_rows // tables.sizes.block_rows)
    blocks = np.random.default_rng(seed).permutation(n_blocks)[:most]
    sample = train.take(block_rows_of(np.sort(blocks), len(train), tables.sizes))
    identity = {"train": {"texts": sample.content_hash()}}
    return replace(tables, splits={"train": sample}, identity=identity)


def open_encoder(recipe: Recipe) -> tuple[EncoderSource, TokenizerFiles]:
    """The encoder that the recipe names, and its tokenizer's files."""
    source = find_encoder(recipe.model.encoder)
    return source, read_tokenizer(source)


def make_examples(tables: Tables, tokenised: Tokenised) -> dict[str, Examples]:
    """Tokens and targets of every split; a regression's targets standardised by the training split's."""
    return {
        name: Examples(tokenised.tokens[name], _targets(tables.label_set, name, part), tokenised.files.pad_id)
        for name, part in tables.splits.items()
    }


def _place(name: str, part: Records, first: int = 0) -> Place:
    return Place.of(f"{name} table {part.source}", first=first, locate=getattr(part.source, "locate", None))


def _targets(label_set: LabelSet, name: str, part: Records) -> Targets:
    where = _place(name, part)
    if isinstance(part, LargeRecords):
        return TargetsOnDemand(_labels(part), label_set, where)
    return _standardised(label_set.encode(_labels(part), where=where), label_set)


def _standardised(targets: np.ndarray, label_set: LabelSet) -> np.ndarray:
    if label_set.task != "regression":
        return targets
    return ((targets - label_set.target_mean) / label_set.target_scale).astype(np.float32)


class TargetsOnDemand:
    """Targets of a large table, encoded for the rows that are asked for: nothing is held."""

    def __init__(self, labels: Any, label_set: LabelSet, where: str) -> None:
        self._labels, self._label_set, self._where = labels, label_set, where

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return _standardised(self._label_set.encode(self._labels.take(rows), where=self._where), self._label_set)

    def counts(self) -> np.ndarray:
        """As `LabelSet.counts`, over all rows."""
        parts = (self._label_set.encode(part, where=self._where) for part in self._labels.slabs())
        return np.asarray(sum(self._label_set.counts(part) for part in parts))


def label_counts(targets: Targets, label_set: LabelSet) -> np.ndarray:
    """How many rows carry each label, int64 [n_outputs]."""
    return label_set.counts(targets) if isinstance(targets, np.ndarray) else cast(TargetsOnDemand, targets).counts()


def training_counts(tables: Tables) -> np.ndarray:
    """How many training rows carry each label; of a large table all of them are gone through."""
    return label_counts(_targets(tables.label_set, "train", tables.splits["train"]), tables.label_set)


def identity_hash(identity: dict[str, Any]) -> str:
    """One SHA-256 that names the data of a run."""
    return hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()


Notify = Callable[..., None]
"""notify(kind, **fields): takes one event of the journal."""
