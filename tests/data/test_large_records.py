"""Records of a large table: read piece by piece, they say what Records of the same table say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.data import large_records
from snapfit.data.large_records import LargeRecords, read_for_training
from snapfit.data.records import Records, read_records
from snapfit.data.splits import held_out_of_large

N = 300


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_records, "SLAB_ROWS", 37)


def chunked(columns: dict[str, list[Any]], sizes: tuple[int, ...] = (100, 1, 150, 49)) -> pa.Table:
    """A table in chunks of uneven sizes, as mapped files and data frames have them."""
    whole, start, parts = pa.table(columns), 0, []
    for size in sizes:
        parts.append(whole.slice(start, size))
        start += size
    return pa.concat_tables(parts)


TEXTS = [f"text {i} {'热' * (i % 3)}" for i in range(N)]
TABLES: dict[str, dict[str, list[Any]]] = {
    "single": {"text": TEXTS, "label": [f"l{i % 7}" for i in range(N)]},
    "integers": {"text": TEXTS, "label": [i % 4 for i in range(N)]},
    "whole floats": {"text": TEXTS, "label": [float(i % 4) for i in range(N)]},
    "floats": {"text": TEXTS, "label": [(i % 4) / 2 for i in range(N)]},
    "lists": {"text": TEXTS, "labels": [[f"l{j}" for j in range(i % 4)] for i in range(N)]},
    "json": {"text": TEXTS, "labels": [json.dumps([f"l{j}" for j in range(i % 4)]) for i in range(N)]},
    "numbers": {"text": TEXTS, "score": [i / 7 for i in range(N)]},
    "pairs": {"text_a": TEXTS, "text_b": TEXTS[::-1], "label": ["a", "b"] * (N // 2)},
}


def both(name: str, **options: Any) -> tuple[Records, LargeRecords]:
    table = chunked(TABLES[name])
    large = read_for_training(table, large_rows=64, **options)
    assert isinstance(large, LargeRecords)
    return read_records(table, **options), large


def plain(labels: Any) -> list[Any]:
    return [list(row) if isinstance(row, list) else row for row in labels]


@pytest.mark.parametrize("name", TABLES)
def test_they_say_what_records_say(name: str) -> None:
    small, large = both(name)
    assert large.columns == small.columns
    assert len(large) == len(small) == N
    assert large.content_hash() == small.content_hash()
    assert large.label_hash() == small.label_hash()
    assert large.n_empty_texts == small.n_empty_texts
    rows = np.random.default_rng(0).integers(0, N, 60)
    one, other = small.take(rows), large.take(rows)
    assert one.texts.equals(other.texts)
    assert (one.pairs is None) == (other.pairs is None)
    assert one.pairs is None or one.pairs.equals(other.pairs)
    assert plain(one.labels) == plain(other.labels)


@pytest.mark.parametrize("name", ["single", "lists", "pairs", "numbers"])
def test_parts_of_the_rows(name: str) -> None:
    small, large = both(name)
    out = np.array([0, 5, 6, 99, 100, 101, 250, 299])
    kept = np.setdiff1d(np.arange(N), out)
    rest, few = large.without(out), large.take(out)
    assert rest.content_hash() == small.take(kept).content_hash()
    assert rest.label_hash() == small.take(kept).label_hash()
    assert few.content_hash() == small.take(out).content_hash()
    many = large.take(kept)
    assert isinstance(many, LargeRecords)
    assert many.content_hash() == rest.content_hash()
    assert many.label_hash() == rest.label_hash()
    for start, n in [(0, 4), (3, 10), (90, 20), (len(kept) - 2, 50)]:
        expected = [TEXTS[row] for row in kept[start : start + n].tolist()]
        assert rest.texts.slice(start, n).to_pylist() == expected
        assert many.texts.slice(start, n).to_pylist() == expected
    places = np.array([7, 0, len(kept) - 1, 7])
    assert rest.texts.take(places).to_pylist() == [TEXTS[row] for row in kept[places].tolist()]


def test_a_small_table_is_read_as_ever() -> None:
    found = read_for_training(pa.table(TABLES["single"]), large_rows=N)
    assert type(found) is Records


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("text", 205, None, "'text' is missing in row 206"),
        ("label", 260, None, "'label' is missing in row 261"),
        ("label", 199, " ", "'label' is empty in row 200"),
    ],
)
def test_rows_that_cannot_be_used_are_named(name: str, row: int, value: object, message: str) -> None:
    columns = {key: list(values) for key, values in TABLES["single"].items()}
    columns[name][row] = value
    with pytest.raises(BadInput, match=message):
        read_for_training(chunked(columns), large_rows=64)


def test_texts_that_are_all_empty() -> None:
    with pytest.raises(BadInput, match="every text"):
        read_for_training(chunked({"text": [""] * N, "label": ["a", "b"] * (N // 2)}), large_rows=64)


def test_a_missing_number_among_labels() -> None:
    columns = {"text": TEXTS, "label": [1.0, float("nan")] * (N // 2)}
    with pytest.raises(BadInput, match="is missing in"):
        read_for_training(chunked(columns), large_rows=64, task="single")


@pytest.mark.parametrize("name", TABLES)
def test_the_label_set_is_the_same(name: str) -> None:
    small, large = both(name)
    task = large.columns.task
    one, other = LabelSet.fit(task, small.labels), LabelSet.fit_parts(task, large.labels.slabs())
    assert one.names == other.names
    assert other.target_mean == pytest.approx(one.target_mean, rel=1e-12)
    assert other.target_scale == pytest.approx(one.target_scale, rel=1e-12)


def test_a_label_set_of_nothing() -> None:
    with pytest.raises(BadInput, match="no rows"):
        LabelSet.fit_parts("regression", [])
    assert LabelSet.fit_parts("regression", [[2.0, 2.0], [2.0]]).target_scale == 1.0


# ---------------------------------------------------------------- what is held out


def repeated(n: int = 400) -> pa.Table:
    texts = [f"  Some TEXT {i % 150}" if i % 2 else f"some text {i % 150} " for i in range(n)]
    return chunked({"text": texts, "label": [f"l{i % 3}" for i in range(n - 1)] + ["rare"]}, (n // 2, n // 2))


@pytest.mark.parametrize("seed", range(4))
def test_held_out_rows(seed: int) -> None:
    records = read_for_training(repeated(), large_rows=64)
    assert isinstance(records, LargeRecords)
    rows = held_out_of_large(records, "single", fraction=0.3, seed=seed)
    assert np.array_equal(rows, held_out_of_large(records, "single", fraction=0.3, seed=seed))
    assert (np.diff(rows) > 0).all()
    assert 0.15 < len(rows) / len(records) < 0.45
    texts = [text.strip().lower() for text in records.texts.slice(0, 400).to_pylist()]
    out = {texts[row] for row in rows.tolist()}
    assert not out & {text for row, text in enumerate(texts) if row not in set(rows.tolist())}
    assert "rare" in records.without(rows).labels.slice(0, 400)
    others = held_out_of_large(records, "single", fraction=0.3, seed=seed + 1)
    assert not np.array_equal(rows, others)


def test_held_out_pairs_of_many_labels() -> None:
    table = chunked({"text_a": TEXTS, "text_b": ["same"] * N, "labels": TABLES["lists"]["labels"]})
    records = read_for_training(table, large_rows=64)
    assert isinstance(records, LargeRecords)
    assert 0.1 < len(held_out_of_large(records, "multi", fraction=0.2, seed=0)) / N < 0.3


def test_a_share_that_holds_out_nothing() -> None:
    _, large = both("single")
    with pytest.raises(BadInput, match="holds out none"):
        held_out_of_large(large, "single", fraction=1e-9, seed=0)
    with pytest.raises(BadInput, match="validation fraction"):
        held_out_of_large(large, "single", fraction=1.5, seed=0)


def test_a_column_of_categories(tmp_path: Path) -> None:
    labels = pa.array([f"l{i % 3}" for i in range(N)]).dictionary_encode()
    large = read_for_training(pa.table({"text": TEXTS, "label": labels}), large_rows=64)
    assert large.take(np.array([4, 0])).labels == ["l1", "l0"]
    assert large.labels.slice(3, 2) == ["l0", "l1"]  # type: ignore[union-attr]
