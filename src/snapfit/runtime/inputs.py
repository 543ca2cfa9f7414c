"""Tables and streams for an existing bundle: read by the columns that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe_sections import DataSection
from snapfit.data.likely_encoding import likely_encoding
from snapfit.data.records import Records, read_records
from snapfit.data.text_files import is_utf8_name, position
from snapfit.runtime.bundle import BundleInfo
from snapfit.runtime.evaluating import encoded
from snapfit.runtime.parts import Check, RecordParts, record_parts


def read_for_bundle(
    info: BundleInfo,
    source: object,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
) -> Records:
    """Labelled records of a table, as the bundle's training table had them.

    source: a file, a folder of files, or an Arrow table. text, pair, label: columns that are called otherwise in this
    table. delimiter, encoding, format: as for `read_records`. Raises BadInput for a missing column and for whatever
    `read_records` refuses.
    """
    columns = text_columns(info, text, pair)
    _check_reading(encoding, format)
    return read_records(
        source,
        text=columns[0],
        pair=columns[1] if info.pair else None,
        label=label or info.label_column or "auto",
        task=info.task,
        delimiter=delimiter or info.delimiter,
        encoding=encoding,
        format=format,
    )


def parts_for_bundle(
    info: BundleInfo,
    source: str | Path,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
    out_of_scope: str | None = None,
) -> RecordParts:
    """The records that `read_for_bundle` reads, in parts that are read one after another where the table is large.

    out_of_scope: a label that rows may have besides those of the bundle, see `evaluating.encoded`.
    Raises BadInput as `read_for_bundle` does, and for unknown labels, before any part is given.
    """
    label_set = LabelSet.from_dict(info.labels)

    def read(rows: object) -> Records:
        return read_for_bundle(
            info,
            rows,
            text=text,
            pair=pair,
            label=label,
            delimiter=delimiter,
            encoding=encoding,
            format=format,
        )

    def check(records: Records) -> None:
        encoded(records, label_set, out_of_scope=out_of_scope)

    return record_parts(source, read, format=format, encoding=encoding, check=check)


def text_parts(
    info: BundleInfo,
    source: str | Path,
    *,
    text: str | None = None,
    pair: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
    check: Check = lambda records: None,
) -> RecordParts:
    """The records that `read_texts` reads, in parts that are read one after another where the table is large.

    check: does more checks. Raises BadInput as `read_texts` and `check` do, before any part is given.
    """

    def read(rows: object) -> Records:
        return read_texts(info, rows, text=text, pair=pair, encoding=encoding, format=format)

    return record_parts(source, read, format=format, encoding=encoding, check=check)


def read_texts(
    info: BundleInfo,
    source: object,
    *,
    text: str | None = None,
    pair: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
) -> Records:
    """Records of a table to predict on: only its text columns matter, all others are kept as they are."""
    columns = text_columns(info, text, pair)
    try:
        _check_reading(encoding, format)
        return read_records(
            source,
            text=columns[0],
            pair=columns[1] if info.pair else None,
            encoding=encoding,
            format=format,
            labels_required=False,
        )
    except BadInput as error:
        raise BadInput(error.found, error.expected, _flags_of_predict(error.fix)) from error


def text_columns(info: BundleInfo, text: str | None, pair: str | None) -> list[str]:
    """The names of the text column, or of the two of a bundle of pairs. Raises BadInput for a second one too
    many.
    """
    if pair is not None and not info.pair:
        found = f"the second texts in {pair!r}"
        raise BadInput(found, "one text column: the bundle was trained on single texts", "leave the pair out")
    return [text or info.text_columns[0], *([pair or info.text_columns[1]] if info.pair else [])]


def _flags_of_predict(fix: str) -> str:
    """A fix in the flags of `snapfit predict`, where --text is a text and --format the output's."""
    for flag, called in (
        ("--text", "--text-column"),
        ("--pair", "--pair-column"),
        ("--format", "--table-format"),
    ):
        fix = fix.replace(flag, called)
    return fix


def _check_reading(encoding: str, format: str) -> None:
    """Raise BadInput for an encoding or a format that no recipe could name either."""
    for values, fix in (
        ({"encoding": encoding}, "--encoding utf-8"),
        ({"format": format}, "--format auto"),
    ):
        try:
            DataSection.model_validate(values)
        except BadInput as error:
            raise BadInput(error.found, error.expected, fix) from None


def read_lines(stream: IO[bytes], *, encoding: str = "utf-8") -> list[str]:
    """The lines of a stream, one text each, without their ends; a last line without an end counts.

    Raises BadInput for a stream that is not text in this encoding, or holds nothing.
    """
    _check_reading(encoding, "auto")
    data = stream.read()
    if not data:
        raise BadInput("standard input is empty", "one text a line", "pipe in a file with a text on each line")
    codec = "utf-8-sig" if is_utf8_name(encoding) else encoding
    try:
        content = data.decode(codec)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(codec, "replace").encode("utf-8")
        likely = likely_encoding(data[error.start :].split(b"\n", 1)[0]) if is_utf8_name(encoding) else "utf-8"
        found = f"standard input, {position(before, len(before))}: what is not {encoding} ({error.reason})"
        fix = f"name its encoding, perhaps --encoding {likely}"
        raise BadInput(found, f"text in {encoding}", fix) from error
    lines = content.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def texts_table(info: BundleInfo, texts: Sequence[str], *, place: str) -> pa.Table:
    """A table under the bundle's column names of texts; for a bundle of pairs each is cut at its one tab.

    place: what a text is called in errors, such as "line". Raises BadInput for a pair without exactly one
    tab.
    """
    if not info.pair:
        return pa.table({info.text_columns[0]: pa.array(texts, pa.string())})
    halves = []
    for i, text in enumerate(texts, 1):
        parts = text.split("\t")
        if len(parts) != 2:
            found = f"{place} {i} has {len(parts) - 1} tabs"
            fix = "put a tab between the two; printf 'first\\tsecond\\n' | snapfit predict BUNDLE -"
            raise BadInput(found, "two texts with one tab between them: the bundle was trained on pairs", fix)
        halves.append(parts)
    first, second = info.text_columns
    return pa.table({first: [a for a, _ in halves], second: [b for _, b in halves]})
