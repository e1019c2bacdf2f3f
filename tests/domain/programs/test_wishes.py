"""Owners' wishes as days at the aggregator: whole local days, of whole meters, and the later word counts."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.facts import Preference
from gateway.domain.programs.outbox import WriteKind
from gateway.domain.programs.wishes import MeterWishes, PeerPeriod, Statement, WantedDays, still_fits, wanted_days

ZONE = "America/Los_Angeles"
PAUSED, LEAVING, BACK = Preference.PAUSED, Preference.LEAVING, Preference.PARTICIPATE
IDLE, PARTICIPATE, DISENROLL = WriteKind.IDLE, WriteKind.PARTICIPATE, WriteKind.DISENROLL


def ms(text: str, zone: str = ZONE) -> int:
    """A local time as UTC ms."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


NOW = ms("2026-06-10 12:00")


def said(
    preference: Preference, since: str, until: str | None = None, program: str = "p", noted: int = NOW
) -> Statement:
    until_ms = None if until is None else ms(until)
    return Statement(preference=preference, program=program, from_ms=ms(since), until_ms=until_ms, noted_ms=noted)


def there(preference: Preference, since: str, until: str | None = None, noted: int | None = None) -> PeerPeriod:
    until_ms = None if until is None else ms(until)
    return PeerPeriod(preference=preference, from_ms=ms(since), until_ms=until_ms, noted_ms=noted)


def meter(*statements: Statement, periods: tuple[PeerPeriod, ...] = (), programs: str = "p") -> MeterWishes:
    return MeterWishes(
        meter="m", reference="home-1", programs=frozenset(programs), zone=ZONE, batteries=[statements], periods=periods
    )


def days(one: MeterWishes, *, part_days: bool = False, now_ms: int = NOW) -> list[tuple[WriteKind, str, str]]:
    changes, _ = wanted_days(one, now_ms, part_days=part_days)
    return [(each.kind, each.after["start_date"], each.after.get("end_date", "")) for each in changes]


def conflicts(one: MeterWishes) -> list[str]:
    return wanted_days(one, NOW, part_days=False)[1]


def test_evening_is_not_given_up_at_the_aggregator_unless_that_is_configured() -> None:
    evening = meter(said(PAUSED, "2026-06-12 16:00", "2026-06-12 21:00"))
    assert (days(evening), conflicts(evening)) == ([], [])
    assert days(evening, part_days=True) == [(IDLE, "2026-06-12", "2026-06-12")]


def test_pause_is_idle_on_the_days_that_it_covers_whole() -> None:
    one = meter(said(PAUSED, "2026-06-12 16:00", "2026-06-15 09:00"))
    assert days(one) == [(IDLE, "2026-06-13", "2026-06-14")]
    assert days(one, part_days=True) == [(IDLE, "2026-06-12", "2026-06-15")]
    whole = meter(said(PAUSED, "2026-06-12 00:00", "2026-06-13 00:00"))
    assert days(whole) == days(whole, part_days=True) == [(IDLE, "2026-06-12", "2026-06-12")]


@pytest.mark.parametrize(
    ("since", "until", "first", "last"),
    [
        ("2026-03-08 00:00", "2026-03-09 00:00", "2026-03-08", "2026-03-08"),  # 23 hours
        ("2026-11-01 00:00", "2026-11-02 00:00", "2026-11-01", "2026-11-01"),  # 25 hours
        ("2026-12-31 00:00", "2027-01-02 00:00", "2026-12-31", "2027-01-01"),
    ],
)  # fmt: skip
def test_days_are_those_of_the_meters_zone(since: str, until: str, first: str, last: str) -> None:
    assert days(meter(said(PAUSED, since, until)), now_ms=ms("2026-01-01 00:00")) == [(IDLE, first, last)]


def test_where_clocks_change_at_midnight_the_day_begins_when_it_does() -> None:
    # 00:00 does not exist there on this day
    since = round(datetime(2026, 3, 8, 5, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    until = round(datetime(2026, 3, 9, 4, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    pause = Statement(preference=PAUSED, program="p", from_ms=since, until_ms=until, noted_ms=0)
    one = replace(meter(pause), zone="America/Havana")
    assert days(one, now_ms=since - 86_400_000) == [(IDLE, "2026-03-08", "2026-03-08")]


def test_pause_without_an_end_begins_today_and_has_the_end_that_the_aggregator_writes() -> None:
    one = meter(said(PAUSED, "2026-01-01 00:00"))
    assert days(one) == [(IDLE, "2026-06-10", "2099-12-31")]
    assert conflicts(one) == ["home-1: paused here, takes part at the aggregator; sits out"]


@pytest.mark.parametrize(
    ("periods", "left"),
    [
        ([there(PAUSED, "2026-06-01 00:00", "2026-06-21 00:00")], []),
        ([there(PAUSED, "2026-06-01 00:00")], []),
        ([there(LEAVING, "2026-06-01 00:00")], []),
        ([there(PAUSED, "2026-06-01 00:00", "2026-06-15 00:00")], [(IDLE, "2026-06-15", "2026-06-20")]),
        ([there(PAUSED, "2026-06-15 00:00")], [(IDLE, "2026-06-10", "2026-06-14")]),
        (
            [
                there(PAUSED, "2026-06-09 00:00", "2026-06-12 00:00"),
                there(PAUSED, "2026-06-12 00:00", "2026-06-14 00:00"),
            ],
            [(IDLE, "2026-06-14", "2026-06-20")],
        ),
        ([there(BACK, "2026-01-01 00:00")], [(IDLE, "2026-06-10", "2026-06-20")]),
    ],
)  # fmt: skip
def test_what_the_aggregator_has_already_is_not_proposed(
    periods: list[PeerPeriod], left: list[tuple[WriteKind, str, str]]
) -> None:
    assert days(meter(said(PAUSED, "2026-06-01 00:00", "2026-06-21 00:00"), periods=tuple(periods))) == left


def test_meter_sits_out_when_all_of_its_batteries_and_programs_do() -> None:
    one = meter(said(PAUSED, "2026-06-01 00:00"), programs="pq")
    assert days(one) == []
    (told,) = conflicts(one)
    assert told.startswith("home-1: not all of its batteries or programs sit out")
    both = meter(said(PAUSED, "2026-06-01 00:00"), said(PAUSED, "2026-06-01 00:00", program="q"), programs="pq")
    assert days(both) == [(IDLE, "2026-06-10", "2099-12-31")]
    second = replace(both, batteries=[*both.batteries, []])
    assert (days(second), len(conflicts(second))) == ([], 1)
    every = meter(said(PAUSED, "2026-06-01 00:00", program=""), programs="pq")
    assert days(every) == [(IDLE, "2026-06-10", "2099-12-31")]


def test_evening_of_one_of_two_batteries_is_nobodys_business() -> None:
    evening = said(PAUSED, "2026-06-10 11:00", "2026-06-10 21:00")
    assert conflicts(replace(meter(evening), batteries=[[evening], []])) == []


def test_owner_who_leaves_is_let_go_some_days_ahead_and_once() -> None:
    one = meter(said(LEAVING, "2026-06-01 00:00"))
    assert days(one) == [(DISENROLL, "2026-06-13", "")]
    assert days(meter(said(LEAVING, "2026-07-01 09:00"))) == [(DISENROLL, "2026-07-02", "")]
    assert days(replace(one, periods=[there(LEAVING, "2026-07-01 00:00")])) == []


def test_owner_who_came_back_after_the_aggregator_was_told_takes_part_again() -> None:
    pause, back = said(PAUSED, "2026-06-01 00:00", noted=1), said(BACK, "2026-06-09 15:00", noted=3)
    idle = there(PAUSED, "2026-06-01 00:00", noted=2)
    assert days(meter(pause, back, periods=(idle,))) == [(PARTICIPATE, "2026-06-10", "")]
    # the aggregator was told since, by another door: its word stays, and is listed
    later = replace(idle, noted_ms=4)
    for period in (later, replace(idle, noted_ms=None)):
        one = meter(pause, back, periods=(period,))
        assert days(one) == []
        assert conflicts(one) == ["home-1: takes part here, paused at the aggregator from 2026-06-01; sits out"]
    # a request to leave is not undone by taking part
    gone = meter(pause, back, periods=(there(LEAVING, "2026-06-01 00:00", noted=2),))
    assert (days(gone), len(conflicts(gone))) == ([], 1)


def test_owner_who_said_nothing_is_left_as_the_aggregator_has_them() -> None:
    one = meter(periods=(there(PAUSED, "2026-06-01 00:00", noted=2),))
    assert wanted_days(one, NOW, part_days=False) == ([], [])
    over = meter(said(PAUSED, "2026-05-01 00:00", "2026-06-01 00:00"), periods=(there(PAUSED, "2026-05-01 00:00"),))
    assert wanted_days(over, NOW, part_days=False) == ([], [])


def test_wish_that_is_not_understood_is_not_told_to_the_aggregator() -> None:
    assert days(meter(said(Preference.UNKNOWN, "2026-06-01 00:00"))) == []


def test_without_a_zone_or_a_program_nothing_is_proposed() -> None:
    one = meter(said(PAUSED, "2026-06-01 00:00"))
    assert (days(replace(one, zone=None)), len(conflicts(replace(one, zone=None)))) == ([], 1)
    assert wanted_days(replace(one, programs=frozenset()), NOW, part_days=False) == ([], [])


def test_day_on_which_a_meter_leaves_may_come_nearer_while_leave_is_asked_for() -> None:
    (change,) = wanted_days(meter(said(LEAVING, "2026-06-01 00:00")), NOW, part_days=False)[0]
    earlier = {**change.after, "start_date": "2026-06-11"}
    assert still_fits(change, earlier, NOW)
    assert not still_fits(change, {**change.after, "start_date": "2026-06-10"}, NOW)
    assert not still_fits(change, {**change.after, "reason": "x"}, NOW)
    idle = WantedDays(kind=IDLE, meter="m", after={"start_date": "2026-06-10", "end_date": "x", "zone": ZONE})
    assert still_fits(idle, dict(idle.after), NOW)
    assert not still_fits(idle, {**idle.after, "start_date": "2026-06-09"}, NOW)


spans = st.tuples(st.integers(0, 40), st.integers(1, 20))


@given(pauses=st.lists(spans, max_size=3), idles=st.lists(spans, max_size=3))
def test_days_that_are_proposed_are_wanted_and_with_them_nothing_is_left_to_propose(
    pauses: list[tuple[int, int]], idles: list[tuple[int, int]]
) -> None:
    def span(start: int, length: int) -> tuple[str, str]:
        first = date(2026, 6, 1) + timedelta(days=start)
        return f"{first} 00:00", f"{first + timedelta(days=length)} 00:00"

    statements = [said(PAUSED, *span(*pause)) for pause in pauses]
    periods = [there(PAUSED, *span(*idle)) for idle in idles]
    wanted = {date(2026, 6, 1) + timedelta(days=start + n) for start, length in pauses for n in range(length)}
    changes = days(meter(*statements, periods=tuple(periods)))
    for _, first, last in changes:
        each = date.fromisoformat(first)
        while each <= date.fromisoformat(last):
            assert each in wanted
            each += timedelta(days=1)
    until = [(date.fromisoformat(last) + timedelta(days=1)).isoformat() for _, _, last in changes]
    sent = [there(PAUSED, f"{one[1]} 00:00", f"{end} 00:00") for one, end in zip(changes, until, strict=True)]
    assert days(meter(*statements, periods=(*periods, *sent))) == []
