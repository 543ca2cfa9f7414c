"""The length policy as plain data: what it goes by, and what it cannot be."""

from typing import Any

import pytest

from snapfit.core.errors import BadInput
from snapfit.core.lengths import HEAD, LengthPolicy

DICTIONARIES: list[dict[str, Any]] = [
    {"policy": "head"},
    {"policy": "tail"},
    {"policy": "head+tail", "head_share": 0.4},
    {"policy": "windows", "overlap": 0.0, "max_windows": 3, "window_pooling": "max_states"},
]


@pytest.mark.parametrize("values", DICTIONARIES)
def test_a_policy_is_told_by_what_it_goes_by(values: dict[str, Any]) -> None:
    policy = LengthPolicy.from_dict(values)
    assert policy.to_dict() == values
    assert policy.windowed == (values["policy"] == "windows")
    assert policy.pools_windows_by == values.get("window_pooling")
    assert policy.cuts_at_one_end == (values["policy"] in ("head", "tail"))
    assert policy.cuts_by() == {name: value for name, value in values.items() if name != "window_pooling"}


def test_head_is_what_there_is_without_a_word() -> None:
    assert LengthPolicy() == HEAD
    assert HEAD.to_dict() == {"policy": "head"}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"policy": "middle"}, r"length\.policy is 'middle'"),
        ({"head_share": 0.0}, "head_share is 0.0"),
        ({"head_share": 1.0}, "head_share"),
        ({"head_share": True}, "head_share"),
        ({"head_share": float("nan")}, "head_share"),
        ({"overlap": -0.1}, "overlap"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": "0.1"}, "overlap"),
        ({"max_windows": 0}, "max_windows"),
        ({"max_windows": 2.0}, "max_windows"),
        ({"window_pooling": "sum"}, "window_pooling is 'sum'"),
    ],
)
def test_values_that_cannot_be(values: dict[str, Any], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        LengthPolicy(**values)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"policy": "windows"},
        {"policy": ["head"]},
        {"policy": "head", "overlap": 0.1},
        {"policy": "head+tail", "head_share": 0.4, "more": 1},
        {"policy": "head+tail", "head_share": 2},
    ],
)
def test_dictionaries_that_are_none(values: Any) -> None:
    with pytest.raises(BadInput):
        LengthPolicy.from_dict(values)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (LengthPolicy(), "of longer texts the first 256 tokens are read"),
        (LengthPolicy("tail"), "of longer texts the last 256 tokens are read"),
        (
            LengthPolicy("head+tail"),
            "of longer texts 256 tokens are read, 25% from the beginning, the rest from the end",
        ),
        (
            LengthPolicy("windows", max_windows=3),
            "longer texts are read in up to 3 windows of 256 tokens, which overlap by 25% or more; "
            "the answer is the mean of their logits",
        ),
    ],
)
def test_in_words(policy: LengthPolicy, words: str) -> None:
    assert policy.in_words(256) == words
