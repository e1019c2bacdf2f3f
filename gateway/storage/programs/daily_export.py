"""Writes versions of site-days to a file: JSON lines, what was written after a token alone.

The first line is the head: `{"format": 1, "after": TOKEN, "from": DAY, "until": DAY}`; the last one the end:
`{"token": TOKEN, "rows": N}`, and that token is the next one's `after`. Between them one line per version, in the order
in which they were written: `{"site", "day", "zone", "interval_s", "version", "written_ms", "start_ms", "import_wh",
"export_wh", "charge_wh", "discharge_wh": [Wh or null, ..], "coverage_pct": [..], "quality": [..], "rests_on":
{DEVICE: [[start_s, length_s, count, revision], ..]}}`. A file is there whole or not at all; `.gz` is compressed.
"""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from gateway.domain.errors import StorageError
from gateway.domain.programs.site_day import DayFrame, SiteChannel, SiteDays, decode
from gateway.files import replacing
from gateway.storage.programs.daily import DailyColumns, StoredSiteDay

FORMAT = 1
PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDays:
    """How many versions were written, and the token that the next export goes on from."""

    rows: int
    token: int


def export_days(
    store: DailyColumns, out: Path, *, frames: Sequence[DayFrame], first: date, until: date, after: int
) -> ExportedDays:
    """Write the versions of days from `first` until before `until` that were written after a token. Raises
    StorageError, CorruptState."""
    try:
        with ExitStack() as stack:
            file: Any = stack.enter_context(replacing(out))
            if out.suffix == ".gz":
                file = stack.enter_context(gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0))
            file.write(_line({"format": FORMAT, "after": after, "from": first.isoformat(), "until": until.isoformat()}))
            rows, token = 0, after
            for one in _versions(store, frames, first, until, after):
                file.write(_line(_told(one)))
                rows, token = rows + 1, one.token
            file.write(_line({"token": token, "rows": rows}))
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror or error}") from error
    return ExportedDays(rows=rows, token=token)


def _versions(
    store: DailyColumns, frames: Sequence[DayFrame], first: date, until: date, after: int
) -> Iterator[StoredSiteDay]:
    while page := store.since(after, first, until, frames, PAGE):
        yield from page
        after = page[-1].token


def _told(one: StoredSiteDay) -> dict[str, Any]:
    key = one.key
    days = decode(key.frame, key.day, [key.site], [one.body], [key.version])
    return {
        "site": key.site, "day": key.day.isoformat(), "zone": key.frame.zone, "interval_s": key.frame.length_s,
        "version": key.version, "written_ms": one.written_ms, "start_ms": days.from_ms,
        **{f"{channel.name.lower()}_wh": _energy(days, channel) for channel in SiteChannel},
        "coverage_pct": days.coverage_pct[0].tolist(), "quality": days.quality[0].tolist(),
        "rests_on": {basis.device: [list(run) for run in basis.runs.tolist()] for basis in days.basis(0)},
    }  # fmt: skip


def _energy(days: SiteDays, channel: SiteChannel) -> list[int | None]:
    pairs = zip(days.energy_wh[channel, 0].tolist(), days.known[channel, 0].tolist(), strict=True)
    return [wh if known else None for wh, known in pairs]


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value) + b"\n"
