"""Meters and enrollments as they are read, and idle, participate, disenroll (sections 3.3, 4).

Not public [?], and fields of `ParticipationNames`: what periods, meters and lists are called, whether an end date is
part of its period. The reply of a change is ours too: the meter's idle periods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson

from simulators.aggregator.contract import DATE, UUID, JsonSchema, Shape, array, record
from simulators.aggregator.meter_book import Meter, MeterBook
from simulators.aggregator.meter_jobs import MeterJobs
from simulators.aggregator.meter_shapes import (
    DETAILS_FOUND,
    DETAILS_REPLY,
    ENROLLMENT_REPLY,
    ENROLLMENTS_FOUND,
    FILTER,
)
from simulators.aggregator.meters_error import meters_envelope
from simulators.aggregator.paging import Tokens
from simulators.aggregator.periods import Period, Preference
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Call, Handler, Reply, Route, Service, accepted, canonical, json_body
from simulators.aggregator.switches import Mischief, Operation
from simulators.aggregator.times import ServerClock, time_ms

PAGE = 500
BASE = "/v1.1/enrollment/meters"
Doc = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class ParticipationNames:
    """What is not public [?] of participation."""

    start: str = "start_date"
    end: str = "end_date"
    meter: str = "meter_id"
    periods: str = "idle_periods"
    participate_list: str = "participate_requests"
    end_included: bool = True


class MetersApi:
    """Reads the book, and changes how its meters participate."""

    def __init__(self, book: MeterBook, jobs: MeterJobs, clock: ServerClock, mischief: Mischief) -> None:
        self.names = ParticipationNames()
        self._book = book
        self._jobs = jobs
        self._clock = clock
        self._mischief = mischief
        self._tokens = Tokens()

    def service(self) -> Service:
        """What the server mounts."""
        read, write, delete = Permission.GET_METER, Permission.REGISTER_METER, Permission.DELETE_METER
        one = BASE + "/{meter_id}"
        rows: tuple[tuple[str, str, Operation, Permission, Handler], ...] = (
            ("POST", "/v2/meters/search", Operation.METER_SEARCH, read, self._search),
            ("GET", "/v2/meters/{meter_id}", Operation.METER_GET, read, self._get),
            ("POST", "/v2/meters/enrollments/search", Operation.ENROLLMENT_SEARCH, read, self._enrollments),
            ("GET", "/v2/meters/{meter_id}/enrollments", Operation.ENROLLMENT_GET, read, self._enrollment),
            ("GET", BASE + "/idle_periods", Operation.IDLE, read, self._all_idle),
            ("POST", BASE + "/idle_periods", Operation.IDLE, write, self._idle_many),
            ("DELETE", BASE + "/idle_periods", Operation.IDLE, write, self._idle_many_off),
            ("POST", BASE + "/participate", Operation.PARTICIPATE, write, self._participate_many),
            ("POST", BASE + "/disenrollment_requests", Operation.DISENROLL, delete, self._disenroll_many),
            ("GET", one + "/idle_periods", Operation.IDLE, read, lambda call: self._idle_of(self._meter(call))),
            ("POST", one + "/idle_periods", Operation.IDLE, write, self._idle),
            ("DELETE", one + "/idle_periods", Operation.IDLE, write, self._idle_off),
            ("POST", one + "/participate", Operation.PARTICIPATE, write, self._participate),
            ("POST", one + "/disenrollment_requests", Operation.DISENROLL, delete, self._disenroll),
        )
        routes = tuple(
            Route(method=method, path=path, operation=operation, permission=permission, handler=self._fresh(handler))
            for method, path, operation, permission, handler in rows
        )
        return Service(name="meters", prefixes=("/v2/meters", BASE), routes=routes, envelope=meters_envelope)

    def _fresh(self, handler: Handler) -> Handler:
        def handle(call: Call) -> Any:
            self._jobs.settle()
            self._book.advance()
            return handler(call)

        return handle

    def _meter(self, call: Call) -> Meter:
        meter_id = call.ids["meter_id"].lower()
        if not UUID.fullmatch(meter_id):
            raise Refused(400, "Meter id is not a UUID", meter_id=call.ids["meter_id"])
        meter = self._book.meters.get(meter_id)
        if meter is None:
            raise Refused(404, "Meter not found", meter_id=meter_id)
        return meter

    def _get(self, call: Call) -> Reply:
        return Reply(json=self._meter(call).details(), body=DETAILS_REPLY)

    def _enrollment(self, call: Call) -> Reply:
        return Reply(json=self._meter(call).enrollment(), body=ENROLLMENT_REPLY)

    def _search(self, call: Call) -> Reply:
        return Reply(json=self._page(call, "meters", Meter.details), body=DETAILS_FOUND)

    def _enrollments(self, call: Call) -> Reply:
        return Reply(json=self._page(call, "enrollments", Meter.enrollment), body=ENROLLMENTS_FOUND)

    def _page(self, call: Call, what: str, form: Callable[[Meter], Doc]) -> Doc:
        asked = json_body(call, FILTER, optional=True)
        token, size = asked.pop("page_token", None), asked.pop("page_size", PAGE)
        entries = [((id_,), form(meter)) for id_, meter in sorted(self._book.meters.items()) if _wanted(meter, asked)]
        turn = self._tokens.offset_page if self._mischief.offset_pages else self._tokens.page
        page, next_token = turn(what, canonical(asked), token, size, entries)
        return {"meters": page} | ({"next_page_token": next_token} if next_token is not None else {})

    def _idle_of(self, *meters: Meter) -> Reply:
        listed = [self._periods(meter) for meter in meters]
        return Reply(json=listed[0] if len(meters) == 1 else {"meter_idle_periods": listed})

    def _all_idle(self, _: Call) -> Reply:
        listed = [self._periods(meter) for meter in self._book.meters.values() if meter.periods.idle()]
        return Reply(json={"meter_idle_periods": listed})

    def _periods(self, meter: Meter) -> Doc:
        extra = timedelta(days=self.names.end_included)
        periods = [
            {self.names.start: period.first.isoformat(), self.names.end: (period.end - extra).isoformat()}
            for period in meter.periods.idle()
            if period.end is not None
        ]
        return {self.names.meter: meter.meter_id, self.names.periods: periods}

    def _idle(self, call: Call) -> Reply:
        meter = self._meter(call)
        self._make_idle(meter, self._spans(_json(call, Shape("idle periods", self._list_schema()))))
        return self._idle_of(meter)

    def _idle_off(self, call: Call) -> Reply:
        meter = self._meter(call)
        self._unmake_idle([(meter, self._spans(_json(call, Shape("idle periods", self._list_schema()))))])
        return self._idle_of(meter)

    def _idle_many(self, call: Call) -> Reply:
        meters = self._many_spans(call)
        for meter, spans in meters:
            self._make_idle(meter, spans)
        return self._idle_of(*(meter for meter, _ in meters))

    def _idle_many_off(self, call: Call) -> Reply:
        meters = self._many_spans(call)
        self._unmake_idle(meters)
        return self._idle_of(*(meter for meter, _ in meters))

    def _many_spans(self, call: Call) -> list[tuple[Meter, list[tuple[date, date]]]]:
        """Of the known meters; the others are dropped silently."""
        names = f"{self.names.meter} {self.names.periods}"
        item = record(names, **{self.names.meter: {"type": "string"}, self.names.periods: self._list_schema()})
        request = _json(call, Shape("meter idle periods", record("meter_idle_periods", meter_idle_periods=array(item))))
        items = request["meter_idle_periods"]
        spans = [self._spans(item[self.names.periods]) for item in items]
        return [(meter, spans[index]) for index, meter in self._known(items)]

    def _known(self, items: list[Doc]) -> list[tuple[int, Meter]]:
        ids = [str(item[self.names.meter]).lower() for item in items]
        if len(set(ids)) < len(ids):
            raise Refused(400, "a meter comes more than once")
        known = [(index, self._book.meters[id_]) for index, id_ in enumerate(ids) if id_ in self._book.meters]
        if not known:
            raise Refused(404, "Meter not found", meter_ids=ids)
        return known

    def _list_schema(self) -> JsonSchema:
        names = {self.names.start: DATE, self.names.end: DATE}
        return array(record(" ".join(names), **names), minItems=1)

    def _spans(self, periods: list[Doc]) -> list[tuple[date, date]]:
        spans = []
        for period in periods:
            first, last = date.fromisoformat(period[self.names.start]), date.fromisoformat(period[self.names.end])
            end = last + timedelta(days=self.names.end_included)
            if end <= first:
                raise Refused(400, "period ends before it starts", **period)
            spans.append((first, end))
        return spans

    def _make_idle(self, meter: Meter, spans: list[tuple[date, date]]) -> None:
        for first, end in spans:
            self._put(meter, Period(preference=Preference.IDLE, first=first, end=end))

    def _unmake_idle(self, meters: list[tuple[Meter, list[tuple[date, date]]]]) -> None:
        for meter, spans in meters:
            kept = {(period.first, period.end) for period in meter.periods.idle()}
            if not kept.issuperset(spans):
                raise Refused(404, "Idle period not found", meter_id=meter.meter_id)
        for meter, spans in meters:
            for first, end in spans:
                meter.periods.remove(first, end)
                self._told(meter, Period(preference=Preference.PARTICIPATE, first=first, end=end))

    def _participate(self, call: Call) -> Reply:
        meter = self._meter(call)
        self._let_participate(meter, _json(call, _request("date", "participate")))
        return self._idle_of(meter)

    def _participate_many(self, call: Call) -> Reply:
        return self._many(call, self.names.participate_list, "date", self._let_participate)

    def _let_participate(self, meter: Meter, item: Doc) -> None:
        first = date.fromisoformat(item["date"])
        self._put(meter, Period(preference=Preference.PARTICIPATE, first=first, reason=item.get("reason")))

    def _disenroll(self, call: Call) -> Reply:
        meter = self._meter(call)
        item = _json(call, _request("date reason", "disenrollment"))
        self._in_future(meter, item)
        self._let_go(meter, item)
        return self._idle_of(meter)

    def _disenroll_many(self, call: Call) -> Reply:
        return self._many(call, "disenrollment_requests", "date reason", self._let_go, self._in_future)

    def _in_future(self, meter: Meter, item: Doc) -> None:
        if date.fromisoformat(item["date"]) <= meter.today(self._clock.utc_ms()):
            raise Refused(400, "date is not in the future", date=item["date"])

    def _let_go(self, meter: Meter, item: Doc) -> None:
        first = date.fromisoformat(item["date"])
        meter.disenrollments.append((first, item["reason"]))
        self._put(meter, Period(preference=Preference.DISENROLL, first=first, reason=item["reason"]))

    def _many(
        self,
        call: Call,
        name: str,
        required: str,
        apply: Callable[[Meter, Doc], None],
        check: Callable[[Meter, Doc], None] = lambda meter, item: None,
    ) -> Reply:
        shape = _request(f"{self.names.meter} {required}", name)
        request = _json(call, Shape(name, record(name, **{name: array(shape.schema, minItems=1)})))
        known = [(meter, request[name][index]) for index, meter in self._known(request[name])]
        for meter, item in known:
            check(meter, item)
        for meter, item in known:
            apply(meter, item)
        return self._idle_of(*(meter for meter, _ in known))

    def _put(self, meter: Meter, period: Period) -> None:
        meter.periods.put(period)
        self._told(meter, period)

    def _told(self, meter: Meter, period: Period) -> None:
        meter.updated_ms = self._clock.utc_ms()
        preference = {key: value for key, value in meter.preference(period).items() if key != "reason"}
        self._book.tell(meter, "meter.enrollment.participation-status.updated", **preference)


def _request(required: str, name: str) -> Shape:
    return Shape(name, record(required, date=DATE, reason={"type": "string", "minLength": 1}))


def _json(call: Call, shape: Shape) -> Any:
    try:
        value = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refused(400, "body is not JSON") from None
    accepted(shape, value)
    return value


def _wanted(meter: Meter, asked: Doc) -> bool:
    asset = meter.asset
    one_of: dict[str, set[str]] = {
        "meter_ids": {meter.meter_id},
        "partner_references": {asset["partner_reference"]},
        "connection_reference_ids": set(meter.connection_references),
        "global_enrollment_statuses": {meter.global_status},
        "meter_types": {asset["meter_type"]},
        "load_types": set(asset["load_types"]),
        "customer_groups": {asset.get("customer_group", "")},
        "tags": set(meter.tags),
        "action_type": {action["action_type"] for actions in meter.actions.values() for action in actions},
    }
    if any(name in asked and not found & set(asked[name]) for name, found in one_of.items()):
        return False
    if any(name in asked and asset[name] != asked[name] for name in ("transmission_region", "customer_classification")):
        return False
    if asked.get("partner_action_required", False) and not meter.actions.get("partner"):
        return False
    if asked.get("exclude_archived", False) and meter.archived:
        return False
    since = (("last_modified_date_time", meter.updated_ms), ("created_after_date_time", meter.created_ms))
    if any(name in asked and at_ms < time_ms(asked[name]) for name, at_ms in since):
        return False
    before = asked.get("created_before_date_time")
    return before is None or meter.created_ms < time_ms(before)
