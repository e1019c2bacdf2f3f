"""Who is counted on: lost once readings are overdue, counted on again once they have come on time for a while."""

from collections.abc import Mapping

import numpy as np

from gateway.domain.control.contact import Contact
from gateway.domain.fleet.measured import Power
from gateway.domain.types import Now

LOST_S = 60


def counted_on_s(back_s: Mapping[int, float], until_s: int = 120) -> dict[int, int]:
    """The second in which each device is counted on again, of devices that are lost for a minute and then heard again,
    `back_s` by device after that."""
    n = len(back_s)
    contact, members, found = Contact(), np.ones(n, dtype=np.bool_), dict[int, int]()
    for second in range(-LOST_S - 1, until_s):
        overdue = np.array([-LOST_S <= second < back_s[i] for i in range(n)])
        power = Power(
            each_w=np.zeros(n), measured=~overdue, overdue=overdue, heard_s=np.ones(n), controlled_w=np.full(n, 1_000.0)
        )  # fmt: skip
        lost = contact.observe(power, members, Now(utc_ms=1_800_000_000_000, mono_ms=1_000 * (second + 1_000)))
        assert lost[overdue].all()
        found |= {i: second for i in range(n) if second >= 0 and not lost[i] and i not in found}
    return found


def test_lost_device_is_counted_on_again_after_half_a_minute_on_time() -> None:
    assert counted_on_s({0: 0}) == {0: 29}
    assert counted_on_s({0: 25}) == {0: 54}


def test_lost_devices_that_come_back_soon_after_each_other_are_counted_on_together() -> None:
    assert counted_on_s({0: 0, 1: 4, 2: 8}) == {0: 37, 1: 37, 2: 37}


def test_lost_device_does_not_wait_for_one_that_comes_back_much_later() -> None:
    assert counted_on_s({0: 0, 1: 11}) == {0: 29, 1: 40}


def test_lost_device_waits_ten_seconds_at_most_while_others_come_back_one_after_the_other() -> None:
    found = counted_on_s({i: 5.0 * i for i in range(10)})
    assert all(found[i] - 5 * i <= 39 for i in range(10))
