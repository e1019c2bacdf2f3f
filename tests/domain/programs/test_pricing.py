"""Tables of hours priced by the programs that ship: worked examples, the wrong ways, what is unknown, and edges."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.exact import half_up
from gateway.domain.programs.local_hours import hour_starts
from gateway.domain.programs.pricing import (
    NO_RATE,
    NOTHING_COUNTED,
    PRICE_MISSING,
    TYPE_MISSING,
    PricedSite,
    PricedTable,
    TableHour,
    price_table,
)
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.rates import Rate, RateUnit
from gateway.domain.rules.values import Certainty
from tests.builders.programs import SAMPLE, changed, program
from tests.programs.test_shipped import PROGRAMS, SHIPPED

PRICES = ("51.75706", "52.50963", "53.47496", "55.05001", "61.67823", "60.87")
GIVEN = ("5", "5", "4.8", "4.6", "5", None)
MAY = [(22, 20), (22, 21), (28, 19), (28, 20), (29, 20), (29, 21)]
FIVE = PricedSite(nominal_kw=Fraction(5))


BOUNDS = """\
      floor: {value: {kw: 0, level: site, per: month}, evidence: verified, source: page}
      cap: {value: {of: nomination, level: aggregation, per: event}, evidence: verified, source: page}
"""


def version(name: str, day: date) -> ProgramVersion:
    found = PROGRAMS[name].program.version_on(day)
    assert found is not None
    return found


DSGS = version("dsgs-option3", date(2025, 7, 1))


def hour(
    rules: ProgramVersion,
    day: date,
    end: int,
    kw: str | None,
    *,
    price: str | None = None,
    kind: str | None = "Test Capacity",
    load: str | None = None,
) -> TableHour:
    return TableHour(
        day=day, hour_end=end, start_ms=hour_starts(rules.zone, day, end)[0], event_type=kind,
        price=None if price is None else Decimal(price), net_kw=None if kw is None else Fraction(kw),
        load_kw=None if load is None else Fraction(load),
    )  # fmt: skip


def may(given_kw: tuple[str | None, ...] = GIVEN, prices: tuple[str | None, ...] = PRICES) -> list[TableHour]:
    return [
        hour(DSGS, date(2025, 5, day), end, kw, price=price)
        for (day, end), kw, price in zip(MAY, given_kw, prices, strict=True)
    ]


def figure(table: PricedTable, places: int = 6) -> Decimal:
    (period,) = table.periods
    assert period.quantity is not None
    assert period.quantity.known
    return half_up(period.quantity.low, places)


def test_may_2025_is_weighted_by_price_and_an_hour_without_data_counts_as_nothing() -> None:
    table = price_table(DSGS, may(), FIVE)
    assert (figure(table), table.total, table.currency) == (Decimal("3.455361"), Decimal("30.32"), "USD")
    assert table.baseline_kw == Fraction("0.539495")


def test_may_2025_is_neither_the_plain_mean_nor_without_the_hour_that_has_no_data() -> None:
    plain = price_table(DSGS, may(prices=("50",) * 6), FIVE)
    assert plain.total == Decimal("30.95")
    left_out = price_table(DSGS, may()[:-1], FIVE)
    assert figure(left_out) == Decimal("4.341312")
    assert price_table(DSGS, may(), FIVE).total not in (plain.total, left_out.total)


def test_a_site_that_qualifies_for_no_baseline() -> None:
    table = price_table(DSGS, may(), replace(FIVE, no_baseline=True))
    assert (figure(table), table.total) == (Decimal("3.994856"), Decimal("35.05"))


def test_a_month_below_zero_pays_nothing_and_the_floor_is_not_on_the_hour() -> None:
    charging = price_table(DSGS, may(("-0.5",) * 6), FIVE)
    assert (figure(charging), charging.total) == (Decimal("-1.039495"), Decimal("0.00"))
    (period,) = price_table(DSGS, may(("5", "-5", "5", "-5", "5", "-1")), FIVE).periods
    assert period.bounded is not None
    assert 0 < period.bounded.low < 1, "with a floor on each hour it would be above 2"


def test_the_rates_of_2025_sum_to_the_published_sums_and_five_times_the_monthly_shares() -> None:
    months = (5, 6, 7, 8, 9, 10)
    hours = [hour(DSGS, date(2025, month, 8), 20, "1", price="50") for month in months]
    site = PricedSite(no_baseline=True)
    table = price_table(DSGS, hours, site)
    exact = sum((one.pay_exact or Fraction(0) for one in table.periods), Fraction(0))
    assert exact == Fraction("80.743")
    without_bonus = replace(DSGS, factors=())
    plain = price_table(without_bonus, hours, site)
    assert plain.total == Decimal("62.11")
    monthly = dict(zip(months, ("7.00", "7.25", "13.10", "14.04", "14.97", "8.19"), strict=True))
    shares = tuple(
        replace(rate, amount=Decimal(monthly[month])) for rate in DSGS.rates for month in rate.months
    )  # fmt: skip
    five = price_table(replace(without_bonus, rates=shares), [replace(one, net_kw=Fraction(5)) for one in hours], site)
    assert five.total == Decimal("322.75")


def test_the_last_evening_of_october_is_paid_as_october() -> None:
    table = price_table(DSGS, [hour(DSGS, date(2025, 10, 31), 21, "5", price="50")], FIVE)
    (period,) = table.periods
    assert (period.name, period.rate and period.rate.rate.name) == ("2025-10", "october")


def test_hours_that_do_not_count_change_nothing_but_a_month_of_them_alone_is_not_paid_as_zero() -> None:
    other = [
        hour(DSGS, date(2025, 5, 20), 20, "-9", price="500", kind="Test Non-Capacity"),
        hour(DSGS, date(2025, 5, 21), 20, "-9", price="500", kind="energy-only"),
    ]
    assert price_table(DSGS, [*other, *may()], FIVE).total == Decimal("30.32")
    (period,) = price_table(DSGS, other, FIVE).periods
    assert (period.status, period.pay) == (NOTHING_COUNTED, None)
    with pytest.raises(InvalidInput, match="'Capcity' is no event type of the program"):
        price_table(DSGS, [replace(may()[0], event_type="Capcity")], FIVE)


def test_a_missing_price_is_neither_zero_nor_a_mean_but_a_range() -> None:
    (period,) = price_table(DSGS, may(prices=(*PRICES[:5], None)), FIVE).periods
    assert (period.status, period.pay, period.pay_exact) == (PRICE_MISSING, None, None)
    ends = [price_table(DSGS, may(prices=(*PRICES[:5], one)), FIVE).total for one in ("61.67823", "51.75706")]
    assert [period.pay_low, period.pay_high] == ends
    whole = price_table(DSGS, may(), FIVE).total
    assert whole is not None
    assert period.pay_low is not None
    assert period.pay_high is not None
    assert period.pay_low <= whole <= period.pay_high
    assert price_table(DSGS, may(), FIVE).periods[0].status == "computed"


def test_a_month_without_any_price_has_no_bounds() -> None:
    table = price_table(DSGS, may(prices=(None,) * 6), FIVE)
    (period,) = table.periods
    assert (period.status, period.pay_low, period.pay_high, table.total) == (PRICE_MISSING, None, None, None)


def test_a_missing_type_may_count_or_not() -> None:
    hours = [replace(one, event_type=None) if n == 5 else one for n, one in enumerate(may())]
    (period,) = price_table(DSGS, hours, FIVE).periods
    assert (period.status, period.pay) == (TYPE_MISSING, None)
    counted, not_counted = price_table(DSGS, may(), FIVE).total, price_table(DSGS, may()[:-1], FIVE).total
    assert (period.pay_low, period.pay_high) == (counted, not_counted)


def test_what_a_figure_rests_on_is_said_and_what_it_does_not_rest_on_is_not() -> None:
    paths = {one.path: one.certainty for one in price_table(DSGS, may(), FIVE).rests_on_unverified}
    assert paths["factors.budget-share"] is Certainty.UNVERIFIED
    assert paths["rates.may"] is Certainty.REPORTED
    assert "performance.parameters.baseline-ratio" in paths
    assert "rates.june" not in paths
    given_kw = price_table(DSGS, may(), PricedSite(baseline_kw=Fraction("0.5")))
    assert "performance.parameters.baseline-ratio" not in {one.path for one in given_kw.rests_on_unverified}


def test_a_given_baseline_comes_before_nominal_power_and_contradictions_are_refused() -> None:
    both = price_table(DSGS, may(), replace(FIVE, baseline_kw=Fraction(1)))
    assert (both.baseline_kw, both.baseline_from) == (Fraction(1), "given")
    for site, why in (
        (PricedSite(baseline_kw=Fraction(1), no_baseline=True), "said to have none"),
        (PricedSite(), "a share of nominal power"),
        (PricedSite(nominal_kw=Fraction(5), rate_class="4h"), "no rate is of the class"),
    ):
        with pytest.raises(InvalidInput, match=why):
            price_table(DSGS, may(), site)
    with pytest.raises(InvalidInput, match="outside version 2025"):
        price_table(DSGS, [hour(DSGS, date(2026, 5, 22), 20, "5", price="50")], FIVE)


def test_the_duration_is_that_of_all_rates_or_the_one_that_is_named() -> None:
    totals = {price_table(DSGS, may(), replace(FIVE, rate_class=one)).total for one in ("", "2", "2h", "2-hour", "may")}
    assert totals == {Decimal("30.32")}


def test_two_areas_with_different_hours_on_one_day_are_paid_by_their_own() -> None:
    day = date(2025, 7, 22)
    north = [hour(DSGS, day, 20, "5", price="47.2"), hour(DSGS, day, 21, "1", price="47.4")]
    south = [hour(DSGS, day, 19, "0", price="60"), hour(DSGS, day, 20, "5", price="61")]
    totals = [price_table(DSGS, hours, PricedSite(no_baseline=True)).total for hours in (north, south)]
    assert totals == [half_up(Fraction("16.38") * one) for one in (
        (5 * Fraction("47.2") + Fraction("47.4")) / Fraction("94.6"), Fraction(5 * 61, 121),
    )]  # fmt: skip


def test_energy_of_an_emergency_program_is_paid_net_of_what_is_usual() -> None:
    rules = version("elrp-a4", date(2026, 7, 7))
    hours = [hour(rules, date(2026, 7, 7), end, "8") for end in (18, 19)]
    table = price_table(rules, hours, PricedSite(baseline_kw=Fraction(2)))
    assert (table.total, table.unit) == (Decimal("24.00"), RateUnit.KWH)
    below = price_table(rules, [replace(one, net_kw=Fraction(1)) for one in hours], PricedSite(baseline_kw=Fraction(2)))
    assert below.total == Decimal("0.00")
    with pytest.raises(InvalidInput, match="usual-discharge needs meter data"):
        price_table(rules, hours, PricedSite())


def event(rules: ProgramVersion, day: date, kw: str | None, hours: int = 3, first: int = 17) -> list[TableHour]:
    return [hour(rules, day, first + n, kw) for n in range(hours)]


def test_a_summer_of_massachusetts_is_the_mean_of_its_events_a_missed_one_too() -> None:
    rules = version("connectedsolutions-ma", date(2026, 7, 7))
    hours = [*event(rules, date(2026, 7, 7), "5"), *event(rules, date(2026, 7, 9), "4"),
             *event(rules, date(2026, 7, 15), None)]  # fmt: skip
    table = price_table(rules, hours, PricedSite(rate_class="National Grid"))
    assert (figure(table), table.total) == (Decimal(3), Decimal("825.00"))
    assert "performance.parameters.missed-event-kw" in {one.path for one in table.rests_on_unverified}
    days = [date(2026, 6, 1) + timedelta(days=n) for n in range(61) if n != 18]
    whole = [one for day in days for one in event(rules, day, "5")]
    assert price_table(rules, whole, PricedSite(rate_class="eversource")).total == Decimal("1125.00")
    (unknown,) = price_table(rules, hours, PricedSite()).periods
    assert (unknown.status, unknown.why, unknown.pay) == (NO_RATE, "the utility is unknown", None)


def test_new_york_pays_by_the_season() -> None:
    rules = version("connectedsolutions-ma", date(2026, 7, 7))
    fifty = replace(
        rules,
        rates=(Rate(name="ny", amount=Decimal(50), currency="USD", unit=RateUnit.KW_SEASON,
                    certainty=Certainty.VERIFIED, source="page"),),
    )  # fmt: skip
    kwh = Fraction("9.7") * Fraction("0.8")
    hours = event(rules, date(2026, 7, 7), str(kwh / 3))
    table = price_table(fifty, hours, PricedSite())
    assert (figure(table, 4), table.total) == (Decimal("2.5867"), Decimal("129.33"))


@pytest.mark.parametrize(("enrolled", "paid"), [(date(2024, 1, 1), "1125.00"), (date(2019, 1, 1), "650.00")])
def test_connecticut_pays_by_the_season_and_never_by_the_event(enrolled: date, paid: str) -> None:
    rules = version("ct-ess", date(2025, 7, 8))
    summer = [one for day in (8, 9, 10) for one in event(rules, date(2025, 7, day), "5", first=18)]
    winter = event(rules, date(2026, 1, 9), "5", first=18)
    table = price_table(rules, [*summer, *winter], PricedSite(enrolled=enrolled))
    assert ([one.name for one in table.periods], table.total) == (["summer 2025", "winter 2025"], Decimal(paid))


def test_injection_in_a_window_is_a_plain_mean() -> None:
    text = changed("formula: {value: mean_event_power", "formula: {value: mean_window_power").replace(BOUNDS, "")
    rules = program(text).versions[0]
    ten = replace(rules.rates[0], amount=Decimal(10), utilities=frozenset(), years=None)
    rules = replace(rules, rates=(ten,), factors=())
    hours = [hour(rules, date(2025, 7, day), end, kw) for day in (7, 8) for end, kw in ((17, "5"), (18, "4"))]
    table = price_table(rules, hours, PricedSite())
    assert (figure(table, 1), table.total) == (Decimal("4.5"), Decimal("45.00"))


BANDS = {"band-most": "1.05", "band-full": ".75", "band-part": ".6", "band-part-rate": ".5"}


def bands() -> ProgramVersion:
    stated = [f"        {one}: {{value: '{value}', evidence: reported, source: page}}" for one, value in BANDS.items()]
    text = changed("formula: {value: mean_event_power", "formula: {value: bid_bands").replace(
        BOUNDS, "\n".join(["      parameters:", *stated, ""])
    )
    rules = program(text).versions[0]
    ten = replace(rules.rates[0], amount=Decimal(10), utilities=frozenset(), years=None, season="")
    return replace(rules, rates=(replace(ten, unit=RateUnit.KW_MONTH),), factors=())


def test_a_bid_is_paid_by_the_bands_of_its_program() -> None:
    rules = bands()
    for delivered, paid in ((110, 1050), (90, 900), (75, 750), (70, 350), (60, 300), (50, -100)):
        hours = [hour(rules, date(2025, 7, 8), 18, str(delivered))]
        assert price_table(rules, hours, PricedSite(nomination_kw=Fraction(100))).total == paid
    with pytest.raises(InvalidInput, match="the nomination is unknown"):
        price_table(rules, [hour(rules, date(2025, 7, 8), 18, "50")], PricedSite())


def test_resource_adequacy_earns_its_best_two_hours_within_the_load_of_the_site() -> None:
    rules = version("ra-leap", date(2026, 7, 7))
    ten = Rate(name="mine", amount=Decimal(10), currency="USD", unit=RateUnit.KW_MONTH,
               certainty=Certainty.VERIFIED, source="contract")  # fmt: skip
    rules = replace(rules, rates=(ten,))
    hours = [hour(rules, date(2026, 7, 7), end, kw, load="4.5") for end, kw in ((18, "5"), (19, "3.5"), (20, "1"))]
    table = price_table(rules, hours, PricedSite(no_baseline=True))
    assert (figure(table), table.total) == (Decimal(4), Decimal("40.00"))
    assert "performance.formula" in {one.path for one in table.rests_on_unverified}
    with pytest.raises(InvalidInput, match="the load of the site is unknown"):
        price_table(rules, [replace(one, load_kw=None) for one in hours], PricedSite(no_baseline=True))
    with pytest.raises(InvalidInput, match="caiso-pdr needs meter data"):
        price_table(rules, hours, PricedSite())
    (alone,) = price_table(rules, hours[:1], PricedSite(no_baseline=True)).periods
    assert (alone.pay, alone.why) == (None, "no two dispatched hours are in a row")


def test_a_program_of_a_contract_has_kw_and_no_money_without_its_rate() -> None:
    rules = version("generic-capacity", date(2026, 7, 7))
    table = price_table(rules, [hour(rules, date(2026, 7, 7), 18, "4")], PricedSite())
    (period,) = table.periods
    assert (figure(table), period.status, table.total) == (Decimal(4), NO_RATE, None)


@pytest.mark.parametrize("name", ["ma-clean-peak", "tou-daily"])
def test_a_program_that_is_not_priced_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not worked out from hours"):
        price_table(version(name, date(2026, 7, 7)), [], PricedSite())


def test_every_program_that_ships_states_what_its_formula_needs() -> None:
    for name in SHIPPED:
        assert all(one.performance is not None for one in PROGRAMS[name].program.versions)
    with pytest.raises(InvalidInput, match="not worked out"):
        price_table(replace(program(SAMPLE).versions[0], performance=None), [], PricedSite())


KWS = st.lists(st.integers(-80, 80).map(lambda n: Fraction(n, 10)), min_size=6, max_size=6)


@given(KWS, st.integers(1, 9))
def test_a_month_is_linear_in_what_was_discharged(kws: list[Fraction], scale: int) -> None:
    def quantity(factor: int) -> Fraction:
        hours = [replace(one, net_kw=factor * kw) for one, kw in zip(may(), kws, strict=True)]
        found = price_table(DSGS, hours, PricedSite(no_baseline=True)).periods[0].quantity
        assert found is not None
        return found.low

    assert quantity(scale) == scale * quantity(1)


@given(KWS, st.integers(0, 5), st.integers(1, 50))
def test_more_discharge_in_an_hour_never_pays_less(kws: list[Fraction], at: int, more: int) -> None:
    hours = [replace(one, net_kw=kw) for one, kw in zip(may(), kws, strict=True)]
    raised = [
        replace(one, net_kw=(one.net_kw or Fraction(0)) + more) if n == at else one for n, one in enumerate(hours)
    ]
    before, after = (price_table(DSGS, rows, FIVE).total for rows in (hours, raised))
    assert before is not None
    assert after is not None
    assert before <= after
