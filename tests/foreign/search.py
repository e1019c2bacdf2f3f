"""Asks a client library of somebody else whether it notices a mistake that profile and simulated product share."""

from typing import cast

import pytest

from gateway.profiles.language.product import ProfileDocument
from simulators.faces.modbus import RegisterDevice
from simulators.faces.plant import Face
from tests.foreign.mutants import CONTROL, READ, Mutant, mutants
from tests.foreign.peers import Client, Foreign, ForeignError, client_of
from tests.foreign.scenes import SCENES, STEERED, expected
from tests.foreign.wire import Mistaken, places_of, served
from tests.scenes.register_faces import go

WANTED_W = (2_000, -1_500)


async def found_by_client(document: ProfileDocument, foreign: Foreign) -> dict[tuple[str, str], bool]:
    """By quantity and mistake, whether the library notices it. A quantity that it neither reads nor steers is left out.
    Raises AssertionError where it is not content without a mistake."""
    found: dict[tuple[str, str], bool] = {}
    async with client_of(foreign) as client:
        assert not await _reads_wrong(client, foreign, document, None)
        for quantity in READ:
            for mutant in mutants(document, quantity):
                found[quantity, mutant.name] = await _reads_wrong(client, foreign, document, mutant)
        if foreign.steers:
            assert not await _steers_wrong(client, foreign, document, None)
            for mutant in mutants(document, CONTROL):
                found[CONTROL, mutant.name] = await _steers_wrong(client, foreign, document, mutant)
    return found


async def _product(face: Face, document: ProfileDocument, mutant: Mutant | None) -> Mistaken:
    """The registers of the simulated product, with the mistake."""
    device = cast("RegisterDevice", face)
    if mutant is None:
        return Mistaken(device)
    return Mistaken(device, mutant, await places_of(document, device, mutant.points))


async def _reads_wrong(client: Client, foreign: Foreign, document: ProfileDocument, mutant: Mutant | None) -> bool:
    for scene in SCENES:
        face = foreign.make_face(scene.plant())
        go(face, 60)
        product = await _product(face, document, mutant)
        server, connection = await served(product)
        try:
            told = await client.ask("read", connection)
        except ForeignError:
            return True
        finally:
            await server.stop()
            assert product.broken == []
        wanted = expected(face, foreign.reads)
        if any(told[name] != value for name, value in wanted.items()):
            return True
    return False


async def _steers_wrong(client: Client, foreign: Foreign, document: ProfileDocument, mutant: Mutant | None) -> bool:
    face = foreign.make_face(STEERED.plant())
    go(face, 60)
    product = await _product(face, document, mutant)
    server, connection = await served(product)
    try:
        for wanted_w in WANTED_W:
            await client.ask("steer", connection, power_w=wanted_w)
            go(face, 20)
            if face.plant.battery_w != pytest.approx(wanted_w, abs=20):
                return True
    except ForeignError:
        return True
    finally:
        await server.stop()
        assert product.broken == []
    return False
