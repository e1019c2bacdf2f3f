"""Currencies that money may be in, and how many digits their minor unit has (ISO 4217)."""

from decimal import Decimal
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.exact import half_up

MINOR_UNITS = {"AUD": 2, "CAD": 2, "CHF": 2, "EUR": 2, "GBP": 2, "JPY": 0, "NZD": 2, "USD": 2}


def places_of(currency: str) -> int:
    """Digits after the point. Raises InvalidInput for a currency that is not listed."""
    if currency not in MINOR_UNITS:
        raise InvalidInput([f"{currency!r} is no currency that money is kept in: {', '.join(sorted(MINOR_UNITS))}"])
    return MINOR_UNITS[currency]


def to_minor(value: Fraction | Decimal, currency: str) -> Decimal:
    """The one rounding step of money: half up, to the minor unit of its currency."""
    return half_up(value, places_of(currency))


def zero(currency: str) -> Decimal:
    """Nothing, in a currency."""
    return half_up(Fraction(0), places_of(currency))


def is_whole(amount: Decimal, currency: str) -> bool:
    """Whether an amount has no more digits than its currency's minor unit."""
    return amount.is_finite() and (Fraction(amount) * 10 ** places_of(currency)).denominator == 1
