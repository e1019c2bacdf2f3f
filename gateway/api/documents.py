"""The OpenAPI and AsyncAPI documents and the JSON Schemas of profiles and programs, generated from their models."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway import __version__
from gateway.api.openapi import openapi
from gateway.profiles.asyncapi import asyncapi
from gateway.profiles.compile import Codec
from gateway.profiles.language.json_schema import profile_schema
from gateway.profiles.loader import load_profiles
from gateway.programs.json_schema import program_schema
from gateway.schemas.event import EventBody
from gateway.schemas.interval_rows import IntervalBody
from gateway.schemas.reports import AvailabilityReport, DeliveryReport, EventReport, LiveReport, PlatformAnswer
from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC, REPORT_TOPICS
from gateway.signals.webhook.json_schema import webhook_schema
from gateway.sinks.mqtt import INTERVAL_TOPIC


def documents(profiles_dir: Path) -> dict[str, dict[str, Any]]:
    """The OpenAPI and AsyncAPI documents and the JSON Schemas of profiles and programs, by file name."""
    codecs: Iterable[Codec] = load_profiles(profiles_dir).values()
    schemas: dict[str, Any] = {}
    platform = {
        "platform.dispatch": {
            "address": DISPATCH_TOPIC, "action": "receive",
            "summary": "A dispatch event; events on other topics are ignored.",
            "payload": _payload(EventBody, schemas),
        },
        "platform.answers": {
            "address": ANSWER_TOPIC, "action": "send", "summary": "The decision on an event.",
            "payload": _payload(PlatformAnswer, schemas),
        },
        "platform.deliveries": {
            "address": REPORT_TOPICS["deliveries"], "action": "send", "payload": _payload(DeliveryReport, schemas),
            "summary": "Delivery records that changed; the newest record of an id counts.",
        },
        "platform.events": {
            "address": REPORT_TOPICS["events"], "action": "send", "payload": _payload(EventReport, schemas),
            "summary": "Running events, every few seconds.",
        },
        "platform.availability": {
            "address": REPORT_TOPICS["availability"], "action": "send",
            "payload": _payload(AvailabilityReport, schemas), "summary": "What the fleet can sustain from now on.",
        },
        "platform.live": {
            "address": REPORT_TOPICS["live"], "action": "send", "payload": _payload(LiveReport, schemas),
            "summary": "The newest readings, if configured; some may be lost.",
        },
        "platform.intervals": {
            "address": INTERVAL_TOPIC, "action": "send", "payload": _payload(IntervalBody, schemas),
            "summary": "One interval record, identified by (device, start, revision).",
        },
    }  # fmt: skip
    return {
        "openapi.json": openapi(__version__),
        "asyncapi.json": asyncapi(codecs, platform, dict(sorted(schemas.items()))),
        "profile.schema.json": profile_schema(),
        "program.schema.json": program_schema(),
        "webhook.schema.json": webhook_schema(),
    }


def _payload(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a model; what it refers to goes into `schemas`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    return schema
