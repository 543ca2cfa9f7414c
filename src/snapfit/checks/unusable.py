"""Rows that training refuses although they can be read: without a text, without a label, with a label of another kind.

The rules are those of `data.records`, which raises at the first such row; here all are found.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snapfit.core.maps import release_pages
from snapfit.data.columns import Columns, is_list_type, is_text_type, parse_number

_SLAB_ROWS = 65_536
_FLOAT32_MAX = float(np.finfo(np.float32).max)
Mask = np.ndarray
"""bool [n]"""


def unusable_rows(table: pa.Table, columns: Columns, delimiter: str | None) -> dict[str, np.ndarray]:
    """Numbers of the rows that cannot be used, int64 ascending, by kind of finding; a row is in the first that fits.

    Kinds: missing_text, missing_label, bad_label.
    """
    found: dict[str, list[np.ndarray]] = {"missing_text": [], "missing_label": [], "bad_label": []}
    for start in range(0, table.num_rows, _SLAB_ROWS):
        slab = table.slice(start, _SLAB_ROWS)
        seen = np.zeros(slab.num_rows, dtype=bool)
        for kind, mask in _masks(slab, columns, delimiter):
            rows = np.flatnonzero(mask & ~seen)
            seen |= mask
            found[kind].append(rows + start)
        release_pages()
    return {kind: np.concatenate(parts) for kind, parts in found.items() if any(map(len, parts))}


def _masks(slab: pa.Table, columns: Columns, delimiter: str | None) -> list[tuple[str, Mask]]:
    masks = [("missing_text", _missing(slab.column(name))) for name in (columns.text, columns.pair) if name is not None]
    if columns.label is None:
        return masks
    column = slab.column(columns.label)
    missing = _missing(column)
    masks.append(("missing_label", missing))
    if columns.task == "single":
        masks.append(("missing_label", _blank(column)))
    elif columns.task == "regression":
        masks.append(("bad_label", _each(column, missing, _is_no_number)))
    else:
        masks.append(("bad_label", _each(column, missing, _list_fault(column.type, delimiter))))
    return masks


def _missing(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.is_null(nan_is_null=True).to_numpy(), dtype=bool)


def _blank(column: pa.ChunkedArray) -> Mask:
    if not is_text_type(column.type):
        return np.zeros(len(column), dtype=bool)
    blank = pc.equal(pc.utf8_trim_whitespace(column.cast(pa.large_string())), "").fill_null(False)
    return np.asarray(blank.to_numpy(), dtype=bool)


def _each(column: pa.ChunkedArray, missing: Mask, is_bad: Callable[[Any], bool]) -> Mask:
    values = column.to_pylist()
    return np.array([not gone and is_bad(value) for value, gone in zip(values, missing.tolist(), strict=True)], bool)


def _is_no_number(value: Any) -> bool:
    number = parse_number(value)
    return number is None or abs(number) > _FLOAT32_MAX


def _list_fault(kind: pa.DataType, delimiter: str | None) -> Callable[[Any], bool]:
    if is_list_type(kind):
        return lambda cell: any(label is None or label != label or _is_blank(label) for label in cell)
    if delimiter is not None:
        return lambda cell: str(cell).strip() != "" and any(_is_blank(part) for part in str(cell).split(delimiter))
    return _is_no_list


def _is_no_list(cell: Any) -> bool:
    try:
        values = json.loads(cell)
    except (TypeError, ValueError):
        return True
    if not isinstance(values, list):
        return True
    return any(not isinstance(value, str | int) or _is_blank(value) for value in values)


def _is_blank(label: Any) -> bool:
    return isinstance(label, str) and not label.strip()
