"""What an event's figures rest on, as texts: what a reader can read as it is, and the rest as digests by name."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.domain.programs.delivered import EnergyBefore
from gateway.domain.programs.event_performance import EventHomes
from gateway.domain.programs.event_value import AreaHours
from gateway.domain.programs.local_hours import local_hour
from gateway.domain.programs.metered import EventIntervals
from gateway.domain.programs.revised import InputKind

RECORDED = ("asked_wh", "status", "failure", "limits", "started_ms", "status_ms")
"""Columns of delivery records that figures rest on."""

Texts = Mapping[InputKind, Mapping[str, str]]


def texts_of(zone: str, homes: EventHomes, areas: Mapping[str, AreaHours], intervals: EventIntervals) -> Texts:
    """Those of homes, their energy and their prices."""
    sites = [home.name for home in homes.homes]
    grid = digests(sites, homes.grid.wh, homes.grid.known)
    return {
        InputKind.RECORDS: digests(homes.batteries, *(getattr(homes.asked, name) for name in RECORDED)),
        InputKind.MEMBERS: {
            battery: f"{homes.homes[at]}" if at >= 0 else ""
            for battery, at in zip(homes.batteries, homes.site_of.tolist(), strict=True)
        },
        InputKind.INTERVALS: digests(homes.batteries, homes.measured.wh, homes.measured.known, homes.covered_pct)
        | {f"the grid of {site}": text for site, text in grid.items()},
        InputKind.DAYS: _before(sites, homes.before),
        InputKind.AREAS: {home.name: home.area for home in homes.homes},
        InputKind.TYPES: {
            f"{area} {_hour(zone, at)}": hours.types.get(at) or ""
            for area, hours in areas.items() for at in intervals.hours_ms
        },
        InputKind.PRICES: {
            f"{area} {_hour(zone, at)}": str(hours.prices.get(at, ""))
            for area, hours in areas.items() for at in intervals.hours_ms
        }
        | {
            f"other prices of {year}-{month:02d} in {area}": _range(prices)
            for area, hours in areas.items() for (year, month), prices in hours.of_month.items()
            if any(at not in hours.prices for at in intervals.hours_ms)
        },
    }  # fmt: skip


def digests(names: Sequence[str], *columns: NDArray[Any]) -> dict[str, str]:
    """A digest of the row of each name."""
    found = [0] * len(names)
    for column in columns:
        rows = np.ascontiguousarray(column).reshape(len(names), column[:1].size)
        found = [zlib.crc32(row.tobytes(), known) for row, known in zip(rows, found, strict=True)]
    return {name: f"{one:08x}" for name, one in zip(names, found, strict=True)}


def _before(sites: Sequence[str], before: EnergyBefore | None) -> dict[str, str]:
    if before is None:
        return {}
    columns: list[NDArray[Any]] = [before.usable]
    for energy in (before.event, before.window, before.today):
        for metered in (energy.batteries, energy.grid):
            columns += [metered.wh, metered.known]
    return digests(sites, *columns)


def _hour(zone: str, start_ms: int) -> str:
    day, hour_end = local_hour(zone, start_ms)
    return f"{day} {hour_end - 1:02d}:00"


def _range(prices: Sequence[Any]) -> str:
    """What a missing price is bounded by."""
    return f"{min(prices)} to {max(prices)}" if prices else ""
