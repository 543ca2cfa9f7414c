"""Out-of-fold files: read back in the table's order, however rows are spread over folds and cut into pieces."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import toys
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.scores import logits_to_scores
from snapfit.data.large_records import read_for_training
from snapfit.ship import out_of_fold
from snapfit.ship.out_of_fold import OutOfFold, score_held_out

N = 200
LABELS = LabelSet("single", ("animals", "food", "tools"))
RULE = DecisionRule("single")
ROWS = toys.single_rows(N)
LOGITS = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


def write_folds(folder: Path, number: np.ndarray) -> dict[int, Path]:
    """The files that folds would have written."""
    files = {}
    for fold in range(1, int(number.max()) + 1):
        rows = np.flatnonzero(number == fold)
        logits = pa.FixedSizeListArray.from_arrays(pa.array(LOGITS[rows].reshape(-1)), 3)
        files[fold] = folder / f"{fold}.parquet"
        pq.write_table(pa.table({"row": rows + 1, "logits": logits}), files[fold], row_group_size=11)
    return files


def numbers(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    return {
        "by chance": rng.integers(0, 4, N),
        "in blocks": np.repeat([2, 1, 3, 0], N // 4),
        "one and the rest": np.where(np.arange(N) == 77, 2, 1),
    }[kind].astype(np.int8)


@pytest.mark.parametrize("kind", ["by chance", "in blocks", "one and the rest"])
@pytest.mark.parametrize("slab", [7, 64, 65_536])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_rows_come_in_the_tables_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, slab: int, large: bool
) -> None:
    monkeypatch.setattr(out_of_fold, "SLAB_ROWS", slab)
    number = numbers(kind)
    records = read_for_training(ROWS, large_rows=16 if large else N)
    every = OutOfFold(write_folds(tmp_path, number), records, LABELS, rule=RULE)
    pieces = list(every)
    scored = np.flatnonzero(number)
    assert np.concatenate([piece.rows for piece in pieces]).tolist() == scored.tolist()
    assert np.concatenate([piece.folds for piece in pieces]).tolist() == number[scored].tolist()
    np.testing.assert_array_equal(np.concatenate([piece.logits for piece in pieces]), LOGITS[scored])
    targets = LABELS.encode([ROWS[row]["label"] for row in scored])
    np.testing.assert_array_equal(np.concatenate([piece.targets for piece in pieces]), targets)

    every.write(tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["row"].to_pylist() == (scored + 1).tolist()
    assert table["target"].to_pylist() == [ROWS[row]["label"] for row in scored]
    scores = logits_to_scores(LOGITS[scored], "single")
    for column, name in enumerate(LABELS.names):
        np.testing.assert_array_equal(table[f"score_{name}"].to_numpy(), scores[:, column])
    by_fold, counts, pooled = every.metrics()
    right = scores.argmax(axis=1) == targets
    assert pooled["accuracy"] == pytest.approx(right.mean())
    for fold, metrics in by_fold.items():
        own = number[scored] == fold
        assert counts[fold] == own.sum()
        assert metrics["accuracy"] == pytest.approx(right[own].mean())


def test_a_sample_is_of_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = numbers("by chance")
    every = OutOfFold(write_folds(tmp_path, number), read_for_training(ROWS), LABELS, rule=RULE)
    n = int((number > 0).sum())
    whole = every.at_most(n, seed=0)
    assert whole.rows.tolist() == np.flatnonzero(number).tolist()
    some = every.at_most(40, seed=0)
    monkeypatch.setattr(out_of_fold, "SLAB_ROWS", 13)
    again = every.at_most(40, seed=0)
    assert len(set(some.rows.tolist())) == 40
    for name in ("rows", "folds", "logits", "targets"):
        np.testing.assert_array_equal(getattr(some, name), getattr(again, name))
    np.testing.assert_array_equal(some.logits, LOGITS[some.rows])
    np.testing.assert_array_equal(some.folds, number[some.rows])
    assert every.at_most(40, seed=1).rows.tolist() != some.rows.tolist()


def test_a_bundles_logits_are_written_over_its_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toys.trained()
    records: Any = read_for_training(run.rows)
    rows = np.arange(1, 60, 3)
    whole = tmp_path / "whole.parquet"
    score_held_out(run.result.bundle, records, rows, whole)
    monkeypatch.setattr(out_of_fold, "SLAB_ROWS", 6)
    score_held_out(run.result.bundle, records, rows, tmp_path / "parts.parquet")
    one, other = pq.read_table(whole), pq.read_table(tmp_path / "parts.parquet")
    assert one["row"].to_pylist() == other["row"].to_pylist() == (rows + 1).tolist()
    logits = [np.array(table["logits"].to_pylist()) for table in (one, other)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    files = write_folds(tmp_path, numbers("by chance"))
    files[2].write_bytes(b"no table")
    with pytest.raises(BadInput, match=r"2\.parquet cannot be read"):
        list(OutOfFold(files, read_for_training(ROWS), LABELS, rule=RULE))
