"""The precision of a run is measured on this machine; the rule that reads the figure is tested as a rule."""

import math

import pytest
import torch

from snapfit.training import precision
from snapfit.training.precision import WORTHWHILE_SPEEDUP, bf16_speedup, choose_precision


def test_the_measurement_is_a_ratio_and_is_made_once() -> None:
    first = bf16_speedup("cpu", torch.get_num_threads())
    assert math.isfinite(first)
    assert first > 0
    assert bf16_speedup("cpu", torch.get_num_threads()) is first


def test_measuring_leaves_no_trace() -> None:
    bf16_speedup.cache_clear()
    threads = torch.get_num_threads()
    choose_precision("cpu")
    assert torch.get_num_threads() == threads
    assert not torch.is_autocast_enabled("cpu")


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
def test_bf16_must_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, speedup: float, choice: str) -> None:
    monkeypatch.setattr(precision, "bf16_speedup", lambda device, threads: speedup)
    chosen, reason = choose_precision("cpu")
    assert chosen == choice
    assert f"{speedup:.2f}x" in reason
