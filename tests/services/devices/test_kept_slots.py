"""What was received of a device stays its own while it is not registered: over starts without its profile, and after it
was taken out."""

from pathlib import Path

import numpy as np

from gateway.clock import ManualClock
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.telemetry.recorder import Recorder
from tests.builders.energy_batches import at, batch, row
from tests.builders.fakes import FACTS, MemoryJournal, home, message_product
from tests.scenes.recorder_histories import session, settle

CODECS = {"p": message_product()}
FLEET = [home("a"), home("b")]
RATED_W = np.full(2, 5000.0)
LATER_S = 10_000.0


def started(devices: list[Device], *, installed: bool = True) -> Fleet:
    """The fleet of a start, as the journal has its devices."""
    fleet = Fleet()
    DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=MemoryJournal(), codecs=CODECS if installed else {}).load(
        devices
    )
    return fleet


def ingest(recorder: Recorder, slot: int, *, seq: int, t: float, wh: float) -> int:
    """One message; returns how many rows were new."""
    rows = batch([row(slot=slot, seq=seq, t=t, span=10, charge_wh=wh, discharge_wh=0.0)])
    return int(recorder.ingest(rows, at(t), RATED_W).taken.counts.duplicates == 0)


async def charged_wh(recorder: Recorder) -> dict[str, float]:
    """What everything that is open closes with, by device."""
    while recorder.close_due(at(LATER_S)):
        pass
    await settle(recorder)
    out: dict[str, float] = {}
    for found in recorder.unlogged():
        for slot, wh in zip(found.records.slots.tolist(), found.records.charge_wh.tolist(), strict=True):
            out[found.ids[slot]] = wh
    return out


async def test_energy_of_a_device_whose_profile_is_missing_at_a_start_is_there_when_it_is_back(tmp_path: Path) -> None:
    fleet = started(FLEET)
    async with session(tmp_path, list(fleet.ids)) as (recorder, _):
        assert ingest(recorder, fleet.slot_of["b"], seq=1, t=10, wh=7.0)
        await settle(recorder)
    fleet = started(FLEET, installed=False)
    assert not fleet.slot_of
    async with session(tmp_path, list(fleet.ids)) as (recorder, checkpoints):
        await recorder.checkpoint(checkpoints, at(20), {})
    fleet = started(FLEET)
    async with session(tmp_path, list(fleet.ids)) as (recorder, _):
        assert not ingest(recorder, fleet.slot_of["b"], seq=1, t=10, wh=7.0), "a repetition counts once"
        ingest(recorder, fleet.slot_of["b"], seq=2, t=30, wh=1.0)
        assert (await charged_wh(recorder))["b"] == 8.0


async def test_intervals_of_a_device_whose_profile_is_missing_close_by_time_under_its_name(tmp_path: Path) -> None:
    fleet = started(FLEET)
    async with session(tmp_path, list(fleet.ids)) as (recorder, _):
        ingest(recorder, fleet.slot_of["b"], seq=1, t=10, wh=7.0)
        await settle(recorder)
    fleet = started(FLEET, installed=False)
    async with session(tmp_path, list(fleet.ids)) as (recorder, _):
        assert await charged_wh(recorder) == {"b": 7.0}


def test_fleet_gives_a_device_that_returns_its_slot_and_nothing_else_of_before() -> None:
    fleet = Fleet()
    for name in ("a", "b", "c"):
        fleet.register(home(name, tags=("zone",)), FACTS)
    fleet.live.soc_pct[1] = 50.0
    fleet.control.authority[1] = 1
    assert fleet.unregister(home("b").id) == 1
    assert (set(fleet.slot_of), fleet.apart, fleet.tags["zone"]) == ({"a", "c"}, {"b": 1}, {0, 2})
    assert not fleet.nameplate.registered[1]
    assert np.isnan(fleet.live.soc_pct[1])
    assert fleet.control.authority[1] == 0
    assert fleet.register(home("b"), FACTS) == 1
    assert (set(fleet.slot_of), fleet.apart, fleet.n) == ({"a", "b", "c"}, {}, 3)
