"""Metrics, and whether the gateway lives and is ready."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from gateway.api.exchange import json_answer
from gateway.api.models import Readiness
from gateway.observability.metrics import Metrics


class HealthRoutes:
    """The routes for monitoring; `readiness` gives the reasons for not being ready, and warnings."""

    def __init__(self, registry: Metrics, readiness: Callable[[], Readiness]) -> None:
        self._registry = registry
        self._readiness = readiness

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
        ]

    async def metrics(self, _request: web.Request) -> web.StreamResponse:
        text = await self._registry.text()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})

    async def healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="alive\n")

    async def readyz(self, _request: web.Request) -> web.StreamResponse:
        state = self._readiness()
        return json_answer(state, status=200 if state.ready else 503)
