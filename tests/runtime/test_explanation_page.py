"""The page: one file that needs nothing and does nothing, with every value in it and all of the text shown as it is."""

import builtins
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from snapfit.core.errors import MissingExtra
from snapfit.runtime.explanation_page import check_engine, page, write_page
from snapfit.runtime.explanations import Attribution, Check, Explanation, LabelExplanation, Unread

ATTACK = '<script>alert("x")</script> & {{ 7 * 7 }} \x1b[31m \u202e <img src=x onerror=y> end'
VOID = {"meta", "br", "img", "link", "input"}


class Reader(HTMLParser):
    """Reads a page strictly: every tag closed in order; keeps text by tag, attributes and what was open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    reader.close()
    assert reader.open == []
    return reader


def explained(
    text: Any, *places: tuple[int, int, float], unread: tuple[Unread, ...] = (), **changes: Any
) -> Explanation:
    words = tuple(Attribution(text[a:b], a, b, 0, value, (text[a:b],)) for a, b, value in places)
    values: dict[str, Any] = {"label": "fine", "score": 0.9, "value": 2.0, "baseline": -1.0, "words": words}
    label = LabelExplanation(**(values | {k: v for k, v in changes.items() if k not in ("decision", "unit")}))
    decision, unit = changes.get("decision", "fine"), changes.get("unit", "log-odds")
    return Explanation(text, decision, "integrated_gradients", unit, "[MASK]", (label,), unread, 9)


def paragraphs(content: str) -> list[str]:
    """What each text reads like, tags taken out."""
    found = re.findall(r'<p class="text" dir="auto">(.*?)</p>', content, re.DOTALL)
    return ["".join(text for _, text in read(f"<p>{one}</p>").texts) for one in found]


def test_a_text_is_shown_whole_and_each_value_is_in_its_table() -> None:
    text = "good film, dull end"
    content = page([explained(text, (0, 4, 2.0), (5, 9, 0.1), (11, 15, -1.25), (16, 19, 0.0))])
    reader = read(content)
    assert paragraphs(content) == [text]
    cells = [data for tag, data in reader.texts if tag == "td"]
    assert cells == ["+2.00", "+0.10", "-1.25", "+0.00"]
    marked = [
        (attrs["class"], attrs["title"])
        for tag, attrs in reader.tags
        if tag == "span" and "title" in attrs and "class" in attrs
    ]
    assert marked == [("for s3", "+2.00"), ("against s2", "-1.25")]


def test_it_does_not_tell_by_colour_alone() -> None:
    content = page([explained("good dull", (0, 4, 2.0), (5, 9, -1.25))])
    style = content.split("<style>")[1].split("</style>")[0]
    assert ".for { font-weight: 600; }" in style
    assert ".against { text-decoration: underline;" in style
    assert "prefers-color-scheme: dark" in style
    assert "print-color-adjust: exact" in style
    reader = read(content)
    ids = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    assert {attrs["aria-labelledby"] for _, attrs in reader.tags if "aria-labelledby" in attrs} == ids
    assert dict(reader.tags)["html"] == {"lang": "en"}


def test_nothing_in_a_text_or_a_label_acts() -> None:
    attack = explained(ATTACK, (0, 8, 1.0), (9, 20, -1.0), label=ATTACK, decision=ATTACK, unread=(Unread(60, 70, 0),))
    content = page([attack])
    reader = read(content)
    assert {tag for tag, _ in reader.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "span", "bdi", "article"),
        *("ul", "li", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "del"),
    }
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on") or name in ("src", "href")]
    assert "49" not in content
    assert not set(content) & {"\x1b", "\u202e"}
    shown = ATTACK.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert paragraphs(content) == [shown]
    assert [data for tag, data in reader.texts if tag == "bdi"][:2] == [shown, shown]


def test_it_needs_nothing_from_elsewhere() -> None:
    content = page([explained("good", (0, 4, 2.0))])
    assert not re.findall(r"https?:|url\(|@import|<script|<link|<img", content)
    assert "default-src 'none'" in content


@pytest.mark.parametrize("newline", ["\n", "\t"])
def test_lines_of_a_text_stay_lines(newline: str) -> None:
    text = f"one{newline}two"
    assert paragraphs(page([explained(text, (0, 3, 1.0), (4, 7, 1.0))])) == [text]


def test_a_check_is_a_column_and_a_sentence() -> None:
    words = (Attribution("good", 0, 4, 0, 1.5, ("good",)),)
    checked = explained("good end", (0, 4, 2.0), (5, 8, 0.5), check=Check("occlusion", words, 0.5))
    reader = read(page([checked]))
    assert [data for tag, data in reader.texts if tag == "td"] == ["+2.00", "+1.50", "+0.50"]
    assert any("ranks the words alike to 0.50" in data for _, data in reader.texts)
    few = explained("good end", (0, 4, 2.0), check=Check("occlusion", words, None))
    assert any("too few" in data or "so few words" in data for _, data in read(page([few])).texts)


def test_numbers_pairs_and_what_was_not_read() -> None:
    number = explained("good end", (0, 4, 2.0), unit="number", decision=3.25, unread=(Unread(5, 8, 0),))
    texts = [data for _, data in read(page([number])).texts]
    assert any("3.25" in data for data in texts)
    assert not any("score" in data for data in texts)
    assert any("3 characters were not read" in data for data in texts)
    nothing = explained("good", (0, 4, 2.0), decision=[])
    assert any("no label" in data for _, data in read(page([nothing])).texts)
    label = LabelExplanation("yes", 0.9, 2.0, 1.0, (Attribution("c", 0, 1, 1, 1.0, ("c",)),))
    pair = Explanation(("a b", "c"), "yes", "occlusion", "log-odds", "[MASK]", (label,), (), 3)
    assert paragraphs(page([pair])) == ["a b", "c"]
    assert "There are no texts." in page([])


def test_it_is_written_whole(tmp_path: Path) -> None:
    one = [explained("good", (0, 4, 2.0))]
    write_page(tmp_path / "a.html", one)
    assert (tmp_path / "a.html").read_text("utf-8") == page(one)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_without_jinja2_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "jinja2":
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        return real(name, *arguments, **options)

    check_engine()
    monkeypatch.setattr(builtins, "__import__", without)
    for use in (check_engine, lambda: write_page(tmp_path / "a.html", [])):
        with pytest.raises(MissingExtra, match=r"pip install 'snapfit\[report\]'"):
            use()
    assert list(tmp_path.iterdir()) == []
