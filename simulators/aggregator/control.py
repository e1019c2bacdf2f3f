"""REST endpoints below /_control for whoever runs the simulator as a process: state, webhooks, misbehaviour, the log.

They take no key and are not in the log. POST bodies and GET replies are JSON:
`requests` (GET), `deliveries` (GET), `search` (GET: what dispatch search returned and withheld), `accepted` (GET:
interval data), `events` (POST: kind, target, slot, members?, partner_reference?, communication_test?, hidden_until_ms?,
push?: manner, or null for none), `batch` (POST: events, push?; one message for all of them; `known` false: it is posted
and the book stays as it is, as where an old message is tried again), `clock` (POST: skew_ms), `interval_meters` (POST:
the first day of each), `mishaps` (POST: service or operation, trouble, status?, body?, headers?, done?, s?, times?),
`mischief` (POST: switches by name), `outage` (POST: start_ms, end_ms), `tell` (POST: event_type, payload, manner?),
`meters` (POST: asset, meter_id?), `changes` (POST: at_ms and the fields of a change), `deliver` (POST: what is due).
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from datetime import date
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from simulators.aggregator.contract import OffContract
from simulators.aggregator.deliveries import PLATFORM_LADDER, Delivery, Manner
from simulators.aggregator.dispatch_book import Event, Kind
from simulators.aggregator.meter_book import Change
from simulators.aggregator.switches import Mischief, Mishap, Operation, Trouble

if TYPE_CHECKING:
    from simulators.aggregator.server import Aggregator, Seen

BASE = "/_control"
Doc = dict[str, Any]


class Control:
    """Moves an aggregator from outside."""

    def __init__(self, aggregator: "Aggregator") -> None:
        self._aggregator = aggregator

    def mount(self, app: web.Application) -> None:
        """Add the endpoints to an application."""
        looks: dict[str, Callable[[], Any]] = {
            "requests": lambda: [_seen(seen) for seen in self._aggregator.requests],
            "deliveries": lambda: [_delivery(one) for one in self._aggregator.deliveries.log],
            "search": self._search,
            "accepted": self._accepted,
        }
        moves: dict[str, Callable[[Doc], Any]] = {
            "events": self._event,
            "batch": self._batch,
            "clock": self._clock,
            "interval_meters": self._interval_meters,
            "mishaps": self._mishaps,
            "mischief": self._mischief,
            "outage": self._outage,
            "tell": self._tell,
            "meters": self._meter,
            "changes": self._change,
            "deliver": self._deliver,
        }
        for name, look in looks.items():
            app.router.add_get(f"{BASE}/{name}", _looking(look))
        for name, move in moves.items():
            app.router.add_post(f"{BASE}/{name}", _moving(move))

    def _search(self) -> Doc:
        book = self._aggregator.dispatch_book
        return {"returned": book.returned, "withheld": book.withheld}

    def _accepted(self) -> list[Doc]:
        return [
            {"meter_id": meter, "start_ms": start_ms, "versions": len(versions),
             "generated_kwh": versions[-1].row.generated_kwh, "consumed_kwh": versions[-1].row.consumed_kwh}
            for (meter, start_ms), versions in self._aggregator.intervals.accepted.items()
        ]  # fmt: skip

    def _event(self, asked: Doc) -> Doc:
        push = asked.pop("push", None)
        event = self._aggregator.dispatch_book.put(_read(asked))
        sent = [] if push is None else self._aggregator.dispatch.push(event, manner=_manner(push))
        return {"event_id": event.event_id, "sent": len(sent)}

    def _batch(self, asked: Doc) -> Doc:
        events, push = [_read(one) for one in asked["events"]], asked.get("push")
        if asked.get("known", True):
            for event in events:
                self._aggregator.dispatch_book.put(event)
        sent = [] if push is None else self._aggregator.dispatch.push(*events, manner=_manner(push))
        return {"sent": len(sent)}

    def _clock(self, asked: Doc) -> Doc:
        self._aggregator.clock.skew_ms = int(asked["skew_ms"])
        return {"utc_ms": self._aggregator.clock.utc_ms()}

    def _interval_meters(self, asked: Doc) -> Doc:
        found = {meter.lower(): date.fromisoformat(first) for meter, first in asked.items()}
        self._aggregator.intervals.meters.update(found)
        return {"meters": len(self._aggregator.intervals.meters)}

    def _mishaps(self, asked: Doc) -> Doc:
        body = asked.get("body", "")
        mishap = Mishap(
            trouble=Trouble(asked["trouble"]),
            done=asked.get("done", False),
            status=asked.get("status", 503),
            body=body.encode() if isinstance(body, str) else orjson.dumps(body),
            headers=asked.get("headers", {}),
            s=asked.get("s", 0.0),
        )
        many = [mishap] * int(asked.get("times", 1))
        if "service" in asked:
            self._aggregator.script_service(asked["service"], *many)
        else:
            self._aggregator.script(Operation(asked["operation"]), *many)
        return {}

    def _mischief(self, asked: Doc) -> Doc:
        known = {one.name for one in fields(Mischief)}
        for name, value in asked.items():
            if name not in known:
                raise KeyError(name)
            setattr(self._aggregator.mischief, name, bool(value))
        return asdict(self._aggregator.mischief)

    def _outage(self, asked: Doc) -> Doc:
        self._aggregator.outages.append((int(asked["start_ms"]), int(asked["end_ms"])))
        return {}

    def _tell(self, asked: Doc) -> Doc:
        manner = _manner({"waits_s": PLATFORM_LADDER} | asked.get("manner", {}))
        sent = self._aggregator.webhooks.tell(asked["event_type"], manner=manner, **asked.get("payload", {}))
        return {"sent": len(sent)}

    def _meter(self, asked: Doc) -> Doc:
        return {"meter_id": self._aggregator.meter_book.add(asked["asset"], meter_id=asked.get("meter_id")).meter_id}

    def _change(self, asked: Doc) -> Doc:
        at_ms = int(asked.pop("at_ms"))
        self._aggregator.meter_book.plan(at_ms, Change(**asked))
        return {}

    async def _deliver(self, _: Doc) -> Doc:
        return {"posted": await self._aggregator.deliver()}


def _read(asked: Doc) -> Event:
    lists = {name: tuple(asked.get(name, ())) for name in ("members", "partner_references")}
    return Event(**asked | lists | {"kind": Kind(asked["kind"])})


def _manner(asked: Doc) -> Manner:
    return Manner(**asked | ({"waits_s": tuple(asked["waits_s"])} if "waits_s" in asked else {}))


def _seen(seen: "Seen") -> Doc:
    return {
        "at_ms": seen.at_ms,
        "method": seen.method,
        "path": seen.path,
        "query": seen.query,
        "operation": seen.operation.value if seen.operation is not None else None,
        "key_sent": seen.key_sent,
        "body": seen.body.decode("utf-8", "replace"),
        "status": seen.status,
        "unknown": seen.unknown,
    }


def _delivery(one: Delivery) -> Doc:
    tries = [asdict(attempt) for attempt in one.tries]
    return {"url": one.url, "state": one.state.value, "due_ms": one.due_ms, "bytes": len(one.body), "tries": tries}


def _looking(look: Callable[[], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return _json(200, look())

    return handle


def _moving(move: Callable[[Doc], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            done = move(orjson.loads(await request.read() or b"{}"))
            return _json(200, await done if isinstance(done, Awaitable) else done)
        except (KeyError, TypeError, ValueError, OffContract) as error:
            return _json(400, {"error": f"{type(error).__name__}: {error}"})

    return handle


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")
