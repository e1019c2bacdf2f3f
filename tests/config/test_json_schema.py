"""JSON Schema of the configuration: it takes what the loader takes, and knows what the loader refuses in one place."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config.json_schema import settings_schema

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(settings_schema())
EXAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "config" / "gateway.example.yaml").read_text(encoding="utf-8"))


def paths(document: object) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(document)]


def test_config_schema_is_one_and_takes_the_example() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    assert paths(EXAMPLE) == []


@pytest.mark.parametrize(
    ("section", "change"),
    [("http", {"port": 99_999}), ("http", {"prot": 1}), ("http", {"token": "the secret itself"}),
     ("control", {"tick_s": "5 minutes"}), ("log", {"level": "loud"})],
)  # fmt: skip
def test_config_schema_refuses_what_is_wrong_in_itself(section: str, change: dict[str, object]) -> None:
    assert paths(EXAMPLE | {section: EXAMPLE.get(section, {}) | change})[0].startswith(f"$.{section}")


def test_config_schema_takes_durations_and_references_as_they_are_written() -> None:
    written = {"http": {"token": "env:GATEWAY_TOKEN"}, "control": {"tick_s": "500ms", "warm_up_s": 3}}
    assert paths(EXAMPLE | written) == []
