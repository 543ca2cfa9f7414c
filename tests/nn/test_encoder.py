"""Where an encoder comes from, and every way in which there is none: each is one error that says what to do."""

import json
import sys
from pathlib import Path

import huggingface_hub
import pytest
from tokenizers import Tokenizer, models

import tiny
import toys
from snapfit.core.errors import BadInput, MissingExtra
from snapfit.nn import encoder as encoder_module
from snapfit.nn.encoder import EncoderSource, find_encoder, read_config, read_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toys.encoder_folder(tmp_path / "encoder")


def source_of(folder: Path) -> EncoderSource:
    return find_encoder(str(folder))


def test_a_folder_is_used_where_it_is(folder: Path) -> None:
    source = source_of(folder)
    assert (source.folder, source.kind, source.config.model_type) == (folder, "directory", "bert")
    assert source.notices == []


def test_a_folder_below_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_encoder("~/encoder").folder == folder


def test_an_unknown_family_is_announced(tmp_path: Path) -> None:
    (notice,) = source_of(toys.encoder_folder(tmp_path, "rembert")).notices
    assert "'rembert' is not in snapfit's table" in notice


def test_the_starter_is_a_real_encoder() -> None:
    pytest.importorskip(encoder_module.STARTER_PACKAGE)
    source = find_encoder("starter")
    assert (source.kind, source.config.model_type, source.config.hidden_size) == ("package", "bert", 384)
    files = read_tokenizer(source)
    assert len(json.loads(files.tokenizer_json)["model"]["vocab"]) == source.config.vocab_size


def test_without_its_package_the_starter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, encoder_module.STARTER_PACKAGE, None)
    monkeypatch.setattr(encoder_module, "STARTER_PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(MissingExtra, match="a-package-that-nobody-has") as caught:
        find_encoder("starter")
    assert "snapfit[starter]" in caught.value.fix


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "a\\b"])
def test_a_path_that_is_not_there_never_asks_a_hub(name: str) -> None:
    with pytest.raises(BadInput, match="there is no folder"):
        find_encoder(name)


def test_a_hub_name_without_a_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="neither a folder here nor to be had from the model hub") as caught:
        find_encoder("bert-base-chinese")
    assert "--encoder starter" in caught.value.fix


# ---------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "has no config.json"),
        ("{", "cannot be read"),
        ("[]", "names no model_type"),
        ('{"hidden_size": 3}', "names no model_type"),
        ('{"model_type": "never-heard-of"}', "never-heard-of"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path: Path, content: str | None, found: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=found):
        read_config(tmp_path)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"config\.json"):
        read_config(tmp_path)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- tokenizer


def test_tokenizer_files_are_taken_as_they_are(folder: Path) -> None:
    files = read_tokenizer(source_of(folder))
    assert files.tokenizer_json == (folder / "tokenizer.json").read_bytes()
    assert files.pad_id == 0
    assert files.tokenizer_config["model_max_length"] == 64
    assert files.tokenizer_config["pad_token"] == "[PAD]"


def test_remote_code_of_a_tokenizer_is_dropped(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    path.write_text(json.dumps(settings))
    assert "auto_map" not in read_tokenizer(source_of(folder)).tokenizer_config


def test_a_slow_tokenizer_is_converted(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*toys.SPECIAL, *toys.WORDS]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    files = read_tokenizer(source_of(folder))
    made = Tokenizer.from_str(files.tokenizer_json.decode())
    assert made.encode("the honey").tokens == ["[CLS]", "the", "honey", "[SEP]"]


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    tiny.save_encoder(tmp_path, "bert")
    with pytest.raises(BadInput, match="has no tokenizer"):
        read_tokenizer(source_of(tmp_path))


def test_a_slow_tokenizer_that_cannot_be_converted(tmp_path: Path) -> None:
    tiny.save_encoder(tmp_path, "xlm-roberta")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"not sentencepiece")
    with pytest.raises(BadInput, match="has no tokenizer that can be read"):
        read_tokenizer(source_of(tmp_path))


def test_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="the tokenizer of"):
        read_tokenizer(source_of(folder))


def test_the_pad_token_is_found_by_name_when_the_config_has_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"pad_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_tokenizer(source_of(folder)).pad_id == 4


@pytest.mark.parametrize("kind", ["words", "unigram", "added"])
def test_a_tokenizer_of_another_encoder_is_refused(folder: Path, kind: str) -> None:
    if kind == "words":
        made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(150)}, unk_token="w0"))
    elif kind == "unigram":
        made = Tokenizer(models.Unigram([(f"w{i}", -1.0) for i in range(150)], 0, False))
        made.add_special_tokens(["w1"])
    else:
        made = toys.tokenizer()
        made.add_tokens([f"new{i}" for i in range(100)])
    made.save(str(folder / "tokenizer.json"))
    with pytest.raises(BadInput, match="makes ids up to 149" if kind != "added" else "makes ids up to 148") as caught:
        read_tokenizer(source_of(folder))
    assert "100" in caught.value.expected
