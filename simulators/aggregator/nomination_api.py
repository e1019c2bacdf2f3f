"""Nominations and their suggestions (section 7).

A newer suggestion of a meter and program that covers an older one wholly deletes it; other overlaps stay. A test
decides suggestions and adds nominations. Not public [?]: the program of a suggestion that names none (a field here).
"""

import csv
import io
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from simulators.aggregator.contract import DATE, ID, TEXT, TIME, TOKEN, UUID, JsonSchema, Shape, array, enum, record
from simulators.aggregator.meter_book import MeterBook
from simulators.aggregator.meter_shapes import SIZE, typed
from simulators.aggregator.meters_error import meters_envelope
from simulators.aggregator.paging import Tokens
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import (
    CSV,
    JSON,
    Call,
    Reply,
    Route,
    Service,
    accepted,
    canonical,
    json_body,
    media_type,
    query,
)
from simulators.aggregator.switches import Mischief, Operation
from simulators.aggregator.times import ServerClock, time_ms, time_text

PAGE = 500
BASE = "/v2/meters/nominations"
Doc = dict[str, Any]

KW: JsonSchema = {"type": "number", "minimum": 0, "maximum": 10_000}
STATUS = enum("RECEIVED", "APPROVED", "MODIFIED", "DENIED", "DELETED", "INVALIDATED")
ITEM: dict[str, JsonSchema] = {
    "start_date": DATE, "end_date": DATE, "nomination_kw": KW, "program_identifier": TEXT,
}  # fmt: skip
IDS = array(ID, minItems=1, maxItems=1000, uniqueItems=True)
ONE = Shape("suggestions", array(record("start_date nomination_kw", **ITEM), minItems=1, maxItems=10_000))
MANY = Shape(
    "suggestions",
    array(record("meter_ids start_date nomination_kw", **ITEM, meter_ids=IDS), minItems=1, maxItems=10_000),
)
WINDOW = Shape("suggestions query", record(start_date=DATE, end_date=DATE))
SEARCH = Shape(
    "suggestion search",
    record(
        meter_ids=array(ID, maxItems=1000),
        start_date=DATE,
        end_date=DATE,
        status=STATUS,
        program_identifier=TEXT,
        updated_since=TIME,
        page_token=TEXT,
        page_size=SIZE,
    ),
)
NOMINATIONS = Shape(
    "nomination search",
    record(
        meter_ids=array(ID, maxItems=1000),
        start_time=TIME,
        end_time=TIME,
        program_identifier=TEXT,
        updated_since=TIME,
        page_token=TEXT,
        page_size=SIZE,
    ),
)
SUGGESTION = record(
    "nomination_suggestion_id meter_id program_identifier start_date nomination_kw status created_at created_by "
    "updated_at",
    **ITEM,
    nomination_suggestion_id=ID,
    meter_id=ID,
    status=STATUS,
    created_at=TIME,
    created_by=TEXT,
    updated_at=TIME,
)
NOMINATION = record(
    "meter_id program_identifier source nomination_kw updated_at",
    meter_id=ID,
    program_identifier=TEXT,
    start_time=TIME,
    end_time=TIME,
    source=enum("LEAP", "PARTNER"),
    nomination_kw=KW,
    updated_at=TIME,
)
SUGGESTED = Shape("suggestions reply", record("suggestions", suggestions=array(SUGGESTION), next_page_token=TOKEN))
SUGGESTION_REPLY = Shape("suggestion", SUGGESTION)
NOMINATED = Shape("nominations reply", record("nominations", nominations=array(NOMINATION), next_page_token=TOKEN))
NOMINATION_SHAPE = Shape("nomination", NOMINATION)
SUGGESTION_COLUMNS = (
    "nomination_suggestion_id,meter_id,program_identifier,start_date,nomination_kw,status,created_at,created_by,"
    "end_date"
)
NOMINATION_COLUMNS = "meter_id,program_identifier,start_time,source,nomination_kw,end_time"
CSV_COLUMNS = ["meter_id", "program_identifier", "start_date", "end_date", "nomination_kw"]


class NominationApi:
    """Suggestions by id, nominations as a list."""

    def __init__(self, book: MeterBook, clock: ServerClock, mischief: Mischief) -> None:
        self.suggestions: dict[str, Doc] = {}
        self.nominations: list[Doc] = []
        self.program = "CEC-DSGS"
        self._book = book
        self._clock = clock
        self._mischief = mischief
        self._tokens = Tokens()

    def decide(self, suggestion_id: str, status: str, *, nomination_kw: float | None = None) -> None:
        """The aggregator's word on a suggestion; with other kW as MODIFIED."""
        changed = {"nomination_kw": nomination_kw} if nomination_kw is not None else {}
        now = {"status": status, "updated_at": self._now()}
        self.suggestions[suggestion_id] = self.suggestions[suggestion_id] | changed | now

    def nominate(self, meter_id: str, start_time: str, nomination_kw: float, **fields: Any) -> None:
        """A nomination that holds."""
        usual = {"program_identifier": self.program, "source": "PARTNER", "updated_at": self._now()}
        made = usual | {"meter_id": meter_id, "start_time": start_time, "nomination_kw": nomination_kw} | fields
        NOMINATION_SHAPE.check(made, open_enums=True)
        self.nominations.append(made)

    def service(self) -> Service:
        """What the server mounts, ahead of the meters that share its path."""
        one = "/v2/meters/{meter_id}/nominations/suggestions"
        read, write = Permission.GET_METER, Permission.NOMINATE
        rows = (
            ("GET", one, Operation.SUGGESTIONS, read, self._of_meter),
            ("POST", one, Operation.SUGGEST, write, self._suggest_one),
            ("DELETE", one + "/{suggestion_id}", Operation.SUGGESTION_DELETE, write, self._delete),
            ("POST", BASE + "/suggestions", Operation.SUGGEST, write, self._suggest_many),
            ("POST", BASE + "/suggestions/search", Operation.SUGGESTION_SEARCH, read, self._search),
            ("POST", BASE + "/search", Operation.NOMINATION_SEARCH, read, self._nominations),
        )
        routes = tuple(
            Route(method=method, path=path, operation=operation, permission=permission, handler=handler)
            for method, path, operation, permission, handler in rows
        )
        return Service(name="nominations", prefixes=(BASE,), routes=routes, envelope=meters_envelope)

    def _now(self) -> str:
        return time_text(self._clock.utc_ms())

    def _known(self, meter_id: str) -> str:
        if not UUID.fullmatch(meter_id):
            raise Refused(400, "Meter id is not a UUID", meter_id=meter_id)
        if meter_id.lower() not in self._book.meters:
            raise Refused(404, "Meter not found", meter_id=meter_id)
        return meter_id.lower()

    def _of_meter(self, call: Call) -> Reply:
        meter_id = self._known(call.ids["meter_id"])
        asked = query(call, WINDOW)
        asked.setdefault("start_date", datetime.fromtimestamp(self._clock.utc_ms() / 1000, tz=UTC).date().isoformat())
        found = [one for one in self.suggestions.values() if _suits(one, asked | {"meter_ids": [meter_id]})]
        return Reply(json={"suggestions": found}, body=SUGGESTED)

    def _suggest_one(self, call: Call) -> Reply:
        meter_id = self._known(call.ids["meter_id"])
        return self._suggest([(meter_id, item) for item in json_body(call, ONE)])

    def _suggest_many(self, call: Call) -> Reply:
        items = _rows(call.body) if media_type(call) == CSV else json_body(call, MANY)
        return self._suggest([(self._known(meter_id), item) for item in items for meter_id in item["meter_ids"]])

    def _suggest(self, items: list[tuple[str, Doc]]) -> Reply:
        for _, item in items:
            if "end_date" in item and item["end_date"] <= item["start_date"]:
                raise Refused(400, "end_date is not after start_date", end_date=item["end_date"])
        affected: list[Doc] = []
        for meter_id, item in items:
            now = self._now()
            made = {key: item[key] for key in ITEM if key in item} | {
                "nomination_suggestion_id": str(uuid.uuid4()),
                "meter_id": meter_id,
                "program_identifier": item.get("program_identifier", self.program),
                "nomination_kw": round(item["nomination_kw"], 2),
                "status": "RECEIVED",
                "created_at": now,
                "created_by": "api key",
                "updated_at": now,
            }
            covered = [id_ for id_, old in self.suggestions.items() if _covers(made, old)]
            for id_ in covered:
                self.decide(id_, "DELETED")
            affected += [self.suggestions[id_] for id_ in covered]
            self.suggestions[str(made["nomination_suggestion_id"])] = made
            affected.append(made)
        return Reply(json={"suggestions": affected}, body=SUGGESTED)

    def _delete(self, call: Call) -> Reply:
        meter_id = self._known(call.ids["meter_id"])
        found = self.suggestions.get(call.ids["suggestion_id"])
        if found is None or found["meter_id"] != meter_id:
            raise Refused(404, "Nomination suggestion not found", nomination_suggestion_id=call.ids["suggestion_id"])
        if found["status"] != "RECEIVED":
            raise Refused(400, "Nomination suggestion is not RECEIVED", status=found["status"])
        self.decide(call.ids["suggestion_id"], "DELETED")
        return Reply(json=self.suggestions[call.ids["suggestion_id"]], body=SUGGESTION_REPLY)

    def _search(self, call: Call) -> Reply:
        asked = json_body(call, SEARCH)
        entries = (((number,), one) for number, one in enumerate(self.suggestions.values()))
        found = (entry for entry in entries if _suits(entry[1], asked))
        return self._listed(call, "suggestions", asked, found, SUGGESTION_COLUMNS, SUGGESTED)

    def _nominations(self, call: Call) -> Reply:
        asked = json_body(call, NOMINATIONS)
        entries = ((number, one) for number, one in enumerate(self.nominations))
        now_ms = self._clock.utc_ms()
        found = (((number,), one) for number, one in entries if _holds(one, asked, now_ms))
        return self._listed(call, "nominations", asked, found, NOMINATION_COLUMNS, NOMINATED)

    def _listed(
        self, call: Call, name: str, asked: Doc, found: Iterable[tuple[tuple[int], Doc]], columns: str, shape: Shape
    ) -> Reply:
        token, size = asked.pop("page_token", None), asked.pop("page_size", PAGE)
        if CSV in call.headers.get("Accept", JSON):
            lines = [",".join(str(one.get(key, "")) for key in columns.split(",")) for _, one in found]
            return Reply(content="\n".join([columns, *lines, ""]).encode(), headers={"Content-Type": CSV})
        turn = self._tokens.offset_page if self._mischief.offset_pages else self._tokens.page
        page, next_token = turn(name, canonical(asked), token, size, found)
        more = {"next_page_token": next_token} if next_token is not None else {}
        return Reply(json={name: page} | more, body=shape)


def _rows(body: bytes) -> list[Doc]:
    try:
        reader = csv.DictReader(io.StringIO(body.decode()), strict=True)
        rows = [{key: text for key, text in row.items() if text} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise Refused(400, "file is not CSV") from None
    if reader.fieldnames != CSV_COLUMNS:
        raise Refused(400, "columns are not those of suggestions", columns=reader.fieldnames)
    items = [
        {key: typed(text, ITEM[key]) for key, text in row.items() if key in ITEM}
        | {"meter_ids": [row["meter_id"]] if "meter_id" in row else []}
        for row in rows
    ]
    accepted(MANY, items)
    return items


def _end(suggestion: Doc) -> str:
    return str(suggestion.get("end_date", date.max.isoformat()))


def _covers(new: Doc, old: Doc) -> bool:
    same = all(new[key] == old[key] for key in ("meter_id", "program_identifier"))
    return same and old["status"] != "DELETED" and new["start_date"] <= old["start_date"] and _end(new) >= _end(old)


def _suits(one: Doc, asked: Doc) -> bool:
    if "start_date" in asked and _end(one) <= asked["start_date"]:
        return False
    if "end_date" in asked and one["start_date"] > asked["end_date"]:
        return False
    return _named(one, asked)


def _holds(one: Doc, asked: Doc, now_ms: int) -> bool:
    start_ms = time_ms(asked["start_time"]) if "start_time" in asked else now_ms
    if "end_time" in one and time_ms(one["end_time"]) <= start_ms:
        return False
    if "end_time" in asked and time_ms(one["start_time"]) >= time_ms(asked["end_time"]):
        return False
    return _named(one, asked)


def _named(one: Doc, asked: Doc) -> bool:
    if asked.get("meter_ids") and one["meter_id"] not in {id_.lower() for id_ in asked["meter_ids"]}:
        return False
    if any(key in asked and one[key] != asked[key] for key in ("status", "program_identifier")):
        return False
    return "updated_since" not in asked or time_ms(one["updated_at"]) >= time_ms(asked["updated_since"])
