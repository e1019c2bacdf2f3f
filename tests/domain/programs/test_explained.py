"""A day of a battery in words: energy, events with orders and reasons, and whether the reserve was kept."""

from dataclasses import replace
from datetime import UTC, date, datetime

from gateway.domain.events.delivery_records import Failure, Status
from gateway.domain.programs.explained import BatteryDay, BatteryEvent, DayEnergy, explained

ZONE = "America/Los_Angeles"


def at(hour: int, minute: int = 0, second: int = 0) -> int:
    """UTC ms of a time on 2 July, which is 17:00 and later of 1 July in California."""
    return round(datetime(2026, 7, 2, hour, minute, second, tzinfo=UTC).timestamp() * 1000)


EVENT = BatteryEvent(
    event="e-1", source="leap", program="dsgs-option3", kind="real", start_ms=at(0), ended_ms=at(2),
    status=Status.COMPLETED, failure=Failure.NONE, limits=(), asked_wh=8_000.0, delivered_wh=7_980.0, shortfall_wh=20.0,
    unmeasured_wh=0.0, sent_ms=at(0, 0, 1), acknowledged_ms=at(0, 0, 2), started_ms=at(0, 0, 9),
)  # fmt: skip
ENERGY = DayEnergy(discharge_wh=9_000.0, charge_wh=10_500.0, covered_pct=100.0, soc_low_pct=21.0, soc_high_pct=98.0)
DAY = BatteryDay(
    battery="home-1", zone=ZONE, day=date(2026, 7, 1), events=[EVENT], energy=ENERGY, reserve_pct=20.0
)  # fmt: skip


def test_a_day_that_went_well_is_told_in_three_sentences() -> None:
    assert explained(DAY) == [
        "On 2026-07-01 (America/Los_Angeles) home-1 gave 9.00 kWh and took 10.50 kWh.",
        "17:00 to 19:00: event e-1 of program dsgs-option3, ordered by leap. It was asked to give 8.00 kWh and gave "
        "7.98 kWh. The first setpoint went out at 17:00:01, it was acknowledged at 17:00:02, power followed at "
        "17:00:09.",
        "Its SoC was between 21 and 98 %: the reserve of its owner, 20 % as it is set now, was kept.",
    ]


def told(event: BatteryEvent) -> str:
    return explained(replace(DAY, events=[event]))[1]


def test_what_is_missing_comes_with_its_reasons() -> None:
    event = replace(
        EVENT, delivered_wh=5_000.0, shortfall_wh=3_000.0, failure=Failure.LIMIT, limits=("reserve", "soc_floor"),
        unmeasured_wh=1_000.0, status=Status.FAILED,
    )  # fmt: skip
    assert told(event).endswith(
        "3.00 kWh are missing: a limit left it no power; limited by reserve, soc floor; 1.00 kWh of it were not "
        "measured and may have been given."
    )
    assert told(replace(EVENT, shortfall_wh=900.0)).endswith("0.90 kWh are missing: no reason is known.")


def test_an_owner_who_left_and_a_test_are_named() -> None:
    event = replace(EVENT, status=Status.OPTED_OUT, kind="capacity_test", program="", source="")
    assert "event e-1, whose source is not known, a capacity test." in told(event)
    assert "Its owner took it out of the event." in told(event)


def test_charging_is_told_as_taking() -> None:
    event = replace(EVENT, asked_wh=-4_000.0, delivered_wh=-3_900.0, shortfall_wh=-100.0)
    assert "It was asked to take 4.00 kWh and took 3.90 kWh." in told(event)
    assert "0.10 kWh are missing" in told(event)


def test_a_day_without_events_and_readings_says_so_and_nothing_of_the_reserve() -> None:
    nothing = DayEnergy(discharge_wh=None, charge_wh=None, covered_pct=0.0, soc_low_pct=None, soc_high_pct=None)
    assert explained(replace(DAY, events=[], energy=nothing)) == [
        "On 2026-07-01 (America/Los_Angeles) nothing was measured of home-1.",
        "No event that is over asked anything of it.",
    ]


def test_a_part_of_a_day_and_a_reserve_that_was_not_kept_are_told() -> None:
    energy = replace(ENERGY, covered_pct=60.0, charge_wh=None, soc_low_pct=12.0)
    said = explained(replace(DAY, energy=energy))
    assert said[0].endswith("home-1 gave 9.00 kWh; 60 % of the day was measured.")
    assert said[-1] == "Its SoC was between 12 and 98 %: below the reserve of its owner, 20 % as it is set now."
    said = explained(replace(DAY, energy=replace(energy, soc_low_pct=19.0)))
    assert said[-1].endswith("was kept.")
    assert explained(replace(DAY, reserve_pct=None))[-1].endswith("the reserve of its owner is not known.")
