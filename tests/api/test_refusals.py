"""Whoever is not let in is counted by reason and logged on the edge, without what was presented."""

import datetime as dt
import json
import logging

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.api.access.callers import Callers
from gateway.api.access.refusals import KNOCKING_MAX, OTHERS, PERIOD_MS, Refusals
from gateway.api.access.statements import Statements
from gateway.clock import ManualClock
from gateway.domain.access import Caller, DoorRefusal, Scope
from tests.api.test_access import callers, header
from tests.api.test_app import DOCUMENT, Rig, rig

STOP = "/v1/dispatch/stop-all"
KEY = ec.generate_private_key(ec.SECP256R1())
STATEMENTS = Statements(
    {"k": KEY.public_key()}, algorithm="ES256", issuer="i", audience="a", scopes=frozenset({Scope.READ}),
    others=frozenset(), requests_per_min=2,
)  # fmt: skip


def bearer(name: str, *, minutes: float = 5) -> dict[str, str]:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    claims = {"iss": "i", "aud": "a", "sub": name, "scope": "read", "exp": expires}
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, algorithm='ES256', headers={'kid': 'k'})}"}


def counted(r: Rig) -> dict[str, int]:
    assert r.parts is not None
    return {reason.value: count for reason, count in r.parts.door.refusals.counts.items() if count}


async def ask(r: Rig, method: str, path: str, headers: dict[str, str]) -> int:
    async with r.client.request(method, path, headers=headers, data=b"{}" if method == "POST" else None) as reply:
        return reply.status


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "reason"),
    [
        ("GET", "/v1/devices", {}, 401, "anonymous"),
        ("GET", "/v1/devices", {"Authorization": "Bearer wrong-wrong-wrong"}, 401, "unknown"),
        ("GET", "/v1/devices", {"Authorization": "Basic eDp5"}, 401, "unknown"),
        ("GET", "/v1/nothing", {}, 401, "anonymous"),
        ("POST", STOP, header("reader") | {"Content-Type": "application/json"}, 403, "scope"),
        ("POST", STOP, header("room") | {"Content-Type": "application/json", "Origin": "https://x.example"}, 403,
         "other_origin"),
        ("POST", STOP, header("room") | {"Content-Type": "text/plain"}, 415, "media_type"),
    ],
)  # fmt: skip
async def test_refusal_is_counted_by_its_reason(
    method: str, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    async with rig(callers=callers(reader=[Scope.READ], room=[Scope.DISPATCH])) as r:
        assert await ask(r, method, path, headers) == status
        assert counted(r) == {reason: 1}


async def test_jwt_that_has_expired_is_told_apart_from_a_wrong_one() -> None:
    async with rig(callers=Callers(statements=STATEMENTS)) as r:
        assert await ask(r, "GET", "/v1/devices", bearer("anna", minutes=-5)) == 401
        assert await ask(r, "GET", "/v1/devices", {"Authorization": "Bearer a.b.c"}) == 401
        assert counted(r) == {"expired": 1, "unknown": 1}


async def test_holders_of_jwts_may_ask_so_often_each() -> None:
    async with rig(callers=Callers(statements=STATEMENTS)) as r:
        found = [await ask(r, "GET", "/v1/devices", bearer("anna")) for _ in range(3)]
        assert found == [200, 200, 429]
        assert await ask(r, "GET", "/v1/devices", bearer("berta")) == 200
        assert counted(r) == {"too_often": 1}
        r.world.clock.advance(s=30)
        assert await ask(r, "GET", "/v1/devices", bearer("anna")) == 200


async def test_certificate_of_nobody_and_a_host_that_is_not_loopback_are_told_apart() -> None:
    known = Callers(certificates={"desk": Caller(name="desk", scopes=frozenset({Scope.READ}))})
    assert known.who(b"", "nobody") is DoorRefusal.UNKNOWN_CERTIFICATE
    async with rig() as r:
        assert await ask(r, "GET", "/v1/devices", {"Host": "evil.example"}) == 403
        assert counted(r) == {"not_loopback": 1}


async def test_refusals_of_a_source_are_one_line_and_their_number_once_a_period(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "a-token-that-nobody-has-0123"
    async with rig(callers=callers(reader=[Scope.READ])) as r:
        for _ in range(50):
            await ask(r, "GET", "/v1/devices", {"Authorization": f"Bearer {secret}"})
            await ask(r, "POST", STOP, header("reader") | {"Content-Type": "application/json"})
        assert lines(caplog) == [("127.0.0.1", "unknown", 1), ("reader", "scope", 1)]
        assert r.parts is not None
        refusals = r.parts.door.refusals
        refusals.settle()
        assert len(lines(caplog)) == 2
        r.world.clock.advance(s=PERIOD_MS / 1000)
        refusals.settle()
        assert lines(caplog)[2:] == [("127.0.0.1", "unknown", 49), ("reader", "scope", 49)]
        # and nothing once they are over
        for _ in range(3):
            r.world.clock.advance(s=PERIOD_MS / 1000)
            refusals.settle()
        assert len(lines(caplog)) == 4
        await ask(r, "GET", "/v1/devices", {})
        assert lines(caplog)[4:] == [("127.0.0.1", "anonymous", 1)]
        assert counted(r) == {"unknown": 50, "scope": 50, "anonymous": 1}
    assert secret not in json.dumps([record.__dict__ for record in caplog.records], default=str)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[object, object, object]]:
    told = [vars(record) for record in caplog.records if record.name == "gateway.api.access.refusals"]
    return [(one["source"], one["reason"], one["count"]) for one in told]


def test_many_sources_are_a_bounded_number_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = ManualClock()
    refusals = Refusals(clock)
    for i in range(10 * KNOCKING_MAX):
        refusals.note(DoorRefusal.ANONYMOUS, f"2001:db8::{i:x}")
    assert len(lines(caplog)) == KNOCKING_MAX + 1
    clock.advance(s=PERIOD_MS / 1000)
    refusals.settle()
    assert lines(caplog)[-1] == (OTHERS, "anonymous", 9 * KNOCKING_MAX - 1)
    assert refusals.counts[DoorRefusal.ANONYMOUS] == 10 * KNOCKING_MAX


def test_document_names_every_way_to_show_who_asks() -> None:
    ways = DOCUMENT["components"]["securitySchemes"]
    shapes = [(way["type"], way.get("scheme"), way.get("bearerFormat")) for way in ways.values()]
    assert shapes == [("http", "bearer", None), ("http", "bearer", "JWT"), ("mutualTLS", None, None)]
    assert DOCUMENT["security"] == [{name: []} for name in ways]
