"""Which of a program's rates somebody means by a class: a duration, a utility, or the name of a rate."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from gateway.domain.errors import InvalidInput
from gateway.domain.rules.program import ProgramVersion
from gateway.domain.rules.rates import ChosenRate, NoRate, Rate, RateCase, RateUnit, choose_rate

_DURATION = re.compile(r"([0-9]{1,2}) ?-?h?(our)?s?", re.IGNORECASE)


def of_class(rates: Sequence[Rate], name: str) -> tuple[Sequence[Rate], RateCase]:
    """The rates that a class leaves, and the case it makes. Without a class (`name` is empty) the duration is that of
    all rates, where they have only one. Raises InvalidInput for a class that no rate is of."""
    durations = {rate.duration_h for rate in rates}
    utilities = {utility for rate in rates for utility in rate.utilities}
    case = RateCase(event=date.min)
    if not name or not rates:
        return rates, replace(case, duration_h=durations.pop()) if len(durations) == 1 else case
    found = _DURATION.fullmatch(name)
    if found is not None and int(found[1]) in durations:
        return rates, replace(case, duration_h=int(found[1]))
    for utility in utilities:
        if utility.casefold() == name.casefold():
            return rates, replace(case, utility=utility)
    named = [rate for rate in rates if rate.name == name]
    if not named:
        known = [*sorted(f"{hours}h" for hours in durations if hours is not None), *sorted(utilities)]
        known += [rate.name for rate in rates]
        raise InvalidInput([f"no rate is of the class {name!r}: there are {', '.join(known)}"])
    one = named[0]
    utility_of = next(iter(sorted(one.utilities)), None)
    return named, replace(case, duration_h=one.duration_h, utility=utility_of)


def rate_in_force(
    version: ProgramVersion, rates: Sequence[Rate], unit: RateUnit, days: Sequence[date], case: RateCase
) -> ChosenRate | NoRate:
    """The one rate of `unit` that holds on all of some days. Raises InvalidInput where one follows another."""
    found: ChosenRate | NoRate = NoRate(reason="there is no day")
    for n, day in enumerate(days):
        season = version.calendar.season(day)
        of_day = replace(case, event=day, season="" if season is None else season.name, years_by=version.years_by)
        chosen = choose_rate(rates, version.factors, unit, of_day)
        if isinstance(chosen, NoRate):
            return chosen
        if n and chosen != found:
            raise InvalidInput([f"the rate changes between {days[n - 1]} and {day}: price them apart"])
        found = chosen
    return found
