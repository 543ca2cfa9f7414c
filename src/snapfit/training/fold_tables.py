"""The tables of a cross-validation: which fold holds a row out, and what is trained on in each fold.

A fold's training sees the rows of the other folds and no others. Where weights are to be chosen by a validation split,
it is drawn of these, as it would be of a table of their own; the rows held out choose nothing.
"""

from dataclasses import replace

import numpy as np

from snapfit.core.recipe import Recipe, settled
from snapfit.core.recipe_sections import DataSection
from snapfit.data.large_records import LargeRecords
from snapfit.data.records import Records
from snapfit.data.splits import fold_numbers, fold_numbers_of_large, held_out_of_large, train_valid_split
from snapfit.training.prepare import Drawn, Tables, split_identity

LAST_WEIGHTS = "folds: the rows held out choose nothing, no row is lost to a validation split, the last weights count"
"""Why `data.valid_fraction: auto` is 0 in a cross-validation."""


def with_fold_fraction(recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a cross-validation, in which `data.valid_fraction: auto` is 0; and why, where it was `auto`."""
    if recipe.data.valid_fraction != "auto":
        return recipe, {}
    return recipe.with_values({"data.valid_fraction": 0.0}), {"data.valid_fraction": LAST_WEIGHTS}


def undivided(data: DataSection) -> DataSection:
    """Where columns are and all else, but no validation split: the folds draw theirs themselves."""
    return data.model_copy(update={"valid_fraction": 0.0})


def draw_folds(whole: Tables, recipe: Recipe) -> np.ndarray:
    """The fold that holds out each row of the training table, int8 [n]; 0 for rows that none does.

    whole: tables whose training split is undivided. Raises BadInput as `splits.fold_numbers` does.
    """
    records, task = whole.splits["train"], whole.label_set.task
    folds, seed = recipe.train.folds or 0, recipe.data.split_seed
    if isinstance(records, LargeRecords):
        return fold_numbers_of_large(records, task, folds=folds, seed=seed)
    return fold_numbers(records, task, folds=folds, seed=seed)


def tables_without(whole: Tables, held_out: np.ndarray, recipe: Recipe) -> Tables:
    """Tables to train on all but some rows: the others, less a validation split where the recipe asks for one.

    whole: tables whose training split is undivided. held_out: rows of it, int64, ascending; none is fine.
    The label set stays that of all rows, so that every fold's outputs are the same.
    """
    records, task = whole.splits["train"], whole.label_set.task
    stated = 0.0 if "valid" in whole.splits else settled(recipe.data.valid_fraction)
    seed, sizes = recipe.data.split_seed, whole.sizes
    names = ("train", "valid") if stated else ("train",)
    no_rows, drawn = np.zeros(0, dtype=np.int64), None
    parts: dict[str, Records]
    if isinstance(records, LargeRecords):
        left = records.without(held_out)
        places = held_out_of_large(left, task, fraction=stated, seed=seed) if stated else no_rows
        valid = places + np.searchsorted(held_out - np.arange(len(held_out)), places, side="right")
        parts = {"train": records.without(np.union1d(held_out, valid)), "valid": records.take(valid)}
    else:
        kept = np.setdiff1d(np.arange(len(records)), held_out, assume_unique=True)
        train, valid = kept, no_rows
        if stated:
            places, chosen = train_valid_split(records.take(kept), task, fraction=stated, seed=seed)
            train, valid = kept[places], kept[chosen]
        parts = {"train": records.take(train), "valid": records.take(valid)}
        rows = {"train": train, "valid": valid}
        drawn = Drawn(records, whole.identity["train"]["texts"], {name: rows[name] for name in names})
    splits = {name: parts[name] for name in names}
    given = {name: part for name, part in whole.splits.items() if name != "train"}
    note = whole.split_note
    if stated:
        note = f"validation: {len(valid):,} of the {len(records) - len(held_out):,} rows that are not held out"
    return replace(
        whole,
        splits=splits | given,
        split_note=note,
        valid_fraction=stated,
        identity={name: split_identity(part, sizes) for name, part in splits.items()}
        | {name: whole.identity[name] for name in given},
        drawn=drawn,
    )
