"""Brokers for the transport's tests. Against brokers that are processes they run in real time, else on virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenes.brokers import KINDS, BrokerProcess, broker_process
from tests.scenes.mqtt_peers import ScriptedBroker
from tests.virtual.factories import loop_factories as pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    """A running broker; every test of the contract meets each kind."""
    async with broker_process(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedBroker]:
    async with ScriptedBroker().listening() as made:
        yield made
