"""The whole thing once: broker, homes, gateway, platform, faults, kills, an outage; judged from outside.

The gateway is a real process, started and killed like one. Times of the story are seconds after the event's start.
`docs/architecture.md` says what each phase proves.
"""

import asyncio
import errno
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simulators import demo_cast, demo_events, demo_files, oracle, performance, processes, truth
from simulators.clock import RealClock
from simulators.disturbances import Disturbance
from simulators.faces.catalogue import FACES
from simulators.firmware import FirmwareFleet
from simulators.homes import Homes, make_homes, well_stocked
from simulators.inventory import periods_s, write_inventory
from simulators.platform import Outage, Platform
from simulators.polled import PolledHomes, places
from simulators.told import Asker
from simulators.view import Facts, View

INTERVAL_S = 60
GRACE_S = 5
WARM_UP_S = 3.0
LEAD_S = 2.0
EVENT_S = 113.0
SILENCE_S = 60.0
"""Length of the event of homes that need a minute of silence to be released: they are back when the others are."""
RELEASE_SPREAD_S = 16.0
RELEASED_S_MAX = 100.0
RECHARGE_S = 20.0
SETTLED_S, AGAIN_S = 77.0, 30.0
"""When the recharge begins in an event: once the platform's HTTP side is back, or so long after what lasted."""
CHARGED_S = 15.0
"""How long before the end of the event the recharge is over."""
SHARE_OF_CAPACITY = 0.56
DISCHARGE, SILENCE, RECHARGE = "demo-discharge", "demo-silence", "demo-recharge"
RECHARGE_SHARE = 0.5
WHOLE_RAMP_S = 132.0
"""The governor would take so long from nothing to the power of all batteries."""
LIVE_S = 1.0
ENERGY_S = 5.0
DRAIN_S = 30.0
RECORDS_PCT, READING_S, CHECKPOINT_S = 3.0, 6.0, 10.0
"""What records may be off. Readings are a few seconds old, and what a ramp gains meanwhile is not in them; of a gateway
that is killed, what it saw since its last checkpoint is not in them either."""
POLLED_SINCE_S = 20.0
"""Polled devices are connected one after the other; an interval that began before counts for nobody."""
ON_BROKER = frozenset({"hoymiles-ms-a2"})
"""Products that are not on the reference protocol and whose readings go through the broker all the same."""

TOKEN = "demo-token-0123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run. `each`: homes of every polled product among the devices; `event_s`: length of the discharge event;
    `disturbance` in mid-event: kill | term (the gateway, with SIGKILL or SIGTERM, and started again) | broker (killed,
    and started again after a while) | freeze (the broker stopped with SIGSTOP, and continued) | blind (no live readings
    of the devices on MQTT, while commands and their answers work)."""

    devices: int = 200
    each: int = 3
    event_s: float = EVENT_S
    broker: str = "auto"
    chaos: bool = True
    disturbance: str = "kill"
    seed: int = 7
    quiet: bool = False
    keep: Path | None = None


class Demo:
    """One run."""

    def __init__(self, options: Options, directory: Path, view: View) -> None:
        self.options = options
        self.view = view
        self._directory = directory
        self._broker_port = processes.free_port()
        self._http_port = processes.free_port()
        # one home of every polled product has much to give: each is to be seen at work
        shown = places(options.devices, options.each)[: len(FACES)]
        self.homes: Homes = well_stocked(make_homes(options.devices, options.seed), shown)
        self.verdict = oracle.Verdict()
        self._planted = 0
        self._windows: list[oracle.Window] = []
        self._broker = processes.broker(options.broker, self._broker_port, directory)
        self._config = directory / "gateway.yaml"
        self._gateway = processes.gateway(self._config, directory)
        self._fleet_url = f"mqtt://127.0.0.1:{self._broker_port}"
        self._fleet = FirmwareFleet(
            self.homes, self._fleet_url, RealClock(),
            live_s=LIVE_S, energy_s=ENERGY_S, guard=False, record_s=1_200,
        )  # fmt: skip
        self._polled = PolledHomes(self._fleet, each=options.each, broker_url=self._fleet_url)
        self._ready_ms = 0
        self._registered_ms = (0, 0)
        self._platform = Platform(
            mqtt_url=f"mqtt://127.0.0.1:{self._broker_port}",
            gateway_url=f"http://127.0.0.1:{self._http_port}",
            token=TOKEN,
        )
        self._disturbance = Disturbance(
            kind=options.disturbance, broker=self._broker, gateway=self._gateway, fleet=self._fleet, view=view,
            start_gateway=self._start_gateway,
        )  # fmt: skip
        self._asker = Asker(url=f"http://127.0.0.1:{self._http_port}", token=TOKEN, event=DISCHARGE)
        self._fleet_started_ms = self._fleet.now_ms()
        self._start_ms = 0
        self._groups = demo_events.Groups(discharge=(), silence=(), recharge=())

    # -- setting up ------------------------------------------------------------------------------------------

    def _write_files(self) -> Path:
        reserve_pct = self._fleet.devices.batteries.reserve_pct
        capacity_w = float(self.homes.discharge_w_max.sum())
        programs = self._directory / "programs"
        performance.write_program(programs, demo_events.PROGRAM, INTERVAL_S)
        self._config.write_text(
            demo_files.configuration(
                broker_port=self._broker_port, http_port=self._http_port, receiver_url=self._platform.url,
                interval_s=INTERVAL_S, grace_s=GRACE_S, fleet_w_per_s=capacity_w / WHOLE_RAMP_S,
                release_spread_s=RELEASE_SPREAD_S, programs_dir=str(programs),
            ),
            encoding="utf-8",
        )  # fmt: skip
        inventory = self._directory / "devices.csv"
        write_inventory(inventory, self.homes, reserve_pct, self._polled)
        return inventory

    # -- the story -------------------------------------------------------------------------------------------

    async def run(self) -> oracle.Verdict:
        """Play it and judge it. Every process is ended whatever happens."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._broker.stop)
            stack.push_async_callback(self._gateway.stop)
            await self._broker.start()
            await processes.wait_port(self._broker_port, alive=self._broker)
            stack.push_async_callback(self._polled.stop)
            await self._polled.start()
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            running = [
                tasks.create_task(self._platform.run(), name="platform"),
                tasks.create_task(self._fleet.run(), name="fleet"),
                tasks.create_task(self._watch(), name="view"),
                tasks.create_task(self._asker.run(), name="asker"),
            ]
            try:
                await self._story()
            finally:
                for task in running:
                    task.cancel()
        return self.verdict

    async def _story(self) -> None:
        await asyncio.wait_for(self._platform.ready.wait(), 20)
        await self._fleet.wait_connected(20)
        self.cast = demo_cast.choose(self._fleet, self.homes, self.options.seed)
        inventory = self._write_files()
        self._gateway.env |= {"DEMO_TOKEN": TOKEN} | self._polled.environment()
        count, polled = len(self.homes), len(self._polled.faces)
        self._phase(
            "registering homes", f"{count} homes, {polled} of them of {len(self._polled.products)} makers' products"
        )
        begun_ms = self._fleet.now_ms()
        await processes.gateway_cli(
            self._directory, "devices", "import", str(inventory), "--offline", "--config", str(self._config),
            env=self._gateway.env,
        )  # fmt: skip
        self._registered_ms = (begun_ms, self._fleet.now_ms())
        self._phase("starting the gateway", "a process of its own, beside the broker")
        await self._start_gateway()
        self._ready_ms = self._fleet.now_ms()
        self._phase("first readings", "homes connect and report")
        await asyncio.sleep(WARM_UP_S)
        await self._discharge()
        self._phase("staggered release", "the event is over; batteries go back to their makers' own modes, in turn")
        await self._all_released()
        if not any(window.id == RECHARGE for window in self._windows):
            await self._recharge()
            self._phase("staggered release", "the recharge is over")
            await self._all_released()
        await self._finish()

    async def _start_gateway(self) -> None:
        await self._gateway.start()
        await processes.wait_port(self._http_port, alive=self._gateway)

    def _phase(self, name: str, about: str) -> None:
        self.view.facts.phase = name
        self.view.note(f"{name}: {about}")

    def _until(self, second: float) -> float:
        """How long until `second` of the event."""
        return max(0.0, second - self._second())

    def _second(self) -> float:
        """The second of the event that it is."""
        return datetime.now(tz=UTC).timestamp() - self._start_ms / 1000

    async def _discharge(self) -> None:
        """The event that is judged minute by minute, with all that goes wrong meanwhile; beside it a short one of homes
        that only silence releases, and a recharge once the rest is under way again."""
        length = self.options.event_s
        batteries = self._fleet.devices.batteries
        able = batteries.available_discharge_w(batteries.reserve_pct + self.homes.soc_uncertainty_pct + 1, length + 60)
        # The homes that fall out do not count as capacity.
        able[self.cast.taken] = 0
        spoken = ~self._fleet.devices.elsewhere
        self._groups = demo_events.groups(
            len(self.homes), silence=self._polled.slow, may_charge=self.homes.grid_charge_allowed & spoken,
            soc_pct=batteries.true_soc_pct, cast=self.cast.taken,
        )  # fmt: skip
        self._start_ms = round((datetime.now(tz=UTC).timestamp() + LEAD_S) * 1000)
        main, silence = self._groups.discharge, self._groups.silence
        await self._post(DISCHARGE, main, length, SHARE_OF_CAPACITY * float(able[list(main)].sum()), who="homes")
        if silence:
            await self._post(
                SILENCE,
                silence,
                min(SILENCE_S, length),
                max(100.0, SHARE_OF_CAPACITY * float(able[list(silence)].sum())),
                who="homes that only a minute of silence releases",
            )
        self.view.facts.phase = "discharge event"
        if self.options.chaos:
            begun_s = (self._start_ms - self._fleet_started_ms) / 1000
            self._planted = demo_cast.plant(self.cast, self._fleet, begun_s=begun_s, length_s=length)
            self.view.note(f"trouble is on its way: {demo_cast.TOLD}")
            await self._disturb(length)
        settled = SETTLED_S if self._disturbance.span_ms is None else self._second() + AGAIN_S
        if max(settled, self._second()) + RECHARGE_S + CHARGED_S <= length:
            await asyncio.sleep(self._until(settled))
            await self._recharge()
            self.view.facts.phase = "discharge event"
        await asyncio.sleep(self._until(length))

    async def _post(self, name: str, members: tuple[int, ...], length_s: float, target_w: float, *, who: str) -> None:
        """An event of these homes over REST, from the start of the story on."""
        window = oracle.Window(
            id=name, start_ms=self._start_ms, end_ms=self._start_ms + round(length_s * 1000),
            target_w=demo_events.whole_hundreds(target_w), members=members,
        )  # fmt: skip
        self._windows.append(window)
        self.view.note(
            f"event over REST: {len(members)} {who} give {window.target_w / 1000:.1f} kW for {length_s:.0f} s,"
            f" in {self._until(0):.0f} s"
        )
        answer = await self._platform.post_event(demo_events.event(window, self.homes.ids))
        if answer.status != 200:
            raise RuntimeError(f"the gateway refused the event: {answer.body.decode(errors='replace')}")

    async def _disturb(self, length: float) -> None:
        await asyncio.sleep(self._until(20))
        await self._platform.set_outage(Outage.REFUSED)
        self.view.note("the platform's HTTP side goes away: intervals wait, and go by MQTT meanwhile")
        await asyncio.sleep(self._until(min(30, length / 3)))
        await self._disturbance.run(length)
        await asyncio.sleep(self._until(min(75, length - 20)))
        await self._platform.set_outage(Outage.NONE)
        self.view.note("the platform's HTTP side is back")

    async def _recharge(self) -> None:
        """A bounded recharge, asked for over MQTT."""
        members = self._groups.recharge
        if not members:
            self.verdict.problems.append("no home may be charged from the grid")
            return
        limit = float(self._fleet.devices.batteries.charge_limit_w()[list(members)].sum())
        start_ms = round((datetime.now(tz=UTC).timestamp() + 1) * 1000)
        window = oracle.Window(
            id=RECHARGE,
            start_ms=start_ms,
            end_ms=start_ms + round(RECHARGE_S * 1000),
            target_w=-demo_events.whole_hundreds(limit * RECHARGE_SHARE),
            members=members,
        )
        self._windows.append(window)
        self.view.facts.phase = "recharge beside it" if self._second() < self.options.event_s else "recharge"
        self.view.note(
            f"event over MQTT: {len(members)} other homes charge with {-window.target_w / 1000:.1f} kW"
            f" for {RECHARGE_S:.0f} s"
        )
        await self._platform.publish_event(demo_events.event(window, self.homes.ids))
        await asyncio.sleep((window.end_ms - self._fleet.now_ms()) / 1000)

    async def _all_released(self) -> None:
        """Until no home is under control, within a bound."""
        deadline = asyncio.get_running_loop().time() + RELEASED_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            if not self._fleet.devices.steered.any():
                # The recorder takes a sample a second: let it see this.
                await asyncio.sleep(1.5)
                return
            await asyncio.sleep(0.5)

    async def _finish(self) -> None:
        """Let the last interval close and arrive, then judge."""
        self._phase("last intervals", "the platform waits for what is still on its way, then everything is judged")
        until_ms = round(datetime.now(tz=UTC).timestamp() * 1000) - (GRACE_S + 5) * 1000
        # What the broker took before the gateway had subscribed went to nobody.
        heard = [message for message in self._fleet.acked if message.t_ms > self._ready_ms + 1_000]
        expected = oracle.expected_intervals(heard, self.homes.ids, length_s=INTERVAL_S, until_ms=until_ms)
        since_ms = self._ready_ms + round(POLLED_SINCE_S * 1000)
        for index, face in self._polled.faces.items():
            expected |= oracle.expected_of_polled(
                [self.homes.ids[index]], length_s=INTERVAL_S, since_ms=since_ms, until_ms=until_ms,
                but=self._unasked_ms() if face.profile in ON_BROKER else None,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        ledgers = (self._platform.by_http, self._platform.by_mqtt)
        while asyncio.get_running_loop().time() < deadline:
            if not any(ledger.completeness(expected).missing for ledger in ledgers):
                break
            await asyncio.sleep(0.5)
        main = self._windows[0]
        await performance.judge(
            f"http://127.0.0.1:{self._http_port}", TOKEN, main, [self.homes.ids[i] for i in main.members or ()],
            self._platform.by_http.latest, self._registered_ms, self.verdict,
        )  # fmt: skip
        self._gateway.check()
        trace = self._fleet.recorder.trace()
        if self.options.keep is not None:
            columns = {f.name: getattr(trace, f.name) for f in fields(trace)}
            np.savez_compressed(self._directory / "trace.npz", **columns)
            told = [(one.asked_ms, one.t_ms, one.delivered_w, one.assumed_w) for one in self._asker.answers]
            np.savez_compressed(self._directory / "told.npz", told=np.array(told), members=self._groups.discharge)
        verdict = self.verdict
        span_ms = self._disturbance.span_ms
        for window in self._windows:
            oracle.judge_tracking(trace, window, verdict, but=span_ms)
        for window in self._windows:
            if window.target_w < 0:
                oracle.judge_charging(trace, window, verdict)
        truth.judge_time(trace, verdict)
        members = list(self._groups.discharge)
        truth.judge_told(
            self._windows[0].of(trace), self._asker.answers,
            periods_s(len(self.homes), self._polled, otherwise_s=LIVE_S)[members],
            truth.unheard_in(trace, self._unheard(), span_ms)[:, members], verdict,
        )  # fmt: skip
        if span_ms is not None and self._disturbance.kind == "freeze":
            spoken = ~self._fleet.devices.elsewhere
            truth.judge_return(trace, spoken, since_ms=span_ms[1], until_ms=self._windows[0].end_ms, verdict=verdict)
        elif span_ms is not None:
            truth.judge_kept(trace, self._windows[0], span_ms, verdict)
        silent = [self.cast.stale] if self.options.chaos else []
        oracle.judge_safety(
            trace, self.homes, verdict, silent=[*silent, *self._unheard()], unheard=self._unheard(), unheard_ms=span_ms
        )
        oracle.judge_steps(trace, self._windows[0].target_w, float(self.homes.discharge_w_max.max()), verdict)
        oracle.judge_end(trace, verdict)
        oracle.judge_intervals(ledgers[0], expected, verdict, path="http")
        oracle.judge_intervals(ledgers[1], expected, verdict, path="mqtt")
        records = [oracle.judge_ended(w, self.homes.ids, self._platform.deliveries, verdict) for w in self._windows]
        oracle.judge_records(
            trace, self._windows[0], records[0], verdict,
            tolerance_pct=RECORDS_PCT
            + 100 * (READING_S + (CHECKPOINT_S if self.options.chaos else 0.0)) / self.options.event_s,
            measured=span_ms is None,
        )  # fmt: skip
        if not self._platform.stats.availability_reports:
            verdict.problems.append("the platform was never told what the fleet can sustain")
        oracle.judge_faults(self._fleet.faults, self._planted, verdict)
        verdict.products = ["reference-mqtt", *self._polled.products]
        oracle.judge_products(trace, self._products(), self._windows[0], verdict)
        if self.options.event_s >= oracle.TRACKING_FROM_S + 60 and not verdict.minutes and span_ms is None:
            verdict.problems.append("no full minute of an event was measured")

    def _unasked_ms(self) -> tuple[int, int] | None:
        """From when until when devices on the broker could not be asked, with the time to be found again."""
        span_ms = self._disturbance.span_ms
        if span_ms is None or self._disturbance.kind != "freeze":
            return None
        return span_ms[0], span_ms[1] + round(POLLED_SINCE_S * 1000)

    def _unheard(self) -> list[int]:
        """Homes whose readings did not come while the disturbance lasted, if it did."""
        if self._disturbance.span_ms is None:
            return []
        through = ON_BROKER if self._disturbance.kind == "freeze" else frozenset()
        heard = [i for i, face in self._polled.faces.items() if face.profile not in through]
        return [i for i in range(len(self.homes)) if i not in heard]

    def _products(self) -> dict[str, list[int]]:
        """Homes of each polled product."""
        out: dict[str, list[int]] = {}
        for index, face in self._polled.faces.items():
            out.setdefault(face.profile, []).append(index)
        return out

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.view.update(self._look)

    def _look(self, facts: Facts) -> None:
        batteries = self._fleet.devices.batteries
        now_ms = self._fleet.now_ms()
        facts.fleet_w = float(np.where(batteries.islanded, 0.0, batteries.battery_w).sum())
        facts.devices = len(self.homes)
        facts.under_control = int(self._fleet.devices.steered.sum())
        facts.islanded = int(batteries.islanded.sum())
        facts.intervals_http = len(self._platform.by_http)
        facts.intervals_mqtt = len(self._platform.by_mqtt)
        running = [w.target_w for w in self._windows if w.start_ms <= now_ms < w.end_ms]
        facts.target_w = sum(running) if running else None
        facts.total_s = WARM_UP_S + LEAD_S + self.options.event_s + 2.5 * RELEASE_SPREAD_S + 12


def _ignore_closed_socket(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiomqtt asks for a writer on a socket that its own cancellation has closed already; anything else is told."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno == errno.EBADF):
        loop.default_exception_handler(context)


async def play(options: Options) -> oracle.Verdict:
    """Run the demo in a scratch directory (kept on request)."""
    asyncio.get_running_loop().set_exception_handler(_ignore_closed_socket)
    with tempfile.TemporaryDirectory(prefix="battery-demo-", ignore_cleanup_errors=True) as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        with View(quiet=options.quiet) as view:
            return await Demo(options, directory, view).run()
