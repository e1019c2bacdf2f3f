"""Configuration: what its file may say, composed from the settings each adapter owns.

Secrets are written as references: `env:NAME` or `file:/path`; durations as numbers with a unit: `30s`, `5min`, `24h`.
A required field declares an example, which stands in for a value with a fault while the rest is checked.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from gateway.addresses import is_loopback
from gateway.config import secrets
from gateway.domain.errors import InvalidInput, refuse
from gateway.links.mqtt.messages import SESSIONS, MqttLinkSettings
from gateway.services.settings import (
    ControlSettings,
    IntervalLength,
    MoneySettings,
    ProgramSettings,
    SourceSettings,
    Tag,
    interval_lengths,
)
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap_account.connect import LeapConnectSettings
from gateway.signals.platform import PlatformSettings
from gateway.sinks.http import HttpSinkSettings
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.mqtt import MqttSinkSettings
from gateway.sinks.parquet import ParquetSinkSettings
from gateway.sinks.tickets import TicketSettings
from gateway.transports.leap.account import LeapAccount
from gateway.transports.mqtt.settings import EXAMPLE_BROKER

SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class StrictSettings(BaseModel):
    """Unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(StrictSettings):
    """The server's certificate (PEM, with its chain) and key; read anew when they change. `client_ca`: who signs the
    certificates by which clients may be known."""

    certificate: Annotated[Path, Field(examples=["server.pem"])]
    key_file: Annotated[Path, Field(examples=["server.key"])]
    client_ca: Path | None = None


class MetricsSettings(StrictSettings):
    """A listener of its own for metrics and health: on loopback in plain HTTP, beyond it with the `tls` of `http`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, examples=[9090])]


class HttpSettings(StrictSettings):
    """The REST interface. `access` is the file of callers; `token` is one caller who may do everything. Whatever does
    not listen on loopback needs `tls`, and one of them."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    token: SecretStr | None = None
    access: Path | None = None
    tls: TlsSettings | None = None
    metrics: MetricsSettings | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        faults = []
        if self.token is not None and len(self.token.get_secret_value()) < 16:
            faults.append("token: shorter than 16 characters")
        if self.token is not None and self.access is not None:
            faults.append("access: stands beside `token`; name that caller in the file")
        for key, host in (("host", self.host), ("metrics", None if self.metrics is None else self.metrics.host)):
            if host is None or is_loopback(host):
                continue
            lacks = [] if self.token is not None or self.access is not None else ["access"]
            lacks += ["tls"] if self.tls is None else []
            if lacks:
                faults.append(f"{key}: {host} is not loopback: {' and '.join(lacks)} required")
        refuse(faults)
        return self


class CustomerSettings(StrictSettings):
    """`personal_key` encrypts who customers are: 32 random bytes in base64. Without it no personal data is taken. A key
    is replaced by a new one beside the `former_personal_key`; after one start the former key may go."""

    personal_key: SecretStr | None = None
    former_personal_key: SecretStr | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, the one that encrypts first."""
        found = (self.personal_key, self.former_personal_key)
        return tuple(_urlsafe(key) for key in found if key is not None)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        faults = [
            f"{name}: not 32 bytes in base64, such as `openssl rand -base64 32` prints"
            for name, key in (("personal_key", self.personal_key), ("former_personal_key", self.former_personal_key))
            if key is not None and not _is_key(_urlsafe(key))
        ]
        if self.personal_key is None and self.former_personal_key is not None:
            faults.append("former_personal_key: stands beside a personal_key alone")
        refuse(faults)
        return self


def _urlsafe(key: SecretStr) -> str:
    return key.get_secret_value().translate(str.maketrans("+/", "-_"))


def _is_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text.encode("ascii"))) == 32
    except ValueError:
        return False


class LogSettings(StrictSettings):
    """`auto` = human in a terminal, JSON elsewhere."""

    format: Literal["auto", "json", "human"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class IntervalSettings(StrictSettings):
    """Clock-aligned UTC intervals; the length divides a day. Devices with the tag of a program have that program's
    length (of several the shortest). Records are kept for `keep_days`, longer than late data may come, and up to
    `keep_gib`; None = as much as the disk allows."""

    length_s: IntervalLength = 300
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 30
    keep_days: Annotated[int, Field(ge=3, le=3650)] = 30
    keep_gib: Annotated[float, Field(gt=0)] | None = None


SecretPrefix = Annotated[str, Field(pattern=r"^(env:[A-Za-z0-9_]+|file:/.+/)$")]


class DeviceSettings(StrictSettings):
    """Links towards the batteries. `secrets`: what the reference of a device's secret may begin with, since whoever
    registers a device also says where its secret is sent. The gateway's own secrets are never a device's, wherever
    they are."""

    mqtt: Annotated[MqttLinkSettings, Field(examples=[{"broker": EXAMPLE_BROKER}])]
    secrets: tuple[SecretPrefix, ...] = ("env:DEVICE_", "file:/run/credentials/devices/")
    _own: frozenset[str] = PrivateAttr(default=frozenset())

    def keep_own(self, references: Iterable[str]) -> None:
        """Refuse these references too, whoever asks."""
        self._own |= frozenset(references)

    def secret(self, reference: str) -> str:
        """The secret behind a device's reference. Raises InvalidInput."""
        if not reference.startswith(self.secrets) or ".." in reference:
            raise InvalidInput(
                [f"secret: {reference.split(':', maxsplit=1)[0]}: outside devices.secrets ({', '.join(self.secrets)})"]
            )
        if secrets.is_one_of(reference, self._own):
            raise InvalidInput(["secret: it is one of the gateway's own; no device is sent those"])
        refused = secrets.unfit(reference)
        if refused is not None:
            raise InvalidInput([f"secret: {refused}"])
        return secrets.resolve_secret(reference)


class LeapSettings(StrictSettings):
    """The aggregator, whatever is exchanged with it. `account`: whose interface the gateway asks; without one it asks
    nothing and changes nothing there. `enrollments_every_s`: how often it reads all enrollments; None = when asked
    alone. `idle_part_days`: a day of which an owner sits out a part, an evening say, is proposed to the aggregator as a
    day on which the meter is idle; else whole days alone are. `connect`: its sign-up page, where customers are sent."""

    account: LeapAccount | None = None
    connect: LeapConnectSettings | None = None
    confirmed: LeapConfirmed = LeapConfirmed()
    enrollments_every_s: Annotated[float, Field(ge=60, le=86_400)] | None = None
    idle_part_days: bool = False


class SignalSettings(StrictSettings):
    """Sources of dispatch beside the platform and REST."""

    leap: LeapSignalSettings | None = None


SinkSettings = Annotated[
    HttpSinkSettings | MqttSinkSettings | LeapCsvSinkSettings | ParquetSinkSettings,
    Field(
        discriminator="kind", examples=[{"kind": "http", "name": "sink", "url": "https://receiver.example/intervals"}]
    ),
]


class Settings(StrictSettings):
    """The whole configuration. `programs_dir`: the rules of grid programs; events of a program without rules there are
    judged by none. `webhooks_dir`: the peers that send events by webhook. `tickets`: who is told of cases of
    homes that underperform. `former`: a warning for each former key in the file."""

    state_dir: Annotated[Path, Field(examples=["state"])]
    profiles_dir: Annotated[Path, Field(examples=["device_profiles"])]
    programs_dir: Path | None = None
    webhooks_dir: Path | None = None
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    devices: Annotated[
        DeviceSettings,
        Field(examples=[{"mqtt": {"broker": EXAMPLE_BROKER}}]),
    ]
    platform: PlatformSettings | None = None
    signals: SignalSettings = SignalSettings()
    sinks: list[SinkSettings] = Field(default_factory=list, max_length=16)
    leap: LeapSettings = LeapSettings()
    customers: CustomerSettings = CustomerSettings()
    tickets: TicketSettings | None = None
    programs: dict[Tag, ProgramSettings] = Field(default_factory=dict, max_length=256)
    sources: dict[SourceName, SourceSettings] = Field(default_factory=dict, max_length=256)
    intervals: IntervalSettings = IntervalSettings()
    control: ControlSettings = ControlSettings()
    money: MoneySettings = MoneySettings()
    _former: tuple[str, ...] = PrivateAttr(default=())

    @property
    def former(self) -> tuple[str, ...]:
        return self._former

    def with_former(self, warnings: Sequence[str]) -> Self:
        """The same settings with these warnings."""
        self._former = tuple(warnings)
        return self

    @model_validator(mode="after")
    def _composed(self) -> Self:
        faults = []
        names = [sink.name for sink in self.sinks]
        faults += [f"sinks.{i}.name: another sink has this name" for i, name in enumerate(names) if name in names[:i]]
        places = [sink.directory if sink.kind == "parquet" else None for sink in self.sinks]
        faults += [
            f"sinks.{i}.directory: another sink writes to it"
            for i, place in enumerate(places)
            if place is not None and place in places[:i]
        ]
        link, peer = self.devices.mqtt, self.platform.broker if self.platform is not None else None
        if peer is not None and peer.host == link.broker.host and peer.client_id in map(link.client_id, SESSIONS):
            faults.append("platform.broker.client_id: a connection to the devices has it; each would cut the other off")
        lengths = {self.intervals.length_s, *interval_lengths(self.programs).values()}
        for i, sink in enumerate(self.sinks):
            if sink.kind == "mqtt" and self.platform is None:
                faults.append(f"sinks.{i}.kind: mqtt needs `platform`")
            if sink.kind == "leap_csv":
                if 900 not in lengths:
                    faults.append(f"sinks.{i}.kind: leap_csv needs a length of 15min in intervals or programs")
                for point, ours in (("upload_schema", sink.upload_schema), ("transport", sink.transport)):
                    theirs = getattr(self.leap.confirmed, point)
                    if theirs not in (None, ours):
                        where = "sftp" if point == "transport" and sink.sftp is not None else "kind"
                        where = point if point == "upload_schema" else where
                        faults.append(f"sinks.{i}.{where}: {point} is {ours}, but {theirs} is confirmed under leap")
        refuse(faults)
        return self
