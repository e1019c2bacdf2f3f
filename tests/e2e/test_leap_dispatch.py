"""Dispatch from the aggregator, as a process, to simulated homes: webhooks, search, outages, kills."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulators.commands import Op
from simulators.processes import Child, free_port, gateway, wait_port
from tests.e2e.rig import CEILING_S, Daemon, Reply, eventually, now_ms, run_cli, running, utc
from tests.e2e.test_dispatch import CONTROL, N, Street, street
from tests.e2e.test_enrollment import PERIOD, imported
from tests.services.programs.stores import BASE

pytestmark = pytest.mark.e2e

KEY, SECRET = "key-of-the-aggregator", "shared-secret-of-the-webhooks"
PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
OP = {Op.SETPOINT, Op.HOLD}


@dataclass(slots=True)
class Evening:
    """Homes, a gateway and the aggregator. `meters`: of the homes, in their order."""

    street: Street
    daemon: Daemon
    url: str
    meters: list[str]

    async def move(self, name: str, body: object) -> Any:
        """Move the aggregator from outside."""
        return await self._ask("POST", name, json.dumps(body).encode())

    async def look(self, name: str) -> Any:
        return await self._ask("GET", name, None)

    async def _ask(self, method: str, name: str, body: bytes | None) -> Any:
        async with aiohttp.ClientSession() as session, session.request(
            method, f"{self.url}/_control/{name}", data=body
        ) as answer:  # fmt: skip
            found = await answer.json(content_type=None)
            assert answer.status == 200, found
            return found

    def slots(self, *, in_s: float, for_s: float, **other: Any) -> list[dict[str, Any]]:
        """A DSGS slot of each meter; ids stay the same for the same `name`."""
        name = other.pop("name", "evening")
        start = now_ms() + round(in_s * 1000)
        known = {
            "start_time": utc(start), "end_time": utc(start + round(for_s * 1000)), "cancelled": False,
            "energy_kw": None, "nomination_kw": None, "performance_compensation_cap": "grid-exports-allowed",
            "priority": 4, "is_voluntary": True, "dispatch_event_types": ["standard"], "programs": ["CEC-DSGS"],
        }  # fmt: skip
        return [{"meter_event_id": str(uuid.uuid5(uuid.UUID(meter), name)), **known, **other} for meter in self.meters]

    async def dispatch(self, slots: list[dict[str, Any]], push: dict[str, Any] | None) -> None:
        for meter, slot in zip(self.meters, slots, strict=True):
            await self.move("events", {"kind": "meter", "target": meter, "slot": slot, "push": push})

    async def until_events(self, condition: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        reply = await self.daemon.until("/v1/dispatch-events", lambda r: condition(r.body["events"]), what)
        found: list[dict[str, Any]] = reply.body["events"]
        return found

    async def cli(self, *args: str) -> Any:
        code, output = await run_cli("leap", *args, "--url", self.daemon.url)
        assert code == 0, output
        return json.loads(output)

    def released(self) -> list[int]:
        return [seen.index for seen in self.street.commands() if seen.op is Op.RELEASE]


def live(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in events if one["state"] in ("scheduled", "active")]


def secret(directory: Path, name: str, value: str) -> str:
    path = directory / name
    path.write_text(value, encoding="utf-8")
    path.chmod(0o600)
    return f"file:{path}"


@asynccontextmanager
async def evening(directory: Path) -> AsyncIterator[Evening]:
    """Everything is there and enrolled; the gateway runs and is registered at the aggregator."""
    port = free_port()
    peer = Child(
        "aggregator", [sys.executable, "-m", "simulators.aggregator", "--port", str(port), "--key", KEY],
        directory / "aggregator.log",
    )  # fmt: skip
    async with street(directory) as s:
        await peer.start()
        try:
            await wait_port(port, alive=peer, timeout_s=CEILING_S)
            url = f"http://127.0.0.1:{port}"
            here = f"http://127.0.0.1:{s.daemon.http_port}"
            change = {
                "control": CONTROL, "programs_dir": str(PROGRAMS),
                "programs": {"dsgs-option3": {"dispatchers": ["leap"]}},
                "leap": {"account": {"environment": "staging", "url": url, "key": secret(directory, "key", KEY)}},
                "signals": {"leap": {"secret": secret(directory, "secret", SECRET), "url": here,
                                     "search_every_s": "60s"}},
            }  # fmt: skip
            daemon = Daemon(directory, s.daemon.broker_port, change, http_port=s.daemon.http_port)
            meters = [str(uuid.uuid4()) for _ in range(N)]
            found = Evening(Street(daemon, s.fleet), daemon, url, meters)
            async with running(daemon):
                await found.street.enroll()
                rows = [
                    BASE | PERIOD | {"device": name, "meter_id": meter, "program": "dsgs-option3"}
                    for name, meter in zip(s.fleet.devices.homes.ids, meters, strict=True)
                ]
                await imported(daemon, "enrollments", *rows)
                yield found
        finally:
            await peer.kill()


async def test_an_event_is_pushed_changed_and_cancelled_and_each_home_has_one_sequence(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        told = await e.cli("webhook", "register", "meter", "--send")
        assert [row["state"] for row in told["entries"]] == ["done"]
        assert SECRET not in json.dumps(told)
        slots = e.slots(in_s=2, for_s=600)
        # 52 messages, of which the first answers are lost
        await e.dispatch(slots, {"copies": 13, "answers_lost": 1, "waits_s": [0, 0.2, 0.2]})
        events = await e.until_events(lambda found: len(found) == 1 and found[0]["devices"] == N, "one event for all")
        assert (events[0]["source"], events[0]["program"], events[0]["priority"]) == ("leap", "dsgs-option3", 4)
        assert events[0]["labels"] == ["standard"]
        await eventually(lambda: e.street.remote == N, "all follow", alive=e.daemon.child)
        before = len(e.street.commands())
        await e.dispatch([slot | {"energy_kw": 1.5} for slot in slots], {})
        # meter by meter: those that are to give the most and those that are to give 1.5 kW are two events meanwhile
        await e.until_events(
            lambda found: [(one["want"], one["devices"]) for one in live(found)] == [("device_power", N)], "the change"
        )
        power = e.street.fleet.devices.batteries
        await eventually(
            lambda: all(abs(w - 1_500) < 100 for w in power.battery_w), "each gives 1.5 kW", alive=e.daemon.child
        )
        assert e.released() == []
        assert {seen.op for seen in e.street.commands()[before:]} <= OP
        await e.dispatch([slot | {"cancelled": True} for slot in slots], {})
        await e.until_events(lambda found: live(found) == [], "the cancellation")
        await eventually(lambda: e.street.remote == 0, "all are back", alive=e.daemon.child)
        status = (await e.daemon.ask("GET", "/v1/leap/dispatch")).body
        assert (status["unknown_meters"], status["refused"], status["bodies_set_aside"]) == (0, {}, 0)
    assert e.daemon.faults_logged() == []
    assert SECRET not in e.daemon.child.log.read_text(encoding="utf-8")


async def test_a_lost_webhook_and_an_outage_over_the_start_are_caught_up_with(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        await e.cli("webhook", "register", "meter", "--send")
        odd = dict.fromkeys(["extra_fields", "unknown_enums", "null_tokens", "outside_window", "offset_pages"], True)
        await e.move("mischief", odd)
        await e.move("mishaps", {"service": "dispatch", "trouble": "answer", "status": 503, "times": 3})
        await e.dispatch(e.slots(in_s=1, for_s=600), {"lost": True})
        codes: list[int] = []
        while 0 not in codes and len(codes) < 10:
            codes.append((await run_cli("leap", "catch-up", "--url", e.daemon.url))[0])
        # the schedule may have met a part of the outage
        assert (codes[0], codes[-1]) == (1, 0)
        await eventually(lambda: e.street.remote == N, "all follow", alive=e.daemon.child)
        # programs and slots with unknown words, which it made up each time, are gone; nothing else is another
        await e.move("mischief", {"unknown_enums": False})
        for word in ("changed", "same"):
            again = await e.cli("catch-up")
            assert {word: count for word, count in again["took"].items() if count} == {word: N}
        assert e.released() == []
        searched = await e.look("search")
        assert len(searched["returned"]) == N


async def test_a_webhook_that_a_kill_cuts_off_is_dispatched_once_by_the_next_run(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        body = {
            "integration_test_notification": False, "communication_test": False,
            "meter_dispatches": [{"meter_id": meter, "timeslots": [slot]}
                                 for meter, slot in zip(e.meters, e.slots(in_s=20, for_s=600), strict=True)],
        }  # fmt: skip
        assert (await posted(e.daemon, {"meter_dispatches": []}, "wrong-secret-of-somebody")).status == 401
        inbox = tmp_path / "state" / "leap-dispatch"

        def durable() -> bool:
            return any(path.suffix == ".meter" for name in ("inbox", "done") for path in (inbox / name).iterdir())

        posting = asyncio.create_task(posted(e.daemon, body, SECRET))
        await eventually(durable, "on disk", alive=e.daemon.child)
        await e.daemon.child.kill()
        await asyncio.gather(posting, return_exceptions=True)
        e.daemon.child = gateway(e.daemon.config, tmp_path)
        async with running(e.daemon):
            events = await e.until_events(lambda found: len(found) == 1 and found[0]["devices"] == N, "the event")
            await eventually(lambda: e.street.remote == N, "all follow", alive=e.daemon.child)
            assert [event["state"] for event in events] in (["scheduled"], ["active"])
            assert e.released() == []
            assert (await posted(e.daemon, body, SECRET)).status == 202
            await asyncio.sleep(2)
            assert len(await e.until_events(bool, "still one")) == 1
            assert await e.daemon.stop() == 0


async def test_another_gateway_is_not_robbed_of_its_dispatch(tmp_path: Path) -> None:
    async with evening(tmp_path) as e:
        other = "https://production.example/v1/signals/leap/meter"
        async with aiohttp.ClientSession() as session, session.put(
            f"{e.url}/v2/dispatch/meter/webhook", json={"url": other}, headers={"Authorization": f"Bearer {KEY}"}
        ) as answer:  # fmt: skip
            assert answer.status == 200
        code, output = await run_cli("leap", "webhook", "register", "meter", "--send", "--url", e.daemon.url)
        assert (code, other in output) == (1, True)
        (found,) = await e.cli("webhook", "verify", "--json")
        assert (found["state"], found["url"]) == ("other_url", other)
        ready: Reply = await e.daemon.ask("GET", "/readyz")
        assert any(other in text for text in ready.body["warnings"])
        shown = await e.cli("webhook", "register", "meter", "--replace", other)
        assert (shown["dry_run"], [row["state"] for row in shown["entries"]]) == (True, ["proposed"])
        (found,) = await e.cli("webhook", "verify", "--json")
        assert found["url"] == other
        told = await e.cli("webhook", "register", "meter", "--replace", other, "--send")
        assert [row["state"] for row in told["entries"]] == ["done"]
        (found,) = await e.cli("webhook", "verify", "--json")
        assert found["state"] == "ours"


async def posted(daemon: Daemon, body: object, shown: str) -> Reply:
    """What the gateway answers a webhook."""
    async with aiohttp.ClientSession() as session, session.post(
        f"{daemon.url}/v1/signals/leap/meter", json=body, headers={"X-Leap-Secret": shown}
    ) as answer:  # fmt: skip
        return Reply(status=answer.status, body=await answer.text())
