"""A check's figures in words."""

from pathlib import Path

import numpy as np
import pytest

from snapfit.checks.findings import Finding, Where
from snapfit.ship.check_words import gigabytes, in_words, length_rows, rows_told


def test_rows_are_told_by_file_and_shortened() -> None:
    where = [
        Where("train", str(Path("data") / "a.csv"), "line", np.arange(1000, 1010)),
        Where("valid", "", "row", np.array([7])),
    ]
    told = rows_told(Finding("leak", "error", "valid", 1, 2, "", where=where), most=3)
    assert told == ["a.csv: lines 1000, 1001, 1002 and 7 more", "valid: row 7"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.42, "0.4 s"), (42.4, "42 s"), (90, "2 min"), (3000, "50 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(("n", "words"), [(5_000_000, "5 MB"), (1_500_000_000, "1.5 GB")])
def test_sizes(n: int, words: str) -> None:
    assert gigabytes(n) == words


def test_what_each_length_policy_does_is_told_where_a_text_is_too_long() -> None:
    policies = {
        "head": {"rows_cut": 3, "share_of_tokens_cut": 0.4, "sequences_per_row": 1.0, "tokens": 100},
        "windows": {"rows_cut": 0, "share_of_tokens_cut": 0.0, "sequences_per_row": 1.5, "tokens": 150},
    }
    split = {"rows_too_long": 3, "rows_looked_at": 12, "limit": 16, "policy": "head", "policies": policies}
    assert length_rows({"train": split, "test": {**split, "rows_too_long": 0}})[1:] == [
        ("train", "head *", "16", "3 (25 %)", "40 %", "1.00"),
        ("train", "windows", "16", "0 (0 %)", "0 %", "1.50"),
    ]
    assert length_rows({"test": {**split, "rows_too_long": 0}}) == []
