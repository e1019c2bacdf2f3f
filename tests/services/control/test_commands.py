"""Commands on their way: whatever is lost, late, doubled or overtaken, and however often the gateway dies, a device
applies ids that only grow, none that is no longer valid, and is under control no longer than it was given a lease.

Read from the simulated devices. The small count runs with every test; `make test-deep` makes 100,000.
"""

import asyncio
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.commands import CommandOp
from gateway.domain.control.planning import Cause, Plan
from gateway.domain.fleet.fleet import Fleet
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.services.control.command_writer import CommandWriter
from gateway.services.control.reach import ReachWatch
from gateway.services.runtime.pending_changes import PendingChanges
from gateway.services.settings import ControlSettings
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from simulators.battery import Batteries, Mode
from simulators.commands import Op, Result
from simulators.device import Devices
from tests.builders.fakes import MemoryJournal
from tests.builders.homes import START_MS, homes
from tests.depth import deep
from tests.scenes.street import Wire, reference, registered

COUNT = 2
HOMES = homes(COUNT, discharge_w_max=5_000.0, charge_w_max=5_000.0)
REGISTERED = registered(HOMES)
MASK = st.sampled_from([(0,), (1,), (0, 1)])
ACTIONS = st.one_of(
    st.tuples(st.just("write"), MASK, st.sampled_from([3_000, -3_000, 0]), st.sampled_from([60, 120])),
    st.tuples(st.just("write"), MASK, st.just(1_000), st.just(60)),
    st.tuples(st.just("release"), MASK),
    st.tuples(st.just("arrive"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("arrive"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("pass"), st.sampled_from([1, 19, 21, 61, 121])),
    st.tuples(st.just("restart")),
)


class Road(Wire):
    """A connection on which messages lie until somebody lets them arrive."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.lying: list[OutMessage] = []

    async def publish(self, messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        del deadline_mono_ms
        self.lying += messages
        return [PublishOutcome.ACKED] * len(messages)


class Way:
    """A writer, the road, and devices at its end."""

    def __init__(self) -> None:
        self.devices = Devices(HOMES, Batteries(HOMES, guard=False), now_ms=START_MS)
        self.clock = ManualClock(utc_ms=START_MS)
        self.journal = MemoryJournal()
        self.fleet = Fleet()
        codec = reference()
        for device in REGISTERED:
            self.fleet.register(device, codec.facts)
        with patch("gateway.links.mqtt.messages.MqttConnection", Road):
            self.link = MqttLink(
                MqttLinkSettings(broker=MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")),
                codecs=[codec], fleet=self.fleet, clock=self.clock,
            )  # fmt: skip
        self.road: Road = self.link.control  # type: ignore[assignment]
        self.index = {topic: i for i, topic in enumerate(self.devices.topics.command)}
        self.applied = np.zeros(COUNT, dtype=np.int64)
        self.until_ms = np.zeros(COUNT, dtype=np.int64)
        self.seen = 0
        self.start()

    def start(self) -> None:
        self.writer = CommandWriter(
            ControlSettings(), fleet=self.fleet, pending=PendingChanges(self.journal, deadline_s=5.0), link=self.link,
            clock=self.clock, epoch=self.journal.load().epoch, reach=ReachWatch(self.fleet), halted=lambda: False,
        )  # fmt: skip

    async def write(self, slots: tuple[int, ...], op: CommandOp, setpoint_w: int, lease_s: int) -> None:
        n = len(slots)
        plan = Plan(
            slots=np.array(slots, dtype=np.int32), op=np.full(n, op, dtype=np.int8),
            setpoint_w=np.full(n, setpoint_w, dtype=np.int64), lease_s=np.full(n, lease_s, dtype=np.int64),
            cause=np.full(n, Cause.CHANGE, dtype=np.int8), outside=0,
        )  # fmt: skip
        marked = self.writer.mark(
            plan, np.zeros(0, dtype=np.int32), np.zeros(COUNT, dtype=np.int32), self.clock.now(), names={}
        )
        await self.writer.carry_out(marked, lambda marks: np.zeros_like(marks.taken))

    async def do(self, action: tuple[Any, ...]) -> None:
        lying = self.road.lying
        match action:
            case ("write", slots, setpoint_w, lease_s):
                op = CommandOp.SETPOINT if setpoint_w else CommandOp.HOLD
                await self.write(slots, op, setpoint_w, lease_s)
            case ("release", slots):
                await self.write(slots, CommandOp.RELEASE, 0, 0)
            case ("arrive", which, again) if lying:
                message = lying[which % len(lying)] if again else lying.pop(which % len(lying))
                self.devices.take_command(self.index[message.topic], message.payload, self.clock.utc)
                self.judge(json.loads(message.payload))
            case ("lose", which) if lying:
                lying.pop(which % len(lying))
            case ("pass", s):
                self.clock.advance(s=s)
                self.devices.step(self.clock.utc, s)
            case ("restart",):
                self.start()
            case _:
                pass
        remote = self.devices.batteries.mode == Mode.REMOTE
        assert not (remote & (self.clock.utc > self.until_ms)).any(), "under control beyond what it was given"

    def judge(self, body: dict[str, Any]) -> None:
        """What arrived just now: was it right to apply it, or not to?"""
        for seen in islice(self.devices.commands_seen, self.seen, None):
            self.seen += 1
            valid = self.clock.utc <= body["valid_until"]
            newer = seen.cmd > self.applied[seen.index]
            assert (seen.result is Result.APPLIED) == (valid and newer), seen
            if seen.result is Result.APPLIED:
                self.applied[seen.index] = seen.cmd
                lease_ms = 0 if seen.op is Op.RELEASE else 1_000 * seen.lease_s
                self.until_ms[seen.index] = self.clock.utc + lease_ms


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as made:
        yield made


@settings(max_examples=deep(100_000, else_=150))
@given(actions=st.lists(ACTIONS, min_size=4, max_size=14))
def test_commands_on_any_way_apply_in_order_in_time_and_for_no_longer_than_given(
    runner: asyncio.Runner, actions: list[tuple[Any, ...]]
) -> None:
    way = Way()

    async def run() -> None:
        for action in actions:
            await way.do(action)

    runner.run(run())
