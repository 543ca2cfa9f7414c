"""Slices: every row is in one slice of each column, numbers are cut where they should be, and differences are found."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from snapfit.core.decisions import DecisionRule
from snapfit.core.intervals import wilson
from snapfit.core.outcomes import Outcomes
from snapfit.core.significance import compare_shares
from snapfit.runtime import slices as slices_module
from snapfit.runtime.slices import MOST_VALUES, ColumnSlices, NumberSlices, Slices, WordSlices, terms_of


def outcomes_of(right: np.ndarray) -> Outcomes:
    """Rows of the class 0, answered rightly or not."""
    scores = np.where(np.arange(2) == np.where(right, 0, 1)[:, None], 0.7, 0.3)
    return Outcomes(0, np.zeros(len(right), dtype=np.int64), DecisionRule("single").decide(scores))


def sliced(right: np.ndarray, columns: dict[str, Any], *, cut: int = 50, **options: Any) -> list[dict[str, Any]]:
    """The slices of a table, in pieces."""
    table = pa.table(columns)
    lengths = options.pop("lengths", np.full(len(right), 5))
    made = Slices("single", list(columns), limit=options.pop("limit", 100), **options)
    for start in range(0, len(right), cut):
        part = right[start : start + cut]
        made.add(outcomes_of(part), lengths[start : start + cut], table.slice(start, cut))
    return made.to_list(0.95)


def of_column(found: list[dict[str, Any]], column: str | None) -> dict[str, dict[str, Any]]:
    return {one["slice"]: one for one in found if one["column"] == column}


def test_each_value_of_a_column_is_a_slice() -> None:
    rng = np.random.default_rng(0)
    group = rng.choice(["x", "y", "z"], 600, p=[0.6, 0.3, 0.1])
    right = rng.random(600) < np.where(group == "z", 0.5, 0.9)
    found = of_column(sliced(right, {"group": group.tolist()}), "group")
    assert list(found) == ["x", "y", "z"]
    for name, one in found.items():
        mine = group == name
        hits, rows = int(right[mine].sum()), int(mine.sum())
        assert (one["rows"], one["value"], one["metric"]) == (rows, hits / rows, "accuracy")
        assert one["interval"] == pytest.approx(wilson(hits, rows, 0.95))
        assert one["rest"] == right[~mine].mean()
        assert one["p"] == pytest.approx(compare_shares(hits, rows, int(right[~mine].sum()), 600 - rows))
    assert found["z"]["differs"]
    assert found["z"]["p_adjusted"] > found["z"]["p"]


def test_two_slices_are_one_comparison() -> None:
    right = np.random.default_rng(1).random(400) < np.repeat([0.7, 0.95], 200)
    found = sliced(right, {"group": ["x"] * 200 + ["y"] * 200})
    one, other = of_column(found, "group").values()
    assert one["p"] == other["p"] == one["p_adjusted"] == other["p_adjusted"]
    assert of_column(found, None)["5 tokens"]["p"] is None  # all are of one length
    assert of_column(found, None)["5 tokens"]["rest"] is None


def test_chance_alone_seldom_makes_a_difference() -> None:
    rng = np.random.default_rng(2)
    tables = [sliced(rng.random(300) < 0.9, {"g": rng.integers(0, 8, 300).astype(str)}) for _ in range(60)]
    assert np.mean([any(one["differs"] for one in found) for found in tables]) < 0.12


def test_how_the_table_is_cut_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    columns = {"word": rng.choice(list("abc"), 300).tolist(), "number": rng.integers(0, 90, 300).tolist()}
    right, lengths = rng.random(300) < 0.8, rng.integers(3, 60, 300)
    whole = sliced(right, columns, cut=300, lengths=lengths)
    assert sliced(right, columns, cut=7, lengths=lengths) == whole


@pytest.mark.parametrize("written", ["numbers", "text"])
def test_numbers_are_cut_into_quarters(written: str) -> None:
    values = np.random.default_rng(4).permutation(1_000)
    cells = values.tolist() if written == "numbers" else values.astype(str).tolist()
    found = of_column(sliced(values < 500, {"n": cells}), "n")
    assert list(found) == ["0–249", "250–499", "500–749", "750–999"]
    assert [one["rows"] for one in found.values()] == [250] * 4
    assert [one["value"] for one in found.values()] == [1.0, 1.0, 0.0, 0.0]
    assert [(one["low"], one["high"]) for one in found.values()][1] == (250.0, 499.0)


def test_few_numbers_are_slices_each() -> None:
    found = of_column(sliced(np.ones(60, dtype=bool), {"stars": [1, 2, 5] * 20}), "stars")
    assert list(found) == ["1", "2", "5"]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["007", "12", "007", "8"], ["007", "12", "8"]),  # zeros in front: a code, and not a number
        (["1", "2", "", "2"], ["1", "2", "(empty)"]),
        ([1.5, None, float("nan"), 2.5], ["1.5", "2.5", "(missing)"]),
        ([True, False, True, True], ["true", "false"]),
        ([["a"], ["a", "b"], ["a"], None], ['["a"]', '["a", "b"]', "(missing)"]),
        (["1", "2", "x", "2"], ["2", "1", "x"]),
        ([None, None, None, None], ["(missing)"]),
    ],
)
def test_cells_of_all_kinds(cells: list[Any], names: list[str]) -> None:
    for cut in (1, 4):
        assert list(of_column(sliced(np.ones(4, dtype=bool), {"c": pa.array(cells)}, cut=cut), "c")) == names


def test_lengths_beyond_what_is_read_are_a_slice_of_their_own() -> None:
    lengths = np.concatenate([np.arange(1, 101), [101, 130, 500]])
    found = of_column(sliced(np.ones(103, dtype=bool), {}, lengths=lengths, limit=100), None)
    assert list(found) == ["1–25 tokens", "26–50 tokens", "51–75 tokens", "76–100 tokens", "101–500 tokens"]
    assert found["101–500 tokens"]["rows"] == 3


def test_lengths_are_cut_at_given_edges() -> None:
    lengths = np.array([1, 8, 9, 16, 17, 90])
    found = of_column(sliced(np.ones(6, dtype=bool), {}, lengths=lengths, length_edges=(8, 16)), None)
    assert {name: one["rows"] for name, one in found.items()} == {
        "1–8 tokens": 2,
        "9–16 tokens": 2,
        "17–90 tokens": 2,
    }


def test_many_words_are_bounded() -> None:
    terms = terms_of(outcomes_of(np.ones(5_000, dtype=bool)))
    made = WordSlices()
    made.add([f"id {i}" for i in range(5_000)], terms)
    found = made.slices()
    assert len(found) == MOST_VALUES + 1
    assert found[-1].name == "other values"
    assert sum(one.sums[0] for one in found) == 5_000


def test_many_numbers_are_bounded_and_their_quarters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices_module, "HELD_NUMBERS", 128)
    values = np.random.default_rng(5).normal(size=20_000)
    terms = terms_of(outcomes_of(values > 0))
    made = NumberSlices()
    for part in np.split(np.arange(20_000), 40):
        made.add(values[part], terms[part])
        assert made.n_different <= 256
    found = made.slices()
    assert sum(one.sums[0] for one in found) == 20_000
    assert [one.sums[0] for one in found] == pytest.approx([5_000] * 4, abs=150)
    highs = [one.high for one in found]
    assert highs[:3] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]), abs=0.05)
    assert all(a.high < b.low for a, b in zip(found, found[1:], strict=False))  # type: ignore[operator]


def test_ranges_never_reach_over_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices_module, "HELD_NUMBERS", 16)
    values = np.random.default_rng(6).integers(0, 10_000, 3_000).astype(float)
    terms = terms_of(outcomes_of(np.ones(3_000, dtype=bool)))
    made = NumberSlices(edges=(100.0, 5_000.0))
    for part in np.split(np.arange(3_000), 30):
        made.add(values[part], terms[part])
    expected = [(values <= 100).sum(), ((values > 100) & (values <= 5_000)).sum(), (values > 5_000).sum()]
    assert [one.sums[0] for one in made.slices()] == expected


def test_a_column_of_words_that_begin_as_numbers() -> None:
    terms = terms_of(outcomes_of(np.ones(40, dtype=bool)))
    made = ColumnSlices()
    cells = [str(i % 20) for i in range(39)] + ["none"]
    random.Random(0).shuffle(cells)
    for i, cell in enumerate(cells):
        made.add(pa.chunked_array([[cell]]), terms[i : i + 1])
    assert len(made.slices()) == 21
