"""What the aggregator says of enrollments, as rows of the table of enrollments, purely.

It is read leniently: what it leaves out is absent, an unknown word stays as it is. Nothing follows from what a list
does not show.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain.types import is_device_id

SEARCH = "/v2/meters/enrollments/search"
MEMBER = "meters"
PARTICIPATE = "PARTICIPATE"
ARCHIVED = "archived"
ACTIONS_MAX = 20
WORDS_MAX = 200
FAR_YEAR = 2090

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredAction:
    """Something that is to be done, by us (`partner`) or by the aggregator, in its own words."""

    meter: str
    reference: str
    whose: str
    code: str
    kind: str
    program: str
    deadline: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePeriod:
    """A time in which a meter takes part or sits out, in the aggregator's word; None = without end."""

    word: str
    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterEnrollment:
    """A meter as the aggregator has it: a row for each delivery period, what is to be done, whether its owner takes
    part now (`wish`, "" = nothing is said), and all times in which they do or do not. `holds`: the wish that holds now,
    in the columns of a row; one that is to come may stand in the rows. `problems`: what could not be read."""

    meter: str
    reference: str
    rows: tuple[Row, ...]
    actions: tuple[RequiredAction, ...]
    wish: str
    holds: Row
    periods: tuple[PreferencePeriod, ...] = ()
    problems: tuple[str, ...] = ()


def meter_enrollment(found: Mapping[str, Any], now: datetime) -> MeterEnrollment | None:
    """One entry of the search; None = it names no meter."""
    meter = found.get("meter_id")
    if not isinstance(meter, str) or not is_device_id(meter):
        return None
    reference = _text(found.get("partner_reference"))
    preferences = _list(found.get("participation_preferences"))
    wishes = _wishes(preferences, now)
    holds = _wish([entry for entry in wishes if entry[1]])
    wish = _wish(wishes)
    problems: list[str] = []
    actions = tuple(_actions(meter, reference, found.get("required_actions")))
    rows: list[Row] = []
    for period in _list(found.get("program_enrollment")):
        row = _row(meter, reference, period, archived=found.get("is_archived") is True)
        missing = [name for name in NEEDED if not row.get(name)]
        if missing:
            problems.append(f"{meter}: a delivery period without {', '.join(missing)}")
            continue
        rows.append(row | wish)
    return MeterEnrollment(
        meter=meter, reference=reference, rows=tuple(rows), actions=actions,
        wish=wish.get("participation_preference", ""), holds=holds, periods=tuple(_periods(preferences)),
        problems=tuple(problems),
    )  # fmt: skip


NEEDED = (
    "program_identifier", "delivery_period", "delivery_period_start_date_time", "delivery_period_end_date_time",
    "enrollment_status",
)  # fmt: skip


def _row(meter: str, reference: str, period: Mapping[str, Any], *, archived: bool) -> Row:
    row: Row = {"meter_id": meter} | {name: _text(period.get(name)) for name in (*NEEDED, "market_group_id")}
    if is_device_id(reference):
        row["partner_reference"] = reference
    if archived:
        row |= {"enrollment_status": "INELIGIBLE", "reasons": ARCHIVED}
    deadlines = _list(period.get("enrollment_deadlines"))
    # the last one: those before it are over, or were not met
    newest = max(deadlines, key=lambda one: _text(one.get("enrollment_deadline_date_time")), default=None)
    for name in ("enrollment_deadline_date_time", "activation_date_time"):
        row[name] = "" if newest is None else _text(newest.get(name))
    return {name: value for name, value in row.items() if value}


_Wish = tuple[bool, bool, str, Row]
"""Whether its owner sits out, whether it has begun, since when (text), and its columns."""


def _wishes(preferences: Sequence[Mapping[str, Any]], now: datetime) -> list[_Wish]:
    """Those that are not over."""
    found: list[_Wish] = []
    for one in preferences:
        word, start, end = (_text(one.get(name)) for name in ("participation_preference", "start_time", "end_time"))
        begins, ends = _moment(start), _moment(end)
        if not word or begins is None or (ends is not None and ends <= now):
            continue
        row = {"participation_preference": word, "participation_start_time": start}
        if ends is not None:
            row["participation_end_time"] = end
        found.append((word != PARTICIPATE, begins <= now, start, row))
    return found


def _wish(wishes: Sequence[_Wish]) -> Row:
    """Whether the owner takes part: a time in which they do not counts before one in which they do, one that holds now
    before one that is to come."""
    out = [entry for entry in wishes if entry[0]]
    now_out = [entry for entry in out if entry[1]]
    if now_out:
        return max(now_out, key=lambda entry: entry[2])[3]
    if out:
        return min(out, key=lambda entry: entry[2])[3]
    return max((entry for entry in wishes if entry[1]), key=lambda entry: entry[2], default=(False, False, "", {}))[3]


def _periods(preferences: Sequence[Mapping[str, Any]]) -> Iterable[PreferencePeriod]:
    for one in preferences:
        word, start = _text(one.get("participation_preference")), _moment(_text(one.get("start_time")))
        if word and start is not None:
            yield PreferencePeriod(word=word, start=start, end=_moment(_text(one.get("end_time"))))


def _moment(text: str) -> datetime | None:
    """A moment; None = none, or so far away that it stands for none."""
    if not text[:4].isdigit() or int(text[:4]) >= FAR_YEAR:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def _actions(meter: str, reference: str, found: object) -> Iterable[RequiredAction]:
    if not isinstance(found, Mapping):
        return
    for whose in ("partner", "leap"):
        for one in _list(found.get(whose))[:ACTIONS_MAX]:
            yield RequiredAction(
                meter=meter, reference=reference, whose=whose, code=_text(one.get("action_code")),
                kind=_text(one.get("action_type")), program=_text(one.get("program_identifier")),
                deadline=_text(one.get("enrollment_deadline_date_time")), text=_text(one.get("action_description")),
            )  # fmt: skip


def _list(found: object) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(found: object) -> str:
    return found[:WORDS_MAX] if isinstance(found, str) else ""
