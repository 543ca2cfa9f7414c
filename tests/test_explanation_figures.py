"""The arithmetic of benchmarks/explanations.py: words taken out of a text, and figures of parts put together."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from snapfit.runtime.explanations import Attribution

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="a source distribution has no benchmarks")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("explanations")


def word(text: str, start: int, value: float = 0.0) -> Attribution:
    return Attribution(text, start, start + len(text), 0, value, (text,))


def test_words_are_taken_out_of_the_text_itself(module: Any) -> None:
    text = "it's a dull, dull film"
    words = [word("dull", 7), word("film", 18), word(",", 11)]
    assert module.without(text, words) == "it's a dull"
    assert module.without(text, words[::-1]) == "it's a dull"
    assert module.without(text, []) == text


def test_agreement_is_of_ranks_and_needs_differences(module: Any) -> None:
    one = [word("a", 0, 1.0), word("b", 2, 2.0), word("c", 4, 30.0)]
    other = [word("a", 0, -5.0), word("b", 2, 0.0), word("c", 4, 0.1)]
    assert module.agreement(one, other) == pytest.approx(1.0)
    assert module.agreement(one, other[::-1]) == pytest.approx(-1.0)
    assert module.agreement(one, [word("a", 0)] * 3) is None


def part(lost: float, n: int) -> dict[str, Any]:
    """A part of n texts in which everything is as given."""
    methods = {"integrated_gradients": [0.1] * n, "occlusion": [0.2] * n}
    orders = {"integrated_gradients": [[lost] * 3] * n, "occlusion": [[2.0] * 3] * n, "random": [[0.5] * 3] * n}
    return {
        "right": [True] * n,
        "words": [10] * n,
        "agreement": [0.5, None] + [0.5] * (n - 2),
        "lost": orders,
        "changed": orders,
        "cpu": methods,
        "passes": {"integrated_gradients": [17] * n, "occlusion": [12] * n},
        "error": {"integrated_gradients": [lost / 1000] * n, "occlusion": [None] * n},
        "threads": "1",
        "machine": {"processor": "p", "family": "1", "load": lost},
        "date": "2026-01-01",
    }


def test_parts_of_a_set_are_one_table(module: Any) -> None:
    results = SimpleNamespace(runs={"a 0": part(1.0, 10), "a 1": part(4.0, 20), "b 0": part(2.0, 2)})
    deletions, costs, measured = module.summarise(results)
    assert [row[:2] for row in deletions[:3]] == [["a", title] for title in module.ORDERS.values()]
    values = np.repeat([1.0, 4.0], [10, 20])
    error = values.std(ddof=1) / np.sqrt(30)
    assert deletions[0][2] == f"{values.mean():.2f} ± {error:.2f}"
    assert measured["a integrated_gradients beyond random"] == pytest.approx(2.5)
    assert measured["b occlusion beyond random"] == pytest.approx(1.5)
    assert (measured["a error"], measured["a agreement"]) == (0.004, 0.5)
    assert "b error" in measured
    assert [row[3] for row in costs[:2]] == ["100", "200"]
    page = module.page(results)
    assert "a: 100% of 30 test rows right; 30 texts explained" in page
    assert "load 1.0 to 4.0" in page
