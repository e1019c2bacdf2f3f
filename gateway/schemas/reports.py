"""Bodies of what the platform is told: decisions, delivery records, events, availability, readings; REST answers with
the same."""

from typing import Literal

from pydantic import Field

from gateway.schemas.body import Body


class AnswerBody(Body):
    """The decision on an event. `reason`: why it was rejected; of a duplicate, that an operator has cancelled the event
    (cancelled_by_operator). `warnings` on one that was accepted: what its source may not have meant, as the group is
    now; on one that is over a ceiling: which, and what it asks for."""

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
    expired command or a device that is offline, where it is known now: a clock that is off. `excluded_by`: while the
    event runs and one limits the device, the exclusions of territories that cover it now. Powers in W, + = discharge;
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
    excluded_by: list[str] = Field(default_factory=list)
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


class BrokenRule(Body):
    """A rule of the event's program that the event breaks: its name, the version of the rules, what that does (refuse |
    clip | warn), how well the rule is known (verified | reported | inferred | unverified), and the facts in words."""

    rule: str
    version: str
    effect: str
    evidence: str
    says: str


class PreparationRule(Body):
    """A rule of an event's program on what comes before the event: its name, the version of the rules, how well it is
    known (verified | reported | inferred | unverified), the name of its source, and what it says in words."""

    rule: str
    version: str
    evidence: str
    source: str
    says: str


class PreparationBody(Body):
    """What the members of an event do before its next occurrence, or did before the one that runs: they keep their
    energy from `kept_from` (at once where the event became known later) to `kept_until`. `charges_from_pv`: they may
    meanwhile. `grid_charging`: from when until when they are charged from the grid, where that is permitted at their
    home too. `rules`: those of the program that this rests on; none = the event alone asks for it."""

    kept_from: str
    kept_until: str
    charges_from_pv: bool
    grid_charging: list[tuple[str, str]]
    rules: list[PreparationRule]


class EventStatus(Body):
    """An event and what it delivers. `want`: power | device_power | charge_to | follow_load | idle | self_consumption |
    backup, as it is now or in the first leg. `target_w` is the target now, after ceilings and energy limits,
    `delivered_w` the measured gross AC battery power of the group, `attributed_w` the part that is credited to this
    event, `shared_w` what serves it too and is credited to other events that share its devices: together they are what
    it got. `attributed_unknown` is of how many devices nobody knows the part, since their home's load is not known: a
    program that is paid for load or exports alone is credited with nothing there.
    `assumed_w` is what devices without readings are assumed to give, `unmeasured` how many such devices are
    under control. `unserved_w` is the part of the target that no device could be given, plus what devices without
    readings were given or are assumed to give; `shortfall` says why (`unmeasured` if missing readings are the only
    cause, `not_durable` if the journal takes no release plans and the other devices have no more to give). `end` is
    "open" where the event goes on until further notice. `reason` says why the event was rejected, or that an operator
    cancelled it. `source` says whose event it is: several sources may have one of the same id, and the request for one
    event then names the `source`. Only the answer for one event has `members`, a page of its delivery records (of now
    or of the newest occurrence, unless the request names another), `next`, the offset of the next page, and
    `occurrences`, the newest that are over; `occurrences_before` is what the request for older ones has as `before`,
    null if there are none. `broken_rules` are those of its program as they were when it was decided;
    `outside_known_rules`: it goes although one of them says otherwise. `excluded`: how many of its `devices` are kept
    out by exclusions while it runs, null while it does not. `labels`: what its source says of it
    besides, such as that it is a test."""

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
    attributed_unknown: int | None = None
    shared_w: float | None = None
    unserved_w: float | None
    shortfall: str | None
    devices: int
    excluded: int | None = None
    unmeasured: int | None
    outside_known_rules: bool = False
    broken_rules: list[BrokenRule] = Field(default_factory=list)
    preparation: PreparationBody | None = None
    labels: list[str] = Field(default_factory=list)
    rebound: ReboundBody | None = None
    members: list[DeliveryBody] | None = None
    next: int | None = None
    occurrences: list[OccurrenceBody] | None = None
    occurrences_before: str | None = None


class AvailabilityBody(Body):
    """A power-duration curve: W that the devices of a group can sustain for each of `hours`, from now on."""

    group: str
    devices: int
    hours: list[int]
    discharge_w: list[float]
    charge_w: list[float]


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


class PlatformAnswer(Body):
    """The answer to a dispatch message: the decision on its event, or why it was refused before that. `id` and
    `revision` are absent where the message could not be read; `problems` then lists every fault."""

    id: str | None = None
    revision: int | None = None
    outcome: Literal["accepted", "duplicate", "superseded", "rejected"]
    reason: str | None = None
    warnings: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)


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
