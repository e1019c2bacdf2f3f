"""The fleet: every device by slot, in columns; registration, names, readings.

A device gets one slot, which is never reused within a process. `Fleet` owns the columns and grows them; a control tick
works on a `Snapshot`: views of the columns that cannot be written, valid until the next await.
"""

import re
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import invariant
from gateway.domain.fleet import estimation, reserve
from gateway.domain.fleet.columns import SETTLE_S, ControlColumns, LiveColumns, Nameplate
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.restarts import Restarts
from gateway.domain.fleet.territories import Territories
from gateway.domain.readings import EnergyBatch, LiveBatch, StatusBatch
from gateway.domain.types import Bools, DeviceId, Now, UnclearBatch

PRODUCTS_MAX = 4096
"""Products beyond this many are not told apart within their profile: their names come from outside."""

_NOT_A_WORD = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet at one instant: `n` slots of the columns, to be read (`Fleet.snapshot`) or to be kept up to date
    (`Fleet.columns`). Take a new one after an await."""

    n: int
    nameplate: Nameplate
    live: LiveColumns
    control: ControlColumns


class Names:
    """Texts numbered in order of appearance: sites, feeders, profiles. The index from text to number is only needed
    while devices are registered; `compact` drops it, the next use rebuilds it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._index: dict[str, int] | None = None

    def index(self, text: str) -> int:
        """Number of `text`, given on first sight; -1 for the empty text."""
        if not text:
            return -1
        if self._index is None:
            self._index = {known: number for number, known in enumerate(self.texts)}
        found = self._index.get(text)
        if found is None:
            found = self._index[text] = len(self.texts)
            self.texts.append(text)
        return found

    def compact(self) -> None:
        self._index = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFacts:
    """Facts of a profile for every device of the product (see `Nameplate` for units). `read_only`: why nothing is
    written to it, "" = it may be."""

    lease_s: float
    lease_step_s: float = 1.0
    overrun_s: float = 0.0
    command_latency_s: float
    settle_s: float = SETTLE_S
    timed: bool
    blocks: bool = False
    steerable: bool = True
    experimental: bool = False
    setpoint_w_min: float = 0.0
    setpoint_step_w: float = 1.0
    efficiency_discharge: float
    efficiency_charge: float
    standby_w: float
    soc_uncertainty_pct: float
    soc_min_pct: float = 0.0
    soc_max_pct: float = 100.0
    drift_pct_per_cycle: float | None = None
    cycles_per_day_max: float | None = None
    counter_step_wh: float | None = None
    report_s: float | None = None
    read_only: str = ""


_NUMBERED = ("site", "meter", "feeder", "profile")
_AS_REGISTERED = tuple(field.name for field in fields(Device) if field.name in {*Nameplate.SPEC} - {*_NUMBERED})
_OF_THE_PRODUCT = tuple(field.name for field in fields(ProductFacts) if field.name in Nameplate.SPEC)


class Fleet:
    """All devices by slot; the one mutable copy of fleet state, written on the loop only. `version` grows with each
    registration, `implausible` counts implausible powers.

    A device keeps its address and product while it is being written. `moving` are slots whose address or product an
    import is about to change: control leaves them alone. `writing` are slots that a tick is writing, from its plan
    until the outcome is noted: no import moves them. `moves` counts by slot how often another battery came to answer
    there, `renewed` are those of which nobody has told those who count energy yet; `mistaken` are slots where something
    else than the registered device answers, `read_only` those of models that are not written, and why. `departing` are
    slots of devices that are handed back since they leave their place. `apart` are those of devices that are not
    registered (any more, or since their profile is missing): what was received of them is still theirs, so each has its
    slot again when it is registered. `products` are named
    `<profile>`, and `<profile>:<maker>:<product>:<firmware>` where a device states those."""

    def __init__(self) -> None:
        self.n = 0
        self.version = 0
        self.implausible = 0
        self.ids: list[DeviceId] = []
        self.slot_of: dict[str, int] = {}
        self.apart: dict[str, int] = {}
        self.tags: dict[str, set[int]] = {}
        self._tags_of: list[tuple[str, ...]] = []
        self._newest_tags: tuple[str, ...] = ()
        self.sites = Names()
        self.meters = Names()
        self.feeders = Names()
        self.territories = Territories()
        self.profiles = Names()
        self.products = Names()
        self.connections: dict[int, DeviceConnection] = {}
        self.experimental: set[int] = set()
        self.mistaken: set[int] = set()
        self.read_only: dict[int, str] = {}
        self.moving: set[int] = set()
        self.departing: set[int] = set()
        self.moves: dict[int, int] = {}
        self.renewed: set[int] = set()
        self.writing: Bools = np.zeros(0, dtype=np.bool_)
        self.nameplate = Nameplate()
        self.restarts = Restarts()
        self.live = LiveColumns()
        self.control = ControlColumns()
        self._snapshot: Snapshot | None = None
        self._columns: Snapshot | None = None

    def register(self, device: Device, facts: ProductFacts) -> int:
        """Give `device` a slot, or update the one it has; returns the slot."""
        self.version += 1
        slot = self.slot_of.get(device.id)
        if slot is None:
            slot = self.slot_of[device.id] = self.keep(device.id)
            del self.apart[device.id]
        self._untag(slot)
        for tag in device.tags:
            self.tags.setdefault(tag, set()).add(slot)
        self._tags_of[slot] = self._shared(tuple(sorted(set(device.tags))))
        connection = self.connections.pop(slot, None)
        moved = connection != device.connection or self.nameplate.profile[slot] != self.profiles.index(device.profile)
        reserve.state(self.live, slot, moved=moved)
        if moved:
            self.mistaken.discard(slot)
            self.read_only.pop(slot, None)
        if facts.read_only:
            self.read_only[slot] = facts.read_only
        self.experimental.discard(slot)
        if device.connection is not None:
            self.connections[slot] = device.connection
        if device.experimental:
            self.experimental.add(slot)
        plate = self.nameplate
        plate.registered[slot] = True
        plate.owner_reserve_pct[slot] = device.reserve_pct
        plate.site[slot] = self.sites.index(device.site)
        plate.meter[slot] = self.meters.index(device.meter)
        plate.feeder[slot] = self.feeders.index(device.feeder)
        plate.territory[slot] = self.territories.index(device.postcode, device.county, device.utility, device.feeder)
        profile = self.profiles.index(device.profile)
        if plate.profile[slot] != profile:
            plate.product[slot] = self.products.index(device.profile)
        plate.profile[slot] = profile
        for source, names in ((device, _AS_REGISTERED), (facts, _OF_THE_PRODUCT)):
            for name in names:
                value = getattr(source, name)
                getattr(plate, name)[slot] = Nameplate.SPEC[name][1] if value is None else value
        self._settle_steerable(slot, facts)
        return slot

    def keep(self, device_id: DeviceId) -> int:
        """Give a device that is not registered the slot that it had, or a new one; returns it."""
        slot = self.apart.get(device_id)
        if slot is None:
            slot = self.apart[device_id] = self._new_slot(device_id)
        return slot

    def unregister(self, device_id: DeviceId) -> int:
        """Take a device out of the fleet; its slot stays apart. Returns the slot."""
        self.version += 1
        slot = self.apart[device_id] = self.slot_of.pop(device_id)
        self._untag(slot)
        self._tags_of[slot] = ()
        self.connections.pop(slot, None)
        for slots in (self.experimental, self.mistaken, self.moving, self.departing):
            slots.discard(slot)
        self.read_only.pop(slot, None)
        self.forget(slot)
        for table in (self.nameplate, self.control):
            table.blank(slot)
        return slot

    def _untag(self, slot: int) -> None:
        for tag in self._tags_of[slot]:
            self.tags[tag].discard(slot)

    def identified(self, slot: int, facts: ProductFacts, *, as_registered: bool, read_only: str = "") -> None:
        """Note whether what answers is the registered device; nothing else may be controlled, whatever is imported.
        `read_only`: why a device of this model is not written, "" = it may be."""
        (self.mistaken.discard if as_registered else self.mistaken.add)(slot)
        self.read_only.pop(slot, None)
        if read_only or facts.read_only:
            self.read_only[slot] = read_only or facts.read_only
        self._settle_steerable(slot, facts)

    def _settle_steerable(self, slot: int, facts: ProductFacts) -> None:
        allowed = facts.steerable and (slot in self.experimental or not facts.experimental)
        self.nameplate.steerable[slot] = allowed and slot not in self.mistaken and slot not in self.read_only

    def _shared(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        """The same tags as one object where devices of a group are registered one after the other."""
        if tags != self._newest_tags:
            self._newest_tags = tags
        return self._newest_tags

    def forget(self, slot: int) -> None:
        """Forget readings and writes of a slot where another battery answers from now on. The used cycles stay, since
        it may be the same battery after all."""
        self.live.blank(slot, but=("cycled_wh", "reconnected_mono_ms"))
        self.restarts.clear(slot)
        self.moves[slot] = self.moves.get(slot, 0) + 1
        control = self.control
        control.written_reserve_pct[slot] = np.nan
        control.refused[slot] = 0

    def device(self, slot: int) -> Device:
        """A device as registered, with the reserve that its owner has chosen since."""
        plate = self.nameplate

        def known(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        shared_w = float(plate.inverter_w_max[slot])
        meter, where = int(plate.meter[slot]), self.territories.at(int(plate.territory[slot]))
        return Device(
            id=self.ids[slot],
            profile=self.profiles.texts[plate.profile[slot]],
            site=self.sites.texts[plate.site[slot]],
            meter=self.meters.texts[meter] if meter >= 0 else "",
            feeder=where.feeder,
            postcode=where.postcode,
            county=where.county,
            utility=where.utility,
            tags=self._tags_of[slot],
            capacity_wh=float(plate.capacity_wh[slot]),
            discharge_w_max=float(plate.discharge_w_max[slot]),
            charge_w_max=float(plate.charge_w_max[slot]),
            inverter_w_max=None if np.isinf(shared_w) else shared_w,
            reserve_pct=float(plate.owner_reserve_pct[slot]),
            export_allowed=bool(plate.export_allowed[slot]),
            grid_charge_allowed=bool(plate.grid_charge_allowed[slot]),
            site_import_w_max=known(plate.site_import_w_max[slot]),
            site_export_w_max=known(plate.site_export_w_max[slot]),
            site_phase_w_max=known(plate.site_phase_w_max[slot]),
            phases=int(plate.phases[slot]),
            fuse_protected=bool(plate.fuse_protected[slot]),
            connection=self.connections.get(slot),
            experimental=slot in self.experimental,
        )

    def reserve(self, n: int) -> None:
        """Grow the columns to exactly `n` slots, for a fleet whose size is known beforehand."""
        if n > len(self.live.soc_pct):
            for table in (self.nameplate, self.live, self.control):
                table.grow(n)
            self._snapshot = self._columns = None

    def compact(self) -> None:
        """Drop indexes that only registration needs."""
        self.sites.compact()
        self.meters.compact()

    def _new_slot(self, device_id: DeviceId) -> int:
        invariant(device_id not in self.slot_of and device_id not in self.apart, "a device gets one slot")
        slot = self.n
        if slot >= len(self.live.soc_pct):
            self.reserve(max(64, slot + slot // 4))
        self.n += 1
        self._snapshot = self._columns = None
        self.ids.append(device_id)
        self._tags_of.append(())
        return slot

    def names(self, slots: NDArray[np.integer]) -> tuple[DeviceId, ...]:
        """Ids of `slots`, in their order."""
        return tuple(self.ids[slot] for slot in slots.tolist())

    def snapshot(self) -> Snapshot:
        """The columns as they are, read-only; the same views until a device is added."""
        if self._snapshot is None:
            self._snapshot = Snapshot(
                n=self.n,
                nameplate=self.nameplate.frozen(self.n),
                live=self.live.frozen(self.n),
                control=self.control.frozen(self.n),
            )
        return self._snapshot

    def columns(self) -> Snapshot:
        """The same for those who keep them up to date: they may write."""
        if self._columns is None:
            n = self.n
            self._columns = Snapshot(
                n=n, nameplate=self.nameplate.view(n), live=self.live.view(n), control=self.control.view(n)
            )
        return self._columns

    def observe_live(self, batch: LiveBatch, now: Now) -> None:
        """Fold readings in: see `estimation.observe`."""
        self.implausible += estimation.observe(self.live, self.nameplate, batch, now)

    def observe_status(self, batch: StatusBatch, now: Now) -> None:
        """Note presence, and the period of readings where a device states it; a device that says now that it is there
        has come back."""
        self.live.online[batch.slots] = batch.online
        if batch.told_now is not None:
            self.restarts.observe_births(batch.slots[batch.told_now & batch.online.astype(np.bool_)], now)
        if batch.report_s is not None:
            stated = ~np.isnan(batch.report_s)
            self.live.report_s[batch.slots[stated]] = batch.report_s[stated]
        if batch.maker is not None and batch.product is not None and batch.firmware is not None:
            for slot, *words in zip(batch.slots.tolist(), batch.maker, batch.product, batch.firmware, strict=True):
                if any(words):
                    self._note_product(slot, ":".join(_NOT_A_WORD.sub("-", word) for word in words))

    def _note_product(self, slot: int, text: str) -> None:
        profile = int(self.nameplate.profile[slot])
        if profile < 0:
            return
        name = f"{self.profiles.texts[profile]}:{text}"
        if len(self.products.texts) < PRODUCTS_MAX or name in self.products.texts:
            self.nameplate.product[slot] = self.products.index(name)

    def products_of(self, name: str) -> list[int]:
        """Numbers of the products that `name` covers: `<profile>:<maker>:<product>:<firmware>`, or the beginning of it
        up to a colon."""
        return [i for i, text in enumerate(self.products.texts) if text == name or text.startswith(f"{name}:")]

    def observe_energy(self, batch: EnergyBatch, now: Now) -> None:
        """Note the boot numbers of settlement messages; the rest of them is the recorder's."""
        self.restarts.observe_boots(batch.slots, batch.boot, now)

    def observe_unclear(self, batch: UnclearBatch) -> None:
        """Note unclear messages: they exclude their devices until the next reading."""
        np.bitwise_or.at(self.live.unclear, batch.slots, batch.unclear)
