"""What REST shows of the fleet and of events, from the columns as they are now."""

import math
from collections.abc import Mapping

import numpy as np

from gateway.api.models import DeviceState, EventStatus, MemberBody, SessionState, Unenrolled
from gateway.clock import Clock
from gateway.domain.columns import Held
from gateway.domain.dispatch import EventState
from gateway.domain.envelope import reason_names
from gateway.domain.fleet import Fleet
from gateway.domain.model import NEVER_MS, CommandResult, Connection, Device, DeviceId
from gateway.links.mqtt import MqttLink
from gateway.services.control import Control, EventReport
from gateway.services.inventory import DeviceFields, Inventory
from gateway.services.session import Session
from gateway.sinks.rows import rfc3339


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 3)


def device_fields(device: Device) -> DeviceFields:
    """A device as it stands in an inventory, without the reference to its secret."""

    def limit(value: float | None) -> float | str | None:
        return "unlimited" if value == math.inf else value

    connection = device.connection or Connection(url="")
    return DeviceFields.model_validate(
        {
            "id": device.id,
            "profile": device.profile,
            "site": device.site,
            "feeder": device.feeder,
            "tags": list(device.tags),
            "capacity_wh": device.capacity_wh,
            "discharge_w_max": device.discharge_w_max,
            "charge_w_max": device.charge_w_max,
            "inverter_w_max": device.inverter_w_max,
            "reserve_pct": device.reserve_pct,
            "export_allowed": device.export_allowed,
            "grid_charge_allowed": device.grid_charge_allowed,
            "site_import_w_max": limit(device.site_import_w_max),
            "site_export_w_max": limit(device.site_export_w_max),
            "site_phase_w_max": device.site_phase_w_max,
            "phases": device.phases,
            "fuse_protected": device.fuse_protected,
            "address": connection.url,
            "units": dict(connection.units),
            "parameters": dict(connection.parameters),
            "username": connection.username,
            "experimental": device.experimental,
        }
    )


class FleetView:
    """Devices, enrolled and not."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        inventory: Inventory,
        link: MqttLink,
        clock: Clock,
        sessions: Mapping[int, Session] | None = None,
    ) -> None:
        self._fleet = fleet
        self._inventory = inventory
        self._link = link
        self._clock = clock
        self._sessions = sessions if sessions is not None else {}

    def page(self, offset: int, limit: int) -> tuple[int, list[DeviceState]]:
        """Number of devices in all, and `limit` of them from `offset` on."""
        devices = self._inventory.devices
        return len(devices), [self._state(devices[name]) for name in devices.page(offset, limit)]

    def one(self, device_id: str) -> DeviceState | None:
        device = self._inventory.devices.get(DeviceId(device_id))
        return None if device is None else self._state(device)

    def unenrolled(self) -> Unenrolled:
        seen = [{"device": name, "seen": rfc3339(ms)} for name, ms in self._link.unenrolled.items()]
        return Unenrolled(devices=seen, messages=self._link.stats.unenrolled)

    def _state(self, device: Device) -> DeviceState:
        slot = self._fleet.slot_of.get(device.id)
        if slot is None:
            return DeviceState(
                device=device_fields(device), steerable=None, online=None, reading_age_s=None, soc_pct=None,
                battery_w=None, reserve_pct=None, held="no_profile", setpoint_w=None,
            )  # fmt: skip
        live, control = self._fleet.live, self._fleet.control
        seen, online, held = int(live.seen_mono_ms[slot]), int(live.online[slot]), Held(int(control.held[slot]))
        age_s = None if seen == NEVER_MS else (self._clock.mono_ms() - seen) / 1000
        return DeviceState(
            device=device_fields(device),
            steerable=bool(self._fleet.nameplate.steerable[slot]),
            online=None if online < 0 else bool(online),
            reading_age_s=age_s,
            soc_pct=_known(live.soc_pct[slot]),
            battery_w=_known(live.battery_w[slot]),
            reserve_pct=_known(live.reserve_pct[slot]),
            held=held.name.lower(),
            setpoint_w=int(control.setpoint_w[slot]) if held is Held.CONTROLLED else None,
            session=self._session(slot),
        )

    def _session(self, slot: int) -> SessionState | None:
        session = self._sessions.get(slot)
        if session is None:
            return None
        return SessionState(state=session.state.value, why=session.why, variant=session.variant)


class EventView:
    """Events with what they deliver; `members` only where one event is asked for."""

    def __init__(self, *, fleet: Fleet, control: Control, clock: Clock) -> None:
        self._fleet = fleet
        self._control = control
        self._clock = clock

    def list(self) -> list[EventStatus]:
        return [self._status(report, members=False) for report in self._control.reports()]

    def one(self, event_id: str) -> EventStatus | None:
        report = self._control.report(event_id)
        return None if report is None else self._status(report, members=True)

    def _status(self, report: EventReport, *, members: bool) -> EventStatus:
        request = report.entry.request
        running = report.entry.state is EventState.ACTIVE
        return EventStatus(
            id=request.id,
            revision=request.revision,
            kind=request.kind.value,
            program=request.program,
            state=report.entry.state.value,
            start=rfc3339(request.start_ms),
            end=rfc3339(request.end_ms),
            priority=request.priority,
            target_w=request.target_w,
            commanded_w=report.commanded_w if running else None,
            delivered_w=report.delivered_w if running else None,
            unserved_w=report.unserved_w if running else None,
            devices=len(report.members),
            members=[self._member(slot, running=running) for slot in report.members.tolist()] if members else None,
        )

    def _member(self, slot: int, *, running: bool) -> MemberBody:
        control, live = self._fleet.control, self._fleet.live
        held = Held(int(control.held[slot]))
        bits = self._control.reasons_of(slot)
        return MemberBody(
            device=self._fleet.ids[slot],
            status=self._word(slot, held, running=running),
            setpoint_w=int(control.setpoint_w[slot]) if held is Held.CONTROLLED else None,
            battery_w=_known(live.battery_w[slot]),
            limits=reason_names(bits),
        )

    def _word(self, slot: int, held: Held, *, running: bool) -> str:
        control, live = self._fleet.control, self._fleet.live
        if held is Held.LEFT:
            return "left"
        if not running:
            return "released" if held is Held.FREE else "releasing"
        if live.online[slot] == 0:
            return "offline"
        if control.result[slot] == CommandResult.REFUSED:
            return "refused"
        if held is not Held.CONTROLLED:
            return "scheduled"
        if control.cmd_applied[slot] < control.cmd_sent[slot]:
            return "sent"
        off_w = abs(live.battery_w[slot] - control.setpoint_w[slot])
        close = not np.isnan(off_w) and off_w <= max(200.0, 0.1 * abs(float(control.setpoint_w[slot])))
        return "delivering" if close else "acknowledged"
