"""Tests of this package run on the loop that they test."""

from tests.virtual.factories import loop_factories as pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
