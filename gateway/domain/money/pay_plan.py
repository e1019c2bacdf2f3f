"""What a customer is paid: the terms that are agreed, by version, and when each customer has which."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.contract import Basis
from gateway.domain.money.currency import to_minor

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayPlanVersion:
    """The terms of a plan; they add up. `share` (0 to 1) of gross or of net, `fixed_per_month`, `per_kwh` of what was
    given; `minimum` and `cap` bound a month. Fixed, minimum and cap are for the days of the month that are the
    customer's where `prorated`, whole otherwise. No month pays less than 0."""

    plan: str
    name: str
    currency: str
    base: Basis
    share: Fraction = ZERO
    fixed_per_month: Fraction = ZERO
    per_kwh: Fraction = ZERO
    minimum: Fraction | None = None
    cap: Fraction | None = None
    prorated: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.base is Basis.UNKNOWN:
            problems.append("its base is gross or net")
        if not 0 <= self.share <= 1:
            problems.append(f"a share of {float(self.share)} is not from 0 to 1")
        if min(self.fixed_per_month, self.per_kwh, self.minimum or ZERO) < 0 or (self.cap is not None and self.cap < 0):
            problems.append("amounts are 0 or more")
        if self.minimum is not None and self.cap is not None and self.minimum > self.cap:
            problems.append("its minimum is above its cap")
        if problems:
            raise InvalidInput([f"pay plan {self.plan!r}, version {self.name!r}: {words}" for words in problems])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInForce:
    """A customer's plan from a day on until just before another (None = open)."""

    customer: str
    terms: PayPlanVersion
    from_day: date
    until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PayBase:
    """What a month's pay is worked out from: money before and after the aggregator's share, kWh given (None = unknown),
    and how many of the month's days are the customer's."""

    gross: Decimal
    net: Decimal
    kwh: Fraction | None
    days: int
    days_in_month: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bonus:
    """A sum for a season of a program in which a customer took part in at least `least_share` (0 to 1) of the events
    that asked."""

    name: str
    program: str
    year: int
    currency: str
    amount: Fraction
    least_share: Fraction = ZERO


def plan_on(plans: Sequence[PlanInForce], customer: str, day: date) -> PlanInForce | None:
    """The plan that a customer has on a day; None without one. Raises InvalidInput where there are two."""
    found = [
        one for one in plans
        if one.customer == customer and one.from_day <= day and (one.until is None or day < one.until)
    ]  # fmt: skip
    if len(found) > 1:
        names = " and ".join(f"{one.terms.plan!r} from {one.from_day}" for one in found)
        raise InvalidInput([f"customer {customer!r} has two pay plans on {day}: {names}"])
    return found[0] if found else None


def pay(terms: PayPlanVersion, base: PayBase) -> Decimal:
    """What a month pays, rounded once. Raises InvalidInput where pay by kWh has no kWh."""
    if terms.per_kwh and base.kwh is None:
        raise InvalidInput([f"pay plan {terms.plan!r} pays by kWh, and what was given is not known"])
    whole = Fraction(base.days, base.days_in_month) if terms.prorated else Fraction(int(base.days > 0))
    shared = Fraction(base.gross if terms.base is Basis.GROSS else base.net) * terms.share
    exact = shared + terms.fixed_per_month * whole + terms.per_kwh * max(ZERO, base.kwh or ZERO)
    if terms.minimum is not None:
        exact = max(exact, terms.minimum * whole)
    if terms.cap is not None:
        exact = min(exact, terms.cap * whole)
    return to_minor(max(ZERO, exact), terms.currency)


def bonus(agreed: Bonus, *, asked: int, took_part: int) -> Decimal:
    """What a season's bonus is, for events that asked and those in which the customer took part. A season without an
    event pays it: nobody failed to take part."""
    earned = not asked or Fraction(took_part, asked) >= agreed.least_share
    return to_minor(agreed.amount if earned else ZERO, agreed.currency)
