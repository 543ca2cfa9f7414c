"""Bundles: what snapfit.json holds, and what opening one refuses."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.files import write_json_atomic
from snapfit.core.folders import write_manifest
from snapfit.runtime.bundle import Bundle, BundleInfo
from tiny_bundle import LABELS, tiny_info, write_tiny_bundle

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "bundle-1"
"""A bundle as the first snapfit wrote it."""
MEMBERS: list[dict[str, Any]] = [
    {"file": "model.safetensors", "share": 0.5, "temperature": 1.25},
    {"file": "members/1.safetensors", "share": 0.25, "temperature": 0.5},
    {"file": "members/2.safetensors", "share": 0.25, "temperature": 3},
]
FULL: dict[str, Any] = {
    "pair": True,
    "text_columns": ["question", "answer"],
    "label_column": "genres",
    "delimiter": "|",
    "temperature": 1.25,
    "thresholds": [0.5, 0.25, 1],
    "metrics": {"valid": {"micro_f1": 0.75}},
    "versions": {"snapfit": "1.0"},
    "data": {"train": {"rows": 3}},
    "length_policy": {"policy": "windows", "overlap": 0.25, "max_windows": 8, "window_pooling": "max"},
    "recipe": {"train": {"epochs": 3}},
}


def test_the_info_survives_json() -> None:
    for info in (tiny_info(), tiny_info("regression"), tiny_info("multi", **FULL)):
        values = json.loads(json.dumps(info.to_dict()))
        assert next(iter(values)) == "format_version"
        assert BundleInfo.from_dict(values) == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "multi"}, "task: 'multi'"),
        ({"pair": 1}, "pair: 1"),
        ({"text_columns": "text"}, "text_columns"),
        ({"label_column": 3}, "label_column"),
        ({"delimiter": []}, "delimiter"),
        ({"pooling": ""}, "pooling"),
        ({"pooling_reason": None}, "pooling_reason"),
        ({"head": "other"}, "head: 'other'"),
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"max_tokens": 16.0}, "max_tokens"),
        ({"length_policy": "tail"}, "length_policy: 'tail'"),
        ({"length_policy": {"policy": "head"}}, "length_policy"),
        ({"length_policy": {"policy": "tail", "more": 1}}, "length_policy"),
        ({"length_policy": {"policy": "head+tail", "head_share": 2}}, "length_policy"),
        ({"pad_id": -1}, "pad_id"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"thresholds": [0.5, 0.5, 0.5]}, "thresholds"),
        ({"metrics": []}, "metrics"),
        ({"metrics": {"valid": 1.0}}, "metrics"),
        ({"versions": []}, "versions"),
        ({"data": None}, "data"),
        ({"recipe": None}, "recipe"),
        ({"labels": []}, "labels: "),
        ({"labels": {"task": "single"}}, "a label set with the keys"),
        ({"task": ["single"]}, "task"),
        ({"versions": {"python": 3}}, "versions"),
        ({"extra": 1}, "the key 'extra'"),
        ({"temperatur": 1.0}, "nearest: 'temperature'"),
        ({"format_version": 4}, "format 4"),
        ({"format_version": 3}, "format_version: 3"),
        ({"format_version": 2}, "format_version: 2"),
        ({"format_version": "1"}, "format_version: '1'"),
        ({"format_version": True}, "format_version: True"),
        ({"format_version": None}, "format_version: None"),
    ],
)
def test_values_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        BundleInfo.from_dict(tiny_info().to_dict() | change)


@pytest.mark.parametrize("thresholds", [[0.5], [0.5, 0.5, 1.5], [0.5, 0.5, "x"], 0.5])
def test_thresholds_that_do_not_fit(thresholds: Any) -> None:
    with pytest.raises(BadInput, match="thresholds"):
        tiny_info("multi", thresholds=thresholds)


# ---------------------------------------------------------------- several models


def test_several_models_survive_json() -> None:
    info = tiny_info(members=MEMBERS, format_version=2, made_of={"name": "mean of all", "rule": "the least error"})
    values = json.loads(json.dumps(info.to_dict()))
    assert next(iter(values.items())) == ("format_version", 2)
    assert values["members"] == MEMBERS
    assert BundleInfo.from_dict(values) == info


@pytest.mark.parametrize("change", [{}, {"made_of": {}}, {"members": None}])
def test_format_1_is_byte_for_byte_what_it_was(change: dict[str, Any]) -> None:
    text = (GOLDEN / "snapfit.json").read_text("utf-8")
    info = BundleInfo.from_dict(json.loads(text) | change)
    assert json.dumps(info.to_dict(), ensure_ascii=False, indent=2) + "\n" == text
    assert not {"members", "made_of"} & tiny_info().to_dict().keys()
    assert tiny_info(made_of={"name": "step 40"}).to_dict()["made_of"] == {"name": "step 40"}


def changed_member(number: int, **values: Any) -> list[dict[str, Any]]:
    return [one | values if i == number else one for i, one in enumerate(MEMBERS)]


@pytest.mark.parametrize(
    "members",
    [
        [],
        MEMBERS[:1],
        {},
        [*MEMBERS, MEMBERS[2]],
        MEMBERS[::-1],
        [MEMBERS[0], "members/1.safetensors"],
        [{key: value for key, value in one.items() if key != "share"} for one in MEMBERS],
        changed_member(0, name="first"),
        changed_member(1, file="../1.safetensors"),
        changed_member(1, file="/etc/passwd"),
        changed_member(1, file="members/../model.safetensors"),
        changed_member(1, file="members/2.safetensors"),
        changed_member(1, file=1),
        changed_member(1, share=0.3),
        changed_member(1, share=0),
        changed_member(1, share=-0.25),
        changed_member(1, share="0.25"),
        changed_member(1, share=True),
        changed_member(1, share=float("nan")),
        changed_member(1, temperature=0),
        changed_member(1, temperature=float("inf")),
        changed_member(1, temperature=None),
    ],
)
def test_members_that_cannot_be(members: Any) -> None:
    with pytest.raises(BadInput, match="members: "):
        BundleInfo.from_dict(tiny_info().to_dict() | {"members": members, "format_version": 2})


def test_the_format_must_fit_the_members() -> None:
    with pytest.raises(BadInput, match="format_version: 1 .*\n?.*2 with members"):
        BundleInfo.from_dict(tiny_info().to_dict() | {"members": MEMBERS})
    with pytest.raises(BadInput, match="format_version: 2"):
        BundleInfo.from_dict(tiny_info().to_dict() | {"format_version": 2})
    with pytest.raises(BadInput, match="made_of: 'a mean'"):
        tiny_info(made_of="a mean")


def test_members_files_must_be_there(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", members=MEMBERS, format_version=2)
    with pytest.raises(BadInput, match=r"has no members/1\.safetensors, which snapfit\.json names"):
        Bundle.open(folder)
    (folder / "members").mkdir()
    for number in (1, 2):
        (folder / f"members/{number}.safetensors").write_bytes(b"\0")
    with pytest.raises(BadInput, match=r"'members/1\.safetensors' .* is not named"):
        Bundle.open(folder)
    write_manifest(folder)
    assert Bundle.open(folder).info.members == MEMBERS
    (folder / "members/2.safetensors").write_bytes(b"\1")
    with pytest.raises(BadInput, match=r"'members/2\.safetensors' .* was changed"):
        Bundle.open(folder)
    (folder / "members/2.safetensors").unlink()
    with pytest.raises(BadInput, match=r"'members/2\.safetensors', which .* names, is missing"):
        Bundle.open(folder, verify=False)
    os.rename(folder / "members/1.safetensors", tmp_path / "weights")
    (folder / "members/1.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(BadInput, match="link out of the folder"):
        Bundle.open(folder, verify=False)


# ---------------------------------------------------------------- folders


def test_missing_keys_are_named() -> None:
    values = tiny_info().to_dict()
    del values["pooling"], values["max_tokens"]
    with pytest.raises(BadInput, match="without pooling, max_tokens"):
        BundleInfo.from_dict(values)
    with pytest.raises(BadInput, match="holds a list"):
        BundleInfo.from_dict([])


def test_a_bundle_opens(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", "multi", thresholds=[0.1, 0.2, 0.3])
    for given in (folder, str(folder)):
        bundle = Bundle.open(given)
        assert bundle.folder == folder
        assert bundle.label_set == LABELS["multi"]
        assert bundle.rule() == DecisionRule("multi", thresholds=(0.1, 0.2, 0.3))
        assert bundle.tokenizer().encode(["a film"]).lengths.tolist() == [4]
        assert bundle.probes() is None
    assert Bundle.open(write_tiny_bundle(tmp_path / "other")).rule() == DecisionRule("single")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_tiny_bundle(run / "bundle")
    (run / "file").write_text("")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    for folder, message in [
        (tmp_path / "none", "is missing"),
        (run / "file", "is not a folder"),
        (run, f"this is a run folder: use {run / 'bundle'}"),
        (tmp_path / "encoder", "this is a transformers folder"),
    ]:
        with pytest.raises(BadInput, match=message):
            Bundle.open(folder)


@pytest.mark.parametrize(
    "name", ["snapfit.json", "config.json", "model.safetensors", "tokenizer.json", "MANIFEST.json"]
)
def test_a_bundle_without_a_file(tmp_path: Path, name: str) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    (folder / name).unlink()
    with pytest.raises(BadInput, match=f"has no {name}"):
        Bundle.open(folder)


def test_changed_weights_are_found_when_asked(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    (folder / "model.safetensors").write_bytes(b"\1" * 64)
    with pytest.raises(BadInput, match=r"'model.safetensors' .* was changed"):
        Bundle.open(folder)
    Bundle.open(folder, verify=False)
    (folder / "model.safetensors").write_bytes(b"\1" * 63)
    with pytest.raises(BadInput, match="63 bytes"):
        Bundle.open(folder, verify=False)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.PT", "deep/x.pkl", "y.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str, listed: bool) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    if listed:
        write_manifest(folder)
    for verify in (True, False):
        with pytest.raises(BadInput, match="may hold a pickle"):
            Bundle.open(folder, verify=verify)


def test_unlisted_files_and_links_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    (folder / "modeling.py").write_text("")
    with pytest.raises(BadInput, match=r"'modeling.py' .* is not named"):
        Bundle.open(folder, verify=False)
    (folder / "modeling.py").unlink()
    os.rename(folder / "model.safetensors", tmp_path / "weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(BadInput, match=r"'model.safetensors' .* is a link out"):
        Bundle.open(folder, verify=False)


def test_a_newer_format_says_what_to_do(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    values = json.loads((folder / "snapfit.json").read_text())
    write_json_atomic(folder / "snapfit.json", values | {"format_version": 4, "unheard_of": 1})
    with pytest.raises(BadInput, match="pip install -U snapfit"):
        Bundle.open(folder)
    write_json_atomic(folder / "snapfit.json", [])
    with pytest.raises(BadInput, match="format_version"):
        Bundle.open(folder)


def test_probes_are_read_and_checked(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", pair=True)
    bundle = Bundle.open(folder)
    write_json_atomic(folder / "probes.json", {"texts": [["a", "b"]], "scores": [[0.1, 0.2, 0.7]]})
    probes = bundle.probes()
    assert probes is not None
    assert probes[0] == [("a", "b")]
    np.testing.assert_array_equal(probes[1], [[0.1, 0.2, 0.7]])
    short: dict[str, Any] = {"texts": ["a"], "scores": [[1]]}
    cases: list[Any] = [[], {"texts": ["a"]}, short, short | {"scores": "x"}]
    for damaged in cases:
        write_json_atomic(folder / "probes.json", damaged)
        with pytest.raises(BadInput, match="a row of scores for each"):
            bundle.probes()
