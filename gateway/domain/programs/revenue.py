"""What an aggregator pays for a month, and what more it could have been."""

from dataclasses import dataclass
from fractions import Fraction

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityMonth:
    """A month of a program that pays capacity and energy: kW and kWh as promised and as earned, prices per kW and per
    kWh, adjustments of either sign. `share`: earned of nominated; None without a nomination."""

    nominated_kw: Fraction
    earned_kw: Fraction
    price_per_kw: Fraction
    awarded_kwh: Fraction = ZERO
    earned_kwh: Fraction = ZERO
    price_per_kwh: Fraction = ZERO
    performance_adjustment: Fraction = ZERO
    payment_adjustment: Fraction = ZERO

    @property
    def share(self) -> Fraction | None:
        return self.earned_kw / self.nominated_kw if self.nominated_kw else None

    @property
    def potential(self) -> Fraction:
        """What it pays where all is given that was promised."""
        return self.nominated_kw * self.price_per_kw + self.awarded_kwh * self.price_per_kwh

    @property
    def actual(self) -> Fraction:
        earned = self.earned_kw * self.price_per_kw + self.earned_kwh * self.price_per_kwh
        return earned + self.performance_adjustment + self.payment_adjustment

    @property
    def missed(self) -> Fraction:
        """What was not earned of what could have been; never below 0."""
        return max(ZERO, self.potential - self.actual)
