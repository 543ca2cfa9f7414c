"""The bundle: the folder that ships. Opening one proves that it is whole, of this format and free of pickles.

    config.json  model.safetensors  tokenizer.json    what plain transformers reads too
    snapfit.json                                      how answers are made of logits: `BundleInfo`
    members/1.safetensors ...                         where several models answer: what differs from the first one's
    centroids.safetensors                             where they say which texts are in scope
    MANIFEST.json                                     size and SHA-256 of every file

Format 3 is a bundle whose decision rule is more than temperature and thresholds; of the others, format 2 is one whose
answer is the mean of several models' scores, and all else is of format 1.
Nothing here reads weights: a backend does, from `Bundle.folder`.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

import numpy as np

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput, nearest
from snapfit.core.files import read_json
from snapfit.core.folders import MANIFEST, list_files, verify_manifest
from snapfit.core.labels import TASKS, LabelSet, Task
from snapfit.core.lengths import HEAD, LengthPolicy
from snapfit.data.tokenizer import TextTokenizer
from snapfit.runtime.bundle_rule import (
    CENTROIDS_FILE,
    EXPECTED,
    is_decision,
    joined_rule,
    needs_centroids,
    read_centroids,
)

ONE_MODEL, SEVERAL_MODELS, WITH_RULE = 1, 2, 3
"""The format versions, by what answers and how: an older snapfit would leave out what it does not know."""
FORMAT_VERSION = WITH_RULE
"""The newest."""
INFO_FILE = "snapfit.json"
PROBES_FILE = "probes.json"
WEIGHTS_FILE = "model.safetensors"
REQUIRED_FILES = (INFO_FILE, "config.json", WEIGHTS_FILE, "tokenizer.json", MANIFEST)
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill"})

_RESTORE = "restore snapfit.json from where the bundle was made, or train again"


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """What snapfit.json says.

    task: single, multi or regression. labels: `LabelSet.to_dict()` of the same task. pair: whether a row is
    two texts.
    text_columns: the table's column, or the two columns, that held the texts. label_column: the one that held
    labels.
    delimiter: what separated many labels in one cell, if anything did.
    pooling, pooling_reason: how tokens become one vector, and why that was chosen.
    head: "native" when plain transformers gives the same logits, of the first model where there are several; else
    "snapfit".
    max_tokens: longer texts are cut to it; special tokens count. length_policy: what is read of them, as
    `LengthPolicy.to_dict` has it; None for the first tokens. pad_id: the token that fills short rows up.
    metrics: values by split, then by name. versions: of what made it. data: identity of the tables (hashes,
    sizes).
    recipe: every setting, resolved. temperature: divides logits, > 0. thresholds: one a label in 0..1, multi
    only.
    members: the models whose scores are averaged (see `combining.combine`), two at least; None for one model. Each has
    "file" (`member_file` of its number), "share" (> 0; together 1), and "temperature" (> 0), which divides its
    logits; `temperature` then divides the logits of the mean. made_of: what the answer is, for people.
    decision: what the decision rule has beyond temperature and thresholds, see bundle_rule.py; None: nothing.
    decided: what is known about the rule, for people (see `rule_fitting.FittedRule.report`).
    format_version: WITH_RULE with a decision; else SEVERAL_MODELS with members, else ONE_MODEL.
    Raises BadInput naming the field that has a value it cannot have.
    """

    task: Task
    labels: dict[str, Any]
    pair: bool
    text_columns: list[str]
    label_column: str | None = None
    delimiter: str | None = None
    pooling: str
    pooling_reason: str
    head: Literal["native", "snapfit"]
    max_tokens: int
    pad_id: int
    temperature: float = 1.0
    thresholds: list[float] | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    members: list[dict[str, Any]] | None = None
    made_of: dict[str, Any] = field(default_factory=dict)
    length_policy: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    decided: dict[str, Any] = field(default_factory=dict)
    format_version: int = ONE_MODEL

    def __post_init__(self) -> None:
        for name, (is_good, expected) in _CHECKS.items():
            if not is_good(getattr(self, name)):
                self._refuse(name, expected)
        label_set = LabelSet.from_dict(self.labels)
        if self.task != label_set.task:
            self._refuse("task", f"{label_set.task!r}, the task of its labels")
        if self.thresholds is not None and (self.task != "multi" or len(self.thresholds) != label_set.n_outputs):
            self._refuse("thresholds", "one number in 0..1 a label for multi, otherwise null")
        for name in ("slopes", "shifts"):
            if len((self.decision or {}).get(name, label_set.names)) != label_set.n_outputs:
                self._refuse("decision", f"one number a label in {name}")
        try:
            joined_rule(self.task, self.temperature, self.thresholds, {**(self.decision or {}), "scope": None})
        except BadInput as error:
            self._refuse("decision", f"what fits together, but there are {error.found}")
        if "scope" in (self.decision or {}) and self.task != "single":
            self._refuse("decision", "a scope for the task 'single' only")
        if self.format_version != format_of(self.members, self.decision):
            self._refuse(
                "format_version", f"{WITH_RULE} with a decision, {SEVERAL_MODELS} with members, or {ONE_MODEL}"
            )

    @property
    def lengths(self) -> LengthPolicy:
        """What is read of a text that is longer than max_tokens."""
        return HEAD if self.length_policy is None else LengthPolicy.from_dict(self.length_policy)

    def _refuse(self, name: str, expected: str) -> NoReturn:
        raise BadInput(f"{name}: {getattr(self, name)!r} in {INFO_FILE}", expected, _RESTORE)

    @property
    def rule_values(self) -> dict[str, Any]:
        """The decision rule as `DecisionRule.to_dict` gives it."""
        thresholds = {} if self.thresholds is None else {"thresholds": self.thresholds}
        return {"temperature": self.temperature, **thresholds, **(self.decision or {})}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for snapfit.json, the format version first; what only some bundles have is left out if unset."""
        values = asdict(self)
        for name in ("made_of", "members", "length_policy", "decision", "decided"):
            if not values[name]:
                del values[name]
        return {"format_version": values.pop("format_version"), **values}

    @classmethod
    def from_dict(cls, values: Any) -> "BundleInfo":
        """What `to_dict` gave. Raises BadInput for another format version, and for missing, unknown or wrong
        keys.
        """
        if not isinstance(values, Mapping):
            raise BadInput(f"{INFO_FILE} holds a {type(values).__name__}", "an object", _RESTORE)
        _check_version(values.get("format_version"))
        known = {item.name: item for item in fields(cls)}
        for key in values:
            if key not in known:
                likely = nearest(str(key), known)
                hint = f" (nearest: {likely!r})" if likely else ""
                raise BadInput(f"the key {key!r} in {INFO_FILE}", f"one of {', '.join(known)}{hint}", _RESTORE)
        missing = [
            name
            for name, item in known.items()
            if name not in values and item.default is MISSING and item.default_factory is MISSING
        ]
        if missing:
            raise BadInput(f"{INFO_FILE} without {', '.join(missing)}", "these keys in it", _RESTORE)
        return cls(**values)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    folder: where it is. info: what snapfit.json says. label_set: the labels, ready to encode and decide with.
    """

    folder: Path
    info: BundleInfo
    label_set: LabelSet

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "Bundle":
        """Open a bundle folder after checking it.

        verify: True hashes every file against the manifest (a second for each gigabyte or so); False checks
        names and sizes alone. Raises BadInput for a folder that is not a bundle, misses files, holds files
        that the manifest does not name, a link out of itself or anything that only pickle reads, or is of a
        newer format.
        """
        folder = Path(folder)
        if not folder.is_dir():
            found = f"{folder} is {'not a folder' if folder.exists() else 'missing'}"
            raise BadInput(found, "a bundle's folder", "check the path; `snapfit train` writes bundles to RUN/bundle")
        files = list_files(folder)
        for name in files:
            if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES:
                fix = "remove the file if it is not the bundle's, or copy the bundle again"
                raise BadInput(f"{folder / name}, which may hold a pickle", "a bundle, which has no pickles", fix)
        for name in REQUIRED_FILES:
            if name not in files:
                raise BadInput(f"{folder} has no {name}", "a whole bundle", _fix_incomplete(folder, files))
        raw = read_json(folder / INFO_FILE)
        _check_version(raw.get("format_version") if isinstance(raw, Mapping) else None)
        verify_manifest(folder, hashes=verify)
        info = BundleInfo.from_dict(raw)
        for member in info.members or ():
            if member["file"] not in files:
                found = f"{folder} has no {member['file']}, which {INFO_FILE} names"
                raise BadInput(found, "a whole bundle", _fix_incomplete(folder, files))
        if needs_centroids(info.decision) and CENTROIDS_FILE not in files:
            found = f"{folder} has no {CENTROIDS_FILE}, which its decision rule needs"
            raise BadInput(found, "a whole bundle", _fix_incomplete(folder, files))
        return cls(folder, info, LabelSet.from_dict(info.labels))

    def rule(self) -> DecisionRule:
        """How its answers are made of logits. Raises BadInput when its centroids are damaged."""
        info = self.info
        centroids = read_centroids(self.folder) if needs_centroids(info.decision) else None
        return joined_rule(info.task, info.temperature, info.thresholds, info.decision, centroids=centroids)

    def tokenizer(self) -> TextTokenizer:
        """The bundle's tokenizer, which cuts and pads as in training."""
        return TextTokenizer.from_file(
            self.folder / "tokenizer.json",
            max_tokens=self.info.max_tokens,
            pad_id=self.info.pad_id,
            policy=self.info.lengths,
        )

    def probes(self) -> tuple[list[Any], np.ndarray] | None:
        """Texts (pairs as tuples) and the scores float64 [n, n_outputs] they had when the bundle was made, or
        None.

        Raises BadInput when probes.json is malformed.
        """
        path = self.folder / PROBES_FILE
        if not path.is_file():
            return None
        values = read_json(path)
        try:
            texts = [tuple(text) if isinstance(text, list) else text for text in values["texts"]]
            scores = np.array(values["scores"], dtype=np.float64).reshape(len(texts), self.label_set.n_outputs)
        except (KeyError, TypeError, ValueError) as error:
            fix = "restore the file from where the bundle was made"
            raise BadInput(f"{path} ({error})", "texts, and a row of scores for each", fix) from error
        return texts, scores


def member_file(number: int) -> str:
    """Where the weights of a bundle's model are, below its folder; numbers count from 0."""
    return f"members/{number}.safetensors" if number else WEIGHTS_FILE


def format_of(members: Any, decision: Any) -> int:
    """The format version of a bundle with these."""
    return WITH_RULE if decision else SEVERAL_MODELS if members else ONE_MODEL


def _check_version(version: Any) -> None:
    if type(version) is int and version > FORMAT_VERSION:
        found = f"a bundle of format {version}"
        raise BadInput(found, f"format {FORMAT_VERSION}, the newest that this snapfit knows", "pip install -U snapfit")
    if not _is_version(version):
        raise BadInput(f"format_version: {version!r} in {INFO_FILE}", _VERSIONS, _RESTORE)


def _fix_incomplete(folder: Path, files: Mapping[str, Path]) -> str:
    if f"bundle/{INFO_FILE}" in files:
        return f"this is a run folder: use {folder / 'bundle'}"
    if INFO_FILE not in files and "config.json" in files:
        return "this is a transformers folder: fine-tune it with `snapfit train TABLE --encoder FOLDER`"
    return "copy the bundle again, with all its files"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_version(value: Any) -> bool:
    return type(value) is int and value in (ONE_MODEL, SEVERAL_MODELS, WITH_RULE)


def _is_length_policy(value: Any) -> bool:
    try:
        return LengthPolicy.from_dict(value) != HEAD
    except BadInput:
        return False


def _are_members(value: Any) -> bool:
    """Whether this names two models or more, each in its own file, with shares that make a whole."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    for number, one in enumerate(value):
        if not isinstance(one, dict) or one.keys() != {"file", "share", "temperature"}:
            return False
        if one["file"] != member_file(number) or not all(_is_number(one[key]) for key in ("share", "temperature")):
            return False
        if not (0 < one["share"] < 1 and 0 < one["temperature"] < np.inf):
            return False
    return bool(abs(sum(one["share"] for one in value) - 1.0) < _SHARES_WITHIN)


_VERSIONS = f"{ONE_MODEL}, {SEVERAL_MODELS} or {WITH_RULE}"
_SHARES_WITHIN = 1e-6
"""How far the sum of shares may be from 1."""
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format_version": (_is_version, _VERSIONS),
    "task": (lambda v: v in TASKS, f"one of {', '.join(TASKS)}"),
    "labels": (_is_object, "an object"),
    "pair": (lambda v: type(v) is bool, "true or false"),
    "text_columns": (lambda v: isinstance(v, list) and all(map(_is_text, v)), "a list of column names"),
    "label_column": (_is_text_or_none, "a column name or null"),
    "delimiter": (_is_text_or_none, "a text or null"),
    "pooling": (lambda v: _is_text(v) and v != "", "the name of a pooling"),
    "pooling_reason": (_is_text, "a text"),
    "head": (lambda v: v in ("native", "snapfit"), "native or snapfit"),
    "max_tokens": (lambda v: type(v) is int and v >= 1, "an integer of at least 1"),
    "pad_id": (lambda v: type(v) is int and v >= 0, "an integer of at least 0"),
    "temperature": (lambda v: _is_number(v) and 0 < v < np.inf, "a finite number above 0"),
    "thresholds": (
        lambda v: v is None or (isinstance(v, list) and all(_is_number(x) and 0 <= x <= 1 for x in v)),
        "null, or a list of numbers in 0..1",
    ),
    "metrics": (lambda v: _is_object(v) and all(map(_is_object, v.values())), "values by split and name"),
    "versions": (lambda v: _is_object(v) and all(map(_is_text, v.values())), "versions by name"),
    "data": (_is_object, "an object"),
    "recipe": (_is_object, "an object"),
    "members": (
        lambda v: v is None or _are_members(v),
        f"null, or for each of two models or more: file ({WEIGHTS_FILE}, members/1.safetensors, ...), share and "
        "temperature above 0, the shares together 1",
    ),
    "made_of": (_is_object, "an object"),
    "length_policy": (
        lambda v: v is None or _is_length_policy(v),
        "null for head, or a length policy and what it needs",
    ),
    "decision": (is_decision, EXPECTED),
    "decided": (_is_object, "an object"),
}
"""What each field of snapfit.json must be by itself, and how to say so."""
