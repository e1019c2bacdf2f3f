"""Reads interval records from a log file, many at a time.

SQLite returns its rows one by one and releases the interpreter for each; beside a busy loop every row waits to get it
back, for up to the switch interval. So a page is one row: per column a JSON array. Where the hash of a record does not
match (damage, or a number whose text reads back as another), `fetch` reads the page again, row by row.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.domain.intervals.records import RECORD_COLUMNS, hashes
from gateway.storage.interval_log.rows import COLUMNS, Row, record_of, with_device


def _array(name: str) -> str:
    if RECORD_COLUMNS.get(name) != "<f8":
        return f"json_group_array({name})"
    # 17 digits distinguish every double from its neighbours; SQLite's own JSON has 15
    return f"'[' || group_concat(iif({name} is null, 'null', printf('%!.17g', {name}))) || ']'"


_ARRAYS = ", ".join(map(_array, ("id", *COLUMNS)))


def fetch(
    connection: sqlite3.Connection, select: str, values: Mapping[str, Any] | Sequence[Any]
) -> tuple[list[Row], list[Row]]:
    """What a statement selects (`id` and `COLUMNS` by their names): the intact rows by id, and the damaged ones. Rows
    written before there were hashes count as intact. Raises sqlite3.Error."""
    try:
        page = connection.execute(f"select {_ARRAYS} from ({select})", values).fetchone()  # noqa: S608 own constants
        rows = [] if page[0] == "[]" else sorted(zip(*map(orjson.loads, page), strict=True))
        if not any(_damaged(rows)):
            return rows, []
    except (sqlite3.Error, TypeError, ValueError, OverflowError):
        pass  # a value of another type than its column's; or the file is damaged, then the statement below raises again
    plain = sorted(connection.execute(f"select id, {', '.join(COLUMNS)} from ({select})", values))  # noqa: S608
    bad = frozenset(i for i, row in enumerate(plain) if _is_damaged(row))
    return [row for i, row in enumerate(plain) if i not in bad], [plain[i] for i in sorted(bad)]


def _damaged(rows: Sequence[Row]) -> list[bool]:
    """By row, whether its content no longer matches its stored hash."""
    if not rows:
        return []
    _, devices, *columns, stored = zip(*rows, strict=True)
    content = hashes(dict(zip(COLUMNS[1:-1], columns, strict=True))).tolist()
    computed = map(with_device, content, devices)
    return [other is not None and one != other for one, other in zip(computed, stored, strict=True)]


def _is_damaged(row: Row) -> bool:
    if not isinstance(row[1], str):
        return True
    try:
        record_of(row)
        return _damaged([row])[0]
    except (TypeError, ValueError, OverflowError):
        return True
