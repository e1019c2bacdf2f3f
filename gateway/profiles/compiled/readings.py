"""Turns point values into canonical readings. Unknown stays unknown; one unknown term makes a sum unknown."""

import math
from collections.abc import Callable, Mapping, Sequence

from gateway.profiles.compiled.points import EXACT_MAX, Value, Values, WholeNumber
from gateway.profiles.compiled.ranges import within
from gateway.profiles.language.base import FLIPPED
from gateway.profiles.language.points import Case, Match, Reading, Share, version_of
from gateway.profiles.language.quantities import READINGS, CanonicalQuantity

Get = Callable[[Mapping[str, Value]], float]
Doubt = Callable[[Values, float], bool]
NAN = math.nan


def holds(match: Match, values: Mapping[str, Value]) -> bool | None:
    """Whether `match` holds; None while the point is unknown."""
    value = values.get(match.point)
    if value is None:
        return None
    if match.all_bits is not None or match.any_bits is not None:
        return _has_bits(match, value)
    if match.above is not None:
        return isinstance(value, float) and value > match.above
    if match.from_version is not None or match.before_version is not None:
        return _in_versions(match, value)
    if match.begins:
        return isinstance(value, str) and value.startswith(match.begins)
    if match.contains:
        return isinstance(value, str) and any(text in value for text in match.contains)
    return any(_same(value, wanted) for wanted in match.equals)


def mismatch(match: Match, values: Mapping[str, Value], *, excluded: bool = False) -> str:
    """The value of a point that fails `match`, and the expected one, as text. `excluded`: anything else was
    expected."""
    return f"{_said(match.point, values)}, expected {'anything but ' if excluded else ''}{_expected(match)}"


def other_build(builds: Sequence[Sequence[Match]], values: Mapping[str, Value]) -> list[str]:
    """The values of points that fit none of `builds`, and those that would, as text; empty = they fit one."""
    if not builds or any(all(holds(match, values) for match in build) for build in builds):
        return []
    tested = dict.fromkeys(match.point for build in builds for match in build)
    said = " and ".join(_said(point, values) for point in tested)
    known = ", or ".join(" and ".join(f"{match.point} {_expected(match)}" for match in build) for build in builds)
    return [f"{said}, expected {known}"]


def _said(point: str, values: Mapping[str, Value]) -> str:
    value = values.get(point)
    return f"{point} is unknown" if value is None else f"{point} is {_text(value)}"


def _expected(match: Match) -> str:
    if match.all_bits is not None:
        return f"all bits of {match.all_bits:#x}"
    if match.any_bits is not None:
        return f"any bit of {match.any_bits:#x}"
    if match.above is not None:
        return f"more than {match.above:g}"
    if match.from_version is not None:
        return f"version {match.from_version} or later"
    if match.before_version is not None:
        return f"a version before {match.before_version}"
    known = match.begins or match.contains or match.equals
    texts = ("one of " if len(known) > 1 else "") + ", ".join(_text(text) for text in known)
    if match.begins:
        return f"a text that begins with {texts}"
    return f"a text with {texts} in it" if match.contains else texts


def _text(value: str | float | bool) -> str:
    return f"{value:.10g}" if isinstance(value, float) else repr(value)


def whole_number(value: Value) -> int | None:
    """A value as the whole number it is exactly; None for everything else, and where its low bits are lost."""
    if isinstance(value, WholeNumber):
        return value.exact
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_MAX else None


def _in_versions(match: Match, value: Value) -> bool | None:
    """Whether a text is a version in order; None where it is none."""
    found = version_of(value) if isinstance(value, str) else None
    if found is None:
        return None
    if match.from_version is not None:
        return found >= (version_of(match.from_version) or ())
    return found < (version_of(match.before_version or "") or ())


def _has_bits(match: Match, value: Value) -> bool | None:
    """Whether the bits are set; None where the number is not whole, or too large to have kept its low bits."""
    if not isinstance(value, float):
        return False
    whole = whole_number(value)
    if whole is None:
        return None
    if match.all_bits is not None:
        return whole & match.all_bits == match.all_bits
    return whole & (match.any_bits or 0) != 0


def _same(value: Value, wanted: str | float | bool) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool) or isinstance(value, str) or isinstance(wanted, str):
        return type(value) is type(wanted) and value == wanted
    if value is None:
        return False
    if isinstance(value, WholeNumber):
        return value.exact == wanted
    if value == wanted or (value.is_integer() and float(wanted).is_integer()):
        return value == wanted
    return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)


def compile_reading(name: str, reading: Reading) -> Get:
    """A function from values to the canonical number: NaN = unknown, enumerations as their number (0 = unknown)."""
    canonical = READINGS[name]
    if reading.cases:
        return _cases(reading.cases, reading.otherwise, canonical)
    if reading.any:
        return _flag(reading.any) if canonical.flag else _faults(reading.any)
    number = _number(reading)
    factor = -1.0 if reading.sign in FLIPPED else 1.0
    low, high = reading.range if reading.range is not None else (-math.inf, math.inf)

    def get(values: Mapping[str, Value]) -> float:
        value = number(values)
        if reading.negative_when is not None:
            negative = holds(reading.negative_when, values)
            if negative is None:
                return NAN
            value = -value if negative else value
        value *= factor
        if reading.at_least is not None and value < reading.at_least:
            value = reading.at_least
        inside = within(value, low, high)
        return NAN if inside is None else inside

    return get


def compile_doubt(name: str, reading: Reading) -> Doubt | None:
    """A function that says whether the reading rests on values that were read and not understood: a value invalid for
    its point, null in place of a word, an enumeration without a match, a number out of range. `None` for readings that
    are safe while unknown."""
    canonical = READINGS[name]
    if not canonical.unclear:
        return None
    if reading.cases:
        return _doubtful_cases(reading.cases, reading.otherwise)
    if reading.any:
        matches = reading.any
        return lambda values, _: any(_doubtful(match, values) for match in matches)
    points = reading.points()

    def doubtful(values: Values, number: float) -> bool:
        out_of_range = math.isnan(number) and all(values.get(point) is not None for point in points)
        return out_of_range or not values.unclear.isdisjoint(points)

    return doubtful


def _doubtful(match: Match, values: Values) -> bool:
    """Whether a match is undecided although its point has a value."""
    if match.point in values.unclear or match.point in values.null:
        return True
    return values.get(match.point) is not None and holds(match, values) is None


def _doubtful_cases(cases: tuple[Case, ...], otherwise: str | None) -> Doubt:
    def doubt(values: Values, _: float) -> bool:
        for case in cases:
            if any(_doubtful(match, values) for match in case.when):
                return True
            found = [holds(match, values) for match in case.when]
            if None in found or all(found):
                return False
        return otherwise is None

    return doubt


def _number(reading: Reading) -> Get:
    if reading.product is not None:
        return _product(*reading.product)
    return _mean(reading.mean) if reading.mean else _sum(reading)


def _mean(shares: tuple[Share, ...]) -> Get:
    """Unknown while any point or weight is, or where the weights are not all above 0."""

    def get(values: Mapping[str, Value]) -> float:
        total = weights = 0.0
        for share in shares:
            value, weight = values.get(share.point), values.get(share.weight)
            if not isinstance(value, float) or not isinstance(weight, float) or weight <= 0:
                return NAN
            total += value * weight
            weights += weight
        return total / weights

    return get


def _sum(reading: Reading) -> Get:
    terms = [(term.point, term.times) for term in reading.sum]
    if reading.point is not None:
        terms = [(reading.point, 1.0)]

    def get(values: Mapping[str, Value]) -> float:
        total = 0.0
        for point, times in terms:
            value = values.get(point)
            if not isinstance(value, float):
                return NAN
            total += value * times
        return total

    return get


def _product(first: str, second: str) -> Get:
    def get(values: Mapping[str, Value]) -> float:
        one, other = values.get(first), values.get(second)
        return one * other if isinstance(one, float) and isinstance(other, float) else NAN

    return get


def _cases(cases: tuple[Case, ...], otherwise: str | None, canonical: CanonicalQuantity) -> Get:
    members = canonical.members or {}
    last = members[otherwise] if otherwise is not None else 0

    def get(values: Mapping[str, Value]) -> float:
        for case in cases:
            found = [holds(match, values) for match in case.when]
            if None in found:
                return 0.0
            if all(found):
                return float(members[case.value])
        return float(last)

    return get


def _flag(matches: tuple[Match, ...]) -> Get:
    """1 if any match holds; an unknown point raises no flag."""

    def get(values: Mapping[str, Value]) -> float:
        return float(any(holds(match, values) for match in matches))

    return get


def _faults(matches: tuple[Match, ...]) -> Get:
    """Which matches hold, as bits; an unknown point shows no fault."""

    def get(values: Mapping[str, Value]) -> float:
        return float(sum(1 << i for i, match in enumerate(matches) if holds(match, values)))

    return get
