"""JSON Schema of a profile, for editors: names, kinds and bounds. What spans several places is left to the loader."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from gateway.profiles.language.product import ProfileDocument


def profile_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document a profile file holds."""
    schema = ProfileDocument.model_json_schema()
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "Device profile"} | {
        key: value for key, value in schema.items() if key != "title"
    }
