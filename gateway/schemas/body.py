"""What every body on the wire has in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A body; an unknown member is an error."""

    model_config = ConfigDict(extra="forbid")
