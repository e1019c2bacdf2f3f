"""The documents of the interfaces: whole, and true of what is said."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.documents import documents
from gateway.former_names import PATHS, SCHEMAS

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


def test_document_former_paths_are_deprecated_and_refer_to_the_former_schemas() -> None:
    paths, schemas = DOCUMENTS["openapi.json"]["paths"], DOCUMENTS["openapi.json"]["components"]["schemas"]
    for path, former in PATHS.items():
        assert set(paths[former]) == set(paths[path])
        for method, operation in paths[former].items():
            assert operation["deprecated"] is True
            assert path in operation["description"]
            assert "deprecated" not in paths[path][method]
        used = {reference.rpartition("/")[2] for reference in references(paths[former])}
        assert used & set(SCHEMAS.values())
        assert not used & set(SCHEMAS)
    assert set(schemas["HoldList"]["properties"]) == {"holds"}
    assert set(schemas["ExclusionList"]["properties"]) == {"exclusions"}
    assert schemas["HoldState"]["properties"] == schemas["ExclusionState"]["properties"]
    assert schemas["DeviceState"]["properties"]["held"]["deprecated"] is True


def test_document_of_profiles_takes_either_name_of_the_command_latency_and_marks_the_former() -> None:
    facts = DOCUMENTS["profile.schema.json"]["$defs"]["Facts"]
    new, former = facts["properties"]["command_latency_s"], facts["properties"]["delivery_s"]
    assert (former["deprecated"], former["maximum"], new["maximum"]) == (True, 60, 60)
    assert "deprecated" not in new
    assert facts["oneOf"] == [{"required": ["command_latency_s"]}, {"required": ["delivery_s"]}]
    assert not {"command_latency_s", "delivery_s"} & set(facts["required"])
