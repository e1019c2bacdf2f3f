"""Bodies about exclusions: who is kept out of dispatch, and what one would do; and the rows of a file of them."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from gateway.api.models import BadRowBody
from gateway.domain.errors import refuse
from gateway.domain.events.calendar import DAY_MS
from gateway.domain.events.exclusions import AreaReason, GroupReason
from gateway.domain.registry.territory import Area
from gateway.schemas.body import Body
from gateway.schemas.event import GroupBody, Identifier, Moment
from gateway.services.programs.rows import TableRow

NAMES_MAX = 1_000
DAYS_MAX = 366
NOTE = r"^[^\x00-\x1f\x7f]*$"

Reason = Literal["opt_out", "storm", "outage", "weather", "utility_request", "other"]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"\S")]
Names = Annotated[list[Name], Field(max_length=NAMES_MAX)]
Note = Annotated[str, Field(max_length=256, pattern=NOTE)]
Raised = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False, strict=True)]


class AreaBody(Body):
    """Homes by where they are (as they are registered) and which programs they are in: enrolled in one, or named by an
    event of it that runs. Of each list that is there a home must be one."""

    postcodes: Names = Field(default_factory=list)
    counties: Names = Field(default_factory=list)
    utilities: Names = Field(default_factory=list)
    feeders: Names = Field(default_factory=list)
    programs: Annotated[list[Identifier], Field(max_length=NAMES_MAX)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.area():
            raise ValueError("name homes: postcodes, counties, utilities, feeders or programs")
        return self

    def area(self) -> Area:
        return Area(**{name: tuple(dict.fromkeys(texts)) for name, texts in dict(self).items()})


class ExclusionBody(Body):
    """Keeps devices out of dispatch: a `group` (`opt_out` by their owners, of one `event` or of all; `storm` to keep
    energy for an outage), or whoever is in a `territory`. There `storm`, `outage` and `weather` keep the energy
    (charging goes on), `utility_request` and `other` leave the devices alone; `reserve_pct` raises their reserve, and
    with `dispatch_above_reserve` what is above it may still be dispatched. `note` says why, in words. `from` absent =
    from now on, `until` absent = until it is lifted (a territory must have one), `by` absent = whom the query names.
    Sent again the same changes nothing."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: Identifier
    reason: Reason
    group: GroupBody | None = None
    territory: AreaBody | None = None
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    event: Identifier | None = None
    note: Note = ""
    reserve_pct: Raised | None = None
    dispatch_above_reserve: StrictBool = False
    by: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse([*self._faults()])
        return self

    def _faults(self) -> Iterator[str]:
        if (self.group is None) == (self.territory is None):
            yield "group: either a group or a territory"
        if self.since is not None and self.until is not None and self.until <= self.since:
            yield "until: not after from"
        if self.event is not None and self.reason != "opt_out":
            yield "event: belongs to opt_out"
        if self.territory is None:
            if self.reason not in get_args(GroupReason):
                yield "reason: of a group it is opt_out or storm"
            for name in ("note", "reserve_pct", "dispatch_above_reserve"):
                if getattr(self, name):
                    yield f"{name}: belongs to a territory"
            return
        if self.reason not in get_args(AreaReason):
            yield "reason: of a territory it is storm, outage, weather, utility_request or other"
        if self.until is None:
            yield "until: a territory is excluded until a time; it can be lifted before"
        if self.dispatch_above_reserve and self.reserve_pct is None:
            yield "dispatch_above_reserve: needs a reserve_pct"


def too_long(now_ms: int, until_ms: int | None) -> bool:
    """Whether an exclusion of a territory would last for so long that nobody can have meant it."""
    return until_ms is not None and until_ms - now_ms > DAYS_MAX * DAY_MS


def _some(value: object) -> object:
    """Names of a cell, separated by semicolons."""
    return [one.strip() for one in value.split(";") if one.strip()] if isinstance(value, str) else value


def _no_flag(value: object) -> object:
    """A cell is a text or a number; true is no 1 %."""
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Cell = Annotated[Names, BeforeValidator(_some)]
RaisedCell = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), BeforeValidator(_no_flag)]


class ExclusionRow(TableRow):
    """The exclusion of a territory as a row: several of a kind in a cell are separated by semicolons (in JSON they may
    be a list). `since` blank = from now on."""

    id: Identifier
    reason: AreaReason
    postcode: Cell = Field(default_factory=list)
    county: Cell = Field(default_factory=list)
    utility: Cell = Field(default_factory=list)
    feeder: Cell = Field(default_factory=list)
    program: Annotated[list[Identifier], Field(max_length=NAMES_MAX), BeforeValidator(_some)] = Field(
        default_factory=list
    )
    since: Moment | None = None
    until: Moment
    note: Note = ""
    reserve_pct: RaisedCell | None = None
    dispatch_above_reserve: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse([*self._faults()])
        return self

    def _faults(self) -> Iterator[str]:
        if not self.area():
            yield "postcode: name homes: a postcode, county, utility, feeder or program"
        if self.since is not None and self.until <= self.since:
            yield "until: not after since"
        if self.dispatch_above_reserve and self.reserve_pct is None:
            yield "dispatch_above_reserve: needs a reserve_pct"

    def area(self) -> Area:
        return Area(
            postcodes=tuple(self.postcode), counties=tuple(self.county), utilities=tuple(self.utility),
            feeders=tuple(self.feeder), programs=tuple(self.program),
        )  # fmt: skip


class ExclusionState(Body):
    """An exclusion, how many devices it names and whether it is in force now. While it is not `durable` a restart would
    forget it; it is written as soon as the disk takes it. `territory`: null where it is of a group."""

    id: str
    reason: str
    event: str | None
    since: str
    until: str | None
    by: str
    devices: int
    active: bool
    durable: bool
    territory: AreaBody | None
    note: str
    reserve_pct: float | None
    dispatch_above_reserve: bool


class ExclusionAnswer(ExclusionState):
    """An exclusion as it was set. `warnings`: what it names and is not there now: devices, tags, an event, a postcode
    and so on, and how many devices are not in it since nobody knows where they are."""

    warnings: list[str]


class ExclusionList(Body):
    """All exclusions."""

    exclusions: list[ExclusionState]


class AffectedProgram(Body):
    """Of a program: how many of the devices are enrolled in it, and how many its `events` that run or are to come
    name."""

    program: str
    enrolled: int
    named: int
    events: list[str]


class ExclusionEffect(Body):
    """What an exclusion would do if it were set: whom it covers now, in devices and homes, how many of the devices are
    kept out by others already (`excluded`), what the devices could discharge together (`rated_w`; `discharge_w` as of
    the newest tick, null before that), and the programs that they are in. `replaces`: there is one of that id."""

    id: str
    replaces: bool
    devices: int
    homes: int
    excluded: int
    rated_w: float
    discharge_w: float | None
    programs: list[AffectedProgram]
    warnings: list[str]


class ExclusionImport(Body):
    """What an import of exclusions did. `rejected_total` counts those rows too that `rejected` has no room for; while
    it is not `durable` a restart would forget it."""

    rows: int
    changed: int
    unchanged: int
    durable: bool
    rejected: list[BadRowBody]
    rejected_total: int
