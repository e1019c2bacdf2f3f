"""Months that end in mid-event, nights when clocks change, meters that change hands: judged at every instant."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.enrollment import EnrollmentBook, LeftOut
from gateway.domain.programs.facts import Deadline, DeliveryPeriod, EnrollmentStatus, Fact, MeterDevice
from gateway.services.programs.deadlines import deadlines
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.settings import ProgramSettings
from tests.domain.programs.stated import DAY_MS, consented, device, enrolled, held, meter
from tests.scenes.world import World, homes_of
from tests.services.programs.stores import AUG_1, BASE, CONSENT, MAY_1, left_out, opened, table

PROGRAM = "test"
ZONES = ("America/Los_Angeles", "America/New_York", "Australia/Sydney", "Europe/Berlin")
MAY_JUL = DeliveryPeriod(name="MAY_JUL", from_ms=MAY_1, until_ms=AUG_1)
AUG_OCT = DeliveryPeriod(name="AUG_OCT", from_ms=AUG_1, until_ms=AUG_1 + 92 * DAY_MS)
HOUR_MS = 3_600_000


def local_ms(zone: str, text: str, fold: int = 0) -> int:
    """UTC ms of a time on the clocks of a zone; `fold` 1: the second of an hour that comes twice."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def street(*facts: Fact, utc_ms: int) -> World:
    book = EnrollmentBook()
    for fact in facts:
        book.add(fact)
    programs = {PROGRAM: ProgramSettings(enrollment="enforce")}

    def participation(fleet: Fleet) -> ProgramParticipation:
        return ProgramParticipation(book, fleet=fleet, programs=programs)

    return World(homes_of(2), programs=programs, clock=ManualClock(utc_ms=utc_ms), participation=participation)


def agreed(number: int) -> list[Fact]:
    home = device(f"home-{number:02d}")
    return [
        held(home, f"c-{number}", revision=50 + number),
        consented(f"c-{number}", program=PROGRAM, revision=60 + number),
    ]


async def test_an_event_over_the_months_end_has_in_each_month_who_is_enrolled_for_it() -> None:
    july = enrolled(device("home-00"), period=MAY_JUL, program=PROGRAM, revision=1)
    august = enrolled(device("home-01"), period=AUG_OCT, program=PROGRAM, revision=2)
    world = street(july, august, *agreed(0), *agreed(1), utc_ms=AUG_1 - 30_000)
    await world.submit(s=600, target_w=1_000)
    await world.go(25)
    assert world.authority() == ["CONTROLLED", "DEVICE"]
    await world.go(60)
    assert world.authority() == ["DEVICE", "CONTROLLED"]
    assert world.steps_w() <= world.settings.fleet_w_per_s * 1.01


async def test_a_home_that_is_active_until_july_and_pending_from_august_on_is_out_from_midnight_on() -> None:
    facts = [
        enrolled(device("home-00"), period=MAY_JUL, program=PROGRAM, revision=1),
        enrolled(device("home-00"), EnrollmentStatus.PENDING, period=AUG_OCT, program=PROGRAM, revision=2),
    ]
    world = street(*facts, *agreed(0), utc_ms=AUG_1 - 30_000)
    await world.submit(s=600, target_w=1_000)
    await world.go(25)
    assert world.authority() == ["CONTROLLED", "DEVICE"]
    await world.go(60)
    assert world.authority() == ["DEVICE", "DEVICE"]


async def test_a_meter_that_changes_hands_in_mid_event_needs_the_new_customers_consent_from_then_on() -> None:
    sold_ms = AUG_1 - 20 * DAY_MS
    facts: list[Fact] = [
        enrolled(meter("m-1"), period=MAY_JUL, program=PROGRAM, revision=1),
        MeterDevice(meter="m-1", device="home-00", from_ms=0, revision=2),
        held(meter("m-1"), "seller", revision=3), consented("seller", program=PROGRAM, revision=4),
        held(meter("m-1"), "buyer", from_ms=sold_ms, revision=5),
    ]  # fmt: skip
    world = street(*facts, utc_ms=sold_ms - 30_000)
    await world.submit(s=600, target_w=1_000)
    await world.go(25)
    assert world.authority() == ["CONTROLLED", "DEVICE"]
    await world.go(60)
    assert world.authority() == ["DEVICE", "DEVICE"]


CHANGES = {
    "America/Los_Angeles": ("2026-11-01", "2026-12-01"), "America/New_York": ("2026-11-01", "2026-12-01"),
    "Australia/Sydney": ("2026-04-01", "2026-05-01"), "Europe/Berlin": ("2026-10-01", "2026-11-01"),
}  # fmt: skip
"""Months in which clocks are set back."""


@pytest.mark.parametrize("zone", ZONES)
async def test_a_month_in_which_clocks_change_begins_and_ends_at_its_own_midnights(tmp_path: Path, zone: str) -> None:
    begin, end = (local_ms(zone, f"{day}T00:00:00") for day in CHANGES[zone])
    assert (end - begin) % DAY_MS == HOUR_MS, "it has an hour more"
    first, last = (local_text(zone, ms) for ms in (begin, end))
    row = BASE | {"delivery_period_start_date_time": first, "delivery_period_end_date_time": last}
    customer = {"customer": "c-1", "device": "home-1", "held_since": "2026-01-01T00:00:00Z"}
    async with opened(tmp_path, utc_ms=begin) as (service, _):
        await service.import_enrollments(table(row), form="csv", by="clerk", door=AuditDoor.REST)
        await service.import_customers(table(customer), form="csv", by="clerk", door=AuditDoor.REST)
        consent = CONSENT | {"given": "2026-01-01T00:00:00Z"}
        await service.import_consents(table(consent), form="csv", by="clerk", door=AuditDoor.REST)
        found = [left_out(service, ms) for ms in (begin - 1, begin, end - 1, end)]
    assert found == [LeftOut.NOT_ENROLLED, LeftOut.NOT, LeftOut.NOT, LeftOut.NOT_ENROLLED]


def local_text(zone: str, ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone(ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize(
    ("zone", "night"),
    [("America/Los_Angeles", "2026-11-01T01:30:00"), ("America/New_York", "2026-11-01T01:30:00"),
     ("Australia/Sydney", "2026-04-05T02:30:00"), ("Europe/Berlin", "2026-10-25T02:30:00")],
)  # fmt: skip
def test_an_hour_that_comes_twice_is_two_instants_of_one_day(zone: str, night: str) -> None:
    first, second = local_ms(zone, night), local_ms(zone, night, fold=1)
    assert second - first == HOUR_MS
    period = DeliveryPeriod(name="p", from_ms=first - DAY_MS, until_ms=second)
    book = EnrollmentBook()
    for fact in (enrolled(device("home-00"), period=period, program=PROGRAM), *agreed(0)):
        book.add(fact)
    inside, outside = (book.membership(PROGRAM, ms).left_out.tolist() for ms in (second - 1, second))
    assert (inside, outside) == ([LeftOut.NOT], [LeftOut.NOT_ENROLLED])

    facts = [
        replace(enrolled(device(name), EnrollmentStatus.PENDING), deadlines=(Deadline(what="enrollment", at_ms=ms),))
        for name, ms in (("home-00", first), ("home-01", second))
    ]
    [due] = deadlines(facts, first - HOUR_MS, second + HOUR_MS, lambda _: zone)
    assert (due.count, due.at_ms) == (2, first)


async def test_a_time_without_an_offset_is_refused_since_it_may_be_two(tmp_path: Path) -> None:
    row = BASE | {"delivery_period_start_date_time": "2026-05-01T00:00:00"}
    async with opened(tmp_path) as (service, _):
        report = await service.import_enrollments(table(row), form="csv", by="clerk", door=AuditDoor.REST)
        assert [(one.line, one.faults[0].column) for one in report.bad] == [(2, "delivery_period_start_date_time")]
