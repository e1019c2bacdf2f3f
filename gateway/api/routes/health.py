"""Metrics, and whether the gateway lives and is ready."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from gateway.api.exchange import json_answer
from gateway.api.models import Readiness
from gateway.api.route import RestRoute
from gateway.observability.metrics import Metrics
from gateway.schemas import operations as ops


class HealthRoutes:
    """The routes for monitoring; `readiness` gives the reasons for not being ready, and warnings."""

    def __init__(self, registry: Metrics, readiness: Callable[[], Readiness]) -> None:
        self._registry = registry
        self._readiness = readiness

    async def readyz(self, _request: web.Request) -> web.StreamResponse:
        state = self._readiness()
        return json_answer(state, status=200 if state.ready else 503)

    async def healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="alive\n")

    async def metrics(self, _request: web.Request) -> web.StreamResponse:
        text = await self._registry.text()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_READINESS, handler=readyz, scope=None,
            summary="Whether the gateway is ready to dispatch and to store, why not, and what is missing",
            answers={200: Readiness, 503: Readiness}, texts={200: "ready", 503: "not ready"},
        ),
        RestRoute(
            operation=ops.SHOW_LIFE, handler=healthz, scope=None, summary="Whether the event loop runs",
            answers={200: None}, texts={200: "alive"},
        ),
        RestRoute(
            operation=ops.SCRAPE, handler=metrics, open_here=True, summary="Prometheus metrics",
            answers={200: None}, texts={200: "metrics"},
        ),
    )  # fmt: skip
