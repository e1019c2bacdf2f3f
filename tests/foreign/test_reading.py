"""What a client library of somebody else reads from our simulated product is what the simulated physics says."""

import pytest

from tests.foreign.peers import FOREIGN, Foreign, client_of
from tests.foreign.scenes import SCENES, Scene, expected
from tests.scenes.register_faces import go

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.library)
async def test_client_of_others_reads_the_truth(foreign: Foreign, scene: Scene) -> None:
    foreign.needed()
    face = foreign.make_face(scene.plant())
    go(face, 60)
    connection = await face.start()
    try:
        async with client_of(foreign) as client:
            told = await client.ask("read", connection)
    finally:
        await face.stop()
    assert {name: told[name] for name in foreign.reads} == expected(face, foreign.reads)


def test_scenes_of_reading_have_both_signs() -> None:
    seen = set()
    for scene in SCENES:
        face = FOREIGN[0].make_face(scene.plant())
        go(face, 60)
        assert face.plant.battery_w * scene.battery > 1_000
        assert face.plant.grid_w * scene.grid > 1_000
        seen |= {("battery", scene.battery), ("grid", scene.grid)}
    assert len(seen) == 4
