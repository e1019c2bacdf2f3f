"""The aggregator's sink against the stand-in of the aggregator: what goes up, what is refused, what is kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr, ValidationError

from gateway.api.samples import leap_samples
from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Accept, IntervalBatch, Keep, MissingInterval, Reject, SinkResult
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap import meters as leap_meters
from gateway.sinks.leap import sink as leap_csv
from gateway.sinks.leap.meters import read_meters
from gateway.sinks.leap.replies import job_of, missing_of
from gateway.sinks.leap.rows import LeapMeter
from gateway.sinks.leap.sink import LeapCsvSink, LeapCsvSinkSettings
from simulators import clock as simulated
from simulators.aggregator import Aggregator, Answer, Operation, Trouble
from tests.builders.interval_logs import T0, MemoryReader, quarter
from tests.builders.leap import METERS, NOW_MS, meter_id
from tests.scenes.waiting import service, until

TOKEN = "leap-key-of-the-tests"
QUARTER_MS = 900_000
FIRST_LOOKS = 3
"""How often the stand-in is asked for a job until it is over."""


def mapping(*homes: int, region: str = "") -> str:
    lines = [f"home-{home},{meter_id(home)},{region}\n" for home in homes]
    return "".join(["device,meter_id,region\n", *lines])


class Rig:
    """A sink, the aggregator it sends to, and the file of meters between them."""

    def __init__(self, directory: Path, aggregator: Aggregator, **settings: Any) -> None:
        self.aggregator = aggregator
        self.clock = ManualClock(utc_ms=NOW_MS)
        self.file = directory / "meters.csv"
        self.put(mapping(1, 2, 3, 4, 5))
        shown: dict[str, Any] = {"poll_s": 0.001, "timeout_s": 30, "token": SecretStr(TOKEN)}
        self.sink = LeapCsvSink(
            LeapCsvSinkSettings(
                kind="leap_csv", name="leap", url=aggregator.url, meters=self.file, **(shown | settings)
            ),
            clock=self.clock,
        )

    def put(self, text: str) -> None:
        """Another file of meters, put in place at once."""
        other = self.file.with_suffix(".new")
        other.write_text(text, encoding="utf-8")
        other.replace(self.file)

    async def send(self, *rows: IntervalRecord) -> SinkResult:
        return await self.sink.send(IntervalBatch(id="abc", rows=rows))

    @property
    def taken(self) -> dict[tuple[str, int], Decimal | None]:
        """Generated kWh by meter and start."""
        return {key: row.generated_kwh for key, row in self.aggregator.rows.items()}


@asynccontextmanager
async def rig(directory: Path, *, all_or_nothing: bool = False, **settings: Any) -> AsyncIterator[Rig]:
    meters = [meter.id for meter in METERS.values()]
    time = simulated.ManualClock(utc_ms=NOW_MS)
    async with Aggregator(token=TOKEN, meters=meters, clock=time, all_or_nothing=all_or_nothing) as aggregator:
        made = Rig(directory, aggregator, **settings)
        try:
            yield made
        finally:
            await made.sink.close()


def key(home: int, index: int = 0) -> tuple[str, int]:
    return meter_id(home), T0 + index * QUARTER_MS


async def test_leap_batch_goes_up_as_one_file_and_is_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert await r.send(quarter(2), quarter(1), quarter(1, index=1, discharge_wh=1.0)) == Accept()
        assert r.taken == {key(1): Decimal("0.25"), key(2): Decimal("0.25"), key(1, 1): Decimal("0.001")}
        assert r.aggregator.asked == {Operation.UPLOAD: 1, Operation.JOB: FIRST_LOOKS}
        assert {row.consumed_kwh for row in r.aggregator.rows.values()} == {Decimal("0.5")}
        assert r.sink.stats.uploads == 1


async def test_leap_newest_revision_of_a_batch_goes_up_wherever_it_stands(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        older, newer = quarter(1, revision=1, discharge_wh=1.0), quarter(1, revision=2, discharge_wh=2.0)
        assert await r.send(newer, older, quarter(2), replace(newer, device=DeviceId("home-3"))) == Accept()
        assert r.taken[key(1)] == Decimal("0.002")
        assert r.sink.stats.superseded == 1
        assert len(r.aggregator.uploads[0].splitlines()) == 4


async def test_leap_later_batch_replaces_what_was_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.send(quarter(1))
        assert await r.send(quarter(1, revision=2, discharge_wh=300.0)) == Accept()
        assert r.taken == {key(1): Decimal("0.3")}


async def test_leap_unknown_and_uncovered_rows_are_withheld_and_the_rest_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        result = await r.send(
            quarter(1, discharge_wh=None),
            quarter(2, charge_wh=None),
            quarter(3, coverage_pct=94.99),
            quarter(4, coverage_pct=float("nan")),
            quarter(5, coverage_pct=95.0),
        )
        assert result == Reject(
            refused={0: "withheld_unknown", 1: "withheld_unknown", 2: "withheld_coverage", 3: "withheld_coverage"}
        )
        assert r.taken == {key(5): Decimal("0.25")}
        assert r.sink.stats.refused == {"withheld_unknown": 2, "withheld_coverage": 2}


async def test_leap_withheld_newest_revision_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        result = await r.send(quarter(1), quarter(1, revision=2, coverage_pct=10))
        assert result == Reject(refused={1: "withheld_coverage"})
        assert r.aggregator.uploads == []


async def test_leap_rows_with_a_code_of_ours_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        future = (NOW_MS - T0) // QUARTER_MS
        result = await r.send(
            replace(quarter(1), length_s=300), quarter(2, index=future), quarter(3, charge_wh=-1.0),
            quarter(4, discharge_wh=float("inf")), replace(quarter(5), start_ms=T0 + 60_000),
        )  # fmt: skip
        assert result == Reject(refused={0: "dtr_0003", 1: "etm_0003", 2: "con_0003", 3: "gen_0002", 4: "stm_0003"})
        assert not r.aggregator.asked


async def test_leap_completed_with_errors_refuses_those_lines_with_their_code(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.meters.discard(meter_id(2))
        r.aggregator.line_errors.append({4: "SOME_NEW"})
        result = await r.send(quarter(3), quarter(2), quarter(1), quarter(4))
        assert result == Reject(refused={1: "mtr_0003", 0: "refused_by_receiver"})
        assert set(r.taken) == {key(1), key(4)}


async def test_leap_failed_job_goes_up_again_at_once_without_the_bad_rows(tmp_path: Path) -> None:
    async with rig(tmp_path, all_or_nothing=True) as r:
        r.aggregator.meters -= {meter_id(2), meter_id(4)}
        result = await r.send(*(quarter(home) for home in (5, 4, 3, 2, 1)))
        assert result == Reject(refused={1: "mtr_0003", 3: "mtr_0003"})
        assert set(r.taken) == {key(1), key(3), key(5)}
        assert [len(body.splitlines()) for body in r.aggregator.uploads] == [6, 4]
        assert r.sink.stats.jobs_failed == 1


async def test_leap_failed_again_for_other_rows_is_followed_and_bounded(tmp_path: Path) -> None:
    async with rig(tmp_path, all_or_nothing=True) as r:
        r.aggregator.line_errors += [{2: "CON_0003"}, {2: "GEN_0003"}]
        assert await r.send(quarter(1), quarter(2), quarter(3)) == Reject(refused={0: "con_0003", 1: "gen_0003"})
        assert set(r.taken) == {key(3)}
        r.aggregator.line_errors += [{2: "MTR_0003"}] * 100
        assert await r.send(*(quarter(1, index=i) for i in range(20))) == Keep(reason="job_failed")
        assert len(r.aggregator.uploads) == 3 + leap_csv.ROUNDS_MAX


async def test_leap_refused_rows_can_be_sent_later_and_only_they_go_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.meters.discard(meter_id(2))
        rows = [quarter(1), quarter(2), quarter(2, index=1)]
        result = await r.send(*rows)
        assert isinstance(result, Reject)
        again = [rows[position] for position in sorted(result.refused)]
        assert await r.send(*again) == Reject(refused={0: "mtr_0003", 1: "mtr_0003"})
        r.aggregator.meters.add(meter_id(2))
        assert await r.send(*again) == Accept()
        assert len(r.aggregator.uploads[-1].splitlines()) == 3
        assert set(r.taken) == {key(1), key(2), key(2, 1)}


async def test_leap_every_row_bad_is_refused_without_an_empty_file(tmp_path: Path) -> None:
    async with rig(tmp_path, all_or_nothing=True) as r:
        r.aggregator.meters.clear()
        assert await r.send(quarter(1)) == Reject(refused={0: "mtr_0003"})
        assert len(r.aggregator.uploads) == 1


async def test_leap_failed_job_without_errors_is_kept_and_made_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.jobs_to_fail = 1
        assert await r.send(quarter(1)) == Keep(reason="job_failed")
        assert await r.send(quarter(1)) == Accept()
        assert len(r.aggregator.uploads) == 2
        assert r.aggregator.uploads[0] == r.aggregator.uploads[1]


async def test_leap_errors_that_are_counted_but_not_listed_are_asked_for_by_another_round(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.meters -= {meter_id(1), meter_id(2)}
        r.aggregator.errors_listed_max = 1
        result = await r.send(quarter(1), quarter(2), quarter(3))
        assert result == Reject(refused={0: "mtr_0003", 1: "mtr_0003"})
        assert set(r.taken) == {key(3)}


async def test_leap_error_of_no_line_is_kept_and_reported(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.line_errors.append({9: "MTR_0003"})
        assert await r.send(quarter(1)) == Keep(reason="job_errors_unplaced")


OVER = {"Retry-After": "7"}


@pytest.mark.parametrize("operation", [Operation.UPLOAD, Operation.JOB])
@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (Answer(status=429, headers=tuple(OVER.items())), Keep(reason="http_429", after_s=7.0)),
        (Answer(status=500), Keep(reason="http_500")),
        (Answer(status=503, headers=tuple(OVER.items())), Keep(reason="http_503", after_s=7.0)),
        (Answer(status=302, headers=(("Location", "/v1.1/interval-data"),)), Keep(reason="http_302")),
        (Answer(status=400), Keep(reason="http_400")),
        (Answer(status=200, body=b""), Keep(reason="reply_malformed")),
        (Answer(status=200, body=b"[]"), Keep(reason="reply_malformed")),
        (Answer(status=200, body=b"<html>"), Keep(reason="reply_malformed")),
        (Answer(status=200, body=b'{"job_id": "../../x", "status": 7}'), Keep(reason="reply_malformed")),
        (Answer(status=401), Keep(reason="http_401")),
    ],
)
async def test_leap_trouble_keeps_the_batch_and_the_next_try_brings_it_up(
    tmp_path: Path, operation: Operation, trouble: Answer | Trouble, expected: Keep
) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.trouble[operation].append(trouble)
        # what is sent and not understood may be too much at once
        whole = operation is Operation.UPLOAD and trouble == Answer(status=400)
        assert await r.send(quarter(1)) == replace(expected, whole=whole)
        assert await r.send(quarter(1)) == Accept()
        assert set(r.taken) == {key(1)}
        assert len(r.aggregator.uploads) == 1


async def test_leap_wrong_key_is_kept_and_the_right_one_is_not_shown(tmp_path: Path) -> None:
    async with rig(tmp_path, token=SecretStr("key-of-another-environment")) as r:
        assert await r.send(quarter(1)) == Keep(reason="http_403")
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="http_403")
        settings = r.sink._settings
        assert "another" not in repr(settings) + settings.model_dump_json()


async def test_leap_upload_cut_off_is_kept_and_not_repeated_within_the_try(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert await r.send(quarter(1)) == Accept()
        r.aggregator.trouble[Operation.UPLOAD].append(Trouble.CUT)
        assert await r.send(quarter(2)) == Keep(reason="ServerDisconnectedError")
        assert r.aggregator.asked[Operation.UPLOAD] == 2
        assert await r.send(quarter(2)) == Accept()


async def test_leap_mute_upload_times_out(tmp_path: Path) -> None:
    async with rig(tmp_path, timeout_s=0.2) as r:
        r.aggregator.trouble[Operation.UPLOAD].append(Trouble.HANG)
        assert await r.send(quarter(1)) == Keep(reason="timeout")


async def test_leap_upload_whose_answer_is_lost_goes_up_again_and_is_there_once(tmp_path: Path) -> None:
    async with rig(tmp_path, timeout_s=0.2) as r:
        r.aggregator.trouble[Operation.UPLOAD].append(Trouble.LATE)
        assert await r.send(quarter(1)) == Keep(reason="timeout")
        assert await r.send(quarter(1)) == Accept()
        first, second = r.aggregator.uploads
        assert first == second
        assert r.taken == {key(1): Decimal("0.25")}


async def test_leap_job_that_was_not_seen_to_end_is_gone_on_with(tmp_path: Path) -> None:
    async with rig(tmp_path, all_or_nothing=True) as r:
        r.aggregator.meters.discard(meter_id(2))
        busy = Answer(status=429)
        r.aggregator.trouble[Operation.JOB] += [busy]
        assert isinstance(await r.send(quarter(1), quarter(2)), Keep)
        assert await r.send(quarter(1), quarter(2)) == Reject(refused={1: "mtr_0003"})
        assert len(r.aggregator.uploads) == 2


async def test_leap_job_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.trouble[Operation.JOB].append(Answer(status=500))
        assert await r.send(quarter(1)) == Keep(reason="http_500")
        r.aggregator.jobs.clear()
        assert await r.send(quarter(1)) == Keep(reason="http_404")
        assert await r.send(quarter(1)) == Accept()
        assert set(r.taken) == {key(1)}


async def test_leap_job_that_never_ends_is_given_up_and_made_anew(tmp_path: Path) -> None:
    async with rig(tmp_path, job_timeout_s=0.2) as r:
        r.aggregator.trouble[Operation.JOB].append(Trouble.HANG)
        assert await r.send(quarter(1)) == Keep(reason="job_timeout")
        assert await r.send(quarter(1)) == Accept()
        assert len(r.aggregator.uploads) == 2


async def test_leap_state_that_nobody_knows_is_waited_out(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.trouble[Operation.JOB].append(Answer(status=200, body=b'{"status": "VALIDATING", "eta": 5}'))
        assert await r.send(quarter(1)) == Accept()
        assert r.aggregator.asked[Operation.JOB] == FIRST_LOOKS + 1


async def test_leap_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leap_csv, "JOB_REPLY_BYTES", 1_000)
    async with rig(tmp_path) as r:
        long = b'{"status": "COMPLETED", "pad": "' + b"x" * 200_000 + b'"}'
        r.aggregator.trouble[Operation.JOB].append(Answer(status=200, body=long))
        assert await r.send(quarter(1)) == Keep(reason="reply_malformed")


async def test_leap_send_that_is_cancelled_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.trouble[Operation.JOB].append(Trouble.HANG)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(r.send(quarter(1)), name="send")
            await until(lambda: r.aggregator.asked[Operation.JOB] == 1)
            task.cancel()
        assert task.cancelled()


async def test_leap_wants_a_quarter_of_a_device_with_a_meter_and_shows_who_has_another_length(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        five_minutes = replace(quarter(2), length_s=300)
        assert r.sink.wants(quarter(1))
        assert not r.sink.wants(quarter(9))
        assert not r.sink.wants(replace(quarter(9), length_s=300))
        assert not any(r.sink.wants(row) for row in (five_minutes, five_minutes))
        assert (r.sink.meters_known, r.sink.stats.other_length) == (5, 1)
        assert r.sink.wants(quarter(2))
        assert r.sink.stats.other_length == 0


async def test_leap_meters_are_read_anew_and_a_bad_file_replaces_none(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert r.sink.wants(quarter(1))

        def after(text: str) -> bool:
            r.put(text)
            r.clock.advance(s=6)
            return r.sink.wants(quarter(7))

        assert not after("device,meter_id\nhome-7,\n")
        assert "line 2: not a meter" in (r.sink.meters_failing or "")
        assert r.sink.wants(quarter(1))
        r.file.unlink()
        r.clock.advance(s=6)
        assert r.sink.wants(quarter(1))
        assert after(mapping(7))
        assert r.sink.meters_failing is None
        assert not r.sink.wants(quarter(1))
        assert await r.send(quarter(1)) == Reject(refused={0: "no_meter"})


async def test_leap_meters_are_looked_at_every_few_seconds_only(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert r.sink.wants(quarter(1))
        r.put(mapping(2))
        assert r.sink.wants(quarter(1))
        r.clock.advance(s=6)
        assert not r.sink.wants(quarter(1))


async def test_leap_meters_that_have_not_changed_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def read(text: str) -> dict[DeviceId, LeapMeter]:
        reads.append(text)
        return read_meters(text)

    monkeypatch.setattr(leap_meters, "read_meters", read)
    async with rig(tmp_path) as r:
        for _ in range(3):
            assert r.sink.wants(quarter(1))
            r.clock.advance(s=6)
        assert len(reads) == 1


async def test_leap_while_meters_were_never_read_nothing_is_passed_over(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.file.unlink()
        assert r.sink.wants(quarter(1))
        assert await r.send(quarter(1)) == Keep(reason="meters_unreadable")
        r.put(mapping(1))
        r.clock.advance(s=6)
        assert await r.send(quarter(1)) == Accept()


async def test_leap_delivered_from_the_log_only_what_is_wanted_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.meters.discard(meter_id(3))
        log = MemoryReader(
            [quarter(1), quarter(9), replace(quarter(2), length_s=300), quarter(3), quarter(4, coverage_pct=50.0)]
        )
        delivery = SinkDelivery(r.sink, log_=log, finder=log, clock=r.clock, rng=random.Random(1))
        async with service(delivery.run):
            await until(log.idle.is_set)
        assert set(r.taken) == {key(1)}
        assert (delivery.stats.accepted, delivery.stats.rejected, log.saved) == (1, 2, [5])
        samples = {(s.name, s.labels[1:]): s.value for s in leap_samples([r.sink])}
        assert samples["gateway_leap_refused", (("reason", "mtr_0003"),)] == 1
        assert samples["gateway_leap_refused", (("reason", "withheld_coverage"),)] == 1
        assert (samples["gateway_leap_meters", ()], samples["gateway_leap_other_length", ()]) == (5, 1)


async def test_leap_region_of_the_meter_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path, final=False) as r:
        r.put(mapping(1, 2, region="CA"))
        assert await r.send(quarter(1)) == Accept()
        header, line = r.aggregator.uploads[0].decode().splitlines()
        assert header.endswith(",region,final")
        assert line.endswith(",CA,false")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: not the header"),
        ("device;meter_id\n", "line 1: not the header"),
        ("device,meter_id\n", "no meter"),
        ("device,meter_id\na,m1\n,m2\n", "line 3: no device"),
        ("device,meter_id\na,m1\na,m2\n", "line 3: 'a' was named before"),
        ("device,meter_id\na,m1\nb,m1\n", "line 3: 'm1' was named before"),
        ("device,meter_id\na\n", "line 2: not a device"),
        ("device,meter_id\n\na,m1\n", "line 2: not a device"),
        ('device,meter_id\na,"m,1"\n', "line 2: not a meter"),
        ("device,meter_id\na,m\u00e9\n", "line 2: not a meter"),
        ("device,meter_id,region\na,m1,ZZ\n", "line 2: not a state"),
        ('device,meter_id\na,"m1\n', "unexpected end"),
    ],
)
def test_meters_file_with_a_fault_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_meters(text)


def test_meters_file_tells_all_faults_and_takes_any_line_ends() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_meters("device,meter_id\n,m1\na,\nb,m2\n")
    assert len(caught.value.problems) == 2
    assert read_meters("device,meter_id,region\r\na,m1,CA\r\nb,m2,\r\n") == {
        "a": LeapMeter(id="m1", region="CA"),
        "b": LeapMeter(id="m2"),
    }


async def test_leap_missing_is_asked_page_by_page_and_told_by_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leap_csv, "PAGE_SIZE", 2)
    async with rig(tmp_path) as r:
        await r.send(*(quarter(home, index=i) for home in (1, 2) for i in range(4) if (home, i) != (2, 2)))
        r.aggregator.meters.add(meter_id(9))
        r.aggregator.statuses = ("OPEN", "PENDING", "PROCESSING", "OPEN", "CLOSED")
        found = await r.sink.missing(T0, T0 + 4 * QUARTER_MS)
        assert isinstance(found, list)
        assert r.aggregator.asked[Operation.SEARCH] == 3
        assert [(gap.device, gap.status) for gap in found] == [
            ("home-2", "OPEN"), ("home-3", "PENDING"), ("home-4", "PROCESSING"), ("home-5", "OPEN"),
        ]  # fmt: skip
        assert (found[0].start_ms, found[0].end_ms) == (T0 + 2 * QUARTER_MS, T0 + 3 * QUARTER_MS)
        r.aggregator.statuses = ("OPEN",)
        everything = await r.sink.missing(T0, T0 + 4 * QUARTER_MS)
        assert isinstance(everything, list)
        assert everything[-1] == MissingInterval(
            device=None, meter_id=meter_id(9), start_ms=T0, end_ms=T0 + 4 * QUARTER_MS, status="OPEN",
            data_type="PERFORMANCE_DATA", deadline_ms=T0 + 4 * QUARTER_MS + 30 * 86_400_000,
        )  # fmt: skip
        sent = [quarter(home, index=i) for home in (2, 3, 4, 5) for i in range(4)]
        await r.send(*sent)
        r.aggregator.meters.discard(meter_id(9))
        assert await r.sink.missing(T0, T0 + 4 * QUARTER_MS) == []


async def test_leap_missing_trouble_and_pages_without_end_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as r:
        search = r.aggregator.trouble[Operation.SEARCH]
        search += [Answer(status=429, headers=(("Retry-After", "9"),)), Answer(status=200, body=b"{}")]
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="http_429", after_s=9.0)
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="reply_malformed")
        monkeypatch.setattr(leap_csv, "PAGES_MAX", 3)
        search += [Answer(status=200, body=b'{"missing_intervals": [], "next_page_token": "x"}')] * 3
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="too_many_pages")


def test_job_reply_is_read_with_suspicion() -> None:
    def read(errors: str, status: str = "COMPLETED") -> tuple[Mapping[int, str], bool] | None:
        reply = job_of(f'{{"status": "{status}", "errors": {errors}, "x": 1}}'.encode(), rows=3)
        return None if reply is None else (reply.refused, reply.unplaced)

    assert read("null") == ({}, False)
    assert read('[{"line": 2, "code": "MTR_0003"}, {"line": 2, "code": "GEN_0003"}]') == ({2: "mtr_0003"}, False)
    assert read('[{"line": 4}]') == ({4: "refused_by_receiver"}, False)
    assert read('[{"line": 4, "code": ["x"]}]') == ({4: "refused_by_receiver"}, False)
    for odd in ('{"line": 5}', '{"line": 1}', '{"line": true}', '{"line": "2"}', '{"line": null}', "{}", "7"):
        assert read(f"[{odd}]") == ({}, True), odd
    assert read('[{"line": 2}]', status="PROCESSING") == ({}, False)
    assert job_of(b'{"status": null}', rows=3) is None
    counted = b'{"status": "FAILED", "errors": [], "error_summary": [{"count": 1}, {"count": true}, 7]}'
    reply = job_of(counted, rows=3)
    assert reply is not None
    assert reply.unplaced


def test_missing_reply_skips_what_it_cannot_read_and_counts_it() -> None:
    good = {
        "meter_id": "m", "status": "OPEN", "start_date_time_utc": "2027-01-15T08:00:00Z",
        "end_date_time_utc": "2027-01-15T08:15:00Z", "novelty": {},
    }  # fmt: skip
    odd = [good | {"meter_id": None}, good | {"start_date_time_utc": "2027-01-15T08:00:00"}, good | {"status": 1}, 7]
    page = missing_of(orjson.dumps({"missing_intervals": [good, *odd], "next_page_token": ""}))
    assert page is not None
    found, unread, token = page
    assert ([(entry.meter_id, entry.start_ms, entry.data_type, entry.deadline_ms) for entry in found], unread) == (
        [("m", T0, "", None)],
        4,
    )
    assert token is None


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://api.leap.example"}, {"url": "https://api.leap.example/"}, {"token": None}, {"poll_s": 0},
        {"min_coverage_pct": 101}, {"job_timeout_s": 30, "poll_s": 30}, {"batch_rows": 0}, {"extra": 1},
    ],
)  # fmt: skip
def test_leap_settings_refuse_what_cannot_work(change: dict[str, object]) -> None:
    fine: dict[str, object] = {
        "kind": "leap_csv", "name": "l", "url": "https://api.leap.example", "token": SecretStr("x"), "meters": "m.csv",
    }  # fmt: skip
    LeapCsvSinkSettings.model_validate(fine)
    with pytest.raises(ValidationError):
        LeapCsvSinkSettings.model_validate(fine | change)
