"""Dispatch by webhook with the real daemon: signed messages over HTTP, and SIGKILL while they come."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.e2e.rig import Daemon, now_ms, running
from tests.scenes.brokers import standin_process
from tests.signals.webhook.builders import (
    AXLE_SECRET,
    BEARER,
    FOLDER,
    VOLTUS_SECRET,
    axle_event,
    dispatch,
    dispatches,
    signed,
)

pytestmark = pytest.mark.e2e

AXLE, VOLTUS = "/v1/signals/webhook/axle", "/v1/signals/webhook/voltus"
HOUR_MS = 3_600_000
COUNT = 40


async def post(daemon: Daemon, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(daemon.url + path, data=body, headers=headers) as reply:
        return reply.status, orjson.loads(await reply.read())


def configured(tmp_path: Path, broker_port: int, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setenv("AXLE_WEBHOOK_SECRET", AXLE_SECRET.decode())
    monkeypatch.setenv("VOLTUS_WEBHOOK_TOKEN", VOLTUS_SECRET.decode())
    shutil.copytree(FOLDER, tmp_path / "webhooks")
    change = {
        "webhooks_dir": "webhooks",
        "programs": {"uk-flexibility": {"dispatchers": ["axle"]}, "generic-capacity": {"ceiling_mw": 1}},
        "sources": {"voltus": {"ceiling_mw": 0.01}},
    }
    return Daemon(tmp_path, broker_port, change)


async def test_messages_that_come_while_the_daemon_is_killed_take_effect_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standin_process(tmp_path) as broker:
        daemon = configured(tmp_path, broker.port, monkeypatch)
        start = now_ms() + HOUR_MS
        messages = {}
        for number in range(COUNT):
            body = orjson.dumps(axle_event(f"e{number}", at_ms=start, issued_ms=now_ms()))
            messages[f"e{number}"] = (body, signed(body, now_ms() // 1000))
        answered: dict[str, Any] = {}

        async def send(name: str) -> None:
            try:
                answered[name] = await post(daemon, AXLE, *messages[name])
            except aiohttp.ClientError:
                # the daemon is gone
                return
            if len(answered) == COUNT // 4:
                await daemon.child.kill()

        async with running(daemon):
            await daemon.ready()
            # what a tester of the door sees
            assert (await post(daemon, AXLE, b"{}", signed(b"[]", now_ms() // 1000)))[0] == 401
            over = dispatches(dispatch("big", at_ms=start, sites=[{"id": 1, "commitment": 11}]))
            status, told = await post(daemon, VOLTUS, over, BEARER)
            assert (status, told["events"][0]["reason"]) == (409, "over_ceiling")
            assert "the ceiling of source voltus is 10000 W" in told["events"][0]["warnings"][0]
            async with asyncio.TaskGroup() as group:
                for name in messages:
                    group.create_task(send(name))
        assert COUNT // 4 <= len(answered) < COUNT
        # one that was stored, and its daemon killed before it was decided
        body = orjson.dumps(axle_event("kept", at_ms=start, issued_ms=now_ms()))
        with closing(sqlite3.connect(tmp_path / "state" / "webhooks.sqlite")) as db, db:
            db.execute("INSERT INTO kept (source, received_ms, payload) VALUES ('axle', ?, ?)", (now_ms(), body))
        again = Daemon(tmp_path, broker.port, daemon.change, http_port=daemon.http_port)
        async with running(again):
            await again.ready()
            for name, (body, headers) in messages.items():
                status, told = await post(again, AXLE, body, headers)
                assert status == 200
                if name in answered:
                    # as the first time
                    assert (status, told) == answered[name]
                assert told["events"][0]["outcome"] in ("accepted", "duplicate")
            events = (await again.ask("GET", "/v1/dispatch-events?limit=1000")).body["events"]
            found = sorted(event["id"] for event in events)
            assert found == sorted([*messages, "kept"])
            assert {(event["source"], event["state"], event["revision"] > 0) for event in events} == {
                ("axle", "scheduled", True)
            }
            waiting = (await again.ask("GET", f"{AXLE}?limit=100")).body["messages"]
            assert {one["outcome"] for one in waiting} == {"done"}
        assert again.faults_logged() == []
        text = (tmp_path / "state" / "webhooks.sqlite").read_bytes() + (again.directory / "gateway.yaml").read_bytes()
        assert AXLE_SECRET not in text
