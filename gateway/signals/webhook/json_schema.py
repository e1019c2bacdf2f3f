"""JSON Schema of a webhook file, for editors: names, kinds and bounds. What spans several places is left to the
loader."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from gateway.signals.webhook.language import WebhookDocument


def webhook_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document a webhook file holds."""
    schema = WebhookDocument.model_json_schema()
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "Webhook peer"} | {
        key: value for key, value in schema.items() if key != "title"
    }
