"""Devices: lists, one device, imports, and devices that are not registered."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem
from gateway.api.models import DeviceList, DeviceState, ImportReport, UnregisteredList
from gateway.api.route import BY, Number, RestRoute, by
from gateway.api.views.fleet import import_report
from gateway.domain.errors import InvalidInput
from gateway.domain.types import DeviceId
from gateway.schemas import operations as ops
from gateway.services.devices.import_rows import DeviceRow, parse_rows
from gateway.services.devices.registry import DeviceRegistry

IMPORT_FORMS = {"text/csv": "csv", "application/x-ndjson": "jsonl"}
OFFSET, LIMIT = Number("offset", 0, 10**9), Number("limit", 100, PAGE_MAX)


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

    async def devices(self, request: web.Request) -> web.StreamResponse:
        offset, limit = OFFSET.of(request), LIMIT.of(request)
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

    ROUTES = (
        RestRoute(
            operation=ops.LIST_DEVICES, handler=devices, summary="List devices",
            query=(OFFSET, LIMIT), answers={200: DeviceList}, problems=(400,),
        ),
        RestRoute(
            operation=ops.IMPORT_DEVICES, handler=import_devices,
            summary="Import devices: text/csv or application/x-ndjson, one row per device",
            query=(BY,), body=tuple(IMPORT_FORMS), rows=DeviceRow, answers={200: ImportReport}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_DEVICE, handler=device, summary="One device",
            answers={200: DeviceState}, problems=(404,),
        ),
        RestRoute(
            operation=ops.LIST_UNREGISTERED, handler=unregistered,
            summary="List devices that send telemetry but are not registered", answers={200: UnregisteredList},
        ),
    )  # fmt: skip
