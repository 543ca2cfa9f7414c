"""Writes docs/results.md, docs/performance.md and tables of other pages from what the benchmarks stored.

python benchmarks/write_results.py
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import check
import checkpoint_cost
import decisions
import explanations
import faults
import imbalance
import label_errors
import long_texts
import memory
import parity
import regimes
import speed
import time_to_accuracy
from accuracy import CASES, HF_DEFAULT, HF_TUNED, summarise
from harness import ROOT, Results, check_floors, processor_of, table

FOLDER = ROOT / "benchmarks/results"
STORED = FOLDER / "accuracy.json"
HEADER = ["case", "system", "metric", "mean ± sd", "seeds", "steps", "train s"]
SHOWN = {
    "minilm-banking77": "MiniLM, Banking77",
    "minilm-sst2": "MiniLM, SST-2",
    "minilm-fp32": "MiniLM, Banking77, float32",
    "base-banking77": "BERT-base, Banking77",
    "xlmr-base-banking77": "XLM-R-base, Banking77",
}
"""Cases of the READMEs' table of speed."""
NOTES = """Test splits are scored once, with the weights that the validation split chose; where a set has no validation
file, a stratified part of the training table is held out. For SST-2 and STS-B the official development set is the
test split. `thucnews/random-encoder` trains four layers of 256 with a character vocabulary from random weights: no
pretrained weights are used. Seconds are of runs of one thread, several at a time on a shared machine: they say what a
run cost there, not how fast the systems are beside each other.

All rows were measured before rows were packed and layers fused. What those change is measured in
[performance.md](performance.md), on the same seeds with and without.
"""


IMBALANCE = """`python benchmarks/imbalance.py --json benchmarks/results/imbalance.json --check`; what the options are,
and what follows from this, is in [imbalance.md](imbalance.md). Test splits are scored once, with the last weights: none
are chosen. "less plain" is the mean over seeds of the difference to the plain loss, with its standard error; all
figures but nll are in points. Recall of the rare third is the mean over the third of the classes that has the fewest
training rows. "macro-F1, tuned" has for each label the threshold that is best on the development split; the others 0.5.
"""


def imbalance_part(stored: Results) -> list[str]:
    """What each option for rare classes does: lines of docs/results.md."""
    tables = imbalance.page(stored)
    return ["## Rare classes", "", IMBALANCE, *tables] if tables else []


def faults_part() -> list[str]:
    """What came of faults on purpose, and what checkpoints cost: lines of docs/results.md."""
    lines = []
    stored = Results(FOLDER / "faults.json")
    if stored.runs:
        lines += [
            "## Faults on purpose",
            "",
            "`python benchmarks/faults.py --json benchmarks/results/faults.json --check`; each prints its seed.",
            "",
            table(faults.HEADER, faults.rows(stored)),
            "",
        ]
    figures = Results(FOLDER / "checkpoint_cost.json").runs.get(checkpoint_cost.BENCHMARK)
    if figures:
        lines += [
            "## What checkpoints cost",
            "",
            "`python benchmarks/checkpoint_cost.py --json benchmarks/results/checkpoint_cost.json --check`: Banking77,",
            f"the starter encoder, {len(figures['ratios'])} pairs of runs by turns, {figures['threads']} threads, "
            f"{describe(figures['machine'])}; load {figures['machine']['load']} at the end.",
            "",
            table(checkpoint_cost.HEADER, checkpoint_cost.rows(figures)),
            "",
        ]
    return lines + memory_part() + check_part() + label_errors_part()


def long_texts_part() -> list[str]:
    """What to read of long texts: lines of docs/results.md, and the table of docs/long-texts.md is put there."""
    stored = Results(FOLDER / "long_texts.json")
    if not stored.runs:
        return []
    rows, _ = long_texts.summarise(stored)
    put("long-texts", table(long_texts.HEADER, rows), ["docs/long-texts.md"])
    runs = [one for one in stored.runs.values() if not one["quick"]]
    described = dict.fromkeys(describe(one["machine"]) for one in runs)
    loads = [one["machine"]["load"] for one in runs]
    return [
        "## Long texts",
        "",
        "`python benchmarks/long_texts.py --json benchmarks/results/long_texts.json --check`: imdb_5k cut to",
        f"{long_texts.LIMIT} tokens, the starter encoder; see [long-texts.md](long-texts.md).",
        f"{'; '.join(described)}; load {min(loads):.1f} to {max(loads):.1f}.",
        "",
        table(long_texts.HEADER, rows),
        "",
    ]


def label_errors_part() -> list[str]:
    """How many flipped labels are found: lines of docs/results.md."""
    stored = Results(FOLDER / "label_errors.json")
    if not stored.runs:
        return []
    machines = dict.fromkeys(describe(run["machine"]) for run in stored.runs.values())
    return [
        "## Label errors",
        "",
        "`python benchmarks/label_errors.py --json benchmarks/results/label_errors.json --check`: 5 % of the labels of",
        "a training table are flipped, evenly to any other label or to one of the three nearest ones (by TF-IDF); then",
        "`snapfit train --folds 5 --fold-bundle none`, the starter encoder and the default recipe. k is how many were",
        "flipped: precision at k is recall at k too. Beside it, that of cleanlab's other two measures of a label.",
        "Suspected: as many as confident learning estimates to be wrong; how many of these were flipped; how many of",
        "the flipped are among them; and for how many of those the label suggested is the one they had. "
        + "; ".join(machines)
        + ".",
        "",
        table(label_errors.HEADER, label_errors.rows_of(stored)),
        "",
    ]


def memory_part() -> list[str]:
    """Whether memory is flat over rows: lines of docs/results.md."""
    stored = Results(FOLDER / "memory.json")
    if not stored.runs:
        return []
    found = memory.figures(stored)
    machines = [run["machine"] for run in stored.runs.values()]
    loads = [machine["load"] for machine in machines]
    return [
        "## Memory over rows",
        "",
        "`python benchmarks/memory.py --json benchmarks/results/memory.json --check`: 200 steps of 64 rows in a fresh",
        "process each; first: nothing cached, whole: every row tokenised before the first step, again: all cached,",
        "another seed. "
        + "; ".join(dict.fromkeys(describe(machine) for machine in machines))
        + f". The load was {min(loads):.1f} to {max(loads):.1f}:",
        "seconds of one run say little beside those of another.",
        "A table of one pool, such as the smallest, is held as a whole, and so takes more than those of many.",
        "",
        table(memory.HEADER, memory.rows(stored)),
        "",
        "Largest ratio of peaks, with or without mapped pages: "
        + ", ".join(f"{value:.3f} ({memory.RATIOS[name]})" for name, value in found.items())
        + ".",
        "",
        memory.computed(stored),
        "",
    ]


def check_part() -> list[str]:
    """What a check of tables finds, and how long it takes: lines of docs/results.md."""
    stored = Results(FOLDER / "check.json")
    if not stored.runs:
        return []
    machines = [run["machine"] for run in stored.runs.values()]
    loads = [machine["load"] for machine in machines]
    lines = [
        "## Checks of tables",
        "",
        "`python benchmarks/check.py --json benchmarks/results/check.json --check`; "
        + "; ".join(dict.fromkeys(describe(machine) for machine in machines))
        + f". The load was {min(loads):.1f} to {max(loads):.1f}:",
        "seconds of the processor say more than those of the wall.",
        "",
    ]
    for text, (header, rows) in zip(CHECK_NOTES, check.TABLES, strict=True):
        lines += [text, "", table(header, rows(stored)), ""]
    return lines


CHECK_NOTES = (
    "Real sets, with the starter encoder (which knows no Chinese). Rows that repeat the text of an earlier row of the\n"
    "split, and how many of them character for character; texts of the training table with different labels; rows of\n"
    "the other splits with a training text. The rows that were named are those that plain dictionaries count.",
    "Faults put in on purpose, each in a table of its own, and how many of their rows were named; those under more\n"
    "were named and are none. Before anything was put in, no finding was an error.",
    "Near-duplicates among short texts made of the standard library's docstrings, one in a hundred of them once more\n"
    "with a few edits; recall over those that are at least 90 % alike.",
    "A whole check of a large file, without near-duplicates and encoder.",
)


def results_page(results: Results) -> str:
    """docs/results.md: the table of means, every run, regimes, faults, costs, and the machines."""
    rows, _ = summarise(results)
    runs = []
    machines: dict[str, None] = {}
    for run in results.runs.values():
        metrics = ", ".join(f"{k} {v:.4f}" for k, v in run["metrics"].items() if k in CASES[run["case"]].metrics)
        runs.append(
            [run["case"], run["system"], str(run["seed"]), metrics, f"{run['train_seconds']:,.0f}", run["date"]]
        )
        machines[describe(run["machine"])] = None
    of_regimes = Results(FOLDER / "regimes.json")
    of_imbalance = Results(FOLDER / "imbalance.json")
    for others in (of_regimes, of_imbalance):
        machines |= dict.fromkeys(describe(run["machine"]) for run in others.runs.values())
    return "\n".join(
        [
            "# Measured results",
            "",
            "## Accuracy",
            "",
            "Generated by `python benchmarks/write_results.py` from `benchmarks/results/accuracy.json`, which",
            "`python benchmarks/accuracy.py --json benchmarks/results/accuracy.json` fills, run by run.",
            "",
            table(HEADER, rows),
            "",
            NOTES,
            "## Every run",
            "",
            table(["case", "system", "seed", "test metrics", "train s", "date"], runs),
            "",
            *regimes.page(of_regimes),
            *imbalance_part(of_imbalance),
            *long_texts_part(),
            *faults_part(),
            "## Machines",
            "",
            *[f"- {name}" for name in machines],
            "",
        ]
    )


PERFORMANCE = """# Training speed

Generated by `python benchmarks/write_results.py` from `benchmarks/results/speed.json`, which
`python benchmarks/speed.py --json benchmarks/results/speed.json --check` fills, round by round.

All take turns in fresh processes on the same machine: transformers' `Trainer` as it comes (float32, batches of 8 in
random order) and tuned (bf16, lengths grouped, batches of 32), and a plain loop of torch (`benchmarks/plain_torch.py`:
float32, batches of 32 in random order, padded to their longest). Real tokens a second are compared, padding not
counted; ratios are medians over rounds, their spread in brackets. "products": the time that the step's matrix products
take alone, as a share of the step; "optimizer": norms, clipping, update and clearing of gradients. The encoders called
base have random weights: only their speed is measured.
"""


PARTS = """## A step by part

Some steps after those that are timed run under torch's profiler; each part's share of them is shown as a part of the
timed step. Every operation counts for itself, forwards and backwards. "products" are the encoder's matrix products;
"attention", "norms, dropout", "gelu" and "column sums" (gradients of biases) are what is between them; "copies for
products" turns weights and states into bf16, and stacks weights; "optimizer" is norms, clipping, update and clearing of
gradients; "the rest" is mostly Python and autograd between the operations.
"""


PARITY = """## As accurate as the plain step

`python benchmarks/parity.py --json benchmarks/results/parity.json --check`: the same recipe and seeds with all of the
above ("fast"), and in float32 on padded rows with torch's own operators and attention dropout ("plain"). One epoch, two
for MRPC; of SST-2 20,000 rows, scored on 10,000 others. Accuracy in percent, mean and standard deviation over seeds;
the difference is of pairs, with its standard error.
"""

TIME = """## Time to an accuracy

`python benchmarks/time_to_accuracy.py --json benchmarks/results/time_to_accuracy.json --check`: Banking77 with the
starter encoder; seconds of the whole command, from its start to its end.
"""


def performance_page(stored: Results) -> str:
    """docs/performance.md."""
    lines = [PERFORMANCE]
    by_processor = speed.summary(stored)
    for processor, by_case in by_processor.items():
        lines += [f"## On {processor}", "", *speed_part(by_case), ""]
    lines += [PARTS]
    for processor, by_case in by_processor.items():
        if parts := speed.parts_table(by_case):
            lines += [f"On {processor}:", "", parts, ""]
    pages = [("parity", parity, PARITY), ("time_to_accuracy", time_to_accuracy, TIME)]
    machines = [run["machine"] for run in stored.runs.values()]
    for name, benchmark, about in pages:
        other = Results(FOLDER / f"{name}.json")
        rows, _ = benchmark.summarise(other)
        if rows:
            lines += ["", about, table(benchmark.HEADER, rows)]
            machines += [run["machine"] for run in other.runs.values()]
    return "\n".join([*lines, "", *(f"Machine: {name}." for name in dict.fromkeys(map(describe, machines))), ""])


def speed_part(by_case: dict[str, dict[str, float]]) -> list[str]:
    """What was measured on one processor."""
    lines = [table(speed.HEADER, speed.rows(by_case)), ""]
    for name, found in by_case.items():
        lines.append(f"- {name}: rounds {found['rounds']}, {found['tokens_per_step']:,.0f} real tokens a step")
        if "busy_over_quiet" in found:
            lines[-1] += f"; beside a foreign busy process a step takes {found['busy_over_quiet']:.2f} times as long"
        if "vs_tuned" in found and "seconds of products" in found:
            alone = found["tokens_per_step"] / found["seconds of products"] / found["tuned_tokens_per_s"]
            lines[-1] += f"; were a step its products alone, it would be {alone:.2f} times as fast as Trainer tuned"
    if missed := check_floors("speed", speed.measured(by_case)):
        lines += ["", "Floors that are missed, set for a processor with AMX (`benchmarks/floors.toml`):", ""]
        lines += [f"- {sentence}" for sentence in missed]
    return lines


def describe(machine: dict[str, Any]) -> str:
    """A machine in a line."""
    name = processor_of(machine) if "family" in machine else machine.get("processor")
    return f"{name}, {machine.get('cores')} cores, {', '.join(machine.get('features', []))}"


def readme_table(results: Results) -> str:
    """A short table: snapfit's means, beside Trainer's where they were measured."""
    _, means = summarise(results)
    titles = {"": "snapfit", f" {HF_TUNED}": "Trainer, tuned", f" {HF_DEFAULT}": "Trainer, default"}
    names = [f"{case} {metric}" for case, entry in CASES.items() for metric in entry.metrics]
    endings = [ending for ending in titles if any(name + ending in means for name in names)]
    rows = []
    for name in names:
        cells = [means.get(name + ending) for ending in endings]
        if any(cell is not None for cell in cells):
            rows.append([*name.split(" "), *("" if cell is None else f"{cell:.4f}" for cell in cells)])
    return table(["case", "metric", *(titles[ending] for ending in endings)], rows)


def speed_table(stored: Results) -> str:
    """A short table: rates and ratios, on each processor."""
    rows = []
    for processor, by_case in speed.summary(stored).items():
        for name, title in SHOWN.items():
            if name in by_case:
                found = by_case[name]
                ratios = [f"{found[key]:.1f}x" if key in found else "" for key in ("vs_default", "vs_tuned")]
                rows.append([processor, title, f"{found['tokens_per_s']:,.0f}", *ratios])
    return table(["processor", "encoder, data", "tokens/s", "over Trainer", "over Trainer, tuned"], rows)


def put(name: str, content: str, files: Sequence[str] = ("README.md", "README.zh-CN.md")) -> None:
    """Put a table between the marks of this name in each of the files, by default both READMEs."""
    mark = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
    for file in files:
        path = ROOT / file
        block = f"<!-- {name} -->\n{content}\n<!-- /{name} -->"
        path.write_text(mark.sub(lambda _, block=block: block, path.read_text("utf-8")), "utf-8")


def main() -> None:
    """Write all files."""
    results = Results(STORED)
    (ROOT / "docs/results.md").write_text(results_page(results), "utf-8")
    measured = Results(FOLDER / "speed.json")
    if measured.runs:
        (ROOT / "docs/performance.md").write_text(performance_page(measured), "utf-8")
    put("results", readme_table(results))
    put("speed", speed_table(measured))
    decided = Results(FOLDER / "decisions.json")
    if decided.runs:
        put("decisions", decisions.page(decided), ("docs/decisions.md",))
    explained = Results(FOLDER / "explanations.json")
    if explained.runs:
        put("explanations", explanations.page(explained), ("docs/explanations.md",))
    print(json.dumps({"runs": len(results.runs)}))


if __name__ == "__main__":
    main()
