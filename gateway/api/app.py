"""The HTTP interface: REST under /v1/, /metrics, /healthz, /readyz. Parses, asks a service, answers."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Protocol

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from gateway.api.exchange import problem
from gateway.api.guard import Doorway, guard
from gateway.api.models import Readiness
from gateway.api.route import RestRoute
from gateway.api.routes.audit import AuditRoutes
from gateway.api.routes.cases import CaseRoutes
from gateway.api.routes.dispatch import DispatchRoutes, Trust
from gateway.api.routes.enrollments import EnrollmentRoutes
from gateway.api.routes.exclusions import ExclusionRoutes
from gateway.api.routes.explained import ExplainedRoutes
from gateway.api.routes.fleet import DeviceView, FleetRoutes
from gateway.api.routes.forecasts import ForecastRoutes
from gateway.api.routes.health import HealthRoutes
from gateway.api.routes.leap import LeapRoutes, LeapUploads
from gateway.api.routes.leap_dispatch import LeapDispatch, LeapDispatchRoutes
from gateway.api.routes.leap_enrollments import LeapEnrollmentRoutes, LeapEnrollments
from gateway.api.routes.leap_signal import LeapSignalRoutes
from gateway.api.routes.nominations import NominationRoutes
from gateway.api.routes.outbox import OutboxRoutes
from gateway.api.routes.performance import PerformanceRoutes
from gateway.api.routes.programs import ProgramRoutes
from gateway.api.routes.rates import RateRoutes
from gateway.api.routes.raw import RawRoutes
from gateway.api.routes.sign_ups import SignUpRoutes
from gateway.api.routes.telemetry import Telemetry, TelemetryRoutes
from gateway.api.routes.webhooks import WebhookRoutes
from gateway.api.views.dispatch import DispatchView
from gateway.api.views.explained import ExplainedView
from gateway.api.views.participation import ParticipationView
from gateway.api.views.programs import ProgramView
from gateway.api.views.rates import RateView
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, PeerBusy, StorageError
from gateway.observability.metrics import Metrics, Sample, counter
from gateway.observability.parts import Part
from gateway.ports.journal import AuditTrail, DeviceHistory
from gateway.services.devices.import_rows import MAX_IMPORT_BYTES
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.events.intake import Dispatcher
from gateway.services.programs.cases import Cases
from gateway.services.programs.eligibility import Eligibility
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.forecasts import ProgramForecasts
from gateway.services.programs.nominations import Nominations
from gateway.services.programs.outbox import ChangeOutbox
from gateway.services.programs.performance import PerformanceReader
from gateway.services.programs.sign_ups import SignUps
from gateway.services.telemetry.history import History
from gateway.services.telemetry.raw import RawMessages
from gateway.signals.webhook.door import WebhookDoor

log = logging.getLogger(__name__)

MALFORMED = counter("gateway_rest_malformed", "Requests that were no HTTP.")


class QuietPeers(logging.Filter, Part):
    """Drops the tracebacks of requests that are no HTTP, which anybody who reaches the port can send without end: the
    server has answered them with 400. `dropped` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        self.dropped += 1
        return False

    def samples(self) -> Iterable[Sample]:
        yield MALFORMED.sample(self.dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The services that the routes ask."""

    dispatcher: Dispatcher
    events: DispatchView
    trust: Trust
    devices: DeviceView
    history: History
    audit: AuditTrail
    past: DeviceHistory
    telemetry: Telemetry
    leap: LeapUploads
    leap_dispatch: LeapDispatch = field(default_factory=LeapDispatch)
    leap_enrollments: LeapEnrollments = field(default_factory=LeapEnrollments)
    nominations: Nominations | None = None
    sign_ups: SignUps
    clock: Clock
    inventory: DeviceRegistry
    raw: RawMessages
    programs: ProgramView
    performance: PerformanceReader
    enrollments: Enrollments
    rates: RateView
    participation: ParticipationView
    eligibility: Eligibility
    webhooks: WebhookDoor
    outbox: ChangeOutbox
    cases: Cases
    explained: ExplainedView
    forecasts: ProgramForecasts
    registry: Metrics
    readiness: Callable[[], Readiness]
    door: Doorway
    peers: QuietPeers = field(default_factory=QuietPeers)


class RouteGroup(Protocol):
    """Routes and who carries them out."""

    @property
    def ROUTES(self) -> Sequence[RestRoute]:  # noqa: N802 (a constant of the class)
        ...


def make_app(parts: Parts) -> web.Application:
    """The routes over `parts`."""
    groups = (
        DispatchRoutes(parts.dispatcher, parts.events, parts.trust, parts.clock),
        ExclusionRoutes(parts.dispatcher, parts.events.excluded, parts.clock),
        TelemetryRoutes(parts.telemetry, parts.history),
        LeapRoutes(parts.leap),
        LeapDispatchRoutes(parts.leap_dispatch, parts.clock),
        LeapEnrollmentRoutes(parts.leap_enrollments, parts.sign_ups),
        LeapSignalRoutes(None if parts.leap_dispatch.signal is None else parts.leap_dispatch.signal.door),
        FleetRoutes(parts.devices, parts.inventory, parts.past),
        RawRoutes(parts.raw),
        ProgramRoutes(parts.programs, parts.clock),
        EnrollmentRoutes(parts.enrollments, parts.participation, parts.eligibility, parts.sign_ups, parts.clock),
        SignUpRoutes(parts.sign_ups, parts.enrollments),
        PerformanceRoutes(parts.performance, parts.clock),
        RateRoutes(parts.rates),
        WebhookRoutes(parts.webhooks),
        OutboxRoutes(parts.outbox, parts.leap_dispatch.webhooks),
        NominationRoutes(parts.nominations),
        CaseRoutes(parts.cases),
        ExplainedRoutes(parts.explained),
        ForecastRoutes(parts.forecasts),
        AuditRoutes(parts.audit),
        HealthRoutes(parts.registry, parts.readiness),
    )
    return _app(groups, parts.door)


def make_metrics_app(parts: Parts, door: Doorway) -> web.Application:
    """The routes for monitoring alone, for a listener of their own."""
    return _app((HealthRoutes(parts.registry, parts.readiness),), door)


def _app(groups: Sequence[RouteGroup], door: Doorway) -> web.Application:
    checked = guard(door, [route for group in groups for route in group.ROUTES])
    app = web.Application(middlewares=[_translate, checked], client_max_size=MAX_IMPORT_BYTES)
    for group in groups:
        for route in group.ROUTES:
            handler = MethodType(route.handler, group)
            for operation in (route.operation, route.operation.former):
                if operation is not None:
                    app.add_routes([web.route(operation.method, operation.path, handler, expect_handler=_expected)])
    return app


def server_log(peers: QuietPeers) -> logging.Logger:
    """The log of the HTTP server, without what peers can fill it with."""
    found = logging.getLogger("gateway.api.server")
    found.filters = [peers]
    return found


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Answers `Expect` as aiohttp does, but repeats nothing of an unknown one, which may be no text."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return problem(417, "only 100-continue can be expected")
    if request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # the head of the answer comes after it
        request.writer.output_size = 0
    return None


@web.middleware
async def _translate(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidInput as error:
        return problem(400, "the request was not understood", error.problems)
    except StorageError as error:
        log.warning("a request could not be made durable", extra={"path": request.path, "error": str(error)})
        return problem(503, "the disk did not make it durable; try again", [str(error)])
    except PeerBusy as error:
        return problem(502, "the receiver did not answer the question; try again", [str(error)])
    except web.RequestPayloadError:
        return problem(400, "the body is not what its headers say")
    except web.HTTPException as error:
        answer = problem(error.status, error.reason)
        for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
            if name in error.headers:
                answer.headers[name] = error.headers[name]
        return answer
