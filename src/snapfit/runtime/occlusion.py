"""Words taken away one after another: what the model says without each (Zeiler and Fergus 2014; Li et al. 2016).

A word is taken away by putting the tokenizer's mask token in the place of each of its tokens. Nothing moves: the other
words keep their places, and the row its length, where removing would change all that follow and the weight of each word
in a mean. And encoders know the mask token from their own training as "some word, which is not told". Tokenizers
without one have an unknown or a padding token, which is the next best thing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.data.tokenizer import TextTokenizer, TokenIds
from snapfit.data.words import TracedRow
from snapfit.runtime.bundle import Bundle

MASKS = ("mask_token", "unk_token", "pad_token")
"""What may stand for a word that is not there, best first, as tokenizer_config.json calls them."""
_USUAL = {"mask_token": ("[MASK]", "<mask>"), "unk_token": ("[UNK]", "<unk>"), "pad_token": ("[PAD]", "<pad>")}
"""How they are written where that file does not say."""


@dataclass(frozen=True)
class Mask:
    """The token that stands for a word that is not there. piece: as the vocabulary has it."""

    id: int
    piece: str


def find_mask(bundle: Bundle, tokenizer: TextTokenizer) -> Mask:
    """A bundle's mask token, or what comes nearest to one. Raises BadInput where there is nothing of the kind."""
    path = bundle.folder / "tokenizer_config.json"
    settings: Any = {}
    if path.is_file():
        try:
            settings = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise BadInput(f"{path} ({error})", "JSON", "restore the file from where the bundle was made") from error
    for name in MASKS:
        named = settings.get(name) if isinstance(settings, dict) else None
        named = named.get("content") if isinstance(named, dict) else named
        for piece in (named, *_USUAL[name]):
            found = tokenizer.id_of(piece) if isinstance(piece, str) else None
            if found is not None:
                return Mask(found, str(piece))
    raise BadInput(
        f"the tokenizer of {bundle.folder}, which has none of {', '.join(MASKS)}",
        "a token that can stand for a word",
        "add one to its tokenizer_config.json and train again",
    )


def blanked(row: TracedRow, blanks: Sequence[tuple[int, ...]], mask_id: int) -> TokenIds:
    """The row once for each of `blanks`, with the tokens of these spans replaced by the mask token; () changes none."""
    rows = row.tokens.take(np.zeros(len(blanks), dtype=np.int64))
    ids = rows.ids.reshape(len(blanks), -1)
    for one, spans in zip(ids, blanks, strict=True):
        one[np.isin(row.source, spans)] = mask_id
    return replace(rows, ids=ids.ravel())


def occlude(
    row: TracedRow,
    away: Sequence[tuple[int, ...]],
    mask_id: int,
    values: Callable[[TokenIds], np.ndarray],
) -> dict[tuple[int, ...], np.ndarray]:
    """What is explained once the tokens of each of these sets of spans are masked: float64 [outputs] by set.

    values: float64 [n, outputs] of rows. Each set goes through the model once, however often it is named.
    """
    sets = list(dict.fromkeys(away))
    return dict(zip(sets, values(blanked(row, sets, mask_id)), strict=True)) if sets else {}
