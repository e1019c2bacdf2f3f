"""Uploads a file over HTTP and follows the job that it becomes.

The answer to an upload is a job's id; how the job stands is told by the list of uploads, its errors by the job itself.
If that answer was lost, the list and the previews tell whether the file arrived: the preview holds lines of it. So a
file goes up again only if it is not there. The list is asked for times of the aggregator's clock, of which nothing is
known: from a day before on, and without a beginning where that does not help.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from gateway.clock import Clock
from gateway.ports.sinks import Keep, Stop
from gateway.schemas.interval_rows import rfc3339
from gateway.sinks.leap.api import CSV, LeapApi, meaning
from gateway.sinks.leap.outbox import Outgoing
from gateway.sinks.leap.replies import (
    COMPLETED,
    FAILED,
    LineError,
    Preview,
    UploadEntry,
    errors_of,
    job_id_of,
    preview_of,
    uploads_of,
)
from gateway.sinks.leap.transport import LOST_MAX, Ended, Noted
from gateway.transports.web import WebAnswer

UPLOAD = "/v1.1/interval-data"
JOBS = "/v1.1/jobs/interval-data-uploads"
PAGE_SIZE = 500
PAGES_MAX = 40
REPLY_BYTES = 32 << 20
BEFORE_MS = 26 * 3_600_000
"""How far before an upload the list is asked for."""
LOST_AFTER_MS = 900_000
"""A job may be shown late; only after this time is it believed to be gone."""
SLOW_MAX = 3
"""A file that does not arrive in time so often goes up in halves."""
LOOKS = 3
"""So many looks in a row without the job, or without its errors, are believed."""


class HttpUpload:
    """The HTTP way. `schema`: what the aggregator wants to know of a file."""

    def __init__(self, api: LeapApi, *, schema: str, poll_s: float, job_timeout_s: float, clock: Clock) -> None:
        self._api = api
        self._schema = schema
        self._poll_s = poll_s
        self._job_timeout_s = job_timeout_s
        self._clock = clock

    async def close(self) -> None:
        await self._api.close()

    async def deliver(self, file: Outgoing, noted: Noted) -> Ended | Keep | Stop:
        if file.job is None and file.tried:
            found = await self._arrived(file)
            if isinstance(found, Keep | Stop):
                return found
            file.job = found
            if found is None and file.slow >= SLOW_MAX:
                file.tried = False
            await noted(file)
            if not file.tried:
                return Keep(reason="upload_too_slow", whole=True)
        job = file.job or await self._upload(file, noted)
        if not isinstance(job, str):
            return job
        try:
            async with asyncio.timeout(self._job_timeout_s):
                return await self._followed(file, job, noted)
        except TimeoutError:
            return Keep(reason="job_unfinished")

    async def _upload(self, file: Outgoing, noted: Noted) -> str | Keep | Stop:
        """The job that the file becomes."""
        tried_before, file.tried, file.began_ms = file.tried, True, self._clock.now().utc_ms
        await noted(file)
        reply = await self._api.ask("POST", UPLOAD, body=file.body, kind=CSV, params={"schema": self._schema})
        if isinstance(reply, Keep):
            file.slow += reply.reason == "timeout"
            return reply
        if not reply.fine:
            if reply.status < 500:
                file.tried = tried_before
                await noted(file)
            return Keep(reason="http_413", whole=True) if reply.status == 413 else meaning(reply)
        file.job = job_id_of(reply.body)
        await noted(file)
        return file.job or Keep(reason="reply_malformed")

    async def _arrived(self, file: Outgoing) -> str | Keep | Stop | None:
        """The job of a file whose answer was lost; None = it is not there. Looks twice, since it may be late."""
        for look in range(2):
            if look:
                await asyncio.sleep(self._poll_s)
            async for upload in self._uploads(file, ever=False):
                if not isinstance(upload, UploadEntry):
                    return upload
                if upload.job_id in file.others:
                    continue
                preview = await self._preview(upload.job_id)
                if isinstance(preview, Keep | Stop):
                    return preview
                if preview is not None and await asyncio.to_thread(_is_of, preview, file.body):
                    return upload.job_id
        return None

    async def _followed(self, file: Outgoing, job: str, noted: Noted) -> Ended | Keep | Stop:
        absent = 0
        while True:
            await asyncio.sleep(self._poll_s)
            status = await self._status(file, job, ever=absent >= LOOKS)
            if isinstance(status, Keep | Stop):
                return status
            if status == COMPLETED:
                return Ended(taken=True)
            if status == FAILED:
                return await self._failed(job)
            absent = 0 if status else absent + 1
            if absent > LOOKS and self._clock.now().utc_ms - file.began_ms > LOST_AFTER_MS:
                gone = await self._gone(file, noted)
                if gone is not None:
                    return gone

    async def _status(self, file: Outgoing, job: str, *, ever: bool) -> str | Keep | Stop:
        """How the job stands, "" = not told. A file that the aggregator ran again has another newest job in the list;
        the preview goes by the id that we were given."""
        async for upload in self._uploads(file, ever=ever):
            if not isinstance(upload, UploadEntry):
                return upload
            if upload.job_id == job:
                return upload.status
        preview = await self._preview(job)
        return preview if isinstance(preview, Keep | Stop) else preview.status if preview else ""

    async def _failed(self, job: str) -> Ended | Keep | Stop:
        """The errors, which may come later than the end."""
        errors: Sequence[LineError] = ()
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(self._poll_s)
            reply = await self._api.ask("GET", f"{JOBS}/{job}", most_bytes=REPLY_BYTES)
            if isinstance(reply, Keep):
                return reply
            if not reply.fine and reply.status != 404:
                return meaning(reply)
            # there may be an error for every line of a large file
            told = await asyncio.to_thread(errors_of, reply.body) if reply.fine else None
            errors = told or ()
            if errors:
                break
        return Ended(taken=False, errors=errors)

    async def _gone(self, file: Outgoing, noted: Noted) -> Keep | Stop | None:
        """Whether nobody knows the job any more; then the file goes up again."""
        reply = await self._api.ask("GET", f"{JOBS}/{file.job}")
        if isinstance(reply, Keep):
            return reply
        if reply.status != 404:
            return None if reply.fine else meaning(reply)
        file.job, file.tried, file.lost = None, False, file.lost + 1
        await noted(file)
        if file.lost >= LOST_MAX:
            file.lost = 0
            return Stop(reason="job_lost", detail=f"{LOST_MAX} uploads of {file.name} were accepted and then not known")
        return Keep(reason="job_lost")

    async def _uploads(self, file: Outgoing, *, ever: bool) -> AsyncIterator[UploadEntry | Keep | Stop]:
        """What was uploaded since a day before the file was, or `ever`; ends with trouble where there is some."""
        params = {"page_size": str(PAGE_SIZE)}
        if not ever:
            params["from"] = rfc3339(file.began_ms - BEFORE_MS)
        for number in range(PAGES_MAX):
            reply = await self._api.ask("GET", JOBS, params=params)
            if isinstance(reply, Keep):
                yield reply
                return
            if not reply.fine:
                # the place in the list may have gone meanwhile
                yield Keep(reason="page_token_refused") if number and reply.status == 400 else meaning(reply)
                return
            page = uploads_of(reply.body)
            if page is None:
                yield Keep(reason="reply_malformed")
                return
            entries, token = page
            for entry in entries:
                yield entry
            if token is None:
                return
            params["page_token"] = token

    async def _preview(self, job: str) -> Preview | Keep | Stop | None:
        """The file of a job; None = the aggregator does not show it."""
        reply = await self._api.ask("GET", f"{JOBS}/file-preview/{job}", most_bytes=REPLY_BYTES)
        if isinstance(reply, Keep):
            return reply
        if reply.fine:
            return await asyncio.to_thread(preview_of, reply.body)
        return None if _may_lack(reply) else meaning(reply)


def _may_lack(reply: WebAnswer) -> bool:
    return reply.status in (400, 403, 404)


def _is_of(preview: Preview, body: bytes) -> bool:
    """Whether a preview shows this file: all of it, or its first rows; with its header or without."""
    header, *rows = body.decode().split("\n")[:-1]
    shown = [line.removeprefix("\ufeff") for line in preview.lines]
    while shown and not shown[-1]:
        shown.pop()
    if shown and shown[0] == header:
        del shown[0]
    return bool(shown) and shown == (rows if preview.whole else rows[: len(shown)])
