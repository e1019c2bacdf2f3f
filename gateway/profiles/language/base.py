"""Types that every part of the device language uses."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r'^[^\x00-\x1f"\\]+$')]
TopicPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-./{}]+$", max_length=200)]
Reason = Annotated[str, StringConstraints(max_length=300)]
Source = Annotated[str, StringConstraints(min_length=3, max_length=300)]


class StrictModel(BaseModel):
    """Unknown keys are faults, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


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
