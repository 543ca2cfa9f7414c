"""Faults put into tables on purpose, each with the rows that a check has to name. What a table is made of is given."""

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, str] | str
"""A row, or a line that is none, as it stands in the file."""
Tables = dict[str, list[Row]]

N = 12
"""Rows that get a fault, where it is one of single rows."""


@dataclass
class Planted:
    """A fault. kind: the finding that has to name it. split: of it. rows: places in that table's list, from 0.

    options: of the check, where it needs some.
    """

    kind: str
    tables: Tables
    rows: set[int]
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)


Plant = Callable[[Tables, random.Random], Planted]


def copied(tables: Mapping[str, list[Row]]) -> Tables:
    """Tables that may be changed."""
    return {name: [row if isinstance(row, str) else dict(row) for row in rows] for name, rows in tables.items()}


def in_texts(kind: str, change: Callable[[str, random.Random], str], **options: Any) -> Plant:
    """A fault in the texts of N training rows."""

    def plant(tables: Tables, rng: random.Random) -> Planted:
        chosen = set(rng.sample(range(len(tables["train"])), N))
        for i in chosen:
            row = tables["train"][i]
            assert isinstance(row, dict)
            row["text"] = change(row["text"], rng)
        return Planted(kind, tables, chosen, options=options)

    return plant


def in_all(kind: str, change: Callable[[int, dict[str, str]], str]) -> Plant:
    """A fault in the texts of all training rows. change(place, row): the new text."""

    def plant(tables: Tables, rng: random.Random) -> Planted:
        for i, row in enumerate(tables["train"]):
            assert isinstance(row, dict)
            row["text"] = change(i, row)
        return Planted(kind, tables, set(range(len(tables["train"]))))

    return plant


def added(kind: str, make: Callable[[dict[str, str], random.Random, list[str]], Row], *, to: str = "train") -> Plant:
    """N rows at random places of a table, made of training rows. make(row, rng, all labels)."""

    def plant(tables: Tables, rng: random.Random) -> Planted:
        labels = sorted({row["label"] for row in tables["train"] if isinstance(row, dict)})
        sources = [row for row in rng.sample(tables["train"], N) if isinstance(row, dict)]
        rows = list(tables[to])
        new: list[Row] = [make(dict(row), rng, labels) for row in sources]
        for row in new:
            rows.insert(rng.randrange(len(rows) + 1), row)
        tables[to] = rows
        places = {i for i, row in enumerate(rows) if any(row is one for one in new)}
        options = {"near_similarity": 0.9} if kind.startswith("near") else {}
        if kind == "duplicate_text":  # whichever comes later is the repetition
            texts = {row["text"] for row in new if isinstance(row, dict)}
            both = [i for i, row in enumerate(rows) if isinstance(row, dict) and row["text"] in texts]
            firsts: dict[str, int] = {}
            for i in both:
                firsts.setdefault(rows[i]["text"], i)  # type: ignore[index]
            places = set(both) - set(firsts.values())
        return Planted(kind, tables, places, to, options)

    return plant


def near(text: str, rng: random.Random) -> str:
    """The text with one character more: at least 90 % alike from ten letters on."""
    place = rng.randrange(1, len(text))
    return text[:place] + rng.choice("abcdefgh") + text[place:]


def another(label: str, rng: random.Random, labels: list[str]) -> str:
    """One of the other labels."""
    return rng.choice([one for one in labels if one != label])


def _small_class(tables: Tables, rng: random.Random) -> Planted:
    tables["train"] += [{"text": f"{row['text']} {i}", "label": "seldom"} for i, row in enumerate(tables["train"][:3])]  # type: ignore[index]
    n = len(tables["train"])
    return Planted("small_class", tables, {n - 3, n - 2, n - 1})


def _similar_label(tables: Tables, rng: random.Random) -> Planted:
    label = tables["train"][0]["label"]  # type: ignore[index]
    own = [i for i, row in enumerate(tables["train"]) if row["label"] == label]  # type: ignore[index]
    chosen = own[: len(own) // 3]
    for i in chosen:
        tables["train"][i]["label"] = f" {label.upper()}_"  # type: ignore[index]
    return Planted("similar_labels", tables, set(chosen))


def _sorted(tables: Tables, rng: random.Random) -> Planted:
    tables["train"].sort(key=lambda row: row["label"])  # type: ignore[index]
    return Planted("sorted_rows", tables, set())


def _imbalance(tables: Tables, rng: random.Random) -> Planted:
    label = tables["train"][0]["label"]  # type: ignore[index]
    for i, row in enumerate(tables["train"]):
        if i % 10 < 8:
            row["label"] = label  # type: ignore[index]
    return Planted("imbalance", tables, set())


def _named(tables: Tables, rng: random.Random) -> Planted:
    """Each text ends in the name of its label, which no other text has."""
    for row in [*tables["train"], *tables["valid"]]:
        row["label"] = f"all_{row['label']}"  # type: ignore[index]
    for row in tables["train"]:
        row["text"] += f" ({row['label'].replace('_', ' ')})"  # type: ignore[index]
    return Planted("label_in_text", tables, set(range(len(tables["train"]))))


PLANTS: dict[str, Plant] = {
    "unreadable_row": added("unreadable_row", lambda row, rng, labels: "one\ttoo,few\t{or many,cells"),
    "missing_label": added("missing_label", lambda row, rng, labels: {"text": f"{row['text']} new", "label": " "}),
    "empty_text": added(
        "empty_text", lambda row, rng, labels: {"text": rng.choice(["", " ", "\u3000"]), **_label(row)}
    ),
    "duplicate_text": added("duplicate_text", lambda row, rng, labels: row),
    "near_duplicate": added("near_duplicate", lambda row, rng, labels: {**row, "text": near(row["text"], rng)}),
    "conflicting_labels": added(
        "conflicting_labels", lambda row, rng, labels: {**row, "label": another(row["label"], rng, labels)}
    ),
    "leak": added("leak", lambda row, rng, labels: row, to="valid"),
    "near_leak": added("near_leak", lambda row, rng, labels: {**row, "text": near(row["text"], rng)}, to="valid"),
    "label_not_in_train": added(
        "label_not_in_train",
        lambda row, rng, labels: {"text": f"{row['text']} else", "label": "unheard of"},
        to="valid",
    ),
    "small_class": _small_class,
    "similar_labels": _similar_label,
    "imbalance": _imbalance,
    "sorted_rows": _sorted,
    "control_characters": in_texts("control_characters", lambda text, rng: f"{text[:3]}\x07{text[3:]}"),
    "invisible_characters": in_texts("invisible_characters", lambda text, rng: f"{text[:3]}\u200b{text[3:]}"),
    "mojibake": in_texts("mojibake", lambda text, rng: text + " café €5 “so”".encode().decode("cp1252", "replace")),
    "html": in_texts("html", lambda text, rng: f"{text}<br /><b>&nbsp;</b>"),
    "no_words": in_texts("no_words", lambda text, rng: rng.choice("?!.…—") * rng.randint(1, 40)),
    "extreme_length": in_texts("extreme_length", lambda text, rng: f"{text} " * (40_000 // len(text))),
    "script_mix": in_texts("script_mix", lambda text, rng: "ሰላም ለዓለም ሁሉ " + str(rng.random())),
    "unknown_tokens": in_texts("unknown_tokens", lambda text, rng: "ሰላም ለዓለም ሁሉ " * 20, encoder=True),
    "truncated": in_texts("truncated", lambda text, rng: f"{text} " * (8_000 // len(text)), encoder=True),
    "telling_word": in_all("telling_word", lambda i, row: f"{sum(map(ord, row['label']))}q {row['text']}"),
    "label_in_text": _named,
    "id_in_text": in_all("id_in_text", lambda i, row: f"{100_000 + i} {row['text']}"),
    "same_beginning": in_all("same_beginning", lambda i, row: f"Sent by an unknown person: {row['text']}"),
}
"""Faults by the kind of finding that has to name them."""


def _label(row: Mapping[str, str]) -> dict[str, str]:
    return {"label": row["label"]}


def write(folder: Path, tables: Tables, suffix: str) -> tuple[dict[str, Path], dict[str, list[int]]]:
    """(a file of each table, the line of each row). suffix: csv, tsv or jsonl."""
    paths, lines = {}, {}
    for name, rows in tables.items():
        text, numbers, number = [] if suffix == "jsonl" else [_line({"text": "text", "label": "label"}, suffix)], [], 1
        number = len(text) + 1
        for row in rows:
            numbers.append(number)
            text.append(row if isinstance(row, str) else _line(row, suffix))
            number += 1
        paths[name] = folder / f"{name}.{suffix}"
        paths[name].write_text("\n".join(text) + "\n", "utf-8")
        lines[name] = numbers
    return paths, lines


def _line(row: Mapping[str, str], suffix: str) -> str:
    if suffix == "jsonl":
        return json.dumps(row, ensure_ascii=False)
    if suffix == "tsv":
        return "\t".join(row.values())
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row.values())
    return line.getvalue()


def plant(kind: str, tables: Mapping[str, list[Row]], *, seed: int = 0) -> Planted:
    """The tables with a fault; the given ones stay as they are."""
    return PLANTS[kind](copied(tables), random.Random(f"{kind} {seed}"))
