"""Enrollments at the aggregator: how ours stand to them, a read on demand, and webhooks, which are a hint to read, and
noted where they tell of a sign-up."""

import logging
from dataclasses import dataclass

import orjson
from aiohttp import web

from gateway.api.exchange import json_answer, problem
from gateway.api.leap_enrollment_models import LeapAction, LeapEnrollmentState
from gateway.api.route import RestRoute
from gateway.domain.access import Scope
from gateway.domain.errors import GatewayError, InvalidInput, PeerBusy, StorageError
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.leap_sync import LeapSync
from gateway.services.programs.sign_ups import SignUps
from gateway.signals.leap.door import LeapAdmission, LeapDoor
from gateway.signals.leap_account.connect import connect_event

log = logging.getLogger(__name__)

NOT_CONFIGURED = "leap.account is not configured"
HINT_BYTES_MAX = 1 << 20
EVENT_BYTES_MAX = 64 << 10
"""What is larger lists meters, and is no sign-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapEnrollments:
    """The part that reads, and the door whose shared header webhooks carry; None = not configured."""

    sync: LeapSync | None = None
    door: LeapDoor | None = None


class LeapEnrollmentRoutes:
    """The routes."""

    def __init__(self, leap: LeapEnrollments, sign_ups: SignUps) -> None:
        self._leap = leap
        self._sign_ups = sign_ups

    async def status(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(self._state())

    async def read(self, _request: web.Request) -> web.StreamResponse:
        sync = self._leap.sync
        if sync is None:
            return problem(409, NOT_CONFIGURED)
        try:
            await sync.sync()
        except StorageError:
            raise
        except (GatewayError, OSError) as error:
            raise PeerBusy(str(error)) from error
        return json_answer(self._state())

    async def hint(self, request: web.Request) -> web.StreamResponse:
        """What a webhook says of meters is not believed: the next read says what is so, and a start reads too. Of
        sign-ups nothing else tells: what it says is durable before it is answered."""
        sync, door = self._leap.sync, self._leap.door
        if door is None:
            return problem(404, "signals.leap is not configured")
        refusal = door.refusal(request.headers.getall(door.header, ()), request.remote or "")
        if refusal is LeapAdmission.BUSY:
            return problem(503, "too much waits to be read")
        if refusal is not None:
            return problem(401, "the shared header is missing or wrong, or the address is another")
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > HINT_BYTES_MAX:
                return problem(413, "the body is too large")
        await self._note(body)
        if sync is not None:
            sync.hint()
        return web.Response(status=202)

    async def _note(self, body: bytearray) -> None:
        """Note what a webhook says of a sign-up. One that cannot be read comes no better a second time: it is counted,
        and answered as any. Raises StorageError; then it is to come again."""
        try:
            event = connect_event(orjson.loads(body)) if len(body) <= EVENT_BYTES_MAX else None
            if event is None:
                self._sign_ups.passed("other")
            else:
                await self._sign_ups.note(event)
        except (InvalidInput, ValueError) as error:
            self._sign_ups.passed("unreadable")
            log.warning("webhook of the aggregator cannot be read", extra={"error": _fault(error)})

    def _state(self) -> LeapEnrollmentState:
        sync = self._leap.sync
        if sync is None:
            return LeapEnrollmentState(configured=False)
        newest = sync.newest
        if newest is None:
            return LeapEnrollmentState(configured=True, failing=sync.failing)
        return LeapEnrollmentState(
            configured=True, read=rfc3339(newest.at_ms), failing=sync.failing, meters=newest.meters, rows=newest.rows,
            changed=newest.changed, proposed=newest.proposed, withdrawn=newest.withdrawn, conflicts=newest.conflicts,
            actions=[
                LeapAction(
                    meter=one.meter, reference=one.reference, code=one.code, kind=one.kind, program=one.program,
                    deadline=one.deadline, text=one.text,
                )
                for one in newest.actions
            ],
        )  # fmt: skip

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_LEAP_ENROLLMENTS, handler=status,
            summary="How our enrollments stand to the aggregator's: conflicts, and what is to be done",
            answers={200: LeapEnrollmentState},
        ),
        RestRoute(
            operation=ops.READ_LEAP_ENROLLMENTS, scope=Scope.PROGRAMS, handler=read,
            summary="Read the aggregator's enrollments now, and state what is new",
            answers={200: LeapEnrollmentState}, problems=(409, 502, 503),
        ),
        RestRoute(
            operation=ops.LEAP_HINTED, scope=None, own_secret=True, handler=hint,
            summary="Take a webhook of the aggregator about meters (a hint to read) or a sign-up",
            answers={202: None}, problems=(401, 404, 413, 503),
            texts={202: "what is so is read soon; of a sign-up it is noted", 404: "not configured"},
        ),
    )  # fmt: skip


def _fault(error: Exception) -> str:
    """What is wrong, without what was said: text that is no JSON is shown by nobody."""
    return str(error) if isinstance(error, InvalidInput) else "the body is no JSON"
