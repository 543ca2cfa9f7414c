"""Bad encoders, bundles and predictions, as command lines that test_bad_input.py runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

import tiny
from bad_tables import GOOD, case, option, parquet
from snapfit.core.folders import write_manifest

Prepare = Callable[[Path], object]


def encoder(name: str, change: Prepare, *words: str, flags: str = "") -> Any:
    """Training on a copy of the encoder that was changed."""
    files = {"t.csv": GOOD}
    return case(
        f"encoder {name}",
        f"train t.csv --encoder e --out out {flags}".strip(),
        *words,
        files=files,
        prepare=lambda folder: change(_copied(folder, "encoder", "e")),
    )


def bundle(name: str, change: Prepare, *words: str) -> Any:
    """Predicting with a copy of the bundle that was changed."""
    return case(
        f"bundle {name}",
        "predict b --text bread",
        *words,
        prepare=lambda folder: change(_copied(folder, "single/bundle", "b")),
    )


# ---------------------------------------------------------------- changes to an encoder's or a bundle's folder

WORKPLACE: list[Path] = []


def _copied(folder: Path, name: str, to: str) -> Path:
    return Path(shutil.copytree(WORKPLACE[0] / name, folder / to))


def _relabelled(folder: Path, to: str) -> None:
    """The bundle of single texts with "animals" called "zoo"."""
    info = json.loads((_copied(folder, "single/bundle", to) / "snapfit.json").read_text("utf-8"))
    info["labels"]["names"] = ["zoo" if name == "animals" else name for name in info["labels"]["names"]]
    (folder / to / "snapfit.json").write_text(json.dumps(info), "utf-8")
    write_manifest(folder / to)


def without(*names: str) -> Prepare:
    return lambda folder: [(folder / name).unlink() for name in names]


def with_file(name: str, content: bytes) -> Prepare:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Prepare:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def edited(name: str, **values: Any) -> Prepare:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def narrower(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if weights[name].ndim == 2)
    weights[name] = weights[name][:, :-1].copy()
    save_file(weights, folder / "model.safetensors")


def fewer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in sorted(weights) if "attention" in name))
    save_file(weights, folder / "model.safetensors")


def flipped(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def linked_out(folder: Path) -> None:
    target = folder.parent / "elsewhere.json"
    (folder / "config.json").rename(target)
    (folder / "config.json").symlink_to(target)


def unknown_family(folder: Path) -> None:
    tiny.save_encoder(folder, "rembert")


# ---------------------------------------------------------------- the cases

ENCODERS = [
    option("missing encoder folder", "--encoder ./nowhere", "./nowhere"),
    option("encoder on no hub", "--encoder nobody/nothing", "nobody/nothing", "starter"),
    option("encoder that is a file", "--encoder ./t.csv", "t.csv"),
    encoder("without config", without("config.json"), "config.json"),
    encoder("with a broken config", with_file("config.json", b"{"), "config.json"),
    encoder("without a family", with_file("config.json", b"{}"), "model_type"),
    encoder("of a family that nobody knows", edited("config.json", model_type="berd"), "config.json"),
    encoder("without tokenizer", without("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    encoder("with a broken tokenizer", with_file("tokenizer.json", b"{"), "tokenizer"),
    encoder("with a tokenizer that is none", with_file("tokenizer.json", b'{"version": "1.0"}'), "tokenizer"),
    encoder("with too small a vocabulary", edited("config.json", vocab_size=7), "vocabulary of 7"),
    encoder("without weights", without("model.safetensors"), "model.safetensors"),
    encoder("with pickled weights", pickled, "pickle", "pytorch_model.bin"),
    encoder("with truncated weights", cut("model.safetensors"), "model.safetensors"),
    encoder("with weights of another shape", narrower, "shape"),
    encoder("with a weight missing", fewer, "lacks 1"),
    encoder("of fewer layers than its config", edited("config.json", num_hidden_layers=9), "lacks"),
    encoder("of an unknown family, native", unknown_family, "rembert", flags="--set model.pooling=native"),
]

BUNDLES = [
    case("predict with a missing bundle", "predict nowhere --text a", "nowhere is missing"),
    case("predict with a file", "predict b --text a", "not a folder", files={"b": ""}),
    case("predict with an encoder", "predict {encoder} --text a", "snapfit.json"),
    case("predict with a run folder", "predict {run} --text a", "single/bundle"),
    bundle("without weights", without("model.safetensors"), "model.safetensors"),
    bundle("without manifest", without("MANIFEST.json"), "MANIFEST.json"),
    bundle("with truncated weights", cut("model.safetensors"), "model.safetensors", "bytes"),
    bundle("with weights changed by one bit", flipped, "model.safetensors", "changed"),
    bundle("with a broken manifest", with_file("MANIFEST.json", b"{}"), "MANIFEST.json"),
    bundle("with broken settings", with_file("snapfit.json", b"{"), "snapfit.json"),
    bundle("of a newer format", edited("snapfit.json", format_version=4), "format 4", "install -U"),
    bundle("with an edited label set", edited("snapfit.json", labels={}), "snapfit.json"),
    bundle("with a link out of it", linked_out, "link"),
    bundle("with a file too many", with_file("extra.txt", b"x"), "extra.txt"),
    bundle("with a pickle", with_file("model.pkl", b"x"), "model.pkl", "pickle"),
    case("inspect nothing", "inspect ./nowhere", "nowhere"),
    case("inspect a file", "inspect t.csv", "t.csv is a file", files={"t.csv": GOOD}),
    case("inspect an empty folder", "inspect folder", "neither a bundle", files={"folder": None}),
    case("inspect a journal alone", "inspect r", "neither a bundle, nor a run", files={"r/journal.jsonl": ""}),
    case("inspect a run with a broken request", "inspect r", "r/request.json", files={"r/request.json": "{"}),
    case("evaluate with a missing bundle", "evaluate nowhere t.csv", "nowhere", files={"t.csv": GOOD}),
    case("evaluate on a missing table", "evaluate {bundle} t.csv", "t.csv"),
    case("evaluate without labels", "evaluate {bundle} t.csv", "'label'", "--label", files={"t.csv": "text\na\n"}),
    case(
        "evaluate with unknown labels", "evaluate {bundle} t.csv", "'drinks'", files={"t.csv": "text,label\na,drinks\n"}
    ),
    case(
        "evaluate with --pair on single texts",
        "evaluate {bundle} t.csv --pair x",
        "single texts",
        files={"t.csv": GOOD},
    ),
    case(
        "evaluate in an unknown encoding", "evaluate {bundle} t.csv --encoding x", "--encoding", files={"t.csv": GOOD}
    ),
    case("evaluate in an unknown format", "evaluate {bundle} t.csv --format x", "--format", files={"t.csv": GOOD}),
    case("demo where something is", "demo --out d", "d exists already", files={"d/x": ""}),
]

EVALUATIONS = [
    case("evaluate with a confidence of 95", "evaluate {bundle} t.csv --confidence 95", "95", files={"t.csv": GOOD}),
    case(
        "evaluate by a column that is not there",
        "evaluate {bundle} t.csv --slice labl",
        "'labl'",
        "--slice 'label'",
        files={"t.csv": GOOD},
    ),
    case("evaluate with odd edges", "evaluate {bundle} t.csv --length-edges 8,x", "8,x", files={"t.csv": GOOD}),
    case("evaluate with falling edges", "evaluate {bundle} t.csv --length-edges 8,4", "8, 4", files={"t.csv": GOOD}),
    case("evaluate against nothing", "evaluate {bundle} t.csv --against nowhere", "nowhere", files={"t.csv": GOOD}),
    case(
        "evaluate against a bundle of pairs",
        "evaluate {bundle} t.csv --against {pairs}",
        "pairs of texts",
        files={"t.csv": GOOD},
    ),
    case(
        "evaluate against other labels",
        "evaluate {bundle} t.csv --against b",
        "'animals'",
        "'zoo'",
        files={"t.csv": GOOD},
        prepare=lambda folder: _relabelled(folder, "b"),
    ),
    case("evaluate into a file", "evaluate {bundle} t.csv --out t.csv", "t.csv", files={"t.csv": GOOD}),
    case(
        "evaluate into a folder with something in it",
        "evaluate {bundle} t.csv --out d",
        "'notes'",
        files={"t.csv": GOOD, "d/notes": "x"},
    ),
    case(
        "evaluate into the bundle",
        "evaluate b t.csv --out b/e",
        "inside",
        files={"t.csv": GOOD},
        prepare=lambda folder: _copied(folder, "single/bundle", "b"),
    ),
    case("evaluate into the table's folder", "evaluate {bundle} f --out f/e", "inside", files={"f/a.csv": GOOD}),
    case("evaluate with rows of no format", "evaluate {bundle} t.csv --out d --rows x", "'x'", files={"t.csv": GOOD}),
    case(
        "evaluate over columns of the same name",
        "evaluate {bundle} t.csv --out d",
        "'expected'",
        "--rows none",
        files={"t.csv": "text,label,expected\na saw,tools,x\n"},
    ),
]

PREDICTIONS = [
    case("predict nothing", "predict {bundle}", "--text"),
    case("predict a table and a text", "predict {bundle} t.csv --text a", "both", files={"t.csv": GOOD}),
    case("predict with ONNX", "predict {bundle} --text a --backend onnx", "'onnx'", "torch"),
    case("predict an unreadable table", "predict {bundle} t.csv", "t.csv"),
    case(
        "predict a table without the column",
        "predict {bundle} t.csv",
        "'text'",
        "--text-column",
        files={"t.csv": "review\na\n"},
    ),
    case(
        "predict with --pair-column on single texts",
        "predict {bundle} t.csv --pair-column x",
        "single texts",
        files={"t.csv": GOOD},
    ),
    case("predict single texts with a bundle of pairs", "predict {pairs} t.csv", "'sentence1'", files={"t.csv": GOOD}),
    case("predict one text with a bundle of pairs", "predict {pairs} --text a", "0 tabs", "pairs"),
    case("predict lines of one text with a bundle of pairs", "predict {pairs} -", "line 2", stdin=b"a\tb\nc\n"),
    case(
        "predict null texts",
        "predict {bundle} t.parquet",
        "t.parquet",
        "row 2",
        files={"t.parquet": parquet({"text": ["a", None]})},
    ),
    case("predict empty standard input", "predict {bundle} -", "empty"),
    case("predict standard input in another encoding", "predict {bundle} -", "utf-8", stdin=b"caf\xe9\n"),
    case("predict in an unknown encoding", "predict {bundle} - --encoding x", "'x'", stdin=b"a\n"),
    case(
        "predict a table in an unknown format", "predict {bundle} t.csv --table-format x", "'x'", files={"t.csv": GOOD}
    ),
    case("predict into a missing folder", "predict {bundle} t.csv --out a/b.csv", "no folder a", files={"t.csv": GOOD}),
    case("predict into the input", "predict {bundle} t.csv --out t.csv", "t.csv", files={"t.csv": GOOD}),
    case(
        "predict into the input by another name",
        "predict {bundle} t.csv --out ./f/../t.csv",
        "t.csv",
        files={"t.csv": GOOD, "f": None},
    ),
    case("predict into the folder that is read", "predict {bundle} f --out f/b.csv", "inside", files={"f/a.csv": GOOD}),
    case(
        "predict into the bundle",
        "predict b --text a --out b/a.csv",
        "inside",
        prepare=lambda folder: _copied(folder, "single/bundle", "b"),
    ),
    case("predict into a folder", "predict {bundle} t.csv --out f.csv", "f.csv", files={"t.csv": GOOD, "f.csv": None}),
    case("predict into an unknown suffix", "predict {bundle} t.csv --out a.xlsx", ".xlsx", files={"t.csv": GOOD}),
    case("predict into an unknown format", "predict {bundle} t.csv --format excel", "excel", files={"t.csv": GOOD}),
    case("predict Parquet to standard output", "predict {bundle} --text a --format parquet", "--out"),
    case("predict JSON and a table at once", "predict {bundle} --text a --format csv --json", "--format"),
    case(
        "predict over columns of the same name",
        "predict {bundle} t.csv --out o.csv",
        "'predicted'",
        files={"t.csv": "text,predicted\na,b\n"},
    ),
    case("predict a tab into TSV", "predict {bundle} t.csv --out o.tsv", "tab", files={"t.csv": "text\na\tb\n"}),
]

USAGE = [
    case("no table", "train", "Missing argument"),
    case("unknown command", "trian t.csv", "trian"),
    case("unknown option", "train t.csv --epcohs 3", "--epcohs"),
    case("option without its value", "train t.csv --out", "--out"),
]
