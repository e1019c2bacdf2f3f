"""Asks the aggregator which intervals it lacks.

The names of the request's fields differ between the schema and the example of the public text: the schema's are sent
unless the other ones are configured. What it does not know it ignores, and then answers for everything; so its answer
is cut to the time that was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from gateway.domain.types import DeviceId
from gateway.ports.sinks import Keep, MissingInterval, Stop
from gateway.schemas.interval_rows import rfc3339
from gateway.sinks.leap.api import JSON, LeapApi, meaning
from gateway.sinks.leap.replies import MissingReply, missing_of

PATH = "/v1.1/missing-interval-data/search"
PAGES_MAX = 2_000
PAGE_SIZE = 500
Names = Literal["schema", "example"]
NAMES: Mapping[Names, tuple[str, str]] = {
    "schema": ("missing_interval_window_start_date_time_utc", "missing_interval_window_end_date_time_utc"),
    "example": ("start_date_time_utc", "end_date_time_utc"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What is missing, and how many entries could not be read."""

    intervals: list[MissingInterval]
    unread: int


async def search(
    api: LeapApi, devices: Mapping[str, DeviceId], from_ms: int, to_ms: int, *, names: Names
) -> Missing | Keep | Stop:
    """What is missing from `from_ms` to `to_ms` (UTC, end excluded). `devices`: by meter."""
    since, until = NAMES[names]
    asked: dict[str, str | int] = {since: rfc3339(from_ms), until: rfc3339(to_ms), "page_size": PAGE_SIZE}
    found: list[MissingInterval] = []
    unread = 0
    for _ in range(PAGES_MAX):
        reply = await api.ask("POST", PATH, body=orjson.dumps(asked), kind=JSON)
        if isinstance(reply, Keep):
            return reply
        if not reply.fine:
            return meaning(reply)
        page = missing_of(reply.body)
        if page is None:
            return Keep(reason="reply_malformed")
        entries, skipped, token = page
        unread += skipped
        found += [_cut(entry, devices, from_ms, to_ms) for entry in entries if _within(entry, from_ms, to_ms)]
        if token is None:
            return Missing(intervals=found, unread=unread)
        asked["page_token"] = token
    return Keep(reason="too_many_pages")


def _within(entry: MissingReply, from_ms: int, to_ms: int) -> bool:
    return entry.start_ms < to_ms and entry.end_ms > from_ms


def _cut(entry: MissingReply, devices: Mapping[str, DeviceId], from_ms: int, to_ms: int) -> MissingInterval:
    return MissingInterval(
        device=devices.get(entry.meter_id), meter_id=entry.meter_id, start_ms=max(entry.start_ms, from_ms),
        end_ms=min(entry.end_ms, to_ms), status=entry.status, data_type=entry.data_type, deadline_ms=entry.deadline_ms,
    )  # fmt: skip
