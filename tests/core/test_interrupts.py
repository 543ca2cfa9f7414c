"""Signals become a question: the first is remembered, the second interrupts, and handlers are put back."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from snapfit.core.interrupts import SIGNALS, Stop, StopRequest, exit_code


@pytest.mark.parametrize("number", SIGNALS)
def test_while_deferred_the_first_signal_is_only_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert (stop(), stop.hurry, stop.signal_number) == (False, False, None)
        with stop.deferred():
            os.kill(os.getpid(), number)
            assert stop()
        assert stop.signal_number == number
        assert stop.hurry == (number != signal.SIGINT)
        assert not stop.twice
    assert signal.getsignal(number) is before
    assert stop.signal_number == number  # still known after the block


@pytest.mark.parametrize("number", SIGNALS)
def test_elsewhere_a_signal_interrupts_at_once(number: signal.Signals) -> None:
    with StopRequest() as stop:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt), stop.deferred():
            pytest.fail("what was asked before the work must end it")
    assert stop.signal_number == number


def test_a_second_signal_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopRequest()

    def twice() -> None:
        with stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before
    assert stop.twice
    assert stop.signal_number == signal.SIGTERM


def test_exit_codes() -> None:
    assert [exit_code(number) for number in (None, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == [
        *(130, 130),
        *(143, 143),
    ]


def test_nobody_asks_by_default() -> None:
    stop = Stop()
    with stop.deferred():
        assert not stop()


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with StopRequest():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_installed() -> None:
    answers: list[Callable[..., object] | bool | int | None] = []

    def work() -> None:
        with StopRequest() as stop:
            answers.extend([signal.getsignal(signal.SIGTERM), stop()])

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [before, False]
