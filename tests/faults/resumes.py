"""Training continued after each of its steps, in twenty-seven configurations, must end bit for bit as if never stopped.

Each configuration has thirty steps, and so twenty-nine places to be continued from.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snapfit
import toys
import trained
from snapfit.core.files import sha256_file
from snapfit.training.checkpoint import newest_valid
from snapfit.training.journal import read_journal, settled_events

STEPS = 30
POINTS = tuple(range(1, STEPS))


@dataclass(frozen=True)
class Configuration:
    """A training of thirty steps, or one that patience ends before all its steps.

    kind: of the toy table. rows: in it; a tenth of them is for validation.
    """

    name: str
    settings: dict[str, Any]
    kind: str = "single"
    rows: int = 88
    stops_early: bool = False


BASE: dict[str, Any] = toys.QUICK | {
    "train__epochs": 3,
    "train__threads": 1,
    "train__evaluations_per_epoch": 2,
    "train__patience": None,
    "model__dropout": 0.2,
    "model__pooling": "mean",
    "log__interval_steps": 1,
}

CONFIGURATIONS = (
    Configuration("plain-order", {"train__window": 1}),
    Configuration("length-sorted", {"schedule__shape": "cosine"}),
    Configuration("token-budget", {"train__token_budget": 72, "train__batch": 8, "train__epochs": 2.72}),
    Configuration("balanced", {"train__sampling": "balanced", "schedule__shape": "constant"}),
    Configuration("accumulate-3", {"train__accumulate": 3, "train__batch": 3, "train__epochs": 30 / 9}),
    Configuration("no-evaluation", {"data__valid_fraction": 0.0}, rows=80),
    Configuration("early-stopping", {"train__epochs": 12, "train__patience": 4, "optim__lr": 3e-3}, stops_early=True),
    Configuration("layer-wise-rates", {"optim__layer_ratio": 0.3, "optim__head_lr_factor": 20.0}),
    Configuration("frozen-layers", {"optim__freeze_layers": 1, "schedule__shape": "cosine_restarts"}),
    Configuration("one-cycle", {"schedule__shape": "one_cycle", "schedule__warmup_fraction": 0.3}),
    Configuration("wsd", {"schedule__shape": "wsd", "schedule__floor": 0.1}),
    Configuration("bf16", {"train__precision": "bf16"}),
    Configuration("two-threads", {"train__threads": 2, "optim__name": "adamax"}),
    Configuration("multi-label", {"data__label": "labels", "data__delimiter": "|"}, kind="multi"),
    Configuration("regression-sgd", {"optim__name": "sgd", "optim__lr": 0.01}, kind="regression"),
    Configuration("rounds-from-anchor", {"ensemble__members": 5, "ensemble__rounds": 3}),
    Configuration("rounds-in-sequence", {"ensemble__members": 3, "ensemble__rounds": 2, "ensemble__restart": "last"}),
    Configuration(
        "equal-cycles",
        {
            "ensemble__members": 2,
            "schedule__shape": "cosine_restarts",
            "schedule__cycles": 3,
            "train__precision": "bf16",
        },
    ),
    Configuration(
        "averages",
        {"ensemble__members": 2, "ensemble__ema_share": 0.2, "ensemble__tail_share": 0.4, "optim__freeze_layers": 1},
    ),
    Configuration(
        "averages-of-an-anchor",
        {
            "ensemble__members": 3,
            "ensemble__rounds": 1,
            "ensemble__ema_share": 0.1,
            "ensemble__tail_share": 0.5,
            "train__accumulate": 2,
            "train__batch": 4,
        },
    ),
    Configuration("r-drop", {"regularise__r_drop": 1.0, "regularise__dropout_samples": 3}),
    Configuration(
        "adversarial-unfreezing",
        {"regularise__adversarial": 0.5, "schedule__head_first": 0.2, "schedule__unfreeze_share": 0.5},
    ),
    Configuration(
        "all-regularised",
        {
            "regularise__r_drop": 0.5,
            "regularise__adversarial": 0.5,
            "regularise__dropout_samples": 2,
            "schedule__head_first": 0.2,
            "schedule__unfreeze_share": 0.5,
            "ensemble__members": 3,
            "ensemble__rounds": 2,
            "train__precision": "bf16",
            "train__accumulate": 2,
            "train__batch": 4,
            "data__label": "labels",
            "data__delimiter": "|",
        },
        kind="multi",
    ),
    Configuration(
        "weighted-focal",
        {
            "train__sampling": "weighted",
            "loss__function": "focal",
            "loss__gamma": 1.5,
            "train__token_budget": 72,
            "train__batch": 8,
            "train__epochs": 2.72,
        },
    ),
    Configuration(
        "effective-weights",
        {"loss__class_weights": "effective", "loss__effective_beta": 0.9, "train__accumulate": 2, "train__batch": 4},
    ),
    Configuration(
        "asymmetric-of-many",
        {
            "loss__function": "asymmetric",
            "loss__class_weights": "effective",
            "train__sampling": "weighted",
            "train__sampling_power": 0.8,
            "regularise__r_drop": 0.5,
            "train__precision": "bf16",
            "data__label": "labels",
            "data__delimiter": "|",
        },
        kind="multi",
    ),
    Configuration(
        "windows-attention",
        {
            "length__policy": "windows",
            "length__max_tokens": 6,
            "length__window_pooling": "attention",
            "regularise__r_drop": 0.5,
            "regularise__adversarial": 0.5,
            "regularise__dropout_samples": 2,
            "train__precision": "bf16",
            "train__accumulate": 2,
            "train__batch": 4,
        },
    ),
    Configuration(
        "windows-budget",
        {
            "length__policy": "windows",
            "length__max_tokens": 6,
            "length__overlap": 0.5,
            "length__max_windows": 3,
            "length__window_pooling": "max_states",
            "train__token_budget": 96,
            "train__epochs": 2.5,
            "ensemble__members": 3,
            "ensemble__rounds": 2,
        },
    ),
    Configuration("head-and-tail-pairs", {"length__policy": "head+tail", "length__max_tokens": 9}, kind="pair"),
    Configuration("weighted-pairs", {"loss__class_weights": "balanced", "loss__label_smoothing": 0.1}, kind="pair"),
)


@dataclass(frozen=True)
class Resumes:
    """How the trials went. trials: continued trainings. bad: what was wrong, with configuration and step."""

    trials: int
    bad: list[str]
    seconds: float
    seed: int


def run_resumes(
    folder: Path,
    *,
    points: Sequence[int] = POINTS,
    configurations: Sequence[Configuration] = CONFIGURATIONS,
    seed: int = 0,
    before_resume: Callable[[Path], None] | None = None,
) -> Resumes:
    """Continue each configuration after each of the steps `points`, and compare with the uninterrupted training.

    folder: an empty one. seed: of the trainings. before_resume: done to a run before it is continued; a negative
    control breaks it there.
    """
    began = time.monotonic()
    bad: list[str] = []
    for configuration in configurations:
        place = folder / configuration.name
        reference = _reference(place, configuration, points, seed)
        expected = outcome(reference)
        stopped = bool(expected["told of early_stop"])
        if stopped != configuration.stops_early or (not stopped and expected["step"] != STEPS):
            bad.append(f"{configuration.name}: ends after step {expected['step']}, stopped early: {stopped}")
        for point in points:
            run = _only_until(reference, point, place / f"from-{point}")
            if before_resume is not None:
                before_resume(run)
            result = snapfit.train(resume=run, checkpoint__every_steps=None, checkpoint__keep=2)
            found = outcome(run)
            parts = [name for name in expected if found.get(name) != expected[name]]
            if result.resumed_from != point:
                bad.append(f"{configuration.name}, step {point}: went on from step {result.resumed_from}")
            elif parts:
                bad.append(f"{configuration.name}, step {point}: other {', '.join(parts)}")
            shutil.rmtree(run)
        shutil.rmtree(place)
    return Resumes(len(points) * len(configurations), bad, time.monotonic() - began, seed)


def outcome(run: Path) -> dict[str, Any]:
    """What must not depend on where a training was continued: every tensor, loss and metric."""
    checkpoint, _ = newest_valid(run / "checkpoints")
    if checkpoint is None:
        return {"step": None}
    progress = {name: value for name, value in checkpoint.state["progress"].items() if name != "seconds"}
    events = settled_events(read_journal(run / "journal.jsonl"))
    told = {f"told of {kind}": [_timeless(one) for one in events if one["kind"] == kind] for kind in _TOLD}
    return {
        "step": checkpoint.step,
        "progress": json.dumps(progress),
        **{path.stem: sha256_file(path) for path in sorted(checkpoint.folder.glob("*.safetensors"))},
        "bundle": sha256_file(run / "bundle" / "model.safetensors"),
        "probes": sha256_file(run / "bundle" / "probes.json"),
        **{path.parent.name: sha256_file(path) for path in sorted(run.glob("snapshots/*/model.safetensors"))},
        **{path.name: sha256_file(path) for path in run.glob("snapshots/*.safetensors")},
        **told,
    }


_TOLD = ("step", "evaluation", "early_stop", "final")


def _timeless(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "time"}


def _reference(place: Path, configuration: Configuration, points: Sequence[int], seed: int) -> Path:
    """The uninterrupted training, with a checkpoint of each of the points."""
    toys.encoder_folder(place / "encoder")
    make = toys.ROWS[configuration.kind]
    trained.write_csv(place / "train.csv", make(configuration.rows))
    trained.write_csv(place / "test.csv", make(24, seed=1))
    snapfit.train(
        place / "train.csv",
        test=place / "test.csv",
        out=place / "reference",
        encoder=str(place / "encoder"),
        **(BASE | configuration.settings),
        train__seed=seed,
        checkpoint__every_steps=math.gcd(*points),
        checkpoint__keep=10 * STEPS,
    )
    return place / "reference"


def _only_until(reference: Path, point: int, run: Path) -> Path:
    """The run as it would be had it ended after the step `point`, but for a journal that knows more."""
    ended = shutil.ignore_patterns("bundle", "result.json", "checkpoints")
    shutil.copytree(reference, run, ignore=ended)
    name = f"step-{point:06d}"
    shutil.copytree(reference / "checkpoints" / name, run / "checkpoints" / name)
    return run
