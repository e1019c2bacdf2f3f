"""Devices that the journal says may be under control, and that nobody can release: their profile is not installed.

A product without a timer of its own stays as it was told for ever, and which product it was nobody can say without its
profile. So each of them counts, until the profile is installed again and the next start releases them.
"""

import logging

from gateway.domain.fleet.fleet import Fleet
from gateway.ports.journal import JournalState

log = logging.getLogger(__name__)

NAMED = 5
TEXT_MAX = 100


class Stranded:
    """Release plans, and settings to be restored, of devices that have no slot."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._profile_of: dict[str, str] = {}

    def load(self, remembered: JournalState) -> None:
        """Find them once all devices that can be are enrolled."""
        kept = {name for name in (*remembered.controlled, *remembered.prior) if name not in self._fleet.slot_of}
        self._profile_of = dict.fromkeys(sorted(kept), "not enrolled")
        self._profile_of |= {device.id: device.profile for device in remembered.devices if device.id in kept}
        if kept:
            log.error(
                "devices may still be under control and nobody can release them; their profile is not installed",
                extra={"count": len(kept), "first": self._named(next(iter(self._profile_of)))},
            )

    def _named(self, device: str) -> str:
        return f"{device} ({self._profile_of[device]})"[:TEXT_MAX]

    @property
    def devices(self) -> list[str]:
        """Their ids."""
        return [name for name in self._profile_of if name not in self._fleet.slot_of]

    def reasons(self) -> list[str]:
        """Why control is not in order."""
        names = self.devices
        if not names:
            return []
        told = ", ".join(map(self._named, names[:NAMED]))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        who, whom, whose = ("device", "it", "its") if len(names) == 1 else ("devices", "them", "their")
        return [
            f"{len(names)} {who} may still be under control and nobody can release {whom}, {whose} profile is not "
            f"installed: {told}{more}"
        ]
