"""Regimes of training, held against the default recipe and a peer: several tables, each resumable run by run.

    python benchmarks/regimes.py --json benchmarks/results/regimes.json --check     everything, resumable
    python benchmarks/regimes.py --quick                                             a small version of every table
    python benchmarks/regimes.py --only rates --seeds 1                              one table, one seed

Each run is a process of its own with one thread; `--jobs` run at a time. Seeds and splits are printed. Test splits are
scored once a run. What a table needs and is not there is named, and the others are measured. The tables:
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import regime_ensemble
import regime_options
import regime_peer
import regime_rates
import regime_schedules
from harness import ROOT, Results, base_parser, check_floors, machine, table
from regime_table import Place, Record, Run, Table

_ALL = (
    regime_schedules.TABLE,
    regime_rates.TABLE,
    regime_ensemble.TABLE,
    regime_options.TABLE,
    regime_peer.TABLE,
)
TABLES: dict[str, Table] = {one.name: one for one in _ALL}


def key_of(name: str, run: Run) -> str:
    """What a run's result is stored by."""
    return f"{name}: {run.key}"


def stored(results: Results, name: str, *, quick: bool = False, seeds: Sequence[int] | None = None) -> list[Record]:
    """The results of a table's runs that are there, in the order of its runs."""
    keys = [key_of(name, run) for run in TABLES[name].runs(quick=quick, seeds=seeds)]
    return [results.runs[key] for key in keys if key in results.runs]


def measure(name: str, results: Results, place: Place, arguments: argparse.Namespace) -> list[str]:
    """Do the runs of a table that are missing, where it can be measured here; sentences about runs that failed."""
    this = TABLES[name]
    runs = this.runs(quick=arguments.quick, seeds=arguments.seeds)
    missing = [run for run in runs if key_of(name, run) not in results.runs]
    if not missing:
        return []
    if absent := this.absent(place):
        print(f"{name}: not measured: {absent}", flush=True)
        return []
    print("\n".join(f"{name}: {line}" for line in this.prepare(missing, place)), flush=True)
    print(f"{name}: {len(missing)} of {len(runs)} runs to do, {arguments.jobs} at a time", flush=True)

    def one(run: Run) -> str | None:
        key = key_of(name, run)
        try:
            results.add(key, this.run(run, place))
        except RuntimeError as error:
            return f"{key}: {error}"
        load = results.runs[key]["machine"]["load"]
        print(f"{time.strftime('%H:%M:%S')} {key}: {this.line(results.runs[key])}, load {load}", flush=True)
        return None

    with ThreadPoolExecutor(arguments.jobs) as pool:
        return [sentence for sentence in pool.map(one, missing) if sentence]


def lines_of(name: str, records: Sequence[Record]) -> list[str]:
    """The table in Markdown, with what is said below it."""
    this = TABLES[name]
    notes = [f"- {note}" for note in this.notes(records)]
    if records:
        loads = [record["machine"]["load"] for record in records]
        notes.append(f"- load of the machine at the ends of runs: {min(loads)} to {max(loads)}")
    return [table(this.header, this.rows(records)), *(["", *notes] if notes else [])]


def page(results: Results) -> list[str]:
    """Lines of docs/results.md: every table of which something was measured."""
    lines = []
    for name, this in TABLES.items():
        if records := stored(results, name):
            command = f"`python benchmarks/regimes.py --json benchmarks/results/regimes.json --only {name} --check`"
            lines += [f"## {this.title}", "", f"{command}.", "", this.about, "", *lines_of(name, records), ""]
    return lines


def main() -> None:
    """Run what is missing, print the tables, hold them against their limits."""
    doc = f"{__doc__}\n" + "\n".join(f"    {name:<11}{one.title}" for name, one in TABLES.items())
    parser = base_parser(doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = Path(os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=shared, help="the folder of the data sets")
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES), metavar="TABLE")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of each table's own")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    results = Results(arguments.json)
    failed: list[str] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="snapfit-regimes-") as work:
        place = Place(arguments.data.resolve(), Path(work))
        for name in arguments.only:
            failed += measure(name, results, place, arguments)
    print(f"\nmachine: {machine()}; {arguments.jobs} processes of one thread at a time")
    for name in arguments.only:
        records = stored(results, name, quick=arguments.quick, seeds=arguments.seeds)
        print("\n".join(["", TABLES[name].title, "", *lines_of(name, records)]))
        if arguments.check:
            missed += [f"{name}: {sentence}" for sentence in check_floors(name, TABLES[name].figures(records))]
    if failed:
        print("\n".join(["", "runs that failed:", *failed]))
    if arguments.check:
        print("\n" + ("\n".join(missed) or "every limit holds"))
    sys.exit(1 if missed or failed else 0)


if __name__ == "__main__":
    main()
