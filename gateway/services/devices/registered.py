"""The registered devices, as objects."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import DeviceId


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
