"""What is kept for an event before it begins: as long as the event or its program wants, whichever is longer, and never
what one of the two forbids."""

from dataclasses import replace
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.book import Book
from gateway.domain.events.preparation import keeping, kept_next, stated
from gateway.domain.events.request import EventRequest, Target, Want, power
from gateway.domain.rules.calendar import local_ms
from gateway.domain.rules.preparation import AdjustmentWindow, KeepFrom, PreparationRules
from gateway.domain.rules.program import ClockNotice, GridProgram, LeadNotice, ProgramVersion
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.stacking import StackingTerms
from gateway.domain.rules.values import Certainty, Effect, Evident, Rule, T
from tests.domain.events.test_book import HOUR, T0, at, request, running, submit

HOUR_S = 3600.0


def evident(value: T) -> Evident[T]:
    return Evident(value=value, certainty=Certainty.INFERRED, source="page")


def permits(value: bool) -> Rule[bool]:
    return Rule(value=value, effect=Effect.CLIP, certainty=Certainty.VERIFIED, source="page")


def rules(**known: float | bool | KeepFrom | AdjustmentWindow) -> PreparationRules:
    return PreparationRules(**{name: evident(value) for name, value in known.items()})  # type: ignore[arg-type]


def program(name: str = "p", preparation: PreparationRules | None = None, **other: object) -> GridProgram:
    version = ProgramVersion(
        program=name, name="1", zone="UTC", days=DateRange(), preparation=preparation or rules(keep_s=5 * HOUR_S)
    )
    return GridProgram(id=name, zone="UTC", versions=(replace(version, **other),))  # type: ignore[arg-type]


def hours(asked: EventRequest, found: GridProgram | None, start_ms: int = T0 + 10 * HOUR) -> object:
    """From when energy is kept and when batteries are charged, h before the start."""
    kept = keeping(asked, found, start_ms)
    if kept is None:
        return None

    def before_h(utc_ms: int) -> float:
        return (start_ms - utc_ms) / HOUR

    return before_h(kept.from_ms), [(before_h(one), before_h(two)) for one, two in kept.charges]


@pytest.mark.parametrize(
    ("own_s", "program_s", "kept_h"), [(0, 5, 5), (2, 5, 5), (7, 5, 7), (7, None, 7), (0, None, None)]
)
def test_the_longer_keeping_holds(own_s: float, program_s: float | None, kept_h: float | None) -> None:
    asked = request(prepare_s=own_s * HOUR_S)
    of_program = program(preparation=rules() if program_s is None else rules(keep_s=program_s * HOUR_S))
    assert hours(asked, of_program) == (None if kept_h is None else (kept_h, []))


def test_an_event_that_asks_for_no_energy_has_none_kept_by_its_program() -> None:
    for target in (power(-1_000.0), Target(want=Want.CHARGE_TO, soc_pct=90.0), Target(want=Want.IDLE)):
        assert hours(request(target=target), program()) is None
        assert hours(request(target=target, prepare_s=HOUR_S), program()) == (1, [])
    assert hours(request(target=Target(want=Want.FOLLOW_LOAD)), program()) == (5, [])


def test_batteries_are_charged_from_the_grid_where_it_is_wanted_and_nothing_forbids_it() -> None:
    own, wants, forbids = request(precharge=True, prepare_s=2 * HOUR_S), rules(charge_from_grid=True), rules()
    both = replace(wants, keep_s=evident(5 * HOUR_S))
    assert hours(own, None) == (2, [(2, 0)])
    assert hours(own, program(preparation=forbids)) == (2, [(2, 0)]), "the program says nothing of it"
    assert hours(own, program(preparation=rules(charge_from_grid=False))) == (2, [])
    assert hours(own, program(preparation=forbids, grid_charge=permits(False))) == (2, [])
    assert hours(request(), program(preparation=both)) == (5, []), "it wants to, and no rule permits it"
    assert hours(request(), program(preparation=both, grid_charge=permits(False))) == (5, [])
    assert hours(request(), program(preparation=both, grid_charge=permits(True))) == (5, [(5, 0)])


@pytest.mark.parametrize(
    ("window_h", "charges"),
    [((4, 0), [(5, 4)]), ((4, 2), [(5, 4), (2, 0)]), ((6, 1), [(1, 0)]), ((9, 7), [(5, 0)]), ((8, 0), [])],
)
def test_nothing_is_charged_from_the_grid_in_the_adjustment_window_of_a_baseline(
    window_h: tuple[float, float], charges: list[tuple[float, float]]
) -> None:
    window = AdjustmentWindow(from_s=window_h[0] * HOUR_S, until_s=window_h[1] * HOUR_S)
    wants = rules(keep_s=5 * HOUR_S, charge_from_grid=True, adjustment=window)
    assert hours(request(), program(preparation=wants, grid_charge=permits(True))) == (5, charges)


@given(
    st.floats(0, 24), st.floats(0, 24), st.booleans(), st.none() | st.booleans(), st.none() | st.booleans(),
    st.floats(1, 24), st.floats(0, 1),
)  # fmt: skip
def test_charging_is_inside_the_keeping_and_outside_the_adjustment_window(
    own_h: float, keep_h: float, pre: bool, wanted: bool | None, permitted: bool | None, from_h: float, part: float
) -> None:
    window = AdjustmentWindow(from_s=from_h * HOUR_S, until_s=from_h * part * HOUR_S)
    known = {} if wanted is None else {"charge_from_grid": wanted}
    said = program(
        preparation=rules(keep_s=keep_h * HOUR_S, adjustment=window, **known),
        grid_charge=None if permitted is None else permits(permitted),
    )
    start_ms = T0 + 48 * HOUR
    kept = keeping(request(prepare_s=own_h * HOUR_S, precharge=pre), said, start_ms)
    first_ms, last_ms = window.span(start_ms)
    if kept is None:
        return
    for from_ms, until_ms in kept.charges:
        assert kept.from_ms <= from_ms < until_ms <= start_ms
        assert until_ms <= first_ms or from_ms >= last_ms
        assert False not in (wanted, permitted)
    edges = sorted({kept.from_ms, start_ms, *(ms for span in kept.charges for ms in span)})
    for one, two in pairwise(edges):
        target = kept.running((one + two) // 2)
        charging = any(span[0] <= one and two <= span[1] for span in kept.charges)
        assert target is not None
        assert target.target.want is (Want.BACKUP if charging else Want.IDLE)


def test_the_version_in_force_when_the_event_begins_says_how_long() -> None:
    days = [date(2025, 10, 9), date(2025, 10, 10)]
    start_ms = 1_760_054_400_000  # midnight of the second
    short = program(days=DateRange(until=days[1])).versions[0]
    longer = replace(short, name="2", days=DateRange(first=days[1]), preparation=rules(keep_s=9 * HOUR_S))
    both = GridProgram(id="p", zone="UTC", versions=(short, longer))
    assert hours(request(), both, start_ms) == (9, [])
    assert hours(request(), both, start_ms - 1) == (5, [])
    assert hours(request(), replace(both, versions=(short,)), start_ms) is None, "no version is in force"


def notice(value: LeadNotice | ClockNotice) -> Rule[LeadNotice | ClockNotice]:
    return Rule(value=value, effect=Effect.WARN, certainty=Certainty.VERIFIED, source="page")


FROM_NOTICE = rules(keep_s=KeepFrom.NOTICE)


def test_energy_is_kept_from_the_notice_on_where_the_program_says_so() -> None:
    lead = program(preparation=FROM_NOTICE, notice=notice(LeadNotice(lead_s=27 * HOUR_S)))
    assert hours(request(), lead) == (27, [])
    assert hours(request(prepare_s=30 * HOUR_S), lead) == (30, []), "the longer one holds"
    assert hours(request(target=power(-1_000.0)), lead) is None, "it asks for no energy"
    assert hours(request(), program(preparation=FROM_NOTICE)) is None, "the program knows of no notice"
    late = program(preparation=FROM_NOTICE, notice=notice(ClockNotice(days_before=0, by_min=1_439)))
    assert hours(request(), late) is None, "its events become known after they begin"


@pytest.mark.parametrize(
    ("day", "hour", "kept_h"),
    [
        (date(2025, 6, 30), 21, 30),
        (date(2025, 11, 2), 20, 29 + 1),  # a day of 25 hours
        (date(2025, 3, 9), 19, 28 - 1),  # a day of 23 hours
    ],
)
def test_a_notice_by_the_clock_is_local_time_of_the_day_before_and_is_never_missed(
    day: date, hour: int, kept_h: float
) -> None:
    zone = "America/Los_Angeles"
    start_ms = local_ms(zone, day, hour * 60)
    found = program(preparation=FROM_NOTICE, notice=notice(ClockNotice(days_before=1, by_min=15 * 60)))
    local = GridProgram(id="p", zone=zone, versions=(replace(found.versions[0], zone=zone),))
    assert hours(request(), local, start_ms) == (kept_h, [])
    asked = request(start_ms=start_ms, end_ms=start_ms + HOUR)
    from_ms = start_ms - round(kept_h * HOUR)
    assert kept_next(asked, local, from_ms - 1) is None
    assert kept_next(asked, local, from_ms) == keeping(asked, local, start_ms)


@given(st.integers(0, 400 * 24 * 60), st.integers(0, 3), st.integers(0, 24 * 60))
def test_nothing_is_kept_longer_before_an_event_than_its_program_says_at_most(
    start_min: int, days_before: int, by_min: int
) -> None:
    """The book looks no further ahead than that."""
    zone = "America/Los_Angeles"
    found = program(preparation=FROM_NOTICE, notice=notice(ClockNotice(days_before=days_before, by_min=by_min)))
    version = replace(found.versions[0], zone=zone)
    start_ms = T0 + start_min * 60_000
    assert start_ms - version.kept_from_ms(start_ms) <= version.kept_s_max * 1000


def test_each_rule_is_named_with_its_evidence() -> None:
    window = AdjustmentWindow(from_s=4 * HOUR_S, until_s=0.0)
    known = rules(keep_s=5 * HOUR_S, charge_from_pv=True, charge_from_grid=False, adjustment=window)
    kept = keeping(request(), program(preparation=known, grid_charge=permits(True)), T0)
    assert kept is not None
    assert [(name, found.certainty.value, words) for name, found, words in stated(kept)] == [
        (
            "keep_h",
            "inferred",
            "energy is kept for 5 h before an event; meanwhile a home buys what its battery would have given it",
        ),
        ("charge_from_pv", "inferred", "batteries may charge from PV meanwhile"),
        ("charge_from_grid", "inferred", "batteries are not charged from the grid meanwhile"),
        ("grid_charge", "verified", "charging from the grid is permitted"),
        ("adjustment_window", "inferred", "nothing is charged from the grid from 4 h to 0 h before an event"),
    ]
    own = keeping(request(prepare_s=60.0), None, T0)
    assert own is not None
    assert list(stated(own)) == []


def test_nothing_is_kept_before_its_time_nor_once_the_event_begins() -> None:
    asked, of_program = request(), program()
    start_ms = asked.start_ms
    found = [kept_next(asked, of_program, start_ms - ms) is not None for ms in (5 * HOUR + 1, 5 * HOUR, 1, 0)]
    assert found == [False, True, True, False]


# -- in the book --------------------------------------------------------------------------------------------------


def test_energy_is_kept_for_an_event_that_the_book_knows_and_its_new_times_decide() -> None:
    book = Book(programs={"p": program()})
    submit(book, request(program="p", start_ms=T0 + 8 * HOUR, end_ms=T0 + 9 * HOUR), at(0))
    assert running(book, 3 * HOUR - 1) == []
    assert [event.preparing for event in book.active(at(3 * HOUR))] == [True]
    later = request("e1", 1, program="p", start_ms=T0 + 10 * HOUR, end_ms=T0 + 11 * HOUR)
    submit(book, later, at(4 * HOUR))
    assert (running(book, 4 * HOUR), running(book, 5 * HOUR)) == ([], ["e1"])
    submit(book, replace(later, revision=2, cancelled=True), at(6 * HOUR))
    assert running(book, 6 * HOUR) == []


def test_a_running_event_outranks_one_that_prepares_unless_its_program_yields() -> None:
    tou = program("tou", rules(), stacking=StackingTerms(yields=True))
    book = Book(programs={"tou": tou, "p": program(), "other": program("other", rules())})
    for name in ("tou", "other"):
        submit(book, request(name, program=name, priority=1, start_ms=T0, end_ms=T0 + 9 * HOUR), at(0))
    known = request("known", program="p", priority=500, start_ms=T0 + 2 * HOUR, end_ms=T0 + 4 * HOUR)
    submit(book, known, at(0))
    submit(book, request("own", program="tou", start_ms=T0 + 8 * HOUR, end_ms=T0 + 9 * HOUR, prepare_s=9e4), at(0))
    assert running(book, HOUR) == ["other", "known", "tou", "own"]
    assert running(book, 3 * HOUR) == ["other", "known", "tou", "own"], "and to the event itself"
    submit(book, replace(known, revision=1, cancelled=True), at(HOUR))
    assert running(book, HOUR) == ["other", "tou", "own"]
