"""The verdict on a season: what it takes, and a small one from end to end."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from simulators.season import play as season_play
from simulators.season.by_energies import Bounded
from simulators.season.by_readings import ByReadings
from simulators.season.days import true_days
from simulators.season.handover import HandedDay, hand_over, handed_over
from simulators.season.official import events_of, official_hours
from simulators.season.play import SeasonOptions, SeasonVerdict, play
from simulators.season.received import Meters
from simulators.season.street import season_street
from simulators.settlement import exact

PAY = {(0, 5): Decimal("30.32"), (1, 5): Decimal("0.00")}
WORTH = {
    (0, 5): Bounded(amount=exact("30.3201"), bound=exact("0.05")),
    (1, 5): Bounded(amount=exact("0.001"), bound=exact("0.05")),
}


def verdict(**other: object) -> SeasonVerdict:
    known: dict[str, object] = {
        "events": 4, "customers": 2, "paid": PAY, "by_readings": PAY, "by_energies": WORTH, "found": 10, "planted": 10,
        "disk_bytes": 1,
    }  # fmt: skip
    return SeasonVerdict(**(known | other))  # type: ignore[arg-type]


def test_a_season_holds_if_both_judges_agree_and_underperformers_are_found() -> None:
    found = verdict()
    assert found.ok
    assert found.as_dict()["revenue"] == found.as_dict()["oracle_revenue"] == "30.32"


@pytest.mark.parametrize(
    "other",
    [
        {"paid": PAY | {(0, 5): Decimal("30.33")}},
        {"paid": PAY | {(2, 5): Decimal("0.00")}},
        {"paid": {(0, 5): PAY[0, 5]}},
        {"by_energies": WORTH | {(0, 5): Bounded(amount=exact("30.38"), bound=exact("0.05"))}},
        {"by_energies": {key: replace(one, amount=one.amount + exact("0.04")) for key, one in WORTH.items()}},
        {"found": 8},
        {"disk_bytes": 5_000_000_000},
    ],
)
def test_a_cent_a_home_a_bound_the_mean_a_cause_or_the_disk_make_a_season_fail(other: dict[str, object]) -> None:
    assert not verdict(**other).ok


def test_the_table_has_every_month_with_its_bound_and_says_who_is_outside() -> None:
    lines = verdict(paid=PAY | {(0, 5): Decimal("31.00")}).table().splitlines()
    assert lines[0] == "home,month,paid,by_readings,by_energies,bound,within"
    assert lines[1] == "0,5,31.00,30.32,30.3201,0.0500,NO"
    assert lines[2].endswith("yes")


def test_what_is_handed_over_is_what_was_received(tmp_path: Path) -> None:
    street = season_street(3, events_of(official_hours())[:1], 1)
    received = Meters(street).day(next(true_days(street)))
    quarters = ByReadings(street=street).day(received)
    hand_over(tmp_path, HandedDay(received=received, charge_wh=quarters.charge_wh, discharge_wh=quarters.discharge_wh))
    found = handed_over(tmp_path, 0)
    assert (found.received.heard_ms == received.heard_ms).all()
    assert (found.discharge_wh == quarters.discharge_wh).all()
    assert not list(tmp_path.iterdir())


def test_a_gateway_that_ends_without_an_answer_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(season_play, "GATEWAY", ("-c", "raise SystemExit('there is no gateway')"))
    with pytest.raises(RuntimeError, match="there is no gateway"):
        play(SeasonOptions(homes=2, logged=1, events=1, seed=1))


@pytest.mark.e2e
def test_a_small_season_is_paid_to_the_cent_as_its_readings_say(tmp_path: Path) -> None:
    """Some homes through spool and log, the others from daily columns."""
    months = tmp_path / "months.csv"
    found = play(SeasonOptions(homes=12, logged=6, events=2, seed=5, months=months)).as_dict()
    print(json.dumps(found))
    assert found["differing"] == found["outside"] == 0
    assert found["revenue"] == found["oracle_revenue"] != "0.00"
    assert found["home_months"] == len(months.read_text().splitlines()) - 1 == 12
    assert found["planted"] > 20
