"""Which precision this machine is really faster in: measured, because bf16 support does not mean bf16 speed.

Processors with AMX run bf16 products several times faster than float32; others accept bf16 and are slower with it.
What was measured is kept in the cache, so that the next training on the machine answers at once, and alike: a figure
near the limit, or one taken beside other work, would come out this way today and that way tomorrow.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from statistics import median

import torch

from snapfit.core.errors import SnapfitError
from snapfit.core.files import read_json, write_json_atomic
from snapfit.core.process import processor
from snapfit.data.token_cache import default_cache_dir

PROBE_ROWS, PROBE_WIDTH = 512, 768
"""Shape of the probed product: tokens of a small step by the width of a base encoder."""
WORTHWHILE_SPEEDUP = 1.15
"""bf16 must beat float32 by this factor, for it also costs conversions."""
FORMAT = 1
_MAX_BYTES = 64 * 1024


@lru_cache(maxsize=4)
def bf16_speedup(device: str = "cpu", threads: int = 0) -> float:
    """How many times faster a training product (forward and both gradients) runs under bf16 autocast.

    device: torch device type. threads: the thread count in force, part of the answer's cache key.
    The median of interleaved pairs, so that a neighbour's load hits both sides.
    """
    del threads  # only distinguishes cached answers
    layer = torch.nn.Linear(PROBE_WIDTH, PROBE_WIDTH, device=device)
    inputs = torch.ones(PROBE_ROWS, PROBE_WIDTH, device=device, requires_grad=True)

    def run(bf16: bool) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            output = layer(inputs)
        output.sum().backward()

    for bf16 in (False, True):
        run(bf16)
    ratios = []
    for _ in range(7):
        plain, half = (_seconds(run, bf16, device) for bf16 in (False, True))
        ratios.append(plain / half)
    return median(ratios)


def choose_precision(device: str = "cpu") -> tuple[str, str]:
    """("fp32" or "bf16", the reason with the figure and whether it was measured now or before).

    The figure is kept under $SNAPFIT_CACHE. A cache that is damaged or cannot be written only costs the measurement.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        return "fp32", "this GPU has no bf16"
    threads = torch.get_num_threads()
    facts, cache = _facts(device, threads), default_cache_dir()
    kept = None if cache is None else _place(cache, facts)
    speedup, when = None if kept is None else _read(kept, facts), "measured before on this machine"
    if speedup is None:
        speedup, when = bf16_speedup(device, threads), "measured"
        if kept is not None:
            _write(kept, facts, speedup)
    choice = "bf16" if speedup >= WORTHWHILE_SPEEDUP else "fp32"
    return choice, f"bf16 products run at {speedup:.2f}x the speed of fp32 on this {device}, {when}"


# ---------------------------------------------------------------- what was measured before


def _facts(device: str, threads: int) -> dict[str, str | int]:
    """All that decides the figure."""
    return {
        "format": FORMAT,
        "probe": f"{PROBE_ROWS}x{PROBE_WIDTH}",
        "torch": torch.__version__,
        "device": device,
        "processor": processor() if device == "cpu" else torch.cuda.get_device_name(),
        "threads": threads,
    }


def _place(cache: Path, facts: dict[str, str | int]) -> Path:
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache / "precision" / f"bf16-{digest[:32]}.json"


def _read(place: Path, facts: dict[str, str | int]) -> float | None:
    """The figure that is kept for exactly these facts, or None."""
    try:
        kept = read_json(place, max_bytes=_MAX_BYTES)
    except SnapfitError:
        return None
    if not isinstance(kept, dict) or kept.get("facts") != facts:
        return None
    speedup = kept.get("speedup")
    return speedup if isinstance(speedup, float) and math.isfinite(speedup) and speedup > 0 else None


def _write(place: Path, facts: dict[str, str | int], speedup: float) -> None:
    try:
        write_json_atomic(place, {"facts": facts, "speedup": speedup})
    except (OSError, SnapfitError):
        return


def _seconds(run: Callable[[bool], None], bf16: bool, device: str) -> float:
    start = time.perf_counter()
    run(bf16)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
