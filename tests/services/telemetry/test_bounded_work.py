"""No step of the telemetry path, and nothing at a start, works on more than a slice: rows of columns, counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals import accumulators
from gateway.domain.intervals import engine as engine_module
from gateway.domain.intervals.accumulators import Accumulators
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.records import NO_RECORDS
from gateway.domain.intervals.slices import steps
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Slots
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.telemetry import interval_config, repair
from tests.builders.energy_batches import EVER_MS, at
from tests.builders.fakes import MemoryJournal, home, message_product
from tests.domain.intervals.test_slices import HOUR_S, everybody
from tests.work import Work

SLICE = 256
DEVICES = 2_000
ROWS_MAX = 6 * SLICE
"""Rows that one step makes, the intermediate ones included: a slice is gathered, summed, put and recorded."""

AT_START = {"columns", "load", "renumber", "relength", "raise_revisions", "reserve", "to_repair"}
"""What is called before anything is served, or works on views alone."""

LOAD_CALLS_MAX = 150
"""Calls per device at a start, whatever the number of devices and tags."""


@dataclass
class Rows:
    """The most rows in a table of accumulators that one call has made."""

    most: int = 0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Rows:
    found = Rows()

    def counting(whole: Callable[..., object], rows_of: Callable[[object], int]) -> Callable[..., object]:
        def counted(*args: object, **how: object) -> object:
            out = whole(*args, **how)
            found.most = max(found.most, rows_of(out))
            return out

        return counted

    def rows_of(table: object) -> int:
        assert isinstance(table, Accumulators)
        return len(table.start_ms)

    monkeypatch.setattr(Accumulators, "rows", counting(Accumulators.rows, rows_of))
    monkeypatch.setattr(Accumulators, "joined", staticmethod(counting(Accumulators.joined, rows_of)))
    monkeypatch.setattr(engine_module, "split", counting(accumulators.split, lambda out: rows_of(out[1])))  # type: ignore[index]
    monkeypatch.setattr(accumulators, "split", counting(accumulators.split, lambda out: rows_of(out[1])))  # type: ignore[index]
    return found


class Calls:
    """Every public call of an engine that changes it, in turn, each checked."""

    def __init__(self, made: Rows) -> None:
        self.engine = Engine(IntervalRules(length_s=300, close_slice=SLICE))
        self.made = made
        self.names: set[str] = set()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.made.most = 0
        yield
        self.names.add(name)
        assert self.made.most <= ROWS_MAX, (name, self.made.most)

    def ingest(self, batch: EnergyBatch, t: float) -> None:
        for part in steps(self.engine, batch, at(t)):
            with self.step("ingest"):
                self.engine.ingest(part, at(t), np.full(len(part), 5000.0))

    def close(self, t: float) -> None:
        more = True
        while more:
            with self.step("pending"):
                pending = self.engine.pending(at(t))
            with self.step("close_due"):
                more = bool(len(self.engine.close_due(at(t)))) or pending

    def repair(self, t: float) -> None:
        while True:
            with self.step("repairs_due"):
                slots, starts = self.engine.repairs_due(at(t), repair.ROWS, EVER_MS)
            if not len(slots):
                return
            with self.step("repair"):
                self.engine.repair(slots, starts, NO_RECORDS)

    def agree(self, length_s: int) -> None:
        everyone: Slots = np.arange(DEVICES, dtype=np.int32)
        for first in range(0, DEVICES, interval_config.DEVICES):
            part = everyone[first : first + interval_config.DEVICES]
            n = len(part)
            agreed = AgreedConfig(
                slots=part, length_s=np.full(n, length_s), counter_step_wh=np.full(n, 1.0), rated_w=np.full(n, 5000.0)
            )
            with self.step("differs"):
                self.engine.differs(agreed)
            with self.step("agree"):
                self.engine.agree(agreed)


def test_engine_calls_of_a_whole_fleet_make_no_more_rows_than_some_slices(
    made: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of 2,000 devices: samples, an edge, a silence, another within the wait for the first, spans of a day, late
    data, other lengths, a clock that goes back."""
    monkeypatch.setattr(repair, "ROWS", SLICE)
    monkeypatch.setattr(interval_config, "DEVICES", SLICE)
    calls = Calls(made)
    calls.agree(300)
    for i in range(3):
        calls.ingest(everybody(DEVICES, seq=1 + i, t=10 + 200 * i, wh=10.0 * i), 10 + 200 * i)
    calls.close(2_000)
    back = 6 * HOUR_S
    calls.ingest(everybody(DEVICES, seq=10, t=back, wh=500), back)
    calls.ingest(everybody(DEVICES, seq=11, t=back + 590, wh=600), back + 590)
    calls.close(back + 2_000)
    calls.repair(back + 3_000)
    calls.ingest(everybody(40, seq=20, t=back + 3_000, span_s=24 * HOUR_S, moved_wh=100.0), back + 3_000)
    calls.close(back + 9_000)
    calls.repair(back + 9_000)
    for i in range(3):
        t = 2 * back + 300 * i
        calls.ingest(everybody(DEVICES, seq=30 + i, t=t, wh=900), t)
    calls.close(2 * back + 2_000)
    assert len(calls.engine.late) > SLICE
    calls.repair(2 * back + 3_000)
    calls.agree(900)
    calls.ingest(everybody(DEVICES, seq=40, t=3 * back, wh=900), 3 * back)
    calls.close(back)
    assert calls.names | AT_START == {name for name in dir(Engine) if not name.startswith("_")}
    assert calls.engine.totals.records > 12 * 12 * DEVICES


def test_start_of_a_fleet_with_a_tag_each_makes_some_calls_per_device() -> None:
    per_device = []
    for n in (200, 800):
        fleet = Fleet()
        inventory = DeviceRegistry(
            clock=ManualClock(), fleet=fleet, journal=MemoryJournal(), codecs={"p": message_product()}
        )
        devices = [home(f"h{i}", tags=(f"meter-{i}", f"zone-{i % 7}")) for i in range(n)]
        work = Work()
        with work.profiling():
            inventory.load(devices)
        per_device.append(work.now / n)
    assert max(per_device) <= LOAD_CALLS_MAX
    assert per_device[1] <= 1.1 * per_device[0]
