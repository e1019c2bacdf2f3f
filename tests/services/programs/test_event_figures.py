"""The job of events' performance: when it is worked out, what revises it and why, and what a kill leaves."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.events.book import Answer, Outcome
from gateway.domain.events.delivery_records import Failure, RecordRows, Status
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.journal.changes import AuditDoor, EventDecided, EventDelivered, EventMoved
from gateway.domain.programs.event_performance import FigureLevel
from gateway.domain.programs.facts import (
    DeliveryPeriod,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    Subject,
    SubjectKind,
)
from gateway.domain.programs.prices import SiteArea
from gateway.domain.rules.calendar import HOUR_MS
from gateway.domain.types import DeviceId, EventId
from gateway.programs.compile import compile_program
from gateway.programs.loader import load_program, parse_program
from gateway.services.programs.event_figures import CLOSED_MS, LOOK_MS, STORED_MS, EventFiguresJob
from gateway.services.programs.event_inputs import RatedProgram
from gateway.services.programs.frames import ProgramFrames
from gateway.services.programs.work import JobState
from gateway.storage.journal.journal import SqliteJournal
from gateway.storage.programs.daily import DailyColumns
from gateway.storage.programs.event_revisions import EventRevision, EventRevisions
from gateway.storage.programs.facts import SqliteFacts
from gateway.storage.programs.series import ProgramSeries, SeriesImport, SeriesKey
from tests.builders.site_days import logged, measured, placed, site_days

SHIPPED = Path(__file__).parents[3] / "config" / "programs"
DSGS = load_program(SHIPPED / "dsgs-option3.yaml")
START_MS = 1_783_645_200_000
"""18:00 of 9 July 2026 in Los Angeles."""

END_MS = START_MS + HOUR_MS
DUE_MS = END_MS + CLOSED_MS
HOMES = [("a", "site-a"), ("b", "site-b")]
DAY_MS = 24 * HOUR_MS
PDR = """\
language: 1
program: dsgs-option3
title: Like days
pricing: rates
zone: America/Los_Angeles
sources: {page: A page}
versions:
  - version: one
    from: 2025-01-01
    evidence: verified
    source: page
    measurement:
      point: {value: site_ct, evidence: verified, source: page}
      interval_length_s: {value: 900, evidence: verified, source: page}
    performance:
      baseline: {value: usual-discharge, evidence: verified, source: page}
      formula: {value: energy, evidence: verified, source: page}
      parameters:
        look-back-days: {value: 45, evidence: verified, source: page}
        days: {value: 10, evidence: verified, source: page}
      exports_counted: {value: false, evidence: verified, source: page}
    rates:
      - {name: energy, amount: "2", currency: USD, per: kwh, evidence: verified, source: page}
"""
NORTH = SeriesKey(program="dsgs-option3", area="north")


def job(state_dir: Path, **other: Any) -> EventFiguresJob:
    rated = {"dsgs-option3": RatedProgram(program=DSGS.program, digest=DSGS.digest)} | other
    frames = ProgramFrames(terms={"dsgs-option3": DSGS.terms})
    return EventFiguresJob(state_dir, frames=frames, programs=rated, keep_days=400)


def settled(state_dir: Path, now_ms: int = DUE_MS, **other: Any) -> JobState:
    """Steps until there is nothing left to do."""
    one = job(state_dir, **other)
    for _ in range(50):
        done = one.step(now_ms)
        if not done.more:
            return done
    raise AssertionError("it does not come to an end")


def newest(state_dir: Path, event: str = "e") -> EventRevision | None:
    with EventRevisions(state_dir) as store:
        return store.newest(event)


def found(state_dir: Path, event: str = "e") -> EventRevision:
    revision = newest(state_dir, event)
    assert revision is not None
    return revision


def figure(state_dir: Path, level: FigureLevel, name: str) -> dict[str, Any]:
    with EventRevisions(state_dir) as store:
        return next(one for one in store.figures(found(state_dir).id, level.value, "", 100) if one["name"] == name)


def records(devices: Sequence[str], **columns: Any) -> dict[str, np.ndarray]:
    n = len(devices)
    known: dict[str, Any] = {
        "asked_wh": 4_000.0, "status": Status.COMPLETED, "failure": Failure.NONE, "started_ms": START_MS,
        "status_ms": END_MS,
    }  # fmt: skip
    rows = RecordRows(n)
    for name, value in (known | columns).items():
        rows.column(name)[:n] = value
    return {name: rows.column(name)[:n] for name in RecordRows.SPEC if name != "slot"}


async def dispatched(
    state_dir: Path, clock: ManualClock, *, name: str = "e", devices: Sequence[str] = ("a", "b"), revision: int = 0,
    **changed: Any,
) -> None:  # fmt: skip
    """An event that ran for its hour and is over."""
    request = EventRequest(
        id=EventId(name), revision=revision, kind=EventKind.REAL, program="dsgs-option3", group=TargetGroup(all=True),
        start_ms=START_MS, end_ms=END_MS, target=power(8_000.0), priority=4, source="rest",
    )  # fmt: skip
    request = replace(request, **changed)
    answer = Answer(id=request.id, revision=revision, outcome=Outcome.ACCEPTED, decided_ms=clock.utc)
    journal = SqliteJournal(state_dir / "journal.sqlite", clock=clock)
    try:
        journal.load()
        ids = tuple(DeviceId(device) for device in devices)
        await journal.commit([EventDecided(request=request, answer=answer)])
        await journal.commit([EventMoved(event=request.id, revision=revision, state=EventState.COMPLETED)])
        delivered = EventDelivered(
            event=request.id, occurrence_ms=request.start_ms, ended_ms=request.end_ms + 500, devices=ids,
            columns=records(devices),
        )  # fmt: skip
        await journal.commit([delivered])
    finally:
        journal.close()


def hour(device: str, wh: float, *, lost: Sequence[int] = (), **other: Any) -> list[Any]:
    """Five minutes each, but for the `lost` ones."""
    return [
        measured(device, START_MS + at * 300_000, discharge_wh=wh / 12, grid_w=-500.0, **other)
        for at in range(12) if at not in lost
    ]  # fmt: skip


async def evening(state_dir: Path, *, lost: Sequence[int] = (), nobody: bool = False) -> ManualClock:
    """Two homes that are asked for 4 kW each: one gives it, the other one gives 3 kW."""
    clock = ManualClock(utc_ms=START_MS - 24 * HOUR_MS)
    await placed(state_dir, HOMES, clock)
    clock.utc = DUE_MS
    await dispatched(state_dir, clock)
    if not nobody:
        await logged(state_dir, [*hour("a", 4_000.0, lost=lost), *hour("b", 3_000.0)], clock)
    return clock


def priced(state_dir: Path, price: str = "51.75706", kind: str | None = "Capacity") -> None:
    series = ProgramSeries(state_dir)
    about = SeriesImport(source="operator", who="test", now_ms=DUE_MS)
    series.add_areas("dsgs-option3", [SiteArea(site=site, area="north", from_ms=0) for _, site in HOMES], about)
    series.add_hours(NORTH, [(START_MS, kind, "administrator")], about)
    series.add_prices(NORTH, [(START_MS, Decimal(price), "USD")], about)


async def test_an_event_is_worked_out_once_its_last_interval_is_closed(tmp_path: Path) -> None:
    await evening(tmp_path)
    settled(tmp_path, DUE_MS - 1)
    assert newest(tmp_path) is None
    settled(tmp_path)
    revision = found(tmp_path)
    whole = revision.summary["figure"]
    assert (revision.revision, revision.because) == (1, ())
    assert (whole["energy_wh"], whole["asked_wh"], whole["short_wh"]) == (7_000, 8_000, 1_000)
    assert whole["short_because"] == {"unexplained": 1_000}
    assert revision.summary["awarded_w"] == "8000"
    assert figure(tmp_path, FigureLevel.DEVICE, "b")["given_wh"] == 3_000
    assert figure(tmp_path, FigureLevel.SITE, "site-a")["hours"][0]["delivered_kw"] == "3.460505"
    assert whole["value"]["status"] == "provisional (price missing)"


async def test_records_that_are_on_their_way_are_waited_for_and_no_longer(tmp_path: Path) -> None:
    clock = await evening(tmp_path, nobody=True)
    one = job(tmp_path)
    assert not one.step(DUE_MS).more
    assert not one.step(DUE_MS + LOOK_MS).more
    assert newest(tmp_path) is None
    await logged(tmp_path, [*hour("a", 4_000.0), *hour("b", 3_000.0)], clock, number=2)
    settled(tmp_path, DUE_MS + 2 * LOOK_MS)
    assert found(tmp_path).summary["figure"]["energy_wh"] == 7_000
    await dispatched(tmp_path, clock, name="lost", start_ms=START_MS + DAY_MS, end_ms=END_MS + DAY_MS)
    settled(tmp_path, END_MS + DAY_MS + STORED_MS - 1)
    assert newest(tmp_path, "lost") is None
    settled(tmp_path, END_MS + DAY_MS + STORED_MS)
    assert found(tmp_path, "lost").summary["figure"]["short_because"] == {"unmeasured": 8_000}


async def test_the_same_inputs_make_no_new_revision(tmp_path: Path) -> None:
    await evening(tmp_path)
    settled(tmp_path)
    again = job(tmp_path)
    assert not again.step(DUE_MS + 20_000).more
    with EventRevisions(tmp_path, write=True) as store:
        store.note("e", START_MS, (START_MS, END_MS), "another sign")
    settled(tmp_path, DUE_MS + 40_000)
    assert found(tmp_path).revision == 1


async def test_a_late_interval_makes_a_revision_that_says_so_and_the_old_one_stays(tmp_path: Path) -> None:
    clock = await evening(tmp_path, lost=(3,))
    settled(tmp_path)
    before = found(tmp_path).summary["figure"]
    assert (before["energy_wh"], before["covered_pct"]) == (6_000, 95.8), (
        "a quarter that lacks five minutes is not known"
    )
    await logged(tmp_path, hour("a", 4_000.0, lost=[at for at in range(12) if at != 3]), clock, number=2)
    settled(tmp_path, DUE_MS + HOUR_MS)
    revision = found(tmp_path)
    assert (revision.revision, revision.because) == (2, ("intervals of a, the grid of site-a changed",))
    assert (revision.summary["figure"]["energy_wh"], revision.summary["figure"]["covered_pct"]) == (7_000, 100.0)
    with EventRevisions(tmp_path) as store:
        first = store.one("e", START_MS, 1)
        assert first is not None
        assert first.summary["figure"] == before
        assert store.figures(first.id, "device", "", 1)[0]["given_wh"] == 3_000


async def test_prices_types_and_areas_revise_the_value_with_what_they_were(tmp_path: Path) -> None:
    await evening(tmp_path)
    settled(tmp_path)
    priced(tmp_path, kind=None)
    settled(tmp_path, DUE_MS + 1)
    assert found(tmp_path).summary["figure"]["value"]["status"] == "provisional (event type missing)"
    assert "price areas: site-a was missing and is north" in found(tmp_path).because
    priced(tmp_path)
    settled(tmp_path, DUE_MS + 2)
    revision = found(tmp_path)
    assert revision.because == ("official hours: north 2026-07-09 18:00 was missing and is Capacity",)
    value = revision.summary["figure"]["value"]
    # July: 12.60 with the bonus of 30 %, of 4 and of 3 kW less 0.539495 of each
    each = [(Decimal(kw) - Decimal("0.539495")) * Decimal("16.38") for kw in (4, 3)]
    assert Decimal(value["value"]) == sum(one.quantize(Decimal("0.01")) for one in each)
    assert (value["status"], value["currency"], value["per"]) == ("computed", "USD", "kw_month")
    assert {one["path"] for one in revision.summary["rests_on_unverified"]} >= {"rates.july"}
    priced(tmp_path, price="60")
    settled(tmp_path, DUE_MS + 3)
    assert found(tmp_path).because == ("prices: north 2026-07-09 18:00 was 51.75706 and is 60",)


async def stated(state_dir: Path, device: str, status: EnrollmentStatus, *, customer: str = "") -> None:
    period = DeliveryPeriod(name="season", from_ms=0, until_ms=END_MS * 2)
    store = SqliteFacts(state_dir, clock=ManualClock(utc_ms=DUE_MS))
    subject = Subject(kind=SubjectKind.DEVICE, id=device)
    facts: list[Fact] = [
        Enrollment(
            subject=subject, program="dsgs-option3", period=period, from_ms=0, revision=store.revision(), status=status
        )
    ]  # fmt: skip
    if customer:
        facts.append(Holding(subject=subject, customer=customer, from_ms=0, revision=store.revision()))
    try:
        await store.commit(facts, by="test", door=AuditDoor.OFFLINE)
    finally:
        store.close()


async def test_a_battery_that_is_not_enrolled_does_not_count_until_it_is(tmp_path: Path) -> None:
    await evening(tmp_path)
    await stated(tmp_path, "a", EnrollmentStatus.ACTIVE, customer="c-1")
    settled(tmp_path)
    assert found(tmp_path).summary["figure"]["energy_wh"] == 4_000
    assert found(tmp_path).summary["left_out"] == {"count": 1, "some": ["b"]}
    assert figure(tmp_path, FigureLevel.CUSTOMER, "c-1")["energy_wh"] == 4_000
    await stated(tmp_path, "b", EnrollmentStatus.ACTIVE)
    settled(tmp_path, DUE_MS + 1)
    revision = found(tmp_path)
    assert revision.summary["figure"]["energy_wh"] == 7_000
    assert any(why.startswith("members of b") for why in revision.because)


async def test_another_program_file_revises_it(tmp_path: Path) -> None:
    await evening(tmp_path)
    settled(tmp_path)
    settled(tmp_path, DUE_MS + 1, **{"dsgs-option3": RatedProgram(program=DSGS.program, digest="other")})
    assert found(tmp_path).because == (f"program: file was {DSGS.digest} and is other",)


async def test_two_events_at_a_time_have_together_what_a_battery_gave(tmp_path: Path) -> None:
    clock = await evening(tmp_path)
    settled(tmp_path)
    await dispatched(tmp_path, clock, name="first", devices=("a",), priority=1)
    settled(tmp_path, DUE_MS + 1)
    assert found(tmp_path).because == ("other events of e, first changed",)
    energy = {event: found(tmp_path, event).summary["figure"]["energy_wh"] for event in ("e", "first")}
    assert energy == {"first": 4_000, "e": 3_000}
    assert found(tmp_path).summary["figure"]["given_wh"] == 7_000


async def test_like_days_are_read_from_the_days_of_sites_without_those_of_events(tmp_path: Path) -> None:
    """Ten days alike, and one with an event on it, which has no part."""
    clock = await evening(tmp_path)
    event_day = date(2026, 7, 9)
    days = [event_day - timedelta(days=n) for n in range(1, 20) if (event_day - timedelta(days=n)).weekday() < 5]
    drawn = np.array([500, 0, 0, 0]).reshape(-1, 1, 1)
    with DailyColumns(tmp_path, write=True) as store:
        for n, day in enumerate(days):
            store.put(site_days(["site-a", "site-b"], day=day, wh=drawn if n else drawn * 10), DUE_MS)
    await dispatched(
        tmp_path, clock, name="before", devices=("a", "b"), start_ms=START_MS - DAY_MS, end_ms=END_MS - DAY_MS
    )
    document = parse_program(PDR, name="pdr.yaml")
    pdr = RatedProgram(program=compile_program(document), digest="x")
    frames = ProgramFrames(terms={"dsgs-option3": DSGS.terms})
    job = EventFiguresJob(tmp_path, frames=frames, programs={"dsgs-option3": pdr}, keep_days=400)
    for _ in range(20):
        if not job.step(DUE_MS).more:
            break
    (hour,) = figure(tmp_path, FigureLevel.SITE, "site-a")["hours"]
    # it drew 500 Wh in every quarter before, and it gives 0.5 kW to the grid now, which is no more than drawing nothing
    assert (hour["baseline_kw"], hour["delivered_kw"]) == ("-2", "2")
    assert figure(tmp_path, FigureLevel.SITE, "site-a")["no_baseline_because"] is None


async def test_a_kill_between_any_two_writes_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are stored whole or not at all, and what was not noted is looked at again."""

    def killed(*_: object) -> None:
        raise StorageError("gone")

    for name in ("put", "note"):
        state_dir = tmp_path / name
        state_dir.mkdir()
        await evening(state_dir)
        with monkeypatch.context() as patch:
            patch.setattr(EventRevisions, name, killed)
            one = job(state_dir)
            with pytest.raises(StorageError):
                for _ in range(5):
                    one.step(DUE_MS)
        settled(state_dir)
        assert found(state_dir).revision == 1


async def test_what_cannot_be_worked_out_is_said_and_the_rest_is(tmp_path: Path) -> None:
    clock = await evening(tmp_path)
    later = 150 * DAY_MS
    await dispatched(tmp_path, clock, name="winter", start_ms=START_MS + later, end_ms=END_MS + later)
    problems = settled(tmp_path, DUE_MS + later).problems
    assert found(tmp_path).revision == 1
    assert problems == ("event winter: dsgs-option3: no version is in force at the event",)
    assert settled(tmp_path, DUE_MS + later).problems == problems, "it is said for as long as it is so"


async def test_a_dry_run_and_an_event_of_an_unknown_program_have_no_performance(tmp_path: Path) -> None:
    clock = await evening(tmp_path)
    await dispatched(tmp_path, clock, name="dry", kind=EventKind.DRY_RUN)
    await dispatched(tmp_path, clock, name="other", program="unknown")
    assert settled(tmp_path).problems == ()
    assert newest(tmp_path, "dry") is None
    assert newest(tmp_path, "other") is None
