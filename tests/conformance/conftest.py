"""Virtual time, options for a real device, and the rule that every product is covered whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.coverage import VECTORS, disagreements
from tests.conformance.rig import FACES, PRODUCTS
from tests.virtual.factories import loop_factories, real_loop

HERE = Path(__file__).parent
ON_DEVICE = "test_device.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("a real device instead of the simulators")
    group.addoption("--device", help="its address: modbus://host[:port], http(s)://host[:port], mqtt(s)://host[:port]")
    group.addoption("--device-profile", help="its profile")
    group.addoption("--device-param", action="append", default=[], help="NAME=VALUE, as enrollment gives it")
    group.addoption("--device-unit", action="append", default=[], help="NAME=ID, a Modbus unit id that differs")
    group.addoption("--device-user", default="", help="a user name")
    group.addoption("--device-secret", default="", help="env:NAME or file:/path")
    group.addoption("--device-w", type=float, default=500.0, help="the setpoint that is tried, both ways, W")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], object]]:
    """A real device keeps its own time."""
    return real_loop() if config.getoption("--device", default=None) is not None else loop_factories(item)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Nothing of this package is collected while a product is not covered whole."""
    faults = disagreements(set(PRODUCTS), set(FACES), VECTORS)
    if faults:
        raise pytest.Collector.CollectError("products are not covered whole:\n  " + "\n  ".join(faults))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device", default=None) is None:
        return
    reason = pytest.mark.skip(reason="needs the simulated home: a real one cannot be looked into or made to fail")
    for item in items:
        if item.path.parent == HERE and item.path.name != ON_DEVICE:
            item.add_marker(reason)
