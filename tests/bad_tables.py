"""Bad tables and bad settings, as command lines that test_bad_input.py runs."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import toys

Content = bytes | str | None
Prepare = Callable[[Path], object]
ROWS = "".join(f"{row['text']},{row['label']}\n" for row in toys.single_rows(60))
GOOD = f"text,label\n{ROWS}"
PAIRS = "sentence1,sentence2,label\n" + "".join(f"a saw,a {word},{word}\n" for word in ("cat", "owl") * 20)


class Case(NamedTuple):
    """A command line that must be refused.

    files: written into an empty folder first; None makes a folder. prepare: what else is done there, with a
    workplace's folders copied or linked in. words: parts of the error, whatever their case.
    """

    arguments: Sequence[str]
    words: Sequence[str]
    files: Mapping[str, Content]
    prepare: Prepare | None = None
    stdin: bytes = b""


def case(name: str, command: str, *words: str, **options: Any) -> Any:
    """One parameter set; {encoder}, {bundle} and {pairs} in the command are folders of the workplace."""
    files = options.pop("files", {})
    return pytest.param(Case(command.split(" "), words, files, **options), id=name)


def table(name: str, content: Content, *words: str, file: str = "t.csv", flags: str = "") -> Any:
    """Training on a bad table."""
    command = f"train {file} --encoder {{encoder}} --out out {flags}".strip()
    return case(name, command, *words, files={file: content})


def setting(value: str, *words: str) -> Any:
    """Training with a bad setting."""
    command = f"train t.csv --encoder {{encoder}} --out out --set {value}"
    return case(f"set {value}", command, *words, files={"t.csv": GOOD})


def recipe(name: str, content: Content, *words: str) -> Any:
    """Training with a bad recipe file."""
    command = "train t.csv --encoder {encoder} --out out --recipe r.yaml"
    return case(f"recipe {name}", command, *words, files={"t.csv": GOOD, "r.yaml": content})


def option(name: str, flags: str, *words: str, **options: Any) -> Any:
    """Training on a good table with bad options."""
    files = {"t.csv": GOOD, **options.pop("files", {})}
    return case(name, f"train t.csv --out out {flags}", *words, files=files, **options)


def parquet(columns: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file)
    return file.getvalue()


# ---------------------------------------------------------------- the cases

TABLES = [
    case("missing table", "train t.csv --encoder {encoder} --out out", "t.csv does not exist"),
    case("missing table without --out", "train t.csv --encoder {encoder}", "t.csv does not exist"),
    table("empty file", "", "empty"),
    table("blank lines only", "\n\r\n\n", "empty"),
    table("header only", "text,label\n", "no rows"),
    table("not UTF-8", b"text,label\ncaf\xe9,a\n", "line 2", "not UTF-8", "--encoding"),
    table("GBK without --encoding", f"text,label\n我想取消,a\n{ROWS}".encode("gbk"), "line 2", "gb18030"),
    table(
        "wrong --encoding", b"text,label\ncaf\xff,a\n" + ROWS.encode(), "line 2", "gb18030", flags="--encoding gb18030"
    ),
    table("unknown --encoding", GOOD, "data.encoding", "klingon", flags="--encoding klingon"),
    table("encoding that is no text encoding", GOOD, "data.encoding", flags="--encoding base64"),
    table("too few cells", f"text,label\n{ROWS}alone\n", "line 62", "1 cells"),
    table("too many cells", f"text,label\na,b,c\n{ROWS}", "line 2", "3 cells"),
    table("unclosed quote", f'text,label\n{ROWS}"never closed,a\n', "line 62"),
    table("ragged TSV", "text\tlabel\na\tb\tc\n", "line 2", "3 cells", file="t.tsv"),
    table("CSV called TSV", GOOD, file="t.tsv"),
    table("bad JSON line", '{"text": "a", "label": "b"}\n{"text": \n', "line 2", file="t.jsonl"),
    table("JSON array", '[{"text": "a", "label": "b"}]\n', "only", file="t.jsonl"),
    table("JSON of mixed kinds", '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n', "label", file="t.jsonl"),
    table(
        "JSON without a key",
        '{"text": "a", "label": "x"}\n{"text": "b"}\n',
        "'label'",
        "missing",
        "line 2",
        file="t.jsonl",
    ),
    table("columns of one name", "text,text,label\na,b,c\n", "2 columns named 'text'"),
    table("no text column", "a,b,label\nx,y,z\n", "'a', 'b', 'label'", "--text"),
    table("no label column", f"text,kind of thing\n{ROWS}", "'kind of thing'", "--label"),
    table("two label columns", "text,intent,category\na,b,c\n", "'intent'", "'category'", "--label"),
    table("--text names no column", GOOD, "'txet'", flags="--text txet"),
    table("--label names no column", GOOD, "'lable'", "did you mean --label 'label'", flags="--label lable"),
    table("--pair names no column", GOOD, "'second'", flags="--pair second"),
    table("null text", parquet({"text": ["a", None], "label": ["x", "y"]}), "'text'", "row 2", file="t.parquet"),
    table("null label", parquet({"text": ["a", "b"], "label": ["x", None]}), "'label'", "row 2", file="t.parquet"),
    table("text that is a number", parquet({"text": [1, 2], "label": ["x", "y"]}), "int64", file="t.parquet"),
    table("empty label", f"text,label\n{ROWS}bread,\n", "'label'", "empty", "line 62"),
    table("every text empty", "text,label\n,a\n,b\n", "empty", "texts"),
    table("one class only", "text,label\na,x\nb,x\nc,x\n", "one label only", "'x'"),
    table("NaN target", "text,score\na,1.5\nb,nan\n", "'score'", "line 3", flags="--task regression"),
    table("target that is no number", "text,score\na,1.5\nb,much\n", "'score'", "line 3", flags="--task regression"),
    table("infinite target", "text,score\na,1e999\nb,2\n", "'score'", "line 2", flags="--task regression"),
    table("regression of words", GOOD, "'label'", "number", flags="--task regression"),
    table("multi without delimiter", GOOD, "--delimiter", flags="--task multi"),
    table("column of many labels without delimiter", "text,labels\na,x|z\nb,y\n", "--delimiter '|'"),
    table("an empty label between delimiters", "text,labels\na,x||y\n", "line 2", "empty", flags="--delimiter |"),
    table("delimiter with a single task", GOOD, "data.delimiter", flags="--delimiter | --task single"),
    table(
        "lists with a single task",
        '{"text": "a", "labels": ["x"]}\n',
        "task single",
        "multi",
        file="t.jsonl",
        flags="--task single",
    ),
    table("binary file", bytes(range(256)) * 20, "t.csv"),
    table("NUL character", "text,label\na\0b,c\n", "NUL"),
    table("truncated Parquet", parquet({"text": ["a"], "label": ["b"]})[:-9], "Parquet", file="t.parquet"),
    table("CSV called Parquet", GOOD, "Parquet", file="t.parquet"),
    table("unsupported suffix", GOOD, ".xlsx", file="t.xlsx"),
    table("compressed file", b"\x1f\x8b\x08\x00", ".gz", "decompress", file="t.csv.gz"),
    table("unknown --format", GOOD, "data.format", flags="--format excel"),
    table("empty folder", None, "no tables", file="folder"),
    case(
        "folder of two kinds",
        "train folder --encoder {encoder} --out out",
        "several formats",
        files={"folder/a.csv": GOOD, "folder/b.tsv": GOOD.replace(",", "\t")},
    ),
    case(
        "folder of two headers",
        "train folder --encoder {encoder} --out out",
        "b.csv",
        "'title'",
        files={"folder/a.csv": GOOD, "folder/b.csv": f"title,label\n{ROWS}"},
    ),
    table("two rows", "text,label\na,x\nb,y\n"),
    option(
        "unknown label in valid",
        "--encoder {encoder} --valid v.csv",
        "v.csv",
        "'drinks'",
        files={"v.csv": "text,label\ntea,drinks\n"},
    ),
    option("valid without label", "--encoder {encoder} --valid v.csv", "'label'", files={"v.csv": "text,n\na,1\n"}),
    option(
        "valid without the text column",
        "--encoder {encoder} --valid v.csv",
        "'text'",
        files={"v.csv": "review,label\na,food\n"},
    ),
    option("missing test", "--encoder {encoder} --test v.csv", "v.csv"),
    case(
        "missing second texts in valid",
        "train t.csv --encoder {encoder} --out out --valid v.csv",
        "sentence2",
        files={"t.csv": PAIRS, "v.csv": "sentence1,label\na,cat\n"},
    ),
]

SETTINGS = [
    setting("optim.learning_rate=1e-4", "optim.learning_rate", "one of name, lr"),
    setting("optin.lr=1e-4", "optin.lr", "did you mean optim.lr"),
    setting("lr=1e-4", "'lr'", "optim.lr"),
    setting("optim.lr", "SECTION.KEY=VALUE"),
    setting("optim.lr=fast", "optim.lr", "'fast'", "a number above 0"),
    setting("optim.lr=0", "optim.lr"),
    setting("optim.lr=-1e-4", "optim.lr"),
    setting("optim.lr=nan", "optim.lr"),
    setting("optim.lr=inf", "optim.lr"),
    setting("optim.head_lr_factor=0", "head_lr_factor"),
    setting("optim.layer_ratio=1.5", "layer_ratio", "at most 1"),
    setting("optim.layer_ratio=0", "layer_ratio"),
    setting("optim.weight_decay=-0.1", "weight_decay"),
    setting("optim.max_grad_norm=-1", "max_grad_norm"),
    setting("optim.freeze_layers=-1", "freeze_layers"),
    setting("optim.freeze_layers=99", "freeze_layers", "0 to 3"),
    setting("optim.freeze_layers=1.5", "freeze_layers", "whole number"),
    setting("optim.name=adamw2", "adamw2"),
    setting("optim.name=LBFGS", "LBFGS"),
    setting("optim.betas=[0.9]", "betas", "a list of 2"),
    setting("optim.betas=[0.9,1.0]", "betas"),
    setting("optim.eps=0", "eps"),
    setting("model.dropout=1.0", "model.dropout"),
    setting("model.pooling=best", "model.pooling", "native"),
    setting("model.reinit_layers=99", "reinit_layers"),
    setting("schedule.shape=triangle", "schedule.shape", "cosine_restarts"),
    setting("schedule.cycles=3", "schedule.cycles", "cosine_restarts"),
    setting("schedule.warmup_fraction=1", "warmup_fraction"),
    setting("schedule.floor=-0.1", "schedule.floor"),
    setting("schedule.cycle_decay=0", "cycle_decay"),
    setting("train.epochs=0", "train.epochs"),
    setting("train.epochs=many", "train.epochs", "auto"),
    setting("train.batch=0", "train.batch"),
    setting("train.batch=2.5", "train.batch", "whole number"),
    setting("train.accumulate=0", "train.accumulate"),
    setting("train.token_budget=0", "token_budget"),
    setting("train.seed=-1", "train.seed"),
    setting("train.seed=4294967296", "train.seed"),
    setting("train.precision=fp16", "train.precision", "bf16"),
    setting("train.patience=0", "train.patience"),
    setting("train.metric=f1", "train.metric", "macro_f1"),
    setting("train.metric=pearson", "train.metric", "single"),
    setting("train.threads=0", "train.threads"),
    setting("length.max_tokens=2", "max_tokens"),
    setting("length.max_tokens=65", "max_tokens", "64"),
    setting("length.policy=middle", "length.policy", "head+tail", "windows"),
    setting("length.policy=window", "length.policy", "did you mean windows"),
    setting("length.head_share=1", "head_share", "below 1"),
    setting("length.overlap=1", "overlap", "below 1"),
    setting("length.max_windows=0", "max_windows"),
    setting("length.window_pooling=sum", "window_pooling", "max_states"),
    option(
        "windows that a native head cannot pool",
        "--encoder {encoder} --set length.policy=windows --set length.window_pooling=attention "
        "--set model.pooling=native",
        "length.window_pooling is 'attention'",
    ),
    setting("data.valid_fraction=0.6", "valid_fraction", "0.5"),
    setting("data.valid_fraction=-0.1", "valid_fraction"),
    setting("loss.label_smoothing=1", "label_smoothing"),
    setting("loss.class_weights=even", "class_weights", "balanced"),
    setting('loss.class_weights={"drinks":2}', "class_weights", "'drinks'"),
    setting('loss.class_weights={"food":-1}', "class_weights"),
    setting("log.level=loud", "log.level", "debug"),
    setting("log.interval_steps=0", "interval_steps"),
    setting("checkpoint.every_steps=0", "every_steps"),
    setting("checkpoint.keep=0", "checkpoint.keep"),
    setting("train.window=0", "train.window"),
    setting("train.sampling=rare", "train.sampling", "balanced"),
    setting("train.sampling_power=0", "train.sampling_power"),
    setting("train.sampling_power=1.5", "train.sampling_power"),
    setting("loss.function=dice", "loss.function", "focal"),
    setting("loss.function=asymmetric", "loss.function", "focal"),
    setting("loss.gamma=-1", "loss.gamma"),
    setting("loss.margin=1", "loss.margin"),
    setting("loss.effective_beta=1", "loss.effective_beta"),
    setting("train.max_recoveries=-1", "max_recoveries"),
    setting("model.head=old", "model.head", "kept"),
    option(
        "more cycles than steps",
        "--encoder {encoder} --epochs 0.5 --set schedule.shape=cosine_restarts --set schedule.cycles=500",
        "cycles",
    ),
    option("one setting twice", "--encoder {encoder} --epochs 2 --set train.epochs=3", "train.epochs", "twice"),
    option("--epochs that is no number", "--encoder {encoder} --epochs few", "train.epochs", "'few'"),
    option("--seed that is no number", "--encoder {encoder} --seed x", "train.seed"),
    option("unknown --task", "--encoder {encoder} --task ranking", "data.task", "regression"),
    recipe("that is not YAML", "train: [1, 2\n", "r.yaml", "line"),
    recipe("that is a list", "- 1\n- 2\n", "r.yaml", "a list"),
    recipe("with a key twice", "train:\n  seed: 1\n  seed: 2\n", "line 3", "'seed'"),
    recipe("with an unknown section", "training:\n  seed: 1\n", "training"),
    recipe("with a bad value", "train:\n  seed: -1\n", "r.yaml, line 2", "train.seed"),
    recipe("that is not UTF-8", b"train:\n  seed: \xff\n", "UTF-8"),
    recipe("that is a folder", None, "r.yaml"),
    option("missing recipe", "--encoder {encoder} --recipe r.yaml", "no file r.yaml"),
    option("--out that exists", "--encoder {encoder}", "out exists already", files={"out/journal.jsonl": "x"}),
    option("--out that is a file", "--encoder {encoder}", "out exists already", files={"out": "x"}),
    case("--out below a file", "train t.csv --encoder {encoder} --out f/out", "f/out", files={"t.csv": GOOD, "f": ""}),
    case(
        "bad setting with --out some folders down",
        "train t.csv --encoder {encoder} --out a/b/c --set optim.freeze_layers=99",
        "freeze_layers",
        files={"t.csv": GOOD},
    ),
    case(
        "bad setting without --out",
        "train t.csv --encoder {encoder} --set optim.freeze_layers=99",
        "freeze_layers",
        files={"t.csv": GOOD},
    ),
    option(
        "bad setting with an empty --out",
        "--encoder {encoder} --set optim.freeze_layers=99",
        "freeze_layers",
        files={"out": None},
    ),
]
