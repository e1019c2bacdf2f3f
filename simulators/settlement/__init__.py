"""What programs pay, worked out in exact fractions from published arithmetic: the judge of what the gateway says.

Written from the programs' descriptions alone. Powers are kW (+ = discharge), energies kWh, prices and rates decimal
numbers; nothing is rounded but by `cents`. Nothing here imports the gateway.
"""

from decimal import Decimal
from fractions import Fraction

Exact = Fraction
Number = int | str | Decimal | Fraction


def exact(value: Number) -> Exact:
    """A number as it was written."""
    return Fraction(value)


def cents(amount: Exact) -> Decimal:
    """Half a cent goes away from zero."""
    doubled, sign = abs(amount) * 200, -1 if amount < 0 else 1
    whole = (doubled.numerator // doubled.denominator + 1) // 2
    return Decimal(sign * whole).scaleb(-2)
