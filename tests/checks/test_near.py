"""Near-duplicates: what is found is near by an independent measure, and planted ones are found."""

import difflib
import random
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import checking
from checking import of_kind
from snapfit.checks import near
from snapfit.checks.near import near_texts
from snapfit.checks.near_rows import find_near_rows, near_findings
from snapfit.core.errors import BadInput, MissingExtra

pytest.importorskip("rensa")
pytest.importorskip("rapidfuzz")

WORDS = "river stone lantern quiet harbour velvet thunder copper window garden winter marble salt ember tower".split()


def indel_similarity(a: str, b: str) -> float:
    """1 - indel distance / characters of both, by the textbook's table of longest common subsequences."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b, 1):
            row[j] = before[j - 1] + 1 if x == y else max(before[j], row[j - 1])
    return 2 * row[-1] / (len(a) + len(b))


def sentences(n: int, *, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(6, 11))) for _ in range(n)]


def edited(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return rng.choice([text[:place] + text[place + 1 :], text[:place] + "x" + text[place:], text.upper() + "!"])


def search(texts: list[str], pairs: list[str] | None = None, groups: list[int] | None = None, **options: Any) -> Any:
    columns = [
        None if column is None else pa.chunked_array([pa.array(column, pa.large_string())]) for column in (texts, pairs)
    ]
    of_each = np.array(groups or [0] * len(texts))
    return near_texts(*columns, of_each, n_groups=int(of_each.max()) + 1, **options)  # type: ignore[arg-type]


def test_planted_ones_are_found_and_all_that_is_found_is_near() -> None:
    rng = random.Random(1)
    originals = sentences(600)
    twins = [edited(text, rng) for text in originals[:60]]
    texts = originals + twins
    found = search(texts, groups=[0] * 600 + [1] * 60)
    plain = [" ".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) for text in texts]
    for row, group in np.argwhere(found.twins >= 0).tolist():
        twin = int(found.twins[row, group])
        assert twin != row
        assert (twin >= 600) == (group == 1)
        exact = indel_similarity(plain[row], plain[twin])
        assert exact >= 0.9 - 1e-6
        assert found.similarity[row, group] == pytest.approx(exact, abs=1e-5)
    assert (found.twins[600:, 0] >= 0).sum() >= 59


@pytest.mark.parametrize("similarity", [0.8, 0.95, 1.0])
def test_the_similarity_that_is_asked_for_is_kept(similarity: float) -> None:
    texts = ["the quick brown fox jumps", "the quick brown fox jumped", "The quick, brown fox jumps!", "another line"]
    found = search(texts, similarity=similarity)
    assert indel_similarity(texts[0], texts[1]) == pytest.approx(48 / 51)
    assert found.twins[0, 0] == 2  # the nearest one
    assert (found.twins[1, 0] >= 0) == (similarity <= 48 / 51)
    assert found.twins[3, 0] == -1


def test_chinese_titles_are_compared_by_characters() -> None:
    texts = [
        "今天早上的火车晚点了二十分钟真不好",
        "今天早上的火车晚点了三十分钟真不好",
        "她在市场上买了新鲜的面包和蜂蜜",
    ]
    assert search(texts).twins[:, 0].tolist() == [1, 0, -1]


def test_both_texts_of_a_pair_have_to_be_near() -> None:
    long = "a premise that is the same in every row of the table, word for word, to the end"
    texts = [long, long, long]
    seconds = ["the train is late", "the train was late", "nobody saw the harbour"]
    assert search(texts, seconds, similarity=0.85).twins[:, 0].tolist() == [1, 0, -1]


def test_very_short_and_empty_texts_are_near_to_nothing() -> None:
    assert search(["", "", "!!", "ok", "OK!"]).twins[:, 0].tolist() == [-1] * 5


def test_a_table_of_one_template_stays_within_bounds() -> None:
    texts = [f"order {i:05d} was shipped to the customer on time" for i in range(3000)]
    assert (search(texts).twins[:, 0] >= 0).all()


def test_long_texts_are_compared_by_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_COMPARED", 30)
    texts = ["one two three four five six seven eight", "one two three four five six nothing in common"]
    assert search(texts).twins[:, 0].tolist() == [1, 0]


def test_pieces_cover_all_rows_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_SLAB_ROWS", 4)
    monkeypatch.setattr(near, "_SLAB_CHARACTERS", 10)
    lengths = np.array([3, 3, 3, 3, 25, 0, 0, 0, 0, 0, 0, 2, 9])
    pieces = list(near._slabs(lengths))
    assert [row for start, n in pieces for row in range(start, start + n)] == list(range(len(lengths)))
    assert all(n == 1 or (n <= 4 and lengths[start : start + n].sum() <= 10) for start, n in pieces)


@pytest.mark.parametrize("similarity", [0.79, 1.01, float("nan")])
def test_a_similarity_out_of_range_is_refused(similarity: float) -> None:
    with pytest.raises(BadInput, match="--near"):
        search(["a"], similarity=similarity)


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingExtra, match=r"snapfit\[check\]"):
        search(["a"])


# ---------------------------------------------------------------- by rows and splits


def test_findings_tell_of_rows_splits_and_labels() -> None:
    train = [
        ("the train to the coast is late", "a"),
        ("fresh bread and honey", "b"),
        ("the train to the coast is late!", "b"),
    ]
    valid = [("fresh bread and a honey", "b"), ("nothing like it at all", "a"), ("the train to the coast is late", "a")]
    splits, index = checking.indexed(train=train, valid=valid)
    told: list[str] = []
    rows = find_near_rows(splits, index, similarity=0.9, told=told.append)
    found = list(near_findings(splits, index, rows))
    within = of_kind(found, "near_duplicate")
    assert (checking.numbers(within), within.details["other_label"], within.level) == ([1, 3], 2, "warning")
    across = of_kind(found, "near_leak", "valid")
    assert checking.numbers(across) == [1]  # row 3 has the same text, which is a leak and no near one
    assert checking.numbers(across, "train") == [2]
    assert across.examples[0].note == "95 % alike"
    assert difflib.SequenceMatcher(None, "fresh bread and honey", "fresh bread and a honey").ratio() > 0.95
    assert any("signatures of 5 texts" in text for text in told)


def test_of_too_many_texts_training_rows_are_left_out() -> None:
    train = [(text, "ab"[i % 2]) for i, text in enumerate(sentences(1500))]
    valid = [(text.upper() + "?", "a") for text, _ in train[:40]]
    splits, index = checking.indexed(train=train, valid=valid)
    rows = find_near_rows(splits, index, similarity=0.9, told=lambda text: None, most=1000)
    assert rows.left_out >= index.n_groups - 1000
    assert (rows.split == 1).sum() == 40
