"""Bodies of the REST answers; `openapi` makes the document from them."""

from typing import Annotated

from pydantic import Field, StrictBool

from gateway.schemas.body import Body
from gateway.schemas.reports import AvailabilityBody, EventStatus
from gateway.services.devices.import_rows import DeviceFields


class Problem(Body):
    """Why the gateway refused a request; `problems` lists every fault with its place."""

    error: str
    problems: list[str] = []


class EventList(Body):
    """A page of events, newest start first; `next` is what the request for the next page has as `after`, null at the
    end. A page may have fewer events than it could."""

    events: list[EventStatus]
    stopped: bool
    next: str | None


class StopBody(Body):
    """Whether dispatch is stopped; `by` names who asked for it."""

    active: StrictBool
    by: str = "operator"


class StopState(Body):
    """Whether dispatch is stopped. While that is not `durable` a restart would forget it; it is written as soon as the
    disk takes it."""

    active: bool
    by: str
    durable: bool


class AuditBody(Body):
    """A change that was journalled: its `kind`, when, `by` whom and through which `door` (gateway | device | rest |
    mqtt | offline), and what it was. `by` and `door` are null where release 0.1 wrote it."""

    id: int
    at: str
    kind: str
    by: str | None
    door: str | None
    what: dict[str, object]


class AuditBreak(Body):
    """The first row that is not what was written."""

    id: int
    why: str


class AuditChainState(Body):
    """Whether the audit trail is what was written. `unchained`: rows of a release before, without a hash; `head`: the
    newest hash that is right. Keep it elsewhere: only then is it seen if rows at the end are cut off."""

    rows: int
    unchained: int
    first: int | None
    last: int | None
    head: str | None
    broken: AuditBreak | None


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


class AvailabilityList(Body):
    """The curves of the whole fleet and of every tag."""

    groups: list[AvailabilityBody]


class SessionState(Body):
    """The gateway's connection to a device that it polls: down | connecting | ready | quarantined (what answers is not
    what was registered, so nothing is written), why it is not ready, and the variant of the product that answers.
    `notice`: what is wrong with a connection that goes on nevertheless. `models`: of SunSpec models that several parts
    of the device have (meters), which one is read, by the profile's name. `not_done`: by `setpoint`, `reserve` and
    `release` why the newest was not carried out, or why a setpoint would not be."""

    state: str
    why: str | None
    variant: str
    notice: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    not_done: dict[str, str] = Field(default_factory=dict)


class UnreachableState(Body):
    """A device that cannot be told anything, although it may report: `cause` (no_subscriber: nobody has subscribed to
    its commands, refused: the broker refuses them, not_sent: the gateway is not connected to it, not_durable: the
    journal does not take its release plan), for how long (s), and when it is tried again (s from now, 0 = with the next
    command). Others make up for it; it comes back by itself once it has answered."""

    cause: str
    for_s: float
    retry_in_s: float


class DepartureState(Body):
    """A device that leaves its place once it is handed back there. `to`: what it is registered as then, null = it is
    removed; `waits_for`: what keeps it."""

    device: str
    to: DeviceFields | None
    since: str
    waits_for: str
    by: str


class Departed(Body):
    """Whether a device is gone from its place (status 200), or what it waits for (202)."""

    device: str
    gone: bool
    waits_for: str | None


class DepartureList(Body):
    """A page of devices that leave their place; `next` is the offset of the next page, null at the end."""

    total: int
    next: int | None
    departures: list[DepartureState]


class ConnectionState(Body):
    """What a device was and where it answered. `since` null: since before that was noted; `until` null: it does.
    `ended`: moved | removed | abandoned."""

    profile: str
    address: str
    units: dict[str, int]
    parameters: dict[str, str]
    since: str | None
    until: str | None
    ended: str | None


class PlacementState(Body):
    """At which site and meter a device was, and where its home is; null: not known. `since` null: since before that
    was noted; `until` null: it is."""

    site: str
    meter: str | None
    postcode: str | None
    county: str | None
    utility: str | None
    since: str | None
    until: str | None


class ConnectionList(Body):
    """The connections and the placements of a device, oldest first, also of one that is registered no more."""

    device: str
    connections: list[ConnectionState]
    placements: list[PlacementState]


class DeviceState(Body):
    """A device: its registration and, where known, its newest reading and what it does now. `steerable`: it accepts
    setpoints from the gateway, because the product can, its operator has not ruled it out, and it is what it is
    registered as. `read_only` says why a device of its model is not written, null = it may be. `unclear` lists members
    of its newest reading that are about its safety and that the gateway does not understand: a word among them (`mode`,
    `grid`, `locked`, `opt_out`, `faults`, or the whole `message`) keeps the device from being controlled, a number
    stops the directions that rest on it. `unreachable` is null where the device can be told what it is to do.
    `reserve_pct` is the reserve in the newest reading; the reserve in force is that of `device`. `clock_offset_s` is
    how far the device's clock is ahead (negative: behind, or its readings come late), null = it says no time.
    `unheeded` says why its newest live message does not count, null if it does: no_time (it says none) | clock_ahead |
    clock_behind | clock_back (its time is earlier than that of a message before). `departing` is null unless it leaves
    its place. `restarted_s`: how long ago it last began anew, s. `result`: its answer to the newest command (older: it
    knows a later one). `authority` says who has the device: device (the maker's own mode) | controlled | releasing |
    owner (an owner or maker took it back during an event) | no_profile. `held` is its former name, with free and left
    for device and owner; the next release drops it. `excluded_by`: the exclusions of territories in force that cover
    it, null in lists."""

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
    read_only: str | None = None
    unclear: list[str] = Field(default_factory=list)
    unreachable: UnreachableState | None = None
    session: SessionState | None = None
    departing: DepartureState | None = None
    excluded_by: list[str] | None = None


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
    """What an import did; `enrolled` counts devices that were new or changed, `departing` those that change once they
    are handed back where they are, `rejected_total` every row that was not imported, also those that `rejected` has no
    room for."""

    rows: int
    enrolled: int
    departing: int = 0
    rejected: list[BadRowBody]
    rejected_total: int
    notes: list[NoteBody]


class UnregisteredList(Body):
    """Devices that send telemetry but are not registered; `seen` is the time of their last message, `messages` counts
    all of them."""

    devices: list[dict[str, str]]
    messages: int


class RawTopic(Body):
    """What is kept of the settlement messages of a topic. `device`: whose they are, null = no installed product has the
    topic; `unreadable` of them cannot be read, the others wait for `reason`; `discarded` found no room."""

    topic: str
    device: str | None
    reason: str
    messages: int
    unreadable: int
    bytes: int
    since: str | None
    newest: str | None
    discarded: int


class RawTopicList(Body):
    """A page of the topics of which settlement messages are kept raw; `next` is the offset of the next page, null at
    the end."""

    total: int
    next: int | None
    topics: list[RawTopic]


class RawMessageState(Body):
    """A message as it came: as text where it is UTF-8, else in `base64`. `problem`: why it cannot be read, "" = it only
    waits."""

    topic: str
    received: str
    problem: str
    text: str | None
    base64: str | None


class RawMessageList(Body):
    """The newest messages that are kept of a device or a topic, newest first."""

    messages: list[RawMessageState]


class DiscardedRaw(Body):
    """How many messages were discarded."""

    discarded: int


class Readiness(Body):
    """Whether the gateway is ready to dispatch and to store. `reasons`: what keeps it from that (severity critical);
    `warnings`: what is missing while the rest goes on (severity warning)."""

    ready: bool
    reasons: list[str]
    warnings: list[str] = []
