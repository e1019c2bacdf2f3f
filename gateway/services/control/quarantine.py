"""Quarantine: devices that keep doing the opposite of their commands, products that do so in many homes, and products
of which many devices fail at once, which are frozen.

Quarantine is durable and ends when an operator lifts it; a frozen product is freed when its devices are well. Neither
is written to: running leases expire. Products of which many devices are lost at once are only told: those that answer
go on.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gateway.domain.control.compliance import Conduct, ResponseParams, responsive, unresponsive_for_s, update_conduct
from gateway.domain.control.quarantine import (
    StruckParams,
    failed_products,
    lost_products,
    wrong_products,
    wrong_way,
)
from gateway.domain.fleet.columns import ExclusionReason
from gateway.domain.fleet.fleet import Fleet, Snapshot
from gateway.domain.journal.changes import AuditDoor, Change, Quarantined, Trusted
from gateway.domain.limits.types import Envelope
from gateway.domain.types import Bools, DeviceId, Now
from gateway.services.runtime.pending_changes import PendingChanges

log = logging.getLogger(__name__)

PRODUCT = "product:"
PRODUCTS_EVERY_MS = 5_000
SILENT_S = 60


class Distrust(StrEnum):
    """Why a device or a product is not written."""

    WRONG_SIGN = "wrong_sign"
    MANY_FAILED = "many_failed"
    WRONG_IDENTITY = "wrong_identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrusted:
    """A device, or `product:<product>`, that is not written: why, since when (UTC; None = unknown), and what lifts
    that. `detail`: what was found, where more is known than the reason."""

    name: str
    reason: str
    since_ms: int | None
    lifted_by: str
    detail: str = ""


class QuarantineWatch:
    """Keeps which devices and products are not trusted. `quarantined`: the reason by device, or by
    `product:` and the name of a product (see `Fleet.products`). One maker's fault stops no other maker's devices of the
    same profile."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._conduct = Conduct()
        self._excluded: Bools = np.zeros(0, dtype=np.bool_)
        self._frozen: frozenset[int] = frozenset()
        self._lost: frozenset[int] = frozenset()
        self._checked_ms: int | None = None
        self._version = -1
        self.quarantined: dict[str, str] = {}
        self._since_ms: dict[str, int] = {}
        self._frozen_since_ms: dict[int, int] = {}
        self.silent: Bools = np.zeros(0, dtype=np.bool_)
        self.proven = 0
        self.freezes = 0

    def load(self, quarantined: Mapping[str, str], since_ms: Mapping[str, int]) -> None:
        self.quarantined, self._since_ms = dict(quarantined), dict(since_ms)
        self._version = -1

    def untrusted(self) -> Iterator[Untrusted]:
        """What is in quarantine or frozen, by name."""
        operator = "an operator, after repair: gateway devices trust"
        for name, reason in sorted(self.quarantined.items()):
            yield Untrusted(name=name, reason=reason, since_ms=self._since_ms.get(name), lifted_by=f"{operator} {name}")
        for number in sorted(self._frozen, key=self._fleet.products.texts.__getitem__):
            name = PRODUCT + self._fleet.products.texts[number]
            yield Untrusted(
                name=name, reason=Distrust.MANY_FAILED, since_ms=self._frozen_since_ms.get(number),
                lifted_by=f"its devices, once they are well; or {operator} {name}",
            )  # fmt: skip

    @property
    def frozen(self) -> list[str]:
        """Names of the products that are frozen."""
        return sorted(self._fleet.products.texts[number] for number in self._frozen)

    def reasons(self) -> list[str]:
        """Why control is not ready: at least half of the fleet is not trusted."""
        return self._untrusted() if self._most else []

    def warnings(self) -> list[str]:
        """What is not trusted, while most of the fleet is, and what was lost."""
        texts = self._fleet.products.texts
        lost = sorted(f"product {texts[number]}: many devices lost at once" for number in self._lost)
        return lost if self._most else self._untrusted() + lost

    @property
    def _most(self) -> bool:
        registered = self._fleet.nameplate.registered[: self._fleet.n]
        untrusted = int(np.count_nonzero((self.exclusions() != 0) & registered))
        return untrusted > 0 and 2 * untrusted >= int(np.count_nonzero(registered))

    def _untrusted(self) -> list[str]:
        out = [f"product {name}: many devices failed at once, frozen" for name in self.frozen]
        products = sorted(name for name in self.quarantined if name.startswith(PRODUCT))
        out += [f"product {name.removeprefix(PRODUCT)}: in quarantine, {self.quarantined[name]}" for name in products]
        devices = sorted(self.quarantined.keys() - set(products))
        if devices:
            first = devices[0]
            out.append(f"devices: {len(devices)} in quarantine, first of them {first}, {self.quarantined[first]}")
        return out

    async def trust(self, name: str, *, by: str, reason: str, pending: PendingChanges) -> bool:
        """Lift a quarantine or a freeze, once that is durable; returns whether there was one. What was proven before no
        longer counts, not for the product either. Raises StorageError."""
        if name not in self.quarantined and name not in {PRODUCT + one for one in self.frozen}:
            return False
        await pending.commit([Trusted(names=(name,), by=by, reason=reason, door=AuditDoor.REST)])
        self.quarantined.pop(name, None)
        self._since_ms.pop(name, None)
        if name.startswith(PRODUCT):
            self._frozen -= frozenset(self._fleet.products_of(name.removeprefix(PRODUCT)))
        self._conduct.clear(self._slots(name))
        self._version = -1
        log.warning("a quarantine was lifted", extra={"of": name, "by": by, "reason": reason})
        return True

    def _slots(self, name: str) -> NDArray[np.intp]:
        """Observed slots of `name`: a device, or a product behind `product:`."""
        fleet, n = self._fleet, len(self._conduct.controlled)
        if name.startswith(PRODUCT):
            numbers = fleet.products_of(name.removeprefix(PRODUCT))
            return np.flatnonzero(np.isin(fleet.nameplate.product[: min(n, fleet.n)], numbers))
        return np.array([slot for slot in (fleet.slot_of.get(name),) if slot is not None and slot < n], dtype=np.intp)

    def exclusions(self) -> NDArray[np.uint8]:
        """`ExclusionReason` bits of every device."""
        n, product = self._fleet.n, self._fleet.nameplate.product[: self._fleet.n]
        bits = np.zeros(n, dtype=np.uint8)
        if self.quarantined:
            bits[self._quarantined()] |= np.uint8(ExclusionReason.QUARANTINED)
        if self._frozen:
            bits[np.isin(product, list(self._frozen))] |= np.uint8(ExclusionReason.FROZEN)
        return bits

    def _quarantined(self) -> Bools:
        """Devices in quarantine, by themselves or with their product."""
        fleet = self._fleet
        if self._version != fleet.version or len(self._excluded) != fleet.n:
            self._version = fleet.version
            excluded = np.zeros(fleet.n, dtype=np.bool_)
            excluded[[fleet.slot_of[name] for name in self.quarantined if name in fleet.slot_of]] = True
            products = [name.removeprefix(PRODUCT) for name in self.quarantined if name.startswith(PRODUCT)]
            numbers = [number for name in products for number in fleet.products_of(name)]
            excluded |= np.isin(fleet.nameplate.product[: fleet.n], numbers)
            self._excluded = excluded
        return self._excluded

    def follows(self, snapshot: Snapshot, now: Now) -> Bools:
        """Devices that obey, or still have time to."""
        if len(self._conduct.controlled) < snapshot.n:
            self._conduct.grow(snapshot.n)
        update_conduct(self._conduct, snapshot, now)
        return responsive(self._conduct, snapshot, now, ResponseParams())

    def observe(self, snapshot: Snapshot, allowed: Envelope, follows: Bools, now: Now) -> list[Change]:
        """Judge what devices did since the last tick; a quarantine takes effect at once. Returns what to journal."""
        self.silent = unresponsive_for_s(self._conduct, follows, now) >= SILENT_S
        if self._checked_ms is None or now.mono_ms - self._checked_ms >= PRODUCTS_EVERY_MS:
            self._checked_ms = now.mono_ms
            self._observe_products(snapshot, now)
        wrong = wrong_way(self._conduct, snapshot, allowed, now) & ~self._quarantined()
        if not wrong.any():
            return []
        names = self._fleet.names(np.flatnonzero(wrong))
        self.proven += len(names)
        log.error(
            "devices do the opposite of their commands; they are quarantined",
            extra={"count": len(names), "first": names[0]},
        )
        return self._quarantine(names, now) + self._products(snapshot, now)

    def _quarantine(self, names: Iterable[str], now: Now) -> list[Change]:
        new = tuple(DeviceId(name) for name in names if name not in self.quarantined)
        self.quarantined |= dict.fromkeys(new, Distrust.WRONG_SIGN.value)
        self._since_ms |= dict.fromkeys(new, now.utc_ms)
        self._version = -1
        return [Quarantined(names=new, reason=Distrust.WRONG_SIGN.value, since_ms=now.utc_ms)] if new else []

    def _products(self, snapshot: Snapshot, now: Now) -> list[Change]:
        """Quarantine products that do the opposite in so many homes that no device of them is written any more."""
        texts = self._fleet.products.texts
        wrong = [PRODUCT + texts[number] for number in wrong_products(self._conduct, snapshot, now)]
        new = [name for name in wrong if name not in self.quarantined]
        if new:
            log.critical("products do the opposite of their commands; they are quarantined", extra={"names": new})
        return self._quarantine(new, now)

    def _observe_products(self, snapshot: Snapshot, now: Now) -> None:
        """Freeze and free products, and log those of which many devices are lost or back."""
        texts = self._fleet.products.texts
        frozen, lost = self._frozen, self._lost
        self._frozen = failed_products(self._conduct, snapshot, frozen, now, StruckParams())
        self._lost = lost_products(self._conduct, snapshot, lost, now, StruckParams())
        for number in sorted(self._frozen - frozen):
            self.freezes += 1
            self._frozen_since_ms[number] = now.utc_ms
            log.critical("many devices of a product failed at once; it is frozen", extra={"product": texts[number]})
        for number in sorted(frozen - self._frozen):
            log.warning("the devices of a frozen product are well again", extra={"product": texts[number]})
        for number in sorted(self._lost - lost):
            log.error("many devices of a product were lost at once; the others go on", extra={"product": texts[number]})
        for number in sorted(lost - self._lost):
            log.warning("the devices of a product are back", extra={"product": texts[number]})
