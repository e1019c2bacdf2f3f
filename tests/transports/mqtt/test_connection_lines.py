"""What a connection logs: a line per edge, how long it was away, and no flood from one that flaps."""

import logging

import pytest

from gateway.clock import ManualClock
from tests.scenes.mqtt_peers import ScriptedBroker, make_connection, make_settings, running, until


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, object]]:
    return [r.__dict__ for r in caplog.records if r.message == message]


async def test_connection_that_flaps_is_a_line_for_each_edge_once(
    scripted: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection = make_connection(make_settings(scripted.url), clock=ManualClock())
    async with running(connection, connected=False):
        for round_ in range(1, 12):
            caller = await scripted.caller()
            await caller.welcome(receive_max=10)
            await until(lambda n=round_: connection.stats.connects == n)  # type: ignore[misc]
            caller.close()
        assert len(lines(caplog, "MQTT connection lost")) == 1
        assert len(lines(caplog, "MQTT connection up")) == 2
        assert len(lines(caplog, "the broker's receive maximum is small and will slow commands")) == 1


async def test_connection_that_is_back_says_how_long_it_was_away(
    scripted: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    connection = make_connection(make_settings(scripted.url), clock=clock)
    async with running(connection, connected=False):
        caller = await scripted.caller()
        await caller.welcome()
        await connection.wait_connected()
        caller.close()
        caller = await scripted.caller()
        clock.advance(s=32)
        await caller.welcome()
        await connection.wait_connected()
        assert [line["down_s"] for line in lines(caplog, "MQTT connection up")][1:] == [32.0]


async def test_connection_that_flapped_is_summed_up_and_told_again_after_five_quiet_minutes(
    scripted: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    connection = make_connection(make_settings(scripted.url, keepalive_s=3600), clock=clock)
    async with running(connection, connected=False):
        for round_ in range(1, 5):
            caller = await scripted.caller()
            await caller.welcome()
            await until(lambda n=round_: connection.stats.connects == n)  # type: ignore[misc]
            if round_ == 4:
                clock.advance(s=301)
            caller.close()
        await scripted.caller()
        assert len(lines(caplog, "MQTT connection lost")) == 2
        assert [line["count"] for line in lines(caplog, "MQTT connection had been lost repeatedly")] == [3]
