"""Bodies of the REST interface about cases of homes that underperform."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.domain.programs.cases import TEXT_MAX
from gateway.domain.programs.underperformers import LikelyCause
from gateway.schemas.body import Body
from gateway.schemas.cases import CaseBody
from gateway.schemas.event import Identifier, Moment

LINE = r"^[^\x00-\x1f\x7f]*$"


class CaseList(Body):
    """Cases by number. `next`: the number after which the next page begins, null at the end."""

    entries: list[CaseBody]
    next: int | None = None


class OpenCaseBody(Body):
    """A case that a person opens: of which home, and what seems to be the matter."""

    home: Identifier
    cause: LikelyCause


class CaseChangeBody(Body):
    """What is to change of a case. `assignee`: who looks after it, "" = nobody; `snooze_until`: nobody is told before,
    null = now; `close`: why it is closed."""

    assignee: Annotated[str, Field(max_length=64, pattern=LINE)] | None = None
    snooze_until: Moment | None = None
    close: Annotated[str, Field(min_length=1, max_length=TEXT_MAX, pattern=LINE)] | None = None

    @model_validator(mode="after")
    def _says(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("(body): nothing is to change")
        return self
