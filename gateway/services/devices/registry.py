"""Registers devices: rows from a file or a request are journalled, then get a slot in the fleet."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import AuditDoor, Change, ControlEnded, DeviceRegistered, PriorRestored
from gateway.domain.types import DeviceId
from gateway.ports.journal import Journal
from gateway.profiles.compile import Codec
from gateway.services.devices.connection_rows import (
    Place,
    place_of,
)
from gateway.services.devices.import_rows import Note, Parsed
from gateway.services.devices.moves import Ties, moves, tied, who_goes_where
from gateway.services.devices.row_faults import BadRow, RowFault

REGISTER_SLICE, CHANGES_SLICE = 100, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import. `registered` counts devices that were new or changed."""

    rows: int
    registered: int
    bad: list[BadRow]
    notes: list[Note]


class RegisteredDevices(Mapping[DeviceId, Device]):
    """Registered devices, read back from the fleet's columns: one object per device would cost memory and garbage
    collection. `orphans` are those whose profile is not installed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.orphans: dict[DeviceId, Device] = {}

    def __getitem__(self, device: DeviceId) -> Device:
        slot = self._fleet.slot_of.get(device)
        return self.orphans[device] if slot is None else self._fleet.device(slot)

    def __contains__(self, device: object) -> bool:
        return device in self._fleet.slot_of or device in self.orphans

    def __iter__(self) -> Iterator[DeviceId]:
        return chain((self._fleet.ids[slot] for slot in self._fleet.slot_of.values()), self.orphans)

    def __len__(self) -> int:
        return len(self._fleet.slot_of) + len(self.orphans)

    def page(self, offset: int, limit: int) -> list[DeviceId]:
        """`limit` ids from `offset` on, in order of registration."""
        return list(islice(self, offset, offset + limit))


class DeviceRegistry:
    """The devices of this gateway: journalled first, then given a slot. `saved`: the devices whose settings from before
    control are still to be restored; whoever restores them keeps it up to date."""

    def __init__(
        self, *, fleet: Fleet, journal: Journal, codecs: Mapping[str, Codec], saved: Collection[DeviceId] = ()
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._codecs = codecs
        self._places: dict[Place, DeviceId] = {}
        self._ties = Ties(fleet, saved)
        self._one_at_a_time = asyncio.Lock()
        self.devices = RegisteredDevices(fleet)

    @property
    def profiles(self) -> Mapping[str, Codec]:
        """The installed profiles, by name."""
        return self._codecs

    @property
    def places(self) -> dict[Place, DeviceId]:
        """Where registered devices answer now."""
        return dict(self._places)

    def load(self, devices: Sequence[Device], controlled: Collection[DeviceId] = ()) -> list[DeviceId]:
        """Register the journal's devices; returns the ids whose profile is no longer installed. `controlled` are its
        release plans: those devices are under control until control finds otherwise."""
        self._fleet.reserve(len(devices))
        for device in devices:
            codec = self._codecs.get(device.profile)
            if codec is None:
                self.devices.orphans[device.id] = device
                self._fleet.keep(device.id)
                continue
            self._fleet.register(device, codec.facts)
            place = self._place(device)
            if place is not None:
                self._places.setdefault(place, device.id)
        self._fleet.compact()
        slots = [self._fleet.slot_of[device] for device in controlled if device in self._fleet.slot_of]
        self._fleet.control.authority[slots] = Authority.CONTROLLED
        self._ties.planned = frozenset(device for device in controlled if device not in self._fleet.slot_of)
        return list(self.devices.orphans)

    async def register(self, devices: list[Device], *, by: str = "operator", door: AuditDoor = AuditDoor.REST) -> int:
        """Make `devices` durable and part of the fleet; returns how many were new or changed. The reserve of a known
        device is raised, never lowered: only its owner does that, on the device. Raises InvalidInput, and registers
        none, where a device answers at the place of another one, or would change its place or product while it is
        not free."""
        async with self._one_at_a_time:
            asked = await self._asked(devices)
            if asked.problems:
                raise InvalidInput([str(fault) for fault in asked.problems.values()])
            return await self._apply(asked, by=by, door=door)

    async def register_rows(
        self, parsed: Parsed, *, by: str = "operator", door: AuditDoor = AuditDoor.REST
    ) -> Imported:
        """Make the good rows of an import durable and part of the fleet, as `register` does, but row by row: one that
        cannot be registered is named with its line, the others are registered."""
        async with self._one_at_a_time:
            asked = await self._asked(parsed.devices)
            registered = await self._apply(asked, by=by, door=door)
            kept = [*self._kept(parsed)]
        lines = {parsed.lines[device]: fault for device, fault in asked.problems.items()}
        bad = parsed.bad + [BadRow(line=line, faults=(fault,)) for line, fault in lines.items()]
        return Imported(
            rows=len(parsed.devices) + len(parsed.bad),
            registered=registered,
            bad=sorted(bad, key=lambda row: row.line),
            notes=sorted((n for n in (*parsed.notes, *kept) if n.line not in lines), key=lambda note: note.line),
        )

    def _kept(self, parsed: Parsed) -> Iterator[Note]:
        """A note for each row with a lower reserve than its device has: it keeps the higher one."""
        slot_of, reserve_pct = self._fleet.slot_of, self._fleet.nameplate.owner_reserve_pct
        for device in parsed.devices:
            slot = slot_of.get(device.id)
            if slot is not None and reserve_pct[slot] > device.reserve_pct:
                yield Note(
                    line=parsed.lines[device.id],
                    note=f"{device.id}: keeps its reserve of {reserve_pct[slot]:g} %, not the lower "
                    f"{device.reserve_pct:g} % of the row; only its owner lowers it, on the device",
                )

    async def _asked(self, devices: Sequence[Device]) -> "_Asked":
        """What an import asks for, and which of it is not possible. Await nothing between this and `Fleet.moving`."""
        wanted: dict[DeviceId, Device] = {}
        where: dict[DeviceId, Place | None] = {}
        changed: dict[DeviceId, Mapping[str, str]] = {}
        new = 0
        for count, given in enumerate(devices):
            if count % REGISTER_SLICE == REGISTER_SLICE - 1:
                await asyncio.sleep(0)
            known = self.devices.get(given.id)
            device = _merged(given, known)
            if device is None:
                continue
            wanted[device.id], where[device.id] = device, self._place(device)
            new += known is None
            changes = moves(known, device, self._codecs) if known is not None else {}
            if changes:
                changed[device.id] = changes
        places, problems = await self._placed(where, changed)
        return _Asked(
            devices=[device for device in wanted.values() if device.id not in problems],
            moved=[device for device in changed if device not in problems],
            new=new,
            places=places,
            problems=problems,
        )

    async def _placed(
        self, where: Mapping[DeviceId, Place | None], changed: Mapping[DeviceId, Mapping[str, str]]
    ) -> tuple[dict[Place, DeviceId], dict[DeviceId, RowFault]]:
        """Which device answers where afterwards, and the problems of those that stay, as of the last await."""
        tied_then: dict[DeviceId, RowFault] | None = None
        if len(where) > CHANGES_SLICE:
            tied_then = self._tied(changed)
            problems = tied_then.copy()
            places = await asyncio.to_thread(who_goes_where, where, self._places, problems)
        tied_now = self._tied(changed)
        if tied_then != tied_now:
            problems = tied_now
            places = who_goes_where(where, self._places, problems)
        return places, problems

    def _tied(self, changed: Mapping[DeviceId, Mapping[str, str]]) -> dict[DeviceId, RowFault]:
        """The problems of devices that cannot move because they are not free."""
        ties = ((name, self._ties.of(name), changes) for name, changes in changed.items())
        return {name: tied(name, why, changes) for name, why, changes in ties if why}

    async def _apply(self, asked: "_Asked", *, by: str, door: AuditDoor) -> int:
        """Journal first, then change the fleet. Meanwhile a device that moves does not come under control."""
        slots = {self._fleet.slot_of[device] for device in asked.moved if device in self._fleet.slot_of}
        self._fleet.moving |= slots
        try:
            changes: list[Change] = []
            for count, device in enumerate(asked.devices):
                changes.append(DeviceRegistered(device=device, by=by, door=door))
                if count % CHANGES_SLICE == CHANGES_SLICE - 1:
                    await asyncio.sleep(0)
            if asked.moved:
                # They are free. Where the journal missed that, it would still have a release plan and settings, for
                # whatever answers there from now on.
                restored = [PriorRestored(device=device) for device in asked.moved]
                changes = [ControlEnded(devices=tuple(asked.moved), reason="moved"), *restored, *changes]
            if changes:
                await self._journal.commit(changes)
            self._places = asked.places
            self._fleet.reserve(self._fleet.n + asked.new)
            for count, device in enumerate(asked.devices):
                self.devices.orphans.pop(device.id, None)
                # The owner may have raised the reserve while the journal was busy.
                newest = _merged(device, self.devices.get(device.id)) or device
                slot = self._fleet.register(newest, self._codecs[device.profile].facts)
                if slot in self._fleet.moving:
                    self._fleet.forget(slot)
                    self._fleet.moving.discard(slot)
                if count % REGISTER_SLICE == REGISTER_SLICE - 1:
                    await asyncio.sleep(0)
        finally:
            self._fleet.moving -= slots
        self._fleet.compact()
        return len(asked.devices)

    def _place(self, device: Device) -> Place | None:
        codec = self._codecs.get(device.profile)
        return None if codec is None else place_of(codec.document, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What to register of an import: devices that are new or changed, those of them that move, how many are `new` at
    most, which device answers where afterwards; and the problems of the others, by device."""

    devices: list[Device]
    moved: list[DeviceId]
    new: int
    places: dict[Place, DeviceId]
    problems: dict[DeviceId, RowFault]


def _merged(device: Device, known: Device | None) -> Device | None:
    """`device` as it should be registered, None if nothing changes."""
    if known is None:
        return device
    device = replace(device, reserve_pct=max(device.reserve_pct, known.reserve_pct))
    return None if device == known else device
