"""Self-distillation: one model that learns what several know together (Xu et al. 2020; Hinton et al. 2015).

The student begins with a soup, or with the best single weights, and is trained as any classifier is, by the same loop:
only its targets are others. A training text's target is a mix of its label and of the team's scores on it; that of a
text without a label is the team's scores alone. Cross-entropy and squared error are linear in their targets, up to a
constant, so that this is the mix of both losses.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from snapfit.core.combining import combine
from snapfit.core.errors import BadInput
from snapfit.core.files import cannot_write, make_folder, sibling, sync_folder
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import settled
from snapfit.data.tokenizer import TokenIds, TokenRows
from snapfit.training.loop import Examples, Targets
from snapfit.training.plan import Plan
from snapfit.training.verdict import Team

TARGETS_FILE = "targets.npy"
_CHUNK_ROWS = 65_536
"""Of the texts that a team scores, whose logits are held at a time."""

LogitsOfRows = Callable[[Mapping[str, Tensor], np.ndarray], np.ndarray]
"""(weights, rows) -> logits float [rows, n_outputs] of these texts; a regression's standardised."""


@dataclass(frozen=True)
class SoftTargets:
    """Targets that are no labels but shares of them; of a regression, numbers.

    hard: targets of the labelled rows, which come first. soft: the team's scores, float32 [rows, n_outputs], in memory
    or mapped. share: of the team's scores in the target of a labelled row.
    """

    hard: Targets
    soft: np.ndarray
    share: float
    task: str

    def __len__(self) -> int:
        return len(self.soft)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        mixed = np.array(self.soft[rows], dtype=np.float32)
        labelled = np.flatnonzero(rows < len(self.hard))
        hard = self.hard[rows[labelled]]
        if self.task == "single":
            mixed[labelled] *= self.share
            mixed[labelled, hard] += np.float32(1.0 - self.share)
        else:
            mixed[labelled] = self.share * mixed[labelled] + (1.0 - self.share) * hard
        return mixed


def student_plan(plan: Plan, soft: np.ndarray, unlabelled: TokenIds | None) -> Plan:
    """The student's training: the run's recipe at a part of its rates, over the run's texts and those without labels.

    soft: the team's scores, a row for each training text and each of `unlabelled`.
    """
    ensemble, optim = plan.recipe.ensemble, plan.recipe.optim
    head_factor = settled(optim.head_lr_factor) * ensemble.restart_head_rate / ensemble.restart_rate
    recipe = plan.recipe.with_values(
        {
            "train.epochs": ensemble.student_epochs,
            "train.seed": (plan.recipe.train.seed + 1) % 2**32,
            "train.patience": None,
            "train.sampling": "all",
            "optim.lr": settled(optim.lr) * ensemble.restart_rate,
            "optim.head_lr_factor": head_factor,
            "schedule.shape": "linear",
            "schedule.cycles": 1,
            "schedule.warmup_fraction": ensemble.rewarm_fraction,
            "schedule.head_first": 0.0,
            "schedule.unfreeze_share": 0.0,
            "loss.function": "plain",
            "loss.label_smoothing": 0.0,
            "loss.class_weights": None,
            "model.head": "fresh",
            "model.reinit_layers": 0,
            "ensemble.members": 0,
            "ensemble.rounds": 0,
            "ensemble.student_epochs": 0.0,
            "ensemble.ema_share": 0.0,
            "ensemble.tail_share": 0.0,
        }
    )
    train = plan.examples["train"]
    tokens: TokenRows = train.tokens
    lengths = plan.order.lengths
    if unlabelled is not None:
        tokens = both = joined(train.tokens, unlabelled)
        lengths = both.lengths
    targets = SoftTargets(train.targets, soft, ensemble.teacher_share, plan.label_set.task)
    examples = {**plan.examples, "train": Examples(tokens, targets, train.pad_id)}
    order = replace(plan.order, lengths=lengths, classes=None, weights=None, seed=recipe.train.seed)
    return replace(
        plan,
        recipe=recipe,
        examples=examples,
        order=order,
        total_steps=order.total_steps(ensemble.student_epochs),
        weights=None,
        taught_by=_digest_of(soft),
    )


def joined(tokens: TokenRows, more: TokenIds) -> TokenIds:
    """Rows, and more rows after them. Raises BadInput for a table that is not held in memory."""
    held = as_a_whole(tokens)
    return TokenIds(
        np.concatenate([held.ids, more.ids]),
        np.concatenate([held.offsets, held.offsets[-1] + more.offsets[1:]]),
        np.concatenate([held.second_start, more.second_start]),
        held.window_tokens,
    )


def as_a_whole(tokens: TokenRows) -> TokenIds:
    """The rows of a table that more texts can be put behind. Raises BadInput for one that is read piece by piece."""
    if not isinstance(tokens, TokenIds):
        raise BadInput(
            f"unlabelled texts beside a training table of {len(tokens):,} rows",
            "a training table that is read as a whole",
            "leave the unlabelled texts out",
        )
    return tokens


def team_scores(
    team: Team, logits_of: LogitsOfRows, label_set: LabelSet, n_rows: int, *, texts: str, root: Path | None
) -> np.ndarray:
    """What a team says of texts: float32 [rows, n_outputs].

    texts: names them. root: where the scores are written, to be mapped; None holds them in memory. Those of the same
    team on the same texts that were written before are taken. Raises WorkFailed when they cannot be written, and
    whatever `logits_of` raises.
    """
    shape = (n_rows, label_set.n_outputs)
    if root is None:
        scores = np.empty(shape, dtype=np.float32)
        _fill(scores, team, logits_of, label_set)
        return scores
    path = root / f"{_digest(team, texts)[:16]}-{TARGETS_FILE}"
    try:
        if not path.exists():
            make_folder(root)
            part = sibling(path, "part")
            written = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
            _fill(written, team, logits_of, label_set)
            written.flush()
            del written
            part.replace(path)
            sync_folder(root)
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise cannot_write(path, error) from error
    return mapped


def _fill(scores: np.ndarray, team: Team, logits_of: LogitsOfRows, label_set: LabelSet) -> None:
    for start in range(0, len(scores), _CHUNK_ROWS):
        rows = np.arange(start, min(start + _CHUNK_ROWS, len(scores)))
        parts = [logits_of(weights, rows) for weights in team.weights]
        scores[rows] = combine(parts, team.temperatures, label_set.task, team.temperature, shares=team.shares)


def _digest_of(scores: np.ndarray) -> str:
    """Names all scores; a mapped file is read piece by piece."""
    digest = hashlib.sha256()
    for start in range(0, len(scores), _CHUNK_ROWS):
        digest.update(np.ascontiguousarray(scores[start : start + _CHUNK_ROWS]).data)
    return digest.hexdigest()


def _digest(team: Team, texts: str) -> str:
    digest = hashlib.sha256(repr((texts, team.shares, team.temperatures, team.temperature)).encode())
    for weights in team.weights:
        _add(digest, weights)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", weights: Mapping[str, Tensor]) -> None:
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(-1).numpy().data)
