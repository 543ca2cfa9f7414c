"""Paths that are no plain file: folders, links, odd names, nothing at all."""

import os
from collections.abc import Iterator
from pathlib import Path

from malformed.case import COMMANDS, Case, Table, as_csv, as_jsonl, as_parquet, as_tsv, sane, writer

GOOD = as_csv(sane())
TWICE: Table = {name: cells * 2 for name, cells in sane().items()}


def cases() -> list[Case]:
    """All of them."""
    return [*_names(), *_folders(), *_links(), *_nothing()]


def _refused(name: str, make: object, source: str, *words: str, quick: bool = False, **options: str) -> Case:
    return Case(name, make, source, None, dict.fromkeys(COMMANDS, words), options, quick)  # type: ignore[arg-type]


def _names() -> Iterator[Case]:
    names = {
        "a space": "my table.csv",
        "quotes": 'it\'s "mine".csv',
        "a line break": "two\nlines.csv",
        "an escape sequence": "\x1b[31mred\x1b[0m.csv",
        "a bell and a title": "\x1b]0;title\x07.csv",
        "a bidi override": "user\u202evsc.csv",
        "Chinese": "训练.csv",
        "a dash": "-table.csv",
        "bytes that are not UTF-8": os.fsdecode(b"caf\xe9.csv"),
        "markup": "[bold]<b>.csv",
        "dots": "a..csv",
        "capitals": "TABLE.CSV",
        "255 bytes": "n" * 251 + ".csv",
        "a percent sign": "%s%n.csv",
    }
    for name, file in names.items():
        quick = name in ("a line break", "an escape sequence", "bytes that are not UTF-8")
        source = f"./{file}"
        yield Case(f"name with {name}", writer({file: GOOD}), source, sane(), quick=quick)
        bad = GOOD + "alone\n"
        yield _refused(f"name with {name}, ragged", writer({file: bad}), source, "line 8 has 1", quick=quick)
        yield _refused(f"name with {name}, absent", writer({}), source, "does not exist")


def _folders() -> Iterator[Case]:
    yield _refused("folder: empty", lambda folder: (folder / "d").mkdir(), "d", "d", "no tables", quick=True)
    deeper = writer({"d/a/t.csv": GOOD, "d/b/t.csv": GOOD})
    yield _refused("folder: of folders", deeper, "d", "d/a", "a folder with tables of its own")
    both = writer({"d/a.csv": GOOD, "d/b/t.csv": GOOD})
    yield _refused("folder: tables, and folders with more", both, "d", os.path.join("d", "b"))
    kinds = {"d/a.csv": GOOD, "d/b.jsonl": as_jsonl(sane()), "d/c.parquet": as_parquet(sane())}
    yield _refused("folder: several formats", writer(kinds), "d", "several formats", "csv, jsonl, parquet", quick=True)
    for format in ("csv", "jsonl", "parquet"):
        yield Case(f"folder: one of several formats, {format}", writer(kinds), "d", sane(), options={"format": format})
    for format, made in {
        "csv": GOOD,
        "tsv": as_tsv(sane()),
        "jsonl": as_jsonl(sane()),
        "parquet": as_parquet(sane()),
    }.items():
        two = writer({f"d/b.{format}": made, f"d/a.{format}": made, "d/README.md": "about", "d/.hidden.csv": "x"})
        yield Case(f"folder: two files of {format}", two, "d", TWICE, quick=format == "jsonl")
    other = writer({"d/a.csv": GOOD, "d/b.csv": GOOD.replace("text", "title", 1)})
    yield _refused("folder: other columns", other, "d", "b.csv", "'title'", "a.csv")
    order = "label,text\n" + "".join(f'{label},"{text}"\n' for text, label in zip(*sane().values(), strict=True))
    yield Case("folder: columns in another order", writer({"d/a.csv": GOOD, "d/b.csv": order}), "d", TWICE)
    ragged = writer({"d/a.csv": GOOD, "d/b.csv": GOOD + "alone\n"})
    yield _refused("folder: a ragged file", ragged, "d", "b.csv", "line 8 has 1", quick=True)
    one = {"text": ["a"], "label": ["food"], "n": [1]}
    numbers = writer(
        {"d/a.jsonl": as_jsonl(one), "d/b.jsonl": as_jsonl({**one, "n": ["x"]}), "d/c.jsonl": as_jsonl(sane())}
    )
    mixed: Table = {
        "text": ["a", "a", *sane()["text"]],
        "label": ["food", "food", *sane()["label"]],
        "n": [1, "x", *[None] * 6],
    }
    yield Case("folder: JSON of kinds", numbers, "d", mixed, quick=True)
    blank = writer({"d/a.csv": GOOD, "d/b.csv": "text,label\n"})
    yield _refused("folder: a file without rows", blank, "d", "b.csv", "no rows")
    nothing = writer({"d/a.csv": GOOD, "d/b.csv": ""})
    yield _refused("folder: an empty file", nothing, "d", "b.csv", "empty")
    for packed in ("b.csv.gz", "b.csv.zip", "b.jsonl.bz2", "b.xlsx"):
        some = writer({"d/a.csv": GOOD, f"d/{packed}": b"\x1f\x8b\x08"})
        yield _refused(f"folder: {packed} beside", some, "d", packed, quick=packed == "b.csv.gz")
    labels = writer({"d/a.csv": GOOD, "d/b.csv": GOOD + "bread,\n"})
    words = dict.fromkeys(("train", "evaluate"), ("b.csv", "line 8", "'label'", "empty"))
    table = {name: [*cells, *cells, last] for (name, cells), last in zip(sane().items(), ("bread", ""), strict=True)}
    yield Case("folder: an empty label in the second file", labels, "d", table, words, quick=True)
    called = writer({"d.csv/t.csv": GOOD})
    yield Case("folder: called like a file", called, "d.csv", sane())


def _links() -> Iterator[Case]:
    def link(**links: str):  # type: ignore[no-untyped-def]
        def make(folder: Path) -> None:
            writer({"d/a.csv": GOOD})(folder)
            for name, target in links.items():
                path = folder / name.replace("__", "/").replace("_csv", ".csv")
                path.symlink_to(target)

        return make

    yield Case("link: to a file", link(l_csv="d/a.csv"), "l.csv", sane())
    yield Case("link: to a folder", link(l="d"), "l", sane())
    yield _refused("link: to nothing", link(l_csv="none.csv"), "l.csv", "l.csv", "link", quick=True)
    yield _refused("link: a loop", link(l_csv="m.csv", m_csv="l.csv"), "l.csv", "l.csv", "link")
    yield _refused("folder: a link to nothing", link(d__b_csv="none.csv"), "d", "b.csv", "link", quick=True)
    yield _refused("folder: a loop of links", link(d__b_csv="b.csv"), "d", "b.csv", "link")


def _nothing() -> Iterator[Case]:
    near = writer({"train.csv": GOOD})
    yield _refused(
        "absent: a slip", near, "trian.csv", "trian.csv does not exist", "did you mean", "train.csv", quick=True
    )
    yield _refused("absent: no folder", writer({}), "no/such/t.csv", "no/such/t.csv does not exist")
    yield _refused("absent: below a file", writer({"f": "x"}), "f/t.csv", "f/t.csv")
    yield _refused("absent: a name that is too long", writer({}), "n" * 300 + ".csv", "cannot be read", "nnn")
    yield _refused("absent: an empty name", writer({}), "", "expected")
    for suffix in (".txt", ".xlsx", ".csv.gz", ".tsv.zip", ".arrow", ".feather", "", ".pkl"):
        name = f"t{suffix}"
        yield _refused(
            f"suffix: {suffix or 'none'}",
            writer({name: GOOD}),
            name,
            name,
            "suffix",
            "format tsv" if suffix == ".txt" else "",
        )
    yield Case("suffix: none, with its format", writer({"t": GOOD}), "t", sane(), options={"format": "csv"})
    yield Case(
        "suffix: another, with its format",
        writer({"t.txt": as_tsv(sane())}),
        "t.txt",
        sane(),
        options={"format": "tsv"},
    )
    yield _refused("device: /dev/null", writer({}), "/dev/null", "/dev/null", "empty", format="csv")
    refused = dict.fromkeys(COMMANDS, ("excel", "format"))
    options = {"format": "excel"}
    yield Case("format: unknown", writer({"t.csv": GOOD}), "t.csv", None, refused, options, names_file=False)

    def pipe(folder: Path) -> None:
        writer({"d/a.csv": GOOD})(folder)
        os.mkfifo(folder / "d" / "b.csv")

    yield _refused("folder: a pipe that nobody writes to", pipe, "d", "b.csv", "pipe")
