"""AsyncAPI document of the device protocols, generated from the profiles."""

from collections.abc import Iterable
from typing import Any

from gateway.domain.types import ID_PATTERN
from gateway.profiles.compile import Codec
from gateway.profiles.language.messages import Commands, Member, MemberType, Message
from gateway.profiles.language.quantities import CATALOGUE

ASYNCAPI_VERSION = "3.0.0"


def asyncapi(codecs: Iterable[Codec], platform: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The document for every MQTT product plus the `platform` channels (name -> {address, payload, action, ...}), whose
    payloads refer to `schemas`."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for codec in sorted(codecs, key=lambda c: c.name):
        name = codec.name
        for kind, message in codec.document.messages.items():
            key = f"{name}.{kind}"
            channels[key] = _channel(message.topic, key, _message_schema(kind, message), message.description)
            operations[f"receive.{key}"] = _operation(key, "receive", message.qos, retain=message.retain)
        if codec.document.commands is not None:
            key = f"{name}.command"
            commands = codec.document.commands
            channels[key] = _channel(commands.topic, key, _command_schema(commands), "Commands; never retained.")
            operations[f"send.{key}"] = _operation(key, "send", commands.qos, retain=False)
    for key, channel in platform.items():
        channels[key] = {
            "address": channel["address"],
            "messages": {key: {"payload": channel["payload"], "summary": channel["summary"]}},
        }
        operations[f"{channel['action']}.{key}"] = _operation(key, channel["action"], 1, retain=False)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Battery fleet gateway: MQTT",
            "version": "1",
            "description": "JSON over MQTT 5. Power in W, battery + = discharge, grid + = import. Times are UTC "
            "epoch milliseconds. null or an absent member means unknown, never zero; where null is not allowed, leave "
            "the member out. A device's MQTT client id and user name are its device id. PUBACK comes from the broker, "
            "not from the gateway.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas},
    }


def _channel(address: str, key: str, payload: dict[str, Any], summary: str) -> dict[str, Any]:
    return {
        "address": address,
        "parameters": {"device": {"description": f"device id, {ID_PATTERN}, equal to the payload's identity"}},
        "messages": {key: {"payload": payload, "summary": summary}},
    }


def _operation(key: str, action: str, qos: int, *, retain: bool) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{key}"},
        "bindings": {"mqtt": {"qos": qos, "retain": retain}},
    }


def _message_schema(kind: str, message: Message) -> dict[str, Any]:
    properties: dict[str, Any] = {message.identity: {"type": "string", "pattern": ID_PATTERN}}
    for name, point in message.points.items():
        nullable = not point.required and not CATALOGUE[kind][name].excluding
        properties[point.key] = _point_schema(point, nullable=nullable)
    required = [message.identity, *(point.key for point in message.points.values() if point.required)]
    return {"type": "object", "properties": properties, "required": required}


def _point_schema(point: Member, *, nullable: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if point.type is MemberType.ENUM:
        schema["enum"] = list(point.values or {})
    else:
        schema["type"] = [point.type.value, "null"] if nullable else point.type.value
    if point.range is not None:
        low, high = sorted((point.range[0] / point.scale, point.range[1] / point.scale))
        schema |= {"minimum": low, "maximum": high}
    notes = [point.description, f"in {point.unit}" if point.unit else "", point.sign.value if point.sign else ""]
    if any(notes):
        schema["description"] = "; ".join(note for note in notes if note)
    return schema


def _command_schema(commands: Commands) -> dict[str, Any]:
    forms: list[dict[str, Any]] = []
    for name, form in commands.forms.items():
        properties: dict[str, Any] = {
            commands.identity: {"type": "string", "pattern": ID_PATTERN},
            commands.id: {"type": "integer", "description": "grows; a device refuses one it has passed"},
            commands.valid_until: {"type": "integer", "description": "absolute UTC ms; without effect afterwards"},
        }
        properties |= {key: {"const": value} for key, value in form.constants.items()}
        for argument, key in form.arguments.items():
            note = f"; {commands.setpoint_sign.value}" if argument == "setpoint_w" else ""
            kind = "number" if argument == "reserve_pct" else "integer"
            properties[key] = {"type": kind, "description": f"{argument}{note}"}
        forms.append(
            {
                "title": name,
                "description": form.description,
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    return {"oneOf": forms}
