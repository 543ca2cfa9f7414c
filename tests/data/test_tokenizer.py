"""The tokenizer against transformers on the same tokenizer.json."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.data.batches import pad
from snapfit.data.tokenizer import TextTokenizer, TokenIds

TEXTS = [
    "The train to the coast leaves at seven.",
    "",
    " ",
    "今天早上的火车晚点了二十分钟。",
    "Cafe\u0301 naïve ﬁne 🙂 \u200b\u3000 x",
    "unknowable zzz " * 50,
    "[SEP] in a text [MASK]",
    "a\nb\tc",
]
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SAME_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def reference(tiny_tokenizer_json: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(tiny_tokenizer_json), pad_token="[PAD]")


def tokenizer_of(path: Path, max_tokens: int = 24) -> TextTokenizer:
    return TextTokenizer.from_file(path, max_tokens=max_tokens, pad_id=0)


def padded(tokens: TokenIds) -> dict[str, list[list[int]]]:
    batch = pad(tokens, np.arange(len(tokens)), pad_id=0)
    return {
        "input_ids": batch.input_ids.tolist(),
        "attention_mask": batch.attention_mask.tolist(),
        "token_type_ids": batch.token_type_ids.tolist(),
    }


def expected(reference: PreTrainedTokenizerFast, *texts: list[str], max_tokens: int) -> dict[str, Any]:
    made = reference(
        *texts,
        padding=True,
        truncation="longest_first",
        max_length=max_tokens,
        return_token_type_ids=True,
    )
    return {name: made[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


@pytest.mark.parametrize("max_tokens", [3, 8, 24, 512])
def test_texts_as_transformers(tiny_tokenizer_json: Path, reference: PreTrainedTokenizerFast, max_tokens: int) -> None:
    tokens = tokenizer_of(tiny_tokenizer_json, max_tokens).encode(TEXTS)
    assert padded(tokens) == expected(reference, TEXTS, max_tokens=max_tokens)
    assert (tokens.second_start == tokens.lengths).all()


@pytest.mark.parametrize("max_tokens", [5, 8, 24, 512])
def test_pairs_as_transformers(tiny_tokenizer_json: Path, reference: PreTrainedTokenizerFast, max_tokens: int) -> None:
    firsts = [a for a in TEXTS for _ in TEXTS]
    seconds = TEXTS * len(TEXTS)
    tokens = tokenizer_of(tiny_tokenizer_json, max_tokens).encode(firsts, seconds)
    assert padded(tokens) == expected(reference, firsts, seconds, max_tokens=max_tokens)


@SAME_FIXTURE
@given(first=ANY_TEXT, second=ANY_TEXT)
def test_any_text_as_transformers(
    tiny_tokenizer_json: Path, reference: PreTrainedTokenizerFast, first: str, second: str
) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json, 12)
    assert padded(tokenizer.encode([first])) == expected(reference, [first], max_tokens=12)
    pair = expected(reference, [first], [second], max_tokens=12)
    assert padded(tokenizer.encode([first], [second])) == pair


def test_more_rows_than_a_chunk(tiny_tokenizer_json: Path) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json)
    texts = [TEXTS[i % len(TEXTS)] for i in range(2500)]
    tokens, first = tokenizer.encode(texts), tokenizer.encode(TEXTS)
    again = first.take(np.arange(2500) % len(TEXTS))
    assert len(tokens) == 2500
    assert all((getattr(tokens, f) == getattr(again, f)).all() for f in ("ids", "offsets", "second_start"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_arrow_columns(tiny_tokenizer_json: Path, kind: pa.DataType) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json)
    column = pa.chunked_array([TEXTS[:3], TEXTS[3:]], kind)
    assert tokenizer.encode(column).ids.tolist() == tokenizer.encode(TEXTS).ids.tolist()


def test_no_rows(tiny_tokenizer_json: Path) -> None:
    tokens = tokenizer_of(tiny_tokenizer_json).encode([])
    assert (len(tokens), tokens.ids.dtype, tokens.lengths.tolist()) == (0, np.uint16, [])


def test_special_tokens_and_identity(tiny_tokenizer_json: Path) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json)
    assert (tokenizer.n_special(pair=False), tokenizer.n_special(pair=True)) == (2, 3)
    content = tiny_tokenizer_json.read_bytes()
    assert TextTokenizer.from_bytes(content, max_tokens=5, pad_id=0).identity == tokenizer.identity
    assert TextTokenizer.from_bytes(content + b"\n", max_tokens=5, pad_id=0).identity != tokenizer.identity


def test_settings_in_the_file_are_replaced(tiny_tokenizer_json: Path, tmp_path: Path) -> None:
    other = Tokenizer.from_file(str(tiny_tokenizer_json))
    other.enable_padding(length=40)
    other.enable_truncation(4, strategy="only_first", direction="left")
    other.save(str(tmp_path / "tokenizer.json"))
    tokens = tokenizer_of(tmp_path / "tokenizer.json").encode(TEXTS)
    assert tokens.ids.tolist() == tokenizer_of(tiny_tokenizer_json).encode(TEXTS).ids.tolist()


def plain_tokenizer(n_words: int, *, template: bool = False) -> bytes:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n_words)}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        single, pair = "$A:2 w3:2", "$A:2 $B:0 w3:0"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("w3", 3)])
    return tokenizer.to_str().encode()


def test_large_vocabularies_have_wider_ids() -> None:
    tokenizer = TextTokenizer.from_bytes(plain_tokenizer(70_000), max_tokens=8, pad_id=0)
    tokens = tokenizer.encode(["w69999 w5"])
    assert (tokens.ids.dtype, tokens.ids.tolist()) == (np.uint32, [69_999, 5])


def test_a_row_without_tokens_gets_one_and_pairs_may_have_no_types() -> None:
    tokenizer = TextTokenizer.from_bytes(plain_tokenizer(9), max_tokens=8, pad_id=7)
    tokens = tokenizer.encode(["", "w2"])
    assert (tokens.ids.tolist(), tokens.lengths.tolist()) == ([7, 2], [1, 1])


def test_unusual_token_types_are_refused() -> None:
    with pytest.raises(BadInput, match="token types"):
        TextTokenizer.from_bytes(plain_tokenizer(9, template=True), max_tokens=8, pad_id=0)


def test_threads_share_a_tokenizer(tiny_tokenizer_json: Path) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json)
    alone = [tokenizer.encode([text] * 20, TEXTS * 2 + TEXTS[:4]).ids.tolist() for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda t: tokenizer.encode([t] * 20, TEXTS * 2 + TEXTS[:4]).ids.tolist(), TEXTS))
    assert together == alone


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "a\ud800"], "row 2 has half of a surrogate pair at character 1"),
        (["fine", None], "row 2 is None"),
        ([3.5], "row 1 is 3.5"),
    ],
)
def test_what_is_no_text(tiny_tokenizer_json: Path, texts: list[Any], message: str) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json)
    with pytest.raises(BadInput, match=message):
        tokenizer.encode(texts)
    with pytest.raises(BadInput, match=message):
        tokenizer.encode(["x"] * len(texts), texts)


def test_limits_and_files_that_cannot_work(tiny_tokenizer_json: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="2 special tokens in a text"):
        tokenizer_of(tiny_tokenizer_json, 2)
    with pytest.raises(BadInput, match="3 special tokens in a pair"):
        tokenizer_of(tiny_tokenizer_json, 4).encode(["a"], ["b"])
    with pytest.raises(BadInput, match="2 texts and 1 second"):
        tokenizer_of(tiny_tokenizer_json).encode(["a", "b"], ["b"])
    with pytest.raises(BadInput, match="cannot be read"):
        tokenizer_of(tmp_path / "absent.json")
    with pytest.raises(BadInput, match="not a tokenizer"):
        TextTokenizer.from_bytes(b"{}", max_tokens=8, pad_id=0)


class PanicException(BaseException):
    """What the library's Rust raises, under its name: no module exports it."""


class Panicking:
    """A tokenizer of the library that gets no threads."""

    def encode_batch_fast(self, *arguments: object, **options: object) -> None:
        raise PanicException("The global thread pool has not been initialized")


def test_a_panic_of_the_library_is_an_error(tiny_tokenizer_json: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_json, 12)
    monkeypatch.setattr(tokenizer, "_tokenizer", Panicking())
    with pytest.raises(WorkFailed, match="broke down on rows from 1 on, .* thread pool"):
        tokenizer.encode(["a text"])
