"""A small BERT encoder with random weights and a tokenizer made from given texts.

It knows nothing of any language: it stands in where no pretrained encoder can be had, such as for Chinese on
a machine without a network, and where only speed or mechanics are measured.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, PreTokenizer, Sequence, Split
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from snapfit.core.errors import BadInput
from snapfit.core.files import write_json_atomic
from snapfit.core.folders import staged_folder

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_POSITIONS = 512
_HEAD_WIDTH = 32
_SHORTEST_PIECE = 2


def write_random_encoder(
    folder: str | Path,
    texts: Iterable[str],
    *,
    layers: int,
    width: int,
    vocabulary: int,
    seed: int,
    characters: bool = False,
) -> None:
    """Write an encoder folder as transformers does: config.json, model.safetensors, tokenizer.json and its
    config.

    texts: what the vocabulary is counted on. layers, width: of the encoder; the width is a multiple of 32.
    vocabulary: tokens at most, special ones included. seed: of the weights; the same arguments give the same
    bytes.
    characters: every character is a token, which suits Chinese; else WordPiece over words.
    Raises BadInput for sizes that fit nothing or texts without a single character.
    """
    if layers < 1 or width < _HEAD_WIDTH or width % _HEAD_WIDTH or vocabulary <= len(SPECIAL_TOKENS):
        raise BadInput(
            f"{layers} layers of {width} with {vocabulary} tokens",
            f"at least 1 layer, a width that {_HEAD_WIDTH} divides, more than {len(SPECIAL_TOKENS)} tokens",
            "correct the sizes",
        )
    tokenizer = make_tokenizer(texts, vocabulary=vocabulary, characters=characters)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // _HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
        architectures=[BertModel.__name__],
    )
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = BertModel(config)
    torch.set_rng_state(state)
    with staged_folder(folder) as staging:
        write_json_atomic(staging / "config.json", json.loads(config.to_json_string(use_diff=False)))
        save_file(model.state_dict(), staging / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(staging / "tokenizer.json"))
        write_json_atomic(staging / "tokenizer_config.json", _tokenizer_config())


def make_tokenizer(texts: Iterable[str], *, vocabulary: int, characters: bool) -> Tokenizer:
    """A BERT tokenizer whose vocabulary is counted on the texts, in an order that depends on nothing else.

    The trainers of the tokenizers library break ties by the order of a hash table: two runs differ.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), _splitter(characters)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    tokens = [*SPECIAL_TOKENS, *_pieces(words, vocabulary - len(SPECIAL_TOKENS))]
    if len(tokens) == len(SPECIAL_TOKENS):
        raise BadInput("texts without a character", "texts to count a vocabulary on", "pass other texts")
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _splitter(characters: bool) -> PreTokenizer:
    words = BertPreTokenizer()
    return Sequence([words, Split(Regex("."), "isolated")]) if characters else words


def _pieces(words: Counter[str], most: int) -> list[str]:
    """At most `most` pieces: single characters by frequency, then the longer ones that spare most tokens.

    Longer ones are whole words, beginnings and, with ## before them, ends of words; a piece spares one token
    for each of its characters but one, every time it occurs. A third of the room at least is theirs.
    """
    singles: Counter[str] = Counter()
    longer: Counter[str] = Counter()
    for word, count in words.items():
        for i, character in enumerate(word):
            singles[character] += count
            if i:
                singles[f"##{character}"] += count
        for length in range(_SHORTEST_PIECE, len(word)):
            longer[word[:length]] += count * (length - 1)
            longer[f"##{word[-length:]}"] += count * (length - 1)
        if len(word) >= _SHORTEST_PIECE:
            longer[word] += count * (len(word) - 1)
    room = most - min(len(longer), most // 3)
    return [*_most_frequent(singles, room), *_most_frequent(longer, most - min(len(singles), room))]


def _most_frequent(counts: Counter[str], most: int) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]


def _tokenizer_config() -> dict[str, Any]:
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
    return {"tokenizer_class": "PreTrainedTokenizerFast", **names, "model_max_length": _POSITIONS}
