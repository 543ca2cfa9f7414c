"""The page of a check: whole, self-contained, and nothing of the data is taken for markup."""

import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import snapfit
from snapfit.core.errors import BadInput, MissingExtra
from snapfit.ship.check_page import check_page_target, page
from snapfit.ship.check_report import CheckReport

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "rect"}


class Reader(HTMLParser):
    """Collects tags and text, and holds that they are nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CheckReport:
    rows = "".join(f"{EVIL} row {i % 30},{'<b>' if i % 2 else 'a&b'}\n" for i in range(40))
    table = tmp_path_factory.mktemp("page") / "<i>t.csv"
    table.write_text(f"text,label\n{rows}bad\n", "utf-8")
    return snapfit.check(table, encoder=None, near_similarity=None)


def test_the_page_is_nested_escaped_and_loads_nothing(report: CheckReport) -> None:
    reader = Reader()
    text = page(report)
    reader.feed(text)
    assert reader.open == []
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "img", "iframe", "i", "b" + "r"}
    assert not [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href")]
    assert "http" not in text
    assert EVIL in reader.text
    for finding in report.findings:
        assert finding.text in reader.text
        assert finding.what_to_do in reader.text
    assert "prefers-color-scheme: dark" in text


def test_charts_hold_all_rows(report: CheckReport) -> None:
    reader = Reader()
    reader.feed(page(report))
    bars = [attributes for tag, attributes in reader.tags if tag == "rect" and "y" in attributes and "x" in attributes]
    assert len(bars) >= 24
    assert max(float(bar["height"] or 0) for bar in bars) == 80


def test_a_page_is_written_whole(report: CheckReport, tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    found = snapfit.check([("a", "x"), ("b", "y")], encoder=None, near_similarity=None, html=target)
    assert found.html == target
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_where_no_page_can_be_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        check_page_target(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInput, match="cannot be written"):
        check_page_target(tmp_path / "a.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match="check"):
        check_page_target(tmp_path / "a.html")
