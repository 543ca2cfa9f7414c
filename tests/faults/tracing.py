"""strace, attached to a forked process that waits to be let go: what it calls, and tampering with one of its calls."""

import ctypes
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from scene import fork, wait

CALLS = tuple(
    "open openat creat write writev pwrite64 fsync fdatasync ftruncate fallocate close mkdir mkdirat rename renameat "
    "renameat2 unlink unlinkat rmdir chmod fchmod fchmodat".split()
)
"""System calls that make, change or take away what is on disk, and those that open and close it."""
_ANYONE_MAY_TRACE = (0x59616D61, ctypes.c_ulong(-1))

Places = dict[str, int]
"""System call -> how often a thread makes it."""


def why_no_tracing(folder: Path) -> str | None:
    """Why processes cannot be traced here, or None when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        code = run_traced(lambda: lambda: None, trace=folder / "probe.trace", log=folder / "probe.log")
    except RuntimeError as error:
        return str(error)
    return None if code == 0 else f"a traced process ended with {code}"


def run_traced(begin: Callable[[], Callable[[], None]], *, trace: Path, log: Path, tampering: str | None = None) -> int:
    """The exit code of a forked process that does what `begin` returns while strace watches it.

    trace, log: files for what strace and the process say. tampering: an `inject=` of strace.
    Raises RuntimeError when strace cannot attach.
    """
    (ready, tell_ready), (go, tell_go) = os.pipe(), os.pipe()

    def work() -> None:
        torch.set_num_threads(1)  # other threads do not live in a forked process
        let_anyone_trace()
        act = begin()
        os.write(tell_ready, b"r")
        os.read(go, 1)
        act()

    pid = fork(work, log=log)
    try:
        os.close(tell_ready)
        os.read(ready, 1)  # also returns when the process has ended
        tracer = attach(pid, trace, tampering, threads=True)
        os.write(tell_go, b"g")
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    finally:
        for end in (ready, go, tell_go):
            os.close(end)
    code = wait(pid)
    tracer.communicate()
    return code


def attach(task: int, trace: Path, tampering: str | None, *, threads: bool) -> "subprocess.Popen[str]":
    """strace, watching a process (and its threads to come) or a single thread. Raises RuntimeError when it cannot."""
    options = ["-f"] if threads else []
    options += ["-qq", "-e", "signal=none", "-e", "trace=" + ",".join(f"?{call}" for call in CALLS)]
    if tampering is not None:
        options += ["-e", tampering]
    command = ["strace", *options, "-o", str(trace), "-p", str(task)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while tracer.poll() is None:
        if "TracerPid:\t0" not in Path(f"/proc/{task}/status").read_text():
            time.sleep(0.001)
            return tracer
        time.sleep(0.0005)
    raise RuntimeError(f"strace cannot attach: {tracer.communicate()[1].strip()}")


def let_anyone_trace() -> None:
    """Allow this process to be traced where the system's default is that only a parent may."""
    ctypes.CDLL(None).prctl(*_ANYONE_MAY_TRACE, 0, 0, 0)


def count_places(trace: Path) -> Places:
    """How often the busiest thread made each call."""
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text().splitlines():
        if match := re.match(r"(?:(\d+) +)?([a-z0-9_]+)\(", line):
            by_thread[match[2], match[1] or ""] += 1
    places: Places = {}
    for (call, _), calls in by_thread.items():
        places[call] = max(calls, places.get(call, 0))
    return dict(sorted(places.items()))
