"""A device that speaks as another product than it is registered as is told by name until that is mended."""

from gateway.domain.fleet.fleet import Fleet
from tests.builders.fakes import home
from tests.links.mqtt.test_messages_unclear import Rig, live
from tests.scenes.street import reference

TOLD = [
    "devices: 1 speak as another product than they are registered as, "
    "first other: reference-mqtt, registered as another"
]


def register(fleet: Fleet, profile: str) -> None:
    fleet.register(home("other", profile=profile), reference().facts)


def test_link_names_a_device_that_speaks_as_another_product_than_it_is_registered_as() -> None:
    rig = Rig().hear(live())
    assert rig.link.warnings() == []
    rig.hear(live(id="other"), device="other")
    assert rig.link.warnings() == TOLD
    # readings of others change nothing about it
    rig.hear(live())
    assert rig.link.warnings() == TOLD


def test_link_names_it_no_more_once_it_is_registered_as_what_it_is() -> None:
    rig = Rig().hear(live(id="other"), device="other")
    register(rig.fleet, "reference-mqtt")
    assert rig.link.warnings() == []
    rig.hear(live(id="other"), device="other")
    assert rig.link.warnings() == []
    register(rig.fleet, "another")
    assert rig.link.warnings() == []
    rig.hear(live(id="other"), device="other")
    assert rig.link.warnings() == TOLD


def test_link_names_it_no_more_once_it_speaks_as_what_it_is_registered_as() -> None:
    rig = Rig().hear(live(id="other"), device="other")
    register(rig.fleet, "reference-mqtt")
    rig.hear(live(id="other"), device="other")
    register(rig.fleet, "another")
    assert rig.link.warnings() == []
