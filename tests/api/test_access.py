"""Who may do what: every route with every scope, how often, and what is written of who asked."""

import json
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict

from gateway.api.access.callers import Callers, hash_of
from gateway.api.access.refusals import Refusals
from gateway.api.app import make_metrics_app
from gateway.api.guard import Doorway
from gateway.api.openapi import ROUTES
from gateway.domain.access import Caller, DoorRefusal, Scope
from tests.api.test_app import Rig, body_of, rig

TABLE = {
    "POST /v1/dispatch-events": "dispatch",
    "GET /v1/dispatch-events": "read",
    "GET /v1/dispatch-events/{id}": "read",
    "DELETE /v1/dispatch-events/{id}": "dispatch",
    "DELETE /v1/dispatch-events/{id}/cancellation": "dispatch",
    "POST /v1/dispatch/stop-all": "dispatch",
    "POST /v1/exclusions": "dispatch",
    "POST /v1/exclusions/preview": "read",
    "POST /v1/exclusions/import": "dispatch",
    "GET /v1/exclusions": "read",
    "DELETE /v1/exclusions/{id}": "dispatch",
    "GET /v1/quarantine": "read",
    "DELETE /v1/quarantine/{name}": "devices",
    "GET /v1/availability": "read",
    "GET /v1/audit": "read",
    "GET /v1/audit/chain": "read",
    "GET /v1/intervals": "read",
    "GET /v1/completeness": "read",
    "GET /v1/sinks": "read",
    "GET /v1/sinks/{name}/missing": "read",
    "POST /v1/sinks/{name}/resend": "admin",
    "POST /v1/sinks/{name}/retry": "admin",
    "GET /v1/leap": "read",
    "GET /v1/leap/dispatch": "read",
    "POST /v1/leap/catch-up": "admin",
    "GET /v1/leap/webhooks": "read",
    "POST /v1/leap/webhooks": "admin",
    "POST /v1/signals/leap/meter": None,
    "POST /v1/signals/leap/group": None,
    "GET /v1/devices": "read",
    "POST /v1/devices": "devices",
    "GET /v1/devices/{id}": "read",
    "DELETE /v1/devices/{id}": "devices",
    "GET /v1/devices/{id}/connections": "read",
    "GET /v1/departures": "read",
    "DELETE /v1/departures/{id}": "devices",
    "GET /v1/unregistered": "read",
    "GET /v1/raw-messages": "read",
    "GET /v1/raw-messages/{name}": "read",
    "DELETE /v1/raw-messages/{name}": "admin",
    "GET /v1/programs": "read",
    "GET /v1/programs/{id}": "read",
    "GET /v1/programs/{id}/allowed": "read",
    "GET /v1/programs/{id}/performance": "money",
    "GET /v1/events/{id}/performance": "money",
    "GET /v1/enrollments": "read",
    "POST /v1/enrollments": "programs",
    "GET /v1/enrollments/{id}": "read",
    "GET /v1/enrollments/{id}/rates": "read",
    "GET /v1/participation/{id}": "read",
    "GET /v1/eligibility/{id}": "read",
    "GET /v1/deadlines": "read",
    "GET /v1/enrollment-changes/{id}": "read",
    "GET /v1/customers": "read",
    "POST /v1/customers": "pii",
    "GET /v1/customers/{id}": "read",
    "DELETE /v1/customers/{id}": "pii",
    "GET /v1/consents": "read",
    "POST /v1/consents": "programs",
    "GET /v1/leap/enrollments": "read",
    "POST /v1/leap/enrollments": "programs",
    "POST /v1/signals/leap/platform": None,
    "GET /v1/leap/nominations": "read",
    "POST /v1/leap/nominations": "programs",
    "POST /v1/leap/nominations/suggestions": "programs",
    "GET /v1/sign-ups": "read",
    "GET /v1/sign-ups/{id}": "read",
    "GET /v1/outbox": "read",
    "POST /v1/outbox": "programs",
    "POST /v1/outbox/approvals": "admin",
    "POST /v1/outbox/withdrawals": "programs",
    "POST /v1/outbox/runs": "programs",
    "GET /v1/homes/{id}/explain": "read",
    "GET /v1/programs/{id}/forecast": "read",
    "GET /v1/cases": "read",
    "POST /v1/cases": "programs",
    "PATCH /v1/cases/{id}": "programs",
    "POST /v1/signals/webhook/{name}": None,
    "GET /v1/signals/webhook": "read",
    "GET /v1/signals/webhook/{name}": "read",
    "GET /readyz": None,
    "GET /healthz": None,
    "GET /metrics": "read",
}
"""What each route asks for; None: nothing. A new route is decided here."""


def token_of(name: str) -> str:
    return f"token-of-{name}-0123456789"


def callers(**scopes: Iterator[Scope] | list[Scope] | int) -> Callers:
    """Callers of such names; a number is how many requests a minute one may send."""
    made = []
    for name, given in scopes.items():
        limit = given if isinstance(given, int) else None
        mine = frozenset(Scope) if isinstance(given, int) else frozenset(given)
        made.append((hash_of(token_of(name).encode()), Caller(name=name, scopes=mine, requests_per_min=limit)))
    return Callers(tokens=made)


def header(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(name)}"}


def test_table_names_every_route() -> None:
    found = {
        f"{route.operation.method} {route.operation.path}": None if route.scope is None else route.scope.value
        for route in ROUTES
    }
    assert found == TABLE


@pytest.mark.parametrize(("route", "scope"), TABLE.items())
async def test_route_serves_the_scope_that_it_asks_for_and_no_other(route: str, scope: str | None) -> None:
    method, path = route.split(" ")
    path = path.replace("{id}", "x").replace("{name}", "x")
    everybody = callers(**{one.value: [one] for one in Scope})
    async with rig(callers=everybody, exposed=True) as r:
        served = set()
        for one in Scope:
            kind = {} if method == "GET" else {"Content-Type": "application/json"}
            async with r.client.request(method, path, headers=header(one.value) | kind) as reply:
                text = await reply.text()
            if reply.status != 403:
                served.add(one.value)
            else:
                assert json.loads(text)["error"] == f"the scope {scope} is required"
        assert served == ({one.value for one in Scope} if scope is None else {scope})
        async with r.client.request(method, path) as reply:
            assert (reply.status == 401) == (scope is not None)


@pytest.mark.parametrize("path", [route.split(" ")[1] for route in TABLE if route.startswith("GET")])
async def test_head_of_a_route_asks_for_the_scope_of_the_route(path: str) -> None:
    scope = TABLE[f"GET {path}"]
    path = path.replace("{id}", "x").replace("{name}", "x")
    everybody = callers(**{one.value: [one] for one in Scope})
    async with rig(callers=everybody, exposed=True) as r:
        for one in Scope:
            async with r.client.head(path, headers=header(one.value)) as reply:
                assert (reply.status != 403) == (scope in (None, one.value))
        async with r.client.head(path) as reply:
            assert (reply.status == 401) == (scope is not None)


@pytest.mark.parametrize("path", ["/v1/holds", "/v1/unenrolled"])
async def test_former_path_asks_for_the_scope_of_the_present_one(path: str) -> None:
    async with rig(callers=callers(payer=[Scope.PAY], reader=[Scope.READ])) as r:
        for name, status in (("payer", 403), ("reader", 200)):
            async with r.client.get(path, headers=header(name)) as reply:
                assert reply.status == status


async def test_path_that_no_route_takes_is_told_to_known_callers_alone() -> None:
    async with rig(callers=callers(payer=[Scope.PAY])) as r:
        for headers, status in (({}, 401), (header("payer"), 404)):
            async with r.client.get("/v1/nothing", headers=headers) as reply:
                assert reply.status == status


@pytest.mark.parametrize(("exposed", "status"), [(True, 401), (False, 200)])
async def test_metrics_are_open_on_this_machine_alone(exposed: bool, status: int) -> None:
    async with rig(callers=callers(reader=[Scope.READ]), exposed=exposed) as r:
        async with r.client.get("/metrics") as reply:
            assert reply.status == status
        async with r.client.get("/metrics", headers=header("reader")) as reply:
            assert reply.status == 200


async def test_listener_for_metrics_has_no_other_route() -> None:
    known = callers(reader=[Scope.READ])
    async with rig(callers=known) as r:
        assert r.parts is not None
        door = Doorway(callers=lambda: known, clock=r.world.clock, refusals=Refusals(r.world.clock), exposed=True)
        async with TestClient(TestServer(make_metrics_app(r.parts, door))) as client:
            for path, anybody, reader in (("/healthz", 200, 200), ("/metrics", 401, 200), ("/v1/devices", 401, 404)):
                async with client.get(path) as reply:
                    assert reply.status == anybody
                async with client.get(path, headers=header("reader")) as reply:
                    assert reply.status == reader


async def test_certificate_alone_names_a_caller_and_no_token_of_nobody_does() -> None:
    known = Callers(certificates={"settlement": Caller(name="settlement", scopes=frozenset({Scope.MONEY}))})
    assert known.who(b"", "settlement") == known.certificates["settlement"]
    assert isinstance(known.who(b"", "settlements"), DoorRefusal)
    assert isinstance(known.who(b"Bearer wrong", "settlement"), DoorRefusal), (
        "a wrong token is no caller, whatever the certificate"
    )
    assert not known.alone


async def test_request_with_two_authorizations_is_nobody_s() -> None:
    """A proxy before it may have looked at the other one."""
    async with rig(callers=callers(room=[Scope.READ])) as r:
        mine = header("room")["Authorization"]
        for two in ((mine, "Bearer another"), ("Bearer another", mine), (mine, mine)):
            headers = CIMultiDict([("Authorization", one) for one in two])
            async with r.client.get("/v1/devices", headers=headers) as reply:
                assert reply.status == 401


async def test_caller_that_asks_too_often_is_told_when_to_try_again() -> None:
    async with rig(callers=callers(often=3, other=3)) as r:
        for _ in range(3):
            await r.ask("GET", "/v1/devices", headers=header("often"))
        async with r.client.get("/v1/devices", headers=header("often")) as reply:
            assert (reply.status, reply.headers["Retry-After"]) == (429, "20")
            assert (await reply.json())["error"] == "more than 3 requests a minute"
        await r.ask("GET", "/v1/devices", headers=header("other"))
        r.world.clock.advance(s=20)
        await r.ask("GET", "/v1/devices", headers=header("often"))
        await r.ask("GET", "/v1/devices", headers=header("often"), status=429)


async def test_stop_and_cancellation_are_taken_however_often_their_caller_asked() -> None:
    """A display that asks for too much must not stand in the way of an emergency."""
    async with rig(callers=callers(often=2)) as r:
        await r.ask("POST", "/v1/dispatch-events", json=body_of(r), headers=header("often"))
        await r.ask("GET", "/v1/devices", headers=header("often"))
        await r.ask("GET", "/v1/devices", headers=header("often"), status=429)
        await r.ask("DELETE", "/v1/dispatch-events/e", headers=header("often"))
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": True}, headers=header("often"))
        await r.ask("GET", "/v1/devices", headers=header("often"), status=429)


# -- who asked -----------------------------------------------------------------------------------------------


async def audited(r: Rig) -> list[tuple[str, str]]:
    entries = (await r.ask("GET", "/v1/audit", headers=header("room")))["entries"]
    return [(entry["kind"], entry["by"]) for entry in entries]


async def test_trail_names_the_caller_and_whom_it_says_besides() -> None:
    async with rig(callers=callers(room=list(Scope))) as r:
        stop = {"active": True, "by": "anna"}
        answer = await r.ask("POST", "/v1/dispatch/stop-all", json=stop, headers=header("room"))
        assert answer["by"] == "room: anna"
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": False, "by": "room"}, headers=header("room"))
        assert (await audited(r))[:2] == [("stop_all", "room"), ("stop_all", "room: anna")]


@pytest.mark.parametrize("said", ["a\0b", "a\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb"])
async def test_name_that_a_request_says_is_one_line_that_changes_no_terminal(said: str) -> None:
    async with rig(callers=callers(room=list(Scope))) as r:
        stop = {"active": True, "by": said}
        answer = await r.ask("POST", "/v1/dispatch/stop-all", json=stop, headers=header("room"))
        assert answer["by"].isprintable()
        storm = {"id": "x", "reason": "storm", "group": {"all": True}}
        await r.ask("POST", "/v1/exclusions", json=storm | {"by": said}, headers=header("room"))
        await r.ask("DELETE", "/v1/exclusions/x", params={"by": said}, headers=header("room"))
        for kind, by in await audited(r):
            assert by.isprintable(), kind
            assert by.startswith("room: a?")


async def test_stop_of_somebody_with_a_long_name_is_taken() -> None:
    async with rig(callers=callers(room=list(Scope))) as r:
        stop = {"active": True, "by": "x" * 10_000}
        answer = await r.ask("POST", "/v1/dispatch/stop-all", json=stop, headers=header("room"))
        assert answer["by"] == f"room: {'x' * 64}"


async def test_events_of_a_caller_are_its_own() -> None:
    """Another caller's event of the same id is another one, and cannot be revised or cancelled by mistake."""
    async with rig(callers=callers(room=list(Scope), desk=list(Scope))) as r:
        for name in ("room", "desk"):
            answer = await r.ask("POST", "/v1/dispatch-events", json=body_of(r), headers=header(name))
            assert answer["outcome"] == "accepted"
        events = (await r.ask("GET", "/v1/dispatch-events", headers=header("desk")))["events"]
        assert sorted(event["source"] for event in events) == ["desk", "room"]
        await r.ask("DELETE", "/v1/dispatch-events/e", headers=header("room"), status=409)
