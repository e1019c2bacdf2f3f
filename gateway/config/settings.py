"""Configuration: one strict YAML file, composed from the settings each adapter owns.

Every fault is reported at once with its path. Secrets are written as references: `env:NAME` or `file:/path`;
durations as numbers with a unit: `30s`, `5min`, `24h`, `500ms`.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway import former_names
from gateway.domain.errors import InvalidInput
from gateway.links.mqtt.messages import MqttLinkSettings
from gateway.services.settings import ControlSettings
from gateway.signals.platform import PlatformSettings
from gateway.sinks.http import HttpSinkSettings
from gateway.sinks.leap.confirmed import LeapSettings
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.mqtt import MqttSinkSettings
from gateway.sinks.parquet import ParquetSinkSettings

MAX_CONFIG_BYTES = 1 << 20
SECRET_BYTES_MAX = 64 << 10
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SECRET = re.compile(r"^(env|file):(.+)$")
SECRET_KEYS = frozenset({"token", "password"})
KEY_FILES = frozenset({"key_file"})


def duration_s(value: object) -> object:
    """`30s` as seconds; anything else is left for the model to refuse."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found:
            return float(found.group(1)) * _SECONDS[found.group(2)]
    return value


class StrictSettings(BaseModel):
    """Unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(StrictSettings):
    """The REST interface. A token is required unless it listens on loopback only."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    token: SecretStr | None = None

    @model_validator(mode="after")
    def _guarded(self) -> "HttpSettings":
        if self.token is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"token: required, since {self.host} is not loopback")
        if self.token is not None and len(self.token.get_secret_value()) < 16:
            raise ValueError("token: shorter than 16 characters")
        return self


class LogSettings(StrictSettings):
    """`auto` = human in a terminal, JSON elsewhere."""

    format: Literal["auto", "json", "human"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


def divides_a_day(length_s: int) -> int:
    """An interval length. Raises ValueError."""
    if 86_400 % length_s:
        raise ValueError(f"{length_s} s does not divide a day")
    return length_s


Tag = Annotated[str, Field(min_length=1, max_length=64)]


class ProgramIntervals(StrictSettings):
    """Intervals of the devices of a program."""

    length_s: Annotated[int, Field(ge=1, le=86_400), AfterValidator(divides_a_day)]


class IntervalSettings(StrictSettings):
    """Clock-aligned UTC intervals; the length divides a day. Devices with the tag of one of `programs` have its length
    (of several the shortest). Records are kept for `keep_days`, longer than late data may come, and up to `keep_gib`;
    None = as much as the disk allows."""

    length_s: Annotated[int, Field(ge=1, le=86_400), AfterValidator(divides_a_day)] = 300
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 30
    keep_days: Annotated[int, Field(ge=3, le=3650)] = 30
    keep_gib: Annotated[float, Field(gt=0)] | None = None
    programs: dict[Tag, ProgramIntervals] = Field(default_factory=dict, max_length=64)


SecretPrefix = Annotated[str, Field(pattern=r"^(env:[A-Za-z0-9_]+|file:/.+/)$")]


class DeviceSettings(StrictSettings):
    """Links towards the batteries. `secrets`: what the reference of a device's secret may begin with, since whoever
    registers a device also says where its secret is sent. The gateway's own secrets are never a device's, wherever
    they are."""

    mqtt: MqttLinkSettings
    secrets: tuple[SecretPrefix, ...] = ("env:DEVICE_", "file:/run/credentials/devices/")
    _own: frozenset[str] = PrivateAttr(default=frozenset())

    def keep_own(self, references: Iterable[str]) -> None:
        """Refuse these references, whoever asks."""
        self._own = frozenset(references)

    def secret(self, reference: str) -> str:
        """The secret behind a device's reference. Raises InvalidInput."""
        if not reference.startswith(self.secrets) or ".." in reference:
            raise InvalidInput(
                [f"secret: {reference.split(':', maxsplit=1)[0]}: outside devices.secrets ({', '.join(self.secrets)})"]
            )
        if any(_same_secret(reference, own) for own in self._own):
            raise InvalidInput(["secret: it is one of the gateway's own; no device is sent those"])
        refused = _unfit(reference)
        if refused is not None:
            raise InvalidInput([f"secret: {refused}"])
        return resolve_secret(reference)


def _unfit(reference: str) -> str | None:
    """Why a reference must not be read while the gateway runs, None = it may be. A pipe would stop it."""
    if not reference.startswith("file:"):
        return None
    path = Path(reference.removeprefix("file:"))
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    return f"{path} is larger than {SECRET_BYTES_MAX} bytes" if found.st_size > SECRET_BYTES_MAX else None


def _same_secret(one: str, other: str) -> bool:
    """Whether two references lead to one secret, by whatever names."""
    if one == other:
        return True
    if not (one.startswith("file:") and other.startswith("file:")):
        return False
    here, there = one.removeprefix("file:"), other.removeprefix("file:")
    try:
        return os.path.realpath(here) == os.path.realpath(there) or os.path.samefile(here, there)
    except OSError:
        return False


SinkSettings = Annotated[
    HttpSinkSettings | MqttSinkSettings | LeapCsvSinkSettings | ParquetSinkSettings, Field(discriminator="kind")
]


class Settings(StrictSettings):
    """The whole configuration. `former`: a warning for each former key in the file."""

    state_dir: Path
    profiles_dir: Path
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    devices: DeviceSettings
    platform: PlatformSettings | None = None
    sinks: list[SinkSettings] = Field(default_factory=list, max_length=16)
    leap: LeapSettings = LeapSettings()
    intervals: IntervalSettings = IntervalSettings()
    control: ControlSettings = ControlSettings()
    _former: tuple[str, ...] = PrivateAttr(default=())

    @property
    def former(self) -> tuple[str, ...]:
        return self._former

    @model_validator(mode="after")
    def _composed(self) -> "Settings":
        names = [sink.name for sink in self.sinks]
        if len(set(names)) != len(names):
            raise ValueError("sinks: two of them have the same name")
        if self.platform is None and any(sink.kind == "mqtt" for sink in self.sinks):
            raise ValueError("sinks: kind mqtt needs `platform`")
        lengths = {self.intervals.length_s, *(program.length_s for program in self.intervals.programs.values())}
        if 900 not in lengths and any(sink.kind == "leap_csv" for sink in self.sinks):
            raise ValueError("sinks: kind leap_csv needs intervals of 15 minutes, and no length in intervals is 15min")
        for sink in self.sinks:
            if sink.kind == "leap_csv":
                for point, ours in (("upload_schema", sink.upload_schema), ("transport", sink.transport)):
                    theirs = getattr(self.leap.confirmed, point)
                    if theirs not in (None, ours):
                        raise ValueError(f"sinks: {sink.name}: {point} is {ours}, but {theirs} is confirmed under leap")
        places = [sink.directory for sink in self.sinks if sink.kind == "parquet"]
        if len(set(places)) != len(places):
            raise ValueError("sinks: two of them write to the same directory")
        return self


def load_settings(path: Path) -> Settings:
    """Read and check the file. Raises InvalidInput with every fault, each with its path."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidInput([f"{path}: larger than {MAX_CONFIG_BYTES} bytes"])
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([f"{path}: cannot be read: {error}"]) from error
    except yaml.YAMLError as error:
        raise InvalidInput([f"{path}: not YAML: {' '.join(str(error).split())}"]) from error
    except RecursionError as error:
        raise InvalidInput([f"{path}: nested too deeply"]) from error
    problems: list[str] = []
    try:
        resolved = _resolve(raw, "", problems)
    except RecursionError as error:
        raise InvalidInput([f"{path}: nested too deeply"]) from error
    try:
        settings = Settings.model_validate(resolved)
    except ValidationError as error:
        problems += [_fault(found) for found in error.errors()]
        raise InvalidInput([f"{path}: {problem}" for problem in problems]) from error
    if problems:
        raise InvalidInput([f"{path}: {problem}" for problem in problems])
    settings.devices.keep_own(_own_secrets(raw, path.resolve().parent))
    settings._former = tuple(
        f"{path}: {'.'.join(loc)}: {words}" for loc, words in former_names.used(raw, former_names.CONFIGURATION)
    )
    base = path.resolve().parent
    return settings.model_copy(
        update={
            "state_dir": base / settings.state_dir,
            "profiles_dir": base / settings.profiles_dir,
            "sinks": [_based(sink, base) for sink in settings.sinks],
        }
    )


def _fault(found: ErrorDetails) -> str:
    """A fault in words, with the path that the file gives."""
    words = former_names.refusal(found["loc"], found["type"], former_names.CONFIGURATION) or found["msg"]
    return f"{'.'.join(str(part) for part in found['loc']) or '(document)'}: {words}"


def _based(sink: SinkSettings, base: Path) -> SinkSettings:
    """A sink's settings with its paths relative to `base`."""
    if sink.kind == "leap_csv":
        sftp = sink.sftp
        if sftp is not None and sftp.key_file is not None:
            sftp = sftp.model_copy(update={"key_file": base / sftp.key_file})
        return sink.model_copy(update={"meters": base / sink.meters, "sftp": sftp})
    if sink.kind == "parquet":
        return sink.model_copy(update={"directory": base / sink.directory})
    return sink


def _resolve(raw: Any, place: str, problems: list[str]) -> Any:
    """Read secret references (a secret in plain text is a fault) and durations (keys that end in `_s`)."""
    if isinstance(raw, list):
        return [_resolve(item, f"{place}.{i}".strip("."), problems) for i, item in enumerate(raw)]
    if not isinstance(raw, dict):
        return raw
    out: dict[Any, Any] = {}
    for key, value in raw.items():
        where = f"{place}.{key}".strip(".")
        if key in SECRET_KEYS and value is not None:
            out[key] = _secret(value, where, problems)
        elif isinstance(key, str) and key.endswith("_s"):
            out[key] = duration_s(value)
        else:
            out[key] = _resolve(value, where, problems)
    return out


def _own_secrets(raw: Any, base: Path) -> Iterator[str]:
    """References to the secrets and keys that the configuration itself uses."""
    if isinstance(raw, list):
        for item in raw:
            yield from _own_secrets(item, base)
    elif isinstance(raw, dict):
        for key, value in raw.items():
            if isinstance(value, str) and key in SECRET_KEYS:
                yield value
            elif isinstance(value, str) and key in KEY_FILES:
                # some of them are relative to the file, others to where the gateway was started
                yield f"file:{value}"
                yield f"file:{base / value}"
            else:
                yield from _own_secrets(value, base)


def resolve_secret(reference: str) -> str:
    """The secret behind `env:NAME` or `file:/path`. Raises InvalidInput."""
    problems: list[str] = []
    secret = _secret(reference, "secret", problems)
    if problems or secret is None:
        raise InvalidInput(problems or ["secret: empty"])
    return secret


def _secret(value: object, where: str, problems: list[str]) -> str | None:
    found = _SECRET.match(value) if isinstance(value, str) else None
    if found is None:
        problems.append(f"{where}: write a reference, env:NAME or file:/path, not the secret itself")
        return None
    kind, name = found.groups()
    if kind == "env":
        secret = os.environ.get(name)
        if not secret:
            problems.append(f"{where}: the environment variable {name} is not set")
        return secret or None
    try:
        path = Path(name)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            problems.append(f"{where}: {name} can be read by others; chmod 600")
            return None
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{where}: {name} cannot be read: {error}")
        return None
