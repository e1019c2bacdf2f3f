"""Changes at the aggregator: shown as differences, never many by accident, some never without a second person."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.outbox import (
    OutboxRow,
    WriteKind,
    WriteState,
    brake,
    differences,
    limit,
    may_approve,
    plan,
)


def row(kind: WriteKind = WriteKind.IDLE, number: int = 1, **other: object) -> OutboxRow:
    made = {"subject": "m", "after": {"a": 1}, "proposed_by": "ann", "proposed_ms": 0} | other
    return OutboxRow(number=number, kind=kind, **made)  # type: ignore[arg-type]  # members of a row by name


def test_more_than_fifty_rows_or_two_percent_of_the_meters_need_their_exact_number() -> None:
    assert [limit(meters) for meters in (0, 10, 200, 2_500, 100_000)] == [1, 1, 4, 50, 50]
    assert brake(50, 100_000, None) is None
    assert brake(51, 100_000, None) == "51 rows would go, more than 50 of 100000 meters: confirm 51"
    assert brake(5, 200, None) is not None
    assert brake(51, 100_000, 51) is None
    assert brake(51, 100_000, 50) == "50 rows were confirmed, and 51 would go"
    assert brake(1, 100_000, 2) is not None


@given(count=st.integers(0, 200_000), meters=st.integers(0, 200_000), confirmed=st.none() | st.integers(0, 200_000))
def test_rows_go_by_their_exact_number_or_few_of_them(count: int, meters: int, confirmed: int | None) -> None:
    few = count <= 50 and count <= max(1, meters * 0.02)
    assert (brake(count, meters, confirmed) is None) == (confirmed == count if confirmed is not None else few)


@pytest.mark.parametrize("kind", [WriteKind.DISENROLL, WriteKind.NOMINATION])
def test_some_rows_wait_for_the_leave_of_another_person(kind: WriteKind) -> None:
    one = row(kind)
    assert plan([one]).kept == (one,)
    assert may_approve(one, "ann") == "row 1: ann proposed it; another person gives leave"
    assert may_approve(one, "bob") is None
    allowed = row(kind, approved_by="bob")
    assert plan([allowed]).go == (allowed,)
    assert may_approve(row(WriteKind.IDLE), "bob") == "row 1: idle needs no leave"


def test_what_was_on_its_way_is_looked_for_and_not_sent() -> None:
    rows = [row(number=number, state=state) for number, state in enumerate(WriteState)]
    found = plan(rows)
    assert [one.state for one in found.go] == [WriteState.PROPOSED]
    assert [one.state for one in found.look] == [WriteState.SENDING, WriteState.WAITS]


def test_difference_names_what_changes_alone() -> None:
    found = differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": None})
    assert [(one.member, one.before, one.after) for one in found] == [("b", 2, 5), ("d", None, None)]
    assert [one.member for one in differences(None, {"a": 1})] == ["a"]
