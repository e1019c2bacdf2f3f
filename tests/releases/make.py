"""Makes the vectors of a release: `python -m tests.releases.make 0.1` (the archive of its code must be there).

One story of some simulated homes, told to the release's own daemon as a real process: events that are over, scheduled,
cancelled, one that never actuates and one that runs, opt-outs, a quarantine, a reserve that an owner raised, receivers
at different places, one of which refuses a device. It is killed in mid-event, seconds after a checkpoint, with late
data on its way: that directory is `killed.tar.gz`. Then it goes on from there, is stopped for everybody and ended, and
its state exported: `stopped.archive`. What the same code shows of both is `truth.json`.
"""

import argparse
import asyncio
import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from simulators.faults import Fault, FaultKind
from simulators.platform import Outage
from tests.e2e.rig import event, eventually, now_ms, running
from tests.releases import truth
from tests.releases.street import INTERVAL_S, Street, street, told
from tests.releases.trees import RELEASES, Tree, TreeDaemon, unpacked

Document = truth.Document

FIRMWARE = 7
INVERTED, RAISED, OPTED_OUT, STORMY, REFUSED, METER = (
    "sim-00001",
    "sim-00002",
    "sim-00003",
    "sim-00004",
    "sim-00005",
    "meter-1",
)
DAY_MS = 24 * 3600 * 1000
LENGTH_MS = INTERVAL_S * 1000
MEASURED: tuple[dict[str, Any], ...] = (
    {"seq": 1, "interval": 0, "halves": "both", "charge_wh": 1.0},
    {"seq": 2, "interval": 1, "halves": "first", "charge_wh": 2.0},
    {"seq": 3, "interval": 2, "halves": "both", "charge_wh": 3.0},
    {"seq": 4, "interval": 3, "halves": "both", "charge_wh": 4.0},
)
LATE: dict[str, Any] = {"seq": 5, "interval": 1, "halves": "second", "charge_wh": 7.0}
"""What the meter says, at last what comes too late for its two newest intervals."""


def packed(directory: Path, out: Path) -> None:
    """A directory as an archive that depends on nothing but its files' names and bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            entry = tarfile.TarInfo(str(path.relative_to(directory)))
            entry.mode = 0o700 if path.is_dir() else 0o600
            if path.is_dir():
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                data = path.read_bytes()
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    out.write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))


async def posted(daemon: TreeDaemon, path: str, body: object) -> None:
    reply = await daemon.post(path, body)
    assert reply.status == 200, reply


async def events(s: Street, daemon: TreeDaemon) -> None:
    """One event of every kind and state, at last one that runs on."""
    now = now_ms()
    await posted(daemon, "/v1/dispatch-events", event("over", start_ms=now, end_ms=now + 8_000, target_w=6_000))
    await daemon.until("/v1/dispatch-events/over", lambda r: r.body["state"] == "completed", "an event that is over")
    await s.all_released(daemon)
    ids = s.fleet.devices.homes.ids
    s.fleet.inject(ids.index(INVERTED), Fault(kind=FaultKind.WRONG_SIGN))
    s.fleet.inject(ids.index(RAISED), Fault(kind=FaultKind.OWNER_RESERVE, value=35.0))
    for name, body in (
        ("tomorrow", {"start_ms": now + DAY_MS, "end_ms": now + DAY_MS + 3_600_000, "target_w": -4_000,
                      "kind": "capacity_test", "group": {"tags": ["zone-a"]}}),
        ("taken-back", {"start_ms": now + DAY_MS, "end_ms": now + DAY_MS + 3_600_000, "target_w": None}),
        ("on-paper", {"start_ms": now, "end_ms": now + 3_600_000, "target_w": 3_000, "kind": "dry_run"}),
        ("running", {"start_ms": now, "end_ms": now + 3_600_000, "target_w": 24_000, "priority": 10}),
    ):  # fmt: skip
        await posted(daemon, "/v1/dispatch-events", event(name, **body))
    assert (await daemon.ask("DELETE", "/v1/dispatch-events/taken-back")).status == 200
    await posted(daemon, "/v1/holds", {"id": "storm-7", "reason": "storm", "group": {"ids": [STORMY]},
                                       "until": "2099-01-01T00:00:00Z"})  # fmt: skip
    await posted(daemon, "/v1/holds", {"id": "out-1", "reason": "opt_out", "group": {"ids": [OPTED_OUT]},
                                       "event": "running", "by": "owner"})  # fmt: skip


async def until_killed(s: Street, daemon: TreeDaemon) -> Document:
    """From an empty directory to the kill; what was told to the daemon and must not be lost."""
    bare = {"address": "", "parameters": "", "username": "", "secret": "", "experimental": "false"}
    await s.enroll(daemon, {"id": METER, "profile": "reference-mqtt", "site": "meter"} | bare)
    s.book.refuses.add(REFUSED)
    async with running(daemon):
        await daemon.ready()
        await s.heard(daemon)
        edge_ms = (now_ms() // LENGTH_MS + 1) * LENGTH_MS
        await events(s, daemon)
        await daemon.until("/v1/quarantine", lambda r: INVERTED in r.body["quarantined"], "a quarantine")
        await daemon.until("/v1/sinks", lambda r: any(sink["parked"] for sink in r.body["sinks"]), "a parked row")
        await s.platform.set_outage(Outage.REFUSED)
        await s.all_steered(daemon, but=3)
        held = s.platform.by_mqtt
        before = len(held)
        await eventually(lambda: len(held) >= before + 2 * s.n, "two intervals of everybody", alive=daemon.child)
        await eventually(lambda: now_ms() > edge_ms + 4 * LENGTH_MS, "the meter's intervals", alive=daemon.child)
        await told(s.broker.port, METER, [_meter(edge_ms, **message) for message in MEASURED])
        stamp = _stamps(daemon)
        await eventually(lambda: _stamps(daemon) != stamp, "a checkpoint", alive=daemon.child)
        await asyncio.sleep(3)  # what is in the spool alone
        late = _meter(edge_ms, **LATE)
        await told(s.broker.port, METER, [late])
        await eventually(
            lambda: (METER, LATE["seq"]) in s.acknowledged(), "the late message is stored", alive=daemon.child
        )
        await daemon.child.kill()
    return {
        "device": METER,
        "t_ms": late["t"],
        "charge_wh": late["charge_wh"],
        "killed_ms": now_ms(),
        "steered": s.steered,
    }


def _meter(edge_ms: int, *, seq: int, interval: int, halves: str, charge_wh: float) -> dict[str, Any]:
    """A message on one half of an interval or on both, counted from the edge."""
    end_ms = edge_ms + interval * LENGTH_MS + (LENGTH_MS // 2 if halves == "first" else LENGTH_MS)
    span_ms = LENGTH_MS if halves == "both" else LENGTH_MS // 2
    return {"boot": 1, "seq": seq, "t": end_ms, "span_ms": span_ms, "charge_wh": charge_wh, "discharge_wh": 1.0}


def _stamps(daemon: TreeDaemon) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (daemon.directory / "state").glob("*.checkpoint")}


async def until_stopped(s: Street, daemon: TreeDaemon) -> None:
    """On from the kill: stop everything, see everybody released, end."""
    async with running(daemon):
        await s.all_steered(daemon, but=3)
        await posted(daemon, "/v1/dispatch/stop-all", {"active": True, "by": "operator"})
        await s.all_released(daemon)
        await s.platform.set_outage(Outage.NONE)
        await daemon.until("/v1/sinks", lambda r: all(not k["failing"] for k in r.body["sinks"]), "receivers are back")
        assert await daemon.stop() == 0


async def made(release: str, tree: Tree, directory: Path) -> Document:
    """Play the story and store its two states; what is known of it for the truth."""
    out = RELEASES / release
    async with street(directory, firmware=FIRMWARE) as s:
        daemon = s.daemon(tree)
        late = await until_killed(s, daemon)
        packed(directory / "state", out / "killed.tar.gz")
        await until_stopped(s, daemon)
        stopped_ms = now_ms()
        archive = directory / "stopped.archive"
        await tree.does("state", "export", "--config", str(daemon.config), "--out", str(archive))
        (out / "stopped.archive").write_bytes(archive.read_bytes())
    return {
        "release": release,
        "late": late,
        "killed": {"at_ms": late["killed_ms"] + truth.AFTER_MS},
        "stopped": {"at_ms": stopped_ms + truth.AFTER_MS},
    }


async def told_of(release: str, directory: Path, *, again: bool) -> None:
    """Make the vectors, or take those that are there, and write down what the release shows of them."""
    tree = unpacked(release, directory)
    document = truth.stored(release) if again else await made(release, tree, directory)
    for name in truth.STATES:
        document[name] = {"at_ms": document[name]["at_ms"]}
        document[name] |= await truth.seen_by(tree, release, name, document, directory)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (RELEASES / release / "truth.json").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("release")
    parser.add_argument("--truth", action="store_true", help="look again at the vectors that are there")
    parser.add_argument("--keep", type=Path, help="a scratch directory to keep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="battery-release-") as scratch:
        asyncio.run(told_of(options.release, options.keep or Path(scratch), again=options.truth))


if __name__ == "__main__":
    main()
