"""The firmware without a broker: commands, leases, live and energy messages."""

import math
from typing import Any

import orjson
import pytest

from simulators.battery import Mode
from simulators.energy_store import Place
from simulators.faults import Fault, FaultKind
from tests.builders.homes import START_MS, Run, devices


def test_setpoint_valid_is_applied_and_followed() -> None:
    run = Run(devices()).go(1)
    assert run.setpoint(7, 2_000) == "applied"
    run.go(15)
    body = run.bodies()[-1]
    assert (body["mode"], body["cmd"]) == ("remote", 7)
    assert body["battery_w"] == pytest.approx(2_000, rel=0.02)


def test_lease_running_out_reverts_to_own_mode() -> None:
    run = Run(devices()).go(1)
    run.setpoint(1, 2_000, lease_s=10)
    run.go(9.9)
    assert run.fleet.batteries.mode[0] == Mode.REMOTE
    run.go(0.2)
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    assert run.fleet.stats.leases_run_out == 1
    run.go(1)
    assert (run.bodies()[-1]["mode"], run.bodies()[-1]["cmd"]) == ("self_consumption", 0)


def test_lease_refreshed_goes_on() -> None:
    run = Run(devices()).go(1)
    for cmd in range(1, 6):
        assert run.setpoint(cmd, 2_000, lease_s=10) == "applied"
        run.go(8)
    assert run.fleet.batteries.mode[0] == Mode.REMOTE


def test_command_past_valid_until_has_no_effect() -> None:
    run = Run(devices()).go(1)
    assert run.setpoint(1, 2_000, valid_until=run.now_ms - 1) == "expired"
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    assert run.setpoint(1, 2_000, valid_until=run.now_ms) == "applied"


@pytest.mark.parametrize("cmd", [4, 5])
def test_command_not_newer_has_no_effect(cmd: int) -> None:
    run = Run(devices()).go(1)
    run.setpoint(5, 1_000)
    assert run.setpoint(cmd, 3_000) == "older"
    assert run.fleet.batteries.setpoint_w[0] == 1_000


def test_command_expired_is_not_the_last_taken() -> None:
    run = Run(devices()).go(1)
    run.setpoint(9, 2_000, valid_until=run.now_ms - 1)
    assert run.setpoint(8, 1_000) == "applied"


def test_command_hold_stands_still_and_release_lets_go() -> None:
    run = Run(devices()).go(20)
    assert run.fleet.batteries.battery_w[0] > 0
    ack = run.command(cmd=1, op="hold", lease_s=60)
    assert ack == {"id": "sim-00000", "cmd": 1, "result": "applied", "t": run.now_ms}
    run.go(20)
    assert run.fleet.batteries.battery_w[0] == pytest.approx(0, abs=5)
    run.command(cmd=2, op="release")
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    assert run.fleet.reported.command_in_force[0] == 0


def test_command_reserve_is_kept_and_changes_no_mode() -> None:
    run = Run(devices()).go(1)
    run.command(cmd=1, op="reserve", reserve_pct=55)
    run.go(2)
    assert (run.bodies()[-1]["reserve_pct"], run.bodies()[-1]["mode"]) == (55, "self_consumption")


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "setpoint", "setpoint_w": 1_000},
        {"op": "setpoint", "setpoint_w": 1_000.5, "lease_s": 60},
        {"op": "setpoint", "setpoint_w": 1_000, "lease_s": 0},
        {"op": "hold", "lease_s": True},
        {"op": "reserve", "reserve_pct": 101},
        {"op": "dance"},
        {"op": "release", "valid_until": None},
        {"op": "release", "id": "sim-00001"},
    ],
)
def test_command_malformed_is_refused(fields: dict[str, Any]) -> None:
    run = Run(devices()).go(1)
    ack = run.command(cmd=1, **fields)
    assert ack is not None
    assert ack["result"] == "refused"
    assert run.fleet.batteries.mode[0] == Mode.SELF_CONSUMPTION
    assert run.fleet.last_cmd[0] == 0


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"cmd":"1"}', b'{"cmd":true}'])
def test_command_unreadable_is_counted_and_unanswered(payload: bytes) -> None:
    run = Run(devices())
    assert run.fleet.take_command(0, payload, run.now_ms) is None
    assert run.fleet.stats.commands_malformed == 1


def test_commands_seen_are_logged() -> None:
    run = Run(devices()).go(1)
    run.setpoint(3, -1_500, lease_s=30)
    seen = run.fleet.commands_seen[-1]
    assert (seen.cmd, seen.setpoint_w, seen.lease_s, seen.t_ms) == (3, -1_500, 30, run.now_ms)
    assert seen.result is not None
    assert seen.result.value == "applied"


def test_live_message_has_every_field_every_second() -> None:
    run = Run(devices(3)).go(10)
    assert [len(run.bodies(i)) for i in range(3)] == [10, 10, 10]
    body = run.bodies(1)[-1]
    assert set(body) == {
        "id", "t", "battery_w", "soc_pct", "soc_step_pct", "temp_c", "discharge_w_max", "charge_w_max", "mode",
        "grid", "faults", "reserve_pct", "pv_w", "load_w", "grid_w", "cmd",
    }  # fmt: skip
    assert body["load_w"] == pytest.approx(body["pv_w"] + body["battery_w"] + body["grid_w"], abs=0.3)
    assert (body["id"], body["grid"], body["faults"]) == ("sim-00001", "on", 0)
    assert START_MS < body["t"] <= run.now_ms


def test_energy_messages_count_from_one_and_cover_all_time() -> None:
    run = Run(devices()).go(31)
    messages = list(run.fleet.stores[0])
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    assert len(messages) >= 6
    assert sum(message.span_ms for message in messages) == messages[-1].t_ms - START_MS
    body = orjson.loads(messages[-1].payload)
    assert (body["boot"], body["seq"], body["charge_wh"]) == (1, len(messages), None)
    assert body["discharge_counter_wh"] == messages[-1].discharge_wh


def test_energy_without_counters_adds_up() -> None:
    run = Run(devices(counter_step_wh=math.nan)).go(1)
    run.setpoint(1, 3_000, lease_s=300)
    start_wh = run.fleet.batteries.discharged_wh[0]
    first = len(run.fleet.stores[0])
    run.go(60)
    bodies = [orjson.loads(message.payload) for message in run.fleet.stores[0]][first:]
    assert all(body["discharge_counter_wh"] is None for body in bodies)
    total_wh = sum(body["discharge_wh"] for body in bodies)
    assert total_wh == pytest.approx(run.fleet.batteries.discharged_wh[0] - start_wh, abs=5)


def test_energy_store_unacknowledged_is_kept_and_sent_again_identically() -> None:
    run = Run(devices()).go(12)
    first = run.fleet.sendable(0)
    payloads = [message.payload for message in first]
    for message in first:
        message.place = Place.SENT
    assert run.fleet.sendable(0) == []
    for message in first:
        message.place = Place.KEPT  # the connection was lost
    run.go(10)
    assert [message.payload for message in run.fleet.sendable(0)][: len(first)] == payloads
    run.fleet.energy_acked(first[0])
    assert first[0] not in run.fleet.sendable(0)
    assert [acked.seq for acked in run.fleet.acked] == [1]


def test_energy_store_full_drops_the_oldest_and_counts() -> None:
    run = Run(devices(store_max=3)).go(31)
    store = run.fleet.stores[0]
    assert len(store) == 3
    assert store.dropped == run.fleet.seq[0] - 3
    assert [message.seq for message in store][-1] == run.fleet.seq[0]


def test_energy_ack_to_a_cut_off_device_is_not_heard() -> None:
    run = Run(devices()).go(6)
    message = run.fleet.sendable(0)[0]
    message.place = Place.SENT
    run.fleet.inject(0, Fault(kind=FaultKind.OFFLINE, for_s=5), run.now_ms)
    run.go(1)
    run.fleet.energy_acked(message)
    assert run.fleet.stats.pubacks_missed == 1
    run.go(5)
    assert run.fleet.sendable(0)[0] is message
