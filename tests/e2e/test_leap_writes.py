"""What goes outward with the real daemon: over a kill between a write and its read-back nothing goes twice, a key of
the wrong environment changes nothing, and what webhooks say of sign-ups outlives the process."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.access.callers import hash_of
from simulators.aggregator import Access, Aggregator, Environment, Operation, hang
from simulators.aggregator.periods import Period, Preference
from tests.e2e.rig import Daemon, Reply
from tests.scenes.brokers import standin_process
from tests.services.programs.test_leap_sync import ASSET, FOREIGN, KEY, PERIOD

pytestmark = pytest.mark.e2e

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
SHARED = "the-shared-header-0123"
ANN, BOB = "token-of-ann-0123456789", "token-of-bob-0123456789"
ZONE = "America/Los_Angeles"
METERS = [str(uuid.UUID(int=number + 1)) for number in range(2)]
FROM, TO = date(2035, 9, 1), date(2035, 10, 1)
EVENT_TYPES = ["connect_session.updated", "connect_session.authorization_updated"]
WITHIN_S = 30.0


@dataclass(slots=True)
class Evening:
    daemon: Daemon
    aggregator: Aggregator
    directory: Path
    broker_port: int

    async def ask(self, method: str, path: str, body: object = None, *, token: str = ANN, kind: str = "") -> Reply:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind or "application/json"}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as session,
            session.request(method, self.daemon.url + path, data=data, headers=headers) as answer,
        ):
            return Reply(status=answer.status, body=await answer.json(content_type=None))

    async def table(self, path: str, *rows: dict[str, str]) -> None:
        """Import rows, which need not have the same columns."""
        body = "\n".join(json.dumps(row) for row in rows).encode()
        told = await self.ask("POST", path, body, kind="application/x-ndjson")
        assert (told.status, told.body["rejected_total"]) == (200, 0), told

    async def run(self, kind: str, confirm: int | None = None) -> Any:
        told = await self.ask("POST", "/v1/outbox/runs", {"kind": kind, "dry_run": False, "confirm": confirm})
        assert told.status == 200, told
        return told.body

    async def rows(self) -> list[tuple[str, str, str]]:
        listed = (await self.ask("GET", "/v1/outbox?unfinished=0&limit=1000")).body["entries"]
        return [(row["kind"], row["state"], row["detail"]) for row in listed]

    async def killed(self, run: Callable[[], Awaitable[object]], hanging: str, least: int) -> None:
        """Kill the daemon once this question of it hangs for the `least`th time."""
        asking = asyncio.ensure_future(run())
        async with asyncio.timeout(WITHIN_S):
            while self.seen("", hanging) < least:
                await asyncio.sleep(0.02)
        await self.daemon.child.kill()
        await asyncio.gather(asking, return_exceptions=True)
        change = self.daemon.change
        self.daemon = Daemon(self.directory, self.broker_port, change, http_port=self.daemon.http_port)
        await self.daemon.start()
        await self.daemon.ready()

    def seen(self, method: str, ends: str) -> int:
        return sum(one.method in (method or one.method) and one.path.endswith(ends) for one in self.aggregator.requests)


@asynccontextmanager
async def evening(tmp_path: Path, *, key: str = KEY) -> AsyncIterator[Evening]:
    secrets = (("key", key), ("shared", SHARED))
    for name, text in secrets:
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text, encoding="utf-8")
    callers = {
        name: {"scopes": ["read", "programs", "pii", "admin"], "tokens": [f"sha256:{hash_of(token.encode()).hex()}"]}
        for name, token in (("ann", ANN), ("bob", BOB))
    }
    (tmp_path / "access.yaml").write_text(json.dumps({"callers": callers}), encoding="utf-8")
    keys = {KEY: Access(), FOREIGN: Access(environment=Environment.PRODUCTION)}
    async with standin_process(tmp_path) as broker, Aggregator(keys=keys, meters={}) as aggregator:
        for number, meter in enumerate(METERS):
            made = aggregator.meter_book.add(ASSET | {"partner_reference": f"home-{number}"}, meter_id=meter)
            made.programs = [PERIOD | {
                "delivery_period": "CEC-DSGS_2035", "delivery_period_start_date_time": "2026-01-01T08:00:00Z",
                "delivery_period_end_date_time": "2036-01-01T08:00:00Z",
            }]  # fmt: skip
            made.periods.all = [Period(preference=Preference.PARTICIPATE, first=date(2026, 1, 1))]
        daemon = Daemon(tmp_path, broker.port)
        daemon.change = {
            "http": {"host": "127.0.0.1", "port": daemon.http_port, "access": "access.yaml"},
            "programs_dir": str(PROGRAMS),
            "leap": {
                "account": {"environment": "staging", "key": f"file:{tmp_path / 'key'}", "url": aggregator.url},
                "connect": {"account": "battery-maker"},
            },
            "signals": {"leap": {"secret": f"file:{tmp_path / 'shared'}", "url": "https://gateway.example"}},
        }
        daemon.write_config()
        await daemon.enroll(["home-0", "home-1"])
        found = Evening(daemon, aggregator, tmp_path, broker.port)
        try:
            await daemon.start()
            await daemon.ready()
            yield found
        finally:
            await found.daemon.child.kill()
        assert aggregator.faults == []


def paused(days: int) -> dict[str, str]:
    """A pause of home 0 from some days ahead, for good."""
    since = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {
        "device": "home-0", "program": "dsgs-option3", "delivery_period": "here",
        "delivery_period_start_date_time": "2026-01-01T00:00:00Z",
        "delivery_period_end_date_time": "2036-01-01T00:00:00Z", "enrollment_status": "ACTIVE",
        "participation_preference": "IDLE", "participation_start_time": since,
    }  # fmt: skip


async def test_pause_of_an_owner_is_proposed_and_a_kill_before_its_read_back_sends_it_once(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        await e.table("/v1/enrollments", paused(3))
        read = (await e.ask("POST", "/v1/leap/enrollments", {})).body
        assert (read["meters"], read["proposed"], read["conflicts"]) == (2, 1, [])
        reads = e.seen("POST", "/v2/meters/enrollments/search")
        e.aggregator.script(Operation.ENROLLMENT_SEARCH, hang())
        await e.killed(lambda: e.run("idle"), "/v2/meters/enrollments/search", reads + 1)
        assert e.seen("POST", "/idle_periods") == 1
        assert await e.rows() == [("idle", "waits", "")]
        assert (await e.run("idle"))["error"] is None
        assert await e.rows() == [("idle", "done", "")]
        assert e.seen("POST", "/idle_periods") == 1
        again = (await e.ask("POST", "/v1/leap/enrollments", {})).body
        assert (again["proposed"], again["conflicts"]) == (0, [])


async def test_nomination_goes_with_leave_alone_and_once_over_a_kill_and_is_followed(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        assert (await e.ask("POST", "/v1/leap/enrollments", {})).body["changed"] == 2
        asked = {"program": "dsgs-option3", "kw": 4.0, "start_date": str(FROM), "end_date": str(TO)}
        told = await e.ask("POST", "/v1/leap/nominations/suggestions", asked)
        assert (told.status, told.body["meters"], told.body["rows"]) == (200, 2, 2), told
        numbers = [told.body["first"], told.body["last"]]
        assert (await e.run("nomination"))["waiting"] == 2
        own = await e.ask("POST", "/v1/outbox/approvals", {"rows": numbers})
        assert own.status == 400
        assert (await e.ask("POST", "/v1/outbox/approvals", {"rows": numbers}, token=BOB)).status == 200
        reads = e.seen("POST", "/suggestions/search")
        e.aggregator.script(Operation.SUGGESTION_SEARCH, hang())
        await e.killed(lambda: e.run("nomination", 2), "/suggestions/search", reads + 1)
        assert len(e.aggregator.nominations.suggestions) == 2
        await e.run("nomination", 0)
        assert await e.rows() == [("nomination", "done", "")] * 2
        assert e.seen("POST", "/v2/meters/nominations/suggestions") == 1
        (first, _) = e.aggregator.nominations.suggestions
        e.aggregator.nominations.decide(first, "MODIFIED", nomination_kw=1.0)
        found = (await e.ask("POST", "/v1/leap/nominations", {})).body
        states = [(one["state"], one["sent_kw"], one["kw"]) for one in found["suggestions"]]
        assert sorted(states) == [("changed", 2.0, 1.0), ("sent", 2.0, 2.0)]


async def test_registration_over_a_kill_is_written_once_and_another_address_stays(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        path = "/v2/dispatch/meter/webhook"
        shown = (await e.ask("POST", "/v1/leap/webhooks", {"level": "meter"})).body
        assert [(row["state"], row["is_new"]) for row in shown["entries"]] == [("proposed", True)]
        assert e.seen("PUT", path) == 0
        # one look before it is written, one to read it back
        asked = e.seen("GET", path)
        e.aggregator.script(Operation.DISPATCH_WEBHOOK_GET, None, hang())
        await e.killed(lambda: e.run("webhook"), path, e.seen("", path) + 3)
        assert (e.seen("PUT", path), e.seen("GET", path) >= asked + 2) == (1, True)
        assert (await e.run("webhook"))["error"] is None
        assert await e.rows() == [("webhook", "done", "")]
        assert e.seen("PUT", path) == 1
        (found,) = (await e.ask("GET", "/v1/leap/webhooks")).body["webhooks"]
        assert found["state"] == "ours"
        trail = (await e.ask("GET", "/v1/audit?kind=outbox_changed")).body
        assert "ann" in json.dumps(trail)
        assert SHARED not in json.dumps(trail)
    assert SHARED not in e.daemon.child.log.read_text(encoding="utf-8")


async def test_key_of_the_wrong_environment_changes_nothing_and_every_answer_says_so(tmp_path: Path) -> None:
    async with evening(tmp_path, key=FOREIGN) as e:
        await e.table("/v1/enrollments", paused(3), paused(3) | {"device": "home-1", "meter_id": METERS[1]})
        row = {"subject": METERS[0], "after": {"start_date": "2035-07-01", "end_date": "2035-07-02", "zone": ZONE}}
        for path, body in (
            ("/v1/outbox", {"kind": "idle", "rows": [row]}),
            ("/v1/leap/enrollments", {}),
            ("/v1/leap/nominations", {}),
            ("/v1/leap/nominations/suggestions", {"program": "dsgs-option3", "kw": 1, "start_date": "2026-12-24"}),
            ("/v1/leap/webhooks", {"level": "meter", "send": True}),
        ):
            told = await e.ask("POST", path, body)
            assert told.status >= 400, (path, told)
            if not path.endswith("suggestions"):
                assert "the key is of the other environment" in json.dumps(told.body), (path, told)
        assert await e.rows() == []
        writes = [one for one in e.aggregator.requests if one.method != "GET" and not one.path.endswith("/search")]
        assert writes == []


async def test_sign_up_is_what_webhooks_said_also_after_a_kill(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        await e.table("/v1/customers", {"customer": "c-1"})
        url = f"{e.daemon.url}/v1/signals/leap/platform"
        subscription = {
            "receiver_url": url, "event_types": EVENT_TYPES, "headers": [{"name": "x-leap-secret", "value": SHARED}],
        }  # fmt: skip
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            await session.post(f"{e.aggregator.url}/v1.1/webhooks", json=subscription)
        tell = e.aggregator.webhooks.tell
        for status in ("COMPLETED", "CREATED", "UPDATED", "CREATED"):
            tell("connect_session.updated", partner_reference="c-1", status=status)
        for status in ("FAILED", "INITIATED"):
            tell("connect_session.authorization_updated", partner_reference="c-1", utility_name="PGE", status=status)
        await e.aggregator.deliver()
        want = ("completed", [("PGE", "failed")])
        assert await said(e) == want
        await e.daemon.child.kill()
        await e.daemon.start()
        await e.daemon.ready()
        assert await said(e) == want
        tell("connect_session.authorization_updated", partner_reference="c-1", utility_name="PGE", status="COMPLETED")
        await e.aggregator.deliver()
        assert await said(e) == ("completed", [("PGE", "completed")])


async def said(e: Evening) -> tuple[str, list[tuple[str, str]]]:
    found = (await e.ask("GET", "/v1/sign-ups/c-1")).body
    assert found["link"].endswith("refId=c-1")
    return found["state"], [(one["utility"], one["state"]) for one in found["authorizations"]]
