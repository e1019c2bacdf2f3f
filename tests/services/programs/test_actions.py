"""What has to be done for a customer, in words."""

import pytest

from gateway.domain.programs.facts import Fact, MeterDevice
from gateway.services.programs.actions import required_actions
from tests.domain.programs.stated import DAY_MS, consented, device, enrolled, held, withdrawn

HOME: list[Fact] = [
    enrolled(device("home-1")), held(device("home-1"), "c-1"),
    MeterDevice(meter="m-1", device="home-1", from_ms=0, revision=9),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "action"),
    [
        ([], "consent to dsgs is missing"),
        ([consented("c-1", expires_ms=22 * DAY_MS + 5)], "consent to dsgs expires in 12 days"),
        ([consented("c-1", expires_ms=9 * DAY_MS)], "consent to dsgs has expired"),
        ([consented("c-1"), withdrawn("c-1", 5)], "consent to dsgs was withdrawn"),
    ],
)
def test_a_consent_that_is_missing_or_ends_is_to_be_renewed(facts: list[Fact], action: str) -> None:
    assert required_actions([*HOME, *facts], 10 * DAY_MS) == [action]


@pytest.mark.parametrize("expires_ms", [None, 90 * DAY_MS])
def test_a_consent_that_lasts_asks_for_nothing(expires_ms: int | None) -> None:
    assert required_actions([*HOME, consented("c-1", expires_ms=expires_ms)], 10 * DAY_MS) == []


def test_a_battery_whose_meter_nobody_knows_is_named() -> None:
    facts = [*HOME[:2], consented("c-1")]
    assert required_actions(facts, 10 * DAY_MS) == ["no meter id of home-1"]


def test_a_home_that_was_sold_asks_for_nothing_more() -> None:
    facts = [HOME[0], held(device("home-1"), "c-1", until_ms=5), HOME[2]]
    assert required_actions(facts, 10 * DAY_MS) == []
