"""Uploads, their jobs, and the interval data that was accepted.

A file that comes in is an upload with a job. The job goes QUEUED -> PROCESSING -> COMPLETED or FAILED at the pace that
is set; whoever looks at it sees the state and moves it on. The file is judged when it leaves PROCESSING, by the
server's clock of that moment. One error makes it FAILED, and then it gives no row (a switch: its good rows), moves to
`/interval-data/failed/x.csv/x.csv` and leaves `<job>.errors.csv` beside it; a good one moves to `accepted/`. Both get
`<job>.feedback`, once their header could be read.

Not public [?]: the path of a file that came by HTTP (here `/interval-data/<job>.csv`), the contents of feedback and
error files, how a repeated (meter, start) ranks (here each is one more version), what a rerun does.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from simulators.aggregator.csv_rules import Code, Judgement, LineError, Row, Rules, errors_csv, judge
from simulators.aggregator.files import Files, MemoryFiles
from simulators.aggregator.switches import AT_ONCE, Fate, OpenPoints, Pace, Rerun
from simulators.aggregator.times import ServerClock

FOLDER = "/interval-data"


class Status(StrEnum):
    """Of a job."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


ENDED = (Status.COMPLETED, Status.FAILED)


class Schema(StrEnum):
    """Of an upload; each kind of data is a set of its own."""

    LOAD = "load"
    RUNTIME = "runtime"
    PERFORMANCE = "performance"

    @property
    def data_type(self) -> str:
        """What the missing-interval search calls it."""
        return f"{self.upper()}_DATA"


class Version(NamedTuple):
    """A row that was accepted, by which job and when (server's clock)."""

    row: Row
    schema: Schema
    job_id: str
    at_ms: int


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One run of a file."""

    job_id: str
    created_ms: int
    updated_ms: int
    since_s: float
    status: Status = Status.QUEUED
    looks: int = 0
    errors: list[LineError] = field(default_factory=list)
    error_csv_path: str | None = None
    feedback_path: str | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Upload:
    """A file with its runs; `content` is None where the file is read when it is judged. `sequence` orders uploads."""

    sequence: int
    schema: Schema
    uploaded_path: str
    current_path: str
    uploaded_ms: int
    files: Files
    pace: Pace
    fate: Fate
    content: bytes | None
    jobs: list[Job]
    claims: Judgement | None = None

    @property
    def last_job(self) -> Job:
        """The run that the list tells of."""
        return self.jobs[-1]

    @property
    def status(self) -> Status:
        return self.last_job.status

    @property
    def name(self) -> str:
        return self.uploaded_path.rpartition("/")[2]

    def read(self) -> bytes:
        """The file as it is; FileNotFoundError when it is gone."""
        return self.content if self.content is not None else self.files.read(self.current_path)


class Intervals:
    """The state of the service. `meters`: the first day of each, by id in lower case; may be changed at any time.

    `accepted` has the versions of each (meter, start in epoch ms), in the order in which they were accepted;
    `accepted_in_order` all of them. `on_change` is called when a job has ended.
    """

    def __init__(self, *, clock: ServerClock, meters: Mapping[str, date], points: OpenPoints, pace: Pace) -> None:
        self.clock = clock
        self.points = points
        self.pace = pace
        self.meters = {meter.lower(): first for meter, first in meters.items()}
        self.uploads: list[Upload] = []
        self.fates: list[Fate] = []
        self.memory = MemoryFiles()
        self.accepted: dict[tuple[str, int], list[Version]] = {}
        self.accepted_in_order: list[Version] = []
        self.on_change: Callable[[], None] = lambda: None
        self._starts: dict[tuple[Schema, str], set[int]] = {}
        self._by_job: dict[str, tuple[Upload, Job]] = {}

    def receive(
        self, content: bytes | None, schema: Schema, *, path: str | None = None, files: Files | None = None
    ) -> Upload:
        """Take a file in; without content it is read from `files` when it is judged."""
        told = self._new_job()
        uploaded_path = path or f"{FOLDER}/{told.job_id}.csv"
        fate = self.fates.pop(0) if self.fates else Fate()
        upload = Upload(
            sequence=len(self.uploads),
            schema=schema,
            uploaded_path=uploaded_path,
            current_path=uploaded_path,
            uploaded_ms=told.created_ms,
            files=files or self.memory,
            pace=fate.pace or self.pace,
            fate=fate,
            content=content,
            jobs=[told],
        )
        if files is None and content is not None:
            self.memory.write(uploaded_path, content)
        if fate.rerun is Rerun.BEFORE:
            upload.jobs.append(self._new_job())
        for job in upload.jobs:
            self._by_job[job.job_id] = (upload, job)
        self.uploads.append(upload)
        return upload

    def find(self, job_id: str) -> tuple[Upload, Job] | None:
        """The run of an id, and its file."""
        return self._by_job.get(job_id.lower())

    def look(self, upload: Upload) -> None:
        """Somebody sees the state of the file's job: moves it on as far as it is due, then counts the look."""
        self.advance(upload)
        upload.last_job.looks += 1

    def advance_all(self) -> None:
        """Move every job on that is due by its age."""
        for upload in self.uploads:
            if upload.status not in ENDED:
                self.advance(upload)

    def finish_all(self) -> None:
        """End every job that waits, whatever its pace."""
        for upload in self.uploads:
            upload.pace = AT_ONCE
            self.advance(upload)

    def advance(self, upload: Upload) -> None:
        """Move the file's job on as far as it is due."""
        job = upload.last_job
        if job.status is Status.QUEUED and self._over(upload):
            self._enter(upload, Status.PROCESSING)
        if job.status is Status.PROCESSING and self._over(upload):
            self._judge(upload)
        elif job.status in ENDED and job.looks and upload.fate.rerun is Rerun.AFTER and len(upload.jobs) == 1:
            upload.jobs.append(self._new_job())
            self._by_job[upload.last_job.job_id] = (upload, upload.last_job)
            self.advance(upload)

    def starts(self, schema: Schema, meter: str) -> set[int]:
        """Starts (epoch ms) of what was accepted for a meter."""
        return self._starts.get((schema, meter), set())

    def claimed(self, schema: Schema) -> dict[str, set[int]]:
        """Starts by meter in files whose jobs have not ended."""
        claimed: dict[str, set[int]] = {}
        for upload in self.uploads:
            if upload.status in ENDED or upload.schema is not schema:
                continue
            if upload.claims is None or upload.content is None:
                try:
                    upload.claims = judge(upload.read(), self._rules())
                except FileNotFoundError:
                    continue
            for row in upload.claims.rows:
                claimed.setdefault(row.meter, set()).add(row.start_ms)
        return claimed

    def _new_job(self) -> Job:
        now_ms = self.clock.utc_ms()
        return Job(job_id=str(uuid.uuid4()), created_ms=now_ms, updated_ms=now_ms, since_s=self.clock.mono_s())

    def _over(self, upload: Upload) -> bool:
        job = upload.last_job
        wait = upload.pace.queued if job.status is Status.QUEUED else upload.pace.processing
        return wait.over(job.looks, self.clock.mono_s() - job.since_s)

    def _enter(self, upload: Upload, status: Status) -> None:
        for job in upload.jobs:
            if job.status not in ENDED:
                job.status = status
                job.looks = 0
                job.since_s = self.clock.mono_s()
                job.updated_ms = self.clock.utc_ms()

    def _rules(self) -> Rules:
        points = self.points
        return Rules(
            meters=self.meters,
            now_ms=self.clock.utc_ms(),
            header_is_line_1=points.header_is_line_1,
            net_is_consumed_less_generated=points.net_is_consumed_less_generated,
            net_tolerance_kwh=points.net_tolerance_kwh,
            naive_times=points.naive_times,
            exponents=points.exponents,
        )

    def _judge(self, upload: Upload) -> None:
        try:
            judgement = judge(upload.read(), self._rules())
        except FileNotFoundError:
            judgement = Judgement(errors=[LineError(0, Code.UNCATEGORISED, "file is gone")])
        failed_with = upload.fate.failed_with
        errors = judgement.errors if failed_with is None else list(failed_with)
        failed = failed_with is not None or bool(errors)
        if not failed or self.points.failed_takes_good_rows:
            self._take(judgement.rows, upload)
        for job in upload.jobs:
            if job.status not in ENDED:
                job.errors = errors
        self._file_away(upload, failed=failed, parsed=judgement.parsed, errors=errors)
        self._enter(upload, Status.FAILED if failed else Status.COMPLETED)
        upload.claims = None
        self.on_change()

    def _take(self, rows: Iterable[Row], upload: Upload) -> None:
        schema, job_id, now_ms = upload.schema, upload.last_job.job_id, self.clock.utc_ms()
        for row in rows:
            version = Version(row, schema, job_id, now_ms)
            self.accepted.setdefault((row.meter, row.start_ms), []).append(version)
            self.accepted_in_order.append(version)
            self._starts.setdefault((schema, row.meter), set()).add(row.start_ms)

    def _file_away(self, upload: Upload, *, failed: bool, parsed: bool, errors: list[LineError]) -> None:
        folder = f"{FOLDER}/{'failed' if failed else 'accepted'}/{upload.name}"
        job = upload.last_job
        try:
            upload.files.move(upload.current_path, f"{folder}/{upload.name}")
        except FileNotFoundError:
            pass
        else:
            upload.current_path = f"{folder}/{upload.name}"
        if parsed:
            job.feedback_path = f"{folder}/{job.job_id}.feedback"
            upload.files.write(job.feedback_path, errors_csv(errors))
        if failed:
            job.error_csv_path = f"{folder}/{job.job_id}.errors.csv"
            upload.files.write(job.error_csv_path, errors_csv(errors))
