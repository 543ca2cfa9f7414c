"""Bad command lines about runs: resumed, continued from, in the way, or range tests; test_bad_input.py runs them."""

from pathlib import Path
from typing import Any

import toys
from bad_folders import Prepare, _copied, cut, edited, flipped, with_file
from bad_tables import GOOD, case

LABELS = GOOD.replace("food", "meals")
SCORES = "text,score\n" + "".join(f"{row['text']},{row['score']}\n" for row in toys.regression_rows(40))


def run(name: str, flags: str, *words: str, change: Prepare = lambda folder: None, table: str | None = None) -> Any:
    """Resuming a copy of the workplace's run, of which nothing says that it is complete, after a change."""

    def prepare(folder: Path) -> None:
        copy = _copied(folder, "single", "r")
        (copy / "result.json").unlink()
        change(copy)

    files = {} if table is None else {"t.csv": table}
    command = f"train {'t.csv ' if files else ''}--resume r {flags}".strip()
    return case(f"resume {name}", command, *words, files=files, prepare=prepare)


def further(name: str, flags: str, *words: str, change: Prepare = lambda folder: None, table: str = GOOD) -> Any:
    """Training a copy of the workplace's bundle further, after a change."""
    return case(
        f"continue {name}",
        f"train t.csv --out out {flags}",
        *words,
        files={"t.csv": table},
        prepare=lambda folder: change(_copied(folder, "single/bundle", "b")),
    )


# ---------------------------------------------------------------- changes to a run's folder


def all_of(*changes: Prepare) -> Prepare:
    return lambda folder: [change(folder) for change in changes]


def spoilt_checkpoints(folder: Path) -> None:
    for checkpoint in (folder / "checkpoints").iterdir():
        flipped(checkpoint)


def other_encoder(folder: Path) -> None:
    toys.encoder_folder(folder.parent / "e", intermediate_size=48)


def other_tokenizer(folder: Path) -> None:
    toys.encoder_folder(folder.parent / "e")
    path = folder.parent / "e" / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace('"honey"', '"money"'), "utf-8")


def of_tables(**tables: str | None) -> Prepare:
    return edited("request.json", tables=tables)


# ---------------------------------------------------------------- the cases

RESUMED = [
    case("resume nothing", "train --resume nowhere", "nowhere is missing", "give TRAIN too"),
    case("weigh nothing", "ensemble nowhere", "nowhere is missing", "check the path"),
    case("resume a file", "train --resume r", "r is a file", "folder of a run", files={"r": ""}),
    case("resume an empty folder", "train --resume r", "r is not a run's folder", files={"r": None}),
    case("resume a bundle", "train --resume {bundle}", "is not a run's folder", "request.json"),
    case("resume a journal alone", "train --resume r", "not a run's folder", files={"r/journal.jsonl": ""}),
    case("resume into what is no run", "train t.csv --resume r", "r exists already", files={"t.csv": GOOD, "r/x": ""}),
    case("resume without a table", "train t.csv --resume r", "t.csv does not exist"),
    run("and start", "--out out", "both out and resume"),
    run("and continue", "--continue-from b", "both continue_from and resume"),
    run("with a broken request", "", "request.json", change=with_file("request.json", b"{")),
    run("of another format", "", "is not that of a run", change=edited("request.json", format=2)),
    run("without tables in it", "", "no tables or no recipe", change=edited("request.json", tables=None)),
    run("with a broken recipe", "", "recipe.yaml", "not YAML", change=with_file("recipe.yaml", b"train: [")),
    run("with an unknown setting", "", "train.speed", change=with_file("recipe.yaml", b"train: {speed: 3}")),
    run("with a broken journal", "", "journal.jsonl", "line 1", change=with_file("journal.jsonl", b"[]\n[]\n")),
    run("whose table is gone", "", "gone.csv does not exist", change=of_tables(train="gone.csv")),
    run("of a table in memory", "", "was not a file", "give it again", change=of_tables(train=None)),
    run("of a test table in memory", "", "the test table", "not a file", change=of_tables(train="r/x", test=None)),
    run("with another seed", "--seed 3", "train.seed was 0, is 3", "--continue-from"),
    run("with another seed, accepted", "--seed 3 --accept-changes", "train.seed was 0, is 3"),
    run("with another batch", "--set train.batch=8", "train.batch was 16, is 8"),
    run("with another pooling", "--set model.pooling=max", "model.pooling was", "'max'"),
    run("with more epochs", "--epochs 9", "train.epochs was 2.0, is 9.0", "--accept-changes if you mean it"),
    run("with other data", "", "the train table was", "rows", table=GOOD),
    run("with other labels", "", "labels was", "'meals'", table=LABELS),
    run("with other data, accepted", "--accept-changes", "the train table was", table=GOOD),
    run("with another encoder", "--encoder e", "encoder was", change=other_encoder),
    run("with another tokenizer", "--encoder e", "tokenizer was", change=other_tokenizer),
    run("with a missing encoder", "--encoder ./nowhere", "./nowhere"),
    run("with a bad setting", "--set optim.lr=-1", "optim.lr"),
    run("that is damaged, with other data", "", "the train table was", change=spoilt_checkpoints, table=GOOD),
    run("that is damaged, with another seed", "--seed 3", "train.seed was 0", change=spoilt_checkpoints),
    run(
        "that is damaged all over",
        "",
        "data.json",
        change=all_of(spoilt_checkpoints, with_file("data.json", b"{}")),
    ),
]

CONTINUED = [
    case("continue nothing", "train t.csv --continue-from nowhere", "nowhere is missing", files={"t.csv": GOOD}),
    case("continue an encoder", "train t.csv --continue-from {encoder}", "snapfit.json", files={"t.csv": GOOD}),
    case("continue a run folder", "train t.csv --continue-from {run}", "single/bundle", files={"t.csv": GOOD}),
    further("with an encoder", "--continue-from b --encoder starter", "model.encoder is 'starter'", "leave it out"),
    further("with another pooling", "--continue-from b --set model.pooling=max", "model.pooling is 'max'"),
    further("with a fresh head", "--continue-from b --set model.head=fresh", "model.head is 'fresh'"),
    further("for another task", "--continue-from b", "the task of b is 'single'", "'regression'", table=SCORES),
    further("a damaged bundle", "--continue-from b", "model.safetensors", "changed", change=flipped),
    further("a cut bundle", "--continue-from b", "model.safetensors", "bytes", change=cut("model.safetensors")),
    further(
        "a bundle of a newer format", "--continue-from b", "format 4", change=edited("snapfit.json", format_version=4)
    ),
    further("a head that is none", "--encoder b --set model.head=kept --set model.pooling=max", "the pooling of b"),
    case(
        "keep the head of an encoder",
        "train t.csv --encoder {encoder} --out out --set model.head=kept",
        "snapfit.json",
        files={"t.csv": GOOD},
    ),
]

IN_THE_WAY = [
    case(
        "begin where a run is finished",
        "train t.csv --encoder {encoder} --out {run}",
        "a finished run",
        "--resume",
        files={"t.csv": GOOD},
    ),
    case(
        "begin where a run is unfinished",
        "train t.csv --encoder {encoder} --out r",
        "an unfinished run",
        "snapfit train --resume r",
        files={"t.csv": GOOD, "r/request.json": "{}"},
    ),
]


def finding(name: str, flags: str, *words: str, **options: Any) -> Any:
    """A range test on a good table with bad options."""
    files = {"t.csv": GOOD, **options.pop("files", {})}
    return case(f"find-lr {name}", f"find-lr t.csv --encoder {{encoder}} {flags}", *words, files=files, **options)


FOUND = [
    finding("from 0", "--lowest 0", "rates from 0 to 1", "above 0", "--lowest 1e-7"),
    finding("from below 0", "--lowest=-1e-5", "rates from -1e-05 to 1"),
    finding("downwards", "--lowest 1e-2 --highest 1e-3", "rates from 0.01 to 0.001"),
    finding("in place", "--lowest 1e-3 --highest 1e-3", "rates from 0.001 to 0.001"),
    finding("to infinity", "--highest inf", "rates from 1e-07 to inf"),
    finding("to no number", "--highest nan", "rates from 1e-07 to nan"),
    finding("in too few steps", "--steps 9", "9 steps", "at least 10"),
    finding("into a picture of no kind", "--plot a.txt", "a.txt", ".svg, .png, .pdf"),
    finding("into a picture without a suffix", "--plot svg", "the plot svg", "ends in"),
    finding("into no folder", "--plot nowhere/a.svg", "no folder nowhere", "mkdir -p nowhere"),
    finding("into a folder", "--plot a.svg", "a.svg", "no file", files={"a.svg": None}),
    finding("below a file", "--plot t.csv/a.svg", "no folder t.csv"),
    finding("with a bad setting", "--set optim.lr=-1", "optim.lr"),
    finding("with a bad seed", "--seed x", "train.seed"),
    finding("with too deep a freeze", "--set optim.freeze_layers=99", "freeze_layers"),
    case("find-lr nowhere", "find-lr t.csv --encoder {encoder}", "t.csv does not exist"),
    case("find-lr a bad table", "find-lr t.csv --encoder {encoder}", "t.csv", files={"t.csv": ""}),
]

RUNS = [*RESUMED, *CONTINUED, *IN_THE_WAY, *FOUND]
RUN_USAGE = [
    case("continue without a table", "train --continue-from b", "Missing argument"),
    case("resume without its value", "train --resume", "--resume"),
    case("find-lr without a table", "find-lr", "Missing argument"),
    case("find-lr with steps that are no number", "find-lr t.csv --steps few", "--steps"),
]
