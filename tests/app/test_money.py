"""The process beside the daemon that works out performance and money: whatever becomes of it is said and mended."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.app import money
from gateway.app.money import COMMAND, MoneyProcess
from gateway.app.money_worker import MoneyPlan
from gateway.clock import Clock, ManualClock, SystemClock
from gateway.domain.programs.site_day import DayFrame
from gateway.services.settings import MoneySettings, ProgramSettings
from gateway.storage.programs.daily import DailyColumns
from tests.builders.site_days import logged, placed, whole_day
from tests.scenes.waiting import until

pytestmark = pytest.mark.real_time

CHILD = Path(__file__).with_name("money_child.py")
FRAME = DayFrame(zone="UTC", length_s=900)
EARLY = datetime.fromtimestamp(SystemClock().now().utc_ms / 1000, tz=UTC).date() - timedelta(days=5)
PROGRAMS = Path(__file__).parents[2] / "config" / "programs"


def plan(state_dir: Path, *, silent_s: float = 60.0, programs_dir: Path | None = None) -> MoneyPlan:
    settings = {"p": ProgramSettings(interval_length_s=900)}
    return MoneyPlan(
        state_dir=state_dir, programs=settings, programs_dir=programs_dir,
        money=MoneySettings(every_s=0.05, silent_s=silent_s),
    )  # fmt: skip


@asynccontextmanager
async def running(
    wanted: MoneyPlan, *, command: Sequence[str] = COMMAND, clock: Clock | None = None
) -> AsyncIterator[MoneyProcess]:
    process = MoneyProcess(wanted, clock=SystemClock() if clock is None else clock, command=command)
    task = asyncio.create_task(process.run(), name="money")
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def misbehaving(how: str) -> Sequence[str]:
    return sys.executable, str(CHILD), how


def value(process: MoneyProcess, name: str, **labels: str) -> float:
    found = [s.value for s in process.samples() if s.name == name and set(labels.items()) <= set(s.labels)]
    return found[0] if found else -1.0


async def history(state_dir: Path) -> None:
    clock = ManualClock(utc_ms=FRAME.span(EARLY)[0] - 1)
    await placed(state_dir, [("a", "home")], clock)
    clock.utc = FRAME.span(EARLY)[1]
    await logged(state_dir, whole_day("a", EARLY, frame=FRAME, discharge_wh=10.0), clock)


def lives(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


def environment(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def command_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def written(state_dir: Path) -> bool:
    with DailyColumns(state_dir) as store:
        return EARLY in store.written(FRAME)


async def test_days_are_written_by_a_process_of_low_priority_that_ends_with_its_part(tmp_path: Path) -> None:
    await history(tmp_path)
    async with running(plan(tmp_path, programs_dir=PROGRAMS)) as process:
        assert process.warnings() == ["performance is not worked out: it has not begun yet"]
        await until(lambda: written(tmp_path))
        pid = process.pid
        assert pid is not None
        assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
        await until(lambda: value(process, "gateway_money_backlog", job="columns") == 0)
        assert process.warnings() == []
        assert value(process, "gateway_money_job_success_timestamp_seconds", job="columns") > 1.7e9
        assert value(process, "gateway_money_running") == 1
    assert not lives(pid)
    with DailyColumns(tmp_path) as store:
        (day,) = store.days(FRAME, [EARLY])
    assert day.totals_wh()[:, 0].tolist() == [0, 0, 0, 2880]


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, "ended"), (signal.SIGSTOP, "silent")])
async def test_a_process_that_is_killed_or_stands_still_is_started_again(
    tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    await history(tmp_path)
    async with running(plan(tmp_path, silent_s=60.0 if reason == "ended" else 1.5)) as process:
        await until(lambda: value(process, "gateway_money_running") == 1)
        first = process.pid
        assert first is not None
        os.kill(first, number)
        await until(lambda: value(process, "gateway_money_restarts", reason=reason) >= 1)
        assert not lives(first)
        await until(lambda: value(process, "gateway_money_running") == 1)
        assert process.pid != first
        await until(lambda: written(tmp_path))


async def test_starts_are_within_a_budget_and_meanwhile_readiness_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "PAUSE_S", 0.0)
    async with running(plan(tmp_path), command=misbehaving("ends"), clock=ManualClock()) as process:
        await until(lambda: value(process, "gateway_money_restarts", reason="ended") == money.STARTS_MAX)
        await until(lambda: "the next start is in" in process.warnings()[0])
        assert process.pid is None
        assert process.warnings()[0].startswith("performance is not worked out: it ended with 3")


@pytest.mark.parametrize(
    ("how", "why"), [("babbles", "it said what it should not"), ("floods", "it said what it should not")]
)
async def test_a_process_that_says_what_it_should_not_is_ended(tmp_path: Path, how: str, why: str) -> None:
    async with running(plan(tmp_path), command=misbehaving(how)) as process:
        await until(lambda: value(process, "gateway_money_restarts", reason="ended") == 1)
        assert why in process.warnings()[0]


async def test_a_job_that_fails_is_warned_of_and_no_process_makes_metrics_without_bound(tmp_path: Path) -> None:
    async with running(plan(tmp_path), command=misbehaving("names")) as process:
        await until(lambda: value(process, "gateway_money_job_failures", job="job-0") == 1)
        assert process.warnings() == ["job job-0: no disk"]
        assert value(process, "gateway_money_job_success_timestamp_seconds", job="job-0") == 0.001
        jobs = {label for s in process.samples() for label in s.labels if label[0] == "job"}
        assert len(jobs) == money.JOBS_MAX


async def test_a_poisoned_program_file_is_said_and_the_other_programs_are_worked_out(tmp_path: Path) -> None:
    await history(tmp_path)
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "poison.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\n" + "[" * 10_000)
    (directory / "noise.yaml").write_bytes(os.urandom(4_096))
    (directory / "dsgs-option3.yaml").write_bytes((PROGRAMS / "dsgs-option3.yaml").read_bytes())
    async with running(plan(tmp_path, programs_dir=directory)) as process:
        await until(lambda: written(tmp_path))
        said = process.warnings()
        assert [line for line in said if "poison.yaml" in line]
        assert [line for line in said if "noise.yaml" in line]
        assert not [line for line in said if "dsgs" in line]


async def test_a_disk_that_takes_nothing_is_said_and_work_goes_on_when_it_does(tmp_path: Path) -> None:
    await history(tmp_path)
    directory = tmp_path / "money"
    directory.mkdir()
    (directory / "columns.sqlite").mkdir()  # nothing can be written there
    async with running(plan(tmp_path)) as process:
        await until(lambda: value(process, "gateway_money_job_failures", job="columns") >= 1)
        assert "job columns" in process.warnings()[0]
        (directory / "columns.sqlite").rmdir()
        await until(lambda: written(tmp_path))
        await until(lambda: not process.warnings())


async def test_a_program_of_the_configuration_that_says_no_zone_has_that_of_its_file(tmp_path: Path) -> None:
    await history(tmp_path)
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "dsgs-option3.yaml").write_bytes((PROGRAMS / "dsgs-option3.yaml").read_bytes())
    wanted = plan(tmp_path, programs_dir=directory)
    named = wanted.model_copy(update={"programs": {"dsgs-option3": ProgramSettings(interval_length_s=900)}})
    async with running(named) as process:
        await until(lambda: value(process, "gateway_money_job_success_timestamp_seconds", job="performance") > 0)
        assert value(process, "gateway_money_restarts", reason="ended") == 0


async def test_a_second_process_writes_nothing_beside_the_first_and_follows_when_that_has_gone(tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as first:
        await until(lambda: value(first, "gateway_money_running") == 1)
        other = MoneyProcess(plan(tmp_path), clock=SystemClock())
        task = asyncio.create_task(other.run(), name="other")
        await until(lambda: other.pid is not None and b"money_worker" in command_of(other.pid))
        await asyncio.sleep(1.0)
        assert value(other, "gateway_money_running") == 0
    await until(lambda: value(other, "gateway_money_running") == 1)
    assert value(other, "gateway_money_restarts", reason="ended") == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_process_whose_daemon_is_gone_ends_without_a_word(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    heard = process.stdout
    assert heard is not None
    heard._transport.close()  # type: ignore[attr-defined]  # as a daemon that is killed leaves its end
    _, words = await process.communicate(plan(tmp_path).model_dump_json(exclude_unset=True).encode() + b"\n")
    assert (process.returncode, words) == (0, b"")


async def test_the_process_is_given_no_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_PASSWORD", "canary-5521")
    async with running(plan(tmp_path)) as process:
        await until(lambda: process.pid is not None)
        assert b"canary" not in environment(process.pid)
