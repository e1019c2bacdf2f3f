"""What REST shows of the fleet, from the columns as they are now."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice

from gateway import former_names
from gateway.api.models import (
    BadRowBody,
    DepartureState,
    DeviceState,
    ImportReport,
    NoteBody,
    RowFaultBody,
    SessionState,
    UnreachableState,
    UnregisteredList,
)
from gateway.clock import Clock
from gateway.domain.commands import CommandResult
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import Departure
from gateway.domain.types import NEVER_MS, DeviceId, unclear_names
from gateway.links.mqtt.messages import MqttLink
from gateway.schemas.interval_rows import rfc3339
from gateway.services.control.reach import ReachWatch
from gateway.services.devices.import_rows import MAX_REPORTED, DeviceFields
from gateway.services.devices.registry import DeviceRegistry, Imported
from gateway.services.devices.session import DeviceSession

ExcludedBy = Callable[[Sequence[str]], Mapping[str, list[str]]]
SITE_LIMITS = ("site_import_w_max", "site_export_w_max")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)


def import_report(done: Imported) -> ImportReport:
    """What an import did, as REST and the offline import tell it. Rows beyond a bound are only counted."""
    return ImportReport(
        rows=done.rows,
        enrolled=done.registered,
        departing=done.departing,
        rejected=[
            BadRowBody(line=row.line, problem=row.problem, faults=[RowFaultBody(**asdict(one)) for one in row.faults])
            for row in done.bad[:MAX_REPORTED]
        ],
        rejected_total=len(done.bad),
        notes=[NoteBody(line=note.line, note=note.note) for note in done.notes[:MAX_REPORTED]],
    )


def device_fields(device: Device) -> DeviceFields:
    """A device as it stands in an inventory, without the reference to its secret."""
    connection = device.connection or DeviceConnection(url="")
    row = {f.name: getattr(device, f.name) for f in fields(Device) if f.name in DeviceFields.model_fields}
    row |= {name: "unlimited" for name in SITE_LIMITS if row[name] == math.inf}
    row |= {"tags": list(device.tags), "address": connection.url, "username": connection.username}
    row |= {"units": dict(connection.units), "parameters": dict(connection.parameters)}
    return DeviceFields.model_validate(row)


class FleetView:
    """Devices, registered and not. `excluded_by`: the exclusions of territories by device."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        inventory: DeviceRegistry,
        link: MqttLink,
        clock: Clock,
        reach: ReachWatch,
        sessions: Mapping[int, DeviceSession] | None = None,
        excluded_by: ExcludedBy = lambda _: {},
    ) -> None:
        self._fleet = fleet
        self._inventory = inventory
        self._link = link
        self._clock = clock
        self._reach = reach
        self._sessions = sessions if sessions is not None else {}
        self._excluded_by = excluded_by

    def page(self, offset: int, limit: int) -> tuple[int, Sequence[DeviceId]]:
        """Number of devices in all, and the ids of `limit` of them from `offset` on."""
        devices = self._inventory.devices
        return len(devices), devices.page(offset, limit)

    def one(self, device_id: str, *, alone: bool = False) -> DeviceState | None:
        """A device as it is now; `alone`: not one of many, so with what keeps it out of dispatch by territory."""
        device = self._inventory.devices.get(DeviceId(device_id))
        if device is None:
            return None
        state = self._state(device)
        if alone:
            state.excluded_by = self._excluded_by([device.id]).get(device.id, [])
        return state

    def departures(self, offset: int, limit: int) -> tuple[int, list[DepartureState]]:
        """Number of devices that leave their place, and some of them."""
        known = self._inventory.departures
        return len(known), [self._departure(one) for one in islice(known.values(), offset, offset + limit)]

    def departure(self, device: DeviceId) -> DepartureState | None:
        """Where a device goes; None = it stays."""
        known = self._inventory.departures.get(device)
        return None if known is None else self._departure(known)

    def _departure(self, known: Departure) -> DepartureState:
        return DepartureState(
            device=known.device, to=None if known.wanted is None else device_fields(known.wanted),
            since=rfc3339(known.since_ms), waits_for=self._inventory.waits_for(known.device), by=known.by,
        )  # fmt: skip

    def unregistered(self) -> UnregisteredList:
        seen = [{"device": name, "seen": rfc3339(ms)} for name, ms in self._link.unregistered.devices().items()]
        return UnregisteredList(devices=seen, messages=self._link.stats.unregistered)

    def _state(self, device: Device) -> DeviceState:
        slot = self._fleet.slot_of.get(device.id)
        if slot is None:
            return DeviceState(
                device=device_fields(device), steerable=None, online=None, reading_age_s=None, soc_pct=None,
                battery_w=None, reserve_pct=None, authority="no_profile", held="no_profile",
                setpoint_w=None, departing=self.departure(device.id),
            )  # fmt: skip
        live, control = self._fleet.live, self._fleet.control
        seen, online = int(live.seen_mono_ms[slot]), int(live.online[slot])
        authority = Authority(int(control.authority[slot]))
        age_s = None if seen == NEVER_MS else (self._clock.mono_ms() - seen) / 1000
        return DeviceState(
            device=device_fields(device),
            steerable=bool(self._fleet.nameplate.steerable[slot]),
            online=None if online < 0 else bool(online),
            reading_age_s=age_s,
            soc_pct=_known(live.soc_pct[slot]),
            battery_w=_known(live.battery_w[slot]),
            reserve_pct=_known(live.reserve_pct[slot]),
            authority=authority.name.lower(),
            held=former_names.authority(authority.name.lower()),
            setpoint_w=int(control.setpoint_w[slot]) if authority is Authority.CONTROLLED else None,
            clock_offset_s=self._link.clocks.offset_s(slot),
            unheeded=self._link.clocks.unheeded(slot),
            restarted_s=self._fleet.restarts.age_s(slot, self._clock.now()),
            result=CommandResult(int(control.result[slot])).name.lower(),
            unclear=unclear_names(int(live.unclear[slot])),
            read_only=self._fleet.read_only.get(slot),
            unreachable=self._unreachable(slot),
            session=self._session(slot),
            departing=self.departure(device.id),
        )

    def _unreachable(self, slot: int) -> UnreachableState | None:
        found, now_ms = self._reach.of(slot), self._clock.mono_ms()
        if found is None:
            return None
        return UnreachableState(
            cause=found.cause.name.lower(),
            for_s=(now_ms - found.since_mono_ms) / 1000,
            retry_in_s=max(found.retry_mono_ms - now_ms, 0) / 1000,
        )

    def _session(self, slot: int) -> SessionState | None:
        session = self._sessions.get(slot)
        if session is None:
            return None
        return SessionState(
            state=session.state.value, why=session.why, variant=session.variant, notice=session.notice,
            models=session.models,
            not_done=session.not_done,
        )  # fmt: skip
