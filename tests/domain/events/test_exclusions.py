"""Who is kept out by choice, for how long, and of what; and what a group can sustain."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from gateway.domain.control.availability import availability
from gateway.domain.events.exclusions import Exclusion, Exclusions
from gateway.domain.events.request import TargetGroup
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import DeviceId, EventId, Now
from gateway.services.settings import FeederSettings
from tests.builders.fakes import FACTS
from tests.builders.fleets import NOW, fleet_of
from tests.domain.events.test_book import HOUR, T0, at, small_fleet


def exclusion(name: str = "h", /, *ids: str, **other: object) -> Exclusion:
    group = TargetGroup(ids=tuple(map(DeviceId, ids))) if ids else TargetGroup(all=True)
    known: dict[str, object] = {
        "id": name, "reason": "opt_out", "group": group, "from_ms": T0, "until_ms": T0 + HOUR,
    }  # fmt: skip
    return Exclusion(**(known | other))  # type: ignore[arg-type]


def test_exclusions_bar_their_devices_while_they_last() -> None:
    exclusions = Exclusions([exclusion("h", "a", "c"), exclusion("s", "c", reason="storm")])
    fleet = small_fleet()
    assert exclusions.bits(fleet, at(-1)).tolist() == [0, 0, 0, 0]
    assert exclusions.bits(fleet, at(0)).tolist() == [
        ExclusionReason.OPTED_OUT,
        0,
        ExclusionReason.OPTED_OUT | ExclusionReason.STORM,
        0,
    ]
    assert exclusions.bits(fleet, at(HOUR)).tolist() == [0, 0, 0, 0]


def test_exclusions_end_by_themselves_or_are_lifted() -> None:
    exclusions = Exclusions([exclusion("h"), exclusion("open", until_ms=None)])
    assert exclusions.over(at(HOUR - 1)) == []
    assert exclusions.over(at(HOUR)) == ["h"]
    exclusions.lift("open")
    exclusions.lift("never was")
    assert [h.id for h in exclusions.all()] == ["h"]


def test_exclusions_opt_out_of_one_event_excludes_nobody_from_the_others() -> None:
    exclusions = Exclusions(
        [exclusion("h", "a", event=EventId("e1")), exclusion("i", "b", event=EventId("e1")), exclusion("j", "d")]
    )
    fleet = small_fleet()
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, ExclusionReason.OPTED_OUT]
    found = exclusions.without(fleet, {EventId("e1"): 7, EventId("e2"): 8}, at(0))
    assert {index: slots.tolist() for index, slots in found.items()} == {7: [0, 1]}


def test_exclusions_the_same_id_again_replaces() -> None:
    exclusions = Exclusions([exclusion("h", "a")])
    second = exclusion("h", "b")
    exclusions.set(second)
    assert len(exclusions) == 1
    assert exclusions.bits(small_fleet(), at(0)).tolist() == [1, 1, 0, 0], "the first holds until the second is durable"
    exclusions.settle(second)
    assert exclusions.bits(small_fleet(), at(0)).tolist() == [0, ExclusionReason.OPTED_OUT, 0, 0]


# -- availability -----------------------------------------------------------------------------------------------


def test_availability_is_what_energy_and_power_carry_for_each_duration() -> None:
    snapshot = fleet_of(3, soc_pct=[100, 40, 20], standby_w=0)
    allowed = envelope(snapshot, NOW, LimitParams(resume_pct=0))
    groups = {"all": np.arange(3, dtype=np.int32), "one": np.array([1], dtype=np.int32)}
    whole, one = availability(groups.items(), allowed, snapshot.nameplate, allowed.controllable)
    # 8 kWh and 2 kWh above the reserve behind 5 kW each
    assert list(whole.discharge_w) == [5_000 + 2_000, 4_000 + 1_000, round(8_000 / 3 + 2_000 / 3), 2_500]
    assert list(one.discharge_w) == [2_000, 1_000, 667, 500]
    assert list(one.charge_w) == [5_000, 3_000, 2_000, 1_500]
    assert (whole.devices, one.devices) == (3, 1)


def test_availability_counts_standby_and_nobody_who_may_not_be_written() -> None:
    snapshot = fleet_of(2, soc_pct=40, standby_w=100, online=[1, 0])
    allowed = envelope(snapshot, NOW, LimitParams())
    (found,) = availability(
        [("all", np.arange(2, dtype=np.int32))], allowed, snapshot.nameplate, allowed.controllable, hours=(1, 4)
    )
    assert found.devices == 1
    assert list(found.discharge_w) == pytest.approx([1_900, 400], abs=1)


def test_exclusions_know_who_is_registered_later_and_what_replaced_them() -> None:
    exclusions, fleet = Exclusions([exclusion("t", group=TargetGroup(tags=("late",)))]), small_fleet()
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, 0]
    fleet.register(replace(fleet.device(1), tags=("late",)), FACTS)
    assert exclusions.bits(fleet, at(0)).tolist() == [0, ExclusionReason.OPTED_OUT, 0, 0]
    second = exclusion("t", "d")
    exclusions.set(second)
    exclusions.settle(second)
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, ExclusionReason.OPTED_OUT]


@pytest.mark.parametrize("ceiling_kw", [0, -5, float("nan"), float("inf")])
def test_feeder_ceiling_that_is_none_is_refused(ceiling_kw: float) -> None:
    with pytest.raises(ValidationError, match=r"ceilings_kw\.feeder-7"):
        FeederSettings(ceilings_kw={"feeder-7": ceiling_kw})


class Looks:
    """Counts how many exclusions are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        whole = Exclusion.over

        def over(one: Exclusion, now: Now) -> bool:
            self.n += 1
            return whole(one, now)

        monkeypatch.setattr(Exclusion, "over", over)


def test_exclusions_are_looked_at_again_only_where_one_begins_ends_or_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick asks every second, and there may be tens of thousands."""
    many = [exclusion(f"h{i:03}", "a", from_ms=T0 + 10, until_ms=T0 + 1_000) for i in range(300)]
    exclusions, fleet, looks = Exclusions(many), small_fleet(), Looks(monkeypatch)
    for ms, bit in ((0, 0), (10, ExclusionReason.OPTED_OUT), (1_000, 0)):
        assert exclusions.bits(fleet, at(ms)).tolist() == [bit, 0, 0, 0]
        looks.n = 0
        for later in range(9):
            assert exclusions.bits(fleet, at(ms + later)).tolist() == [bit, 0, 0, 0]
            assert exclusions.without(fleet, {EventId("e1"): 7}, at(ms)) == {}
        assert looks.n == 0
    # a clock that goes back, a change and a lift are seen at once
    assert exclusions.bits(fleet, at(20)).tolist() == [ExclusionReason.OPTED_OUT, 0, 0, 0]
    exclusions.set(exclusion("h000", "b", from_ms=T0))
    assert exclusions.bits(fleet, at(20)).tolist() == [ExclusionReason.OPTED_OUT, ExclusionReason.OPTED_OUT, 0, 0]
    exclusions.lift("h000")
    assert exclusions.bits(fleet, at(20)).tolist() == [ExclusionReason.OPTED_OUT, 0, 0, 0]


def test_exclusions_that_are_over_are_asked_for_only_once_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {f"h{i:03}": T0 + 100 * i for i in range(1, 200)}
    exclusions = Exclusions([exclusion(name, "a", until_ms=ms) for name, ms in ends.items()])
    looks = Looks(monkeypatch)
    assert (exclusions.over(at(99)), looks.n) == ([], 0)
    assert exclusions.over(at(100)) == ["h001"]
    assert exclusions.over(at(100)) == ["h001"]
    exclusions.lift("h001")
    assert exclusions.over(at(100)) == []
    looks.n = 0
    assert (exclusions.over(at(199)), looks.n) == ([], 0)
    exclusions.set(exclusion("soon", "b", until_ms=T0 + 150))
    assert exclusions.over(at(199)) == ["soon"]
    # a clock that goes back ends nothing
    exclusions.set(exclusion("soon", "b", until_ms=T0 + 150))
    assert exclusions.over(at(120)) == []


def test_exclusions_in_the_order_of_their_ids_however_they_came() -> None:
    exclusions = Exclusions([exclusion("c"), exclusion("a")])
    exclusions.set(exclusion("b"))
    exclusions.set(exclusion("b", "a"))
    exclusions.lift("c")
    assert [one.id for one in exclusions.all()] == ["a", "b"]
