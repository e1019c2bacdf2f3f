"""What a test sets: readings of points that no public text settles, and misbehaviour of the service."""

import math
from dataclasses import dataclass, field
from enum import Enum

from simulators.aggregator.csv_rules import Code, LineError

DAY_S = 86_400


class Order(Enum):
    """In which order the upload list is sent."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"


class SearchNames(Enum):
    """Which names the missing-interval search knows for the window of its request."""

    SCHEMA = "schema"  # missing_interval_window_{start,end}_date_time_utc
    EXAMPLE = "example"  # {start,end}_date_time_utc; the schema's names then mean nothing


class WindowRule(Enum):
    """Which missing intervals lie in a window."""

    OVERLAP = "overlap"  # what overlaps it, whole
    CLIPPED = "clipped"  # what overlaps it, cut to the window
    START = "start"  # what starts in it, whole


@dataclass(slots=True, kw_only=True)
class OpenPoints:
    """Readings of what is not public [?]. The defaults are the ones that a careless client stumbles over.

    `exponents`, `naive_times`: whether 1e-05 is a number and 2026-01-01T00:00:00 a time. `errors_max`: after how many
    items the errors of a job are cut (None = never); the summary always counts all of them. `missing_after_s`: how
    old an interval must be before it is missed. `missing_piece_s`: entries of the search are cut at multiples of it.
    """

    header_is_line_1: bool = True
    failed_takes_good_rows: bool = False
    net_is_consumed_less_generated: bool = True
    net_tolerance_kwh: float = 1e-9
    naive_times: bool = False
    exponents: bool = False
    upload_bytes_max: int | None = None
    errors_max: int | None = None
    preview_lines: int = 100
    order: Order = Order.NEWEST_FIRST
    search_names: SearchNames = SearchNames.SCHEMA
    window: WindowRule = WindowRule.OVERLAP
    empty_meter_ids_are_all: bool = False
    missing_after_s: float = 0.0
    missing_piece_s: int = DAY_S
    deadline_s: int = 7 * DAY_S


@dataclass(slots=True, kw_only=True)
class Mischief:
    """What the service may do by its own compatibility rule, or does although it should not.

    `unknown_enums`: every list of enum-bearing items carries one more item with unknown values (where a page has room
    for it), and a preview shows an unknown status while the job waits. `sparse_missing`: only what identifies a
    missing interval is sent, since no field of it is required. `offset_pages`:
    a token counts entries instead of naming one, so pages shift when the list changes under the reader.
    """

    extra_fields: bool = False
    unknown_enums: bool = False
    null_tokens: bool = False
    absent_tokens: bool = False
    old_error_items: bool = False
    outside_window: bool = False
    sparse_missing: bool = False
    offset_pages: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long a job stays in a state: so many looks at it or so many seconds, whichever is over first."""

    looks: int | None = 1
    s: float | None = 60.0

    def over(self, looks: int, s: float) -> bool:
        """Whether a job that was looked at so often, and is so old, leaves the state."""
        return (self.looks is not None and looks >= self.looks) or (self.s is not None and s >= self.s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a job is QUEUED, then PROCESSING."""

    queued: Wait = Wait()
    processing: Wait = Wait()


AT_ONCE = Pace(queued=Wait(looks=0), processing=Wait(looks=0))
NEVER = Pace(queued=Wait(looks=None, s=math.inf))


class Rerun(Enum):
    """Whether the service runs a file again, under another job id."""

    NEVER = "never"
    BEFORE = "before"  # the list never names the id that the uploader was told
    AFTER = "after"  # once its end was seen, the file is queued again and judged anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one file. `failed_with` makes it FAILED with exactly these errors, whatever it holds."""

    pace: Pace | None = None
    rerun: Rerun = Rerun.NEVER
    failed_with: tuple[LineError, ...] | None = None


FAILED_WITHOUT_ERRORS = Fate(failed_with=())
FAILED_WITHOUT_LINE = Fate(failed_with=(LineError(0, Code.UNCATEGORISED, "file could not be processed"),))


class Operation(Enum):
    """What can be asked of the service."""

    UPLOAD = "uploadIntervalData"
    UPLOADS = "interval data uploads"
    JOB = "interval data upload"
    PREVIEW = "intervalDataFilePreview"
    PRESIGNED = "intervalDataPresignedUrl"
    MISSING = "searchMissingIntervalData"
    METER_DISPATCH_SEARCH = "searchMeterDispatch"
    GROUP_DISPATCH_SEARCH = "searchGroupDispatch"
    DISPATCH_WEBHOOK_PUT = "put dispatch webhook"
    DISPATCH_WEBHOOK_GET = "get dispatch webhook"
    DISPATCH_WEBHOOK_DELETE = "delete dispatch webhook"
    INTEGRATION_TEST = "integration test"
    COMMUNICATION_TEST = "triggerCommunicationTestMeterDispatch"
    WEBHOOKS = "list webhooks"
    WEBHOOK_CREATE = "create webhook"
    WEBHOOK_PUT = "put webhook"
    WEBHOOK_DELETE = "delete webhook"
    WEBHOOK_TEST = "test webhook"
    METER_JOB_CREATE = "create meters"
    METER_JOB = "meter job"
    METER_JOBS = "meter jobs"
    PROVISIONAL_ASSETS = "provisional assets"
    METER_CREATE = "createSingleMeter"
    METER_GET = "get meter"
    METER_SEARCH = "search meters"
    ENROLLMENT_GET = "get enrollment"
    ENROLLMENT_SEARCH = "search enrollments"
    IDLE = "idle periods"
    PARTICIPATE = "participate"
    DISENROLL = "disenrollment requests"
    SUGGESTIONS = "nomination suggestions of a meter"
    SUGGEST = "suggest nominations"
    SUGGESTION_DELETE = "delete nomination suggestion"
    SUGGESTION_SEARCH = "search nomination suggestions"
    NOMINATION_SEARCH = "search nominations"
    REVENUE_AGGREGATION = "revenue aggregation"
    REVENUE_VERSIONS = "revenue versions"
    UNRESPONSIVE = "unresponsive meters"


class Trouble(Enum):
    """What goes wrong with one answer."""

    HANG = "hang"  # none comes until the server stops
    CUT = "cut"  # the connection is cut instead
    HALF = "half"  # the connection is cut in the middle of the body
    STALL = "stall"  # half of the body comes, the rest does not until the server stops
    ANSWER = "answer"  # another one comes
    SLOW = "slow"  # the right one comes late


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """One answer that goes wrong; `done` = the request takes effect nevertheless."""

    trouble: Trouble
    done: bool = False
    status: int = 503
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    s: float = 0.0


def hang(*, done: bool = False) -> Mishap:
    """No answer."""
    return Mishap(trouble=Trouble.HANG, done=done)


def cut(*, done: bool = False) -> Mishap:
    """A cut connection instead of an answer."""
    return Mishap(trouble=Trouble.CUT, done=done)


def half() -> Mishap:
    """The right answer, cut in the middle."""
    return Mishap(trouble=Trouble.HALF, done=True)


def stall() -> Mishap:
    """The right answer, of which the second half never comes."""
    return Mishap(trouble=Trouble.STALL, done=True)


def answer(status: int, body: bytes = b"", *, done: bool = False, **headers: str) -> Mishap:
    """Another answer; `Retry_After="5"` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Mishap(trouble=Trouble.ANSWER, done=done, status=status, body=body, headers=named)


def slow(s: float) -> Mishap:
    """The right answer, after so many seconds."""
    return Mishap(trouble=Trouble.SLOW, done=True, s=s)


TOO_MANY = answer(429, b'{"title": "Too many requests", "status": 429}')
BARE_STRING = answer(500, b'"An error happened whilst processing your request"')
HTML_PAGE = answer(200, b"<html><body>Sign in to continue</body></html>", Content_Type="text/html")
EMPTY_ANSWER = answer(200, b"", Content_Type="application/json")
