"""SunSpec over the Modbus link: the marker, the chain, what it resolves to, and that it is looked up anew (F28)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain.errors import NotThisProduct, PeerRefused
from gateway.links.modbus.link import ModbusLink
from gateway.links.modbus.sunspec import Model, Models, address_of, walk
from gateway.profiles.compiled.points import Marker
from gateway.profiles.language.points import Point, PointType
from gateway.profiles.language.transport import SunSpec
from tests.scenes.modbus_rig import Bench, Device, Served, target, writes

MARKER = (0x5375, 0x6E53)
END = (0xFFFF, 0)
POINTS: dict[str, Any] = {
    "serial": {"model": 1, "offset": 2, "type": "text", "words": 4, "poll": "once"},
    "watts": {"model": 103, "offset": 2, "type": "i16"},
    "wide": {"model": 103, "offset": 3, "type": "u32"},
    "beyond": {"model": 103, "offset": 6, "type": "u16"},
    "first_dcw": {"model": 160, "offset": 1, "block": 1, "type": "u16"},
    "third_dcw": {"model": 160, "offset": 1, "block": 3, "type": "u16"},
    "setpoint": {"model": 124, "offset": 2, "type": "u16", "access": "rw", "storage": "volatile"},
}
SECTION: dict[str, Any] = {"required": [1, 103], "blocks": {160: {"start": 4, "length": 3, "count": 3}}}


def chain(base: int, *models: tuple[int, int], end: tuple[int, ...] = END) -> dict[int, int]:
    """Registers of a chain; the words of each model are its id times 100 and on (from the id word)."""
    words = list(MARKER)
    for number, length in models:
        words += [number, length, *(number * 100 + 2 + i for i in range(length))]
    words += end
    return {base + i: word & 0xFFFF for i, word in enumerate(words)}


FULL = ((1, 10), (103, 4), (160, 11), (124, 3))


def words(model: int, *offsets: int) -> tuple[int, ...]:
    return tuple(model * 100 + offset for offset in offsets)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


async def opened(bench: Bench, served: Served, points: dict[str, Any] = POINTS, **sunspec: Any) -> ModbusLink:
    return await bench.open(target(served.port, points, sunspec=SECTION | sunspec, gap_max=8))


@pytest.mark.parametrize("base", [40_000, 0, 50_000])
async def test_open_finds_the_marker_wherever_it_is(bench: Bench, base: int) -> None:
    async with Served(Device(chain(base, *FULL))) as served:
        link = await opened(bench, served)
        assert await link.read(tuple(POINTS)) == {
            "serial": words(1, 2, 3, 4, 5),
            "watts": words(103, 2),
            "wide": words(103, 3, 4),
            "beyond": Marker.MISSING,
            "first_dcw": words(160, 5),
            "third_dcw": words(160, 11),
            "setpoint": words(124, 2),
        }


async def test_read_models_side_by_side_share_requests(bench: Bench) -> None:
    async with Served(Device(chain(40_000, *FULL))) as served:
        link = await opened(bench, served)
        served.asked()
        await link.read(tuple(POINTS))
        assert len(served.asked()) == 1


@pytest.mark.fault("F28")
async def test_open_no_marker_is_not_this_product(bench: Bench) -> None:
    """F28: registers are there, and what they hold is something else."""
    async with Served(Device({at: 7 for base in (0, 40_000, 50_000) for at in range(base, base + 9)})) as served:
        with pytest.raises(NotThisProduct, match="no SunSpec marker"):
            await opened(bench, served)


@pytest.mark.fault("F28")
async def test_open_required_model_missing_is_not_this_product(bench: Bench) -> None:
    async with Served(Device(chain(40_000, (1, 10), (101, 4)))) as served:
        with pytest.raises(NotThisProduct, match="103"):
            await opened(bench, served)


@pytest.mark.parametrize(
    ("length", "told"), [(8, "2 blocks"), (14, "4 blocks"), (12, "3.33333 blocks"), (2, "0 blocks")]
)
async def test_open_other_number_of_blocks_is_not_this_product(bench: Bench, length: int, told: str) -> None:
    """What lies in a block depends on how many there are, and what lies behind them too."""
    async with Served(Device(chain(40_000, (1, 10), (103, 4), (160, length), (124, 3)))) as served:
        with pytest.raises(NotThisProduct) as refused:
            await opened(bench, served)
    assert str(refused.value) == f"SunSpec model 160 is {length} words long ({told}), expected 11 (3 blocks)"


@pytest.mark.fault("F28")
async def test_open_changed_map_is_resolved_anew(bench: Bench) -> None:
    """F28: the firmware moved its models; the same link, opened again, finds them."""
    device = Device(chain(40_000, *FULL))
    async with Served(device) as served:
        link = await opened(bench, served)
        before = await link.read(["watts", "setpoint"])
        device.images[1] = chain(50_000, (1, 66), (124, 3), (103, 4))
        served.server.drop_all()
        await link.close()
        await link.open()
        assert await link.read(["watts", "setpoint"]) == before
        await link.write(writes(setpoint=(9,)))
        assert device.images[1][50_000 + 2 + 68 + 2] == 9


async def test_open_chain_ends_with_an_exception_is_a_chain(bench: Bench) -> None:
    async with Served(Device(chain(40_000, *FULL, end=()))) as served:
        link = await opened(bench, served)
        assert await link.read(["watts"]) == {"watts": words(103, 2)}


async def test_open_model_twice_first_counts(bench: Bench) -> None:
    device = Device(chain(40_000, (1, 10), (103, 4), (103, 4)))
    device.images[1][40_000 + 2 + 12 + 6 + 2] = 1
    async with Served(device) as served:
        link = await opened(bench, served)
        assert await link.read(["watts"]) == {"watts": words(103, 2)}


async def test_open_endless_chain_is_bounded(bench: Bench) -> None:
    """Zero-length models for ever: the walk ends at `models_max`."""
    words_ = dict(enumerate([*MARKER, *([103, 0] * 200)], start=40_000))
    async with Served(Device(words_)) as served:
        await opened(bench, served, required=[103], models_max=5)
        assert len(served.asked()) == 6


async def test_absent_model_is_missing_to_read_and_refused_to_write(bench: Bench) -> None:
    async with Served(Device(chain(40_000, (1, 10), (103, 4)))) as served:
        link = await opened(bench, served)
        assert await link.read(["watts", "setpoint"]) == {"watts": words(103, 2), "setpoint": Marker.MISSING}
        with pytest.raises(PeerRefused, match="setpoint"):
            await link.write(writes(setpoint=(1,)))


async def test_accessory_on_another_unit_has_its_own_chain(bench: Bench) -> None:
    points = POINTS | {"grid": {"model": 203, "offset": 2, "type": "i16", "unit_id": "meter"}}
    device = Device(chain(40_000, *FULL), units=(1, 200))
    device.images[200] = chain(40_000, (1, 65), (203, 5))
    async with Served(device) as served:
        made = target(served.port, points, sunspec=SECTION, units={"main": 1, "meter": 200})
        link = await bench.open(made)
        assert await link.read(["watts", "grid"]) == {"watts": words(103, 2), "grid": words(203, 2)}

        del device.images[200]
        await link.open()
        assert await link.read(["watts", "grid"]) == {"watts": words(103, 2), "grid": Marker.MISSING}


METERED = POINTS | {"grid": {"model": 203, "offset": 2, "type": "i16", "unit_id": "meter"}}
METER = chain(40_000, (1, 65), (203, 5))


async def metered(bench: Bench, served: Served) -> ModbusLink:
    link = await bench.open(target(served.port, METERED, sunspec=SECTION, units={"main": 1, "meter": 200}))
    served.asked()
    return link


@pytest.mark.parametrize(
    "before",
    [None, dict.fromkeys(METER, 0x8000), METER | dict.fromkeys(range(40_069, 40_076), 0x8000)],
    ids=["not-there", "asleep", "asleep-from-its-model-on"],
)
async def test_accessory_that_was_not_there_is_found_when_it_is(bench: Bench, before: dict[int, int] | None) -> None:
    device = Device(chain(40_000, *FULL), units=(1, 200))
    device.images[200] = before or {}
    if before is None:
        del device.images[200]
    async with Served(device) as served:
        link = await metered(bench, served)
        for _ in range(3):
            assert await link.read(["watts", "grid"]) == {"watts": words(103, 2), "grid": Marker.MISSING}
        assert {unit for unit, *_ in served.server.requests} == {1}, "not asked for at every read"
        device.images[200] = METER
        bench.clock.advance(s=59)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        bench.clock.advance(s=1)
        assert await link.read(["watts", "grid"]) == {"watts": words(103, 2), "grid": words(203, 2)}
        served.asked()
        bench.clock.advance(s=600)
        await link.read(["watts", "grid"])
        assert len(served.asked()) == 2, "what is found is not looked for again"


async def test_accessory_that_is_never_there_keeps_nothing_from_being_read(bench: Bench) -> None:
    async with Served(Device(chain(40_000, *FULL))) as served:
        link = await metered(bench, served)
        for _ in range(3):
            bench.clock.advance(s=60)
            assert await link.read(["watts", "grid"]) == {"watts": words(103, 2), "grid": Marker.MISSING}
        served.asked()
        bench.clock.advance(s=600)
        assert await link.read(["watts"]) == {"watts": words(103, 2)}
        assert len(served.asked()) == 1, "looked for by those only who ask for it"


async def test_accessory_with_another_number_of_blocks_is_not_this_product(bench: Bench) -> None:
    device = Device(chain(40_000, *FULL), units=(1,))
    async with Served(device) as served:
        link = await metered(bench, served)
        device.images[200] = chain(40_000, (160, 14), (203, 5))
        bench.clock.advance(s=60)
        with pytest.raises(NotThisProduct, match="4 blocks"):
            await link.read(["watts", "grid"])


async def test_walk_last_register_of_the_map_ends_it() -> None:
    async def read(address: int, count: int) -> tuple[int, ...]:
        return MARKER if address == 0 else (7, 0xFFF0)

    chain = await walk(read, SunSpec(required=(), bases=(0,)))
    assert chain is not None
    assert chain[0] == Model(number=7, address=2, length=0xFFF0)


def test_address_of_point_at_the_end_of_its_model_is_in_it() -> None:
    found: Models = {5: Model(number=5, address=100, length=4)}
    section = SunSpec(required=())
    at = [address_of(Point(model=5, offset=offset, type=PointType.U32), found, section) for offset in (2, 4, 5)]
    assert at == [102, 104, None]
