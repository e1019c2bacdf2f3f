"""Bodies of the REST interface about nominations at the aggregator."""

from datetime import date
from typing import Annotated

from pydantic import Field

from gateway.domain.programs.nominations import NominationState
from gateway.schemas.body import Body


class SuggestionState(Body):
    """A suggestion at the aggregator: from `start_date` on, `end_date` excluded. `state`: sent (not decided) |
    accepted | changed (with another power) | rejected | gone (deleted or replaced) | unknown; `word`: the aggregator's;
    `sent_kw`: what went from here, null = nothing did; `kw`: what it has now."""

    id: str
    meter: str
    program: str
    start_date: str
    end_date: str | None
    sent_kw: float | None
    kw: float | None
    state: NominationState
    word: str


class NominationHeld(Body):
    """A nomination that holds, or will; `source`: whose it is, in the aggregator's word."""

    meter: str
    program: str
    start_time: str
    end_time: str | None
    kw: float | None
    source: str


class NominationList(Body):
    """Suggestions of the newest read that ended well (`read`, null = none yet), by meter; `counts` of all of them by
    state; nominations that hold of the meters on this page. `next`: the offset of the next page, null at the end."""

    configured: bool
    read: str | None = None
    failing: str = ""
    counts: dict[str, int] = {}
    holding_total: int = 0
    holding: list[NominationHeld] = []
    suggestions: list[SuggestionState] = []
    next: int | None = None


class NominationAsked(Body):
    """Suggest a power of a program, in kW, from `start_date` until `end_date` (excluded; null = no end). Nothing is
    sent: it becomes rows of the outbox, which need the leave of another person."""

    program: Annotated[str, Field(min_length=1, max_length=64)]
    kw: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    start_date: date
    end_date: date | None = None


class NominationProposed(Body):
    """What came of it: so many `rows` are new, of `meters` that share `kw` together; `first` and `last` row."""

    rows: int
    meters: int
    kw: float
    first: int | None
    last: int | None
