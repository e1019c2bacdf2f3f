"""The street of the aggregator's evening: its homes, their meters, who has which part, and the slots of the dispatch.

A home has a utility meter, which resource adequacy is dispatched by, and each of its batteries a device meter, which
DSGS is dispatched by. `stacked`: both programs at once; `uploading`: the same two seconds later, with quarter hours
that go up to the aggregator; `changed`: a dispatch that is changed, reduced and called off; `unheard`: one whose
webhook is lost. Powers in kW as the aggregator writes them, times UTC ms.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simulators.aggregator.dispatch_book import Kind, slot
from simulators.homes import Homes, inventory_rows, make_homes

QUARTER_TAG = "quarters"
QUARTER_MS = 900_000
RA_KW, CUT_KW = 2.0, 0.5
FIRST_KW, CHANGED_KW, REDUCED_KW = 1.5, 2.5, 1.0
LATER_MS = 2_000
"""How much later the homes that upload are dispatched, so that their events are their own."""

RA: dict[str, Any] = {
    "programs": ["CCA"], "priority": 2, "is_voluntary": False, "performance_compensation_cap": "up-to-site-load",
    "dispatch_event_types": ["day-ahead"], "energy_kw": RA_KW, "nomination_kw": RA_KW,
}  # fmt: skip
CUT = RA | {"energy_kw": CUT_KW, "dispatch_event_types": ["day-ahead", "hour-ahead"]}
PERIOD = {
    "delivery_period": "evening", "delivery_period_start_date_time": "2026-05-01T07:00:00Z",
    "delivery_period_end_date_time": "2026-11-01T07:00:00Z", "enrollment_status": "ACTIVE",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Street:
    """The homes and their meters: `device_meters` by battery, `site_meters` by home. Parts name batteries by index."""

    homes: Homes
    device_meters: tuple[str, ...]
    site_meters: tuple[str, ...]
    stacked: tuple[int, ...]
    uploading: tuple[int, ...]
    changed: tuple[int, ...]
    unheard: tuple[int, ...]

    @property
    def both(self) -> tuple[int, ...]:
        """The batteries of both programs."""
        return self.stacked + self.uploading

    def sites(self, batteries: Iterable[int]) -> list[int]:
        """The homes of batteries, each once."""
        return sorted({int(self.homes.site_index[i]) for i in batteries})

    def inventory(self) -> list[dict[str, str]]:
        rows = inventory_rows(self.homes)
        for i in self.uploading:
            rows[i]["tags"] += f";{QUARTER_TAG}"
        return rows

    def enrollments(self) -> list[dict[str, str]]:
        """Every battery in DSGS by its own meter, those of both programs in resource adequacy by that of the home."""
        site = self.homes.site_index
        rows = [
            PERIOD | {"device": name, "program": "dsgs-option3", "meter_id": meter}
            for name, meter in zip(self.homes.ids, self.device_meters, strict=True)
        ]
        return rows + [
            PERIOD | {"device": self.homes.ids[i], "program": "ra-leap", "meter_id": self.site_meters[site[i]]}
            for i in self.both
        ]

    def dsgs(
        self, name: str, batteries: Sequence[int], start_ms: int, end_ms: int, **fields: Any
    ) -> list[dict[str, Any]]:
        """A DSGS slot of each battery's meter: ids are the same for the same name."""
        return [_event(self.device_meters[i], name, start_ms, end_ms, fields) for i in batteries]

    def adequacy(
        self, name: str, batteries: Sequence[int], start_ms: int, end_ms: int, fields: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """A slot of resource adequacy of the meter of each home."""
        return [_event(self.site_meters[s], name, start_ms, end_ms, fields) for s in self.sites(batteries)]


def _event(meter: str, name: str, start_ms: int, end_ms: int, fields: dict[str, Any]) -> dict[str, Any]:
    event_id = str(uuid.uuid5(uuid.UUID(meter), name))
    return {
        "kind": "meter", "target": meter, "slot": slot(Kind.METER, start_ms, end_ms, event_id=event_id, **fields)
    }  # fmt: skip


def event_name(*slots: Sequence[dict[str, Any]]) -> str:
    """What the gateway promises to call the event of these slots: by the smallest id in them."""
    return min(str(one["slot"]["meter_event_id"]) for some in slots for one in some)


def make_street(devices: int, seed: int) -> Street:
    """Homes drawn from `seed`; a home with two batteries, where there is one, is in both programs."""
    homes = make_homes(devices, seed)
    # steps of 10 Wh would say little of an interval of some seconds
    homes = replace(homes, counter_step_wh=np.minimum(homes.counter_step_wh, 1.0))
    rng = np.random.default_rng([seed, 20])
    batteries = [np.flatnonzero(homes.site_index == s).tolist() for s in range(homes.site_count)]
    order = sorted(rng.permutation(homes.site_count).tolist(), key=lambda s: len(batteries[s]) < 2)
    two = [s for s in order if len(batteries[s]) > 1]
    rest = [s for s in order if s not in two]
    count = homes.site_count
    parts = [two + rest[: max(1, count * 45 // 100 - len(two))]]
    rest = rest[len(parts[0]) - len(two) :]
    for share in (25, 20):
        parts.append(rest[: max(1, count * share // 100)])
        rest = rest[len(parts[-1]) :]
    parts.append(rest)
    stacked, uploading, changed, unheard = (tuple(sorted(i for s in part for i in batteries[s])) for part in parts)
    names = np.random.default_rng([seed, 21])
    ids = [str(uuid.UUID(bytes=names.bytes(16), version=4)) for _ in range(devices + count)]
    return Street(
        homes=homes, device_meters=tuple(ids[:devices]), site_meters=tuple(ids[devices:]), stacked=stacked,
        uploading=uploading, changed=changed, unheard=unheard,
    )  # fmt: skip
