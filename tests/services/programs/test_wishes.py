"""Owners' wishes at a strict stand-in of the aggregator: proposed by themselves, sent by people, merged by the rule."""

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from gateway.clock import ManualClock
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.journal.changes import AuditDoor, OutboxChanged
from gateway.domain.programs.facts import OwnerPreference, Preference
from gateway.domain.programs.outbox import OutboxRow, WriteKind, WriteState
from gateway.domain.types import DeviceId
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.leap_sync import LeapSync, SyncReport
from gateway.services.programs.outbox import ChangeOutbox
from gateway.services.programs.wishes import BY, OwnerWishes
from gateway.signals.leap_account.peer import LeapPeer
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from simulators.aggregator import Access, Aggregator, Mishap, Operation, Trouble
from simulators.aggregator.periods import Period
from simulators.aggregator.periods import Preference as Theirs
from tests.builders.fakes import MemoryJournal
from tests.services.programs.stores import opened
from tests.services.programs.test_leap_sync import ASSET, KEY, PERIOD

ZONE = "America/Los_Angeles"


def utc_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)


@dataclass
class Rig:
    sync: LeapSync
    enrollments: Enrollments
    outbox: ChangeOutbox
    aggregator: Aggregator
    journal: MemoryJournal
    clock: ManualClock
    opt_outs: list[Exclusion] = field(default_factory=list)

    def meter(self, number: int = 0) -> str:
        made = self.aggregator.meter_book.add(
            ASSET | {"partner_reference": f"home-{number}"}, meter_id=str(uuid.UUID(int=number + 1))
        )
        made.programs = [PERIOD]
        made.periods.all = [Period(preference=Theirs.PARTICIPATE, first=date(2026, 1, 1))]
        return made.meter_id

    async def wish(self, word: str, since: str, until: str = "", **other: str) -> None:
        """What the owner of home 0 wants, in a table of ours. Times are local."""
        row = {
            "device": "home-0", "program": "dsgs-option3", "delivery_period": "here",
            "delivery_period_start_date_time": "2026-01-01T00:00:00Z",
            "delivery_period_end_date_time": "2036-01-01T00:00:00Z", "enrollment_status": "ACTIVE",
            "participation_preference": word, "participation_start_time": _local(since),
        } | other  # fmt: skip
        if until:
            row["participation_end_time"] = _local(until)
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        told = await self.enrollments.import_enrollments(text, form="csv", by="maker", door=AuditDoor.REST)
        assert told.bad == []

    async def send(self, kind: WriteKind) -> list[OutboxRow]:
        report = await self.outbox.send(kind, dry=False, confirm=None, by="ann")
        assert report.refusal is report.error is None
        return report.rows

    async def open(self) -> list[tuple[str, str, str]]:
        rows = await self.outbox.store.rows(unfinished=True, limit=1_000)
        assert {row.proposed_by for row in rows} <= {BY}
        return [(row.kind.value, row.after["start_date"], row.after.get("end_date", "")) for row in rows]

    async def read(self, at: str = "") -> SyncReport:
        if at:
            self.clock.advance(s=(utc_ms(at) - self.clock.now().utc_ms) / 1000)
        self.aggregator.clock.skew_ms += self.clock.now().utc_ms - self.aggregator.clock.utc_ms()
        return await self.sync.sync()

    def there(self, meter: str) -> list[tuple[str, str, str]]:
        """What the aggregator has of a meter besides taking part."""
        periods = self.aggregator.meter_book.meters[meter].periods.all
        return [
            (one.preference.value, one.first.isoformat(), "" if one.end is None else one.end.isoformat())
            for one in periods
            if one.preference is not Theirs.PARTICIPATE
        ]


def _local(text: str) -> str:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).isoformat()


@asynccontextmanager
async def rig(directory: Path, *, part_days: bool = False) -> AsyncIterator[Rig]:
    journal = MemoryJournal()
    async with (
        opened(directory, utc_ms=utc_ms("2026-08-10 12:00")) as (enrollments, clock),
        Aggregator(keys={KEY: Access()}, meters={}) as aggregator,
        SqliteOutbox(directory) as store,
    ):
        client = LeapClient(LeapAccount(environment="staging", key=SecretStr(KEY), url=aggregator.url))
        peers = dict.fromkeys(WriteKind, LeapPeer(client, None))
        outbox = ChangeOutbox(store, peers, clock=clock, journal=journal, meters=lambda: 200)
        opt_outs: list[Exclusion] = []
        program_of = {"CEC-DSGS": "dsgs-option3"}
        wishes = OwnerWishes(
            enrollments, outbox, clock=clock, zone_of={"dsgs-option3": ZONE}, program_of=program_of,
            part_days=part_days, opt_outs=lambda: opt_outs,
        )  # fmt: skip
        sync = LeapSync(
            client, enrollments, program_of=program_of, clock=clock, every_s=None, mismatched=lambda: 0,
            rng=random.Random(1), wishes=wishes,
        )  # fmt: skip
        async with sync:
            yield Rig(sync, enrollments, outbox, aggregator, journal, clock, opt_outs)
        assert aggregator.faults == []


async def test_pause_of_an_owner_is_proposed_by_itself_and_goes_when_somebody_sends_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter()
        await r.wish("IDLE", "2026-08-12 16:00", "2026-08-20 09:00")
        first = await r.read()
        assert (first.proposed, first.conflicts) == (1, [])
        assert await r.open() == [("idle", "2026-08-13", "2026-08-19")]
        assert (await r.read()).proposed == 0
        # proposed, and no more
        assert r.there(meter) == []
        told = [one for one in r.journal.kept if isinstance(one, OutboxChanged)]
        assert [(one.action, one.by, one.door) for one in told] == [("proposed", BY, AuditDoor.GATEWAY)]
        assert [row.state for row in await r.send(WriteKind.IDLE)] == [WriteState.DONE]
        assert r.there(meter) == [("IDLE", "2026-08-13", "2026-08-20")]
        again = await r.read("2026-08-14 12:00")
        assert (again.proposed, again.conflicts, await r.open()) == (0, [], [])


@pytest.mark.parametrize("part_days", [False, True])
async def test_opt_out_of_one_evening_is_proposed_as_idle_only_where_that_is_configured(
    tmp_path: Path, part_days: bool
) -> None:
    evening = [("idle", "2026-08-12", "2026-08-12")]
    async with rig(tmp_path, part_days=part_days) as r:
        r.meter()
        await r.wish("IDLE", "2026-08-12 16:00", "2026-08-12 21:00")
        report = await r.read()
        assert (report.conflicts, await r.open()) == ([], evening if part_days else [])
    (tmp_path / "other").mkdir()
    async with rig(tmp_path / "other", part_days=part_days) as r:
        r.meter()
        await r.read()
        home = TargetGroup(ids=(DeviceId("home-0"),))
        from_ms, until_ms = utc_ms("2026-08-12 16:00"), utc_ms("2026-08-12 21:00")
        r.opt_outs += [
            Exclusion(id="x", reason="opt_out", group=home, from_ms=from_ms, until_ms=until_ms),
            Exclusion(id="y", reason="storm", group=home, from_ms=from_ms, until_ms=None),
        ]
        await r.read()
        assert await r.open() == (evening if part_days else [])


async def test_pause_without_an_end_is_read_back_and_ends_when_the_owner_takes_part_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter()
        await r.wish("IDLE", "2026-08-10 09:00")
        await r.read()
        assert await r.open() == [("idle", "2026-08-11", "2099-12-31")]
        # the day goes by and nobody sends it: the row of yesterday is taken back for one of today
        moved = await r.read("2026-08-12 12:00")
        assert (moved.proposed, moved.withdrawn) == (1, 1)
        assert moved.conflicts == ["home-0: paused here, takes part at the aggregator; sits out"]
        assert [row.state for row in await r.send(WriteKind.IDLE)] == [WriteState.DONE]
        assert (await r.read()).conflicts == []
        r.clock.advance(s=60)
        await r.wish("PARTICIPATE", "2026-08-15 00:00")
        await r.read()
        assert await r.open() == [("participate", "2026-08-15", "")]
        assert [row.state for row in await r.send(WriteKind.PARTICIPATE)] == [WriteState.DONE]
        assert r.there(meter) == [("IDLE", "2026-08-12", "2026-08-15")]
        assert (await r.read()).proposed == 0


async def test_owner_who_thinks_better_of_it_takes_the_row_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.meter()
        await r.wish("IDLE", "2026-08-12 00:00", "2026-08-20 00:00")
        await r.read()
        await r.wish("PARTICIPATE", "2026-08-12 00:00")
        report = await r.read()
        assert (report.withdrawn, report.proposed, await r.open()) == (1, 0, [])


async def test_leaving_waits_for_the_leave_of_a_named_person(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter()
        await r.wish("DISENROLL", "2026-08-01 00:00")
        await r.read()
        assert await r.open() == [("disenroll", "2026-08-13", "")]
        assert await r.send(WriteKind.DISENROLL) == []
        (row,) = await r.outbox.open_rows(WriteKind.DISENROLL)
        await r.outbox.approve([row.number], by="bob")
        # leave that was given holds as long as the day is to come
        assert (await r.read("2026-08-12 12:00")).withdrawn == 0
        assert [one.state for one in await r.send(WriteKind.DISENROLL)] == [WriteState.DONE]
        assert r.there(meter) == [("DISENROLL", "2026-08-13", "")]
        report = await r.read()
        assert (report.proposed, await r.open()) == (0, [])


async def test_what_the_aggregator_was_told_by_another_door_stays_and_is_listed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter()
        await r.wish("PARTICIPATE", "2026-08-01 00:00")
        await r.read()
        r.clock.advance(s=60)
        r.aggregator.meter_book.meters[meter].periods.put(
            Period(preference=Theirs.IDLE, first=date(2026, 8, 9), end=date(2026, 8, 30))
        )
        report = await r.read()
        assert report.conflicts == ["home-0: takes part here, paused at the aggregator from 2026-08-09; sits out"]
        assert await r.open() == []
        wishes = [one for one in await r.enrollments.every((OwnerPreference,)) if isinstance(one, OwnerPreference)]
        assert {one.preference for one in wishes if one.subject.id == meter} == {
            Preference.PARTICIPATE, Preference.PAUSED,
        }  # fmt: skip


async def test_row_that_is_on_its_way_is_waited_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter()
        await r.wish("IDLE", "2026-08-12 00:00", "2026-08-20 00:00")
        await r.read()
        r.aggregator.script(Operation.IDLE, Mishap(trouble=Trouble.ANSWER, status=503, done=True))
        report = await r.outbox.send(WriteKind.IDLE, dry=False, confirm=None, by="ann")
        assert report.error is not None
        await r.wish("IDLE", "2026-08-14 00:00", "2026-08-25 00:00")
        assert (await r.read()).proposed == 0
        # looked for, found, and not sent again; then the rest
        assert [row.state for row in await r.send(WriteKind.IDLE)] == [WriteState.DONE]
        posts = [one for one in r.aggregator.requests if one.method == "POST" and one.path.endswith("/idle_periods")]
        assert len(posts) == 1
        await r.read()
        assert await r.open() == [("idle", "2026-08-20", "2026-08-24")]
        await r.send(WriteKind.IDLE)
        assert r.there(meter) == [("IDLE", "2026-08-12", "2026-08-20"), ("IDLE", "2026-08-20", "2026-08-25")]


async def test_where_the_aggregator_cannot_be_asked_the_read_stands_and_the_next_one_tries_again(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        r.meter()
        await r.wish("IDLE", "2026-08-12 00:00", "2026-08-20 00:00")
        # the read goes well, and the question that compares the row does not
        r.aggregator.script(Operation.ENROLLMENT_SEARCH, None, Mishap(trouble=Trouble.ANSWER, status=503))
        report = await r.read()
        assert report.meters == 1
        assert [text.partition(":")[0] for text in report.conflicts] == ["wishes of owners could not be proposed"]
        assert (await r.read()).proposed == 1


async def test_many_wishes_go_under_the_brake(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for number in range(60):
            r.meter(number)
            await r.wish("IDLE", "2026-08-12 00:00", "2026-08-20 00:00", device=f"home-{number}")
        assert (await r.read()).proposed == 60
        report = await r.outbox.send(WriteKind.IDLE, dry=False, confirm=None, by="ann")
        assert report.refusal == "60 rows would go, more than 4 of 200 meters: confirm 60"
        assert not any(r.there(str(uuid.UUID(int=number + 1))) for number in range(60))
