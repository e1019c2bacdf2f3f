"""The process that works out money is stopped, killed and starved in the middle of an event: control goes on."""

import os
import signal
from pathlib import Path

import pytest

from tests.builders.process_tree import tree
from tests.e2e.rig import Daemon, eventually, running
from tests.e2e.test_dispatch import CONTROL, N, Street, street

pytestmark = pytest.mark.e2e

SETTINGS = {"control": CONTROL, "programs": {"test": {}}, "money": {"every_s": "100ms", "silent_s": "2s"}}


def workers(daemon: Daemon) -> list[int]:
    """The processes that work out money."""
    process = daemon.child.process
    assert process is not None
    return [
        one.pid for one in tree(process.pid)
        if one.state != "Z" and b"money_worker" in Path(f"/proc/{one.pid}/cmdline").read_bytes()
    ]  # fmt: skip


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def starve(state_dir: Path) -> None:
    """What the process writes cannot be written any more."""
    for path in (state_dir / "money").glob("columns.sqlite*"):
        path.unlink()
    (state_dir / "money" / "columns.sqlite").mkdir()


async def test_money_that_is_stopped_killed_and_starved_changes_nothing_for_an_event(tmp_path: Path) -> None:
    async with street(tmp_path) as plain:
        daemon = Daemon(tmp_path, plain.daemon.broker_port, SETTINGS)
        s = Street(daemon, plain.fleet)
        async with running(daemon):
            await s.enroll()
            await daemon.until("/readyz", lambda r: r.status == 200 and not r.body["warnings"], "ready, and no warning")
            await s.discharge("evening", s=600)
            await eventually(lambda: s.remote == N, "all follow", alive=daemon.child)
            (first,) = workers(daemon)
            os.kill(first, signal.SIGSTOP)
            await daemon.until(
                "/metrics", lambda r: 'gateway_money_restarts_total{reason="silent"} 1.0' in r.body, "noticed"
            )
            await eventually(lambda: workers(daemon) not in ([], [first]), "another one", alive=daemon.child)
            (second,) = workers(daemon)
            os.kill(second, signal.SIGKILL)
            await eventually(lambda: workers(daemon) not in ([], [second]), "a third one", alive=daemon.child)
            await daemon.until("/readyz", lambda r: not r.body["warnings"], "its work is done again")
            starve(tmp_path / "state")
            ready = await daemon.until(
                "/readyz", lambda r: any(one.startswith("job columns: ") for one in r.body["warnings"]), "the warning"
            )
            assert ready.status == 200
            shown = await daemon.ask("GET", "/v1/dispatch-events/evening")
            assert {one["status"] for one in shown.body["members"]} == {"delivering"}
            assert s.remote == N
            (third,) = workers(daemon)
            await daemon.child.kill()
            await eventually(lambda: not lives(third), "no process outlives its daemon")
