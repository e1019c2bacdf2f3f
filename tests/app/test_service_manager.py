"""The service manager hears that the gateway is ready, goes on and stops; it is never waited for."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.service_manager import ServiceManager
from gateway.domain.types import Now

PID = 77


class HandClock:
    """A clock that a test sets."""

    boot = "by hand"

    def __init__(self) -> None:
        self.s = 0.0

    def mono_ms(self) -> int:
        return round(self.s * 1000)

    def now(self) -> Now:
        return Now(utc_ms=self.mono_ms(), mono_ms=self.mono_ms())

    def cpu_ns(self) -> int:
        return 0


class Ear:
    """A socket as a service manager has it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def manager(tmp_path: Path, clock: HandClock, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")} | environment, pid=PID, clock=clock)


def test_ready_is_told_once_and_control_three_times_within_the_watchdogs_time(tmp_path: Path, ear: Ear) -> None:
    clock = HandClock()
    told = manager(tmp_path, clock, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(PID))
    told.ready()
    assert ear.heard() == ["READY=1"]
    for _ in range(30):
        told.beat()
        clock.s += 1.0
    assert ear.heard() == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"},
    ],
)
def test_who_did_not_ask_hears_nothing_of_control(tmp_path: Path, ear: Ear, environment: dict[str, str]) -> None:
    told = manager(tmp_path, HandClock(), **environment)
    told.beat()
    assert ear.heard() == []


def test_a_gateway_that_stops_says_so_and_is_not_watched_any_more(tmp_path: Path, ear: Ear) -> None:
    told = manager(tmp_path, HandClock(), WATCHDOG_USEC="30000000")
    told.stopping()
    told.beat()
    assert ear.heard() == ["STOPPING=1\nWATCHDOG_USEC=3600000000"]


def test_an_abstract_address_is_heard() -> None:
    ear = Ear(f"\0gateway-test-{os.getpid()}")
    told = ServiceManager({"NOTIFY_SOCKET": f"@gateway-test-{os.getpid()}"}, pid=PID, clock=HandClock())
    told.ready()
    assert ear.heard() == ["READY=1"]
    ear.socket.close()


def test_without_a_service_manager_nothing_is_told() -> None:
    told = ServiceManager({"WATCHDOG_USEC": "30000000"}, pid=PID, clock=HandClock())
    told.ready()
    told.beat()
    told.stopping()


def test_a_manager_that_is_gone_or_full_changes_nothing_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    told = manager(tmp_path, clock, WATCHDOG_USEC="3000")
    for _ in range(3):
        told.beat()
        clock.s += 1.0
    assert [record.message for record in caplog.records] == ["the service manager cannot be told"]
    ear = Ear(str(tmp_path / "notify"))
    for _ in range(2000):
        told.beat()
        clock.s += 1.0
    assert ear.heard()
    ear.socket.close()
