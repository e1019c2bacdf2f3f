"""JSON pointers (RFC 6901): where a value stands in a body."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

ABSENT: Final = object()
"""What stands at a place that a body does not have."""


def _is_pointer(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError('a JSON pointer is "" (the whole body) or begins with "/", like /event/id')
    if any(part[:1] not in ("0", "1") for part in text.split("~")[1:]):
        raise ValueError('in a JSON pointer "~" is written ~0 and "/" inside a name ~1')
    return text


Pointer = Annotated[str, Field(max_length=256), AfterValidator(_is_pointer)]


def steps(pointer: str) -> list[str]:
    """The names and numbers that a pointer goes through."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def value_at(document: Any, pointer: str) -> Any:
    """The value at a place of a parsed body, or `ABSENT`."""
    for step in steps(pointer):
        if isinstance(document, dict):
            document = document.get(step, ABSENT)
        elif isinstance(document, list):
            # no leading zeros, no signs, and no "-", which is the place behind the last one
            number = int(step) if step.isascii() and step.isdigit() and len(step) < 10 else -1
            document = document[number] if 0 <= number < len(document) and str(number) == step else ABSENT
        else:
            return ABSENT
        if document is ABSENT:
            return ABSENT
    return document
