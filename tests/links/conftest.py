"""Tests of this folder run on virtual time; against brokers that are processes in real time."""

from collections.abc import Callable

import pytest

from tests.virtual.factories import loop_factories, real_loop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], object]]:
    """A broker of its own process keeps the machine's time."""
    return real_loop() if "broker" in getattr(item, "fixturenames", ()) else loop_factories(item)
