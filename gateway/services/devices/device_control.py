"""Controls one polled device: saves its settings, writes, reads back, renews, and restores the settings.

An episode begins with the first setpoint and ends with the release. The settings it touches are read and made durable
in the journal before the first write. A command is encoded whole before anything is sent; a refusal half way hands the
device back. What was written is read back where the product shows it, and compared in every poll of the episode.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.errors import GatewayError, PeerBusy, PeerRefused, Retry
from gateway.domain.journal.changes import Setting
from gateway.domain.types import DeviceId
from gateway.ports.journal import Journal
from gateway.ports.links import PointLink
from gateway.profiles.compiled.points import Unwritable, Value
from gateway.profiles.compiled.sequences import (
    Action,
    LeaseOver,
    PointWrite,
    Quantities,
    Request,
    Wait,
    shows,
    with_bits_of,
)
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.language.control import Step
from gateway.services.devices.identity import Again, Serial
from gateway.services.devices.not_done import NotDone
from gateway.services.devices.saved_settings import SavedSettings, choices, owners_settings
from gateway.services.devices.write_budget import WriteBudget

log = logging.getLogger(__name__)

LEFT_S_MIN = 1.0
FOLLOW_AGE_PART = 3.0
FOREIGN_POLLS = 2
READBACKS_LATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command to one device; see `CommandBatch`."""

    op: CommandOp
    setpoint_w: float
    lease_s: float
    reserve_pct: float
    cmd: int
    valid_until_ms: int


@dataclass(slots=True)
class DeviceControlStats:
    """Counts over all devices of a service."""

    requests: int = 0
    refused: int = 0
    unwritable: int = 0
    over_budget: int = 0
    not_shown: int = 0
    foreign: int = 0
    half_way: int = 0
    restored: int = 0
    saved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The outcome of a command: whether it reached the device, and the answer (NONE = not known)."""

    delivery: WriteOutcome
    result: CommandResult
    why: str = ""


class DeviceControl:
    """One device's control episode. `values` is the session's: the newest known value of each point; `prior`: the saved
    settings in the journal, by device, kept up to date here."""

    def __init__(
        self,
        device: DeviceId,
        *,
        values: dict[str, Value],
        prior: MutableMapping[DeviceId, Mapping[str, Setting]],
        journal: Journal,
        clock: Clock,
        stats: DeviceControlStats,
    ) -> None:
        self._device = device
        self._values = values
        self._saved = SavedSettings(device, prior=prior, journal=journal)
        self._clock = clock
        self._stats = stats
        self._engaged = False
        self._touched: dict[str, PointWrite] = {}
        self._expected: dict[str, tuple[PointWrite, float]] = {}
        self._foreign = 0
        self._budget = WriteBudget(clock)
        self._newest_cmd = 0
        self._not_repeated = NotDone()
        self._beats = 0
        self.in_force: Command | None = None
        self._force_end_ms = 0
        self._began_mono_ms = clock.mono_ms()
        self.read_mono_ms = 0

    async def meet(self, serial: Serial | None, again: Again) -> None:
        """Call once what answers after the device was away has said who it is. Volatile settings may be gone, so the
        next command begins from the start; settings of another battery are not restored to it."""
        self._engaged = False
        self._expected = {}
        self._foreign = 0
        await self._saved.meet(serial, again)

    @property
    def written_today(self) -> dict[str, int]:
        """Writes of points with a daily budget."""
        return self._budget.today

    @property
    def running(self) -> bool:
        """Whether a command of the gateway is in force."""
        return self.in_force is not None and self._clock.mono_ms() < self._force_end_ms

    @property
    def leaves(self) -> bool:
        """Whether settings of an episode are still to be restored."""
        return self._saved.kept is not None

    @property
    def taken_over(self) -> bool:
        """Whether somebody else has overwritten what the gateway wrote."""
        return self._foreign >= FOREIGN_POLLS

    async def obey(self, command: Command, variant: ProductVariant, link: PointLink) -> Done:
        """Carry out one command. Raises LinkDown, PeerBusy and ProtocolViolation: then its effect is unknown."""
        if command.valid_until_ms < self._clock.now().utc_ms:
            late = "its time was over before it could be sent"
            return Done(delivery=WriteOutcome.NOT_SENT, result=CommandResult.EXPIRED, why=late)
        if command.cmd <= self._newest_cmd:
            return Done(delivery=WriteOutcome.NOT_SENT, result=CommandResult.OLDER)
        self._newest_cmd = command.cmd
        steps = variant.sequence(command.op, command.setpoint_w)
        stops = command.op is CommandOp.RELEASE and variant.control is not None and variant.control.stop_only
        if not steps and not stops:
            return self._refuse(variant.read_only or f"the product has no {command.op.name.lower()}")
        try:
            if command.op in (CommandOp.SETPOINT, CommandOp.HOLD, CommandOp.BLOCK):
                return await self._power(command, steps, variant, link)
            if command.op is CommandOp.RELEASE:
                return await self._release(steps, variant, link)
            await self._read_held(steps, variant, link)
            todo = self._actions(steps, command, variant)
            return await self._confirmed(await self._send(todo, variant, link), variant, link)
        except Unwritable as error:
            self._stats.unwritable += 1
            return self._refuse(str(error))
        except PeerRefused as error:
            return self._refuse(str(error))

    async def _power(self, command: Command, steps: tuple[Step, ...], variant: ProductVariant, link: PointLink) -> Done:
        unmet = variant.unmet(self._values)
        if unmet:
            return self._refuse(unmet[0])
        control = variant.control
        sequence = (*(() if self._engaged or control is None else control.begin), *steps)
        await self._read_held(sequence, variant, link)
        first = self._saved.kept is None and control is not None
        if first and control is not None:
            # What cannot be written is refused before anything is journalled.
            self._actions(sequence, command, variant)
            found = await link.read(control.saves) if control.saves else {}
            variant.decode(found, self._values)
            settings, why = owners_settings(control.saves, found, self._values, variant)
            if why:
                return self._refuse(why)
            if why := await self._saved.save(settings):
                return Done(delivery=WriteOutcome.NOT_SENT, result=CommandResult.NONE, why=why)
            self._stats.saved += 1
        todo = self._actions(sequence, command, variant)
        written: list[PointWrite] = []
        # The device's own timer may start with the first write.
        began_ms = self._clock.mono_ms()
        try:
            await self._send(todo, variant, link, written)
        except (PeerRefused, Unwritable) as error:
            if written:
                await self._hand_back(variant, link)
            elif first:
                await self._saved.forget()
            return self._refuse(str(error))
        self._engaged = True
        self._force(command, began_ms)
        done = await self._confirmed(written, variant, link)
        if done.result is CommandResult.REFUSED:
            await self._hand_back(variant, link)
        elif variant.control is not None:
            self._expect(written, variant)
            self._foreign = 0
        return done

    def _force(self, command: Command | None, from_ms: int = 0) -> None:
        self.in_force = command
        self._force_end_ms = from_ms + round(1000 * command.lease_s) if command else 0

    async def _release(self, steps: tuple[Step, ...], variant: ProductVariant, link: PointLink) -> Done:
        self._force(None)
        self._expected = {}
        await self._read_held(steps, variant, link)
        saved = await self._still_ours(variant, link)
        todo = variant.actions(steps, Quantities(), self._values, saved)
        written = await self._send(todo, variant, link)
        done = await self._confirmed(written, variant, link)
        if done.result is CommandResult.REFUSED:
            return done
        self._tell_once("settings could not be restored", "")
        if self._saved.kept is not None:
            self._stats.restored += 1
        await self._saved.forget()
        self._engaged, self._touched, self._foreign = False, {}, 0
        return done

    async def tidy(self, variant: ProductVariant, link: PointLink) -> None:
        """Restore the settings of an episode that ended without a release: by the device's timer, or by a crash of the
        gateway. Waits a whole lease after the last command or the start: an event that goes on renews it in that time.
        A device that somebody else controls is left alone."""
        control, watchdog = variant.control, variant.watchdog
        await self._saved.settle()
        if not self.leaves or self.running or self.taken_over or control is None or watchdog is None:
            return
        if self._clock.mono_ms() - max(self._began_mono_ms, self._force_end_ms) < 1000 * watchdog.lease_s:
            return
        if not self._saved.kept:
            await self._saved.forget()
            return
        try:
            await self._release(control.release, variant, link)
        except (Unwritable, PeerRefused) as error:
            self._tell_once("settings could not be restored", str(error))

    async def _hand_back(self, variant: ProductVariant, link: PointLink) -> None:
        """Release after a sequence that stopped half way: leave the device as it was, as far as it allows."""
        self._stats.half_way += 1
        control = variant.control
        try:
            if control is not None:
                await self._release(control.release, variant, link)
        except GatewayError as error:
            if error.retry is Retry.NEVER:
                raise
            log.warning("a device could not be handed back", extra={"device": self._device, "error": str(error)})
        self._force(None)

    async def _still_ours(self, variant: ProductVariant, link: PointLink) -> dict[str, Value]:
        """What to restore."""
        saved = self._saved.kept or {}
        written = {n: w for n, w in self._touched.items() if n in saved and variant.points[n].readable}
        if written:
            variant.decode(await link.read(list(written)), self._values)
        return dict(saved) | choices(saved, written, self._values, variant)

    async def _read_held(self, steps: Iterable[Step], variant: ProductVariant, link: PointLink) -> None:
        """Read what is written back in part: registers of bits, members that keep their value."""
        names = {name for step in steps for name in step.held() if variant.points[name].readable}
        if names:
            variant.decode(await link.read(sorted(names)), self._values)

    def _actions(
        self, steps: Iterable[Step], command: Command, variant: ProductVariant, *, left_s: float | None = None
    ) -> list[Action]:
        """The actions of a command, or of one in force that has `left_s` of its lease."""
        setpoint_w = variant.quantised(command.setpoint_w) if command.op is CommandOp.SETPOINT else 0.0
        given = Quantities(
            setpoint_w=setpoint_w,
            lease_s=command.lease_s if left_s is None else left_s,
            renews=left_s is None,
            reserve_pct=command.reserve_pct,
            **self._targets(setpoint_w, variant),
            count=self._beats,
        )
        return variant.actions(tuple(steps), given, self._values, self._saved.kept or {})

    def _targets(self, setpoint_w: float, variant: ProductVariant) -> dict[str, float]:
        """The grid power (+ = import) and the inverter's power (+ = out) at which the battery gives `setpoint_w`;
        nothing where the newest readings are too old, NaN where they are missing."""
        age_ms = self._clock.mono_ms() - self.read_mono_ms
        if age_ms > 1000 * FOLLOW_AGE_PART * variant.document.polling.live_s:
            return {}
        now = variant.canonical(self._values)
        grid_w, battery_w, pv_w = now.get("grid_w"), now.get("battery_w"), now.get("pv_w")
        return {"grid_target_w": grid_w + battery_w - setpoint_w, "inverter_target_w": setpoint_w + pv_w}

    async def _send(
        self, todo: Iterable[Action], variant: ProductVariant, link: PointLink, written: list[PointWrite] | None = None
    ) -> list[PointWrite]:
        """Carry out actions in order; what the device accepted is added to `written`."""
        out: list[PointWrite] = [] if written is None else written
        for action in todo:
            if isinstance(action, Wait):
                await asyncio.sleep(action.s)
                continue
            self._spend(action, variant)
            self._stats.requests += 1
            try:
                await link.write(action)
            except PeerRefused as refused:
                raise PeerRefused(f"the device refuses {action}: {refused}") from refused
            for write in action.writes:
                out.append(write)
                self._touched[write.point] = with_bits_of(self._touched.get(write.point), write)
                if write.value is not None:
                    self._values[write.point] = write.value
        return out

    def _spend(self, request: Request, variant: ProductVariant) -> None:
        try:
            self._budget.spend(request, variant.points)
        except Unwritable:
            self._stats.over_budget += 1
            raise

    async def _confirmed(self, written: list[PointWrite], variant: ProductVariant, link: PointLink) -> Done:
        """Read back the points that the product shows."""
        expected = {write.point: write for write in written if self._shown(write.point, variant)}
        accepted = Done(delivery=WriteOutcome.ACCEPTED, result=CommandResult.APPLIED)
        if not expected:
            # A broker's acknowledgement is not the device's: the outcome is not known.
            brokered = variant.document.transport == "mqtt" and bool(written)
            return Done(delivery=WriteOutcome.ACCEPTED, result=CommandResult.NONE) if brokered else accepted
        settle_s = variant.control.settle_s if variant.control is not None else 0.0
        lag_s = max(variant.points[name].readback_s or 0.0 for name in expected)
        late = ""
        # A product that shows a write only after a while may take a little longer than its profile says.
        for _ in range(READBACKS_LATE if lag_s > 0 else 1):
            if max(settle_s, lag_s) > 0:
                await asyncio.sleep(max(settle_s, lag_s))
            variant.decode(await link.read(list(expected)), self._values)
            shown = {n: shows(variant.codecs[n], self._values, write) for n, write in expected.items()}
            if all(shown.values()):
                return accepted
            late = next(name for name, as_written in shown.items() if not as_written)
        self._stats.not_shown += 1
        return Done(
            delivery=WriteOutcome.ACCEPTED, result=CommandResult.REFUSED, why=f"{late} does not show what was written"
        )

    @staticmethod
    def _shown(name: str, variant: ProductVariant) -> bool:
        """Whether a read proves a write of the point: a timer that counts down does not."""
        point, watchdog = variant.points[name], variant.watchdog
        counts = watchdog is not None and watchdog.kind == "countdown" and watchdog.point == name
        return point.readable and point.poll != "never" and point.readback_s is not None and not counts

    def _expect(self, written: list[PointWrite], variant: ProductVariant) -> None:
        now_ms, live = self._clock.mono_ms(), set(variant.groups["live"])
        settle_s = variant.control.settle_s if variant.control is not None else 0.0
        for write in written:
            if write.point in live and self._shown(write.point, variant):
                lag_s = max(settle_s, variant.points[write.point].readback_s or 0.0)
                self._expected[write.point] = (write, now_ms + 1000 * lag_s)

    def observe(self, variant: ProductVariant) -> None:
        """After a poll: compare with what was written. One odd reading is no proof; two are somebody else's write."""
        if not self.running:
            self._expected = {}
            return
        differs = [
            name
            for name, (write, from_ms) in self._expected.items()
            if self.read_mono_ms >= from_ms and not shows(variant.codecs[name], self._values, write)
        ]
        known = [name for name in differs if self._values.get(name) is not None]
        self._foreign = self._foreign + 1 if known else 0
        if self._foreign == FOREIGN_POLLS:
            self._stats.foreign += 1
            log.warning("somebody else writes to a device", extra={"device": self._device, "point": known[0]})

    async def follow(self, variant: ProductVariant, link: PointLink) -> None:
        """Compute the grid target again and write it, while a command is in force. Stale readings stop it: the lease
        then runs out."""
        command = self.in_force
        if command is None or not self.running or self.taken_over or await self._written_over(variant, link):
            return
        why = ""
        try:
            if await self._again(variant.sequence(command.op, command.setpoint_w), command, variant, link):
                self._foreign = 0
        except (Unwritable, PeerRefused, PeerBusy) as error:
            why = str(error)
        self._tell_once("a grid target was not renewed", why)

    async def _again(self, steps: tuple[Step, ...], command: Command, variant: ProductVariant, link: PointLink) -> bool:
        """Write for a command in force; returns whether anything was written. Only a new command renews the lease: a
        write here carries what is left of it, and there is none once that is below the shortest the timer accepts."""
        left_s = (self._force_end_ms - self._clock.mono_ms()) / 1000
        if left_s < LEFT_S_MIN:
            return False
        await self._read_held(steps, variant, link)
        try:
            todo = self._actions(steps, command, variant, left_s=left_s)
        except LeaseOver:
            return False
        written: list[PointWrite] = []
        try:
            await self._send((_expiring(action, left_s) for action in todo), variant, link, written)
        finally:
            self._expect(written, variant)
        return bool(written)

    async def _written_over(self, variant: ProductVariant, link: PointLink) -> bool:
        """Whether somebody changed what was written. Asked before each renewal, which would otherwise undo an owner's
        choice between two polls, unseen. The lease then runs out, or a command renews it."""
        now_ms = self._clock.mono_ms()
        names = [name for name, (_, from_ms) in self._expected.items() if now_ms >= from_ms]
        if names:
            variant.decode(await link.read(names), self._values)
        return not all(shows(variant.codecs[name], self._values, self._expected[name][0]) for name in names)

    async def beat(self, variant: ProductVariant, link: PointLink) -> None:
        """Send one heartbeat, while a command is in force."""
        command, control = self.in_force, variant.control
        if command is None or not self.running or control is None or control.heartbeat is None or self.taken_over:
            return
        self._beats += 1
        why = ""
        try:
            await self._again(control.heartbeat.steps, command, variant, link)
        except (Unwritable, PeerRefused, PeerBusy) as error:
            why = str(error)
        self._tell_once("a heartbeat was refused", why)

    def _tell_once(self, what: str, why: str) -> None:
        """Log once why something that repeats by itself is not done, "" = it was."""
        if self._not_repeated.is_news(what, why):
            log.warning(what, extra={"device": self._device, "error": why})

    def _refuse(self, why: str) -> Done:
        self._stats.refused += 1
        return Done(delivery=WriteOutcome.REFUSED, result=CommandResult.REFUSED, why=why)


def _expiring(action: Action, left_s: float) -> Action:
    return replace(action, expires_s=left_s) if isinstance(action, Request) else action
