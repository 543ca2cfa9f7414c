"""Texts against a tokenizer: counts equal those of transformers, and a foreign script is told of."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import checking
from checking import of_kind
from conftest import SENTENCES
from snapfit.checks.scripts import main_scripts
from snapfit.checks.vocabulary import TokenSurvey, survey_tokens, token_findings
from snapfit.core.errors import BadInput
from snapfit.core.lengths import LengthPolicy


def survey_of(tokenizer: bytes, rows: object) -> tuple[dict[str, checking.CheckedSplit], TokenSurvey]:
    splits = checking.splits_of(train=rows)
    return splits, survey_tokens(splits["train"], tokenizer, main_scripts(splits["train"]))


def test_lengths_and_unknown_tokens_are_those_of_transformers(tiny_tokenizer_json: Path) -> None:
    texts = [*SENTENCES, "zebra ሰላም train", "ክፍል", ""]
    _, survey = survey_of(tiny_tokenizer_json.read_bytes(), checking.rows(texts))
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tiny_tokenizer_json), unk_token="[UNK]")
    ids = [reference(text)["input_ids"] for text in texts]
    assert survey.lengths.tolist() == [len(row) for row in ids]
    assert survey.unknown.tolist() == [row.count(reference.unk_token_id) for row in ids]
    plain = sum(len(row) - 2 for row in ids)
    assert survey.unknown_share == pytest.approx(int(survey.unknown.sum()) / plain)
    assert survey.words["ሰላም"] == 1


def test_many_unknown_tokens_of_a_long_text_are_counted_in_its_length(tiny_tokenizer_json: Path) -> None:
    _, survey = survey_of(tiny_tokenizer_json.read_bytes(), checking.rows(["ሰላም " * 20_000, "the train"]))
    assert survey.words["ሰላም"] == 20_000


def test_pairs_are_tokenised_as_pairs(tiny_tokenizer_json: Path) -> None:
    rows = [("the old clock", "ሰላም", "a"), ("a market", "the train ክፍል", "b")]
    splits, survey = survey_of(tiny_tokenizer_json.read_bytes(), rows)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tiny_tokenizer_json), unk_token="[UNK]")
    assert survey.lengths.tolist() == [len(reference(a, b)["input_ids"]) for a, b, _ in rows]
    assert survey.words == {"ሰላም": 1, "ክፍል": 1}


def test_a_table_in_another_script_is_a_warning(tiny_tokenizer_json: Path) -> None:
    rows = checking.rows(["ሰላም ለዓለም ሁሉ", "ክፍል አንድ"] * 10)
    splits, survey = survey_of(tiny_tokenizer_json.read_bytes(), rows)
    one = of_kind(token_findings(splits, {"train": survey}, 128), "unknown_tokens")
    assert (one.level, one.share) == ("warning", 1.0)
    assert [example.note for example in one.examples][0] == "unknown, 10 times"
    assert checking.numbers(one) == list(range(1, 21))


def test_known_texts_have_no_finding(tiny_tokenizer_json: Path) -> None:
    splits, survey = survey_of(tiny_tokenizer_json.read_bytes(), checking.rows(SENTENCES))
    assert list(token_findings(splits, {"train": survey}, 128)) == []


def test_an_encoder_that_spells_a_script_out_in_bytes_is_told_of() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    splits, survey = survey_of(tokenizer.to_str().encode(), checking.rows(["今天的火车晚点了", "请把合同寄回来"] * 5))
    assert survey.unknown_share == 0
    one = of_kind(token_findings(splits, {"train": survey}, 128), "many_tokens")
    assert one.text.startswith("Han texts of train take 3.")


@pytest.mark.parametrize(("limit", "level"), [(6, "warning"), (40, "note"), (60, None)])
def test_what_a_limit_cuts(tiny_tokenizer_json: Path, limit: int, level: str | None) -> None:
    rows = checking.rows([*["the old clock and the train"] * 30, "the train " * 25])
    splits, survey = survey_of(tiny_tokenizer_json.read_bytes(), rows)
    found = {one.kind: one for one in token_findings(splits, {"train": survey}, limit)}
    assert (found["truncated"].level if found else None) == level
    cut = survey.lengths > limit
    facts = survey.to_dict(limit)
    assert (facts["rows_cut"], facts["limit"]) == (int(cut.sum()), limit)
    lost = np.maximum(survey.lengths - limit, 0).sum() / survey.lengths.sum()
    assert facts["share_of_tokens_cut"] == pytest.approx(lost, abs=1e-6)
    json.dumps(facts)
    text = found["truncated"].text if found else ""
    assert ("windows would lose" in text) == bool(found)


@pytest.mark.parametrize("most", [2, 8])
def test_every_length_policy_says_how_many_texts_it_cuts(tiny_tokenizer_json: Path, most: int) -> None:
    rows = [("the old clock", "the train " * n, "ab"[n % 2]) for n in (1, 4, 9, 25)]
    splits, survey = survey_of(tiny_tokenizer_json.read_bytes(), rows)
    tokenizer = Tokenizer.from_file(str(tiny_tokenizer_json))
    alone = [[len(tokenizer.encode(text, add_special_tokens=False).ids) for text in (a, b)] for a, b, _ in rows]
    assert survey.texts.tolist() == alone
    policy = LengthPolicy("windows", max_windows=most)
    facts = survey.to_dict(15, policy)
    assert (facts["policy"], facts["rows_too_long"]) == ("windows", int((survey.lengths > 15).sum()))
    cut = {name: one["rows_cut"] for name, one in facts["policies"].items()}
    assert cut["head"] == cut["tail"] == cut["head+tail"] == facts["rows_too_long"]
    assert cut["windows"] == facts["rows_cut"] == {2: 1, 8: 0}[most]
    one = of_kind(token_findings(splits, {"train": survey}, 15, policy), "truncated")
    assert one.level == {2: "warning", 8: "note"}[most]
    assert "windows leave out" in one.text


def test_what_is_no_tokenizer_is_refused() -> None:
    splits = checking.splits_of(train=checking.rows(["a", "b"]))
    with pytest.raises(BadInput, match="tokenizer"):
        survey_tokens(splits["train"], b"{}", main_scripts(splits["train"]))
