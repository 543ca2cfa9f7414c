"""A training that is told to end does so soon, with a code that is not 0, and goes on to the same weights later."""

import signal
from pathlib import Path

import pytest

from signals import run_signals
from snapfit.core.interrupts import StopRequest

UNHURRIED = 60.0
"""Seconds: how long a process takes to end is measured in the benchmarks, not here."""


@pytest.mark.slow
def test_a_signal_at_any_stage_ends_a_training_that_goes_on_later(tmp_path: Path) -> None:
    result = run_signals(tmp_path, moments=4, seed=1, limit_seconds=UNHURRIED)
    assert result.bad == []
    assert result.struck >= 8


@pytest.mark.slow
def test_a_second_signal_leaves_only_whole_files(tmp_path: Path) -> None:
    result = run_signals(tmp_path, moments=2, seed=2, double=True, limit_seconds=UNHURRIED)
    assert result.bad == []
    assert result.struck >= 3


@pytest.mark.slow
def test_a_swallowed_signal_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the signals are caught and nothing is done about them."""
    monkeypatch.setattr(StopRequest, "_note", lambda self, number, frame: None)
    result = run_signals(tmp_path, moments=1, seed=3, limit_seconds=UNHURRIED)
    assert len(result.bad) >= 1
    assert any("as if there had been no signal" in line for line in result.bad)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
