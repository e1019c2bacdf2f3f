"""Bodies of answers and messages about intervals: records, completeness, receivers, live readings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from gateway.schemas.body import Body
from gateway.schemas.event import Identifier, Moment
from gateway.schemas.interval_rows import IntervalBody


class IntervalList(Body):
    """A page of intervals by start and device, each with its newest revision; `next` asks for the next page, null =
    end."""

    intervals: list[IntervalBody]
    next: str | None


class GapBody(Body):
    """A run of intervals that are missing or incomplete."""

    start: str
    end: str
    intervals: int
    reason: str


class SinkDayBody(Body):
    """How many intervals of a device's day a sink was sent, accepted, refused (by reason) or waits for. `inferred` of
    the accepted ones were read by a release that did not record what became of them. `not_wanted` were not for this
    sink when their turn came (they can be sent again), `superseded` had a newer revision by then: neither was sent."""

    sent: int
    accepted: int
    inferred: int
    waiting: int
    not_wanted: int
    superseded: int
    refused: dict[str, int]


class DeviceDayBody(Body):
    """Completeness of one device's day, as counts of intervals; `missing` and `refused` are by reason."""

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
    """A page of the completeness of one UTC day, as far as the day is over. `unconfirmed`: what the aggregator has not
    confirmed and its figures rest on."""

    day: str
    unconfirmed: list[str]
    total: int
    next: int | None
    devices: list[DeviceDayBody]


class SinkState(Body):
    """A receiver: records it accepted, records that wait, records parked (by reason), and why it fails, if it does.
    `stopped`: a person must act before it goes on, `detail` is what the receiver said."""

    name: str
    accepted: int
    backlog: int
    oldest: str | None
    backfills: int
    parked: dict[str, int]
    failing: str | None
    stopped: bool
    detail: str


class RetryReport(Body):
    """Which receiver is tried again."""

    sink: str


class LeapFileBody(Body):
    """A file for the aggregator; `job` is what it became there."""

    name: str
    rows: int
    job: str | None
    status: str
    at: str


class LeapAcceptedBody(Body):
    """The newest row that the aggregator accepted, by its start."""

    start: str
    device: str
    revision: int


class LeapMissingBody(Body):
    """What the aggregator says it lacks: how many entries, the oldest, and the next deadline to come."""

    entries: int
    oldest: str | None
    oldest_meter: str | None
    oldest_device: str | None
    next_deadline: str | None


class LeapSinkState(Body):
    """How uploads to the aggregator stand. `waiting`: rows that wait, by reason; `missing` is null where the aggregator
    could not be asked, and `missing_unknown` says why."""

    sink: str
    transport: str
    upload_schema: str
    failing: str | None
    stopped: bool
    detail: str
    backlog: int
    oldest: str | None
    waiting: dict[str, int]
    parked: dict[str, int]
    meters: int
    meters_failing: str | None
    last_file: LeapFileBody | None
    on_its_way: LeapFileBody | None
    last_accepted: LeapAcceptedBody | None
    missing: LeapMissingBody | None
    missing_unknown: str | None


class LeapStatus(Body):
    """The aggregator: what it has confirmed of what its public text leaves open, and its sinks."""

    state: Literal["CONFIRMED", "UNCONFIRMED"]
    confirmed: dict[str, str]
    unconfirmed: list[str]
    sinks: list[LeapSinkState]


class SinkList(Body):
    """All receivers of interval records."""

    sinks: list[SinkState]


class ResendBody(BaseModel):
    """Intervals to send again: those that begin within `[from, to)`, of `devices` and of devices with one of `tags` (of
    all devices if neither is given); with `parked` only those that the receiver refused, with `missing` those that it
    says it lacks, of all devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(alias="from")
    to: Moment
    devices: list[Identifier] = Field(default_factory=list, max_length=10_000)
    tags: list[str] = Field(default_factory=list, max_length=256)
    parked: StrictBool = False
    missing: StrictBool = False

    @model_validator(mode="after")
    def _one_choice(self) -> "ResendBody":
        if sum((self.parked, self.missing, bool(self.devices or self.tags))) > 1:
            raise ValueError("parked, missing, and devices or tags: give at most one of them")
        return self


class MissingBody(Body):
    """An interval that a receiver says it lacks; `device` is null for a meter that no device has."""

    device: str | None
    meter: str
    start: str
    end: str
    status: str
    kind: str
    deadline: str | None


class MissingList(Body):
    """Everything that a receiver lacks within a stretch of time."""

    missing: list[MissingBody]


class ResendReport(Body):
    """How many records will be sent again."""

    marked: int
