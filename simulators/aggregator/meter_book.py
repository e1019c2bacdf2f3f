"""The account's meters: what was created, how each is enrolled, and what is planned to change.

Planned changes are made when their time has come, as soon as anybody asks; each tells the platform webhooks of itself.
Not public [?]: the time zone of a meter (here by its region) and the status a new meter has (here PENDING).
"""

import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from simulators.aggregator.meter_shapes import ACTIONS_SHAPE, PROGRAM_SHAPE
from simulators.aggregator.periods import Period, Periods
from simulators.aggregator.times import ServerClock, time_text

ZONES = {
    "CAISO": "America/Los_Angeles", "WECC_PC": "America/Los_Angeles", "WECC_SW": "America/Phoenix",
    "ERCOT": "America/Chicago", "SERC": "America/Chicago",
}  # fmt: skip
EAST = "America/New_York"
FAR_FUTURE = "9000-01-01T00:00:00.000Z"
Tell = Callable[..., object]


@dataclass(slots=True, kw_only=True, eq=False)
class Meter:
    """One meter. `asset` is what the partner sent last; `programs` has one entry per delivery period."""

    meter_id: str
    asset: dict[str, Any]
    created_ms: int
    updated_ms: int
    periods: Periods
    created_by: str = "PARTNER"
    archived: bool = False
    global_status: str = "PENDING"
    programs: list[dict[str, Any]] = field(default_factory=list)
    actions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    connection_references: list[str] = field(default_factory=list)
    disenrollments: list[tuple[date, str]] = field(default_factory=list)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(ZONES.get(self.asset["transmission_region"], EAST))

    def common(self) -> dict[str, Any]:
        """What details and enrollment share."""
        named = ("transmission_region", "meter_type", "partner_reference", "customer_classification", "load_types",
                 "customer_group")  # fmt: skip
        return {
            "meter_id": self.meter_id,
            "is_archived": self.archived,
            "audit": {
                "created_by": self.created_by,
                "created_at": time_text(self.created_ms),
                "updated_at": time_text(self.updated_ms),
            },
            "tags": self.tags,
            "connection_references": self.connection_references,
        } | {name: self.asset[name] for name in named if name in self.asset}

    def details(self) -> dict[str, Any]:
        """As /v2/meters gives it."""
        parts = ("customer", "device", "site", "caiso", "isone", "nyiso", "utility")
        return self.common() | {name: self.asset[name] for name in parts if name in self.asset}

    def enrollment(self) -> dict[str, Any]:
        """As /v2/meters/enrollments gives it."""
        return self.common() | {
            "global_enrollment_status": self.global_status,
            "program_enrollment": self.programs,
            "required_actions": self.actions,
            "participation_preferences": [self.preference(period) for period in self.periods.all],
        }

    def preference(self, period: Period) -> dict[str, Any]:
        """A period of local dates as times in UTC."""
        end = FAR_FUTURE if period.end is None else self._midnight(period.end)
        reason = {"reason": period.reason} if period.reason is not None else {}
        return {
            "participation_preference": period.preference.value,
            "start_time": self._midnight(period.first),
            "end_time": end,
        } | reason

    def today(self, now_ms: int) -> date:
        """The meter's local date."""
        return datetime.fromtimestamp(now_ms / 1000, tz=UTC).astimezone(self.zone).date()

    def _midnight(self, day: date) -> str:
        return time_text(round(datetime.combine(day, time(), tzinfo=self.zone).timestamp() * 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changes of a meter; None = stays. `program` replaces the entry of its program and delivery period."""

    meter_id: str
    global_status: str | None = None
    program: dict[str, Any] | None = None
    actions: dict[str, list[dict[str, Any]]] | None = None
    archived: bool | None = None


class MeterBook:
    """Meters by id. `offers` are the program entries that a new meter gets."""

    def __init__(self, clock: ServerClock, tell: Tell) -> None:
        self.meters: dict[str, Meter] = {}
        self.offers: list[dict[str, Any]] = []
        self._clock = clock
        self._tell = tell
        self._plans: list[tuple[int, Change]] = []

    def by_reference(self, reference: str) -> Meter | None:
        """The meter of a partner reference."""
        return next((one for one in self.meters.values() if one.asset["partner_reference"] == reference), None)

    def add(self, asset: dict[str, Any], *, meter_id: str | None = None) -> Meter:
        """A new meter, which the webhooks tell of."""
        now_ms = self._clock.utc_ms()
        first = datetime.fromtimestamp(now_ms / 1000, tz=UTC).astimezone(
            ZoneInfo(ZONES.get(asset["transmission_region"], EAST))
        )
        customer_reference = asset["customer"].get("partner_customer_reference")
        meter = Meter(
            meter_id=meter_id or str(uuid.uuid4()),
            asset=deepcopy(asset),
            created_ms=now_ms,
            updated_ms=now_ms,
            periods=Periods(first.date()),
            programs=deepcopy(self.offers),
            connection_references=[customer_reference] if customer_reference else [],
        )
        self.meters[meter.meter_id] = meter
        self.tell(meter, "meter.created")
        return meter

    def update(self, meter: Meter, asset: dict[str, Any]) -> None:
        """What the partner sends overwrites the whole."""
        meter.asset = deepcopy(asset)
        meter.updated_ms = self._clock.utc_ms()

    def plan(self, at_ms: int, change: Change) -> None:
        """Make a change once its time has come (epoch ms)."""
        if change.program is not None:
            PROGRAM_SHAPE.check(change.program, open_enums=True)
        if change.actions is not None:
            ACTIONS_SHAPE.check(change.actions, open_enums=True)
        self._plans.append((at_ms, change))
        self._plans.sort(key=lambda one: one[0])

    def advance(self) -> None:
        """Make what is due."""
        while self._plans and self._plans[0][0] <= self._clock.utc_ms():
            at_ms, change = self._plans.pop(0)
            self._make(at_ms, change)

    def tell(self, meter: Meter, event_type: str, **payload: Any) -> None:
        """An event of a meter to whoever subscribed."""
        named = ("transmission_region", "partner_reference", "meter_type")
        fields = {name: meter.asset[name] for name in named}
        self._tell(event_type, meter_id=meter.meter_id, **fields, **payload)

    def _make(self, at_ms: int, change: Change) -> None:
        meter = self.meters[change.meter_id]
        meter.updated_ms = at_ms
        if change.archived is not None:
            meter.archived = change.archived
        if change.global_status is not None:
            meter.global_status = change.global_status
            self.tell(meter, "meter.enrollment.global-status.updated", global_enrollment_status=meter.global_status)
        if change.actions is not None:
            meter.actions = deepcopy(change.actions)
            open_ = {"partner": meter.actions["partner"]} if meter.actions.get("partner") else {}
            self.tell(
                meter,
                "meter.enrollment.required-actions.updated",
                global_enrollment_status=meter.global_status,
                required_actions=open_,
            )
        if change.program is not None:
            self._enroll(meter, deepcopy(change.program))

    def _enroll(self, meter: Meter, program: dict[str, Any]) -> None:
        def key(entry: dict[str, Any]) -> tuple[Any, Any]:
            return entry.get("program_identifier"), entry.get("delivery_period")

        old = next((entry for entry in meter.programs if key(entry) == key(program)), {})
        meter.programs = [entry for entry in meter.programs if key(entry) != key(program)] + [program]
        for group in {old.get("market_group_id"), program.get("market_group_id")} - {None}:
            if old.get("market_group_id") == program.get("market_group_id"):
                continue
            entry = program if program.get("market_group_id") == group else old
            self._tell(
                "meter.enrollment.group.updated",
                market_group_id=group,
                market_group_name=entry.get("market_group_name", ""),
                start_date_time=entry["delivery_period_start_date_time"],
                end_date_time=entry["delivery_period_end_date_time"],
                meter_ids=[
                    one.meter_id
                    for one in self.meters.values()
                    if any(
                        mine.get("market_group_id") == group
                        and mine.get("delivery_period") == entry.get("delivery_period")
                        for mine in one.programs
                    )
                ],
            )
