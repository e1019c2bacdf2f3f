"""Takes mends of the gateway back one by one and lets the histories look for each: `python -m tests.mutants`.

Those of control are looked for by `tests.histories`, those of settlement by `tests.settlement_histories`, those of the
aggregator by `tests.leap_histories`.

A mend is named in words and reverted in a copy of the tree by replacing exact texts; a text that is no longer there, or
there twice, is an error. What the histories do not find is a promise that they do not judge. Exit status 1: a mutant
was not found.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("gateway", "simulators", "tests", "device_profiles", "pyproject.toml")
HISTORIES = {"tests.histories": 3_000, "tests.settlement_histories": 600, "tests.leap_histories": 2_000}
SETTLEMENT = "tests.settlement_histories"
AGGREGATOR = "tests.leap_histories"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A mend that is taken back: `edits` are a file, a text in it, and what stands there instead; `by`: which histories
    look for it."""

    name: str
    mend: str
    edits: tuple[tuple[str, str, str], ...]
    by: str = "tests.histories"


LOOP = "gateway/services/control/loop.py"
TRACKING = "gateway/domain/control/tracking.py"
BOOK = "gateway/domain/events/book.py"
RESERVE = "gateway/domain/fleet/reserve.py"
QUARANTINE = "gateway/domain/control/quarantine.py"
MESSAGES = "gateway/links/mqtt/messages.py"
DELIVERY = "gateway/services/uplink/delivery.py"
SLOT_BOOK = "gateway/signals/leap/slot_book.py"

MUTANTS = (
    Mutant(
        name="unreachable",
        mend="Devices that cannot be told anything do not keep their share.",
        edits=((TRACKING, "& ~faulty & ~unreachable", "& ~faulty"),),
    ),
    Mutant(
        name="sources",
        mend="Events belong to their source.",
        edits=((BOOK, "return replace(request, id=mine[0] if mine else free)", "return request"),),
    ),
    Mutant(
        name="lease-ends",
        mend="A lease ends with its event.",
        edits=(
            (
                "gateway/domain/control/leases.py",
                "return result if until_ms is None else _bounded_s(result, granted, snapshot, now, slots, until_ms)",
                "return result",
            ),
        ),
    ),
    Mutant(
        name="ceilings",
        mend="The ceiling of a program binds every kind of target.",
        edits=(
            (
                TRACKING,
                "goal_w, asked_w, clipped = self._ceilings.each(event, goal_w, asked_w, "
                "float(self._each_w[others].sum()))",
                "clipped = bool(others.all())",
            ),
        ),
    ),
    Mutant(
        name="ramp",
        mend="The ramp belongs to the events that move.",
        edits=(
            (
                "gateway/domain/control/ramp.py",
                "min(ahead_w[index], self._free_w / (len(ahead_w) - done))",
                "self._free_w / (len(ahead_w) - done)",
            ),
            (
                "gateway/domain/control/ramp.py",
                "most_w = self._part_w.pop(index, 0.0) + self._free_w",
                "most_w = self._part_w.pop(index, 0.0)",
            ),
        ),
    ),
    Mutant(
        name="reserve-raised",
        mend="A higher reserve counts at once.",
        edits=(
            (RESERVE, "chosen = higher | lowered | back", "chosen = (higher & sure) | lowered | back"),
            (
                "gateway/domain/limits/device.py",
                "reserve_pct = np.fmax(plate.owner_reserve_pct, live.reserve_pct)",
                "reserve_pct = plate.owner_reserve_pct.copy()",
            ),
        ),
    ),
    Mutant(
        name="reserve-lowered",
        mend="A lower reserve counts only once it is confirmed.",
        edits=((RESERVE, "sure = _confirmed(live)[rows]", "sure = np.ones(len(rows), dtype=np.bool_)"),),
    ),
    Mutant(
        name="stop-maintenance",
        mend="A stop also ends the gateway's own charging.",
        edits=(
            (
                LOOP,
                "if self._halted() or self._fleet_clock.trust is ClockTrust.CONTRADICTED:",
                "if self._fleet_clock.trust is ClockTrust.CONTRADICTED:",
            ),
            (
                "gateway/services/control/maintenance.py",
                "        if dispatcher.stopped:\n            self._charge({}, None)\n        elif",
                "        if",
            ),
            (
                "gateway/services/control/command_writer.py",
                "        if self._halted():\n            return marks.released\n",
                "",
            ),
        ),
    ),
    Mutant(
        name="opt-out",
        mend="An opt-out that a home reports counts at once.",
        edits=(
            (
                "gateway/services/control/arbitration.py",
                "bits |= (self._fleet.live.opt_out[:n] != 0) * np.uint8(ExclusionReason.OPTED_OUT)",
                "bits |= np.uint8(0)",
            ),
        ),
    ),
    Mutant(
        name="delivered",
        mend="What is not measured is not called delivered.",
        edits=(
            (
                TRACKING,
                "delivered_w=delivered_w,",
                "delivered_w=delivered_w + self._power.assumed_w(counted),",
            ),
        ),
    ),
    Mutant(
        name="old-now",
        mend="An event that says now and is old is refused.",
        edits=((BOOK, "return Refusal.NOW_TOO_OLD if age_ms > bound_ms else None", "return None"),),
    ),
    Mutant(
        name="cancel-holds",
        mend="An operator's cancellation holds against every later revision.",
        edits=(
            (
                BOOK,
                "if known is not None and known.held_by is not None and not request.cancelled:",
                "if known is not None and known.held_by is not None and request.revision < 0:",
            ),
        ),
    ),
    Mutant(
        name="final-records",
        mend="However many events end in one tick, each has its final records.",
        edits=(
            ("gateway/services/events/delivery_records.py", "OVER_ROWS_MAX = 100_000", "OVER_ROWS_MAX = 1"),
        ),
    ),
    Mutant(
        name="stranded",
        mend="A device under control whose profile is missing is told.",
        edits=(("gateway/services/control/queries.py", "            + self.stranded.reasons()\n", ""),),
    ),
    Mutant(
        name="sign-check",
        mend="The check for devices that do the opposite waits until they have settled.",
        edits=(
            (
                QUARANTINE,
                "    due &= seen_s - np.maximum(kept.commanded_s, kept.ours_s) > settling_s(snapshot)\n",
                "",
            ),
            (QUARANTINE, "SUSTAINED_S = 60\n", "SUSTAINED_S = 0\n"),
            (QUARANTINE, "READINGS_MIN = 3\n", "READINGS_MIN = 2\n"),
        ),
    ),
    Mutant(
        name="moves",
        mend="An import does not change the product of a device that is not free.",
        edits=(("gateway/services/devices/moves.py", "if tie is not None:", 'if tie == "":'),),
    ),
    Mutant(
        name="acknowledged-durable",
        mend="Settlement messages are acknowledged once they are durable.",
        edits=(
            (
                "gateway/services/telemetry/ingest.py",
                "await self._recorder.spool.wait_durable(self._unacknowledged[0][0])",
                "await asyncio.sleep(0)",
            ),
        ),
        by=SETTLEMENT,
    ),
    Mutant(
        name="raw-restart",
        mend="What is kept raw outlasts the process.",
        edits=(
            (
                "gateway/storage/raw_messages.py",
                "create table if not exists raw (",
                "drop table if exists raw;\ncreate table if not exists raw (",
            ),
        ),
        by=SETTLEMENT,
    ),
    Mutant(
        name="other-product",
        mend="A settlement message of another product than its device's stops nobody's reading.",
        edits=((MESSAGES, "live[own] if len(live) else live", "live[own]"),),
        by=SETTLEMENT,
    ),
    Mutant(
        name="returned",
        mend="A device that was removed has its counters and numbers when it is back, also over a restart.",
        edits=(
            (
                "gateway/services/devices/registry.py",
                "        for name in removed:\n            self._fleet.keep(name)\n",
                "",
            ),
        ),
        by=SETTLEMENT,
    ),
    Mutant(
        name="parked",
        mend="A record is parked on evidence, not while its receiver is ill.",
        edits=(
            (
                DELIVERY,
                "        return kept\n\n    async def _witnesses",
                "        return Reject(refused={0: kept.reason})\n\n    async def _witnesses",
            ),
        ),
        by=SETTLEMENT,
    ),
    Mutant(
        name="foreign-answer",
        mend="An answer about another batch accepts nothing.",
        edits=(("gateway/sinks/http.py", "if answer.batch != batch.id:", 'if answer.batch == "":'),),
        by=SETTLEMENT,
    ),
    Mutant(
        name="older-last",
        mend="No older revision arrives after a newer one.",
        edits=(
            (
                DELIVERY,
                "            over = await self._finder.superseded(rows)\n            outcomes",
                "            over = np.zeros(len(rows), dtype=np.bool_)\n            outcomes",
            ),
        ),
        by=SETTLEMENT,
    ),
    Mutant(
        name="fleet-clocks",
        mend="Most of the fleet at once is right about the time.",
        edits=(("gateway/domain/intervals/device_clock.py", "\nMOST = 5\n", "\nMOST = 5_000\n"),),
        by=SETTLEMENT,
    ),
    Mutant(
        name="late-retry",
        mend="A webhook does not undo what a search has shown.",
        edits=((SLOT_BOOK, "if known.confirmed_ms is None:", "if True:"),),
        by=AGGREGATOR,
    ),
    Mutant(
        name="late-answer",
        mend="A search that was asked before another does not undo what that has shown.",
        edits=((SLOT_BOOK, "if asked_ms < max(newest_ms, known.confirmed_ms or 0):", "if asked_ms < 0:"),),
        by=AGGREGATOR,
    ),
    Mutant(
        name="events-twice",
        mend="What the book of events has is not submitted again.",
        edits=(
            (
                "gateway/signals/leap/submission.py",
                "if replace(request, revision=known.request.revision) == known.request:",
                "if request is known.request:",
            ),
        ),
        by=AGGREGATOR,
    ),
    Mutant(
        name="interface-test",
        mend="A test of the interface never touches a real slot.",
        edits=(
            (
                "gateway/signals/leap/slots.py",
                "return (self.integration, self.level, self.event_id, self.owner)",
                "return (False, self.level, self.event_id, self.owner)",
            ),
        ),
        by=AGGREGATOR,
    ),
    Mutant(
        name="stated-ahead",
        mend="A statement of a later time does not hide what the aggregator says of now.",
        edits=(
            (
                "gateway/services/programs/statements.py",
                "begun = [fact for fact in group if fact.from_ms <= begin_ms]",
                "begun = group",
            ),
        ),
        by=AGGREGATOR,
    ),
    Mutant(
        name="wish-outlived",
        mend="A wish that the aggregator took back does not outlive that.",
        edits=(
            ("gateway/services/programs/leap_sync.py", "if known is None or not holds:", "if known is None or holds:"),
        ),
        by=AGGREGATOR,
    ),
)  # fmt: skip


def reverted(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """The files of a mutant, with the mend taken back. Raises ValueError where a text is not there exactly once."""
    files: dict[str, str] = {}
    for name, text, other in mutant.edits:
        source = files.get(name) or (root / name).read_text(encoding="utf-8")
        if source.count(text) != 1:
            raise ValueError(f"{mutant.name}: {name} has {source.count(text)} times: {text}")
        files[name] = source.replace(text, other)
    return files


def copied(into: Path) -> None:
    """A copy of what the histories need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, into / name)


def search(mutant: Mutant, *, count: int, seed: int, jobs: int) -> dict[str, object]:
    """Look for a mutant with that many histories."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        copied(Path(scratch))
        for name, source in reverted(mutant).items():
            (Path(scratch) / name).write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", mutant.by, "--first", "--json", "--count", str(count)]
        command += ["--seed", str(seed), "--jobs", str(jobs)]
        done = subprocess.run(
            command, cwd=scratch, env=os.environ | {"PYTHONPATH": scratch}, check=False, capture_output=True, text=True
        )
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{mutant.name}: {done.stderr[-2_000:]}")
    told = json.loads(done.stdout)
    says = [one["says"].splitlines()[0] for one in told["broken"]]
    return {"name": mutant.name, "mend": mutant.mend, "found": bool(says), "histories": told["histories"],
            "seconds": told["seconds"], "says": says[0] if says else ""}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", choices=[mutant.name for mutant in MUTANTS])
    parser.add_argument("--count", type=int, help=f"histories for each at most; else {HISTORIES}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    missed = 0
    for mutant in MUTANTS:
        if asked.only and mutant.name not in asked.only:
            continue
        told = search(mutant, count=asked.count or HISTORIES[mutant.by], seed=asked.seed, jobs=asked.jobs)
        missed += not told["found"]
        if asked.json:
            print(json.dumps(told), flush=True)
        else:
            verdict = "found" if told["found"] else "NOT FOUND"
            print(f"{mutant.name:18} {verdict:9} {told['histories']:>6} histories  {told['says']}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
