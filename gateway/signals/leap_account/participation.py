"""Times in which a meter sits out, takes part or leaves, as the aggregator is told and as it tells them.

Dates are local days of the meter. The public text names no members of a period (`start_date` and `end_date` are not
verified), so whoever sends them reads the effect back.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from gateway.domain.programs.outbox import Content, WriteKind

BASE = "/v1.1/enrollment/meters"
ZONE = "zone"
WORDS = {WriteKind.IDLE: "IDLE", WriteKind.PARTICIPATE: "PARTICIPATE", WriteKind.DISENROLL: "DISENROLL"}
MEMBERS = {
    WriteKind.IDLE: frozenset({"start_date", "end_date", ZONE}),
    WriteKind.PARTICIPATE: frozenset({"start_date", ZONE}),
    WriteKind.DISENROLL: frozenset({"start_date", "reason", ZONE}),
}
FAR = 2090


def faults(kind: WriteKind, subject: str, after: Content, now: datetime) -> list[str]:
    """What is wrong with a row."""
    members = MEMBERS[kind]
    found = [f"{subject}: {name}: required" for name in sorted(members - after.keys())]
    found += [f"{subject}: {name[:64]}: unknown" for name in sorted(after.keys() - members)]
    if found:
        return found
    try:
        today = now.astimezone(ZoneInfo(str(after[ZONE]))).date()
        start = date.fromisoformat(str(after["start_date"]))
        end = date.fromisoformat(str(after.get("end_date", after["start_date"])))
    except (ValueError, OSError) as error:
        return [f"{subject}: {error}"]
    if end < start:
        found.append(f"{subject}: end_date: before start_date")
    if kind is WriteKind.DISENROLL and start <= today:
        found.append(f"{subject}: start_date: a meter leaves from tomorrow on at the earliest")
    return found


def request(kind: WriteKind, subject: str, after: Content) -> tuple[str, Any]:
    """The path and the body for one meter."""
    if kind is WriteKind.IDLE:
        period = {"start_date": after["start_date"], "end_date": after["end_date"]}
        return f"{BASE}/{subject}/idle_periods", [period]
    if kind is WriteKind.PARTICIPATE:
        return f"{BASE}/{subject}/participate", {"date": after["start_date"]}
    return f"{BASE}/{subject}/disenrollment_requests", {"date": after["start_date"], "reason": after["reason"]}


def content(kind: WriteKind, preferences: Sequence[Any], after: Content) -> dict[str, Any] | None:
    """What the aggregator has where a row wants something; None = nothing like it."""
    zone = ZoneInfo(str(after[ZONE]))
    for one in preferences:
        if not isinstance(one, Mapping) or one.get("participation_preference") != WORDS[kind]:
            continue
        start, end = _day(one.get("start_time"), zone), _day(one.get("end_time"), zone, last=True)
        if start is None or start.isoformat() != after["start_date"]:
            continue
        found = dict(after) | {"start_date": start.isoformat()}
        if kind is WriteKind.IDLE:
            far = str(after["end_date"])[:4].isdigit() and int(str(after["end_date"])[:4]) >= FAR
            found["end_date"] = end.isoformat() if end is not None else after["end_date"] if far else None
        return found
    return None


def _day(text: object, zone: ZoneInfo, *, last: bool = False) -> date | None:
    """The local day of a moment; `last`: the day before, where it is a midnight. None = none, or far away."""
    if not isinstance(text, str) or not text[:4].isdigit() or int(text[:4]) >= FAR:
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(zone)
    except ValueError:
        return None
    return (moment - timedelta(microseconds=1)).date() if last else moment.date()
