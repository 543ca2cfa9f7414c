"""The journal of a run: one event a line as JSON, readable while the run goes on and after it was killed.

    {"kind": "step", "time": 12.031, "step": 40, "loss": 0.5121}

`time` is in seconds since the run began and never falls, also where a resumed run goes on in the same file.
JSON has no NaN: a number that is not finite becomes null, and `<field>_text` beside it says which one it was.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

from snapfit.core.errors import BadInput, WorkFailed

Event = dict[str, Any]

_OF_A_STEP = (
    *("evaluation", "checkpoint", "checkpoint_failed", "fault", "memory", "collapsed", "early_stop", "final"),
    *("member", "left_basin", "round", "student", "verdict"),
)
"""Kinds of events, beside "step", that tell of the step in their field `step`."""
_OF_THE_END = ("early_stop", "final", "student", "verdict")
"""Those among them that whoever goes on from that very step tells once more."""


class Journal:
    """Appends events to a file. Each line is handed to the system at once, so a killed run loses none.

    path: of the file; created with its folders when missing. When it exists the journal goes on after its
    last
    whole line: a torn one, left by a crash, is cut off.
    Safe to use from several threads. A context manager; events after `close` raise ValueError.
    Raises BadInput when the file is no journal, WorkFailed when it cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            events, whole = _parse(self.path.read_bytes(), self.path) if self.path.exists() else ([], 0)
            self._file = open(self.path, "ab")  # noqa: SIM115  (held until close)
            self._file.truncate(whole)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        times = (event.get("time") for event in events)
        self._latest = max((float(t) for t in times if isinstance(t, (int, float))), default=0.0)
        self._origin = time.monotonic() - self._latest

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Write one event and return it as written.

        fields: numbers, text, truth values, None, paths, and lists, mappings and arrays of these.
        Raises ValueError for a field named kind or time, TypeError for a value that JSON cannot hold.
        """
        if reserved := {"kind", "time"} & fields.keys():
            raise ValueError(f"the journal itself writes {', '.join(sorted(reserved))}")
        with self._lock:
            self._latest = max(self._latest, round(time.monotonic() - self._origin, 3))
            event: Event = {"kind": kind, "time": self._latest, **_plain_mapping(fields)}
            if self._file.closed:
                raise ValueError(f"the journal {self.path} is closed")
            try:
                self._file.write(_line(event))
                self._file.flush()
            except OSError as error:
                raise _cannot_write(self.path, error) from error
        return event

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write an event given as a mapping with its `kind`: the journal as a callback."""
        self.append(str(event["kind"]), **{key: value for key, value in event.items() if key != "kind"})

    def sync(self) -> None:
        """Make what was written so far survive a power cut. Raises WorkFailed when it cannot be."""
        with self._lock:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise _cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file; closing again does nothing. Raises WorkFailed when its last events cannot be written."""
        with self._lock:
            try:
                self._file.close()
            except OSError as error:  # the file is closed all the same
                raise _cannot_write(self.path, error) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except WorkFailed:
            if kind is None:
                raise  # else what went wrong first is told


def read_journal(path: str | PathLike[str]) -> list[Event]:
    """The events of a journal in order. A torn last line, of a crash or of a run that is writing, is left
    out.

    Raises BadInput when the file is missing or another line of it is not an event.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(
            f"the journal {fspath(path)} cannot be read: {error.strerror}",
            "a journal.jsonl that a run wrote",
            "check the path",
        ) from None
    return _parse(content, Path(path))[0]


def settled_events(events: Iterable[Event]) -> list[Event]:
    """The events of what became of a run: those of steps that were undone and done again stand only once.

    A run that is continued, or that goes back because numbers went wrong, writes `resume` or `rollback` with the step
    that it goes on from; what it had told about later steps no longer holds. Nor does what it had told about its end,
    which it will tell again; of a finished run that was weighed again the last telling holds.
    """
    settled: list[Event] = []
    end = None  # where the present sitting was interrupted; what it told after that was of its bundle alone
    for event in events:
        if event["kind"] in ("resume", "rollback"):
            lasting = [one for one in settled[:end] if one["kind"] not in _OF_THE_END]
            settled, end = [one for one in lasting if _step_of(one) <= event["step"]], None
        elif event["kind"] == "interrupted":
            end = len(settled)
        settled.append(event)
    last = {_told_of_the_end(event): i for i, event in enumerate(settled)}
    return [one for i, one in enumerate(settled) if one["kind"] not in _OF_THE_END or last[_told_of_the_end(one)] == i]


def _told_of_the_end(event: Event) -> tuple[str, Any]:
    return event["kind"], event.get("split")


def _step_of(event: Event) -> int:
    """The step that an event tells of; 0 for those that are of no step."""
    if event["kind"] == "step":
        return int(event["number"])
    return int(event["step"]) if event["kind"] in _OF_A_STEP else 0


def _parse(content: bytes, path: Path) -> tuple[list[Event], int]:
    """The events, and how many bytes the whole lines take."""
    events: list[Event] = []
    whole = 0
    lines = content.split(b"\n")
    last = len(lines) - 1 if lines[-1] else len(lines) - 2
    for number, line in enumerate(lines[: last + 1]):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        torn = number == len(lines) - 1  # no line end came after it
        if torn or (number == last and event is None):
            break
        if not isinstance(event, dict) or "kind" not in event:
            raise BadInput(
                f"{path}, line {number + 1}: not an event: {line[:40].decode('utf-8', 'replace')!r}",
                "one JSON object with a kind in every line",
                "give the journal.jsonl of a run, or take the line out",
            )
        events.append(event)
        whole += len(line) + 1
    return events, whole


def _line(event: Event) -> bytes:
    """Readable UTF-8; text that is no Unicode (lone surrogates from odd file names) falls back to escapes."""
    try:
        return f"{json.dumps(event, ensure_ascii=False, allow_nan=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(event, allow_nan=False)}\n".encode()


def _plain_mapping(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Fields as JSON holds them, with a `_text` beside each that is or lists a number that is not finite."""
    plain: dict[str, Any] = {}
    for key, value in fields.items():
        kept = _plain(value)
        plain[str(key)], spelled = _replaced(kept, None), _replaced(kept, str)
        if spelled != plain[str(key)]:
            plain[f"{key}_text"] = spelled
    return plain


def _replaced(value: Any, spell: Callable[[float], str] | None) -> Any:
    """Numbers that are not finite as null or, spelled out, as text; what is in a mapping was seen to
    before.
    """
    if isinstance(value, list):
        return [_replaced(entry, spell) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if spell is None else spell(value)
    return value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # arrays and scalars of numpy, tensors of torch
        return _plain(value.tolist())
    raise TypeError(f"a journal cannot hold {type(value).__name__}: {value!r}")


def _cannot_write(path: Path, error: OSError) -> WorkFailed:
    return WorkFailed(f"the journal {path} cannot be written: {error.strerror}")
