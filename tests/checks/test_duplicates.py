"""The same text again: counts against sets and dictionaries, on made-up tables and on the real ones."""

import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checking
from checking import of_kind
from snapfit.checks.duplicates import conflicting_groups, duplicate_findings, repeated

TEXT = st.sampled_from(["a", "A", " a", "b", "é", "e\u0301", "c", "d "])
ROW = st.tuples(TEXT, st.sampled_from("xyz"))


def same(text: str) -> str:
    """The definition that the documentation gives."""
    return unicodedata.normalize("NFC", text).strip().casefold()


@settings(deadline=None)
@given(train=st.lists(ROW, min_size=1, max_size=14), valid=st.lists(ROW, min_size=1, max_size=14))
def test_counts_are_those_of_plain_dictionaries(train: list[tuple[str, str]], valid: list[tuple[str, str]]) -> None:
    splits, index = checking.indexed(train=train, valid=valid)
    found = {(one.kind, one.split): one for one in duplicate_findings(splits, index)}
    for name, rows in (("train", train), ("valid", valid)):
        texts = [same(text) for text, _ in rows]
        again = [i for i, text in enumerate(texts) if text in texts[:i]]
        labels: defaultdict[str, set[str]] = defaultdict(set)
        for text, (_, label) in zip(texts, rows, strict=True):
            labels[text].add(label)
        conflicts = {text for text, own in labels.items() if len(own) > 1}
        one = found.get(("duplicate_text", name))
        assert (one.count if one else 0) == len(again)
        if one is not None:
            assert checking.numbers(one) == [i + 1 for i in again]
            raw = [text for text, _ in rows]
            assert one.details["identical"] == sum(text in raw[:i] for i, text in enumerate(raw))
        other = found.get(("conflicting_labels", name))
        assert (other.details["texts"] if other else 0) == len(conflicts)
        if other is not None:
            assert checking.numbers(other) == [i + 1 for i, text in enumerate(texts) if text in conflicts]
    leaked = [i for i, (text, _) in enumerate(valid) if same(text) in {same(t) for t, _ in train}]
    leak = found.get(("leak", "valid"))
    assert (leak.count if leak else 0) == len(leaked)
    if leak is not None:
        assert checking.numbers(leak) == [i + 1 for i in leaked]
        assert leak.details["identical"] == sum(valid[i][0] in {text for text, _ in train} for i in leaked)
        pairs = {(same(text), label) for text, label in train}
        assert leak.details["same_label"] == sum((same(valid[i][0]), valid[i][1]) in pairs for i in leaked)


def test_both_texts_of_a_pair_count() -> None:
    pairs = [("a", "b", "x"), ("a", "c", "x"), ("A", "b", "y"), ("b", "a", "x")]
    splits, index = checking.indexed(train=pairs)
    found = list(duplicate_findings(splits, index))
    assert checking.numbers(of_kind(found, "duplicate_text")) == [3]
    assert of_kind(found, "conflicting_labels").details == {"texts": 1, "identical_texts": 0}


def test_labels_of_several_are_sets() -> None:
    rows = [("a", ["x", "y"]), ("a", ["y", "x"]), ("b", ["x"]), ("b", ["x", "y"]), ("c", [])]
    splits, index = checking.indexed(train=[{"text": text, "labels": labels} for text, labels in rows])
    found = list(duplicate_findings(splits, index))
    assert checking.numbers(of_kind(found, "conflicting_labels")) == [3, 4]


def test_numbers_of_the_same_text_may_differ_a_little() -> None:
    rows = [{"text": f"text {i}", "score": float(i)} for i in range(30)]
    rows += [{"text": "close", "score": 3.0}, {"text": "close", "score": 3.2}]
    rows += [{"text": "far", "score": 3.0}, {"text": "far", "score": 9.0}]
    valid = [{"text": "close", "score": 3.1}, {"text": "far", "score": 29.0}, {"text": "new", "score": 1.0}]
    splits, index = checking.indexed(train=rows, valid=valid)
    found = list(duplicate_findings(splits, index))
    assert checking.numbers(of_kind(found, "conflicting_labels")) == [33, 34]
    leak = of_kind(found, "leak", "valid")
    assert (leak.count, leak.details["same_label"]) == (2, 1)


def test_a_leak_into_a_table_without_labels_is_told_without_them() -> None:
    splits, index = checking.indexed(train=[("a", "x"), ("b", "y")], test=[{"text": "a"}, {"text": "c"}])
    leak = of_kind(duplicate_findings(splits, index), "leak", "test")
    assert (leak.count, leak.level, leak.details["same_label"]) == (1, "error", None)
    assert leak.text == "1 row of test (50 %) has a text that is in train too, character for character"
    assert leak.examples[0].places == ["test row 1", "train row 1"]


def test_levels_go_by_the_share_of_rows() -> None:
    many = [(f"text {i}", "xy"[i % 2]) for i in range(1000)]
    few = [(f"other {i}", "xy"[i % 2]) for i in range(996)]
    splits, index = checking.indexed(train=many, valid=[*few, *many[:4]], test=[*few, *many[:8]])
    found = list(duplicate_findings(splits, index))
    leaks = {(one.split, one.details["in"]): one.level for one in found if one.kind == "leak"}
    assert leaks == {("valid", "train"): "warning", ("test", "train"): "error", ("test", "valid"): "warning"}


def test_only_what_a_cleaned_copy_leaves_out_is_said_to_be() -> None:
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "x")]
    splits, index = checking.indexed(train=rows, valid=rows)
    for one in duplicate_findings(splits, index):
        assert ("--fix" in one.what_to_do) == (one.split == "train" or one.kind == "leak")


def test_nothing_is_found_where_nothing_is() -> None:
    splits, index = checking.indexed(train=[("a", "x"), ("b", "y")], valid=[("c", "x")])
    assert list(duplicate_findings(splits, index)) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=20))
def test_groups_and_repetitions(rows: list[tuple[int, int]]) -> None:
    groups, labels = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    wanted = sorted({g for g, label in rows for h, other in rows if g == h and label != other})
    assert conflicting_groups(groups, labels, 0.0).tolist() == wanted
    assert repeated(groups).tolist() == [g in groups[:i] for i, g in enumerate(groups)]
    assert conflicting_groups(groups, None, 0.0).tolist() == []


# ---------------------------------------------------------------- the real sets, against their own audit


@pytest.mark.parametrize(
    ("name", "train", "valid", "identical", "texts", "repeated_rows"),
    [
        ("chnsenticorp", "train.tsv", "dev.tsv", 338, 24, 1351),
        ("tnews", "train.tsv", "dev.tsv", 1099, 547, 3634),
        ("goemotions", "train.jsonl", "dev.jsonl", 43, 58, 183),
        ("stsb", "train.tsv", "dev.tsv", 6, 4, 43),
        ("mrpc", "train.tsv", "test.tsv", 0, 0, 0),
    ],
)
@pytest.mark.slow
def test_the_known_faults_of_real_sets_are_found(
    real_data: Path, name: str, train: str, valid: str, identical: int, texts: int, repeated_rows: int
) -> None:
    splits, index = checking.indexed(train=str(real_data / name / train), valid=str(real_data / name / valid))
    found = {(one.kind, one.split): one for one in duplicate_findings(splits, index)}
    leak, conflict = found.get(("leak", "valid")), found.get(("conflicting_labels", "train"))
    again = found.get(("duplicate_text", "train"))
    assert (leak.details["identical"] if leak else 0) == identical
    assert (conflict.details["identical_texts"] if conflict else 0) == texts
    assert (again.details["identical"] if again else 0) == repeated_rows
