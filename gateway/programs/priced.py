"""A priced table as plain data: every figure on the way, as text with a decimal point."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gateway.domain.programs.exact import shown
from gateway.domain.programs.performance import FigureRange
from gateway.domain.programs.pricing import COMPUTED, PricedHour, PricedPeriod, PricedTable
from gateway.domain.rules.rates import ChosenRate

ZERO = Fraction(0)


def priced_plain(table: PricedTable) -> dict[str, Any]:
    """Power in kW, prices per MWh, money in `currency`; None = unknown."""
    version, rules = table.version, table.version.performance
    return {
        "program": version.program,
        "version": version.name,
        "zone": version.zone,
        "baseline": None if rules is None else rules.baseline.value.value,
        "formula": None if rules is None else rules.formula.value.value,
        "unit": table.unit.value,
        "baseline_kw": shown(table.baseline_kw),
        "baseline_from": table.baseline_from,
        "currency": table.currency or None,
        "total": _money(table.total),
        "total_low": _money(table.total_low),
        "total_high": _money(table.total_high),
        "periods": [_period(one) for one in table.periods],
        "rests_on_unverified": [
            {"path": one.path, "evidence": one.certainty.value, "source": one.source}
            for one in table.rests_on_unverified
        ],
    }


def _period(one: PricedPeriod) -> dict[str, Any]:
    counted = [hour for hour in one.hours if hour.counted is not False]
    known = all(hour.least_weight == hour.most_weight for hour in counted)
    weights = sum((hour.least_weight for hour in counted), ZERO)
    weighted = sum((hour.least_weight * hour.performance_kw for hour in counted), ZERO)
    return {
        "period": one.name,
        "status": one.status,
        "why": one.why or None,
        "hours_counted": len(counted),
        "hours_missing": sum(hour.hour.net_kw is None for hour in counted),
        "weight_sum": shown(weights) if known else None,
        "weighted_sum": shown(weighted) if known else None,
        **_range("quantity", one.quantity),
        **_range("bounded", one.bounded),
        "rate": _rate(one.rate),
        "pay_exact": shown(one.pay_exact, 12) if one.status == COMPUTED else None,
        "pay": _money(one.pay),
        "pay_low": _money(one.pay_low),
        "pay_high": _money(one.pay_high),
        "hours": [_hour(hour) for hour in one.hours],
    }


def _range(name: str, found: FigureRange | None) -> dict[str, Any]:
    """One figure, or both ends of it."""
    low, high = (None, None) if found is None else (found.low, found.high)
    whole = low if found is not None and found.known else None
    return {name: shown(whole), f"{name}_low": shown(low), f"{name}_high": shown(high)}


def _hour(one: PricedHour) -> dict[str, Any]:
    begins = datetime.fromtimestamp(one.hour.start_ms / 1000, tz=UTC)
    return {
        "date": one.hour.day.isoformat(),
        "hour_end": one.hour.hour_end,
        "begins": f"{begins:%Y-%m-%dT%H:%M:%SZ}",
        "event_type": one.hour.event_type,
        "counted": one.counted,
        "price_usd_per_mwh": shown(one.hour.price),
        "net_discharge_kw": shown(one.hour.net_kw),
        "missing": one.hour.net_kw is None,
        "performance_kw": shown(one.performance_kw),
        "weight": shown(one.least_weight) if one.least_weight == one.most_weight else None,
        "weight_low": shown(one.least_weight),
        "weight_high": shown(one.most_weight),
    }


def _rate(chosen: ChosenRate | None) -> dict[str, Any] | None:
    if chosen is None:
        return None
    return {
        "name": chosen.rate.name,
        "amount": str(chosen.rate.amount),
        "per": chosen.rate.unit.value,
        "currency": chosen.rate.currency,
        "evidence": chosen.rate.certainty.value,
        "factors": [
            {"name": one.name, "factor": str(one.factor), "evidence": one.certainty.value} for one in chosen.factors
        ],
        "amount_with_factors": shown(chosen.amount),
    }


def _money(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"
