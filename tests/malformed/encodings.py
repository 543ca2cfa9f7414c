"""Files in other encodings: read under their name, refused with a suggestion under UTF-8; and broken UTF-8."""

import codecs
from collections.abc import Iterator

from malformed.case import COMMANDS, WRITERS, Case, odd, read, refuse, suffix_of, writer

WORDS = {
    "gb18030": "电影太长了，但是结尾让我很惊喜。",
    "gbk": "附近的图书馆在哪里？",
    "big5": "電影太長了，但是結尾讓我很驚喜。",
    "shift_jis": "この映画はとても長かったです。",
    "euc_jp": "この映画はとても長かったです。",
    "euc_kr": "영화가 너무 길었지만 결말이 놀라웠다.",
    "cp1251": "Фильм был слишком длинным.",
    "koi8_r": "Фильм был слишком длинным.",
    "cp1252": "Le café était fermé — dommage…",
    "latin-1": "Größe über Ästen señor",
    "cp1253": "Η ταινία ήταν πολύ μεγάλη.",
    "cp1256": "كان الفيلم طويلا جدا",
}
SUGGESTED = {
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "big5": "big5",
    "shift_jis": "shift_jis",
    "euc_kr": "euc_kr",
    "cp1251": "cp1251",
    "cp1252": "cp1252",
    "latin-1": "cp1252",
}
"""What the refusal under UTF-8 must suggest, where it can be told from one line."""
FORMATS = ("csv", "tsv", "tsv-quoted", "jsonl")
_BROKEN = {
    "a stray byte": b"\xff",
    "a continuation byte": b"\x80",
    "an overlong slash": b"\xc0\xaf",
    "half a character": b"\xe7\x94",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
}


def cases() -> list[Case]:
    """All of them."""
    return [*_national(), *_unicode(), *_broken(), *_nul(), *_wrongly_named()]


def _place(format: str, column: int) -> str:
    return f"line {4 if format == 'jsonl' else 5}, column {column + (11 if format == 'jsonl' else 1)}"


def _national() -> Iterator[Case]:
    for number, (encoding, words) in enumerate(WORDS.items()):
        table = odd("text", words)
        for format in FORMATS if number < 2 else {FORMATS[number % 4]: 0, "csv": 0}:
            content = WRITERS[format](table)
            assert isinstance(content, str)
            file, options = f"t.{suffix_of(format)}", {"format": format}
            yield read(
                f"{format} in {encoding}",
                file,
                content.encode(encoding),
                table,
                encoding=encoding,
                quick=number == 0,
                **options,
            )
            first = next(i for i, character in enumerate(words) if ord(character) > 127)
            suggestion = [f"--encoding {SUGGESTED[encoding]}"] if encoding in SUGGESTED else ["--encoding"]
            yield refuse(
                f"{format} in {encoding}, taken for UTF-8",
                file,
                content.encode(encoding),
                _place(format, first),
                "not UTF-8",
                *suggestion,
                quick=number < 2,
                **options,
            )


def _unicode() -> Iterator[Case]:
    table = odd("text", "电影 🎬 e\u0301")
    marks = {
        "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE,
        "utf-32-le": codecs.BOM_UTF32_LE,
        "utf-32-be": codecs.BOM_UTF32_BE,
    }
    for format in FORMATS:
        content, file, options = WRITERS[format](table), f"t.{suffix_of(format)}", {"format": format}
        assert isinstance(content, str)
        marked = codecs.BOM_UTF8 + content.encode()
        for named in ("utf-8", "utf-8-sig", "UTF8"):
            yield read(f"{format}, marked, as {named}", file, marked, table, encoding=named, **options)
        for encoding, mark in marks.items():
            family = encoding[:6]
            data = content.encode(encoding)
            yield read(f"{format}: {encoding} with its mark", file, mark + data, table, encoding=family, **options)
            yield read(f"{format}: {encoding} without one", file, data, table, encoding=encoding, **options)
            name = f"{format}: {encoding} with its mark, taken for UTF-8"
            yield refuse(name, file, mark + data, family.upper(), f"--encoding {family}", quick=True, **options)
            name = f"{format}: {encoding} without one, taken for UTF-8"
            yield refuse(name, file, data, f"--encoding {encoding}", **options)
    twice = codecs.BOM_UTF8 * 2 + WRITERS["csv"](odd("text", "x")).encode()  # type: ignore[union-attr]
    refused = dict.fromkeys(("evaluate", "predict"), ("'\\ufefftext'", "t.csv"))
    table = {"\ufefftext": odd("text", "x")["text"], "label": odd("text", "x")["label"]}
    yield read("a mark twice", "t.csv", twice, table, refused=refused)
    escaped = "text,label\nfresh \x1b$B1G2h\x1b(B bread,food\na saw,tools\na cat,animals\nrice,food\n"
    table = {
        "text": ["fresh \x1b$B1G2h\x1b(B bread", "a saw", "a cat", "rice"],
        "label": ["food", "tools", "animals", "food"],
    }
    yield read("ISO-2022-JP is ASCII too", "t.csv", escaped, table)
    table = {**table, "text": ["fresh 映画 bread", *table["text"][1:]]}
    yield read("ISO-2022-JP by its name", "t.csv", escaped, table, encoding="iso2022_jp")


def _broken() -> Iterator[Case]:
    for number, (name, broken) in enumerate(_BROKEN.items()):
        format = FORMATS[number % 4]
        content = WRITERS[format](odd("text", "a word ~ here"))
        assert isinstance(content, str)
        options = {"format": format}
        data = content.encode().replace(b"~", broken)
        file = f"t.{suffix_of(format)}"
        yield refuse(f"{format} with {name}", file, data, _place(format, 7), "UTF-8", quick=number == 0, **options)
        cut = WRITERS["csv"](odd("note", "x"))
        assert isinstance(cut, str)
        yield refuse(f"csv that ends in {name}", "t.csv", cut.encode() + broken, "line 8, column 1", "UTF-8")
    mixed = "text,label\n电影,food\na saw,tools\n".encode() + "电影,animals\n".encode("gb18030")
    yield refuse("two encodings in one file", "t.csv", mixed, "line 4, column 1", "--encoding gb18030")


def _nul() -> Iterator[Case]:
    for format in FORMATS:
        content = WRITERS[format](odd("text", "a word ~ here"))
        assert isinstance(content, str)
        options = {"format": format}
        file, data = f"t.{suffix_of(format)}", content.encode().replace(b"~", b"\0")
        yield refuse(f"{format} with a NUL byte", file, data, _place(format, 7), "NUL", quick=True, **options)
        yield refuse(f"{format} that ends in NUL bytes", file, content.encode() + b"\0" * 600, "NUL", **options)
        yield refuse(f"{format} of NUL bytes", file, b"\0" * 600, "line 1, column 1", "NUL", **options)


def _wrongly_named() -> Iterator[Case]:
    content = WRITERS["csv"](odd("text", "电影"))
    assert isinstance(content, str)
    data = content.encode()
    yield refuse("UTF-8 taken for UTF-16", "t.csv", data, "utf-16", "--encoding", encoding="utf-16")
    yield refuse("UTF-8 taken for ASCII is UTF-8", "t.csv", b"\xff" + data, "line 1, column 1", encoding="ascii")
    bad = data.replace("电影".encode(), b"\x81 ")
    yield refuse("not shift_jis", "t.csv", bad + b"\xff\n", "shift_jis", "line", "column", encoding="shift_jis")
    yield refuse("not gb18030", "t.csv", bad + b"\xff\n", "gb18030", "line", "column", encoding="gb18030", quick=True)
    for encoding in ("klingon", "base64", "hex", "rot13", "idna", "unicode_escape", ""):
        name = f"the encoding {encoding!r}"
        words = ("encoding",)
        refused = dict.fromkeys(COMMANDS, words)
        options = {"encoding": encoding}
        yield Case(name, writer({"t.csv": data}), "t.csv", None, refused, options, names_file=False)
