"""A mistake that profile and simulated product share is noticed by the client libraries that the data names."""

import pytest

from gateway.profiles.confirmed import load_confirmed
from tests.evidence import PROFILES, documents
from tests.foreign.peers import FOREIGN, Foreign
from tests.foreign.search import found_by_client

pytestmark = pytest.mark.e2e
ON_REGISTERS = [foreign for foreign in FOREIGN if foreign.on_registers]


@pytest.mark.parametrize("foreign", ON_REGISTERS, ids=lambda foreign: foreign.library)
async def test_client_of_others_notices_the_mistakes_that_the_data_says(foreign: Foreign) -> None:
    foreign.needed()
    noticed = await found_by_client(documents()[foreign.profile], foreign)
    said = {
        (quantity, mistake)
        for quantity, mistakes in load_confirmed(PROFILES)[foreign.profile].items()
        for mistake, who in mistakes.items()
        if foreign.library in who
    }
    assert {mistake for mistake, found in noticed.items() if found} == said, "run python -m tests.evidence --write"
