"""What changes by the rules of programs, each shown by an event that a real daemon carries out: whose rate, who takes
part on which day, who may dispatch when. The machine's clock is moved to the summer of 2026 for gateway and homes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest

from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC
from simulators.battery import Mode
from simulators.clock import RealClock
from simulators.firmware import FirmwareFleet
from simulators.homes import inventory_rows
from tests.builders.homes import homes
from tests.e2e.rig import CEILING_S, Daemon, Reply, eventually, now_ms, run_cli, running, utc
from tests.e2e.test_dispatch import CONTROL, FAKETIME
from tests.scenes.brokers import standin_process
from tests.services.programs.stores import table

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed (Debian: apt-get install faketime)"),
]

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
N = 6
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
AT_THREE = datetime(2026, 7, 31, 22, 0, tzinfo=UTC)
"""15:00 in California, 18:00 on the east coast."""

DSGS, RI, CT = "dsgs-option3", "connectedsolutions-ri", "ct-ess"


@dataclass(slots=True)
class MovedClock(RealClock):
    """The machine's clock, moved."""

    by_s: int = 0

    def utc_ms(self) -> int:
        return RealClock.utc_ms(self) + self.by_s * 1000


@dataclass(slots=True)
class Summer:
    """Homes, a gateway and the programs' dispatcher on a day of summer."""

    daemon: Daemon
    fleet: FirmwareFleet
    clock: MovedClock
    platform: aiomqtt.Client
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.fleet.devices.homes.ids)

    @property
    def now_ms(self) -> int:
        return now_ms() + self.clock.by_s * 1000

    def remote(self) -> set[int]:
        """The homes that are steered from outside."""
        return {i for i, mode in enumerate(self.fleet.devices.batteries.mode.tolist()) if mode == Mode.REMOTE}

    async def steers(self, *indexes: int) -> None:
        await eventually(lambda: self.remote() == set(indexes), f"{indexes} are steered", alive=self.daemon.child)

    def event(self, name: str, program: str, *indexes: int, h: float = 2.0) -> dict[str, Any]:
        """An event that begins now; to everybody where no home is named."""
        start_ms = self.now_ms
        group: dict[str, Any] = {"ids": [self.ids[i] for i in indexes]} if indexes else {"all": True}
        return {
            "id": name, "revision": 1, "program": program, "group": group, "target_w": 1_000.0 * (len(indexes) or N),
            "start": utc(start_ms), "end": utc(start_ms + round(h * HOUR_MS)),
        }  # fmt: skip

    async def dispatcher_sends(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to an event of the programs' own dispatcher."""
        await self.platform.publish(DISPATCH_TOPIC, orjson.dumps(body), qos=1)
        message = await anext(self.platform.messages)
        answer: dict[str, Any] = orjson.loads(bytes(message.payload))
        assert answer["id"] == body["id"]
        return answer

    async def imported(self, what: str, *rows: dict[str, str]) -> Any:
        reply = await self.daemon.ask("POST", f"/v1/{what}", body=table(*rows).encode(), kind="text/csv")
        assert reply.status == 200, reply
        return reply.body

    async def enrolled(self, *rows: dict[str, str]) -> None:
        assert (await self.imported("enrollments", *rows))["rejected"] == []

    async def rate(self, index: int, on: str) -> tuple[str | None, str | None, str | None]:
        """Amount, evidence and version of the rate that a home is paid on a day."""
        reply = await self.daemon.ask("GET", f"/v1/enrollments/{self.ids[index]}/rates?on={on}")
        (one,) = reply.body["rates"]
        return one["amount"], one["evidence"], one["version"]

    async def left_out(self, index: int) -> dict[str, str | None]:
        reply = await self.daemon.ask("GET", f"/v1/enrollments/{self.ids[index]}")
        return {one["program"]: one["left_out"] for one in reply.body["memberships"]}


def row(device: str, program: str, since: str, until: str = "2090-01-01T00:00:00Z", **other: str) -> dict[str, str]:
    return {
        "device": device, "program": program, "delivery_period": f"since {since[:10]}",
        "delivery_period_start_date_time": since, "delivery_period_end_date_time": until, "enrollment_status": "ACTIVE",
    } | other  # fmt: skip


def faked(daemon: Daemon, clock: MovedClock) -> Daemon:
    """A daemon whose wall clock is moved as that of the homes."""
    daemon.child.env |= {
        "LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"{clock.by_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    return daemon


@asynccontextmanager
async def summer(directory: Path, at: datetime, programs: dict[str, dict[str, Any]]) -> AsyncIterator[Summer]:
    """With a daemon that does not run yet."""
    clock = MovedClock(by_s=round(at.timestamp() - now_ms() / 1000))
    async with standin_process(directory) as broker:
        plain = homes(N, soc_start_pct=80.0, reserve_pct=20.0, discharge_w_max=5_000.0, capacity_wh=10_000.0)
        fleet = FirmwareFleet(plain, broker.url, clock, live_s=0.5, energy_s=2)
        change = {
            "control": CONTROL, "programs_dir": str(PROGRAMS), "programs": programs,
            "platform": {"broker": {"url": broker.url, "client_id": "dispatch", "reconnect_base_s": 0.1}},
        }  # fmt: skip
        daemon = faked(Daemon(directory, broker.port, change), clock)
        async with (
            aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as platform,
            living(fleet),
        ):
            await platform.subscribe(ANSWER_TOPIC, qos=1)
            yield Summer(daemon, fleet, clock, platform)


@asynccontextmanager
async def living(fleet: FirmwareFleet) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running_fleet = tasks.create_task(fleet.run(), name="fleet")
        await fleet.wait_connected(CEILING_S)
        try:
            yield
        finally:
            running_fleet.cancel()


async def known(s: Summer) -> None:
    await s.daemon.import_rows(inventory_rows(s.fleet.devices.homes))
    await s.daemon.until(
        "/v1/devices", lambda r: all(d["soc_pct"] is not None for d in r.body["devices"]), "a reading of each"
    )


async def test_rates_windows_and_storms_of_an_evening_of_several_programs(tmp_path: Path) -> None:
    exclusive = {"exclusive_groups": ["capacity"]}
    async with summer(tmp_path, AT_THREE, {DSGS: exclusive, RI: {}, CT: {}, "ra-leap": exclusive}) as s:
        async with running(s.daemon):
            await known(s)
            await s.enrolled(
                row(s.ids[0], RI, "2024-05-31T16:00:00Z"), row(s.ids[1], RI, "2024-06-01T16:00:00Z"),
                row(s.ids[2], CT, "2021-08-10T16:00:00Z"), row(s.ids[3], CT, "2021-02-10T16:00:00Z"),
                row(s.ids[4], DSGS, "2026-05-01T07:00:00Z"), row(s.ids[5], DSGS, "2026-05-01T07:00:00Z"),
            )  # fmt: skip

            # two homes enrolled a day apart take part in one event, each for the rate of its vintage
            assert (await s.dispatcher_sends(s.event("newport", RI, 0, 1, h=1.0)))["outcome"] == "accepted"
            await s.steers(0, 1)
            assert await s.rate(0, "2026-07-31") == ("400", "verified", "2024")
            assert await s.rate(1, "2026-07-31") == ("225", "verified", "2024")

            # by year of taking part, before and after April 2026
            assert (await s.dispatcher_sends(s.event("hartford", CT, 2, 3)))["outcome"] == "accepted"
            await s.steers(0, 1, 2, 3)
            assert await s.rate(2, "2026-07-31") == ("200", "unverified", "active-only")
            assert await s.rate(3, "2026-07-31") == ("115", "unverified", "active-only")
            assert await s.rate(2, "2026-03-31") == ("25", "reported", "passive-and-active")
            assert await s.rate(3, "2026-03-31") == ("15", "reported", "passive-and-active")

            # a storm within two days locks out whoever it comes to, and an event of nobody else is refused
            storm = {
                "id": "storm", "reason": "storm", "group": {"ids": [s.ids[2]]},
                "from": utc(s.now_ms + DAY_MS), "until": utc(s.now_ms + 2 * DAY_MS),
            }  # fmt: skip
            assert (await s.daemon.post("/v1/exclusions", storm)).status == 200
            await s.steers(0, 1, 3)
            refused = await s.dispatcher_sends(s.event("hartford-2", CT, 2))
            assert (refused["outcome"], refused["reason"]) == ("rejected", "program_rules"), refused
            assert "storm" in str(refused["warnings"])

            # at 15:00, an hour before the window: refused from here, and taken from the program's dispatcher
            local = s.event("local", DSGS, 4, 5)
            file = tmp_path / "event.json"
            file.write_text(json.dumps(local), encoding="utf-8")
            code, said = await run_cli("dispatch", "send", str(file), "--url", s.daemon.url)
            assert (code != 0, "program_rules" in said) == (True, True), said
            assert s.remote() == {0, 1, 3}
            answer = await s.dispatcher_sends(s.event("sacramento", DSGS, 4, 5))
            assert answer["outcome"] == "accepted"
            assert "window" in str(answer["warnings"])
            await s.steers(0, 1, 3, 4, 5)
            shown = (await s.daemon.ask("GET", "/v1/dispatch-events/sacramento")).body
            assert shown["outside_known_rules"] is True
            assert "window" in {one["rule"] for one in shown["broken_rules"]}
            inside = (await s.daemon.ask("GET", "/v1/dispatch-events/newport")).body
            assert inside["outside_known_rules"] is False

            # in one program at most of those that exclude each other
            other = await s.imported("enrollments", row(s.ids[4], "ra-leap", "2026-05-01T07:00:00Z"))
            assert other["rejected_total"] == 1, other
            assert DSGS in str(other["rejected"])
            shown = (await s.daemon.ask("GET", f"/v1/enrollments/{s.ids[4]}")).body
            assert [one["program"] for one in shown["enrollments"]] == [DSGS]
        assert s.daemon.faults_logged() == []


async def test_enrollments_of_july_and_august_and_a_consent_that_ends_decide_who_runs(tmp_path: Path) -> None:
    programs = {DSGS: {"enrollment": "enforce"}}
    july, august, october = "2026-05-01T07:00:00Z", "2026-08-01T07:00:00Z", "2026-11-01T07:00:00Z"
    async with summer(tmp_path, AT_THREE, programs) as s:
        async with running(s.daemon):
            await known(s)
            await s.enrolled(
                *(row(name, DSGS, july, august, delivery_period="DSGS_MAY_JUL") for name in s.ids[:3]),
                *(
                    row(name, DSGS, august, october, delivery_period="DSGS_AUG_OCT", enrollment_status=how)
                    for name, how in zip(s.ids[:3], ("ACTIVE", "PENDING", "ACTIVE"), strict=True)
                ),
            )  # fmt: skip
            held = [{"customer": f"c-{name}", "device": name, "held_since": july} for name in s.ids[:3]]
            assert (await s.imported("customers", *held))["rejected"] == []
            given = {"program": DSGS, "document_sha256": "ab" * 32, "given": july, "by": "x"}
            consents = [given | {"customer": f"c-{name}"} for name in s.ids[:3]]
            assert (await s.imported("consents", *consents))["rejected"] == []

            # 31 July: all three are active; one consent ends while the event runs
            assert (await s.dispatcher_sends(s.event("july", DSGS)))["outcome"] == "accepted"
            await s.steers(0, 1, 2)
            ends = {"expires": utc(s.now_ms + 2_000)}
            assert (await s.imported("consents", consents[2] | ends))["changed"] == 1
            await s.steers(0, 1)
            assert await s.left_out(2) == {DSGS: "consent_expired"}
            assert (await s.daemon.ask("GET", "/v1/dispatch-events/july")).body["state"] == "active"
            assert await s.daemon.stop() == 0
        assert s.daemon.faults_logged() == []

        # 1 August: who is pending for that period is out
        s.clock.by_s += DAY_MS // 1000
        s.daemon = faked(Daemon(tmp_path, s.daemon.broker_port, s.daemon.change, http_port=s.daemon.http_port), s.clock)
        async with running(s.daemon):
            await s.daemon.until(
                "/v1/devices", lambda r: all(d["soc_pct"] is not None for d in r.body["devices"]), "a reading of each"
            )
            assert (await s.dispatcher_sends(s.event("august", DSGS)))["outcome"] == "accepted"

            def july_is_over(reply: Reply) -> bool:
                return bool(reply.body["state"] in ("completed", "expired"))

            await s.daemon.until("/v1/dispatch-events/july", july_is_over, "the event of July is over")
            await s.steers(0)
            assert await s.left_out(1) == {DSGS: "not_active"}
            assert await s.left_out(0) == {DSGS: None}
