"""Fixtures that all tests share, and the police that keeps one test from disturbing the next.

Nothing here imports torch or transformers before a fixture needs them, so that a test of the tiers above them
starts at once.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

SENTENCES = (
    "The train to the coast leaves at seven in the morning.",
    "She bought fresh bread and a jar of honey at the market.",
    "Why did the old clock stop again last night?",
    "A small boat crossed the quiet lake before sunrise.",
    "Please send the signed contract back by Friday.",
    "The teacher explained the problem twice, slowly and clearly.",
    "Heavy rain closed the mountain road for two days.",
    "He plays the violin better than anyone in his class.",
    "Our new neighbour grows tomatoes, beans and sunflowers.",
    "The film was far too long, but its ending surprised me.",
    "Can you tell me where the nearest library is?",
    "They painted the kitchen yellow and the door dark green.",
    "A careful driver checks the brakes before a long journey.",
    "The hotel was clean, the staff friendly, the food excellent.",
    "Nobody expected the youngest runner to win the race.",
    "The museum opens late on Thursdays and is free for children.",
    "My phone stopped working after it fell into the river.",
    "Wash the rice, add water, and cook it for twelve minutes.",
    "The report compares prices in forty cities over ten years.",
    "Good music makes a boring task much easier.",
    "今天早上的火车晚点了二十分钟。",
    "她在市场上买了新鲜的面包和一瓶蜂蜜。",
    "这部电影太长了，但是结尾让我很惊喜。",
    "请在星期五之前把合同寄回来。",
    "老师把这个问题慢慢地讲了两遍。",
    "大雨让山路关闭了两天。",
    "附近的图书馆在哪里？",
    "酒店很干净，服务员也很热情。",
    "我的手机掉进河里以后就坏了。",
    "他拉小提琴比班上任何人都好。",
    "孩子们在公园里放风筝，玩得很开心。",
    "这家餐厅的价格不贵，味道也不错。",
)

_FILLER = "the a of in we they it was is very quite some this that my your here there now then".split()
_TOPIC_WORDS = {
    "kitchen": "bread honey rice tomatoes beans food cook market".split(),
    "music": "violin song drum choir melody piano concert guitar".split(),
    "travel": "train hotel boat journey road coast ticket museum".split(),
}

_FIXED = {
    "HF_HUB_OFFLINE": "1",
    # What the command line sets where it is unset, as it may: set here, it changes nothing in this process.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
os.environ.update(_FIXED)  # at once: the libraries read these when they are imported, so during collection


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the real data sets, so that -m 'not real_data' needs no second mention; slow tests come first.

    A slow test that began last would keep one worker busy while the others have nothing left to do.
    """
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


# ---------------------------------------------------------------- one test does not disturb the next

_SET_BY_LIBRARIES = ("PYTEST_", "COV", "KMP_", "TORCHINDUCTOR_", "_RJEM_")
"""Beginnings of variables that third-party packages set for themselves, some of them as they are imported."""


@pytest.fixture(scope="session", autouse=True)
def _session_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cache of this session's own and none of the caller's SNAPFIT_ settings; gives those settings."""
    given = {name: value for name, value in os.environ.items() if name.startswith("SNAPFIT_")}
    with pytest.MonkeyPatch.context() as patch:
        for name in given:
            patch.delenv(name)
        patch.setenv("SNAPFIT_CACHE", str(tmp_path_factory.mktemp("snapfit-cache")))
        yield given


@pytest.fixture(autouse=True)
def _leak_police(_session_environment: dict[str, str]) -> Iterator[None]:
    """Seed every global generator; fail a test that leaves a setting of the process changed; set it back."""
    _seed_everything()
    before = _process_state()
    yield
    leaks = []
    for name, value in _process_state().items():
        if name in before and value != before[name]:
            leaks.append(f"{name}: {_difference(before[name], value)}")
            _set_back(name, before[name])
    if leaks:
        pytest.fail("the test left changed " + "; ".join(leaks), pytrace=False)


def _seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global generator is what third-party code draws from
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def _process_state() -> dict[str, Any]:
    """The settings under guard. torch's defaults stand for its settings until something imports it."""
    state: dict[str, Any] = {
        "environment": {k: v for k, v in os.environ.items() if not k.startswith(_SET_BY_LIBRARIES)},
        "working folder": os.getcwd(),
        "torch default dtype": "torch.float32",
        "torch deterministic algorithms": False,
    }
    if torch := sys.modules.get("torch"):
        state["torch default dtype"] = str(torch.get_default_dtype())
        state["torch deterministic algorithms"] = torch.are_deterministic_algorithms_enabled()
        state["torch threads"] = torch.get_num_threads()
    return state


def _set_back(name: str, value: Any) -> None:
    if name == "environment":
        for key in [key for key in os.environ if not key.startswith(_SET_BY_LIBRARIES) and key not in value]:
            del os.environ[key]
        os.environ.update(value)
    elif name == "working folder":
        os.chdir(value)
    else:
        torch = sys.modules["torch"]
        setters = {
            "torch default dtype": lambda: torch.set_default_dtype(getattr(torch, value.removeprefix("torch."))),
            "torch deterministic algorithms": lambda: torch.use_deterministic_algorithms(value),
            "torch threads": lambda: torch.set_num_threads(value),
        }
        setters[name]()


def _difference(before: Any, after: Any) -> str:
    if not isinstance(before, dict):
        return f"{before!r} -> {after!r}"
    names = sorted(name for name in before | after if before.get(name) != after.get(name))
    return ", ".join(f"{name} ({before.get(name)!r} -> {after.get(name)!r})" for name in names)


# ---------------------------------------------------------------- data


@pytest.fixture(scope="session")
def real_data(_session_environment: dict[str, str]) -> Path:
    """The real data sets: where SNAPFIT_REAL_DATA says, or beside the checkout; else the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(_session_environment.get("SNAPFIT_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; SNAPFIT_REAL_DATA names another place")
    return folder


@pytest.fixture
def toy_rows() -> list[dict[str, str]]:
    """180 rows {"text", "label"} of 3 labels, shuffled: two words of the label's topic among filler words."""
    rng = random.Random(20)
    rows = []
    for label, topic in _TOPIC_WORDS.items():
        for _ in range(60):
            words = [*rng.sample(topic, 2), *rng.choices(_FILLER, k=rng.randint(2, 7))]
            rng.shuffle(words)
            rows.append({"text": " ".join(words), "label": label})
    rng.shuffle(rows)
    return rows


@pytest.fixture(scope="session")
def tiny_tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json of a WordPiece tokenizer for sentences in English and Chinese; [PAD] is 0.

    Its pieces are the words of the sentences and all their characters. A trainer of the tokenizers library
    would break ties by the order of a hash table, so that no two sessions had the same ids.
    Special tokens stand as in BERT: [CLS] a [SEP], and [CLS] a [SEP] b [SEP] with the second text of type 1.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    topic_words = [word for words in _TOPIC_WORDS.values() for word in words]
    texts = [*SENTENCES, " ".join(topic_words), " ".join(_FILLER)]
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    characters = {character for word in words for character in word}
    pieces = sorted(words | characters | {f"##{character}" for character in characters})
    ids = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    )
    path = tmp_path_factory.mktemp("tiny-tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


# ---------------------------------------------------------------- encoders


@pytest.fixture(scope="session")
def make_tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_json: Path) -> Callable[..., Path]:
    """A function that saves a tiny random BERT encoder with its tokenizer, and gives the new folder.

    seed: of the weights. Other keywords are fields of BertConfig, in place of 2 layers, 32 wide, 2 heads.
    """

    def make(*, seed: int = 0, **fields: Any) -> Path:
        import torch
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(tiny_tokenizer_json),
            **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS},
        )
        sizes = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
        }
        folder = tmp_path_factory.mktemp("tiny-encoder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            BertModel(BertConfig(**(sizes | fields))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_encoder_dir(make_tiny_encoder_dir: Callable[..., Path]) -> Path:
    """The folder of a tiny random BERT encoder, 2 layers, 32 wide. A test that writes there makes its own."""
    return make_tiny_encoder_dir()


@pytest.fixture(scope="session")
def kernels() -> Any:
    """The compiled kernels; skips with the reason where they cannot be built."""
    from snapfit.nn.kernels import load_kernels, why_no_kernels

    loaded = load_kernels()
    if loaded is None:
        pytest.skip(why_no_kernels())
    return loaded
