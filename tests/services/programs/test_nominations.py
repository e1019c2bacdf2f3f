"""Nominations at a strict stand-in of the aggregator: suggested with another person's leave, and followed."""

import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.nominations import NominationState
from gateway.domain.programs.outbox import WriteKind, WriteState
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.nominations import Nominations
from gateway.services.programs.outbox import ChangeOutbox
from gateway.signals.leap_account.peer import LeapPeer
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from simulators.aggregator import Access, Aggregator, Environment, Mishap, Operation, Trouble
from tests.builders.fakes import MemoryJournal
from tests.services.programs.stores import opened
from tests.services.programs.test_leap_sync import ASSET, FOREIGN, KEY
from tests.services.programs.test_wishes import ZONE, utc_ms

START, UNTIL = date(2026, 9, 1), date(2026, 10, 1)
STATES = NominationState


@dataclass
class Rig:
    nominations: Nominations
    outbox: ChangeOutbox
    enrollments: Enrollments
    aggregator: Aggregator
    meters: list[str]

    async def enrolled(self, number: int, status: str = "ACTIVE") -> None:
        row = {
            "meter_id": self.meters[number], "program": "dsgs-option3", "delivery_period": "AUG_OCT",
            "delivery_period_start_date_time": "2026-08-01T07:00:00Z",
            "delivery_period_end_date_time": "2026-11-01T07:00:00Z", "enrollment_status": status,
        }  # fmt: skip
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        told = await self.enrollments.import_enrollments(text, form="csv", by="x", door=AuditDoor.REST)
        assert told.bad == []

    async def sent(self, kw: float) -> list[str]:
        """Suggest a power, and have it sent with leave; returns the ids that the aggregator gave."""
        found = await self.nominations.suggest("dsgs-option3", kw, since=START, until=UNTIL, by="ann")
        await self.outbox.approve([row.number for row in found.rows], by="bob")
        report = await self.outbox.send(WriteKind.NOMINATION, dry=False, confirm=len(found.rows), by="ann")
        assert {row.state for row in report.rows} == {WriteState.DONE}
        suggestions = self.aggregator.nominations.suggestions
        return sorted(suggestions, key=lambda one: str(suggestions[one]["meter_id"]))

    async def states(self) -> list[tuple[NominationState, float | None, float | None]]:
        report = await self.nominations.read()
        return [(one.state, one.sent_kw, one.suggestion.kw) for one in report.seen]


@asynccontextmanager
async def rig(directory: Path, *, key: str = KEY, meters: int = 3) -> AsyncIterator[Rig]:
    keys = {KEY: Access(), FOREIGN: Access(environment=Environment.PRODUCTION)}
    async with (
        opened(directory, utc_ms=utc_ms("2026-08-10 12:00")) as (enrollments, clock),
        Aggregator(keys=keys, meters={}) as aggregator,
        SqliteOutbox(directory) as store,
    ):
        aggregator.clock.skew_ms += clock.now().utc_ms - aggregator.clock.utc_ms()
        ids = [str(uuid.UUID(int=number + 1)) for number in range(meters)]
        for number, meter in enumerate(ids):
            aggregator.meter_book.add(ASSET | {"partner_reference": f"home-{number}"}, meter_id=meter)
        client = LeapClient(LeapAccount(environment="staging", key=SecretStr(key), url=aggregator.url))
        peers = dict.fromkeys(WriteKind, LeapPeer(client, None))
        outbox = ChangeOutbox(store, peers, clock=clock, journal=MemoryJournal(), meters=lambda: 200)

        def rating_w(some: Sequence[str], _at_ms: int) -> list[float]:
            return [5_000.0 * (ids.index(meter) + 1) for meter in some]

        found = Nominations(
            client, outbox, enrollments, program_of={"CEC-DSGS": "dsgs-option3"}, zone_of={"dsgs-option3": ZONE},
            rating_w=rating_w, clock=clock, every_s=None, rng=random.Random(1),
        )  # fmt: skip
        async with found:
            r = Rig(found, outbox, enrollments, aggregator, ids)
            for number in range(meters):
                await r.enrolled(number)
            yield r
        assert aggregator.faults == []


async def test_power_becomes_rows_over_active_meters_that_go_with_leave_alone(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.enrolled(2, "PENDING")
        found = await r.nominations.suggest("dsgs-option3", 9.0, since=START, until=UNTIL, by="ann")
        assert (found.meters, found.kw) == (2, 9.0)
        assert [(row.subject, row.after["nomination_kw"]) for row in found.rows] == [
            (r.meters[0], 3.0), (r.meters[1], 6.0),
        ]  # fmt: skip
        report = await r.outbox.send(WriteKind.NOMINATION, dry=False, confirm=None, by="ann")
        assert (report.would_send, report.waiting, r.aggregator.nominations.suggestions) == (0, 2, {})
        with pytest.raises(InvalidInput, match="another person gives leave"):
            await r.outbox.approve([found.rows[0].number], by="ann")
        # what is proposed already is no new row
        assert (await r.nominations.suggest("dsgs-option3", 9.0, since=START, until=UNTIL, by="bob")).rows == []


async def test_each_suggestion_is_followed_to_its_end(tmp_path: Path) -> None:
    async with rig(tmp_path, meters=5) as r:
        await r.nominations.read()
        first, second, third, fourth, _ = await r.sent(15.0)
        assert await r.states() == [(STATES.SENT, kw, kw) for kw in (1.0, 2.0, 3.0, 4.0, 5.0)]
        decide = r.aggregator.nominations.decide
        decide(first, "APPROVED")
        decide(second, "MODIFIED", nomination_kw=1.5)
        decide(third, "DENIED")
        decide(fourth, "DELETED")
        r.aggregator.nominations.nominate(r.meters[0], "2026-09-01T07:00:00Z", 1.0)
        assert await r.states() == [
            (STATES.ACCEPTED, 1.0, 1.0), (STATES.CHANGED, 2.0, 1.5), (STATES.REJECTED, 3.0, 3.0),
            (STATES.GONE, 4.0, 4.0), (STATES.SENT, 5.0, 5.0),
        ]  # fmt: skip
        newest = r.nominations.newest
        assert newest is not None
        assert [(one.kw, one.source) for one in newest.holding[r.meters[0]]] == [(1.0, "PARTNER")]
        assert r.nominations.warnings() == [
            "1 suggested nominations were rejected",
            "1 suggested nominations were changed",
        ]
        told = {
            dict(s.labels)["state"]: s.value for s in r.nominations.samples() if s.name == "gateway_leap_nominations"
        }
        assert told == {"sent": 1, "accepted": 1, "changed": 1, "rejected": 1, "gone": 1, "unknown": 0}


async def test_suggestion_that_was_made_elsewhere_is_shown_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        body = [{"meter_ids": [r.meters[0]], "start_date": "2026-09-01", "nomination_kw": 2}]
        account = LeapAccount(environment="staging", key=SecretStr(KEY), url=r.aggregator.url)
        portal = LeapClient(account)
        await portal.ask("POST", "/v2/meters/nominations/suggestions", body=body)
        await portal.close()
        assert await r.states() == [(STATES.SENT, None, 2.0)]


async def test_read_that_fails_keeps_the_newest_one_and_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.sent(6.0)
        await r.states()
        r.aggregator.script(Operation.SUGGESTION_SEARCH, Mishap(trouble=Trouble.ANSWER, status=503))
        with pytest.raises(GatewayError):
            await r.nominations.read()
        assert r.nominations.newest is not None
        assert len(r.nominations.newest.seen) == 3
        assert r.nominations.warnings()[0].startswith("nominations of the aggregator cannot be read")
        await r.nominations.read()
        assert r.nominations.warnings() == []


async def test_key_of_another_environment_reads_and_suggests_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, key=FOREIGN) as r:
        for asked in (
            r.nominations.read(), r.nominations.suggest("dsgs-option3", 9.0, since=START, until=None, by="ann")
        ):  # fmt: skip
            with pytest.raises(GatewayError, match="the key is of the other environment"):
                await asked
        assert await r.outbox.store.rows(limit=10) == []


@pytest.mark.parametrize(
    ("program", "kw", "since", "until", "fault"),
    [
        ("nobody", 1.0, START, None, "program: nobody"), ("dsgs-option3", 0.0, START, None, "kw: "),
        ("dsgs-option3", 1.0, START, START, "end_date: not after start_date"),
        ("dsgs-option3", 1.0, date(2027, 1, 1), None, "has no active meter with batteries on 2027-01-01"),
        ("dsgs-option3", 90_000.0, START, None, "kw: more than 10000 kW of meter"),
    ],
)  # fmt: skip
async def test_power_that_cannot_be_suggested_is_refused_with_why(
    tmp_path: Path, program: str, kw: float, since: date, until: date | None, fault: str
) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(InvalidInput, match=fault):
            await r.nominations.suggest(program, kw, since=since, until=until, by="ann")
        assert await r.outbox.store.rows(limit=10) == []


async def test_answer_that_was_lost_is_looked_for_and_nothing_is_suggested_twice(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        found = await r.nominations.suggest("dsgs-option3", 6.0, since=START, until=UNTIL, by="ann")
        await r.outbox.approve([row.number for row in found.rows], by="bob")
        r.aggregator.script(Operation.SUGGEST, Mishap(trouble=Trouble.CUT, done=True))
        assert (await r.outbox.send(WriteKind.NOMINATION, dry=False, confirm=3, by="ann")).error is not None
        await r.outbox.send(WriteKind.NOMINATION, dry=False, confirm=0, by="ann")
        assert len(r.aggregator.nominations.suggestions) == 3
        assert await r.states() == [(STATES.SENT, kw, kw) for kw in (1.0, 2.0, 3.0)]
