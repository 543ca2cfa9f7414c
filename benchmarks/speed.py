"""Training speed beside transformers' Trainer and a plain loop, as ratios: they take turns in fresh processes.

    python benchmarks/speed.py --json benchmarks/results/speed.json --check      everything, resumable
    python benchmarks/speed.py --quick                                            MiniLM on Banking77, two rounds
    python benchmarks/speed.py --only minilm-banking77 --rounds 5

A round runs each system of a case once. Real tokens a second are compared, padding not counted, after the first ten
steps. A product is timed before and after each round: one in which it drifts by more than DRIFT is done again.
Trainer runs by the script --peer, in both of its settings; the plain loop is plain_torch.py, in float32. After the
steps that are timed, snapfit's are looked at by part: see step_parts.py. Ratios are those of a processor: rounds on
another one are counted, shown and held against the floors by themselves.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT, Results, base_parser, check_floors, last_json, machine, processor_of, table

DRIFT = 0.05
TRIES = 3
WORKER = Path(__file__).with_name("speed_worker.py")
PLAIN = Path(__file__).with_name("plain_torch.py")
PEERS = ("default", "tuned", "plain")
"""Trainer's two settings, and the plain loop."""
HEADER = ["case", "snapfit tokens/s", *PEERS, *(f"vs {peer}" for peer in PEERS), "products", "optimizer", "MiB"]
PART = "seconds of "
"""Before the name of a part of the step, among the figures."""
PLAIN_STEPS = 50
"""Of the plain loop, at most: its order is random, so that few steps are as good as many, and each is slow."""
Run = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    folder, train: the data. shape: a random encoder of this shape instead of the starter. settings: of snapfit beyond
    its default recipe. peers: what of PEERS to run beside it. steps: of each run. batch: of all but Trainer's default.
    busy: also time snapfit beside a foreign busy process.
    """

    folder: str = "banking77"
    train: str = "train.csv"
    shape: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    peers: tuple[str, ...] = PEERS[:2]
    steps: int = 110
    batch: int = 32
    busy: bool = False


CASES = {
    "minilm-banking77": Case(peers=PEERS, busy=True),
    "minilm-sst2": Case("sst2", "train.tsv"),
    "minilm-1k-tokens": Case(batch=64, peers=(), steps=60),
    "minilm-fp32": Case(settings={"train.precision": "fp32"}, peers=("default",)),
    "base-banking77": Case(shape="bert-base", steps=60),
    "base-1k-tokens": Case(shape="bert-base", batch=64, peers=(), steps=25),
    "xlmr-base-banking77": Case(shape="xlm-r-base", steps=60, peers=("tuned",)),
}
SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512},
    "xlm-r-base": {
        "model_type": "xlm-roberta",
        "vocab_size": 250_002,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
}


def encoder_of(shape: str | None, work: Path) -> str:
    """The starter's folder, or one with random weights of this shape and the starter's tokenizer."""
    from snapfit.nn.encoder import find_encoder

    starter = find_encoder("starter").folder
    if shape is None:
        return str(starter)
    folder = work / shape
    if not folder.exists():
        import shutil

        import torch
        from transformers import AutoConfig, AutoModel

        wanted = dict(SHAPES[shape])
        config = AutoConfig.for_model(wanted.pop("model_type"), **wanted)
        torch.manual_seed(0)
        AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            if (starter / name).exists():
                shutil.copy(starter / name, folder / name)
    return str(folder)


def ours(case: Case, data: Path, encoder: str, **more: int) -> Run:
    """One run of snapfit; more: of what the worker takes."""
    settings = {"train.batch": case.batch, "length.max_tokens": 128, **case.settings}
    asked = {"table": str(data / case.folder / case.train), "encoder": encoder, "steps": case.steps, **more}
    return last_json([sys.executable, str(WORKER), json.dumps({**asked, "settings": settings})], Path.cwd())


def calibration() -> float:
    """GFLOP/s of one product in a process of its own, now."""
    return float(last_json([sys.executable, str(WORKER), json.dumps("calibrate")], Path.cwd())["calibration"])


def theirs(case: Case, setting: str, data: Path, encoder: str, peer: Path) -> Run:
    """One run of Trainer, or of the plain loop."""
    script = [str(PLAIN)] if setting == "plain" else [str(peer), "--setting", setting]
    command = [sys.executable, *script, "--train", str(data / case.folder / case.train), "--encoder", encoder]
    command += ["--max-steps", str(min(case.steps, PLAIN_STEPS) if setting == "plain" else case.steps)]
    command += ["--batch", str(case.batch)] if setting != "default" else []
    with tempfile.TemporaryDirectory() as scratch:
        return last_json(command, Path(scratch))


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A foreign process that keeps one core busy."""
    busy = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # also when this process is killed
    neighbour = subprocess.Popen([sys.executable, "-c", busy])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def a_round(case: Case, data: Path, encoder: str, peer: Path) -> Run:
    """Each system once; again while the machine drifts."""
    for _ in range(TRIES):
        before = calibration()
        run: Run = {"snapfit": ours(case, data, encoder)}
        for setting in case.peers:
            run[setting] = theirs(case, setting, data, encoder, peer)
        if case.busy:
            with busy_neighbour():
                run["busy"] = ours(case, data, encoder, profiled=0)
        after = calibration()
        run["drift"] = max(before, after) / min(before, after) - 1
        run["load"] = os.getloadavg()[0]
        if run["drift"] <= DRIFT:
            break
    return run


def figures(runs: list[Run]) -> dict[str, float]:
    """Medians over the rounds of a case."""

    def median(value: Any, of: list[Run] = runs) -> float:
        return statistics.median(value(run) for run in of)

    found = {
        "rounds": len(runs),
        "tokens_per_s": median(lambda run: run["snapfit"]["real_tokens_per_s"]),
        "step_seconds": median(lambda run: run["snapfit"]["step_seconds"]),
        "roofline_share": median(lambda run: run["snapfit"]["roofline_share"]),
        "optimizer_share": median(lambda run: run["snapfit"]["optimizer_share"]),
        "tokens_per_step": median(lambda run: run["snapfit"]["tokens_per_step"]),
        "peak_rss_mib": median(lambda run: run["snapfit"]["peak_rss_mib"]),
        "drift": median(lambda run: run["drift"]),
    }
    for setting in PEERS:
        beside = [run for run in runs if setting in run]  # rounds of before a peer was added are without it
        if beside:
            ratios = [run["snapfit"]["real_tokens_per_s"] / run[setting]["real_tokens_per_s"] for run in beside]
            found[f"{setting}_tokens_per_s"] = median(lambda run, s=setting: run[s]["real_tokens_per_s"], beside)
            found[f"vs_{setting}"] = statistics.median(ratios)
            found[f"vs_{setting}_least"], found[f"vs_{setting}_most"] = min(ratios), max(ratios)
    looked_at = [run for run in runs if run["snapfit"].get("parts")]
    for part in dict.fromkeys(part for run in looked_at for part in run["snapfit"]["parts"]):
        found[f"{PART}{part}"] = median(lambda run, p=part: run["snapfit"]["parts"].get(p, 0.0), looked_at)
    if "busy" in runs[0]:
        found["busy_over_quiet"] = median(lambda run: run["busy"]["step_seconds"] / run["snapfit"]["step_seconds"])
    return found


def rows(by_case: dict[str, dict[str, float]]) -> list[list[str]]:
    """The table."""

    def ratio(found: dict[str, float], setting: str) -> str:
        if f"vs_{setting}" not in found:
            return ""
        spread = f"{found[f'vs_{setting}_least']:.2f} to {found[f'vs_{setting}_most']:.2f}"
        return f"{found[f'vs_{setting}']:.2f}x ({spread})"

    return [
        [
            name,
            f"{found['tokens_per_s']:,.0f}",
            *(f"{found[f'{s}_tokens_per_s']:,.0f}" if f"{s}_tokens_per_s" in found else "" for s in PEERS),
            *(ratio(found, setting) for setting in PEERS),
            f"{100 * found['roofline_share']:.0f} %",
            f"{100 * found['optimizer_share']:.0f} %",
            f"{found['peak_rss_mib']:,.0f}",
        ]
        for name, found in by_case.items()
    ]


def parts_table(by_case: dict[str, dict[str, float]]) -> str:
    """A table of the step's parts in milliseconds, a column a case; empty where none was looked at."""
    looked_at = {name: found for name, found in by_case.items() if any(key.startswith(PART) for key in found)}
    keys = dict.fromkeys(key for found in looked_at.values() for key in found if key.startswith(PART))
    lines = [
        [
            key.removeprefix(PART),
            *(
                f"{1e3 * found[key]:.1f} ({100 * found[key] / found['step_seconds']:.0f} %)" if key in found else ""
                for found in looked_at.values()
            ),
        ]
        for key in keys
    ]
    whole = ["a step", *(f"{1e3 * found['step_seconds']:.1f}" for found in looked_at.values())]
    return table(["ms a step", *looked_at], [*lines, whole]) if looked_at else ""


def summary(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by processor and case, of what was run; the processor with the most rounds comes first."""
    found: dict[str, dict[str, list[Run]]] = {}
    for key, run in results.runs.items():
        found.setdefault(processor_of(run["machine"]), {}).setdefault(key.split("/", 1)[0], []).append(run)
    most = sorted(found, key=lambda name: -sum(map(len, found[name].values())))
    return {name: {case: figures(found[name][case]) for case in CASES if case in found[name]} for name in most}


def measured(by_case: dict[str, dict[str, float]]) -> dict[str, float]:
    """Figures of one processor under the names that floors.toml has."""
    return {f"{name} {what}": value for name, found in by_case.items() for what, value in found.items()}


def main() -> None:
    """Run what is missing, print, and hold the ratios against their floors."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--only", nargs="*", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="of each case; medians are shown")
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SNAPFIT_REAL_DATA", shared / "data")))
    parser.add_argument("--peer", type=Path, default=shared / "peers/hf_trainer.py", help="the Trainer script")
    arguments = parser.parse_args()
    for needed in (arguments.data, arguments.peer):
        if not needed.exists():
            sys.exit(f"{needed} is absent; --data and --peer name other places")
    results, here = Results(arguments.json), processor_of(machine())
    names = arguments.only or (["minilm-banking77"] if arguments.quick else list(CASES))
    with tempfile.TemporaryDirectory(prefix="snapfit-speed-") as folder:
        for number in range(2 if arguments.quick else arguments.rounds):
            for name in names:
                key = f"{name}/{here}/{number}"
                if key not in results.runs:
                    encoder = encoder_of(CASES[name].shape, Path(folder))
                    results.add(key, a_round(CASES[name], arguments.data, encoder, arguments.peer))
                    shown = {k: round(v, 3) for k, v in figures([results.runs[key]]).items() if PART not in k}
                    print(f"{key}: {shown}", flush=True)
    by_case = summary(results).get(here, {})
    print(f"\nmachine: {machine()}\n")
    print(table(HEADER, rows(by_case)))
    print(f"\n{parts_table(by_case)}\n")
    for name, found in by_case.items():
        if "busy_over_quiet" in found:
            print(f"{name}: a step beside a foreign busy process takes {found['busy_over_quiet']:.2f}x as long")
    if arguments.check:
        missed = check_floors("speed", measured(by_case))
        print("\n".join(missed) or "every floor holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
