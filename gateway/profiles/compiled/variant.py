"""Compiles a product with values at addresses: what to poll, what values mean, what to write.

A product has one variant per firmware variant: the profile itself, and the profile under all overlays that hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from gateway.domain.commands import CommandOp
from gateway.domain.errors import invariant
from gateway.domain.types import CLEAR, Unclear
from gateway.profiles.compiled.overlays import combinations, together
from gateway.profiles.compiled.points import DecodeCounts, PointCodec, Read, Value, Values, decode_all
from gateway.profiles.compiled.readings import compile_doubt, compile_reading, holds, mismatch, other_build
from gateway.profiles.compiled.sequences import Action, Quantities, actions
from gateway.profiles.compiled.validity import drop_invalid
from gateway.profiles.language.base import EvidenceTag
from gateway.profiles.language.control import Control, Step, Watchdog
from gateway.profiles.language.points import Point, Term
from gateway.profiles.language.product import Overlay, ProfileDocument
from gateway.profiles.language.quantities import COUNTERS, READINGS

Group = Literal["live", "energy", "slow", "once"]
GROUPS: tuple[Group, ...] = ("live", "energy", "slow", "once")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalReading:
    """One reading of a device in canonical quantities; NaN = unknown, enumerations as numbers. `reserve_again`: its
    reserve repeats an earlier read. `unclear`: safety members that were not understood."""

    quantities: dict[str, float]
    reserve_again: bool = False
    unclear: Unclear = CLEAR

    def get(self, name: str) -> float:
        return self.quantities.get(name, float("nan"))


class ProductVariant:
    """One variant of a product. `variant` is "" for the profile itself, else its overlays' names, joined by + .
    `read_only`: why nothing is written to it, "" = it may be."""

    def __init__(self, document: ProfileDocument, overlay: Overlay | None = None) -> None:
        document = self.document = document.under(overlay)
        self.variant = overlay.name if overlay else ""
        self.points: dict[str, Point] = document.points | (overlay.points if overlay else {})
        self.read_only = (overlay.read_only if overlay else "") or document.read_only
        control, watchdog = (overlay.control, overlay.watchdog) if overlay else (None, None)
        self.control: Control | None = None if self.read_only else control or document.control
        self.watchdog: Watchdog | None = None if self.read_only else watchdog or document.watchdog
        readings = document.readings | (overlay.readings if overlay else {})
        section = document.modbus
        self.codecs = {
            name: PointCodec(
                name,
                point,
                order=section.word_order if section else "big",
                unimplemented=bool(section and section.unimplemented == "sunspec"),
            )
            for name, point in self.points.items()
        }
        self._guarded = {name: point for name, point in self.points.items() if point.guards}
        # Scale factors are decoded before what they scale.
        factors = {point.scale_factor for point in self.points.values()}
        self._order = sorted(self.codecs.values(), key=lambda codec: codec.name not in factors)
        self.readings = {name: compile_reading(name, reading) for name, reading in readings.items()}
        self.reserve_points = frozenset(readings["reserve_pct"].points()) if "reserve_pct" in readings else frozenset()
        doubts = {name: compile_doubt(name, reading) for name, reading in readings.items()}
        self._doubts = {name: doubt for name, doubt in doubts.items() if doubt is not None}
        self.counters = tuple(name for name in COUNTERS if name in readings)
        self._counter_points = [
            (self.points[term.point], term.times)
            for name in self.counters
            for term in (*readings[name].sum, *((Term(point=readings[name].point),) if readings[name].point else ()))
            if term.point in self.points
        ]
        self.groups: dict[Group, tuple[str, ...]] = {
            group: tuple(n for n, p in self.points.items() if p.readable and p.poll == group) for group in GROUPS
        }
        self.counts = DecodeCounts()

    @property
    def takes_setpoints(self) -> bool:
        """Whether the product takes setpoints."""
        return self.control is not None and bool(self.control.discharge)

    @property
    def counter_step_wh(self) -> float | None:
        """Step of the coarsest energy counter in Wh, by the scale of its register; None = unknown (a scale factor of
        the device's own, a number in JSON)."""
        whole = [(p, times) for p, times in self._counter_points if p.register_count and p.scale_factor is None]
        whole = [(p, times) for p, times in whole if not p.type.value.startswith("f")]
        return max((abs(p.scale * times) for p, times in whole), default=None)

    @property
    def experimental(self) -> bool:
        """Whether control rests on facts that are neither verified nor documented."""
        if self.control is None:
            return False
        touched = set(
            chain.from_iterable(step.touched() for steps in self.control.sequences().values() for step in steps)
        )
        touched |= {match.point for match in self.control.needs}
        default = self.document.evidence.tag
        tags = {self.points[name].evidence or default for name in touched}
        return EvidenceTag.EXPERIMENTAL in tags

    @property
    def reads(self) -> tuple[str, ...]:
        """Every point that is polled at all."""
        return tuple(chain.from_iterable(self.groups.values()))

    @property
    def identifying(self) -> tuple[str, ...]:
        """Points read to identify a device: those polled once, and those that identity and overlays test."""
        identity = self.document.identity
        rules = identity.matches if identity is not None else ()
        asked = [rule.point for rule in (*rules, *chain.from_iterable(o.when for o in self.document.overlays))]
        names = [*self.groups["once"], *(name for name in asked if name in self.points)]
        names += [other for name in names if (other := self.points[name].fallback) is not None]
        names += [guard.point for name in names for guard in self.points[name].guards]
        return tuple(dict.fromkeys(names))

    def decode(self, raws: Mapping[str, Read], values: dict[str, Value]) -> None:
        """Decode raw values into `values`; what other points declare invalid is unknown."""
        decode_all(self._order, raws, values, self.counts)
        drop_invalid(self._guarded, raws, values, self.counts)

    def canonical(self, values: Mapping[str, Value]) -> CanonicalReading:
        """The canonical reading of the values. Only `Values` record what was not understood."""
        quantities = {name: get(values) for name, get in self.readings.items()}
        unclear = CLEAR
        if isinstance(values, Values):
            for name, doubt in self._doubts.items():
                if doubt(values, quantities[name]):
                    unclear |= READINGS[name].unclear
        return CanonicalReading(quantities=quantities, unclear=unclear)

    def not_this_product(self, values: Mapping[str, Value]) -> list[str]:
        """Identity rules that do not hold, excluded products that the device is or may be, and that it is none of the
        product's builds, as text; empty = it is the product of the profile."""
        identity = self.document.identity
        invariant(identity is not None, "a product with points has an identity")
        if identity is None:
            return []
        others = [
            mismatch(other, values, excluded=True) for other in identity.excludes if holds(other, values) is not False
        ]
        wrong = [mismatch(rule, values) for rule in identity.rules if not holds(rule, values)]
        return wrong + others + other_build(identity.builds, values)

    def unmet(self, values: Mapping[str, Value]) -> list[str]:
        """Why the device cannot be controlled as it is: it is read-only, or needs of control that it does not meet."""
        if self.read_only:
            return [f"read-only: {self.read_only}"]
        needs = self.control.needs if self.control is not None else ()
        return [mismatch(need, values) for need in needs if not holds(need, values)]

    def sequence(self, op: CommandOp, setpoint_w: float) -> tuple[Step, ...]:
        """The steps of an operation, empty if the product has none. A setpoint below the product's smallest one, or
        below one step, is a hold."""
        control = self.control
        if control is None:
            return ()
        if op is CommandOp.RELEASE:
            return control.release
        if op is CommandOp.RESERVE:
            return control.reserve
        if op is CommandOp.BLOCK:
            return control.block
        if op is CommandOp.HOLD or self.quantised(setpoint_w) == 0:
            return control.hold
        return control.discharge if setpoint_w > 0 else control.charge

    def quantised(self, setpoint_w: float) -> float:
        """Whole steps towards 0; 0 below the product's smallest setpoint."""
        control = self.control
        if control is None:
            return 0.0
        # A little is added because binary fractions can fall just below a whole step.
        magnitude_w = (abs(setpoint_w) / control.step_w + 1e-9) // 1 * control.step_w
        if magnitude_w < control.setpoint_w_min:
            return 0.0
        return magnitude_w if setpoint_w > 0 else -magnitude_w

    def actions(
        self, steps: Sequence[Step], given: Quantities, values: Mapping[str, Value], saved: Mapping[str, Value]
    ) -> list[Action]:
        """See `sequences.actions`."""
        return actions(steps, given, codecs=self.codecs, values=values, saved=saved)

    def known(self) -> tuple[str, ...]:
        """Canonical quantities this product has."""
        return tuple(name for name in READINGS if name in self.readings)


class PointProduct:
    """All variants of one product."""

    def __init__(self, document: ProfileDocument) -> None:
        self.document = document
        self.base = ProductVariant(document)
        self._variants = {
            taken: ProductVariant(document, together([document.overlays[i] for i in taken]))
            for taken in combinations(document.overlays)
        } | {(): self.base}

    @property
    def variants(self) -> list[ProductVariant]:
        return list(self._variants.values())

    def variant(self, values: Mapping[str, Value]) -> ProductVariant:
        """The variant for a device that has been identified: the profile under every overlay whose rules hold."""
        overlays = enumerate(self.document.overlays)
        return self._variants[tuple(i for i, one in overlays if all(holds(match, values) for match in one.when))]
