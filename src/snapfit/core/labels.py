"""The label set: which labels there are, in which order, and what a target for the loss must look like.

It is the only owner of a target's dtype and shape, so that a loss never meets targets of another kind:

    task         loss                      targets
    single       cross-entropy             int64   [n]
    multi        binary cross-entropy      float32 [n, n_outputs], 0 or 1
    regression   squared error             float32 [n, 1], in the units of the table
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from snapfit.core.errors import BadInput, WorkFailed, listed, nearest, shown
from snapfit.core.places import rows_at

Task = Literal["single", "multi", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SHOWN = 5
_KEYS = ("task", "names", "target_mean", "target_scale")
_RESTORE = "restore the file that it was read from"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class ArrayLike(Protocol):
    """What `check_targets` looks at: a numpy array or a torch tensor."""

    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True)
class LabelSet:
    """The outputs of a classifier, in order.

    task: single (one label a text), multi (any number of labels a text) or regression (a number a text).
    names: the labels; for regression the one column's name.
    target_mean, target_scale: mean and standard deviation of the training targets, for regression only, in
    the units of the table; the scale of a constant column is 1.
    Raises BadInput when names repeat, are empty or too few for the task, or when mean and scale are not
    usable.
    """

    task: Task
    names: tuple[str, ...]
    target_mean: float = 0.0
    target_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise BadInput(f"task {self.task!r}", f"one of {', '.join(TASKS)}", "correct the task")
        _check_names(self.task, self.names)
        if not np.isfinite(self.target_mean) or not (0.0 < self.target_scale < np.inf):
            found = f"target mean {self.target_mean} and scale {self.target_scale}"
            raise BadInput(found, "a finite mean and a finite scale above 0", "fit the label set again")

    @classmethod
    def fit(cls, task: Task, labels: Iterable[Any], *, name: str = "score", where: str = "") -> "LabelSet":
        """The label set of a training table.

        labels: single: str of each row; multi: a list of str of each row; regression: a number of each row.
        Lists, numpy arrays and Arrow arrays are taken. name: the column's name, kept for regression.
        where: what the labels came from, named in errors.
        Labels that are all integers are sorted by value, others by code point; the order of rows is nothing
        to it. Raises BadInput when there are no rows, a label is not of its kind, or single has fewer than
        two labels.
        """
        if task == "regression":
            values = _numbers(labels, where=where)
            if len(values) == 0:
                raise _no_rows(where)
            scale = 0.0 if values.min() == values.max() else float(values.std())
            return cls(task, (name,), float(values.mean()), scale or 1.0)
        return cls._of_names(task, _names(task, labels, where), where)

    @classmethod
    def fit_parts(
        cls, task: Task, parts: Iterable[Iterable[Any]], *, name: str = "score", where: str = ""
    ) -> "LabelSet":
        """As `fit`, from the labels of a large table part by part, of which only one is held at a time.

        A regression's mean and scale are joined in float64 and may differ from those of `fit` in the last digits.
        """
        if task != "regression":
            names: set[Any] = set()
            for part in parts:
                names |= _names(task, part, "")
            return cls._of_names(task, names, where)
        n, mean, squares, least, most = 0, 0.0, 0.0, np.inf, -np.inf
        for part in parts:
            values = _numbers(part, where="")
            if len(values):
                gap, total = float(values.mean()) - mean, n + len(values)
                squares += float(values.var()) * len(values) + gap * gap * n * len(values) / total  # Chan et al. 1979
                mean, n = mean + gap * len(values) / total, total
                least, most = min(least, float(values.min())), max(most, float(values.max()))
        if n == 0:
            raise _no_rows(where)
        scale = 0.0 if least == most else float(np.sqrt(squares / n))
        return cls(task, (name,), mean, scale or 1.0)

    @classmethod
    def _of_names(cls, task: Task, names: Iterable[str], where: str) -> "LabelSet":
        try:
            return cls(task, tuple(_sorted_names(names)))
        except BadInput as error:
            raise BadInput(f"{_place(where)}{error.found}", error.expected, error.fix) from None

    @property
    def n_outputs(self) -> int:
        """How many logits the classifier has for a text."""
        return len(self.names)

    @property
    def target_dtype(self) -> "np.dtype[Any]":
        """int64 for single, float32 otherwise."""
        return np.dtype(np.int64 if self.task == "single" else np.float32)

    def target_shape(self, n: int) -> tuple[int, ...]:
        """The shape of the targets of `n` rows: [n] for single, [n, n_outputs] otherwise."""
        return (n,) if self.task == "single" else (n, self.n_outputs)

    def encode(self, labels: Iterable[Any], *, where: str = "") -> np.ndarray:
        """Targets of `target_dtype` and `target_shape`; regression stays in the units of the table.

        labels: as for `fit`. where: what the labels came from, named in errors, such as "valid.csv".
        Raises BadInput naming up to five unknown labels with their counts, or rows whose label is of another
        kind.
        """
        if self.task == "regression":
            return _numbers(labels, where=where).astype(np.float32)[:, None]
        index = {name: i for i, name in enumerate(self.names)}
        rows = _rows(labels)
        flat, lengths = (rows, None) if self.task == "single" else _flatten(rows, where=where)
        try:
            columns = np.fromiter((index[label] for label in flat), dtype=np.int64, count=len(flat))
        except (KeyError, TypeError):
            _check_strings(rows, nested=self.task == "multi", where=where)
            raise _unknown(rows if lengths is not None else [[label] for label in rows], index, where) from None
        if lengths is None:
            return columns
        targets = np.zeros((len(rows), self.n_outputs), dtype=np.float32)
        targets[np.repeat(np.arange(len(rows)), lengths), columns] = 1.0
        return targets

    def check_targets(self, targets: ArrayLike, logits_shape: Sequence[int]) -> None:
        """Raise WorkFailed unless `targets` are what the loss takes for logits of n_outputs columns.

        targets: a numpy array or a torch tensor; only its dtype and shape are read. logits_shape: [n, n_outputs].
        """
        if tuple(logits_shape)[1:] != (self.n_outputs,):
            raise WorkFailed(
                f"logits of shape {tuple(logits_shape)} for {self.n_outputs} outputs; the task {self.task!r} needs "
                f"[rows, {self.n_outputs}]"
            )
        check_targets(self.task, targets, logits_shape)

    def counts(self, targets: np.ndarray) -> np.ndarray:
        """How many rows carry each label, int64 [n_outputs]; for regression the number of rows.

        targets: from `encode`.
        """
        if self.task == "single":
            return np.bincount(targets, minlength=self.n_outputs).astype(np.int64)
        if self.task == "multi":
            return np.asarray(np.count_nonzero(targets, axis=0), dtype=np.int64)
        return np.array([len(targets)], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` makes an equal label set of them."""
        return {
            "task": self.task,
            "names": list(self.names),
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LabelSet":
        """The label set of what `to_dict` gave. Raises BadInput for missing, unknown or wrong entries."""
        if not isinstance(values, Mapping) or set(values) != set(_KEYS):
            keys = f"the keys {', '.join(map(str, values))}" if isinstance(values, Mapping) else repr(values)
            raise BadInput(f"a label set with {keys}", f"the keys {', '.join(_KEYS)}", _RESTORE)
        names, numbers = values["names"], (values["target_mean"], values["target_scale"])
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise BadInput(f"label names {names!r}", "a list of strings", _RESTORE)
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            raise BadInput(f"target mean and scale {numbers!r}", "two numbers", _RESTORE)
        return cls(values["task"], tuple(names), float(numbers[0]), float(numbers[1]))


def check_targets(task: Task, targets: ArrayLike, logits_shape: Sequence[int]) -> None:
    """Raise WorkFailed unless `targets` have the dtype and shape that the task's loss takes beside such logits.

    int64 [n], or shares of the labels, float32 of the logits' shape, for single; the latter for multi and regression.
    """
    dtype = str(targets.dtype).removeprefix("torch.")
    soft = ("float32", tuple(logits_shape))
    wanted, shape = ("int64", tuple(logits_shape[:1])) if task == "single" and dtype != "float32" else soft
    if dtype != wanted or tuple(targets.shape) != shape:
        raise WorkFailed(
            f"targets are {dtype} of shape {tuple(targets.shape)}; the loss of task {task!r} needs "
            f"{wanted} of shape {shape}"
        )


def _check_names(task: Task, names: tuple[str, ...]) -> None:
    if task == "regression":
        if len(names) != 1:
            raise BadInput(f"{len(names)} names for a regression", "the one column's name", "name one column")
        return
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise BadInput(f"the label {shown(repeated[0])} twice", "labels that differ", "remove the repeated label")
    if "" in names:
        raise BadInput("a label that is empty", "labels with a name", "fill in or remove the rows without a label")
    if task == "single" and len(names) < 2:
        found = f"one label only, {shown(names[0])}" if names else "no labels"
        fix = "check that the label column is the right one (--label NAME), or add rows of another label"
        raise BadInput(found, "at least two different labels", fix)
    if not names:
        fix = "check that the label column is the right one (--label NAME)"
        raise BadInput("no labels in any row", "at least one label", fix)


def _no_rows(where: str) -> BadInput:
    return BadInput(f"{_place(where)}no rows", "at least one number to learn", "give a table with labelled rows")


def _names(task: Task, labels: Iterable[Any], where: str) -> set[Any]:
    """The different labels, all of them text."""
    rows = _rows(labels)
    flat = rows if task == "single" else _flatten(rows, where=where)[0]
    _check_strings(rows, nested=task == "multi", where=where)
    return set(flat)


def _sorted_names(names: Iterable[str]) -> list[str]:
    plain = [str(name) for name in names]
    if all(_INTEGER.fullmatch(name) for name in plain):
        return sorted(plain, key=lambda name: (int(name), name))
    return sorted(plain)


def _rows(labels: Iterable[Any]) -> list[Any]:
    """A list of Python values from a list, a numpy array or an Arrow array."""
    if isinstance(labels, str | bytes):
        raise BadInput(f"the single text {labels!r}", "a sequence with a label for each row", "pass a list")
    for convert in ("to_pylist", "tolist"):
        if hasattr(labels, convert):
            values: list[Any] = getattr(labels, convert)()
            return values
    return labels if isinstance(labels, list) else list(labels)


def _flatten(rows: list[Any], *, where: str) -> tuple[list[Any], np.ndarray]:
    """All labels one after another, and how many each row has (int64 [n])."""
    for i, row in enumerate(rows):
        if isinstance(row, str | bytes) or not isinstance(row, Iterable):
            found = f"{_place(where)}{rows_at(where, [i])} has the label {shown(row)}"
            raise BadInput(found, "a list of labels in every row", "give --delimiter if a cell holds many labels")
    lists = [list(row) for row in rows]
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return [label for row in lists for label in row], lengths


def _check_strings(rows: list[Any], *, nested: bool, where: str) -> None:
    for i, row in enumerate(rows):
        for label in row if nested else (row,):
            if not isinstance(label, str):
                found = f"{_place(where)}{rows_at(where, [i])} has the label {shown(label)} ({type(label).__name__})"
                fix = "turn labels into text, and remove rows without a label"
                raise BadInput(found, "labels that are text", fix)


def _unknown(rows: Iterable[Iterable[str]], known: Mapping[str, int], where: str) -> BadInput:
    """The error for rows with labels that are not known."""
    places: dict[str, list[int]] = {}
    for i, labels in enumerate(rows):
        for label in labels:
            if label not in known:
                places.setdefault(label, []).append(i)
    often = sorted(places, key=lambda label: -len(places[label]))
    told = ", ".join(f"{shown(label)} ({len(places[label])} times)" for label in often[:_SHOWN])
    more = f" and {len(often) - _SHOWN} more" if len(often) > _SHOWN else ""
    first = sorted({i for label in often for i in places[label]})
    likely = nearest(often[0], known)
    hint = f"; did you mean {shown(likely)}?" if likely else ""
    return BadInput(
        f"{_place(where)}labels that are not among the {len(known)} known ones: {told}{more}, in "
        f"{rows_at(where, first)}",
        f"only labels of the training table: {listed(known, _SHOWN)}",
        f"correct or remove these rows, or add rows of these labels to the training table{hint}",
    )


def _numbers(labels: Iterable[Any], *, where: str) -> np.ndarray:
    """float64 [n], every one finite and within float32."""
    rows = labels if isinstance(labels, np.ndarray) else _rows(labels)
    try:
        values = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        found = f"{_place(where)}labels that are not numbers ({error})"
        raise BadInput(found, "a number in every row", "correct these rows, or use --task single") from error
    if values.ndim != 1:
        found = f"{_place(where)}labels of shape {values.shape}"
        raise BadInput(found, "one number a row", "pass a flat sequence of numbers")
    bad = np.flatnonzero(~(np.abs(values) <= _FLOAT32_MAX))
    if len(bad):
        told = ", ".join(f"{values[i]} in {rows_at(where, [i])}" for i in bad[:_SHOWN])
        found = f"{_place(where)}{len(bad)} labels that are not finite numbers: {told}"
        raise BadInput(found, "finite numbers that fit float32", "remove or correct these rows")
    return values


def _place(where: str) -> str:
    return f"{where}: " if where else ""
