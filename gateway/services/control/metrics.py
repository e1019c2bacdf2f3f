"""Metrics of control and of the fleet, computed from the newest tick on request."""

from collections.abc import Iterable

import numpy as np

from gateway import former_names
from gateway.clock import Clock
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.limits.types import Reason
from gateway.domain.types import Unclear
from gateway.observability.metrics import Sample
from gateway.services.control.loop import ControlLoop
from gateway.services.events.intake import Dispatcher

UP_AGE_S = 120.0


def fleet_samples(fleet: Fleet, clock: Clock) -> Iterable[Sample]:
    """Devices, their readings, and who has them."""
    n, now_ms = fleet.n, clock.mono_ms()
    age_s = (now_ms - fleet.live.seen_mono_ms[:n]) / 1000
    fresh = age_s <= UP_AGE_S
    yield Sample(name="gateway_devices", help="Devices enrolled.", value=n)
    yield Sample(name="gateway_devices_up", help="Devices with a fresh reading.", value=int(fresh.sum()))
    for share in (0.5, 0.99):
        value = float(np.quantile(age_s[fresh], share)) if fresh.any() else 0.0
        yield Sample(
            name="gateway_reading_age_seconds",
            help="Age of fresh readings.",
            value=value,
            labels=(("rank", f"p{share * 100:.0f}"),),
        )
    for member in Unclear:
        yield Sample(
            name="gateway_unclear_devices",
            help="Devices that report something about their safety that is not understood.",
            value=int(np.count_nonzero(fleet.live.unclear[:n] & member)),
            labels=(("member", str(member.name).lower()),),
        )
    for authority in Authority:
        count, name = int(np.count_nonzero(fleet.control.authority[:n] == authority)), authority.name.lower()
        label = (("authority", name),)
        yield Sample(name="gateway_devices_authority", help="Devices by who has them.", value=count, labels=label)
        former = (("held", former_names.authority(name)),)
        text = "Former name of gateway_devices_authority."
        yield Sample(name="gateway_devices_held", help=text, value=count, labels=former)


def control_samples(control: ControlLoop) -> Iterable[Sample]:
    """What narrows devices, what is written, what devices answer, what events deliver."""
    yield from _reasons(control)
    for cause, count in control.writes.writes.items():
        yield _counter("gateway_setpoints", "Commands written.", count, "cause", cause.name)
    for outcome, count in control.writes.outcomes.items():
        yield _counter(
            "gateway_command_deliveries", "Commands by what the broker said.", count, "outcome", outcome.name
        )
    for result, count in control.stats.results.items():
        yield _counter("gateway_command_results", "Commands by what the device said.", count, "result", result.name)
    stats = control.stats
    for name, text, value in (
        ("gateway_ticks", "Control ticks.", stats.ticks),
        ("gateway_late_ticks", "Control ticks later than a period.", stats.late_ticks),
        ("gateway_setpoints_outside", "Setpoints not written since the envelope forbade them.", stats.outside),
        ("gateway_reserves_raised", "Reserves raised on devices to their owner's.", control.writes.reserves),
        ("gateway_journal_failures", "Failed commits of the journal.", control.pending.stats.failures),
        ("gateway_journal_changes_lost", "Changes the journal never took.", control.pending.stats.forgotten),
        ("gateway_overrides", "Devices their owners took back.", control.authority_stats.overridden),
        (
            "gateway_restarts_excused",
            "Devices dispatched again after they restarted.",
            control.restarted.excused,
        ),
        ("gateway_leases_run_out", "Leases that ended without a refresh.", control.authority_stats.leases_run_out),
    ):
        yield Sample(name=name, help=text, value=value, kind="counter")
    yield from control.command_ids.samples()
    yield Sample(
        name="gateway_reserve_unguaranteed_devices",
        help="Devices whose own reserve is below their owner's.",
        value=control.unguaranteed(),
    )
    yield Sample(
        name="gateway_stranded_devices",
        help="Devices that may be under control and cannot be released, since their profile is not installed.",
        value=len(control.stranded.devices),
    )
    yield Sample(
        name="gateway_silent_devices", help="Devices that have not followed their setpoints for a minute.",
        value=int(control.quarantine.silent.sum()),
    )  # fmt: skip
    for unreached, count in control.reach.counts():
        yield Sample(
            name="gateway_unreachable_devices",
            help="Devices that cannot be told anything although they may report, by cause.",
            value=count,
            labels=(("cause", unreached.name.lower()),),
        )
    yield Sample(
        name="gateway_measured_power_ratio", help="Part of steered power that is measured; 1 while nothing is steered.",
        value=control.unmeasured.measured_share,
    )  # fmt: skip
    yield Sample(
        name="gateway_unmeasured_devices", help="Devices that are steered and of which readings are missing.",
        value=control.unmeasured.fleet.devices,
    )  # fmt: skip
    for program, total in control.totals().items():
        for kind, text, watts in (
            ("target", "Target of running events.", total.target_w),
            ("commanded", "Commanded power of running events.", total.commanded_w),
            ("delivered", "Power of running events, of devices that are measured.", total.delivered_w),
            ("assumed", "Power that devices of running events are taken to give while unmeasured.", total.assumed_w),
            (
                "unserved",
                "Part of the target that nobody could be given, or only devices that are not measured.",
                total.unserved_w,
            ),
            ("attributed", "Measured power that running events are credited with.", total.attributed_w),
            ("shared", "Measured power that serves running events and is credited to others.", total.shared_w),
        ):
            yield Sample(
                name=f"gateway_event_{kind}_watts", help=text, value=watts, labels=(("program", program),)
            )  # fmt: skip


def dispatch_samples(dispatcher: Dispatcher, control: ControlLoop) -> Iterable[Sample]:
    """What was decided, which devices are excluded, what maintenance does."""
    for outcome, count in dispatcher.outcomes.items():
        yield _counter("gateway_events_decided", "Events decided.", count, "outcome", outcome)
    yield Sample(
        name="gateway_events_open_ended",
        help="Running events that go on until further notice.",
        value=len(dispatcher.open_ended()),
    )
    quarantine, maintenance = control.quarantine, control.maintenance
    for name, text, value, kind in (
        ("gateway_holds", "Holds that are set.", len(dispatcher.exclusions), "gauge"),
        ("gateway_quarantined", "Devices and products in quarantine.", len(quarantine.quarantined), "gauge"),
        ("gateway_wrong_sign_devices", "Devices proven to do the opposite.", quarantine.proven, "counter"),
        ("gateway_frozen_products", "Products frozen now.", len(quarantine.frozen), "gauge"),
        ("gateway_product_freezes", "Times a product was frozen.", quarantine.freezes, "counter"),
        ("gateway_recovering_devices", "Devices charged up to their reserve.", maintenance.stats.recovering, "gauge"),
        ("gateway_filling_devices", "Devices charged full since that is overdue.", maintenance.stats.filling, "gauge"),
    ):
        yield Sample(name=name, help=text, value=value, kind=kind)
    now_w = sum(rebound.power_w for rebound in maintenance.rebounds.values())
    yield Sample(name="gateway_rebound_watts", help="Power taken back after events.", value=now_w)


def _reasons(control: ControlLoop) -> Iterable[Sample]:
    allowed = control.envelope
    if allowed is None:
        return
    for direction, bits in (("discharge", allowed.reasons_discharge), ("charge", allowed.reasons_charge)):
        for reason in Reason:
            yield Sample(
                name="gateway_envelope_reasons",
                help="Devices narrowed, by cause.",
                value=int(np.count_nonzero(bits & np.uint64(reason))),
                labels=(("direction", direction), ("reason", str(reason.name).lower())),
            )


def _counter(name: str, text: str, value: float, label: str, word: str) -> Sample:
    return Sample(name=name, help=text, value=value, kind="counter", labels=((label, word.lower()),))
