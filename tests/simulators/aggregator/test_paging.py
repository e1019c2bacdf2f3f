"""Pages are stable and complete although entries come and go between them."""

from datetime import date, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.aggregator import AT_ONCE, Mischief, OpenPoints, Operation, Order, Pace, Schema
from simulators.aggregator.interval_api import IntervalApi
from simulators.aggregator.intervals import Intervals
from simulators.aggregator.paging import Tokens
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Call
from simulators.aggregator.times import ServerClock
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import CSV, DAY, JSON, METER, NOON_MS, quarters, table

INSERTS = st.lists(st.integers(min_value=0, max_value=3), max_size=30)


class Reader:
    """Reads page by page, straight from the operations."""

    def __init__(self, *, first: date = DAY, order: Order = Order.NEWEST_FIRST, piece_s: int = 86_400) -> None:
        clock = ServerClock(ManualClock(utc_ms=NOON_MS))
        points = OpenPoints(order=order, missing_piece_s=piece_s)
        self.intervals = Intervals(clock=clock, meters={METER: first}, points=points, pace=Pace())
        self._api = IntervalApi(self.intervals, Mischief(), (Schema.LOAD,), lambda: "")

    def upload(self, content: bytes = b"") -> None:
        call = Call(query=[("schema", "load")], headers=CSV, body=content)
        self._api.answer(Operation.UPLOAD, call)

    def uploads(self, size: int, token: str | None) -> tuple[list[str], str | None]:
        query = [("page_size", str(size))] + ([("page_token", token)] if token is not None else [])
        reply = self._api.answer(Operation.UPLOADS, Call(query=query, headers={}, body=b"")).json
        return [entry["uploaded_file_path"] for entry in reply["uploads"]], reply.get("next_page_token")

    def missing(self, size: int, token: str | None) -> tuple[list[str], str | None]:
        body = orjson.dumps({"page_size": size} | ({"page_token": token} if token is not None else {}))
        reply = self._api.answer(Operation.MISSING, Call(query=[], headers=JSON, body=body)).json
        return [entry["start_date_time_utc"] for entry in reply["missing_intervals"]], reply.get("next_page_token")


@given(before=st.integers(0, 40), size=st.integers(1, 12), inserts=INSERTS, order=st.sampled_from(Order))
def test_paging_uploads_that_were_there_come_once_and_in_order_whatever_is_inserted(
    before: int, size: int, inserts: list[int], order: Order
) -> None:
    reader = Reader(order=order)
    for _ in range(before):
        reader.upload()
    there = [upload.uploaded_path for upload in reader.intervals.uploads]
    seen, token = reader.uploads(size, None)
    pages = [len(seen)]
    while token is not None:
        for _ in range(inserts.pop() if inserts else 0):
            reader.upload()
        again, _ = reader.uploads(size, token)
        page, next_token = reader.uploads(size, token)
        assert page == again
        pages.append(len(page))
        seen, token = seen + page, next_token
    everything = [upload.uploaded_path for upload in reader.intervals.uploads]
    assert [path for path in seen if path in set(there)] == (there[::-1] if order is Order.NEWEST_FIRST else there)
    assert len(seen) == len(set(seen))
    assert seen == (there[::-1] if order is Order.NEWEST_FIRST else everything[: len(seen)])
    assert all(held == size for held in pages[:-1])


@given(days=st.integers(1, 12), size=st.integers(1, 5), closed=st.lists(st.integers(0, 11), max_size=10))
def test_paging_missing_intervals_that_stay_come_once_while_others_are_closed(
    days: int, size: int, closed: list[int]
) -> None:
    reader = Reader(first=DAY - timedelta(days=days - 1))
    reader.intervals.pace = AT_ONCE
    there, _ = reader.missing(500, None)
    assert len(there) == days
    seen, token = reader.missing(size, None)
    while token is not None:
        if closed:
            day = closed.pop() % days
            start = 96 * (day - days + 1)
            reader.upload(quarters(range(start, start + (48 if day == days - 1 else 96))))
        page, token = reader.missing(size, token)
        seen += page
    left, _ = reader.missing(500, None)
    assert set(left) <= set(seen) <= set(there)
    assert seen == sorted(set(seen))


def test_paging_page_that_holds_all_that_is_left_has_no_token() -> None:
    entries = [((number,), number) for number in range(4)]
    tokens = Tokens()
    first, token = tokens.page("x", "", None, 2, entries)
    second, end = tokens.page("x", "", token, 2, entries)
    assert (first, second, end) == ([0, 1], [2, 3], None)
    assert tokens.page("x", "", token, 2, entries) == ([2, 3], None)


def test_paging_token_of_another_list_is_refused() -> None:
    tokens = Tokens()
    _, token = tokens.page("x", "", None, 1, [((1,), 1), ((2,), 2)])
    for what, filters in (("y", ""), ("x", "other")):
        with pytest.raises(Refused):
            tokens.page(what, filters, token, 1, [])


def test_paging_file_without_rows_is_listed_like_any_other() -> None:
    reader = Reader()
    reader.upload(table())
    assert len(reader.uploads(1, None)[0]) == 1
