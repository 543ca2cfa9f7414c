"""Signals that ask a program to end, turned into a question where work must not be cut in half.

SIGINT is a person's Ctrl-C. SIGTERM, and SIGUSR1 as batch systems send it ahead, mean that the process has seconds.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stop:
    """Whether to stop, asked between two pieces of work. This one never says so.

    Attributes: hurry, whether the process will soon be ended from outside.
    """

    hurry = False

    def __call__(self) -> bool:
        return False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a first request only makes the answer yes; outside, it raises KeyboardInterrupt at once."""
        yield


class StopRequest(Stop):
    """Stops for signals while it is entered.

    Inside `deferred` the first signal is only noted, and a second one raises KeyboardInterrupt. Elsewhere the first
    one raises it. Outside the main thread, where Python delivers no signals, nothing is installed and the answer is
    always no.
    Attributes: signal_number, the first signal, or None; twice, whether another one came.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.twice = False
        self._deferring = False
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        return self.signal_number is not None

    @property
    def hurry(self) -> bool:  # type: ignore[override]  # read only here
        """Whether the signal was not a person's Ctrl-C."""
        return self.signal_number not in (None, signal.SIGINT)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """See `Stop.deferred`. Raises KeyboardInterrupt at the start if a signal had come before."""
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    def _note(self, number: int, frame: FrameType | None) -> None:
        first = self.signal_number is None
        if first:
            self.signal_number = number
        else:
            self.twice = True
        if not (first and self._deferring):
            raise KeyboardInterrupt


def exit_code(signal_number: int | None) -> int:
    """What a program that a signal ended returns: 130 after Ctrl-C, 143 when it was told to end."""
    return 130 if signal_number in (None, signal.SIGINT) else 143
