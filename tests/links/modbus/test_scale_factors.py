"""Scale factors that move: whatever a product does with them between two requests, its values are told as they are."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.links.modbus.link import ModbusLink
from gateway.links.modbus.sunspec import address_of, models_of, walk
from gateway.ports.links import PointTarget
from gateway.profiles.compiled.points import Value
from gateway.profiles.compiled.variant import CanonicalReading, ProductVariant
from gateway.profiles.loader import load_profiles
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from simulators.faces.sunspec_der import SunSpecDer
from tests.scenes.modbus_rig import Bench, Device, Served
from tests.scenes.register_faces import NOON_S, go, make_plant

CODECS = load_profiles(Path(__file__).parents[3] / "device_profiles")
ABSENT = 0x8000
Words = dict[int, int]
# Where models begin in the images below.
FRONIUS_160, FRONIUS_124, FRONIUS_203 = 40_253, 40_343, 40_069
SOLAREDGE_103, SOLAREDGE_203 = 40_069, 40_188
DER_701 = 40_070


def fronius() -> Device:
    """A GEN24's registers, standing still."""
    face = FroniusGen24(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    go(face, 30)
    face.read(1, 3, 40_000, 2)
    device = Device(units=(1, 200))
    device.images = {unit: dict(found.registers.words) for unit, found in face.maps.items()}
    return device


def solaredge() -> Device:
    face = SolarEdgeStorEdge(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    go(face, 30)
    face.read(1, 3, 40_000, 2)
    face.read(1, 3, 0xE100, 2)
    return Device({**face.map.registers.words, **face.registers.words})


def der() -> Device:
    face = SunSpecDer(make_plant())
    go(face, 30)
    face.read(1, 3, 40_000, 2)
    return Device(dict(face.map.registers.words))


class Polled:
    """A device that is polled as a session does."""

    def __init__(self, program: ProductVariant, link: ModbusLink, served: Served) -> None:
        self.program = program
        self.link = link
        self.served = served
        self.values: dict[str, Value] = {}

    async def poll(self, *groups: str) -> CanonicalReading:
        names = [name for group in groups or ("live",) for name in self.program.groups[group]]  # type: ignore[index]
        self.program.decode(await self.link.read(names), self.values)
        return self.program.canonical(self.values)


@asynccontextmanager
async def polled(profile: str, device: Device) -> AsyncIterator[Polled]:
    """Connected, everything read once."""
    codec = CODECS[profile]
    assert codec.product is not None
    async with Bench() as bench, Served(device) as served:
        link = bench.links.link(
            PointTarget(
                device=DeviceId("home"),
                connection=DeviceConnection(url=f"modbus://127.0.0.1:{served.port}"),
                secret="",
                document=codec.document,
                points=codec.product.base.points,
            )
        )
        await link.open()
        found = Polled(codec.product.base, link, served)
        await found.poll("once", "live", "energy", "slow")
        served.asked()
        yield found


def put(words: Words, at: int, *numbers: int) -> None:
    for i, number in enumerate(numbers):
        words[at + i] = number & 0xFFFF


# -- one factor after the other ------------------------------------------------------------------------------------


def fronius_discharges(words: Words, factor: int, raw: int) -> None:
    put(words, FRONIUS_160 + 4, factor)
    for block in range(4):
        put(words, FRONIUS_160 + 10 + 20 * block + 11, raw if block == 3 else 0)


async def test_fronius_battery_power_follows_its_factor_through_the_day() -> None:
    device = fronius()
    async with polled("fronius-gen24", device) as home:
        for factor, raw, w in ((-2, 50_000, 500.0), (-1, 40_000, 4_000.0), (0, 8_000, 8_000.0), (-2, 100, 1.0)):
            fronius_discharges(device.images[1], factor, raw)
            assert (await home.poll()).get("battery_w") == pytest.approx(w)


async def test_fronius_counters_follow_their_factor() -> None:
    device = fronius()
    async with polled("fronius-gen24", device) as home:
        for factor, wh in ((-2, 89_272.25), (0, 8_927_225.0)):
            put(device.images[1], FRONIUS_160 + 5, factor)
            put(device.images[1], FRONIUS_160 + 10 + 40 + 12, *divmod(8_927_225, 0x10000))
            assert (await home.poll("live", "energy")).get("charge_counter_wh") == pytest.approx(wh)


async def test_solaredge_power_follows_its_factor_from_night_to_day() -> None:
    """0 while the inverter sleeps, finer by day; the meter's too."""
    device = solaredge()
    async with polled("solaredge-storedge", device) as home:
        put(device.images[1], 0xE174, 0, 0)
        for factor, raw, w in ((0, 0, 0.0), (-1, 29_843, 2_984.3), (0, 5_520, 5_520.0), (-2, 2_000, 20.0)):
            put(device.images[1], SOLAREDGE_103 + 14, raw, factor)
            put(device.images[1], SOLAREDGE_203 + 18, -raw)
            put(device.images[1], SOLAREDGE_203 + 22, factor)
            row = await home.poll()
            assert (row.get("pv_w"), row.get("grid_w"), row.get("load_w")) == pytest.approx((w, w, 2 * w))


async def test_solaredge_meter_that_was_asleep_at_the_connect_is_known_when_it_wakes() -> None:
    device = solaredge()
    awake = {at: device.images[1][at] for at in range(SOLAREDGE_203 + 2, SOLAREDGE_203 + 107)}
    device.images[1] |= dict.fromkeys(awake, ABSENT)
    async with polled("solaredge-storedge", device) as home:
        row = await home.poll()
        assert row.get("grid_w") != row.get("grid_w")
        device.images[1] |= awake
        exported_w = _signed(awake[SOLAREDGE_203 + 18]) * 10.0 ** _signed(awake[SOLAREDGE_203 + 22])
        assert (await home.poll()).get("grid_w") == pytest.approx(-exported_w)
        device.images[1] |= dict.fromkeys(awake, ABSENT)
        row = await home.poll()
        assert row.get("grid_w") != row.get("grid_w")


async def test_fronius_value_is_unknown_while_its_factor_is() -> None:
    device = fronius()
    async with polled("fronius-gen24", device) as home:
        fronius_discharges(device.images[1], -0x8000, 40_000)
        row = await home.poll()
        assert row.get("battery_w") != row.get("battery_w")
        assert row.get("soc_pct") == 61.0
        fronius_discharges(device.images[1], -1, 40_000)
        assert (await home.poll()).get("battery_w") == 4_000.0


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


# -- factors that move with every request --------------------------------------------------------------------------


def restless_fronius(words: Words, factor: int) -> None:
    if FRONIUS_160 in words and words[FRONIUS_160] == 160:
        fronius_discharges(words, factor, round(432 / 10.0**factor))
        put(words, FRONIUS_160 + 5, factor)
        put(words, FRONIUS_160 + 10 + 60 + 12, *divmod(round(43_200 / 10.0**factor), 0x10000))
        put(words, FRONIUS_124 + 8, round(50 / 10.0**factor))
        put(words, FRONIUS_124 + 22, factor)
        put(words, FRONIUS_124 + 2, round(600 / 10.0**factor))
        put(words, FRONIUS_124 + 18, factor)
    else:
        put(words, FRONIUS_203 + 18, round(-300 / 10.0**factor))
        put(words, FRONIUS_203 + 22, factor)


def restless_solaredge(words: Words, factor: int) -> None:
    put(words, SOLAREDGE_103 + 14, round(320 / 10.0**factor), factor)
    put(words, SOLAREDGE_203 + 18, round(300 / 10.0**factor))
    put(words, SOLAREDGE_203 + 22, factor)


def restless_der(words: Words, factor: int) -> None:
    put(words, DER_701 + 10, round(-320 / 10.0**factor))
    put(words, DER_701 + 116, factor)
    put(words, DER_701 + 19, 0, 0, *divmod(round(43_200 / 10.0**factor), 0x10000))
    put(words, DER_701 + 120, factor)


@pytest.mark.parametrize(
    ("profile", "device", "move", "expected"),
    [
        (
            "fronius-gen24", fronius, restless_fronius,
            {"battery_w": 432, "soc_pct": 50, "grid_w": -300, "discharge_counter_wh": 43_200, "charge_w_max": 600},
        ),
        ("solaredge-storedge", solaredge, restless_solaredge, {"grid_w": -300}),
        ("sunspec-der", der, restless_der, {"battery_w": -320, "discharge_counter_wh": 43_200}),
    ],
)  # fmt: skip
async def test_value_and_factor_are_of_one_request_however_often_the_factor_moves(
    profile: str, device: Callable[[], Device], move: Callable[[Words, int], None], expected: dict[str, float]
) -> None:
    factors: Iterator[int] = itertools.cycle((0, -1, -2, -1))
    made = device()
    made.before_read = lambda words: move(words, next(factors))
    async with polled(profile, made) as home:
        for _ in range(7):
            row = await home.poll("live", "energy", "slow")
            assert {name: row.get(name) for name in expected} == pytest.approx(expected)


# -- every factor of every product ---------------------------------------------------------------------------------

MADE = {"fronius-gen24": fronius, "solaredge-storedge": solaredge, "sunspec-der": der}
SCALED = sorted(
    name
    for name, codec in CODECS.items()
    if codec.product is not None and any(point.scale_factor for point in codec.product.base.points.values())
)


async def places(home: Polled, device: Device) -> dict[str, tuple[Words, int]]:
    """Image and register of every point of a model."""
    section = home.program.document.modbus
    assert section is not None
    assert section.sunspec is not None
    found: dict[str, tuple[Words, int]] = {}
    for unit, words in device.images.items():

        async def read(at: int, count: int, words: Words = words) -> tuple[int, ...]:
            return tuple(words[i] for i in range(at, at + count))

        chain = await walk(read, section.sunspec)
        models = models_of(chain or (), section.sunspec, {}).models
        for name, point in home.program.points.items():
            at = address_of(point, models, section.sunspec) if section.units[point.unit_id] == unit else None
            if at is not None:
                found[name] = words, at
    return found


@pytest.mark.parametrize("profile", SCALED)
async def test_every_factor_counts_as_it_is_now_and_is_unknown_only_while_it_says_so(profile: str) -> None:
    device = MADE[profile]()
    async with polled(profile, device) as home:
        at = await places(home, device)
        values = {name: point for name, point in home.program.points.items() if point.scale_factor and point.readable}
        assert values
        for name, point in values.items():
            words, value_at = at[name]
            _, factor_at = at[point.scale_factor or ""]
            put(words, value_at, *[0] * (point.register_count - 1), 7)
            for factor in (-2, -1, 0, ABSENT, -1, ABSENT, 0):
                put(words, factor_at, factor)
                await home.poll(point.poll)
                expected = None if factor == ABSENT else pytest.approx(7 * point.scale * 10.0**factor)
                assert home.values[name] == expected, (name, factor)


@pytest.mark.parametrize("profile", SCALED)
async def test_model_that_sleeps_with_its_factors_is_known_again_when_it_wakes(profile: str) -> None:
    device = MADE[profile]()
    async with polled(profile, device) as home:
        scaled = [name for name, point in home.program.points.items() if point.scale_factor and point.readable]
        before = {name: home.values[name] for name in scaled}
        awake = {unit: dict(words) for unit, words in device.images.items()}
        for name, (words, at) in (await places(home, device)).items():
            if name in scaled or any(home.program.points[one].scale_factor == name for one in scaled):
                words |= dict.fromkeys(range(at, at + home.program.points[name].register_count), ABSENT)
        await home.poll("once", "live", "energy", "slow")
        assert {name: home.values[name] for name in scaled} == dict.fromkeys(scaled)
        for unit, words in awake.items():
            device.images[unit] |= words
        await home.poll("once", "live", "energy", "slow")
        assert {name: home.values[name] for name in scaled} == before


# -- and it costs nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "device", "live", "all_groups"),
    [("fronius-gen24", fronius, 4, 3), ("solaredge-storedge", solaredge, 4, 4), ("sunspec-der", der, 4, 5)],
)
async def test_poll_takes_few_requests(profile: str, device: Callable[[], Device], live: int, all_groups: int) -> None:
    async with polled(profile, device()) as home:
        await home.poll()
        assert len(home.served.asked()) == live
        await home.poll("live", "energy", "slow")
        assert len(home.served.asked()) == all_groups
