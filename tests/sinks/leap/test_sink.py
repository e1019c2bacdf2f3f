"""The aggregator's sink against the stand-in of the aggregator: what goes up, what is refused, what is kept."""

import asyncio
import random
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.ports.sinks import Accept, Keep, Reject, SinkResult, Stop
from gateway.schemas.interval_rows import rfc3339
from gateway.services.uplink.delivery import SinkDelivery
from gateway.sinks.leap import over_http
from gateway.sinks.leap import sink as leap_sink
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.storage.archive import export_archive
from simulators.aggregator import (
    EMPTY_ANSWER,
    FAILED_WITHOUT_ERRORS,
    FAILED_WITHOUT_LINE,
    HTML_PAGE,
    NEVER,
    Aggregator,
    Code,
    Environment,
    Fate,
    LineError,
    Mischief,
    Mishap,
    OpenPoints,
    Operation,
    Pace,
    Rerun,
    Schema,
    Seen,
    Upload,
    Version,
    Wait,
    answer,
    cut,
    hang,
)
from tests.builders.interval_logs import T0, MemoryReader, quarter
from tests.builders.leap import NOW_MS, meter_id
from tests.scenes.leap import KEY, QUARTER_MS, Rig, key, mapping, rig
from tests.scenes.waiting import service, until


def poisoned(aggregator: Aggregator, *starts_ms: int) -> None:
    """From here on a file with one of these starts of the first home fails, and no row of it is named."""
    intervals, receive = aggregator.intervals, aggregator.intervals.receive
    texts = [f"{meter_id(1)},{rfc3339(start_ms)},".encode() for start_ms in starts_ms]

    def receiving(content: bytes | None, *args: Any, **kwargs: Any) -> Upload:
        if content is not None and any(text in content for text in texts):
            intervals.fates.insert(0, FAILED_WITHOUT_ERRORS)
        return receive(content, *args, **kwargs)

    intervals.receive = receiving  # type: ignore[method-assign]


def failed(*lines: int, code: Code = Code.MTR_0003) -> Fate:
    """A file that fails for these lines."""
    return Fate(failed_with=tuple(LineError(line, code, "as scripted") for line in lines))


async def test_leap_batch_goes_up_as_one_file_and_is_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert await r.send(quarter(2), quarter(1), quarter(1, index=1, discharge_wh=1.0)) == Accept()
        assert r.taken == {key(1): [0.25], key(2): [0.25], key(1, 1): [0.001]}
        (upload,) = r.aggregator.asked(Operation.UPLOAD)
        assert upload.query == [("schema", "load")]
        assert upload.headers["Content-Type"] == "text/csv"
        assert r.sink.stats.uploads == 1


async def test_leap_newest_revision_of_a_batch_goes_up_wherever_it_stands(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        older, newer = quarter(1, revision=1, discharge_wh=1.0), quarter(1, revision=2, discharge_wh=2.0)
        assert await r.send(newer, older, quarter(2), replace(newer, device=DeviceId("home-3"))) == Accept()
        assert r.taken[key(1)] == [0.002]
        assert r.sink.stats.superseded == 1


async def test_leap_later_batch_replaces_what_was_taken(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.send(quarter(1))
        await r.settled(quarter(1))
        assert await r.send(quarter(1, revision=2, discharge_wh=300.0)) == Accept()
        assert r.taken == {key(1): [0.25, 0.3]}


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
        assert r.taken == {key(5): [0.25]}
        assert r.sink.stats.refused == {"withheld_unknown": 2, "withheld_coverage": 2}


async def test_leap_withheld_newest_revision_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        result = await r.send(quarter(1), quarter(1, revision=2, coverage_pct=10))
        assert result == Reject(refused={1: "withheld_coverage"})
        assert r.files == []


async def test_leap_rows_with_a_code_of_ours_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        tomorrow = (NOW_MS - T0) // QUARTER_MS + 96
        result = await r.send(
            replace(quarter(1), length_s=300), quarter(2, index=tomorrow), quarter(3, charge_wh=-1.0),
            quarter(4, discharge_wh=float("inf")), replace(quarter(5), start_ms=T0 + 60_000),
        )  # fmt: skip
        assert result == Reject(refused={0: "etm_0003", 1: "stm_0003", 2: "con_0003", 3: "gen_0002", 4: "stm_0003"})
        assert not r.aggregator.requests


async def test_leap_row_that_ends_in_the_future_waits_for_its_end_and_the_rest_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        now = (NOW_MS - T0) // QUARTER_MS
        rows = (quarter(1), quarter(1, index=now))
        assert await r.send(*rows) == Keep(reason="ends_in_the_future", after_s=900.0)
        assert set(r.taken) == {key(1)}
        assert r.sink.stats.waiting == {"ends_in_the_future": 1}
        r.clock.advance(s=900)
        assert await r.send(*rows) == Accept()
        assert r.taken == {key(1): [0.25], key(1, now): [0.25]}
        assert r.sink.stats.waiting == {}


# What the aggregator refuses


@pytest.mark.parametrize("header_is_line_1", [True, False])
@pytest.mark.parametrize("odd", [1, 2, 3, 4, 5])
async def test_leap_row_that_a_job_names_is_refused_whatever_line_one_is(
    tmp_path: Path, header_is_line_1: bool, odd: int
) -> None:
    """Which of two rows is meant is not public: it is found out, and no good row is refused."""
    homes = [home for home in range(1, 6) if home != odd]
    async with rig(tmp_path, homes=homes, points=OpenPoints(header_is_line_1=header_is_line_1)) as r:
        result = await r.send(*(quarter(home) for home in range(1, 6)))
        assert result == Reject(refused={odd - 1: "mtr_0003"})
        assert r.taken == {key(home): [0.25] for home in homes}
        await r.settled(*(quarter(home) for home in range(1, 6)))
        # what was found out holds after a restart, and costs no file again
        await r.restart()
        files = len(r.files)
        result = await r.send(*(quarter(home, index=1) for home in range(1, 6)))
        assert result == Reject(refused={odd - 1: "mtr_0003"})
        assert len(r.files) == files + 2


async def test_leap_confirmed_line_numbers_are_not_found_out(tmp_path: Path) -> None:
    confirmed = LeapConfirmed(error_lines="first_row_is_line_1")
    async with rig(tmp_path, homes=(1, 2, 4, 5), points=OpenPoints(header_is_line_1=False), confirmed=confirmed) as r:
        assert await r.send(*(quarter(home) for home in range(1, 6))) == Reject(refused={2: "mtr_0003"})
        assert len(r.files) == 2


async def test_leap_failed_again_for_other_rows_is_followed(tmp_path: Path) -> None:
    async with rig(tmp_path, confirmed=LeapConfirmed(error_lines="header_is_line_1")) as r:
        r.aggregator.next_files(failed(2, code=Code.CON_0003), failed(2, code=Code.GEN_0003))
        assert await r.send(quarter(1), quarter(2), quarter(3)) == Reject(refused={0: "con_0003", 1: "gen_0003"})
        assert set(r.taken) == {key(3)}


async def test_leap_errors_that_are_cut_are_asked_for_by_another_file(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(4, 5), points=OpenPoints(errors_max=1)) as r:
        result = await r.send(*(quarter(home) for home in range(1, 6)))
        assert result == Reject(refused={0: "mtr_0003", 1: "mtr_0003", 2: "mtr_0003"})
        assert r.taken == {key(4): [0.25], key(5): [0.25]}


async def test_leap_old_shape_of_errors_is_understood(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1, 3)) as r:
        r.aggregator.mischief.old_error_items = True
        assert await r.send(quarter(1), quarter(2), quarter(3)) == Reject(refused={1: "refused_by_receiver"})
        assert r.taken == {key(1): [0.25], key(3): [0.25]}


async def test_leap_every_row_bad_is_refused_without_an_empty_file(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=()) as r:
        assert await r.send(quarter(1)) == Reject(refused={0: "mtr_0003"})
        assert len(r.files) == 1


async def test_leap_refused_rows_can_be_sent_later_and_only_they_go_up(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1,)) as r:
        rows = [quarter(1), quarter(2), quarter(2, index=1)]
        result = await r.send(*rows)
        assert result == Reject(refused={1: "mtr_0003", 2: "mtr_0003"})
        await r.settled(*rows)
        r.aggregator.intervals.meters[meter_id(2)] = r.aggregator.intervals.meters[meter_id(1)]
        assert await r.send(*rows[1:], again=True) == Accept()
        assert r.taken == {key(1): [0.25], key(2): [0.25], key(2, 1): [0.25]}


@pytest.mark.parametrize("fate", [FAILED_WITHOUT_ERRORS, FAILED_WITHOUT_LINE, failed(99)])
async def test_leap_file_that_fails_once_for_no_row_costs_no_row(tmp_path: Path, fate: Fate) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(fate)
        assert await r.send(*(quarter(home) for home in range(1, 6))) == Accept()
        assert r.taken == {key(home): [0.25] for home in range(1, 6)}
        assert len(r.files) == 3


@pytest.mark.parametrize("poison", [0, 1, 7, 11])
async def test_leap_row_that_makes_every_file_fail_unnamed_is_found_and_the_others_are_taken(
    tmp_path: Path, poison: int
) -> None:
    rows = [quarter(1, index=i) for i in range(12)]
    async with rig(tmp_path) as r:
        poisoned(r.aggregator, rows[poison].start_ms)
        assert await r.send(*rows) == Reject(refused={poison: "job_failed"})
        assert r.taken == {key(1, i): [0.25] for i in range(12) if i != poison}
        assert len(r.files) < 12


async def test_leap_trouble_while_rows_are_tried_again_does_not_stop_the_sink_for_ever(tmp_path: Path) -> None:
    """What was taken of the batch before counts after the trouble, and after a start."""
    rows = [quarter(1, index=i) for i in range(12)]
    for number, restarted in enumerate((False, True)):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with rig(directory) as r:
            poisoned(r.aggregator, rows[3].start_ms, rows[8].start_ms)
            taken = r.aggregator.intervals.accepted

            def trouble(seen: Seen, r: Rig = r, taken: dict[tuple[str, int], list[Version]] = taken) -> None:
                if seen.operation is Operation.UPLOADS and len(taken) == 10 and not r.aggregator.unused(Operation.JOB):
                    r.aggregator.script(Operation.UPLOADS, answer(503))
                    r.aggregator.on_request = lambda _: None

            r.aggregator.on_request = trouble
            assert await r.send(*rows) == Keep(reason="http_503")
            if restarted:
                await r.restart()
            assert await r.send(*rows) == Reject(refused={3: "job_failed", 8: "job_failed"})
            assert r.taken == {key(1, i): [0.25] for i in range(12) if i not in (3, 8)}


async def test_leap_file_on_its_way_fits_into_an_archive_whatever_the_sink_is_called(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with rig(tmp_path, name="a" * 32, job_timeout_s=3) as r:
        r.outbox = state / "leap" / r.settings.name
        await r.restart()
        r.aggregator.next_files(Fate(pace=NEVER))
        assert await r.send(quarter(1)) == Keep(reason="job_unfinished")
        export_archive(state, tmp_path / "a.tar.gz", version="0", now=r.clock.now(), damaged=False)
    with tarfile.open(tmp_path / "a.tar.gz") as packed:
        assert sum(name.endswith(".csv") for name in packed.getnames()) == 1


async def test_leap_aggregator_that_fails_everything_stops_the_sink_and_costs_no_row(tmp_path: Path) -> None:
    rows = [quarter(1 + i % 5, index=i // 5) for i in range(100)]
    async with rig(tmp_path) as r:
        r.aggregator.next_files(*[FAILED_WITHOUT_ERRORS] * 1_000)
        result = await r.send(*rows)
        assert isinstance(result, Stop)
        assert (result.reason, result.retry_s) == ("job_failed", None)
        assert len(r.files) < 20
        r.aggregator.intervals.fates.clear()
        assert await r.send(*rows) == Accept()
        assert {len(versions) for versions in r.taken.values()} == {1}


async def test_leap_batch_of_one_row_that_fails_for_no_reason_is_tried_thrice_and_parked(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(*[FAILED_WITHOUT_ERRORS] * 3)
        assert await r.send(quarter(1)) == Keep(reason="job_failed")
        assert await r.send(quarter(1)) == Keep(reason="job_failed")
        assert await r.send(quarter(1)) == Reject(refused={0: "job_failed"})
        assert len(r.files) == 3


async def test_leap_batches_of_one_row_that_all_fail_for_no_reason_stop_the_sink(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(*[FAILED_WITHOUT_ERRORS] * 1_000)
        results: list[SinkResult] = []
        for i in range(4):
            for _ in range(3):
                results.append(await r.send(quarter(1, index=i)))
            await r.settled(quarter(1, index=i))
        assert [isinstance(result, Reject) for result in results[2::3]] == [True, True, True, False]
        assert isinstance(results[-1], Stop)


def blaming(aggregator: Aggregator, code: Code, *, header: bool) -> None:
    """From here on every file fails, for its header or for each of its rows."""
    intervals, receive = aggregator.intervals, aggregator.intervals.receive

    def receiving(content: bytes | None, *args: Any, **kwargs: Any) -> Upload:
        rows = len((content or b"").splitlines()) - 1
        intervals.fates.insert(0, failed(*([1] if header else range(2, rows + 2)), code=code))
        return receive(content, *args, **kwargs)

    intervals.receive = receiving  # type: ignore[method-assign]


@pytest.mark.parametrize("code", [Code.MTR_0001, Code.STM_0002, Code.NRG_0001, Code.LIN_0001, Code.UNCATEGORISED])
@pytest.mark.parametrize("header", [True, False])
async def test_leap_format_that_is_not_understood_stops_the_sink_and_costs_no_row(
    tmp_path: Path, code: Code, header: bool
) -> None:
    rows = [quarter(1 + i % 5, index=i // 5) for i in range(20)]
    async with rig(tmp_path) as r:
        receive = r.aggregator.intervals.receive
        blaming(r.aggregator, code, header=header)
        assert await r.send(*rows) == Stop(reason="format_refused", detail=code.lower())
        assert len(r.files) < 6
        r.aggregator.intervals.receive = receive  # type: ignore[method-assign]
        r.aggregator.intervals.fates.clear()
        assert await r.send(*rows) == Accept()
        assert {len(versions) for versions in r.taken.values()} == {1}


async def test_leap_header_that_is_refused_once_costs_no_row(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(failed(1, code=Code.MTR_0001))
        assert await r.send(quarter(1), quarter(2), quarter(3)) == Accept()
        assert r.taken == {key(1): [0.25], key(2): [0.25], key(3): [0.25]}


# The aggregator's clock


async def test_leap_aggregator_whose_clock_is_behind_makes_rows_wait_and_costs_none(tmp_path: Path) -> None:
    now = (NOW_MS - T0) // QUARTER_MS
    rows = [quarter(1, index=i) for i in range(now - 8, now)]
    async with rig(tmp_path) as r:
        r.aggregator.clock.skew_ms = -3_600_000
        for _ in range(20):
            result = await r.send(*rows)
            if not isinstance(result, Keep):
                break
            assert result.reason == "receiver_clock_behind"
            r.clock.advance(s=max(result.after_s, 1.0))
        assert result == Accept()
        assert r.taken == {key(1, i): [0.25] for i in range(now - 8, now)}


async def test_leap_row_that_is_called_future_while_later_ones_are_taken_is_refused(tmp_path: Path) -> None:
    confirmed = LeapConfirmed(error_lines="header_is_line_1")
    async with rig(tmp_path, confirmed=confirmed) as r:
        await r.send(quarter(1, index=9))
        r.aggregator.next_files(failed(2, code=Code.ETM_0003))
        assert await r.send(quarter(1, index=1), quarter(1, index=2)) == Reject(refused={0: "etm_0003"})


@pytest.mark.parametrize("skew_h", [-20, -1, 1, 30])
async def test_leap_jobs_are_found_whatever_the_aggregators_clock(tmp_path: Path, skew_h: int) -> None:
    async with rig(tmp_path, timeout_s=5.0) as r:
        r.aggregator.clock.skew_ms = max(skew_h, 0) * 3_600_000
        r.clock.advance(s=-min(skew_h, 0) * 3_600)
        r.aggregator.clock.skew_ms += min(skew_h, 0) * 3_600_000
        r.aggregator.script(Operation.UPLOAD, cut(done=True))
        assert isinstance(await r.send(quarter(1)), Keep)
        assert await r.send(quarter(1)) == Accept()
        assert r.taken == {key(1): [0.25]}


# Answers that are no answer


OVER = "7"
TROUBLE: list[tuple[Mishap, SinkResult]] = [
    (answer(429, Retry_After=OVER), Keep(reason="http_429", after_s=7.0)),
    (answer(500), Keep(reason="http_500")),
    (answer(503, Retry_After=OVER), Keep(reason="http_503", after_s=7.0)),
    (answer(302, Location="/v1.1/interval-data"), Keep(reason="http_302")),
    (EMPTY_ANSWER, Keep(reason="reply_malformed")),
    (HTML_PAGE, Keep(reason="reply_malformed")),
    (answer(200, b"[]"), Keep(reason="reply_malformed")),
    (answer(200, b'{"job_id": "../../x", "uploads": 7}'), Keep(reason="reply_malformed")),
    (answer(400, b"no\nschema"), Stop(reason="http_400", detail="no schema")),
    (answer(404), Stop(reason="http_404")),
    (answer(415), Stop(reason="http_415")),
    (answer(401), Stop(reason="http_401", retry_s=3600.0)),
    (answer(403, b"other"), Stop(reason="http_403", detail="other", retry_s=3600.0)),
]


@pytest.mark.parametrize("operation", [Operation.UPLOAD, Operation.UPLOADS])
@pytest.mark.parametrize(("mishap", "expected"), TROUBLE)
async def test_leap_trouble_keeps_the_batch_and_the_next_try_brings_it_up_once(
    tmp_path: Path, operation: Operation, mishap: Mishap, expected: SinkResult
) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.script(operation, mishap)
        assert await r.send(quarter(1)) == expected
        assert await r.send(quarter(1)) == Accept()
        assert r.taken == {key(1): [0.25]}


async def test_leap_upload_that_is_cut_off_goes_up_again_and_is_there_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, cut(), cut(done=True))
        assert await r.send(quarter(1)) == Keep(reason="ServerDisconnectedError")
        assert await r.send(quarter(1)) == Keep(reason="ServerDisconnectedError")
        assert await r.send(quarter(1)) == Accept()
        assert r.taken == {key(1): [0.25]}
        assert r.asked(Operation.UPLOAD) == 2


async def test_leap_request_that_is_refused_stops_the_sink_after_one_upload(tmp_path: Path) -> None:
    """Formerly the batch was halved down to its rows, and each was parked."""
    rows = [quarter(1 + i % 5, index=i // 5) for i in range(40)]
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, *[answer(400, b'{"title": "schema is required"}')] * 1_000)
        log = MemoryReader(rows)
        delivery = SinkDelivery(r.sink, log_=log, finder=log, clock=r.clock, rng=random.Random(1))
        async with service(delivery.run):
            await until(lambda: delivery.stats.stopped)
            await asyncio.sleep(7 * 86_400)
        assert (r.asked(Operation.UPLOAD), log.parked, log.saved) == (1, {}, [])
        assert "schema" in delivery.stats.detail


async def test_leap_key_of_another_environment_stops_the_sink_and_is_not_shown(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.environment = Environment.PRODUCTION
        result = await r.send(quarter(1))
        assert isinstance(result, Stop)
        assert result.reason == "http_403"
        missing = await r.sink.missing(T0, NOW_MS)
        assert isinstance(missing, Stop)
        assert KEY not in repr(r.settings) + r.settings.model_dump_json() + repr(result)
        r.aggregator.environment = Environment.STAGING
        assert await r.send(quarter(1)) == Accept()


async def test_leap_file_that_is_too_large_goes_up_in_halves(tmp_path: Path) -> None:
    rows = [quarter(1, index=i) for i in range(16)]
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, answer(413), answer(413))
        assert await r.send(*rows) == Accept()
        assert r.taken == {key(1, i): [0.25] for i in range(16)}
        assert [len(body.splitlines()) - 1 for body in r.files] == [4, 4, 8]


async def test_leap_one_row_that_is_too_large_stops_the_sink(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOAD, *[answer(413)] * 9)
        assert isinstance(await r.send(quarter(1), quarter(2)), Stop)


# Lost answers, lost jobs


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("preview_lines", [2, 100])
async def test_leap_upload_whose_answer_is_lost_is_found_again_and_is_there_once(
    tmp_path: Path, done: bool, restarted: bool, preview_lines: int
) -> None:
    rows = [quarter(1, index=i) for i in range(5)]
    async with rig(tmp_path, timeout_s=5.0, points=OpenPoints(preview_lines=preview_lines)) as r:
        await r.send(quarter(2))
        await r.settled(quarter(2))
        r.aggregator.script(Operation.UPLOAD, hang(done=done))
        assert await r.send(*rows) == Keep(reason="timeout")
        if restarted:
            await r.restart()
        # the log has grown meanwhile
        assert await r.send(*rows, quarter(3)) == Accept()
        assert r.taken == {key(2): [0.25], key(3): [0.25]} | {key(1, i): [0.25] for i in range(5)}


async def test_leap_lost_answer_to_a_shortened_file_is_not_taken_for_the_file_before(tmp_path: Path) -> None:
    """The file that failed and the one without its last row begin alike."""
    confirmed = LeapConfirmed(error_lines="header_is_line_1")
    async with rig(tmp_path, homes=(1,), points=OpenPoints(preview_lines=2), confirmed=confirmed) as r:
        r.aggregator.script(Operation.UPLOAD, None, cut())
        rows = [quarter(1, index=0), quarter(1, index=1), quarter(2)]
        assert isinstance(await r.send(*rows), Keep)
        assert await r.send(*rows) == Reject(refused={2: "mtr_0003"})
        assert r.taken == {key(1): [0.25], key(1, 1): [0.25]}


async def test_leap_job_that_was_not_seen_to_end_is_gone_on_with(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1,), confirmed=LeapConfirmed(error_lines="header_is_line_1")) as r:
        r.aggregator.script(Operation.UPLOADS, answer(429))
        assert isinstance(await r.send(quarter(1), quarter(2)), Keep)
        await r.restart()
        assert await r.send(quarter(1), quarter(2)) == Reject(refused={1: "mtr_0003"})
        assert len(r.files) == 2
        assert r.taken == {key(1): [0.25]}


async def test_leap_job_that_never_ends_is_waited_for_and_not_sent_again(tmp_path: Path) -> None:
    async with rig(tmp_path, job_timeout_s=60) as r:
        r.aggregator.next_files(Fate(pace=NEVER))
        for _ in range(20):
            assert await r.send(quarter(1)) == Keep(reason="job_unfinished")
        assert len(r.files) == 1
        r.aggregator.intervals.finish_all()
        assert await r.send(quarter(1)) == Accept()
        assert (len(r.files), r.taken) == (1, {key(1): [0.25]})


async def test_leap_job_that_is_slow_is_followed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(Fate(pace=Pace(queued=Wait(looks=9, s=None), processing=Wait(looks=9, s=None))))
        assert await r.send(quarter(1)) == Accept()
        assert len(r.files) == 1


async def test_leap_job_that_nobody_knows_any_more_goes_up_again_and_at_most_thrice(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        def forget(*_: object) -> None:
            r.clock.advance(s=300)
            r.aggregator.intervals.uploads.clear()
            r.aggregator.intervals._by_job.clear()

        r.aggregator.next_files(*[Fate(pace=NEVER)] * 9)
        r.aggregator.on_request = forget
        assert await r.send(quarter(1)) == Keep(reason="job_lost")
        assert await r.send(quarter(1)) == Keep(reason="job_lost")
        assert isinstance(await r.send(quarter(1)), Stop)
        assert r.asked(Operation.UPLOAD) == 3


@pytest.mark.parametrize("rerun", [Rerun.BEFORE, Rerun.AFTER])
async def test_leap_file_that_the_aggregator_runs_again_ends_for_us_once(tmp_path: Path, rerun: Rerun) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.next_files(Fate(rerun=rerun))
        assert await r.send(quarter(1)) == Accept()
        assert len(r.files) == 1


async def test_leap_unknown_fields_and_states_and_nulls_change_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1, 3)) as r:
        r.aggregator.mischief = Mischief(extra_fields=True, unknown_enums=True, null_tokens=True)
        r.aggregator._api._mischief = r.aggregator.mischief
        assert await r.send(quarter(1), quarter(2), quarter(3)) == Reject(refused={1: "mtr_0003"})
        assert r.taken == {key(1): [0.25], key(3): [0.25]}


async def test_leap_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "REPLY_BYTES", 1_000)
    async with rig(tmp_path) as r:
        long = b'{"uploads": [], "pad": "' + b"x" * 5_000_000 + b'"}'
        r.aggregator.script(Operation.UPLOADS, answer(200, long))
        assert await r.send(quarter(1)) == Keep(reason="reply_malformed")


async def test_leap_send_that_is_cancelled_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.script(Operation.UPLOADS, hang())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(r.send(quarter(1)), name="send")
            await until(lambda: r.asked(Operation.UPLOADS) == 1)
            task.cancel()
        assert task.cancelled()
        assert await r.send(quarter(1)) == Accept()
        assert r.taken == {key(1): [0.25]}


async def test_leap_disk_that_cannot_be_written_lets_nothing_leave(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.outbox.write_text("in the way", encoding="utf-8")
        assert await r.send(quarter(1)) == Keep(reason="outbox_unwritable")
        assert not r.aggregator.requests
        r.outbox.unlink()
        assert await r.send(quarter(1)) == Accept()


async def test_leap_many_files_are_gone_on_with_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leap_sink, "FILES_MAX", 8)
    rows = [quarter(1, index=i) for i in range(32)]
    async with rig(tmp_path) as r:
        poisoned(r.aggregator, rows[3].start_ms, rows[17].start_ms)
        results = [await r.send(*rows) for _ in range(9)]
        assert Keep(reason="many_files") in results
        assert results[-1] == Reject(refused={3: "job_failed", 17: "job_failed"})
        assert r.taken == {key(1, i): [0.25] for i in range(32) if i not in (3, 17)}


# Which records, and how they look


def kind(record: IntervalRecord) -> tuple[DeviceId, int]:
    return record.device, record.length_s


def picked(r: Rig, *records: IntervalRecord) -> list[bool]:
    return r.sink.pick([record.device for record in records], [record.length_s for record in records])


async def test_leap_wants_a_quarter_of_a_device_with_a_meter_and_shows_who_has_another_length(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert picked(r, quarter(1), quarter(9), replace(quarter(2), length_s=300)) == [True, False, False]
        assert r.sink.stats.other_length == 1
        assert picked(r, quarter(2)) == [True]
        assert r.sink.stats.other_length == 0


async def test_leap_that_is_asked_what_it_wants_is_as_it_was(tmp_path: Path) -> None:
    """Whoever asks, REST for one, moves no metric and reads no file."""
    async with rig(tmp_path) as r:
        picked(r, quarter(1), replace(quarter(2), length_s=300))
        r.put(mapping(1))
        r.clock.advance(s=60)
        before = list(r.sink.samples())
        asked = [quarter(1), quarter(9), quarter(2), replace(quarter(1), length_s=300)]
        assert [r.sink.wants(*kind(record)) for record in asked] == [True, False, True, False]
        assert list(r.sink.samples()) == before


async def test_leap_while_meters_were_never_read_nothing_is_passed_over(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.file.unlink()
        await r.restart()
        assert r.sink.wants(*kind(quarter(1)))
        assert await r.send(quarter(1)) == Keep(reason="meters_unreadable")
        r.put(mapping(1))
        r.clock.advance(s=6)
        assert await r.send(quarter(1)) == Accept()


async def test_leap_delivered_from_the_log_only_what_is_wanted_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1, 2, 4, 5)) as r:
        log = MemoryReader(
            [quarter(1), quarter(9), replace(quarter(2), length_s=300), quarter(3), quarter(4, coverage_pct=50.0)]
        )
        delivery = SinkDelivery(r.sink, log_=log, finder=log, clock=r.clock, rng=random.Random(1))
        async with service(delivery.run):
            await until(log.idle.is_set)
        assert set(r.taken) == {key(1)}
        assert (delivery.stats.accepted, delivery.stats.rejected, log.saved) == (1, 2, [5])
        samples = {(s.name, s.labels[1:]): s.value for s in r.sink.samples()}
        assert samples["gateway_leap_refused", (("reason", "mtr_0003"),)] == 1
        assert samples["gateway_leap_refused", (("reason", "withheld_coverage"),)] == 1
        assert (samples["gateway_leap_meters", ()], samples["gateway_leap_other_length", ()]) == (5, 1)
        assert [(s.name, s.value) for s in LeapConfirmed().samples()] == [("gateway_leap_unconfirmed", 7)]


async def test_leap_region_of_the_meter_goes_up(tmp_path: Path) -> None:
    async with rig(tmp_path, final=False) as r:
        r.put(mapping(1, 2, region="CA"))
        await r.restart()
        assert await r.send(quarter(1)) == Accept()
        header, line = r.files[0].decode().splitlines()
        assert header.endswith(",region,final")
        assert line.endswith(",CA,false")


async def test_leap_net_energy_goes_up_only_as_confirmed(tmp_path: Path) -> None:
    async with rig(tmp_path, confirmed=LeapConfirmed(energy_columns="all", net_sign="consumption")) as r:
        assert await r.send(quarter(1)) == Accept()
        (version,) = r.aggregator.intervals.accepted[key(1)]
        assert (version.row.net_kwh, version.row.generated_kwh, version.row.consumed_kwh) == (0.25, 0.25, 0.5)
    (tmp_path / "other").mkdir()
    async with rig(tmp_path / "other", confirmed=LeapConfirmed(energy_columns="net", net_sign="generation")) as r:
        assert await r.send(quarter(1)) == Accept()
        (version,) = r.aggregator.intervals.accepted[key(1)]
        assert (version.row.net_kwh, version.row.generated_kwh) == (-0.25, None)


@pytest.mark.parametrize("schema", ["runtime", "performance"])
async def test_leap_schema_is_the_one_configured(tmp_path: Path, schema: str) -> None:
    async with rig(tmp_path, upload_schema=schema) as r:
        r.aggregator._api._schemas = tuple(Schema)
        assert await r.send(quarter(1)) == Accept()
        assert r.aggregator.intervals.accepted[key(1)][0].schema == schema


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://api.leap.example"}, {"url": "https://api.leap.example/"}, {"token": None}, {"poll_s": 0},
        {"min_coverage_pct": 101}, {"job_timeout_s": 30, "poll_s": 30}, {"batch_rows": 0}, {"extra": 1},
        {"url": None}, {"url": None, "token": None}, {"upload_schema": "power"}, {"missing_names": "both"},
    ],
)  # fmt: skip
def test_leap_settings_refuse_what_cannot_work(change: dict[str, object]) -> None:
    fine: dict[str, object] = {
        "kind": "leap_csv", "name": "l", "url": "https://api.leap.example", "token": SecretStr("x"), "meters": "m.csv",
    }  # fmt: skip
    LeapCsvSinkSettings.model_validate(fine)
    with pytest.raises(ValidationError):
        LeapCsvSinkSettings.model_validate(fine | change)


def test_leap_confirmed_names_what_is_open_and_refuses_a_net_without_a_sign() -> None:
    assert len(LeapConfirmed().unconfirmed) == 7
    confirmed = LeapConfirmed(energy_columns="generated_consumed", upload_schema="load")
    assert confirmed.unconfirmed == ["energy_kw", "penalty_sign", "error_lines", "transport"]
    with pytest.raises(ValidationError, match="net_sign"):
        LeapConfirmed(energy_columns="net")
