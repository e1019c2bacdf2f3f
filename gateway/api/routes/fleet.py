"""Devices: lists, one device, imports, and devices that are not registered."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem
from gateway.api.models import (
    ConnectionList,
    ConnectionState,
    Departed,
    DepartureList,
    DepartureState,
    DeviceList,
    DeviceState,
    ImportReport,
    PlacementState,
    UnregisteredList,
)
from gateway.api.route import BY, Number, RestRoute, Text, by
from gateway.api.views.fleet import import_report
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.registry.connection import Connection
from gateway.domain.registry.placement import Placement
from gateway.domain.types import DeviceId
from gateway.ports.journal import DeviceHistory
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.devices.import_rows import DeviceRow, parse_rows
from gateway.services.devices.registry import DeviceRegistry

IMPORT_FORMS = {"text/csv": "csv", "application/x-ndjson": "jsonl"}
OFFSET, LIMIT = Number("offset", 0, 10**9), Number("limit", 100, PAGE_MAX)


WHY = Text("reason", most=200)


class DeviceView(Protocol):
    """What the API asks of the fleet."""

    def page(self, offset: int, limit: int) -> tuple[int, Sequence[DeviceId]]: ...

    def one(self, device_id: str, *, alone: bool = False) -> DeviceState | None: ...

    def departures(self, offset: int, limit: int) -> tuple[int, list[DepartureState]]: ...

    def departure(self, device: DeviceId) -> DepartureState | None: ...

    def unregistered(self) -> UnregisteredList: ...


class FleetRoutes:
    """The routes of devices."""

    def __init__(self, devices: DeviceView, inventory: DeviceRegistry, past: DeviceHistory) -> None:
        self._devices = devices
        self._inventory = inventory
        self._past = past

    async def devices(self, request: web.Request) -> web.StreamResponse:
        offset, limit = OFFSET.of(request), LIMIT.of(request)
        total, page = self._devices.page(offset, limit)
        following = offset + len(page)
        body = DeviceList(total=total, next=following if following < total and page else None, devices=[])
        found = (self._devices.one(name) for name in page)
        return await json_list(request, body, "devices", (state for state in found if state is not None))

    async def device(self, request: web.Request) -> web.StreamResponse:
        found = self._devices.one(request.match_info["id"], alone=True)
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

    async def remove(self, request: web.Request) -> web.StreamResponse:
        name = DeviceId(request.match_info["id"])
        if name not in self._inventory.devices:
            return problem(404, "no such device")
        await self._inventory.remove([name], by=by(request))
        return self._departed(name)

    def _departed(self, name: DeviceId) -> web.Response:
        waits = self._devices.departure(name)
        body = Departed(device=name, gone=waits is None, waits_for=None if waits is None else waits.waits_for)
        return json_answer(body, status=200 if body.gone else 202)

    async def departures(self, request: web.Request) -> web.StreamResponse:
        offset, limit = OFFSET.of(request), LIMIT.of(request)
        total, page = self._devices.departures(offset, limit)
        following = offset + len(page)
        body = DepartureList(total=total, next=following if following < total and page else None, departures=[])
        return await json_list(request, body, "departures", page)

    async def abandon(self, request: web.Request) -> web.StreamResponse:
        name, why = DeviceId(request.match_info["id"]), WHY.of(request)
        if name not in self._inventory.departures:
            return problem(404, "this device does not leave its place")
        if not why:
            raise InvalidInput(["reason: why is what was left under control given up?"])
        await self._inventory.abandon(name, why=why, by=by(request))
        return self._departed(name)

    async def connections(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        found = await self._past.connections(name)
        if not found:
            return problem(404, "no such device")
        places = [_placement(one) for one in await self._past.placements(name)]
        told = ConnectionList(device=name, connections=[_connection(one) for one in found], placements=places)
        return json_answer(told)

    async def unregistered(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(self._devices.unregistered())

    ROUTES = (
        RestRoute(
            operation=ops.LIST_DEVICES, handler=devices, summary="List devices",
            query=(OFFSET, LIMIT), answers={200: DeviceList}, problems=(400,),
        ),
        RestRoute(
            operation=ops.IMPORT_DEVICES, scope=Scope.DEVICES, handler=import_devices,
            summary="Import devices: text/csv or application/x-ndjson, one row per device",
            query=(BY,), body=tuple(IMPORT_FORMS), rows=DeviceRow, answers={200: ImportReport}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_DEVICE, handler=device, summary="One device",
            answers={200: DeviceState}, problems=(404,),
        ),
        RestRoute(
            operation=ops.REMOVE_DEVICE, scope=Scope.DEVICES, handler=remove,
            summary="Remove a device once it is handed back where it is: 202 while it is not",
            query=(BY,), answers={200: Departed, 202: Departed}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_CONNECTIONS, handler=connections, summary="What a device was and where, over time",
            answers={200: ConnectionList}, problems=(404, 503),
        ),
        RestRoute(
            operation=ops.LIST_DEPARTURES, handler=departures,
            summary="List devices that leave their place once they are handed back there",
            query=(OFFSET, LIMIT), answers={200: DepartureList}, problems=(400,),
        ),
        RestRoute(
            operation=ops.ABANDON, scope=Scope.DEVICES, handler=abandon,
            summary="Give up what is left under control where a device leaves from: it goes at once",
            query=(BY, WHY), answers={200: Departed, 202: Departed}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_UNREGISTERED, handler=unregistered,
            summary="List devices that send telemetry but are not registered", answers={200: UnregisteredList},
        ),
    )  # fmt: skip


def _placement(known: Placement) -> PlacementState:
    valid = known.valid
    return PlacementState(
        site=known.site, meter=known.meter or None, postcode=known.postcode or None, county=known.county or None,
        utility=known.utility or None,
        since=None if valid.from_ms is None else rfc3339(valid.from_ms),
        until=None if valid.until_ms is None else rfc3339(valid.until_ms),
    )  # fmt: skip


def _connection(known: Connection) -> ConnectionState:
    valid = known.valid
    return ConnectionState(
        profile=known.profile, address=known.url, units=dict(known.units), parameters=dict(known.parameters),
        since=None if valid.from_ms is None else rfc3339(valid.from_ms),
        until=None if valid.until_ms is None else rfc3339(valid.until_ms),
        ended=None if known.ended is None else known.ended.value,
    )  # fmt: skip
