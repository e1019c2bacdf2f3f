"""A device whose report about its safety is not understood is not controlled, by name, until it is understood.

Firmware's JSON goes through the gateway's MQTT link; what is judged are the commands that reach the device."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.events.request import power
from gateway.domain.limits.types import reason_names
from gateway.services.control.metrics import fleet_samples
from simulators.commands import Op
from simulators.messages import Outgoing
from tests.builders.homes import homes
from tests.scenes.street import LEASE_S, REACTION_S, Street

Change = Callable[[bytes], bytes]
HUGE = "9" * 400


def says(member: str, text: str) -> Change:
    """`member` becomes `text`, as it stands on the wire."""
    return lambda payload: re.sub(rb"}$", f',"{member}":{text}}}'.encode(), without(member)(payload))


def without(member: str) -> Change:
    return lambda payload: json.dumps({k: v for k, v in json.loads(payload).items() if k != member}).encode()


class Bent(Street):
    """A street of two homes; what the first one says is changed on its way."""

    change: Change | None = None

    def start(self) -> None:
        super().start()
        honest = self.devices.live

        def live(now_ms: int) -> list[Outgoing]:
            return [self._bent(message) for message in honest(now_ms)]

        self.devices.live = live  # type: ignore[method-assign]

    def _bent(self, message: Outgoing) -> Outgoing:
        if self.change is None or message.index or message.topic != self.devices.topics.live[0]:
            return message
        return replace(message, payload=self.change(message.payload))

    def ops(self, index: int) -> list[Op | None]:
        return [seen.op for seen in self.devices.commands_seen if seen.index == index]

    def reasons(self) -> list[str]:
        return reason_names(self.queries.reasons_of(0))


def street() -> Bent:
    return Bent(homes(2, discharge_w_max=5_000.0, charge_w_max=5_000.0, slew_w_per_s=3_000.0, response_s=1.5))


UNCLEAR: list[tuple[str, Any]] = [
    *(("opt_out", text) for text in ("1", "0", '"true"', "null", "[]", "{}", "0.5", "NaN", "1e400", HUGE)),
    *(("locked", text) for text in ("1", '"true"', "null", "[true]", '{"on":true}', "-Infinity")),
    *(("faults", text) for text in ("-1", '"0"', "true", "null", "0.5", "18446744073709551616", "NaN", "[0]", HUGE)),
    *(("grid", text) for text in ('"off"', '"ON"', '""', "1", "null", "true", '["on"]', "NaN")),
    *(("mode", text) for text in ('"vacation"', "7", "null", "{}", "NaN")),
]
UNREADABLE: list[Change] = [
    lambda payload: payload[:-20],
    lambda payload: b"",
    lambda payload: b"[]",
    lambda payload: payload.replace(b'"grid":"on"', b'"grid":"\xff"'),
    says("locked", "True"),
    says("locked", "[" * 10_000),
    without("id"),
]
CASES = [pytest.param(member, says(member, text), id=f"{member}-{text[:22]}") for member, text in UNCLEAR] + [
    pytest.param("message", change, id=f"message-{number}") for number, change in enumerate(UNREADABLE)
]


@pytest.mark.parametrize(("member", "change"), CASES)
async def test_street_device_that_is_not_understood_is_sent_nothing_until_it_is(member: str, change: Change) -> None:
    world = street()
    await world.go(2)
    world.change = change
    await world.go(1)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(20)
    assert world.ops(0) == []
    assert Op.SETPOINT in world.ops(1)
    assert f"unclear_{member}" in world.reasons()
    world.change = None
    await world.go(20)
    assert Op.SETPOINT in world.ops(0)
    assert not [name for name in world.reasons() if name.startswith("unclear")]
    assert world.problems == []


@pytest.mark.parametrize(
    ("member", "text"),
    [("opt_out", "false"), ("locked", "false"), ("faults", "0"), ("faults", "0.0"), ("grid", '"on"'),
     ("mode", '"self_consumption"')],
)  # fmt: skip
async def test_street_device_that_says_it_well_or_not_at_all_is_controlled(member: str, text: str) -> None:
    for change in (says(member, text), without(member)):
        world = street()
        world.change = change
        await world.go(2)
        await world.submit(s=3_600, target=power(6_000))
        await world.go(5)
        assert Op.SETPOINT in world.ops(0)
        assert world.reasons() == ["lookahead"] or not [n for n in world.reasons() if n.startswith("unclear")]


@pytest.mark.parametrize(
    ("member", "text"),
    [("opt_out", "true"), ("locked", "true"), ("faults", "2"), ("grid", '"island"'), ("mode", '"vacation"')],
)
async def test_street_device_that_contradicts_itself_is_not_understood(member: str, text: str) -> None:
    """The last of several members of one name would win, whatever the others say."""

    def twice(payload: bytes) -> bytes:
        well = json.dumps(json.loads(payload).get(member, False))
        return (
            b'{"%s":%s,' % (member.encode(), text.encode())
            + b'"%s":%s,' % (member.encode(), well.encode())
            + payload[1:]
        )

    world = street()
    world.change = twice
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(20)
    assert world.ops(0) == []
    assert f"unclear_{member}" in world.reasons()


async def test_street_device_that_says_the_same_twice_is_controlled() -> None:
    world = street()
    world.change = lambda payload: payload[:-1] + b',"grid":"on","faults":0,"note":"opt_out","opt_out":false}'
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(5)
    assert Op.SETPOINT in world.ops(0)


@pytest.mark.parametrize("word", ["4", "9223372036854775808", "18446744073709551615", "9.1e15"])
async def test_street_any_bit_of_a_fault_word_is_a_fault(word: str) -> None:
    world = street()
    world.change = says("faults", word)
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(20)
    assert world.ops(0) == []
    assert "fault" in world.reasons()
    assert "unclear_faults" not in world.reasons()


@pytest.mark.parametrize(
    ("member", "change"), [case for case in CASES if "null" in str(case.id) or "NaN" in str(case.id)]
)
async def test_street_device_that_is_not_understood_in_mid_event_is_let_go(member: str, change: Change) -> None:
    world = street()
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(40)
    assert world.remote.all()
    before = len(world.ops(0))
    world.change = change
    await world.go(1)
    assert f"unclear_{member}" in world.reasons()
    await world.go(LEASE_S + REACTION_S)
    assert set(world.ops(0)[before:]) <= {Op.RELEASE}
    assert not world.remote[0]
    assert world.remote[1]
    assert world.problems == []


async def test_street_owner_who_may_have_said_no_is_let_go_at_once() -> None:
    world = street()
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(40)
    world.change = says("opt_out", "1")
    await world.go(REACTION_S)
    assert not world.remote[0]
    assert world.ops(0)[-1] is Op.RELEASE


async def test_street_island_that_becomes_unclear_still_waits_after_it_is_over() -> None:
    """Between an island and the grid nobody may forget that there was one."""
    world = street()
    await world.go(2)
    for text in ('"island"', '"off"', '"on"'):
        world.change = says("grid", text)
        await world.go(2)
    await world.submit(s=3_600, target=power(-6_000))
    await world.go(30)
    assert "reconnecting" in reason_names(int(world.queries.envelope.reasons_charge[0]))  # type: ignore[union-attr]


async def test_street_log_names_the_member_on_the_edge_and_once_a_minute_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = street()
    await world.go(2)
    for second in range(90):
        # now one member, now another, now all is well
        world.change = (says("opt_out", "1"), says("grid", '"off"'), None)[second % 3]
        await world.go(1)
    lines = [record for record in caplog.records if record.name == "gateway.services.control.unclear"]
    assert len(lines) == 2
    told = [(getattr(r, "count"), getattr(r, "first"), getattr(r, "members")) for r in lines]  # noqa: B009
    assert told == [(1, world.homes.ids[0], ["opt_out"]), (1, world.homes.ids[0], ["grid", "opt_out"])]


async def test_street_what_is_not_understood_is_named_in_records_and_metrics() -> None:
    world = street()
    world.change = says("opt_out", "1")
    await world.go(2)
    await world.submit(s=3_600, target=power(6_000))
    await world.go(10)
    entry = world.dispatcher.entry("e")
    assert entry is not None
    members = world.dispatcher.members(entry.index, entry.request)
    _, rows = world.control.records.page(entry, members, slice(None))
    record = next(row for row in rows if row["device"] == world.homes.ids[0])
    assert (record["status"], record["failure"]) == ("failed", "excluded")
    assert "unclear_opt_out" in record["limits"]
    counted = {
        dict(sample.labels)["member"]: sample.value
        for sample in fleet_samples(world.fleet, world.clock)
        if sample.name == "gateway_unclear_devices"
    }
    assert counted == {name: float(name == "opt_out") for name in counted}
    assert set(counted) >= {"mode", "grid", "locked", "opt_out", "faults", "message"}
