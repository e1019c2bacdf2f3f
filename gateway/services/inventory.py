"""Enrollment: rows from a file or a request become devices, are journalled, then get a slot in the fleet."""

import asyncio
import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.columns import Held
from gateway.domain.fleet.device import Connection, Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import ID_PATTERN, DeviceId
from gateway.ports.journal import Change, ControlEnded, DeviceEnrolled, Journal, PriorRestored
from gateway.profiles.compile import Codec
from gateway.services.connection_row import (
    Address,
    Line,
    Parameters,
    Place,
    SecretReference,
    Units,
    connection_faults,
    place_of,
)
from gateway.services.moves import Ties, moves, tied, twice, who_goes_where

MAX_IMPORT_BYTES = 64 << 20
MAX_IMPORT_ROWS = 200_000
MAX_REPORTED = 1_000
ENROLL_SLICE = 1_000
MAY_HOLD_SECRETS = ("address", "parameters", "secret", "username")
NOT_STEERED = "control of this product is experimental; telemetry only, until the row says experimental"


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _flag(value: object) -> object:
    words: dict[object, bool] = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


def _blank_is_no(value: object) -> object:
    return False if isinstance(value, str) and not value.strip() else _flag(value)


def _blank_is_one(value: object) -> object:
    text = value.strip() if isinstance(value, str) else value
    return {"": 1, "1": 1, "3": 3}.get(text, value) if isinstance(text, str) else value


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return value


NotFlag = BeforeValidator(_no_flag)
Watts = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False), NotFlag]
SiteLimit = Annotated[float | Literal["unlimited"] | None, NotFlag, BeforeValidator(_blank_is_none)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, Field(max_length=64)]


class DeviceFields(BaseModel):
    """One device as everybody may see it. Ratings in W and Wh on the AC side; percent of usable capacity.

    A site limit is a number of W, `unlimited`, or absent = unknown = not allowed. `site_phase_w_max` the most one phase
    of the meter may carry, where that is known; `phases` the battery feeds. `fuse_protected`: a device in the home
    keeps its main fuse from being overloaded; without one there is no charging from the grid. `inverter_w_max` absent =
    the battery has an inverter of its own. `address` scheme://host[:port] where the gateway connects to the device,
    `units` Modbus unit ids where they are not the profile's, `parameters` what an installer writes down.
    `experimental`: control may rest on facts of the profile that nobody has verified or documented.
    """

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    profile: Text
    site: Annotated[str, Field(min_length=1, max_length=64)]
    feeder: Text = ""
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list, max_length=32)
    capacity_wh: Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False), NotFlag]
    discharge_w_max: Watts
    charge_w_max: Watts
    inverter_w_max: Annotated[Watts | None, BeforeValidator(_blank_is_none)] = None
    reserve_pct: Annotated[float, Field(ge=0, le=100), NotFlag]
    export_allowed: Flag = False
    grid_charge_allowed: Flag = False
    site_import_w_max: SiteLimit = None
    site_export_w_max: SiteLimit = None
    site_phase_w_max: Annotated[Watts | None, BeforeValidator(_blank_is_none)] = None
    phases: Annotated[Literal[1, 3], BeforeValidator(_blank_is_one)] = 1
    fuse_protected: Annotated[bool, BeforeValidator(_blank_is_no)] = False
    address: Address = ""
    units: Units = Field(default_factory=dict)
    parameters: Parameters = Field(default_factory=dict)
    username: Line = ""
    experimental: Annotated[bool, BeforeValidator(_blank_is_no)] = False

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [tag.strip() for tag in value.split(";") if tag.strip()] if isinstance(value, str) else value

    @field_validator("site_import_w_max", "site_export_w_max")
    @classmethod
    def _limit(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and (value < 0 or not math.isfinite(value)):
            raise ValueError("a site limit is a number of W >= 0, `unlimited`, or absent")
        return value


class DeviceRow(DeviceFields):
    """One device as a file or request names it. `secret` is a reference, `env:NAME` or `file:/path`."""

    secret: SecretReference = ""

    def device(self) -> Device:
        return Device(
            id=DeviceId(self.id),
            profile=self.profile,
            site=self.site,
            feeder=self.feeder,
            tags=tuple(sorted(set(self.tags))),
            capacity_wh=self.capacity_wh,
            discharge_w_max=self.discharge_w_max,
            charge_w_max=self.charge_w_max,
            inverter_w_max=self.inverter_w_max,
            reserve_pct=self.reserve_pct,
            export_allowed=self.export_allowed,
            grid_charge_allowed=self.grid_charge_allowed,
            site_import_w_max=_watts(self.site_import_w_max),
            site_export_w_max=_watts(self.site_export_w_max),
            site_phase_w_max=self.site_phase_w_max,
            phases=self.phases,
            fuse_protected=self.fuse_protected,
            connection=self._connection(),
            experimental=self.experimental,
        )

    def _connection(self) -> Connection | None:
        if not (self.address or self.units or self.parameters or self.username or self.secret):
            return None
        return Connection(
            url=self.address,
            units=tuple(sorted(self.units.items())),
            parameters=tuple(sorted(self.parameters.items())),
            username=self.username,
            secret=self.secret,
        )


def _watts(limit: float | str | None) -> float | None:
    return math.inf if limit == "unlimited" else float(limit) if limit is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that was not imported: its line in the input (1 = first) and why."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A row that was imported, and what should be known about it."""

    line: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What an import holds: good devices with their lines, every bad row, and what should be known about good ones."""

    devices: list[Device]
    bad: list[BadRow]
    notes: list[Note]
    lines: Mapping[DeviceId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of an import. `enrolled` counts devices that were new or changed."""

    rows: int
    enrolled: int
    bad: list[BadRow]
    notes: list[Note]


def parse_rows(
    text: str,
    *,
    form: Literal["csv", "jsonl"],
    profiles: Mapping[str, Codec],
    places: Mapping[Place, DeviceId] | None = None,
) -> Parsed:
    """Read an inventory. Good rows are kept, every bad one is named with its line. `places` are taken already. Raises
    InvalidInput if it is no inventory at all (too large, no header, unknown columns)."""
    if len(text) > MAX_IMPORT_BYTES:
        raise InvalidInput([f"the inventory is larger than {MAX_IMPORT_BYTES} bytes"])
    rows = _Rows(profiles)
    bad: list[BadRow] = []
    source = _csv_rows(text) if form == "csv" else _json_rows(text)
    for number, (line, row) in enumerate(source):
        if number >= MAX_IMPORT_ROWS:
            raise InvalidInput([f"line {line}: more than {MAX_IMPORT_ROWS} rows"])
        problems = [row] if isinstance(row, str) else rows.take(line, row)
        if problems:
            bad.append(BadRow(line=line, problem="; ".join(problems)))
    bad += rows.give_up(places or {})
    good = rows.good.values()
    notes = [Note(line=row.line, note=f"{row.device.id}: {NOT_STEERED}") for row in good if row.unsteered]
    return Parsed(
        devices=[row.device for row in good],
        bad=sorted(bad, key=lambda row: row.line),
        notes=notes,
        lines={row.device.id: row.line for row in good},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Good:
    """A row that was taken: its device, where that answers, whether it is read only."""

    line: int
    device: Device
    place: Place | None
    unsteered: bool


class _Rows:
    """Rows of one inventory, checked one after the other."""

    def __init__(self, profiles: Mapping[str, Codec]) -> None:
        self.good: dict[DeviceId, _Good] = {}
        self._profiles = profiles
        self._places: dict[Place, DeviceId] = {}

    def take(self, line: int, row: dict[str, Any]) -> list[str]:
        """Take a row, or say what is wrong with it."""
        try:
            parsed = DeviceRow.model_validate(row)
        except ValidationError as error:
            return [_problem(e) for e in error.errors()]
        codec = self._profiles.get(parsed.profile)
        if codec is None:
            return [f"profile: {parsed.profile!r} is not known"]
        device = parsed.device()
        if device.id in self.good:
            return [f"id: {parsed.id!r} stands on line {self.good[device.id].line} already"]
        problems = list(connection_faults(codec.document, device.connection))
        if problems:
            return problems
        place = place_of(codec.document, device)
        if place is not None and self._places.setdefault(place, device.id) != device.id:
            return [twice(device.id, self._places[place])]
        unsteered = codec.facts.experimental and not device.experimental
        self.good[device.id] = _Good(line=line, device=device, place=place, unsteered=unsteered)
        return []

    def give_up(self, taken: Mapping[Place, DeviceId]) -> Iterator[BadRow]:
        """Rows at the place of an enrolled device that does not move away itself. Who stays may keep others out."""
        lost = True
        while lost:
            lost = False
            for row in list(self.good.values()):
                holder = taken.get(row.place) if row.place is not None else None
                if holder is not None and holder not in self.good:
                    lost = True
                    del self.good[row.device.id]
                    yield BadRow(line=row.line, problem=twice(row.device.id, holder))


def _problem(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "row"
    if place.startswith(MAY_HOLD_SECRETS):
        return f"{place}: {error['msg']}"
    return f"{place}: {error['msg']} (found {str(error.get('input'))[:40]!r})"


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text), restkey="", strict=True)
    try:
        header = reader.fieldnames or []
    except csv.Error as error:
        raise InvalidInput([f"line 1: not CSV: {error}"]) from error
    unknown = [name for name in header if name not in DeviceRow.model_fields]
    missing = [n for n, f in DeviceRow.model_fields.items() if f.is_required() and n not in header]
    if unknown or missing:
        raise InvalidInput(
            [f"line 1: unknown column {n!r}" for n in unknown] + [f"line 1: no column {n!r}" for n in missing]
        )
    while True:
        try:
            row: dict[Any, Any] | None = next(reader, None)
        except csv.Error as error:
            # the reader of dictionaries counts a line only once it has been read
            yield reader.reader.line_num, f"not CSV: {error}"
            continue
        if row is None:
            return
        if "" in row or None in row.values():
            yield reader.line_num, f"{len(header)} columns expected"
        else:
            yield reader.line_num, row


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            yield line, f"not JSON: {error}"
            continue
        yield line, row if isinstance(row, dict) else "not a JSON object"


class Enrolled(Mapping[DeviceId, Device]):
    """Devices as they are enrolled, read back from the fleet's columns: one object per device would cost memory and
    collections. `orphans` are those whose profile is not installed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.orphans: dict[DeviceId, Device] = {}

    def __getitem__(self, device: DeviceId) -> Device:
        slot = self._fleet.slot_of.get(device)
        return self.orphans[device] if slot is None else self._fleet.device(slot)

    def __contains__(self, device: object) -> bool:
        return device in self._fleet.slot_of or device in self.orphans

    def __iter__(self) -> Iterator[DeviceId]:
        return chain(self._fleet.ids, self.orphans)

    def __len__(self) -> int:
        return self._fleet.n + len(self.orphans)

    def page(self, offset: int, limit: int) -> list[DeviceId]:
        """`limit` ids from `offset` on, in order of enrollment."""
        return list(islice(self, offset, offset + limit))


class Inventory:
    """The devices of this gateway: journalled first, then given a slot. `saved` are the devices whose settings from
    before control are still to be restored, kept true by who restores them."""

    def __init__(
        self, *, fleet: Fleet, journal: Journal, codecs: Mapping[str, Codec], saved: Collection[DeviceId] = ()
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._codecs = codecs
        self._places: dict[Place, DeviceId] = {}
        self._ties = Ties(fleet, saved)
        self._one_at_a_time = asyncio.Lock()
        self.devices = Enrolled(fleet)

    @property
    def profiles(self) -> Mapping[str, Codec]:
        """The installed profiles, by name."""
        return self._codecs

    @property
    def places(self) -> dict[Place, DeviceId]:
        """Where enrolled devices answer, as it is now."""
        return dict(self._places)

    def restore(self, devices: Sequence[Device], controlled: Collection[DeviceId] = ()) -> list[DeviceId]:
        """Enroll what the journal holds; returns the ids whose profile is no longer installed. `controlled` are its
        release plans: those devices are under control until control says otherwise."""
        self._fleet.reserve(len(devices))
        for device in devices:
            codec = self._codecs.get(device.profile)
            if codec is None:
                self.devices.orphans[device.id] = device
                continue
            self._fleet.enroll(device, codec.facts)
            place = self._place(device)
            if place is not None:
                self._places.setdefault(place, device.id)
        self._fleet.compact()
        slots = [self._fleet.slot_of[device] for device in controlled if device in self._fleet.slot_of]
        self._fleet.control.held[slots] = Held.CONTROLLED
        self._ties.planned = frozenset(device for device in controlled if device not in self._fleet.slot_of)
        return list(self.devices.orphans)

    async def enroll(self, devices: list[Device]) -> int:
        """Make `devices` durable and part of the fleet; returns how many were new or changed. The reserve of a known
        device is raised, never lowered: that is for its owner to do, on the device. Raises InvalidInput, and enrolls
        none, where a device answers at the place of another one, or would change its place or product while it is
        not free."""
        async with self._one_at_a_time:
            asked = self._asked(devices)
            if asked.problems:
                raise InvalidInput(list(asked.problems.values()))
            return await self._take(asked)

    async def take(self, parsed: Parsed) -> Imported:
        """Make the good rows of an import durable and part of the fleet, as `enroll` does, but row by row: one that
        cannot be taken is named with its line, the others are taken."""
        async with self._one_at_a_time:
            asked = self._asked(parsed.devices)
            enrolled = await self._take(asked)
        lines = {parsed.lines[device]: problem for device, problem in asked.problems.items()}
        bad = parsed.bad + [BadRow(line=line, problem=problem) for line, problem in lines.items()]
        return Imported(
            rows=len(parsed.devices) + len(parsed.bad),
            enrolled=enrolled,
            bad=sorted(bad, key=lambda row: row.line),
            notes=[note for note in parsed.notes if note.line not in lines],
        )

    def _asked(self, devices: Sequence[Device]) -> "_Asked":
        """What an import asks for, and what of it cannot be. Nothing is awaited between this and `Fleet.moving`."""
        wanted: dict[DeviceId, Device] = {}
        moved: list[DeviceId] = []
        problems: dict[DeviceId, str] = {}
        for given in devices:
            known = self.devices.get(given.id)
            device = _merged(given, known)
            if device is None:
                continue
            wanted[device.id] = device
            changes = moves(known, device, self._codecs) if known is not None else {}
            if changes:
                moved.append(device.id)
                why = self._ties.of(device.id)
                if why:
                    problems[device.id] = tied(device.id, why, changes)
        places = who_goes_where({name: self._place(device) for name, device in wanted.items()}, self._places, problems)
        return _Asked(
            devices=[device for device in wanted.values() if device.id not in problems],
            moved=[device for device in moved if device not in problems],
            places=places,
            problems=problems,
        )

    async def _take(self, asked: "_Asked") -> int:
        """Durable first, then part of the fleet. Meanwhile nobody takes a device that moves."""
        slots = {self._fleet.slot_of[device] for device in asked.moved if device in self._fleet.slot_of}
        self._fleet.moving |= slots
        try:
            changes: list[Change] = [DeviceEnrolled(device=device) for device in asked.devices]
            if asked.moved:
                # They are free. If the journal could not be told so when it came to be, it would have a release, and
                # settings, for what answers there from now on.
                restored = [PriorRestored(device=device) for device in asked.moved]
                changes = [ControlEnded(devices=tuple(asked.moved), reason="moved"), *restored, *changes]
            if changes:
                await self._journal.commit(changes)
            self._places = asked.places
            self._fleet.reserve(self._fleet.n + sum(device.id not in self.devices for device in asked.devices))
            for count, device in enumerate(asked.devices):
                self.devices.orphans.pop(device.id, None)
                # The owner may have raised the reserve while the journal was busy.
                newest = _merged(device, self.devices.get(device.id)) or device
                slot = self._fleet.enroll(newest, self._codecs[device.profile].facts)
                if slot in self._fleet.moving:
                    self._fleet.forget(slot)
                    self._fleet.moving.discard(slot)
                if count % ENROLL_SLICE == ENROLL_SLICE - 1:
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
    """What is to be enrolled of an import: devices that are new or changed, those of them that move, who answers where
    afterwards; and what cannot be, by device."""

    devices: list[Device]
    moved: list[DeviceId]
    places: dict[Place, DeviceId]
    problems: dict[DeviceId, str]


def _merged(device: Device, known: Device | None) -> Device | None:
    """`device` as it is to be enrolled, None if nothing changes."""
    if known is None:
        return device
    device = replace(device, reserve_pct=max(device.reserve_pct, known.reserve_pct))
    return None if device == known else device
