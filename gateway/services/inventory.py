"""Enrollment: rows from a file or a request become devices, are journalled, then get a slot in the fleet."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import msgspec
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from gateway.domain.errors import InvalidInput
from gateway.domain.fleet import Fleet, ProductFacts
from gateway.domain.model import ID_PATTERN, Device, DeviceId
from gateway.ports import DeviceEnrolled, Journal

MAX_IMPORT_BYTES = 64 << 20
MAX_IMPORT_ROWS = 200_000
MAX_REPORTED = 1_000


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _flag(value: object) -> object:
    words: dict[object, bool] = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


Watts = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
SiteLimit = Annotated[float | Literal["unlimited"] | None, BeforeValidator(_blank_is_none)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, Field(max_length=64)]


class DeviceRow(BaseModel):
    """One device as a file or request names it. Ratings in W and Wh on the AC side; percent of usable capacity.

    A site limit is a number of W, `unlimited`, or absent = unknown = not allowed. `inverter_w_max` absent = the
    battery has an inverter of its own.
    """

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    profile: Text
    site: Annotated[str, Field(min_length=1, max_length=64)]
    feeder: Text = ""
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list, max_length=32)
    capacity_wh: Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False)]
    discharge_w_max: Watts
    charge_w_max: Watts
    inverter_w_max: Annotated[Watts | None, BeforeValidator(_blank_is_none)] = None
    reserve_pct: Annotated[float, Field(ge=0, le=100)]
    export_allowed: Flag = False
    grid_charge_allowed: Flag = False
    site_import_w_max: SiteLimit = None
    site_export_w_max: SiteLimit = None

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

    def device(self) -> Device:
        return Device(
            id=DeviceId(self.id),
            profile=self.profile,
            site=self.site,
            feeder=self.feeder,
            tags=tuple(self.tags),
            capacity_wh=self.capacity_wh,
            discharge_w_max=self.discharge_w_max,
            charge_w_max=self.charge_w_max,
            inverter_w_max=self.inverter_w_max,
            reserve_pct=self.reserve_pct,
            export_allowed=self.export_allowed,
            grid_charge_allowed=self.grid_charge_allowed,
            site_import_w_max=_watts(self.site_import_w_max),
            site_export_w_max=_watts(self.site_export_w_max),
        )


def _watts(limit: float | str | None) -> float | None:
    return math.inf if limit == "unlimited" else float(limit) if limit is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that was not imported: its line in the input (1 = first) and why."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What an import holds: good devices and every bad row."""

    devices: list[Device]
    bad: list[BadRow]


def parse_rows(text: str, *, form: Literal["csv", "jsonl"], profiles: Iterable[str]) -> Parsed:
    """Read an inventory. Good rows are kept, every bad one is named with its line. Raises InvalidInput if it is no
    inventory at all (too large, no header, unknown columns)."""
    if len(text) > MAX_IMPORT_BYTES:
        raise InvalidInput([f"the inventory is larger than {MAX_IMPORT_BYTES} bytes"])
    known = set(profiles)
    devices: list[Device] = []
    bad: list[BadRow] = []
    seen: dict[str, int] = {}
    source = _csv_rows(text) if form == "csv" else _json_rows(text)
    for number, (line, row) in enumerate(source):
        if number >= MAX_IMPORT_ROWS:
            raise InvalidInput([f"line {line}: more than {MAX_IMPORT_ROWS} rows"])
        if isinstance(row, str):
            bad.append(BadRow(line=line, problem=row))
            continue
        try:
            parsed = DeviceRow.model_validate(row)
        except ValidationError as error:
            bad.append(BadRow(line=line, problem="; ".join(_problem(e) for e in error.errors())))
            continue
        if parsed.profile not in known:
            bad.append(BadRow(line=line, problem=f"profile: {parsed.profile!r} is not known"))
        elif parsed.id in seen:
            bad.append(BadRow(line=line, problem=f"id: {parsed.id!r} stands on line {seen[parsed.id]} already"))
        else:
            seen[parsed.id] = line
            devices.append(parsed.device())
    return Parsed(devices=devices, bad=bad)


def _problem(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "row"
    return f"{place}: {error['msg']} (found {str(error.get('input'))[:40]!r})"


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text), restkey="", strict=True)
    header = reader.fieldnames or []
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
            yield reader.line_num, f"not CSV: {error}"
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


_KEPT = tuple(f.name for f in fields(Device) if f.name != "id")


class Enrolled(Mapping[DeviceId, Device]):
    """Devices as they were enrolled, each kept as a few bytes: many objects would cost memory and collections."""

    def __init__(self) -> None:
        self._packed: dict[DeviceId, bytes] = {}

    def __getitem__(self, device: DeviceId) -> Device:
        values = msgspec.msgpack.decode(self._packed[device])
        found = Device(id=device, **dict(zip(_KEPT, values, strict=True)))
        return replace(found, tags=tuple(found.tags))

    def __contains__(self, device: object) -> bool:
        return device in self._packed

    def __iter__(self) -> Iterator[DeviceId]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def put(self, device: Device) -> None:
        self._packed[device.id] = msgspec.msgpack.encode([getattr(device, name) for name in _KEPT])


class Inventory:
    """The devices of this gateway: journalled first, then given a slot."""

    def __init__(self, *, fleet: Fleet, journal: Journal, facts: Mapping[str, ProductFacts]) -> None:
        self._fleet = fleet
        self._journal = journal
        self._facts = facts
        self.devices = Enrolled()

    @property
    def profiles(self) -> Iterable[str]:
        return self._facts

    def restore(self, devices: Iterable[Device]) -> list[DeviceId]:
        """Enroll what the journal holds; returns the ids whose profile is no longer installed."""
        orphans: list[DeviceId] = []
        for device in devices:
            self.devices.put(device)
            if device.profile in self._facts:
                self._fleet.enroll(device, self._facts[device.profile])
            else:
                orphans.append(device.id)
        return orphans

    async def enroll(self, devices: list[Device]) -> int:
        """Make `devices` durable and part of the fleet; returns how many were new or changed."""
        changed = [device for device in devices if self.devices.get(device.id) != device]
        if changed:
            await self._journal.commit([DeviceEnrolled(device=device) for device in changed])
        for device in changed:
            self.devices.put(device)
            self._fleet.enroll(device, self._facts[device.profile])
        return len(changed)
