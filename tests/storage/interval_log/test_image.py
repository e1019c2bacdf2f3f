"""Numbers out of the bytes of a database, against SQLite's own answer."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.storage.interval_log.image import UnreadableImage, numbers

WHOLE = st.one_of(*(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (2, 8, 16, 24, 32, 48, 64)))
REAL = st.none() | st.floats(allow_nan=False)
ROW = st.tuples(WHOLE, WHOLE, REAL, REAL, st.text(max_size=80) | st.just("long" * 1_000))


def stored(rows: Sequence[tuple[Any, ...]], page_bytes: int = 512) -> tuple[bytes, int, list[tuple[Any, ...]]]:
    """A database with these rows, the page that its table begins at, and what SQLite says it holds."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(f"pragma page_size = {page_bytes}")
        db.execute("create table t (a, b, x, y, name)")
        db.executemany("insert into t values (?, ?, ?, ?, ?)", rows)
        ((root,),) = db.execute("select rootpage from sqlite_schema").fetchall()
        return db.serialize(), root, db.execute("select * from t order by rowid").fetchall()


def same(rows: Sequence[tuple[Any, ...]], found: tuple[np.ndarray, np.ndarray]) -> bool:
    wholes = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2).T
    reals = np.array([row[2:4] for row in rows], dtype=np.float64).reshape(-1, 2).T
    return np.array_equal(found[0], wholes) and np.array_equal(found[1], reals, equal_nan=True)


@given(st.lists(ROW, max_size=60))
def test_image_numbers_of_every_width_are_those_that_sqlite_reads(rows: list[tuple[Any, ...]]) -> None:
    image, root, read = stored(rows)
    assert same(read, numbers(image, root, wholes=2, reals=2))


@pytest.mark.parametrize("page_bytes", [512, 4096, 65_536])
def test_image_table_of_many_pages_keeps_the_order_of_its_rows(page_bytes: int) -> None:
    rows = [(i, -i << (i % 40), i / 7, None if i % 3 else 0.5, f"home-{i}") for i in range(20_000)]
    image, root, read = stored(rows, page_bytes)
    assert same(read, numbers(image, root, wholes=2, reals=2))


@pytest.mark.parametrize(
    "row",
    [
        ("text", 1, 1.0, 1.0, ""), (None, 1, 1.0, 1.0, ""), (1, 1.5, 1.0, 1.0, ""), (1, b"", 1.0, 1.0, ""),
        (1, 1, 1, 1.0, ""), (1, 1, "1.0", 1.0, ""), (1, 1, 1.0, b"long" * 40, ""),
        (1, 1, 1.0, 1.0, "very long" * 3_000),
    ],
)  # fmt: skip
def test_image_value_of_another_kind_is_refused(row: tuple[Any, ...]) -> None:
    fine = (1, 1, 1.0, 1.0, "")
    for rows in ([row], [fine, row, fine], [fine] * 50 + [row]):
        image, root, _ = stored(rows)
        with pytest.raises(UnreadableImage):
            numbers(image, root, wholes=2, reals=2)
