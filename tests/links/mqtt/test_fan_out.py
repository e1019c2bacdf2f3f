"""Commands do not queue behind telemetry: a large fan-out holds the reading of telemetry back, however it ends."""

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.domain.commands import CommandBatch, CommandOp
from gateway.domain.errors import LinkDown
from gateway.domain.fleet.fleet import Fleet
from gateway.links.mqtt.messages import PAUSE_TELEMETRY_FROM, MqttLink, MqttLinkSettings
from gateway.transports.mqtt.connection import OutMessage, PublishOutcome
from gateway.transports.mqtt.settings import MqttSettings
from tests.builders.fakes import home
from tests.scenes.street import Wire, reference


class Paused(Wire):
    """Notes whether telemetry is read while commands go out."""

    pauses = 0

    def pause_reading(self) -> None:
        self.pauses += 1

    def resume_reading(self) -> None:
        self.pauses -= 1


async def written(devices: int, *, fails: bool = False, disk: bool = False) -> tuple[list[int], int]:
    """How often telemetry was paused during the fan-out, and after it. `disk`: it was paused before, for the disk."""
    fleet, codec, clock = Fleet(), reference(), ManualClock()
    for i in range(devices):
        fleet.register(home(f"home-{i}", profile="reference-mqtt"), codec.facts)
    with patch("gateway.links.mqtt.messages.MqttConnection", Paused):
        broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")
        link = MqttLink(MqttLinkSettings(broker=broker), codecs=[codec], fleet=fleet, clock=clock)
    if disk:
        link.pause_telemetry(True)
    during: list[int] = []

    async def publish(messages: Sequence[OutMessage], *, deadline_mono_ms: int) -> list[PublishOutcome]:
        during.append(link.telemetry.pauses)  # type: ignore[attr-defined]
        if fails:
            raise LinkDown("gone")
        return [PublishOutcome.ACKED] * len(messages)

    link.control.publish = publish  # type: ignore[method-assign]
    batch = CommandBatch(
        slots=np.arange(devices, dtype=np.int32), op=np.full(devices, int(CommandOp.HOLD), dtype=np.int8),
        setpoint_w=np.zeros(devices, dtype=np.int64), lease_s=np.full(devices, 60),
        reserve_pct=np.full(devices, np.nan), cmd=np.arange(1, devices + 1),
        valid_until_ms=np.full(devices, clock.now().utc_ms + 60_000),
    )  # fmt: skip
    if fails:
        with pytest.raises(LinkDown):
            await link.write(batch, deadline_mono_ms=0)
    else:
        await link.write(batch, deadline_mono_ms=0)
    return during, link.telemetry.pauses  # type: ignore[attr-defined]


@pytest.mark.parametrize("fails", [False, True])
async def test_link_large_fan_out_holds_telemetry_back_until_it_is_over(fails: bool) -> None:
    assert await written(PAUSE_TELEMETRY_FROM, fails=fails) == ([1], 0)


async def test_link_fan_out_during_a_pause_for_the_disk_does_not_end_it() -> None:
    assert await written(600, disk=True) == ([2], 1)


async def test_link_few_commands_leave_telemetry_alone() -> None:
    assert await written(PAUSE_TELEMETRY_FROM - 1) == ([0], 0)
