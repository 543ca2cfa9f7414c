"""The precision of a run is measured on this machine and kept in the cache; the rule that reads the figure is tested
as a rule, on a cache that holds it.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from snapfit.training.precision import WORTHWHILE_SPEEDUP, bf16_speedup, choose_precision

BEFORE = "measured before on this machine"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept_file(cache: Path) -> Path:
    """The one file that a measurement leaves."""
    (found,) = (cache / "precision").iterdir()
    return found


def change(cache: Path, **values: Any) -> None:
    """Rewrite parts of what is kept."""
    place = kept_file(cache)
    place.write_text(json.dumps({**json.loads(place.read_text("utf-8")), **values}), "utf-8")


def test_the_measurement_is_a_ratio_and_is_made_once() -> None:
    first = bf16_speedup("cpu", torch.get_num_threads())
    assert math.isfinite(first)
    assert first > 0
    assert bf16_speedup("cpu", torch.get_num_threads()) is first


def test_measuring_leaves_no_trace(cache: Path) -> None:
    bf16_speedup.cache_clear()
    threads = torch.get_num_threads()
    choose_precision("cpu")
    assert torch.get_num_threads() == threads
    assert not torch.is_autocast_enabled("cpu")
    assert [path.suffix for path in (cache / "precision").iterdir()] == [".json"]


@pytest.mark.parametrize(
    ("speedup", "choice"),
    [
        (0.2, "fp32"),
        (1.0, "fp32"),
        (WORTHWHILE_SPEEDUP - 0.001, "fp32"),
        (WORTHWHILE_SPEEDUP, "bf16"),
        (4.0, "bf16"),
    ],
)
def test_bf16_must_be_clearly_faster(cache: Path, speedup: float, choice: str) -> None:
    choose_precision("cpu")
    change(cache, speedup=speedup)
    chosen, reason = choose_precision("cpu")
    assert chosen == choice
    assert f"{speedup:.2f}x" in reason


def test_what_was_measured_is_not_measured_again(cache: Path) -> None:
    first = choose_precision("cpu")
    assert first[1].endswith(", measured")
    stamp = kept_file(cache).stat().st_mtime_ns
    bf16_speedup.cache_clear()  # as in another process
    again = choose_precision("cpu")
    assert bf16_speedup.cache_info().misses == 0
    assert again == (first[0], first[1].replace("measured", BEFORE))
    assert kept_file(cache).stat().st_mtime_ns == stamp


def test_another_number_of_threads_is_measured_for_itself(cache: Path) -> None:
    threads = torch.get_num_threads()
    choose_precision("cpu")
    try:
        torch.set_num_threads(threads + 1)
        assert choose_precision("cpu")[1].endswith(", measured")
    finally:
        torch.set_num_threads(threads)
    assert len(list((cache / "precision").iterdir())) == 2


@pytest.mark.parametrize("speedup", [0.0, -2.0, 1, True, "4.0", None, [4.0]])
def test_a_figure_that_cannot_be_is_measured_anew(cache: Path, speedup: Any) -> None:
    choose_precision("cpu")
    change(cache, speedup=speedup)
    assert choose_precision("cpu")[1].endswith(", measured")
    assert choose_precision("cpu")[1].endswith(BEFORE)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'"4.0"', b"{}", b'{"speedup": 4.0}', b'{"speedup": NaN}', b" " * 10**6]
)
def test_a_damaged_cache_only_costs_the_measurement(cache: Path, content: bytes) -> None:
    choose_precision("cpu")
    kept_file(cache).write_bytes(content)
    assert choose_precision("cpu")[1].endswith(", measured")
    assert choose_precision("cpu")[1].endswith(BEFORE)


def test_what_holds_for_another_machine_is_not_believed(cache: Path) -> None:
    choose_precision("cpu")
    facts = json.loads(kept_file(cache).read_text("utf-8"))["facts"]
    change(cache, facts={**facts, "processor": "another one"}, speedup=9.0)
    assert "9.00x" not in choose_precision("cpu")[1]


def test_a_cache_that_cannot_be_written_only_costs_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("SNAPFIT_CACHE", str(in_the_way))
    assert choose_precision("cpu")[1].endswith(", measured")
    assert choose_precision("cpu")[1].endswith(", measured")
    folder = tmp_path / "cache"
    monkeypatch.setenv("SNAPFIT_CACHE", str(folder))
    choose_precision("cpu")
    place = kept_file(folder)
    place.unlink()
    place.mkdir()
    assert choose_precision("cpu")[1].endswith(", measured")
    assert place.is_dir()
