"""An HTTP battery that answers as the test says, and links to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.clock import Clock
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.http.link import HttpLink, HttpLinks
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.points import Raw
from gateway.profiles.compiled.sequences import PointWrite, Request
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import parse_profile
from tests.virtual.clock import loop_clock

PROFILE = """
language: 1
profile: made-up
maker: Nobody
product: A battery for tests
evidence: {tag: verified, source: made up for tests}
transport: http
facts: {command_latency_s: 2, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 5, soc_uncertainty_pct: 2}
http: SECTION
identity: {rules: [{point: power, above: -100000}]}
points:
  power: {path: /status, pointer: /Pac_total_W, type: number, unit: W, poll: live}
  soc: {path: /status, pointer: /USOC, type: number, unit: "%"}
  nested: {path: /status, pointer: /Inverters/1/SOC, type: number}
  second: {path: /status, pointer: /list/1, type: number}
  tilde: {path: /status, pointer: "/a~1b~0c", type: text}
  serial: {path: /info, pointer: /serial, type: text}
  asked: {path: /rpc, ask: {method: ES.GetStatus, params: {id: 0}}, pointer: /result/bat_power, type: number}
  asked_soc: {path: /rpc, ask: {method: ES.GetStatus, params: {id: 0}}, pointer: /result/bat_soc, type: number}
  asked_else: {path: /rpc, ask: {method: EM.GetStatus}, pointer: /result/total_power, type: number}
  chosen: {path: /packs, pointer: "/packs/[sn=B2]/soc", type: number}
  chosen_by_number: {path: /packs, pointer: "/packs/[no=3]/soc", type: number}
  chosen_twice: {path: /packs, pointer: "/packs/[kind=lfp]/soc", type: number}
  chosen_none: {path: /packs, pointer: "/packs/[sn=C3]/soc", type: number}
  schedule: {path: /config, pointer: /EM_ToU_Schedule/0/start, type: text}
  mode:
    {path: /config, pointer: /EM_OperatingMode, type: text, access: rw, storage: volatile,
     write: {method: PUT, path: /config, key: EM_OperatingMode, as_text: true}}
  reserve:
    {path: /config, pointer: /EM_USOC, type: integer, as_text: true, access: rw, storage: volatile,
     write: {method: PUT, path: /config, key: EM_USOC, as_text: true, constants: {by: gateway, hard: true}}}
  limit:
    {type: number, access: w, storage: volatile, write: {method: POST, path: /limit, key: limit}}
  charge:
    {type: number, access: w, storage: volatile, write: {method: POST, path: /setpoint/charge}}
readings:
  battery_w: {point: power, sign: discharge_positive, measured_at: battery_ac, range: [-20000, 20000]}
  soc_pct: {point: soc, range: [0, 100]}
"""
STATUS = {
    "Pac_total_W": -1500.5, "USOC": 61, "Inverters": {"1": {"SOC": None}}, "list": [1, 2], "a/b~c": "x",
}  # fmt: skip


@dataclass
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answer = Callable[[web.Request], Any]


@dataclass
class Battery:
    """Answers by path: a document, a response, or a (possibly async) function of the request."""

    answers: dict[str, Any] = field(default_factory=lambda: {"/status": STATUS})
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        body = orjson.loads(data) if data else None
        self.seen.append(Seen(request.method, request.path, dict(request.headers), body))
        answer = self.answers.get(request.path)
        if callable(answer):
            answer = answer(request)
            if hasattr(answer, "__await__"):
                answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        if isinstance(answer, tuple):
            status, headers = answer
            return web.Response(status=status, headers=headers)
        if answer is None:
            return web.Response(status=404)
        return web.json_response(answer)

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


def http_document(section: str = "{}") -> ProfileDocument:
    """The made-up product with an `http` section in YAML flow style."""
    return parse_profile(PROFILE.replace("SECTION", section), name="made-up")


def target(
    url: str, section: str = "{}", *, device: str = "d1", username: str = "", secret: str = "", **parameters: str
) -> PointTarget:
    document = http_document(section)
    return PointTarget(
        device=DeviceId(device),
        connection=DeviceConnection(url=url, username=username, parameters=tuple(parameters.items())),
        secret=secret,
        document=document,
        points=document.points,
    )


def request(**raws: Raw) -> Request:
    """One request that writes these points."""
    return Request(writes=tuple(PointWrite(point=name, raw=raw, value=None) for name, raw in raws.items()))


@asynccontextmanager
async def battery(**more: Any) -> AsyncIterator[Battery]:
    """A battery on loopback. `more` goes to the server (`ssl`)."""
    made = Battery()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    scheme = "https" if "ssl" in more else "http"
    server = TestServer(app, scheme=scheme, host="127.0.0.1")
    await server.start_server(**more)
    try:
        made.url = f"{scheme}://127.0.0.1:{server.port}"
        yield made
    finally:
        await server.close()


@asynccontextmanager
async def http_links(clock: Clock | None = None) -> AsyncIterator[HttpLinks]:
    links = HttpLinks(clock or loop_clock())
    try:
        yield links
    finally:
        await links.close()


async def opened(links: HttpLinks, to: PointTarget) -> HttpLink:
    link = links.link(to)
    await link.open()
    return link
