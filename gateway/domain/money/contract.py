"""What an aggregator keeps of what a program pays, by the version of its contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import to_minor

ZERO = Fraction(0)


class Basis(StrEnum):
    """What an imported amount is: what the program pays, what the aggregator passes on, or nobody knows."""

    GROSS = "gross"
    NET = "net"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractVersion:
    """From a day on until just before another (None = open): a share of gross (0 to 1), a fixed amount per month, an
    amount per kW and month; what is not agreed is 0. They add up."""

    name: str
    from_day: date
    until: date | None = None
    currency: str
    share: Fraction = ZERO
    fixed_per_month: Fraction = ZERO
    per_kw_month: Fraction = ZERO

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InvalidInput([f"contract {self.name!r}: a share of {float(self.share)} is not from 0 to below 1"])
        if min(self.fixed_per_month, self.per_kw_month) < 0:
            raise InvalidInput([f"contract {self.name!r}: what the aggregator keeps is 0 or more"])
        if self.until is not None and self.until <= self.from_day:
            raise InvalidInput([f"contract {self.name!r} ends before it begins"])


@dataclass(frozen=True, slots=True, kw_only=True)
class GrossAndNet:
    """An amount before and after the aggregator's share, and that share; money."""

    gross: Decimal
    share: Decimal
    net: Decimal


def contract_on(versions: Sequence[ContractVersion], day: date) -> ContractVersion | None:
    """The version in force on a day; None without one. Raises InvalidInput where two are."""
    found = [one for one in versions if one.from_day <= day and (one.until is None or day < one.until)]
    if len(found) > 1:
        raise InvalidInput([f"contracts {found[0].name!r} and {found[1].name!r} are both in force on {day}"])
    return found[0] if found else None


def gross_and_net(amount: Decimal, basis: Basis, contract: ContractVersion, *, kw: Fraction = ZERO) -> GrossAndNet:
    """An amount of a month as both. `kw`: what a charge per kW is of. Raises InvalidInput where nobody knows which of
    them it is: from that nobody is paid."""
    if basis is Basis.UNKNOWN:
        raise InvalidInput([f"whether {amount} is gross or net is not known: nobody is paid from it"])
    charges = contract.fixed_per_month + contract.per_kw_month * kw
    if basis is Basis.GROSS:
        share = to_minor(Fraction(amount) * contract.share + charges, contract.currency)
        return GrossAndNet(gross=amount, share=share, net=amount - share)
    gross = to_minor((Fraction(amount) + charges) / (1 - contract.share), contract.currency)
    return GrossAndNet(gross=gross, share=gross - amount, net=amount)
