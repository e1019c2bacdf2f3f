"""Enrollments at the aggregator: how ours stand to them, a read on demand, and webhooks that hint at one."""

from dataclasses import dataclass

from aiohttp import web

from gateway.api.exchange import json_answer, problem
from gateway.api.leap_enrollment_models import LeapAction, LeapEnrollmentState
from gateway.api.route import RestRoute
from gateway.domain.access import Scope
from gateway.domain.errors import GatewayError, PeerBusy, StorageError
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.leap_sync import LeapSync
from gateway.signals.leap.door import LeapDoor

NOT_CONFIGURED = "leap.account is not configured"
HINT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapEnrollments:
    """The part that reads, and the door whose shared header webhooks carry; None = not configured."""

    sync: LeapSync | None = None
    door: LeapDoor | None = None


class LeapEnrollmentRoutes:
    """The routes."""

    def __init__(self, leap: LeapEnrollments) -> None:
        self._leap = leap

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
        """What a webhook says is not believed: the next read says what is so, and a start reads too."""
        sync, door = self._leap.sync, self._leap.door
        if sync is None or door is None:
            return problem(404, "signals.leap or leap.account is not configured")
        if door.refusal(request.headers.getall(door.header, ()), request.remote or "") is not None:
            return problem(401, "the shared header is missing or wrong, or the address is another")
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > HINT_BYTES_MAX:
                return problem(413, "the body is too large")
        sync.hint()
        return web.Response(status=202)

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
            summary="Take a webhook of the aggregator about meters: a hint to read", answers={202: None},
            problems=(401, 404, 413), texts={202: "what is so is read soon", 404: "not configured"},
        ),
    )  # fmt: skip
