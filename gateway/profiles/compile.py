"""Compiles a profile into the codec and facts that the rest of the gateway uses."""

from dataclasses import dataclass, field

from gateway.domain.control.leases import LEASE_PART_MIN
from gateway.domain.errors import invariant
from gateway.domain.fleet.fleet import ProductFacts
from gateway.profiles.checks.product import CYCLIC, faults_of
from gateway.profiles.compiled.messages import Decoder, Encoder, Route
from gateway.profiles.compiled.variant import PointProduct
from gateway.profiles.language.control import Control, Watchdog
from gateway.profiles.language.product import ProfileDocument

UNCONTROLLED_LEASE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A compiled profile: either message decoders, routes and an encoder, or a `product` with points. `digest`: the
    first characters of the file's SHA-256, "" = from no file. `former`: a warning for each former key in the file,
    `doubts` one for each thing that may be a mistake."""

    document: ProfileDocument
    decoders: dict[str, Decoder]
    routes: dict[str, Route]
    encoder: Encoder | None
    product: PointProduct | None
    facts: ProductFacts = field(repr=False)
    digest: str = ""
    former: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.document.profile


def compile_profile(document: ProfileDocument) -> Codec:
    """Compile a profile that has no faults."""
    invariant(not faults_of(document), "only a checked profile is compiled")
    product = PointProduct(document) if document.points else None
    return Codec(
        document=document,
        decoders={kind: Decoder(kind, message) for kind, message in document.messages.items()},
        routes={kind: Route(message.topic) for kind, message in document.messages.items()},
        encoder=Encoder(document) if document.commands is not None else None,
        product=product,
        facts=_facts(document, product),
    )


def _facts(document: ProfileDocument, product: PointProduct | None) -> ProductFacts:
    facts, watchdog, control = document.facts, document.watchdog, document.control
    blocks = document.commands is not None and "block" in document.commands.forms
    return ProductFacts(
        lease_s=watchdog.lease_s if watchdog is not None else UNCONTROLLED_LEASE_S,
        lease_step_s=_lease_step_s(watchdog, document) if watchdog is not None else 1.0,
        overrun_s=_overrun_s(watchdog, document) if watchdog is not None else 0.0,
        command_latency_s=facts.command_latency_s,
        settle_s=facts.settle_s,
        timed=watchdog is None or watchdog.kind != "none",
        blocks=blocks or (control is not None and bool(control.block)),
        setpoint_w_min=control.setpoint_w_min if control is not None else 0.0,
        setpoint_step_w=control.step_w if control is not None else 1.0,
        steerable=product.base.takes_setpoints if product is not None else document.commands is not None,
        experimental=product is not None and any(variant.experimental for variant in product.variants),
        efficiency_discharge=facts.efficiency_discharge,
        efficiency_charge=facts.efficiency_charge,
        standby_w=facts.standby_w,
        soc_uncertainty_pct=facts.soc_uncertainty_pct,
        soc_min_pct=facts.soc_min_pct,
        soc_max_pct=facts.soc_max_pct,
        drift_pct_per_cycle=facts.drift_pct_per_cycle,
        cycles_per_day_max=facts.cycles_per_day_max,
        counter_step_wh=facts.counter_step_wh or (product.base.counter_step_wh if product is not None else None),
        read_only=document.read_only,
        report_s=document.polling.live_s if product is not None else document.messages["live"].every_s,
    )


def _overrun_s(watchdog: Watchdog, document: ProfileDocument) -> float:
    """How much longer than its lease a device may act. Writes repeated within a lease carry the time left of it; where
    they cannot (a fixed time of the device's own, or one that a constant sets), the last such write starts the whole
    time anew."""
    reverts_s, control = watchdog.reverts_within_s or 0.0, document.control
    goes_on = control is not None and (control.follow_s is not None or control.heartbeat is not None)
    if goes_on and control is not None and not _carries_lease(watchdog, control):
        return reverts_s
    # a lease below the whole one ends with the timer's next step
    rounded_s = min(_lease_step_s(watchdog, document) - 1.0, (1 - LEASE_PART_MIN) * watchdog.lease_s)
    return max(0.0, reverts_s - watchdog.lease_s) + rounded_s


def _lease_step_s(watchdog: Watchdog, document: ProfileDocument) -> float:
    """What leases are multiples of: the step of the device's timer, or the least it accepts; the whole lease where its
    time is fixed."""
    if watchdog.kind == "implicit":
        return watchdog.lease_s
    if watchdog.point is None:
        return 1.0
    point = document.points[watchdog.point]
    unit_s = 60.0 if point.unit == "min" else 1.0
    least = point.taken[0] if point.taken is not None else 0.0
    return min(unit_s * max(abs(point.scale), least, 1.0), watchdog.lease_s)


def _carries_lease(watchdog: Watchdog, control: Control) -> bool:
    """Whether repeated writes set the device's timer to the time left."""
    if watchdog.kind in ("in_command", "none"):
        return True
    repeated = [step for name, steps in control.sequences().items() if name in CYCLIC for step in steps]
    parts = [part for step in repeated for part in (step.together or (step,))]
    timers = [part for part in parts if watchdog.point is not None and part.write == watchdog.point]
    return bool(timers) and all(part.source == "lease" for part in timers)
