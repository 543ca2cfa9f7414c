"""The token cache: what it gives is what the tokenizer gives, whatever happened to its files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snapfit.core.lengths import HEAD, LengthPolicy
from snapfit.data.token_cache import cached_token_ids, default_cache_dir
from snapfit.data.tokenizer import TextTokenizer, TokenIds

TEXTS = ["The train to the coast.", "", "今天早上的火车", "bread and honey " * 20]
PAIRS = ["b", "a boat", "", "c"]
ARRAYS = ("ids", "offsets", "second_start", "uncut")


@pytest.fixture
def tokenizer(tiny_tokenizer_json: Path) -> TextTokenizer:
    return TextTokenizer.from_file(tiny_tokenizer_json, max_tokens=16, pad_id=0)


def same(a: TokenIds, b: TokenIds) -> bool:
    return all(
        np.array_equal(getattr(a, x), getattr(b, x)) and getattr(a, x).dtype == getattr(b, x).dtype for x in ARRAYS
    )


def is_mapped(tokens: TokenIds) -> bool:
    return isinstance(tokens.ids.base, np.memmap)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").iterdir())


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_the_cache_gives_what_was_encoded(tokenizer: TextTokenizer, tmp_path: Path, pairs: list[str] | None) -> None:
    direct = tokenizer.encode(TEXTS, pairs)
    first = cached_token_ids(tokenizer, TEXTS, pairs, cache_dir=tmp_path, content_hash="x")
    written = entries(tmp_path)[0].stat().st_mtime_ns
    second = cached_token_ids(tokenizer, TEXTS, pairs, cache_dir=tmp_path, content_hash="x")
    assert same(first, direct)
    assert same(second, direct)
    assert is_mapped(second)
    assert [path.stat().st_mtime_ns for path in entries(tmp_path)] == [written]


def test_texts_are_not_read_when_the_entry_is_there(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    first = cached_token_ids(tokenizer, TEXTS, None, cache_dir=tmp_path, content_hash="x")
    others = ["other"] * len(TEXTS)
    assert same(cached_token_ids(tokenizer, others, None, cache_dir=tmp_path, content_hash="x"), first)


def test_whatever_decides_the_ids_is_in_the_name(tiny_tokenizer_json: Path, tmp_path: Path) -> None:
    content = tiny_tokenizer_json.read_bytes()
    windows, more = LengthPolicy("windows", overlap=0.5), LengthPolicy("windows", overlap=0.5, max_windows=2)
    for data, max_tokens, pad_id, texts_hash, policy in [
        (content, 16, 0, "x", HEAD),
        (content, 16, 0, "y", HEAD),
        (content, 12, 0, "x", HEAD),
        (content, 16, 1, "x", HEAD),
        (content + b" ", 16, 0, "x", HEAD),
        (content, 16, 0, "x", LengthPolicy("tail")),
        (content, 16, 0, "x", LengthPolicy("head+tail")),
        (content, 16, 0, "x", LengthPolicy("head+tail", head_share=0.5)),
        (content, 16, 0, "x", windows),
        (content, 16, 0, "x", more),
        (content, 16, 0, "x", replace(more, window_pooling="max", head_share=0.9)),  # which changes no id
    ]:
        tokenizer = TextTokenizer.from_bytes(data, max_tokens=max_tokens, pad_id=pad_id, policy=policy)
        for pairs in (None, PAIRS):
            tokens = cached_token_ids(tokenizer, TEXTS, pairs, cache_dir=tmp_path, content_hash=texts_hash)
            assert same(tokens, tokenizer.encode(TEXTS, pairs))
            assert tokens.window_tokens == tokenizer.window_tokens
    assert len(entries(tmp_path)) == 20


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("damage", [cut, change, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "MANIFEST.json"])
def test_damage_costs_only_time(
    tokenizer: TextTokenizer, tmp_path: Path, damage: Callable[[Path], object], name: str
) -> None:
    direct = tokenizer.encode(TEXTS)
    cached_token_ids(tokenizer, TEXTS, None, cache_dir=tmp_path, content_hash="x")
    damage(entries(tmp_path)[0] / name)
    for _ in range(2):
        again = cached_token_ids(tokenizer, TEXTS, None, cache_dir=tmp_path, content_hash="x")
        assert same(again, direct)
    assert is_mapped(again)


def test_an_entry_of_other_rows_is_not_used(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    cached_token_ids(tokenizer, TEXTS, None, cache_dir=tmp_path, content_hash="x")
    tokens = cached_token_ids(tokenizer, TEXTS[:2], None, cache_dir=tmp_path, content_hash="x")
    assert same(tokens, tokenizer.encode(TEXTS[:2]))


def test_no_cache_and_one_that_cannot_be_written(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for cache in (None, tmp_path / "file"):
        tokens = cached_token_ids(tokenizer, TEXTS, PAIRS, cache_dir=cache, content_hash="x")
        assert same(tokens, tokenizer.encode(TEXTS, PAIRS))
    assert (tmp_path / "file").read_text() == "not a folder"


def test_no_rows(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    for _ in range(2):
        assert len(cached_token_ids(tokenizer, [], None, cache_dir=tmp_path, content_hash="x")) == 0


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("SNAPFIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "snapfit"
