"""JSON Schema of the configuration, for editors: names, kinds and bounds. What spans several places is left to the
loader."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from gateway.config import durations, secrets
from gateway.config.settings import Settings


def settings_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document that a configuration file holds: durations and secrets as they are
    written there."""
    schema = Settings.model_json_schema()
    for node in (schema, *schema["$defs"].values()):
        for key, value in node.get("properties", {}).items():
            node["properties"][key] = _as_written(key, value)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "Gateway configuration"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def _as_written(key: str, node: dict[str, Any]) -> dict[str, Any]:
    about = {name: value for name, value in node.items() if name in ("default", "description", "title", "examples")}
    alternatives = node.get("anyOf", [{name: value for name, value in node.items() if name not in about}])
    if any(one.get("format") == "password" for one in alternatives):
        written = {"type": "string", "pattern": secrets.PATTERN}
        return about | {"anyOf": [written if one.get("type") == "string" else one for one in alternatives]}
    if key.endswith("_s"):
        return about | {"anyOf": [*alternatives, {"type": "string", "pattern": durations.PATTERN}]}
    return node
