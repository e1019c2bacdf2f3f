"""The documents of the interfaces: whole, and true of what is said."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.documents import documents

PROFILES = Path(__file__).parents[2] / "device_profiles"
DOCUMENTS = documents(PROFILES)


def references(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        for value in found.values():
            yield from references(value)
    elif isinstance(found, list):
        for value in found:
            yield from references(value)


@pytest.mark.parametrize("name", ["openapi.json", "asyncapi.json"])
def test_document_refers_to_nothing_that_is_not_in_it(name: str) -> None:
    document = DOCUMENTS[name]
    found = set(references(document))
    assert found
    for reference in found:
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, reference
            at = at[part]


def test_document_has_every_topic_of_the_platform() -> None:
    channels = DOCUMENTS["asyncapi.json"]["channels"]
    addresses = {channel["address"] for name, channel in channels.items() if name.startswith("platform.")}
    assert addresses == {
        "gateway/v1/platform/dispatch",
        "gateway/v1/platform/dispatch/answers",
        "gateway/v1/platform/dispatch/deliveries",
        "gateway/v1/platform/dispatch/events",
        "gateway/v1/platform/availability",
        "gateway/v1/platform/live",
        "gateway/v1/platform/intervals",
    }
