"""Texts against an encoder's vocabulary: unknown tokens, tokens a character, how long rows are and what a limit cuts.

Looked at is a sample of each split; the tokenizer is the encoder's own, of the library tokenizers.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from snapfit.checks.findings import EXAMPLES, Example, Finding, examples_of, percent, quantity, rows_at, shown, verb
from snapfit.checks.hints import sample_rows
from snapfit.checks.reading import CheckedSplit
from snapfit.checks.scripts import SCRIPTS
from snapfit.core.errors import BadInput
from snapfit.core.lengths import HEAD, LengthPolicy, Policy
from snapfit.data.cutting import CutCount, count_cuts

SAMPLE_ROWS = 20_000
UNKNOWN_NOTE, UNKNOWN_WARNING = 0.001, 0.01
"""From these shares of unknown tokens on a note, and a warning."""
MANY_TOKENS = 1.3
"""Tokens a character beyond which an encoder spells a script out; Chinese has about 1 with its own encoder."""
CUT_WARNING = 0.05
"""From this share of rows that are cut on it is a warning."""
_SCRIPT_SHARE = 0.05
_CHUNK_ROWS = 1_024


@dataclass
class TokenSurvey:
    """What an encoder's tokenizer makes of a split's texts.

    rows: that were looked at, int64 ascending. texts: tokens of each text of each, not cut and without special ones,
    int64 [rows, 1 or 2]. lengths: tokens of each row, special ones included, int64.
    unknown: unknown tokens of each, int64. words: unknown words with how often they came up.
    tokens, characters: by script, of the rows that are written in it.
    """

    rows: np.ndarray
    texts: np.ndarray
    unknown: np.ndarray
    words: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    n_special: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """See the class."""
        lengths: np.ndarray = self.texts.sum(axis=1) + self.n_special
        return lengths

    @property
    def unknown_share(self) -> float:
        """Unknown tokens among all that are not special ones."""
        plain = int(self.lengths.sum()) - self.n_special * len(self.rows)
        return float(self.unknown.sum()) / plain if plain > 0 else 0.0

    def per_character(self) -> dict[str, float]:
        """Tokens a character by script, of scripts that enough rows are written in."""
        total = max(sum(self.characters.values()), 1)
        return {
            script: round(self.tokens[script] / n, 4)
            for script, n in self.characters.most_common()
            if n and n >= _SCRIPT_SHARE * total
        }

    def cuts(self, limit: int, policy: LengthPolicy) -> dict[Policy, CutCount]:
        """What each length policy does to the rows. limit: tokens of a row. policy: says what the policies go by."""
        return count_cuts(list(self.texts.T), max_tokens=limit, n_special=self.n_special, policy=policy)

    def to_dict(self, limit: int, policy: LengthPolicy = HEAD) -> dict[str, Any]:
        """Plain values, for JSON. limit: tokens that a row is cut to. policy: the one that is to be trained with."""
        at = np.quantile(self.lengths, [0.0, 0.5, 0.95, 0.99, 1.0]).tolist()
        cuts, total = self.cuts(limit, policy), max(int(self.lengths.sum()), 1)
        chosen = cuts[policy.policy]
        return {
            "rows_looked_at": len(self.rows),
            "unknown_share": round(self.unknown_share, 6),
            "tokens_per_character": self.per_character(),
            "tokens": {
                **dict(zip(("least", "median", "p95", "p99", "most"), at, strict=True)),
                "mean": round(float(self.lengths.mean()), 2),
            },
            "limit": limit,
            "rows_too_long": chosen.too_long,
            "policy": policy.policy,
            "rows_cut": chosen.cut,
            "share_cut": round(chosen.cut / chosen.rows, 6),
            "share_of_tokens_cut": round(chosen.unread / total, 6),
            "policies": {
                name: {
                    "rows_cut": one.cut,
                    "share_of_tokens_cut": round(one.unread / total, 6),
                    "sequences_per_row": round(one.sequences / one.rows, 4),
                    "tokens": one.tokens,
                }
                for name, one in cuts.items()
            },
        }


def survey_tokens(split: CheckedSplit, tokenizer_json: bytes, scripts: np.ndarray) -> TokenSurvey:
    """Tokenise a sample of a split's rows. scripts: of all rows, from `scripts.main_scripts`.

    Raises BadInput for what is no tokenizer.json.
    """
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise BadInput(f"a tokenizer that cannot be read ({error})", "a tokenizer.json", "copy it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = _unknown_id(tokenizer, tokenizer_json)
    rows = sample_rows(len(split), SAMPLE_ROWS)
    are_pairs = split.records.pairs is not None
    survey = TokenSurvey(rows, np.zeros((len(rows), 1 + are_pairs), np.int64), np.zeros(len(rows), np.int64))
    survey.n_special = tokenizer.num_special_tokens_to_add(are_pairs)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chosen = rows[start : start + _CHUNK_ROWS]
        records: Any = split.records.take(chosen)
        texts = [column.to_pylist() for column in (records.texts, records.pairs) if column is not None]
        inputs: list[Any] = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
        for i, encoding in enumerate(tokenizer.encode_batch(inputs)):
            both = [column[i] for column in texts]
            _count(survey, start + i, encoding, both, unknown, SCRIPTS[scripts[chosen[i]]])
    return survey


def token_findings(
    splits: Mapping[str, CheckedSplit], surveys: Mapping[str, TokenSurvey], limit: int, policy: LengthPolicy = HEAD
) -> Iterator[Finding]:
    """Findings of what the encoder's tokenizer makes of the texts. limit: tokens of a row. policy: for longer ones."""
    for name, survey in surveys.items():
        yield from _unknown(splits[name], survey)
        yield from _spelt_out(splits[name], survey)
        yield from _cut(splits[name], survey, limit, policy)


def _count(survey: TokenSurvey, place: int, encoding: Any, texts: list[str], unknown: int | None, script: str) -> None:
    ids = encoding.ids
    second = encoding.sequence_ids.count(1) if len(texts) > 1 else 0
    survey.texts[place] = [len(ids) - survey.n_special - second, second][: len(texts)]
    survey.tokens[script] += len(ids) - survey.n_special
    survey.characters[script] += sum(map(len, texts))
    if unknown is None or unknown not in ids:
        return
    sequences, offsets = encoding.sequence_ids, encoding.offsets  # each makes a list anew
    for i, token in enumerate(ids):
        if token == unknown and sequences[i] is not None:
            survey.unknown[place] += 1
            start, end = offsets[i]
            survey.words[texts[sequences[i]][start:end]] += 1


def _unknown_id(tokenizer: Tokenizer, tokenizer_json: bytes) -> int | None:
    """The id of the unknown token; None where every text can be spelt out in bytes."""
    model = json.loads(tokenizer_json)["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    token = model.get("unk_token")
    found: int | None = None if token is None else tokenizer.token_to_id(token)
    return found


def _unknown(split: CheckedSplit, survey: TokenSurvey) -> Iterator[Finding]:
    share = survey.unknown_share
    if share < UNKNOWN_NOTE:
        return
    rows = survey.rows[survey.unknown > 0]
    text = (
        f"{percent(share)} of the tokens of {split.name} are unknown to the encoder, in {quantity(len(rows), 'row')} "
        f"({percent(len(rows) / len(survey.rows))})"
    )
    examples = [
        Example([shown(word)], note=f"unknown, {count:,} times") for word, count in survey.words.most_common(EXAMPLES)
    ]
    yield Finding(
        "unknown_tokens",
        "warning" if share >= UNKNOWN_WARNING else "note",
        split.name,
        int(survey.unknown.sum()),
        int(survey.lengths.sum()) - survey.n_special * len(survey.rows),
        text,
        unit="tokens",
        where=rows_at(split, rows),
        examples=examples,
        details={"rows": len(rows), "rows_looked_at": len(survey.rows)},
    )


def _spelt_out(split: CheckedSplit, survey: TokenSurvey) -> Iterator[Finding]:
    for script, ratio in survey.per_character().items():
        if ratio > MANY_TOKENS:
            n, total = survey.characters[script], sum(survey.characters.values())
            text = f"{script} texts of {split.name} take {ratio:.1f} tokens a character with this encoder"
            yield Finding("many_tokens", "warning", split.name, n, total, text, unit="characters")


def _cut(split: CheckedSplit, survey: TokenSurvey, limit: int, policy: LengthPolicy) -> Iterator[Finding]:
    lengths = survey.lengths
    too_long = np.flatnonzero(lengths > limit)
    if not len(too_long):
        return
    n, total = len(survey.rows), int(lengths.sum())
    found = survey.cuts(limit, policy)
    chosen, windows = found[policy.policy], found["windows"]
    longest = too_long[np.argsort(-lengths[too_long], kind="stable")][:EXAMPLES]
    rows = f"{quantity(len(too_long), 'row')} of {split.name} ({percent(len(too_long) / n)})"
    times = f"{windows.tokens / found['head'].tokens:.1f} times the tokens"
    left = f"{percent(windows.unread / total)} of all tokens, in {quantity(windows.cut, 'row')}"
    if policy.windowed:
        text = f"{rows} {verb(len(too_long), 'have')} more than {limit} tokens: windows leave out {left}, for {times}"
    else:
        text = (
            f"{rows} {verb(len(too_long), 'are')} cut at {limit} tokens; {percent(chosen.unread / total)} of all "
            f"tokens are lost (windows would lose {left}, for {times})"
        )
    yield Finding(
        "truncated",
        "warning" if chosen.cut / n >= CUT_WARNING else "note",
        split.name,
        len(too_long),
        n,
        text,
        where=rows_at(split, survey.rows[too_long]),
        examples=examples_of(split, survey.rows[longest], [f"{int(lengths[i]):,} tokens" for i in longest]),
        details={"limit": limit, "policy": policy.policy, "share_of_tokens": round(chosen.unread / total, 6)},
    )
