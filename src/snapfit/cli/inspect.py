"""`snapfit inspect`: what a bundle, a run folder or an encoder is."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import aligned, byte_size, fold_lines, metrics_lines, suspect_lines, verdict_lines

_MOST_LABELS = 20


def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A bundle, a run folder, an encoder, or starter.")],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
) -> int:
    """Say what PATH is.

    Of a run: its checkpoints, whether each is valid, and what --resume would do; what its folds came to and which
    labels look wrong; then its bundle.
    Of a bundle: task, labels, pooling, metrics, files, and whether it still gives the answers it was made
    with. Of an encoder: its depth and size, and the learning rate of each part that training would use.
    """
    calm_libraries()
    from snapfit.ship.inspecting import inspect_path

    result = inspect_path(path)
    console = Console(sys.stderr if as_json else sys.stdout)
    {"encoder": _show_encoder, "run": _show_run, "bundle": _show_bundle}[result["kind"]](console, result)
    if as_json:
        write_json_line(result)
    return 0


def _show_run(console: Console, result: Mapping[str, Any]) -> None:
    console.result("run", f"{result['path']}, {'complete' if result['complete'] else 'not complete'}")
    tables = ", ".join(f"{split} {source or 'not a file'}" for split, source in result["tables"].items())
    console.result("tables", tables)
    rows = [
        (
            one["folder"],
            "" if one["step"] is None else f"step {one['step']:,}",
            "" if one["bytes"] is None else byte_size(one["bytes"]),
            "valid" if one["valid"] else f"NOT VALID: {one['why']}",
        )
        for one in result["checkpoints"]
    ]
    console.result("saved", aligned(rows, right=[1, 2]) if rows else "none")
    console.result("resume", result["resume"]["text"])
    if result["folds"] is not None:
        _show_folds(console, result)
    if result["verdict"] is not None:
        console.result("verdict", verdict_lines(result["verdict"]))
    if result["bundle"] is None:
        console.result("bundle", "none yet")
    else:
        _show_bundle(console, result["bundle"])


def _show_folds(console: Console, result: Mapping[str, Any]) -> None:
    """How far a cross-validation has come, and what it came to."""
    folds = result["folds"]
    if folds["report"] is None:
        console.result("folds", f"{folds['finished']} of {folds['count']} are finished")
        return
    console.result("folds", fold_lines(folds["report"]))
    if folds["report"]["label_errors"] is not None:
        file = f"{result['path']}/{folds['suspects_file']}"
        console.result("suspects", suspect_lines(folds["report"]["label_errors"], folds["suspects"], file))


def _show_bundle(console: Console, result: Mapping[str, Any]) -> None:
    console.result("bundle", result["path"])
    console.result("task", f"{result['task']}, from {'two texts' if result['pair'] else 'one text'}")
    names = result["labels"]
    more = f" and {len(names) - _MOST_LABELS} more" if len(names) > _MOST_LABELS else ""
    console.result("labels", f"{len(names):,}: {', '.join(names[:_MOST_LABELS])}{more}")
    columns = ", ".join(result["text_columns"])
    console.result("columns", f"texts in {columns}; labels in {result['label_column'] or 'none'}")
    console.result("pooling", f"{result['pooling']}: {result['pooling_reason']}")
    console.result("length", f"at most {result['max_tokens']} tokens; {result['length_in_words']}")
    if result["members"] or result["made_of"]:
        console.result("answer", _answer(result))
    if result["decides"]:
        console.result("decides", result["decides"])
    console.result("opens in", _opened_by(result["transformers"]))
    console.result("probes", _probes(result["probes"]))
    if result["metrics"]:
        console.result("metrics", metrics_lines(result["metrics"]))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    console.result("made with", versions)
    files = [(name, byte_size(size)) for name, size in result["files"].items()]
    console.result("files", aligned([*files, ("all", byte_size(result["bytes"]))], right=[1]))


def _answer(result: Mapping[str, Any]) -> list[str]:
    """What the scores are made of."""
    members = result["members"] or ()
    what = f"the mean of the scores of {len(members)} models" if members else "one model"
    name = result["made_of"].get("name")
    passes = result["forward_passes"]
    cost = f", {passes:.3g} forward passes" if members and passes is not None else ""
    first = f"{f'{name}: ' if name else ''}{what}, temperature {result['temperature']:.3g}{cost}"
    rows = [
        (one["file"], f"share {one['share']:.3g}", f"temperature {one['temperature']:.3g}", byte_size(one["bytes"]))
        for one in members
    ]
    return [first, *aligned(rows, right=[3])]


def _opened_by(transformers: Mapping[str, Any]) -> str:
    return f"{'plain transformers and snapfit' if transformers['opens'] else 'snapfit'} ({transformers['why']})"


def _probes(probes: Mapping[str, Any]) -> str:
    if probes["same"] is None:
        return f"not replayed: {probes['why']}"
    outcome = "the same scores as when it was made" if probes["same"] else f"NOT the same scores: {probes['why']}"
    difference = probes["largest_difference"]
    return outcome if difference is None else f"{outcome} (largest difference {difference:.1e})"


def _show_encoder(console: Console, result: Mapping[str, Any]) -> None:
    console.result("encoder", f"{result['name']} ({result['source']}), family {result['family']}")
    console.rows("notice", result["notices"], level="warning")
    console.result("size", f"{result['parameters']:,} parameters, {result['layers']} layers of {result['width']}")
    positions = result["positions"]
    console.result("length", "no limit" if positions is None else f"at most {positions} tokens")
    console.result("tokenizer", f"{result['vocabulary']:,} tokens, padding {result['pad_id']}")
    console.result("groups", ["with the rates that training would take by default:", *result["groups"]])
