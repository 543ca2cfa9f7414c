"""`snapfit.find_lr` as a function: what it returns, what it leaves alone, and the picture."""

import json
import math
import os
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

import snapfit
import toys
from snapfit.core.errors import BadInput, Interrupted
from snapfit.ship.rate_finding import RangeTest
from snapfit.ship.rate_plot import check_plot, write_plot
from snapfit.training.rate_curve import RateCurve, suggest

SHORT: dict[str, Any] = {"lowest": 1e-5, "highest": 1.0, "steps": 80}
SETTINGS = toys.QUICK | {"model__pooling": "mean", "train__batch": 32}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.encoder_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def result(encoder: str) -> RangeTest:
    return snapfit.find_lr(toys.single_rows(90), encoder=encoder, **SHORT, **SETTINGS)


def test_a_table_gives_a_rate_that_can_be_trained_with(result: RangeTest, encoder: str, tmp_path: Path) -> None:
    assert result.rate is not None
    assert 1e-3 < result.rate < 1e-1
    assert result.ended == "diverged"
    assert result.steps == len(result.curve) < 80
    assert (result.recipe_rate, result.recipe_reason) == (2e-3, "given")
    settings = SETTINGS | {"optim__lr": result.rate, "train__epochs": 20}
    rows = toys.single_rows(90)
    trained = snapfit.train(rows, valid=rows, out=tmp_path / "run", encoder=encoder, **settings)
    assert trained.metrics["valid"]["accuracy"] > 0.9  # on what it learnt from: the rate learns


def test_the_result_is_plain_values(result: RangeTest) -> None:
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["rate"] == result.rate
    assert values["set"] == f"optim.lr={result.rate:g}"
    assert values["curve"] == {
        "rates": result.curve.rates,
        "losses": result.curve.losses,
        "smoothed": result.curve.smoothed(),
    }
    assert snapfit.Recipe.from_dict(values["recipe"]) == result.recipe


def test_the_recipes_own_rate_stands_beside_it_with_its_reason(encoder: str) -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "optim__lr"}
    found = snapfit.find_lr(toys.single_rows(60), encoder=encoder, **SHORT, **settings)
    assert found.recipe_rate == found.recipe.optim.lr == 5e-4
    assert "parameters in the encoder's layers" in found.recipe_reason


def test_it_prints_nothing_writes_nothing_and_leaves_torch_as_it_was(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    snapfit.find_lr(toys.single_rows(60), encoder=encoder, **SHORT, **SETTINGS, train__threads=2)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)


def test_the_listener_hears_of_every_step(encoder: str) -> None:
    heard: list[dict[str, Any]] = []
    found = snapfit.find_lr(toys.single_rows(60), encoder=encoder, listener=heard.append, **SHORT, **SETTINGS)
    kinds = [event["kind"] for event in heard]
    assert kinds[: kinds.index("step")] == ["data", "recipe", "weights", "groups", "engine", "start"]
    assert kinds.count("step") == found.steps
    times = [event["time"] for event in heard]
    assert times == sorted(times)
    json.dumps(heard, allow_nan=False)


def test_an_interrupt_before_the_first_step_finds_nothing(encoder: str) -> None:
    def listener(event: dict[str, Any]) -> None:
        if event["kind"] == "recipe":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="no rate was found") as error:
        snapfit.find_lr(toys.single_rows(60), encoder=encoder, listener=listener, **SHORT, **SETTINGS)
    assert error.value.exit_code == 130


def test_a_head_can_be_kept(tmp_path: Path) -> None:
    run = toys.trained()
    table = toys.single_rows(60)
    settings = SETTINGS | {"model__pooling": "native"}
    found = snapfit.find_lr(table, encoder=str(run.result.bundle), model__head="kept", **SHORT, **settings)
    assert found.curve.losses[0] < 0.8 < 1.0 < math.log(3)  # it knows these labels


# ---------------------------------------------------------------- what is refused before any work


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lowest": 0.0}, "rates from 0 to 1"),
        ({"lowest": 1.0}, "rates from 1 to 1"),
        ({"steps": 9}, "9 steps"),
        ({"plot": "a.gif"}, "the plot a.gif"),
    ],
)
def test_bad_options_come_before_a_bad_table(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        snapfit.find_lr("nowhere.csv", **(SHORT | options))


def test_without_a_table_it_says_what_to_do() -> None:
    with pytest.raises(BadInput, match="no table to try rates on"):
        snapfit.find_lr(None)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_plot_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "a.svg"
    taken.write_text("")
    taken.chmod(stat.S_IRUSR)
    with pytest.raises(BadInput, match="cannot be written"):
        check_plot(taken)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(BadInput, match="cannot be written"):
        check_plot(tmp_path / "b.svg")
    tmp_path.chmod(stat.S_IRWXU)


# ---------------------------------------------------------------- the picture


def test_an_svg_is_well_formed_holds_the_rates_and_is_the_same_every_time(result: RangeTest, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    for file in files:
        write_plot(check_plot(file), result.curve, result.suggestion, result.recipe_rate)
    assert files[0].read_bytes() == files[1].read_bytes()
    root = ElementTree.parse(files[0]).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
    assert f"steepest: {result.suggestion.steepest:.1e}" in files[0].read_text("utf-8")  # as a comment of each text


def test_a_png_is_whole(result: RangeTest, tmp_path: Path) -> None:
    file = check_plot(tmp_path / "a.png")
    write_plot(file, result.curve, result.suggestion, result.recipe_rate)
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    from matplotlib.image import imread

    pixels = imread(file)
    assert pixels.shape[:2] == (675, 1050)  # 7 by 4.5 inches of 150 dots
    assert pixels[..., :3].min() < 0.5


@pytest.mark.parametrize("losses", [[1.0], [1.0] * 12, [1.0] * 6 + [1e30] * 6])
def test_a_curve_without_a_suggestion_is_drawn_too(losses: list[float], tmp_path: Path) -> None:
    curve = RateCurve([10.0 ** (step - 7) for step in range(len(losses))], losses)
    assert suggest(curve).rate is None
    write_plot(tmp_path / "a.svg", curve, suggest(curve), 1e-4)
    ElementTree.parse(tmp_path / "a.svg")
