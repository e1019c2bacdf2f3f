"""Reads the rows of an import, from CSV or JSON, and names what is wrong with each, by line."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.registry.territory import folded
from gateway.domain.types import ID_PATTERN, DeviceId
from gateway.profiles.compile import Codec
from gateway.progress import Progress, unseen
from gateway.services.devices.connection_rows import (
    Address,
    Line,
    Parameters,
    Place,
    SecretReference,
    Units,
    connection_faults,
    place_of,
)
from gateway.services.devices.moves import twice
from gateway.services.devices.row_faults import COLUMN_SHOWN, VALUE_SHOWN, BadRow, RowFault, bounded
from gateway.services.devices.table_rows import table_rows

MAX_IMPORT_BYTES = 64 << 20

MAX_IMPORT_ROWS = 200_000

MAX_REPORTED = 1_000

TOLD_EVERY = 500
"""Rows from one word about progress to the next."""

MEANINGS = {
    "address" if member.name == "url" else member.name: str(member.metadata["meaning"])
    for member in (*fields(Device), *fields(DeviceConnection))
    if member.metadata
}
"""What each column means, as the device declares it."""

MAY_HOLD_SECRETS = ("address", "parameters", "secret", "username")

SITE_LIMITS = ("site_import_w_max", "site_export_w_max")

SITE_LIMIT = "a site limit is a number of W >= 0, `unlimited`, or absent"

PLACING = {"id", "address", "units", "parameters"}
"""Columns that say where a device answers."""

WHERE = ("postcode", "county", "utility")
"""Columns that say where a site is."""

STAND_INS = {
    "id": "-", "profile": "", "site": "-", "capacity_wh": 1, "discharge_w_max": 1, "charge_w_max": 1, "reserve_pct": 0,
}  # fmt: skip
"""What stands for required values with a fault while the rest of the row is checked."""

NOT_CONTROLLED = "control of this product is experimental; telemetry only, until the row says experimental"


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


def _described(schema: dict[str, Any]) -> None:
    """Say in a schema what each column means."""
    for name, member in schema["properties"].items():
        member["description"] = MEANINGS[name]


class DeviceFields(BaseModel):
    """One device as everybody may see it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_described)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    profile: Text
    site: Annotated[str, Field(min_length=1, max_length=64)]
    meter: Text = ""
    feeder: Text = ""
    postcode: Annotated[str, Field(max_length=16), AfterValidator(str.strip)] = ""
    county: Annotated[Text, AfterValidator(str.strip)] = ""
    utility: Annotated[Text, AfterValidator(str.strip)] = ""
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

    @field_validator(*SITE_LIMITS)
    @classmethod
    def _limit(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and (value < 0 or not math.isfinite(value)):
            raise ValueError(SITE_LIMIT)
        return value


class DeviceRow(DeviceFields):
    """One device as a file or request names it. `secret` is a reference, `env:NAME` or `file:/path`."""

    secret: SecretReference = ""

    def device(self) -> Device:
        return Device(
            id=DeviceId(self.id),
            profile=self.profile,
            site=self.site,
            meter=self.meter,
            feeder=self.feeder,
            postcode=self.postcode,
            county=self.county,
            utility=self.utility,
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

    def _connection(self) -> DeviceConnection | None:
        if not (self.address or self.units or self.parameters or self.username or self.secret):
            return None
        return DeviceConnection(
            url=self.address,
            units=tuple(sorted(self.units.items())),
            parameters=tuple(sorted(self.parameters.items())),
            username=self.username,
            secret=self.secret,
        )


def _watts(limit: float | str | None) -> float | None:
    return math.inf if limit == "unlimited" else float(limit) if limit is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A row that was imported, and a note about it."""

    line: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The content of an import: good devices with their lines, every bad row, and notes about good ones."""

    devices: list[Device]
    bad: list[BadRow]
    notes: list[Note]
    lines: Mapping[DeviceId, int]


def parse_rows(
    text: str,
    *,
    form: Literal["csv", "jsonl"],
    profiles: Mapping[str, Codec],
    places: Mapping[Place, DeviceId] | None = None,
    progress: Progress = unseen,
) -> Parsed:
    """Read an inventory. Good rows are kept, every bad one is named with its line and all its faults (of the first
    MAX_REPORTED bad rows; with the first fault afterwards). `places` are occupied already.
    Raises InvalidInput if it is no inventory at all (too large, no header, unknown columns)."""
    if len(text) > MAX_IMPORT_BYTES:
        raise InvalidInput([f"the inventory is larger than {MAX_IMPORT_BYTES} bytes"])
    rows = _Rows(profiles, places or {})
    bad: dict[int, list[RowFault]] = {}
    source, lines = table_rows(text, form=form, kind=DeviceRow), text.count("\n") + 1
    for number, (line, row) in enumerate(source):
        if number >= MAX_IMPORT_ROWS:
            raise InvalidInput([f"line {line}: more than {MAX_IMPORT_ROWS} rows"])
        if number % TOLD_EVERY == 0:
            progress(line, lines)
        faults = [RowFault(column="", problem=row)] if isinstance(row, str) else rows.add(line, row)
        if faults:
            bad[line] = faults if len(bad) < MAX_REPORTED else faults[:1]
    for line, fault in rows.drop_occupied():
        bad.setdefault(line, []).append(fault)
    good = rows.good.values()
    notes = [Note(line=row.line, note=f"{row.device.id}: {NOT_CONTROLLED}") for row in good if row.uncontrolled]
    return Parsed(
        devices=[row.device for row in good],
        bad=[BadRow(line=line, faults=bounded(faults)) for line, faults in sorted(bad.items())],
        notes=notes,
        lines={row.device.id: row.line for row in good},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Good:
    """A row without a fault of its own: its device, where that answers, whether it is read only."""

    line: int
    device: Device
    place: Place | None
    uncontrolled: bool


class _Rows:
    """Rows of one inventory, checked one after the other. `occupied`: where registered devices answer."""

    def __init__(self, profiles: Mapping[str, Codec], occupied: Mapping[Place, DeviceId]) -> None:
        self.good: dict[DeviceId, _Good] = {}
        self._profiles = profiles
        self._occupied = occupied
        self._places: dict[Place, DeviceId] = {}
        self._sites: dict[str, tuple[int, dict[str, str]]] = {}
        self._faulty: list[tuple[int, DeviceId, Place]] = []

    def add(self, line: int, row: dict[str, Any]) -> list[RowFault]:
        """Add a row; returns everything that is wrong with it. What a column with a fault would say is not judged."""
        faults: list[RowFault] = []
        try:
            parsed = DeviceRow.model_validate(row)
        except ValidationError as error:
            faults = list(_column_faults(error))
            sound = {name: value for name, value in row.items() if name in DeviceRow.model_fields}
            parsed = DeviceRow.model_validate(
                {name: value for name, value in sound.items() if name not in _columns(faults)}
                | {name: value for name, value in STAND_INS.items() if name in _columns(faults)}
            )
        bad = _columns(faults)
        first = self.good.get(DeviceId(parsed.id))
        if first is not None and "id" not in bad:
            faults.append(RowFault(column="id", problem=f"stands on line {first.line} already", value=parsed.id))
        codec = self._profiles.get(parsed.profile)
        if codec is None:
            if "profile" not in bad:
                faults.append(RowFault(column="profile", problem="is not known", value=parsed.profile[:VALUE_SHOWN]))
            return faults
        device = parsed.device()
        faults += [fault for fault in self._elsewhere(line, device) if not bad & {"site", fault.column}]
        unfit = [fault for fault in connection_faults(codec.document, device.connection) if fault.column not in bad]
        faults += unfit
        place = None if PLACING & (bad | _columns(unfit)) else place_of(codec.document, device)
        if place is not None and self._places.get(place, device.id) != device.id:
            faults.append(twice(device.id, self._places[place]))
        if not faults:
            uncontrolled = codec.facts.experimental and not device.experimental
            self.good[device.id] = _Good(line=line, device=device, place=place, uncontrolled=uncontrolled)
            if place is not None:
                self._places[place] = device.id
        elif place is not None and place in self._occupied:
            self._faulty.append((line, device.id, place))
        return faults

    def _elsewhere(self, line: int, device: Device) -> Iterator[RowFault]:
        """Columns of a device that say that its site is somewhere else than a row before says: a site is in one
        place."""
        where = {name: getattr(device, name) for name in WHERE}
        first, known = self._sites.setdefault(device.site, (line, where))
        for name, text in where.items():
            if folded(text) != folded(known[name]):
                problem = f"its site has {known[name]!r} on line {first}"
                yield RowFault(column=name, problem=problem, value=text)

    def drop_occupied(self) -> Iterator[tuple[int, RowFault]]:
        """Drop rows at the place of a registered device that does not move, and those that these keep out in turn;
        name rows with other faults that are at such a place too. Each with its line."""
        lost = True
        while lost:
            lost = False
            for row in list(self.good.values()):
                holder = self._occupied.get(row.place) if row.place is not None else None
                if holder is not None and holder not in self.good:
                    lost = True
                    del self.good[row.device.id]
                    yield row.line, twice(row.device.id, holder)
        for line, device, place in self._faulty:
            holder = self._occupied[place]
            if holder != device and holder not in self.good:
                yield line, twice(device, holder)


def _columns(faults: Iterable[RowFault]) -> set[str]:
    return {fault.column for fault in faults}


def _column_faults(error: ValidationError) -> Iterator[RowFault]:
    """What is wrong with the columns of a row by themselves."""
    limits: set[str] = set()
    for found in error.errors(include_url=False, include_context=False):
        column = str(found["loc"][0])[:COLUMN_SHOWN] if found["loc"] else ""
        problem, value = found["msg"].removeprefix("Value error, "), str(found["input"])[:VALUE_SHOWN]
        if column in SITE_LIMITS:
            # a limit is one of two kinds; each of them tells why it is not that kind
            if column not in limits:
                yield RowFault(column=column, problem=SITE_LIMIT, value=value)
            limits.add(column)
            continue
        if found["type"] == "missing":
            yield RowFault(column=column, problem="required")
        elif found["type"] == "extra_forbidden":
            yield RowFault(column=column, problem="unknown column")
        else:
            inside = ".".join(str(part)[:COLUMN_SHOWN] for part in found["loc"][1:] if part != "[key]")
            secret = column in MAY_HOLD_SECRETS
            yield RowFault(
                column=column, problem=f"{inside}: {problem}" if inside else problem, value=None if secret else value
            )
