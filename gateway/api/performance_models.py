"""Bodies of the REST answers about the performance of events. Energy is whole Wh, power W or (delivered, baseline) kW,
numbers with a point and money are text, null = not known."""

from gateway.schemas.body import Body


class PerformanceHour(Body):
    """An hour, of which the event takes `seconds`. `energy_wh`: what the program has of what the batteries gave, net of
    charging, `power_w` its mean. `delivered_kw` is against the baseline and within floors and caps, over the whole
    hour. `covered_pct`: how much of it is measured."""

    begins: str
    seconds: int
    energy_wh: int
    power_w: str
    baseline_kw: str | None
    delivered_kw: str | None
    covered_pct: float


class PerformanceValue(Body):
    """What it is worth for now: `computed`, `provisional (...)` with what is missing, or why there is no value. `low`
    and `high` bound it. `per`: what the rate is for; anything but `kwh` is of a whole period, as if the event were the
    only one of it."""

    status: str
    value: str | None
    low: str | None
    high: str | None
    currency: str | None
    per: str | None
    why: str | None


class PerformanceFigureRow(Body):
    """A battery, a home, a customer or (`name` empty) the program; `within`: the home of a battery, the customer of a
    home. `asked_wh` and `given_wh` (all that was given, whosever it is) are in the direction that was asked;
    `short_because` sums to `short_wh`. `late_s` null: nothing started. `value` null: the program pays on another
    level."""

    name: str
    within: str
    energy_wh: int
    asked_wh: int
    given_wh: int
    short_wh: int
    short_because: dict[str, int]
    late_s: float | None
    early_s: float
    covered_pct: float
    no_baseline_because: str | None
    value: PerformanceValue | None
    hours: list[PerformanceHour]


class UnverifiedValue(Body):
    """A value of the program's file that figures rest on and nobody has verified."""

    path: str
    evidence: str
    source: str


class LeftOutBatteries(Body):
    """Batteries of the event that are not enrolled in its program, and some of them."""

    count: int
    some: list[str]


class PerformanceRevisionRow(Body):
    """A revision of an occurrence, and what changed since the one before it."""

    occurrence: str
    revision: int
    computed: str
    because: list[str]


class EventPerformanceRow(PerformanceRevisionRow):
    """The newest figures of an occurrence, or those asked for. `measured_at` battery_ac | site_ct | utility_meter;
    `estimate`: the home's own meter stands for the program's; `paid_at` site | customer | aggregation: the level at
    which money is worked out. `own_use_wh`: what was discharged and no program takes; `unsure_homes`: homes whose
    share rests on a load that nobody knows; `counts`: figures of each level."""

    event: str
    program: str
    version: str
    measured_at: str
    estimate: bool
    paid_at: str
    start: str
    end: str
    interval_s: int
    awarded_w: str | None
    nominated_w: str | None
    own_use_wh: int
    unsure_homes: int
    counts: dict[str, int]
    left_out: LeftOutBatteries
    figure: PerformanceFigureRow
    rests_on_unverified: list[UnverifiedValue]


class EventPerformanceState(EventPerformanceRow):
    """An event with a page of its figures by name. `revisions`: all of the event's, the newest first, up to 100."""

    level: str
    figures: list[PerformanceFigureRow]
    next: str | None
    revisions: list[PerformanceRevisionRow]


class ProgramPerformanceList(Body):
    """The newest figures of a program's events, by their start."""

    program: str
    start: str
    end: str
    events: list[EventPerformanceRow]
    next: str | None
