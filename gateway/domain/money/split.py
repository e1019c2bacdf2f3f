"""Splits an amount that came in one sum over the homes it is for, by a named rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from gateway.domain.errors import InvalidInput
from gateway.domain.money.currency import places_of
from gateway.domain.programs.exact import largest_remainder

ZERO = Fraction(0)


class SplitBy(StrEnum):
    """What a share is by."""

    DEMONSTRATED_KW = "demonstrated_kw"
    MEASURED_KWH = "measured_kwh"
    NOMINATED_KW = "nominated_kw"
    EQUAL = "equal"


class GetsNothing(StrEnum):
    """Why a home has no share, where the rule says so."""

    OPTED_OUT = "opted_out"
    NO_DATA = "no_data"
    INELIGIBLE = "ineligible"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """By what an amount is split and who gets nothing; in force from a day on. A figure below 0 counts as 0."""

    name: str
    by: SplitBy
    nothing_for: frozenset[GetsNothing] = frozenset(GetsNothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A home of a customer in a month: figures that shares may be by (None = unknown) and what stands against one. A
    home that was sold in the month has a claim for each customer, of the days that were theirs."""

    site: str
    customer: str
    demonstrated_kw: Fraction | None = None
    measured_kwh: Fraction | None = None
    nominated_kw: Fraction | None = None
    days: int
    against: frozenset[GetsNothing] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """The weight of a claim, or why it has none."""

    weight: Fraction
    nothing_because: GetsNothing | None = None


def weights(claims: Sequence[Claim], rule: SplitRule) -> list[Weighted]:
    """The weight of each claim. An unknown figure is no data; where the rule gives those without data something all the
    same, it is nothing to split by and counts 0. Equal shares are by the days of a claim."""
    found = []
    for claim in claims:
        figure = _figure(claim, rule.by)
        against = set(claim.against) | ({GetsNothing.NO_DATA} if figure is None else set())
        because = next((why for why in GetsNothing if why in against and why in rule.nothing_for), None)
        found.append(
            Weighted(
                weight=ZERO if because is not None or figure is None else max(ZERO, figure), nothing_because=because
            )
        )
    return found


def split(amount: Decimal, shares: Sequence[Weighted], currency: str) -> list[Decimal]:
    """`amount` by weights: every part whole in its minor unit, and all of them sum to it. Raises InvalidInput where
    there is something to split and nobody to have it."""
    every = [one.weight for one in shares]
    if not amount:
        return [amount for _ in every]
    if not any(every):
        raise InvalidInput([f"{amount} {currency} cannot be split: no home has a share by the rule"])
    return largest_remainder(amount, every, places_of(currency))


def _figure(claim: Claim, by: SplitBy) -> Fraction | None:
    match by:
        case SplitBy.DEMONSTRATED_KW:
            return claim.demonstrated_kw
        case SplitBy.MEASURED_KWH:
            return claim.measured_kwh
        case SplitBy.NOMINATED_KW:
            return claim.nominated_kw
        case SplitBy.EQUAL:
            return Fraction(claim.days)
