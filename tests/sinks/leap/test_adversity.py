"""Inputs within the aggregator's contract, and trouble around it, that the sink must survive; each says what a user
would have lost."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import orjson
import pytest
from pydantic import SecretStr, ValidationError

from gateway.clock import ManualClock
from gateway.domain.intervals.record import IntervalRecord
from gateway.ports.sinks import Accept, Keep, Reject, SinkResult, Stop
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.outbox import Outgoing
from gateway.sinks.leap.over_sftp import LeapSftpSettings, SftpUpload
from gateway.sinks.leap.transport import Ended
from gateway.storage.interval_log.positions import Cursor, Position, Range
from simulators.aggregator import (
    FAILED_WITHOUT_ERRORS,
    NEVER,
    Code,
    Fate,
    LineError,
    OpenPoints,
    Operation,
    Schema,
    Seen,
    answer,
    cut,
    hang,
)
from tests.builders.interval_logs import T0, MemoryReader, quarter
from tests.builders.leap import NOW_MS, meter_id
from tests.builders.openssh import OpenSsh
from tests.scenes.leap import FIRST_DAY, KEY, QUARTER_MS, Rig, key, mapping, rig
from tests.scenes.waiting import service, until

_LOAD = Schema.LOAD
KNOWN_LINES = LeapConfirmed(error_lines="header_is_line_1")
ALL_FIVE = {key(home): [0.25] for home in range(1, 6)}


def failed(*lines: int, code: Code = Code.MTR_0003) -> Fate:
    return Fate(failed_with=tuple(LineError(line, code, "as scripted") for line in lines))


def five() -> list[IntervalRecord]:
    return [quarter(home) for home in range(1, 6)]


async def sent(r: Rig, *rows: IntervalRecord, tries: int = 40) -> SinkResult:
    """The result once the sink is done, or the last of many tries."""
    result: SinkResult = Keep(reason="never")
    for _ in range(tries):
        result = await r.send(*rows)
        if not isinstance(result, Keep):
            break
        r.clock.advance(s=max(result.after_s, 60.0))
    return result


# Numbering of lines


async def test_leap_numbering_probe_that_fails_for_another_reason_costs_no_good_row(tmp_path: Path) -> None:
    """Lost: homes 1 to 3 are parked as unknown meters because the aggregator had one bad minute, and the wrong
    numbering is kept for ever."""
    async with rig(tmp_path, homes=(1, 2, 3, 5), points=OpenPoints(header_is_line_1=False)) as r:
        r.aggregator.next_files(Fate(), FAILED_WITHOUT_ERRORS)
        assert await sent(r, *five()) == Reject(refused={3: "mtr_0003"})


async def test_leap_numbering_probe_whose_row_has_become_right_meanwhile_costs_no_good_row(tmp_path: Path) -> None:
    """Lost: a meter is registered between two files (or a quarter of an hour ends by the aggregator's clock), and from
    then on for each bad row all rows behind it are parked."""
    async with rig(tmp_path, homes=(1, 2, 4, 5)) as r:

        def registered(seen: Seen) -> None:
            if seen.operation is Operation.UPLOAD and r.asked(Operation.UPLOAD) == 2:
                r.aggregator.intervals.meters[meter_id(3)] = FIRST_DAY

        r.aggregator.on_request = registered
        await sent(r, *five())
        await r.settled(*five())
        del r.aggregator.intervals.meters[meter_id(2)]
        later = [quarter(home, index=1) for home in range(1, 6)]
        assert await sent(r, *later) == Reject(refused={1: "mtr_0003"})


async def test_leap_numbering_learnt_while_the_aggregators_clock_passes_a_quarter_costs_no_good_row(
    tmp_path: Path,
) -> None:
    """Lost: the aggregator's clock is two minutes behind, as in the week's test: rows behind a bad one are parked."""
    now = (NOW_MS - T0) // QUARTER_MS
    async with rig(tmp_path) as r:
        r.aggregator.clock.skew_ms = -120_000

        def later(seen: Seen) -> None:
            if seen.operation is Operation.UPLOAD and r.asked(Operation.UPLOAD) == 2:
                r.aggregator.clock.skew_ms = 0

        r.aggregator.on_request = later
        first = [quarter(1), *(quarter(home, index=now - 1) for home in range(1, 5)), quarter(5)]
        await sent(r, *first)
        await r.settled(*first)
        del r.aggregator.intervals.meters[meter_id(2)]
        assert await sent(r, *(quarter(home, index=3) for home in range(1, 6))) == Reject(refused={1: "mtr_0003"})


@pytest.mark.parametrize("code", [Code.UNCATEGORISED, Code.REG_0002])
async def test_leap_error_of_the_header_that_is_no_format_code_is_not_taken_for_the_first_row(
    tmp_path: Path, code: Code
) -> None:
    """Lost: the first home's row, and "the first row is line 1" is believed for ever: a good neighbour is parked for
    every bad row after that."""
    async with rig(tmp_path) as r:
        r.aggregator.next_files(failed(1, code=code))
        result = await sent(r, *five())
        assert not isinstance(result, Reject), result


# Slow jobs


async def test_leap_bad_row_in_files_whose_jobs_are_slow_is_not_sent_for_ever(tmp_path: Path) -> None:
    """Lost: the aggregator needs more than ten minutes for a file (default numbering: unconfirmed). One unknown meter,
    and the same file goes up again and again; nothing of any home arrives any more and the sink never stops."""
    async with rig(tmp_path, homes=(1, 2, 4, 5), job_timeout_s=60) as r:
        result: SinkResult = Keep(reason="never")
        for _ in range(40):
            r.aggregator.intervals.fates[:] = [Fate(pace=NEVER)] * 99
            result = await r.send(*five())
            if not isinstance(result, Keep):
                break
            r.aggregator.intervals.finish_all()
        assert (result, len(r.files) < 10) == (Reject(refused={2: "mtr_0003"}), True), (result, len(r.files), r.taken)


async def test_leap_files_that_fail_for_no_row_and_are_slow_stop_the_sink(tmp_path: Path) -> None:
    """Lost: the aggregator fails every file, slowly; forty files go up and nobody is called."""
    async with rig(tmp_path, job_timeout_s=60) as r:
        result: SinkResult = Keep(reason="never")
        for _ in range(40):
            r.aggregator.intervals.fates[:] = [Fate(pace=NEVER, failed_with=())] * 99
            result = await r.send(*five())
            if not isinstance(result, Keep):
                break
            r.aggregator.intervals.finish_all()
        assert isinstance(result, Stop), (result, len(r.files))


async def test_leap_single_row_that_fails_slowly_stops_or_is_parked(tmp_path: Path) -> None:
    """Lost: one poison row of one home blocks all others for ever."""
    async with rig(tmp_path, job_timeout_s=60) as r:
        result: SinkResult = Keep(reason="never")
        for _ in range(40):
            r.aggregator.intervals.fates[:] = [Fate(pace=NEVER, failed_with=())] * 99
            result = await r.send(quarter(1))
            if not isinstance(result, Keep):
                break
            r.aggregator.intervals.finish_all()
        assert not isinstance(result, Keep), (result, len(r.files))


# Revisions


async def test_leap_older_revision_of_a_smaller_batch_does_not_replace_the_newer_one_on_its_way(tmp_path: Path) -> None:
    """Lost: the gateway starts again with smaller batches while a file is on its way: the old, wrong energy is the
    last that the aggregator gets, and stays."""
    old, new = quarter(1, discharge_wh=1.0), quarter(1, revision=2, discharge_wh=2.0)
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOADS, answer(503))
        assert isinstance(await r.send(old, quarter(2), new), Keep)
        await r.restart()
        assert await r.send(old, quarter(2)) == Accept()
        await r.settled(old, quarter(2))
        assert await r.send(new) == Accept()
        assert r.taken[key(1)][-1] == 0.002, r.taken[key(1)]


# Rows that wait


async def test_leap_row_that_waits_and_is_corrected_meanwhile_does_not_keep_the_batch_for_ever(tmp_path: Path) -> None:
    """Lost: everything. The aggregator's clock is behind, a correction of a waiting row comes, and from then on the
    sink of the whole fleet says "receiver_clock_behind" until somebody starts the gateway again."""
    async with rig(tmp_path, confirmed=KNOWN_LINES) as r:
        old, new = quarter(1, discharge_wh=1.0), quarter(1, revision=2, discharge_wh=2.0)
        r.aggregator.next_files(failed(2, code=Code.ETM_0003))
        assert isinstance(await r.send(old), Keep)
        assert await sent(r, old, new, tries=200) == Accept()


async def test_leap_row_that_waits_and_whose_meter_is_removed_does_not_keep_the_batch_for_ever(tmp_path: Path) -> None:
    """Lost: as before, when the home leaves the file of meters while its row waits."""
    async with rig(tmp_path, confirmed=KNOWN_LINES) as r:
        r.aggregator.next_files(failed(2, code=Code.ETM_0003))
        assert isinstance(await r.send(quarter(1), quarter(2)), Keep)
        r.put(mapping(2, 3))
        r.clock.advance(s=6)
        assert not isinstance(await sent(r, quarter(1), quarter(2), tries=200), Keep)


async def test_leap_row_that_waits_does_not_keep_a_batch_that_lacks_it(tmp_path: Path) -> None:
    """Lost: rows that are sent again by hand are held up by a row of another batch."""
    async with rig(tmp_path, confirmed=KNOWN_LINES) as r:
        r.aggregator.next_files(failed(2, code=Code.ETM_0003))
        assert isinstance(await r.send(quarter(1, index=5)), Keep)
        assert await r.send(quarter(2), again=True) == Accept()


# Parked without evidence


async def test_leap_trouble_that_begins_after_a_first_half_was_taken_parks_no_row(tmp_path: Path) -> None:
    """Lost: half a batch of good rows, parked one by one as job_failed while the aggregator fails everything."""
    rows = [quarter(1, index=i) for i in range(64)]
    async with rig(tmp_path) as r:
        r.aggregator.next_files(FAILED_WITHOUT_ERRORS, Fate(), *[FAILED_WITHOUT_ERRORS] * 150)
        result = await r.send(*rows)
        assert not isinstance(result, Reject), len(result.refused)


@pytest.mark.parametrize("code", [Code.UNCATEGORISED, Code.MTR_0003])
async def test_leap_aggregator_that_blames_every_row_of_every_home_stops_the_sink(tmp_path: Path, code: Code) -> None:
    """Lost: the account's meters are gone for a minute at the aggregator, and every row of the fleet is parked."""
    async with rig(tmp_path, confirmed=KNOWN_LINES) as r:
        r.aggregator.next_files(failed(2, 3, 4, 5, 6, code=code))
        result = await r.send(*five())
        assert not isinstance(result, Reject), result


async def test_leap_earlier_file_that_is_too_large_does_not_park_a_row_of_another_batch(tmp_path: Path) -> None:
    """Lost: the one new row of a home, which was never sent, is parked as http_413 because of the backlog's file."""
    rows = [quarter(1, index=i) for i in range(8)]
    async with rig(tmp_path) as r:
        log = MemoryReader(rows)
        log.state = Position(live=Cursor(1, 8), backfill=(Range(Cursor(1, 1), Cursor(1, 8)),))
        delivery = SinkDelivery(r.sink, log_=log, finder=log, clock=r.clock, rng=random.Random(1))
        r.aggregator.script(Operation.UPLOAD, cut(), answer(413), answer(413))

        def arrived(seen: Seen) -> None:
            if len(log.rows) == 8:
                log.rows.append(quarter(2))

        r.aggregator.on_request = arrived
        async with service(delivery.run):
            await until(lambda: log.state.live.row == 9 and not log.state.backfill)
        assert (log.parked, key(2) in r.taken) == ({}, True)


# The file of meters


async def test_leap_meter_that_is_corrected_while_its_file_is_on_its_way_is_not_refused_for_the_old_one(
    tmp_path: Path,
) -> None:
    """Lost: the operator has mended the mistyped meter, and the home's row is parked for the old one all the same."""
    async with rig(tmp_path, confirmed=KNOWN_LINES, job_timeout_s=60) as r:
        r.put(mapping(2, 3).replace("home-2,", "home-1,").replace(meter_id(2), meter_id(99)))
        r.clock.advance(s=6)
        r.aggregator.next_files(Fate(pace=NEVER))
        assert isinstance(await r.send(quarter(1)), Keep)
        r.put(mapping(1, 2, 3))
        r.clock.advance(s=6)
        r.aggregator.intervals.finish_all()
        result = await r.send(quarter(1))
        assert (result, r.taken) == (Accept(), {key(1): [0.25]})


async def test_leap_meters_that_are_swapped_while_a_file_is_on_its_way_get_the_right_energy(tmp_path: Path) -> None:
    """Lost: the file went up with two meters exchanged; the mended file of meters never reaches the aggregator, which
    settles each home by the other's energy."""
    rows = (quarter(1, discharge_wh=1.0), quarter(2, discharge_wh=2.0))
    async with rig(tmp_path, job_timeout_s=60) as r:
        r.put(f"device,meter_id\nhome-1,{meter_id(2)}\nhome-2,{meter_id(1)}\n")
        r.clock.advance(s=6)
        r.aggregator.next_files(Fate(pace=NEVER))
        assert isinstance(await r.send(*rows), Keep)
        r.put(mapping(1, 2))
        r.clock.advance(s=6)
        r.aggregator.intervals.finish_all()
        await sent(r, *rows)
        assert (r.taken[key(1)][-1], r.taken[key(2)][-1]) == (0.001, 0.002), r.taken


# Lost answers


@pytest.mark.parametrize("preview_lines", [2, 3])
async def test_leap_lost_answer_is_found_by_a_preview_of_few_lines(tmp_path: Path, preview_lines: int) -> None:
    """Lost: "exactly once": a preview of one line shows the header only, and the file goes up twice."""
    async with rig(tmp_path, timeout_s=5.0, points=OpenPoints(preview_lines=preview_lines)) as r:
        r.aggregator.script(Operation.UPLOAD, hang(done=True))
        assert isinstance(await r.send(quarter(1)), Keep)
        assert await r.send(quarter(1)) == Accept()
        assert r.taken == {key(1): [0.25]}


async def test_leap_job_that_is_shown_late_is_not_sent_again(tmp_path: Path) -> None:
    """Lost: "exactly once": the aggregator shows a new upload after ten looks only, and has it three times."""
    async with rig(tmp_path) as r:
        hidden: list[Any] = []

        def late(seen: Seen) -> None:
            intervals = r.aggregator.intervals
            asked = r.asked(Operation.UPLOADS)
            if seen.operation is Operation.UPLOAD:
                return
            if asked <= 10 and intervals.uploads:
                hidden.extend(intervals.uploads)
                intervals.uploads.clear()
                intervals._by_job.clear()
            elif asked > 10 and hidden:
                for upload in hidden:
                    intervals.uploads.append(upload)
                    intervals._by_job[upload.jobs[0].job_id] = (upload, upload.jobs[0])
                hidden.clear()

        r.aggregator.on_request = late
        await sent(r, quarter(1), tries=5)
        r.aggregator.intervals.finish_all()
        assert r.asked(Operation.UPLOAD) == 1


async def test_leap_lost_answer_of_an_old_account_is_gone_on_with(tmp_path: Path) -> None:
    """Lost: everything. An account with more than 20,000 uploads (seven months of one each quarter of an hour) and one
    lost answer: the sink says "too_many_pages" for ever."""
    async with rig(tmp_path) as r:
        for _ in range(20_001):
            r.aggregator.intervals.receive(b"meter_id\n", _LOAD)
        r.aggregator.intervals.finish_all()
        r.clock.advance(s=3 * 86_400)
        r.aggregator.script(Operation.UPLOAD, cut())
        assert isinstance(await r.send(quarter(1)), Keep)
        r.aggregator.script(Operation.PREVIEW, *[answer(404)] * 100_000)
        result = await sent(r, quarter(1), tries=4)
        assert result == Accept()


async def test_leap_lost_answer_does_not_ask_for_the_preview_of_every_file_of_the_account(tmp_path: Path) -> None:
    """Lost: hours: after each lost answer one preview of each file that the account ever had (up to 32 MiB each), one
    after the other, while nothing goes up."""
    async with rig(tmp_path) as r:
        for _ in range(1_000):
            r.aggregator.intervals.receive(b"meter_id\n", _LOAD)
        r.aggregator.intervals.finish_all()
        r.clock.advance(s=3 * 86_400)
        r.aggregator.script(Operation.UPLOAD, cut())
        assert isinstance(await r.send(quarter(1)), Keep)
        assert await sent(r, quarter(1), tries=4) == Accept()
        assert r.asked(Operation.PREVIEW) < 100, r.asked(Operation.PREVIEW)


async def test_leap_upload_that_always_times_out_is_not_sent_whole_for_ever(tmp_path: Path) -> None:
    """Lost: everything, over a slow line: a file that does not go through in 60 s is never made smaller."""
    async with rig(tmp_path, timeout_s=5.0) as r:
        rows = [quarter(1, index=i) for i in range(64)]

        def slow(seen: Seen) -> None:
            if seen.operation is Operation.UPLOAD:
                r.aggregator._scripts[Operation.UPLOAD][:] = [hang()] if len(seen.body) > 2_000 else []

        r.aggregator.on_request = slow
        result = await sent(r, *rows, tries=30)
        assert not isinstance(result, Keep), (result, r.asked(Operation.UPLOAD))


# Sent again by hand


async def test_leap_row_that_is_sent_again_after_a_crash_before_it_was_settled_goes_up(tmp_path: Path) -> None:
    """Lost: what the operator asks to be sent again after a crash: "accepted", and nothing left."""
    async with rig(tmp_path) as r:
        assert await r.send(quarter(1)) == Accept()
        await r.restart()  # killed after the position was saved, before `settled`
        await r.send(quarter(1, index=1))
        await r.settled(quarter(1, index=1))
        assert await r.send(quarter(1), again=True) == Accept()
        assert len(r.taken[key(1)]) == 2


# The key


async def test_leap_key_that_the_aggregator_repeats_is_not_shown(tmp_path: Path) -> None:
    """Lost: the key: it stands in the log, in `gateway sinks` and in the status over REST."""
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, answer(401, f'{{"title": "key {KEY} is not known"}}'.encode()))
        assert KEY not in repr(await r.send(quarter(1)))


# Status


# The outbox


async def test_leap_outbox_file_that_is_cut_short_is_not_taken_for_all_of_its_rows(tmp_path: Path) -> None:
    """Lost: four homes' energy, reported as accepted."""
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, answer(503))
        assert isinstance(await r.send(*five()), Keep)
        await r.restart()
        (path,) = r.outbox.glob("*.csv")
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
        assert await sent(r, *five()) == Accept()
        assert r.taken == ALL_FIVE


async def test_leap_outbox_whose_log_cannot_be_written_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost: the disk: each try leaves one more file of up to 5 MB, a try a minute."""
    async with rig(tmp_path) as r:
        await r.send(quarter(2))

        def broken(_fd: int) -> None:
            raise OSError(5, "input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", broken)
            for _ in range(10):
                assert await r.send(quarter(1)) == Keep(reason="outbox_unwritable")
                r.clock.advance(s=60)
        assert len(list(r.outbox.glob("*.csv"))) <= 1


# How energy looks


@pytest.mark.parametrize("wh", [-1e-7, -0.0, 5e-324, 1e300, float("nan"), float("-inf")])
async def test_leap_odd_energy_goes_up_without_a_sign_or_not_at_all(tmp_path: Path, wh: float) -> None:
    """Lost: a home's row: "-0.000000" is probably negative to the aggregator."""
    async with rig(tmp_path) as r:
        await r.send(quarter(1, charge_wh=wh), quarter(2))
        body = b"".join(r.files)
        assert b",-" not in body
        assert b"e+" not in body
        assert b"n" not in body.split(b"\n", 1)[1]


async def test_leap_interval_of_a_year_that_cannot_be_written_does_not_end_the_sink(tmp_path: Path) -> None:
    """Lost: everything: `send` raises at each try."""
    async with rig(tmp_path) as r:
        far = replace(quarter(1), start_ms=253_402_300_800_000)
        assert isinstance(await r.send(far, quarter(2)), Reject)


# Configuration


_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"


@pytest.mark.parametrize("wrong", [{"host_key": "ssh-ed25519 AAAA"}, {"key_file": "/nonexistent"}])
async def test_leap_sftp_key_that_cannot_be_read_is_told_and_calls_a_person(wrong: dict[str, Any]) -> None:
    """Lost: everything: the sink's service crashes at each try, or waits for ever without a word."""
    try:
        settings = LeapSftpSettings.model_validate(
            {"host": "127.0.0.1", "port": 9, "user": "p", "password": "x", "host_key": _HOST_KEY} | wrong
        )
    except ValidationError:
        return
    way = SftpUpload(settings, poll_s=0.1, job_timeout_s=5, timeout_s=5)
    file = Outgoing(name="a.csv", body=b"x\n", rows=[(0, "home-1", 1, "m1")], began_ms=0)

    async def noted(_file: Outgoing) -> None: ...

    result = await way.deliver(file, noted)
    assert isinstance(result, Stop), result


# The loop


class Turns:
    """The longest turn of the loop, in CPU time of its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest_ms = 0.0
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            spent_ms = (time.thread_time() - began) * 1000
            if spent_ms > self.longest_ms:
                self.longest_ms = spent_ms
                self.what = repr(handle)

        monkeypatch.setattr(asyncio.Handle, "_run", timed)


FLEET, DAY = 500, 100
"""50,000 rows: homes, and quarters of an hour."""


class Told:
    """A way to the aggregator that answers at once."""

    def __init__(self, *ends: Ended) -> None:
        self._ends = list(ends)

    async def deliver(self, file: Outgoing, noted: Any) -> Ended | Keep | Stop:
        file.tried, file.job = True, "job"
        await noted(file)
        return self._ends.pop(0) if self._ends else Ended(taken=True)

    async def close(self) -> None: ...


def fleet() -> str:
    return "device,meter_id\n" + "".join(f"home-{i},{meter_id(i)}\n" for i in range(1, FLEET + 1))


# SFTP


class FakeSftp:
    """A folder as a partner sees it; `fails` are raised by the operation of that name, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fails: dict[str, list[Exception | None]] = {}
        self.puts = 0

    def _fail(self, what: str) -> None:
        fails = self.fails.get(what)
        error = fails.pop(0) if fails else None
        if error is not None:
            raise error

    async def exists(self, path: str) -> bool:
        self._fail("exists")
        return any(name == path or name.startswith(path + "/") for name in self.files)

    async def isdir(self, path: str) -> bool:
        return any(name.startswith(path + "/") for name in self.files)

    async def listdir(self, path: str) -> list[str]:
        if path in self.files:
            raise asyncssh.SFTPFailure("not a directory")
        return [name.removeprefix(path + "/") for name in self.files if name.startswith(path + "/")]

    def open(self, path: str, mode: str) -> Any:
        return _FakeFile(self, path)

    async def rename(self, old: str, new: str) -> None:
        self._fail("rename")
        self.files[new] = self.files.pop(old)
        self.puts += 1
        self._fail("renamed")


class _FakeFile:
    def __init__(self, sftp: FakeSftp, path: str) -> None:
        self._sftp, self._path = sftp, path

    async def __aenter__(self) -> "_FakeFile":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def write(self, body: bytes) -> None:
        self._sftp.files[self._path] = body

    async def read(self, _most: int) -> bytes:
        return self._sftp.files[self._path]


@asynccontextmanager
async def sftp_rig(directory: Path) -> AsyncIterator[tuple[Rig, FakeSftp]]:
    async with rig(directory) as r:
        account = {"host": "h", "user": "p", "password": "x", "host_key": _HOST_KEY}
        way = SftpUpload(LeapSftpSettings.model_validate(account), poll_s=1, job_timeout_s=60, timeout_s=20)
        fake = FakeSftp()

        @asynccontextmanager
        async def connected() -> AsyncIterator[FakeSftp]:
            fake._fail("connect")
            yield fake

        way._connected = connected  # type: ignore[method-assign,assignment]
        r.sink._transport = way
        yield r, fake


def move(fake: FakeSftp, folder: str) -> None:
    """The aggregator is done with every file that waits."""
    for path in list(fake.files):
        name = path.removeprefix("/interval-data/")
        if "/" not in name and not name.startswith("."):
            fake.files[f"/interval-data/{folder}/{name}/{name}"] = fake.files.pop(path)


@pytest.mark.parametrize("error", ["SFTPFailure", "SFTPOpUnsupported"])
async def test_leap_sftp_rename_that_is_always_refused_calls_a_person(tmp_path: Path, error: str) -> None:
    """Lost: everything: a partner may list and put, perhaps not rename; the file is written again each minute, and
    nobody is called."""
    async with sftp_rig(tmp_path) as (r, fake):
        fake.fails["rename"] = [getattr(asyncssh, error)("no") for _ in range(99)]
        result = await sent(r, quarter(1), tries=60)
        assert isinstance(result, Stop), result


async def test_leap_sftp_rename_whose_answer_is_lost_before_the_key_is_refused_puts_the_file_once(
    tmp_path: Path,
) -> None:
    """Lost: "exactly once": the file is there, the outbox calls it never tried and forgets it at the first Stop; once
    the key is right again the rows go up a second time."""
    async with sftp_rig(tmp_path) as (r, fake):
        fake.fails["renamed"] = [asyncssh.ConnectionLost("gone")]
        fake.fails["connect"] = [None, asyncssh.PermissionDenied("no")]
        assert isinstance(await r.send(quarter(1)), Keep)
        assert isinstance(await r.send(quarter(1)), Stop)
        r.clock.advance(s=60)
        await r.send(quarter(1))
        assert fake.puts == 1


async def test_leap_sftp_failed_file_that_is_no_folder_is_an_end(tmp_path: Path) -> None:
    """Lost: everything: `failed/x.csv` is a file there, and the sink says "sftp_sftpfailure" for ever."""
    async with sftp_rig(tmp_path) as (r, fake):
        assert await r.send(quarter(1)) == Keep(reason="job_unfinished")
        (name,) = [path for path in fake.files if not path.split("/")[-1].startswith(".")]
        fake.files[name.replace("/interval-data/", "/interval-data/failed/")] = fake.files.pop(name)
        result = await sent(r, quarter(1), tries=30)
        assert not isinstance(result, Keep) or result.reason == "job_unfinished", result


async def test_leap_sftp_part_that_was_left_over_is_replaced_and_taken(tmp_path: Path) -> None:
    """Held when this was written."""
    async with sftp_rig(tmp_path) as (r, fake):
        fake.fails["rename"] = [asyncssh.ConnectionLost("gone")]
        assert isinstance(await r.send(quarter(1)), Keep)
        await r.send(quarter(1))
        move(fake, "accepted")
        assert await r.send(quarter(1)) == Accept()
        assert (fake.puts, len(fake.files)) == (1, 1)


async def test_leap_sftp_slow_job_with_a_bad_row_is_not_put_for_ever(tmp_path: Path) -> None:
    """Lost: as over HTTP: with unconfirmed numbering and jobs of more than ten minutes nothing is ever learnt."""
    async with sftp_rig(tmp_path) as (r, fake):
        result: SinkResult = Keep(reason="never")
        for _ in range(30):
            result = await r.send(*five())
            if not isinstance(result, Keep):
                break
            for path in list(fake.files):
                name = path.removeprefix("/interval-data/")
                if "/" not in name and not name.startswith("."):
                    bad = meter_id(3).encode() in fake.files[path]
                    move(fake, "failed" if bad else "accepted")
                    if bad:
                        at = next(i for i, line in enumerate(
                            fake.files[f"/interval-data/failed/{name}/{name}"].splitlines(), 1
                        ) if meter_id(3).encode() in line)  # fmt: skip
                        fake.files[f"/interval-data/failed/{name}/j.errors.csv"] = (
                            f"line,code\n{at},MTR_0003\n".encode()
                        )
            r.clock.advance(s=60)
        assert (result, fake.puts < 10) == (Reject(refused={2: "mtr_0003"}), True), (result, fake.puts)


# Lost answers, once more


@pytest.mark.parametrize("change", ["trailing", "bom", "crlf_line", "unlimited_is_absent"])
async def test_leap_lost_answer_is_found_however_the_preview_splits_lines(tmp_path: Path, change: str) -> None:
    """Lost: "exactly once": what ends a line of a preview is not public."""
    async with rig(tmp_path, timeout_s=5.0) as r:
        r.aggregator.script(Operation.UPLOAD, hang(done=True))
        assert isinstance(await r.send(quarter(1)), Keep)
        (upload,) = r.aggregator.intervals.uploads
        lines = upload.read().decode().split("\n")[:-1]
        shown: dict[str, Any] = {"file_data": lines, "is_limited": False, "status": "COMPLETED"}
        if change == "trailing":
            shown["file_data"] = [*lines, ""]
        elif change == "bom":
            shown["file_data"] = ["\ufeff" + lines[0], *lines[1:]]
        elif change == "crlf_line":
            shown["file_data"] = [line + "\r\n" for line in lines]
        else:
            del shown["is_limited"]
        r.aggregator.script(Operation.PREVIEW, *[answer(200, orjson.dumps(shown))] * 9)
        assert await sent(r, quarter(1), tries=3) == Accept()
        assert r.asked(Operation.UPLOAD) == 1


async def test_leap_upload_that_arrives_late_is_found_although_the_next_one_was_refused(tmp_path: Path) -> None:
    """Lost: "exactly once": a refused second try makes the outbox forget that the first one may have arrived."""
    async with rig(tmp_path, timeout_s=5.0) as r:
        r.aggregator.script(Operation.UPLOAD, hang(), answer(401))
        assert isinstance(await r.send(quarter(1)), Keep)
        assert isinstance(await r.send(quarter(1)), Stop)
        r.aggregator.intervals.receive(r.aggregator.asked(Operation.UPLOAD)[0].body, _LOAD)
        r.clock.advance(s=3600)
        assert await sent(r, quarter(1), tries=3) == Accept()
        assert len(r.taken[key(1)]) == 1


@pytest.mark.parametrize("operation", [Operation.UPLOAD, Operation.UPLOADS, Operation.JOB, Operation.PREVIEW])
@pytest.mark.parametrize(
    "headers", [{"Content_Encoding": "gzip"}, {"Content_Encoding": "deflate"}, {"Content_Encoding": "br"}]
)
async def test_leap_answer_in_an_encoding_that_cannot_be_read_is_trouble_and_no_crash(
    tmp_path: Path, operation: Operation, headers: dict[str, str]
) -> None:
    """Held when this was written."""
    async with rig(tmp_path, homes=(1,), timeout_s=5.0) as r:
        r.aggregator.script(operation, answer(200, b"no such thing", done=False, **headers))
        await sent(r, quarter(1), quarter(2))
        assert r.taken == {key(1): [0.25]}


async def test_leap_page_token_that_has_gone_stale_does_not_stop_the_sink(tmp_path: Path) -> None:
    """Lost: hours: the list moves while it is read, its token answers 400, and the sink stops until somebody comes."""
    async with rig(tmp_path) as r:
        for _ in range(600):
            r.aggregator.intervals.receive(b"meter_id\n", _LOAD)
        r.aggregator.intervals.finish_all()
        r.aggregator.script(Operation.UPLOADS, None, answer(400, b'{"title": "page_token is not known"}'))
        result = await r.send(quarter(1))
        assert not isinstance(result, Stop), result


async def test_leap_list_whose_pages_never_end_is_trouble(tmp_path: Path) -> None:
    """Lost: everything: the list has a next page always (the job is in the first one), and the file never ends."""
    async with rig(tmp_path) as r:
        page = {"uploads": [], "next_page_token": "again"}

        def endless(seen: Seen) -> None:
            if seen.operation is Operation.UPLOADS:
                upload = r.aggregator.intervals.uploads[0]
                entry = {"last_job_id": upload.jobs[0].job_id, "status": "COMPLETED"}
                r.aggregator._scripts[Operation.UPLOADS][:] = [answer(200, orjson.dumps(page | {"uploads": [entry]}))]

        r.aggregator.on_request = endless
        assert await sent(r, quarter(1), tries=4) == Accept()


# Crashes


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", range(1, 40))
async def test_leap_kill_at_each_request_and_each_write_repeats_and_loses_nothing(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held when this was written."""
    async with rig(tmp_path, homes=(1, 2, 4, 5), timeout_s=5.0) as r:
        count = 0
        sync = os.fdatasync

        def counted(fd: int) -> None:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            sync(fd)
            count += 1
            if count == step:
                raise Killed

        monkeypatch.setattr(os, "fdatasync", counted)
        try:
            result = await r.send(*five())
        except Killed:
            await r.restart()
            result = await sent(r, *five())
        assert result == Reject(refused={2: "mtr_0003"})
        assert r.taken == {key(home): [0.25] for home in (1, 2, 4, 5)}


async def test_leap_trouble_that_ends_while_a_batch_is_bisected_parks_no_row(tmp_path: Path) -> None:
    """Lost: good rows whose file of one went up in the last minutes of an outage: the first file that is taken
    afterwards counts as evidence against them."""
    async with rig(tmp_path) as r:
        r.aggregator.next_files(*[FAILED_WITHOUT_ERRORS] * 4)
        rows = [quarter(1, index=i) for i in range(4)]
        assert await sent(r, *rows) == Accept()


@pytest.mark.parametrize("step", range(1, 25))
@pytest.mark.parametrize("restarted", [True, False])
async def test_leap_kill_at_each_request_repeats_and_loses_nothing(tmp_path: Path, step: int, restarted: bool) -> None:
    """Held when this was written."""
    async with rig(tmp_path, homes=(1, 2, 4, 5), timeout_s=5.0) as r:
        tasks: list[asyncio.Task[SinkResult]] = []

        def kill(_seen: Seen) -> None:
            if len(r.aggregator.requests) == step:
                tasks[0].cancel()

        r.aggregator.on_request = kill
        tasks.append(asyncio.create_task(r.send(*five()), name="send"))
        (result,) = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(result, BaseException):
            if restarted:
                await r.restart()
            result = await sent(r, *five())
        assert result == Reject(refused={2: "mtr_0003"})
        assert r.taken == {key(home): [0.25] for home in (1, 2, 4, 5)}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("confirmed", [KNOWN_LINES, LeapConfirmed()])
async def test_leap_random_troubles_and_kills_repeat_and_lose_nothing(
    tmp_path: Path, seed: int, confirmed: LeapConfirmed
) -> None:
    """Held when this was written."""
    rng = random.Random(seed)
    bad = rng.randrange(1, 6)
    homes = [home for home in range(1, 6) if home != bad]
    lines = OpenPoints(header_is_line_1=True if confirmed.error_lines else rng.random() < 0.5,
                       preview_lines=rng.choice([2, 3, 100]), errors_max=rng.choice([None, 1, 2]))  # fmt: skip
    async with rig(tmp_path, homes=homes, points=lines, confirmed=confirmed, timeout_s=5.0) as r:
        everything: list[IntervalRecord] = []
        parked: dict[tuple[int, str, int], str] = {}
        batch: list[IntervalRecord] = []
        index = 0
        for round_ in range(60):
            if round_ < 30 and rng.random() < 0.6:
                new = [quarter(home, index=index, discharge_wh=1.0 + index) for home in range(1, 6)]
                if everything and rng.random() < 0.5:
                    old = rng.choice(everything)
                    new.append(replace(old, revision=100 + round_, discharge_wh=1000.0 + round_))
                index += 1
                batch += new
                everything += new
            for operation in Operation:
                r.aggregator._scripts[operation].clear()
                if rng.random() < 0.3 and round_ < 50:
                    r.aggregator.script(
                        operation,
                        *[None] * rng.randrange(3),
                        rng.choice([cut(), cut(done=True), hang(done=True), answer(503), answer(429)]),
                    )
            if not batch:
                continue
            if rng.random() < 0.3:
                task = asyncio.create_task(r.send(*batch), name="send")
                at = len(r.aggregator.requests) + rng.randrange(1, 8)

                def kill(_seen: Seen, at: int = at, task: asyncio.Task[SinkResult] = task) -> None:
                    if len(r.aggregator.requests) == at:
                        task.cancel()

                r.aggregator.on_request = kill
                (result,) = await asyncio.gather(task, return_exceptions=True)
                r.aggregator.on_request = lambda _: None
                if isinstance(result, BaseException):
                    assert isinstance(result, asyncio.CancelledError), repr(result)
                    await r.restart()
                    continue
            else:
                result = await r.send(*batch)
            r.clock.advance(s=60)
            if isinstance(result, Accept | Reject):
                if isinstance(result, Reject):
                    parked |= {
                        (batch[i].start_ms, batch[i].device, batch[i].revision): why
                        for i, why in result.refused.items()
                    }
                if rng.random() < 0.8:
                    await r.settled(*batch)
                batch = []
        assert batch == []
        assert {(row[1], why) for row, why in parked.items()} <= {(f"home-{bad}", "mtr_0003")}
        newest: dict[tuple[str, int], IntervalRecord] = {}
        for row in everything:
            home = int(row.device[5:])
            if home != bad:
                newest[meter_id(home), row.start_ms] = row
        assert {at: values[-1] for at, values in r.taken.items()} == {
            at: round((row.discharge_wh or 0) / 1000, 6) for at, row in newest.items()
        }
        assert all(len(values) == len(set(values)) for values in r.taken.values())


# What an earlier run left


@pytest.mark.parametrize("code", [Code.NRG_0001, Code.STM_0001, Code.MTR_0001])
@pytest.mark.parametrize("restarted", [True, False])
async def test_leap_format_that_is_not_understood_stops_the_sink_also_when_the_job_ends_later(
    tmp_path: Path, code: Code, restarted: bool
) -> None:
    """Lost: the whole batch is parked, where the same answer ten minutes earlier would have called a person."""
    async with rig(tmp_path, confirmed=KNOWN_LINES, job_timeout_s=60) as r:
        r.aggregator.next_files(replace(failed(2, 3, 4, 5, 6, code=code), pace=NEVER))
        assert isinstance(await r.send(*five()), Keep)
        if restarted:
            await r.restart()
        r.aggregator.intervals.finish_all()
        r.aggregator.next_files(*[failed(2, 3, 4, 5, 6, code=code)] * 9)
        result = await r.send(*five())
        assert isinstance(result, Stop), result


async def test_leap_machine_that_starts_with_an_unset_clock_parks_no_row(tmp_path: Path) -> None:
    """Lost: the backlog of an outage: a machine without a battery for its clock starts in 2020, and before the time is
    set each row of the log is "in the future" and parked."""
    async with rig(tmp_path) as r:
        r.sink._clock = ManualClock(utc_ms=T0 - 30 * 86_400_000)
        result = await r.send(*five())
        assert not isinstance(result, Reject), result


@pytest.mark.real_time
async def test_leap_sftp_put_of_50_000_rows_does_not_block_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost: control for the longest turn, at each file."""
    async with OpenSsh(tmp_path / "ssh") as server:
        account = {
            "host": "127.0.0.1", "port": server.port, "user": server.user, "folder": server.folder,
            "password": SecretStr(server.password), "host_key": server.known_hosts.split(" ", 1)[1].strip(),
        }  # fmt: skip
        way = SftpUpload(LeapSftpSettings.model_validate(account), poll_s=0.05, job_timeout_s=8, timeout_s=20)
        file = Outgoing(name="a.csv", body=b"x" * 99 * 50_000, rows=[(0, "home-1", 1, "m1")], began_ms=0)

        async def noted(_file: Outgoing) -> None: ...

        turns = Turns(monkeypatch)
        await asyncio.sleep(0)
        turns.longest_ms = 0.0
        assert await way.deliver(file, noted) == Keep(reason="job_unfinished")
        assert turns.longest_ms < 10, (turns.longest_ms, turns.what)


async def test_leap_errors_of_the_header_that_are_cut_are_not_taken_for_the_first_row(tmp_path: Path) -> None:
    """Lost: as above: two columns are absent, the list of errors is cut after one, and line 1 becomes the first row."""
    async with rig(tmp_path, points=OpenPoints(errors_max=1)) as r:
        fate = Fate(failed_with=(LineError(1, Code.MTR_0001, "absent"), LineError(1, Code.STM_0001, "absent")))
        r.aggregator.next_files(fate, fate)
        result = await r.send(*five())
        assert isinstance(result, Stop), (result, r.sink.past.first_row_line)


async def test_leap_lost_answer_to_a_resent_stretch_is_not_taken_for_the_file_of_long_ago(tmp_path: Path) -> None:
    """Lost: the rest of a stretch that an operator sends again: its file never arrived, the preview of a file of two
    days ago begins alike, and every row is told as accepted."""
    async with rig(tmp_path, points=OpenPoints(preview_lines=3)) as r:
        stretch = [quarter(1, index=i) for i in range(20)]
        assert await r.send(*stretch[:10]) == Accept()
        await r.settled(*stretch[:10])
        for i in range(201):
            assert await r.send(quarter(2, index=i)) == Accept()
            await r.settled(quarter(2, index=i))
        r.aggregator.script(Operation.UPLOAD, cut())
        assert isinstance(await r.send(*stretch, again=True), Keep)
        assert await r.send(*stretch, again=True) == Accept()
        assert {key(1, i) for i in range(20)} <= set(r.taken)


async def test_leap_unknown_meter_with_many_rows_does_not_cost_a_file_for_each_where_errors_are_cut(
    tmp_path: Path,
) -> None:
    """Lost: days: the whole fleet waits while the file goes up once for each row of the one unknown meter."""
    async with rig(tmp_path, homes=(2, 3), points=OpenPoints(errors_max=1), confirmed=KNOWN_LINES) as r:
        rows = [quarter(1, index=i) for i in range(150)] + [quarter(2), quarter(3)]
        assert isinstance(await sent(r, *rows), Reject)
        assert len(r.files) < 20, len(r.files)
