"""An evening of the aggregator's dispatch, once through: broker, homes, gateway and aggregator as real processes.

It is the fourteenth of August 2026, a quarter past seven in California, for everybody. On one street resource adequacy
(two adjacent slots, the second cut by the hour-ahead market) and DSGS (the most, exports count) are dispatched at once;
on another DSGS is changed, reduced and called off; of a third the webhook is lost. The gateway is killed between
storing a message and its answer being heard, the aggregator is away over the start, and fifty old messages come again
in any order. At last quarter hours go up. Times of the story are seconds after the start; `hour_s` stands for an hour.
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simulators import evening_files, evening_judge, oracle, processes
from simulators.clock import MovedClock
from simulators.evening_doors import Door, ShareAsker
from simulators.evening_judge import EveningVerdict, Told
from simulators.evening_street import (
    CHANGED_KW,
    CUT,
    FIRST_KW,
    LATER_MS,
    QUARTER_MS,
    RA,
    REDUCED_KW,
    Street,
    event_name,
    make_street,
)
from simulators.firmware import FirmwareFleet
from simulators.platform import Platform
from simulators.view import Facts, View

BEGINS = datetime(2026, 8, 15, 1, 59, 20, tzinfo=UTC)
LIVED_S = 890
"""For so long the homes have lived when the gateway comes: the quarter of an hour that runs is whole."""

NIGHT_S = 30.0
"""Of the homes' time in one go, while nobody listens."""

LIVE_S, ENERGY_S, GRACE_S = 1.0, 1.0, 3
LEAD_S, AWAY_FROM_S, AWAY_S = 8.0, 1.5, 6.5
STEP = 1.5
PARTS = 2.5
"""The evening lasts so many hours of the story."""

COPIES, SPREAD_S = 10, 5.0
START_S, RELEASED_S_MAX, UPLOADED_S_MAX, DRAIN_S = 180.0, 90.0, 120.0, 60.0
ABOUT_TO_BEGIN_MS = 600_000
SORTS = (("extra_fields", True), ("null_tokens", True), ("outside_window", True), ("offset_pages", True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`hour_s`: length of a slot of resource adequacy; `interval_s`: of the intervals that the platform gets;
    `operator`: somebody asks for a search once the aggregator is back, and after a change, so that a short evening does
    not wait for the gateway's own."""

    devices: int = 200
    hour_s: float = 60.0
    interval_s: int = 10
    broker: str = "auto"
    operator: bool = False
    seed: int = 7
    quiet: bool = False
    keep: Path | None = None


class Evening:
    """One run."""

    def __init__(self, options: Options, directory: Path, view: View) -> None:
        self.options = options
        self.view = view
        self.verdict = EveningVerdict()
        self.street: Street = make_street(options.devices, options.seed)
        self._rng = random.Random(options.seed)
        self._directory = directory
        broker_port, self._http_port, peer_port = (processes.free_port() for _ in range(3))
        self._broker_port, self._peer_url = broker_port, f"http://127.0.0.1:{peer_port}"
        self._url = f"http://127.0.0.1:{self._http_port}"
        self._broker = processes.broker(options.broker, broker_port, directory)
        self._peer = processes.Child(
            "aggregator",
            [sys.executable, "-m", "simulators.aggregator", "--port", str(peer_port), "--key", evening_files.KEY],
            directory / "aggregator.log",
        )
        self._config = directory / "gateway.yaml"
        now_ms = MovedClock().utc_ms()
        self.clock = MovedClock(by_ms=round(BEGINS.timestamp() * 1000) - now_ms)
        self._fleet = FirmwareFleet(
            self.street.homes, f"mqtt://127.0.0.1:{broker_port}", self.clock, live_s=LIVE_S, energy_s=ENERGY_S,
            guard=False, day_s=19 * 3_600.0,
        )  # fmt: skip
        self._books = evening_judge.Books()
        self._fleet.on_tick = self._book
        self._platform = Platform(mqtt_url=f"mqtt://127.0.0.1:{broker_port}")
        self._gateway = processes.gateway(self._config, directory)
        self._aggregator, self._rest = Door(self._peer_url), Door(self._url, token=evening_files.TOKEN)
        self._asker = ShareAsker(door=self._rest, clock=self.clock)
        self._lived_ms = self._start_ms = self._ready_ms = self._restarted_ms = 0
        self._told: dict[str, Told] = {}
        self._bodies: dict[str, list[dict[str, Any]]] = {}

    # -- setting up ------------------------------------------------------------------------------------------

    async def run(self) -> EveningVerdict:
        """Play it and judge it. Every process is ended whatever happens."""
        async with AsyncExitStack() as stack:
            for child in (self._broker, self._peer, self._gateway):
                stack.push_async_callback(child.stop)
            await self._broker.start()
            await self._peer.start()
            await processes.wait_port(self._broker_port, alive=self._broker)
            await processes.wait_port(int(self._peer_url.rpartition(":")[2]), alive=self._peer)
            for door in (self._aggregator, self._rest):
                await stack.enter_async_context(door)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = [tasks.create_task(self._platform.run(), name="platform")]
            try:
                await asyncio.wait_for(self._platform.ready.wait(), 20)
                await self._set_up()
                running += [
                    tasks.create_task(self._fleet.run(), name="fleet"),
                    tasks.create_task(self._asker.run(), name="asker"),
                    tasks.create_task(self._watch(), name="view"),
                ]
                await self._story()
            finally:
                for task in running:
                    task.cancel()
        return self.verdict

    async def _set_up(self) -> None:
        street, n = self.street, len(self.street.homes)
        self._phase("registering homes", f"{n} batteries, {len(street.both)} of them in both programs")
        evening_files.write(
            self._directory, street, config=self._config, broker_port=self._broker_port, http_port=self._http_port,
            receiver_url=self._platform.url, aggregator_url=self._peer_url, interval_s=self.options.interval_s,
            grace_s=GRACE_S, hour_s=self.options.hour_s,
        )  # fmt: skip
        await processes.gateway_cli(
            self._directory, "devices", "import", str(self._directory / evening_files.INVENTORY), "--offline",
            "--config", str(self._config), env=evening_files.ENVIRONMENT,
        )  # fmt: skip
        self._live_before(LIVED_S)
        self._lived_ms = self.clock.away_ms
        await self._aggregator.ask("POST", "/_control/clock", {"skew_ms": self.clock.by_ms + self.clock.away_ms})
        meters = {street.device_meters[i]: "2026-05-01" for i in street.uploading}
        await self._aggregator.ask("POST", "/_control/interval_meters", meters)
        await self._aggregator.ask("POST", "/_control/mischief", dict(SORTS))
        await self._start_gateway("a process of its own, beside the broker and the aggregator")
        rows = await self._rest.table("/v1/enrollments", street.enrollments())
        if rows["rejected"]:
            raise RuntimeError(f"enrollments are refused: {rows['rejected'][:3]}")
        webhook = {
            "url": f"{self._url}/v1/signals/leap/meter",
            "headers": [{"name": "X-Leap-Secret", "value": evening_files.SECRET}],
        }
        async with Door(self._peer_url, token=evening_files.KEY) as account:
            await account.ask("PUT", "/v2/dispatch/meter/webhook", webhook)

    def _live_before(self, seconds: int) -> None:
        """The homes' time before anybody listens: they keep what they measure."""
        devices = self._fleet.devices
        for second in range(1, seconds + 1):
            self.clock.passed(1_000)
            devices.step(self.clock.utc_ms(), 1.0)
            if second % int(NIGHT_S) == 0 or second == seconds:
                devices.make_energy(self.clock.utc_ms())
                self._book(self.clock.utc_ms())

    async def _start_gateway(self, why: str) -> None:
        self._phase("starting the gateway", why)
        passed_ms = self.clock.away_ms - self._lived_ms
        self._gateway.command[1:] = [
            "-m", "simulators.moved", str(self.clock.by_ms + self._lived_ms), str(passed_ms), "run", "--config",
            str(self._config),
        ]  # fmt: skip
        self._gateway.env |= evening_files.ENVIRONMENT
        await self._gateway.start()
        await processes.wait_port(self._http_port, alive=self._gateway, timeout_s=START_S)

    # -- the story -------------------------------------------------------------------------------------------

    async def _story(self) -> None:
        self._phase("first readings", "homes connect, report, and hand over what they kept")
        await self._heard()
        self._ready_ms = self.clock.utc_ms()
        await self._killed()
        self._start_ms = self.clock.utc_ms() + round(LEAD_S * 1000)
        await self._dispatched()
        await self._away()
        await self._again()
        await self._reduced()
        await self._until(PARTS * self.options.hour_s)
        self._phase("staggered release", "the evening is over; batteries go back to their makers' own modes")
        await self._all_released()
        await self._finish()
        await self._night()

    async def _heard(self) -> None:
        """Until the gateway has a reading of every battery."""
        await self._rest.until(
            "/v1/devices?limit=1000", lambda r: all(one["soc_pct"] is not None for one in r["devices"]),
            "a reading of each",
        )  # fmt: skip

    async def _killed(self) -> None:
        """The first message is stored; before its answer is heard, the gateway dies. It is told again later."""
        start_ms = self.clock.utc_ms() + ABOUT_TO_BEGIN_MS
        end_ms = start_ms + round(self.options.hour_s * 1000)
        first = self.street.dsgs("changed", self.street.changed, start_ms, end_ms, energy_kw=FIRST_KW)
        self._bodies["first"] = first
        self._tell("changed", self.street.changed, first)
        folder = self._directory / "state" / "leap-dispatch"
        await self._push(first, {"answers_lost": 1, "waits_s": [3.0] * 20})
        deadline = asyncio.get_running_loop().time() + 30
        while not any(p.suffix == ".meter" for name in ("inbox", "done") for p in (folder / name).iterdir()):
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError("the first message was not stored")
            await asyncio.sleep(0.005)
        await self._gateway.kill()
        self.view.note("the gateway is killed (SIGKILL): it has stored a message, and nobody has heard its answer")
        before_ms = self.clock.utc_ms()
        await self._start_gateway("the same state directory")
        self._restarted_ms = self.clock.utc_ms()
        await self._heard()
        await self._rest.until(
            "/v1/leap/dispatch", lambda r: r["searched"] is not None and _ms(r["searched"]) > before_ms, "a search"
        )

    async def _dispatched(self) -> None:
        """Resource adequacy and DSGS on the same homes; the first dispatch is changed; of one nobody hears."""
        street, hour_ms = self.street, round(self.options.hour_s * 1000)
        begin, middle, end = self._start_ms, self._start_ms + hour_ms, self._start_ms + round(PARTS * hour_ms)
        everything: list[dict[str, Any]] = []
        for part, batteries, later_ms in (("stacked", street.stacked, 0), ("uploading", street.uploading, LATER_MS)):
            at, half, over = begin + later_ms, begin + later_ms + hour_ms // 2, end + later_ms
            slots = [
                street.adequacy("ra-1", batteries, at, middle + later_ms, RA),
                street.adequacy("ra-2", batteries, middle + later_ms, middle + later_ms + hour_ms, RA),
            ]
            self._bodies[f"{part}-uncut"] = slots[1]
            self._bodies[f"{part}-cut"] = street.adequacy(
                "ra-2", batteries, middle + later_ms, middle + later_ms + hour_ms, CUT
            )
            exports = street.dsgs("dsgs", batteries, half, over)
            self._tell(f"{part}: adequacy", batteries, *slots)
            self._tell(f"{part}: DSGS", batteries, exports)
            everything += [*slots[0], *slots[1], *exports]
        self._bodies["changed"] = street.dsgs("changed", street.changed, begin + LATER_MS, end, energy_kw=CHANGED_KW)
        self._bodies["unheard"] = street.dsgs("unheard", street.unheard, begin, end)
        self._tell("unheard", street.unheard, self._bodies["unheard"])
        self.view.note(f"{len(everything)} slots by webhook: adequacy and DSGS on the same homes, in {LEAD_S:.0f} s")
        self._bodies["everything"] = everything
        await self._push(everything, {})
        await self._push(self._bodies["changed"], {})
        self.view.note(f"a dispatch is changed: {FIRST_KW} to {CHANGED_KW} kW, and to begin now")
        await self._search()
        self._phase("the evening", "resource adequacy first, DSGS half an hour later")

    async def _away(self) -> None:
        """The aggregator is away over the start; meanwhile it decides things that nobody hears of."""
        await self._until(-AWAY_FROM_S)
        begin_ms = self.clock.utc_ms()
        outage = {"start_ms": begin_ms, "end_ms": begin_ms + round(AWAY_S * 1000)}
        await self._aggregator.ask("POST", "/_control/outage", outage)
        self.view.note(f"the aggregator is away for {AWAY_S:.1f} s, over the start")
        await self._push(self._bodies["unheard"], {"lost": True})
        await self._until(AWAY_S - AWAY_FROM_S + 0.3)
        self.view.note("it is back; it has lost a webhook, and the hour-ahead market has cut the second hour")
        for part in ("stacked", "uploading"):
            await self._push(self._bodies[f"{part}-cut"], {})
        await self._search()

    async def _again(self) -> None:
        """Old messages come again, as often and in whatever order."""
        old = ("first", "changed", "everything", "unheard", "stacked-uncut")
        bodies = [self._bodies[name] for name in old for _ in range(COPIES)]
        self._rng.shuffle(bodies)
        for body in bodies:
            late = {"delay_s": self._rng.uniform(0, SPREAD_S)}
            await self._aggregator.ask("POST", "/_control/batch", {"events": body, "push": late, "known": False})
        self.view.note(f"{len(bodies)} old messages come again within {SPREAD_S:.0f} s, in any order")

    async def _reduced(self) -> None:
        """A dispatch is reduced while it runs, and then called off."""
        hour_s = self.options.hour_s
        changed = self._bodies["changed"]
        await self._until(1.3 * hour_s)
        reduced = [_with(one, energy_kw=REDUCED_KW) for one in changed]
        await self._push(reduced, {})
        await self._search()
        self.verdict.reduced_ms = self.clock.utc_ms()
        self.view.note(f"a dispatch is reduced to {REDUCED_KW} kW while it runs")
        await self._until(2.0 * hour_s)
        await self._push([_with(one, cancelled=True) for one in reduced], {})
        await self._search()
        self.verdict.cancelled_ms = self.clock.utc_ms()
        self.view.note("and called off")

    async def _push(self, events: Sequence[dict[str, Any]], manner: dict[str, Any]) -> None:
        """The aggregator decides this, and posts it in one message."""
        await self._aggregator.ask("POST", "/_control/batch", {"events": list(events), "push": manner})

    async def _search(self) -> None:
        """Somebody asks for a search, once what was posted is here; otherwise the gateway searches by itself."""
        if not self.options.operator:
            return
        await self._aggregator.ask("POST", "/_control/deliver", {})
        await self._rest.ask("POST", "/v1/leap/catch-up", {})

    def _tell(self, name: str, batteries: Sequence[int], *slots: Sequence[dict[str, Any]]) -> None:
        self._told[name] = Told(name=name, event=event_name(*slots), batteries=tuple(batteries))

    # -- the end ---------------------------------------------------------------------------------------------

    async def _all_released(self) -> None:
        """Until no home is under control, within a bound."""
        deadline = asyncio.get_running_loop().time() + RELEASED_S_MAX
        while asyncio.get_running_loop().time() < deadline and self._fleet.devices.steered.any():
            await asyncio.sleep(0.3)
        await asyncio.sleep(1.5)

    async def _finish(self) -> None:
        """Let the last interval arrive, then judge what the platform has, what homes did and what they were told."""
        self._phase("last intervals", "the platform waits for what is still on its way")
        interval_ms = self.options.interval_s * 1000
        await self._until(PARTS * self.options.hour_s + self.options.interval_s + GRACE_S + 2)
        until_ms = self.clock.utc_ms() - (GRACE_S + 1) * 1000
        ids, slow = self.street.homes.ids, {*self.street.uploading}
        heard = [m for m in self._fleet.acked if m.t_ms > self._ready_ms + 1_000 and m.index not in slow]
        expected = oracle.expected_intervals(heard, ids, length_s=self.options.interval_s, until_ms=until_ms)
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        while asyncio.get_running_loop().time() < deadline and (
            any(book.completeness(expected).missing for book in (self._platform.by_http, self._platform.by_mqtt))
        ):
            await asyncio.sleep(0.3)
        self._gateway.check()
        trace, verdict, street = self._fleet.recorder.trace(), self.verdict, self.street
        oracle.judge_intervals(self._platform.by_http, expected, verdict, path="http")
        oracle.judge_intervals(self._platform.by_mqtt, expected, verdict, path="mqtt")
        oracle.judge_safety(trace, street.homes, verdict)
        oracle.judge_end(trace, verdict)
        members = [oracle.Window(id=one.event, start_ms=0, end_ms=0, target_w=0.0, members=one.batteries)
                   for one in self._told.values()]  # fmt: skip
        for window in members:
            oracle.judge_ended(window, ids, self._platform.deliveries, verdict)
        over_ms = self._start_ms + round(PARTS * self.options.hour_s * 1000)
        inside = (trace.t_ms >= self._start_ms) & (trace.t_ms < over_ms)
        peak_w = float(oracle.on_grid_total(trace)[inside].max(initial=1.0))
        # in so short an hour the governor is fast: what it lets batteries do is no step, nor that they lag differently
        largest_w = evening_files.governor_w_per_s(street, self.options.hour_s) * STEP
        oracle.judge_steps(trace, peak_w, max(largest_w, float(street.homes.discharge_w_max.max())), verdict)
        stacking = evening_judge.Stacking(
            homes=street.homes, trace=trace, answers=self._asker.answers, start_ms=self._start_ms, end_ms=over_ms,
            hour_ms=round(self.options.hour_s * 1000),
        )  # fmt: skip
        adequacy, exports = self._told["stacked: adequacy"], self._told["stacked: DSGS"]
        evening_judge.judge_shares(
            stacking, adequacy, exports, self._platform.by_http.latest(), interval_ms, verdict, later_ms=0
        )
        evening_judge.judge_moments(trace, self._asker.answers, self._told, verdict)
        for part, (reached, limits) in self._limits(over_ms).items():
            evening_judge.judge_sequence(
                trace, self._fleet.devices.commands_seen, self._told[part], reached, limits, verdict, homes=street.homes
            )

    def _limits(self, over_ms: int) -> dict[str, tuple[tuple[int, int], list[tuple[int, int, float]]]]:
        """Of each part of the street: from when until when each home must have been told once, and the most that it may
        be told then, W."""
        return evening_judge.limits(
            self.verdict, self._start_ms, over_ms, hour_ms=round(self.options.hour_s * 1000),
            search_ms=5_000 if self.options.operator else 40_000,
        )  # fmt: skip

    async def _night(self) -> None:
        """Until the quarter of an hour is over the gateway is off, then it is started again and quarters go up."""
        await self._gateway.stop()
        self._phase(
            "the night", "the gateway is off until the quarter of an hour is over; homes keep what they measure"
        )
        now_ms = self.clock.utc_ms()
        until_ms = (self._start_ms + round(PARTS * self.options.hour_s * 1000)) // QUARTER_MS * QUARTER_MS + QUARTER_MS
        while (left_ms := until_ms + 60_000 - self.clock.utc_ms()) > 0:
            self.clock.passed(min(round(NIGHT_S * 1000) - 2_000, left_ms))
            await asyncio.sleep(0.25)
        self.view.note(f"{(self.clock.utc_ms() - now_ms) / 60_000:.1f} minutes later")
        await self._aggregator.ask("POST", "/_control/clock", {"skew_ms": self.clock.by_ms + self.clock.away_ms})
        await self._start_gateway("quarter hours are whole")
        quarters = self._quarters(until_ms)
        wanted = {(self.street.device_meters[i], at) for i in self.street.uploading for at in quarters}
        await self._aggregator.until(
            "/_control/accepted", lambda rows: wanted <= {(one["meter_id"], one["start_ms"]) for one in rows},
            "the aggregator has accepted every quarter", within_s=UPLOADED_S_MAX,
        )  # fmt: skip
        rows = await self._aggregator.ask("GET", "/_control/accepted")
        evening_judge.judge_uploads(rows, self.street, self._books, quarters, self.verdict)

    def _quarters(self, until_ms: int) -> list[int]:
        first_ms = -(-round(BEGINS.timestamp() * 1000) // QUARTER_MS) * QUARTER_MS
        return list(range(first_ms, until_ms, QUARTER_MS))

    def _phase(self, name: str, about: str) -> None:
        self.view.facts.phase = name
        self.view.note(f"{name}: {about}")

    async def _until(self, second: float) -> None:
        """Wait for a second of the story."""
        await asyncio.sleep(max(0.0, self._start_ms / 1000 + second - self.clock.utc_ms() / 1000))

    def _book(self, now_ms: int) -> None:
        batteries = self._fleet.devices.batteries
        self._books.note(now_ms, batteries.discharged_wh, batteries.charged_wh)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.view.update(self._look)

    def _look(self, facts: Facts) -> None:
        batteries = self._fleet.devices.batteries
        facts.fleet_w = float(np.sum(batteries.battery_w))
        facts.devices = len(self.street.homes)
        facts.under_control = int(self._fleet.devices.steered.sum())
        facts.intervals_http, facts.intervals_mqtt = len(self._platform.by_http), len(self._platform.by_mqtt)
        facts.total_s = 60 + PARTS * self.options.hour_s


def _with(event: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return event | {"slot": event["slot"] | fields}


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def play(options: Options) -> EveningVerdict:
    """Run the evening in a scratch directory (kept on request)."""
    with tempfile.TemporaryDirectory(prefix="aggregator-evening-", ignore_cleanup_errors=True) as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        with View(quiet=options.quiet) as view:
            return await Evening(options, directory, view).run()
