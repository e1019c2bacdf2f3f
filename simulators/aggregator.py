"""The aggregator's interval-data API as a stand-in server, from what is public about it.

    POST /v1.1/interval-data                           CSV -> {"job_id"}
    GET  /v1.1/jobs/interval-data-uploads/{job_id}     -> {"status", "error_summary", "errors"}
    POST /v1.1/missing-interval-data/search            -> {"missing_intervals", "next_page_token"}

A key in `Authorization: Bearer`; without one 401, with another's 403. There is no idempotency key: every upload is a
job, QUEUED and PROCESSING for a look each, and what the newest job says of a meter and start is what counts. A file
with bad lines is COMPLETED with the good ones taken, or FAILED with none (`all_or_nothing`; which of them the real one
does is not public). Answers carry fields that nobody asked for, since new ones are declared harmless. The names of the
search's request fields are not public; read here as those of its answer.
"""

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from simulators.aggregator_rules import LineError, TakenRow, judge
from simulators.clock import Clock

QUARTER_MS = 900_000
UPLOAD_MAX_BYTES = 64 << 20
SEARCH_PAGE = 500


class Operation(Enum):
    """What can be asked."""

    UPLOAD = "upload"
    JOB = "job"
    SEARCH = "search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Said instead of the right answer."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"title": "trouble", "status": "ERROR", "details": []}'


class Trouble(Enum):
    """No answer: `HANG` until the client gives up, `CUT` at once. `LATE`: done as asked, and then `HANG`."""

    HANG = "hang"
    CUT = "cut"
    LATE = "late"


@dataclass(slots=True, kw_only=True)
class Job:
    """An upload. `errors` and `rows` are known when it is over."""

    id: str
    body: bytes
    status: str = "QUEUED"
    errors: tuple[LineError, ...] = ()
    rows: dict[int, TakenRow] = field(default_factory=dict)


class Aggregator:
    """The server; `url` while it is entered. Scripted trouble is used up in order, an operation at a time."""

    def __init__(self, *, token: str, meters: Iterable[str], clock: Clock, all_or_nothing: bool = False) -> None:
        self.meters = set(meters)
        self.all_or_nothing = all_or_nothing
        self.rows: dict[tuple[str, int], TakenRow] = {}
        self.jobs: dict[str, Job] = {}
        self.trouble: dict[Operation, deque[Answer | Trouble]] = {operation: deque() for operation in Operation}
        self.line_errors: deque[dict[int, str]] = deque()
        """Codes by line that the next jobs find besides what is wrong."""
        self.jobs_to_fail = 0
        """So many jobs fail without an error."""
        self.errors_listed_max: int | None = None
        """So many errors are listed; the summary counts all."""
        self.statuses: tuple[str, ...] = ("OPEN",)
        """Of missing intervals, taken in turn."""
        self.asked: Counter[Operation] = Counter()
        self.url = ""
        self._token = token
        self._clock = clock
        self._released = asyncio.Event()
        app = web.Application(client_max_size=UPLOAD_MAX_BYTES)
        app.router.add_post("/v1.1/interval-data", self._upload)
        app.router.add_get("/v1.1/jobs/interval-data-uploads/{job_id}", self._job)
        app.router.add_post("/v1.1/missing-interval-data/search", self._search)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        await self._runner.cleanup()

    @property
    def uploads(self) -> list[bytes]:
        """The files as they came."""
        return [job.body for job in self.jobs.values()]

    async def _in_the_way(self, request: web.Request, operation: Operation) -> web.Response | None:
        """The answer to a request that is not served."""
        self.asked[operation] += 1
        key = request.headers.get("Authorization")
        if key is None:
            return _json({"title": "Unauthorized", "status": "UNAUTHORIZED", "details": []}, status=401)
        if key != f"Bearer {self._token}":
            return _json({"title": "Forbidden", "status": "FORBIDDEN", "details": []}, status=403)
        queue = self.trouble[operation]
        if not queue or queue[0] is Trouble.LATE:
            return None
        match queue.popleft():
            case Answer(status=status, headers=headers, body=body):
                return web.Response(status=status, headers=dict(headers), body=body)
            case Trouble.CUT if request.transport is not None:
                request.transport.abort()
            case _:
                await self._released.wait()
        return web.Response(status=503)

    async def _answered(self, operation: Operation, answer: dict[str, Any]) -> web.Response:
        if self.trouble[operation]:
            self.trouble[operation].popleft()
            await self._released.wait()
        return _json(answer | {"request_trace": "0af7651916cd43dd"})

    async def _upload(self, request: web.Request) -> web.Response:
        body = await request.read()
        refused = await self._in_the_way(request, Operation.UPLOAD)
        if refused is not None:
            return refused
        if request.content_type != "text/csv":
            return _json({"title": "Unsupported", "status": "BAD_REQUEST", "details": []}, status=415)
        job = Job(id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(len(self.jobs)))), body=body)
        self.jobs[job.id] = job
        return await self._answered(Operation.UPLOAD, {"job_id": job.id})

    async def _job(self, request: web.Request) -> web.Response:
        refused = await self._in_the_way(request, Operation.JOB)
        if refused is not None:
            return refused
        job = self.jobs.get(request.match_info["job_id"])
        if job is None:
            return _json({"title": "Not found", "status": "NOT_FOUND", "details": []}, status=404)
        told = job.status
        if job.status == "QUEUED":
            job.status = "PROCESSING"
        elif job.status == "PROCESSING":
            self._process(job)
        answer: dict[str, Any] = {"job_id": job.id, "status": told, "file_path": f"/interval-data/{job.id}.csv"}
        if told in ("COMPLETED", "FAILED"):
            counts = Counter((error.column, error.code) for error in job.errors)
            answer["error_summary"] = [
                {"column": column, "code": code, "count": count} for (column, code), count in counts.items()
            ]
            answer["errors"] = [
                {"line": error.line, "column": error.column, "code": error.code, "message": f"{error.code} here"}
                for error in job.errors[: self.errors_listed_max]
            ]
        return await self._answered(Operation.JOB, answer)

    def _process(self, job: Job) -> None:
        if self.jobs_to_fail:
            self.jobs_to_fail -= 1
            job.status = "FAILED"
            return
        verdict = judge(job.body, meters=self.meters, now_ms=self._clock.utc_ms())
        planted = self.line_errors.popleft() if self.line_errors else {}
        job.errors = (
            *verdict.errors, *(LineError(line=line, column="", code=code) for line, code in planted.items())
        )  # fmt: skip
        bad = {error.line for error in job.errors}
        if job.errors and (self.all_or_nothing or 1 in bad):
            job.status = "FAILED"
            return
        job.status = "COMPLETED"
        job.rows = {line: row for line, row in verdict.rows.items() if line not in bad}
        self.rows |= {(row.meter, row.start_ms): row for row in job.rows.values()}

    async def _search(self, request: web.Request) -> web.Response:
        body = await request.read()
        refused = await self._in_the_way(request, Operation.SEARCH)
        if refused is not None:
            return refused
        try:
            asked = orjson.loads(body)
            from_ms, to_ms = (_ms(asked[f"{end}_date_time_utc"]) for end in ("start", "end"))
            size, at = int(asked.get("page_size", SEARCH_PAGE)), int(asked.get("page_token") or 0)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return _json({"title": "Bad request", "status": "BAD_REQUEST", "details": []}, status=400)
        missing = self.missing(from_ms, to_ms)
        items = [
            {
                "meter_id": meter,
                "data_type": "PERFORMANCE_DATA",
                "start_date_time_utc": _text(start_ms),
                "end_date_time_utc": _text(end_ms),
                "submission_deadline_date_time_utc": _text(end_ms + 30 * 86_400_000),
                "status": self.statuses[number % len(self.statuses)],
                "attempts": number,
            }
            for number, (meter, start_ms, end_ms) in enumerate(missing)
        ]
        answer: dict[str, Any] = {"missing_intervals": items[at : at + size]}
        if at + size < len(items):
            answer["next_page_token"] = str(at + size)
        return await self._answered(Operation.SEARCH, answer)

    def missing(self, from_ms: int, to_ms: int) -> list[tuple[str, int, int]]:
        """What is not there between two quarters, joined where it is next to each other: (meter, from, to)."""
        found: list[tuple[str, int, int]] = []
        for meter in sorted(self.meters):
            for start_ms in range(from_ms, to_ms, QUARTER_MS):
                if (meter, start_ms) in self.rows:
                    continue
                if found and found[-1][0] == meter and found[-1][2] == start_ms:
                    found[-1] = (meter, found[-1][1], start_ms + QUARTER_MS)
                else:
                    found.append((meter, start_ms, start_ms + QUARTER_MS))
        return found


def _json(answer: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(answer), content_type="application/json")


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1000
