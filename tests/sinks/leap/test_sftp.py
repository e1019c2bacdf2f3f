"""The aggregator's sink over SFTP: a real OpenSSH server, and the stand-in behind its folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.clock import SystemClock
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import Now
from gateway.ports.sinks import Accept, Keep, Reject, SinkResult, Stop
from gateway.sinks.leap.over_sftp import LeapSftpSettings, errors_of_csv
from gateway.sinks.leap.replies import LineError
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.sink import LeapCsvSink
from simulators.aggregator import (
    AT_ONCE,
    FAILED_WITHOUT_ERRORS,
    NEVER,
    Access,
    Aggregator,
    Fate,
    OpenPoints,
    Schema,
    SftpFolder,
)
from tests.builders.interval_logs import T0, batch, quarter
from tests.builders.leap import METERS, NOW_MS, meter_id
from tests.builders.openssh import OpenSsh
from tests.scenes.leap import FIRST_DAY, QUARTER_MS, key, mapping

pytestmark = pytest.mark.real_time

HOMES = (1, 2, 3, 4, 5)


class SshRig:
    """A sink, the server that it puts files on, and the aggregator that looks into the folder."""

    def __init__(self, directory: Path, server: OpenSsh, aggregator: Aggregator, folder: SftpFolder) -> None:
        self.directory = directory
        self.server = server
        self.aggregator = aggregator
        self.folder = folder
        self.meters = directory / "meters.csv"
        self.meters.write_text(mapping(*HOMES), encoding="utf-8")
        self.sink = self.another()

    def another(self, **change: Any) -> LeapCsvSink:
        """A sink as it is after a start of the gateway."""
        account = {
            "host": "127.0.0.1", "port": self.server.port, "user": self.server.user, "folder": self.server.folder,
            "password": SecretStr(self.server.password), "host_key": self.server.known_hosts.split(" ", 1)[1].strip(),
        } | change  # fmt: skip
        settings = LeapCsvSinkSettings(
            kind="leap_csv", name="leap", meters=self.meters, poll_s=0.05, timeout_s=20, job_timeout_s=25,
            sftp=LeapSftpSettings.model_validate(account),
        )  # fmt: skip
        return LeapCsvSink(settings, clock=CLOCK, directory=self.directory / "outbox")

    async def send(self, *homes: int, index: int = 0) -> SinkResult:
        return await self.sink.send(batch([quarter(home, index=index) for home in homes]))

    async def offer(self, rows: list[IntervalRecord]) -> SinkResult:
        return await self.sink.send(batch(rows))

    @property
    def taken(self) -> dict[tuple[str, int], int]:
        """How often each meter and start was accepted."""
        return {key_: len(versions) for key_, versions in self.aggregator.intervals.accepted.items()}


class LaterClock:
    """The machine's clocks, begun when the intervals of the tests are over: for both sides."""

    boot = "later"

    def __init__(self) -> None:
        self._machine = SystemClock()
        self._begun_ms = self._machine.mono_ms()

    def now(self) -> Now:
        mono_ms = self._machine.mono_ms()
        return Now(utc_ms=NOW_MS + mono_ms - self._begun_ms, mono_ms=mono_ms)

    def mono_ms(self) -> int:
        return self._machine.mono_ms()

    def cpu_ns(self) -> int:
        return self._machine.cpu_ns()

    def utc_ms(self) -> int:
        return self.now().utc_ms

    def mono_s(self) -> float:
        return self.mono_ms() / 1000


CLOCK = LaterClock()


@asynccontextmanager
async def rig(
    directory: Path, *, homes: tuple[int, ...] = HOMES, points: OpenPoints | None = None
) -> AsyncIterator[SshRig]:
    meters = {METERS[device].id: FIRST_DAY for device in METERS if int(device[5:]) in homes}
    async with OpenSsh(directory / "ssh") as server:
        aggregator = Aggregator(keys={"k": Access()}, meters=meters, clock=CLOCK, points=points, pace=AT_ONCE)
        async with SftpFolder(aggregator.intervals, server.inbox.parent, schema=Schema.LOAD) as folder:
            made = SshRig(directory, server, aggregator, folder)
            try:
                yield made
            finally:
                await made.sink.close()
                assert (folder.faults, aggregator.faults) == ([], [])


async def test_leap_sftp_file_is_put_and_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert await r.send(*HOMES) == Accept()
        assert r.taken == {key(home): 1 for home in HOMES}
        assert "Accepted password for" in r.server.log.read_text(encoding="utf-8")
        assert (r.sink.past.last or {})["status"] == "COMPLETED"


async def test_leap_sftp_client_key_lets_in(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.sink = r.another(password=None, key_file=r.server.client_key)
        assert await r.send(1) == Accept()
        assert "Accepted publickey for" in r.server.log.read_text(encoding="utf-8")


async def test_leap_sftp_key_that_cannot_be_read_once_is_read_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.sink = r.another(password=None, key_file=r.server.client_key)
        key_file = r.server.client_key
        away = key_file.rename(key_file.with_suffix(".away"))
        for torn in (None, away.read_bytes()[:40]):
            if torn is not None:
                key_file.write_bytes(torn)
            result = await r.send(1)
            assert isinstance(result, Stop)
            assert (result.reason, result.retry_s is not None) == ("sftp_key_file", True)
        away.rename(key_file)
        assert await r.send(1) == Accept()


@pytest.mark.parametrize("header_is_line_1", [True, False])
async def test_leap_sftp_row_that_the_errors_name_is_refused(tmp_path: Path, header_is_line_1: bool) -> None:
    async with rig(tmp_path, homes=(1, 2, 4, 5), points=OpenPoints(header_is_line_1=header_is_line_1)) as r:
        assert await r.send(*HOMES) == Reject(refused={2: "mtr_0003"})
        assert r.taken == {key(home): 1 for home in (1, 2, 4, 5)}


async def test_leap_sftp_file_that_fails_once_for_no_row_costs_no_row(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(FAILED_WITHOUT_ERRORS)
        assert await r.send(*HOMES) == Accept()
        assert r.taken == {key(home): 1 for home in HOMES}


async def test_leap_sftp_other_host_key_stops_the_sink_before_the_password_is_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.server.stop()
        await r.server.start(new_host_key=True)
        result = await r.send(1)
        assert isinstance(result, Stop)
        assert (result.reason, result.retry_s) == ("sftp_host_key", None)
        assert "password" not in r.server.log.read_text(encoding="utf-8")
        await r.server.stop()
        await r.server.start()
        assert await r.send(1) == Accept()
        assert r.taken == {key(1): 1}


async def test_leap_sftp_wrong_password_stops_the_sink(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.sink = r.another(password=SecretStr("key-of-another-environment"))
        result = await r.send(1)
        assert isinstance(result, Stop)
        assert (result.reason, result.retry_s) == ("sftp_denied", 3600.0)
        assert "another" not in repr(result)


async def test_leap_sftp_closed_folder_and_full_disk_are_told_and_cost_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        mode = r.server.inbox.stat().st_mode
        r.server.inbox.chmod(0o555)
        assert isinstance(await r.send(1), Stop)
        r.server.inbox.chmod(mode)
        await r.server.fill_disk()
        assert await r.send(1) == Keep(reason="sftp_sftpfailure")
        await r.server.make_room()
        assert await r.send(1) == Accept()
        assert r.taken == {key(1): 1}


async def test_leap_sftp_outage_is_waited_out(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.server.stop()
        assert isinstance(await r.send(1), Keep)
        await r.server.start()
        assert await r.send(1, 2) == Accept()
        assert r.taken == {key(1): 1, key(2): 1}


async def test_leap_sftp_frozen_server_times_out_and_is_gone_on_with(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.sink._transport._timeout_s = 0.5  # type: ignore[attr-defined]
        await r.server.freeze()
        assert await r.send(1) == Keep(reason="sftp_timeout")
        r.server.thaw()
        r.sink._transport._timeout_s = 20  # type: ignore[attr-defined]
        assert await r.send(1) == Accept()
        assert r.taken == {key(1): 1}


@pytest.mark.parametrize("wait_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
async def test_leap_sftp_connection_cut_at_any_time_and_a_new_start_put_the_file_there_once(
    tmp_path: Path, wait_s: float
) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(*[Fate(pace=NEVER)] * 9)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(r.send(*HOMES), name="send")
            await asyncio.sleep(wait_s)
            await r.server.cut()
            await asyncio.sleep(wait_s)
            task.cancel()
        r.sink = r.another()
        r.aggregator.intervals.fates.clear()
        r.aggregator.intervals.finish_all()
        assert await r.send(*HOMES) == Accept()
        assert r.taken == {key(home): 1 for home in HOMES}


async def test_leap_sftp_week_of_200_homes_is_there_once_and_in_its_newest_revision(tmp_path: Path) -> None:
    """A batch a day: corrections, a home that is not known, a file that fails for no row, an outage, a wrong key, a
    connection that is cut, and a new start of the gateway after each day."""
    homes, per_day = range(1, 201), 96
    wanted: dict[tuple[str, int], float] = {}
    async with rig(tmp_path) as r:
        meters = r.aggregator.intervals.meters
        meters.update({meter_id(home): FIRST_DAY for home in homes if home != 7})
        r.meters.write_text(mapping(*homes), encoding="utf-8")
        r.sink = r.another()
        for day in range(7):
            first = (day - 4) * per_day
            rows = [
                quarter(home, index=first + i, discharge_wh=float(home + i)) for i in range(per_day) for home in homes
            ]
            rows += [quarter(home, index=first - 5, revision=2, discharge_wh=float(home)) for home in homes if day]
            wanted |= {
                key(int(row.device[5:]), (row.start_ms - T0) // QUARTER_MS): row.discharge_wh or 0 for row in rows
            }
            if day == 1:
                r.aggregator.next_files(FAILED_WITHOUT_ERRORS)
            if day == 2:
                await r.server.stop()
                assert isinstance(await r.offer(rows), Keep)
                await r.server.start()
            if day == 3:
                r.sink = r.another(password=SecretStr("another"))
                assert isinstance(await r.offer(rows), Stop)
                r.sink = r.another()
            if day == 4:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(r.offer(rows), name="offer")
                    await asyncio.sleep(0.5)
                    await r.server.cut()
                    task.cancel()
                r.sink = r.another()
            result = await r.offer(rows)
            while isinstance(result, Keep):
                result = await r.offer(rows)
            assert result == Reject(refused={i: "mtr_0003" for i, row in enumerate(rows) if row.device == "home-7"})
            r.sink = r.another()
        accepted = r.aggregator.intervals.accepted
        assert len(accepted) == 199 * 7 * per_day
        last = {key_: round((versions[-1].row.generated_kwh or 0) * 1000, 3) for key_, versions in accepted.items()}
        assert last == {key_: wh for key_, wh in wanted.items() if key_[0] != meter_id(7)}
        assert max(len(versions) for versions in accepted.values()) == 2, "a row and its correction"
        assert sum(len(versions) == 2 for versions in accepted.values()) == 199 * 6


def test_leap_sftp_errors_are_read_by_the_names_of_their_columns() -> None:
    assert errors_of_csv(b'line,column,code,message\r\n12,meter_id,MTR_0003,"no, never"\r\n') == [
        LineError(line=12, code="MTR_0003")
    ]
    assert errors_of_csv(b"code,LINE\nNEW,7\nMTR_0002,\n") == [
        LineError(line=7, code=""), LineError(line=None, code="MTR_0002"),
    ]  # fmt: skip
    assert errors_of_csv(b"what\nnonsense\n") == [LineError(line=None, code="")]
    assert errors_of_csv(b"") == []
    assert errors_of_csv(b"line\n\xff\xfe\n" + b"9" * 200_000) != []


@pytest.mark.parametrize(
    "change",
    [{"host_key": "ssh-dss AAAA"}, {"host_key": ""}, {"password": None}, {"folder": "relative"}, {"port": 0}],
)
def test_leap_sftp_settings_refuse_what_cannot_work(change: dict[str, object]) -> None:
    fine: dict[str, object] = {
        "host": "sftp.leap.example", "user": "partner", "password": SecretStr("x"),
        "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
    }  # fmt: skip
    LeapSftpSettings.model_validate(fine)
    with pytest.raises(ValidationError):
        LeapSftpSettings.model_validate(fine | change)
