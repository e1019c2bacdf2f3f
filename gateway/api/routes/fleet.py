"""Devices: lists, one device, imports, and devices that are not registered."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway import former_names
from gateway.api.exchange import PAGE_MAX, by, json_answer, json_list, number, problem
from gateway.api.guard import IMPORT_FORMS
from gateway.api.models import DeviceList, DeviceState, UnregisteredList
from gateway.api.views.fleet import import_report
from gateway.domain.errors import InvalidInput
from gateway.domain.types import DeviceId
from gateway.services.devices.import_rows import parse_rows
from gateway.services.devices.registry import DeviceRegistry


class DeviceView(Protocol):
    """What the API asks of the fleet."""

    def page(self, offset: int, limit: int) -> tuple[int, Sequence[DeviceId]]: ...

    def one(self, device_id: str) -> DeviceState | None: ...

    def unregistered(self) -> UnregisteredList: ...


class FleetRoutes:
    """The routes of devices."""

    def __init__(self, devices: DeviceView, inventory: DeviceRegistry) -> None:
        self._devices = devices
        self._inventory = inventory

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/devices", self.devices),
            web.post("/v1/devices", self.import_devices),
            web.get("/v1/devices/{id}", self.device),
            web.get("/v1/unregistered", self.unregistered),
            web.get(former_names.PATHS["/v1/unregistered"], self.unregistered),
        ]

    async def devices(self, request: web.Request) -> web.StreamResponse:
        offset, limit = number(request, "offset", 0, 10**9), number(request, "limit", 100, PAGE_MAX)
        total, page = self._devices.page(offset, limit)
        following = offset + len(page)
        body = DeviceList(total=total, next=following if following < total and page else None, devices=[])
        found = (self._devices.one(name) for name in page)
        return await json_list(request, body, "devices", (state for state in found if state is not None))

    async def device(self, request: web.Request) -> web.StreamResponse:
        found = self._devices.one(request.match_info["id"])
        return json_answer(found) if found is not None else problem(404, "no such device")

    async def import_devices(self, request: web.Request) -> web.StreamResponse:
        form = IMPORT_FORMS[request.content_type]
        raw = await request.read()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput([f"not UTF-8 at byte {error.start}"]) from error
        inventory = self._inventory
        parsed = await asyncio.to_thread(
            parse_rows,
            text,
            form="csv" if form == "csv" else "jsonl",
            profiles=inventory.profiles,
            places=inventory.places,
        )
        done = await inventory.register_rows(parsed, by=by(request))
        return json_answer(import_report(done))

    async def unregistered(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(self._devices.unregistered())
