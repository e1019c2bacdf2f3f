"""Which loop a test gets. A folder that puts `loop_factories` into its conftest as the hook
`pytest_asyncio_loop_factories` runs on virtual time; `@pytest.mark.real_time` asks for what ships: uvloop."""

from collections.abc import Callable

import pytest
import uvloop

from tests.virtual.loop import VirtualLoop

REAL = "real_time"


def loop_factories(item: pytest.Item) -> dict[str, Callable[[], object]]:
    """The one loop for a test."""
    return real_loop() if item.get_closest_marker(REAL) is not None else {"virtual": VirtualLoop}


def real_loop() -> dict[str, Callable[[], object]]:
    """What ships."""
    return {"uvloop": uvloop.new_event_loop}
