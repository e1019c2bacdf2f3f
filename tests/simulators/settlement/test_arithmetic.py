"""The judge of payments, on the examples that were published or worked out by hand."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from simulators.settlement import Exact, cents, exact
from simulators.settlement.day_matching import LikeDay, baseline_kw, chosen, generator_kw, response_kw
from simulators.settlement.market_aware import Hour, Month, hour_start, local_month, month
from simulators.settlement.others import bid_hour, per_kwh, season_mean, shares

MAY = ("51.75706", "52.50963", "53.47496", "55.05001", "61.67823", "60.87")
GIVEN = ("5", "5", "4.8", "4.6", "5", "0")
BASELINE = exact("0.539495")


def may(given: tuple[str | None, ...], prices: tuple[str | None, ...] = MAY, baseline: Exact = BASELINE) -> Month:
    hours = [
        Hour(
            day=date(2025, 5, 22 + i // 2),
            hour_end=20 + i % 2,
            event_type="Test Capacity",
            price=None if price is None else exact(price),
            net_kw=None if kw is None else exact(kw),
        )
        for i, (kw, price) in enumerate(zip(given, prices, strict=True))
    ]
    return month(hours, baseline)


def paid(found: Month, rate: str) -> Decimal:
    pay = found.pay(exact(rate))
    assert pay is not None
    assert pay[0] == pay[1]
    return cents(pay[0])


def test_a_month_is_weighted_by_its_prices_and_an_hour_that_was_missed_counts_as_nothing_given() -> None:
    found = may(GIVEN)
    assert found.capacity_kw is not None
    assert round(float(found.capacity_kw), 6) == 3.455361
    assert paid(found, "8.775") == Decimal("30.32")
    assert paid(may((*GIVEN[:5], None)), "8.775") == Decimal("30.32")


def test_without_a_baseline_all_of_it_counts() -> None:
    found = may(GIVEN, baseline=exact(0))
    assert found.capacity_kw is not None
    assert round(float(found.capacity_kw), 6) == 3.994856
    assert paid(found, "8.775") == Decimal("35.05")


def test_a_month_below_nothing_pays_nothing() -> None:
    found = may(("-0.5",) * 6)
    assert found.capacity_kw is not None
    assert round(float(found.capacity_kw), 6) == -1.039495
    assert paid(found, "8.775") == Decimal("0.00")


def test_hours_of_other_kinds_count_nothing() -> None:
    energy = Hour(day=date(2025, 5, 1), hour_end=20, event_type="Energy-Only", price=exact(900), net_kw=exact(9))
    assert month([energy], BASELINE).hours == 0


def test_a_missing_price_gives_bounds_that_hold_whatever_it_is() -> None:
    found = may(GIVEN, prices=(*MAY[:5], None))
    assert found.capacity_kw is None
    assert found.least_kw is not None
    assert found.most_kw is not None
    for price in ("51.75706", "55", "61.67823"):
        sure = may(GIVEN, prices=(*MAY[:5], price)).capacity_kw
        assert sure is not None
        assert found.least_kw <= sure <= found.most_kw


def test_an_hour_belongs_to_the_month_in_which_it_is_where_it_happens() -> None:
    begins = hour_start(date(2026, 10, 31), 21, "America/Los_Angeles")
    assert begins == datetime(2026, 11, 1, 3, tzinfo=UTC)
    assert local_month(begins, "America/Los_Angeles") == (2026, 10)


EVENT = ["2.0", "2.2", "1.8", "2.4", "2.6", "2.0", "1.6", "2.2", "2.8", "2.4"]
WINDOW = ["2.1", "2.3", "1.9", "2.5", "2.4", "2.1", "1.7", "2.2", "2.5", "2.3"]
DAYS = [LikeDay(event_kw=exact(e), window_kw=exact(w)) for e, w in zip(EVENT, WINDOW, strict=True)]


@pytest.mark.parametrize(
    ("take", "window", "caps", "expected"),
    [
        (10, "2.42", ("0.8", "1.2"), "2.42"),
        (10, "2.86", ("0.8", "1.2"), "2.64"),
        (10, "1.54", ("0.8", "1.2"), "1.76"),
        (5, "3.60", ("0.6", "1.4"), "3.472"),
        (5, "1.40", ("0.6", "1.4"), "1.488"),
    ],
)
def test_like_days_are_adjusted_within_the_caps(take: int, window: str, caps: tuple[str, str], expected: str) -> None:
    assert baseline_kw(DAYS, 10, take, exact(window), exact(caps[0]), exact(caps[1])) == exact(expected)


@pytest.mark.parametrize(("take", "window", "caps", "expected"), [
    (10, "1.54", (Exact(5, 6), Exact(6, 5)), "1.8333"),
    (5, "1.40", (Exact(5, 7), Exact(7, 5)), "1.7714"),
])  # fmt: skip
def test_caps_may_be_reciprocals(take: int, window: str, caps: tuple[Exact, Exact], expected: str) -> None:
    assert f"{float(baseline_kw(DAYS, 10, take, exact(window), *caps)):.4f}" == expected


def test_of_two_equal_days_the_one_that_is_given_first_is_taken() -> None:
    assert [DAYS.index(day) + 1 for day in chosen(DAYS, 10, 5)] == [9, 5, 4, 10, 2]


def test_exports_are_zeroed_unless_they_count() -> None:
    base = exact("3.472")
    assert response_kw(base, exact("0.3"), exports_counted=False) == exact("3.172")
    assert response_kw(base, exact("-1"), exports_counted=False) == base
    assert response_kw(base, exact("-1"), exports_counted=True) == exact("4.472")
    assert generator_kw(exact(5), exact(2), exact("0.6")) == exact("1.4")


def test_the_other_programs_pay_what_was_worked_out_by_hand() -> None:
    assert cents(per_kwh(exact(16), exact(4), exact(2))) == Decimal("24.00")
    events = [(exact(15), exact(3)), (exact(12), exact(3)), (exact(0), exact(3))]
    assert cents(season_mean(events, exact(275))) == Decimal("825.00")
    assert cents(season_mean([(exact("9.7"), exact(3))], exact(50), exact("0.8"))) == Decimal("129.33")


@pytest.mark.parametrize(("kw", "pay"), [(110, 1050), (90, 900), (75, 750), (70, 350), (60, 300), (50, -100)])
def test_a_bid_is_paid_by_bands_whose_edges_belong_to_the_upper_one(kw: int, pay: int) -> None:
    assert bid_hour(exact(100), exact(kw), exact(10)) == pay


def test_a_pool_is_shared_to_the_cent() -> None:
    assert shares(10_000, [exact(1)] * 3) == [3334, 3333, 3333]
    assert shares(5_713, [exact("12.5"), exact("7.3"), exact("0.2")]) == [3571, 2085, 57]
    assert cents(exact("2.675")) == Decimal("2.68")
    assert cents(exact("-2.675")) == Decimal("-2.68")
