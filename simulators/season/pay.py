"""What a home's month is worth in DSGS option 3, in exact fractions: the arithmetic of both judges.

Rates of 2025 for batteries of two hours, per kW and month, and the bonus on them; the prescriptive baseline is a share
of nominal power (its value is reported, not verified).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from simulators.season.official import OfficialHour
from simulators.settlement import Exact, cents, exact
from simulators.settlement.market_aware import COUNTED, Hour, month

BASE_RATES = {5: "6.75", 6: "6.98", 7: "12.60", 8: "13.50", 9: "14.40", 10: "7.88"}
BONUS = "1.3"
BASELINE_RATIO = "0.107899"
RATES = {number: exact(base) * exact(BONUS) for number, base in BASE_RATES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeMonth:
    """`capacity_kw`: demonstrated, above the baseline. `amount`: USD, not rounded."""

    capacity_kw: Exact
    amount: Exact

    @property
    def pay(self) -> Decimal:
        return cents(self.amount)


def home_month(
    hours: Iterable[tuple[OfficialHour, Exact | None]], *, baseline_kw: Exact, rate: Exact
) -> HomeMonth | None:
    """A month from its official hours and what a home gave in each (kW, None = not known); None if none of them
    counts."""
    found = month(
        [
            Hour(day=one.day, hour_end=one.hour_end, event_type=one.event_type, price=exact(one.price), net_kw=net_kw)
            for one, net_kw in hours
        ],
        baseline_kw,
    )
    amount = found.pay(rate)
    if found.capacity_kw is None or amount is None:
        return None
    return HomeMonth(capacity_kw=found.capacity_kw, amount=amount[0])


def baseline_kw(nominal_w: float) -> Exact:
    return exact(BASELINE_RATIO) * exact(round(nominal_w)) / 1000


def weights(hours: Sequence[OfficialHour]) -> dict[OfficialHour, Exact]:
    """The part that each hour has in its month's capacity."""
    counted = [one for one in hours if one.event_type in COUNTED]
    whole = sum((exact(one.price) for one in counted), Exact(0))
    return {one: exact(one.price) / whole for one in counted}
