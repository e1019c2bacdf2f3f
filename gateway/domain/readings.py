"""What devices report. Batches are columns of equal length; `slots` index the fleet."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.types import Bools, Flags, Floats, Ints, Slots, Small, Texts, UnclearBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBatch:
    """Newest state of some devices for control. `fresh` False = age unknown (retained, backlog): never refreshes.
    `grid_l1_w` to `grid_l3_w` per phase at the meter; `locked` and `opt_out` 1 = yes, 0 = no or not reported. `unclear`
    holds `Unclear` bits, None = everything was understood. `reserve_again`: the reserve repeats an earlier read and was
    not read anew (None = for no row)."""

    slots: Slots
    fresh: Bools
    device_t_ms: Ints
    battery_w: Floats
    soc_pct: Floats
    soc_step_pct: Floats
    temp_c: Floats
    discharge_w_max: Floats
    charge_w_max: Floats
    reserve_pct: Floats
    pv_w: Floats
    load_w: Floats
    grid_w: Floats
    grid_l1_w: Floats
    grid_l2_w: Floats
    grid_l3_w: Floats
    mode: Small
    grid: Small
    locked: Small
    opt_out: Small
    faults: Ints
    cmd: Ints
    reserve_again: Bools | None = None
    unclear: Flags | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyBatch:
    """Energy samples. `t_ms` is the end of a span of `span_ms`; counters are lifetime AC counters, `*_wh` the
    energy within the span of a product without (fine) counters, `*_w` mean power over it. Several rows may belong to
    one device."""

    slots: Slots
    boot: Ints
    seq: Ints
    t_ms: Ints
    span_ms: Ints
    charge_counter_wh: Floats
    discharge_counter_wh: Floats
    charge_wh: Floats
    discharge_wh: Floats
    battery_w: Floats
    soc_pct: Floats
    grid_w: Floats
    pv_w: Floats
    load_w: Floats

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusBatch:
    """Presence of devices as they or their last will report it. `told_now` False = a broker kept it (None = nobody
    told anything: a link found out). What they state of themselves: `report_s`, the period of their live messages in s
    (NaN = not stated), maker, product and firmware ("" = not stated). None: no row states it."""

    slots: Slots
    online: Bools
    told_now: Bools | None = None
    report_s: Floats | None = None
    maker: Texts | None = None
    product: Texts | None = None
    firmware: Texts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AckBatch:
    """Devices' answers to commands: `cmd` the command's id, `result` a `CommandResult`."""

    slots: Slots
    cmd: Ints
    result: Small


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMessage:
    """A settlement message as it came. `problem`: why it cannot be read; "" = its device keeps it from that: it is not
    known, or registered as something else, or earlier messages of it wait."""

    topic: str
    payload: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AckToken:
    """What a link needs to acknowledge the messages behind a batch; opaque to everyone else."""

    generation: int
    packet_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingBatch:
    """What one bounded read of a link brought. `token` is acknowledged once everything in it is durable. `unclear` is
    later than the row of the same device in `live`; `raw` are settlement messages that are not in `energy`."""

    live: LiveBatch | None = None
    unclear: UnclearBatch | None = None
    energy: EnergyBatch | None = None
    status: StatusBatch | None = None
    acks: AckBatch | None = None
    raw: Sequence[RawMessage] = ()
    token: AckToken | None = None
