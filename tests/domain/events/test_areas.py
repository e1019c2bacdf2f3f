"""Whom an exclusion of an area covers: whoever is there now, whatever came in which order."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.events.advice import unmatched_area
from gateway.domain.events.areas import AreaMatches, unplaced
from gateway.domain.events.exclusions import REASON_OF, Exclusion, Exclusions
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.device import Device
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.registry.territory import Area
from gateway.domain.types import Slots
from tests.builders.fakes import FACTS, home
from tests.depth import deep
from tests.domain.events.test_book import HOUR, T0, at

STORM, LEFT = int(ExclusionReason.STORM), int(ExclusionReason.EXCLUDED)


def fleet_of(*devices: Device) -> Fleet:
    fleet = Fleet()
    for device in devices:
        fleet.register(device, FACTS)
    return fleet


def excluded(name: str = "x", /, reason: str = "storm", **other: object) -> Exclusion:
    named = {
        key: other.pop(key) for key in ("postcodes", "counties", "utilities", "feeders", "programs") if key in other
    }
    known: dict[str, object] = {"id": name, "reason": reason, "from_ms": T0, "until_ms": T0 + HOUR}
    return Exclusion(**(known | other), area=Area(**named))  # type: ignore[arg-type]


STREET = (
    home("a", postcode="95404", county="Sonoma", utility="PG&E", feeder="f1"),
    home("b", postcode="95404", county="Sonoma", utility="SMUD", feeder="f1"),
    home("c", postcode="95405", county="sonoma ", utility="PG&E", feeder="f2"),
    home("d"),
)


@pytest.mark.parametrize(
    ("area", "names"),
    [({"postcodes": ("95404",)}, "ab"), ({"postcodes": ("95404", "95405")}, "abc"), ({"counties": ("SONOMA",)}, "abc"),
     ({"utilities": ("pg&e",)}, "ac"), ({"feeders": ("f1",)}, "ab"),
     ({"postcodes": ("95404",), "utilities": ("PG&E",)}, "a"), ({"feeders": ("f2",), "utilities": ("SMUD",)}, ""),
     ({"postcodes": ("9540",)}, ""), ({}, ""), ({"programs": ("p",)}, "bd"), ({"programs": ("p", "q")}, "abd"),
     ({"programs": ("p",), "counties": ("Sonoma",)}, "b"), ({"programs": ("nobody",)}, "")],
)  # fmt: skip
def test_area_is_of_the_homes_that_are_one_of_each_kind_that_it_names(
    area: Mapping[str, tuple[str, ...]], names: str
) -> None:
    fleet = fleet_of(*STREET)
    programs: dict[str, Slots] = {"p": np.array([1, 3], dtype=np.int32), "q": np.array([0], dtype=np.int32)}
    found = AreaMatches().slots(fleet, Area(**area), programs)
    assert "".join(fleet.names(found)) == names


def test_home_that_is_registered_later_or_moves_in_is_in_the_area_at_once_and_out_when_it_leaves() -> None:
    fleet, exclusions = fleet_of(*STREET), Exclusions([excluded(postcodes=("95404",))])
    assert exclusions.bits(fleet, at(0)).tolist() == [STORM, STORM, 0, 0]
    fleet.register(home("e", postcode="95404"), FACTS)
    fleet.register(replace(fleet.device(3), postcode="95404"), FACTS)
    fleet.register(replace(fleet.device(0), postcode="95405"), FACTS)
    fleet.unregister(fleet.ids[1])
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, STORM, STORM]


def test_home_that_joins_a_program_is_in_its_area_at_once() -> None:
    fleet, exclusions = fleet_of(*STREET), Exclusions([excluded("x", "other", programs=("p",))])
    assert exclusions.programs() == {"p"}
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, 0]
    exclusions.observe_programs({"p": np.array([2], dtype=np.int32)})
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, LEFT, 0]
    exclusions.observe_programs({"p": np.array([1, 2], dtype=np.int32)})
    assert exclusions.bits(fleet, at(0)).tolist() == [0, LEFT, LEFT, 0]


def test_of_reserves_that_overlap_the_highest_holds_and_the_end_of_one_leaves_the_other() -> None:
    fleet = fleet_of(*STREET)
    low = excluded("low", counties=("Sonoma",), reserve_pct=50.0, until_ms=T0 + 2 * HOUR)
    high = excluded("high", postcodes=("95404",), reserve_pct=80.0)
    for order in ((low, high), (high, low)):
        exclusions = Exclusions()
        for one in order:
            exclusions.set(one)
        assert exclusions.raised_reserve_pct(fleet, at(0)).tolist() == [80, 80, 50, 0]
        assert exclusions.raised_reserve_pct(fleet, at(HOUR)).tolist() == [50, 50, 50, 0]
        exclusions.lift("low")
        assert exclusions.raised_reserve_pct(fleet, at(0)).tolist() == [80, 80, 0, 0]
        assert exclusions.raised_reserve_pct(fleet, at(HOUR)).tolist() == [0, 0, 0, 0]


def test_exclusion_above_whose_reserve_may_be_dispatched_raises_that_and_excludes_nobody() -> None:
    fleet = fleet_of(*STREET)
    one = excluded(counties=("Sonoma",), reserve_pct=60.0, dispatch_above_reserve=True)
    exclusions = Exclusions([one])
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, 0, 0]
    assert exclusions.raised_reserve_pct(fleet, at(0)).tolist() == [60, 60, 60, 0]
    assert exclusions.storms() == []
    assert exclusions.within(T0, T0 + 1) == []


def test_storm_of_an_area_is_one_that_programs_lock_out_before() -> None:
    fleet, exclusions = (
        fleet_of(*STREET),
        Exclusions([excluded(postcodes=("95405",)), excluded("w", "weather", feeders=("f1",))]),
    )
    (storm,) = exclusions.storms()
    assert exclusions.devices(fleet, storm).tolist() == [2]


def test_home_of_which_is_not_known_where_it_is_is_in_no_area_and_that_is_said() -> None:
    fleet = fleet_of(*STREET)
    area = Area(postcodes=("95404", "11111"), utilities=("PG&E",))
    assert unplaced(fleet, area) == {"postcode": 1, "utility": 1}
    assert unmatched_area(fleet, area, 1) == (
        "no home has the postcode: 11111",
        "of 1 devices no postcode is known: they are not in the area",
        "of 1 devices no utility is known: they are not in the area",
    )
    fleet.unregister(fleet.ids[3])
    assert unmatched_area(fleet, Area(postcodes=("95404",)), 0) == ("the area has no device now",)


def test_exclusion_that_is_replaced_goes_on_until_the_new_one_is_durable() -> None:
    fleet, exclusions = fleet_of(*STREET), Exclusions([excluded(postcodes=("95404",), reserve_pct=70.0)])
    second = excluded(postcodes=("95405",), reserve_pct=30.0)
    exclusions.set(second)
    assert exclusions.bits(fleet, at(0)).tolist() == [STORM, STORM, STORM, 0]
    assert exclusions.raised_reserve_pct(fleet, at(0)).tolist() == [70, 70, 30, 0]
    exclusions.settle(second)
    assert exclusions.bits(fleet, at(0)).tolist() == [0, 0, STORM, 0]


def test_areas_are_matched_with_territories_that_are_new_only() -> None:
    fleet, matches = fleet_of(*STREET), AreaMatches()
    area = Area(counties=("Sonoma",))
    assert matches.inside(fleet, area).tolist() == [True, True, True, False]
    before = matches.inside(fleet, area)
    fleet.register(home("e", county="Napa"), FACTS)
    fleet.register(home("f", county="SONOMA"), FACTS)
    assert matches.inside(fleet, area).tolist() == [True, True, True, False, True, False]
    assert matches.inside(fleet, area) is not before


# -- any order -----------------------------------------------------------------------------------------------

POSTCODES, COUNTIES, PROGRAMS, NAMES = ("", "1", "2", "3"), ("", "x", "y"), ("p", "q"), ("a", "b", "c", "d")
Step = tuple[str, tuple[object, ...]]


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


AREAS = st.builds(Area, postcodes=some(POSTCODES[1:]), counties=some(COUNTIES[1:]), programs=some(PROGRAMS))
STEPS = st.one_of(
    st.tuples(st.just("set"), st.tuples(
        st.sampled_from("12345"), st.sampled_from(("storm", "outage", "utility_request")), AREAS,
        st.sampled_from((None, 30.0, 60.0)), st.integers(0, 3), st.integers(1, 3), st.booleans(),
    )),
    st.tuples(st.just("lift"), st.tuples(st.sampled_from("12345"))),
    st.tuples(st.just("register"), st.tuples(
        st.sampled_from(NAMES), st.sampled_from(POSTCODES), st.sampled_from(COUNTIES)
    )),
    st.tuples(st.just("unregister"), st.tuples(st.sampled_from(NAMES))),
    st.tuples(st.just("enroll"), st.tuples(st.sampled_from(PROGRAMS), st.frozensets(st.sampled_from(NAMES)))),
    st.tuples(st.just("ask"), st.tuples(st.integers(0, 5))),
)  # fmt: skip


class Oracle:
    """Looks at every home and every exclusion, each time."""

    def __init__(self) -> None:
        self.set: dict[str, Exclusion] = {}
        self.homes: dict[str, Device] = {}
        self.enrolled: dict[str, frozenset[str]] = {}

    def covers(self, one: Exclusion, device: Device) -> bool:
        area = one.area
        assert area is not None
        return bool(area) and all(
            not given or found
            for given, found in (
                (area.postcodes, device.postcode in area.postcodes),
                (area.counties, device.county in area.counties),
                (area.programs, any(device.id in self.enrolled.get(name, ()) for name in area.programs)),
            )
        )

    def found(self, name: str, ms: int) -> tuple[int, float]:
        if name not in self.homes:
            return 0, 0.0
        covering = [one for one in self.set.values() if one.applies(at(ms)) and self.covers(one, self.homes[name])]
        bits = 0
        for one in covering:
            bits |= 0 if one.dispatch_above_reserve else int(REASON_OF[one.reason])
        return bits, max((one.reserve_pct or 0.0 for one in covering), default=0.0)


def told(steps: list[Step]) -> Iterator[tuple[int, Fleet, Exclusions, Oracle]]:
    fleet, exclusions, oracle = Fleet(), Exclusions(), Oracle()
    for kind, args in steps:
        match kind, args:
            case "set", (str(name), reason, Area() as area, pct, int(begin), int(length), bool(above)):
                one = Exclusion(
                    id=name, reason=reason, area=area, reserve_pct=pct,  # type: ignore[arg-type]
                    dispatch_above_reserve=above and pct is not None,
                    from_ms=T0 + begin * HOUR, until_ms=T0 + (begin + length) * HOUR,
                )  # fmt: skip
                exclusions.set(one)
                exclusions.settle(one)
                oracle.set[name] = one
            case "lift", (str(name),):
                exclusions.lift(name)
                oracle.set.pop(name, None)
            case "register", (str(name), str(postcode), str(county)):
                oracle.homes[name] = home(name, postcode=postcode, county=county)
                fleet.register(oracle.homes[name], FACTS)
            case "unregister", (str(name),) if name in oracle.homes:
                fleet.unregister(oracle.homes.pop(name).id)
            case "enroll", (str(program), frozenset() as names):
                oracle.enrolled[program] = names
            case "ask", (int(hour),):
                slots = {
                    program: np.array(sorted(fleet.slot_of[n] for n in names if n in fleet.slot_of), dtype=np.int32)
                    for program, names in oracle.enrolled.items()
                }
                exclusions.observe_programs(slots)
                yield hour * HOUR, fleet, exclusions, oracle


@settings(max_examples=deep(5_000, else_=150))
@given(st.lists(STEPS, min_size=6, max_size=40))
def test_whatever_is_set_lifted_and_joined_in_whatever_order_membership_is_that_of_what_stands_now(
    steps: list[Step],
) -> None:
    for ms, fleet, exclusions, oracle in told([*steps, ("ask", (1,))]):
        expected = [oracle.found(name, ms) for name in fleet.ids]
        assert exclusions.bits(fleet, at(ms)).tolist() == [bits for bits, _ in expected]
        assert exclusions.raised_reserve_pct(fleet, at(ms)).tolist() == [pct for _, pct in expected]
        for one in exclusions.areas():
            mine = [fleet.slot_of[n] for n, device in oracle.homes.items() if oracle.covers(one, device)]
            assert exclusions.devices(fleet, one).tolist() == sorted(mine)
            every = np.arange(fleet.n, dtype=np.int32)
            assert np.flatnonzero(exclusions.covers(fleet, one, every)).tolist() == sorted(mine)
            assert exclusions.count(fleet, one) == len(mine)
            found, names = exclusions.among(fleet, [one], every)
            assert (np.flatnonzero(found).tolist(), names) == (sorted(mine), [one.id] if mine else [])
