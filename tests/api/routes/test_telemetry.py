"""The ledger, receivers and sending once more, over real files and the real routes."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.api.routes.telemetry import Telemetry
from gateway.clock import Clock, ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Auditable, Keep, MissingInterval, Reject, Sink, Stop
from gateway.programs.loader import LoadedProgram
from gateway.schemas.interval_rows import rfc3339
from gateway.services.telemetry.completeness import Completeness
from gateway.services.telemetry.history import History
from gateway.services.uplink.delivery import SinkDelivery
from gateway.services.uplink.resend import Resend
from gateway.storage.interval_log.log import IntervalLog
from gateway.storage.interval_log.query import IntervalQueries
from tests.api.test_app import Rig, rig
from tests.builders.energy_batches import T0
from tests.builders.fakes import ScriptedSink
from tests.scenes.waiting import service, until
from tests.storage.interval_log.test_query import LENGTH_MS, unlogged

DAY_MS = T0 // 86_400_000 * 86_400_000
FIRST = (T0 - DAY_MS) // LENGTH_MS


@dataclass
class Street:
    """A rig whose homes have intervals, and receivers of them."""

    rig: Rig
    log: IntervalLog
    sinks: list[Sink]
    deliveries: list[SinkDelivery]

    async def delivered(self) -> None:
        """All receivers are up to date."""
        for delivery in self.deliveries:
            async with service(delivery.run):
                await until(lambda d=delivery: d.position.live.row > 0 and d.stats.backlog == 0 and not d._resend)  # type: ignore[misc]


@asynccontextmanager
async def street(
    directory: Path, *sinks: Sink, auditable: Mapping[str, Auditable] = MappingProxyType({}), more: int = 0,
    programs: Mapping[str, LoadedProgram] = MappingProxyType({}), state_dir: Path = Path("nowhere"),
) -> AsyncIterator[Street]:  # fmt: skip
    """Three homes of twelve intervals; the second has a gap of two, the first interval of the third was made again.
    `more` homes have none."""
    clock = ManualClock(utc_ms=T0 + 86_400_000)
    async with IntervalLog(directory, clock=clock) as log:
        rows = [(d, k, 1) for k in range(12) for d in range(3) if not (d == 1 and k in (4, 5))]
        await log.append([unlogged(1, rows), unlogged(2, [(2, 0, 2)])])
        deliveries: list[SinkDelivery] = []

        def upstream(fleet: Fleet, _clock: Clock, queries: IntervalQueries) -> Telemetry:
            for slot in range(3):
                fleet.slot_of.pop(fleet.ids[slot])
                fleet.ids[slot] = type(fleet.ids[slot])(f"bat-{slot}")
                fleet.slot_of[fleet.ids[slot]] = slot
            resend = Resend(log, queries, clock)
            deliveries.extend(
                SinkDelivery(sink, log_=log, finder=resend, clock=clock, rng=random.Random(1), rate=1e9)
                for sink in sinks
            )
            return Telemetry(
                completeness=Completeness(
                    queries=queries, log_=log, sinks=sinks, fleet=fleet, engine=Engine(IntervalRules()), clock=clock
                ),
                deliveries=deliveries, resend=resend, history=History(queries, fleet), log=log, fleet=fleet,
                clock=clock, auditable=auditable,
            )  # fmt: skip

        async with rig(
            devices=3 + more, files=log.files_from, upstream=upstream, programs=programs, state_dir=state_dir
        ) as r:
            yield Street(r, log, list(sinks), deliveries)


def at(index: int) -> str:
    return rfc3339(T0 + index * LENGTH_MS)


def ledger(page: Any) -> dict[str, dict[str, Any]]:
    return {day["device"]: day for day in page["devices"]}


def at_sink(**counts: Any) -> dict[str, Any]:
    """A receiver's part of a day: these counts, and no others."""
    names = ("sent", "accepted", "inferred", "waiting", "not_wanted", "superseded")
    return dict.fromkeys(names, 0) | {"refused": {}} | counts


async def test_completeness_route_tells_what_is_there_what_is_missing_and_who_has_it(tmp_path: Path) -> None:
    refusing = ScriptedSink("picky", script=[Reject(refused={0: "mtr_0003"})])
    choosy = ScriptedSink("choosy", wanted=lambda device: device == "bat-2")
    async with street(tmp_path, refusing, choosy, ScriptedSink("idle")) as s:
        for delivery in s.deliveries[:2]:
            async with service(delivery.run):
                await until(lambda d=delivery: d.position.live.row > 0)  # type: ignore[misc]
        page = await s.rig.ask("GET", "/v1/completeness", params={"day": rfc3339(DAY_MS)[:10]})
        assert (page["total"], page["next"]) == (3, None)
        found = ledger(page)
        one = found["bat-1"]
        assert (one["expected"], one["stored"], one["complete"], one["revised"]) == (288, 10, 10, 0)
        assert one["missing"] == {"nobody_heard": 288 - 12, "silent": 2}
        assert {"start": at(4), "end": at(6), "intervals": 2, "reason": "silent"} in one["gaps"]
        assert found["bat-2"]["revised"] == 1
        assert found["bat-0"]["sinks"] == {
            "picky": at_sink(sent=12, accepted=11, refused={"mtr_0003": 1}),
            "choosy": at_sink(not_wanted=12),
            "idle": at_sink(waiting=12),
        }
        assert found["bat-2"]["sinks"]["choosy"] == at_sink(sent=12, accepted=12)


async def test_completeness_route_pages_and_picks_devices(tmp_path: Path) -> None:
    async with street(tmp_path) as s:
        day = {"day": rfc3339(DAY_MS)[:10]}
        first = await s.rig.ask("GET", "/v1/completeness", params=day | {"limit": "2"})
        assert ([*ledger(first)], first["next"]) == (["bat-0", "bat-1"], 2)
        rest = await s.rig.ask("GET", "/v1/completeness", params=day | {"limit": "2", "offset": "2"})
        assert ([*ledger(rest)], rest["next"]) == (["bat-2"], None)
        one = await s.rig.ask("GET", "/v1/completeness", params=day | {"device": "bat-1"})
        assert [*ledger(one)] == ["bat-1"]
        assert (await s.rig.ask("GET", "/v1/completeness"))["day"] == day["day"]


async def test_completeness_route_refuses_what_it_cannot_tell(tmp_path: Path) -> None:
    async with street(tmp_path) as s:

        async def problems(**query: str) -> list[str]:
            answer = await s.rig.ask("GET", "/v1/completeness", params=query, status=400)
            found: list[str] = answer["problems"]
            return found

        assert await problems(device="bat-9", tag="x") == ["device: bat-9: not registered", "tag: x: no device has it"]
        assert await problems(day="2099-01-01") == ["day: 2099-01-01 has not begun"]
        assert "day" in (await problems(day="yesterday"))[0]
        assert "colour" in (await problems(colour="red"))[0]


async def test_sinks_route_tells_what_waits_and_what_is_parked(tmp_path: Path) -> None:
    async with street(tmp_path, ScriptedSink("picky", script=[Reject(refused={0: "bad", 5: "bad"})])) as s:
        (waiting,) = (await s.rig.ask("GET", "/v1/sinks"))["sinks"]
        assert (waiting["backlog"], waiting["parked"]) == (35, {})
        await s.delivered()
        (done,) = (await s.rig.ask("GET", "/v1/sinks"))["sinks"]
        assert (done["backlog"], done["parked"], done["accepted"], done["failing"]) == (0, {"bad": 2}, 33, None)


async def test_retry_route_lets_a_sink_go_on_that_stopped(tmp_path: Path) -> None:
    sink = ScriptedSink("picky", script=[Stop(reason="http_400", detail="schema is required")])
    async with street(tmp_path, sink) as s:
        async with service(s.deliveries[0].run):
            await until(lambda: s.deliveries[0].stats.stopped)
            (state,) = (await s.rig.ask("GET", "/v1/sinks"))["sinks"]
            assert (state["failing"], state["stopped"], state["detail"]) == ("http_400", True, "schema is required")
            assert await s.rig.ask("POST", "/v1/sinks/picky/retry", json={}) == {"sink": "picky"}
            await until(lambda: s.deliveries[0].stats.accepted == 35)
        assert (await s.rig.ask("POST", "/v1/sinks/other/retry", json={}, status=404))["error"] == "no such sink"
        (state,) = (await s.rig.ask("GET", "/v1/sinks"))["sinks"]
        assert (state["failing"], state["stopped"]) == (None, False)


async def test_resend_route_sends_parked_records_or_a_stretch_once_more(tmp_path: Path) -> None:
    sink = ScriptedSink("picky", script=[Reject(refused={0: "bad", 34: "bad"})])
    async with street(tmp_path, sink) as s:
        await s.delivered()
        stretch = {"from": at(0), "to": at(12)}
        report = await s.rig.ask("POST", "/v1/sinks/picky/resend", json=stretch | {"parked": True})
        assert report == {"marked": 2}
        await s.delivered()
        assert [(r.device, r.revision) for r in sink.got[-1].rows] == [("bat-0", 1), ("bat-2", 2)]
        assert (await s.rig.ask("GET", "/v1/sinks"))["sinks"][0]["parked"] == {}
        body = {"from": at(3), "to": at(5), "devices": ["bat-1", "bat-2"]}
        assert await s.rig.ask("POST", "/v1/sinks/picky/resend", json=body) == {"marked": 3}
        await s.delivered()
        assert {(r.device, r.start_ms) for r in sink.got[-1].rows} == {
            ("bat-1", T0 + 3 * LENGTH_MS), ("bat-2", T0 + 3 * LENGTH_MS), ("bat-2", T0 + 4 * LENGTH_MS),
        }  # fmt: skip
        assert sink.got[-1].again
        assert (await s.rig.ask("POST", "/v1/sinks/other/resend", json=body, status=404))["error"] == "no such sink"
        bad: Callable[..., Any] = lambda **b: s.rig.ask("POST", "/v1/sinks/picky/resend", json=b, status=400)  # noqa: E731
        assert "from" in (await bad(to=at(1)))["problems"][0]
        assert (await bad(**{"from": at(5), "to": at(3)}))["problems"] == ["to: must be later than from"]


async def test_resend_route_brings_what_a_receiver_did_not_want_when_its_turn_came(tmp_path: Path) -> None:
    meters: set[str] = set()
    async with street(tmp_path, ScriptedSink("leap", wanted=lambda device: device in meters)) as s:
        await s.delivered()
        meters.add("bat-0")
        question = {"day": rfc3339(DAY_MS)[:10], "device": "bat-0"}
        page = await s.rig.ask("GET", "/v1/completeness", params=question)
        assert ledger(page)["bat-0"]["sinks"]["leap"] == at_sink(not_wanted=12)
        stretch = {"from": at(0), "to": at(12)}
        assert await s.rig.ask("POST", "/v1/sinks/leap/resend", json=stretch) == {"marked": 12}
        await s.delivered()
        page = await s.rig.ask("GET", "/v1/completeness", params=question)
        assert ledger(page)["bat-0"]["sinks"]["leap"] == at_sink(sent=12, accepted=12)


def lack(device: str | None, first: int, last: int) -> MissingInterval:
    return MissingInterval(
        device=None if device is None else DeviceId(device), meter_id="m-1", start_ms=T0 + first * LENGTH_MS,
        end_ms=T0 + last * LENGTH_MS, status="OPEN", data_type="PERFORMANCE_DATA", deadline_ms=None,
    )  # fmt: skip


async def test_missing_route_asks_the_receiver_and_resend_brings_what_it_lacks(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    answers: list[list[MissingInterval] | Keep] = []

    class Asked:
        async def missing(self, from_ms: int, to_ms: int) -> list[MissingInterval] | Keep:
            asked.append((from_ms, to_ms))
            return answers.pop(0)

    sink = ScriptedSink("picky")
    async with street(tmp_path, sink, ScriptedSink("mute"), auditable={"picky": Asked()}) as s:
        await s.delivered()
        stretch = {"from": at(0), "to": at(12)}
        answers += [[lack("bat-1", 3, 5), lack(None, 0, 1)]] * 2 + [Keep(reason="http_503")] * 2
        found = (await s.rig.ask("GET", "/v1/sinks/picky/missing", params=stretch))["missing"]
        assert [(row["device"], row["start"], row["end"]) for row in found] == [
            ("bat-1", at(3), at(5)), (None, at(0), at(1)),
        ]  # fmt: skip
        report = await s.rig.ask("POST", "/v1/sinks/picky/resend", json=stretch | {"missing": True})
        assert report == {"marked": 1}
        await s.delivered()
        assert [(r.device, r.start_ms) for r in sink.got[-1].rows] == [("bat-1", T0 + 3 * LENGTH_MS)]
        assert asked == [(T0, T0 + 12 * LENGTH_MS)] * 2
        for method, path, how in (
            ("GET", "/v1/sinks/picky/missing", {"params": stretch}),
            ("POST", "/v1/sinks/picky/resend", {"json": stretch | {"missing": True}}),
        ):
            answer = await s.rig.ask(method, path, status=502, **how)
            assert answer["problems"] == ["picky could not be asked: http_503"]
        await s.rig.ask("GET", "/v1/sinks/mute/missing", params=stretch, status=404)
        await s.rig.ask("GET", "/v1/sinks/picky/missing", status=400)
        both = stretch | {"missing": True, "parked": True}
        assert (
            "one of them" in (await s.rig.ask("POST", "/v1/sinks/picky/resend", json=both, status=400))["problems"][0]
        )
