"""Fleet state as columns: one numpy array per quantity, indexed by slot.

A slot is given once per device and never reused within a process. `Fleet` owns the arrays and grows them;
`Snapshot` is what a control tick works on: copies of what changes, a view of what does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gateway.domain.errors import invariant
from gateway.domain.model import (
    NEVER_MS,
    Bools,
    Connection,
    Device,
    DeviceId,
    Floats,
    Grid,
    Ints,
    LiveBatch,
    Now,
    Small,
)

TRICKLE_PART = 0.02
LIVE_COLUMNS = (
    "battery_w",
    "soc_pct",
    "soc_step_pct",
    "temp_c",
    "discharge_w_max",
    "charge_w_max",
    "reserve_pct",
    "pv_w",
    "load_w",
    "grid_w",
    "mode",
    "grid",
    "faults",
    "cmd",
)


Singles = NDArray[np.float32]


class Held(IntEnum):
    """Who has the device: `FREE` = the maker's own mode, `CONTROLLED` = under our lease, `RELEASING` = the release
    was sent and is not confirmed yet, `LEFT` = an owner or maker took it back in mid-event."""

    FREE = 0
    CONTROLLED = 1
    RELEASING = 2
    LEFT = 3


class Table:
    """Columns of one length that grow together. Subclasses name them in `SPEC` as (dtype, value of a new slot)."""

    SPEC: ClassVar[Mapping[str, tuple[DTypeLike, float | int | bool]]] = {}

    def __init__(self, capacity: int = 0) -> None:
        for name, (dtype, fill) in self.SPEC.items():
            setattr(self, name, np.full(capacity, fill, dtype=dtype))

    def column(self, name: str) -> NDArray[np.generic]:
        array: NDArray[np.generic] = getattr(self, name)
        return array

    def grow(self, capacity: int) -> None:
        for name, (dtype, fill) in self.SPEC.items():
            old = self.column(name)
            new = np.full(capacity, fill, dtype=dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def view(self, n: int) -> Self:
        return self._sliced(n, copy=False)

    def copy(self, n: int) -> Self:
        return self._sliced(n, copy=True)

    def _sliced(self, n: int, *, copy: bool) -> Self:
        out = type(self).__new__(type(self))
        for name in self.SPEC:
            part = self.column(name)[:n]
            setattr(out, name, part.copy() if copy else part)
        return out


class Nameplate(Table):
    """What does not change from tick to tick: ratings, permissions, the owner's reserve, the product's facts.

    `inverter_w_max` inf = not shared with PV. Site limits: NaN = unknown = not allowed, inf = unlimited.
    `lease_s` the lease the product is given, `overrun_s` how much longer an inexact timer may let it run, `delivery_s`
    the longest a command may take to act,
    `timed` whether the device reverts by its own timer, `steerable` whether it takes setpoints from us (the product
    can, the operator has not ruled it out, and the device is what it is enrolled as).
    """

    SPEC = {
        "enrolled": (np.bool_, False),
        "discharge_w_max": (np.float64, 0.0),
        "charge_w_max": (np.float64, 0.0),
        "inverter_w_max": (np.float64, np.inf),
        "capacity_wh": (np.float64, np.nan),
        "efficiency_discharge": (np.float32, 0.95),
        "efficiency_charge": (np.float32, 0.95),
        "standby_w": (np.float32, 0.0),
        "soc_max_pct": (np.float32, 100.0),
        "soc_uncertainty_pct": (np.float32, 5.0),
        "owner_reserve_pct": (np.float64, 100.0),
        "export_allowed": (np.bool_, False),
        "grid_charge_allowed": (np.bool_, False),
        "site_import_w_max": (np.float64, np.nan),
        "site_export_w_max": (np.float64, np.nan),
        "site": (np.int32, -1),
        "feeder": (np.int32, -1),
        "profile": (np.int32, -1),
        "lease_s": (np.float32, 120.0),
        "overrun_s": (np.float32, 0.0),
        "delivery_s": (np.float32, 5.0),
        "timed": (np.bool_, True),
        "steerable": (np.bool_, True),
    }
    enrolled: Bools
    discharge_w_max: Floats
    charge_w_max: Floats
    inverter_w_max: Floats
    capacity_wh: Floats
    efficiency_discharge: Singles
    efficiency_charge: Singles
    standby_w: Singles
    soc_max_pct: Singles
    soc_uncertainty_pct: Singles
    owner_reserve_pct: Floats
    export_allowed: Bools
    grid_charge_allowed: Bools
    site_import_w_max: Floats
    site_export_w_max: Floats
    site: NDArray[np.int32]
    feeder: NDArray[np.int32]
    profile: NDArray[np.int32]
    lease_s: Singles
    overrun_s: Singles
    delivery_s: Singles
    timed: Bools
    steerable: Bools


class Live(Table):
    """The newest reading of each device. `seen_mono_ms` is when a reading of known age arrived (`NEVER_MS` = never);
    `moved_wh` the energy moved since `soc_pct` last changed; `reconnected_mono_ms` the end of the last islanding."""

    SPEC = {
        "battery_w": (np.float64, np.nan),
        "soc_pct": (np.float64, np.nan),
        "soc_step_pct": (np.float32, np.nan),
        "temp_c": (np.float32, np.nan),
        "discharge_w_max": (np.float64, np.nan),
        "charge_w_max": (np.float64, np.nan),
        "reserve_pct": (np.float32, np.nan),
        "pv_w": (np.float32, np.nan),
        "load_w": (np.float64, np.nan),
        "grid_w": (np.float64, np.nan),
        "mode": (np.int8, 0),
        "grid": (np.int8, 0),
        "online": (np.int8, -1),
        "faults": (np.int64, 0),
        "cmd": (np.int64, 0),
        "seen_mono_ms": (np.int64, NEVER_MS),
        "reconnected_mono_ms": (np.int64, NEVER_MS),
        "moved_wh": (np.float32, 0.0),
    }
    battery_w: Floats
    soc_pct: Floats
    soc_step_pct: Singles
    temp_c: Singles
    discharge_w_max: Floats
    charge_w_max: Floats
    reserve_pct: Singles
    pv_w: Singles
    load_w: Floats
    grid_w: Floats
    mode: Small
    grid: Small
    online: Small
    faults: Ints
    cmd: Ints
    seen_mono_ms: Ints
    reconnected_mono_ms: Ints
    moved_wh: Singles


class Control(Table):
    """What was last told to each device and what is known of it.

    `setpoint_w` is the setpoint in force by our knowledge (0 when FREE), `before_w` the one it replaced;
    `lease_end_mono_ms` when it reverts by itself; `event` the index of the event that holds the device (-1 none);
    `cmd_applied` the last command the device confirmed; `written_reserve_pct` the reserve we last wrote (NaN none).
    """

    SPEC = {
        "held": (np.int8, int(Held.FREE)),
        "event": (np.int32, -1),
        "setpoint_w": (np.int64, 0),
        "before_w": (np.int64, 0),
        "cmd_sent": (np.int64, 0),
        "cmd_applied": (np.int64, 0),
        "result": (np.int8, 0),
        "sent_mono_ms": (np.int64, NEVER_MS),
        "changed_mono_ms": (np.int64, NEVER_MS),
        "lease_end_mono_ms": (np.int64, NEVER_MS),
        "release_mono_ms": (np.int64, NEVER_MS),
        "written_reserve_pct": (np.float32, np.nan),
    }
    held: Small
    event: NDArray[np.int32]
    setpoint_w: Ints
    before_w: Ints
    cmd_sent: Ints
    cmd_applied: Ints
    result: Small
    sent_mono_ms: Ints
    changed_mono_ms: Ints
    lease_end_mono_ms: Ints
    release_mono_ms: Ints
    written_reserve_pct: Singles


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet at one instant: `n` slots; nameplate is shared, live and control are copies."""

    n: int
    nameplate: Nameplate
    live: Live
    control: Control


class Names:
    """Texts numbered in order of appearance: sites, feeders, profiles. The way back from a text to its number is only
    needed while devices are enrolled; `compact` lets go of it, the next use makes it anew."""

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
    """What a profile says of every device of the product (see `Nameplate` for units)."""

    lease_s: float
    overrun_s: float = 0.0
    delivery_s: float
    timed: bool
    steerable: bool = True
    experimental: bool = False
    efficiency_discharge: float
    efficiency_charge: float
    standby_w: float
    soc_uncertainty_pct: float


class Fleet:
    """All devices by slot; the one mutable copy of fleet state, written on the loop only."""

    def __init__(self) -> None:
        self.n = 0
        self.ids: list[DeviceId] = []
        self.slot_of: dict[str, int] = {}
        self.tags: dict[str, set[int]] = {}
        self.sites = Names()
        self.feeders = Names()
        self.profiles = Names()
        self.connections: dict[int, Connection] = {}
        self.experimental: set[int] = set()
        self.nameplate = Nameplate()
        self.live = Live()
        self.control = Control()

    def enroll(self, device: Device, facts: ProductFacts) -> int:
        """Give `device` a slot, or renew what is known of one that has it; returns the slot."""
        slot = self.slot_of.get(device.id)
        if slot is None:
            slot = self._new_slot(device.id)
        for members in self.tags.values():
            members.discard(slot)
        for tag in device.tags:
            self.tags.setdefault(tag, set()).add(slot)
        self.connections.pop(slot, None)
        self.experimental.discard(slot)
        if device.connection is not None:
            self.connections[slot] = device.connection
        if device.experimental:
            self.experimental.add(slot)
        plate = self.nameplate
        plate.enrolled[slot] = True
        plate.discharge_w_max[slot] = device.discharge_w_max
        plate.charge_w_max[slot] = device.charge_w_max
        plate.inverter_w_max[slot] = np.inf if device.inverter_w_max is None else device.inverter_w_max
        plate.capacity_wh[slot] = device.capacity_wh
        plate.owner_reserve_pct[slot] = device.reserve_pct
        plate.export_allowed[slot] = device.export_allowed
        plate.grid_charge_allowed[slot] = device.grid_charge_allowed
        plate.site_import_w_max[slot] = np.nan if device.site_import_w_max is None else device.site_import_w_max
        plate.site_export_w_max[slot] = np.nan if device.site_export_w_max is None else device.site_export_w_max
        plate.site[slot] = self.sites.index(device.site)
        plate.feeder[slot] = self.feeders.index(device.feeder)
        plate.profile[slot] = self.profiles.index(device.profile)
        plate.lease_s[slot] = facts.lease_s
        plate.overrun_s[slot] = facts.overrun_s
        plate.delivery_s[slot] = facts.delivery_s
        plate.timed[slot] = facts.timed
        plate.steerable[slot] = facts.steerable and (device.experimental or not facts.experimental)
        plate.efficiency_discharge[slot] = facts.efficiency_discharge
        plate.efficiency_charge[slot] = facts.efficiency_charge
        plate.standby_w[slot] = facts.standby_w
        plate.soc_uncertainty_pct[slot] = facts.soc_uncertainty_pct
        return slot

    def device(self, slot: int) -> Device:
        """A device as it is enrolled, with the reserve its owner has chosen since."""
        plate = self.nameplate

        def known(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        shared_w = float(plate.inverter_w_max[slot])
        feeder = int(plate.feeder[slot])
        return Device(
            id=self.ids[slot],
            profile=self.profiles.texts[plate.profile[slot]],
            site=self.sites.texts[plate.site[slot]],
            feeder=self.feeders.texts[feeder] if feeder >= 0 else "",
            tags=tuple(sorted(tag for tag, slots in self.tags.items() if slot in slots)),
            capacity_wh=float(plate.capacity_wh[slot]),
            discharge_w_max=float(plate.discharge_w_max[slot]),
            charge_w_max=float(plate.charge_w_max[slot]),
            inverter_w_max=None if np.isinf(shared_w) else shared_w,
            reserve_pct=float(plate.owner_reserve_pct[slot]),
            export_allowed=bool(plate.export_allowed[slot]),
            grid_charge_allowed=bool(plate.grid_charge_allowed[slot]),
            site_import_w_max=known(plate.site_import_w_max[slot]),
            site_export_w_max=known(plate.site_export_w_max[slot]),
            connection=self.connections.get(slot),
            experimental=slot in self.experimental,
        )

    def reserve(self, n: int) -> None:
        """Have room for `n` slots, exactly: for a fleet whose size is known beforehand."""
        if n > len(self.live.soc_pct):
            for table in (self.nameplate, self.live, self.control):
                table.grow(n)

    def compact(self) -> None:
        """After an enrollment: let go of what only that needed."""
        self.sites.compact()

    def _new_slot(self, device_id: DeviceId) -> int:
        invariant(device_id not in self.slot_of, "a device gets one slot")
        slot = self.n
        if slot >= len(self.live.soc_pct):
            self.reserve(max(64, slot + slot // 4))
        self.n += 1
        self.ids.append(device_id)
        self.slot_of[device_id] = slot
        return slot

    def names(self, slots: NDArray[np.integer]) -> tuple[DeviceId, ...]:
        """Ids of `slots`, in their order."""
        return tuple(self.ids[slot] for slot in slots.tolist())

    def snapshot(self) -> Snapshot:
        return Snapshot(
            n=self.n,
            nameplate=self.nameplate.view(self.n),
            live=self.live.copy(self.n),
            control=self.control.copy(self.n),
        )

    def take_live(self, batch: LiveBatch, now: Now) -> None:
        """Fold readings in, newest last; a reading's age is counted from the device's own time where that lies in the
        past. Rows that are not `fresh` update nothing that control rests on."""
        keep = batch.fresh
        slots = batch.slots[keep]
        if not len(slots):
            return
        live = self.live
        seen = now.mono_ms - np.maximum(now.utc_ms - batch.device_t_ms[keep], 0)
        before_soc, before_seen = live.soc_pct[slots], live.seen_mono_ms[slots]
        before_grid, before_w = live.grid[slots], live.battery_w[slots]
        for name in LIVE_COLUMNS:
            live.column(name)[slots] = getattr(batch, name)[keep]
        live.seen_mono_ms[slots] = seen
        live.online[slots] = 1
        known = (before_seen != NEVER_MS) & np.isfinite(before_w)
        hours = np.where(known, seen - before_seen, 0) / 3_600_000
        power_w = np.abs(np.nan_to_num(before_w))
        # Standby and balancing move energy that no SoC shows.
        known &= power_w > TRICKLE_PART * self.nameplate.discharge_w_max[slots]
        moved = np.where(known, power_w, 0.0) * hours
        same = live.soc_pct[slots] == before_soc
        live.moved_wh[slots] = np.where(same, live.moved_wh[slots] + moved, 0.0)
        back = (before_grid == Grid.ISLAND) & (live.grid[slots] == Grid.ON)
        live.reconnected_mono_ms[slots[back]] = now.mono_ms
