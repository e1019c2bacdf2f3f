"""A client library of somebody else steers our simulated product, and the simulated battery does what it asked for."""

import pytest

from tests.foreign.peers import FOREIGN, Foreign, client_of
from tests.foreign.scenes import STEERED
from tests.scenes.register_faces import controlled, go

pytestmark = pytest.mark.e2e
STEERING = [foreign for foreign in FOREIGN if foreign.steers]


@pytest.mark.parametrize("foreign", STEERING, ids=lambda foreign: foreign.library)
async def test_client_of_others_steers_the_battery(foreign: Foreign) -> None:
    foreign.needed()
    face = foreign.make_face(STEERED.plant())
    go(face, 60)
    own_w = face.plant.battery_w
    connection = await face.start()
    try:
        async with client_of(foreign) as client:
            for wanted_w in (2_000, -1_500):
                await client.ask("steer", connection, power_w=wanted_w)
                go(face, 20)
                assert controlled(face)
                assert face.plant.battery_w == pytest.approx(wanted_w, abs=20)
            await client.ask("release", connection)
            go(face, 20)
    finally:
        await face.stop()
    assert not controlled(face)
    assert face.plant.battery_w == pytest.approx(own_w, abs=700)


async def test_client_of_others_sets_the_least_soc_of_a_foxess_on_grid_and_leaves_the_one_off_grid() -> None:
    (foreign,) = [one for one in FOREIGN if one.profile == "foxess-h3"]
    foreign.needed()
    face = foreign.make_face(STEERED.plant())
    connection = await face.start()
    try:
        async with client_of(foreign) as client:
            before = await client.ask("read", connection)
            await client.ask("reserve", connection, percent=35)
            after = await client.ask("read", connection)
    finally:
        await face.stop()
    assert (before["reserve_pct"], after["reserve_pct"]) == (20, 35)
    assert after["off_grid_reserve_pct"] == before["off_grid_reserve_pct"]
