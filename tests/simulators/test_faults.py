"""Every fault does what it says, is seen to, and ends."""

import math
from typing import Any

import orjson
import pytest

from simulators.battery import Mode
from simulators.faults import Fault, FaultKind, FaultRecord
from tests.builders.homes import START_MS, Run, devices


def plant(run: Run, kind: FaultKind, **fields: Any) -> FaultRecord:
    """Begin a fault now and return its record."""
    run.fleet.inject(0, Fault(kind=kind, **fields), run.now_ms)
    run.go(0.1)
    return run.fleet.faults.records[-1]


@pytest.mark.parametrize("kind", list(FaultKind))
def test_fault_of_every_kind_is_seen_and_ends(kind: FaultKind) -> None:
    run = Run(devices(2)).go(5)
    record = plant(run, kind, for_s=4, value=2)
    run.setpoint(1, 1_000)
    run.go(6)
    assert record.first_effect_ms is not None
    assert record.began_ms <= record.first_effect_ms
    assert record.ended_ms == record.began_ms + 4_000
    run.live.clear()
    run.go(3)
    assert [body["id"] for body in run.bodies(0)] == ["sim-00000"] * 3


def test_fault_scripted_begins_at_its_time() -> None:
    run = Run(devices())
    run.fleet.inject(0, Fault(kind=FaultKind.STALE, at_s=10), run.now_ms)
    run.go(9.9)
    assert not run.fleet.faults.records
    run.go(0.2)
    assert run.fleet.faults.records[0].began_ms == START_MS + 10_000


@pytest.mark.parametrize(
    "fault", [Fault(kind=FaultKind.LAG), Fault(kind=FaultKind.REBOOT), Fault(kind=FaultKind.OWNER_RESERVE)]
)
def test_fault_senseless_is_refused(fault: Fault) -> None:
    with pytest.raises(ValueError, match="needs"):
        devices().inject(0, fault, START_MS)


def test_offline_sends_and_receives_nothing_and_keeps_energy() -> None:
    run = Run(devices()).go(3)
    plant(run, FaultKind.OFFLINE, for_s=20)
    run.live.clear()
    assert run.command(cmd=1, op="hold", lease_s=60) is None
    assert run.command(cmd=2, op="release", valid_until=run.now_ms + 60_000) is None
    run.go(15)
    assert run.live == []
    assert run.fleet.sendable(0) == []
    run.go(10)
    assert run.presence == [(0, False), (0, True)]
    assert len(run.fleet.sendable(0)) >= 5
    assert [(answer["cmd"], answer["result"]) for answer in run.answers] == [(1, "expired"), (2, "applied")]


def test_lag_acts_late() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.LAG, value=3)
    assert run.setpoint(1, 2_000) == ""
    run.go(2.8)
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    run.go(0.3)
    assert run.fleet.batteries.mode[0] == Mode.REMOTE
    assert run.answers[0]["result"] == "applied"


def test_lag_past_valid_until_has_no_effect() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.LAG, value=6)
    run.setpoint(1, 2_000)
    run.go(7)
    assert run.answers[0]["result"] == "expired"
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION


def test_frozen_soc_stands_while_energy_moves() -> None:
    run = Run(devices(capacity_wh=5_000.0, discharge_w_max=5_000.0)).go(2)
    plant(run, FaultKind.FROZEN_SOC)
    frozen_pct = run.bodies()[-1]["soc_pct"]
    run.setpoint(1, 5_000, lease_s=600)
    run.go(200)
    assert run.fleet.batteries.true_soc_pct[0] < frozen_pct - 4
    assert {body["soc_pct"] for body in run.bodies()[2:]} == {frozen_pct}


def test_garbage_sends_numbers_that_are_none() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.GARBAGE)
    run.live.clear()
    run.go(6)
    payloads = [payload for _, payload in run.live]
    assert any(b":NaN" in payload for payload in payloads)
    assert any(b'"NaN"' in payload for payload in payloads)
    assert any(b'"soc_pct":null' in payload for payload in payloads)
    broken = 0
    for payload in payloads:
        try:
            orjson.loads(payload)
        except orjson.JSONDecodeError:
            broken += 1
    assert broken == 2


def test_wrong_sign_turns_reported_power_only() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.WRONG_SIGN)
    run.setpoint(1, 2_000)
    run.go(15)
    assert run.fleet.batteries.battery_w[0] > 1_900
    assert run.bodies()[-1]["battery_w"] < -1_900


@pytest.mark.parametrize(("acks", "answer"), [(True, "applied"), (False, "")])
def test_deaf_ignores_commands(acks: bool, answer: str) -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.DEAF, acks=acks)
    assert run.setpoint(1, 2_000) == answer
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION


def test_deaf_still_lets_a_running_lease_end() -> None:
    run = Run(devices()).go(1)
    run.setpoint(1, 2_000, lease_s=10)
    plant(run, FaultKind.DEAF)
    run.setpoint(2, 2_000, lease_s=60)
    run.go(11)
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION


def test_stale_stops_live_and_nothing_else() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.STALE, for_s=20)
    run.live.clear()
    before = len(run.fleet.sendable(0))
    run.go(15)
    assert run.live == []
    assert len(run.fleet.sendable(0)) >= before + 3
    assert run.setpoint(1, 1_000) == "applied"


def test_reboot_starts_a_new_boot_without_lease_and_keeps_messages() -> None:
    run = Run(devices()).go(12)
    run.setpoint(4, 2_000, lease_s=600)
    kept = run.fleet.sendable(0)
    plant(run, FaultKind.REBOOT, for_s=5)
    run.go(12)
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    assert run.presence == [(0, False), (0, True)]
    messages = run.fleet.sendable(0)
    assert messages[: len(kept)] == kept
    assert (messages[len(kept)].boot, messages[len(kept)].seq) == (2, 1)
    assert sum(message.span_ms for message in messages) == messages[-1].t_ms - START_MS
    assert run.setpoint(4, 2_000) == "older"


def test_island_covers_the_home_and_refuses_setpoints() -> None:
    run = Run(devices()).go(1)
    run.setpoint(1, 3_000)
    plant(run, FaultKind.ISLAND, for_s=10)
    run.go(3)
    assert run.setpoint(2, 3_000) == "refused"
    body = run.bodies()[-1]
    assert (body["grid"], body["grid_w"], body["cmd"]) == ("island", 0, 0)
    assert body["battery_w"] == pytest.approx(body["load_w"])
    run.go(10)
    assert run.bodies()[-1]["grid"] == "on"
    assert run.setpoint(3, 3_000) == "applied"


def test_fault_bits_are_reported_and_stop_the_battery() -> None:
    run = Run(devices()).go(10)
    plant(run, FaultKind.FAULT_BITS, value=8, for_s=15)
    run.go(12)
    assert run.bodies()[-1]["faults"] == 8
    assert run.fleet.batteries.battery_w[0] == pytest.approx(0, abs=5)
    assert run.setpoint(1, 1_000) == "refused"
    run.go(5)
    assert run.bodies()[-1]["faults"] == 0


def test_owner_reserve_is_reported_for_good() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.OWNER_RESERVE, value=65)
    run.go(2)
    assert run.bodies()[-1]["reserve_pct"] == 65


def test_owner_mode_takes_the_device_back() -> None:
    run = Run(devices()).go(1)
    run.setpoint(1, 2_000)
    plant(run, FaultKind.OWNER_MODE)
    run.go(2)
    assert (run.bodies()[-1]["mode"], run.bodies()[-1]["cmd"]) == ("self_consumption", 0)


def test_dishonest_id_names_somebody_else_on_its_own_topic() -> None:
    run = Run(devices(2)).go(1)
    plant(run, FaultKind.DISHONEST_ID, claims="sim-00001")
    run.live.clear()
    run.go(2)
    assert {body["id"] for body in run.bodies(0)} == {"sim-00001"}
    assert all(orjson.loads(message.payload)["id"] == "sim-00000" for message in run.fleet.stores[0])


def test_backlog_comes_later_with_its_old_times() -> None:
    run = Run(devices()).go(1)
    plant(run, FaultKind.BACKLOG, for_s=20)
    run.live.clear()
    began_ms = run.now_ms
    run.go(19.5)
    assert run.live == []
    assert run.fleet.sendable(0) == []
    run.go(1)
    times_ms = [body["t"] for body in run.bodies()]
    assert len(times_ms) >= 20
    assert min(times_ms) <= began_ms + 1_000
    assert times_ms == sorted(times_ms)
    assert len(run.fleet.sendable(0)) >= 4


def test_fault_same_kind_again_replaces_the_running_one() -> None:
    run = Run(devices()).go(1)
    first = plant(run, FaultKind.STALE, for_s=math.inf)
    plant(run, FaultKind.STALE, for_s=2)
    assert first.ended_ms is not None
    run.go(3)
    assert run.fleet.faults.quiet
