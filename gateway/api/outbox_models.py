"""Bodies of the REST interface about changes at the aggregator."""

from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt

from gateway.domain.programs.outbox import WriteKind
from gateway.schemas.body import Body


class WantedChange(Body):
    """What the aggregator is to have of a meter: `subject` is the partner's reference for `kind` meter, else the
    aggregator's id. Members of a meter stand by their place (`device.battery_energy_capacity_kwh`), and `customer` is a
    reference: who that is stands in the table of customers alone."""

    subject: Annotated[str, Field(min_length=3, max_length=64)]
    after: Annotated[dict[str, Any], Field(min_length=1, max_length=64)]


class ProposalBody(Body):
    """Changes of one kind that somebody wants."""

    kind: WriteKind
    rows: Annotated[list[WantedChange], Field(min_length=1, max_length=10_000)]


class RowNumbers(Body):
    """Rows by their numbers."""

    rows: Annotated[list[StrictInt], Field(min_length=1, max_length=10_000)]


class RunBody(Body):
    """What is to be sent. `confirm`: the exact number of rows, needed where they are more than a few."""

    kind: WriteKind
    dry_run: StrictBool = True
    confirm: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None


class DifferenceBody(Body):
    """A member that a row changes."""

    member: str
    before: Any
    after: Any


class OutboxRowState(Body):
    """A row. `state`: proposed | sending | waits (the aggregator works on it) | done | differs | refused | withdrawn;
    `needs_approval`: nobody else has given leave yet; `job`: where the aggregator works on it."""

    number: int
    kind: WriteKind
    subject: str
    state: str
    differences: list[DifferenceBody]
    is_new: bool
    proposed_by: str
    proposed: str
    approved_by: str
    needs_approval: bool
    job: str
    detail: str


class OutboxRowList(Body):
    """Rows by number. `next`: the number after which the next page begins, null at the end."""

    entries: list[OutboxRowState]
    next: int | None = None


class RunReportBody(Body):
    """What a run sent, or (`dry_run`) would send. `waiting` rows lack leave; `refusal`: why nothing was sent; `error`:
    why it ended early. `entries`: rows that it touched, as they are now."""

    kind: WriteKind
    dry_run: bool
    would_send: int
    waiting: int
    refusal: str | None
    error: str | None
    entries: list[OutboxRowState]
