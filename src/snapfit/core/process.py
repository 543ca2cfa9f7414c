"""Settings of the process that decide how fast torch runs, made before torch is loaded.

They change no result, only what waiting and memory cost. What the user has set is left alone.
"""

import ctypes
import math
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPIN_COUNT = 2_000
"""Turns that an idle OpenMP thread waits for work before it sleeps.

Measured on two cores with a compiled step: 500 costs a quiet run 8 %, 1,000 up to 3 %, 2,000 to 10,000 nothing that
could be told from noise. Beside another busy process a waiting thread keeps the core that the other one needs: a step
takes 1.9, 2.4 and 3.4 times as long at 1,000, 3,000 and 10,000 turns, and far longer with the default of billions.
"""
SETTLED: dict[str, str] = {}
"""What `settle_process` has set in this process so far."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_MOST = 2**31 - 1


def settle_process(environment: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Set the process up for training, and return what was set, by name; nothing where the user or the system decides.

    environment: default the process's own. OpenMP reads it when torch is loaded, so call this before; afterwards only
    the allocator is set.
    """
    environment = os.environ if environment is None else environment
    settled = {"allocator": "keeps freed memory"} if keep_freed_memory() else {}
    if "torch" not in sys.modules:
        if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(environment):
            environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
            settled["OpenMP"] = f"waits {SPIN_COUNT:,} turns, then sleeps"
        quota = core_quota()
        if "OMP_NUM_THREADS" not in environment and quota is not None and quota < len(os.sched_getaffinity(0)):
            environment["OMP_NUM_THREADS"] = str(quota)
            settled["threads"] = f"{quota}, the share of the processor that this container has"
    SETTLED.update(settled)
    return settled


def keep_freed_memory() -> bool:
    """Have glibc's allocator keep freed memory for the next step instead of asking the system for it again.

    Every step frees and takes the same large blocks; fresh ones must be cleared, page by page. False elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, _MOST) == 1


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model and features in the system's words: what holds for one need not hold for another."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0]
    except (OSError, ValueError):
        first = ""
    told = [line for line in first.splitlines() if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(told) or platform.processor() or platform.machine()


def core_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Cores that a container's limit grants, rounded up; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
