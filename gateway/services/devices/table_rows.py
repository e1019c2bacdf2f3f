"""Reads the rows of a table, CSV or JSON lines, one after the other, each with its line."""

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from gateway.domain.errors import InvalidInput
from gateway.schemas.body import members_twice
from gateway.services.devices.row_faults import COLUMN_SHOWN

TableForm = Literal["csv", "jsonl"]


def table_rows(text: str, *, form: TableForm, kind: type[BaseModel]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows as they stand there, or what keeps one from being read. A CSV's columns are the members of `kind`. Raises
    InvalidInput where it is no such table at all."""
    return _csv_rows(text, kind) if form == "csv" else _json_rows(text)


def _csv_rows(text: str, kind: type[BaseModel]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    columns = kind.model_fields
    reader = csv.DictReader(io.StringIO(text), restkey="", strict=True)
    try:
        header = reader.fieldnames or []
    except csv.Error as error:
        raise InvalidInput([f"line 1: not CSV: {error}"]) from error
    unknown = [name for name in header if name not in columns]
    missing = [n for n, f in columns.items() if f.is_required() and n not in header]
    twice = [n for n in columns if list(header).count(n) > 1]
    if unknown or missing or twice:
        raise InvalidInput(
            [f"line 1: unknown column {n!r}" for n in unknown]
            + [f"line 1: no column {n!r}" for n in missing]
            + [f"line 1: column {n!r} stands twice" for n in twice]
        )
    while True:
        try:
            row: dict[Any, Any] | None = next(reader, None)
        except csv.Error as error:
            # the reader of dictionaries counts a line only once it has been read
            yield reader.reader.line_num, f"not CSV: {error}"
            continue
        if row is None:
            return
        if "" in row or None in row.values():
            yield reader.line_num, f"{len(header)} columns expected"
        else:
            yield reader.line_num, row


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row, again = orjson.loads(content), members_twice(content)
        except orjson.JSONDecodeError as error:
            yield line, f"not JSON: {error}"
            continue
        except RecursionError:
            yield line, "not JSON: nested too deep"
            continue
        if not isinstance(row, dict):
            yield line, "not a JSON object"
            continue
        yield line, row if not again else f"columns that stand twice: {', '.join(again)[:COLUMN_SHOWN]}"
