"""Training on a table of many pools: the same bits whenever its rows are tokenised, and from whatever step on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.data.batches import PoolSizes
from snapfit.data.large_records import LargeRecords
from snapfit.data.token_pools import PooledTokens
from snapfit.data.tokenizer import TokenIds
from snapfit.training import prepare
from snapfit.training.fit import fit
from snapfit.training.identity import differences
from snapfit.training.loop import Examples
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import TargetsOnDemand, label_counts, read_tables, training_counts
from stage import SETTINGS, Stage, newest, stop_at_step

SIZES = PoolSizes(pool_rows=32, block_rows=8)
ROWS = 150


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plan_of(encoder: Path, rows: list[dict[str, Any]] | None = None, **settings: Any) -> Plan:
    values = {"model__encoder": str(encoder), "data__valid_fraction": 0.1} | SETTINGS | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    tables = read_tables(rows or toys.single_rows(ROWS), None, None, recipe.data, sizes=SIZES)
    return make_plan(tables, recipe, notify=lambda kind, **fields: None)


class AtOnce:
    """All rows tokenised beforehand, and held."""

    def __init__(self, tokens: TokenIds) -> None:
        self.take, self.lengths_of, self.close = tokens.take, tokens.lengths_of, tokens.close
        self.window_tokens = tokens.window_tokens
        self.n = len(tokens)

    def __len__(self) -> int:
        return self.n


def trained(plan: Plan, **options: Any) -> dict[str, Any]:
    return Stage(plan, **options).run().state()


def test_a_large_table_is_read_piece_by_piece(encoder: Path) -> None:
    plan = plan_of(encoder, length__max_tokens="auto")
    train, valid = plan.examples["train"], plan.examples["valid"]
    assert isinstance(plan.tables.splits["train"], LargeRecords)
    assert isinstance(train.tokens, PooledTokens)
    assert isinstance(valid.tokens, TokenIds)
    assert len(train.tokens) + len(valid.tokens) == ROWS
    assert len(train.tokens) == len(train.targets)
    assert plan.total_steps == 2 * plan.order.n_steps(0)
    assert train.tokens.n_made == 0
    assert "a sample of 32 training rows" in plan.reasons["length.max_tokens"]
    assert "drawn by their texts" in plan.tables.split_note


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train__token_budget": 64},
        {"train__sampling": "balanced"},
        {"train__sampling": "weighted"},
        {"loss__class_weights": "effective", "loss__function": "focal"},
        {"length__policy": "windows", "length__max_tokens": 6, "train__token_budget": 64},
    ],
    ids=["plain", "token-budget", "balanced", "weighted", "focal", "windows"],
)
def test_when_rows_are_tokenised_decides_nothing(encoder: Path, cache: Path, settings: dict[str, Any]) -> None:
    lazily = trained(plan_of(encoder, **settings))
    cached = trained(plan_of(encoder, **settings))
    plan = plan_of(encoder, **settings)
    tokens = plan.examples["train"].tokens
    whole = AtOnce(tokens.take(np.arange(len(tokens))))
    plan.examples["train"] = Examples(whole, plan.examples["train"].targets, plan.examples["train"].pad_id)
    assert lazily == cached == trained(plan)
    if not settings:
        damaged = list(cache.rglob("*.pools/*/*/MANIFEST.json"))
        damaged[1].unlink()
        assert trained(plan_of(encoder)) == lazily


def test_without_a_cache(encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = trained(plan_of(encoder))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "file"))
    assert trained(plan_of(encoder)) == expected


@pytest.mark.parametrize(("step", "sampling"), [(3, "all"), (20, "all"), (11, "weighted")])
def test_it_goes_on_from_any_step(encoder: Path, tmp_path: Path, step: int, sampling: str) -> None:
    def plan() -> Plan:
        return plan_of(encoder, train__sampling=sampling)

    expected = trained(plan())
    Stage(plan(), tmp_path / "checkpoints", on=stop_at_step(step)).run()
    resumed = Stage(plan(), tmp_path / "checkpoints", resume=newest(tmp_path / "checkpoints"))
    assert resumed.training.progress.step == step
    assert resumed.run().state() == expected


def test_a_fit_ends_what_goes_on_in_the_background(encoder: Path) -> None:
    plan = plan_of(encoder, train__epochs=0.1)
    fitted = fit(plan, notify=lambda kind, **fields: None)
    assert fitted.complete
    assert plan.examples["train"].tokens._thread.is_alive() is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [toys.multi_rows(ROWS), toys.regression_rows(ROWS), toys.pair_rows(ROWS)])
def test_every_task(encoder: Path, rows: list[dict[str, Any]]) -> None:
    fitted = fit(plan_of(encoder, rows, data__task="auto"), notify=lambda kind, **fields: None)
    assert fitted.complete
    assert fitted.metrics["valid"]


def test_a_large_validation_table(encoder: Path) -> None:
    values = {"model__encoder": str(encoder)} | SETTINGS
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    tables = read_tables(toys.single_rows(ROWS), toys.single_rows(90, seed=1), None, recipe.data, sizes=SIZES)
    fitted = fit(make_plan(tables, recipe, notify=lambda kind, **fields: None), notify=lambda kind, **fields: None)
    small = read_tables(toys.single_rows(ROWS), toys.single_rows(90, seed=1), None, recipe.data)
    assert {name: values.pop("pools") for name, values in tables.identity.items()} == dict.fromkeys(
        ("train", "valid"), "32/8"
    )
    assert tables.identity == small.identity
    assert 0.2 < fitted.metrics["valid"]["accuracy"] <= 1.0


def test_other_pools_are_another_training(encoder: Path) -> None:
    plan = plan_of(encoder)
    then, now = plan.identity(), plan.identity()
    now["data"]["train"]["pools"] = "64/8"
    (found,) = differences(then, now)
    assert str(found) == "the pools of the train table was '32/8', is '64/8'"
    assert found.weight == "forbidden"


def test_a_label_that_only_the_validation_table_has(encoder: Path) -> None:
    values = Recipe().data
    valid = [*toys.single_rows(90, seed=1), {"text": "a new one", "label": "unheard of"}]
    with pytest.raises(BadInput, match="unheard of"):
        read_tables(toys.single_rows(ROWS), valid, None, values, sizes=SIZES)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_labels_are_counted_in_all_rows(task: str) -> None:
    rows = toys.single_rows(ROWS) if task == "single" else toys.multi_rows(ROWS)
    small, large = (read_tables(rows, None, None, Recipe().data, sizes=sizes) for sizes in (None, SIZES))
    records = large.splits["train"]
    targets = TargetsOnDemand(records.labels, large.label_set, "here")
    whole = large.label_set.encode(records.take(np.arange(20)).labels)
    assert np.array_equal(targets[np.arange(20)], whole)
    every = large.label_set.encode([row for slab in records.labels.slabs() for row in slab])  # type: ignore[union-attr]
    assert np.array_equal(label_counts(targets, large.label_set), large.label_set.counts(every))
    assert np.array_equal(training_counts(large), large.label_set.counts(every))
    assert small.label_set == large.label_set
    assert isinstance(large.label_set, LabelSet)


def test_the_command_path(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SIZES", SIZES)
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in toys.single_rows(ROWS)))
    results = [
        toys.train(path, out=tmp_path / f"run{i}", encoder=str(encoder), epochs=1, batch=8, max_tokens=16)
        for i in range(2)
    ]
    weights = [(result.bundle / "model.safetensors").read_bytes() for result in results]
    assert weights[0] == weights[1]
