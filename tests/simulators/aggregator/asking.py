"""Raw requests to the stand-in aggregator, and files for it."""

import io
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from simulators.aggregator import Access, Aggregator
from simulators.clock import ManualClock

KEY = "a-key-of-staging"
METER = "0b0e7a3c-5d0f-4c11-9f5e-8f1d2c3b4a59"
OTHER_METER = "1c1e7a3c-5d0f-4c11-9f5e-8f1d2c3b4a59"
DAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
NOON_MS = round(MIDNIGHT.timestamp() * 1000) + 12 * 3_600_000
QUARTER = timedelta(minutes=15)
QUARTER_MS = 900_000
LARGE = 1 << 20  # aiohttp warns of more in one piece
HEADER = (
    "meter_id,interval_start_time_utc,interval_end_time_utc,energy_net_kwh,energy_consumed_kwh,energy_generated_kwh,"
    "final,region"
)
UPLOAD = "/v1.1/interval-data"
UPLOADS = "/v1.1/jobs/interval-data-uploads"
MISSING = "/v1.1/missing-interval-data/search"
CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}


def start_ms(quarter: int) -> int:
    """Start of a quarter hour of the day, epoch ms."""
    return round((MIDNIGHT + quarter * QUARTER).timestamp() * 1000)


def text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def line(quarter: int = 0, /, **values: str) -> str:
    """A good line, apart from `values` (by column)."""
    start = MIDNIGHT + quarter * QUARTER
    fields = {
        "meter_id": METER,
        "interval_start_time_utc": text(start),
        "interval_end_time_utc": text(start + QUARTER),
        "energy_net_kwh": "0.25",
        "energy_consumed_kwh": "0.5",
        "energy_generated_kwh": "0.25",
        "final": "true",
        "region": "CA",
    }
    assert values.keys() <= fields.keys()
    return ",".join((fields | values).values())


def table(*lines: str, header: str = HEADER) -> bytes:
    return "\n".join((header, *lines, "")).encode()


def quarters(of: Iterable[int], meter: str = METER) -> bytes:
    """A good file."""
    return table(*(line(quarter, meter_id=meter) for quarter in of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return orjson.loads(self.body)


class Asker:
    """A client without any manners of its own."""

    def __init__(self, aggregator: Aggregator, session: aiohttp.ClientSession) -> None:
        self._aggregator = aggregator
        self._session = session

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = KEY,
        query: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        async with self._session.request(
            method,
            path if path.startswith("http") else self._aggregator.url + path,
            params=list(query),
            data=io.BytesIO(body) if body is not None and len(body) > LARGE else body,
            headers=sent,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],
        ) as response:
            return Answer(status=response.status, body=await response.read(), headers=dict(response.headers))

    async def send(self, method: str, path: str, body: object = None, **query: str) -> Answer:
        """A request with a JSON body, none if that is None."""
        content = orjson.dumps(body) if body is not None else None
        return await self.ask(method, path, query=query.items(), body=content, headers=JSON if content else None)

    async def upload(self, content: bytes, schema: str = "load") -> str:
        """The job id that the uploader is told."""
        answer = await self.ask("POST", UPLOAD, query=[("schema", schema)], body=content, headers=CSV)
        assert answer.status == 200
        return str(answer.json()["job_id"])

    async def uploads(self, **query: str) -> Any:
        answer = await self.ask("GET", UPLOADS, query=query.items())
        assert answer.status == 200
        return answer.json()

    async def job(self, job_id: str) -> Any:
        answer = await self.ask("GET", f"{UPLOADS}/{job_id}")
        assert answer.status == 200
        return answer.json()

    async def missing(self, **request: object) -> Any:
        answer = await self.ask("POST", MISSING, body=orjson.dumps(request), headers=JSON)
        assert answer.status == 200
        return answer.json()

    async def ended(self, job_id: str) -> Any:
        """The list's entry of a job once it has ended; bounded."""
        for _ in range(10):
            entry = next(e for e in (await self.uploads())["uploads"] if e["last_job_id"] == job_id)
            if entry["status"] in ("COMPLETED", "FAILED"):
                return entry
        raise AssertionError("job does not end")


def aggregator(**settings: Any) -> Aggregator:
    """Noon of the day, one meter since midnight, one key for everything; apart from `settings`."""
    defaults: dict[str, Any] = {
        "keys": {KEY: Access()},
        "meters": {METER: DAY},
        "clock": ManualClock(utc_ms=NOON_MS),
    }
    return Aggregator(**(defaults | settings))


@asynccontextmanager
async def asking(served: Aggregator | None = None) -> AsyncIterator[tuple[Aggregator, Asker]]:
    """A running aggregator and somebody to ask it."""
    served = served or aggregator()
    async with served, aiohttp.ClientSession() as session:
        yield served, Asker(served, session)
        assert served.faults == []


@dataclass(slots=True, kw_only=True)
class Receiver:
    """A webhook receiver: what came, and the statuses it answers next (200 after them)."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append([(name.decode(), value.decode()) for name, value in request.raw_headers])
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="heard")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens on loopback."""
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()
