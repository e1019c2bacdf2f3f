"""What an event's homes delivered by the rules of their program, why the rest is missing, and what it is worth."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from gateway.domain.programs.event_performance import EventPerformance, FigureLevel, PerformanceFigure
from gateway.domain.programs.site_baselines import NO_WINDOW
from gateway.domain.rules.performance import BaselineMethod, BoundOf, BoundPer, Formula, Level, MeasurementPoint
from gateway.domain.rules.rates import RateUnit
from gateway.domain.rules.stacking import PaidFor, StackedClaim, StackingTerms
from tests.builders.played_events import (
    HOUR_MS,
    QUARTER_MS,
    SIX_PM_MS,
    TYPES,
    Played,
    bound,
    days_before,
    even,
    known,
    priced,
    program,
)

DSGS = program(
    BaselineMethod.PRESCRIPTIVE, Formula.PRICE_WEIGHTED_CAPACITY, amount="8.775", unit=RateUnit.KW_MONTH,
    parameters={"baseline-ratio": "0.107899"}, event_types=known(TYPES), floor=bound(Level.SITE, BoundPer.MONTH),
)  # fmt: skip
PER_KWH = program(BaselineMethod.NONE, Formula.ENERGY)
PDR = program(
    BaselineMethod.CAISO_PDR, Formula.ENERGY, exports_counted=known(False),
    parameters={"days": "10", "highest": "5", "look-back-days": "45", "cap-low": "0.6", "cap-high": "1.4"},
)  # fmt: skip
EVENT_WH = [2400, 2800, 2200, 1600, 2000, 2600, 2400, 1800, 2200, 2000]
WINDOW_WH = [2300, 2500, 2200, 1700, 2100, 2400, 2500, 1900, 2300, 2100]
MAY = {SIX_PM_MS: ("Capacity", "51.75706"), SIX_PM_MS + HOUR_MS: ("Capacity", "52.50963")}
TWO_HOURS = Played(
    version=DSGS, battery_wh=[even(5) + even(4.8)], until_ms=SIX_PM_MS + 2 * HOUR_MS, areas={"north": priced(MAY)}
)


def site(found: EventPerformance, at: int = 0) -> PerformanceFigure:
    return found.figures[FigureLevel.SITE][at]


def kw(found: EventPerformance, at: int = 0) -> Fraction:
    """What a home delivered in the only hour."""
    (hour,) = site(found, at).hours
    assert hour.delivered_kw is not None
    return hour.delivered_kw


def worth(found: EventPerformance) -> tuple[str, Decimal | None, Decimal | None, Decimal | None]:
    value = found.whole.value
    assert value is not None
    return value.status, value.value, value.low, value.high


def test_a_price_weighted_event_is_net_of_its_share_of_nominal_power_and_priced_by_the_month() -> None:
    found = TWO_HOURS.performance()
    baseline = Fraction("0.539495")
    assert [hour.delivered_kw for hour in site(found).hours] == [5 - baseline, Fraction("4.8") - baseline]
    assert [hour.power_w for hour in found.whole.hours] == [5_000, 4_800]
    heavy, light = Fraction("51.75706"), Fraction("52.50963")
    exact = (heavy * (5 - baseline) + light * (Fraction("4.8") - baseline)) / (heavy + light) * Fraction("8.775")
    pay = Decimal(round(exact * 100)) / 100
    assert worth(found) == ("computed", pay, pay, pay)
    assert found.paid_at is Level.SITE


def test_a_missing_price_is_never_a_plain_mean_but_a_range_by_the_prices_of_the_month() -> None:
    unpriced = {**MAY, SIX_PM_MS: ("Capacity", None)}
    found = replace(TWO_HOURS, areas={"north": priced(unpriced, ["10", "90"])}).performance()
    status, value, low, high = worth(found)
    assert (status, value) == ("provisional (price missing)", None)
    whole = worth(TWO_HOURS.performance())[1]
    assert low is not None
    assert high is not None
    assert whole is not None
    assert low < whole < high
    assert worth(replace(TWO_HOURS, areas={}).performance()) == ("provisional (price missing)", None, None, None)


def test_a_missing_type_is_provisional_and_an_uncounted_one_is_worth_no_money() -> None:
    untyped = {**MAY, SIX_PM_MS: (None, "51.75706")}
    assert worth(replace(TWO_HOURS, areas={"north": priced(untyped)}).performance())[0] == (
        "provisional (event type missing)"
    )
    only = {at: ("Energy-Only", price) for at, (_, price) in MAY.items()}
    assert worth(replace(TWO_HOURS, areas={"north": priced(only)}).performance())[:2] == ("no hour counts", None)


def test_areas_have_hours_of_their_own() -> None:
    other = {at: ("Energy-Only", price) for at, (_, price) in MAY.items()}
    found = replace(
        TWO_HOURS, home=replace(TWO_HOURS.home, area="south"), areas={"north": priced(MAY), "south": priced(other)}
    )
    assert worth(found.performance())[0] == "no hour counts"


def test_an_interval_that_nobody_measured_gives_nothing_and_is_said() -> None:
    lost = [None if at == 1 else wh for at, wh in enumerate(even(5) + even(4.8))]
    found = replace(TWO_HOURS, battery_wh=[lost]).performance()
    assert site(found).hours[0].delivered_kw == Fraction("3.75") - Fraction("0.539495")
    assert [hour.covered_pct for hour in site(found).hours] == [75.0, 100.0]
    assert worth(found)[0] == "provisional (intervals missing)"
    assert worth(found)[1] is not None


def test_an_interval_of_which_little_was_measured_is_missing_in_part() -> None:
    assert worth(replace(TWO_HOURS, covered_pct=60.0).performance())[0] == "provisional (intervals missing)"
    assert worth(replace(TWO_HOURS, covered_pct=95.0).performance())[0] == "computed"


@pytest.mark.parametrize(
    ("site_kw", "expected"), [(0.3, Fraction("3.172")), (-1.0, Fraction("3.472")), (3.472, Fraction(0))]
)
def test_a_meter_responds_by_like_days_and_an_export_is_no_more_than_drawing_nothing(
    site_kw: float, expected: Fraction
) -> None:
    before = days_before([[[wh] for wh in EVENT_WH]], [[[wh] for wh in WINDOW_WH]], [[3_600]])
    found = Played(
        version=PDR, point=MeasurementPoint.UTILITY_METER, battery_wh=[[1_000]], grid_wh=[[site_kw * 1000]],
        length_ms=HOUR_MS, before=before,
    ).performance()  # fmt: skip
    assert kw(found) == expected
    assert site(found).hours[0].baseline_kw == -Fraction("3.472"), "what it would have given: less than nothing"
    assert found.estimate
    assert found.whole.value is not None
    assert found.whole.value.value == (expected * 2).__round__(2)


def test_days_of_events_and_of_outages_have_no_part_in_a_baseline() -> None:
    before = days_before([[[wh] for wh in [9_000, *EVENT_WH]]], [[[wh] for wh in [9_000, *WINDOW_WH]]], [[3_600]])
    usable = np.ones((1, 11), dtype=np.bool_)
    usable[0, 0] = False
    played = Played(
        version=PDR, point=MeasurementPoint.SITE_CT, battery_wh=[[0]], grid_wh=[[0]], length_ms=HOUR_MS,
        before=replace(before, usable=usable),
    )  # fmt: skip
    assert kw(played.performance()) == Fraction("3.472")
    assert not played.performance().estimate


def test_without_a_baseline_nobody_knows_what_was_delivered() -> None:
    before = days_before([[[wh] for wh in EVENT_WH]], [[[wh] for wh in WINDOW_WH]], [[None]])
    played = Played(
        version=PDR, point=MeasurementPoint.SITE_CT, battery_wh=[[900]], grid_wh=[[100]], length_ms=HOUR_MS,
        before=before,
    )  # fmt: skip
    found = played.performance()
    assert (site(found).hours[0].delivered_kw, site(found).why_no_baseline) == (None, NO_WINDOW)
    assert worth(found) == ("provisional (baseline missing)", None, None, None), "never 0"
    unsaid = replace(played, version=program(BaselineMethod.CAISO_PDR, Formula.ENERGY)).performance()
    assert site(unsaid).why_no_baseline == "performance.parameters.days: missing"


@pytest.mark.parametrize("level", [Level.SITE, Level.AGGREGATION])
def test_homes_without_a_baseline_leave_the_others_with_theirs(level: Level) -> None:
    before = days_before([[[wh] for wh in EVENT_WH]] * 2, [[[wh] for wh in WINDOW_WH]] * 2, [[3_600], [None]])
    version = replace(PDR, performance=replace(PDR.performance, floor=bound(level, BoundPer.INTERVAL)))  # type: ignore[type-var]
    found = Played(
        version=version, point=MeasurementPoint.SITE_CT, battery_wh=[[0], [0]], grid_wh=[[472], [0]],
        length_ms=HOUR_MS, before=before,
    ).performance()  # fmt: skip
    assert worth(found) == ("provisional (baseline missing)", *[Decimal("6.00")] * 3)
    assert found.whole.value is not None
    assert "1 of 2" in found.whole.value.why
    assert found.whole.hours[0].delivered_kw == 3


def test_the_hours_before_an_event_are_its_baseline_where_the_program_says_so() -> None:
    version = program(BaselineMethod.SAME_DAY, Formula.ENERGY, exports_counted=known(True))
    before = days_before([[[]]], [[[]]], [[1_000, 3_000]])
    found = Played(
        version=version, point=MeasurementPoint.SITE_CT, battery_wh=[[3_000]], grid_wh=[[-500]], length_ms=HOUR_MS,
        before=before,
    ).performance()  # fmt: skip
    assert kw(found) == Fraction("2.5")


def test_a_metered_battery_is_paid_for_what_its_home_takes_of_it_less_what_it_usually_gives() -> None:
    version = program(
        BaselineMethod.GENERATOR_OUTPUT, Formula.ENERGY, exports_counted=known(False),
        parameters={"days": "3", "highest": "3", "look-back-days": "10"},
    )  # fmt: skip
    before = days_before([[[600], [400], [800]]], [[[]] * 3], [[]], at_meter=False, load_above=5_000)
    played = Played(version=version, battery_wh=[[5_000]], grid_wh=[[-3_000]], length_ms=HOUR_MS, before=before)
    assert kw(played.performance()) == Fraction("1.4"), "5 kW of which the home takes 2, less 0.6"
    counted = program(
        BaselineMethod.GENERATOR_OUTPUT, Formula.ENERGY, exports_counted=known(True),
        parameters={"days": "3", "highest": "3", "look-back-days": "10"},
    )  # fmt: skip
    assert kw(replace(played, version=counted).performance()) == Fraction("4.4")


def test_a_floor_of_each_home_is_not_one_of_all_homes_together() -> None:
    """Homes at 4 and at -1 kW."""
    played = Played(version=PER_KWH, battery_wh=[even(4), even(-1)], customers=["one", "two"])
    energy = {}
    for level in (Level.SITE, Level.AGGREGATION):
        for per in (BoundPer.INTERVAL, BoundPer.HOUR):
            version = program(BaselineMethod.NONE, Formula.ENERGY, floor=bound(level, per))
            found = replace(played, version=version).performance()
            energy[level, per] = found.whole.hours[0].delivered_kw
            assert worth(found)[1] == Decimal({Level.SITE: 8, Level.AGGREGATION: 6}[level])
            assert found.paid_at is level
    assert set(energy.values()) == {4, 3}
    assert energy[Level.SITE, BoundPer.HOUR] == energy[Level.SITE, BoundPer.INTERVAL] == 4


def test_a_cap_by_the_interval_is_of_the_homes_load_and_one_of_the_nomination_of_all_homes() -> None:
    load = program(
        BaselineMethod.NONE, Formula.ENERGY, cap=bound(Level.SITE, BoundPer.INTERVAL, None, BoundOf.SITE_LOAD)
    )
    played = Played(version=load, battery_wh=[[1_250, 250, 250, 250]], grid_wh=[[-1_000, 100, 100, 100]])
    assert kw(played.performance()) == Fraction("1.0"), "250 Wh of load in the first quarter"
    nominated = program(
        BaselineMethod.NONE, Formula.ENERGY, cap=bound(Level.AGGREGATION, BoundPer.HOUR, None, BoundOf.NOMINATION)
    )
    both = Played(version=nominated, battery_wh=[even(4), even(4)], nominated_w=5_000)
    assert both.performance().whole.hours[0].delivered_kw == 5
    assert kw(both.performance()) == 4
    unsaid = replace(both, nominated_w=None).performance()
    assert unsaid.whole.value is not None
    assert (unsaid.whole.value.status, unsaid.whole.value.value) == ("not worked out", None)
    assert "the nomination is unknown" in unsaid.whole.value.why


def test_two_programs_have_together_what_the_battery_gave_to_the_watt_hour() -> None:
    ra = StackedClaim(
        name="ra", rank=1, homes=np.array([True]), from_ms=SIX_PM_MS, until_ms=SIX_PM_MS + HOUR_MS,
        terms=StackingTerms(paid_for=PaidFor.LOAD), program="ra",
    )  # fmt: skip
    found = Played(
        version=PER_KWH, battery_wh=[even(5)], grid_wh=[even(-2)], others=[ra],
        terms=StackingTerms(beside_load=PaidFor.EXPORTS),
    ).performance()  # fmt: skip
    assert found.whole.energy_wh == 2_000, "3 kWh of load are the other program's"
    assert found.own_use_wh == 0
    assert found.whole.given_wh == 5_000, "the battery gave it all the same"


def test_figures_of_batteries_sum_to_homes_customers_and_the_program() -> None:
    found = Played(
        version=PER_KWH, battery_wh=[even(4), even(3), even(1)], asked_wh=4_000.0, customers=["one", "one", ""]
    ).performance()
    for level, n in ((FigureLevel.DEVICE, 3), (FigureLevel.SITE, 3), (FigureLevel.PROGRAM, 1)):
        some = found.figures[level]
        assert len(some) == n
        assert sum(one.energy_wh for one in some) == 8_000
        assert sum(one.short_wh for one in some) == 4_000
        assert all(sum(one.reasons.values()) == one.short_wh for one in some)
    (customer,) = found.figures[FigureLevel.CUSTOMER]
    assert (customer.name, customer.energy_wh, customer.asked_wh) == ("one", 7_000, 8_000)
    assert customer.value is not None
    assert customer.value.value == Decimal("14.00")
    assert worth(found)[1] == Decimal("16.00")


def test_an_event_that_ends_within_an_hour_has_its_power_over_its_own_part() -> None:
    mean = program(BaselineMethod.NONE, Formula.MEAN_EVENT_POWER, amount="275", unit=RateUnit.KW_SEASON)
    played = Played(version=mean, battery_wh=[even(4) + even(4)[:2]], until_ms=SIX_PM_MS + HOUR_MS + 2 * QUARTER_MS)
    found = played.performance()
    assert [hour.power_w for hour in found.whole.hours] == [4_000, 4_000]
    assert worth(found)[1] == Decimal(4 * 275)
    assert worth(replace(played, version=PER_KWH).performance())[1] == Decimal(12), "6 kWh"


def test_a_figure_names_every_value_that_nobody_verified() -> None:
    found = Played(
        version=replace(
            PDR, performance=replace(PDR.performance, exports_counted=None)  # type: ignore[type-var]
        ),
        point=MeasurementPoint.SITE_CT, battery_wh=[[0]], grid_wh=[[0]], length_ms=HOUR_MS,
        before=days_before([[[wh] for wh in EVENT_WH]], [[[wh] for wh in WINDOW_WH]], [[3_600]]),
    ).performance()  # fmt: skip
    assert {one.path for one in found.rests_on_unverified} >= {"performance.exports_counted", "performance.ties"}
