"""Chooses the broker for a device with values on topics: ours, or the product's own."""

import hashlib
import secrets
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from gateway.domain.errors import InvalidInput
from gateway.ports.links import PointTarget
from gateway.profiles.language.transport import MqttSection
from gateway.transports.mqtt.settings import DEFAULT_PORTS, MqttSettings

# A product's own broker serves one home: its packets are small, and there may be thousands of connections.
HOME = {
    "max_packet_bytes": 16 << 10, "read_buffer_bytes": 8 << 10, "in_flight_max": 64, "receive_max": 64,
    "reconnect_cap_s": 15, "allow_plaintext": True,
}  # fmt: skip


def broker_of(target: PointTarget, section: MqttSection, fleet: MqttSettings | None) -> MqttSettings:
    """Settings of the connection. Its sessions begin clean: devices publish again what the gateway did not hear.

    Raises InvalidInput for a malformed address, and where the profile needs our own broker and none is configured.
    """
    prefix = fleet.client_id if fleet is not None else "gateway"
    if section.broker == "fleet":
        if fleet is None:
            raise InvalidInput([f"{target.device}: the device is a client of our broker, and none is configured"])
        mark = hashlib.sha256(target.document.profile.encode()).hexdigest()[:6]
        return fleet.for_control().model_copy(update={"client_id": f"{prefix}-p{mark}", "session_expiry_s": 0})
    connection = target.connection
    try:
        return MqttSettings.model_validate(
            HOME
            | {
                "url": _with_port(connection.url, section),
                # Two gateways with one client id would disconnect each other for ever.
                "client_id": f"{prefix[:32]}-{secrets.token_hex(6)}",
                "username": connection.username or None,
                "password": SecretStr(target.secret) if target.secret else None,
                "session_expiry_s": 0,
            }
        )
    except (ValidationError, ValueError) as error:
        raise InvalidInput(["address: mqtt(s)://host[:port] is expected"]) from error


def _with_port(url: str, section: MqttSection) -> str:
    """A broker's URL with the product's port where it has none. Raises ValueError."""
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    own = section.port != DEFAULT_PORTS["mqtt"]
    return f"{parts.scheme}://{parts.netloc}:{section.port if own else DEFAULT_PORTS.get(parts.scheme, section.port)}"
