"""Uploads interval records to the aggregator: files of 15-minute energy, each a job that the sink follows to its end.

Unknown energy is never sent: the sink withholds and refuses a row without energy or with too little coverage. It
refuses rows that fail its own check before it sends the file, and rows that the job names afterwards; a file that
FAILED goes up again at once without the rows it named. Refused rows can be sent later, alone.

The aggregator has no idempotency key and every upload is a job. That does no harm: the newest upload of a meter and
start counts, and the same rows are the same bytes. If an upload's answer is lost, the sink keeps the batch and uploads
it again; if the job is known and only its end is not, the sink asks for the job again, for `job_timeout_s` at a time.

Not documented and assumed here: that COMPLETED with errors means that the other rows were accepted; that the header is
line 1 of the errors; the names of the search's request fields. A refused row sent later replaces a newer row of its
meter and start: whoever keeps refused rows drops those that a newer revision has overtaken.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.clock import Clock
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Accept, IntervalBatch, Keep, MissingInterval, Reject, SinkResult
from gateway.schemas.interval_rows import RowsPerS, rfc3339
from gateway.sinks.leap.meters import MeterFile
from gateway.sinks.leap.replies import DONE, JobReply, job_id_of, job_of, missing_of
from gateway.sinks.leap.rows import FIRST_ROW_LINE, LENGTH_S, Document, LeapMeter, render, validate
from gateway.sinks.web import exchange, open_session

UPLOAD = "/v1.1/interval-data"
JOBS = "/v1.1/jobs/interval-data-uploads"
MISSING = "/v1.1/missing-interval-data/search"
ROUNDS_MAX = 4
PAGES_MAX = 2_000
PAGE_SIZE = 500
JOB_REPLY_BYTES = 32 << 20
WITHHELD_UNKNOWN, WITHHELD_COVERAGE, NO_METER = "withheld_unknown", "withheld_coverage", "no_meter"


class LeapCsvSinkSettings(BaseModel):
    """The aggregator's account. `url`: scheme and host. `meters`: the file that `meters` reads. `poll_s`: how often to
    ask for a job; also the least time between two uploads. `final`: the value of that column, None = no such column
    (its meaning is not documented)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["leap_csv"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+$")]
    token: SecretStr
    meters: Path
    min_coverage_pct: Annotated[float, Field(ge=0, le=100)] = 95
    final: bool | None = None
    poll_s: Annotated[float, Field(gt=0, le=600)] = 30
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 60
    job_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600
    batch_rows: Annotated[int, Field(ge=1, le=200_000)] = 50_000
    rows_per_s_max: RowsPerS = 100_000
    gather_s: Annotated[float, Field(ge=0, le=86_400)] = 900

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        url = urlsplit(self.url)
        if url.scheme != "https" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("url: https is required, because requests carry the token")
        if self.job_timeout_s <= self.poll_s:
            raise ValueError("job_timeout_s: must be longer than poll_s, or no job is ever seen to end")
        return self


@dataclass(slots=True)
class LeapStats:
    """`other_length`: devices with a meter whose newest record is not of 15 minutes and is never uploaded. `uploads`
    and `jobs_failed` count jobs, the others rows; a batch that is tried again counts again."""

    other_length: int = 0
    uploads: int = 0
    jobs_failed: int = 0
    superseded: int = 0
    missing_unread: int = 0
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A batch as a file, and the rows it lacks: refused with a reason, or superseded by a newer revision."""

    document: Document
    refused: dict[int, str]
    superseded: int


class LeapCsvSink:
    """The aggregator as a sink. Create it inside a running loop; end it with `close`."""

    def __init__(self, settings: LeapCsvSinkSettings, *, clock: Clock) -> None:
        self.name = settings.name
        self.batch_rows = settings.batch_rows
        self.stats = LeapStats()
        self._settings = settings
        self._clock = clock
        self._file = MeterFile(settings.meters)
        self._other_length: set[DeviceId] = set()
        self._jobs: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    @property
    def meters_known(self) -> int:
        """Devices that have a meter."""
        return self._file.count

    @property
    def meters_failing(self) -> str | None:
        """Why the newest file of meters is not in force."""
        return self._file.failing

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def wants(self, record: IntervalRecord) -> bool:
        """Whether the record is of 15 minutes and its device has a meter (any may, while no meters are known)."""
        meters = self._meters()
        if meters is None:
            return record.length_s == LENGTH_S
        if record.device not in meters:
            return False
        if record.length_s != LENGTH_S:
            self._other_length.add(record.device)
        elif record.device in self._other_length:
            self._other_length.remove(record.device)
        else:
            return True
        self.stats.other_length = len(self._other_length)
        return record.length_s == LENGTH_S

    async def send(self, batch: IntervalBatch) -> SinkResult:
        meters = self._meters()
        if meters is None:
            return Keep(reason="meters_unreadable")
        now_ms = self._clock.now().utc_ms
        prepared = await asyncio.to_thread(_prepare, batch.rows, meters, self._settings, now_ms)
        refused = await self._upload(prepared)
        if isinstance(refused, Keep):
            return refused
        self._jobs.clear()
        self.stats.superseded += prepared.superseded
        for reason in refused.values():
            self.stats.refused[reason] = self.stats.refused.get(reason, 0) + 1
        return Reject(refused=refused) if refused else Accept()

    async def missing(self, from_ms: int, to_ms: int) -> list[MissingInterval] | Keep:
        """The intervals that the aggregator still waits for between two times; Keep when it cannot be asked now."""
        devices = {meter.id: device for device, meter in (self._meters() or {}).items()}
        asked: dict[str, str | int] = {
            "start_date_time_utc": rfc3339(from_ms),
            "end_date_time_utc": rfc3339(to_ms),
            "page_size": PAGE_SIZE,
        }
        found: list[MissingInterval] = []
        for _ in range(PAGES_MAX):
            answer = await self._ask("POST", MISSING, orjson.dumps(asked), "application/json")
            if isinstance(answer, Keep):
                return answer
            page = missing_of(answer)
            if page is None:
                return Keep(reason="reply_malformed")
            entries, unread, token = page
            self.stats.missing_unread += unread
            found += [
                MissingInterval(
                    device=devices.get(entry.meter_id), meter_id=entry.meter_id, start_ms=entry.start_ms,
                    end_ms=entry.end_ms, status=entry.status, data_type=entry.data_type, deadline_ms=entry.deadline_ms,
                )
                for entry in entries
            ]  # fmt: skip
            if token is None:
                return found
            asked["page_token"] = token
        return Keep(reason="too_many_pages")

    def _meters(self) -> Mapping[DeviceId, LeapMeter] | None:
        return self._file.current(self._clock.mono_ms())

    async def _upload(self, prepared: _Prepared) -> dict[int, str] | Keep:
        """Upload the file, again without the rows that a failed job names. Returns the reason by refused position."""
        document, refused = prepared.document, dict(prepared.refused)
        for _ in range(ROUNDS_MAX):
            if not document.lines:
                return refused
            body = document.body()
            digest = hashlib.sha256(body).hexdigest()
            job = await self._job(body, digest, rows=len(document.lines))
            if isinstance(job, Keep):
                return job
            named = {document.positions[line - FIRST_ROW_LINE]: reason for line, reason in job.refused.items()}
            refused |= named
            if job.status == "COMPLETED" and not job.unplaced:
                return refused
            self.stats.jobs_failed += job.status == "FAILED"
            if not named:
                del self._jobs[digest]
                return Keep(reason="job_failed" if job.status == "FAILED" else "job_errors_unplaced")
            document = document.without(named)
        self._jobs.clear()
        return Keep(reason="job_failed")

    async def _job(self, body: bytes, digest: str, *, rows: int) -> JobReply | Keep:
        """Upload the file and follow its job to the end. Goes on with an earlier job of the same file that was not seen
        to end."""
        if digest not in self._jobs:
            answer = await self._ask("POST", UPLOAD, body, "text/csv")
            if isinstance(answer, Keep):
                return answer
            self.stats.uploads += 1
            job_id = job_id_of(answer)
            if job_id is None:
                return Keep(reason="reply_malformed")
            if len(self._jobs) >= ROUNDS_MAX:
                self._jobs.clear()
            self._jobs[digest] = job_id
        try:
            async with asyncio.timeout(self._settings.job_timeout_s):
                return await self._followed(digest, rows)
        except TimeoutError:
            del self._jobs[digest]
            return Keep(reason="job_timeout")

    async def _followed(self, digest: str, rows: int) -> JobReply | Keep:
        while True:
            await asyncio.sleep(self._settings.poll_s)
            answer = await self._ask("GET", f"{JOBS}/{self._jobs[digest]}", most_bytes=JOB_REPLY_BYTES)
            if isinstance(answer, Keep):
                if answer.reason == "http_404":
                    del self._jobs[digest]
                return answer
            reply = job_of(answer, rows=rows)
            if reply is None:
                return Keep(reason="reply_malformed")
            if reply.status in DONE:
                return reply

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "", *, most_bytes: int = 4 << 20
    ) -> bytes | Keep:
        if self._session is None:
            self._session = open_session(self._settings.timeout_s)
        headers = {"Authorization": f"Bearer {self._settings.token.get_secret_value()}"}
        if body is not None:
            headers["Content-Type"] = kind
        return await exchange(
            self._session, method, self._settings.url + path, headers=headers, data=body, most_bytes=most_bytes
        )


def _prepare(
    rows: Sequence[IntervalRecord], meters: Mapping[DeviceId, LeapMeter], settings: LeapCsvSinkSettings, now_ms: int
) -> _Prepared:
    """The file of the newest revision of each meter and start, checked. A row's position in the batch identifies it."""
    refused: dict[int, str] = {}
    newest: dict[tuple[DeviceId, int], int] = {}
    superseded = 0
    for position, row in enumerate(rows):
        if row.device not in meters:
            refused[position] = NO_METER
            continue
        key = (row.device, row.start_ms)
        other = newest.setdefault(key, position)
        if other != position:
            superseded += 1
            if rows[other].revision <= row.revision:
                newest[key] = position
    known: list[int] = []
    for position in newest.values():
        row = rows[position]
        if row.charge_wh is None or row.discharge_wh is None:
            refused[position] = WITHHELD_UNKNOWN
        elif not row.coverage_pct >= settings.min_coverage_pct:
            refused[position] = WITHHELD_COVERAGE
        else:
            known.append(position)
    document = render(rows, known, meters, final=settings.final)
    faults = validate(document.body(), meters={meter.id for meter in meters.values()}, now_ms=now_ms)
    wrong: dict[int, str] = {}
    for fault in faults:
        wrong.setdefault(document.positions[fault.line - FIRST_ROW_LINE], fault.code.lower())
    return _Prepared(
        document=document.without(wrong) if wrong else document, refused=refused | wrong, superseded=superseded
    )
