"""Random encoders: the same everywhere, opened by transformers, and trainable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from snapfit.core.errors import BadInput
from snapfit.ship.random_encoder import SPECIAL_TOKENS, make_tokenizer, write_random_encoder

TEXTS = ["Running runs are run.", "The runner is running to the station!", "café, 我想取消订单", "walking, walked"]


def write(folder: Path, **changes: object) -> Path:
    options = {"layers": 2, "width": 64, "vocabulary": 60, "seed": 1} | changes
    write_random_encoder(folder, TEXTS, **options)  # type: ignore[arg-type]
    return folder


def test_transformers_opens_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "encoder")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer([("the runner", "我想")], return_tensors="pt")
    assert model(**batch).last_hidden_state.shape == (1, batch["input_ids"].shape[1], 64)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    assert len(tokenizer) == model.config.vocab_size <= 60


def test_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom snapfit.ship.random_encoder import write_random_encoder\n"
        f"write_random_encoder(Path('there'), {TEXTS!r}, layers=2, width=64, vocabulary=60, seed=1)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    here = write(tmp_path / "here")
    for path in here.iterdir():
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


def test_seeds_differ_and_the_callers_generator_is_untouched(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    a, b = (write(tmp_path / name, seed=seed) / "model.safetensors" for name, seed in (("a", 1), ("b", 2)))
    assert a.read_bytes() != b.read_bytes()
    assert torch.equal(before, torch.get_rng_state())


def test_words_that_recur_become_pieces() -> None:
    tokenizer = make_tokenizer(["running walking talking"] * 3, vocabulary=60, characters=False)
    pieces = tokenizer.get_vocab()
    assert {"running", "walking", "##ing"} <= set(pieces)
    assert "[UNK]" not in tokenizer.encode("walking in ring").tokens


def test_characters() -> None:
    tokenizer = make_tokenizer(["我想取消 ab"], vocabulary=60, characters=True)
    assert tokenizer.encode("消取b?a").tokens == ["[CLS]", "消", "取", "b", "[UNK]", "a", "[SEP]"]
    pair = tokenizer.encode("我", "想")
    assert pair.type_ids == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "changes",
    [{"layers": 0}, {"width": 50}, {"width": 0}, {"vocabulary": 5}],
    ids=["layers", "width", "zero", "vocabulary"],
)
def test_sizes_that_fit_nothing(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        write(tmp_path / "encoder", **changes)
    assert not (tmp_path / "encoder").exists()


def test_texts_without_a_character() -> None:
    with pytest.raises(BadInput, match="without a character"):
        make_tokenizer(["", "  "], vocabulary=60, characters=False)
