"""Homes of a simulated season at the real way from a message to the interval log: link, codec, ingest, spool, engine,
recorder, log, without control and without a receiver.

The machine's clock is moved to each moment at which something is heard, and virtual time stands still but for what the
gateway needs to store it; so a season takes minutes.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gateway.domain.types import DeviceId
from gateway.profiles.compile import Codec
from gateway.services.telemetry.ingest import BATCH_DELAY_S
from simulators.homes import Floats
from simulators.season.by_readings import QUARTER_MS, QUARTERS
from simulators.season.received import Received
from simulators.season.street import Meter, SeasonStreet
from tests.builders.fakes import home
from tests.builders.profiles import compiled
from tests.scenes.last_writes import LastWrites
from tests.scenes.meters import PREFIXES, Message
from tests.scenes.settlement import Plant
from tests.scenes.street import PROFILE
from tests.virtual.loop import VirtualLoop

LENGTH_S = 900
STEPS_WH = (1, 10, 100)
BATCH_MS = round(1_000 * BATCH_DELAY_S)
"""What comes together is received so much after the first of it."""

STORED_S = 0.05
"""Virtual time that passes at each moment: enough for what is heard to be stored."""
REST_S, REST_STEPS = 60, 15
"""After a day: longer than the energy of gaps is held."""


@cache
def counting() -> dict[str, Codec]:
    """A product for each step of counters, and one that declares none."""
    text = PROFILE.read_text(encoding="utf-8")

    def product(name: str, facts: str) -> Codec:
        mine = text.replace(PREFIXES["reference-mqtt"], f"{name}/v1/devices").replace(
            "profile: reference-mqtt", f"profile: {name}"
        )
        return compiled(mine.replace("facts:\n", f"facts:\n{facts}"))

    steps = {f"step-{step}": product(f"step-{step}", f"  counter_step_wh: {step}\n") for step in STEPS_WH}
    return {**steps, "power": product("power", "")}


@dataclass(eq=False, kw_only=True)
class SeasonPlant:
    """`homes` of a street, by number, from one day to the next."""

    street: SeasonStreet
    homes: Sequence[int]
    directory: Path
    plant: Plant = field(init=False)
    seqs: dict[int, int] = field(default_factory=dict)

    async def start(self) -> None:
        """Start on the first day, and register everybody."""
        self.plant = _Plant(self.directory, LastWrites(), [], codecs=counting(), length_s=LENGTH_S, read_max=10_000)
        self.plant.clock.step_ms = self.street.events[0].midnight_ms - self.plant.clock.true.now().utc_ms
        await self.plant.start()
        facts = self.street.homes
        await self.plant.process.registry.register(
            [
                home(
                    facts.ids[i], profile=self._product(i), site=facts.sites[i],
                    capacity_wh=float(facts.capacity_wh[i]),
                    discharge_w_max=float(facts.discharge_w_max[i]), charge_w_max=float(facts.charge_w_max[i]),
                )
                for i in self.homes
            ]
        )  # fmt: skip
        await asyncio.sleep(1)

    async def stop(self) -> None:
        await self.plant.stop()

    async def day(self, received: Received) -> None:
        """Hear what these homes said of a day, each message at its time."""
        heard_ms = received.heard_ms[self.homes]
        moments, first = np.unique(heard_ms), self._numbered(received)
        for now_ms in moments[moments > 0].tolist():
            self._set(now_ms - BATCH_MS)
            rows, messages = np.nonzero(heard_ms == now_ms)
            some = zip(rows.tolist(), messages.tolist(), strict=True)
            self.plant.publish([self._message(received, self.homes[row], k, first[row] + k) for row, k in some])
            await asyncio.sleep(STORED_S)
        for _ in range(REST_STEPS):
            self.plant.clock.step_ms += 1_000 * REST_S
            await asyncio.sleep(1)

    async def quarters(self, received: Received) -> tuple[Floats, Floats]:
        """Charged and discharged energy of each home and quarter of a local day (homes x 96), as in the log: NaN = it
        has none."""
        from_ms = self.street.events[received.event].midnight_ms
        names = [DeviceId(self.street.homes.ids[i]) for i in self.homes]
        until_ms = from_ms + QUARTERS * QUARTER_MS
        found = await self.plant.process.upstream.queries.day(from_ms, until_ms, names)
        charge_wh, discharge_wh = (np.full((len(names), QUARTERS), np.nan) for _ in range(2))
        for row, name in enumerate(names):
            for one in found.newest.get(name, {}).values():
                at = (one.record.start_ms - from_ms) // QUARTER_MS
                if one.record.charge_wh is not None and one.record.discharge_wh is not None:
                    charge_wh[row, at], discharge_wh[row, at] = one.record.charge_wh, one.record.discharge_wh
        return charge_wh, discharge_wh

    def _set(self, now_ms: int) -> None:
        """It never goes back."""
        clock = self.plant.clock
        clock.step_ms += max(now_ms - clock.now().utc_ms, 0)

    def _product(self, home_number: int) -> str:
        if self.street.meter[home_number] == Meter.POWER:
            return "power"
        return f"step-{self.street.homes.counter_step_wh[home_number]:.0f}"

    def _numbered(self, received: Received) -> list[int]:
        """Number of each home's first message of the day."""
        count = received.device_ms.shape[1]
        out = []
        for i in self.homes:
            out.append(self.seqs.get(i, 1))
            self.seqs[i] = out[-1] + count
        return out

    def _message(self, received: Received, i: int, k: int, seq: int) -> Message:
        told = {
            "charge_counter_wh": received.charge_wh[i, k],
            "discharge_counter_wh": received.discharge_wh[i, k],
            "charge_wh": received.span_charge_wh[i, k],
            "discharge_wh": received.span_discharge_wh[i, k],
            "battery_w": received.power_w[i, k],
        }
        body: dict[str, Any] = {
            "id": self.street.homes.ids[i],
            "boot": 1,
            "seq": seq,
            "t": int(received.device_ms[i, k]),
        }
        body |= {"span_ms": int(received.span_ms[i, k])}
        body |= {name: float(value) for name, value in told.items() if not np.isnan(value)}
        topic = f"{self._product(i)}/v1/devices/{self.street.homes.ids[i]}/energy"
        return Message(
            device=self.street.homes.ids[i], topic=topic, payload=orjson.dumps(body), t_ms=body["t"], counters=(0, 0),
            span=(0, 0),
        )  # fmt: skip


class _Plant(Plant):
    """Everything is read."""

    def reads(self, message: Message) -> bool:
        del message
        return True


async def logged(
    street: SeasonStreet, days: Iterable[Received], homes: Sequence[int], directory: Path
) -> list[tuple[Floats, Floats]]:
    """What the log has of each day (homes x 96), once all is heard."""
    plant = SeasonPlant(street=street, homes=homes, directory=directory)
    await plant.start()
    out = []
    for received in days:
        await plant.day(received)
        out.append(await plant.quarters(received))
    await plant.stop()
    return out


def play(
    street: SeasonStreet, days: Iterable[Received], homes: Sequence[int], directory: Path
) -> list[tuple[Floats, Floats]]:
    """The same in a time of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(logged(street, days, homes, directory))
