"""What disturbs the demo in mid-event: the gateway or the broker killed, the broker frozen, live readings stopped."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from simulators.firmware import FirmwareFleet
from simulators.processes import Child
from simulators.view import View

KINDS = ("kill", "term", "broker", "freeze", "blind")
BROKER_AWAY_S = 6.0
FROZEN_S = 128.0
"""Longer than any lease: all of them run out."""

BLIND_S = 75.0
EVENT_S = {"freeze": 320.0, "blind": 200.0}
"""Length of the event where nothing else is asked for."""

SHARE_MAX = 0.4
"""A disturbance that lasts takes no more than this part of the event."""


@dataclass(slots=True, kw_only=True)
class Disturbance:
    """Runs one. `span_ms`: from when until when it lasted (UTC ms), for those that last."""

    kind: str
    broker: Child
    gateway: Child
    fleet: FirmwareFleet
    view: View
    start_gateway: Callable[[], Awaitable[None]]
    span_ms: tuple[int, int] | None = field(default=None, init=False)

    @property
    def lasts(self) -> bool:
        return self.kind in EVENT_S

    async def run(self, event_s: float) -> None:
        match self.kind:
            case "broker":
                await self.broker.kill()
                self.view.note("broker killed (SIGKILL)")
                await asyncio.sleep(BROKER_AWAY_S)
                await self.broker.start()
                self.view.note("broker started again")
            case "freeze":
                await self._last(min(FROZEN_S, SHARE_MAX * event_s), self._freeze, "broker frozen (SIGSTOP)")
            case "blind":
                await self._last(min(BLIND_S, SHARE_MAX * event_s), self._blind, "live readings stopped")
            case "term":
                await self.gateway.stop()
                self.view.note("the gateway is stopped (SIGTERM) and started again; batteries go on by their leases")
                await self.start_gateway()
            case _:
                await self.gateway.kill()
                self.view.note("the gateway is killed (SIGKILL) and started again; batteries go on by their leases")
                await self.start_gateway()

    async def _last(self, for_s: float, switch: Callable[[bool], None], what: str) -> None:
        begin_ms = self.fleet.now_ms()
        self.view.note(f"{what} for {for_s:.0f} s")
        switch(True)
        try:
            await asyncio.sleep(for_s)
        finally:
            # a process that is stopped hears no SIGTERM
            switch(False)
        self.span_ms = (begin_ms, self.fleet.now_ms())
        self.view.note(f"{what}: over")

    def _freeze(self, on: bool) -> None:
        self.broker.send(signal.SIGSTOP if on else signal.SIGCONT)

    def _blind(self, on: bool) -> None:
        self.fleet.blind = on
