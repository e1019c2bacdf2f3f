"""Bodies of the REST answers; `openapi` makes the document from them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.schemas.event import GroupBody, Identifier, Moment
from gateway.services.devices.import_rows import DeviceFields


class Body(BaseModel):
    """Unknown members are a bug."""

    model_config = ConfigDict(extra="forbid")


class Problem(Body):
    """Why a request was refused: every fault with its place."""

    error: str
    problems: list[str] = []


class AnswerBody(Body):
    """The decision on an event."""

    id: str
    revision: int
    outcome: Literal["accepted", "duplicate", "superseded", "rejected"]
    reason: str | None = None


class Times(Body):
    """When a device came to what it is; null = never."""

    status: str | None
    sent: str | None
    acknowledged: str | None
    started: str | None
    ended: str | None


class DeliveryBody(Body):
    """The delivery record of one device within one event; `id` is the same from the grid's signal to the meter.

    `status`: scheduled | sent | acknowledged | started (measured) | delivering | completed | failed | opted_out |
    cancelled | superseded; `failure`: offline | fault | limit | refused | no_response | excluded. `asked_w` what the
    event wanted, `allowed_w` what its limits left of it and `limits` which, `written_w` the newest setpoint, `result`
    the device's answer, `measured_w` what it does, null while it is not measured, and `assumed_w` what it is taken to
    do then. Energies since it began: `delivered_wh` is measured, `shortfall_wh` asked and not measured as delivered,
    `unmeasured_wh` the part of that which was asked while nobody measured and may have been delivered. Powers in W, + =
    discharge; null = unknown.
    """

    id: str
    device: str
    status: str
    failure: str | None
    asked_w: float | None
    allowed_w: float | None
    limits: list[str]
    written_w: float | None
    commands: int
    cmd: int | None
    result: str
    measured_w: float | None
    assumed_w: float | None
    asked_wh: float | None
    delivered_wh: float | None
    shortfall_wh: float | None
    unmeasured_wh: float | None
    times: Times


class OccurrenceBody(Body):
    """An occurrence of an event that is over, and how many devices it has records of."""

    start: str
    ended: str
    devices: int


class ReboundBody(Body):
    """What an event's devices take back after it: power (+ = charging) now and at its peak, W; energy, Wh."""

    power_w: float
    peak_w: float
    energy_wh: float


class EventStatus(Body):
    """An event and what it delivers. `want`: power | device_power | charge_to | follow_load | idle | self_consumption |
    backup, that of now or of the first leg. `target_w` of now as far as ceilings and energy go, `delivered_w` measured
    gross AC battery power of the group, `attributed_w` what the event is credited with of it. `assumed_w`: what devices
    whose readings are missing are taken to give, `unmeasured` how many of them are steered. `unserved_w`: what of the
    target nobody could be given, and what such devices were given or are taken to give; `shortfall` why, `unmeasured`
    where nothing but that. `reason` of a rejection. Of one event alone: `members` are a page of its delivery records,
    those of now or of the newest occurrence unless another is asked for, `next` where the next page begins,
    `occurrences` those that are over."""

    id: str
    revision: int
    kind: str
    program: str
    state: str
    reason: str | None
    start: str
    end: str
    priority: int
    voluntary: bool
    want: str
    target_w: float | None
    commanded_w: float | None
    delivered_w: float | None
    assumed_w: float | None
    attributed_w: float | None
    unserved_w: float | None
    shortfall: str | None
    devices: int
    unmeasured: int | None
    rebound: ReboundBody | None = None
    members: list[DeliveryBody] | None = None
    next: int | None = None
    occurrences: list[OccurrenceBody] | None = None


class EventList(Body):
    """Events, newest start first."""

    events: list[EventStatus]
    stopped: bool


class StopBody(Body):
    """Whether dispatch is stopped; `by` names who asks."""

    active: bool
    by: str = "operator"


class HoldBody(Body):
    """Devices that are kept out of dispatch: `opt_out` by their owners (of one `event`, or of all), `storm` to keep
    their energy for an outage. `from` absent = from now on, `until` absent = until it is lifted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: Identifier
    reason: Literal["opt_out", "storm"]
    group: GroupBody
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    event: Identifier | None = None
    by: Annotated[str, Field(max_length=64)] = "operator"

    @model_validator(mode="after")
    def _fits(self) -> "HoldBody":
        if self.event is not None and self.reason != "opt_out":
            raise ValueError("event: belongs to opt_out")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until: not after from")
        return self


class HoldState(Body):
    """A hold and whether it holds now."""

    id: str
    reason: str
    event: str | None
    since: str
    until: str | None
    by: str
    devices: int
    active: bool


class HoldList(Body):
    """Everything that is set."""

    holds: list[HoldState]


class Quarantine(Body):
    """Devices (or products, `product:<profile>`) that are not written since they cannot be trusted, and why; `frozen`
    products of which many devices were lost at once."""

    quarantined: dict[str, str]
    frozen: list[str]


class AvailabilityBody(Body):
    """A power-duration curve: W that the devices of a group can keep up for `hours`, from now on."""

    group: str
    devices: int
    hours: list[int]
    discharge_w: list[float]
    charge_w: list[float]


class AvailabilityList(Body):
    """The fleet and every tag."""

    groups: list[AvailabilityBody]


class DeliveryReport(Body):
    """Delivery records of an event's `occurrence` (its start) that have changed; `at` when it is told."""

    event: str
    revision: int
    occurrence: str
    at: str
    devices: list[DeliveryBody]


class EventReport(Body):
    """Events that run, as they are `at` that time; what is unknown is absent."""

    at: str
    events: list[EventStatus]


class AvailabilityReport(Body):
    """Power-duration curves by group, from `at` on."""

    at: str
    groups: list[AvailabilityBody]


class SessionState(Body):
    """The gateway's connection to a device that it asks: down | connecting | ready | quarantined (what answers is not
    what was enrolled, so nothing is written), why it is not ready, and the variant of the product that answers."""

    state: str
    why: str | None
    variant: str


class DeviceState(Body):
    """A device: its enrollment and, where known, its newest reading and what it may do now. `steerable`: it takes
    setpoints from us; the product can, its operator has not ruled it out, and it is what it is enrolled as. `unclear`:
    members of its newest reading that are about its safety and are not understood; a word among them (`mode`, `grid`,
    `locked`, `opt_out`, `faults`, or the whole `message`) keeps it from being steered, a number the directions that
    rest on it. `reserve_pct` is the reserve that the newest reading tells; the one in force is that of `device`.
    `authority`: device (the maker's own mode) | controlled | releasing | owner (an owner or maker took it back in
    mid-event) | no_profile. `held` is its former name, with free and left for device and owner; the next release drops
    it."""

    device: DeviceFields
    steerable: bool | None
    online: bool | None
    reading_age_s: float | None
    soc_pct: float | None
    battery_w: float | None
    reserve_pct: float | None
    authority: str
    held: str
    setpoint_w: int | None
    unclear: list[str] = Field(default_factory=list)
    session: SessionState | None = None


class DeviceList(Body):
    """A page of devices in order of enrollment; `next` is the offset of the next page, null at the end."""

    total: int
    next: int | None
    devices: list[DeviceState]


class BadRowBody(Body):
    """A row that was not imported."""

    line: int
    problem: str


class NoteBody(Body):
    """A row that was imported, and what should be known about it."""

    line: int
    note: str


class ImportReport(Body):
    """What an import did. `enrolled` counts devices that were new or changed."""

    rows: int
    enrolled: int
    rejected: list[BadRowBody]
    rejected_total: int
    notes: list[NoteBody]


class Unenrolled(Body):
    """Devices that send telemetry and are not enrolled; `seen` their last message."""

    devices: list[dict[str, str]]
    messages: int


class Readiness(Body):
    """Whether the gateway does its job, and if not, why."""

    ready: bool
    reasons: list[str]
