"""Rows of the outbox at a strict stand-in of the aggregator: meters, participation, nominations, and what it has."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.clock import SystemClock
from gateway.domain.errors import GatewayError
from gateway.domain.programs.outbox import OutboxRow, WriteKind, WriteState
from gateway.services.programs.outbox import ChangeOutbox, Proposal, RunReport
from gateway.signals.leap_account import assets
from gateway.signals.leap_account.peer import LeapPeer
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.storage.programs.personal import SqlitePersonal
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from gateway.transports.leap.errors import LeapRefused
from simulators.aggregator import Access, Aggregator, AssetFate, Environment, Mishap, Operation, Trouble, Wait
from tests.builders.fakes import MemoryJournal
from tests.services.programs.stores import KEY as PERSONAL_KEY

KEY, FOREIGN = "key-of-the-account", "key-of-production"
CANARY = "Kanarie"
PERSON = {
    "end_customer_name": f"{CANARY} Jane", "street_1": f"1 {CANARY} Way", "city": "Fresno", "postal_code": "93650",
    "state_or_province_code": "CA", "electric_service_account_number": f"{CANARY}-77",
}  # fmt: skip
METER = {
    "transmission_region": "CAISO", "customer_classification": "RESIDENTIAL", "load_types": ["BATTERY_STORAGE"],
    "meter_type": "DEVICE", "device.battery_energy_capacity_kwh": 10.0, "device.battery_power_capacity_kw": 5.0,
    "site.number_of_devices": 1,
}  # fmt: skip


@asynccontextmanager
async def account(
    directory: Path, *, key: str = KEY, customers: int = 1
) -> AsyncIterator[tuple[ChangeOutbox, Aggregator, LeapPeer]]:
    keys = {KEY: Access(), FOREIGN: Access(environment=Environment.PRODUCTION)}
    people = SqlitePersonal(directory, keys=[PERSONAL_KEY])
    people.open()
    await people.keep({f"c-{i}": PERSON for i in range(customers)})
    try:
        async with Aggregator(keys=keys, meters={}) as aggregator, SqliteOutbox(directory) as store:
            made = LeapAccount(environment="staging", key=SecretStr(key), url=aggregator.url)
            async with LeapPeer(LeapClient(made), people) as peer:
                peers = dict.fromkeys(WriteKind, peer)
                outbox = ChangeOutbox(store, peers, clock=SystemClock(), journal=MemoryJournal(), meters=lambda: 200)
                yield outbox, aggregator, peer
            assert aggregator.faults == []
    finally:
        people.close()


def meters(count: int, **change: Any) -> list[Proposal]:
    return [Proposal(subject=f"home-{i}", after=METER | {"customer": f"c-{i}"} | change) for i in range(count)]


async def sent(outbox: ChangeOutbox, aggregator: Aggregator, kind: WriteKind, count: int) -> RunReport:
    await outbox.send(kind, dry=False, confirm=count, by="ann")
    aggregator.meter_jobs.settle()
    return await outbox.send(kind, dry=False, confirm=0, by="ann")


async def created(outbox: ChangeOutbox, aggregator: Aggregator, count: int = 1) -> list[str]:
    """The aggregator's ids of new meters."""
    await outbox.propose(WriteKind.METER, meters(count), by="ann")
    await sent(outbox, aggregator, WriteKind.METER, count)
    return [meter.meter_id for meter in aggregator.meter_book.meters.values()]


async def rows(outbox: ChangeOutbox) -> Mapping[str, tuple[WriteState, str]]:
    return {row.subject: (row.state, row.detail) for row in await outbox.store.rows(limit=1_000)}


async def test_meter_is_created_with_who_the_customer_is_and_changed_without_a_second_one(tmp_path: Path) -> None:
    async with account(tmp_path) as (outbox, aggregator, _):
        await created(outbox, aggregator)
        assert (await rows(outbox))["home-0"] == (WriteState.DONE, "")
        (meter,) = aggregator.meter_book.meters.values()
        asset = next(
            seen for seen in aggregator.requests if seen.method == "POST" and seen.path.endswith("/jobs/meters")
        )
        assert PERSON["street_1"] in asset.body.decode()
        # the same again is no change; another capacity is one, to the same meter
        assert await outbox.propose(WriteKind.METER, meters(1), by="ann") == []
        (row,) = await outbox.propose(
            WriteKind.METER, meters(1, **{"device.battery_energy_capacity_kwh": 13.5}), by="ann"
        )
        assert row.before is not None
        await sent(outbox, aggregator, WriteKind.METER, 1)
        assert [one.meter_id for one in aggregator.meter_book.meters.values()] == [meter.meter_id]


def stored_in(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.glob("outbox.sqlite*"))


async def test_who_customers_are_stands_in_no_row_and_in_no_error(tmp_path: Path) -> None:
    async with account(tmp_path) as (outbox, aggregator, _):
        await created(outbox, aggregator)
        aggregator.meter_jobs.fates["home-1"] = AssetFate(
            description=f"{CANARY} is not there", failed_fields={"customer.street_1": f"1 {CANARY} Way"}
        )
        await outbox.propose(WriteKind.METER, [Proposal(subject="home-1", after=METER | {"customer": "c-0"})], by="ann")
        report = await sent(outbox, aggregator, WriteKind.METER, 1)
        assert (await rows(outbox))["home-1"] == (WriteState.REFUSED, "FAILED: ADDRESS_NOT_FOUND: customer.street_1")
        assert CANARY not in repr(report)
    stored = stored_in(tmp_path)
    assert b"home-1" in stored
    assert CANARY.encode() not in stored
    refused = assets.faults("home-0", METER | {"customer": "c", "utility.electric_service_account_number": CANARY})
    assert refused == [
        "home-0: utility.electric_service_account_number: personal data stands in the table of customers"
    ]


async def test_refused_and_duplicate_meters_are_told_and_keep_back_no_other(tmp_path: Path) -> None:
    async with account(tmp_path, customers=3) as (outbox, aggregator, _):
        aggregator.meter_jobs.fates |= {
            "home-1": AssetFate(),
            "home-2": AssetFate(status="DUPLICATE", name="DUPLICATE_METER"),
        }
        await outbox.propose(
            WriteKind.METER, [*meters(3), Proposal(subject="lost", after=METER | {"customer": "x"})], by="ann"
        )
        report = await sent(outbox, aggregator, WriteKind.METER, 4)
        assert report.error is None
        assert await rows(outbox) == {
            "home-0": (WriteState.DONE, ""),
            "home-1": (WriteState.REFUSED, "FAILED: ADDRESS_NOT_FOUND"),
            "home-2": (WriteState.REFUSED, "DUPLICATE: DUPLICATE_METER"),
            "lost": (WriteState.REFUSED, "no personal data of the customer is known"),
        }


@pytest.mark.parametrize("status", [{}, {"status": "A_NEW_WORD", "status_detail": {"name": "X"}}, {"status": 7}])
def test_status_that_is_not_known_waits_and_is_shown(status: dict[str, Any]) -> None:
    assert assets.told(status) == (WriteState.WAITS, {2: "A_NEW_WORD: X", 1: "7", 0: "None"}[len(status)])


@pytest.mark.parametrize("done", [False, True])
async def test_meters_whose_answer_was_lost_are_found_by_their_job_and_not_created_twice(
    tmp_path: Path, done: bool
) -> None:
    async with account(tmp_path, customers=3) as (outbox, aggregator, _):
        aggregator.script(Operation.METER_JOB_CREATE, Mishap(trouble=Trouble.ANSWER, status=503, done=done))
        await outbox.propose(WriteKind.METER, meters(3), by="ann")
        report = await outbox.send(WriteKind.METER, dry=False, confirm=3, by="ann")
        assert report.error == "POST /v1.1/jobs/meters: HTTP 503"
        aggregator.meter_jobs.settle()
        await outbox.send(WriteKind.METER, dry=False, confirm=0 if done else 3, by="ann")
        aggregator.meter_jobs.settle()
        await outbox.send(WriteKind.METER, dry=False, confirm=0, by="ann")
        assert {state for state, _ in (await rows(outbox)).values()} == {WriteState.DONE}
        posted = [seen for seen in aggregator.requests if seen.method == "POST" and seen.path.endswith("/jobs/meters")]
        assert (len(aggregator.meter_book.meters), len(posted)) == (3, 1 if done else 2)


async def test_key_of_another_environment_sends_nothing_and_says_why(tmp_path: Path) -> None:
    async with account(tmp_path, key=FOREIGN) as (outbox, aggregator, _):
        with pytest.raises(GatewayError, match="the key is of the other environment"):
            await outbox.propose(WriteKind.METER, meters(1), by="ann")
        assert await outbox.store.rows(limit=10) == []
        assert aggregator.meter_book.meters == {}


async def test_meter_sits_out_takes_part_again_and_leaves_and_each_is_read_back(tmp_path: Path) -> None:
    async with account(tmp_path) as (outbox, aggregator, _):
        (meter,) = await created(outbox, aggregator)
        zone = {"zone": "America/Los_Angeles"}
        for kind, after in (
            (WriteKind.IDLE, {"start_date": "2035-07-01", "end_date": "2035-07-10"}),
            (WriteKind.PARTICIPATE, {"start_date": "2035-07-05"}),
            (WriteKind.DISENROLL, {"start_date": "2035-09-01", "reason": "moved"}),
        ):
            added = await outbox.propose(kind, [Proposal(subject=meter, after=after | zone)], by="ann")
            if kind is WriteKind.DISENROLL:
                await outbox.approve([row.number for row in added], by="bob")
            report = await outbox.send(kind, dry=False, confirm=1, by="ann")
            assert [(row.state, row.detail) for row in report.rows] == [(WriteState.DONE, "")], kind
            assert await outbox.propose(kind, [Proposal(subject=meter, after=after | zone)], by="ann") == []


async def test_nomination_is_suggested_once_and_found_again(tmp_path: Path) -> None:
    async with account(tmp_path) as (outbox, aggregator, _):
        (meter,) = await created(outbox, aggregator)
        after = {
            "start_date": "2035-07-01",
            "end_date": "2035-08-01",
            "nomination_kw": 4.25,
            "program_identifier": "CEC-DSGS",
        }
        (row,) = await outbox.propose(WriteKind.NOMINATION, [Proposal(subject=meter, after=after)], by="ann")
        await outbox.approve([row.number], by="bob")
        report = await outbox.send(WriteKind.NOMINATION, dry=False, confirm=1, by="ann")
        assert [(one.state, one.detail) for one in report.rows] == [(WriteState.DONE, "")]
        assert await outbox.propose(WriteKind.NOMINATION, [Proposal(subject=meter, after=after)], by="ann") == []


class Picky(LeapClient):
    """Refuses each request that names one meter."""

    def __init__(self, status: int) -> None:
        super().__init__(LeapAccount(environment="staging", key=SecretStr(KEY), url="http://127.0.0.1:1"))
        self.status = status

    async def ask(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        if any("bad" in one["meter_ids"] for one in body):
            raise LeapRefused("refused", status=self.status)


def nomination(number: int, subject: str) -> OutboxRow:
    after = {"start_date": "2035-07-01", "nomination_kw": 4.25}
    return OutboxRow(
        number=number, kind=WriteKind.NOMINATION, subject=subject, before=None, after=after, proposed_by="ann",
        proposed_ms=0,
    )  # fmt: skip


async def test_nomination_that_is_refused_keeps_back_no_other() -> None:
    sending = [nomination(1, "home-1"), nomination(2, "bad"), nomination(3, "home-3")]
    async with LeapPeer(Picky(400), None) as peer:
        said = await peer.write(WriteKind.NOMINATION, sending)
    assert {number: (one.state, one.detail) for number, one in said.items()} == {
        1: (WriteState.DONE, ""), 2: (WriteState.REFUSED, "HTTP 400"), 3: (WriteState.DONE, ""),
    }  # fmt: skip


@pytest.mark.parametrize("status", [401, 403])
async def test_key_that_may_not_nominate_refuses_no_row(status: int) -> None:
    async with LeapPeer(Picky(status), None) as peer:
        with pytest.raises(LeapRefused):
            await peer.write(WriteKind.NOMINATION, [nomination(1, "home-1"), nomination(2, "bad")])


async def test_job_that_takes_its_time_is_looked_at_again(tmp_path: Path) -> None:
    async with account(tmp_path) as (outbox, aggregator, _):
        aggregator.meter_jobs.pace = Wait(looks=3)
        await outbox.propose(WriteKind.METER, meters(1), by="ann")
        await outbox.send(WriteKind.METER, dry=False, confirm=1, by="ann")
        assert (await rows(outbox))["home-0"][0] is WriteState.WAITS
        for _ in range(4):
            aggregator.meter_jobs.settle()
            await outbox.send(WriteKind.METER, dry=False, confirm=0, by="ann")
        assert (await rows(outbox))["home-0"] == (WriteState.DONE, "")
