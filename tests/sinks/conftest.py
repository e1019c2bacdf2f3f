"""Tests of this folder run on virtual time; those that start processes or ask for the machine's clock say so."""

from tests.virtual.factories import loop_factories as pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
