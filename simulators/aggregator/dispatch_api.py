"""The dispatch operations below /v2: webhook registration, tests, search (sections 2.2 to 2.5).

Not public [?], and switches of `DispatchPoints`: whether the 500 of a page count results or slots, whether a window
takes slots by their start or by overlap. Here a token fixes the filters it was made for. An approved communication
test puts events into the book and does not post them by itself; its `dispatch_status` is ours.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from simulators.aggregator.contract import Body
from simulators.aggregator.deliveries import Deliveries, Delivery, Manner
from simulators.aggregator.dispatch_book import DispatchBook, Event, Flag, Kind, grouped, slot, webhook_body
from simulators.aggregator.dispatch_shapes import (
    COMMUNICATION_REPLY,
    COMMUNICATION_TEST,
    GROUP_RESULTS,
    GROUP_SEARCH,
    GROUP_TEST,
    METER_RESULTS,
    METER_SEARCH,
    METER_TEST,
    TEST_REPLY,
    WEBHOOK,
)
from simulators.aggregator.paging import Key, Tokens
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Call, Reply, Route, Service, canonical, json_body
from simulators.aggregator.switches import Mischief, Operation
from simulators.aggregator.times import ServerClock, time_ms, time_text

PAGE = 500
WINDOW_MAX_MS = timedelta(days=31) // timedelta(milliseconds=1)
ERRORS = {
    400: ("BAD_REQUEST", "DISPATCH_INVALID_INPUT"),
    401: ("UNAUTHORIZED", "DISPATCH_UNAUTHORIZED"),
    403: ("FORBIDDEN", "DISPATCH_NO_ACCESS_TO_RESOURCE"),
    404: ("NOT_FOUND", None),
    405: ("METHOD_NOT_ALLOWED", None),
    415: ("UNSUPPORTED_MEDIA_TYPE", None),
    503: ("SERVICE_UNAVAILABLE", None),
}


@dataclass(slots=True, kw_only=True)
class DispatchPoints:
    """Readings of what is not public [?]."""

    page_counts_slots: bool = False
    window_by_start: bool = False


class DispatchApi:
    """One meter URL and one group URL per account."""

    def __init__(self, book: DispatchBook, deliveries: Deliveries, clock: ServerClock, mischief: Mischief) -> None:
        self.points = DispatchPoints()
        self.registered: dict[Kind, dict[str, Any]] = {}
        self._book = book
        self._deliveries = deliveries
        self._clock = clock
        self._mischief = mischief
        self._tokens = Tokens(lambda: str(uuid.uuid4()))

    def push(
        self,
        *events: Event,
        manner: Manner | None = None,
        integration_test: bool = False,
        flag: Flag = Flag.SPEC,
        body: bytes | None = None,
        **unknown: Any,
    ) -> list[Delivery]:
        """Send a webhook of events of one kind off; nothing where no URL is set. `body` replaces what is posted."""
        kind = events[0].kind
        if kind not in self.registered:
            return []
        made = body if body is not None else webhook_body(
            kind, events, integration_test=integration_test, flag=flag, **unknown
        )  # fmt: skip
        url, headers = self._target(kind)
        return self._deliveries.send(url, headers, made, manner or Manner())

    def service(self) -> Service:
        """What the server mounts."""
        routes: list[Route] = [
            Route(
                method="POST",
                path="/v2/dispatch/meter/communication_test",
                operation=Operation.COMMUNICATION_TEST,
                permission=Permission.WRITE_WEBHOOKS,
                handler=self._communication_test,
            )
        ]
        for kind in Kind:
            routes += self._routes(kind)
        return Service(name="dispatch", prefixes=("/v2/dispatch",), routes=tuple(routes), envelope=envelope)

    def _routes(self, kind: Kind) -> list[Route]:
        base = f"/v2/dispatch/{kind.value}"
        search = Operation.METER_DISPATCH_SEARCH if kind is Kind.METER else Operation.GROUP_DISPATCH_SEARCH
        read, write = Permission.READ_DISPATCH, Permission.WRITE_WEBHOOKS
        rows = (
            ("POST", "/search", search, read, lambda call: self._search(kind, call)),
            ("PUT", "/webhook", Operation.DISPATCH_WEBHOOK_PUT, write, lambda call: self._put(kind, call)),
            ("GET", "/webhook", Operation.DISPATCH_WEBHOOK_GET, write, lambda call: self._get(kind)),
            ("DELETE", "/webhook", Operation.DISPATCH_WEBHOOK_DELETE, write, lambda call: self._delete(kind)),
            (
                "POST",
                "/webhook/integration_test",
                Operation.INTEGRATION_TEST,
                write,
                lambda call: self._integration_test(kind, call),
            ),
        )
        return [
            Route(method=method, path=base + path, operation=operation, permission=permission, handler=handler)
            for method, path, operation, permission, handler in rows
        ]

    def _put(self, kind: Kind, call: Call) -> Reply:
        body = json_body(call, WEBHOOK)
        self.registered[kind] = {key: body[key] for key in ("url", "headers") if key in body}
        return self._get(kind)

    def _get(self, kind: Kind) -> Reply:
        return Reply(json=self._set(kind), body=WEBHOOK)

    def _delete(self, kind: Kind) -> Reply:
        self._set(kind)
        del self.registered[kind]
        return Reply(status=204)

    def _set(self, kind: Kind) -> dict[str, Any]:
        if kind not in self.registered:
            raise Refused(404, f"no {kind.value} webhook is set")
        return self.registered[kind]

    def _target(self, kind: Kind) -> tuple[str, dict[str, str]]:
        webhook = self._set(kind)
        return webhook["url"], {header["name"]: header["value"] for header in webhook.get("headers", [])}

    async def _integration_test(self, kind: Kind, call: Call) -> Reply:
        request = json_body(call, METER_TEST if kind is Kind.METER else GROUP_TEST)
        url, headers = self._target(kind)
        name = f"{kind.value}_dispatches"
        body = {"integration_test_notification": True, "communication_test": False, name: request[name]}
        sent = time_text(self._clock.utc_ms())
        posted = await self._deliveries.post(url, headers, orjson.dumps(body))
        reply: dict[str, Any] = {"sent_time": sent, "http_status": posted.status, "body": posted.body}
        reply["received_time"] = time_text(self._clock.utc_ms()) if posted.status is not None else None
        reply["headers"] = posted.headers
        if posted.error:
            reply["error_message"] = posted.error
        return Reply(json=reply, body=TEST_REPLY)

    def _communication_test(self, call: Call) -> Reply:
        request = json_body(call, COMMUNICATION_TEST)
        start_ms, end_ms = _window(request["start_time"], request["end_time"])
        approved = request.get("approved", False)
        for meter in request["meter_uuids"] if approved else ():
            types = ["capacity-test" if request.get("test_event") else "standard"]
            fields = {
                "energy_kw": request.get("dispatch_quantity_kw"),
                "programs": [request["program"]],
                "dispatch_event_types": types,
            }
            made = slot(Kind.METER, start_ms, end_ms, **fields)
            self._book.put(Event(kind=Kind.METER, target=meter, slot=made, communication_test=True))
        named = {key: request[key] for key in ("start_time", "end_time", "program", "test_event") if key in request}
        counted = {"approved": approved, "meter_count": len(request["meter_uuids"]), "dispatch_status": "CREATED"}
        return Reply(status=201, json=named | counted, body=COMMUNICATION_REPLY)

    def _search(self, kind: Kind, call: Call) -> Reply:
        request = json_body(call, METER_SEARCH if kind is Kind.METER else GROUP_SEARCH)
        token = request.pop("page_token", None)
        start_ms, end_ms = _window(request["start_date"], request["end_date"])
        found = self._book.found(kind, start_ms, end_ms, by_start=self.points.window_by_start)
        entries: list[tuple[Key, list[Event]]] = []
        for event in found:
            if not _asked_for(kind, event, request):
                continue
            key: Key = (event.target,)
            if self.points.page_counts_slots:
                entries.append(((event.target, event.start_ms, event.event_id), [event]))
            elif entries and entries[-1][0] == key:
                entries[-1][1].append(event)
            else:
                entries.append((key, [event]))
        turn = self._tokens.offset_page if self._mischief.offset_pages else self._tokens.page
        page, next_token = turn(kind.value, canonical(request), token, PAGE, entries)
        events = [event for entry in page for event in entry]
        self._book.note(events)
        reply = {"results": grouped(kind, events, flags=True), "next_page_token": next_token}
        return Reply(json=reply, body=METER_RESULTS if kind is Kind.METER else GROUP_RESULTS)


def envelope(refused: Refused) -> Reply:
    """An error of dispatch."""
    code, error_code = ERRORS.get(refused.status, ("INTERNAL_SERVER_ERROR", "DISPATCH_UNEXPECTED_ERROR"))
    body = {"code": code, "message": refused.title} | ({"error_code": error_code} if error_code else {})
    return Reply(status=refused.status, json=body, body=Body.DISPATCH_ERROR)


def _window(start: str, end: str) -> tuple[int, int]:
    try:
        start_ms, end_ms = time_ms(start), time_ms(end)
    except ValueError:
        raise Refused(400, "time cannot be read") from None
    if end_ms <= start_ms:
        raise Refused(400, "end is not after start")
    if end_ms - start_ms > WINDOW_MAX_MS:
        raise Refused(400, "window is longer than 31 days")
    return start_ms, end_ms


def _asked_for(kind: Kind, event: Event, request: dict[str, Any]) -> bool:
    if request.get("exclude_real_time_events", True) and "5m" in event.slot["dispatch_event_types"]:
        return False
    if request.get("exclude_voluntary_events", False) and event.slot["is_voluntary"]:
        return False
    wanted = {kind.target_key + "s": event.target, kind.event_key + "s": event.event_id}
    return all(
        value.lower() in {asked.lower() for asked in request[name]} for name, value in wanted.items() if name in request
    )
