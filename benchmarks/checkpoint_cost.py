"""What checkpoints cost: how long a save holds training up, what saving adds to a run, how fast a run goes on.

    python benchmarks/checkpoint_cost.py --json benchmarks/results/checkpoint_cost.json
    python benchmarks/checkpoint_cost.py --quick                      fewer and shorter runs

Banking77 with the starter encoder, the process set up as the command does it. Runs that save every 100 steps and runs
that save only their first and last state take turns and take the same steps, so each step has its like in the other
run. The steps that no save touches tell how much faster or slower the machine was in one of the two runs; what the
steps that a save touches take beyond that is what saving adds. The plain ratio of the runs, in which a shared machine's
drift of a tenth hides it, is shown beside it. Nothing else heavy may run meanwhile: the load is printed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from snapfit.core.process import settle_process

PROCESS = settle_process()  # as the command does, before torch is loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

import snapfit  # noqa: E402
from harness import ROOT, Results, base_parser, check_floors, machine, table  # noqa: E402
from snapfit.nn.encoder import find_encoder  # noqa: E402
from snapfit.training.assemble import build_model  # noqa: E402

BENCHMARK = "checkpoint_cost"
SKIPPED_STEPS = 20
"""Steps at the beginning that are not looked at: the first ones are slower."""
AFTER = 5
"""Steps after a save that may still feel it."""
HEADER = ["what", "measured", "limit"]


class Clock:
    """A listener that notes when each step ended and what the saves said."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.step_ended: dict[int, float] = {}
        self.blocked: list[float] = []
        self.saved: dict[int, float] = {}  # by step, in seconds
        self._stop_after = stop_after

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            self.step_ended[event["number"]] = time.perf_counter()
            if self._stop_after is not None and event["number"] >= self._stop_after:
                raise _Enough
        elif event["kind"] == "checkpoint" and event["step"] > 0:
            self.blocked.append(event["blocked_seconds"])
            self.saved[event["step"]] = event["seconds"]

    def steps(self) -> np.ndarray:
        """Seconds of each step from SKIPPED_STEPS + 1 to the last but one."""
        last = max(self.step_ended)
        return np.diff([self.step_ended[i] for i in range(SKIPPED_STEPS, last)])

    def touched(self) -> np.ndarray:
        """Whether each of `steps` ran while a save was under way, or up to AFTER steps later."""
        ends = np.array([self.step_ended[i] for i in range(SKIPPED_STEPS + 1, max(self.step_ended))])
        numbers = np.arange(SKIPPED_STEPS + 1, max(self.step_ended))
        touched = np.zeros(len(ends), dtype=bool)
        for step, seconds in self.saved.items():
            until = int(np.searchsorted(ends, self.step_ended[step] + seconds)) + SKIPPED_STEPS + 1 + AFTER
            touched |= (numbers > step) & (numbers <= until)
        return touched


def added(with_saves: Clock, without: Clock) -> tuple[float, float]:
    """What saving added to a run, as a factor: from the steps that saves touched, and plainly from all."""
    slow, fast, touched = with_saves.steps(), without.steps(), with_saves.touched()
    expected = fast * np.median((slow / fast)[~touched])
    return 1 + float((slow - expected)[touched].sum() / expected.sum()), float(slow.sum() / fast.sum())


class _Enough(Exception):
    """The part of a run that is timed is over."""


def run(data: Path, out: Path, *, epochs: float, every_steps: int | str, clock: Clock, **options: Any) -> None:
    """One training on Banking77."""
    settings = {"epochs": epochs, "checkpoint__every_steps": every_steps, "log__interval_steps": 1}
    settings |= {"evaluations_per_epoch": 1, "seed": 1}
    source = {} if "resume" in options else {"table": data / "banking77/train.csv", "out": out}
    snapfit.train(**source, listener=clock, **(options if "resume" in options else settings | options))


def measure(data: Path, *, pairs: int, epochs: float) -> dict[str, Any]:
    """All figures, from runs that take turns."""
    ratios, plain, blocked, saved = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="snapfit-cost-") as folder:
        work = Path(folder)
        for pair in range(pairs):
            clocks = {}
            order = [("with", 100), ("without", "none")]
            for name, every_steps in order if pair % 2 == 0 else reversed(order):
                clocks[name] = Clock()
                run(data, work / f"{name}-{pair}", epochs=epochs, every_steps=every_steps, clock=clocks[name])
            for kept, value in zip((ratios, plain), added(clocks["with"], clocks["without"]), strict=True):
                kept.append(value)
            blocked += clocks["with"].blocked
            saved += clocks["with"].saved.values()
            print(
                f"pair {pair + 1}: {ratios[-1]:.4f}, plain {plain[-1]:.4f}, load {os.getloadavg()[0]:.2f}", flush=True
            )
        resumed = [resume_seconds(data, work / f"resumed-{i}") for i in range(3)]
    return {
        "ratios": ratios,
        "plain_ratios": plain,
        "process": PROCESS,
        "cost_percent": 100 * (statistics.median(ratios) - 1),
        "blocked_seconds": statistics.median(blocked),
        "blocked_seconds_most": max(blocked),
        "save_seconds": statistics.median(saved),
        "saves": len(blocked),
        "resume_seconds": statistics.median(total for total, _ in resumed),
        "load_seconds": statistics.median(load for _, load in resumed),
        "resume_seconds_beyond_load": statistics.median(total - load for total, load in resumed),
        "threads": torch.get_num_threads(),
    }


def resume_seconds(data: Path, out: Path) -> tuple[float, float]:
    """Seconds from the call that resumes to the end of the first step; and those that loading the model takes alone."""
    with suppress(_Enough):
        run(data, out, epochs=1, every_steps=25, clock=Clock(stop_after=60))
    start = time.perf_counter()
    clock = Clock(stop_after=1)
    with suppress(_Enough):
        run(data, out, epochs=1, every_steps=25, clock=clock, resume=out)
    total = clock.step_ended[min(clock.step_ended)] - start
    recipe = snapfit.load_recipe(out / "recipe.yaml", environment={})
    start = time.perf_counter()
    names = [str(i) for i in range(77)]
    build_model(recipe, find_encoder("starter"), task="single", label_names=names, pooling="mean")
    return total, time.perf_counter() - start


def spread(values: list[float]) -> str:
    """The least and the most."""
    return f"{min(values):.4f} to {max(values):.4f}"


def rows(figures: dict[str, Any]) -> list[list[str]]:
    """The figures beside their limits."""
    return [
        ["a save holds training up, median", f"{figures['blocked_seconds']:.3f} s", "< 0.3 s"],
        ["a save holds training up, longest", f"{figures['blocked_seconds_most']:.3f} s", ""],
        ["a save until it is safe on disk, median", f"{figures['save_seconds']:.2f} s", ""],
        ["saving every 100 steps adds, median of pairs", f"{figures['cost_percent']:.2f} %", "< 3 %"],
        ["spread of the pairs", spread(figures["ratios"]), ""],
        ["the machine's drift left in: spread", spread(figures["plain_ratios"]), ""],
        ["resume to first step beyond model load", f"{figures['resume_seconds_beyond_load']:.2f} s", "< 3 s"],
    ]


def main() -> None:
    """Measure, print, keep, and hold the figures against their limits."""
    parser = base_parser(__doc__ or "")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    )
    arguments: argparse.Namespace = parser.parse_args()
    if not (arguments.data / "banking77").exists():
        sys.exit(f"Banking77 is not in {arguments.data}; --data names another place")
    pairs, epochs = (2, 0.5) if arguments.quick else (5, 1.0)
    results = Results(arguments.json)
    if BENCHMARK not in results.runs or arguments.quick:
        results.add(BENCHMARK, measure(arguments.data, pairs=pairs, epochs=epochs))
    figures = results.runs[BENCHMARK]
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows(figures)))
    if arguments.check:
        missed = check_floors(BENCHMARK, figures)
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
