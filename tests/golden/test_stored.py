"""What a fixed history looks like on disk: journal, spool, checkpoint, interval log and where its readers are."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gateway.clock import ManualClock
from gateway.domain.events.calendar import Daily
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import OPEN_MS, Leg
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.journal.changes import (
    ControlEnded,
    ControlTaken,
    DeviceRegistered,
    EventDelivered,
    EventMoved,
    ExclusionLifted,
    ExclusionSet,
    PriorRestored,
    PriorSaved,
    Quarantined,
    ReserveChanged,
    StopAll,
    Trusted,
)
from gateway.domain.types import DeviceId, EventId
from gateway.services.checkpointing import Checkpointer
from gateway.storage.checkpoint import Checkpoints
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.positions import Cursor, Parked, Position, Range
from gateway.storage.journal.journal import SqliteJournal
from tests.builders.energy_batches import T0, at, batch, row
from tests.golden import golden, masks
from tests.releases import truth
from tests.scenes.recorder_histories import session, settle
from tests.scenes.world import World, homes_of
from tests.storage.journal.test_journal import POLLED, SETTINGS, device, event

A, B, C = DeviceId("a"), DeviceId("b"), DeviceId("c")


async def test_journal_of_every_kind_of_change_is_that_of_the_golden_file(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = SqliteJournal(tmp_path / "journal.sqlite", clock=clock)
    journal.load()
    decided = event(clock)
    until_notice, every_day = event(clock, name="e3"), event(clock, name="e4")
    daily = Daily(zone="America/Los_Angeles", first_ms=clock.utc, length_ms=1000, weekdays=(0, 4))
    leg = Leg(after_ms=0, until_ms=1000, target=decided.request.target)
    storm = Exclusion(id="storm-7", reason="storm", group=decided.request.group, from_ms=clock.utc, until_ms=None)
    columns = {"asked_wh": np.array([1.5, 2.5]), "status": np.array([3, 4], dtype=np.int8)}
    await journal.commit(
        [
            DeviceRegistered(device=device("a")),
            DeviceRegistered(device=device("b", connection=POLLED, experimental=True, inverter_w_max=4_600.0)),
            DeviceRegistered(device=device("c", connection=DeviceConnection(url=""))),
            decided,
            event(clock, name="e2", revision=1, cancelled=True),
            replace(until_notice, request=replace(until_notice.request, end_ms=OPEN_MS)),
            replace(every_day, request=replace(every_day.request, end_ms=OPEN_MS, legs=(leg,), daily=daily)),
            EventMoved(event=decided.request.id, revision=0, state=EventState.ACTIVE),
            PriorSaved(device=B, settings=SETTINGS),
            PriorSaved(device=C, settings={"mode": 1.0}),
            PriorRestored(device=C),
            ControlTaken(devices=(A, B), event=decided.request.id),
            ControlEnded(devices=(A,), reason="released"),
            ReserveChanged(devices=(A,), reserve_pct=(55.0,), source="device"),
            ExclusionSet(exclusion=storm),
            ExclusionSet(exclusion=Exclusion(id="out", reason="opt_out", group=decided.request.group, from_ms=1,
                                             until_ms=2, event=EventId("e1"), by="owner")),
            ExclusionLifted(id="out"),
            Quarantined(names=("a", "product:p"), reason="wrong_sign"),
            Trusted(names=("product:p",)),
            StopAll(active=True, by="operator"),
            EventDelivered(event=EventId("e0"), occurrence_ms=clock.utc, ended_ms=clock.utc + 1, devices=(A, B),
                           columns=columns),
        ]
    )  # fmt: skip
    journal.close()
    golden("journal.txt", masks.database(tmp_path / "journal.sqlite"))


async def test_telemetry_of_a_fixed_history_is_stored_as_in_the_golden_files(tmp_path: Path) -> None:
    ids = ["bat-0", "bat-1"]
    first = [row(slot=s, seq=i, t=20 * i, span=20, charge_wh=2, battery_w=-360, soc_pct=50 + i, grid_w=1, pv_w=2,
                 load_w=3) for s in (0, 1) for i in (1, 2, 3, 5)]  # fmt: skip
    counted = [row(slot=2, seq=i, t=60 * i, span=60, charge_counter_wh=100 * i, discharge_counter_wh=5) for i in (1, 2)]
    async with session(tmp_path, ids) as (recorder, checkpoints):
        recorder.ingest(batch(first), at(101), np.full(2, 5_000.0))
        ids.append("bat-2")
        recorder.ingest(batch(counted), at(121))
        while recorder.close_due(at(200)):
            pass
        recorder.ingest(batch([row(slot=0, seq=4, t=10, span=5, discharge_wh=1)]), at(201))
        recorder.agree(
            AgreedConfig(slots=np.array([1], dtype=np.int32), length_s=np.array([300]), counter_step_wh=np.array([1.0]),
                   rated_w=np.array([5_000.0])), at(202),
        )  # fmt: skip
        await settle(recorder)
        async with IntervalLog(tmp_path / "log", clock=ManualClock()) as log:
            found = recorder.unlogged()
            await log.append(found)
            recorder.logged(found[-1].record)
            place = Position(live=Cursor(1, 4), backfill=(Range(Cursor(1, 1), Cursor(1, 2)),))
            await log.save_position("platform", place, [Parked(identity=(T0, "bat-0", 1), reason="refused", at_ms=T0)])
        await recorder.checkpoint(checkpoints, at(203), {})
    golden("spool.txt", masks.spool(masks.only(tmp_path / "spool", ".spool")))
    kept = masks.only(tmp_path / "checkpoints", ".checkpoint")
    golden("checkpoint-engine.txt", masks.checkpoint(kept, values=True))
    day = ManualClock().now().utc_ms
    golden("intervals.txt", masks.database(tmp_path / "log" / f"00000001-{truth.day_of(day)}.sqlite"))
    golden("cursors.txt", masks.database(tmp_path / "log" / "cursors.sqlite"))


async def test_checkpoint_of_a_fleet_under_control_has_the_columns_of_the_golden_file(tmp_path: Path) -> None:
    world = World(homes_of(2))
    await world.submit(s=60, target_w=2_000)
    await world.go(10)
    async with session(tmp_path, list(world.fleet.ids)) as (recorder, _):
        checkpoints = Checkpoints(tmp_path)
        await Checkpointer(
            recorder=recorder, checkpoints=checkpoints, fleet=world.fleet, records=world.control.records,
            clock=world.clock,
        ).write()  # fmt: skip
        assert checkpoints.stats.written == 1
    kept = masks.only(tmp_path, ".checkpoint")
    golden("checkpoint-columns.txt", masks.checkpoint(kept, values=False))
