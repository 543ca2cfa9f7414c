"""What `snapfit check` finds: on 14 real sets, of faults put in on purpose, and among a million texts nearly alike.

    python benchmarks/check.py --json benchmarks/results/check.json --check
    python benchmarks/check.py --quick                     three real sets, one set with faults, 100,000 texts

- sets: duplicates, leaks and conflicting labels of each set, held against a count with plain dictionaries: the rows
  that are named must be the same ones. The data are found in --data (or $SNAPFIT_REAL_DATA); sets that are absent are
  left out.
- planted: each kind of fault in each of three sets; all planted rows must be named. "More" are rows that are named and
  were neither planted nor named before anything was.
- near: texts made by a Markov chain of the standard library's docstrings, one in a hundred of them once more with a few
  edits. Recall is over edits that leave 90 % alike, precision is computed again for a sample of what is found.
- large: a check of as many rows in a CSV file, without near-duplicates and encoder.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import planted
from harness import ROOT, Results, base_parser, check_floors, last_json, machine, peak_rss_mib, table
from memory import write_table

BENCHMARK = "check"
PARTS = ("sets", "planted", "near", "large")
SETS: dict[str, tuple[str, str | None, str | None]] = {
    "afqmc": ("train.tsv", "dev.tsv", "test_unlabelled.tsv"),
    "baidu_event_multilabel": ("train.jsonl", None, "test.jsonl"),
    "banking77": ("train.csv", None, "test.csv"),
    "chnsenticorp": ("train.tsv", "dev.tsv", "test_unlabelled.tsv"),
    "clinc150_full": ("train.tsv", "dev.tsv", "test.tsv"),
    "emotion": ("train.tsv", "dev.tsv", "test.tsv"),
    "goemotions": ("train.jsonl", "dev.jsonl", "test.jsonl"),
    "imdb_5k": ("train.jsonl", None, "test.jsonl"),
    "mrpc": ("train.tsv", None, "test.tsv"),
    "rte": ("train.tsv", "dev.tsv", "test_unlabelled.tsv"),
    "sst2": ("train.tsv", "dev.tsv", "test_unlabelled.tsv"),
    "stsb": ("train.tsv", "dev.tsv", "test.tsv"),
    "thucnews_title": ("train.tsv", "dev.tsv", "test.tsv"),
    "tnews": ("train.tsv", "dev.tsv", "test_unlabelled.tsv"),
}
"""Training, validation and test file of each real set."""
QUICK_SETS = ("chnsenticorp", "stsb", "mrpc")
PLANTED = {"banking77": "csv", "thucnews_title": "tsv", "demo": "jsonl"}
"""Sets that get faults, and the format that they are written in; demo is snapfit's own."""
PLANTED_ROWS = {"train": 3_000, "valid": 600}
NEAR_TEXTS = {False: 1_000_000, True: 100_000}
SET_HEADER = [
    "set", "rows", "repeated", "identical", "conflicting texts", "in valid", "in test", "near in valid, test",
    "unknown tokens", "errors, warnings, notes", "cpu s", "same rows as counted",
]  # fmt: skip
PLANTED_HEADER = ["set", "format", "kinds", "found", "planted rows", "named", "more", "errors before"]
LARGE_HEADER = ["rows", "file MB", "wall s", "cpu s", "peak MiB", "before MiB"]
NEAR_HEADER = ["texts", "wall s", "cpu s", "peak MiB", "planted", "recall", "found", "precision"]


# ---------------------------------------------------------------- real sets


def rows_of(path: Path) -> list[tuple[tuple[str, ...], Any]]:
    """((texts), label or None) of each row, read without snapfit."""
    if path.suffix == ".jsonl":
        objects = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
    elif path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            objects = list(csv.DictReader(file))
    else:
        header, *lines = path.read_text("utf-8").rstrip("\n").split("\n")
        objects = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    rows = []
    for one in objects:
        texts = (one["sentence1"], one["sentence2"]) if "sentence1" in one else (one["text"],)
        label = one.get("label", one.get("score", one.get("labels")))
        rows.append((texts, tuple(sorted(label)) if isinstance(label, list) else label))
    return rows


def same(texts: tuple[str, ...]) -> tuple[str, ...]:
    """What texts are the same by, as docs/check.md defines it."""
    return tuple(unicodedata.normalize("NFC", text).strip().casefold() for text in texts)


def counted(paths: dict[str, Path]) -> dict[str, Any]:
    """Rows by kind and split, counted from 0, and what is identical, with plain dictionaries."""
    tables = {name: rows_of(path) for name, path in paths.items()}
    keys = {name: [same(texts) for texts, _ in rows] for name, rows in tables.items()}
    found: dict[str, Any] = {"rows": {}, "identical": {}, "conflicting_texts": 0}
    for name, rows in tables.items():
        seen: set[Any] = set()
        seen_raw: set[Any] = set()
        again, identical = [], 0
        for i, key in enumerate(keys[name]):
            if key in seen:
                again.append(i)
            identical += rows[i][0] in seen_raw
            seen.add(key)
            seen_raw.add(rows[i][0])
        found["rows"][f"duplicate_text {name}"] = again
        found["identical"][f"duplicate_text {name}"] = identical
        labels: defaultdict[Any, set[Any]] = defaultdict(set)
        for texts, label in rows:
            labels[texts].add(label)
        if name == "train":
            found["conflicting_texts"] = sum(len(own) > 1 for own in labels.values())
            known, raw = seen, seen_raw
        else:
            found["rows"][f"leak {name}"] = [i for i, key in enumerate(keys[name]) if key in known]
            found["identical"][f"leak {name}"] = sum(texts in raw for texts, _ in rows)
    return found


def on_set(folder: Path, name: str) -> dict[str, Any]:
    """A check of a real set with the starter encoder, beside the plain count."""
    import snapfit

    files = dict(zip(("train", "valid", "test"), SETS[name], strict=True))
    paths = {split: folder / name / file for split, file in files.items() if file is not None}
    plain = counted(paths)
    wall, cpu = time.perf_counter(), time.process_time()
    report = snapfit.check(paths["train"], valid=paths.get("valid"), test=paths.get("test"), plan=False)
    seconds = time.process_time() - cpu
    by_kind: dict[tuple[str, str], Any] = {}
    for one in report.findings:
        if one.kind != "leak" or one.details["in"] == "train":
            by_kind.setdefault((one.kind, one.split), one)
    lines = {split: row_lines(path) for split, path in paths.items()}
    differing = 0
    for key, rows in plain["rows"].items():
        kind, split = key.split(" ")
        one = by_kind.get((kind, split))
        named = set() if one is None else {n for w in one.where if w.split == split for n in w.numbers.tolist()}
        differing += len(named ^ {lines[split][row] for row in rows})
        differing += (0 if one is None else one.details["identical"]) != plain["identical"][key]
    conflict = by_kind.get(("conflicting_labels", "train"))
    texts = conflict.details["identical_texts"] if conflict else 0
    if report.task != "regression":  # whose numbers may differ a little
        differing += texts != plain["conflicting_texts"]
    return {
        "rows": {split: one["rows"] for split, one in report.tables.items()},
        "counts": {f"{kind} {split}": one.count for (kind, split), one in by_kind.items()},
        "shares": {f"{kind} {split}": round(one.share, 5) for (kind, split), one in by_kind.items()},
        "identical": sum(plain["identical"][f"duplicate_text {split}"] for split in paths),
        "conflicting_texts": texts,
        "unknown": (report.tokens or {}).get("train", {}).get("unknown_share", 0.0),
        "levels": report.levels,
        "differing": differing,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": seconds,
    }


def row_lines(path: Path) -> list[int]:
    """The line on which each row begins, from 1, without snapfit."""
    if path.suffix != ".csv":
        lines = path.read_text("utf-8").rstrip("\n").split("\n")
        return [i for i, line in enumerate(lines, 1) if line.strip()][0 if path.suffix == ".jsonl" else 1 :]
    numbers, line = [], 1
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:
                numbers.append(line)
            line = reader.line_num + 1
    return numbers[1:]


def set_rows(results: Results) -> list[list[str]]:
    """A row of the table for each set."""
    rows = []
    for name in SETS:
        one = results.runs.get(f"set {name}")
        if one is None:
            continue
        counts = one["counts"]
        near = [f"{counts.get(f'near_leak {split}', 0):,}" for split in ("valid", "test") if split in one["rows"]]
        leaks = [
            f"{counts.get(f'leak {s}', 0):,} ({100 * one['shares'].get(f'leak {s}', 0):.1f} %)"
            if s in one["rows"]
            else ""
            for s in ("valid", "test")
        ]
        repeated = sum(count for key, count in counts.items() if key.startswith("duplicate_text"))
        rows.append(
            [name, f"{sum(one['rows'].values()):,}", f"{repeated:,}", f"{one['identical']:,}"]
            + [f"{one['conflicting_texts']:,}", *leaks, ", ".join(near), f"{100 * one['unknown']:.1f} %"]
            + [", ".join(map(str, one["levels"].values())), f"{one['cpu_seconds']:.0f}"]
            + ["yes" if one["differing"] == 0 else f"{one['differing']} differ"]
        )
    return rows


# ---------------------------------------------------------------- planted faults


def sound_tables(data: Path, name: str) -> planted.Tables | None:
    """Rows of a set whose texts are all different; None where the set is not there. data: the folder of all sets."""
    if name == "demo":
        from snapfit.data.demo import demo_rows

        rows = [(one.text, one.label) for one in demo_rows()]
    else:
        if not (data / name).is_dir():
            return None
        rows = [(texts[0], label) for texts, label in rows_of(data / name / SETS[name][0])]
    rows = [(" ".join(text.split()), label) for text, label in rows]
    unique = list({same((text,)): (text, label) for text, label in rows if len(text) > 12}.values())
    random.Random(0).shuffle(unique)
    many = Counter(label for _, label in unique[: sum(PLANTED_ROWS.values())])
    kept = [{"text": text, "label": label} for text, label in unique if many[label] >= 40]
    n = PLANTED_ROWS["train"]
    return {"train": list(kept[:n]), "valid": list(kept[n : n + PLANTED_ROWS["valid"]])}


def with_faults(name: str, tables: planted.Tables, encoder: str) -> dict[str, Any]:
    """What a check finds of each kind of fault in a set, and what it finds before."""
    import snapfit

    quiet: dict[str, Any] = {"plan": False, "encoder": None, "near_similarity": None}
    found: dict[str, Any] = {"kinds": {}, "format": PLANTED[name]}
    with tempfile.TemporaryDirectory() as folder:
        paths, _ = planted.write(Path(folder), tables, PLANTED[name])
        before = snapfit.check(paths["train"], valid=paths["valid"], plan=False, encoder=encoder)
        clean = {(one.kind, one.split): named(one, one.split) for one in before.findings}
        found["errors"] = before.levels["error"]
        found["clean"] = sorted({one.kind for one in before.findings})
        for kind in planted.PLANTS:
            one = planted.plant(kind, tables)
            paths, lines = planted.write(Path(folder), one.tables, PLANTED[name])
            options = {**quiet, **one.options}
            if options["encoder"] is True:
                options["encoder"] = encoder
            report = snapfit.check(paths["train"], valid=paths["valid"], **options)
            wanted = {lines[one.split][row] for row in one.rows}
            told = [f for f in report.findings if (f.kind, f.split) == (kind, one.split)]
            rows = set().union(*(named(f, one.split) for f in told)) if told else set()
            # Lines moved where rows were added: how many more there are than before is what can be said.
            more = max(len(rows - wanted) - len(clean.get((kind, one.split), set())), 0)
            if kind in ("near_duplicate", "conflicting_labels", "duplicate_text"):
                more = max(more - planted.N, 0)  # the rows that the planted ones are copies of
            found["kinds"][kind] = {
                "found": bool(told) and wanted <= rows,
                "planted": len(wanted),
                "named": len(wanted & rows),
                "more": more,
                "level": told[0].level if told else None,
            }
    return found


def named(finding: Any, split: str) -> set[int]:
    """Numbers of the rows of a split that a finding names."""
    return {number for one in finding.where if one.split == split for number in one.numbers.tolist()}


def planted_encoder(name: str, tables: planted.Tables, folder: Path) -> str:
    """An encoder whose vocabulary has the set's characters: the starter, or for Chinese a random one."""
    if name != "thucnews_title":
        return "starter"
    from snapfit.ship.random_encoder import write_random_encoder

    texts = [row["text"] for row in tables["train"] if isinstance(row, dict)]
    write_random_encoder(folder / "encoder", texts, layers=1, width=64, vocabulary=6_000, seed=0)
    return str(folder / "encoder")


def planted_rows(results: Results) -> list[list[str]]:
    """A row of the table for each set."""
    rows = []
    for name in PLANTED:
        one = results.runs.get(f"planted {name}")
        if one is None:
            continue
        kinds = list(one["kinds"].values())
        sums = [sum(kind[key] for kind in kinds) for key in ("found", "planted", "named", "more")]
        rows.append([name, one["format"], str(len(kinds)), *(f"{n:,}" for n in sums), str(one["errors"])])
    return rows


# ---------------------------------------------------------------- near-duplicates


def markov_texts(n: int, rng: random.Random) -> Iterator[str]:
    """Texts of 5 to 14 words, as the standard library's docstrings have them one after another."""
    from snapfit.data.demo import demo_rows

    words = [word for row in demo_rows() for word in row.text.split()]
    after: defaultdict[str, list[str]] = defaultdict(list)
    for one, other in zip(words, words[1:], strict=False):
        after[one].append(other)
    for _ in range(n):
        chain = [rng.choice(words)]
        for _ in range(rng.randint(4, 13)):
            chain.append(rng.choice(after[chain[-1]] or words))
        yield " ".join(chain)


def edited(text: str, rng: random.Random) -> str:
    """The text after one to three edits: a character other, less or more, or a word exchanged for the next one's."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        place, kind = rng.randrange(len(text)), rng.randrange(4)
        if kind < 3:
            text = text[:place] + rng.choice("abcdefghij") * (kind != 1) + text[place + (kind != 2) :]
        else:
            words = text.split(" ")
            words[rng.randrange(len(words))] = rng.choice(words)
            text = " ".join(words)
        text = text or "a"
    return text


def near_search(n: int) -> dict[str, Any]:
    """The search among `n` texts, in this process."""
    import numpy as np
    import pyarrow as pa
    from rapidfuzz.distance import Indel

    from snapfit.checks import near

    rng = random.Random(0)
    originals = list(markov_texts(n - n // 100, rng))
    chosen = rng.sample(range(len(originals)), n // 100)
    twins = [edited(originals[i], rng) for i in chosen]
    texts = pa.chunked_array([pa.array(originals + twins, pa.large_string())])
    groups = np.repeat([0, 1], [len(originals), len(twins)])
    words = ["".join(c if c.isalnum() else " " for c in text.lower()).split() for text in originals + twins]
    plain = [" ".join(one) for one in words]
    del originals, twins, words
    before = peak_rss_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    found = near.near_texts(texts, None, groups, n_groups=2)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    start = n - n // 100
    alike = [
        k
        for k, i in enumerate(chosen)
        if plain[i] != plain[start + k] and Indel.normalized_similarity(plain[i], plain[start + k]) >= near.SIMILARITY
    ]
    hits = sum(found.twins[start + k, 0] >= 0 for k in alike)
    rows = np.argwhere(found.twins >= 0)
    sample = rows[np.random.default_rng(0).permutation(len(rows))[:20_000]]
    right = sum(
        Indel.normalized_similarity(plain[row], plain[found.twins[row, group]]) >= near.SIMILARITY - 1e-6
        for row, group in sample.tolist()
    )
    return {
        "texts": n,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak_rss_mib(),
        "before_mib": before,
        "planted": len(alike),
        "recall": float(hits) / len(alike),
        "found": len(rows),
        "precision": right / len(sample),
    }


def near_rows(results: Results) -> list[list[str]]:
    """A row of the table for each size."""
    return [
        [f"{one['texts']:,}", f"{one['seconds']:.0f}", f"{one['cpu_seconds']:.0f}", f"{one['peak_mib']:,}"]
        + [f"{one['planted']:,}", f"{one['recall']:.4f}", f"{one['found']:,}", f"{one['precision']:.4f}"]
        for key, one in results.runs.items()
        if key.startswith("near ")
    ]


def large_table(n: int) -> dict[str, Any]:
    """A check of `n` rows in a file, in this process."""
    import snapfit

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, n)
        size, before = path.stat().st_size, peak_rss_mib()
        wall, cpu = time.perf_counter(), time.process_time()
        report = snapfit.check(path, encoder=None, near_similarity=None)
        return {
            "rows": report.tables["train"]["rows"],
            "file_mb": size / 1e6,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mib": peak_rss_mib(),
            "before_mib": before,
        }


def large_rows(results: Results) -> list[list[str]]:
    """A row of the table for each size."""
    return [
        [f"{one['rows']:,}", f"{one['file_mb']:.0f}", f"{one['seconds']:.0f}", f"{one['cpu_seconds']:.0f}"]
        + [f"{one['peak_mib']:,}", f"{one['before_mib']:,}"]
        for key, one in results.runs.items()
        if key.startswith("large ")
    ]


TABLES = (
    (SET_HEADER, set_rows),
    (PLANTED_HEADER, planted_rows),
    (NEAR_HEADER, near_rows),
    (LARGE_HEADER, large_rows),
)
"""Every table: its header, and what makes its rows of the results."""


# ---------------------------------------------------------------- figures


def figures(results: Results) -> dict[str, float]:
    """What is held to a limit. Seconds are the processor's, of all threads: on free cores the wall's are no more."""
    sets = {key[4:]: one for key, one in results.runs.items() if key.startswith("set ")}
    faults = [one for key, one in results.runs.items() if key.startswith("planted ")]
    kinds = [kind for one in faults for kind in one["kinds"].values()]
    found: dict[str, float] = {}
    if sets:
        found |= {"sets": len(sets), "rows differing": sum(one["differing"] for one in sets.values())}
    if "chnsenticorp" in sets:
        found["chnsenticorp leak share"] = sets["chnsenticorp"]["shares"]["leak valid"]
    if "tnews" in sets:
        found["tnews leak"] = sets["tnews"]["counts"]["leak valid"]
        found["tnews conflicting texts"] = sets["tnews"]["conflicting_texts"]
    if faults:
        found |= {
            "planted sets": len(faults),
            "planted kinds": min(len(one["kinds"]) for one in faults),
            "planted missed": sum(not kind["found"] for kind in kinds),
            "errors before planting": sum(one["errors"] for one in faults),
        }
    for one in (one for key, one in results.runs.items() if key == f"near {NEAR_TEXTS[False]}"):
        found |= {f"near {name}": one[name] for name in ("cpu_seconds", "peak_mib", "recall", "precision")}
    for one in (one for key, one in results.runs.items() if key == f"large {NEAR_TEXTS[False]}"):
        found |= {f"large {name}": one[name] for name in ("cpu_seconds", "peak_mib")}
    return found


def measure(results: Results, parts: list[str], data: Path, *, quick: bool) -> None:
    """Add what is not in the results yet. data: the folder of the real sets."""
    for name in QUICK_SETS if quick else SETS:
        if "sets" in parts and (data / name).is_dir() and f"set {name}" not in results.runs:
            results.add(f"set {name}", on_set(data, name))
            print(name, results.runs[f"set {name}"]["levels"], flush=True)
    for name in ("demo",) if quick else PLANTED:
        tables = sound_tables(data, name) if "planted" in parts and f"planted {name}" not in results.runs else None
        if tables is not None:
            with tempfile.TemporaryDirectory() as folder:
                faults = with_faults(name, tables, planted_encoder(name, tables, Path(folder)))
            results.add(f"planted {name}", faults)
            print(name, {kind: one["found"] for kind, one in faults["kinds"].items()}, flush=True)
    n = NEAR_TEXTS[quick]
    for part in ("near", "large"):
        if part in parts and f"{part} {n}" not in results.runs:
            results.add(f"{part} {n}", last_json([sys.executable, __file__, "--worker", part, str(n)]))


def main() -> None:
    """Measure, print, keep, and hold the figures against their limits."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    place = os.environ.get("SNAPFIT_REAL_DATA", ROOT.parent / "shared/data")
    parser.add_argument("--data", type=Path, default=Path(place), help="where the real sets are")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments: argparse.Namespace = parser.parse_args()
    os.environ.pop("SNAPFIT_REAL_DATA", None)  # which is no setting of a recipe
    if arguments.worker is not None:
        work = {"near": near_search, "large": large_table}[arguments.worker[0]]
        print(json.dumps(work(int(arguments.worker[1]))))
        return
    results = Results(arguments.json)
    measure(results, arguments.parts, arguments.data, quick=arguments.quick)
    print(f"\nmachine: {machine()}\n")
    for header, rows in TABLES:
        print(table(header, rows(results)), end="\n\n")
    if arguments.check:
        missed = check_floors(BENCHMARK, figures(results))
        print("\n".join(missed) or "every limit holds")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
