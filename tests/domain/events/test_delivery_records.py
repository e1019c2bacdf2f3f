"""The delivery record: every step of a device's way with its time, why it failed, and what it was worth."""

from typing import Any

import numpy as np
import pytest

from gateway.domain.commands import CommandResult
from gateway.domain.events.delivery_records import STEPS, Failure, Records, Sight, Status
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import power_of
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams, Reason
from gateway.domain.types import Mode, Now
from tests.builders.fleets import NOW, fleet_of

NOTHING_SEEN = np.zeros(0, dtype=np.int64)


class Way:
    """Devices on their way through an event that asks 2 kW of each, a second at a time."""

    def __init__(self, n: int = 1, /, **columns: Any) -> None:
        free = {"authority": Authority.DEVICE, "mode": Mode.SELF_CONSUMPTION, "cmd": 0, "cmd_sent": 0, "cmd_applied": 0}
        self.snapshot: Snapshot = fleet_of(n, **({"soc_pct": 60, "setpoint_w": 0} | free | columns))
        self.records = Records()
        self.records.include(np.arange(n, dtype=np.int32), n)
        self.now = NOW
        self.asked_w = np.full(n, 2_000)
        self.mine = np.ones(n, dtype=np.bool_)
        self.left = np.zeros(n, dtype=np.bool_)
        self.unresponsive = np.zeros(n, dtype=np.bool_)
        self.unreached = np.zeros(n, dtype=np.int8)
        self.serves = np.ones(n, dtype=np.int16)
        self.moved: list[int] = []

    def sent(self, setpoint_w: int = 2_000) -> "Way":
        control, n = self.snapshot.control, self.snapshot.n
        control.authority[:] = Authority.CONTROLLED
        control.before_w[:] = control.setpoint_w
        control.setpoint_w[:] = setpoint_w
        control.cmd_sent[:] += 1
        control.result[:] = CommandResult.NONE
        self.records.written(np.arange(n, dtype=np.int32), np.full(n, setpoint_w), control.cmd_sent.copy(), self.now)
        return self

    def answered(self, result: CommandResult = CommandResult.APPLIED) -> "Way":
        control = self.snapshot.control
        control.result[:] = result
        if result is CommandResult.APPLIED:
            control.cmd_applied[:] = control.cmd_sent
        return self

    def observe(self, *, s: float = 1.0, battery_w: float | None = None, sign: int = 1) -> "Way":
        ms = round(s * 1000)
        self.now = Now(utc_ms=self.now.utc_ms + ms, mono_ms=self.now.mono_ms + ms)
        if battery_w is not None:
            self.snapshot.live.battery_w[:] = battery_w
            self.snapshot.live.seen_mono_ms[:] = self.now.mono_ms
        allowed = envelope(self.snapshot, self.now, LimitParams())
        inside = np.minimum(self.asked_w, np.floor(allowed.discharge_w)).astype(np.int64)
        sight = Sight(
            snapshot=self.snapshot, allowed=allowed, power=power_of(self.snapshot, self.now, NOTHING_SEEN),
            asked_w=self.asked_w, wanted_w=inside, unresponsive=self.unresponsive, unreached=self.unreached,
            serves=self.serves,
            by_own_mode=np.zeros(self.snapshot.n, dtype=np.bool_),
        )  # fmt: skip
        self.moved = self.records.observe(sight, self.mine, self.left, self.now, sign=sign).tolist()
        return self

    def status(self, row: int = 0) -> tuple[Status, Failure]:
        rows = self.records.rows
        return Status(int(rows.status[row])), Failure(int(rows.failure[row]))

    def times(self) -> list[int]:
        """Seconds from the beginning to sent, acknowledged, started, ended; -1 = never."""
        rows = self.records.rows
        stamps = (rows.sent_ms[0], rows.acknowledged_ms[0], rows.started_ms[0], rows.ended_ms[0])
        return [-1 if ms == 0 else int(ms - NOW.utc_ms) // 1000 for ms in stamps]


def test_record_goes_up_the_ladder_with_a_time_for_each_step() -> None:
    way = Way()
    steps = [way.observe(battery_w=0).status()[0]]
    way.sent()
    steps.append(way.observe(battery_w=0).status()[0])
    way.answered()
    steps.append(way.observe(battery_w=300).status()[0])
    steps.append(way.observe(battery_w=1_200).status()[0])
    steps.append(way.observe(battery_w=1_950).status()[0])
    assert [step.name for step in steps] == ["SCHEDULED", "SENT", "ACKNOWLEDGED", "STARTED", "DELIVERING"]
    way.records.end(Status.COMPLETED, way.now)
    assert way.status()[0] is Status.COMPLETED
    assert way.times() == [1, 3, 4, 5]
    assert way.records.rows.commands[0] == 1


def test_record_reports_only_what_has_changed() -> None:
    way = Way().sent().answered()
    assert way.observe(battery_w=2_000).moved == [0]
    assert way.observe(battery_w=1_990).moved == []


def test_record_new_setpoint_sends_nobody_back_down() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    way.sent(2_600)
    assert way.observe(battery_w=2_000).status()[0] is Status.DELIVERING
    way.answered()
    assert way.observe(battery_w=2_300).status()[0] is Status.STARTED


@pytest.mark.parametrize(
    ("columns", "failure"),
    [
        ({"online": 0}, Failure.OFFLINE),
        ({"soc_pct": np.nan}, Failure.OFFLINE),
        ({"faults": 2}, Failure.FAULT),
        ({"soc_pct": 20}, Failure.LIMIT),
        ({"locked": 1}, Failure.EXCLUDED),
    ],
)
def test_record_says_why_a_device_fails_and_comes_back_when_it_does(columns: dict[str, Any], failure: Failure) -> None:
    way = Way(**columns).observe(battery_w=0)
    assert way.status() == (Status.FAILED, failure)
    healthy = {"online": 1, "soc_pct": 60.0, "soc_low_pct": 60.0, "soc_high_pct": 60.0, "faults": 0, "locked": 0}
    for name, value in healthy.items():
        way.snapshot.live.column(name)[:] = value
    way.sent().answered()
    assert way.observe(battery_w=2_000).status() == (Status.DELIVERING, Failure.NONE)


def test_record_refusal_and_silence_are_failures_of_their_own() -> None:
    way = Way().sent().answered(CommandResult.REFUSED).observe(battery_w=0)
    assert way.status() == (Status.FAILED, Failure.REFUSED)
    way = Way().sent().answered()
    way.unresponsive[:] = True
    assert way.observe(battery_w=0).status() == (Status.FAILED, Failure.NO_RESPONSE)


def test_record_limit_says_which_and_to_what() -> None:
    way = Way().sent(1_000).answered()
    way.snapshot.live.discharge_w_max[:] = 1_000
    way.observe(battery_w=1_000)
    rows = way.records.rows
    assert (rows.asked_w[0], rows.allowed_w[0]) == (2_000, 1_000)
    assert Reason(int(rows.limits[0])) is Reason.BMS
    way.snapshot.live.discharge_w_max[:] = 5_000
    way.observe(battery_w=1_000)
    assert (rows.allowed_w[0], rows.limits[0]) == (2_000, 0)


def test_record_owner_who_leaves_stays_out_and_may_come_back() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    way.left[:] = True
    assert way.observe(battery_w=0).status()[0] is Status.OPTED_OUT
    way.left[:] = False
    assert way.observe(battery_w=2_000).status()[0] is Status.DELIVERING
    way.snapshot.control.authority[:] = Authority.OWNER
    assert way.observe(battery_w=0).status()[0] is Status.OPTED_OUT
    way.records.end(Status.COMPLETED, way.now)
    assert way.status()[0] is Status.OPTED_OUT


def test_record_device_that_another_event_has_is_superseded_until_it_is_back() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    way.mine[:] = False
    assert way.observe(battery_w=-3_000).status()[0] is Status.SUPERSEDED
    before_wh = float(way.records.rows.delivered_wh[0])
    way.observe(battery_w=-3_000)
    assert way.records.rows.delivered_wh[0] == before_wh
    way.mine[:] = True
    assert way.observe(battery_w=2_000).status()[0] is Status.DELIVERING


def test_record_cancelled_stays_so() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    way.records.end(Status.CANCELLED, way.now)
    assert way.status()[0] is Status.CANCELLED
    assert way.observe(battery_w=2_000).status()[0] is Status.CANCELLED


def test_record_failed_device_stays_failed_when_the_event_completes() -> None:
    way = Way(online=0).observe()
    way.records.end(Status.COMPLETED, way.now)
    assert way.status() == (Status.FAILED, Failure.OFFLINE)


def test_record_energy_is_what_was_asked_what_was_measured_and_what_is_missing() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    for _ in range(36):
        way.observe(battery_w=1_500, s=10)
    rows = way.records.rows
    assert rows.asked_wh[0] == pytest.approx(2_000 * 360 / 3600)
    assert rows.delivered_wh[0] == pytest.approx(1_500 * 360 / 3600, rel=0.01)
    assert rows.shortfall_wh[0] == pytest.approx(500 * 360 / 3600, rel=0.02)


def test_record_charging_is_negative_throughout() -> None:
    way = Way()
    way.asked_w[:] = -2_000
    way.sent(-2_000).answered().observe(battery_w=-2_000, sign=-1)
    for _ in range(36):
        way.observe(battery_w=-1_000, s=10, sign=-1)
    rows = way.records.rows
    assert rows.asked_wh[0] == pytest.approx(-200)
    assert rows.shortfall_wh[0] == pytest.approx(-100, rel=0.02)


def test_record_of_a_device_that_is_asked_for_nothing_owes_nothing() -> None:
    way = Way()
    way.asked_w[:] = 0
    for _ in range(60):
        way.observe(battery_w=-1_500)
    rows = way.records.rows
    assert (rows.asked_wh[0], rows.delivered_wh[0], rows.shortfall_wh[0]) == (0, 0, 0)


def test_record_unknown_power_is_not_counted_as_delivered_and_a_long_gap_is_not_filled() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    way.observe(s=3_600)
    assert way.records.rows.asked_wh[0] == pytest.approx(2_000 / 60, rel=0.05)
    way.snapshot.live.battery_w[:] = np.nan
    before_wh = float(way.records.rows.delivered_wh[0])
    way.observe(s=10)
    assert way.records.rows.delivered_wh[0] == before_wh


def test_record_energy_is_booked_from_readings_alone_and_what_nobody_measured_is_told_apart() -> None:
    way = Way(lease_end_mono_ms=NOW.mono_ms + 3_600_000).sent().answered().observe(battery_w=2_000)
    for _ in range(10):
        way.observe(battery_w=2_000, s=10)
    rows = way.records.rows
    before_wh = float(rows.delivered_wh[0])
    assert (rows.unmeasured_wh[0], rows.shortfall_wh[0]) == (0, 0)
    way.observe(s=30)  # a young reading stands for half a minute
    assert rows.delivered_wh[0] > before_wh
    before_wh = float(rows.delivered_wh[0])
    for _ in range(6):
        way.observe(s=10)
    assert (rows.delivered_wh[0], np.isnan(rows.measured_w[0]), rows.assumed_w[0]) == (before_wh, True, 2_000)
    assert rows.unmeasured_wh[0] == pytest.approx(2_000 * 60 / 3600)
    assert rows.shortfall_wh[0] == rows.unmeasured_wh[0]
    way.observe(battery_w=1_500, s=10)
    assert rows.delivered_wh[0] == pytest.approx(before_wh + 1_500 * 10 / 3600)
    assert (rows.measured_w[0], np.isnan(rows.assumed_w[0])) == (1_500, True)
    assert rows.asked_wh[0] == pytest.approx(rows.delivered_wh[0] + rows.shortfall_wh[0], rel=1e-4)


def test_record_device_that_is_not_measured_any_more_is_not_said_to_deliver() -> None:
    way = Way().sent().answered().observe(battery_w=2_000)
    assert way.status()[0] is Status.DELIVERING
    assert way.observe(s=40).status()[0] is Status.STARTED
    way.sent(2_100)  # not even once it gets another setpoint
    assert way.observe().status()[0] is Status.STARTED
    way.answered()
    assert way.observe(battery_w=2_050).status()[0] is Status.DELIVERING


def test_record_device_that_nobody_measured_has_not_started() -> None:
    way = Way(battery_w=1_950)
    way.snapshot.live.seen_mono_ms[:] -= 40_000
    way.sent().answered()
    assert way.observe().status()[0] is Status.ACKNOWLEDGED
    assert way.observe(battery_w=1_950).status()[0] is Status.DELIVERING


def test_record_devices_that_join_later_get_rows_and_rows_stay() -> None:
    records = Records()
    records.include(np.array([3, 1], dtype=np.int32), 5)
    records.include(np.array([1, 4], dtype=np.int32), 5)
    assert records.rows.slot[: records.n].tolist() == [3, 1, 4]


def test_record_large_event_is_brought_up_to_date_in_parts() -> None:
    way = Way(10).sent().answered()
    allowed = envelope(way.snapshot, way.now, LimitParams())
    sight = Sight(
        snapshot=way.snapshot, allowed=allowed, power=power_of(way.snapshot, way.now, NOTHING_SEEN),
        asked_w=way.asked_w, wanted_w=way.asked_w, unresponsive=way.unresponsive, unreached=way.unreached,
        serves=way.serves,
        by_own_mode=np.zeros(10, dtype=np.bool_),
    )  # fmt: skip
    first = way.records.observe(sight, way.mine, way.left, way.now, sign=1, part=slice(0, 4))
    assert first.tolist() == [0, 1, 2, 3]
    second = way.records.observe(sight, way.mine, way.left, way.now, sign=1, part=slice(4, 8))
    assert second.tolist() == [4, 5, 6, 7]


def test_steps_every_status_can_be_reached_and_an_end_is_an_end() -> None:
    reached = {Status.SCHEDULED}
    for _ in Status:
        reached |= {after for before in reached for after in STEPS[before]}
    assert reached == set(Status)
    assert STEPS[Status.CANCELLED] == ()
    assert not {Status.SENT, Status.DELIVERING} & set(STEPS[Status.COMPLETED])
    assert Status.ACKNOWLEDGED not in STEPS[Status.DELIVERING]
