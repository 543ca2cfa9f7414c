"""What the length policy does to the training texts, told before the training begins; and the limit's reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.lengths import LengthPolicy
from snapfit.core.recipe import Recipe
from snapfit.data.tokenizer import TextTokenizer
from snapfit.training.lengths import cut_notice, uncut_lengths
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables

TEXTS = [" ".join(["bread"] * n) for n in (1, 6, 7, 20, 300)]
"""With [CLS] and [SEP] the first two fit into eight tokens."""


def tokenizer(policy: LengthPolicy, limit: int = 8) -> TextTokenizer:
    return TextTokenizer.from_bytes(toys.tokenizer().to_str().encode(), max_tokens=limit, pad_id=0, policy=policy)


def notice(policy: LengthPolicy, limit: int = 8, n_rows: int = 5) -> str | None:
    made = tokenizer(policy, limit)
    return cut_notice(made.encode(TEXTS), made, n_rows=n_rows)


def test_lengths_are_those_before_the_cut() -> None:
    for policy in (LengthPolicy(), LengthPolicy("windows")):
        made = tokenizer(policy)
        assert uncut_lengths(made.encode(TEXTS), made).tolist() == [3, 8, 9, 22, 302]
        assert uncut_lengths(made.encode(TEXTS, TEXTS), made).tolist() == [5, 15, 17, 43, 603]


def test_what_is_cut_and_what_is_read() -> None:
    assert notice(LengthPolicy()) == (
        "3 of 5 training rows (60.0%) have more than 8 tokens: of longer texts the first 8 tokens are read "
        "(length.policy=head)"
    )
    assert notice(LengthPolicy("tail"), n_rows=9) == (
        "3 of a sample of 5 training rows (60.0%) have more than 8 tokens: of longer texts the last 8 tokens are read "
        "(length.policy=tail)"
    )
    assert notice(LengthPolicy(), 302) is None


def test_windows_tell_what_they_cost_and_leave_out() -> None:
    told = notice(LengthPolicy("windows", overlap=0.0, max_windows=4))
    assert told is not None
    assert told.startswith(
        "3 of 5 training rows (60.0%) have more than 8 tokens: longer texts are read in up to 4 windows"
    )
    assert told.endswith(
        "(length.policy=windows); 2.40 windows a row, 4 at most; of 1 rows not all is in a window (length.max_windows)"
    )
    assert "not all is" not in str(notice(LengthPolicy("windows", overlap=0.0, max_windows=50)))


# ---------------------------------------------------------------- in a plan


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def planned(encoder: Path, **settings: Any) -> tuple[Plan, list[str]]:
    values = toys.QUICK | {"model__encoder": str(encoder), "model__pooling": "mean"} | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    rows = [*toys.single_rows(60), *({"text": text, "label": "food"} for text in TEXTS[-2:])]
    heard: list[str] = []
    tables = read_tables(rows, None, None, recipe.data)
    return make_plan(tables, recipe, notify=lambda kind, **fields: heard.append(fields.get("text", kind))), heard


@pytest.mark.parametrize("limit", ["auto", 24])
def test_a_plan_tells_it_once_whatever_was_looked_at_first(encoder: Path, limit: Any) -> None:
    plan, heard = planned(encoder, length__max_tokens=limit, length__policy="windows", length__max_windows=3)
    (told,) = [text for text in heard if "have more than" in text]
    assert f"of {len(plan.examples['train'].tokens)} training rows" in told
    assert "(length.policy=windows)" in told
    assert plan.tokenizer.policy == LengthPolicy("windows", max_windows=3)
    tokens = plan.examples["train"].tokens
    assert tokens.window_tokens == plan.recipe.length.max_tokens == plan.order.window_tokens
    assert int(np.max(plan.order.lengths)) <= 3 * int(plan.recipe.length.max_tokens)


def test_the_limit_knows_the_longest_text(encoder: Path) -> None:
    """The tiny encoder has 64 positions, and a text has 302 tokens."""
    plan, _ = planned(encoder, length__max_tokens="auto")
    assert plan.recipe.length.max_tokens == 64
    assert "the longest has 302 tokens" in plan.reasons["length.max_tokens"]
    share = np.mean(uncut_lengths(plan.examples["train"].tokens, plan.tokenizer) <= 64)  # type: ignore[arg-type]
    assert plan.reasons["length.max_tokens"].startswith(f"{share:.1%} of the training rows fit")


def test_nothing_is_told_where_all_fit(encoder: Path) -> None:
    recipe = Recipe().with_values({"model.encoder": str(encoder), "train.precision": "fp32", "model.pooling": "mean"})
    heard: list[str] = []
    make_plan(
        read_tables(toys.single_rows(40), None, None, recipe.data),
        recipe,
        notify=lambda kind, **fields: heard.append(kind),
    )
    assert heard == ["recipe"]
