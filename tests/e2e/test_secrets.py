"""No secret of the gateway stands anywhere but where it is meant for: not in its log, answers, metrics, journal, state
or archive, and not in what the command line says, whatever goes wrong."""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from gateway.api.openapi import ROUTES
from simulators import processes
from simulators.faces.sonnen_v2 import SonnenV2
from tests.e2e.rig import CEILING_S, Daemon, battery, run_cli, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

CANARIES = {
    "CALLER_TOKEN": "canary-of-a-caller-0123456789",
    "OTHER_TOKEN": "canary-of-another-caller-0123456789",
    "SINK_TOKEN": "canary-of-a-receiver-0123456789",
    "BROKER_PASSWORD": "canary-of-a-broker-0123456789",
    "DEVICE_TOKEN": "canary-of-a-device-0123456789",
}
WRONG = "canary-of-a-stranger-0123456789"
"""A token that nobody has: what is presented is nobody's business either."""


def told_by(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that the gateway has written, and what is in its archives."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.name in ("gateway.yaml", "access.yaml", "caller"):
            continue
        yield path.name, path.read_bytes()
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive.getmembers():
                    file = archive.extractfile(member)
                    yield f"{path.name}/{member.name}", b"" if file is None else file.read()


def assert_none(where: str, text: bytes) -> None:
    found = [name for name, canary in {**CANARIES, "WRONG": WRONG}.items() if canary.encode() in text]
    assert not found, f"{found} stand in {where}"


async def asked(daemon: Daemon, headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """What every route that shows something says."""
    out = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CEILING_S)) as session:
        for route in ROUTES:
            path = route.operation.path.replace("{id}", "home").replace("{name}", "receiver")
            for query in ("", f"?by={WRONG[:40]}") if route.operation.method == "GET" else ("",):
                kind = {} if route.operation.method == "GET" else {"Content-Type": "application/json"}
                async with session.request(
                    route.operation.method, daemon.url + path + query, headers={**headers, **kind}
                ) as reply:
                    out.append((f"{route.operation.method} {path}", await reply.read() + str(reply.headers).encode()))
    return out


async def test_secrets_stand_nowhere_but_where_they_are_meant_for(tmp_path: Path) -> None:
    caller = tmp_path / "caller"
    caller.touch(mode=0o600)
    caller.write_text(CANARIES["CALLER_TOKEN"], encoding="utf-8")
    known = {
        "room": {"scopes": ["read", "dispatch", "devices", "admin"], "tokens": [f"file:{caller}"]},
        "desk": {"scopes": ["read"], "tokens": ["env:OTHER_TOKEN"]},
    }
    (tmp_path / "access.yaml").write_text(json.dumps({"callers": known}), encoding="utf-8")
    async with standin_process(tmp_path) as broker, battery(SonnenV2) as (_, url):
        daemon = Daemon(tmp_path, broker.port)
        account = {"username": "gateway", "password": "env:BROKER_PASSWORD"}
        devices = {"url": f"mqtt://127.0.0.1:{broker.port}", "client_id": "gateway", **account}
        receiver = {"kind": "http", "name": "receiver", "url": f"http://127.0.0.1:{processes.free_port()}/"}
        receiver["token"] = "env:SINK_TOKEN"
        daemon.change = {
            "http": {"host": "127.0.0.1", "port": daemon.http_port, "access": "access.yaml"},
            "log": {"format": "json", "level": "debug"},
            "devices": {"mqtt": {"broker": devices}},
            "sinks": [receiver],
        }
        daemon.write_config()
        daemon.child.env.update(CANARIES)
        row = {
            "id": "home", "profile": SonnenV2.profile, "site": "s", "capacity_wh": 10_000, "discharge_w_max": 3_000,
            "charge_w_max": 3_000, "reserve_pct": 20, "address": url, "secret": "env:DEVICE_TOKEN",
            "experimental": True,
        }  # fmt: skip
        authorized = {"Authorization": f"Bearer {CANARIES['CALLER_TOKEN']}"}
        texts: list[tuple[str, bytes]] = []
        async with running(daemon):
            async with aiohttp.ClientSession() as session:
                rows = "\n".join(
                    json.dumps(one) for one in (row, row | {"id": "wrong", "secret": CANARIES["DEVICE_TOKEN"]})
                )
                headers = {**authorized, "Content-Type": "application/x-ndjson"}
                async with session.post(f"{daemon.url}/v1/devices", data=rows, headers=headers) as reply:
                    # who writes a secret where a reference belongs is told so, without it
                    texts.append(("import", await reply.read()))
                    assert reply.status == 200, texts[-1]
            for headers in (authorized, {}, {"Authorization": f"Bearer {WRONG}"}, {"Authorization": WRONG}):
                texts += await asked(daemon, headers)
            env = dict(os.environ) | {"GATEWAY_TOKEN": CANARIES["CALLER_TOKEN"]}
            for words in (("devices", "list"), ("devices", "show", "home"), ("audit", "list"), ("sinks", "list")):
                texts.append((" ".join(words), (await run_cli(*words, "--url", daemon.url, env=env))[1].encode()))
            metrics = dict(texts)["GET /metrics"].decode()
            refused = dict(re.findall(r'gateway_access_refusals_total\{reason="(\w+)"\} (\S+)', metrics))
            # what was presented stands neither there nor in the lines about it
            assert float(refused["anonymous"]) > 0
            assert {line["reason"] for line in daemon.log_lines() if line["message"] == "refused at the door"} >= {
                "anonymous", "unknown", "media_type",
            }  # fmt: skip
            (tmp_path / "access.yaml").write_text(json.dumps({"callers": {"a": {"tokens": [WRONG]}}}), encoding="utf-8")
            await daemon.until("/readyz", lambda reply: "access" in str(reply.body["warnings"]), "a wrong file is told")
        archive = str(tmp_path / "state.tar.gz")
        code, said = await run_cli("state", "export", "--config", str(daemon.config), "--out", archive, env=CANARIES)
        assert code == 0, said
        code, said = await run_cli("validate", "--config", str(daemon.config), env=CANARIES)
        texts.append(("validate", said.encode()))
    for where, text in [*texts, *told_by(tmp_path)]:
        assert_none(where, text)
