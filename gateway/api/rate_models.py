"""What REST says of the rates that enrollments are paid by."""

from gateway.schemas.body import Body


class RateState(Body):
    """The rate per `unit` that an enrollment is paid by for an event on a day (`amount`: a decimal number, every factor
    in it), or the `reason` why there is none. `version` of the program's rules; `enrolled`: the local day that counts,
    `year` of taking part; `evidence`: how well rate and factors are known, the least of them; `certain`: all of it is
    verified."""

    subject: str
    kind: str
    program: str
    delivery_period: str | None
    on: str
    version: str | None
    season: str | None
    enrolled: str | None
    year: int | None
    unit: str | None
    rate: str | None
    amount: str | None
    currency: str | None
    factors: list[str]
    evidence: str | None
    source: str | None
    certain: bool
    reason: str | None


class RateList(Body):
    """The rates of a device, or of a meter of the aggregator, in every program whose rules are known here."""

    id: str
    rates: list[RateState]
