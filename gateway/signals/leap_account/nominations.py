"""Nominations that are suggested to the aggregator, what became of a suggestion, and what holds."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from gateway.domain.programs.nominations import Nomination, Suggestion
from gateway.domain.programs.outbox import Content

SUGGEST = "/v2/meters/nominations/suggestions"
SEARCH = "/v2/meters/nominations/suggestions/search"
NOMINATIONS = "/v2/meters/nominations/search"
WORDS_MAX = 64
MEMBERS = frozenset({"start_date", "nomination_kw", "program_identifier", "end_date"})
NEEDED = frozenset({"start_date", "nomination_kw"})
KW_MAX = 10_000
GONE = frozenset({"DELETED", "INVALIDATED"})


def faults(subject: str, after: Content) -> list[str]:
    """What is wrong with a row."""
    found = [f"{subject}: {name}: required" for name in sorted(NEEDED - after.keys())]
    found += [f"{subject}: {name[:64]}: unknown" for name in sorted(after.keys() - MEMBERS)]
    kw = after.get("nomination_kw")
    if isinstance(kw, bool) or not isinstance(kw, int | float) or not 0 <= kw <= KW_MAX or round(kw, 2) != kw:
        found.append(f"{subject}: nomination_kw: a number of kW from 0 to {KW_MAX} with 2 decimals")
    for name in ("start_date", "end_date"):
        try:
            date.fromisoformat(str(after.get(name, "2026-01-01")))
        except ValueError as error:
            found.append(f"{subject}: {name}: {error}")
    return found


def content(suggestions: Sequence[Any], subject: str, after: Content) -> tuple[dict[str, Any] | None, str]:
    """What the aggregator has where a row wants something, and the status of that; the newest suggestion counts."""
    mine = [
        one
        for one in suggestions
        if isinstance(one, Mapping)
        and one.get("meter_id") == subject
        and one.get("start_date") == after["start_date"]
        and after.get("program_identifier") in (None, one.get("program_identifier"))
        and one.get("status") not in GONE
    ]
    if not mine:
        return None, ""
    newest = max(mine, key=lambda one: str(one.get("created_at")))
    return {name: newest.get(name) for name in after}, str(newest.get("status"))


def suggestion(found: Mapping[str, Any]) -> Suggestion | None:
    """A suggestion of a list; None = it names no meter, or no first day."""
    meter, since = _text(found, "meter_id"), _text(found, "start_date")
    if not meter or not since:
        return None
    return Suggestion(
        id=_text(found, "nomination_suggestion_id"), meter=meter, program=_text(found, "program_identifier"),
        since=since, until=_text(found, "end_date") or None, kw=_kw(found), word=_text(found, "status"),
        made=_text(found, "created_at"),
    )  # fmt: skip


def nomination(found: Mapping[str, Any]) -> Nomination | None:
    """A nomination of a list; None = it names no meter."""
    meter = _text(found, "meter_id")
    if not meter:
        return None
    # the schema's own list of required members calls it otherwise
    since = _text(found, "start_time") or _text(found, "start_date")
    return Nomination(
        meter=meter, program=_text(found, "program_identifier"), since=since, until=_text(found, "end_time") or None,
        kw=_kw(found), source=_text(found, "source"),
    )  # fmt: skip


def _text(found: Mapping[str, Any], name: str) -> str:
    text = found.get(name)
    return text[:WORDS_MAX] if isinstance(text, str) else ""


def _kw(found: Mapping[str, Any]) -> float | None:
    kw = found.get("nomination_kw")
    return float(kw) if isinstance(kw, int | float) and not isinstance(kw, bool) else None
