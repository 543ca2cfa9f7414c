"""`snapfit.decide`: another decision rule for an existing bundle, fitted to a labelled table, without training."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.files import read_json, write_json_atomic, write_text_atomic
from snapfit.core.folders import MANIFEST, list_files, staged_folder, write_manifest
from snapfit.core.recipe import Recipe
from snapfit.core.rule_fitting import FittedRule, HeldRows, check_decision, fit_rule, sample_of
from snapfit.core.rule_words import rule_lines
from snapfit.core.scope import Centroids, fit_centroids
from snapfit.loading import load
from snapfit.runtime.bundle import INFO_FILE, PROBES_FILE, Bundle, BundleInfo, format_of
from snapfit.runtime.bundle_rule import (
    CENTROIDS_FILE,
    needs_centroids,
    read_centroids,
    split_rule,
    told_in_bundle,
    write_centroids,
)
from snapfit.runtime.evaluating import check_out_of_scope, encoded, examples_of
from snapfit.runtime.inputs import parts_for_bundle
from snapfit.runtime.parts import RecordParts
from snapfit.runtime.predictor import Predictor
from snapfit.ship.card import card_decided_anew

CARD = "README.md"
MOST_ROWS = 65_536
"""Of a table that a rule is fitted to, see `rule_fitting.sample_of`."""


@dataclass(frozen=True)
class DecideResult:
    """What `decide` leaves behind.

    bundle: the new bundle's folder. rows: labelled rows that were scored for it. rule: as `DecisionRule.to_dict` gives
    it. report: what is known about it (see `core.rule_fitting.FittedRule`). lines: both in words. seconds: it took.
    """

    bundle: Path
    rows: int
    rule: dict[str, Any]
    report: dict[str, Any]
    lines: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "bundle": str(self.bundle), "seconds": round(self.seconds, 2)}


def decide(
    bundle: str | Path,
    table: str | Path,
    *,
    out: str | Path,
    train: str | Path | None = None,
    out_of_scope_label: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    device: str | None = None,
    **settings: Any,
) -> DecideResult:
    """Fit another decision rule to a bundle, and write it as a whole bundle of its own; its weights stay as they are.

    bundle: a folder. table: labelled rows that the bundle was not trained on. out: the new folder, which must not
    exist. train: labelled texts that it was trained on, from which centroids are made; only needed for
    out_of_scope="centroids" where the bundle has none. out_of_scope_label: how rows of the table are labelled that none
    of the labels is right for; they are measured, not fitted to. columns: text, pair, label, delimiter, encoding and
    format of the tables, as for `parts_for_bundle`. device: of torch.
    settings: keys of the recipe's section `decision`, such as thresholds="tuned"; what is left out stays as the bundle
    was made.

    Raises BadInput before anything is written for what cannot be used, and for a precision that cannot be reached.
    """
    start = time.monotonic()
    out = Path(out)
    if out.exists():
        raise BadInput(f"{out} exists already", "a folder that does not exist yet", "choose another with --out")
    opened = Bundle.open(bundle)
    recipe = _recipe(opened.info, settings)
    if out_of_scope_label is not None:
        check_out_of_scope(opened.label_set, out_of_scope_label)
    if opened.label_set.task == "regression":
        raise BadInput("a bundle for numbers", "one for labels: a number is not decided about", "leave it as it is")
    options = {key: value for key, value in (columns or {}).items() if value is not None}
    parts = parts_for_bundle(opened.info, table, **options, out_of_scope=out_of_scope_label)
    check_decision(recipe.decision, opened.label_set.task, opened.label_set.names, n_rows=len(parts))
    centroids = _old_centroids(opened, recipe, train)
    predictor = load(opened.folder, device=device, verify=False)
    by_centroids = recipe.decision.out_of_scope == "centroids"
    if by_centroids and centroids is None:
        assert train is not None
        known = _outputs(predictor, parts_for_bundle(opened.info, train, **options), None, vectors=True, n_outputs=1)
        assert known.vectors is not None
        centroids = fit_centroids(known.vectors, known.targets, opened.label_set.n_outputs)
    rows = _outputs(predictor, parts, out_of_scope_label, vectors=by_centroids, n_outputs=opened.label_set.n_outputs)
    fitted = _fit(opened, recipe, rows, centroids)
    info = _info(opened.info, recipe, fitted, source=str(table))
    _write(opened, info, fitted, predictor, out)
    lines = rule_lines(info.task, info.rule_values, fitted.report)
    return DecideResult(out, len(rows), fitted.rule.to_dict(), fitted.report, lines, time.monotonic() - start)


def _recipe(info: BundleInfo, settings: Mapping[str, Any]) -> Recipe:
    """The bundle's settings of the section `decision`, with those that were given now."""
    known = {f"decision.{key}" for key in Recipe().to_dict()["decision"]}
    given = {key if "." in key else f"decision.{key}": value for key, value in settings.items()}
    for key in given:
        if not key.startswith("decision."):
            found = f"the setting {key}"
            raise BadInput(found, f"settings of decisions: {', '.join(sorted(known))}", "train again to change others")
    return Recipe.from_dict({"decision": info.recipe.get("decision", {})}).with_values(given)


def _old_centroids(bundle: Bundle, recipe: Recipe, train: str | Path | None) -> Centroids | None:
    """Those that the bundle has already, unless a table is given to make others of; refuses where there are neither."""
    if recipe.decision.out_of_scope != "centroids" or train is not None:
        return None
    if not needs_centroids(bundle.info.decision):
        raise BadInput(
            "decision.out_of_scope is 'centroids', and the bundle has none",
            "the texts that it was trained on, to make them of",
            "give them: --train FILE; or take --set decision.out_of_scope=energy, which needs none",
        )
    return read_centroids(bundle.folder)


def _fit(bundle: Bundle, recipe: Recipe, rows: HeldRows, centroids: Centroids | None) -> FittedRule:
    info = bundle.info
    fitted = fit_rule(
        rows,
        recipe.decision,
        bundle.label_set.task,
        bundle.label_set.names,
        metric=info.recipe.get("train", {}).get("metric"),
        temperature=info.temperature if info.members else 1.0,
        centroids=centroids,
    )
    for one in fitted.report.get("refusals", ()):
        if not one["reached"]:
            found = f"a {one['by']} of {one['target']:g}, which no share of the answers has on these rows"
            less = f"--set decision.abstain_{one['by']}={0.95 * one['target']:.2g}"
            raise BadInput(found, "one that can be reached", f"ask for less, such as {less}")
    return fitted


def _outputs(
    predictor: Predictor, parts: RecordParts, out_of_scope: str | None, *, vectors: bool, n_outputs: int
) -> HeldRows:
    """Logits, targets and, where wanted, vectors of a table's rows, or of a sample of them."""
    sample = sample_of(len(parts), n_outputs, most_rows=MOST_ROWS, seed=0)
    found: list[HeldRows] = []
    for examples, targets in _chosen(parts, predictor, out_of_scope, sample):
        if vectors:
            found.append(HeldRows(*_swapped(predictor.outputs(examples), targets)))
        else:
            found.append(HeldRows(predictor.logits(examples), targets))
    return HeldRows(
        np.concatenate([one.logits for one in found]),
        np.concatenate([one.targets for one in found]),
        np.concatenate([one.vectors for one in found if one.vectors is not None]) if vectors else None,
    )


def _swapped(outputs: tuple[np.ndarray, np.ndarray], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return outputs[0], targets, outputs[1]


def _chosen(
    parts: RecordParts, predictor: Predictor, out_of_scope: str | None, sample: np.ndarray | None
) -> Iterator[tuple[list[Any], np.ndarray]]:
    """Texts and targets, part by part. sample: numbers of the rows to take; None takes all."""
    first = 0
    for part in parts:
        n_rows = len(part)
        if sample is not None:
            part = part.take(sample[(sample >= first) & (sample < first + n_rows)] - first)
        first += n_rows
        if len(part):
            yield examples_of(part), encoded(part, predictor.bundle.label_set, out_of_scope=out_of_scope)


def _info(info: BundleInfo, recipe: Recipe, fitted: FittedRule, *, source: str) -> BundleInfo:
    fields = split_rule(fitted.rule)
    return replace(
        info,
        **fields,
        decided={**told_in_bundle(fitted.report), "table": source},
        metrics={"decided": fitted.report["fitted"]},
        recipe={**info.recipe, "decision": recipe.to_dict()["decision"]},
        format_version=format_of(info.members, fields["decision"]),
    )


def _write(bundle: Bundle, info: BundleInfo, fitted: FittedRule, predictor: Predictor, out: Path) -> None:
    """A copy of the bundle with another rule: what says it, probes' scores, the card and the manifest are new."""
    new = {INFO_FILE, PROBES_FILE, CARD, MANIFEST, CENTROIDS_FILE}
    files = list_files(bundle.folder)
    with staged_folder(out) as staging:
        for name, path in files.items():
            if name not in new:
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, staging / name)
        write_centroids(staging, fitted.rule)
        write_json_atomic(staging / INFO_FILE, info.to_dict())
        if (probes := bundle.probes()) is not None:
            texts = read_json(bundle.folder / PROBES_FILE)["texts"]
            scores = fitted.rule.scores(predictor.logits(probes[0])).tolist() if texts else []
            write_json_atomic(staging / PROBES_FILE, {"texts": texts, "scores": scores})
        if CARD in files:
            card = files[CARD].read_text("utf-8")
            write_text_atomic(staging / CARD, card_decided_anew(card, info))
        write_manifest(staging)
