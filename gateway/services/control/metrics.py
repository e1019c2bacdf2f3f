"""Metrics of control and of the fleet, computed from the newest tick on request."""

from collections.abc import Iterable, Iterator

import numpy as np

from gateway import former_names
from gateway.clock import Clock
from gateway.domain.commands import CommandResult, Unreached, WriteOutcome
from gateway.domain.control.planning import Cause
from gateway.domain.events.book import Outcome
from gateway.domain.events.exclusions import REASONS
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.limits.types import Reason
from gateway.domain.types import Unclear
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.observability.parts import Part
from gateway.services.control.queries import ControlQueries
from gateway.services.events.intake import Dispatcher

UP_AGE_S = 120.0
PROGRAM = "programs of running events"

DEVICES = gauge("gateway_devices", "Devices enrolled.")
DEVICES_UP = gauge("gateway_devices_up", "Devices with a fresh reading.")
READING_AGE = gauge("gateway_reading_age_seconds", "Age of fresh readings.", rank=("p50", "p99"))
RESTARTS = counter("gateway_device_restarts", "Restarts of devices that speak MQTT.")
UNCLEAR = gauge(
    "gateway_unclear_devices",
    "Devices that report something about their safety that is not understood.",
    member=words(Unclear),
)
AUTHORITY = gauge("gateway_devices_authority", "Devices by who has them.", authority=words(Authority))
HELD = gauge(
    "gateway_devices_held",
    "Former name of gateway_devices_authority.",
    held=tuple(former_names.authority(name) for name in words(Authority)),
)

SETPOINTS = counter("gateway_setpoints", "Commands written.", cause=words(Cause))
DELIVERIES = counter("gateway_command_deliveries", "Commands by what the broker said.", outcome=words(WriteOutcome))
RESULTS = counter("gateway_command_results", "Commands by what the device said.", result=words(CommandResult))
TICKS = counter("gateway_ticks", "Control ticks.")
LATE_TICKS = counter("gateway_late_ticks", "Control ticks later than a period.")
OUTSIDE = counter("gateway_setpoints_outside", "Setpoints not written since the envelope forbade them.")
RESERVES_RAISED = counter("gateway_reserves_raised", "Reserves raised on devices to their owner's.")
JOURNAL_FAILURES = counter("gateway_journal_failures", "Failed commits of the journal.")
CHANGES_LOST = counter("gateway_journal_changes_lost", "Changes the journal never took.")
OVERRIDES = counter("gateway_overrides", "Devices their owners took back.")
RESTARTS_EXCUSED = counter("gateway_restarts_excused", "Devices dispatched again after they restarted.")
LEASES_RUN_OUT = counter("gateway_leases_run_out", "Leases that ended without a refresh.")
UNGUARANTEED = gauge("gateway_reserve_unguaranteed_devices", "Devices whose own reserve is below their owner's.")
STRANDED = gauge(
    "gateway_stranded_devices",
    "Devices that may be under control and cannot be released, since their profile is not installed.",
)
SILENT = gauge("gateway_silent_devices", "Devices that have not followed their setpoints for a minute.")
UNREACHABLE = gauge(
    "gateway_unreachable_devices",
    "Devices that cannot be told anything although they may report, by cause.",
    cause=words(cause for cause in Unreached if cause is not Unreached.NONE),
)
MEASURED_RATIO = gauge(
    "gateway_measured_power_ratio", "Part of steered power that is measured; 1 while nothing is steered."
)
UNMEASURED = gauge("gateway_unmeasured_devices", "Devices that are steered and of which readings are missing.")

TARGET = gauge("gateway_event_target_watts", "Target of running events.", program=PROGRAM)
COMMANDED = gauge("gateway_event_commanded_watts", "Commanded power of running events.", program=PROGRAM)
DELIVERED = gauge(
    "gateway_event_delivered_watts", "Power of running events, of devices that are measured.", program=PROGRAM
)
ASSUMED = gauge(
    "gateway_event_assumed_watts",
    "Power that devices of running events are taken to give while unmeasured.",
    program=PROGRAM,
)
UNSERVED = gauge(
    "gateway_event_unserved_watts",
    "Part of the target that nobody could be given, or only devices that are not measured.",
    program=PROGRAM,
)
ATTRIBUTED = gauge(
    "gateway_event_attributed_watts", "Measured power that running events are credited with.", program=PROGRAM
)
SHARED = gauge(
    "gateway_event_shared_watts",
    "Measured power that serves running events and is credited to others.",
    program=PROGRAM,
)

DECIDED = counter("gateway_events_decided", "Events decided.", outcome=words(Outcome))
OPEN_ENDED = gauge("gateway_events_open_ended", "Running events that go on until further notice.")
HOLDS = gauge("gateway_holds", "Holds that are set.")
EXCLUDED_HOMES = gauge("gateway_excluded_homes", "Homes that exclusions in force cover, by reason.", reason=REASONS)
QUARANTINED = gauge("gateway_quarantined", "Devices and products in quarantine.")
WRONG_SIGN = counter("gateway_wrong_sign_devices", "Devices proven to do the opposite.")
FROZEN = gauge("gateway_frozen_products", "Products frozen now.")
FREEZES = counter("gateway_product_freezes", "Times a product was frozen.")
RECOVERING = gauge("gateway_recovering_devices", "Devices charged up to their reserve.")
FILLING = gauge("gateway_filling_devices", "Devices charged full since that is overdue.")
REBOUND = gauge("gateway_rebound_watts", "Power taken back after events.")

ENVELOPE_REASONS = gauge(
    "gateway_envelope_reasons",
    "Devices narrowed, by cause.",
    direction=("discharge", "charge"),
    reason=words(Reason),
)


def fleet_samples(fleet: Fleet, clock: Clock) -> Iterable[Sample]:
    """Devices, their readings, and who has them."""
    n, now_ms = fleet.n, clock.mono_ms()
    age_s = (now_ms - fleet.live.seen_mono_ms[:n]) / 1000
    fresh = age_s <= UP_AGE_S
    yield DEVICES.sample(len(fleet.slot_of))
    yield DEVICES_UP.sample(int(fresh.sum()))
    for share in (0.5, 0.99):
        value = float(np.quantile(age_s[fresh], share)) if fresh.any() else 0.0
        yield READING_AGE.sample(value, rank=f"p{share * 100:.0f}")
    yield RESTARTS.sample(fleet.restarts.count)
    yield from UNCLEAR.each({member: int(np.count_nonzero(fleet.live.unclear[:n] & member)) for member in Unclear})
    for authority, name in zip(Authority, words(Authority), strict=True):
        count = int(np.count_nonzero((fleet.control.authority[:n] == authority) & fleet.nameplate.registered[:n]))
        yield AUTHORITY.sample(count, authority=name)
        yield HELD.sample(count, held=former_names.authority(name))


class ControlMetrics(Part):
    """The metrics of control and of what it carries out."""

    component = "control"

    def __init__(self, queries: ControlQueries, dispatcher: Dispatcher) -> None:
        self._queries = queries
        self._dispatcher = dispatcher

    def samples(self) -> Iterator[Sample]:
        yield from control_samples(self._queries)
        yield from dispatch_samples(self._dispatcher, self._queries)


def control_samples(control: ControlQueries) -> Iterable[Sample]:
    """What narrows devices, what is written, what devices answer, what events deliver."""
    yield from _reasons(control)
    stats, writes, owners = control.stats, control.writes, control.authority_stats
    yield from SETPOINTS.each(writes.writes)
    yield from DELIVERIES.each(writes.outcomes)
    yield from RESULTS.each(stats.results)
    yield TICKS.sample(stats.ticks)
    yield LATE_TICKS.sample(stats.late_ticks)
    yield OUTSIDE.sample(stats.outside)
    yield RESERVES_RAISED.sample(writes.reserves)
    yield JOURNAL_FAILURES.sample(control.pending.stats.failures)
    yield CHANGES_LOST.sample(control.pending.stats.forgotten)
    yield OVERRIDES.sample(owners.overridden)
    yield RESTARTS_EXCUSED.sample(control.restarted.excused)
    yield LEASES_RUN_OUT.sample(owners.leases_run_out)
    yield from control.command_ids.samples()
    yield UNGUARANTEED.sample(control.unguaranteed())
    yield STRANDED.sample(len(control.stranded.devices))
    yield SILENT.sample(int(control.quarantine.silent.sum()))
    yield from UNREACHABLE.each(dict(control.reach.counts()))
    yield MEASURED_RATIO.sample(control.unmeasured.measured_share)
    yield UNMEASURED.sample(control.unmeasured.fleet.devices)
    for program, total in control.totals().items():
        yield TARGET.sample(total.target_w, program=program)
        yield COMMANDED.sample(total.commanded_w, program=program)
        yield DELIVERED.sample(total.delivered_w, program=program)
        yield ASSUMED.sample(total.assumed_w, program=program)
        yield UNSERVED.sample(total.unserved_w, program=program)
        yield ATTRIBUTED.sample(total.attributed_w, program=program)
        yield SHARED.sample(total.shared_w, program=program)


def dispatch_samples(dispatcher: Dispatcher, control: ControlQueries) -> Iterable[Sample]:
    """What was decided, which devices are excluded, what maintenance does."""
    yield from DECIDED.each(dispatcher.outcomes)
    yield OPEN_ENDED.sample(len(dispatcher.open_ended()))
    quarantine, maintenance = control.quarantine, control.maintenance
    yield HOLDS.sample(len(dispatcher.exclusions))
    yield from EXCLUDED_HOMES.each(dispatcher.excluding.homes())
    yield QUARANTINED.sample(len(quarantine.quarantined))
    yield WRONG_SIGN.sample(quarantine.proven)
    yield FROZEN.sample(len(quarantine.frozen))
    yield FREEZES.sample(quarantine.freezes)
    yield RECOVERING.sample(maintenance.stats.recovering)
    yield FILLING.sample(maintenance.stats.filling)
    yield REBOUND.sample(sum(rebound.power_w for rebound in maintenance.rebounds.values()))


def _reasons(control: ControlQueries) -> Iterable[Sample]:
    allowed = control.envelope
    if allowed is None:
        return
    for direction, bits in (("discharge", allowed.reasons_discharge), ("charge", allowed.reasons_charge)):
        counts = {reason: int(np.count_nonzero(bits & np.uint64(reason))) for reason in Reason}
        yield from ENVELOPE_REASONS.each(counts, direction=direction)
