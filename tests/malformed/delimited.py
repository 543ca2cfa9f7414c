"""CSV and TSV whose lines, quotes or columns are odd."""

from collections.abc import Iterator

from malformed.case import (
    COMMANDS,
    LABELS,
    TEXTS,
    Case,
    Table,
    as_csv,
    as_tsv,
    format_option,
    odd,
    read,
    refuse,
    sane,
    suffix_of,
    writer,
)

GOOD = as_csv(sane())
GOOD_TSV = as_tsv(sane())
TAIL = GOOD.partition("\n")[2]
TAIL_TSV = GOOD_TSV.partition("\n")[2]


def cases() -> list[Case]:
    """All of them."""
    return [*_line_ends(), *_ragged(), *_quotes(), *_headers(), *_few_rows(), *_large(), *_no_table()]


def _both(content: str) -> Iterator[tuple[str, str, str]]:
    """(format, file, content) of a CSV without quotes, and the same in both kinds of TSV."""
    for format, between in (("csv", ","), ("tsv", "\t"), ("tsv-quoted", "\t")):
        yield format, f"t.{suffix_of(format)}", content.replace(",", between)


def _plain_rows() -> str:
    """Six rows of CSV that need no quotes."""
    return "".join(f"{text.replace(',', '')},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))


PLAIN: Table = sane(text=[text.replace(",", "") for text in TEXTS])


def _line_ends() -> Iterator[Case]:
    content = f"text,label\n{_plain_rows()}"
    for format, file, made in _both(content):
        options = format_option(format)
        yield read(f"{format}: CR LF", file, made.replace("\n", "\r\n"), PLAIN, quick=True, **options)
        yield read(f"{format}: no line end at the end", file, made.removesuffix("\n"), PLAIN, **options)
        yield read(f"{format}: blank lines", file, made.replace("\n", "\n\n") + "\n\n", PLAIN, **options)
        yield read(f"{format}: CR LF and blank lines", file, made.replace("\n", "\r\n\r\n"), PLAIN, **options)
        last = made.removesuffix("\n").replace("\n", "\r\n")
        yield read(f"{format}: CR LF, none at the end", file, last, PLAIN, **options)
        half = made.replace("\n", "\r\n", 3)
        yield read(f"{format}: both line ends", file, half, PLAIN, **options)
        if format == "tsv":
            words = ("t.tsv", "carriage return", "line feed")
            yield refuse("tsv: CR only", file, made.replace("\n", "\r"), *words, quick=True)
        else:
            yield read(f"{format}: CR only", file, made.replace("\n", "\r"), PLAIN, **options)
        name = f"{format}: blank lines before the header"
        if format != "tsv":
            yield read(name, file, "\n\r\n" + made, PLAIN, **options)
    inside = odd("text", "line\r\nbreak")
    yield read("csv: CR LF ends lines and is in a cell", "t.csv", as_csv(inside, end="\r\n"), inside)
    kept = {"text": ["a\r", "b", "c\rd", "e"], "label": list(LABELS[:4])}
    data = "text\tlabel\na\r\tfood\nb\ttools\nc\rd\tanimals\ne\tfood\n"
    refused = {"predict": ("a tab or a line break", "2 rows: line 2, line 4")}
    yield read("tsv: CR in cells", "t.tsv", data, kept, refused=refused)
    alone = {"text": list(TEXTS[:2]) + [""] + [TEXTS[4]]}
    words = {command: ("'text'",) for command in ("train", "evaluate")}
    data = "text\n" + "\n".join(alone["text"]) + "\n"
    yield read("tsv: blank lines of one column are cells", "t.tsv", data, alone, refused=words)
    yield read("csv: quoted blank cells of one column", "t.csv", as_csv(alone), alone, refused=words)


def _ragged() -> Iterator[Case]:
    rows = _plain_rows()
    for format, file, made in _both(f"text,label\n{rows}"):
        options, between = format_option(format), "," if format == "csv" else "\t"
        alone = made + "alone\n"
        yield refuse(f"{format}: too few cells", file, alone, "line 8 has 1", "2 cells", quick=True, **options)
        more = made.replace("\n", f"\na{between}b{between}c\n", 1)
        yield refuse(f"{format}: too many cells", file, more, "line 2 has 3", "2 cells", quick=True, **options)
        many = made + "alone\n" * 900
        yield refuse(f"{format}: many short rows", file, many, "line 8 has 1", "900 rows", **options)
        ends = made.replace("\n", f"{between}\n").replace(f"label{between}", "label", 1)
        yield refuse(f"{format}: rows end in a delimiter", file, ends, "line 2 has 3", **options)
        all_end = {"text": PLAIN["text"], "label": PLAIN["label"], "": [""] * 6}
        yield read(f"{format}: all lines end in one", file, made.replace("\n", f"{between}\n"), all_end, **options)
        spaces = made + "   \n"
        yield refuse(f"{format}: a line of spaces", file, spaces, "line 8 has 1", **options)
        closed = made + "\x1a"
        yield refuse(f"{format}: Ctrl-Z at the end", file, closed, "line 8 has 1", **options)
        cut = made[: made.rindex(between)]
        yield refuse(f"{format}: cut short", file, cut, "line 7 has 1", **options)
        blank = made.replace("\n", "\n\n", 3) + "alone\n"
        yield refuse(f"{format}: short after blank lines", file, blank, "line 11 has 1", **options)
        remark = "# made by hand\n" + made
        yield refuse(f"{format}: a remark before the header", file, remark, "line 2 has 2", **options)


def _quotes() -> Iterator[Case]:
    never = f'text,label\n{TAIL}"never closed,food\n'
    yield refuse("csv: a quote that is never closed", "t.csv", never, "line 8, column 1", "never closed", quick=True)
    middle = f'text,label\nplain,"never closed\n{TAIL}'
    yield refuse("csv: never closed, early", "t.csv", middle, "line 2, column 7")
    after = f'text,label\n"closed" too early,food\n{TAIL}'
    yield refuse("csv: text after a closing quote", "t.csv", after, "line 2, column 9", quick=True)
    single = f'text,label\n{TAIL}"a "quoted" word",food\n'
    yield refuse("csv: quotes that are not doubled", "t.csv", single, "line 8, column 5")
    spaced = f'text,label\n"a" ,food\n{TAIL}'
    yield refuse("csv: a space after a closing quote", "t.csv", spaced, "line 2, column 4")
    before = {"text": [' "a"', *TEXTS], "label": ["food", *LABELS]}
    yield read("csv: a space before a quote", "t.csv", f'text,label\n "a",food\n{TAIL}', before)
    inches = {"text": ['a 5" disk', *TEXTS], "label": ["food", *LABELS]}
    yield read("csv: a quote inside a bare cell", "t.csv", f'text,label\na 5" disk,food\n{TAIL}', inches)
    two = {"text": ['a 5" and 3"" disk"', *TEXTS], "label": ["food", *LABELS]}
    yield read("csv: several of them", "t.csv", f'text,label\na 5" and 3"" disk",food\n{TAIL}', two, quick=True)
    slash = f'text,label\n"a \\" b",food\n{TAIL}'
    yield refuse("csv: quotes behind backslashes", "t.csv", slash, "line 2, column 6")
    three = as_csv(odd("text", '"""'))
    yield read("csv: three quotes", "t.csv", three, odd("text", '"""'))
    all_quoted = "".join(
        '"' + line.replace(",", '","') + '"\r\n' for line in f"text,label\n{_plain_rows()}".splitlines()
    )
    yield read("csv: everything quoted", "t.csv", all_quoted, PLAIN)
    literal = {"text": ['"quoted" words', '"', 'a"b', '""', '"open', "x"], "label": list(LABELS)}
    yield read("tsv: quotes are characters", "t.tsv", as_tsv(literal), literal, quick=True)
    unquoted = as_tsv(sane()) + '"open\tfood\n'
    yield refuse("tsv-quoted: never closed", "t.tsv", unquoted, "line 8, column 1", format="tsv-quoted")
    multi = odd("text", "\n".join(f"line {i}" for i in range(50)))
    late = as_csv(multi) + "alone\n"
    yield refuse("csv: a short row after a cell of many lines", "t.csv", late, "line 57 has 1")
    swallowed = "text,label\n" + '"open,food\n' + TAIL + 'close",tools\n' + TAIL.replace('"', "")
    yield refuse("csv: a quote that swallows rows", "t.csv", swallowed, "line")
    yield refuse("csv: a quote in the header", "t.csv", 'text,"label\n' + TAIL, "line 1, column 6")


def _headers() -> Iterator[Case]:
    for format, file, made in _both(_plain_rows()):
        options = format_option(format)
        yield refuse(f"{format}: no header", file, made, file, "header", quick=True, **options)
        twice = "text,label,label\n" + made.replace("\n", ",x\n")
        twice = twice.replace(",", "," if format == "csv" else "\t")
        yield refuse(f"{format}: a column twice", file, twice, "2 columns named 'label'", file, **options)
        nameless = ("text,label,,\n" + made.replace("\n", ",x,y\n")).replace(",", "," if format == "csv" else "\t")
        yield refuse(f"{format}: two columns without a name", file, nameless, "2 columns named ''", **options)
        index = (",text,label\n" + "".join(f"{i},{row}\n" for i, row in enumerate(made.splitlines()))).replace(
            ",", "," if format == "csv" else "\t"
        )
        numbered: Table = {"": [str(i) for i in range(6)], **PLAIN}
        yield read(f"{format}: an index without a name", file, index, numbered, **options)
    names = {
        "padded": " note ",
        "escape sequence": "\x1b[31mnote",
        "bidi override": "no\u202ete",
        "line break": "no\nte",
        "quotes": 'a "note"',
        "predicted-like": "Predicted",
        "very long": "note" * 250_000,
        "U+2028": "no\u2028te",
        "markup": "<b>note</b>",
        "emoji": "📝",
    }
    for name, column in names.items():
        table = sane(**{column: [f"note {i}" for i in range(6)]})
        yield read(
            f"csv: a column whose name is {name}", "t.csv", as_csv(table), table, quick=name == "escape sequence"
        )
        absent = {column: list(TEXTS), "label": list(LABELS), "other": list(TEXTS)}
        words = dict.fromkeys(COMMANDS, ("t.csv", "--text"))
        yield Case(f"csv: no text but {name}", writer({"t.csv": as_csv(absent)}), "t.csv", None, words)
    other = GOOD.replace("text,label", "Text,LABEL")
    predict = ("'text'", "did you mean", "t.csv")
    table = {"Text": list(TEXTS), "LABEL": list(LABELS)}
    yield read("csv: names in capitals", "t.csv", other, table, refused=dict.fromkeys(("evaluate", "predict"), predict))
    semicolons = as_csv(sane(), delimiter=";")
    yield refuse("csv: semicolons", "t.csv", semicolons, "'text;label'", "';'", "t.csv", quick=True)
    yield refuse("csv: tabs", "t.csv", GOOD_TSV, "tab", "format tsv", "t.csv")
    yield refuse("tsv: commas", "t.tsv", f"text,label\n{_plain_rows()}", "','", "format csv", "t.tsv")
    for added in ("predicted", "score"):
        table = sane(**{added: [f"n{i}" for i in range(6)]})
        words = {"predict": (f"column '{added}' already", "t.csv")}
        yield read(f"csv: a column called {added}", "t.csv", as_csv(table), table, refused=words)


def _few_rows() -> Iterator[Case]:
    for format, file, made in _both(f"text,label\n{_plain_rows()}"):
        options, head = format_option(format), made.partition("\n")[0] + "\n"
        yield refuse(f"{format}: a header only", file, head, file, "no rows", quick=True, **options)
        yield refuse(f"{format}: a header without a line end", file, head[:-1], file, "no rows", **options)
        yield refuse(f"{format}: a header and blank lines", file, head + "\n\r\n\n", file, "no rows", **options)
        one: Table = {"text": PLAIN["text"][:1], "label": ["food"]}
        words = {"train": ("one label only", "'food'", file)}
        yield read(
            f"{format}: one row", file, "\n".join(made.split("\n")[:2]), one, refused=words, quick=True, **options
        )
        same = made.replace("tools", "food").replace("animals", "food")
        table = {**PLAIN, "label": ["food"] * 6}
        yield read(f"{format}: one class", file, same, table, refused=words, **options)
        twins: Table = {"text": PLAIN["text"] * 3, "label": PLAIN["label"] * 3}
        yield read(f"{format}: duplicate rows", file, made + made.partition("\n")[2] * 2, twins, **options)
    empty = {"text": ["", "", ""], "label": list(LABELS[:3])}
    words_ = ("t.csv", "every text", "empty")
    yield Case(
        "csv: every text empty", writer({"t.csv": as_csv(empty)}), "t.csv", empty, dict.fromkeys(COMMANDS, words_)
    )
    single = {"text": list(TEXTS), "label": [f"label {i}" for i in range(6)]}
    words = {"evaluate": ("labels that are not among", "line 2")}
    yield read("csv: every label once", "t.csv", as_csv(single), single, refused=words)
    clash = {"text": [TEXTS[0]] * 6, "label": list(LABELS)}
    yield read("csv: one text, three labels", "t.csv", as_csv(clash), clash)


def _large() -> Iterator[Case]:
    for size in (131_072, 131_073, 1_000_000):
        cell = ("word " * (size // 5 + 1))[:size]
        for format, made in (("csv", as_csv), ("tsv", as_tsv)):
            table = odd("text", cell)
            yield read(f"{format}: a cell of {size} characters", f"t.{format}", made(table), table)
    broken = odd("text", 'line\n"' * 200_000)
    yield read("csv: a cell of 200,000 lines", "t.csv", as_csv(broken), broken)
    label = odd("label", "food" * 250_000)
    words = {"evaluate": ("labels that are not among", "line 5")}
    yield read("csv: a label of 1 MB", "t.csv", as_csv(label), label, refused=words)
    wide = sane(**{f"column {i}": [str(i)] * 6 for i in range(10_000)})
    yield read("csv: 10,000 columns", "t.csv", as_csv(wide), wide)
    names = [f"column {i}" for i in range(100_000)]
    huge = ",".join(names) + "\n" + ",".join("x" for _ in names) + "\n"
    yield refuse("csv: 100,000 columns, none of texts", "t.csv", huge, "'column 0'", "99,980 more")
    short = ",".join(["text", "label", *names]) + "\n" + "a,food\n" * 3
    yield refuse("csv: 100,002 columns and short rows", "t.csv", short, "line 2 has 2", "100,002 cells")
    name = "text" * 250_000
    swapped = f"{name},label,b\n" + "a,food,c\n" * 3
    yield refuse("csv: a name of 1 MB", "t.csv", swapped, "t.csv", "--text")


def _no_table() -> Iterator[Case]:
    for format in ("csv", "tsv", "tsv-quoted", "jsonl"):
        file, options = f"t.{suffix_of(format)}", format_option(format)
        for name, data in {
            "nothing": b"",
            "a mark only": b"\xef\xbb\xbf",
            "line ends only": b"\n\r\n\n",
            "white space only": b"  \n\t \n ",
            "a mark and line ends": b"\xef\xbb\xbf\n\n",
        }.items():
            yield refuse(f"{format}: {name}", file, data, file, "empty", quick=name == "nothing", **options)
    begin = {
        "gzip": (b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        "zip": (b"PK\x03\x04\x14\x00", "zip", "Excel"),
        "bzip2": (b"BZh91AY&SY\x00", "bzip2", "bunzip2"),
        "xz": (b"\xfd7zXZ\x00", "xz", "unxz"),
        "zstd": (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
        "xls": (b"\xd0\xcf\x11\xe0", "Excel", "CSV"),
        "parquet": (b"PAR1\x15\x04", "Parquet", "format parquet"),
        "arrow": (b"ARROW1\x00\x00", "Arrow", "Parquet"),
        "pdf": (b"%PDF-1.7\n", "PDF", "plain text"),
        "sqlite": (b"SQLite format 3\x00", "SQLite", "plain text"),
    }
    for name, (data, *words) in begin.items():
        for file in ("t.csv", "t.tsv", "t.jsonl"):
            yield refuse(f"{file} is {name}", file, data + b"\x00\x01 more", file, *words, quick=name == "gzip")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    page = "\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>text,label</body></html>\n"
    for file in ("t.csv", "t.tsv", "t.jsonl"):
        yield refuse(f"{file} is a Git LFS pointer", file, pointer, file, "Git LFS", "git lfs pull")
        yield refuse(f"{file} is a web page", file, page, file, "HTML", "download")
    for word in ("PAR1", "BZh", "PK", "ORC", "Obj", "ARROW1"):
        table = {word: ["x"] * 6, **sane()}
        yield read(f"csv: a header that begins with {word}", "t.csv", as_csv(table), table)
