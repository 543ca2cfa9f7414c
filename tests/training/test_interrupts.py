"""Signals become a question: the first is remembered, the second interrupts, and handlers are put back."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from snapfit.training.interrupts import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_only_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop()
        assert stop.signal_number is None
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.signal_number == number
    assert signal.getsignal(number) is before
    assert stop.signal_number == number  # still known after the block


def test_a_second_signal_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice() -> None:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before


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
