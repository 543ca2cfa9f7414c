"""Tables made ready for the loop: splits that agree on columns and labels, targets, limits."""

import json
from pathlib import Path

import numpy as np
import pytest

import toys
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.core.recipe_sections import DataSection
from snapfit.training import prepare
from snapfit.training.prepare import (
    encoder_limit,
    held_out_rows,
    identity_hash,
    make_examples,
    open_encoder,
    read_tables,
    tokenise,
)

DATA = DataSection()


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------- tables


def test_a_part_is_held_out_where_no_table_is_given() -> None:
    tables = read_tables(toys.single_rows(120), None, None, DATA)
    assert {name: len(part) for name, part in tables.splits.items()} == {"train": 108, "valid": 12}
    assert tables.split_note.startswith("validation: 12 of 120 rows")
    assert tables.label_set == LabelSet("single", ("animals", "food", "tools"))
    assert not tables.pair
    texts = [set(part.texts.to_pylist()) for part in tables.splits.values()]
    assert texts[0].isdisjoint(texts[1])


@pytest.mark.parametrize(
    ("n_rows", "held"),
    [(2, 1), (30, 3), (5_000, 500), (10_003, 500), (20_000, 1_000), (40_000, 2_000), (10**6, 2_000)],
)
def test_the_automatic_share_is_enough_to_choose_by_and_no_more(n_rows: int, held: int) -> None:
    assert held_out_rows(n_rows) == held


def test_the_automatic_share_is_held_out() -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(10_000)]
    valid = read_tables(rows, None, None, DATA).splits["valid"]
    assert abs(len(valid) - 500) <= 2


def test_a_share_of_zero_trains_on_everything() -> None:
    tables = read_tables(toys.single_rows(30), None, None, DataSection(valid_fraction=0.0))
    assert set(tables.splits) == {"train"}
    assert "no validation" in tables.split_note


def test_given_tables_are_used_whole(tmp_path: Path) -> None:
    valid = write(tmp_path / "valid.jsonl", toys.single_rows(9, seed=1))
    tables = read_tables(toys.single_rows(30), valid, toys.single_rows(6, seed=2), DATA)
    assert {name: len(part) for name, part in tables.splits.items()} == {"train": 30, "valid": 9, "test": 6}
    assert str(valid) in tables.split_note
    assert set(tables.identity) == {"train", "valid", "test"}


def test_an_unknown_label_names_its_table_and_count(tmp_path: Path) -> None:
    rows = [*toys.single_rows(9), {"text": "what", "label": "foood"}, {"text": "now", "label": "foood"}]
    valid = write(tmp_path / "valid.jsonl", rows)
    with pytest.raises(BadInput, match=r"valid table .*valid\.jsonl.*'foood' \(2 times\)") as caught:
        read_tables(toys.single_rows(30), valid, None, DATA)
    assert "did you mean 'food'?" in caught.value.fix


def test_other_tables_need_the_training_tables_columns() -> None:
    renamed = [{"words": row["text"], "label": row["label"]} for row in toys.single_rows(9)]
    with pytest.raises(BadInput, match="words"):
        read_tables(toys.single_rows(30), renamed, None, DATA)


def test_a_table_without_labels_cannot_train() -> None:
    with pytest.raises(BadInput):
        read_tables([{"text": "one"}, {"text": "two"}], None, None, DATA)


def test_one_label_only() -> None:
    with pytest.raises(BadInput, match="one label only"):
        read_tables([{"text": f"t {i}", "label": "a"} for i in range(20)], None, None, DATA)


def test_identity_follows_the_data() -> None:
    def hashed(rows: list[dict[str, object]]) -> str:
        return identity_hash(read_tables(rows, None, None, DATA).identity)

    rows = toys.single_rows(30)
    assert hashed(rows) == hashed(list(rows))
    assert hashed(rows) != hashed([*rows[:-1], rows[-1] | {"text": "changed"}])
    assert hashed(rows) != hashed([*rows[:-1], rows[-1] | {"label": rows[0]["label"]}])


# ---------------------------------------------------------------- tokens and targets


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe().with_values({"model.encoder": str(toys.encoder_folder(tmp_path / "encoder"))})


def test_examples_of_a_pair_task(recipe: Recipe) -> None:
    source, files = open_encoder(recipe)
    tables = read_tables(toys.pair_rows(40), None, None, DATA)
    assert tables.pair
    tokenised = tokenise(tables, source, files, encoder_limit(source))
    examples = make_examples(tables, tokenised)
    assert {name: len(part.tokens) for name, part in examples.items()} == {"train": 36, "valid": 4}
    train = examples["train"]
    assert train.targets.dtype == np.int64
    row = tables.splits["train"].table.slice(5, 1).to_pylist()[0]
    expected = toys.tokenizer().encode(row["sentence1"], row["sentence2"])
    start, stop = train.tokens.offsets[5:7]
    assert train.tokens.ids[start:stop].tolist() == expected.ids
    assert train.tokens.second_start[5] == expected.type_ids.index(1)
    assert tables.label_set.names[train.targets[5]] == row["label"]


def test_regression_targets_are_standardised_by_the_training_split(recipe: Recipe) -> None:
    source, files = open_encoder(recipe)
    tables = read_tables(toys.regression_rows(80, offset=1e5, scale=600.0), None, None, DATA)
    examples = make_examples(tables, tokenise(tables, source, files, 32))
    train, valid = examples["train"].targets, examples["valid"].targets
    assert train.dtype == np.float32
    assert train.shape == (len(examples["train"].tokens), 1)
    label_set = tables.label_set
    assert abs(valid.mean()) > 1e-3  # measured by another split's mean
    original = tables.splits["valid"].labels
    np.testing.assert_allclose(valid[:, 0] * label_set.target_scale + label_set.target_mean, original, atol=0.02)


def test_more_tokens_than_positions_are_refused(recipe: Recipe) -> None:
    source, files = open_encoder(recipe)
    tables = read_tables(toys.single_rows(30), None, None, DATA)
    assert encoder_limit(source) == 64
    with pytest.raises(BadInput, match=r"length\.max_tokens is 65"):
        tokenise(tables, source, files, 65)


def test_what_takes_a_while_is_told_before_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "STREAMED_BYTES", 100)
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)), "utf-8")
    told: list[str] = []
    read_tables(table, [{"text": "one more", "label": "a"}], None, DATA, told=told.append)
    assert told == [f"reading {table}, 0 MB; what comes of it is kept in the cache"]
