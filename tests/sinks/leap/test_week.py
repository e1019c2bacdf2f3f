"""A week of 200 homes through the sink to the aggregator, with what happens in a week."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.sink import LeapCsvSink
from simulators.aggregator import (
    FAILED_WITHOUT_ERRORS,
    Access,
    Aggregator,
    Environment,
    Operation,
    Pace,
    Wait,
    answer,
    cut,
    hang,
)
from tests.builders.interval_logs import T0, MemoryReader, quarter
from tests.builders.leap import meter_id
from tests.scenes.leap import FIRST_DAY, KEY, QUARTER_MS
from tests.scenes.waiting import until
from tests.virtual.clock import START_UTC_MS, VirtualClock

HOMES, DAYS, PER_DAY = 200, 7, 96
UNKNOWN_HOME = 7
"""The aggregator does not know this home's meter."""


class SimulatedClock:
    """The loop's clock as simulators read it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def utc_ms(self) -> int:
        return self._clock.now().utc_ms

    def mono_s(self) -> float:
        return self._clock.mono_ms() / 1000


def edge(index: int, rng: random.Random) -> list[IntervalRecord]:
    """What is closed at one quarter of an hour: every home's, and revisions of what is a while ago."""
    rows = [quarter(home, index=index, discharge_wh=float(home + index)) for home in range(1, HOMES + 1)]
    if index > 8:
        for _ in range(3):
            home, then = rng.randrange(1, HOMES + 1), index - rng.randrange(2, 8)
            rows.append(quarter(home, index=then, revision=index, discharge_wh=float(10_000 + home + index)))
    return rows


def newest(rows: Sequence[IntervalRecord]) -> dict[tuple[str, int], float]:
    """kWh by meter and start, of the newest revision."""
    found: dict[tuple[str, int], IntervalRecord] = {}
    for row in rows:
        key = (meter_id(int(row.device[5:])), row.start_ms)
        if key not in found or found[key].revision < row.revision:
            found[key] = row
    return {key: round((row.discharge_wh or 0) / 1000, 6) for key, row in found.items()}


async def test_leap_week_of_200_homes_is_there_once_and_in_its_newest_revision(tmp_path: Path) -> None:
    """Corrections, a home that is not known, files that fail without a line, the wrong environment, an outage of a day,
    a clock that is behind, lost answers, trouble of every kind, and a crash every few hours."""
    assert T0 == START_UTC_MS
    rng, clock = random.Random(11), VirtualClock()
    lines = [f"home-{home},{meter_id(home)}\n" for home in range(1, HOMES + 1)]
    (tmp_path / "meters.csv").write_text("".join(["device,meter_id\n", *lines]), encoding="utf-8")
    meters = {meter_id(home): FIRST_DAY for home in range(1, HOMES + 1) if home != UNKNOWN_HOME}
    log, everything = MemoryReader(), list[IntervalRecord]()
    async with Aggregator(
        keys={KEY: Access()}, meters=meters, clock=SimulatedClock(clock), skew_ms=-120_000,
        pace=Pace(queued=Wait(looks=1), processing=Wait(looks=1)),
    ) as aggregator:  # fmt: skip
        settings = LeapCsvSinkSettings(
            kind="leap_csv", name="leap", url=aggregator.url, token=SecretStr(KEY), meters=tmp_path / "meters.csv",
            timeout_s=60, batch_rows=2_000,
        )  # fmt: skip
        crashes = 0

        async def live() -> None:
            """One life of the gateway after another; the position of a sink is what survives, and its directory."""
            nonlocal crashes
            while True:
                sink = LeapCsvSink(settings, clock=clock, directory=tmp_path / "outbox")
                delivery = SinkDelivery(sink, log_=log, finder=log, clock=clock, rng=random.Random(1), gather_s=7_200)
                lives.append(delivery)
                try:
                    async with asyncio.timeout(rng.uniform(600, 6 * 3600)):
                        await delivery.run()
                except TimeoutError:
                    crashes += 1
                finally:
                    await sink.close()

        lives: list[SinkDelivery] = []
        task = asyncio.create_task(live(), name="gateway")
        for index in range(DAYS * PER_DAY):
            await asyncio.sleep(max(0.0, (T0 + (index + 1) * QUARTER_MS + 30_000 - clock.now().utc_ms) / 1000))
            rows = edge(index, rng)
            everything += rows
            log.rows += rows
            lives[-1].news.set()
            if index % 31 == 5:
                aggregator.next_files(FAILED_WITHOUT_ERRORS)
            if index % 17 == 3:
                aggregator.script(Operation.UPLOAD, rng.choice([cut(), cut(done=True), hang(done=True), answer(503)]))
            if index % 13 == 7:
                aggregator.script(Operation.UPLOADS, rng.choice([cut(), answer(500), answer(200, b"<html>")]))
            if index == 2 * PER_DAY:
                await aggregator.stop()
            if index == 3 * PER_DAY:
                await aggregator.start()
            aggregator.environment = (
                Environment.PRODUCTION if 4 * PER_DAY <= index < 4 * PER_DAY + 12 else Environment.STAGING
            )
        await asyncio.sleep(6 * 3600)
        await until(lambda: log.state.live.row == len(log.rows))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        accepted = aggregator.intervals.accepted
        assert aggregator.faults == []
    wanted = newest([row for row in everything if row.device != f"home-{UNKNOWN_HOME}"])
    assert {key: versions[-1].row.generated_kwh for key, versions in accepted.items()} == wanted
    # each revision that went up did so once: no two versions of a row are the same
    assert all(
        max(Counter(version.row.generated_kwh for version in versions).values()) == 1 for versions in accepted.values()
    )
    assert {(device, reason) for (_, device, _), reason in log.parked.items()} == {
        (DeviceId(f"home-{UNKNOWN_HOME}"), "mtr_0003")
    }
    assert crashes > 20
    assert len(wanted) == (HOMES - 1) * DAYS * PER_DAY
