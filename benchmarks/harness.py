"""What every benchmark shares: the machine's description, resumable results, tables, floors."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FLOORS = Path(__file__).with_name("floors.toml")


def machine() -> dict[str, Any]:
    """The processor, its cores and features that matter, and the load now."""
    info: dict[str, Any] = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        info["processor"] = platform.processor()
        return info
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    info["processor"] = fields.get("model name", "unknown")
    info["family"] = fields.get("cpu family", "unknown")  # virtual machines tell no more of a name than the maker's
    flags = fields.get("flags", "").split()
    info["features"] = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if f in flags]
    return info


def processor_of(machine: Mapping[str, Any]) -> str:
    """What a machine's processor is called; those of one maker are told apart by their family."""
    return f"{machine.get('processor')} family {machine.get('family', 'unknown')}"


def peak_rss_mib() -> int:
    """The most resident memory that this program has had; getrusage would count the process that started it too."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:", 1)[1].split()[0]) // 1024


def last_json(command: list[str], cwd: Path | None = None, **environment: str) -> dict[str, Any]:
    """Run a command and return what it printed last, a JSON line; RuntimeError with the end of its errors if it fails.

    environment: set beside the process's own; no hub is asked, and tokenizers start no threads.
    """
    done = subprocess.run(command, cwd=cwd, env=_calm(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(_failed(command, done.returncode, done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def json_lines(command: list[str], cwd: Path, **environment: str) -> Iterator[dict[str, Any]]:
    """As `last_json`, of a command that prints a JSON line for each thing it has done, each as soon as it is there."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=cwd) as errors:
        with subprocess.Popen(
            command, cwd=cwd, env=_calm(environment), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            for line in process.stdout or ():
                yield json.loads(line)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(_failed(command, process.returncode, errors.read()))


def _calm(environment: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **environment}


def _failed(command: list[str], code: int, errors: str) -> str:
    return f"{' '.join(command)}\nended with {code}:\n{errors[-2000:]}"


def base_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small version, under 5 minutes on 2 cores")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep results here; runs found in it are not repeated"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a floor of floors.toml is missed")
    return parser


class Results:
    """Results of single runs by key, kept in a JSON file after each one, so that a benchmark can be continued.

    Results may be added from several threads.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._adding = threading.Lock()
        self.runs: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self.runs = json.loads(path.read_text("utf-8"))["runs"]

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a run's result, and the file with it."""
        with self._adding:
            self.runs[key] = {**result, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                staged = self.path.with_suffix(".tmp")
                staged.write_text(json.dumps({"runs": self.runs}, indent=1, ensure_ascii=False) + "\n", "utf-8")
                staged.replace(self.path)


def mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in [header, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def check_floors(benchmark: str, measured: Mapping[str, float]) -> list[str]:
    """Sentences about the limits of a benchmark that `measured` misses; what was not measured counts as missed.

    A limit is a floor, which the figure must reach, or a ceiling, which it must stay below.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        sys.exit("--check needs Python 3.11 or newer")
    floors = tomllib.loads(FLOORS.read_text("utf-8")).get(benchmark, {})
    missed = []
    for name, entry in floors.items():
        value = measured.get(name)
        kind = "floor" if "floor" in entry else "ceiling"
        holds = value is not None and (value >= entry[kind] if kind == "floor" else value < entry[kind])
        if not holds:
            missed.append(f"{name}: measured {'nothing' if value is None else f'{value:.4g}'}, {kind} {entry[kind]}")
    return missed
