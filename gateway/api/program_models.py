"""Bodies of the REST answers about grid programs."""

from gateway.schemas.body import Body


class ProgramRow(Body):
    """A program whose rules are known here. `pricing`: rates | own | none (rules only); `in_force`: the version of
    today by the program's own calendar, null if there is none; `unverified` of its `values` rest on no text; `digest`:
    the first digits of its file's SHA-256."""

    program: str
    title: str
    pricing: str
    zone: str
    in_force: str | None
    versions: list[str]
    values: int
    unverified: int
    digest: str


class ProgramList(Body):
    """The programs whose rules are known here; events of others are judged by none."""

    programs: list[ProgramRow]


class ProgramState(ProgramRow):
    """One program; `rules` is its file, every value with its evidence and source."""

    rules: dict[str, object]


class AllowedBody(Body):
    """A time in which the calendar of a program's `version` allows an event. `notice_by`: when one that begins with it
    has to be known at the latest, null if the program asks for no notice."""

    start: str
    end: str
    version: str
    notice_by: str | None


class AllowanceBody(Body):
    """How much of what a `rule` (events | hours) counts is used and left, `per` day, month or season, from `start` to
    `end`. Scheduled events are used. `effect`: refuse | clip | warn; `evidence`: how well the rule is known."""

    rule: str
    version: str
    per: str
    start: str
    end: str
    most: float
    used: float
    left: float
    effect: str
    evidence: str


class EnergyBody(Body):
    """An event of the program that runs or begins within a day, and energy for it: it asks for `asked_wh` (null = as
    much as there is); of what its batteries hold above their reserves now, `left_wh` are left once events of higher
    rank, of whatever program, have theirs. What PV adds until then is not counted. `yields`: the event comes after
    those of all programs that do not."""

    event: str
    source: str
    start: str
    end: str
    asked_wh: float | None
    left_wh: float
    yields: bool


class AllowedList(Body):
    """What could be dispatched when, and what is left of counts and hours. Notice, length and rest are not in `spans`:
    they depend on the event. `energy`: what is left of it for the program's events of the next 24 h, null before the
    first tick; the first 200 by rank of all programs count."""

    program: str
    start: str
    end: str
    spans: list[AllowedBody]
    left: list[AllowanceBody]
    energy: list[EnergyBody] | None = None
