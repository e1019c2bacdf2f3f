"""Moves: what an import would change of a device's place and product, and what the change must wait for.

A battery is handed back at the address, and as the product, that came under control. A release that goes to another
address leaves the old battery forced for ever, and gives another one settings that were never its own. So a device that
is not free keeps its place and product until it is: it departs, see `departures`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.registry.connection import Connection
from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId
from gateway.profiles.compile import Codec
from gateway.services.devices.connection_rows import Place, place_of
from gateway.services.devices.row_faults import RowFault

WAITS = RowFault(column="address", problem="is not free")
TIED_BY = {Authority.CONTROLLED: "under control", Authority.RELEASING: "being released"}


class Ties:
    """Why devices are not free. `saved`: those whose settings from before control are still to be restored; whoever
    restores them keeps it up to date."""

    def __init__(self, fleet: Fleet, saved: Collection[DeviceId]) -> None:
        self._fleet = fleet
        self._saved = saved
        self.planned: frozenset[DeviceId] = frozenset()
        """Release plans of devices without a slot: this process cannot carry them out."""

    def of(self, device: DeviceId) -> str:
        """What ties a device, "" = it is free."""
        slot = self._fleet.slot_of.get(device)
        if slot is not None:
            tie = TIED_BY.get(Authority(int(self._fleet.control.authority[slot])))
            if tie is not None:
                return tie
            if slot < len(self._fleet.writing) and self._fleet.writing[slot]:
                return "coming under control"
        if device in self.planned:
            return "under control since before the gateway started"
        return "still without the settings it had before it was controlled" if device in self._saved else ""


def another_battery(known: Device, wanted: Device) -> bool:
    """Whether something else answers where a device goes."""
    return _connection(known).another_battery(_connection(wanted))


def _connection(device: Device) -> Connection:
    """A row of an inventory as a connection of the present."""
    given = device.connection or DeviceConnection(url="")
    return Connection(
        device=device.id, profile=device.profile, valid=Validity(from_ms=None), url=given.url,
        units=dict(given.units), parameters=dict(given.parameters),
    )  # fmt: skip


def goes_along(known: Device, wanted: Device, fleet: Fleet) -> bool:
    """Whether a device is the same battery at another address, and answers at the present one no more: nothing can be
    handed back there, and its release and its saved settings go along. The serial number of its rows says so, and what
    answers at the new address is written only if it has that."""
    slot = fleet.slot_of.get(known.id)
    if (
        not _connection(known).same_battery(_connection(wanted))
        or slot is None
        or (slot < len(fleet.writing) and fleet.writing[slot])
    ):
        return False
    return int(fleet.live.online[slot]) == 0


def moves(known: Device, wanted: Device, codecs: Mapping[str, Codec]) -> dict[str, str]:
    """What would change of a device's place and product: by column, in words."""
    if known.profile != wanted.profile:
        return {"profile": f"{known.profile!r} to {wanted.profile!r}"}
    codec = codecs.get(known.profile)
    if codec is None or known.connection == wanted.connection:
        return {}
    old, new = place_of(codec.document, known), place_of(codec.document, wanted)
    before, after = known.connection or DeviceConnection(url=""), wanted.connection or DeviceConnection(url="")
    out: dict[str, str] = {}
    if old is not None and new is not None:
        if old[0] != new[0]:
            out["address"] = f"{before.url} to {after.url}"
        if old[1] != new[1]:
            out["units"] = f"main={old[1]} to main={new[1]}"
        if old[2] != new[2]:
            out["parameters"] = f"{_pairs(old[2])} to {_pairs(new[2])}"
    # The same address with another serial number is another place.
    serial, other = (dict(c.parameters).get("serial", "") for c in (before, after))
    if serial and serial != other and "parameters" not in out:
        out["parameters"] = f"serial={serial} to serial={other}"
    return out


def _pairs(levels: tuple[tuple[str, str], ...]) -> str:
    return ";".join(f"{name}={value}" for name, value in levels)


def in_words(changes: Mapping[str, str]) -> str:
    """What changes, for people."""
    return ", ".join(f"{column} from {text}" for column, text in changes.items())


def twice(device: str, holder: str) -> RowFault:
    """The fault of a row at a place that another device has."""
    return RowFault(column="address", problem=f"{device!r} and {holder!r} are one and the same (address, unit main)")


def who_goes_where(
    wanted: Mapping[DeviceId, Place | None], places: Mapping[Place, DeviceId], problems: dict[DeviceId, RowFault]
) -> dict[Place, DeviceId]:
    """Which device answers where once the rows without a problem are registered. A device that stays, because its row
    has a problem or it has no row, keeps out the row that wants its place, which then stays too: those are added to
    `problems`."""
    at = {device: place for place, device in places.items() if device in wanted}
    claims: dict[Place, DeviceId] = {}
    for device, place in wanted.items():
        if place is None or device in problems:
            continue
        first = claims.setdefault(place, device)
        holder = places.get(place, device)
        if first != device or holder not in wanted:
            problems[device] = twice(device, holder if holder not in wanted else first)
    staying = list(problems)
    while staying:
        stays = staying.pop()
        place = at.get(stays)
        claimant = claims.get(place) if place is not None else None
        if claimant is not None and claimant not in problems:
            problems[claimant] = twice(claimant, stays)
            staying.append(claimant)
    after = dict(places)
    for device, place in at.items():
        if device not in problems:
            del after[place]
    return after | {place: device for place, device in claims.items() if device not in problems}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Which device answers where, who cannot go where it wants to, and who can once others are free."""

    places: dict[Place, DeviceId]
    problems: dict[DeviceId, RowFault]
    leaving: list[DeviceId]


def placed(
    where: Mapping[DeviceId, Place | None],
    places: Mapping[Place, DeviceId],
    changed: Collection[DeviceId],
    tied: Collection[DeviceId],
) -> Placed:
    """Where rows go: those that are `changed` move; of those the `tied` are not free."""
    never: dict[DeviceId, RowFault] = {}
    who_goes_where(where, places, never)
    problems = never | {device: WAITS for device in tied if device not in never}
    after = who_goes_where(where, places, problems)
    leaving = [device for device in where if device in problems and device not in never and device in changed]
    for device in leaving:
        del problems[device]
    return Placed(places=after, problems=problems, leaving=leaving)
