"""Recovery: loads the newest checkpoint, then replays the spool's records through the same engine code.

An interval record found in the spool may have been sent already, so it wins over what replay computes. The two differ
only if something was damaged or the code has changed; recovery counts that.
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
    """Interval `records` of spool record number `record` that the interval log does not have yet; `ids` by slot, "" =
    not known."""

    record: int
    records: IntervalRecords
    ids: Sequence[str]


@dataclass(slots=True)
class RecoveryStats:
    """What recovery met. `nameless`: records whose session has no device names, and devices whose state is lost because
    nothing names them."""

    replayed: int = 0
    mismatches: int = 0
    unreadable: int = 0
    nameless: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The engine by the caller's slots, the number of the next spool record, what the interval log still lacks, the
    segments to set aside, and the checkpoint it began from (for the caller's columns, by `checkpoint.header.ids`)."""

    engine: Engine
    next_record: int
    unlogged: list[Unlogged]
    corrupt: list[Path]
    checkpoint: Checkpoint | None
    stats: RecoveryStats


def recover(
    *, checkpoints: Checkpoints, spool: Path, rules: IntervalRules, ids: Sequence[str], logged_record: int
) -> Recovered:
    """Rebuild the engine. `logged_record`: the last spool record whose interval records are in the interval log; `ids`:
    the devices' present slots. `rules` apply on a first start only: changed ones come with the recorder's first
    record."""
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
    """Applies spool records to an engine. `names`: the slot numberings found, by session."""

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
        """Apply one spool record; returns its interval records, if it has any."""
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
        return Unlogged(record=record.number, records=step.records, ids=names) if len(step.records) else None

    def renumber(self, ids: Sequence[str]) -> None:
        """Renumber the engine to the slots of `ids`. State of a slot without a name is lost, and counted."""
        used = np.flatnonzero(self.engine.newest.t_ms[: self.engine.n] != NEVER_MS)
        named = np.array([bool(name) for name in self.ids], dtype=np.bool_)
        self.stats.nameless += len(used) - int(np.count_nonzero(named[used[used < len(named)]]))
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
            records = self.engine.relength(step.rules)
        elif step.config is not None:
            records = self.engine.agree(step.config)
        elif step.repair is not None:
            records = self.engine.repair(step.repair.slots, step.repair.start_ms, step.repair.bases)
        elif step.batch is not None:
            records = self.engine.ingest(step.batch, step.now, step.rated_w).records
        else:
            records = self.engine.close_due(step.now)
        if not same_records(records, step.records):
            self.stats.mismatches += 1
            self.engine.raise_revisions(step.records)
