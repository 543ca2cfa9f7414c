"""Toy tables that a tiny encoder learns in a second, a tokenizer for them, and an encoder folder that carries both.

A text is a handful of filler words and a few words of one topic; the topic is the label. Every word is one token.
"""

import atexit
import functools
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import tiny
from snapfit.ship.pipeline import TrainResult, train

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FILLER = "the a of in we they it was is very quite some this that my your here there now then".split()
TOPICS = {
    "food": "bread soup apple cheese rice plum honey salt".split(),
    "tools": "hammer saw nail drill wrench file anvil bolt".split(),
    "animals": "cat horse owl trout wolf mole hen goat".split(),
}
WORDS = [*FILLER, *(word for words in TOPICS.values() for word in words)]


def tokenizer() -> Tokenizer:
    """A word-level tokenizer of these words, with BERT's special tokens and token types."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def save_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, as transformers writes them."""
    names = dict(zip(["pad", "unk", "cls", "sep", "mask"], SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), **{f"{kind}_token": token for kind, token in names.items()}
    ).save_pretrained(folder)


def encoder_folder(folder: Path, family: str = "bert", *, seed: int = 0, **changes: object) -> Path:
    """A tiny pretrained encoder with its tokenizer, ready to be named in a recipe."""
    tiny.save_encoder(folder, family, seed=seed, **({"pad_token_id": 0} | changes))
    save_tokenizer(folder)
    return folder


def text(rng: random.Random, topics: list[str]) -> str:
    """A text of 3 to 10 words, two of each topic among them."""
    words = [
        *rng.choices(FILLER, k=rng.randint(1, 6)),
        *(w for t in topics for w in rng.sample(TOPICS[t], 2)),
    ]
    rng.shuffle(words)
    return " ".join(words)


def single_rows(n: int = 120, *, seed: int = 0) -> list[dict[str, Any]]:
    """{"text", "label"}: one topic a text."""
    rng = random.Random(seed)
    names = sorted(TOPICS)
    return [{"text": text(rng, [names[i % 3]]), "label": names[i % 3]} for i in range(n)]


def multi_rows(n: int = 160, *, seed: int = 0) -> list[dict[str, Any]]:
    """{"text", "labels"}: any number of topics a text, none included."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        topics = [name for name in sorted(TOPICS) if rng.random() < 0.5]
        rows.append({"text": text(rng, topics), "labels": topics})
    return rows


def regression_rows(n: int = 160, *, seed: int = 0, offset: float = 0.0, scale: float = 1.0) -> list[dict[str, Any]]:
    """{"text", "score"}: how many of six words are food, as `offset + scale * share`."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        count = rng.randint(0, 6)
        words = rng.choices(TOPICS["food"], k=count) + rng.choices(TOPICS["tools"], k=6 - count)
        rng.shuffle(words)
        rows.append({"text": " ".join(words), "score": offset + scale * count / 6})
    return rows


def pair_rows(n: int = 160, *, seed: int = 0) -> list[dict[str, Any]]:
    """{"sentence1", "sentence2", "label"}: whether the second text is about food."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        second = "food" if i % 2 else "tools"
        rows.append(
            {
                "sentence1": text(rng, [rng.choice(sorted(TOPICS))]),
                "sentence2": text(rng, [second]),
                "label": "yes" if i % 2 else "no",
            }
        )
    return rows


QUICK: dict[str, Any] = {
    "train__epochs": 6,
    "train__batch": 8,
    "train__precision": "fp32",
    "optim__lr": 2e-3,
    "optim__head_lr_factor": 5.0,
    "model__dropout": 0.0,
}
"""Settings with which a tiny encoder learns a toy table in about a second."""

ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "single": single_rows,
    "multi": multi_rows,
    "regression": regression_rows,
    "pair": pair_rows,
}


@dataclass(frozen=True)
class Run:
    """A finished training: what it was made from, what it returned, and every event that was heard."""

    encoder: Path
    rows: list[dict[str, Any]]
    result: TrainResult
    events: list[dict[str, Any]]


def new_run(folder: Path, kind: str = "single", *, family: str = "bert", n_rows: int = 120, **settings: Any) -> Run:
    """Train on a toy table below `folder`, which must be empty."""
    rows, events = ROWS[kind](n_rows), []
    encoder = encoder_folder(folder / "encoder", family)
    result = train(rows, out=folder / "run", encoder=str(encoder), listener=events.append, **(QUICK | settings))
    return Run(encoder, rows, result, events)


@functools.cache
def trained(kind: str = "single", pooling: str = "native", family: str = "bert") -> Run:
    """The same, made once in a session and left in place: read it, never write to it."""
    folder = Path(tempfile.mkdtemp(prefix="snapfit-toys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    short = {} if family == "bert" else {"n_rows": 40, "train__epochs": 1}
    return new_run(folder, kind, family=family, model__pooling=pooling, **short)
