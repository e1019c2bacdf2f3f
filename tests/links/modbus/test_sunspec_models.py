"""Which of several SunSpec models is meant: by id, by place, by what their own common block says, by registration."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.errors import NotThisProduct
from gateway.links.modbus.link import ModbusLink
from gateway.profiles.compiled.points import Marker
from tests.scenes.modbus_rig import Bench, Device, Served, target

METER_LENGTH, COMMON_LENGTH = 20, 65
PRODUCTION, EXPORT = 5200, -700 & 0xFFFF
SECTION: dict[str, Any] = {
    "required": [1, "inverter", "meter"],
    "models": {
        "inverter": {"ids": [101, 102, 103]},
        "meter": {"ids": [201, 203], "options": ["Export+Import", ""]},
        "second": {"ids": [203], "nth": 2},
    },
}
POINTS: dict[str, Any] = {
    "ac": {"model": "inverter", "offset": 14, "type": "i16"},
    "grid": {"model": "meter", "offset": 18, "type": "i16"},
    "first": {"model": 203, "offset": 18, "type": "i16"},
    "other": {"model": "second", "offset": 18, "type": "i16"},
}


def words_of(text: str, count: int) -> list[int]:
    data = text.encode().ljust(2 * count, b"\0")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, 2 * count, 2)]


def common(option: str = "", serial: str = "") -> list[int]:
    words = [*words_of("Sample", 16), *words_of("Part", 16), *words_of(option, 8), *words_of("1", 8)]
    return [1, COMMON_LENGTH, *words, *words_of(serial, 16), 1]


def meter(watts: int, *, number: int = 203) -> list[int]:
    words = [0] * METER_LENGTH
    words[16] = watts
    return [number, METER_LENGTH, *words]


def inverter(number: int = 103) -> list[int]:
    words = [0] * 50
    words[12] = 4500
    return [number, 50, *words]


def device(*models: list[int]) -> Device:
    words = [0x5375, 0x6E53, *(word for model in models for word in model), 0xFFFF, 0]
    return Device({40_000 + i: word for i, word in enumerate(words)})


def home(production: str = "Production", export: str = "Export+Import") -> Device:
    """An inverter, the meter of its PV and the meter at the grid connection."""
    return device(
        common(), inverter(),
        common(production, "111"), meter(PRODUCTION),
        common(export, "222"), meter(EXPORT),
    )  # fmt: skip


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


async def opened(
    bench: Bench, served: Served, *, parameters: Mapping[str, str] | None = None, **sunspec: Any
) -> ModbusLink:
    made = target(served.port, POINTS, sunspec=SECTION | sunspec)
    connection = replace(made.connection, parameters=tuple((parameters or {}).items()))
    return await bench.open(replace(made, connection=connection))


async def read(bench: Bench, served: Served, **given: str) -> dict[str, Any]:
    link = await opened(bench, served, parameters=given)
    found = await link.read(tuple(POINTS))
    return {name: raw[0] if isinstance(raw, tuple) else raw for name, raw in found.items()}


async def test_meter_is_the_one_whose_common_block_says_so(bench: Bench) -> None:
    async with Served(home()) as served:
        assert await read(bench, served) == {"ac": 4500, "grid": EXPORT, "first": PRODUCTION, "other": EXPORT}


async def test_chosen_model_is_named_with_what_it_says_of_itself(bench: Bench) -> None:
    async with Served(home()) as served:
        link = await opened(bench, served)
        said = {name: model.said for name, model in link.models.items()}
        assert said["meter"] == "model 203 at 40277 (2 of 2, Part, Export+Import, serial 222)"
        assert said["inverter"] == "model 103 at 40069 (1 of 1)"
        assert said["203"] == ""
        assert link.models["meter"].number == 203
        assert link.notice is None


@pytest.mark.parametrize("given", ["1", "111"])
async def test_registration_chooses_by_place_or_serial_over_what_the_meters_say(bench: Bench, given: str) -> None:
    async with Served(home()) as served:
        assert (await read(bench, served, meter=given))["grid"] == PRODUCTION


@pytest.mark.parametrize("given", ["3", "0", "333"])
async def test_registration_of_a_meter_that_is_not_there_leaves_it_unknown_and_says_so(
    bench: Bench, given: str
) -> None:
    async with Served(home()) as served:
        link = await opened(bench, served, parameters={"meter": given})
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        assert link.notice == f"SunSpec model meter: {given!r} is registered, which is none of the 2 there"


async def test_meters_that_say_the_same_are_none_of_them_and_the_link_says_so(bench: Bench) -> None:
    async with Served(home(production="Export+Import")) as served:
        link = await opened(bench, served)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        assert link.notice == "SunSpec model meter: 2 say 'Export+Import'; register which one"


async def test_only_meter_that_measures_something_else_is_not_taken(bench: Bench) -> None:
    async with Served(device(common(), inverter(), common("Production"), meter(PRODUCTION))) as served:
        link = await opened(bench, served)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        assert "but 'Production'" in (link.notice or "")


async def test_only_meter_that_says_nothing_is_taken_where_the_profile_allows_it(bench: Bench) -> None:
    async with Served(device(common(), inverter(), common(), meter(EXPORT))) as served:
        assert (await read(bench, served))["grid"] == EXPORT


async def test_option_is_the_same_however_it_is_spaced_and_written(bench: Bench) -> None:
    async with Served(home(export="EXPORT + Import")) as served:
        assert (await read(bench, served))["grid"] == EXPORT


async def test_meter_whose_common_block_does_not_answer_is_not_taken_for_one_that_says_nothing(bench: Bench) -> None:
    made = device(common(), inverter(), common("Production"), meter(PRODUCTION))
    del made.images[1][40_000 + 2 + 67 + 52 + 40]
    async with Served(made) as served:
        link = await opened(bench, served)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        assert "but nothing; register which one" in (link.notice or "")


async def test_meter_that_slept_at_the_connect_is_chosen_once_it_says_what_it_is(bench: Bench) -> None:
    """A meter that sleeps says "not implemented" everywhere, in its common block too."""
    made = home()
    image = made.images[1]
    block = range(40_000 + 2 + 67 + 52 + 67 + 22 + 2, 40_000 + 2 + 67 + 52 + 67 + 22 + 67)
    awake = {at: image[at] for at in block}
    image |= dict.fromkeys(block, 0x8000)
    async with Served(made) as served:
        link = await opened(bench, served)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        image |= awake
        bench.clock.advance(s=59)
        assert (await link.read(["grid"]))["grid"] is Marker.MISSING
        bench.clock.advance(s=1)
        assert (await link.read(["grid"]))["grid"] == (EXPORT,)
        assert link.notice is None


@pytest.mark.parametrize("number", [101, 102, 103])
async def test_any_of_the_ids_of_a_required_model_is_enough(bench: Bench, number: int) -> None:
    async with Served(device(common(), inverter(number), common(), meter(EXPORT, number=201))) as served:
        assert await read(bench, served) == {
            "ac": 4500, "grid": EXPORT, "first": Marker.MISSING, "other": Marker.MISSING,
        }  # fmt: skip


async def test_none_of_the_ids_of_a_required_model_is_not_this_product(bench: Bench) -> None:
    async with Served(device(common(), inverter(104))) as served:
        with pytest.raises(NotThisProduct) as refused:
            await opened(bench, served)
    assert str(refused.value) == "SunSpec models one of 101, 102, 103, one of 201, 203 are missing"


# -- repeating blocks ----------------------------------------------------------------------------------------------

BLOCKS: dict[str, Any] = {"required": [1, 160], "blocks": {160: {"start": 4, "length": 3, "count": [4, 5]}}}
BLOCK_POINTS: dict[str, Any] = {
    "charge": {"model": 160, "block": -2, "offset": 1, "type": "u16"},
    "discharge": {"model": 160, "block": -1, "offset": 1, "type": "u16"},
    "fifth": {"model": 160, "block": 5, "offset": 1, "type": "u16"},
    "before_all": {"model": 160, "block": -5, "offset": 1, "type": "u16"},
}


def modules(count: int) -> list[int]:
    """Blocks whose second word is their number times ten."""
    return [160, 2 + 3 * count, 0, 0, *(word for i in range(1, count + 1) for word in (0, 10 * i, 0))]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, {"charge": 30, "discharge": 40, "fifth": Marker.MISSING, "before_all": Marker.MISSING}),
        (5, {"charge": 40, "discharge": 50, "fifth": 50, "before_all": 10}),
    ],
)
async def test_blocks_are_counted_from_the_end_of_what_the_device_has(
    bench: Bench, count: int, expected: dict[str, object]
) -> None:
    async with Served(device(common(), modules(count))) as served:
        link = await bench.open(target(served.port, BLOCK_POINTS, sunspec=BLOCKS))
        found = await link.read(tuple(BLOCK_POINTS))
        assert {name: raw[0] if isinstance(raw, tuple) else raw for name, raw in found.items()} == expected


async def test_number_of_blocks_that_the_product_never_has_is_not_this_product(bench: Bench) -> None:
    async with Served(device(common(), modules(6))) as served:
        with pytest.raises(NotThisProduct) as refused:
            await bench.open(target(served.port, BLOCK_POINTS, sunspec=BLOCKS))
    assert str(refused.value) == "SunSpec model 160 is 20 words long (6 blocks), expected 14 or 17 (4 or 5 blocks)"


@pytest.mark.parametrize(
    ("said", "told"),
    [(5, "has 4 blocks by its length and says 5"), (None, "has 4 blocks by its length and does not say how many")],
)
async def test_number_of_blocks_that_the_length_denies_is_not_this_product(
    bench: Bench, said: int | None, told: str
) -> None:
    """Blocks are counted from the end by the length: were it wrong, each would be taken for another."""
    made, counted = device(common(), modules(4)), {"start": 4, "length": 3, "count": [4, 5], "count_at": 2}
    at = 40_000 + 2 + 67 + 2
    if said is None:
        del made.images[1][at]
    else:
        made.images[1][at] = said
    async with Served(made) as served:
        with pytest.raises(NotThisProduct) as refused:
            await bench.open(target(served.port, BLOCK_POINTS, sunspec=BLOCKS | {"blocks": {160: counted}}))
    assert str(refused.value) == f"SunSpec model 160 {told}"


async def test_number_of_blocks_that_the_length_confirms_is_taken(bench: Bench) -> None:
    made, counted = device(common(), modules(4)), {"start": 4, "length": 3, "count": [4, 5], "count_at": 2}
    made.images[1][40_000 + 2 + 67 + 2] = 4
    async with Served(made) as served:
        link = await bench.open(target(served.port, BLOCK_POINTS, sunspec=BLOCKS | {"blocks": {160: counted}}))
        assert (await link.read(["discharge"]))["discharge"] == (40,)


NAMED: dict[str, Any] = {
    "start": 4, "length": 5, "count": [3, 4],
    "names": {"offset": 2, "words": 3, "begins": {"charge": "StCha", "discharge": "StDis"}},
}  # fmt: skip
NAMED_POINTS: dict[str, Any] = {
    name: {"model": 160, "block": name, "offset": 1, "type": "u16"} for name in ("charge", "discharge")
}


def titled(*titles: str) -> list[int]:
    """Blocks with a name, whose second word is their number times ten."""
    words = [word for i, title in enumerate(titles, 1) for word in (0, 10 * i, *words_of(title, 3))]
    return [160, 2 + 5 * len(titles), 0, 0, *words]


@pytest.mark.parametrize(
    ("titles", "charge", "discharge"),
    [
        (("MPPT1", "StCha", "StDis2"), (20,), (30,)),
        (("StDis1", "MPPT1", "MPPT2", "StCha4"), (40,), (10,)),
        # nobody, or more than one, has the name
        (("MPPT1", "StCha", "StCha2"), Marker.MISSING, Marker.MISSING),
        (("MPPT1", "", "StDis"), Marker.MISSING, (30,)),
    ],
)
async def test_block_is_found_by_the_name_it_says(
    bench: Bench, titles: tuple[str, ...], charge: object, discharge: object
) -> None:
    async with Served(device(common(), titled(*titles))) as served:
        link = await bench.open(target(served.port, NAMED_POINTS, sunspec={"required": [160], "blocks": {160: NAMED}}))
        assert await link.read(tuple(NAMED_POINTS)) == {"charge": charge, "discharge": discharge}


async def test_block_whose_name_cannot_be_read_has_none(bench: Bench) -> None:
    made = device(common(), titled("MPPT1", "StCha", "StDis"))
    del made.images[1][40_000 + 2 + 67 + 4 + 5 + 2]
    async with Served(made) as served:
        link = await bench.open(target(served.port, NAMED_POINTS, sunspec={"required": [160], "blocks": {160: NAMED}}))
        assert await link.read(tuple(NAMED_POINTS)) == {"charge": Marker.MISSING, "discharge": (30,)}
        assert link.models["160"].blocks == {"discharge": 3}
