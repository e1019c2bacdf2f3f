"""Connections in an inventory: parses a row's cells, checks them against the profile, and finds its place."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.addresses import is_loopback
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.profiles.language.base import Name
from gateway.profiles.language.product import ProfileDocument
from gateway.services.devices.row_faults import RowFault

ADDRESS_MAX = 255
VALUE_MAX = 128
SCHEMES = {"modbus": ("modbus",), "http": ("http", "https"), "mqtt": ("mqtt", "mqtts")}
KNOWN_SCHEMES = tuple(scheme for schemes in SCHEMES.values() for scheme in schemes)
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}")
TOPIC_CHARACTERS = frozenset("/+#")

Place = tuple[str, int, tuple[tuple[str, str], ...]]


def _address(value: str) -> str:
    """The address as scheme://host[:port], in lower case; "" = none."""
    if not value:
        return ""
    if len(value) > ADDRESS_MAX or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"at most {ADDRESS_MAX} ASCII characters without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("scheme://host[:port] is expected") from error
    if parts.scheme not in KNOWN_SCHEMES:
        raise ValueError(f"scheme is one of {', '.join(KNOWN_SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError("no user name or secret inside an address; they have columns of their own")
    if parts.path not in ("", "/") or "?" in value or "#" in value or "\\" in value:
        raise ValueError("nothing follows host and port")
    if parts.netloc.endswith(":") or port == 0:
        raise ValueError("the port is 1 to 65535")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def _host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            return f"[{ipaddress.IPv6Address(host).compressed}]"
        except ValueError as error:
            raise ValueError("the host is no IPv6 address") from error
    if not HOST.fullmatch(host) or ".." in host:
        raise ValueError("the host is a name or an IP address")
    return host


def _pairs(value: object) -> object:
    """`a=1;b=2` as an object; an empty cell is an empty one."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(";") if pair.strip()]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError("name=value;name=value is expected")
    found = {name.strip(): text.strip() for name, _, text in pairs}
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("no control characters")
    return value


def _secret(value: str) -> str:
    if value and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:/.{1,250}", value):
        raise ValueError("write a reference, env:NAME or file:/path, not the secret itself")
    if ".." in value.split("/"):
        raise ValueError("a path without `..` is expected")
    return value


Line = Annotated[str, Field(max_length=VALUE_MAX), AfterValidator(_line)]
Address = Annotated[str, AfterValidator(_address)]
Units = Annotated[dict[Name, Annotated[int, Field(ge=0, le=255)]], Field(max_length=16), BeforeValidator(_pairs)]
Parameters = Annotated[
    dict[Name, Annotated[Line, Field(min_length=1)]], Field(max_length=16), BeforeValidator(_pairs)
]  # fmt: skip
SecretReference = Annotated[str, AfterValidator(_line), AfterValidator(_secret)]


def connection_faults(document: ProfileDocument, connection: DeviceConnection | None) -> Iterator[RowFault]:
    """What does not fit the profile in a row's connection, each with the column."""
    if document.messages:
        if connection is not None:
            yield RowFault(column="address", problem="the device comes to us; a connection cannot be given")
        return
    given = connection or DeviceConnection(url="")
    yield from _address_faults(document, given)
    yield from _unit_faults(document, given)
    yield from _parameter_faults(document, given)
    yield from _access_faults(document, given)


def _address_faults(document: ProfileDocument, given: DeviceConnection) -> Iterator[RowFault]:
    if document.mqtt is not None and document.mqtt.broker == "fleet":
        if given.url:
            yield RowFault(column="address", problem="the device is a client of our own broker")
        return
    if not given.url:
        yield RowFault(column="address", problem="missing; the gateway connects to this product")
        return
    scheme, host = given.url.partition("://")[0], urlsplit(given.url).hostname or ""
    if scheme not in SCHEMES[document.transport]:
        yield RowFault(
            column="address", problem=f"{' or '.join(s + '://' for s in SCHEMES[document.transport])} is expected"
        )
    elif scheme == "http" and document.http is not None and document.http.tls != "none" and not is_loopback(host):
        yield RowFault(column="address", problem="https:// is expected; the product protects what is sent to it")


def _unit_faults(document: ProfileDocument, given: DeviceConnection) -> Iterator[RowFault]:
    known = document.modbus.units if document.modbus is not None else {}
    for name, _ in given.units:
        if name not in known:
            yield RowFault(
                column="units",
                problem=f"{name!r} is none of the profile's" + (f" ({', '.join(known)})" if known else ""),
            )


def _parameter_faults(document: ProfileDocument, given: DeviceConnection) -> Iterator[RowFault]:
    """Requires exactly the variables of the topics; allows what identifies the device more surely."""
    wanted = document.mqtt.variables if document.mqtt is not None else ()
    optional = {"device"} if document.mqtt is not None else set()
    if document.identity is not None and document.identity.serial is not None:
        optional.add("serial")
    if document.http is not None and document.http.tls != "none":
        optional.add("fingerprint")
    if document.modbus is not None and document.modbus.sunspec is not None:
        optional |= document.modbus.sunspec.models.keys()
    parameters = dict(given.parameters)
    for name in wanted:
        if name not in parameters:
            yield RowFault(column="parameters", problem=f"{name!r} is missing")
    for name, value in parameters.items():
        if name not in wanted and name not in optional:
            yield RowFault(column="parameters", problem=f"{name!r} is none of the profile's")
        elif document.mqtt is not None and name != "serial" and TOPIC_CHARACTERS & set(value):
            yield RowFault(column="parameters", problem=f"{name!r} is one level of a topic")
        elif name == "fingerprint" and not FINGERPRINT.fullmatch(value):
            yield RowFault(column="parameters", problem="'fingerprint' is a SHA-256 in hexadecimal")


def _access_faults(document: ProfileDocument, given: DeviceConnection) -> Iterator[RowFault]:
    auth = document.http.auth if document.http is not None else None
    if document.modbus is not None or (auth is not None and auth.kind == "none"):
        if given.username or given.secret:
            yield RowFault(column="secret", problem="this product asks for none")
    elif auth is not None and not given.secret and (auth.kind != "login" or "$secret" in auth.fields.values()):
        yield RowFault(column="secret", problem="missing; the product asks for one")
    elif document.mqtt is not None and document.mqtt.broker == "fleet" and (given.username or given.secret):
        yield RowFault(column="secret", problem="the device is a client of our own broker")


def place_of(document: ProfileDocument, device: Device) -> Place | None:
    """Where a device answers: two devices at one place would be one battery controlled twice. None = it connects to the
    gateway.

    Host and port, the unit `main`, and on a broker the levels that name the device."""
    connection = device.connection or DeviceConnection(url="")
    section: Any = document.modbus or document.http or document.mqtt
    if section is None or document.messages:
        return None
    parts = urlsplit(connection.url)
    unit = dict(connection.units).get("main", document.modbus.units["main"]) if document.modbus is not None else 0
    return f"{parts.hostname or ''}:{parts.port or section.port}", unit, _levels(document, device, connection)


def _levels(document: ProfileDocument, device: Device, connection: DeviceConnection) -> tuple[tuple[str, str], ...]:
    if document.mqtt is None:
        return ()
    parameters = dict(connection.parameters)
    levels = {name: parameters.get(name, "") for name in document.mqtt.variables}
    if any("{device}" in (point.topic or "") for point in document.points.values()):
        levels["device"] = parameters.get("device", device.id)
    return tuple(sorted(levels.items()))
