"""Defines and checks the settings of one MQTT connection."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.addresses import is_loopback
from gateway.domain.errors import refuse

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
CONTROL_RECONNECT_S_MAX = 5.0
EXAMPLE_URL, EXAMPLE_CLIENT = "mqtt://127.0.0.1:1883", "gateway"
EXAMPLE_BROKER = {"url": EXAMPLE_URL, "client_id": EXAMPLE_CLIENT}


class MqttSettings(BaseModel):
    """The broker's address and how to talk to it. `mqtts` verifies the server against `ca_file` or the system's CAs.

    `receive_max`: QoS 1 messages the broker may have unacknowledged towards us; `in_flight_max`: ours towards it;
    `read_buffer_bytes`: the most to read at once; `read_budget_bytes`: the most to read per turn of the loop;
    `reconnect_cap_s`: the longest pause between attempts, 5 s at most where commands go.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^mqtts?://[^/?#]+$", examples=[EXAMPLE_URL])]
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,48}$", examples=[EXAMPLE_CLIENT])]
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    allow_plaintext: bool = False
    keepalive_s: Annotated[int, Field(ge=1, le=3600)] = 20
    session_expiry_s: Annotated[int, Field(ge=0, le=2**32 - 2)] = 86_400
    receive_max: Annotated[int, Field(ge=1, le=65_535)] = 20_000
    in_flight_max: Annotated[int, Field(ge=1, le=65_535)] = 20_000
    max_packet_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = 64 << 10
    read_buffer_bytes: Annotated[int, Field(ge=4096, le=1 << 20)] = 64 << 10
    read_budget_bytes: Annotated[int, Field(ge=4096, le=16 << 20)] = 128 << 10
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10
    reconnect_base_s: Annotated[float, Field(gt=0, le=60)] = 1
    reconnect_cap_s: Annotated[float, Field(gt=0, le=3600)] = 60

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        url = urlsplit(self.url)
        return url.port or DEFAULT_PORTS[url.scheme]

    @property
    def tls(self) -> bool:
        return self.url.startswith("mqtts:")

    def for_control(self) -> "MqttSettings":
        """The same for a connection that carries commands: it waits for a broker that is away no longer than 5 s."""
        return self.model_copy(update={"reconnect_cap_s": min(self.reconnect_cap_s, CONTROL_RECONNECT_S_MAX)})

    @model_validator(mode="after")
    def _sound(self) -> "MqttSettings":
        faults = []
        try:
            url = urlsplit(self.url)
            _, host = url.port, url.hostname or ""
        except ValueError as error:
            faults.append(f"url: {error}")
        else:
            if url.username or url.password:
                faults.append("url: credentials do not belong here; use username and password")
            if not host:
                faults.append("url: no host")
            elif not self.tls and not self.allow_plaintext and not is_loopback(host):
                faults.append(f"url: {host} is not loopback; use mqtts:// (or allow_plaintext: true)")
        if (self.cert_file is None) != (self.key_file is None):
            missing, given = ("cert_file", "key_file") if self.cert_file is None else ("key_file", "cert_file")
            faults.append(f"{missing}: required, because {given} is given")
        refuse(faults)
        return self
