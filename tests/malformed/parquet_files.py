"""Parquet files that are damaged, or whose columns are of other types than text."""

import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from malformed.case import ANY, LABELS, TEXTS, Case, as_csv, as_parquet, read, refuse, sane

WHOLE = as_parquet(sane(note=[f"note {i}" for i in range(6)]), compression="none")
BOTH = ("train", "evaluate")


def cases() -> list[Case]:
    """All of them."""
    return [*_damaged(), *_texts(), *_labels(), *_beside()]


def _damaged() -> Iterator[Case]:
    words = ("t.parquet", "Parquet")
    n = len(WHOLE)
    footer = n - 8 - int.from_bytes(WHOLE[-8:-4], "little")
    for name, data in {
        "nothing": b"",
        "its mark only": b"PAR1",
        "its mark twice": b"PAR1PAR1",
        "one byte": b"P",
        "cut in half": WHOLE[: n // 2],
        "cut by one byte": WHOLE[:-1],
        "without its beginning": WHOLE[10:],
        "its end only": WHOLE[n // 2 :],
        "a footer that begins in zeros": WHOLE[:footer] + b"\0" * 32 + WHOLE[footer + 32 :],
        "a footer that is too long": WHOLE[:-8] + b"\xff\xff\xff\x7f" + WHOLE[-4:],
        "pages of zeros": WHOLE[:4] + b"\0" * 200 + WHOLE[204:],
        "pages of ones": WHOLE[:4] + b"\xff" * 200 + WHOLE[204:],
        "CSV": as_csv(sane()).encode(),
        "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 50,
        "zip": b"PK\x03\x04" + b"\0" * 50,
        "text": b"no table at all",
        "encrypted": b"PARE" + b"\0" * 50 + b"PARE",
    }.items():
        yield refuse(f"parquet: {name}", "t.parquet", data, *words, quick=name in ("nothing", "cut in half", "CSV"))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.table(sane()).schema) as file:
        file.write_table(pa.table(sane()))
    yield refuse("parquet: Arrow", "t.parquet", sink.getvalue().to_pybytes(), *words)
    empty = pa.table({name: pa.array([], pa.string()) for name in ("text", "label")})
    yield refuse("parquet: no rows", "t.parquet", as_parquet(empty), "t.parquet", "no rows", quick=True)
    yield refuse("parquet: no columns", "t.parquet", as_parquet(pa.table({})), "t.parquet", "no")
    twice = pa.table([list(TEXTS), list(LABELS), list(LABELS)], names=["text", "label", "label"])
    yield refuse("parquet: a column twice", "t.parquet", as_parquet(twice), "t.parquet", "2 columns named 'label'")
    for compression in ("snappy", "gzip", "zstd", "brotli", "lz4"):
        data = as_parquet(sane(), compression=compression)
        yield read(f"parquet: compressed by {compression}", "t.parquet", data, sane())
    grouped = as_parquet(sane(), row_group_size=1)
    yield read("parquet: a row in each group", "t.parquet", grouped, sane())
    old = as_parquet(sane(), version="1.0", data_page_version="1.0", use_dictionary=False)
    yield read("parquet: version 1", "t.parquet", old, sane())


def _texts() -> Iterator[Case]:
    def with_texts(texts: Any) -> bytes:
        return as_parquet(pa.table({"text": texts, "label": list(LABELS)}))

    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        data = with_texts(pa.array(TEXTS).cast(kind))
        yield read(f"parquet: texts of {kind}", "t.parquet", data, sane(), quick=pa.types.is_dictionary(kind))
    null = [*TEXTS[:2], None, *TEXTS[3:]]
    words = ("t.parquet", "'text'", "row 3", "missing")
    yield refuse("parquet: a null text", "t.parquet", with_texts(null), *words, quick=True)
    data = with_texts(pa.array(null).dictionary_encode())
    yield refuse("parquet: a null text in a dictionary", "t.parquet", data, *words)
    broken = pa.Array.from_buffers(
        pa.string(), 6, [None, pa.py_buffer(np.arange(7, dtype=np.int32)), pa.py_buffer(b"ab\xffdef")]
    )
    words = ("t.parquet", "'text'", "row 3", "UTF-8")
    yield refuse("parquet: a text that is not UTF-8", "t.parquet", with_texts(broken), *words, quick=True)
    values: dict[str, Any] = {
        "binary": pa.array([text.encode() for text in TEXTS]),
        "int64": pa.array(range(6)),
        "double": pa.array([0.5] * 6),
        "bool": pa.array([True] * 6),
        "list": pa.array([[text] for text in TEXTS]),
        "struct": pa.array([{"a": text} for text in TEXTS]),
        "date32": pa.array([datetime.date(2020, 1, 1)] * 6),
        "null": pa.nulls(6),
        "map": pa.array([[("a", "b")]] * 6, pa.map_(pa.string(), pa.string())),
    }
    for kind, texts in values.items():
        words = ("t.parquet", "'text'", "missing" if kind == "null" else kind)
        yield refuse(f"parquet: texts of {kind}", "t.parquet", with_texts(texts), *words)


def _labels() -> Iterator[Case]:
    def with_labels(labels: Any) -> bytes:
        return as_parquet(pa.table({"text": list(TEXTS), "label": labels}))

    unknown = {"evaluate": ("labels that are not among", "t.parquet", "row 1")}
    kinds: dict[str, Any] = {
        "int64": pa.array([1, 2, 3, 1, 2, 3]),
        "uint64": pa.array([2**64 - 1, 2, 3, 1, 2, 3], pa.uint64()),
        "int8": pa.array([1, 2, 3, 1, 2, -3], pa.int8()),
        "whole doubles": pa.array([1.0, 2.0, 1.0, 2.0, 1e300, -0.0]),
        "doubles": pa.array([1.5, 2.0, 1.5, 2.0, 1.5, 2.0]),
        "floats": pa.array([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], pa.float32()),
        "half floats": pa.array(np.array([1, 2, 1, 2, 1, 2], np.float16)),
        "bool": pa.array([True, False] * 3),
        "decimal": pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.20")] * 3),
        "date32": pa.array([datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)] * 3),
        "dictionary of integers": pa.array([1, 2, 1, 2, 1, 2]).dictionary_encode(),
    }
    for name, labels in kinds.items():
        table = {"text": list(TEXTS), "label": labels.to_pylist()}
        yield read(f"parquet: labels of {name}", "t.parquet", with_labels(labels), table, refused=unknown)
    refused: dict[str, tuple[Any, str]] = {
        "null": (pa.array([*LABELS[:2], None, *LABELS[3:]]), "row 3"),
        "null in a dictionary": (pa.array([*LABELS[:2], None, *LABELS[3:]]).dictionary_encode(), "row 3"),
        "NaN": (pa.array([1.0, 2.0, float("nan"), 1.0, 2.0, 1.0]), "row 3"),
        "infinite": (pa.array([1.0, 2.0, float("inf"), 1.0, 2.0, 1.0]), "row 3"),
        "infinite half": (pa.array(np.array([1, 2, np.inf, 1, 2, 1], np.float16)), "row 3"),
        "empty": (pa.array([*LABELS[:2], "", *LABELS[3:]]), "row 3"),
        "all null": (pa.nulls(6), "row 1"),
        "struct": (pa.array([{"a": 1}] * 6), "struct"),
        "binary": (pa.array([b"\xff"] * 6), "binary"),
        "not UTF-8": (
            pa.Array.from_buffers(pa.string(), 6, [None, _offsets(6), pa.py_buffer(b"ab\xffdef")]),
            "row 3",
        ),
        "a list with null": (pa.array([["food"], ["tools"], ["food", None], [], [], []]), "row 3"),
        "a list with NaN": (pa.array([[1.0], [2.0], [1.0, float("nan")], [], [], []]), "row 3"),
        "a list with an infinity": (pa.array([[1.0], [2.0], [1.0, float("inf")], [], [], []]), "row 3"),
        "a list of lists": (pa.array([[["food"]]] * 6), "list"),
    }
    for name, (labels, place) in refused.items():
        table = {"text": list(TEXTS), "label": labels.to_pylist() if name != "not UTF-8" else []}
        words = dict.fromkeys(BOTH, ("t.parquet", "'label'", place))
        if name.startswith("a list with"):
            words["evaluate"] = ("t.parquet", "'label'", "whose cells are lists")
        case = read(f"parquet: labels that are {name}", "t.parquet", with_labels(labels), table, refused=words)
        if name != "not UTF-8":
            yield case
        else:
            yield refuse(case.name, "t.parquet", with_labels(labels), "t.parquet", "'label'", place)


def _offsets(n: int) -> pa.Buffer:
    return pa.py_buffer(np.arange(n + 1, dtype=np.int32))


def _beside() -> Iterator[Case]:
    """Columns that only go through."""
    nanoseconds = pa.array([1, 10**9 + 1, None, -1, 2**62, 0], pa.timestamp("ns"))
    columns: dict[str, Any] = {
        "null": pa.array(["a", None, "", None, "null", "x"]),
        "int64 with null": pa.array([1, None, 2**53 + 1, -1, 0, 2**63 - 1]),
        "uint64": pa.array([2**64 - 1, 0, 1, 2, 3, None], pa.uint64()),
        "NaN": pa.array([1.5, float("nan"), None, float("inf"), -0.0, 5e-324]),
        "half floats": pa.array(np.array([1.5, np.nan, 2, 3, 4, 5], np.float16)),
        "bool": pa.array([True, None, False, True, True, False]),
        "nanoseconds": nanoseconds,
        "time zone": nanoseconds.cast(pa.timestamp("us"), safe=False).cast(pa.timestamp("us", tz="Europe/Berlin")),
        "date beyond 9999": pa.array([0, None, 2**30, -(2**30), 1, 2], pa.int32()).cast(pa.date32()),
        "time of day": pa.array([0, 1, 2, 3, 4, None], pa.time64("ns")),
        "duration": pa.array([0, 1, 2, 3, 4, None], pa.duration("s")),
        "decimal": pa.array([decimal.Decimal("1.10"), None] * 3),
        "binary": pa.array([b"\xff\x00", b"", None, b"a", b"b", b"c"]),
        "fixed binary": pa.array([b"ab"] * 6, pa.binary(2)),
        "list": pa.array([["a"], [], None, ["b", None], [""], ["x"]]),
        "list of structs": pa.array([[{"a": 1}], [], None, [{"a": None}], [{}], [{"a": 2}]]),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 2}, {"b": "z"}, {}]),
        "map": pa.array([[("a", "b")], [], None, [], [], []], pa.map_(pa.string(), pa.string())),
        "all null": pa.nulls(6),
        "dictionary": pa.array(["a", None, "b", "a", "", "x"]).dictionary_encode(),
        "JSON": pa.ExtensionArray.from_storage(
            pa.json_(pa.string()), pa.array(['{"a": 1}', None, '"x"', "1", "[]", "{}"])
        ),
        "not JSON": pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{", None, "x", "NaN", "", "{}"])),
    }
    for name, column in columns.items():
        table = {**sane(), "n": column}
        data = as_parquet(pa.table(table))
        for out in ("csv", "tsv", "jsonl") if name == "date beyond 9999" else ("csv", "tsv", "jsonl", "parquet"):
            expected = column.to_pylist() if out == "parquet" else [ANY] * 6
            made = read(f"parquet to {out}: {name}", "t.parquet", data, {**sane(), "n": expected}, out=out)
            yield made
