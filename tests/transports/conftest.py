"""Brokers for the transport's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.brokers import KINDS, BrokerProcess, broker_process
from tests.transports.peers import ScriptedBroker


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    """A running broker; every test of the contract meets each kind."""
    async with broker_process(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedBroker]:
    async with ScriptedBroker().listening() as made:
        yield made
