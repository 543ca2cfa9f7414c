"""What a path is and what is in it, as plain values: a bundle, a run folder, a checkpoint, or an encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snapfit.core.errors import BadInput, MissingExtra, WorkFailed
from snapfit.core.folders import MANIFEST, list_files
from snapfit.core.rule_words import rule_lines
from snapfit.runtime.bundle import INFO_FILE, Bundle

if TYPE_CHECKING:
    from snapfit.nn.classifier import Classifier

_PROBE_TOLERANCE = 1e-4
_SHOWN_SUSPECTS = 5


def inspect_path(path: str) -> dict[str, Any]:
    """Tell what `path` is: a bundle's or an encoder's folder, a run folder, "starter" or a name on the hub.

    Returns what `describe_bundle`, `describe_run` or `describe_encoder` gives; "kind" says which.
    Raises BadInput when it is nothing of these, or damaged.
    """
    folder = Path(path).expanduser()
    if path != "starter" and folder.is_dir():
        if (folder / INFO_FILE).exists() or (folder / MANIFEST).exists():
            return describe_bundle(folder)
        if (folder / "request.json").exists():
            return describe_run(folder)
        if (folder / "bundle" / INFO_FILE).exists():
            return describe_bundle(folder / "bundle")
        if not (folder / "config.json").exists():
            found = f"{path} is neither a bundle, nor a run folder, nor an encoder"
            raise BadInput(found, f"a folder with {INFO_FILE}, bundle/ or config.json", "check the path")
    elif folder.exists():
        raise BadInput(f"{path} is a file", "a bundle's, a run's or an encoder's folder", "check the path")
    return describe_encoder(path)


def describe_run(folder: Path) -> dict[str, Any]:
    """A run folder in plain values: its checkpoints, each verified, what resuming would do, and its bundle.

    Keys: kind, path, complete, steps (None: unknown), tables, checkpoints [{folder, step, bytes, saved_at, valid, why}]
    newest first, resume {does, from_step, checkpoint, text}, verdict (None, or what verdict.json holds), folds (None,
    or {count, finished, report (None, or what folds.json holds), suspects, suspects_file}), bundle (None, or what
    `describe_bundle` gives).
    Raises BadInput when request.json or the bundle is damaged.
    """
    from snapfit.ship.run_folder import RunFolder
    from snapfit.training.checkpoint import find_checkpoints, why_invalid

    run = RunFolder(folder)
    request = run.request()
    found, unreadable = find_checkpoints(run.checkpoints)
    reasons = {one.folder: why_invalid(one) for one in found}
    checkpoints: list[dict[str, Any]] = [
        {
            "folder": one.folder.name,
            "step": one.step,
            "bytes": one.bytes,
            "saved_at": one.folder.stat().st_mtime,
            "valid": reasons[one.folder] is None,
            "why": reasons[one.folder],
        }
        for one in found
    ]
    checkpoints += [
        {"folder": one.folder.name, "step": None, "bytes": None, "saved_at": None, "valid": False, "why": one.why}
        for one in unreadable
    ]
    complete = run.result() is not None
    folds = _folds(folder, run.recipe().train.folds)
    return {
        "kind": "run",
        "path": str(folder),
        "complete": complete,
        "tables": request.tables,
        "checkpoints": checkpoints,
        "resume": _what_resume_does(folder, complete, checkpoints, folds),
        "verdict": run.verdict(),
        "folds": folds,
        "bundle": describe_bundle(run.bundle) if (run.bundle / INFO_FILE).exists() else None,
    }


def _folds(folder: Path, count: int | None) -> dict[str, Any] | None:
    """How far the folds of a run have come, what they came to, and the first labels that look wrong."""
    from snapfit.ship.fold_report import finished_folds, read_report
    from snapfit.ship.label_errors import SUSPECTS_FILE, read_suspects

    if count is None:
        return None
    return {
        "count": count,
        "finished": len(finished_folds(folder, count)),
        "report": read_report(folder),
        "suspects": read_suspects(folder, _SHOWN_SUSPECTS),
        "suspects_file": SUSPECTS_FILE,
    }


def _what_resume_does(
    folder: Path, complete: bool, checkpoints: list[dict[str, Any]], folds: dict[str, Any] | None
) -> dict[str, Any]:
    valid = next((one for one in checkpoints if one["valid"]), None)
    outcome: dict[str, Any] = {"from_step": valid and valid["step"], "checkpoint": valid and valid["folder"]}
    if complete:
        return {"does": "nothing", **outcome, "text": "nothing: the run is complete"}
    if folds is not None and (valid is None or folds["report"] is None):
        done = f"{folds['finished']} of {folds['count']} folds are finished"
        return {"does": "go on", **outcome, "text": f"go on, {done}: snapfit train --resume {folder}"}
    if valid is None:
        return {"does": "begin", **outcome, "text": "begin again: there is no valid checkpoint"}
    text = f"go on after step {valid['step']:,}, from {valid['folder']}: snapfit train --resume {folder}"
    return {"does": "go on", **outcome, "text": text}


def describe_bundle(folder: Path) -> dict[str, Any]:
    """A bundle in plain values, its probes replayed where torch is installed.

    Keys: kind, path, those of snapfit.json with the labels as a list of names, files {name: bytes}, bytes,
    transformers {opens, why}, probes {same (None: not replayed), largest_difference, why}, made_of, decision, decided,
    decides (lines: how answers are made of logits), members (None where one model answers; else their values of
    snapfit.json, and bytes), length_policy (also where it is head), length_in_words, forward_passes (of a prediction;
    None: no torch).
    Raises BadInput for a bundle that is damaged.
    """
    bundle = Bundle.open(folder)
    info = bundle.info
    files = {name: path.stat().st_size for name, path in list_files(folder).items()}
    members = info.members and [{**member, "bytes": files[member["file"]]} for member in info.members]
    return {
        "kind": "bundle",
        "path": str(folder),
        **info.to_dict(),
        "members": members,
        "made_of": info.made_of,
        "length_policy": info.lengths.to_dict(),
        "length_in_words": info.lengths.in_words(info.max_tokens),
        "decision": info.decision,
        "decided": info.decided,
        "decides": rule_lines(info.task, info.rule_values, info.decided),
        "labels": list(bundle.label_set.names),
        "files": files,
        "bytes": sum(files.values()),
        "transformers": _opened_by_transformers(bundle),
        **_loaded(bundle),
    }


def _loaded(bundle: Bundle) -> dict[str, Any]:
    """What only a loaded bundle tells: its probes replayed, and what a prediction costs."""
    from snapfit.loading import load

    outcome: dict[str, Any] = {"same": None, "largest_difference": None, "why": ""}
    try:
        predictor = load(bundle.folder, verify=False)
    except MissingExtra as error:
        return {"probes": {**outcome, "why": f"{error.found}; {error.fix}"}, "forward_passes": None}
    if bundle.probes() is None:
        outcome["why"] = "the bundle has none"
    else:
        try:
            outcome["largest_difference"] = predictor.replay_probes(tolerance=_PROBE_TOLERANCE)
            outcome["same"] = True
        except WorkFailed as error:
            outcome |= {"same": False, "why": str(error)}
    return {"probes": outcome, "forward_passes": getattr(predictor.backend, "forward_passes", None)}


def _opened_by_transformers(bundle: Bundle) -> dict[str, Any]:
    """Whether transformers' own class opens the bundle, tried out where the head says that it should."""
    if bundle.info.head != "native":
        return {"opens": False, "why": f"transformers has no head with the pooling {bundle.info.pooling!r}"}
    only = "; the first model alone, not the mean" if bundle.info.members else ""
    only += "" if bundle.info.lengths.cuts_at_one_end else "; of longer texts it reads the first tokens alone"
    try:
        from transformers import AutoModelForSequenceClassification
    except ImportError:
        return {"opens": True, "why": f"a native head; not tried, transformers is not installed{only}"}
    try:
        _, report = AutoModelForSequenceClassification.from_pretrained(
            bundle.folder, output_loading_info=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        return {"opens": False, "why": f"it was tried: {str(error).strip().splitlines()[0]}"}
    wrong = [str(name) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    if wrong:
        return {"opens": False, "why": f"it was tried: {len(wrong)} weights do not fit, such as {wrong[0]}"}
    return {"opens": True, "why": f"a native head; it was tried, every weight fits{only}"}


def describe_encoder(name: str) -> dict[str, Any]:
    """An encoder in plain values: size, depth, length, tokenizer, and the parameter groups of a default
    training.

    name: a folder, "starter", or a hub name. Keys: kind, name, source, folder, family, notices, layers,
    width, parameters, positions (None: no limit), vocabulary, pad_id, groups [lines], rates {lr,
    head_lr_factor, layer_ratio, weight_decay}. The head in it is one of two labels. Raises BadInput when it
    cannot be used.
    """
    from snapfit.core.recipe import Recipe
    from snapfit.data.tokenizer import TextTokenizer
    from snapfit.nn.encoder import find_encoder, read_tokenizer
    from snapfit.nn.families import depth_reader, family_of, max_positions, n_depths
    from snapfit.training.assemble import build_model
    from snapfit.training.param_groups import format_plan, plan_groups

    source = find_encoder(name)
    files = read_tokenizer(source)
    positions = max_positions(source.config)
    TextTokenizer.from_bytes(files.tokenizer_json, max_tokens=positions or 512, pad_id=files.pad_id)
    model, _ = build_model(Recipe(), source, task="single", label_names=["0", "1"], pooling="mean")
    rates = _default_rates(model, positions)
    plan = plan_groups(
        model,
        depth_reader(model.config, model.encoder_prefix),
        lr=rates["lr"],
        head_lr_factor=rates["head_lr_factor"],
        layer_ratio=rates["layer_ratio"],
        weight_decay=rates["weight_decay"],
    )
    return {
        "kind": "encoder",
        "name": name,
        "source": source.kind,
        "folder": str(source.folder),
        "family": source.config.model_type,
        "known_family": family_of(source.config).known,
        "notices": source.notices,
        "layers": n_depths(source.config),
        "width": source.config.hidden_size,
        "parameters": int(np.sum([parameter.numel() for parameter in model.encoder.parameters()])),
        "positions": positions,
        "vocabulary": source.config.vocab_size,
        "pad_id": files.pad_id,
        "groups": format_plan(plan),
        "rates": rates,
    }


def _default_rates(model: "Classifier", positions: int | None) -> dict[str, float]:
    """The rates of the default recipe for an encoder of this size, on a common kind of table."""
    from snapfit.core.recipe import Recipe, settled
    from snapfit.training.assemble import layer_parameters
    from snapfit.training.defaults import Facts, resolve

    facts = Facts(
        task="single",
        n_rows=10_000,
        n_outputs=2,
        lengths=np.array([64]),
        layer_parameters=layer_parameters(model),
        max_positions=positions,
        precision=("fp32", ""),
        pooling=("mean", ""),
        threads=1,
    )
    optim = resolve(Recipe(), facts)[0].optim
    return {
        "lr": settled(optim.lr),
        "head_lr_factor": settled(optim.head_lr_factor),
        "layer_ratio": settled(optim.layer_ratio),
        "weight_decay": optim.weight_decay,
    }
