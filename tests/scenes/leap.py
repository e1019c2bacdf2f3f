"""A sink of the aggregator and the aggregator it sends to, over HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.clock import ManualClock
from gateway.domain.intervals.record import IntervalRecord
from gateway.ports.sinks import SinkResult
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.sink import LeapCsvSink
from simulators.aggregator import AT_ONCE, Access, Aggregator, OpenPoints, Operation
from tests.builders.interval_logs import T0, batch
from tests.builders.leap import METERS, NOW_MS, meter_id

KEY = "leap-key-of-the-tests"
QUARTER_MS = 900_000
FIRST_DAY = datetime.fromtimestamp(T0 / 1000, tz=UTC).date()


class FollowingClock:
    """The aggregator's clock, which is the gateway's."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def utc_ms(self) -> int:
        return self._clock.now().utc_ms

    def mono_s(self) -> float:
        return self._clock.now().mono_ms / 1000


def mapping(*homes: int, region: str = "") -> str:
    """The file of meters."""
    lines = [f"home-{home},{meter_id(home)},{region}\n" for home in homes]
    return "".join(["device,meter_id,region\n", *lines])


class Rig:
    """The sink, the aggregator, and the file of meters between them. `settings` are those of the sink."""

    def __init__(self, directory: Path, aggregator: Aggregator, clock: ManualClock, **settings: Any) -> None:
        self.aggregator = aggregator
        self.clock = clock
        self.file = directory / "meters.csv"
        self.put(mapping(1, 2, 3, 4, 5))
        self.confirmed = settings.pop("confirmed", LeapConfirmed())
        shown: dict[str, Any] = {"poll_s": 1.0, "timeout_s": 30, "token": SecretStr(KEY), "url": aggregator.url}
        shown |= {"name": "leap"}
        self.settings = LeapCsvSinkSettings(kind="leap_csv", meters=self.file, **(shown | settings))
        self.outbox = directory / "outbox"
        self.sink = self.another()

    def another(self) -> LeapCsvSink:
        """A sink as it is after a start of the gateway."""
        sink = LeapCsvSink(self.settings, clock=self.clock, directory=self.outbox, confirmed=self.confirmed)
        sink.look()
        return sink

    async def restart(self) -> None:
        await self.sink.close()
        self.sink = self.another()

    def put(self, text: str) -> None:
        """Another file of meters, put in place at once."""
        other = self.file.with_suffix(".new")
        other.write_text(text, encoding="utf-8")
        other.replace(self.file)

    async def send(self, *rows: IntervalRecord, again: bool = False) -> SinkResult:
        return await self.sink.send(batch(rows, again=again))

    async def settled(self, *rows: IntervalRecord) -> None:
        await self.sink.settled(batch(rows))

    @property
    def taken(self) -> dict[tuple[str, int], list[float | None]]:
        """Generated kWh of each time that a meter and start was accepted."""
        return {
            key: [version.row.generated_kwh for version in versions]
            for key, versions in self.aggregator.intervals.accepted.items()
        }

    @property
    def files(self) -> list[bytes]:
        """Every file that came."""
        return [upload.read() for upload in self.aggregator.intervals.uploads]

    def asked(self, operation: Operation) -> int:
        return len(self.aggregator.asked(operation))


@asynccontextmanager
async def rig(
    directory: Path, *, homes: Sequence[int] = (1, 2, 3, 4, 5), points: OpenPoints | None = None, **settings: Any
) -> AsyncIterator[Rig]:
    """Meters of `homes` at the aggregator, and a sink."""
    clock = ManualClock(utc_ms=NOW_MS)
    meters: dict[str, date] = {METERS[device].id: FIRST_DAY for device in METERS if int(device[5:]) in homes}
    async with Aggregator(
        keys={KEY: Access()}, meters=meters, clock=FollowingClock(clock), points=points, pace=AT_ONCE
    ) as aggregator:
        made = Rig(directory, aggregator, clock, **settings)
        try:
            yield made
        finally:
            await made.sink.close()
            assert aggregator.faults == []


def key(home: int, index: int = 0) -> tuple[str, int]:
    """A meter and a start, the `index`th after `T0`."""
    return meter_id(home), T0 + index * QUARTER_MS
