"""Options for a real device, pauses of the gateway cut short, and the rule that every product is covered whole."""

from pathlib import Path

import pytest

from gateway.links import mqtt_points
from gateway.services import session, sessions
from tests.conformance.coverage import VECTORS, disagreements
from tests.conformance.rig import FACES, PRODUCTS

HERE = Path(__file__).parent
ON_DEVICE = "test_device.py"
PAUSES = {
    session: {
        "BACKOFF_BASE_S": 0.05,
        "BACKOFF_CAP_S": 0.5,
        "QUARANTINE_S": 1.0,
        "TIDY_S": 0.1,
        "POLL_PAUSE_MIN_S": 0.02,
    },
    sessions: {"RECONCILE_S": 0.05, "FLUSH_S": 0.005},
    mqtt_points: {"OPEN_S_MAX": 1.0, "FIRST_VALUES_S_MAX": 0.2, "WRITE_S_MAX": 0.5},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("a real device instead of the simulators")
    group.addoption("--device", help="its address: modbus://host[:port], http(s)://host[:port], mqtt(s)://host[:port]")
    group.addoption("--device-profile", help="its profile")
    group.addoption("--device-param", action="append", default=[], help="NAME=VALUE, as enrollment gives it")
    group.addoption("--device-unit", action="append", default=[], help="NAME=ID, a Modbus unit id that differs")
    group.addoption("--device-user", default="", help="a user name")
    group.addoption("--device-secret", default="", help="env:NAME or file:/path")
    group.addoption("--device-w", type=float, default=500.0, help="the setpoint that is tried, both ways, W")


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


@pytest.fixture(autouse=True)
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real devices need the pauses as they are."""
    if request.config.getoption("--device", default=None) is None:
        for module, pauses in PAUSES.items():
            for name, value in pauses.items():
                monkeypatch.setattr(module, name, value)
