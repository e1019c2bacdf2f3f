"""The aggregator's dispatch webhooks: a body is on disk before it is answered, and looked at afterwards."""

from aiohttp import hdrs, web

from gateway.api.exchange import problem
from gateway.api.route import RestRoute
from gateway.schemas import operations as ops
from gateway.signals.leap.door import LeapAdmission, LeapDoor

NOT_CONFIGURED = "signals.leap is not configured"
REFUSALS: dict[LeapAdmission, tuple[int, str]] = {
    LeapAdmission.STRANGER: (401, "the shared header is missing or wrong"),
    LeapAdmission.WRONG_ADDRESS: (403, "not served at this address"),
    LeapAdmission.TOO_LARGE: (413, "the body is too large"),
    LeapAdmission.BROKEN_OFF: (400, "the body is not whole"),
    LeapAdmission.BUSY: (503, "too much waits already; try again"),
    LeapAdmission.DISK: (503, "the disk did not make it durable; try again"),
}


class LeapSignalRoutes:
    """The two routes. `door` None: dispatch from the aggregator is not configured."""

    def __init__(self, door: LeapDoor | None) -> None:
        self._door = door

    async def meter(self, request: web.Request) -> web.StreamResponse:
        return await self._receive(request, "meter")

    async def group(self, request: web.Request) -> web.StreamResponse:
        return await self._receive(request, "group")

    async def _receive(self, request: web.Request, level: str) -> web.StreamResponse:
        door = self._door
        if door is None:
            return _refused(404, NOT_CONFIGURED)
        entry = door.refusal(request.headers.getall(door.header, ()), request.remote or "")
        if entry is None:
            entry = await door.receive(level, request.content.iter_any(), request.content_length)
        if entry is not LeapAdmission.KEPT:
            return _refused(*REFUSALS[entry])
        return web.Response(status=202)

    ROUTES = tuple(
        RestRoute(
            operation=operation, handler=handler, summary=f"Take a webhook of the aggregator that dispatches {what}",
            body=("application/json",), answers={202: None}, problems=(400, 401, 403, 404, 413, 503), scope=None,
            own_secret=True,
            texts={
                202: "the body is durable; what it says is found out afterwards",
                401: REFUSALS[LeapAdmission.STRANGER][1], 403: REFUSALS[LeapAdmission.WRONG_ADDRESS][1],
                404: NOT_CONFIGURED, 413: REFUSALS[LeapAdmission.TOO_LARGE][1],
                503: "too much waits already, or the disk did not make it durable; try again",
            },
        )
        for operation, handler, what in (
            (ops.LEAP_METERS_DISPATCHED, meter, "meters"), (ops.LEAP_GROUPS_DISPATCHED, group, "market groups"),
        )
    )  # fmt: skip


def _refused(status: int, error: str) -> web.Response:
    """The rest of a body that nobody wants is not read."""
    answer = problem(status, error)
    answer.headers[hdrs.CONNECTION] = "close"
    answer.force_close()
    return answer
