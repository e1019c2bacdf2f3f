"""From what a program file says of performance to the values that figures are worked out by."""

from collections.abc import Callable
from fractions import Fraction
from typing import TypeVar

from gateway.domain.rules.performance import EventTypes, MeasurementRules, PerformanceBound, PerformanceRules
from gateway.domain.rules.values import Evident
from gateway.programs.language import Bound, HourTypes, Measurement, Performance
from gateway.programs.values import Stated, V

T = TypeVar("T")


def performance_of(stated: Performance) -> PerformanceRules:
    """The rules of a version."""
    return PerformanceRules(
        baseline=_kept(stated.baseline),
        formula=_kept(stated.formula),
        parameters={name: _kept(value) for name, value in stated.parameters.items()},
        floor=_or_none(stated.floor, _bound),
        cap=_or_none(stated.cap, _bound),
        like_days=_or_none(stated.like_days, lambda value: value),
        ties=_or_none(stated.ties, lambda value: value),
        adjust_by=_or_none(stated.adjust_by, lambda value: value),
        exports_counted=_or_none(stated.exports_counted, bool),
        event_types=_or_none(stated.event_types, _types),
    )


def measurement_of(stated: Measurement) -> MeasurementRules:
    """Where a version measures, and by which interval."""
    length = stated.interval_length_s
    return MeasurementRules(
        point=_kept(stated.point),
        length_s=Evident(value=length.value, certainty=length.evidence, source=length.source),
    )


def _kept(stated: Stated[V]) -> Evident[V]:
    return Evident(value=stated.value, certainty=stated.evidence, source=stated.source)


def _or_none(stated: Stated[V] | None, value: Callable[[V], T]) -> Evident[T] | None:
    if stated is None:
        return None
    return Evident(value=value(stated.value), certainty=stated.evidence, source=stated.source)


def _bound(bound: Bound) -> PerformanceBound:
    kw = None if bound.kw is None else Fraction(str(bound.kw))
    return PerformanceBound(kw=kw, of=bound.of, level=bound.level, per=bound.per)


def _types(types: HourTypes) -> EventTypes:
    return EventTypes(counted=frozenset(types.counted), uncounted=frozenset(types.uncounted))
