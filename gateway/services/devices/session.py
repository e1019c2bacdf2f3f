"""One polled device: connect, identify it, poll, carry out commands, back off. Retries of devices live here."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from functools import partial

from gateway.clock import Clock
from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.errors import (
    GatewayError,
    InvalidInput,
    LinkDown,
    NotThisProduct,
    PeerBusy,
    ProtocolViolation,
    Retry,
    SecretUnreadable,
    pause_ceiling_s,
)
from gateway.domain.journal.changes import Setting
from gateway.domain.types import DeviceId, Now
from gateway.observability.episodes import FewLines
from gateway.observability.parts import Importance, Part
from gateway.ports.journal import Journal
from gateway.ports.links import NO_MODELS, PointLink, PointLinks, PointTarget
from gateway.profiles.compiled.points import Values
from gateway.profiles.compiled.variant import Group, PointProduct, ProductVariant
from gateway.services.devices.device_control import Command, DeviceControl, DeviceControlStats, Done
from gateway.services.devices.energy_integrator import EnergyIntegrator
from gateway.services.devices.identity import Serial, other_serial, serial_of, stated
from gateway.services.devices.mailbox import Mailbox, not_sent
from gateway.services.devices.not_done import NotDone, asked
from gateway.services.devices.session_state import Hearer, SessionPhase, SessionStats, pause_cap_s, with_mode

log = logging.getLogger(__name__)

BACKOFF_BASE_S = 1.0
FAILURES_TO_RECONNECT = 3
FAILURES_TO_OFFLINE = 3
INTEGRATE_GAP_PART = 3.0
POLL_PAUSE_MIN_S = 0.05
TIDY_S = 30.0
RETRY_S = 1.0
SecretOf = Callable[[str], str]


class DeviceSession(Part):
    """Owns one device for as long as `run` runs. `slot` names it to the hearer; `secret_of` reads a secret by its
    reference, at every connect; `lines` bounds what the sessions that share it log. `untrusted_since_ms`: since when
    (UTC) what answers is not what was registered, also while nothing answers; None = it is, as far as is known."""

    service = "device-session"
    component = "devices"
    importance = Importance.SPARE

    def __init__(
        self,
        slot: int,
        target: PointTarget,
        product: PointProduct,
        *,
        links: PointLinks,
        secret_of: SecretOf,
        journal: Journal,
        clock: Clock,
        rng: random.Random,
        hearer: Hearer,
        prior: MutableMapping[DeviceId, Mapping[str, Setting]],
        stats: SessionStats,
        control_stats: DeviceControlStats,
        lines: FewLines | None = None,
    ) -> None:
        self.slot = slot
        self.device: DeviceId = target.device
        self.state = SessionPhase.DOWN
        self.why: str | None = "not connected yet"
        self.values = Values()
        self.secret_unreadable = False
        self._target = target
        self._secret_of = secret_of
        self._product = product
        self._links = links
        self._clock = clock
        self._rng = rng
        self._hearer = hearer
        self._stats = stats
        self._lines = lines or FewLines()
        self._variant: ProductVariant = product.base
        self._link: PointLink | None = None
        polling = target.document.polling
        self._meter = EnergyIntegrator(1000 * INTEGRATE_GAP_PART * polling.live_s)
        self._control = DeviceControl(
            target.device, values=self.values, prior=prior, journal=journal, clock=clock, stats=control_stats
        )
        self._mailbox = Mailbox(stats)
        self._broken = asyncio.Event()
        self._failures = 0
        self._reported_online = True
        self._all_read = False
        self._refused_as = ""
        self._not_done = NotDone()
        self._told_lost = False
        self.untrusted_since_ms: int | None = None
        self._written_ms = -(1 << 62)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._live(), name=f"poll-{self.device}")
                group.create_task(self._obey(), name=f"command-{self.device}")
        finally:
            # no task is left that could carry out a command
            if self.state is not SessionPhase.QUARANTINED:
                self.state, self.why = SessionPhase.DOWN, "not running"
            self._mailbox.drop()

    # -- reading ---------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        # Devices that were registered together must not be polled together for ever.
        await asyncio.sleep(self._rng.uniform(0, self._target.document.polling.live_s))
        while True:
            try:
                await self._connect()
                await self._poll()
            except GatewayError as error:
                if error.retry is Retry.NEVER:
                    raise
                self._failures += 1
                self._note(error)
                pause_s = max(error.after_s, self._backoff_s(error))
            finally:
                await self._close()
            await asyncio.sleep(pause_s)

    def _backoff_s(self, error: GatewayError) -> float:
        ceiling = pause_ceiling_s(
            error.retry, self._failures, base_s=BACKOFF_BASE_S, cap_s=pause_cap_s(self._target.document)
        )
        return self._rng.uniform(0.5, 1.0) * ceiling

    def _note(self, error: GatewayError) -> None:
        """Show and log what a failure means; the pause after it is `_backoff_s`'s."""
        match error:
            case NotThisProduct():
                self._quarantine(str(error))
            case SecretUnreadable():
                self._without_secret(error)
            case _:
                self._stats.busy += isinstance(error, PeerBusy)
                self._failed(error)

    def _failed(self, error: GatewayError) -> None:
        if not self._told_lost:
            self._told_lost = True
            self._log(logging.WARNING, "lost", "a device was lost", error=str(error))
        self._down(str(error))

    def _without_secret(self, error: SecretUnreadable) -> None:
        if not self.secret_unreadable:
            self._log(logging.ERROR, "without_secret", "a device's secret cannot be read", error=str(error))
        self.secret_unreadable = True
        self._down(str(error))

    def _log(self, level: int, kind: str, message: str, **fields: str) -> None:
        if self._lines.allow(kind, self._clock.mono_ms()):
            log.log(level, message, extra={"device": self.device, **fields})

    def _down(self, why: str) -> None:
        self.state, self.why = SessionPhase.DOWN, why
        if self._failures >= FAILURES_TO_OFFLINE and self._reported_online:
            self._reported_online = False
            self._hearer.online(self.slot, False)

    def _quarantine(self, why: str) -> None:
        if self.state is not SessionPhase.QUARANTINED:
            self._stats.quarantined += 1
        # The same refusal is logged once, also where the link was lost in between.
        if why != self._refused_as:
            self._refused_as = why
            self._log(
                logging.ERROR, "quarantined", "a device is not what it is registered as; it is not written", error=why
            )
        if self.untrusted_since_ms is None:
            self.untrusted_since_ms = self._clock.now().utc_ms
        self.state, self.why = SessionPhase.QUARANTINED, why
        self._hearer.trusted(self.slot, False)

    async def _connect(self) -> None:
        """Connect and identify what answers, then read everything once."""
        if self.state is not SessionPhase.QUARANTINED:
            self.state = SessionPhase.CONNECTING
        self._broken.clear()
        self.values.clear()
        self._target = replace(self._target, secret=self._secret())
        link = await self._open(self._product.base)
        found = await link.read(self._product.base.identifying)
        self._product.base.decode(found, self.values)
        problems = self._product.base.not_this_product(self.values) + other_serial(self._target, self.values)
        if problems:
            raise NotThisProduct("; ".join(problems))
        variant = self._product.variant(self.values)
        if variant is not self._product.base:
            # The connection is shared: the device that was identified is the one that is opened.
            base = link
            try:
                link = await self._open(variant)
            finally:
                await base.close()
        self._variant = variant
        variant.decode(await link.read(variant.reads), self.values)
        self._all_read = True
        self._stats.connects += 1
        again = partial(self._serial_again, link, variant)
        await self._control.meet(serial_of(self._target.document.identity, self.values), again)
        self.state, self.why, self._failures, self._reported_online = SessionPhase.READY, None, 0, True
        self._refused_as, self._told_lost, self.untrusted_since_ms = "", False, None
        self._hearer.trusted(self.slot, True)
        self._log(logging.INFO, "connected", "a device is connected", variant=variant.variant or "base")

    async def _serial_again(self, link: PointLink, variant: ProductVariant) -> Serial | None:
        variant.decode(await link.read(self._product.base.identifying), self.values)
        return serial_of(self._target.document.identity, self.values)

    def _secret(self) -> str:
        """The device's secret as it is now. Raises SecretUnreadable."""
        reference = self._target.connection.secret
        try:
            secret = self._secret_of(reference) if reference else ""
        except InvalidInput as error:
            raise SecretUnreadable(str(error)) from error
        self.secret_unreadable = False
        return secret

    async def _open(self, variant: ProductVariant) -> PointLink:
        self._link = self._links.link(replace(self._target, document=variant.document, points=variant.points))
        await self._link.open()
        return self._link

    def states(self) -> tuple[str, str, str]:
        """Maker, product and firmware as the device states them; "" where it does not."""
        return stated(self._target.document.identity, self.values)

    async def _close(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _poll(self) -> None:
        """Poll until the link fails `FAILURES_TO_RECONNECT` times in a row. Every poll reads all live points: a
        reading is never made of values older than itself."""
        polling = self._variant.document.polling
        live_ms = 1000 * polling.live_s
        period_s = {"live": polling.live_s, "energy": polling.energy_s, "slow": polling.slow_s}
        now_ms = self._clock.mono_ms()
        # The first sample follows at once: after an outage the counters' difference fills the gap.
        slow_ms = now_ms + 1000 * polling.slow_s
        due_ms: dict[Group, float] = {"live": now_ms, "energy": now_ms + live_ms, "slow": slow_ms}
        failures = 0
        while True:
            now = self._clock.now()
            groups = [group for group, due in due_ms.items() if group == "live" or due <= now.mono_ms]
            names = [name for group in groups for name in self._variant.groups[group]]
            try:
                heard = await self._read(names, now)
                failures = 0
            except GatewayError as error:
                if error.retry is not Retry.LATER:
                    raise
                self._stats.poll_failures += 1
                failures += 1
                if isinstance(error, ProtocolViolation):
                    self._hearer.unread(self.slot)
                if failures >= FAILURES_TO_RECONNECT or self._broken.is_set():
                    raise
                log.debug("a poll failed", extra={"device": self.device, "error": str(error)})
                if await self._waited(min(RETRY_S, polling.live_s)):
                    raise LinkDown("the connection broke during a command") from error
                continue
            if "energy" in groups:
                self._emit_energy(heard)
            for group in groups:
                due_ms[group] = max(due_ms[group] + 1000 * period_s[group], now.mono_ms + 1)
            pause_s = (due_ms["live"] - self._clock.mono_ms()) / 1000
            if await self._waited(max(pause_s, POLL_PAUSE_MIN_S)):
                raise LinkDown("the connection broke during a command")

    async def _waited(self, pause_s: float) -> bool:
        """Whether a command found the link broken before `pause_s` were over."""
        try:
            async with asyncio.timeout(pause_s):
                await self._broken.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self, names: list[str], now: Now) -> Now:
        """One poll; returns the reading's time: when it was asked for, or when the device said it."""
        link = self._link
        if link is None:
            raise LinkDown("not connected")
        self._variant.decode(await link.read(names), self.values)
        self._stats.polls += 1
        heard_ms = link.heard_mono_ms
        if heard_ms is not None and heard_ms < now.mono_ms:
            now = Now(utc_ms=now.utc_ms - (now.mono_ms - heard_ms), mono_ms=heard_ms)
        self._control.read_mono_ms = now.mono_ms
        self._control.observe(self._variant)
        running, taken_over = self._control.running, self._control.taken_over
        reading = with_mode(self._variant.canonical(self.values), running=running, taken_over=taken_over)
        again = self._variant.reserve_points.isdisjoint(names) and not self._all_read
        reading, self._all_read = replace(reading, reserve_again=again), False
        self._meter.add(now.mono_ms, reading.get("battery_w"), **{n: reading.get(n) for n in self._meter.site})
        force = self._control.in_force
        self._hearer.live(self.slot, reading, now, force.cmd if force is not None and self._control.running else 0)
        self._reported_online = True
        return now

    def _emit_energy(self, now: Now) -> None:
        """Emit an energy sample."""
        reading = self._variant.canonical(self.values)
        sample = self._meter.sample(
            charge_counter_wh=reading.get("charge_counter_wh"),
            discharge_counter_wh=reading.get("discharge_counter_wh"),
            soc_pct=reading.get("soc_pct"),
        )
        self._stats.energy_gaps += self._meter.gaps
        self._meter.gaps = 0
        if sample is not None:
            self._hearer.energy(self.slot, sample, now)

    # -- commands --------------------------------------------------------------------------------------------

    def command(self, command: Command) -> asyncio.Future[WriteOutcome]:
        """Queue a command; the future gets its outcome. A waiting command is replaced by a newer one."""
        return self._mailbox.put(command) if self.state is SessionPhase.READY else not_sent()

    async def _obey(self) -> None:
        while True:
            mail = await self._mailbox.take(self._pause_s())
            if mail is None:
                await self._keep_up()
                continue
            outcome = WriteOutcome.UNKNOWN
            try:
                outcome = await self._carry_out(mail.command)
            finally:
                mail.answer(outcome)

    def _pause_s(self) -> float | None:
        """Time until the next heartbeat, grid target or check for settings to restore; None while there is nothing."""
        control = self._variant.control
        if control is None or not (self._control.running or self._control.leaves):
            return None
        if not self._control.running:
            return TIDY_S
        periods = [control.heartbeat.every_s] if control.heartbeat else []
        periods += [control.follow_s] if control.follow_s else []
        return min(periods, default=TIDY_S)

    async def _keep_up(self) -> None:
        """Renew what a command in force needs, or restore settings after it."""
        link, control = self._link, self._variant.control
        if link is None or control is None or self.state is not SessionPhase.READY:
            return
        try:
            if not self._control.running:
                await self._control.tidy(self._variant, link)
                return
            if control.heartbeat is not None:
                await self._control.beat(self._variant, link)
            if control.follow_s is not None:
                await self._control.follow(self._variant, link)
        except GatewayError as error:
            if error.retry is not Retry.LATER:
                raise
            self._lost(error)

    async def _carry_out(self, command: Command) -> WriteOutcome:
        link = self._link
        if link is None or self.state is not SessionPhase.READY:
            return WriteOutcome.NOT_SENT
        control = self._variant.control
        if control is not None and command.op is CommandOp.SETPOINT and control.interval_s_min:
            wait_s = control.interval_s_min - (self._clock.mono_ms() - self._written_ms) / 1000
            if wait_s > 0 and await self._mailbox.superseded(wait_s):
                return WriteOutcome.NOT_SENT
        try:
            done = await self._control.obey(command, self._variant, link)
            self._tell(command.op, done.why)
        except (PeerBusy, LinkDown, ProtocolViolation) as error:
            done = Done(delivery=WriteOutcome.UNKNOWN, result=CommandResult.NONE, why=str(error))
            if isinstance(error, PeerBusy):
                self._stats.busy += 1
                self._tell(command.op, done.why)
            else:
                self._lost(error)
        self._written_ms = self._clock.mono_ms()
        if done.result is not CommandResult.NONE:
            self._hearer.answer(self.slot, command.cmd, done.result)
        return done.delivery

    def _tell(self, op: CommandOp, why: str) -> None:
        if self._not_done.is_news(asked(op), why):
            self._log(logging.WARNING, "not_done", "a command was not carried out", command=asked(op), error=why)

    def _lost(self, error: GatewayError) -> None:
        self._log(logging.INFO, "broken", "the link broke during a command", error=str(error))
        self._broken.set()

    @property
    def notice(self) -> str | None:
        """What is wrong with the connection although it goes on, None = nothing."""
        return self._link.notice if self._link is not None else None

    @property
    def models(self) -> dict[str, str]:
        """Which of several SunSpec models each name of the profile means."""
        found = self._link.models if self._link is not None else NO_MODELS
        return {name: model.said for name, model in found.items() if model.said}

    @property
    def not_done(self) -> dict[str, str]:
        """Why the newest setpoint, reserve or release was not carried out, and why a setpoint would not be."""
        unmet = self._variant.unmet(self.values) if self.state is SessionPhase.READY else []
        return self._not_done.reasons | ({"setpoint": "; ".join(unmet)} if unmet else {})

    @property
    def mistaken_for(self) -> str:
        """Why what last answered is not what was registered, "" = it is, as far as is known."""
        return self._refused_as

    @property
    def variant(self) -> str:
        """The product's variant that answers, "" = the profile itself."""
        return self._variant.variant

    @property
    def product_variant(self) -> ProductVariant:
        """The product variant that answers."""
        return self._variant

    @property
    def written_today(self) -> dict[str, int]:
        """Writes of points that wear the device's memory, since midnight UTC."""
        return self._control.written_today
