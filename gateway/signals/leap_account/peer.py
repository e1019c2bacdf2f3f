"""Writes rows of the outbox to the aggregator, and reads what it has of them.

Its answers may hold who customers are: nothing of them but the members that a row names leaves this module.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.domain.errors import GatewayError, ProtocolViolation
from gateway.domain.programs.outbox import Content, OutboxRow, WriteKind, WriteState
from gateway.observability.parts import Part
from gateway.ports.outbox import Written
from gateway.ports.programs import PersonalStore
from gateway.signals.leap_account import assets, nominations, participation
from gateway.transports.leap.client import JOB_PAGES, SEARCH_PAGES, LeapClient
from gateway.transports.leap.errors import LeapNotFound, LeapRefused

log = logging.getLogger(__name__)

JOBS = "/v1.1/jobs/meters"
METERS = "/v2/meters/search"
ENROLLMENTS = "/v2/meters/enrollments/search"
SUFFIX = ".json"
REFERENCE = re.compile(r"[A-Za-z0-9_.:-]{3,64}")
"""Of the references that the aggregator takes, those that name a device or a meter here."""


class LeapPeer(Part):
    """Implements `gateway.ports.OutboxPeer`. `personal`: who customers are; None: no meter can be sent."""

    def __init__(self, client: LeapClient, personal: PersonalStore | None) -> None:
        self._client = client
        self._personal = personal

    def faults(self, kind: WriteKind, subject: str, after: Content, now_ms: int) -> list[str]:
        """What is wrong with a change that is proposed."""
        if not REFERENCE.fullmatch(subject):
            return [f"{subject[:64]!r}: no id or reference of a meter"]
        if kind is WriteKind.METER:
            return assets.faults(subject, after)
        if kind is WriteKind.NOMINATION:
            return nominations.faults(subject, after)
        return participation.faults(kind, subject, after, datetime.fromtimestamp(now_ms / 1000, tz=UTC))

    async def close(self) -> None:
        await self._client.close()

    async def read(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Content | None]:
        """What the aggregator has of each row."""
        if not rows:
            return {}
        subjects = sorted({row.subject for row in rows})
        if kind is WriteKind.METER:
            meters = await self._all(METERS, "meters", {"partner_references": subjects})
            # one that was archived is there no more, as far as anybody can tell
            of = {one.get("partner_reference"): one for one in meters if one.get("is_archived") is not True}
            return {
                row.number: assets.content(of[row.subject], list(row.after)) if row.subject in of else None
                for row in rows
            }
        if kind is WriteKind.NOMINATION:
            found = await self._all(nominations.SEARCH, "suggestions", {"meter_ids": subjects})
            return {row.number: nominations.content(found, row.subject, row.after)[0] for row in rows}
        enrolled = await self._all(ENROLLMENTS, "meters", {"meter_ids": subjects})
        wishes = {one.get("meter_id"): one.get("participation_preferences") or [] for one in enrolled}
        return {row.number: participation.content(kind, wishes.get(row.subject, []), row.after) for row in rows}

    async def write(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """Send rows."""
        if kind is WriteKind.METER:
            return await self._write_meters(rows)
        if kind is WriteKind.NOMINATION:
            return await self._write_nominations(rows)
        said: dict[int, Written] = {}
        for row in rows:
            path, body = participation.request(kind, quote(row.subject, safe=""), row.after)
            try:
                await self._client.ask("POST", path, body=body)
                said[row.number] = Written(state=WriteState.DONE)
            except LeapRefused as error:
                if error.status in (401, 403):
                    raise
                said[row.number] = Written(state=WriteState.REFUSED, detail=f"HTTP {error.status}")
        return said

    async def look(self, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """What became of rows whose job works, or may have been begun."""
        said: dict[int, Written] = {}
        for job in sorted({row.job for row in rows}):
            mine = [row for row in rows if row.job == job]
            if any(row.kind is not WriteKind.METER for row in mine):
                continue
            found = await self._job_of(job)
            if found is None:
                continue
            try:
                said |= await self._statuses(found, mine)
            except LeapNotFound:
                log.warning("the aggregator does not know a job any more", extra={"job": found})
        return said

    async def _write_nominations(self, rows: Sequence[OutboxRow]) -> dict[int, Written]:
        """All in one request; where that is refused, one by one, so that a bad row keeps back no other."""
        body = [{"meter_ids": [row.subject], **row.after} for row in rows]
        try:
            await self._client.ask("POST", nominations.SUGGEST, body=body)
        except LeapRefused as error:
            if error.status in (401, 403):
                raise
            if len(rows) == 1:
                return {rows[0].number: Written(state=WriteState.REFUSED, detail=f"HTTP {error.status}")}
            said: dict[int, Written] = {}
            for row in rows:
                said |= await self._write_nominations([row])
            return said
        return {row.number: Written(state=WriteState.DONE) for row in rows}

    async def _write_meters(self, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        made: list[dict[str, Any]] = []
        said: dict[int, Written] = {}
        for row in rows:
            person = None if self._personal is None else await self._personal.reveal(str(row.after[assets.CUSTOMER]))
            if person is None:
                said[row.number] = Written(state=WriteState.REFUSED, detail="no personal data of the customer is known")
                continue
            made.append(assets.asset(row.subject, row.after, person))
        sent = [row for row in rows if row.number not in said]
        if not sent:
            return said
        params = {"update_existing": "true", "file_name": f"{rows[0].job}{SUFFIX}"}
        try:
            answer = await self._client.document("POST", JOBS, body={"assets": made}, params=params)
        except LeapRefused as error:
            refused = _refused(error, sent)
            if not refused:
                raise _without_words(error) from None
            return said | refused
        except GatewayError as error:
            raise _without_words(error) from None
        job = answer.get("job_id")
        if not isinstance(job, str):
            raise ProtocolViolation("the aggregator took meters and named no job")
        said |= {row.number: Written(state=WriteState.WAITS, job=job) for row in sent}
        return said | await self._statuses(job, sent)

    async def _job_of(self, name: str) -> str | None:
        """The id of a job: it is one, or the name of the batch that it was begun with."""
        if not name.startswith("outbox-"):
            return name
        params = {"filter": f"file_name:{name}{SUFFIX}"}
        jobs = await self._all(JOBS, "jobs", params, query=True)
        mine = [one for one in jobs if one.get("file_name") == f"{name}{SUFFIX}" and isinstance(one.get("job_id"), str)]
        newest = max(mine, key=lambda one: str(one.get("created_at")), default=None)
        return None if newest is None else str(newest["job_id"])

    async def _statuses(self, job: str, rows: Sequence[OutboxRow]) -> dict[int, Written]:
        answer = await self._client.document("GET", f"{JOBS}/{quote(job, safe='')}")
        statuses = answer.get("assets")
        of: dict[object, Mapping[str, Any]] = {
            one.get("partner_reference"): one
            for one in (statuses if isinstance(statuses, list) else [])
            if isinstance(one, Mapping)
        }
        said: dict[int, Written] = {}
        for row in rows:
            if row.subject in of:
                state, detail = assets.told(of[row.subject])
            elif answer.get("status") == "FAILED":
                state, detail = WriteState.REFUSED, "the whole job failed"
            else:
                state, detail = WriteState.WAITS, ""
            said[row.number] = Written(state=state, job=job, detail=detail)
        return said

    async def _all(
        self, path: str, member: str, asked: Mapping[str, Any], *, query: bool = False
    ) -> list[Mapping[str, Any]]:
        """Every entry of a list."""
        found: list[Mapping[str, Any]] = []
        pages = (
            self._client.pages("GET", path, paging=JOB_PAGES, params=asked)
            if query
            else self._client.pages("POST", path, paging=SEARCH_PAGES, body=asked)
        )
        async for page in pages:
            some = page.get(member)
            found += [one for one in (some if isinstance(some, list) else []) if isinstance(one, Mapping)]
        return found


def _refused(error: LeapRefused, rows: Sequence[OutboxRow]) -> dict[int, Written]:
    """Which meters of a request that was refused whole are the reason, by the place that the aggregator names; the
    others were not taken, and go again. Empty where it names none."""
    named: dict[int, set[str]] = {}
    for one in error.details if isinstance(error.details, list) else []:
        index = one.get("json_index") if isinstance(one, Mapping) else None
        if isinstance(index, int) and 0 <= index < len(rows):
            named.setdefault(index, set()).add(str(one.get("problem_field"))[:64])
    if error.status != 400 or not named:
        return {}
    return {
        row.number: Written(state=WriteState.REFUSED, detail=f"VALIDATION: {', '.join(sorted(named[at]))}")
        if at in named
        else Written(state=WriteState.PROPOSED)
        for at, row in enumerate(rows)
    }


def _without_words(error: GatewayError) -> GatewayError:
    """The error without what the aggregator said: it may repeat who customers are."""
    status = getattr(error, "status", None)
    error.args = (f"POST {JOBS}: {'no answer' if status is None else f'HTTP {status}'}",)
    return error
