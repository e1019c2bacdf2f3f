"""From the real log to real sockets: receivers that lose answers, refuse parts, or are slow."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.clock import ManualClock
from gateway.schemas.interval_rows import rfc3339
from gateway.services.uplink import delivery as module
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.sinks.http import HttpSink, HttpSinkSettings
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from simulators.ledger import Ledger
from tests.builders.energy_batches import T0
from tests.scenes.waiting import service, until
from tests.storage.interval_log.test_query import unlogged

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.001)
    monkeypatch.setattr(module, "RETRY_CAP_S", 0.01)


@dataclass
class Road:
    """A log and what delivers it to a receiver by HTTP."""

    log: IntervalLog
    resend: Resend
    clock: ManualClock
    stack: AsyncExitStack

    async def to(self, name: str, handler: Handler) -> SinkDelivery:
        app = web.Application(client_max_size=1 << 26)
        app.add_routes([web.post("/intervals", handler)])
        server = TestServer(app)
        await server.start_server()
        self.stack.push_async_callback(server.close)
        sink = HttpSink(HttpSinkSettings(kind="http", name=name, url=str(server.make_url("/intervals")), timeout_s=300))
        self.stack.push_async_callback(sink.close)
        sink.batch_rows = 20
        return SinkDelivery(sink, log_=self.log, finder=self.resend, clock=self.clock, rng=random.Random(1), rate=1e9)

    async def filled(self, first: int, count: int) -> None:
        """`count` more intervals of six homes each."""
        rows = [(d, k, 1) for k in range(first, first + count) for d in range(6)]
        await self.log.append([unlogged(first + 1, rows)])


@asynccontextmanager
async def road(directory: Path) -> AsyncIterator[Road]:
    clock = ManualClock(utc_ms=T0)
    async with (
        IntervalLog(directory, clock=clock) as log,
        IntervalQueries(log.files_from, log.check) as queries,
        AsyncExitStack() as stack,
    ):
        yield Road(log, Resend(log, queries, clock), clock, stack)


@pytest.mark.fault("F8")
async def test_receiver_that_loses_answers_and_refuses_parts_has_every_record_once(tmp_path: Path) -> None:
    """Answers get lost after and before it has stored, with an error or without one; some rows it never takes."""
    book, rng = Ledger(), random.Random(7)
    faults: dict[str, int] = {}

    async def receive(request: web.Request) -> web.StreamResponse:
        batch = orjson.loads(await request.read())
        rows: list[Any] = batch["intervals"]
        fault = rng.choice(("fine", "cut", "late 500", "500", "partial ack"))
        faults[fault] = faults.get(fault, 0) + 1
        if fault == "500":
            return web.Response(status=500)
        refused = [i for i, row in enumerate(rows) if row["device"] == "bat-5"]
        answers = book.take_all(row for i, row in enumerate(rows) if i not in refused)
        assert answers == [None] * len(answers)
        if fault == "late 500":
            return web.Response(status=500)
        if fault == "cut" and request.transport is not None:
            request.transport.abort()
        return web.json_response(
            {
                "batch": batch["batch"], "accepted": len(rows) - len(refused),
                "rejected": [{"row": i, "reason": "Never heard of it!"} for i in refused],
            }
        )  # fmt: skip

    async with road(tmp_path) as r:
        delivery = await r.to("platform", receive)
        await r.filled(0, 60)
        async with service(delivery.run):
            await until(lambda: delivery.position.live.row == 360)
        parked = await r.log.ask(lambda readers: readers.parked("platform", 1_000))
    assert set(faults) == {"fine", "cut", "late 500", "500", "partial ack"}
    assert set(book.latest()) == {(f"bat-{d}", T0 + k * 300_000) for k in range(60) for d in range(5)}
    assert (book.conflicting, book.duplicates > 0) == (0, True)
    assert {(one.identity[1], one.reason) for one in parked} == {("bat-5", "never_heard_of_it")}
    assert len(parked) == 60


@pytest.mark.parametrize("seed", range(5))
async def test_receiver_that_keeps_the_last_write_ends_with_the_newest_revisions_after_an_outage(
    tmp_path: Path, seed: int
) -> None:
    """It comes and goes, and loses answers; revisions come while the backlog is caught up and some are sent again."""
    rng, holds, overwritten = random.Random(seed), dict[tuple[str, str], int](), list[tuple[str, str]]()
    newest: dict[tuple[int, int], int] = {}
    records = 0

    async def receive(request: web.Request) -> web.StreamResponse:
        batch = orjson.loads(await request.read())
        fault = rng.choice(("fine", "fine", "late 500", "500"))
        if fault == "500":
            return web.Response(status=500)
        given = {(row["device"], row["start"]): row["revision"] for row in batch["intervals"]}
        overwritten.extend(place for place, revision in given.items() if holds.get(place, 0) > revision)
        holds.update(given)
        if fault == "late 500":
            return web.Response(status=500)
        return web.json_response({"batch": batch["batch"], "accepted": len(batch["intervals"])})

    async with road(tmp_path) as r:
        delivery = await r.to("platform", receive)

        async def append(places: list[tuple[int, int]]) -> None:
            nonlocal records
            records += 1
            for place in places:
                newest[place] = newest.get(place, 0) + 1
            await r.log.append([unlogged(records, [(d, k, newest[d, k]) for d, k in places])])
            delivery.news.set()

        await append([(d, k) for k in range(100) for d in range(6)])
        r.clock.advance(s=86_400)
        await append(rng.sample(sorted(newest), 40))
        async with service(delivery.run):
            await until(lambda: bool(delivery.position.backfill))
            for k in range(100, 110):
                await append([*rng.sample(sorted(newest), 5), *((d, k) for d in range(6))])
                await asyncio.sleep(0.01)
            end = await r.log.end()
            await until(lambda: delivery.position.live == end and not delivery.position.backfill)
    assert overwritten == []
    assert holds == {(f"bat-{d}", rfc3339(T0 + k * 300_000)): revision for (d, k), revision in newest.items()}
    assert delivery.stats.superseded > 0


@pytest.mark.fault("F9")
@pytest.mark.real_time
async def test_receiver_that_is_slow_holds_up_nobody_and_one_batch_at_most(tmp_path: Path) -> None:
    """It takes a batch and does not answer for as long as the test wants; the log grows, the other receiver has it."""
    slow, quick, go, held = Ledger(), Ledger(), asyncio.Event(), 0

    def into(book: Ledger, wait: asyncio.Event | None) -> Handler:
        async def receive(request: web.Request) -> web.StreamResponse:
            nonlocal held
            batch = orjson.loads(await request.read())
            rows = batch["intervals"]
            if wait is not None:
                held = max(held, len(rows))
                await wait.wait()
            book.take_all(rows)
            return web.json_response({"batch": batch["batch"], "accepted": len(rows)})

        return receive

    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with road(tmp_path) as r:
        one, other = await r.to("slow", into(slow, go)), await r.to("quick", into(quick, None))
        async with service(one.run), service(other.run):
            await r.filled(0, 5)
            one.news.set()
            other.news.set()
            await until(lambda: held > 0)
            async with service(tick):
                before = turns
                for k in range(5, 60):
                    await r.filled(k, 1)
                    other.news.set()
                await until(lambda: len(quick) == 360)
                assert turns - before > 60
            assert (len(slow), held) == (0, 20)
            assert await r.log.backlog(one.position) == 360
            go.set()
            one.news.set()
            await until(lambda: one.position.live.row == 360)
        assert await r.log.backlog(one.position) == 0
    assert (slow.conflicting, slow.duplicates, slow.out_of_order) == (0, 0, 0)
