"""Devices that may be under control by the journal, and that cannot be released: their profile is not installed.

A product without a timer keeps its last setpoint for ever, and without the profile the product is unknown. So each of
them counts until the profile is installed again and the next start releases them.
"""

import logging

from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.stored import JournalState

log = logging.getLogger(__name__)

NAMED = 5
TEXT_MAX = 100


class Stranded:
    """Release plans, and saved settings, of devices that have no slot."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._profile_of: dict[str, str] = {}

    def load(self, remembered: JournalState) -> None:
        """Find them, once every device whose profile is installed has its slot."""
        kept = {name for name in (*remembered.controlled, *remembered.prior) if name not in self._fleet.slot_of}
        self._profile_of = dict.fromkeys(sorted(kept), "not registered")
        self._profile_of |= {device.id: device.profile for device in remembered.devices if device.id in kept}
        if kept:
            log.error(
                "devices may still be under control and cannot be released: their profiles are not installed",
                extra={"count": len(kept), "first": self._named(next(iter(self._profile_of)))},
            )

    def _named(self, device: str) -> str:
        return f"{device} ({self._profile_of[device]})"[:TEXT_MAX]

    @property
    def devices(self) -> list[str]:
        """Their ids."""
        return [name for name in self._profile_of if name not in self._fleet.slot_of]

    def reasons(self) -> list[str]:
        """Why control is not ready."""
        names = self.devices
        if not names:
            return []
        first = ", ".join(map(self._named, names[:NAMED]))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        subject = "1 device" if len(names) == 1 else f"{len(names)} devices"
        whose = "its profile is" if len(names) == 1 else "their profiles are"
        return [f"{subject} may still be under control and cannot be released, {whose} not installed: {first}{more}"]
