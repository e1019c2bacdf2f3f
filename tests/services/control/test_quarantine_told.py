"""What is not trusted is a warning while most of the fleet is, and makes the gateway not ready otherwise."""

import pytest

from gateway.domain.fleet.fleet import Fleet
from gateway.services.control.quarantine import QuarantineWatch
from tests.builders.fakes import FACTS, home


def watch(quarantined: dict[str, str]) -> QuarantineWatch:
    """Ten homes, eight of product `p` and two of `q`."""
    fleet = Fleet()
    for i in range(10):
        fleet.register(home(f"home-{i}", profile="p" if i < 8 else "q"), FACTS)
    made = QuarantineWatch(fleet)
    made.load(quarantined, {})
    return made


@pytest.mark.parametrize(
    ("quarantined", "text"),
    [
        (
            {"home-0": "wrong_sign", "home-1": "wrong_sign"},
            "devices: 2 in quarantine, first of them home-0, wrong_sign",
        ),
        ({"product:q": "wrong_sign"}, "product q: in quarantine, wrong_sign"),
    ],
)
def test_quarantine_of_a_small_part_is_a_warning(quarantined: dict[str, str], text: str) -> None:
    made = watch(quarantined)
    assert (made.reasons(), made.warnings()) == ([], [text])


@pytest.mark.parametrize("quarantined", [{"product:p": "wrong_sign"}, {f"home-{i}": "wrong_sign" for i in range(5)}])
def test_quarantine_of_at_least_half_makes_it_not_ready(quarantined: dict[str, str]) -> None:
    made = watch(quarantined)
    assert (len(made.reasons()), made.warnings()) == (1, [])


def test_quarantine_frozen_product_counts_like_one_in_quarantine() -> None:
    made = watch({})
    made._frozen = frozenset({made._fleet.products.index("q")})
    assert (made.reasons(), made.warnings()) == ([], ["product q: many devices failed at once, frozen"])
    made._frozen = frozenset({made._fleet.products.index("p")})
    assert (made.reasons(), made.warnings()) == (["product p: many devices failed at once, frozen"], [])


def test_quarantine_of_nobody_says_nothing_also_without_devices() -> None:
    assert (watch({}).reasons(), watch({}).warnings()) == ([], [])
    empty = QuarantineWatch(Fleet())
    assert (empty.reasons(), empty.warnings()) == ([], [])
