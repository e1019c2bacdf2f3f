"""Bodies of answers and messages about intervals: records, completeness, receivers, live readings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.api.models import Body
from gateway.schemas.event import Identifier, Moment


class IntervalBody(Body):
    """An interval record; identity is (device, start, revision) and the `hash` of its content as it was closed, so that
    the same identity with another hash is a mistake of somebody's; a higher revision replaces a lower one. Energy in
    Wh on the AC side, charge and discharge apart; power in W, battery + = discharge, grid + = import; null = unknown,
    never zero. `quality` names what to know: gap, clock, reset, jump, spread, late, disagrees, drift, cut."""

    device: str
    start: str
    length_s: int
    revision: int
    charge_wh: float | None
    discharge_wh: float | None
    coverage_pct: float
    samples: int
    soc_start_pct: float | None
    soc_end_pct: float | None
    source: Literal["none", "counter", "integrated"]
    battery_w_mean: float | None
    battery_w_min: float | None
    battery_w_max: float | None
    grid_w_mean: float | None
    pv_w_mean: float | None
    load_w_mean: float | None
    quality: list[str]
    hash: str


class LiveReading(Body):
    """The newest reading of a device, `age_s` old; power in W, battery + = discharge, grid + = import."""

    device: str
    age_s: float
    online: bool | None
    battery_w: float | None
    soc_pct: float | None
    grid_w: float | None
    pv_w: float | None
    load_w: float | None


class LiveReport(Body):
    """Newest readings of some devices, as of `t` (UTC ms)."""

    t: int
    devices: list[LiveReading]


class IntervalList(Body):
    """A page of intervals by start and device, each at its newest revision; `next` goes on, null at the end."""

    intervals: list[IntervalBody]
    next: str | None


class GapBody(Body):
    """A run of intervals that are not there, or not whole."""

    start: str
    end: str
    intervals: int
    reason: str


class SinkDayBody(Body):
    """What a sink has of a device's day, by interval."""

    sent: int
    accepted: int
    waiting: int
    refused: dict[str, int]


class DeviceDayBody(Body):
    """One line of the completeness ledger; `missing` and `refused` by reason."""

    device: str
    length_s: int
    expected: int
    stored: int
    complete: int
    revised: int
    missing: dict[str, int]
    sinks: dict[str, SinkDayBody]
    gaps: list[GapBody]


class CompletenessList(Body):
    """A page of the completeness ledger of one UTC day, as far as it is over."""

    day: str
    total: int
    next: int | None
    devices: list[DeviceDayBody]


class SinkState(Body):
    """A receiver: what it has, what waits, what is parked (by reason) and why it fails, if it does."""

    name: str
    accepted: int
    backlog: int
    oldest: str | None
    backfills: int
    parked: dict[str, int]
    failing: str | None


class SinkList(Body):
    """All receivers of interval records."""

    sinks: list[SinkState]


class ResendBody(BaseModel):
    """Intervals that begin within `[from, to)`, of `devices` and of those with one of `tags` (of all if neither is
    given), to be sent once more; with `parked` only those that the receiver refused, with `missing` those that it says
    it lacks, of all devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(alias="from")
    to: Moment
    devices: list[Identifier] = Field(default_factory=list, max_length=10_000)
    tags: list[str] = Field(default_factory=list, max_length=256)
    parked: bool = False
    missing: bool = False

    @model_validator(mode="after")
    def _one_choice(self) -> "ResendBody":
        if sum((self.parked, self.missing, bool(self.devices or self.tags))) > 1:
            raise ValueError("parked, missing, and devices or tags: one of them at most")
        return self


class MissingBody(Body):
    """What a receiver says it lacks. `device` null: a meter that no device has."""

    device: str | None
    meter: str
    start: str
    end: str
    status: str
    kind: str
    deadline: str | None


class MissingList(Body):
    """All that a receiver lacks of a stretch of time."""

    missing: list[MissingBody]


class ResendReport(Body):
    """How many records will be sent once more."""

    marked: int
