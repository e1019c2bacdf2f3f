"""Bodies about dispatch from the aggregator: how it stands, what a search found, where it posts."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StrictBool

from gateway.schemas.body import Body


class LeapBadSlot(Body):
    """A slot or a body that could not be read; `place`: where in the body."""

    body: str
    at: str
    place: str
    problem: str
    event: str


class LeapDispatchState(Body):
    """How dispatch from the aggregator stands. `events` are to run; `refused`: why the book does not take an event, by
    its id; `early`: events that begin later than the book looks ahead; `without_devices`: events none of whose meters
    has a known battery; `unknown_meters`: how many meters have none, `unknown_meters_first` a few of them;
    `unknown_programs`: events of a program that no file describes; they run. `hints`: slots of which a webhook says
    something else than the newest search. `hidden`: live slots that search does not show. `bodies_set_aside`: bodies
    that nobody could read; `bad`: the newest slots and bodies of that kind. `searched`: when the newest search that
    ended well was asked; `search_failing`: why the newest did not."""

    configured: bool
    newest_webhook: str | None = None
    events: int = 0
    refused: dict[str, str] = Field(default_factory=dict)
    early: int = 0
    without_devices: list[str] = Field(default_factory=list)
    unknown_meters: int = 0
    unknown_meters_first: list[str] = Field(default_factory=list)
    unknown_programs: list[str] = Field(default_factory=list)
    hints: int = 0
    hidden: int = 0
    bodies_waiting: int = 0
    bodies_set_aside: int = 0
    bad: list[LeapBadSlot] = Field(default_factory=list)
    search_configured: bool = False
    searched: str | None = None
    search_failing: str | None = None


class LeapSpan(Body):
    """From when until when to search; without both, what the schedule searches."""

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None


class LeapSearchFound(Body):
    """What a search found: `pages` and `results` of them, `took`: what their slots did, `hidden`: live slots that it
    did not show."""

    pages: int
    results: int
    hidden: int
    took: dict[str, int]


class LeapWebhookBody(Body):
    """Where the aggregator posts dispatch of a level: `url`, with headers of these names. `wanted`: where it should,
    null = that is not configured; `detail`: why it is not known."""

    level: str
    state: Literal["ours", "none", "other_url", "other_header", "unknown"]
    url: str | None
    wanted: str | None
    headers: list[str]
    detail: str | None


class LeapWebhookList(Body):
    """The webhooks of the configured levels."""

    webhooks: list[LeapWebhookBody]


class LeapWebhookAsked(Body):
    """Register this gateway for a level. `replace`: the address that is registered now, if there is another; `send`:
    not only propose it, but send every change of a webhook that is open; `confirm`: how many they are."""

    level: Literal["meter", "group"]
    replace: str | None = Field(default=None, max_length=256)
    send: StrictBool = False
    confirm: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None
