"""What a tree shows of a stored state: by REST of a daemon on a copy, and by the tables that this daemon leaves.

Nobody answers that daemon, neither broker nor battery nor receiver, its clock shows the time of the story, and control
waits for readings that do not come: so what it shows is what it read.
"""

import asyncio
import csv
import json
import re
import socket
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulators.processes import free_port
from tests.e2e.rig import Reply, running, utc
from tests.releases.street import GRACE_S, INTERVAL_S
from tests.releases.trees import RELEASES, Tree, TreeDaemon

Document = dict[str, Any]

STATES = ("killed", "stopped")
AFTER_MS = 60_000
"""How long after the end of the story its state is looked at: every interval that was open then is over."""
STEADY_S, SETTLED_S = 8.0, 30.0
WARM_UP_S = 30
OF_NOW = ("reading_age_s", "session", "online")
SECRETS = 32
HELD_S = 120.0
ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
TABLES = {
    "journal.sqlite": ("devices", "reserves", "events", "controlled", "prior", "holds", "quarantined", "deliveries"),
    "intervals/cursors.sqlite": ("cursor", "backfill", "parked"),
}


def stored(release: str) -> Document:
    """The truth about a release's vectors."""
    return dict(json.loads((RELEASES / release / "truth.json").read_text(encoding="utf-8")))


def daemon_on(tree: Tree, directory: Path, utc_ms: int, more: Document) -> TreeDaemon:
    """A daemon of `tree` whose world is empty; the state is `directory/state`. `more`: settings besides those of the
    story; receivers come in addition."""
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    change: Document = {
        "platform": {"broker": {"url": nobody, "client_id": "gateway-platform"}},
        "sinks": [
            {"kind": "http", "name": "platform-http", "url": f"http://127.0.0.1:{free_port()}/intervals"},
            {"kind": "mqtt", "name": "platform-mqtt"},
            *more.get("sinks", ()),
        ],
        "intervals": {"length_s": INTERVAL_S, "grace_s": GRACE_S, "keep_days": 3650},
        "control": {"warm_up_s": WARM_UP_S},
    }
    for name, section in more.items():
        if name != "sinks":
            change[name] = change.get(name, {}) | section
    secrets = {f"DEVICE_TOKEN_{index}": "nobody asks for it" for index in range(SECRETS)}
    return TreeDaemon(directory, free_port(), change, tree=tree, utc_ms=utc_ms, env=secrets)


async def placed(
    tree: Tree, release: str, name: str, directory: Path, utc_ms: int, more: Document | None = None
) -> TreeDaemon:
    """A daemon of `tree`, not started, on a copy of a stored state: a directory as it was, or an imported archive."""
    whole = _unpacked(release, name, directory)
    daemon = daemon_on(tree, directory, utc_ms, more or {})
    if whole is not None:
        await tree.does("state", "import", "--config", str(daemon.config), "--in", str(whole), utc_ms=utc_ms)
    return daemon


def _unpacked(release: str, name: str, directory: Path) -> Path | None:
    """Make the directory, with the state in it; the archive, where there is one that is to be imported."""
    directory.mkdir()
    whole = RELEASES / release / f"{name}.archive"
    if whole.exists():
        return whole
    (directory / "state").mkdir(mode=0o700)
    with tarfile.open(RELEASES / release / f"{name}.tar.gz") as archive:
        archive.extractall(directory / "state", filter="data")
    return None


async def seen_by(tree: Tree, release: str, name: str, document: Document, directory: Path) -> Document:
    """Everything that `tree` shows of a stored state. `document`: the truth as far as it is known."""
    known = document[name]
    daemon = await placed(tree, release, name, directory / f"seen-{name}", known["at_ms"])
    async with nobody_at(known), running(daemon):
        shown = await settled(daemon, document, name)
        errors = [line["message"] for line in daemon.log_lines() if line["level"] in ("error", "critical")]
        await daemon.child.kill()
    return {"shown": shown, "errors": errors, "tables": tables_of(daemon.directory / "state")}


@asynccontextmanager
async def nobody_at(known: object) -> AsyncIterator[None]:
    """Keep every other process from listening where the story's devices were."""
    ports = sorted({int(port) for port in ADDRESS.findall(json.dumps(known))})
    with ExitStack() as held:
        for port in ports:
            held.enter_context(await _held(port))
        yield


async def _held(port: int) -> socket.socket:
    """A socket that is bound there and takes no connection, once who has the port has left."""
    async with asyncio.timeout(HELD_S):
        while True:
            bound = socket.socket()
            try:
                bound.bind(("127.0.0.1", port))
            except OSError:
                bound.close()
                await asyncio.sleep(0.5)
            else:
                return bound


def lacking(known: object, seen: object, place: str = "") -> list[str]:
    """Where `seen` does not say what is known; what it says besides is no fault."""
    if isinstance(known, dict) and isinstance(seen, dict):
        return [
            line
            for name, value in known.items()
            for line in (lacking(value, seen[name], f"{place}/{name}") if name in seen else [f"{place}/{name}: gone"])
        ]
    if isinstance(known, list) and isinstance(seen, list) and len(known) == len(seen):
        pairs = enumerate(zip(known, seen, strict=True))
        return [line for i, (one, other) in pairs for line in lacking(one, other, f"{place}/{i}")]
    return [] if known == seen else [f"{place}: {known!r} became {seen!r}"]


def tables_of(state: Path) -> Document:
    """Rows of what is stored in tables, by column; texts that are JSON as what they say, bytes left out."""
    out: Document = {}
    for file, names in TABLES.items():
        with closing(sqlite3.connect(state / file)) as db:
            for name in names:
                found = db.execute(f"select * from {name}")  # noqa: S608
                columns = [column for column, *_ in found.description]
                out[name] = [dict(zip(columns, map(_parsed, row), strict=True)) for row in found]
                out[name].sort(key=json.dumps)
    return out


def _parsed(value: object) -> object:
    if isinstance(value, bytes):
        return None
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


async def settled(daemon: TreeDaemon, document: Document, name: str, *, but: Sequence[str] = ()) -> Document:
    """What a daemon shows once what it has to do at its start is done: when it shows all of the truth (`but` for some
    parts), and where that is not known, when nothing has changed for a while."""
    late, at_ms, known = document["late"], document[name]["at_ms"], document[name].get("shown")
    if known is not None:
        known = {part: value for part, value in known.items() if part not in but}
    loop = asyncio.get_running_loop()
    shown, since = await _shown(daemon, late, at_ms), loop.time()
    for_s = STEADY_S if known is None else SETTLED_S
    while (known is None or lacking(known, shown)) and loop.time() < since + for_s:
        await asyncio.sleep(0.2)
        again = await _shown(daemon, late, at_ms)
        if known is None and again != shown:
            since = loop.time()
        shown = again
    return shown


async def _shown(daemon: TreeDaemon, late: Document, at_ms: int) -> Document:
    start_ms = (late["t_ms"] - 1) // (INTERVAL_S * 1000) * INTERVAL_S * 1000
    stretch = f"/v1/intervals?from={_z(start_ms - 3_600_000)}&to={_z(at_ms)}"

    def repaired(reply: Reply) -> bool:
        return any(row["start"] == _z(start_ms) and "late" in row["quality"] for row in reply.body["intervals"])

    await daemon.until(f"{stretch}&device={late['device']}", repaired, "late data becomes a revision")
    rows = csv.DictReader((await daemon.ask("GET", f"{stretch}&format=csv")).body.splitlines())
    events = (await daemon.ask("GET", "/v1/dispatch-events")).body
    devices = (await daemon.ask("GET", "/v1/devices?limit=1000")).body["devices"]
    return {
        "devices": [{name: value for name, value in one.items() if name not in OF_NOW} for one in devices],
        "stopped": events["stopped"],
        "events": [(await daemon.ask("GET", f"/v1/dispatch-events/{one['id']}")).body for one in events["events"]],
        "holds": (await daemon.ask("GET", "/v1/holds")).body,
        "quarantine": (await daemon.ask("GET", "/v1/quarantine")).body,
        "intervals": {f"{row['start']} {row['device']}": row for row in rows},
        "sinks": (await daemon.ask("GET", "/v1/sinks")).body["sinks"],
        "completeness": await _completeness(daemon, day_of(at_ms)),
    }


async def _completeness(daemon: TreeDaemon, day: str) -> list[dict[str, Any]]:
    """Of every device; a page may have fewer than it was asked for."""
    found: list[dict[str, Any]] = []
    following: int | None = 0
    while following is not None:
        page = (await daemon.ask("GET", f"/v1/completeness?day={day}&limit=1000&offset={following}")).body
        found += page["devices"]
        following = page["next"]
    return found


def day_of(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).date().isoformat()


def _z(ms: int) -> str:
    return utc(ms).replace("+00:00", "Z")
