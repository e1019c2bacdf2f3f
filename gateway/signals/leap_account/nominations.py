"""Nominations that are suggested to the aggregator, and what became of a suggestion."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from gateway.domain.programs.outbox import Content

SUGGEST = "/v2/meters/nominations/suggestions"
SEARCH = "/v2/meters/nominations/suggestions/search"
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
