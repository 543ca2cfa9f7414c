"""The tables of folds: what is trained on, what chooses weights, and token ids that are made once for all of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.recipe import Recipe
from snapfit.data.batches import PoolSizes
from snapfit.data.large_records import LargeRecords
from snapfit.data.splits import train_valid_split
from snapfit.data.token_cache import default_cache_dir
from snapfit.training.fold_tables import draw_folds, tables_without, undivided, with_fold_fraction
from snapfit.training.plan import make_plan
from snapfit.training.prepare import Tables, read_tables
from stage import SETTINGS

SIZES = PoolSizes(pool_rows=32, block_rows=8)
ROWS = toys.single_rows(90)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "cache"))


def recipe_of(**settings: Any) -> Recipe:
    values = {"train__folds": 3, **settings}
    return with_fold_fraction(Recipe().with_values({k.replace("__", "."): v for k, v in values.items()}))[0]


def whole_of(recipe: Recipe, *, sizes: PoolSizes | None = None, valid: Any = None, test: Any = None) -> Tables:
    return read_tables(ROWS, valid, test, undivided(recipe.data), sizes=sizes)


def texts(tables: Tables, split: str) -> list[str]:
    records: Any = tables.splits[split]
    return (
        [text for slab in records.texts.slabs() for text in slab.to_pylist()]
        if isinstance(records, LargeRecords)
        else records.texts.to_pylist()
    )


@pytest.mark.parametrize("sizes", [None, SIZES], ids=["small", "large"])
@pytest.mark.parametrize("fraction", ["auto", 0.2])
def test_a_fold_sees_the_other_folds_rows_and_no_others(sizes: PoolSizes | None, fraction: Any) -> None:
    recipe = recipe_of(data__valid_fraction=fraction)
    whole = whole_of(recipe, sizes=sizes, test=toys.single_rows(12, seed=4))
    number = draw_folds(whole, recipe)
    for fold in (0, 1, 2, 3):  # 0: nothing is held out, which is the training on all rows
        held_out = np.flatnonzero(number == fold) if fold else np.zeros(0, dtype=np.int64)
        tables = tables_without(whole, held_out, recipe)
        left = [row["text"] for row, own in zip(ROWS, number, strict=True) if not fold or own != fold]
        seen = texts(tables, "train") + (texts(tables, "valid") if "valid" in tables.splits else [])
        assert sorted(seen) == sorted(left)
        assert texts(tables, "train") == [text for text in left if text in set(texts(tables, "train"))]
        assert ("valid" in tables.splits) == (fraction != "auto")
        assert tables.splits["test"] is whole.splits["test"]
        assert tables.identity["train"]["texts"] == tables.splits["train"].content_hash()
        assert tables.label_set is whole.label_set
        assert tables.settings["data.valid_fraction"] == (0.0 if fraction == "auto" else 0.2)


def test_a_folds_validation_split_is_that_of_a_table_of_its_rows() -> None:
    recipe = recipe_of(data__valid_fraction=0.25)
    whole = whole_of(recipe)
    held_out = np.flatnonzero(draw_folds(whole, recipe) == 2)
    alone = whole.splits["train"].take(np.setdiff1d(np.arange(90), held_out))
    train, valid = train_valid_split(alone, "single", fraction=0.25, seed=0)
    tables = tables_without(whole, held_out, recipe)
    assert texts(tables, "train") == alone.take(train).texts.to_pylist()
    assert texts(tables, "valid") == alone.take(valid).texts.to_pylist()


def test_a_validation_table_that_is_given_serves_every_fold() -> None:
    recipe = recipe_of(data__valid_fraction=0.25)
    whole = whole_of(recipe, valid=toys.single_rows(15, seed=2))
    tables = tables_without(whole, np.arange(30), recipe)
    assert tables.splits["valid"] is whole.splits["valid"]
    assert len(tables.splits["train"]) == 60
    assert "valid" not in (tables.drawn.rows if tables.drawn else {})


def test_folds_share_what_is_tokenised(tmp_path: Path) -> None:
    encoder = toys.encoder_folder(tmp_path / "encoder")
    values = {"model__encoder": str(encoder), "data__valid_fraction": 0.2} | SETTINGS | {"length__max_tokens": 16}
    recipe = recipe_of(**values)
    whole = whole_of(recipe)
    number = draw_folds(whole, recipe)
    for fold in (1, 2, 3):
        tables = tables_without(whole, np.flatnonzero(number == fold), recipe)
        plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
        for split in ("train", "valid"):
            wanted = plan.tokenizer.encode(tables.splits[split].texts)
            found = plan.examples[split].tokens
            assert np.array_equal(found.take(np.arange(len(found))).ids, wanted.ids)
    cache = default_cache_dir()
    assert cache is not None
    assert len(list((cache / "tokens").iterdir())) == 1


def test_the_reason_of_the_fraction_is_told_where_it_was_auto() -> None:
    found, why = with_fold_fraction(Recipe())
    assert found.data.valid_fraction == 0.0
    assert "choose nothing" in why["data.valid_fraction"]
    stated = Recipe().with_values({"data.valid_fraction": 0.3})
    assert with_fold_fraction(stated) == (stated, {})
