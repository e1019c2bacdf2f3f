"""Faults planted in simulated devices: what, when, for how long, and the first effect that was seen."""

import heapq
import math
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """What goes wrong. `value` and `for_s` of `Fault` mean what stands here."""

    OFFLINE = "offline"  # sends and receives nothing; energy messages are kept
    LAG = "lag"  # takes commands `value` s late
    FROZEN_SOC = "frozen_soc"  # reports the state of charge of the moment it began
    GARBAGE = "nan"  # live messages with null, text, absurd numbers, broken JSON
    WRONG_SIGN = "wrong_sign"  # reports battery_w with the other sign
    DEAF = "deaf"  # ignores commands; acknowledges them as applied if `acks`
    STALE = "stale"  # sends no live messages, everything else goes on
    REBOOT = "reboot"  # away for `for_s`, then boot + 1, seq from 1, lease forgotten
    ISLAND = "island"  # grid lost: covers the home, refuses setpoints
    FAULT_BITS = "fault_bits"  # reports `value` as its fault bits, output off
    OWNER_RESERVE = "owner_reserve"  # the owner sets the reserve to `value` percent, for good
    OWNER_MODE = "owner_mode"  # the owner takes the device back to its own mode, once
    DISHONEST_ID = "dishonest_id"  # live payloads name `claims` instead of the device
    BACKLOG = "backlog"  # keeps every message for `for_s`, then sends all of them with their old times


_NEED_VALUE = frozenset({FaultKind.LAG, FaultKind.FAULT_BITS, FaultKind.OWNER_RESERVE})
_NEED_END = frozenset({FaultKind.REBOOT, FaultKind.BACKLOG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One planted fault; `at_s` counts from the start of the simulation, None = now."""

    kind: FaultKind
    at_s: float | None = None
    for_s: float = math.inf
    value: float = math.nan
    acks: bool = True
    claims: str = ""


@dataclass(slots=True, kw_only=True)
class FaultRecord:
    """What became of a fault; times in UTC ms, None = has not happened."""

    index: int
    device: str
    fault: Fault
    began_ms: int
    ends_ms: int | None
    ended_ms: int | None = None
    first_effect_ms: int | None = None
    effect: str = ""

    def note(self, now_ms: int, effect: str) -> None:
        """Remember the first effect that somebody outside the device could see."""
        if self.first_effect_ms is None:
            self.first_effect_ms = now_ms
            self.effect = effect


class FaultBook:
    """Planned, active and past faults; at most `planned_max` planned and `records_max` begun."""

    def __init__(self, ids: tuple[str, ...], *, start_ms: int, planned_max: int = 100_000) -> None:
        self._ids = ids
        self._start_ms = start_ms
        self._planned_max = planned_max
        self._planned: list[tuple[int, int, int, Fault]] = []
        self._count = 0
        self._active: dict[tuple[int, FaultKind], FaultRecord] = {}
        self.records: list[FaultRecord] = []

    def plan(self, index: int, fault: Fault, now_ms: int) -> None:
        """Have `fault` begin at its time or at the next step; ValueError when senseless or one too many."""
        if fault.kind in _NEED_VALUE and not math.isfinite(fault.value):
            raise ValueError(f"{fault.kind.value} needs a value")
        if fault.kind in _NEED_END and not math.isfinite(fault.for_s):
            raise ValueError(f"{fault.kind.value} needs an end")
        if not 0 <= index < len(self._ids):
            raise ValueError(f"no device {index}")
        if len(self._planned) + len(self.records) >= self._planned_max:
            raise ValueError("too many faults")
        begins_ms = now_ms if fault.at_s is None else self._start_ms + round(fault.at_s * 1000)
        self._count += 1
        heapq.heappush(self._planned, (begins_ms, self._count, index, fault))

    def advance(self, now_ms: int) -> tuple[list[FaultRecord], list[FaultRecord]]:
        """(begun, ended) since the last call, in order. A fault of the same kind replaces the running one."""
        ended = [record for record in self._active.values() if record.ends_ms is not None and record.ends_ms <= now_ms]
        begun: list[FaultRecord] = []
        while self._planned and self._planned[0][0] <= now_ms:
            _, _, index, fault = heapq.heappop(self._planned)
            ends_ms = None if math.isinf(fault.for_s) else now_ms + round(fault.for_s * 1000)
            record = FaultRecord(index=index, device=self._ids[index], fault=fault, began_ms=now_ms, ends_ms=ends_ms)
            running = self._active.get((index, fault.kind))
            if running is not None and running not in ended:
                ended.append(running)
            begun.append(record)
        for record in ended:
            record.ended_ms = now_ms
            self._active.pop((record.index, record.fault.kind), None)
        for record in begun:
            self._active[record.index, record.fault.kind] = record
            self.records.append(record)
        return begun, ended

    def active(self, index: int, kind: FaultKind) -> FaultRecord | None:
        return self._active.get((index, kind))

    @property
    def quiet(self) -> bool:
        """No fault is running anywhere."""
        return not self._active
