"""Recovery: the newest checkpoint, then the spool's records replayed through the same engine code.

A close that is found in a record was made and may have been delivered, so the record wins over what replay computes;
they differ only if something was damaged or the code has changed, and that is counted.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.domain.errors import CorruptState
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.records import IntervalRecords
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import NEVER_MS
from gateway.storage.checkpoint import Checkpoint, Checkpoints
from gateway.storage.spool.records import Kind, Record, SpoolStep, read_names, read_step, same_records
from gateway.storage.spool.spool import Scan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlogged:
    """Closes of one spool record that the interval log does not have yet; `ids` by slot, "" = not known."""

    record: int
    closes: IntervalRecords
    ids: Sequence[str]


@dataclass(slots=True)
class RecoveryStats:
    """What recovery met. `nameless`: records of a session that nothing names, and devices whose state had to be left
    behind because nothing names them."""

    replayed: int = 0
    mismatches: int = 0
    unreadable: int = 0
    nameless: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The engine by the caller's slots, the number the next spool record gets, what the log still lacks, segments to
    set aside, and the checkpoint it began from (for the caller's own columns, by `checkpoint.header.ids`)."""

    engine: Engine
    next_record: int
    unlogged: list[Unlogged]
    corrupt: list[Path]
    checkpoint: Checkpoint | None
    stats: RecoveryStats


def recover(
    *, checkpoints: Checkpoints, spool: Path, rules: IntervalRules, ids: Sequence[str], logged_record: int
) -> Recovered:
    """Rebuild the engine. `logged_record` is the last record whose closes the interval log holds; `ids` the slots
    the devices have now. `rules` hold for a first start only: changed rules come with the recorder's first record."""
    checkpoint = checkpoints.load()
    replay = Replay.begin(checkpoint, rules)
    scan = Scan(spool)
    unlogged = [found for record in scan if (found := replay.apply(record)) and found.record > logged_record]
    stats = replay.stats
    stats.torn_bytes, stats.damaged_bytes = scan.torn_bytes, scan.damaged_bytes
    if stats.mismatches or stats.unreadable or stats.nameless:
        log.error(
            "recovery met damage",
            extra={"mismatches": stats.mismatches, "unreadable": stats.unreadable, "nameless": stats.nameless},
        )
    replay.renumber(ids)
    last = max(scan.last_record, logged_record, checkpoint.header.record if checkpoint else 0)
    return Recovered(
        engine=replay.engine,
        next_record=last + 1,
        unlogged=unlogged,
        corrupt=scan.corrupt,
        checkpoint=checkpoint,
        stats=stats,
    )


@dataclass(slots=True)
class Replay:
    """Applies spool records to an engine. `names` are the slot numberings met, by session."""

    engine: Engine
    ids: list[str]
    session: int
    done: int
    names: dict[int, list[str]]
    stats: RecoveryStats = field(default_factory=RecoveryStats)

    @classmethod
    def begin(cls, checkpoint: Checkpoint | None, rules: IntervalRules) -> "Replay":
        if checkpoint is None:
            return cls(engine=Engine(rules), ids=[], session=0, done=0, names={})
        header = checkpoint.header
        ids = list(header.ids)
        return cls(
            engine=checkpoint.engine(), ids=ids, session=header.session, done=header.record, names={header.session: ids}
        )

    def apply(self, record: Record) -> Unlogged | None:
        """Take one record; returns its closes, if it has any."""
        try:
            if record.kind in (Kind.FLEET, Kind.NAMES):
                self._name(record)
                return None
            step = read_step(record)
        except (CorruptState, ValueError):
            self.stats.unreadable += 1
            return None
        names = self.names.get(record.session)
        if names is None:
            self.stats.nameless += 1
            return None
        if record.number > self.done:
            self._align(record.session, names)
            self._replay(step)
            self.done = record.number
            self.stats.replayed += 1
        return Unlogged(record=record.number, closes=step.closes, ids=names) if len(step.closes) else None

    def renumber(self, ids: Sequence[str]) -> None:
        """Bring the engine to the slots of `ids`. What it holds of a slot without a name is lost, and counted."""
        held = np.flatnonzero(self.engine.newest.t_ms[: self.engine.n] != NEVER_MS)
        named = np.array([bool(name) for name in self.ids], dtype=np.bool_)
        self.stats.nameless += len(held) - int(np.count_nonzero(named[held[held < len(named)]]))
        where = {name: slot for slot, name in enumerate(self.ids) if name}
        self.engine.renumber(np.array([where.get(name, -1) for name in ids], dtype=np.int64))
        self.ids = list(ids)

    def _name(self, record: Record) -> None:
        first, ids = read_names(record.payload)
        if record.kind is Kind.FLEET:
            names = self.names.setdefault(record.session, [])
            names[: len(ids)] = ids
        else:
            names = self.names.setdefault(record.session, [])
            names.extend([""] * (first - len(names)))
            names[first : first + len(ids)] = ids

    def _align(self, session: int, names: list[str]) -> None:
        if session != self.session:
            self.renumber(names)
            self.ids, self.session = names, session
        self.engine.reserve(len(names))

    def _replay(self, step: SpoolStep) -> None:
        if step.rules is not None:
            closes = self.engine.relength(step.rules)
        elif step.terms is not None:
            closes = self.engine.agree(step.terms)
        elif step.repair is not None:
            closes = self.engine.repair(step.repair.slots, step.repair.start_ms, step.repair.bases)
        elif step.batch is not None:
            closes = self.engine.ingest(step.batch, step.now, step.rated_w).closes
        else:
            closes = self.engine.close_due(step.now)
        if not same_records(closes, step.closes):
            self.stats.mismatches += 1
            self.engine.honour(step.closes)
