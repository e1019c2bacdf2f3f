"""The HTTP interface: REST under /v1/, /metrics, /healthz, /readyz. Parses, asks a service, answers."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import SecretStr

from gateway.api.exchange import problem
from gateway.api.guard import guard
from gateway.api.routes.dispatch import DispatchRoutes
from gateway.api.routes.fleet import DeviceView, FleetRoutes
from gateway.api.routes.health import HealthRoutes
from gateway.api.routes.leap import LeapRoutes, LeapUploads
from gateway.api.routes.telemetry import Telemetry, TelemetryRoutes
from gateway.api.views.dispatch import DispatchView
from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, PeerBusy, StorageError
from gateway.observability.metrics import Metrics
from gateway.services.devices.import_rows import MAX_IMPORT_BYTES
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.events.intake import Dispatcher
from gateway.services.telemetry.history import History

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The services that the routes ask."""

    dispatcher: Dispatcher
    events: DispatchView
    trust: Callable[[str], Awaitable[bool]]
    devices: DeviceView
    history: History
    telemetry: Telemetry
    leap: LeapUploads
    clock: Clock
    inventory: DeviceRegistry
    registry: Metrics
    readiness: Callable[[], list[str]]
    token: SecretStr | None


def make_app(parts: Parts) -> web.Application:
    """The routes over `parts`."""
    app = web.Application(middlewares=[_translate, guard(parts.token)], client_max_size=MAX_IMPORT_BYTES)
    for routes in (
        DispatchRoutes(parts.dispatcher, parts.events, parts.trust, parts.clock),
        TelemetryRoutes(parts.telemetry, parts.history),
        LeapRoutes(parts.leap),
        FleetRoutes(parts.devices, parts.inventory),
        HealthRoutes(parts.registry, parts.readiness),
    ):
        app.add_routes(routes.table())
    return app


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
    except web.HTTPException as error:
        return problem(error.status, error.reason)
