"""Compares what an aggregator says a month pays with what was worked out here: each difference by its cause, with the
meter and the amount; what no cause explains is a line of its own and is never added to another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from gateway.domain.money.currency import places_of, to_minor, zero

ZERO = Fraction(0)


class DifferenceCause(StrEnum):
    """Why two figures differ."""

    UNKNOWN_METER = "unknown_meter"
    MISSING_METER = "missing_meter"
    WITHDRAWN = "withdrawn"
    DUPLICATE = "duplicate"
    FEE = "fee"
    PENALTY = "penalty"
    PERFORMANCE_ADJUSTMENT = "performance_adjustment"
    PAYMENT_ADJUSTMENT = "payment_adjustment"
    RATE = "rate"
    COVERAGE = "coverage"
    HOURS = "hours"
    ROUNDING = "rounding"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRow:
    """A row of a report, as the aggregator gave it; what it does not say is None. `meter` "": of no meter, such as a
    fee. `total` is all of it, adjustments too; `penalty` is + where it was taken off. `missing_data`: the row says that
    data lacked. `about` holds what else makes it another row of the same meter, such as its market group."""

    meter: str
    total: Decimal
    earned_kw: Fraction | None = None
    price_per_kw: Fraction | None = None
    earned_kwh: Fraction | None = None
    price_per_kwh: Fraction | None = None
    performance_adjustment: Decimal | None = None
    payment_adjustment: Decimal | None = None
    penalty: Decimal | None = None
    coverage_pct: Fraction | None = None
    missing_data: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFigure:
    """What was worked out here for a meter and month."""

    meter: str
    amount: Decimal
    kw: Fraction | None = None
    price_per_kw: Fraction | None = None
    kwh: Fraction | None = None
    price_per_kwh: Fraction | None = None
    coverage_pct: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevenueDifference:
    """Theirs less ours, as far as one cause explains it."""

    meter: str
    cause: DifferenceCause
    amount: Decimal
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """All differences of a program's month; they sum to theirs less ours."""

    theirs: Decimal
    ours: Decimal
    differences: tuple[RevenueDifference, ...]

    def total(self, cause: DifferenceCause) -> Decimal:
        return sum((one.amount for one in self.differences if one.cause is cause), self.ours - self.ours)

    @property
    def unexplained(self) -> Decimal:
        """The sum of what no cause explains, each without its sign: two that cancel each other are two."""
        return sum(
            (abs(one.amount) for one in self.differences if one.cause is DifferenceCause.UNEXPLAINED),
            self.ours - self.ours,
        )

    def blocks(self, share: Fraction) -> bool:
        """Whether more than a share of the month is not explained."""
        most = max(abs(self.theirs), abs(self.ours))
        return Fraction(self.unexplained) > Fraction(most) * share


def reconcile(
    rows: Sequence[ReportedRow],
    own: Iterable[OwnFigure],
    currency: str,
    *,
    earlier: Mapping[str, Decimal] | None = None,
    stated_total: Decimal | None = None,
    other_hours: str = "",
) -> Reconciled:
    """Compare a program's month. `earlier`: what the version of the report before this one gave each meter;
    `stated_total`: the sum that the report itself states; `other_hours`: in words, how the hours that the report is
    about differ from ours (empty: they do not)."""
    known = {figure.meter: figure for figure in own}
    before = earlier or {}
    by_meter: dict[str, list[ReportedRow]] = defaultdict(list)
    for row in rows:
        by_meter[row.meter].append(row)
    found: list[RevenueDifference] = []
    for meter in sorted({*known, *by_meter}):
        theirs, ours = by_meter.get(meter, []), known.get(meter)
        if not meter:
            found += [_one(meter, DifferenceCause.FEE, row.total, row.about) for row in theirs]
        elif ours is None:
            found.append(_one(meter, DifferenceCause.UNKNOWN_METER, _sum(theirs, currency), "no meter of ours"))
        elif not theirs:
            cause = DifferenceCause.WITHDRAWN if meter in before else DifferenceCause.MISSING_METER
            words = f"the version before had {before[meter]}" if meter in before else "not in the report"
            found.append(_one(meter, cause, -ours.amount, words))
        else:
            found += _of_meter(theirs, ours, currency, other_hours)
    summed, expected = _sum(rows, currency), sum((one.amount for one in known.values()), zero(currency))
    total = summed if stated_total is None else stated_total
    if total != summed:
        found.append(_rest("", total - summed, currency, len(rows), "the report's own sum differs from its rows"))
    return Reconciled(theirs=total, ours=expected, differences=tuple(one for one in found if one.amount))


def _of_meter(rows: Sequence[ReportedRow], ours: OwnFigure, currency: str, other_hours: str) -> list[RevenueDifference]:
    """The difference of one meter, cause by cause: each takes its part from what is left."""
    found: list[RevenueDifference] = []
    left = _sum(rows, currency) - ours.amount
    once: list[ReportedRow] = []
    for row, count in Counter(rows).items():
        once.append(row)
        if count > 1:
            found.append(_one(ours.meter, DifferenceCause.DUPLICATE, row.total * (count - 1), f"{count} times"))
    for cause, amount in (
        (DifferenceCause.PERFORMANCE_ADJUSTMENT, [row.performance_adjustment for row in once]),
        (DifferenceCause.PAYMENT_ADJUSTMENT, [row.payment_adjustment for row in once]),
        (DifferenceCause.PENALTY, [None if row.penalty is None else -row.penalty for row in once]),
    ):
        found.append(_one(ours.meter, cause, sum((one for one in amount if one is not None), zero(currency))))
    found += _quantities(once, ours, currency, other_hours)
    left -= sum((one.amount for one in found), zero(currency))
    return [*found, _rest(ours.meter, left, currency, len(rows))]


def _quantities(
    rows: Sequence[ReportedRow], ours: OwnFigure, currency: str, other_hours: str
) -> list[RevenueDifference]:
    """What other prices and other quantities make; nothing where either side does not say them."""
    found = []
    missing = any(row.missing_data for row in rows)
    coverage = {row.coverage_pct for row in rows if row.coverage_pct is not None}
    other_coverage = missing or (ours.coverage_pct is not None and bool(coverage - {ours.coverage_pct}))
    for unit, quantity, price, own_quantity, own_price in (
        ("kW", [row.earned_kw for row in rows], [row.price_per_kw for row in rows], ours.kw, ours.price_per_kw),
        ("kWh", [row.earned_kwh for row in rows], [row.price_per_kwh for row in rows], ours.kwh, ours.price_per_kwh),
    ):  # fmt: skip
        given = [(much, each) for much, each in zip(quantity, price, strict=True) if much is not None]
        if not given or own_quantity is None or own_price is None:
            continue
        by_rate = sum((much * (each - own_price) for much, each in given if each is not None), ZERO)
        much = sum((much for much, _ in given), ZERO)
        words = f"their price per {unit} is {_figures([each for _, each in given])}, ours {float(own_price):g}"
        found.append(_one(ours.meter, DifferenceCause.RATE, to_minor(by_rate, currency), words))
        cause = DifferenceCause.COVERAGE if other_coverage else DifferenceCause.HOURS if other_hours else None
        if cause is not None:
            by_quantity = to_minor((much - own_quantity) * own_price, currency)
            told = other_hours if cause is DifferenceCause.HOURS else _coverage(coverage, ours, missing)
            found.append(_one(ours.meter, cause, by_quantity, told))
    return found


def _rest(meter: str, left: Decimal, currency: str, rows: int, words: str = "") -> RevenueDifference:
    """What is left: rounding up to one minor unit per row, else nobody knows why."""
    small = abs(Fraction(left)) * 10 ** places_of(currency) <= rows
    return _one(meter, DifferenceCause.ROUNDING if small else DifferenceCause.UNEXPLAINED, left, words)


def _coverage(theirs: set[Fraction], ours: OwnFigure, missing: bool) -> str:
    own = "unknown" if ours.coverage_pct is None else f"{float(ours.coverage_pct):g} %"
    return f"coverage is {_figures(theirs)} % to them, {own} to us" if theirs else f"data lacked to them, {own} to us"


def _figures(those: Iterable[Fraction | None]) -> str:
    return " and ".join(f"{float(one):g}" for one in sorted({one for one in those if one is not None})) or "unknown"


def _sum(rows: Sequence[ReportedRow], currency: str) -> Decimal:
    return sum((row.total for row in rows), zero(currency))


def _one(meter: str, cause: DifferenceCause, amount: Decimal, words: str = "") -> RevenueDifference:
    return RevenueDifference(meter=meter, cause=cause, amount=amount, words=words)
