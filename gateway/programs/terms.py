"""From the document of a program to the terms of taking part: who may be in it, and what is due when."""

import math
from collections.abc import Iterator

from gateway.domain.programs.eligibility import Requirements
from gateway.domain.programs.terms import (
    DATA_DUE,
    NOMINATION_DUE,
    NOMINATION_OPENS,
    DueRule,
    ProgramTerms,
    TermsVersion,
)
from gateway.domain.rules.values import Certainty
from gateway.programs.compile import season_of
from gateway.programs.language import ProgramDocument, Version
from gateway.programs.values import Stated


def terms_of(document: ProgramDocument) -> ProgramTerms:
    """The terms of a document that has no faults."""
    return ProgramTerms(
        zone=document.zone,
        exclusive=frozenset(() if document.exclusive is None else document.exclusive.value),
        versions=tuple(map(_version, document.versions)),
    )


def _version(version: Version) -> TermsVersion:
    asked, season, coverage = version.eligibility, version.rules.season, version.measurement.coverage_min_pct
    stated = ((name, getattr(asked, name)) for name in type(asked).model_fields)
    return TermsVersion(
        name=version.version,
        days=version.dates().dates(),
        requirements=Requirements(
            min_w=_number(asked.min_kw, 0.0) * 1000, max_w=_number(asked.max_kw, math.inf) * 1000,
            min_hours=_number(asked.min_hours, 0.0), completeness_pct=_number(asked.completeness_pct, 0.0),
        ),
        unverified=frozenset(
            name for name, value in stated if value is not None and value.evidence is Certainty.UNVERIFIED
        ),
        seasons=() if season is None else tuple(map(season_of, season.value)),
        due=tuple(_due(version)),
        coverage_min_pct=100.0 if coverage is None else coverage.value,
        interval_s=version.measurement.interval_length_s.value, point=version.measurement.point.value.value,
    )  # fmt: skip


def _number(stated: Stated[float] | None, absent: float) -> float:
    return absent if stated is None else stated.value


def _due(version: Version) -> Iterator[DueRule]:
    data, nomination = version.deadlines.data, version.deadlines.nomination
    if data is not None:
        one = data.value
        yield DueRule(what=DATA_DUE, per=one.per, days=one.days_after, by_min=one.by, certainty=data.evidence)
    if nomination is not None:
        of, certainty = nomination.value, nomination.evidence
        if of.opens_days_before is not None:
            yield DueRule(
                what=NOMINATION_OPENS, per=of.per, days=of.opens_days_before, by_min=0, certainty=certainty, before=True
            )
        yield DueRule(
            what=NOMINATION_DUE, per=of.per, days=of.days_before, by_min=of.by, certainty=certainty, before=True
        )
