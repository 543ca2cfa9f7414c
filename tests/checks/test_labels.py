"""What is odd about labels, each case with a table that has it and a table that has it not."""

from typing import Any

import numpy as np
import pytest

import checking
from checking import of_kind
from snapfit.checks.findings import Finding
from snapfit.checks.labels import label_findings
from snapfit.checks.reading import Source


def found_in(asked: Source | None = None, **tables: Any) -> list[Finding]:
    splits, index = checking.indexed(asked, **tables)
    return list(label_findings(splits, index))


def table(counts: dict[str, int], word: str = "text") -> list[tuple[str, str]]:
    """So many rows of each label, mixed."""
    rows = [(f"{word} {i} of {label}", label) for label, n in counts.items() for i in range(n)]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows)).tolist()]


def test_a_good_table_has_no_finding() -> None:
    assert found_in(train=table({"a": 40, "b": 30}), valid=table({"a": 8, "b": 6}, "valid")) == []


def test_labels_that_only_another_split_has_are_an_error() -> None:
    found = found_in(train=table({"a": 20, "b": 20}), test=[("x", "a"), ("y", "c"), ("z", "c"), ("w", "B")])
    one = of_kind(found, "label_not_in_train", "test")
    assert (one.level, one.count, one.details["labels"]) == ("error", 2, {"c": 2, "B": 1})
    assert checking.numbers(one) == [2, 3, 4]
    assert of_kind(found, "label_missing", "test").details["labels"] == {"b": 20}


def test_one_label_is_nothing_to_learn() -> None:
    (one,) = found_in(train=table({"a": 20}))
    assert (one.kind, one.level) == ("one_label", "error")


def test_small_classes_are_listed_with_those_that_cannot_be_split() -> None:
    rows = table({"a": 30, "b": 7, "c": 1, "d": 8})
    one = of_kind(found_in(train=rows), "small_class")
    assert one.details["labels"] == {"c": 1, "b": 7}
    assert "1 with one row cannot be in a validation split too" in one.text
    assert checking.numbers(one) == [i for i, row in enumerate(rows, 1) if row[1] in "bc"]
    valid = [("x", "a"), ("y", "c")]
    assert "validation split too" not in of_kind(found_in(train=rows, valid=valid), "small_class").text


@pytest.mark.parametrize("other", ["A", " a", "ａ", "a."])
def test_labels_that_are_written_almost_alike(other: str) -> None:
    one = of_kind(found_in(train=table({"a": 20, "b": 20, other: 9})), "similar_labels")
    assert list(one.details["labels"]) == [other]
    assert one.details["rows"] == 9


def test_signs_alone_are_no_spelling_of_each_other() -> None:
    assert "similar_labels" not in checking.kinds(found_in(train=table({"+": 20, "-": 20})))


@pytest.mark.parametrize("name", ["NA", "nan", "None", "?"])
def test_labels_that_look_like_missing_values(name: str) -> None:
    assert of_kind(found_in(train=table({"a": 20, name: 20})), "odd_label").count == 1


@pytest.mark.parametrize(("most", "level"), [(59, None), (61, "note"), (96, "warning")])
def test_one_label_on_most_rows(most: int, level: str | None) -> None:
    found = {one.kind: one for one in found_in(train=table({"a": most, "b": 100 - most}))}
    assert (found["imbalance"].level if "imbalance" in found else None) == level


def test_other_shares_than_in_training() -> None:
    train = table({"a": 100, "b": 100})
    shifted = of_kind(found_in(train=train, valid=table({"a": 95, "b": 5}, "valid")), "label_shift", "valid")
    assert shifted.details["apart"] == pytest.approx(0.45)
    assert found_in(train=train, valid=[("x", "a"), ("y", "a"), ("z", "b")]) == []  # chance in few rows


def test_sorted_rows_are_told_of_and_mixed_ones_not() -> None:
    rows = sorted(table({"a": 40, "b": 40}), key=lambda row: row[1])
    assert of_kind(found_in(train=rows), "sorted_rows").count == round(80 * 78 / 79)
    assert found_in(train=table({"a": 40, "b": 40})) == []


def test_a_split_without_labels_is_told_of() -> None:
    one = of_kind(found_in(train=table({"a": 20, "b": 20}), test=[{"text": "x"}]), "no_labels", "test")
    assert one.level == "warning"


def test_many_labels_a_row() -> None:
    rows = [{"text": f"{i}", "labels": [["a"], ["a", "b"], []][i % 3]} for i in range(60)]
    found = found_in(train=rows, test=[{"text": "x", "labels": ["a", "c"]}])
    assert of_kind(found, "label_not_in_train", "test").details["labels"] == {"c": 1}
    assert "one_label" not in checking.kinds(found)


# ---------------------------------------------------------------- numbers


def scores(values: Any, word: str = "text") -> list[dict[str, Any]]:
    return [{"text": f"{word} {i}", "score": float(value)} for i, value in enumerate(values)]


def test_numbers_far_from_all_others() -> None:
    values = [*np.linspace(0, 5, 60), 48.0]
    one = of_kind(found_in(train=scores(values), test=scores([2.0, -400.0], "test")), "far_number")
    assert checking.numbers(one) == [61]
    assert one.text.endswith("the farthest is 48")
    assert checking.kinds(found_in(train=scores(np.linspace(0, 5, 60)))) == set()


def test_the_same_number_everywhere() -> None:
    (one,) = found_in(Source(task="regression"), train=scores([3.0] * 20))
    assert (one.kind, one.level) == ("constant_target", "error")


def test_numbers_in_other_shares() -> None:
    found = found_in(train=scores(np.linspace(0, 5, 200)), test=scores([4.9] * 200, "test"))
    assert of_kind(found, "label_shift", "test").details["apart"] == pytest.approx(0.9, abs=0.01)
