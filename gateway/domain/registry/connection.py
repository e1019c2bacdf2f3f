"""What a device was, and where it answered, from when until when.

A device has one open connection at most. Another address or product closes it and opens the next; what was under
control there is handed back there first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId


class ConnectionEnd(StrEnum):
    """How a connection ended: its device got another address or product, was taken out of the registry, or an operator
    gave up what was left under control there."""

    MOVED = "moved"
    REMOVED = "removed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """`profile`: which product; `url`, `units` and `parameters` as in `DeviceConnection`, without accounts; `ended`
    None: it is open."""

    device: DeviceId
    profile: str
    valid: Validity
    url: str = ""
    units: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    ended: ConnectionEnd | None = None

    def same_battery(self, other: "Connection") -> bool:
        """Whether both name the same product and serial number."""
        serial = self.parameters.get("serial")
        return self.profile == other.profile and serial is not None and serial == other.parameters.get("serial")

    def another_battery(self, other: "Connection") -> bool:
        """Whether something else answers there: what it counts is no more of the same. A device that connects to us is
        itself, as whatever product it speaks."""
        ours = not self.url and not other.url
        return not (ours or self.same_battery(other))
