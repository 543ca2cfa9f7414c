"""Suspected label errors: cleanlab's own ranking of the same scores, whatever the pieces; and a file for people."""

import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.stats import median_abs_deviation

from snapfit.core.errors import BadInput, MissingExtra
from snapfit.core.labels import LabelSet
from snapfit.core.scores import logits_to_scores
from snapfit.data.records import read_records
from snapfit.ship.label_errors import (
    BELIEF,
    FAR,
    LONGEST_TEXT,
    SUSPECTS_FILE,
    LabelErrors,
    Scored,
    can_rank,
    find_label_errors,
    read_suspects,
    write_suspects,
)

N, K = 600, 5
NAMES = LabelSet("single", tuple("abcde"))
MANY = LabelSet("multi", ("x", "y", "z"))
NUMBER = LabelSet("regression", ("score",), 0.0, 1.0)


def flipped(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a fair model, labels of which 8 % are wrong, and which these are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, N)
    logits = rng.normal(size=(N, K)) + 4.0 * np.eye(K)[truth]
    wrong = rng.random(N) < 0.08
    given = np.where(wrong, (truth + rng.integers(1, K, N)) % K, truth)
    return logits_to_scores(logits, "single"), given, wrong


def flipped_cells(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of many labels."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((N, 3)) < (0.5, 0.2, 0.1)).astype(np.float32)
    scores = logits_to_scores(rng.normal(size=(N, 3)) + 5.0 * truth - 2.5, "multi")
    wrong = rng.random((N, 3)) < 0.06
    return scores, np.abs(truth - wrong).astype(np.float32), wrong


def cut(scores: np.ndarray, targets: np.ndarray, *sizes: int) -> Callable[[], Iterable[Scored]]:
    """Pieces of the rows, as often as they are asked for."""
    ends = np.cumsum([*sizes, len(scores) - sum(sizes)]).tolist()

    def pieces() -> Iterable[Scored]:
        start = 0
        for end in ends:
            yield np.arange(start, end), scores[start:end], targets[start:end]
            start = end

    return pieces


def same(one: LabelErrors, other: LabelErrors) -> None:
    for name in ("rows", "outputs", "given", "suggested", "given_scores", "suggested_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.n_suspected, one.n_labels) == (other.n_suspected, other.n_labels)


# ---------------------------------------------------------------- against the library


@pytest.mark.parametrize("seed", range(4))
def test_one_label_is_ranked_as_cleanlab_does(seed: int) -> None:
    scores, given, _ = flipped(seed)
    found = find_label_errors(cut(scores, given), NAMES)
    theirs = find_label_issues(
        given, scores, filter_by=f"low_{BELIEF}", return_indices_ranked_by=BELIEF, n_jobs=1, verbose=False
    )
    assert found.rows[: len(theirs)].tolist() == theirs.tolist()
    assert abs(found.n_suspected - num_label_issues(given, scores)) <= 1
    assert found.n_suspected >= len(theirs)
    belief = get_label_quality_scores(given, scores, method=BELIEF)
    assert (np.diff(belief[found.rows]) >= 0).all()
    assert set(found.rows.tolist()) == set(np.flatnonzero(scores.argmax(axis=1) != given).tolist())
    assert found.n_labels == N
    np.testing.assert_array_equal(found.suggested, scores.argmax(axis=1)[found.rows])
    np.testing.assert_array_equal(found.given_scores, scores[found.rows, given[found.rows]])
    np.testing.assert_array_equal(found.suggested_scores, scores.max(axis=1)[found.rows])


def test_each_of_many_labels_is_looked_at_by_itself() -> None:
    scores, given, _ = flipped_cells()
    found = find_label_errors(cut(scores, given), MANY)
    expected = 0
    for label in range(3):
        own = np.stack([1 - scores[:, label], scores[:, label]], axis=1)
        labels = given[:, label].astype(int)
        expected += num_label_issues(labels, own)
        ranked = find_label_issues(labels, own, filter_by=f"low_{BELIEF}", return_indices_ranked_by=BELIEF, n_jobs=1)
        of_label = found.rows[found.outputs == label]
        assert of_label[: len(ranked)].tolist() == ranked.tolist()
    assert abs(found.n_suspected - expected) <= 3
    assert found.n_labels == 3 * N
    assert (found.given != found.suggested).all()


def test_numbers_far_from_the_prediction_are_outliers_by_their_median_deviation() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(N, 1))
    predicted = truth + 0.1 * rng.standard_t(4, size=(N, 1))
    given = truth.astype(np.float32)
    given[::50] += 3.0
    found = find_label_errors(cut(predicted, given), NUMBER)
    residual = (given - predicted)[:, 0]
    far = np.abs(residual - np.median(residual)) / median_abs_deviation(residual, scale="normal")
    wanted = np.argsort(-far)[: int((far > FAR).sum())]
    assert found.rows.tolist() == wanted.tolist()
    assert set(range(0, N, 50)) <= set(found.rows.tolist())
    np.testing.assert_allclose(found.suggested_scores, far[wanted], rtol=1e-4)
    np.testing.assert_allclose(found.suggested, predicted[wanted, 0])
    assert found.n_suspected == len(wanted)


# ---------------------------------------------------------------- what it finds, and how it is cut


@pytest.mark.parametrize("make", [flipped, flipped_cells])
def test_it_finds_labels_that_were_flipped(make: Callable[[int], Any]) -> None:
    scores, given, wrong = make(7)
    found = find_label_errors(cut(scores, given), NAMES if given.ndim == 1 else MANY)
    hits = wrong[found.rows] if wrong.ndim == 1 else wrong[found.rows, found.outputs]
    k = int(wrong.sum())
    assert hits[:k].mean() > 0.85
    assert hits[: found.n_suspected].mean() > 0.85
    assert hits[: found.n_suspected].sum() > 0.6 * k


@pytest.mark.parametrize("sizes", [(1, 2, 3), (300,), (0, 599)])
def test_pieces_change_nothing(sizes: tuple[int, ...]) -> None:
    for (scores, given, _), label_set in ((flipped(1), NAMES), (flipped_cells(1), MANY)):
        same(find_label_errors(cut(scores, given, *sizes), label_set), find_label_errors(cut(scores, given), label_set))


def test_a_label_that_no_row_has_is_no_trouble() -> None:
    scores, given, _ = flipped()
    wider = LabelSet("single", ("a", "b", "c", "d", "e", "unheard"))
    padded = np.concatenate([scores, np.full((N, 1), 1e-9)], axis=1)
    assert (
        find_label_errors(cut(padded, given), wider).rows.tolist()
        == find_label_errors(cut(scores, given), NAMES).rows.tolist()
    )


def test_nothing_is_wrong_with_labels_that_all_agree() -> None:
    scores, _, _ = flipped()
    found = find_label_errors(cut(scores, scores.argmax(axis=1)), NAMES)
    assert (len(found.rows), found.n_suspected, found.n_labels) == (0, 0, N)
    constant = find_label_errors(cut(np.ones((4, 1)), np.ones((4, 1), dtype=np.float32)), NUMBER)
    assert constant.n_suspected == 0


@pytest.mark.parametrize("label_set", [NAMES, MANY, NUMBER])
def test_no_rows_are_refused(label_set: LabelSet) -> None:
    empty = np.zeros((0, label_set.n_outputs))
    targets = label_set.encode([])
    with pytest.raises(BadInput, match="no rows to look for label errors in"):
        find_label_errors(cut(empty, targets), label_set)


def test_without_cleanlab_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # as if it were not installed
    scores, given, _ = flipped()
    assert not can_rank()
    with pytest.raises(MissingExtra, match=r"pip install 'snapfit\[labels\]'"):
        find_label_errors(cut(scores, given), NAMES)
    assert find_label_errors(cut(scores[:, :1], scores[:, 1:2]), NUMBER).n_labels == N


# ---------------------------------------------------------------- the file


def test_the_file_names_rows_labels_and_texts(tmp_path: Path) -> None:
    scores, given, _ = flipped()
    texts = [f'text {i}, "quoted"\nand {"long " * (i % 90)}' for i in range(N)]
    records = read_records([(text, NAMES.names[label]) for text, label in zip(texts, given, strict=True)])
    found = find_label_errors(cut(scores, given), NAMES)
    write_suspects(tmp_path, found, records)
    with open(tmp_path / SUSPECTS_FILE, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == found.n_suspected
    for i, line in enumerate(lines):
        row = int(line["row"]) - 1
        assert row == found.rows[i]
        assert line["given"] == NAMES.names[given[row]]
        assert line["suggested"] == NAMES.names[found.suggested[i]]
        assert float(line["given_score"]) == scores[row, given[row]]
        assert float(line["suggested_score"]) == scores[row].max()
        cut_text = texts[row] if len(texts[row]) <= LONGEST_TEXT else f"{texts[row][: LONGEST_TEXT - 1]}…"
        assert line["text"] == cut_text
        assert len(line["text"]) <= LONGEST_TEXT
    assert read_suspects(tmp_path, 3) == lines[:3]
    assert read_suspects(tmp_path / "nowhere", 3) == []


def test_the_file_of_many_labels_says_which_label_is_in_question(tmp_path: Path) -> None:
    scores, given, _ = flipped_cells()
    rows = [(f"text {i}", [MANY.names[j] for j in np.flatnonzero(cells)]) for i, cells in enumerate(given)]
    found = find_label_errors(cut(scores, given), MANY)
    write_suspects(tmp_path, found, read_records(rows, task="multi"))
    for line in read_suspects(tmp_path, found.n_suspected):
        has_it = line["label"] in rows[int(line["row"]) - 1][1]
        assert (line["given"], line["suggested"]) == (("present", "absent") if has_it else ("absent", "present"))


def test_the_files_of_a_regression_of_pairs_and_of_nothing(tmp_path: Path) -> None:
    given = np.zeros((20, 1), dtype=np.float32)
    given[3] = 9.0
    predicted = np.linspace(-0.1, 0.1, 20)[:, None]
    rows = [(f"first {i}", f"second {i}", float(given[i, 0])) for i in range(20)]
    records = read_records(rows, task="regression")
    write_suspects(tmp_path, find_label_errors(cut(predicted, given), NUMBER), records)
    (line,) = read_suspects(tmp_path, 9)
    assert (line["row"], line["given"], line["text"], line["text_pair"]) == ("4", "9", "first 3", "second 3")
    assert float(line["deviations"]) > FAR
    write_suspects(tmp_path, find_label_errors(cut(predicted, predicted), NUMBER), records)
    assert read_suspects(tmp_path, 9) == []
    assert (tmp_path / SUSPECTS_FILE).read_text().startswith('"row","given","suggested","deviations","text"')
