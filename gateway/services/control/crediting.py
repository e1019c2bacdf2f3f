"""Credits what events deliver in a tick, and updates delivery records and maintenance by it."""

from collections.abc import Mapping

import numpy as np

from gateway.domain.control.observed import Observed
from gateway.domain.control.progress import Tracked
from gateway.domain.events.attribution import Credit, credit, load_of_each, serves
from gateway.domain.events.delivery_records import Sight
from gateway.domain.journal.changes import Change
from gateway.domain.limits.site import Homes
from gateway.domain.limits.types import Envelope
from gateway.services.control.arbitration import Arbitrated
from gateway.services.control.maintenance import Maintenance
from gateway.services.control.quarantine import QuarantineWatch
from gateway.services.events.delivery_records import DeliveryRecords
from gateway.services.events.intake import Dispatcher


class Crediting:
    """`credits` are those of the newest tick, by event index."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        records: DeliveryRecords,
        maintenance: Maintenance,
        quarantine: QuarantineWatch,
    ) -> None:
        self._dispatcher = dispatcher
        self._records = records
        self._maintenance = maintenance
        self._quarantine = quarantine
        self.credits: Mapping[int, Credit] = {}

    def observe(self, observed: Observed, arbitrated: Arbitrated, allowed: Envelope, tracked: Tracked) -> list[Change]:
        """Move events on, and credit what those that run deliver; returns what the journal should remember."""
        now, claims, power = observed.now, arbitrated.claims, observed.power
        edges, changes = self._dispatcher.advance(now, claims.lost)
        running = [event for event in arbitrated.events if event.index >= 0]
        self._dispatcher.forget(event.index for event in running)
        self.credits = {}
        if running:
            live = observed.snapshot.live
            wanted_w = {event.index: tracked.progress[event.index].target_w for event in running}
            net_w = np.subtract(live.load_w, live.pv_w, dtype=np.float64)
            measured_w = np.where(power.measured, live.battery_w, np.nan)
            load_w = load_of_each(net_w, measured_w, Homes(observed.snapshot.nameplate.site))
            self.credits = credit(running, claims, measured_w, load_w, wanted_w)
            sight = Sight(
                snapshot=observed.snapshot, allowed=allowed, power=power, asked_w=tracked.asked_w,
                wanted_w=tracked.wanted_w, unresponsive=self._quarantine.silent, unreached=observed.reach.cause,
                serves=serves(running, claims), by_own_mode=tracked.by_own_mode,
            )  # fmt: skip
            groups = {event.index: self._dispatcher.members(event.index, event.request) for event in running}
            left = {event.index: arbitrated.out_of(event.index) for event in running}
            self._records.observe(running, claims, groups, left, sight, now)
        self._maintenance.observe(edges, self._dispatcher, observed.snapshot, power, now)
        return changes + list(self._records.over(self._dispatcher.by_index(), now))
