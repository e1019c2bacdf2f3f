"""The Modbus link against the simulators' server: values, plans, refusals, writes, shared connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput, LinkDown, PeerBusy, PeerRefused
from gateway.links.modbus.link import ModbusLink
from gateway.profiles.compiled.points import Marker
from simulators.faces.modbus import Refusal
from tests.scenes.modbus_rig import CEILING_S, Bench, Device, Served, image, target, writes

ALL = ("power", "soc", "energy", "limit", "mode")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made


async def opened(bench: Bench, served: Served, points: dict[str, Any] | None = None, **section: Any) -> ModbusLink:
    link = await bench.open(target(served.port, points, **section))
    served.asked()
    return link


def u16s(*addresses: int) -> dict[str, Any]:
    return {f"p{at}": {"register": at, "type": "u16"} for at in addresses}


async def test_read_contiguous_points_costs_one_request_each_run(bench: Bench) -> None:
    async with Served(Device(image())) as served:
        link = await opened(bench, served)
        raws = await link.read(ALL)
        assert raws == {"power": (100,), "soc": (101,), "energy": (102, 103), "limit": (110, 111), "mode": (112,)}
        assert served.asked() == [(100, 4), (110, 3)]
        assert (bench.stats.points, bench.stats.requests) == (5, 2)


async def test_read_gaps_within_the_profile_are_joined(bench: Bench) -> None:
    async with Served(Device(image(*range(104, 110)))) as served:
        link = await opened(bench, served, gap_max=6)
        await link.read(ALL)
        assert served.asked() == [(100, 13)]


async def test_read_input_registers_and_other_units_are_asked_as_such(bench: Bench) -> None:
    points = {"a": {"register": 1, "type": "u16", "function": 4, "unit_id": "meter"}}
    async with Served(Device({1: 7}, units=(1, 9))) as served:
        link = await opened(bench, served, points | u16s(1), units={"main": 1, "meter": 9})
        assert await link.read(["a", "p1"]) == {"a": (7,), "p1": (7,)}
        assert {(unit, function) for unit, function, _, _ in served.server.requests} == {(1, 3), (9, 4)}


async def test_open_enrollment_overrides_the_unit_id(bench: Bench) -> None:
    device = Device(units=(7,))
    device.images[7] = image()
    async with Served(device) as served:
        link = bench.links.link(target(served.port, url=f"modbus://127.0.0.1:{served.port}", own_units=(("main", 7),)))
        await link.open()
        assert (await link.read(["soc"]))["soc"] == (101,)


async def test_read_point_the_device_lacks_is_missing_until_reopened(bench: Bench) -> None:
    words = {at: at for at in (10, 11, 13, 14)}
    device = Device(words)
    async with Served(device) as served:
        link = await opened(bench, served, u16s(10, 11, 12, 13, 14), gap_max=8)
        raws = await link.read(("p10", "p11", "p12", "p13", "p14"))
        assert raws == {"p10": (10,), "p11": (11,), "p12": Marker.MISSING, "p13": (13,), "p14": (14,)}
        assert served.asked() == [(10, 5), *((at, 1) for at in range(10, 15))]

        assert (await link.read(("p10", "p11", "p12", "p13", "p14")))["p12"] is Marker.MISSING
        assert served.asked() == [(10, 2), (13, 2)]
        assert bench.stats.missing == 1

        device.images[1][12] = 12
        await link.open()
        assert (await link.read(("p10", "p12")))["p12"] == (12,)


async def test_read_block_refused_for_its_gap_is_parted_for_good(bench: Bench) -> None:
    async with Served(Device({10: 1, 11: 2, 14: 3})) as served:
        link = await opened(bench, served, u16s(10, 11, 14), gap_max=8)
        names = ("p10", "p11", "p14")
        for _ in range(2):
            assert await link.read(names) == {"p10": (1,), "p11": (2,), "p14": (3,)}
        served.asked()
        await link.read(names)
        assert served.asked() == [(10, 2), (14, 1)]
        assert bench.stats.missing == 0


async def test_read_device_takes_fewer_registers_than_its_profile_says(bench: Bench) -> None:
    async with Served(Device({at: at for at in range(16)}), read_max=4) as served:
        link = await opened(bench, served, u16s(*range(16)))
        names = [f"p{at}" for at in range(16)]
        for _ in range(4):
            assert await link.read(names) == {f"p{at}": (at,) for at in range(16)}
        served.asked()
        await link.read(names)
        assert max(count for _, count in served.asked()) <= 4


SCALED = u16s(10) | {
    "p12": {"register": 12, "type": "u16", "scale_factor": "sf"},
    "p13": {"register": 13, "type": "u16", "scale_factor": "sf"},
    "sf": {"register": 14, "type": "i16"},
}


async def test_read_value_alone_brings_its_factor_from_the_same_request(bench: Bench) -> None:
    async with Served(Device({at: at for at in range(16)})) as served:
        link = await opened(bench, served, SCALED)
        assert await link.read(["p12"]) == {"p12": (12,), "sf": (14,)}
        assert served.asked() == [(12, 3)]


async def test_read_scaled_value_the_device_lacks_leaves_the_others_of_its_factor(bench: Bench) -> None:
    points = SCALED | {"p13": {"register": 15, "type": "u16", "scale_factor": "sf"}}
    async with Served(Device({at: at for at in range(15)})) as served:
        link = await opened(bench, served, points, gap_max=8)
        assert (await link.read(list(points)))["p12"] is Marker.MISSING
        for _ in range(2):
            found = await link.read(list(points))
            assert found == {"p10": (10,), "p12": (12,), "sf": (14,), "p13": Marker.MISSING}
        served.asked()
        await link.read(list(points))
        assert served.asked() == [(10, 5)]
        assert bench.stats.missing == 1


async def test_read_scaled_value_with_a_hole_before_its_factor_is_missing(bench: Bench) -> None:
    """One request cannot hold both, and the value alone says nothing."""
    async with Served(Device({at: at for at in range(16) if at != 13})) as served:
        link = await opened(bench, served, SCALED)
        for _ in range(2):
            found = await link.read(list(SCALED))
            assert found == {"p10": (10,)} | dict.fromkeys(("p12", "p13", "sf"), Marker.MISSING)


async def test_read_factor_the_device_lacks_leaves_nothing_of_what_it_scales(bench: Bench) -> None:
    async with Served(Device({at: at for at in range(14)})) as served:
        link = await opened(bench, served, SCALED)
        for _ in range(3):
            found = await link.read(list(SCALED))
            assert found == {"p10": (10,)} | dict.fromkeys(("p12", "p13", "sf"), Marker.MISSING)
        served.asked()
        await link.read(list(SCALED))
        assert served.asked() == [(10, 1)]


async def test_read_device_that_gives_value_and_factor_apart_only_tells_no_value(bench: Bench) -> None:
    """Its answers would be of two moments."""
    async with Served(Device({at: at for at in range(16)}), read_max=2) as served:
        link = await opened(bench, served, SCALED)
        for _ in range(3):
            found = await link.read(list(SCALED))
            assert (found["p10"], found["p12"], found["p13"]) == ((10,), Marker.MISSING, Marker.MISSING)
        assert bench.stats.missing == 2


@pytest.mark.fault("F29")
async def test_read_wide_value_that_changes_all_the_time_is_never_torn(bench: Bench) -> None:
    """F29: a counter of four words goes on with every request; its words always belong together."""
    points = {f"c{i}": {"register": 4 * i, "type": "u64"} for i in range(8)}
    device = Device(dict.fromkeys(range(32), 0))

    def count(words: dict[int, int]) -> None:
        for at in words:
            words[at] += 1

    device.before_read = count
    async with Served(device) as served:
        link = await opened(bench, served, points, registers_max=10)
        for _ in range(5):
            raws = await link.read(tuple(points))
            assert all(isinstance(raw, tuple) and len(raw) == 4 and len(set(raw)) == 1 for raw in raws.values())
        assert all(count % 4 == 0 and count <= 10 for _, count in served.asked())


async def test_write_function_follows_the_number_of_words(bench: Bench) -> None:
    device = Device(image())
    async with Served(device) as served:
        link = await opened(bench, served)
        await link.write(writes(mode=(3,)))
        await link.write(writes(limit=(1, 2)))
        await link.write(writes(mode=(9,), limit=(5, 6)))
        assert [(function, at, n) for _, function, at, n in served.server.requests] == [
            (6, 112, 1),
            (16, 110, 2),
            (16, 110, 3),
        ]
        assert [device.images[1][at] for at in (110, 111, 112)] == [5, 6, 9]


async def test_write_single_word_by_function_16_where_the_profile_says_so(bench: Bench) -> None:
    points = {"only16": {"register": 5, "type": "u16", "write_function": 16, "access": "rw", "storage": "volatile"}}
    async with Served(Device({5: 0})) as served:
        link = await opened(bench, served, points)
        await link.write(writes(only16=(4,)))
        assert served.server.requests == [(1, 16, 5, 1)]


async def test_write_to_broadcast_unit_waits_for_no_answer(bench: Bench) -> None:
    points = {
        "all": {"register": 5, "type": "u16", "access": "w", "storage": "volatile", "unit_id": "all", "poll": "never"},
        "back": {"register": 5, "type": "u16"},
    }
    device = Device({5: 0}, units=(0, 1))
    async with Served(device) as served:
        link = await opened(bench, served, points, units={"main": 1, "all": 0})
        await link.write(writes(all=(4,)))
        assert await link.read(["back"]) == {"back": (0,)}
        assert device.images[0][5] == 4
        assert bench.stats.timeouts == 0


async def test_write_refused_says_the_code(bench: Bench) -> None:
    device = Device(image())
    async with Served(device) as served:
        link = await opened(bench, served)
        for code in (1, 2, 3, 4, 0x80):
            device.refusals = [code]
            with pytest.raises(PeerRefused, match=f"exception {code} "):
                await link.write(writes(mode=(1,)))
        assert bench.stats.exceptions == {1: 1, 2: 1, 3: 1, 4: 1, 0x80: 1}


async def test_stats_unheard_of_codes_share_one_count(bench: Bench) -> None:
    device = Device(image())
    async with Served(device) as served:
        link = await opened(bench, served)
        for code in (77, 78, 200):
            device.refusals = [code]
            with pytest.raises(PeerRefused):
                await link.read(["soc"])
        assert bench.stats.exceptions == {0: 3}


@pytest.mark.fault("F5")
async def test_busy_device_is_asked_again(bench: Bench) -> None:
    """F5: exception 6 is no failure; the same request goes out again after the profile's pause."""
    device = Device(image())
    async with Served(device) as served:
        link = await opened(bench, served, busy_retries=2)
        device.refusals = [Refusal.BUSY, 5]
        assert await link.read(["soc"]) == {"soc": (101,)}
        device.refusals = [Refusal.BUSY] * 3
        with pytest.raises(PeerBusy) as told:
            await link.write(writes(mode=(1,)))
        assert told.value.after_s == 0.01
        assert bench.stats.busy == 5
        assert device.images[1][112] == 112


@pytest.mark.fault("F5")
async def test_unit_behind_a_gateway_is_absent(bench: Bench) -> None:
    device = Device(image())
    async with Served(device) as served:
        link = await opened(bench, served)
        for code in (10, 11):
            device.refusals = [code]
            with pytest.raises(LinkDown, match=f"exception {code} "):
                await link.read(["soc"])
        assert await link.read(["soc"]) == {"soc": (101,)}


async def test_links_of_one_address_share_one_connection(bench: Bench) -> None:
    async with Served(Device(image(), units=(1, 2, 3)), clients_max=1) as served:
        links = [
            await bench.open(target(served.port, name=f"home-{unit}", own_units=(("main", unit),)))
            for unit in (1, 2, 3)
        ]
        async with asyncio.TaskGroup() as group:
            for link in links:
                group.create_task(link.read(ALL))
        assert bench.stats.connections == 1
        await links[0].close()
        await links[0].close()
        assert await links[1].read(["soc"]) == {"soc": (101,)}
        with pytest.raises(LinkDown):
            await links[0].read(["soc"])
        await links[1].close()
        await links[2].close()
        assert (bench.stats.connections, served.server.refused_clients) == (0, 0)


async def test_single_client_product_takes_the_next_connection_after_a_close(bench: Bench) -> None:
    async with Served(Device(image()), clients_max=1) as served:
        for _ in range(5):
            link = await bench.open(target(served.port, connections_max=1))
            assert await link.read(["soc"]) == {"soc": (101,)}
            await link.close()
        assert served.server.refused_clients == 0


async def test_open_nobody_listens_is_link_down(bench: Bench) -> None:
    async with Served(Device()) as served:
        port = served.port
    with pytest.raises(LinkDown):
        await bench.open(target(port))
    assert bench.stats.connect_failures == 1


@pytest.mark.parametrize(
    "url", ["http://h", "modbus://", "modbus://h:99999", "modbus://h:x", "modbus://h/path", "modbus://u@h", "h:502", ""]
)
async def test_link_bad_url_is_refused_before_any_connect(bench: Bench, url: str) -> None:
    with pytest.raises(InvalidInput, match=r"connection\.url"):
        bench.links.link(target(1, url=url or " "))


@pytest.mark.parametrize("units", [(("other", 1),), (("main", 256),), (("main", -1),)])
async def test_link_bad_units_are_refused(bench: Bench, units: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(InvalidInput, match=r"connection\.units"):
        bench.links.link(target(1, own_units=units))


async def test_rest_after_connect_lasts_before_the_first_request(bench: Bench) -> None:
    async with Served(Device(image()), rest_s=0.05) as served:
        link = await bench.open(target(served.port, rest_s=0.06))
        async with asyncio.timeout(CEILING_S):
            assert await link.read(["soc"]) == {"soc": (101,)}
