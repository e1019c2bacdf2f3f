"""Tables of local hours: what is read, and what is refused with its line."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.rules.calendar import HOUR_MS
from gateway.programs.tables import HourTable, hours_of, read_hours
from tests.programs.test_shipped import HOURS, PROGRAMS

PACIFIC = "America/Los_Angeles"
DSGS = PROGRAMS["dsgs-option3"].program.versions[0]
HEADER = "date,hour_end,event_type,price_usd_per_mwh,net_discharge_kw\n"


def read(text: str, name: str = "hours.csv") -> HourTable:
    return read_hours(text, name=name, zone=PACIFIC)


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as found:
        read(text)
    return list(found.value.problems)


def test_the_public_calendar_of_2025_is_read_with_its_prices() -> None:
    table = read(Path(HOURS).read_text(encoding="utf-8"))
    assert len(table.rows) == 68
    assert (table.rows[2].price, table.rows[2].event_type) == (Decimal("51.75706"), "Test Capacity")
    assert table.rows[2].net_kw is None


def test_columns_stand_in_any_order_and_those_that_nobody_reads_are_named() -> None:
    table = read("\ufeffhour_end, Date ,Region,NET_DISCHARGE_KW\r\n21,2025-05-22,X, 4.5 \r\n\r\n20,2025-05-22,X,\r\n")
    assert [(row.hour_end, row.net_kw) for row in table.rows] == [(20, None), (21, Decimal("4.5"))]
    assert (table.ignored, table.priced) == (("region",), False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "hours.csv:1: date: missing column"),
        ("date,price_usd_per_mwh\n", "hours.csv:1: hour_end: missing column"),
        (HEADER, "hours.csv: no rows"),
        ("date,date,hour_end\n", "hours.csv:1: date: stands twice"),
        ("date,hour_end,price_usd_per_mwh,caiso_lmp_usd_per_mwh\n", "contradict: give one of them"),
        (HEADER + "2025-5-22,20,Capacity,50,5\n", "hours.csv:2: date: a day is written 2025-05-22, not '2025-5-22'"),
        (HEADER + "2025-02-30,20,Capacity,50,5\n", "hours.csv:2: date: a day is written"),
        (HEADER + "2025-05-22,0,Capacity,50,5\n", "hours.csv:2: hour_end: a whole hour from 1 to 24, not '0'"),
        (HEADER + "2025-05-22,20.5,Capacity,50,5\n", "hours.csv:2: hour_end"),
        (HEADER + "2025-05-22,25,Capacity,50,5\n", "hours.csv:2: hour_end"),
        (HEADER + "2025-05-22,20,Capacity,fifty,5\n", "hours.csv:2: price_usd_per_mwh: a number is needed"),
        (HEADER + "2025-05-22,20,Capacity,NaN,5\n", "hours.csv:2: price_usd_per_mwh: a number is needed"),
        (HEADER + "2025-05-22,20,Capacity,50,1e400\n", "hours.csv:2: net_discharge_kw: a number is needed"),
        (HEADER + "2025-05-22,20,Capacity,50\n", "hours.csv:2: 4 cells, 5 columns"),
        (HEADER + "2025-05-22,20,,50,5\n" * 2, "hours.csv:3: hour_end: hour 20 of 2025-05-22 stands in"),
        (HEADER + "2025-03-09,3,Capacity,50,5\n", "America/Los_Angeles leaves out this hour of 2025-03-09"),
        (HEADER + '2025-05-22,20,"Capacity,50,5\n', "hours.csv:2: not CSV"),
    ],
)  # fmt: skip
def test_a_table_with_a_fault_is_refused_with_its_line(text: str, why: str) -> None:
    assert any(why in fault for fault in faults(text))


def test_every_fault_is_named_and_not_the_first_alone() -> None:
    found = faults(HEADER + "2025-05-22,20,Capacity,x,5\n2025-05-22,21,Capacity,50,5\n2025-05-22,99,Capacity,50,5\n")
    assert [one.split(": ")[0] for one in found] == ["hours.csv:2", "hours.csv:4"]
    assert len(faults(HEADER + "x,1,,,\n" * 500)) == 50


def test_an_hour_that_the_clock_repeats_may_stand_twice_and_not_three_times() -> None:
    row = "2025-11-02,2,Capacity,50,5\n"
    first, second = read(HEADER + row * 2).rows
    assert second.start_ms - first.start_ms == HOUR_MS
    assert any("already" in fault for fault in faults(HEADER + row * 3))


def test_what_was_discharged_is_given_in_one_way() -> None:
    plain = read("date,hour_end,event_type,price_usd_per_mwh\n2025-05-22,20,Capacity,50\n2025-05-22,21,Capacity,51\n")
    second = read("date,hour_end,net_discharge_kw\n2025-05-22,21,4\n2025-05-23,21,9\n", "battery.csv")
    assert [one.net_kw for one in hours_of(plain, None, Fraction(3), DSGS)] == [3, 3]
    assert [one.net_kw for one in hours_of(plain, second, None, DSGS)] == [None, 4]
    both = read(HEADER + "2025-05-22,20,Capacity,50,5\n")
    assert [one.day for one in hours_of(both, None, None, DSGS)] == [date(2025, 5, 22)]
    for table, more, kw, why in (
        (both, None, Fraction(3), "more than one way"),
        (plain, second, Fraction(3), "more than one way"),
        (both, second, None, "more than one way"),
        (plain, None, None, "net_discharge_kw: missing"),
        (plain, plain, None, "net_discharge_kw: missing column"),
    ):
        with pytest.raises(InvalidInput, match=why):
            hours_of(table, more, kw, DSGS)


def test_a_column_that_the_program_needs_is_missed() -> None:
    table = read("date,hour_end,net_discharge_kw\n2025-05-22,20,5\n")
    with pytest.raises(InvalidInput) as found:
        hours_of(table, None, None, DSGS)
    assert [one.split(": ")[1] for one in found.value.problems] == ["price_usd_per_mwh", "event_type"]
    assert hours_of(table, None, None, PROGRAMS["generic-capacity"].program.versions[0])[0].price is None
