"""JSON Schema of a program, for editors: names, kinds and bounds. What spans several places is left to the loader."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from gateway.programs.language import ProgramDocument


def program_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document a program file holds."""
    schema = ProgramDocument.model_json_schema()
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "Grid program"} | {
        key: value for key, value in schema.items() if key != "title"
    }
