"""Bodies of the REST interface about forecasts."""

from gateway.schemas.body import Body


class PowerForecastBody(Body):
    """Mean power over `hours`; outcomes lie between `low_kw` and `high_kw` in 80 of 100 cases. `nomination_kw`: what
    may be nominated, the lower edge."""

    hours: float
    kw: float
    low_kw: float
    high_kw: float
    nomination_kw: float


class NextForecastBody(PowerForecastBody):
    """Of the next event. `recovery_h`: hours until nine tenths of its energy are back at the least, by what batteries
    may charge; null = not within two days, or not known."""

    recovery_h: float | None


class ForecastBody(Body):
    """What a program's fleet will give: in its `next` event by length, and in an event of a nomination `period`.
    `homes` are counted on; `events` are past ones that it rests on. It knows no temperature."""

    program: str
    homes: int
    events: int
    next: list[NextForecastBody]
    period: PowerForecastBody
