"""The check of tables before any training: what is wrong with them, what it does to a result, and what to do.

Everything but the encoder's part and the plan does without torch.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snapfit.checks import cleaning, near
from snapfit.checks.duplicates import duplicate_findings
from snapfit.checks.findings import Example, Finding, Where, percent, places_at, quantity, ranked, verb
from snapfit.checks.hints import hint_findings
from snapfit.checks.index import Index, make_index
from snapfit.checks.labels import label_findings
from snapfit.checks.near_rows import NearRows, find_near_rows, near_findings
from snapfit.checks.reading import CheckedSplit, Source, read_split
from snapfit.checks.scripts import main_scripts, script_findings, script_shares
from snapfit.checks.texts import TextSurvey, survey_texts, text_findings
from snapfit.checks.vocabulary import survey_tokens, token_findings
from snapfit.core.errors import BadInput, Interrupted, MissingExtra
from snapfit.core.interrupts import StopRequest, exit_code
from snapfit.core.recipe import Recipe, chosen_recipe
from snapfit.ship.check_report import CheckReport

if TYPE_CHECKING:
    from snapfit.ship.check_plan import TrainingPlan

_SHOWN_BAD = 5
_LONGEST_ROW = 512
_MANY_ROWS = 50_000
"""Rows that take seconds to look at, so that each stage is told of."""
_NO_MODEL = ("one_label", "constant_target", "label_not_in_train")
Listener = Callable[[dict[str, Any]], None]
Told = Callable[[str], None]


def check(
    table: Any,
    *,
    valid: Any = None,
    test: Any = None,
    encoder: str | None = "auto",
    plan: bool = True,
    near_similarity: float | None = near.SIMILARITY,
    fix: str | Path | None = None,
    drop: Sequence[str] = (),
    html: str | Path | None = None,
    with_model: str | Path | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> CheckReport:
    """Look for what is wrong with tables before a training.

    table, valid, test, recipe, settings, listener: as for `train`; a table with labels missing, or with rows that
    cannot be read, is checked all the same. encoder: what the texts are held against: "auto" is that of the recipe,
    None none at all. plan: measure what a training will take, on a few steps of it.
    near_similarity: share of characters that near-duplicates have in common, 0.8 to 1; None: they are not searched for.
    fix: a folder that does not exist yet, for cleaned copies of all tables and a log of every row that they lack; see
    docs/check.md for what is left out. drop: what is left out beside that: conflicting_labels, near_leak.
    html: a file for the report as a page.
    with_model: the folder of a cross-validation (`train` with folds) of the table, whose out-of-fold scores say which
    labels look wrong; where it does not exist, 5 folds are trained there, or as many as the recipe says, and a check
    that was interrupted goes on with them when it is called again.

    The tables are only read. Raises BadInput for what stops any checking, such as no table, no column of texts, or an
    encoder that was named and is not there; WorkFailed when a file cannot be written; Interrupted by a signal.
    """
    start = time.monotonic()
    sources = {name: one for name, one in (("train", table), ("valid", valid), ("test", test)) if one is not None}
    if table is None:
        raise BadInput("no table to check", "a table", "snapfit check TABLE")
    named = {} if encoder in (None, "none", "auto") else {"encoder": encoder}
    chosen = chosen_recipe(recipe, {**settings, **named})
    target = None if fix is None else Path(fix)
    model = None if with_model is None else Path(with_model)
    _check_arguments(sources, near_similarity, target, drop, html, model)
    workplace = tempfile.TemporaryDirectory(prefix="snapfit-check-", ignore_cleanup_errors=True)
    with StopRequest() as stop, workplace as folder:
        try:
            work = _Check(chosen, encoder, listener or (lambda event: None))
            report = work.run(sources, Path(folder), plan=plan, near_similarity=near_similarity, model=model)
            if target is not None:
                report = replace(report, cleaned=work.clean(target, sources, drop))
            if html is not None:
                from snapfit.ship.check_page import write_page

                report = replace(report, html=Path(html), seconds=time.monotonic() - start)
                write_page(Path(html), report)
        except Interrupted as error:  # of the folds of a model, which told what to do
            raise Interrupted(f"{error}; nothing else was written", error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted; nothing was written", exit_code(stop.signal_number)) from error
    return replace(report, seconds=time.monotonic() - start)


def _check_arguments(
    sources: Mapping[str, Any],
    near_similarity: float | None,
    target: Path | None,
    drop: Sequence[str],
    html: str | Path | None,
    model: Path | None,
) -> None:
    """Raise BadInput for what cannot be done, before any table is read."""
    if near_similarity is not None:
        near.check_similarity(near_similarity)
    if target is not None:
        cleaning.check_target(target, sources, drop)
    elif drop:
        raise BadInput(f"what to drop ({', '.join(drop)}) and no cleaned copy", "both or none", "--fix DIR --drop KIND")
    if "near_leak" in drop:
        if near_similarity is None:
            raise BadInput("near_leak to drop, and no search for it", "both or none", "leave out --near off")
        near.need_libraries()
    if html is not None:
        from snapfit.ship.check_page import check_page_target

        check_page_target(Path(html))
    if model is not None:
        try:
            from snapfit.ship.check_model import check_run
        except ModuleNotFoundError as error:
            raise MissingExtra("train", str(error.name)) from error
        check_run(model)


class _Check:
    """One check: what was read and made of the tables, for the parts that need it again."""

    def __init__(self, recipe: Recipe, encoder: str | None, listener: Listener) -> None:
        self._recipe, self._encoder, self._listener = recipe, encoder, listener
        self.splits: dict[str, CheckedSplit] = {}
        self.index: Index
        self.surveys: dict[str, TextSurvey] = {}
        self.scripts: dict[str, np.ndarray] = {}
        self.near: NearRows | None = None
        self.skipped: dict[str, str] = {}
        self.findings: list[Finding] = []

    def run(
        self,
        sources: Mapping[str, Any],
        folder: Path,
        *,
        plan: bool,
        near_similarity: float | None,
        model: Path | None = None,
    ) -> CheckReport:
        """Everything but what is written."""
        self._read(sources, folder)
        splits = self.splits
        self._told("comparing texts and labels")
        self.index = make_index(splits)
        self.findings += [one for split in splits.values() for one in unusable_findings(split)]
        self.findings += [*duplicate_findings(splits, self.index), *label_findings(splits, self.index)]
        self._told("looking at characters and scripts")
        self.surveys = {name: survey_texts(split) for name, split in splits.items()}
        self.scripts = {name: main_scripts(split) for name, split in splits.items()}
        for name, split in splits.items():
            self.findings += text_findings(split, self.surveys[name])
        self.findings += script_findings(splits, self.scripts)
        self.findings += hint_findings(splits["train"], self.index)
        encoder, tokens, planned = self._against_encoder(plan)
        self._search_near(near_similarity)
        if model is not None:
            self._ask(model, sources["train"])
        return CheckReport(
            tables={name: _facts(split) for name, split in splits.items()},
            columns=splits["train"].records.columns.found,
            task=splits["train"].records.columns.task,
            findings=ranked(self.findings),
            labels={name: dict(self.index.rows_of_label(name).most_common()) for name in splits},
            characters={name: survey.lengths() for name, survey in self.surveys.items()},
            scripts={name: script_shares(scripts) for name, scripts in self.scripts.items()},
            encoder=encoder,
            tokens=tokens,
            plan=planned,
            skipped=self.skipped,
        )

    def clean(self, target: Path, sources: Mapping[str, Any], drop: Sequence[str]) -> cleaning.Cleaned:
        """Write the cleaned copies."""
        self._say(f"writing cleaned copies to {target}")
        empty = self.surveys["train"].rows["empty_text"]
        dropped, kept = cleaning.rows_to_drop(self.splits, self.index, empty, self.near, drop)
        data = self._recipe.data
        return cleaning.write_cleaned(
            target, self.splits, sources, dropped, kept, encoding=data.encoding, format=data.format
        )

    def _told(self, text: str) -> None:
        """Tell of a stage that takes a while."""
        if sum(map(len, self.splits.values())) > _MANY_ROWS:
            self._say(text)

    def _say(self, text: str) -> None:
        self._listener({"kind": "working", "text": text})

    def _read(self, sources: Mapping[str, Any], folder: Path) -> None:
        data = self._recipe.data
        asked = Source(data.text, data.pair, data.label, data.task, data.delimiter, data.encoding, data.format)
        for name, source in sources.items():
            self._told(f"reading {name}")
            columns = self.splits["train"].records.columns if self.splits else None
            self.splits[name] = read_split(name, source, asked, folder, columns)

    def _against_encoder(
        self, plan: bool
    ) -> tuple[str | None, dict[str, dict[str, Any]] | None, "TrainingPlan | None"]:
        """(the encoder's name, what its tokenizer makes of the texts, the plan); None each, where there is none."""
        if self._encoder in (None, "none"):
            self.skipped["encoder"] = "no encoder: unknown words, lengths in tokens and the plan were not looked at"
            return None, None, None
        name = str(self._recipe.model.encoder)
        try:
            tokenizer_json, positions = _tokenizer_of(self._recipe)
        except BadInput as error:
            if self._encoder != "auto" or "model.encoder" in self._recipe.stated():
                raise
            self.skipped["encoder"] = f"{error.found}; {error.fix}"
            return None, None, None
        self._told(f"tokenising with {name}")
        surveys = {n: survey_tokens(split, tokenizer_json, self.scripts[n]) for n, split in self.splits.items()}
        planned = self._plan() if plan else None
        stated = self._recipe.length.max_tokens
        limit = planned.max_tokens if planned is not None else stated if isinstance(stated, int) else positions
        policy = self._recipe.length.chosen
        self.findings += token_findings(self.splits, surveys, limit, policy)
        return name, {n: survey.to_dict(limit, policy) for n, survey in surveys.items()}, planned

    def _plan(self) -> "TrainingPlan | None":
        from snapfit.ship.check_plan import measure_plan

        self._say("measuring the first steps of a training")
        tables = {name: split.table for name, split in self.splits.items() if split.records.labels is not None}
        unknown = {one.split for one in self.findings if one.kind == "label_not_in_train"}
        columns = self.splits["train"].records.columns
        try:
            return measure_plan(
                {name: table for name, table in tables.items() if name not in unknown},
                columns,
                self._recipe,
                notify=lambda kind, **fields: self._listener({"kind": kind, **fields}) if kind == "notice" else None,
            )
        except BadInput as error:
            self.skipped["plan"] = f"{error.found}; {error.fix}"
            return None

    def _ask(self, model: Path, source: Any) -> None:
        """Hold the labels against the models of a cross-validation."""
        if any(one.level == "error" and one.kind in _NO_MODEL for one in self.findings):
            self.skipped["label errors"] = "no model can be trained on this table"
            return
        from snapfit.ship.check_model import suspected_labels

        self._say(f"asking models that have not seen the rows, in {model}")
        self.findings += suspected_labels(model, self.splits["train"], source, self._recipe, self._listener)

    def _search_near(self, similarity: float | None) -> None:
        if similarity is None:
            self.skipped["near-duplicates"] = "not asked for"
            return
        try:
            self.near = find_near_rows(self.splits, self.index, similarity=similarity, told=self._told)
        except MissingExtra as error:
            self.skipped["near-duplicates"] = f"{error.found}; {error.fix}"
            return
        if self.near.left_out:
            left = quantity(self.near.left_out, "training row")
            self.skipped["near-duplicates"] = f"{left} left out: at most {near.MOST_TEXTS:,} texts are compared"
        self.findings += near_findings(self.splits, self.index, self.near)


# ---------------------------------------------------------------- parts


def unusable_findings(split: CheckedSplit) -> Iterator[Finding]:
    """Rows of a split that cannot be read, and rows that training refuses."""
    total = split.n_read + len(split.unreadable)
    if split.unreadable:
        n = len(split.unreadable)
        where: list[Where] = []
        for one in split.places.files:
            if one.unreadable:
                lines = np.array([line.first for line in one.unreadable], dtype=np.int64)
                where.append(Where(split.name, str(one.path), one.word, lines))
        examples = [
            Example([], [f"{one.path.name}: {one.word} {line.first}"], note=f"{line.why}; {line.fix}")
            for one, line in split.unreadable[:_SHOWN_BAD]
        ]
        text = f"{quantity(n, 'row')} of {split.name} ({percent(n / total)}) cannot be read"
        yield Finding("unreadable_row", "error", split.name, n, total, text, "rows", where, examples)
    told = {
        "missing_text": ("have", "no text"),
        "missing_label": ("have", "no label"),
        "bad_label": ("have", "a label that is no number, or no list of labels"),
    }
    for kind, places in split.unusable.items():
        n, (word, what) = len(places.rows), told[kind]
        where = places_at(split.name, places, np.arange(n))
        examples = [
            Example([], [f"{path.name if path else split.name}: {word_of} {number}"])
            for path, word_of, number in (places.of(i) for i in range(min(n, _SHOWN_BAD)))
        ]
        text = f"{quantity(n, 'row')} of {split.name} ({percent(n / total)}) {verb(n, word)} {what}"
        yield Finding(kind, "error", split.name, n, total, text, "rows", where, examples)


def _tokenizer_of(recipe: Recipe) -> tuple[bytes, int]:
    """(the encoder's tokenizer.json, the tokens that a row may have at most). Raises BadInput where it is not there."""
    try:
        from snapfit.nn.encoder import find_encoder, read_tokenizer
        from snapfit.nn.families import max_positions
    except ModuleNotFoundError as error:
        raise MissingExtra("train", str(error.name)) from error
    source = find_encoder(recipe.model.encoder)
    positions = max_positions(source.config) or _LONGEST_ROW
    return read_tokenizer(source).tokenizer_json, min(positions, _LONGEST_ROW)


def _facts(split: CheckedSplit) -> dict[str, Any]:
    unusable = sum(len(places.rows) for places in split.unusable.values())
    return {
        "source": split.source,
        "rows": split.n_read + len(split.unreadable),
        "usable": len(split),
        "unreadable": len(split.unreadable),
        "unusable": unusable,
    }
