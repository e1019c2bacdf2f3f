"""What the schema of a program alone cannot see: versions in time, names that must be there, rates that rival."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import combinations, pairwise

from pydantic import BaseModel

from gateway.domain.rules.preparation import KeepFrom
from gateway.domain.rules.values import Effect
from gateway.programs.compile import rate_of, season_of
from gateway.programs.language import DispatchRules, Pricing, ProgramDocument, RateEntry, Version
from gateway.yaml_lines import Loc

Fault = tuple[Loc, str]

ALWAYS_BIND = ("storm_lockout_h", "reserve_pct", "export", "grid_charge")
NO_CLIP = ("notice", "events")
"""Of an event that breaks one of these nothing would be left to run."""

GAP_DAYS_MAX = 366


def faults_of(document: ProgramDocument) -> Iterator[Fault]:
    """Every fault, with its place."""
    yield from _versions(document)
    yield from _sources(document)
    for i, version in enumerate(document.versions):
        at: Loc = ("versions", i)
        yield from _rules(document, version, (*at, "rules"))
        yield from _preparation(version, at)
        yield from _rates(document, version, at)


def clashes(documents: Iterable[ProgramDocument]) -> Iterator[tuple[str, Fault]]:
    """What is wrong between programs: two that a peer calls by one name. The program, and its fault."""
    known: dict[tuple[str, str], str] = {}
    for document in documents:
        for peer, names in document.peer_ids.items():
            for i, name in enumerate(names):
                other = known.setdefault((peer, name), document.program)
                if other != document.program:
                    yield document.program, (("peer_ids", peer, i), f"{name!r} is {other} already")


def _versions(document: ProgramDocument) -> Iterator[Fault]:
    versions = document.versions
    names = [version.version for version in versions]
    for i, version in enumerate(versions):
        if version.version in names[:i]:
            yield ("versions", i, "version"), f"another version is {version.version!r}"
        if version.until is not None and version.until <= version.first:
            yield ("versions", i, "until"), "not after from"
    for i, (one, after) in enumerate(pairwise(versions), 1):
        if after.first < one.first:
            yield ("versions", i, "from"), f"before that of {one.version!r}: versions stand in the order of their days"
        elif one.until is None or one.until > after.first:
            until = "further notice" if one.until is None else one.until
            yield ("versions", i, "from"), f"overlaps {one.version!r}, which is in force until {until}"
        elif one.until < after.first and (lost := _in_season((one, after), one.until, after.first)) is not None:
            yield ("versions", i, "from"), f"leaves a gap after {one.version!r}: {lost} is inside a season"


def _in_season(versions: Sequence[Version], first: date, until: date) -> date | None:
    """The first day from `first` until `until` that is inside a season of a version; of one without, any day."""
    for n in range(min((until - first).days, GAP_DAYS_MAX)):
        day = first + timedelta(days=n)
        for version in versions:
            season = version.rules.season
            if season is None or any(season_of(one).covers(day) for one in season.value):
                return day
    return None


def _sources(document: ProgramDocument) -> Iterator[Fault]:
    for at, source in _cited(document, ()):
        if source not in document.sources:
            yield (*at, "source"), f"{source!r} is not among the sources"


def _cited(value: object, at: Loc) -> Iterator[tuple[Loc, str]]:
    """Every source that is named inside `value`, with the place of what names it."""
    if isinstance(value, BaseModel):
        source = getattr(value, "source", None)
        if isinstance(source, str):
            yield at, source
        for key, field in type(value).model_fields.items():
            yield from _cited(getattr(value, key), (*at, field.alias or key))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _cited(item, (*at, i))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _cited(item, (*at, key))


def _rules(document: ProgramDocument, version: Version, at: Loc) -> Iterator[Fault]:
    rules = version.rules
    for name in ALWAYS_BIND:
        if (rule := getattr(rules, name)) is not None and rule.effect is Effect.WARN:
            yield (*at, name, "effect"), "refuse or clip: this binds whoever dispatches"
    for name in NO_CLIP:
        if (rule := getattr(rules, name)) is not None and rule.effect is Effect.CLIP:
            yield (*at, name, "effect"), "refuse or warn: nothing of the event would be left"
    yield from _seasons(rules, at)
    if rules.window is not None:
        yield from _windows(rules, (*at, "window", "value"))
    if rules.weekdays is not None and (but := rules.weekdays.value.but) is not None:
        place: Loc = (*at, "weekdays", "value", "but")
        if but not in document.holidays:
            yield place, f"{but!r} is not among the holidays"
        else:
            known = {day.year for day in document.holidays[but].dates}
            last = version.first if version.until is None else version.until - timedelta(days=1)
            missing = [year for year in range(version.first.year, last.year + 1) if year not in known]
            if missing:
                yield place, f"{but!r} has no day of {missing[0]}, in which this version is in force"


def _windows(rules: DispatchRules, at: Loc) -> Iterator[Fault]:
    windows = () if rules.window is None else rules.window.value
    names = [] if rules.season is None else [one.name for one in rules.season.value]
    for i, window in enumerate(windows):
        if window.season is not None and window.season not in names:
            yield (*at, i, "season"), f"{window.season!r} is not a season of this version"
    for (_, one), (i, two) in combinations(enumerate(windows), 2):
        together = None in (one.season, two.season) or one.season == two.season
        if together and one.first < two.until and two.first < one.until:
            yield (*at, i), "overlaps another window"


def _seasons(rules: DispatchRules, at: Loc) -> Iterator[Fault]:
    if rules.season is None:
        return
    names = [one.name for one in rules.season.value]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield (*at, "season", "value", i, "name"), f"another season is {name!r}"
    seasons = [season_of(one) for one in rules.season.value]
    year = [date(2024, 1, 1) + timedelta(days=n) for n in range(366)]
    for (_, one), (i, two) in combinations(enumerate(seasons), 2):
        shared = next((day for day in year if one.covers(day) and two.covers(day)), None)
        if shared is not None:
            yield (*at, "season", "value", i), f"overlaps {one.name!r} on {shared:%m-%d}"


def _preparation(version: Version, at: Loc) -> Iterator[Fault]:
    keep = version.preparation.keep_h
    if keep is not None and keep.value is KeepFrom.NOTICE and version.rules.notice is None:
        yield (*at, "preparation", "keep_h"), "notice: there is no rules.notice"
    wanted, permitted = version.preparation.charge_from_grid, version.rules.grid_charge
    if wanted is not None and wanted.value and not (permitted is not None and permitted.value):
        yield (*at, "preparation", "charge_from_grid"), "rules.grid_charge does not permit it"


def _rates(document: ProgramDocument, version: Version, at: Loc) -> Iterator[Fault]:
    if document.pricing is Pricing.RATES and not version.rates:
        yield (*at, "rates"), "missing: the program's pricing is rates"
    if document.pricing is Pricing.NONE and (version.rates or version.factors or version.penalties):
        yield (*at, "rates"), "there are none: the program's pricing is none"
    seasons = [] if version.rules.season is None else [one.name for one in version.rules.season.value]
    for i, rate in enumerate(version.rates):
        yield from _rate(document, version, rate, seasons, (*at, "rates", i))
    for i, factor in enumerate(version.factors):
        if not _in_order(factor.events.first, factor.events.until):
            yield (*at, "factors", i, "events", "until"), "not after from"
    whole = [(i, rate_of(rate)) for i, rate in enumerate(version.rates) if rate.currency is not None]
    for (_, one), (j, two) in combinations(whole, 2):
        if one.rivals(two):
            yield (*at, "rates", j), f"holds for the same events and homes as {one.name!r}"


def _rate(
    document: ProgramDocument, version: Version, rate: RateEntry, seasons: Sequence[str], at: Loc
) -> Iterator[Fault]:
    if rate.currency is None:
        yield (*at, "currency"), "missing: a rate has a currency, like USD"
    for i, utility in enumerate(rate.utilities):
        if document.utilities is None or utility not in document.utilities.value:
            yield (*at, "utilities", i), f"{utility!r} is not among the utilities of the program"
    if rate.season is not None and rate.season not in seasons:
        yield (*at, "season"), f"{rate.season!r} is not a season of this version"
    if rate.years is not None:
        if version.participation_years is None:
            yield (*at, "years"), "participation_years is missing: how are they counted?"
        if rate.years.last < rate.years.first:
            yield (*at, "years", "to"), "before from"
    for name, days in (("events", rate.events), ("enrolled", rate.enrolled)):
        if not _in_order(days.first, days.until):
            yield (*at, name, "until"), "not after from"


def _in_order(first: date | None, until: date | None) -> bool:
    return first is None or until is None or first < until
