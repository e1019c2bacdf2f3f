"""REST over real services: every route, who may ask, and that the OpenAPI document tells the truth."""

import asyncio
import io
import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.access.callers import Callers, hash_of
from gateway.api.access.refusals import Refusals
from gateway.api.app import Parts, make_app, server_log
from gateway.api.exchange import PAGE_MAX
from gateway.api.guard import Doorway
from gateway.api.models import Readiness
from gateway.api.openapi import openapi
from gateway.api.routes.leap import LeapUploads
from gateway.api.routes.leap_enrollments import LeapEnrollments
from gateway.api.routes.telemetry import Telemetry
from gateway.api.views.dispatch import DispatchView
from gateway.api.views.explained import ExplainedView
from gateway.api.views.fleet import FleetView
from gateway.api.views.participation import ParticipationView
from gateway.api.views.programs import ProgramView
from gateway.api.views.rates import RateView
from gateway.app.webhooks import newest_in
from gateway.clock import Clock, ManualClock
from gateway.domain.access import EVERY_SCOPE, Caller
from gateway.domain.commands import WriteOutcome
from gateway.domain.errors import StorageError
from gateway.domain.events.book import BookParams
from gateway.domain.events.request import EventKind, Leg, TargetGroup, power
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.replay import ReplayBounds
from gateway.domain.types import DeviceId, Unclear
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.observability.metrics import Sample, registry
from gateway.programs.loader import LoadedProgram
from gateway.schemas.interval_rows import rfc3339
from gateway.services.control.quarantine import Untrusted
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.programs.cases import Cases
from gateway.services.programs.eligibility import Eligibility
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.fact_trail import FactTrail
from gateway.services.programs.forecasts import ProgramForecasts
from gateway.services.programs.outbox import ChangeOutbox
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.programs.performance import PerformanceReader
from gateway.services.programs.sign_ups import SignUps
from gateway.services.programs.terms import program_terms
from gateway.services.settings import EligibilitySettings, ProgramSettings
from gateway.services.telemetry.history import History
from gateway.services.telemetry.raw import RawMessages
from gateway.signals.leap.door import LeapDoor
from gateway.signals.leap.inbox import BodyInbox
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap_account.connect import LeapConnectSettings
from gateway.signals.webhook.door import WebhookDoor
from gateway.signals.webhook.loader import WebhookPeer, load_webhooks
from gateway.storage.interval_log.query import IntervalQueries
from gateway.storage.programs.cases import SqliteCases
from gateway.storage.programs.facts import SqliteFacts
from gateway.storage.programs.outbox import SqliteOutbox
from gateway.storage.programs.personal import SqlitePersonal
from gateway.storage.programs.sign_ups import SqliteSignUps
from gateway.storage.raw_messages import RawStore
from gateway.storage.replay import ReplayStore
from gateway.storage.webhook_inbox import WebhookInbox
from gateway.transports.mqtt.settings import MqttSettings
from tests.builders.fakes import message_product, nothing_damaged
from tests.builders.profiles import MQTT, compiled
from tests.scenes.world import World, homes_of
from tests.services.programs.stores import KEY

TOKEN = "0123456789abcdef"
DOCUMENT = openapi("test")
SHIPPED = load_webhooks(Path(__file__).parents[2] / "config" / "webhooks")
HEADER = "id,profile,site,capacity_wh,discharge_w_max,charge_w_max,reserve_pct\n"


@dataclass(slots=True)
class Rig:
    """A client of the routes over a small world."""

    client: "TestClient[web.Request, web.Application]"
    world: World
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    link: MqttLink | None = None
    raw: RawMessages | None = None
    files: Callable[[int], Sequence[Path]] = lambda _: ()
    parts: Parts | None = None
    enrollments: Enrollments | None = None

    async def ask(
        self, method: str, path: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **how: Any
    ) -> Any:
        """The JSON answer; its status and shape are checked against the document."""
        async with self.client.request(method, path, headers=headers, **how) as reply:
            text = await reply.text()
            assert reply.status == status, text
            if reply.content_type != "application/json":
                return text
            body = json.loads(text)
        fits(method, path.split("?", maxsplit=1)[0], status, body)
        return body


@contextmanager
def hooks(folder: Path, world: World, events: DispatchView) -> Iterator[WebhookDoor]:
    """The door for the peers that ship, with secrets."""
    inbox, replays = WebhookInbox(folder), ReplayStore(folder)
    secrets = {"axle": b"secret-of-axle-0123", "voltus": b"secret-of-voltus-0123"}
    peers = {name: WebhookPeer(document=one.document, secrets=(secrets[name],)) for name, one in SHIPPED.items()}
    bounds = ReplayBounds(age_ms_max=300_000, ahead_ms_max=300_000)
    try:
        yield WebhookDoor(
            peers, clock=world.clock, submit=world.dispatcher.submit, newest=newest_in(events), inbox=inbox,
            window_of=lambda _auth: replays.window("webhook", bounds),
        )  # fmt: skip
    finally:
        inbox.close()
        replays.close()


@contextmanager
def sign_ups_in(folder: Path) -> Iterator[SqliteSignUps]:
    """Sign-ups that were heard of, in a folder."""
    store = SqliteSignUps(folder)
    try:
        yield store
    finally:
        store.close()


def leap_door(secret: str, folder: Path, clock: Clock) -> LeapDoor:
    """A door that knows this secret; no dispatch comes in by it."""
    known = LeapSignalSettings.model_validate({"secret": secret})
    return LeapDoor(known, BodyInbox(folder), clock=clock, came=lambda: None)


@contextmanager
def outbox_in(folder: Path) -> Iterator[SqliteOutbox]:
    store = SqliteOutbox(folder)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def cases_in(folder: Path) -> Iterator[SqliteCases]:
    store = SqliteCases(folder)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def rig(
    *,
    token: str | None = None,
    callers: Callers | None = None,
    exposed: bool = False,
    devices: int = 3,
    files: Callable[[int], Sequence[Path]] = lambda _: (),
    upstream: Callable[[Fleet, Clock, IntervalQueries], Telemetry] | None = None,
    misidentified: Callable[[], Iterable[Untrusted]] = tuple,
    release_only: bool = False,
    state_dir: Path = Path("nowhere"),
    programs: Mapping[str, LoadedProgram] = MappingProxyType({}),
    leap_secret: str | None = None,
) -> AsyncIterator[Rig]:
    rules = {name: loaded.program for name, loaded in programs.items()}
    world = World(homes_of(devices), release_only=release_only, rules=rules)
    inventory = DeviceRegistry(
        clock=ManualClock(),
        fleet=world.fleet,
        journal=world.journal,
        codecs={"p": message_product(), "sample-mqtt": compiled(MQTT)},
    )
    inventory.load(world.devices)
    broker = MqttSettings(url="mqtt://127.0.0.1:1", client_id="gateway")
    link = MqttLink(MqttLinkSettings(broker=broker), codecs=[], fleet=world.fleet, clock=world.clock)
    reasons: list[str] = []
    warnings: list[str] = []
    refusals = Refusals(world.clock)
    queries = IntervalQueries(files, nothing_damaged)
    nobody = cast("Any", None)
    telemetry = Telemetry(
        completeness=nobody, deliveries=[], resend=nobody, history=nobody, log=nobody, fleet=world.fleet,
        clock=world.clock,
    ) if upstream is None else upstream(world.fleet, world.clock, queries)  # fmt: skip
    raw = RawMessages(
        RawStore(state_dir), reader=link.raw, clock=world.clock, journal=world.journal,
        registered=world.fleet.slot_of, orphans=inventory.devices.orphans, most_bytes=1 << 20,
    )  # fmt: skip
    whole = [(hash_of(token.encode()), Caller(name="", scopes=EVERY_SCOPE))] if token else []
    known = callers or Callers(tokens=whole)
    stack = ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    store, people = SqliteFacts(folder, clock=world.clock), SqlitePersonal(folder, keys=[KEY])
    offered = {
        "test": ProgramSettings(
            enrollment="enforce",
            exclusive_groups=("ca",),
            eligibility=EligibilitySettings(min_kw=4, min_hours=2, completeness_pct=10),
        ),
        "other": ProgramSettings(exclusive_groups=("ca",)),
    }
    terms = program_terms(offered, {})
    enrollments = Enrollments(
        store, people, FactTrail(store, world.journal, world.journal), clock=world.clock, terms=terms
    )
    participation = ProgramParticipation(enrollments.book, fleet=world.fleet, programs=offered)
    events = DispatchView(
        fleet=world.fleet,
        dispatcher=world.dispatcher,
        queries=world.queries,
        store=world.journal,
        clock=world.clock,
        misidentified=misidentified,
    )
    parts = Parts(
        dispatcher=world.dispatcher,
        events=events,
        trust=world.control.trust,
        clock=world.clock,
        devices=FleetView(
            fleet=world.fleet,
            inventory=inventory,
            link=link,
            clock=world.clock,
            reach=world.control.reach,
            excluded_by=events.excluded.of,
        ),
        history=History(queries, world.fleet),
        audit=world.journal,
        past=world.journal,
        telemetry=telemetry,
        leap=LeapUploads(log=nobody, clock=world.clock),
        inventory=inventory,
        raw=raw,
        programs=ProgramView(
            dispatcher=world.dispatcher,
            clock=world.clock,
            envelope=lambda: world.control.newest.envelope,
            programs=programs,
        ),
        performance=PerformanceReader(state_dir),
        enrollments=enrollments,
        rates=RateView(enrollments=enrollments, clock=world.clock, programs=rules),
        participation=ParticipationView(
            fleet=world.fleet,
            dispatcher=world.dispatcher,
            clock=world.clock,
            participation=participation,
            envelope=lambda: world.control.newest.envelope,
        ),
        eligibility=Eligibility(
            fleet=world.fleet,
            participation=participation,
            terms=terms,
            history=History(queries, world.fleet),
            clock=world.clock,
        ),
        forecasts=ProgramForecasts(
            fleet=world.fleet,
            participation=participation,
            deliveries=world.journal,
            envelope=lambda: world.control.newest.envelope,
            clock=world.clock,
        ),
        explained=ExplainedView(
            fleet=world.fleet, history=History(queries, world.fleet), deliveries=world.journal, clock=world.clock
        ),
        cases=Cases(stack.enter_context(cases_in(folder)), None, clock=world.clock, journal=world.journal),
        webhooks=stack.enter_context(hooks(folder, world, events)),
        outbox=ChangeOutbox(
            stack.enter_context(outbox_in(folder)), {}, clock=world.clock, journal=world.journal, meters=lambda: 0
        ),
        leap_enrollments=LeapEnrollments(
            door=None if leap_secret is None else leap_door(leap_secret, folder, world.clock)
        ),
        sign_ups=SignUps(
            stack.enter_context(sign_ups_in(folder)), LeapConnectSettings(account="battery-maker"), clock=world.clock
        ),
        registry=registry([lambda: [Sample(name="gateway_x", help="X.", value=1)]], []),
        readiness=lambda: Readiness(ready=not reasons, reasons=reasons, warnings=warnings),
        door=Doorway(callers=lambda: known, clock=world.clock, refusals=refusals, exposed=exposed),
    )
    with stack:
        server = TestServer(make_app(parts))
        await server.start_server(logger=server_log(parts.peers))
        async with store, people, queries, TestClient(server) as client:
            yield Rig(client, world, reasons, warnings, link, raw, files, parts, enrollments)


# -- the document against the answers ------------------------------------------------------------------------


def operation(method: str, path: str) -> dict[str, Any]:
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            found: dict[str, Any] = methods[method.lower()]
            return found
    raise AssertionError(f"{path} is not documented")


def fits(method: str, path: str, status: int, body: Any) -> None:
    """Whether an answer is what the document says of this route and status."""
    answer = operation(method, path)["responses"][str(status)]
    schema = answer["content"]["application/json"]["schema"]
    problems = list(violations(body, schema, "$"))
    assert problems == []


def violations(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    """What JSON Schema (the part of it that is used here) finds wrong."""
    if "$ref" in schema:
        return violations(value, DOCUMENT["components"]["schemas"][schema["$ref"].split("/")[-1]], place)
    if "anyOf" in schema:
        options = [violations(value, option, place) for option in schema["anyOf"]]
        return [] if any(not option for option in options) else options[0]
    if "const" in schema:
        return [] if value == schema["const"] else [f"{place}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is none of {schema['enum']}"]
    kinds: dict[str, Callable[[Any], bool]] = {
        "object": lambda v: isinstance(v, dict), "array": lambda v: isinstance(v, list),
        "string": lambda v: isinstance(v, str), "boolean": lambda v: isinstance(v, bool), "null": lambda v: v is None,
        "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    }  # fmt: skip
    if "type" in schema and not kinds[schema["type"]](value):
        return [f"{place}: {value!r} is no {schema['type']}"]
    out: list[str] = []
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        out += [f"{place}.{key}: not documented" for key in value.keys() - known.keys()]
        out += [f"{place}.{key}: absent" for key in known.keys() - value.keys()]
        for key in value.keys() & known.keys():
            out += violations(value[key], known[key], f"{place}.{key}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            out += violations(item, schema["items"], f"{place}.{number}")
    return out


async def test_document_names_every_route_and_no_other() -> None:
    async with rig() as r:
        app = r.client.app
        assert app is not None
        routes = {
            (route.method.lower(), route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    documented = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == routes


async def test_device_that_the_gateway_connects_to_is_shown_without_its_secret() -> None:
    document = {
        "id": "polled", "profile": "sample-mqtt", "site": "s", "capacity_wh": 1, "discharge_w_max": 1,
        "charge_w_max": 1, "reserve_pct": 20, "address": "mqtt://10.0.0.5", "parameters": {"portal": "abc"},
        "username": "installer", "secret": "env:BATTERY_SECRET",
    }  # fmt: skip
    async with rig() as r:
        headers = {"Content-Type": "application/x-ndjson"}
        report = await r.ask("POST", "/v1/devices", data=json.dumps(document).encode(), headers=headers)
        assert (report["enrolled"], [note["line"] for note in report["notes"]]) == (1, [1])
        again = json.dumps(document | {"id": "second"}).encode()
        report = await r.ask("POST", "/v1/devices", data=again, headers=headers)
        assert "'second' and 'polled'" in report["rejected"][0]["problem"]
        shown = await r.ask("GET", "/v1/devices/polled")
        assert shown["steerable"] is False
        assert (shown["device"]["profile"], shown["device"]["address"]) == ("sample-mqtt", "mqtt://10.0.0.5")
        assert "BATTERY_SECRET" not in json.dumps(shown)
        assert (await r.ask("GET", "/v1/devices"))["devices"][-1] == shown | {"excluded_by": None}


def test_document_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names <= set(DOCUMENT["components"]["schemas"])


# -- who may ask ---------------------------------------------------------------------------------------------

GUARDED = [
    (method, path.replace("{id}", "x"))
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path.startswith("/v1/") and "x-own-secret" not in methods[method]
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_route_with_a_token_set_asks_for_it(method: str, path: str) -> None:
    async with rig(token=TOKEN) as r:
        wrong = (
            "",
            "Bearer",
            "Bearer wrong",
            f"Bearer {TOKEN}x",
            f"Basic {TOKEN}",
            TOKEN,
            "Bearer é",
        )
        for given in wrong:
            headers = {"Authorization": given} if given else {}
            body = await r.ask(method, path, status=401, headers=headers)
            assert body == {"error": "a bearer token is required", "problems": []}
        async with r.client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"}) as reply:
            assert reply.status not in (401, 403)


async def test_scheme_of_a_token_may_be_written_in_any_case() -> None:
    async with rig(token=TOKEN) as r:
        await r.ask("GET", "/v1/devices", headers={"Authorization": f"bEARER {TOKEN}"})


async def test_route_open_ones_need_no_token() -> None:
    async with rig(token=TOKEN) as r:
        assert await r.ask("GET", "/healthz") == "alive\n"
        assert (await r.ask("GET", "/readyz"))["ready"] is True
        assert "gateway_x 1.0" in await r.ask("GET", "/metrics")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost", True), ("localhost:8080", True), ("127.0.0.1:1", True), ("[::1]", True), ("[::1]:8080", True),
     ("evil.example", False), ("evil.example:8080", False), ("localhost.evil.example", False),
     ("127.0.0.1.nip.io", False),
     ("10.0.0.1", False), ("", False)],
)  # fmt: skip
async def test_route_without_a_token_serves_who_names_loopback(host: str, allowed: bool) -> None:
    async with rig() as r, r.client.request("GET", "/v1/devices", headers={"Host": host}) as reply:
        assert reply.status == (200 if allowed else 403)


# -- routes --------------------------------------------------------------------------------------------------


def body_of(r: Rig, name: str = "e", **other: object) -> dict[str, object]:
    utc_s = r.world.clock.utc // 1000
    moment = "2027-01-15T08:{:02d}:{:02d}Z"
    assert utc_s == 1_800_000_000  # 2027-01-15T08:00:00Z
    return {
        "id": name, "revision": 1, "program": "test", "group": {"all": True}, "start": moment.format(0, 0),
        "end": moment.format(10, 0), "target_w": 3_000,
    } | other  # fmt: skip


async def test_events_route_takes_shows_updates_and_cancels() -> None:
    async with rig() as r:
        path = "/v1/dispatch-events"
        first = await r.ask("POST", path, json=body_of(r))
        assert first == {"id": "e", "revision": 1, "outcome": "accepted", "reason": None, "warnings": []}
        assert (await r.ask("POST", path, json=body_of(r)))["outcome"] == "duplicate"
        conflict = await r.ask("POST", path, json=body_of(r, target_w=1), status=409)
        assert (conflict["outcome"], conflict["reason"]) == ("rejected", "conflict")
        assert (await r.ask("POST", path, json=body_of(r, revision=0), status=409))["outcome"] == "superseded"
        await r.world.go(20)
        shown = await r.ask("GET", f"{path}/e")
        assert (shown["state"], shown["devices"], shown["start"]) == ("active", 3, "2027-01-15T08:00:00Z")
        assert shown["delivered_w"] == pytest.approx(3_000, rel=0.02)
        assert {member["status"] for member in shown["members"]} == {"delivering"}
        first_two = await r.ask("GET", f"{path}/e?limit=2")
        assert ([m["device"] for m in first_two["members"]], first_two["next"]) == (["home-00", "home-01"], 2)
        rest = await r.ask("GET", f"{path}/e?offset=2&limit=2")
        assert ([m["device"] for m in rest["members"]], rest["next"]) == (["home-02"], None)
        await r.ask("GET", f"{path}/e?limit=2000", status=400)
        listed = await r.ask("GET", path)
        assert [event["members"] for event in listed["events"]] == [None]
        assert (await r.ask("DELETE", f"{path}/e"))["revision"] == 1
        await r.world.go(2)
        over = await r.ask("GET", f"{path}/e")
        assert over["state"] == "cancelled"
        assert [(o["start"], o["devices"]) for o in over["occurrences"]] == [("2027-01-15T08:00:00Z", 3)]
        assert {member["status"] for member in over["members"]} == {"cancelled"}
        of_it = await r.ask("GET", f"{path}/e?occurrence=2027-01-15T08:00:00Z&limit=1")
        assert ([m["id"] for m in of_it["members"]], of_it["next"]) == (["e/home-00"], 1)
        assert (await r.ask("GET", f"{path}/e?occurrence=never"))["members"] == []
        await r.ask("GET", f"{path}/none", status=404)
        await r.ask("DELETE", f"{path}/none", status=404)


async def test_event_route_shows_the_records_of_what_is_over_before_they_are_on_disk() -> None:
    async with rig() as r:
        path = "/v1/dispatch-events"
        await r.ask("POST", path, json=body_of(r, end="2027-01-15T08:00:30Z"))
        await r.world.go(25)
        r.world.journal.failing = True
        await r.world.go(20)
        late = await r.ask("GET", f"{path}/e?limit=2")
        assert ([m["status"] for m in late["members"]], late["next"]) == (["completed"] * 2, 2)
        of_it = await r.ask("GET", f"{path}/e?occurrence=2027-01-15T08:00:00Z&offset=2")
        r.world.journal.failing = False
        await r.world.go(2)
        stored = await r.ask("GET", f"{path}/e")
        assert [*late["members"], *of_it["members"]] == stored["members"]


async def test_events_route_takes_now_and_refuses_one_that_was_sent_long_ago() -> None:
    async with rig() as r:
        now = {name: value for name, value in body_of(r).items() if name != "end"} | {"start": "now", "duration_s": 900}
        old = await r.ask("POST", "/v1/dispatch-events", json=now | {"sent": "2027-01-15T07:58:59Z"}, status=409)
        assert (old["outcome"], old["reason"]) == ("rejected", "now_too_old")
        assert (await r.ask("POST", "/v1/dispatch-events", json=now | {"sent": "2027-01-15T07:59:00Z"}))[
            "outcome"
        ] == "accepted"
        assert (await r.ask("POST", "/v1/dispatch-events", json=now | {"id": "f"}))["outcome"] == "accepted"


async def test_events_route_cancels_until_the_cancellation_is_lifted() -> None:
    async with rig() as r:
        path = "/v1/dispatch-events"
        await r.ask("POST", path, json=body_of(r))
        await r.ask("DELETE", f"{path}/e/cancellation", status=404)
        await r.ask("DELETE", f"{path}/e?by={'x' * 65}", status=400)
        assert [(await r.ask("DELETE", f"{path}/e?by=me"))["outcome"] for _ in range(2)] == ["accepted", "duplicate"]
        refused = await r.ask("POST", path, json=body_of(r, revision=2), status=409)
        assert (refused["outcome"], refused["reason"]) == ("rejected", "cancelled_by_operator")
        lifted = await r.ask("DELETE", f"{path}/e/cancellation?by=me")
        assert (lifted["state"], lifted["reason"]) == ("cancelled", None)
        assert (await r.ask("POST", path, json=body_of(r, revision=2)))["outcome"] == "accepted"
        await r.ask("DELETE", f"{path}/none/cancellation", status=404)


async def test_events_route_pages_through_live_and_archived_events() -> None:
    async with rig() as r:
        path = "/v1/dispatch-events"
        r.world.dispatcher._book.params = BookParams(finished_max=2)
        for i in range(7):
            await r.world.submit(f"e{i}", s=2, target_w=1_000, source="mqtt")
            await r.world.go(3)
        await r.world.submit("live", s=600, target_w=1_000)
        await r.world.submit("wrong", s=600, target_w=1e12)
        await r.world.go(2)
        found, query = [], "limit=2"
        while query:
            page = await r.ask("GET", f"{path}?{query}")
            assert len(page["events"]) <= 2
            found += [(event["id"], event["state"]) for event in page["events"]]
            query = page["next"] and f"limit=2&after={page['next']}"
        past = [(f"e{i}", "completed") for i in reversed(range(7))]
        assert found == [("live", "active"), ("wrong", "rejected"), *past]
        whole = await r.ask("GET", path)
        assert [(event["id"], event["state"]) for event in whole["events"]] == found
        oldest = await r.ask("GET", f"{path}/e0")
        assert (oldest["state"], oldest["devices"], len(oldest["members"])) == ("completed", 3, 3)
        assert (await r.ask("DELETE", f"{path}/e0"))["outcome"] == "accepted"
        for wrong in ("after=x", "after=1", "limit=1001"):
            await r.ask("GET", f"{path}?{wrong}", status=400)


async def test_events_page_lets_the_loop_go_on_between_two_events() -> None:
    async with rig() as r:
        ids = tuple(DeviceId(f"home-{i:06d}") for i in range(2_000))
        later_ms = r.world.clock.utc + 86_400_000
        for i in range(30):
            await r.world.submit(f"e{i}", s=60, target_w=1, start_ms=later_ms, end_ms=later_ms + 60_000,
                                 group=TargetGroup(ids=ids))  # fmt: skip
        view = DispatchView(fleet=r.world.fleet, dispatcher=r.world.dispatcher, queries=r.world.queries,
                            store=r.world.journal, clock=r.world.clock)  # fmt: skip
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(others(), name="others")
            page = await view.page(None, 20)
            ticking.cancel()
        assert len(page.events) == 20
        assert turns >= 20


async def test_event_route_names_the_newest_occurrences_and_older_ones_when_asked() -> None:
    async with rig(devices=1) as r:
        start_ms = r.world.clock.utc
        await r.world.submit("rt", s=4_000, target_w=1_000, every_ms=2_000, legs=(
            Leg(after_ms=0, until_ms=1_000, target=power(1_000.0)),
        ))  # fmt: skip
        await r.world.go(250)
        shown = await r.ask("GET", "/v1/dispatch-events/rt")
        assert (len(shown["occurrences"]), shown["occurrences_before"]) == (100, shown["occurrences"][0]["start"])
        older = await r.ask("GET", f"/v1/dispatch-events/rt?before={shown['occurrences_before']}")
        assert older["occurrences"][0]["start"] == rfc3339(start_ms)
        assert (older["occurrences"][-1]["start"] < shown["occurrences_before"], older["occurrences_before"]) == (
            True, None,
        )  # fmt: skip
        first = await r.ask("GET", f"/v1/dispatch-events/rt?occurrence={rfc3339(start_ms)}")
        assert [member["status"] for member in first["members"]] == ["completed"]


async def test_events_route_asks_for_the_source_where_several_have_the_id() -> None:
    async with rig() as r:
        path = "/v1/dispatch-events/e"
        await r.world.submit("e", s=600, target_w=2_000, source="mqtt")
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r))
        await r.world.go(20)
        for method in ("GET", "DELETE"):
            refused = await r.ask(method, path, status=409)
            assert (refused["problems"], "source" in refused["error"]) == (["mqtt", "rest"], True)
            await r.ask(method, f"{path}?source=leap", status=404)
        assert {e["source"] for e in (await r.ask("GET", "/v1/dispatch-events"))["events"]} == {"mqtt", "rest"}
        local = await r.ask("DELETE", f"{path}?source=rest")
        assert (local["id"], local["outcome"]) == ("e", "accepted")
        await r.world.go(2)
        shown = {source: await r.ask("GET", f"{path}?source={source}") for source in ("mqtt", "rest")}
        assert {source: (one["id"], one["source"], one["state"]) for source, one in shown.items()} == {
            "mqtt": ("e", "mqtt", "active"), "rest": ("e", "rest", "cancelled"),
        }  # fmt: skip
        members = {source: {m["status"] for m in one["members"]} for source, one in shown.items()}
        assert members == {"mqtt": {"delivering"}, "rest": {"cancelled"}}
        assert not {m["id"] for m in shown["mqtt"]["members"]} & {m["id"] for m in shown["rest"]["members"]}


async def test_events_route_names_a_quarantined_members_failure_as_the_release_before_did() -> None:
    async with rig(devices=6) as r:
        r.world.homes.inverted.add(2)
        await r.world.go(2)
        await r.world.submit("e", s=1_200, target_w=12_000)
        await r.world.go(250)
        shown = await r.ask("GET", "/v1/dispatch-events/e")
        assert [(m["device"], m["failure"]) for m in shown["members"] if m["failure"]] == [("home-02", "barred")]


async def test_events_route_tells_what_is_assumed_apart_from_what_is_delivered() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r, target_w=13_000))  # more than two homes can carry
        await r.world.go(20)
        r.world.homes.unseen.add(0)
        await r.world.go(40)
        shown = await r.ask("GET", "/v1/dispatch-events/e")
        assert (shown["assumed_w"], shown["unmeasured"]) == (pytest.approx(3_000, rel=0.02), 1)
        assert shown["delivered_w"] == pytest.approx(10_000, rel=0.02)
        assert (shown["unserved_w"], shown["shortfall"]) == (pytest.approx(3_000, rel=0.02), "unmeasured")
        silent, read = shown["members"][:2]
        assert (silent["measured_w"], silent["status"], silent["unmeasured_wh"] > 0) == (None, "started", True)
        assert (read["assumed_w"], read["status"], read["unmeasured_wh"]) == (None, "delivering", 0)


async def test_events_route_names_every_fault_with_its_place() -> None:
    async with rig() as r:
        wrong = body_of(r, revision=-1, target_w="much", group={}, surplus=1)
        body = await r.ask("POST", "/v1/dispatch-events", json=wrong, status=400)
        assert {problem.split(":")[0] for problem in body["problems"]} == {"revision", "target_w", "group", "surplus"}


async def test_devices_route_names_what_is_not_understood() -> None:
    async with rig() as r:
        first, second, *_ = (await r.ask("GET", "/v1/devices"))["devices"]
        assert (first["unclear"], second["unclear"]) == ([], [])
        r.world.fleet.live.unclear[0] = Unclear.OPT_OUT | Unclear.FAULTS | Unclear.MESSAGE
        shown = await r.ask("GET", f"/v1/devices/{first['device']['id']}")
        assert shown["unclear"] == ["opt_out", "faults", "message"]


async def test_devices_route_says_why_a_model_is_not_written() -> None:
    async with rig() as r:
        r.world.fleet.read_only[0] = "nobody knows its registers"
        first, second, *_ = (await r.ask("GET", "/v1/devices"))["devices"]
        assert (first["read_only"], second["read_only"]) == ("nobody knows its registers", None)


async def test_devices_route_names_why_a_device_cannot_be_told() -> None:
    async with rig(devices=2) as r:
        r.world.homes.untold = {0: WriteOutcome.NO_SUBSCRIBER}
        await r.world.go(2)
        await r.world.submit(s=600, target_w=2_000.0)
        await r.world.go(5)
        first, second = (await r.ask("GET", "/v1/devices"))["devices"]
        assert (first["unreachable"]["cause"], first["unreachable"]["for_s"]) == ("no_subscriber", 5.0)
        assert 2.0 <= first["unreachable"]["retry_in_s"] <= 3.0
        assert second["unreachable"] is None
        record, other = (await r.ask("GET", "/v1/dispatch-events/e"))["members"]
        assert (record["failure"], record["unreachable"]) == ("unreachable", "no_subscriber")
        assert (other["failure"], other["unreachable"]) == (None, None)


async def test_events_route_not_durable_is_told_and_changes_nothing() -> None:
    async with rig() as r:
        r.world.journal.failing = True
        body = await r.ask("POST", "/v1/dispatch-events", json=body_of(r), status=503)
        assert body["problems"] == ["no space left on device"]
        await r.ask("POST", "/v1/devices", data=f"{HEADER}n,p,s,1,1,1,0\n", headers={"Content-Type": "text/csv"},
                    status=503)  # fmt: skip
        r.world.journal.failing = False
        listed = await r.ask("GET", "/v1/dispatch-events")
        assert listed == {"events": [], "stopped": False, "next": None}
        assert (await r.ask("GET", "/v1/devices"))["total"] == 3


async def test_stop_all_route_not_durable_stops_at_once_all_the_same() -> None:
    async with rig() as r:
        r.world.journal.failing = True
        answer = await r.ask("POST", "/v1/dispatch/stop-all", json={"active": True}, status=202)
        assert answer == {"active": True, "by": "operator", "durable": False}
        assert (await r.ask("GET", "/v1/dispatch-events"))["stopped"] is True
        # Allowing it again is nothing urgent: it has to be durable first.
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": False}, status=503)
        assert (await r.ask("GET", "/v1/dispatch-events"))["stopped"] is True


async def test_exclusions_route_not_durable_counts_at_once_and_says_so() -> None:
    async with rig() as r:
        r.world.journal.failing = True
        body = {"id": "h", "reason": "opt_out", "group": {"ids": ["home-00"]}}
        answer = await r.ask("POST", "/v1/exclusions", json=body, status=202)
        assert (answer["active"], answer["durable"]) == (True, False)
        (listed,) = (await r.ask("GET", "/v1/exclusions"))["exclusions"]
        assert (listed["active"], listed["durable"]) == (True, False)
        await r.ask("DELETE", "/v1/exclusions/h", status=503)
        r.world.journal.failing = False
        await r.world.go(2)
        (listed,) = (await r.ask("GET", "/v1/exclusions"))["exclusions"]
        assert listed["durable"] is True
        await r.ask("DELETE", "/v1/exclusions/h")


async def test_exclusions_route_refuses_one_that_is_over_and_leaves_the_one_that_it_would_replace() -> None:
    async with rig() as r:
        body = {"id": "h", "reason": "opt_out", "group": {"ids": ["home-00"]}}
        await r.ask("POST", "/v1/exclusions", json=body)
        refused = await r.ask("POST", "/v1/exclusions", json=body | {"until": rfc3339(r.world.clock.utc)}, status=400)
        assert refused["problems"] == ["until: is over already"]
        (listed,) = (await r.ask("GET", "/v1/exclusions"))["exclusions"]
        assert (listed["active"], listed["until"]) == (True, None)


async def test_events_route_changes_nothing_where_a_request_names_two_sources() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r))
        refused = await r.ask("DELETE", "/v1/dispatch-events/e?source=rest&source=mqtt", status=400)
        assert refused["problems"] == ["source: stands twice"]
        assert (await r.ask("GET", "/v1/dispatch-events/e"))["state"] != "cancelled"


async def test_events_route_same_event_twice_at_once_is_accepted_once() -> None:
    async with rig() as r:
        asked = [r.ask("POST", "/v1/dispatch-events", json=body_of(r)) for _ in range(8)]
        outcomes = [answer["outcome"] for answer in await asyncio.gather(*asked)]
        assert sorted(outcomes) == ["accepted"] + ["duplicate"] * 7


async def test_events_route_dry_run_is_shown_as_one() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r, kind="dry_run"))
        await r.world.go(3)
        assert (await r.ask("GET", "/v1/dispatch-events/e"))["kind"] == EventKind.DRY_RUN.value
        assert r.world.homes.writes == []


async def test_stop_all_route_stops_and_clears() -> None:
    async with rig() as r:
        path = "/v1/dispatch/stop-all"
        answer = await r.ask("POST", path, json={"active": True, "by": "me"})
        assert answer == {"active": True, "by": "me", "durable": True}
        assert (await r.ask("GET", "/v1/dispatch-events"))["stopped"] is True
        refused = await r.ask("POST", "/v1/dispatch-events", json=body_of(r), status=409)
        assert refused["reason"] == "stopped"
        assert (await r.ask("POST", path, json={"active": False}))["active"] is False
        wrongs = (b"", b"{}", b"[]", b'{"active": "perhaps"}', b'{"active": true, "why": 1}',
                  b'{"active": true, "active": false}')  # fmt: skip
        for wrong in wrongs:
            await r.ask("POST", path, data=wrong, headers={"Content-Type": "application/json"}, status=400)


async def test_devices_route_pages_through_everybody_once() -> None:
    async with rig(devices=7) as r:
        seen: list[str] = []
        at: int | None = 0
        while at is not None:
            page = await r.ask("GET", f"/v1/devices?offset={at}&limit=3")
            assert page["total"] == 7
            seen += [found["device"]["id"] for found in page["devices"]]
            at = page["next"]
        assert seen == [device.id for device in r.world.devices]
        past = await r.ask("GET", "/v1/devices?offset=100")
        assert (past["devices"], past["next"]) == ([], None)
        for query in ("offset=-1", "offset=x", f"limit={PAGE_MAX + 1}", "limit=1.5", "limit="):
            await r.ask("GET", f"/v1/devices?{query}", status=400)


async def test_device_route_tells_what_is_known_and_null_for_what_is_not() -> None:
    async with rig() as r:
        unknown = await r.ask("GET", "/v1/devices/home-00")
        assert (unknown["online"], unknown["soc_pct"], unknown["reading_age_s"]) == (None, None, None)
        r.world.homes.report()
        r.world.clock.advance(s=7)
        known = await r.ask("GET", "/v1/devices/home-00")
        assert (known["online"], known["soc_pct"], known["reading_age_s"]) == (True, 60.0, 7.0)
        assert (known["held"], known["setpoint_w"]) == ("free", None)
        assert known["device"]["site_export_w_max"] == "unlimited"
        await r.ask("GET", "/v1/devices/none", status=404)


async def test_import_route_takes_good_rows_and_names_bad_ones() -> None:
    async with rig(devices=1) as r:
        text = f"{HEADER}n-1,p,s,1000,500,500,20\nn-2,p,s,none,500,500,101\n"
        report = await r.ask("POST", "/v1/devices", data=text, headers={"Content-Type": "text/csv"})
        assert (report["rows"], report["enrolled"], report["rejected_total"]) == (2, 1, 1)
        (row,) = report["rejected"]
        assert (row["line"], [(fault["column"], fault["value"]) for fault in row["faults"]]) == (
            3, [("capacity_wh", "none"), ("reserve_pct", "101")],
        )  # fmt: skip
        assert all(fault["problem"] in row["problem"] for fault in row["faults"])
        line = {"id": "n-3", "profile": "p", "site": "s", "capacity_wh": 1, "discharge_w_max": 1, "charge_w_max": 1,
                "reserve_pct": 0}  # fmt: skip
        kind = {"Content-Type": "application/x-ndjson; charset=utf-8"}
        report = await r.ask("POST", "/v1/devices", data="\ufeff" + json.dumps(line), headers=kind)
        assert report["enrolled"] == 1
        assert (await r.ask("GET", "/v1/devices"))["total"] == 3
        await r.ask("POST", "/v1/devices", data=b"\xff", headers=kind, status=400)
        await r.ask("POST", "/v1/devices", data=b"id\n", headers={"Content-Type": "text/csv"}, status=400)


async def test_import_route_takes_the_move_of_a_device_under_control_and_says_what_it_waits_for() -> None:
    async with rig(devices=1) as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r))
        await r.world.go(3)
        row = {
            "id": "home-00", "profile": "sample-mqtt", "site": "s", "capacity_wh": 1, "discharge_w_max": 1,
            "charge_w_max": 1, "reserve_pct": 20, "address": "mqtt://10.0.0.5", "parameters": {"portal": "abc"},
        }  # fmt: skip
        other = row | {"id": "n-1", "address": "mqtt://10.0.0.6"}
        text = "\n".join(map(json.dumps, (row, other)))
        report = await r.ask("POST", "/v1/devices", data=text, headers={"Content-Type": "application/x-ndjson"})
        assert (report["rows"], report["enrolled"], report["departing"], report["rejected_total"]) == (2, 1, 1, 0)
        waits = "home-00: is under control; it changes profile from 'p' to 'sample-mqtt' once it is free"
        assert waits in [note["note"] for note in report["notes"]]
        state = await r.ask("GET", "/v1/devices/home-00")
        assert (state["device"]["profile"], state["departing"]["to"]["profile"]) == ("p", "sample-mqtt")
        assert state["departing"]["waits_for"] == "under control"
        page = await r.ask("GET", "/v1/departures")
        assert (page["total"], page["next"], page["departures"]) == (1, None, [state["departing"]])
        await r.ask("DELETE", "/v1/departures/home-00", status=400)
        await r.ask("DELETE", "/v1/departures/home-01?reason=gone", status=404)
        await r.ask("DELETE", "/v1/departures/home-00?reason=gone&by=ann")
        assert (await r.ask("GET", "/v1/devices/home-00"))["device"]["profile"] == "sample-mqtt"


async def test_remove_route_hands_back_first_and_says_what_it_waits_for() -> None:
    async with rig(devices=2) as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r))
        await r.world.go(3)
        state = await r.ask("DELETE", "/v1/devices/home-00?by=ann", status=202)
        assert (state["device"], state["gone"], state["waits_for"]) == ("home-00", False, "under control")
        r.world.fleet.control.authority[0] = 0
        gone = {"device": "home-00", "gone": True, "waits_for": None}
        assert await r.ask("DELETE", "/v1/devices/home-00") == gone
        await r.ask("GET", "/v1/devices/home-00", status=404)
        await r.ask("DELETE", "/v1/devices/home-00", status=404)
        assert (await r.ask("GET", "/v1/devices"))["total"] == 1


@pytest.mark.parametrize("path", ["/v1/unregistered", "/v1/unenrolled"])
async def test_unregistered_route_lists_who_sends_without_being_registered_on_both_paths(path: str) -> None:
    async with rig() as r:
        assert await r.ask("GET", path) == {"devices": [], "messages": 0}
        assert r.link is not None
        r.link.unregistered.observe("stranger", 0)
        found = await r.ask("GET", path)
        assert found["devices"] == [{"device": "stranger", "seen": "1970-01-01T00:00:00Z"}]


STORM = {"id": "storm-7", "reason": "storm", "group": {"all": True}, "until": "2099-01-01T00:00:00Z"}


@pytest.mark.parametrize(("path", "member"), [("/v1/exclusions", "exclusions"), ("/v1/holds", "holds")])
async def test_exclusions_route_sets_lists_and_lifts_under_both_names(path: str, member: str) -> None:
    async with rig() as r:
        assert await r.ask("GET", path) == {member: []}
        state = await r.ask("POST", path, json=STORM)
        assert (state["id"], state["until"], state["devices"]) == ("storm-7", STORM["until"], 3)
        assert state.pop("warnings") == []
        assert await r.ask("GET", path) == {member: [state]}
        await r.ask("POST", path, json=STORM | {"id": "no", "event": "e"}, status=400)
        assert await r.ask("DELETE", f"{path}/storm-7") == {member: []}
        await r.ask("DELETE", f"{path}/storm-7", status=404)


@pytest.mark.parametrize(
    ("names", "devices", "warnings"),
    [({"group": {"ids": ["home-0", "home-00"]}}, 1, ["not registered: home-0"]),
     ({"group": {"tags": ["caost"]}}, 0, ["no device has the tag: caost", "the group has no device now"]),
     ({"group": {"ids": ["home-00"]}, "event": "e"}, 1, ["no event has the id e now"])],
)  # fmt: skip
async def test_exclusion_that_misses_whom_it_names_is_set_and_says_so(
    names: dict[str, object], devices: int, warnings: list[str]
) -> None:
    async with rig() as r:
        state = await r.ask("POST", "/v1/exclusions", json={"id": "o", "reason": "opt_out"} | names)
        assert (state["devices"], state["warnings"]) == (devices, warnings)


async def test_exclusion_set_on_the_former_path_is_there_on_the_new_one_byte_for_byte() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/holds", json=STORM)
        bodies = []
        for path in ("/v1/exclusions", "/v1/holds"):
            async with r.client.get(path) as reply:
                assert (reply.status, reply.content_type) == (200, "application/json")
                bodies.append(await reply.read())
        assert bodies[1] == bodies[0].replace(b'"exclusions":', b'"holds":')
        await r.ask("DELETE", "/v1/exclusions/storm-7")
        assert await r.ask("GET", "/v1/holds") == {"holds": []}


async def test_readyz_route_says_why_not() -> None:
    async with rig() as r:
        assert await r.ask("GET", "/readyz") == {"ready": True, "reasons": [], "warnings": []}
        r.warnings.append("sink a: no_subscriber")
        assert await r.ask("GET", "/readyz") == {"ready": True, "reasons": [], "warnings": ["sink a: no_subscriber"]}
        r.reasons.append("spool: no space left on device")
        body = await r.ask("GET", "/readyz", status=503)
        assert body == {
            "ready": False, "reasons": ["spool: no space left on device"], "warnings": ["sink a: no_subscriber"],
        }  # fmt: skip


async def test_route_too_large_or_unknown_is_refused_in_json() -> None:
    async with rig() as r:
        for method, path, status, data in (
            ("POST", "/v1/dispatch-events", 413, b"x" * ((1 << 20) - 1) + b"xx"),
            ("PUT", "/v1/dispatch-events", 405, b"{}"),
            ("GET", "/v2/devices", 404, b""),
            ("POST", "/v1/devices", 415, b"{}"),
        ):
            headers = {"Content-Type": "application/json"}
            async with r.client.request(method, path, data=io.BytesIO(data), headers=headers) as reply:
                assert reply.status == status
                assert set(await reply.json()) == {"error", "problems"}


async def test_storage_error_is_not_an_internal_error() -> None:
    assert issubclass(StorageError, Exception)
    async with rig() as r:
        r.world.journal.failing = True
        await r.ask("DELETE", "/v1/dispatch-events/none", status=404)


async def test_release_only_gateway_refuses_an_event_with_why_and_takes_its_cancellation_and_a_stop() -> None:
    async with rig(release_only=True) as r:
        path = "/v1/dispatch-events"
        refused = await r.ask("POST", path, json=body_of(r), status=503)
        assert refused == {
            "error": "the gateway is release-only and starts no event; /readyz says why", "problems": ["release_only"],
        }  # fmt: skip
        cancelled = await r.ask("POST", path, json=body_of(r, "f", cancelled=True))
        assert cancelled["outcome"] == "accepted"
        assert {event["id"] for event in (await r.ask("GET", path))["events"]} == {"e", "f"}
        stop = await r.ask("POST", "/v1/dispatch/stop-all", json={"active": True, "by": "operator"})
        assert (stop["active"], stop["durable"]) == (True, True)
