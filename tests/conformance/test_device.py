"""What needs only a session: the same for the simulators and, with `--device`, for a real device.

A real device is steered by `--device-w` for a minute each way and released. Nothing else is written to it.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from gateway.config.secrets import resolve_secret
from gateway.domain.commands import CommandOp, WriteOutcome
from gateway.domain.fleet.device import DeviceConnection
from gateway.links.mqtt.points import MqttPointLinks
from gateway.services.devices.session_state import SessionPhase
from tests.conformance.rig import CODECS, PRODUCTS, Station, bench, links_for
from tests.conformance.test_telemetry import SILENT_POINTS

WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """A real device as given on the command line."""

    profile: str
    connection: DeviceConnection
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A device with a session, and the setpoint that is tried both ways."""

    station: Station
    power_w: float


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        device = metafunc.config.getoption("--device", default=None)
        names = PRODUCTS if device is None else [metafunc.config.getoption("--device-profile")]
        metafunc.parametrize("subject", names, indirect=True)


@pytest_asyncio.fixture
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    name, config = request.param, request.config
    if name not in CODECS:
        pytest.fail(f"--device-profile: {name} is none of {', '.join(PRODUCTS)}")
    if config.getoption("--device", default=None) is None:
        async with bench(name) as rig:
            yield Subject(station=rig, power_w=500.0)
        return
    real = Real(profile=name, connection=_connection(config), secret=resolve_secret(config.getoption("--device-secret"))
                if config.getoption("--device-secret") else "")  # fmt: skip
    async with attached(real) as station:
        yield Subject(station=station, power_w=config.getoption("--device-w"))


def _connection(config: pytest.Config) -> DeviceConnection:
    def pairs(option: str) -> list[tuple[str, str]]:
        given = [text.partition("=") for text in config.getoption(option)]
        return [(name, value) for name, _, value in given]

    return DeviceConnection(
        url=config.getoption("--device"),
        units=tuple((name, int(unit)) for name, unit in pairs("--device-unit")),
        parameters=tuple(pairs("--device-param")),
        username=config.getoption("--device-user"),
        secret=config.getoption("--device-secret"),
    )


@asynccontextmanager
async def attached(real: Real) -> AsyncIterator[Station]:
    """A session with a real device, which is released at the end whatever happens."""
    codec = CODECS[real.profile]
    links = links_for(codec.document, None)
    async with asyncio.TaskGroup() as group:
        station = Station(codec, links, group)
        station.connection, station.secret = real.connection, real.secret
        shared = group.create_task(links.run(), name="links") if isinstance(links, MqttPointLinks) else None
        station.attach()
        try:
            await station.ready(ceiling_s=WITHIN_S)
            yield station
        finally:
            if station.has_session and station.session.state is SessionPhase.READY and station.links.writes:
                await station.tell(CommandOp.RELEASE)
            await station.detach()
            if shared is not None:
                shared.cancel()


async def test_device_is_what_its_profile_says(subject: Subject) -> None:
    session = subject.station.session
    assert session.state is SessionPhase.READY
    assert session.product_variant.not_this_product(session.values) == []


async def test_device_points_decode_to_plausible_values(subject: Subject) -> None:
    station = subject.station
    program, name = station.session.product_variant, station.codec.name
    silent = {point for product, point in SILENT_POINTS if product == name}
    await station.until(lambda: bool(station.heard.energy), "every group", ceiling_s=2 * WITHIN_S)
    await station.fresh(ceiling_s=WITHIN_S)
    assert program.counts.malformed == 0
    if not silent:
        assert program.counts.implausible == 0
    row = station.heard.live[-1]
    unknown = [reading for reading in program.known() if reading in row and math.isnan(row[reading])]
    assert unknown == []
    assert 0 <= row["soc_pct"] <= 100


async def test_device_is_steered_both_ways_and_released(subject: Subject) -> None:
    station, codec = subject.station, subject.station.codec
    if not codec.facts.steerable:
        pytest.skip(f"{codec.name} takes no setpoints")
    unmet = station.session.product_variant.unmet(station.session.values)
    assert unmet == []
    saves = station.sequences.saves
    before = {name: station.session.values.get(name) for name in saves}
    for setpoint_w in (subject.power_w, -subject.power_w, 0.0):
        await _reach(subject, setpoint_w)
    delivery, _ = await station.tell(CommandOp.RELEASE)
    assert delivery is WriteOutcome.ACCEPTED
    assert station.prior == {}
    await station.until(
        lambda: (
            {name: station.session.values.get(name) for name in saves} == before
            or station.codec.name in {product for product, point in SILENT_POINTS if point in saves}
        ),
        f"{', '.join(saves)} as before",
        ceiling_s=WITHIN_S,
    )


async def _reach(subject: Subject, setpoint_w: float) -> None:
    """A setpoint, renewed as the control loop would, until the battery's power shows it."""
    station = subject.station
    refresh_s = station.codec.facts.lease_s / 3
    slack_w = max(100.0, 0.3 * abs(setpoint_w))
    loop = asyncio.get_running_loop()
    renewed_s = -math.inf
    async with asyncio.timeout(WITHIN_S):
        while abs(station.heard.live[-1]["battery_w"] - setpoint_w) > slack_w or renewed_s < 0:
            if loop.time() - renewed_s >= refresh_s:
                delivery, _ = await station.power(setpoint_w)
                assert delivery is WriteOutcome.ACCEPTED
                renewed_s = loop.time()
            await station.fresh(ceiling_s=WITHIN_S)
