"""Which precision this machine is really faster in: measured, because bf16 support does not mean bf16 speed.

Processors with AMX run bf16 products several times faster than float32; others accept bf16 and are slower with it.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median

import torch

PROBE_ROWS, PROBE_WIDTH = 512, 768
"""Shape of the probed product: tokens of a small step by the width of a base encoder."""
WORTHWHILE_SPEEDUP = 1.15
"""bf16 must beat float32 by this factor, for it also costs conversions."""


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
    """("fp32" or "bf16", the reason with the measured figure)."""
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        return "fp32", "this GPU has no bf16"
    speedup = bf16_speedup(device, torch.get_num_threads())
    choice = "bf16" if speedup >= WORTHWHILE_SPEEDUP else "fp32"
    return choice, f"bf16 products run at {speedup:.2f}x the speed of fp32 on this {device}, measured"


def _seconds(run: Callable[[bool], None], bf16: bool, device: str) -> float:
    start = time.perf_counter()
    run(bf16)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
