"""All polled devices as one link: a session each, their readings in batches, their commands under one deadline."""

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

import numpy as np

from gateway.clock import Clock
from gateway.domain.commands import CommandBatch, CommandOp, CommandResult, WriteOutcome, WriteReport
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.journal.changes import Setting
from gateway.domain.readings import AckBatch, EnergyBatch, LiveBatch, ReadingBatch, StatusBatch
from gateway.domain.types import DeviceId, Now, Unclear, UnclearBatch
from gateway.observability.episodes import FewLines
from gateway.observability.metrics import Sample, counter, gauge, words
from gateway.observability.parts import Part
from gateway.ports.journal import Journal
from gateway.ports.links import Emit, PointLinks, PointTarget
from gateway.profiles.compile import Codec
from gateway.profiles.compiled.variant import CanonicalReading, PointProduct
from gateway.profiles.language.quantities import LIVE
from gateway.services.control.quarantine import Distrust, Untrusted
from gateway.services.devices.device_control import Command, DeviceControlStats
from gateway.services.devices.energy_integrator import EnergySample
from gateway.services.devices.session import DeviceSession, SecretOf
from gateway.services.devices.session_state import Hearer, SessionPhase, SessionStats
from gateway.services.devices.waiting_energy import WaitingEnergy
from gateway.services.runtime.supervisor import Supervisor

log = logging.getLogger(__name__)

FLUSH_S = 0.05
MATCH_S = 1.0
JITTER_MS = 5

SESSIONS = gauge("gateway_sessions", "Polled devices, by state.", state=words(SessionPhase))
WITHOUT_SECRET = gauge("gateway_sessions_without_secret", "Polled devices whose secret cannot be read now.")
CONNECTS = counter("gateway_session_connects", "Sessions that got ready.")
POLLS = counter("gateway_session_polls", "Polls answered.")
POLL_FAILURES = counter("gateway_session_poll_failures", "Polls that failed.")
BUSY = counter("gateway_session_busy", "Times a device asked to come later.")
SUPERSEDED = counter("gateway_session_superseded", "Commands that a newer one replaced before they left.")
OUTDATED = counter("gateway_session_outdated", "Readings and answers of a battery that was replaced.")
SESSION_QUARANTINED = counter("gateway_session_quarantined", "Devices that were not what they were enrolled as.")
ENERGY_GAPS = counter("gateway_session_energy_gaps", "Gaps in the energy of polled devices.")
WRITES = counter("gateway_device_writes", "Requests that write to polled devices.")
REFUSALS = counter("gateway_device_refusals", "Commands refused by device, profile or guard.")
UNWRITABLE = counter("gateway_device_unwritable", "Values that a product cannot take.")
OVER_BUDGET = counter("gateway_device_over_budget", "Writes held back to spare a device's memory.")
NOT_HELD = counter("gateway_device_not_held", "Read-backs that did not show what was written.")
FOREIGN_WRITES = counter("gateway_device_foreign_writes", "Devices somebody else wrote to during a lease.")
HANDED_BACK = counter("gateway_device_handed_back", "Write sequences given up half way.")
SETTINGS_SAVED = counter("gateway_device_settings_saved", "Episodes whose settings were saved.")
SETTINGS_RESTORED = counter("gateway_device_settings_restored", "Episodes whose settings were restored.")
SENTINELS = counter("gateway_point_sentinels", "Points that said: no value.")
IMPLAUSIBLE = counter("gateway_point_implausible", "Points outside their range.")
MALFORMED = counter("gateway_point_malformed", "Points of the wrong kind.")

_SAMPLED = tuple(name for name in EnergySample.__dataclass_fields__ if name != "span_ms")


class PolledDevices(Part):
    """Every product with values at addresses: a `CommandTarget`, and a `TelemetrySource` without a sender, since the
    next counter samples cover what was not recorded. `wall` is the clock that energy is told by, `secret_of` resolves a
    secret's reference."""

    service = "sessions"
    component = "devices"

    def __init__(
        self,
        *,
        fleet: Fleet,
        codecs: Iterable[Codec],
        links: Mapping[str, PointLinks],
        journal: Journal,
        clock: Clock,
        wall: Clock,
        rng: random.Random,
        supervisor: Supervisor,
        secret_of: SecretOf,
        boot: int,
        prior: MutableMapping[DeviceId, Mapping[str, Setting]],
    ) -> None:
        self._fleet = fleet
        self._codecs = {fleet.profiles.index(codec.name): codec for codec in codecs if codec.product is not None}
        self._links = links
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._offset_ms = 0
        self._rng = rng
        self._supervisor = supervisor
        self._secret_of = secret_of
        self._boot = boot
        self._prior = prior
        self.emit: Emit = _nowhere
        self._tasks: dict[int, tuple[object, asyncio.Task[None]]] = {}
        self._lives: list[tuple[int, CanonicalReading, Now, int]] = []
        self._energies = WaitingEnergy()
        self._answers: list[tuple[int, int, CommandResult]] = []
        self._flush_due = False
        self._pauses = 0
        self._seq: dict[int, int] = {}
        self.sessions: dict[int, DeviceSession] = {}
        self.stats = SessionStats()
        self._lines = FewLines()
        self.control_stats = DeviceControlStats()
        self._hearer = Hearer(
            live=self._live, energy=self._energy, answer=self._answer, online=self._online, trusted=self._trusted,
            unread=self._unread,
        )  # fmt: skip

    @property
    def profiles(self) -> frozenset[int]:
        """Numbers of the profiles this link serves."""
        return frozenset(self._codecs)

    async def run(self) -> None:
        """Keep a session for every registered device of these products until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._match_fleet(group)
                    self._sum_up()
                    await asyncio.sleep(MATCH_S)
        finally:
            self._tasks.clear()
            self.sessions.clear()
            for links in self._links.values():
                await links.close()

    def _sum_up(self) -> None:
        """Log how many lines about single devices were left out, which is so when something befalls many at once."""
        held = self._lines.held(self._clock.mono_ms())
        if held:
            log.warning("more devices than are logged one by one", extra={"devices": held})

    def _match_fleet(self, group: asyncio.TaskGroup) -> None:
        """Start sessions of new devices, restart those whose connection has changed, stop those of devices that have
        become another product."""
        plate, n = self._fleet.nameplate, self._fleet.n
        mine = np.flatnonzero(np.isin(plate.profile[:n], list(self._codecs)) & plate.registered[:n]).tolist()
        for slot in self._tasks.keys() - set(mine):
            self._stop(slot)
        for slot in mine:
            if self._current(slot):
                continue
            self._stop(slot)
            wanted = self._wanted(slot)
            session = self._session(slot, self._codecs[int(plate.profile[slot])].product)
            if session is None:
                continue
            self.sessions[slot] = session
            service = self._supervisor.keep(session.service, session.run, session.importance)
            self._tasks[slot] = (wanted, group.create_task(service, name=f"session-{session.device}"))

    def _stop(self, slot: int) -> None:
        # what it said and waits belongs to it alone
        self._flush()
        running = self._tasks.pop(slot, None)
        if running is not None:
            running[1].cancel()
        self.sessions.pop(slot, None)

    def _wanted(self, slot: int) -> object:
        """What the session of this device must fit: its product, how that is reached, and since which move."""
        fleet = self._fleet
        return fleet.connections.get(slot), int(fleet.nameplate.profile[slot]), fleet.moves.get(slot, 0)

    def _current(self, slot: int) -> bool:
        """Whether a device's session fits the device as it is registered now. Until one that does not is stopped, its
        readings are those of another battery, and its commands would go there."""
        running = self._tasks.get(slot)
        return running is not None and running[0] == self._wanted(slot)

    def _outdated(self, slot: int) -> bool:
        """Whether what a session says is of another battery; counts it then."""
        current = self._current(slot)
        self.stats.outdated += not current
        return not current

    def _session(self, slot: int, product: PointProduct | None) -> DeviceSession | None:
        if product is None:
            return None
        target = PointTarget(
            device=self._fleet.ids[slot],
            connection=self._fleet.connections.get(slot) or DeviceConnection(url=""),
            secret="",
            document=product.document,
            points=product.base.points,
        )
        return DeviceSession(
            slot,
            target,
            product,
            links=self._links[product.document.transport],
            secret_of=self._secret_of,
            journal=self._journal,
            clock=self._clock,
            rng=self._rng,
            hearer=self._hearer,
            prior=self._prior,
            stats=self.stats,
            control_stats=self.control_stats,
            lines=self._lines,
        )

    # -- readings --------------------------------------------------------------------------------------------

    def _live(self, slot: int, reading: CanonicalReading, now: Now, cmd: int) -> None:
        if self._outdated(slot):
            return
        self._lives.append((slot, reading, now, cmd))
        self._soon()

    def _energy(self, slot: int, sample: EnergySample, now: Now) -> None:
        if self._outdated(slot):
            return
        self._energies.add(slot, sample, now)
        if not self._pauses:
            self._soon()

    def _answer(self, slot: int, cmd: int, result: CommandResult) -> None:
        if self._outdated(slot):
            return
        self._answers.append((slot, cmd, result))
        self._soon()

    def _online(self, slot: int, online: bool) -> None:
        if not self._current(slot):
            return
        self.emit(ReadingBatch(status=StatusBatch(slots=np.array([slot], dtype=np.int32), online=np.array([online]))))

    def _unread(self, slot: int) -> None:
        if not self._current(slot):
            return
        # readings from before must come first
        self._flush()
        doubt = UnclearBatch(
            slots=np.array([slot], dtype=np.int32), unclear=np.array([Unclear.MESSAGE], dtype=np.int16)
        )
        self.emit(ReadingBatch(unclear=doubt))

    def _trusted(self, slot: int, trusted: bool) -> None:
        if not self._current(slot):
            return
        facts = self._codecs[int(self._fleet.nameplate.profile[slot])].facts
        session = self.sessions.get(slot)
        read_only = session.product_variant.read_only if trusted and session is not None else ""
        self._fleet.identified(slot, facts, as_registered=trusted, read_only=read_only)
        if trusted and session is not None:
            maker, product, firmware = (np.array([word], dtype=np.object_) for word in session.states())
            self.emit(
                ReadingBatch(
                    status=StatusBatch(
                        slots=np.array([slot], dtype=np.int32), online=np.array([True]),
                        maker=maker, product=product, firmware=firmware,
                    )
                )
            )  # fmt: skip

    def _soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        """Emit the readings of many sessions as one batch, but none of a battery that was replaced meanwhile. Energy
        waits while anybody pauses telemetry."""
        self._flush_due = False
        lives = [row for row in self._lives if not self._outdated(row[0])]
        energies = [] if self._pauses else [row for row in self._energies.take() if not self._outdated(row[0])]
        answers = [row for row in self._answers if not self._outdated(row[0])]
        self._lives, self._answers = [], []
        if lives:
            self.emit(ReadingBatch(live=live_batch(lives)))
        if answers:
            self.emit(
                ReadingBatch(
                    acks=AckBatch(
                        slots=np.array([a[0] for a in answers], dtype=np.int32),
                        cmd=np.array([a[1] for a in answers], dtype=np.int64),
                        result=np.array([int(a[2]) for a in answers], dtype=np.int8),
                    )
                )
            )
        if energies:
            self.emit(ReadingBatch(energy=self._energy_batch(energies)))

    def _energy_batch(self, samples: Sequence[tuple[int, EnergySample, Now]]) -> EnergyBatch:
        for slot, _, _ in samples:
            self._seq[slot] = self._seq.get(slot, 0) + 1
        return EnergyBatch(
            slots=np.array([s[0] for s in samples], dtype=np.int32),
            boot=np.full(len(samples), self._boot, dtype=np.int64),
            seq=np.array([self._seq[s[0]] for s in samples], dtype=np.int64),
            t_ms=np.array([s[2].mono_ms for s in samples], dtype=np.int64) + self._since_boot_ms(),
            span_ms=np.array([s[1].span_ms for s in samples], dtype=np.int64),
            **{name: np.array([getattr(s[1], name) for s in samples], dtype=np.float64) for name in _SAMPLED},
        )

    def _since_boot_ms(self) -> int:
        """What makes wall time (UTC) of monotonic time. The two are not read at one moment: what is no more than that
        leaves no gap between two samples."""
        now = self._wall.now()
        if abs(now.utc_ms - now.mono_ms - self._offset_ms) > JITTER_MS:
            self._offset_ms = now.utc_ms - now.mono_ms
        return self._offset_ms

    # -- commands --------------------------------------------------------------------------------------------

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        """Queue every command in its session, as a broker does with a message: ACCEPTED = a connected session has it.
        The device's result comes later as an answer; a slow device does not delay the tick."""
        delivery = np.full(len(batch), int(WriteOutcome.NOT_SENT), dtype=np.int8)
        for row, slot in enumerate(batch.slots.tolist()):
            session = self.sessions.get(slot)
            if session is None or not self._current(slot):
                continue
            outcome = session.command(
                Command(
                    op=CommandOp(int(batch.op[row])),
                    setpoint_w=float(batch.setpoint_w[row]),
                    lease_s=float(batch.lease_s[row]),
                    reserve_pct=float(batch.reserve_pct[row]),
                    cmd=int(batch.cmd[row]),
                    valid_until_ms=int(batch.valid_until_ms[row]),
                )
            )
            delivery[row] = int(outcome.result() if outcome.done() else WriteOutcome.ACCEPTED)
        return WriteReport(delivery=delivery)

    def pause_telemetry(self, on: bool) -> None:
        self._pauses += 1 if on else -1
        if self._energies and not self._pauses:
            self._soon()

    def untrusted(self) -> Iterator[Untrusted]:
        """Devices that are not what they are registered as, by id."""
        for session in sorted(self.sessions.values(), key=lambda session: session.device):
            if session.untrusted_since_ms is not None:
                yield Untrusted(
                    name=session.device, reason=Distrust.WRONG_IDENTITY, since_ms=session.untrusted_since_ms,
                    lifted_by="the registered product, once it answers; or an import of the device as what it is",
                    detail=session.mistaken_for,
                )  # fmt: skip

    def warnings(self) -> list[str]:
        """Why devices cannot be reached although nothing is wrong with them."""
        unread = sorted(session.device for session in self.sessions.values() if session.secret_unreadable)
        return [f"secrets of {len(unread)} devices cannot be read, first of {unread[0]}"] if unread else []

    # -- metrics ---------------------------------------------------------------------------------------------

    def samples(self) -> Iterable[Sample]:
        """Metrics of polled devices."""
        states = dict.fromkeys(SessionPhase, 0)
        for session in self.sessions.values():
            states[session.state] += 1
        yield from SESSIONS.each(states)
        yield WITHOUT_SECRET.sample(sum(session.secret_unreadable for session in self.sessions.values()))
        stats, control = self.stats, self.control_stats
        yield CONNECTS.sample(stats.connects)
        yield POLLS.sample(stats.polls)
        yield POLL_FAILURES.sample(stats.poll_failures)
        yield BUSY.sample(stats.busy)
        yield SUPERSEDED.sample(stats.superseded)
        yield OUTDATED.sample(stats.outdated)
        yield SESSION_QUARANTINED.sample(stats.quarantined)
        yield ENERGY_GAPS.sample(stats.energy_gaps + self._energies.lost)
        yield WRITES.sample(control.requests)
        yield REFUSALS.sample(control.refused)
        yield UNWRITABLE.sample(control.unwritable)
        yield OVER_BUDGET.sample(control.over_budget)
        yield NOT_HELD.sample(control.not_shown)
        yield FOREIGN_WRITES.sample(control.foreign)
        yield HANDED_BACK.sample(control.half_way)
        yield SETTINGS_SAVED.sample(control.saved)
        yield SETTINGS_RESTORED.sample(control.restored)
        counts = [codec.product.base.counts for codec in self._codecs.values() if codec.product is not None]
        yield SENTINELS.sample(sum(c.sentinel for c in counts))
        yield IMPLAUSIBLE.sample(sum(c.implausible for c in counts))
        yield MALFORMED.sample(sum(c.malformed for c in counts))


def live_batch(rows: Sequence[tuple[int, CanonicalReading, Now, int]]) -> LiveBatch:
    """Readings as columns; what a product does not have is unknown."""
    columns: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = {}
    for name, canonical in LIVE.items():
        if name in ("device_t_ms", "cmd"):
            continue
        values = np.array([row[1].get(name) for row in rows], dtype=np.float64)
        if canonical.dtype is not np.float64:
            values = np.where(np.isnan(values), canonical.unknown, values).astype(canonical.dtype)
        columns[name] = values
    unclear = np.array([row[1].unclear for row in rows], dtype=np.int16)
    return LiveBatch(
        slots=np.array([row[0] for row in rows], dtype=np.int32),
        fresh=np.ones(len(rows), dtype=np.bool_),
        device_t_ms=np.array([row[2].utc_ms for row in rows], dtype=np.int64),
        cmd=np.array([row[3] for row in rows], dtype=np.int64),
        reserve_again=np.array([row[1].reserve_again for row in rows], dtype=np.bool_),
        unclear=unclear if unclear.any() else None,
        **columns,  # type: ignore[arg-type]
    )


def _nowhere(_batch: ReadingBatch) -> None:
    """Drop readings before `run`: no session is running then."""
