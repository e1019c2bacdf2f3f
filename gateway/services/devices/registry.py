"""Registers devices: rows from a file or a request are journalled, then get a slot in the fleet.

A device that is to have another address or product, or to be removed, is handed back where it is first: until it is
free, that is a departure.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.clock import Clock
from gateway.domain.control.authority import free
from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import (
    AuditDoor,
    Change,
    ControlEnded,
    DepartureAsked,
    DepartureOver,
    DeviceRegistered,
    DeviceRemoved,
    PriorRestored,
    Setting,
)
from gateway.domain.journal.stored import Departure
from gateway.domain.registry.connection import ConnectionEnd
from gateway.domain.types import DeviceId
from gateway.ports.journal import Journal
from gateway.profiles.compile import Codec
from gateway.services.devices.connection_rows import (
    Place,
    place_of,
)
from gateway.services.devices.import_rows import Note, Parsed
from gateway.services.devices.moves import (
    Placed,
    Ties,
    another_battery,
    goes_along,
    in_words,
    moves,
    placed,
    who_goes_where,
)
from gateway.services.devices.registered import RegisteredDevices
from gateway.services.devices.row_faults import BadRow, RowFault

log = logging.getLogger(__name__)

REGISTER_SLICE, CHANGES_SLICE = 100, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import. `registered` counts devices that were new or changed, `departing` those that change once
    they are handed back where they are."""

    rows: int
    registered: int
    departing: int
    bad: list[BadRow]
    notes: list[Note]


class DeviceRegistry:
    """The devices of this gateway: journalled first, then given a slot. `saved`: settings from before control that are
    still to be restored; whoever restores them keeps it up to date. `departures`: devices that leave their place once
    they are free."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        journal: Journal,
        codecs: Mapping[str, Codec],
        clock: Clock,
        saved: MutableMapping[DeviceId, Mapping[str, Setting]] | None = None,
    ) -> None:
        saved = {} if saved is None else saved
        self._fleet = fleet
        self._journal = journal
        self._codecs = codecs
        self._clock = clock
        self._saved = saved
        self._places: dict[Place, DeviceId] = {}
        self._ties = Ties(fleet, saved)
        self._one_at_a_time = asyncio.Lock()
        self._taken: dict[DeviceId, str] = {}
        self.departures: dict[DeviceId, Departure] = {}
        self.devices = RegisteredDevices(fleet)

    @property
    def profiles(self) -> Mapping[str, Codec]:
        """The installed profiles, by name."""
        return self._codecs

    @property
    def places(self) -> dict[Place, DeviceId]:
        """Where registered devices answer now."""
        return dict(self._places)

    def load(
        self,
        devices: Sequence[Device],
        controlled: Collection[DeviceId] = (),
        *,
        departures: Sequence[Departure] = (),
        removed: Sequence[DeviceId] = (),
    ) -> list[DeviceId]:
        """Register the journal's devices; returns the ids whose profile is no longer installed. `controlled` are its
        release plans: those devices are under control until control finds otherwise. Those `removed` lately have a slot
        for what they left open."""
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
        for name in removed:
            self._fleet.keep(name)
        for departure in departures:
            if departure.device in self.devices:
                self._departs(departure)
        return list(self.devices.orphans)

    async def register(self, devices: list[Device], *, by: str = "operator", door: AuditDoor = AuditDoor.REST) -> int:
        """Make `devices` durable and part of the fleet; returns how many were new or changed. The reserve of a known
        device is raised, never lowered: only its owner does that, on the device. One that is not free and is to have
        another place or product departs. Raises InvalidInput, and registers none, where a device answers at the place
        of another one."""
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
            waiting = await self._waiting(parsed, asked.leaving)
            kept = [*self._kept(parsed)]
        lines = {parsed.lines[device]: fault for device, fault in asked.problems.items()}
        bad = parsed.bad + [BadRow(line=line, faults=(fault,)) for line, fault in lines.items()]
        notes = (*parsed.notes, *kept, *waiting)
        return Imported(
            rows=len(parsed.devices) + len(parsed.bad),
            registered=registered,
            departing=len(asked.leaving),
            bad=sorted(bad, key=lambda row: row.line),
            notes=sorted((note for note in notes if note.line not in lines), key=lambda note: note.line),
        )

    async def remove(
        self, devices: Sequence[DeviceId], *, by: str = "operator", door: AuditDoor = AuditDoor.REST
    ) -> list[DeviceId]:
        """Remove devices; returns those that are not free yet: they are handed back first. Raises InvalidInput, and
        removes none, where one is not registered."""
        async with self._one_at_a_time:
            unknown = [device for device in devices if device not in self.devices]
            if unknown:
                raise InvalidInput([f"{device!r} is not registered" for device in unknown])
            now_ms = self._clock.now().utc_ms
            leaving = [
                Departure(device=device, wanted=None, since_ms=now_ms, by=by, door=door)
                for device in dict.fromkeys(devices)
            ]
            await self._journal.commit([_asked_of(departure) for departure in leaving])
            for departure in leaving:
                self._departs(departure)
        await self.depart()
        return [device for device in devices if device in self.departures]

    async def abandon(self, device: DeviceId, *, why: str, by: str, door: AuditDoor = AuditDoor.REST) -> None:
        """Give up what is left under control at the place of a device that departs: it goes at once. Its settings from
        before control are forgotten, and written to nothing. Raises InvalidInput where it does not depart."""
        async with self._one_at_a_time:
            departure = self.departures.get(device)
            if departure is None:
                raise InvalidInput([f"{device!r} does not leave its place"])
            over = DepartureOver(devices=(device,), reason=ConnectionEnd.ABANDONED, why=why, by=by, door=door)
            # what it is to become stays asked for
            await self._journal.commit([over, _asked_of(departure)])
            self._saved.pop(device, None)
            self._ties.planned -= {device}
            slot = self._fleet.slot_of.get(device)
            if slot is not None:
                free(self._fleet.control, np.array([slot]))
            log.warning("what is left under control was abandoned", extra={"device": device, "by": by, "reason": why})
        await self.depart()

    async def depart(self) -> list[DeviceId]:
        """Let those go that are free by now; returns them."""
        async with self._one_at_a_time:
            due = [known for known in self.departures.values() if not self._tied(known.device, known.wanted)]
            if not due:
                return []
            removed = [known.device for known in due if known.wanted is None]
            wanted = [self._with_reserve(known.wanted) for known in due if known.wanted is not None]
            problems = {device.id: _missing(device) for device in wanted if device.profile not in self._codecs}
            where = dict.fromkeys(removed) | {device.id: self._place(device) for device in wanted}
            places = who_goes_where(where, self._places, problems)
            self._taken = {device: fault.problem for device, fault in problems.items()}
            wanted = [device for device in wanted if device.id not in problems]
            moved = [device.id for device in wanted]
            if wanted or removed:
                asked = _Asked(devices=wanted, moved=moved, places=places, removed=removed)
                await self._apply(asked, by="", door=AuditDoor.GATEWAY)
            return moved + removed

    def waits_for(self, device: DeviceId) -> str:
        """What keeps a device that departs, in words."""
        return self._ties.of(device) or self._taken.get(device, "about to go")

    async def _waiting(self, parsed: Parsed, leaving: Sequence[Device]) -> list[Note]:
        """For whoever imported them: what becomes of devices that depart."""
        notes = []
        for count, device in enumerate(leaving):
            changes = in_words(moves(self.devices[device.id], device, self._codecs))
            why = self._ties.of(device.id) or "at a place that another one still leaves"
            note = f"{device.id}: is {why}; it changes {changes} once it is free"
            notes.append(Note(line=parsed.lines[device.id], note=note))
            if count % REGISTER_SLICE == REGISTER_SLICE - 1:
                await asyncio.sleep(0)
        return notes

    def _with_reserve(self, device: Device) -> Device:
        """With the reserve that counts now: that of its row counted at once, and its owner may have chosen since."""
        return replace(device, reserve_pct=self.devices[device.id].reserve_pct)

    def _departs(self, departure: Departure) -> None:
        self.departures[departure.device] = departure
        slot = self._fleet.slot_of.get(departure.device)
        if slot is not None:
            self._fleet.departing.add(slot)

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
        changed: set[DeviceId] = set()
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
            if known is not None and moves(known, device, self._codecs):
                changed.add(device.id)
        goes = await self._placed(where, {device: wanted[device] for device in changed})
        stays = {**goes.problems, **dict.fromkeys(goes.leaving)}
        moved = [device for device in changed if device not in stays]
        leaving = [wanted[device] for device in goes.leaving]
        # a higher reserve waits for nothing
        raised = [
            replace(known, reserve_pct=device.reserve_pct)
            for device in leaving
            if (known := self.devices[device.id]).reserve_pct < device.reserve_pct and known.profile in self._codecs
        ]
        settled = {given.id for given in devices} - {*stays, *moved}
        return _Asked(
            devices=[*(device for device in wanted.values() if device.id not in stays), *raised],
            moved=moved,
            new=new,
            places=goes.places,
            problems=goes.problems,
            leaving=leaving,
            withdrawn=[device for device in self.departures if device in settled],
        )

    async def _placed(self, where: Mapping[DeviceId, Place | None], changed: Mapping[DeviceId, Device]) -> Placed:
        """Which device answers where afterwards, who cannot, and who has to wait, as of the last await."""
        tied = None
        if len(where) > CHANGES_SLICE:
            tied = self._all_tied(changed)
            found = await asyncio.to_thread(placed, where, self._places, changed, tied)
        tied_now = self._all_tied(changed)
        return found if tied == tied_now else placed(where, self._places, changed, tied_now)

    def _all_tied(self, changed: Mapping[DeviceId, Device]) -> set[DeviceId]:
        """The devices that cannot move now because they are not free."""
        return {device for device, wanted in changed.items() if self._tied(device, wanted)}

    def _tied(self, device: DeviceId, wanted: Device | None) -> bool:
        if not self._ties.of(device):
            return False
        known = None if wanted is None else self.devices.get(device)
        return known is None or wanted is None or not goes_along(known, wanted, self._fleet)

    async def _apply(self, asked: "_Asked", *, by: str, door: AuditDoor) -> int:
        """Journal first, then change the fleet. Meanwhile a device that moves does not come under control."""
        over = [device for device in (*asked.moved, *asked.removed) if device in self.departures]
        slots = {
            self._fleet.slot_of[device] for device in (*asked.moved, *asked.removed) if device in self._fleet.slot_of
        }
        now_ms = self._clock.now().utc_ms
        leaving = [
            Departure(device=device.id, wanted=device, since_ms=now_ms, by=by, door=door) for device in asked.leaving
        ]
        self._fleet.moving |= slots
        try:
            changes: list[Change] = []
            for count, device in enumerate(asked.devices):
                who, through = self._asker(device.id, by, door)
                changes.append(DeviceRegistered(device=device, by=who, door=through))
                if count % CHANGES_SLICE == CHANGES_SLICE - 1:
                    await asyncio.sleep(0)
            for name in asked.removed:
                who, through = self._asker(name, by, door)
                changes.append(DeviceRemoved(device=name, by=who, door=through))
            # who is tied all the same takes its release plan and its settings along
            gone = tuple(name for name in (*asked.moved, *asked.removed) if not self._ties.of(name))
            if gone:
                # They are free. Where the journal missed that, it would still have a release plan and settings, for
                # whatever answers there from now on.
                restored = [PriorRestored(device=device) for device in gone]
                changes = [ControlEnded(devices=gone, reason="moved"), *restored, *changes]
            for reason, names in (("gone", over), ("withdrawn", asked.withdrawn)):
                if names:
                    changes.append(DepartureOver(devices=tuple(names), reason=reason, by=by, door=door))
            changes += [_asked_of(departure) for departure in leaving]
            if changes:
                await self._journal.commit(changes)
            self._places = asked.places
            await self._registered(asked)
            for count, name in enumerate(asked.removed):
                self.devices.orphans.pop(name, None)
                if name in self._fleet.slot_of:
                    self._fleet.unregister(name)
                if count % REGISTER_SLICE == REGISTER_SLICE - 1:
                    await asyncio.sleep(0)
            for name in (*over, *asked.withdrawn):
                self._no_longer_departs(name)
            for departure in leaving:
                self._departs(departure)
        finally:
            self._fleet.moving -= slots
        self._fleet.compact()
        return len(asked.devices)

    async def _registered(self, asked: "_Asked") -> None:
        """Give devices that are durable their slots."""
        self._fleet.reserve(self._fleet.n + asked.new)
        for count, device in enumerate(asked.devices):
            self.devices.orphans.pop(device.id, None)
            # The owner may have raised the reserve while the journal was busy.
            known = self.devices.get(device.id)
            newest = _merged(device, known) or device
            slot = self._fleet.register(newest, self._codecs[device.profile].facts)
            if slot in self._fleet.moving:
                self._fleet.forget(slot)
                self._fleet.moving.discard(slot)
                if known is not None and another_battery(known, device):
                    self._fleet.renewed.add(slot)
            if count % REGISTER_SLICE == REGISTER_SLICE - 1:
                await asyncio.sleep(0)

    def _no_longer_departs(self, device: DeviceId) -> None:
        del self.departures[device]
        self._taken.pop(device, None)
        slot = self._fleet.slot_of.get(device)
        if slot is not None:
            self._fleet.departing.discard(slot)

    def _asker(self, device: DeviceId, by: str, door: AuditDoor) -> tuple[str, AuditDoor]:
        """Who asked for a change, and through which door: of one that waited, whoever asked for it then."""
        known = self.departures.get(device)
        return (by, door) if known is None else (known.by, known.door)

    def _place(self, device: Device) -> Place | None:
        codec = self._codecs.get(device.profile)
        return None if codec is None else place_of(codec.document, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What to register of an import: devices that are new or changed, those of them that move, how many are `new` at
    most, which device answers where afterwards; those that wait (`leaving`), that wait no more (`withdrawn`), that go
    for good (`removed`); and the problems of the others, by device."""

    devices: list[Device]
    moved: list[DeviceId]
    places: dict[Place, DeviceId]
    new: int = 0
    problems: dict[DeviceId, RowFault] = field(default_factory=dict)
    leaving: list[Device] = field(default_factory=list)
    withdrawn: list[DeviceId] = field(default_factory=list)
    removed: list[DeviceId] = field(default_factory=list)


def _asked_of(departure: Departure) -> DepartureAsked:
    return DepartureAsked(device=departure.device, wanted=departure.wanted, by=departure.by, door=departure.door)


def _missing(device: Device) -> RowFault:
    return RowFault(column="profile", problem=f"the profile {device.profile!r} is not installed")


def _merged(device: Device, known: Device | None) -> Device | None:
    """`device` as it should be registered, None if nothing changes."""
    if known is None:
        return device
    device = replace(device, reserve_pct=max(device.reserve_pct, known.reserve_pct))
    return None if device == known else device
