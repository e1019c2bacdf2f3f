"""Types that every part of the device language uses."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ModelId = Annotated[int, Field(ge=1, le=65534)]
MODEL_NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
ModelKey = ModelId | ModelName
"""A SunSpec model: its id, of several the first, or a name of `modbus.sunspec.models`."""
KEY_PATTERN = r'^[^\x00-\x1f"\\]+$'
Key = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=KEY_PATTERN)]
TOPIC_PATTERN = r"^[A-Za-z0-9_\-./{}]+$"
TopicPattern = Annotated[str, StringConstraints(pattern=TOPIC_PATTERN, max_length=200)]
Reason = Annotated[str, StringConstraints(max_length=300)]
Source = Annotated[str, StringConstraints(min_length=3, max_length=300)]


class StrictModel(BaseModel):
    """Unknown keys are faults, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)

    def faults(self) -> Iterator[str]:
        """What is wrong between fields that are each right, every fault as `what is wrong` or `key: what is wrong`."""
        yield from ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        found = "\n".join(self.faults())
        if found:
            raise ValueError(found)
        return self


class Sign(StrEnum):
    """The product's sign of a power. Canonical are `discharge_positive` and `import_positive`."""

    DISCHARGE_POSITIVE = "discharge_positive"
    CHARGE_POSITIVE = "charge_positive"
    IMPORT_POSITIVE = "import_positive"
    EXPORT_POSITIVE = "export_positive"


FLIPPED = (Sign.CHARGE_POSITIVE, Sign.EXPORT_POSITIVE)


class EvidenceTag(StrEnum):
    """How well a fact is known. Experimental facts never control a device unless its operator opts in."""

    VERIFIED = "verified"
    DOCUMENTED = "documented"
    EXPERIMENTAL = "experimental"


class Evidence(StrictModel):
    """Where a fact comes from."""

    tag: EvidenceTag
    source: Source
