"""Exact numbers, and the one step in which money is rounded: half up, to the minor unit of its currency."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

CENTS = 2
SHOWN_PLACES = 6


def half_up(value: Fraction | Decimal, places: int = CENTS) -> Decimal:
    """`value` with `places` digits after the point; halves go away from zero."""
    whole = Fraction(value) * 10**places
    count = (2 * abs(whole.numerator) + whole.denominator) // (2 * whole.denominator)
    return _decimal(-count if whole < 0 else count, places)


def largest_remainder(
    total: Decimal, weights: Sequence[Fraction | Decimal | int], places: int = CENTS
) -> list[Decimal]:
    """`total` (of no more than `places` digits) in parts by weights, which sum to it. What is left after rounding
    down goes to the largest remainders, of equal ones to the first. Raises ValueError without weights above 0."""
    shares = [Fraction(weight) for weight in weights]
    whole = Fraction(total) * 10**places
    if whole.denominator != 1:
        raise ValueError(f"{total} has more than {places} digits after the point")
    if any(share < 0 for share in shares) or not sum(shares):
        raise ValueError("weights are 0 or more, and not all of them 0")
    units, every = abs(whole.numerator), sum(shares)
    exact = [units * share / every for share in shares]
    counts = [one.numerator // one.denominator for one in exact]
    order = sorted(range(len(exact)), key=lambda n: counts[n] - exact[n])
    for n in order[: units - sum(counts)]:
        counts[n] += 1
    return [_decimal(-count if whole < 0 else count, places) for count in counts]


def shown(value: Fraction | Decimal | None, places: int = SHOWN_PLACES) -> str | None:
    """A figure as text, with at most `places` digits after the point; None stays unknown."""
    if value is None:
        return None
    text = f"{half_up(value, places):f}"
    return text.rstrip("0").rstrip(".") or "0"


def _decimal(count: int, places: int) -> Decimal:
    """`count` units of the last of `places` digits, whatever the precision of the context."""
    return Decimal((int(count < 0), tuple(map(int, str(abs(count)))), -places))
