"""What a service manager is told: that the gateway is ready, that control goes on, that it is stopping (sd_notify of
systemd). Without a service manager nobody is told.
"""

import logging
import socket
from collections.abc import Mapping
from typing import Final

from gateway.clock import Clock

log = logging.getLogger(__name__)

BEATS: Final = 3
"""How often within the watchdog's time control says that it goes on."""
STOP_US: Final = 3_600_000_000
"""The watchdog's time of a gateway that is stopping: how long that may take is the manager's own `TimeoutStopSec`."""


class ServiceManager:
    """The socket of `NOTIFY_SOCKET`, and how often `WATCHDOG_USEC` wants to hear of control. Telling never waits, and a
    manager that cannot be told changes nothing."""

    def __init__(self, environment: Mapping[str, str], *, pid: int, clock: Clock) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._clock = clock
        self._every_ms = _every_ms(environment, pid)
        self._beat_ms: int | None = None
        self._silent = False

    def ready(self) -> None:
        """Everything is recovered, and REST answers."""
        self._tell("READY=1")

    def beat(self) -> None:
        """Control has ended a tick."""
        if self._every_ms is None:
            return
        now_ms = self._clock.mono_ms()
        if self._beat_ms is None or now_ms - self._beat_ms >= self._every_ms:
            self._beat_ms = now_ms
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The gateway winds down as asked for; control may end before the process does."""
        self._every_ms = None
        self._tell(f"STOPPING=1\nWATCHDOG_USEC={STOP_US}")

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.setblocking(False)
                to.sendto(words.encode(), self._address)
        except OSError as error:
            if not self._silent:
                log.warning("the service manager cannot be told", extra={"error": str(error)})
            self._silent = True
        else:
            self._silent = False


def _every_ms(environment: Mapping[str, str], pid: int) -> int | None:
    """How often control says that it goes on; None where nobody asked this process."""
    asked, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not asked.isascii() or not asked.isdigit() or not int(asked) or (whose and whose != str(pid)):
        return None
    return int(asked) // 1000 // BEATS
