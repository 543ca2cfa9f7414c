"""`snapfit.train(continue_from=...)`: a new run that starts from an own bundle, with its head."""

from pathlib import Path
from typing import Any

import pytest

import snapfit
import toys
from resuming import SHORT, Event, listing, told_to_end
from scene import Scene, fingerprint
from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.files import sha256_file
from snapfit.runtime.bundle import Bundle

MORE = {key: value for key, value in SHORT.items() if key != "model__pooling"}
"""Settings of the next training; its pooling is the bundle's."""


def rows_with(label: str) -> list[dict[str, Any]]:
    """A table with one label more than the bundle knows, and one less."""
    return [row | {"label": row["label"].replace("tools", label)} for row in toys.single_rows(48, seed=7)]


def text_of(events: list[Event]) -> str:
    return "; ".join(event["text"] for event in events if event["kind"] == "notice")


def test_a_bundle_is_trained_further(complete: Path, tmp_path: Path) -> None:
    bundle, heard = complete / "bundle", []
    before = listing(bundle)
    result = snapfit.train(
        toys.single_rows(48, seed=7), out=tmp_path / "run", continue_from=bundle, listener=heard.append, **MORE
    )
    assert f"of the head of {bundle} 3 labels are kept, 0 are new, 0 are left out" in text_of(heard)
    assert result.recipe.model.head == "kept"
    assert result.recipe.model.pooling == Bundle.open(bundle).info.pooling
    assert Path(result.recipe.model.encoder) == bundle
    assert result.resumed_from is None
    assert sha256_file(result.bundle / "model.safetensors") != sha256_file(bundle / "model.safetensors")
    assert snapfit.load(result.bundle).replay_probes() < 1e-4
    assert listing(bundle) == before


def test_labels_may_be_others(complete: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    result = snapfit.train(
        rows_with("trains"),
        out=tmp_path / "run",
        continue_from=str(complete / "bundle"),
        listener=heard.append,
        **MORE,
    )
    assert "2 labels are kept, 1 are new, 1 are left out" in text_of(heard)
    assert Bundle.open(result.bundle).label_set.names == ("animals", "food", "trains")


def test_it_starts_from_what_was_learnt(complete: Path, tmp_path: Path) -> None:
    """With rates near zero the new bundle answers as the old one did."""
    near_zero = {"optim__lr": 1e-12, "train__epochs": 1}
    result = snapfit.train(
        toys.single_rows(48, seed=7), out=tmp_path / "run", continue_from=complete / "bundle", **(MORE | near_zero)
    )
    texts = [row["text"] for row in toys.single_rows(12, seed=9)]
    old, new = (snapfit.load(folder).predict_proba(texts) for folder in (complete / "bundle", result.bundle))
    assert abs(old - new).max() < 1e-5


def test_such_a_run_can_be_stopped_and_gone_on_with(scene: Scene, complete: Path, tmp_path: Path) -> None:
    def start(run: Path, **options: Any) -> snapfit.TrainResult:
        table = scene.folder / "train.csv"
        return snapfit.train(table, out=run, continue_from=complete / "bundle", **MORE, **options)

    start(tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(tmp_path / "run", listener=told_to_end(5))
    heard: list[Event] = []
    assert snapfit.train(resume=tmp_path / "run", listener=heard.append).resumed_from == 5
    assert "the head of" not in text_of(heard)  # its own head is in the checkpoint
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"resume": "run"}, "both continue_from and resume"),
        ({"encoder": "starter"}, r"model\.encoder is 'starter' while the run starts from"),
        ({"model__pooling": "max"}, r"model\.pooling is 'max' while the run starts from"),
        ({"model__head": "fresh"}, r"model\.head is 'fresh' while the run starts from"),
    ],
)
def test_what_does_not_go_together_is_refused(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=found):
        snapfit.train(toys.single_rows(48), continue_from=complete / "bundle", **(MORE | options))
    assert list(tmp_path.iterdir()) == []


def test_another_task_is_refused(complete: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the task of .* is 'single', here it is 'regression'"):
        snapfit.train(toys.regression_rows(48), out=tmp_path / "run", continue_from=complete / "bundle", **MORE)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_is_refused(scene: Scene, complete: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", scene.folder / "encoder", complete):
        with pytest.raises(BadInput):
            snapfit.train(toys.single_rows(48), out=tmp_path / "run", continue_from=folder, **MORE)
    assert list(tmp_path.iterdir()) == []


def test_stating_what_is_so_anyway_is_no_mistake(complete: Path, tmp_path: Path) -> None:
    bundle = complete / "bundle"
    fixed = {"encoder": str(bundle), "model__pooling": "mean", "model__head": "kept", "train__epochs": 0.2}
    result = snapfit.train(toys.single_rows(48), out=tmp_path / "run", continue_from=bundle, **(MORE | fixed))
    assert result.steps == 1
