"""How long the training texts are, and what the length policy does to those that are too long, in words."""

import numpy as np

from snapfit.data.cutting import count_cuts
from snapfit.data.tokenizer import TextTokenizer, TokenIds


def uncut_lengths(tokens: TokenIds, tokenizer: TextTokenizer) -> np.ndarray:
    """Tokens of each row before it was cut, special ones included, int64 [n]. tokens: made by the tokenizer."""
    uncut = _uncut(tokens)
    lengths: np.ndarray = uncut.sum(axis=1, dtype=np.int64) + tokenizer.n_special(uncut.shape[1] == 2)
    return lengths


def cut_notice(tokens: TokenIds, tokenizer: TextTokenizer, *, n_rows: int) -> str | None:
    """What is read of training rows that are too long, with how many these are; None where all fit.

    tokens: of the rows, cut in whatever way, or of a sample of them. tokenizer: with the limit and the policy of the
    training. n_rows: how many there are.
    """
    uncut = _uncut(tokens)
    found = count_cuts(
        list(uncut.T),
        max_tokens=tokenizer.max_tokens,
        n_special=tokenizer.n_special(uncut.shape[1] == 2),
        policy=tokenizer.policy,
    )[tokenizer.policy.policy]
    if not found.too_long:
        return None
    rows = f"{found.rows:,} training rows" if found.rows == n_rows else f"a sample of {found.rows:,} training rows"
    text = (
        f"{found.too_long:,} of {rows} ({found.too_long / found.rows:.1%}) have more than {tokenizer.max_tokens:,} "
        f"tokens: {tokenizer.policy.in_words(tokenizer.max_tokens)} (length.policy={tokenizer.policy.policy})"
    )
    if not tokenizer.policy.windowed:
        return text
    text += f"; {found.sequences / found.rows:.2f} windows a row, {found.most_windows:,} at most"
    return f"{text}; of {found.cut:,} rows not all is in a window (length.max_windows)" if found.cut else text


def _uncut(tokens: TokenIds) -> np.ndarray:
    assert tokens.uncut is not None  # which a tokenizer always tells
    return tokens.uncut
