"""Bodies of the REST answers about enrollments at the aggregator."""

from gateway.schemas.body import Body


class LeapAction(Body):
    """Something that we are to do for a meter, in the aggregator's words."""

    meter: str
    reference: str
    code: str
    kind: str
    program: str
    deadline: str
    text: str


class LeapEnrollmentState(Body):
    """How our enrollments stand to the aggregator's: the newest read that ended well (`read`, null = none yet), with
    what contradicts our book and what is to be done; `proposed`, `withdrawn`: rows of the outbox that it came to, for
    what owners want; `failing`: why the newest did not."""

    configured: bool
    read: str | None = None
    failing: str = ""
    meters: int = 0
    rows: int = 0
    changed: int = 0
    proposed: int = 0
    withdrawn: int = 0
    conflicts: list[str] = []
    actions: list[LeapAction] = []
