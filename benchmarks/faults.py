"""Faults by the hundred: the harnesses of tests/faults at their full counts.

    python benchmarks/faults.py --json benchmarks/results/faults.json --check      all, resumable; about 40 minutes
    python benchmarks/faults.py --quick                                            a tenth of it
    python benchmarks/faults.py --only kills damage --seed 7

Each harness runs in a process of its own and prints the seed that it can be replayed from. One that the machine cannot
run (no strace, no right to mount) says so and counts as not measured.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import ROOT, Results, base_parser, check_floors, last_json, machine, table

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/runtime"), str(ROOT / "tests/faults")]
BENCHMARK = "faults"
HEADER = ["harness", "trials", "bad", "seconds", "what it shows"]

Outcome = dict[str, Any]
Run = Callable[[Path, int, int], Any]
"""(empty folder, count, seed) -> a result with "trials" and "bad", or the reason why it cannot run."""


def _kills(folder: Path, count: int, seed: int) -> Any:
    import kills

    return kills.run_kills(folder, trials=count, seed=seed)


def _resumes(folder: Path, count: int, seed: int) -> Any:
    import resumes

    step = max(1, round(len(resumes.CONFIGURATIONS) * len(resumes.POINTS) / count))
    return resumes.run_resumes(folder, points=resumes.POINTS[::step], seed=seed)


def _signals(folder: Path, count: int, seed: int) -> Any:
    import signals

    return signals.run_signals(folder, moments=count // 3, seed=seed)


def _double_signals(folder: Path, count: int, seed: int) -> Any:
    import signals

    return signals.run_signals(folder, moments=count // 3, seed=seed, double=True)


def _numbers(folder: Path, count: int, seed: int) -> Any:
    import numbers_gone_wrong

    return numbers_gone_wrong.run_numbers(folder, trials=count, seed=seed)


def _memory(folder: Path, count: int, seed: int) -> Any:
    import memory_runs_out

    return memory_runs_out.run_out_of_memory(folder, trials=count, seed=seed)


def _real_shortage(folder: Path, count: int, seed: int) -> Any:
    import memory_runs_out

    return memory_runs_out.run_real_shortage(folder, trials=count, seed=seed)


def _damage(folder: Path, count: int, seed: int) -> Any:
    import damage

    return damage.run_damage(folder, count=count, seed=seed)


def _histories(folder: Path, count: int, seed: int) -> Any:
    import histories

    return histories.run_histories(folder, sequences=count, seed=seed)


def _killed_calls(folder: Path, count: int, seed: int) -> Any:
    import syscalls
    import tracing

    return tracing.why_no_tracing(folder) or syscalls.run_kill_at_syscalls(folder, seed=seed, count=_part(count))


def _failing_calls(folder: Path, count: int, seed: int) -> Any:
    import syscalls
    import tracing

    return tracing.why_no_tracing(folder) or syscalls.run_io_errors(folder, seed=seed, count=_part(count))


def _failing_saves(folder: Path, count: int, seed: int) -> Any:
    import failing_saves
    import tracing

    return tracing.why_no_tracing(folder) or failing_saves.run_failing_saves(folder, trials=count, seed=seed)


def _full_disks(folder: Path, count: int, seed: int) -> Any:
    import disks
    import mounts

    return mounts.why_no_full_disks(folder) or disks.run_full_disks(folder, trials=count, seed=seed)


def _power_cuts(folder: Path, count: int, seed: int) -> Any:
    import disks
    import mounts

    return mounts.why_no_power_cuts(folder) or disks.run_power_cuts(folder, trials=count, seed=seed, resume_every=4)


def _part(count: int) -> int | None:
    """How many system calls to strike; none given: every one."""
    return None if count >= EVERY_CALL else count


EVERY_CALL = 10_000
HARNESSES: dict[str, tuple[int, Run, str]] = {
    "kills": (200, _kills, "SIGKILL at random moments, resumed to the end: weights, optimizer, metrics, answers equal"),
    "killed-calls": (EVERY_CALL, _killed_calls, "SIGKILL at every system call of saving, pruning and bundling"),
    "failing-calls": (EVERY_CALL, _failing_calls, "every such call failing with ENOSPC, EIO, EMFILE, EACCES"),
    "failing-saves": (60, _failing_saves, "one failing call in a save of a whole training"),
    "full-disks": (10, _full_disks, "a disk that is full, then freed: the run goes on to the same end"),
    "power-cuts": (100, _power_cuts, "power cuts: every checkpoint that was announced is valid"),
    "resumes": (783, _resumes, "resumed after every step, in each configuration: bit-identical"),
    "histories": (500, _histories, "random sequences of train, kill, resume, extend, damage, move"),
    "damage": (
        2000,
        _damage,
        "flipped bits; truncated, swapped, missing, extra files: refused, the older one taken",
    ),
    "numbers": (60, _numbers, "NaN, infinity and loss spikes: noticed at once, none saved, macro-F1 within 0.5 points"),
    "memory": (40, _memory, "memory that runs out: same rows, same rates, same losses to 1e-5"),
    "real-shortage": (5, _real_shortage, "memory that really runs out (RLIMIT_AS)"),
    "signals": (120, _signals, "SIGINT, SIGTERM, SIGUSR1: state saved, exit code never 0, resumed to the same end"),
    "double-signals": (60, _double_signals, "two signals: at once, and only valid files are left"),
}
"""Full count, how to run it, and what it shows, by name."""


def run_here(name: str, count: int, seed: int) -> Outcome:
    """Run one harness in this process."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="snapfit-faults-") as folder:
        os.environ["SNAPFIT_CACHE"] = f"{folder}/cache"
        place = Path(folder) / "work"
        place.mkdir()
        result = HARNESSES[name][1](place, count, seed)
    if isinstance(result, str):
        return {"skipped": result}
    outcome = {key: value for key, value in asdict(result).items() if key != "bad"}
    outcome.setdefault("trials", outcome.get("sequences"))
    return {**outcome, "bad": len(result.bad), "bad_ones": [str(one) for one in result.bad[:10]]}


def run_apart(name: str, count: int, seed: int) -> Outcome:
    """Run one harness in a process of its own; what it prints goes through."""
    command = [sys.executable, __file__, "--one", name, str(count), "--seed", str(seed)]
    return last_json(command, OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="true")


def main() -> None:
    """Run what is missing, print the table, hold it against the floors."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--only", nargs="*", choices=list(HARNESSES), metavar="NAME", help=", ".join(HARNESSES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "COUNT"), help="run one harness and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_here(arguments.one[0], int(arguments.one[1]), arguments.seed)))
        return
    results = Results(arguments.json)
    for name in arguments.only or HARNESSES:
        count = HARNESSES[name][0]
        if arguments.quick:
            count = max(3, min(count, 400) // 10)
        if name not in results.runs:
            print(f"{name}: seed {arguments.seed} …", flush=True)
            results.add(name, run_apart(name, count, arguments.seed))
            print(f"{name}: {results.runs[name]}", flush=True)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows(results)))
    if arguments.check:
        missed = check_floors(BENCHMARK, figures(results))
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


def rows(results: Results) -> list[list[str]]:
    """A line for each harness that was run."""
    lines = []
    for name, (_, _, shows) in HARNESSES.items():
        run = results.runs.get(name)
        if run is None or "skipped" in run:
            lines.append([name, "", "", "", f"not run: {run['skipped']}" if run else "not run"])
        else:
            lines.append([name, f"{run['trials']:,}", str(run["bad"]), f"{run['seconds']:,.0f}", shows])
    return lines


def figures(results: Results) -> dict[str, float]:
    """What the limits are held against: trials and bad ones of each harness."""
    measured = {}
    for name, run in results.runs.items():
        if "skipped" not in run:
            measured |= {f"{name} trials": float(run["trials"]), f"{name} bad": float(run["bad"])}
    return measured


if __name__ == "__main__":
    main()
