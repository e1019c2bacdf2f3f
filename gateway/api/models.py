"""Bodies of the REST answers; `openapi` makes the document from them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.schemas.event import GroupBody, Identifier, Moment
from gateway.services.devices.import_rows import DeviceFields


class Body(BaseModel):
    """A body; an unknown member is an error."""

    model_config = ConfigDict(extra="forbid")


class Problem(Body):
    """Why the gateway refused a request; `problems` lists every fault with its place."""

    error: str
    problems: list[str] = []


class AnswerBody(Body):
    """The decision on an event. `warnings` on one that was accepted: what its source may not have meant, as the group
    is now."""

    id: str
    revision: int
    outcome: Literal["accepted", "duplicate", "superseded", "rejected"]
    reason: str | None = None
    warnings: list[str] = Field(default_factory=list)


class Times(Body):
    """When a device reached each step; null = never."""

    status: str | None
    sent: str | None
    acknowledged: str | None
    started: str | None
    ended: str | None


class DeliveryBody(Body):
    """The delivery record of one device within one event; `id` is the same from the grid's signal to the meter.

    `status`: scheduled | sent | acknowledged | started (measured) | delivering | completed | failed | opted_out |
    cancelled | superseded; `failure`: offline | fault | limit | refused | no_response | unreachable | barred (excluded,
    from the next release on); `unreachable`: why it cannot be told anything (no_subscriber | refused | not_sent |
    not_durable), null where that is not what failed. `asked_w` is what the event wanted, `allowed_w` what its limits
    left of it and `limits` which limits those were, `written_w` the newest setpoint, `result` the device's answer.
    `measured_w` is what the device does, null while there is no reading; `assumed_w` is what it is assumed to do then.
    Energies since the occurrence began: `delivered_wh` is measured, `shortfall_wh` was asked and not measured as
    delivered, `unmeasured_wh` is the part of that which was asked while there were no readings and may have been
    delivered. `shared_with` other events are served by the same power of the device now, and `shared_wh` is the part of
    `delivered_wh` that others were served by too: it is in their records as well. `cause` says what lies behind an
    expired command or a device that is offline, where it is known now: a clock that is off. Powers in W, + = discharge;
    null = unknown."""

    id: str
    device: str
    status: str
    failure: str | None
    unreachable: str | None
    asked_w: float | None
    allowed_w: float | None
    limits: list[str]
    written_w: float | None
    commands: int
    cmd: int | None
    result: str
    cause: str | None = None
    measured_w: float | None
    assumed_w: float | None
    asked_wh: float | None
    delivered_wh: float | None
    shortfall_wh: float | None
    unmeasured_wh: float | None
    shared_with: int | None = None
    shared_wh: float | None = None
    times: Times


class OccurrenceBody(Body):
    """An occurrence of an event that is over, and how many devices it has delivery records of."""

    start: str
    ended: str
    devices: int


class ReboundBody(Body):
    """What an event's devices charge again after it: power (+ = charging) now and at its peak, W; energy, Wh."""

    power_w: float
    peak_w: float
    energy_wh: float


class EventStatus(Body):
    """An event and what it delivers. `want`: power | device_power | charge_to | follow_load | idle | self_consumption |
    backup, as it is now or in the first leg. `target_w` is the target now, after ceilings and energy limits,
    `delivered_w` the measured gross AC battery power of the group, `attributed_w` the part that is credited to this
    event, `shared_w` what serves it too and is credited to other events that share its devices: together they are what
    it got. `assumed_w` is what devices without readings are assumed to give, `unmeasured` how many such devices are
    under control. `unserved_w` is the part of the target that no device could be given, plus what devices without
    readings were given or are assumed to give; `shortfall` says why (`unmeasured` if missing readings are the only
    cause, `not_durable` if the journal takes no release plans and the other devices have no more to give). `end` is
    "open" where the event goes on until further notice. `reason` says why the event was rejected, or that an operator
    cancelled it. `source` says whose event it is: several sources may have one of the same id, and the request for one
    event then names the `source`. Only the answer for one event has `members`, a page of its delivery records (of now
    or of the newest occurrence, unless the request names another), `next`, the offset of the next page, and
    `occurrences`, the newest that are over; `occurrences_before` is what the request for older ones has as `before`,
    null if there are none."""

    id: str
    source: str
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
    shared_w: float | None = None
    unserved_w: float | None
    shortfall: str | None
    devices: int
    unmeasured: int | None
    rebound: ReboundBody | None = None
    members: list[DeliveryBody] | None = None
    next: int | None = None
    occurrences: list[OccurrenceBody] | None = None
    occurrences_before: str | None = None


class EventList(Body):
    """A page of events, newest start first; `next` is what the request for the next page has as `after`, null at the
    end. A page may have fewer events than it could."""

    events: list[EventStatus]
    stopped: bool
    next: str | None


class StopBody(Body):
    """Whether dispatch is stopped; `by` names who asked for it."""

    active: bool
    by: str = "operator"


class StopState(Body):
    """Whether dispatch is stopped. While that is not `durable` a restart would forget it; it is written as soon as the
    disk takes it."""

    active: bool
    by: str
    durable: bool


class ExclusionBody(Body):
    """Keeps devices out of dispatch: `opt_out` by their owners (of one `event`, or of all), `storm` to keep energy for
    an outage. `from` absent = from now on, `until` absent = until it is lifted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: Identifier
    reason: Literal["opt_out", "storm"]
    group: GroupBody
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    event: Identifier | None = None
    by: Annotated[str, Field(max_length=64)] = "operator"

    @model_validator(mode="after")
    def _fits(self) -> "ExclusionBody":
        if self.event is not None and self.reason != "opt_out":
            raise ValueError("event: belongs to opt_out")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until: not after from")
        return self


class ExclusionState(Body):
    """An exclusion, how many devices it names and whether it is in force now. While it is not `durable` a restart would
    forget it; it is written as soon as the disk takes it."""

    id: str
    reason: str
    event: str | None
    since: str
    until: str | None
    by: str
    devices: int
    active: bool
    durable: bool


class ExclusionList(Body):
    """All exclusions."""

    exclusions: list[ExclusionState]


class AuditBody(Body):
    """A change that was journalled: its `kind`, when, `by` whom and through which `door` (gateway | device | rest |
    mqtt | offline), and what it was. `by` and `door` are null where release 0.1 wrote it."""

    id: int
    at: str
    kind: str
    by: str | None
    door: str | None
    what: dict[str, object]


class AuditList(Body):
    """A page of what was journalled, newest first. `next` is what the request for the next page has as `after`."""

    entries: list[AuditBody]
    next: str | None


class QuarantineEntry(Body):
    """A device, or a product as `product:<product>`, that gets no setpoints because it cannot be trusted. `reason`:
    wrong_sign (it does the opposite of its commands), many_failed (many devices of the product failed at once, it is
    frozen) or wrong_identity (what answers is not what was registered); `detail`: what was found, where more is known.
    `since`: null where it is not known; `lifted_by`: what ends it."""

    name: str
    reason: str
    since: str | None
    lifted_by: str
    detail: str


class Quarantine(Body):
    """Devices and products that get no setpoints because they cannot be trusted. Former members: `quarantined`, the
    reason of those of `wrong_sign` by name, and `frozen`, the products of `many_failed`."""

    entries: list[QuarantineEntry]
    quarantined: Annotated[dict[str, str], Field(json_schema_extra={"deprecated": True})]
    frozen: Annotated[list[str], Field(json_schema_extra={"deprecated": True})]


class AvailabilityBody(Body):
    """A power-duration curve: W that the devices of a group can sustain for each of `hours`, from now on."""

    group: str
    devices: int
    hours: list[int]
    discharge_w: list[float]
    charge_w: list[float]


class AvailabilityList(Body):
    """The curves of the whole fleet and of every tag."""

    groups: list[AvailabilityBody]


class DeliveryReport(Body):
    """Delivery records of an event's `occurrence` (its start) that changed; `at` is the time of the report."""

    event: str
    source: str
    revision: int
    occurrence: str
    at: str
    devices: list[DeliveryBody]


class EventReport(Body):
    """Running events, and those that an operator cancelled (`cancelled_by_operator`) until their time is over, as they
    are `at` that time; unknown values are absent."""

    at: str
    events: list[EventStatus]


class AvailabilityReport(Body):
    """Power-duration curves by group, from `at` on."""

    at: str
    groups: list[AvailabilityBody]


class SessionState(Body):
    """The gateway's connection to a device that it polls: down | connecting | ready | quarantined (what answers is not
    what was registered, so nothing is written), why it is not ready, and the variant of the product that answers.
    `notice`: what is wrong with a connection that goes on nevertheless."""

    state: str
    why: str | None
    variant: str
    notice: str | None = None


class UnreachableState(Body):
    """A device that cannot be told anything, although it may report: `cause` (no_subscriber: nobody has subscribed to
    its commands, refused: the broker refuses them, not_sent: the gateway is not connected to it, not_durable: the
    journal does not take its release plan), for how long (s), and when it is tried again (s from now, 0 = with the next
    command). Others make up for it; it comes back by itself once it has answered."""

    cause: str
    for_s: float
    retry_in_s: float


class DeviceState(Body):
    """A device: its registration and, where known, its newest reading and what it does now. `steerable`: it accepts
    setpoints from the gateway, because the product can, its operator has not ruled it out, and it is what it is
    registered as. `unclear` lists members of its newest reading that are about its safety and that the gateway does not
    understand: a word among them (`mode`, `grid`, `locked`, `opt_out`, `faults`, or the whole `message`) keeps the
    device from being controlled, a number stops the directions that rest on it. `unreachable` is null where the device
    can be told what it is to do. `reserve_pct` is the reserve in the newest reading; the reserve in force is that of
    `device`. `clock_offset_s` is how far the device's clock is ahead (negative: behind, or its readings come late),
    null = it says no time. `unheeded` says why its newest live message does not count, null if it does: no_time (it
    says none) | clock_ahead | clock_behind | clock_back (its time is earlier than that of a message before).
    `restarted_s`: how long ago it last began anew, s. `result`: its answer to the newest command (older: it knows a
    later one). `authority` says who has the device: device (the maker's own mode) | controlled | releasing
    | owner (an owner or maker took it back during an event) | no_profile. `held` is its former name, with free and left
    for device and owner; the next release drops it."""

    device: DeviceFields
    steerable: bool | None
    online: bool | None
    reading_age_s: float | None
    soc_pct: float | None
    battery_w: float | None
    reserve_pct: float | None
    authority: str
    held: Annotated[str, Field(json_schema_extra={"deprecated": True})]
    setpoint_w: int | None
    clock_offset_s: float | None = None
    unheeded: str | None = None
    restarted_s: float | None = None
    result: str | None = None
    unclear: list[str] = Field(default_factory=list)
    unreachable: UnreachableState | None = None
    session: SessionState | None = None


class DeviceList(Body):
    """A page of devices in order of registration; `next` is the offset of the next page, null at the end."""

    total: int
    next: int | None
    devices: list[DeviceState]


class RowFaultBody(Body):
    """One fault of a row. `column` "" = the row as a whole; `value` is what stands there, null where that may be a
    secret or nothing stands there."""

    column: str
    problem: str
    value: str | None


class BadRowBody(Body):
    """A row that was not imported: its line in the input (1 = first), every fault, and all of them in one text."""

    line: int
    problem: str
    faults: list[RowFaultBody]


class NoteBody(Body):
    """A note about a row that was imported."""

    line: int
    note: str


class ImportReport(Body):
    """What an import did; `enrolled` counts devices that were new or changed, `rejected_total` every row that was not
    imported, also those that `rejected` has no room for."""

    rows: int
    enrolled: int
    rejected: list[BadRowBody]
    rejected_total: int
    notes: list[NoteBody]


class UnregisteredList(Body):
    """Devices that send telemetry but are not registered; `seen` is the time of their last message, `messages` counts
    all of them."""

    devices: list[dict[str, str]]
    messages: int


class Readiness(Body):
    """Whether the gateway is ready to dispatch and to store. `reasons`: what keeps it from that (severity critical);
    `warnings`: what is missing while the rest goes on (severity warning)."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []
