"""Scale in rows: whether memory stays flat from a million rows to twenty million, and when the first step is taken.

    python benchmarks/memory.py --json benchmarks/results/memory.json --check
    python benchmarks/memory.py --quick                      20,000 and 100,000 rows, with pools of 8,192

Synthetic CSV files (twelve words a text, four labels) and a tiny encoder with random weights, so that what grows with
the rows is all there is to see. For each size three fresh processes train 200 steps through `snapfit.train`:

- first: nothing is cached. The first step should come before the whole table is tokenised.
- whole: with a token budget, whose steps can only be counted when every row is tokenised and every pool ordered.
- again: with another seed and all in the cache, so that every pool is gathered from all over the files.

Peaks are the kernel's: VmHWM (with pages of mapped files) and the largest RssAnon seen (without them). The last line of
the table computes what 100 million rows take, from the bytes a row and what is held for each block of 1,024 rows.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import Results, base_parser, check_floors, machine, table

BENCHMARK = "memory"
SIZES = (1_000_000, 5_000_000, 20_000_000)
QUICK_SIZES = (20_000, 100_000)
STEPS, BATCH = 200, 64
POOL_ROWS = {False: 2**20, True: 8_192}
"""Beyond so many rows a table is read and ordered pool by pool; quickly, fewer."""
RUNS = ("first", "whole", "again")
LABELS = ("north", "east", "south", "west")
HEADER = ["rows", "run", "peak RSS MB", "of 1st size", "peak anonymous MB", "first step s", "tokenised rows/s", "steps"]
RATIOS = {"ratio": "to the smallest table", "large_ratio": "to the smallest one of many pools"}
_SLAB = 100_000
_PHRASES = 65_536
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def write_table(path: Path, n: int, *, seed: int = 0) -> None:
    """A CSV file of `n` rows: twelve words and a label that one of them tells."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(_LETTERS, size=size)) for size in rng.integers(2, 9, 4_000)]
    phrases = [" ".join(words[i] for i in row) for row in rng.integers(0, len(words), (_PHRASES, 4))]
    with open(path, "w", encoding="utf-8") as file:
        file.write("text,label\n")
        for start in range(0, n, _SLAB):
            rows = rng.integers(0, _PHRASES, (min(_SLAB, n - start), 3)).tolist()
            file.write("".join(f"{phrases[a]} {phrases[b]} {phrases[c]},{LABELS[a % 4]}\n" for a, b, c in rows))


def write_encoder(folder: Path, csv: Path) -> None:
    """A tiny encoder with random weights, its tokenizer made from the table's first texts."""
    from snapfit.ship.random_encoder import write_random_encoder

    with open(csv, encoding="utf-8") as file:
        texts = [next(file).partition(",")[0] for _ in range(5_000)]
    write_random_encoder(folder, texts, layers=2, width=64, vocabulary=4_000, seed=0)


# ---------------------------------------------------------------- one run, in a process of its own


class Watch:
    """Notes the largest anonymous memory of this process, and when things happened."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.at: dict[str, float] = {}
        self.steps = 0
        self.anonymous_kb = 0
        threading.Thread(target=self._sample, daemon=True).start()

    def __call__(self, event: dict[str, Any]) -> None:
        """Hear an event of the journal."""
        self.at.setdefault(event["kind"], time.perf_counter() - self.start)
        if event["kind"] == "step":
            self.steps = event["number"]

    def _sample(self) -> None:
        while True:
            self.anonymous_kb = max(self.anonymous_kb, status("RssAnon"))
            time.sleep(0.02)


def status(field: str) -> int:
    """A number of /proc/self/status, in KB."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def work(asked: dict[str, Any]) -> dict[str, Any]:
    """Train as asked, and tell what it took."""
    from snapfit.core.process import settle_process

    settle_process()  # as the command does, before torch is loaded
    import snapfit
    from snapfit.data import formats
    from snapfit.data.batches import PoolSizes
    from snapfit.training import prepare

    if asked["quick"]:  # so that small tables count as large
        prepare.SIZES, formats.STREAMED_BYTES = PoolSizes(POOL_ROWS[True], 256), 2**20
    loaded = status("VmRSS")
    watch = Watch()
    settings = {"encoder": asked["encoder"], "epochs": asked["epochs"], "batch": BATCH, "precision": "fp32"}
    snapfit.train(
        asked["table"], out=asked["out"], listener=watch, log__interval_steps=1, **settings, **asked["settings"]
    )
    return {
        "peak_mb": status("VmHWM") / 1024,
        "anonymous_mb": watch.anonymous_kb / 1024,
        "loaded_mb": loaded / 1024,
        "read_s": watch.at["data"],
        "plan_s": watch.at["start"] - watch.at["recipe"],
        "first_step_s": watch.at["step"],
        "seconds": watch.at["end"],
        "steps": watch.steps,
    }


# ---------------------------------------------------------------- all runs of a size


def measure(n: int, work_folder: Path, results: Results, *, names: list[str], quick: bool) -> None:
    """Add what each of the named runs took on a table of `n` rows; all files are removed again."""
    folder = Path(tempfile.mkdtemp(prefix=f"rows-{n}-", dir=work_folder))
    try:
        write_table(folder / "table.csv", n)
        write_encoder(folder / "encoder", folder / "table.csv")
        for name in names:
            if name == "whole":
                shutil.rmtree(folder / "cache/tokens", ignore_errors=True)
            one = {"rows": n, "run": name, "quick": quick, **run(folder, name, n, quick=quick)}
            one["csv_bytes_per_row"] = (folder / "table.csv").stat().st_size / n
            for kind in ("tables", "tokens"):
                one[f"{kind}_bytes_per_row"] = folder_bytes(folder / "cache" / kind) / n
            one["rows_per_s"] = n / one["plan_s"] if name == "whole" else 0.0
            results.add(f"{n} {name}", one)
            print(one, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, name: str, n: int, *, quick: bool) -> dict[str, Any]:
    """One run in a fresh process."""
    settings = {"first": {}, "whole": {"token_budget": 2**20}, "again": {"seed": 1}}[name]
    asked = {
        "table": str(folder / "table.csv"),
        "encoder": str(folder / "encoder"),
        "out": str(folder / f"run-{name}"),
        "epochs": STEPS * BATCH / n,
        "settings": settings,
        "quick": quick,
    }
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(asked)],
        env={**os.environ, "SNAPFIT_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


# ---------------------------------------------------------------- figures


def figures(results: Results) -> dict[str, float]:
    """What is held to a limit: the largest ratios of peaks, with and without mapped pages.

    ratio: to the peaks of the smallest table. large_ratio: to those of the smallest table that has many pools.
    """
    sizes = sorted({one["rows"] for one in results.runs.values()})
    large = sorted({one["rows"] for one in results.runs.values() if one["rows"] > POOL_ROWS[one.get("quick", False)]})
    found = {"ratio": ratio(results, sizes), "large_ratio": ratio(results, large)}
    return {name: value for name, value in found.items() if value is not None}


def ratio(results: Results, sizes: list[int]) -> float | None:
    """The largest ratio of a peak to that of the same run on the smallest of these tables; None of fewer than two."""
    runs = results.runs
    found = [
        runs[f"{n} {name}"][peak] / runs[f"{sizes[0]} {name}"][peak]
        for n in sizes[1:]
        for name in RUNS
        for peak in ("peak_mb", "anonymous_mb")
        if f"{n} {name}" in runs and f"{sizes[0]} {name}" in runs
    ]
    return max(found, default=None)


def rows(results: Results) -> list[list[str]]:
    """Every run, and what 100 million rows take by computation."""
    sizes = sorted({one["rows"] for one in results.runs.values()})
    shown = []
    for n in sizes:
        for name in (name for name in RUNS if f"{n} {name}" in results.runs):
            one, base = results.runs[f"{n} {name}"], results.runs[f"{sizes[0]} {name}"]
            rate = f"{one['rows_per_s']:,.0f}" if one["rows_per_s"] else ""
            shown.append(
                [f"{n:,}", name, f"{one['peak_mb']:.0f}", f"{one['peak_mb'] / base['peak_mb']:.3f}"]
                + [f"{one['anonymous_mb']:.0f}", f"{one['first_step_s']:.0f}", rate, str(one["steps"])]
            )
    return shown


BLOCK_BYTES = 8 + 8 + 4 + 8
"""Held for a block of 1,024 rows: its place in an epoch's order and while that is sorted, its pool, its start."""
BATCH_BYTES = 1_000
"""About what Arrow holds of a record batch of 65,536 rows of a mapped table: its buffers' addresses."""


def computed(results: Results, n: int = 100_000_000) -> str:
    """What `n` rows take, from what the largest table took and what is held for each block."""
    runs = list(results.runs.values())
    largest = max(one["rows"] for one in runs)
    one = max((run for run in runs if run["rows"] == largest), key=lambda run: run["peak_mb"])
    # Bytes of tokens of the largest table that was tokenised to its end.
    whole = max((run for run in runs if run["run"] != "first"), key=lambda run: run["rows"], default=one)
    disk = one["tables_bytes_per_row"] + whole["tokens_bytes_per_row"]
    more = (n - largest) * (BLOCK_BYTES / 1024 + BATCH_BYTES / 65_536)
    return (
        f"By computation, {n:,} rows: {more / 2**20:.1f} MB in memory beyond the {one['peak_mb']:.0f} MB of "
        f"{largest:,} rows ({BLOCK_BYTES} bytes a block of 1,024, {BATCH_BYTES:,} a batch of 65,536), and "
        f"{disk * n / 1e9:.1f} GB in the cache folder ({disk:.0f} bytes a row: table "
        f"{one['tables_bytes_per_row']:.0f}, tokens {whole['tokens_bytes_per_row']:.0f}) beside a CSV file of "
        f"{one['csv_bytes_per_row'] * n / 1e9:.1f} GB."
    )


def main() -> None:
    """Measure, print, keep, and hold the figures against their limits."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where tables are made")
    parser.add_argument("--sizes", type=int, nargs="*", help="rows of each table, instead of the usual ones")
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=RUNS, help="some of the three runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(work(json.loads(arguments.worker))))
        return
    results = Results(arguments.json)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for n in arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES):
        names = [name for name in arguments.runs if f"{n} {name}" not in results.runs]
        if "again" in names and "whole" not in names:
            names.insert(names.index("again"), "whole")  # which fills the cache that it reads
        if names:
            measure(n, arguments.work, results, names=names, quick=arguments.quick)
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows(results)))
    print(f"\n{computed(results)}")
    if arguments.check:
        missed = check_floors(BENCHMARK, figures(results))
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
