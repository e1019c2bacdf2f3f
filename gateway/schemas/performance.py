"""The performance of an event as plain data: what is stored, and what the doors answer.

Energy is whole Wh, power W, delivered power kW, money text with a decimal point; null = not known.
"""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from gateway.domain.programs.event_performance import EventPerformance, FigureLevel, HourFigure, PerformanceFigure
from gateway.domain.programs.event_value import EventValue
from gateway.domain.programs.exact import shown

Plain = dict[str, Any]
W_PLACES = 1


def performance_plain(found: EventPerformance) -> Plain:
    """An event as a whole: its program's figure, and how many figures there are of each level."""
    return {
        "program": found.program,
        "version": found.version,
        "measured_at": found.point.value,
        "estimate": found.estimate,
        "paid_at": found.paid_at.value,
        "start": utc_text(found.from_ms),
        "end": utc_text(found.until_ms),
        "interval_s": found.length_s,
        "awarded_w": shown(found.awarded_w, W_PLACES),
        "nominated_w": shown(found.nominated_w, W_PLACES),
        "own_use_wh": found.own_use_wh,
        "unsure_homes": found.unsure_homes,
        "counts": {level.value: len(found.figures[level]) for level in FigureLevel},
        "figure": figure_plain(found.whole),
        "rests_on_unverified": [
            {"path": one.path, "evidence": one.certainty.value, "source": one.source}
            for one in found.rests_on_unverified
        ],
    }


def figure_plain(one: PerformanceFigure) -> Plain:
    """One battery, home, customer, or the program."""
    return {
        "name": one.name,
        "within": one.within,
        "energy_wh": one.energy_wh,
        "asked_wh": one.asked_wh,
        "given_wh": one.given_wh,
        "short_wh": one.short_wh,
        "short_because": {why.value: wh for why, wh in one.reasons.items()},
        "late_s": one.late_s,
        "early_s": one.early_s,
        "covered_pct": round(one.covered_pct, 1),
        "no_baseline_because": one.why_no_baseline or None,
        "value": None if one.value is None else _value(one.value),
        "hours": [_hour(hour) for hour in one.hours],
    }


def utc_text(ms: int) -> str:
    """RFC 3339."""
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _hour(hour: HourFigure) -> Plain:
    return {
        "begins": utc_text(hour.start_ms),
        "seconds": hour.part_s,
        "energy_wh": hour.energy_wh,
        "power_w": shown(hour.power_w, W_PLACES),
        "baseline_kw": _kw(hour.baseline_kw),
        "delivered_kw": _kw(hour.delivered_kw),
        "covered_pct": round(hour.covered_pct, 1),
    }


def _kw(value: Fraction | None) -> str | None:
    return shown(value)


def _value(value: EventValue) -> Plain:
    def money(amount: Any) -> str | None:
        return None if amount is None else f"{amount:f}"

    return {
        "status": value.status,
        "value": money(value.value),
        "low": money(value.low),
        "high": money(value.high),
        "currency": value.currency or None,
        "per": value.per or None,
        "why": value.why or None,
    }
