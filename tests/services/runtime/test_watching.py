"""Keeping services running, logs, metrics, checkpoints: what an operator and a restart rely on."""

import asyncio
import io
import json
import logging
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock, SystemClock, utc_struct
from gateway.domain.errors import StorageError
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.types import IntervalRules
from gateway.domain.types import NEVER_MS, Unclear
from gateway.observability.logs import HumanLines, JsonLines
from gateway.observability.metrics import Histogram, Metrics, Sample, histogram, registry
from gateway.services.checkpointing import Checkpointer, fleet_columns, load_columns
from gateway.services.events.delivery_records import DeliveryRecords
from gateway.services.runtime import supervisor as supervisor_module
from gateway.services.runtime.loop_lag import LoopLag
from gateway.services.runtime.supervisor import Supervisor
from gateway.services.telemetry.recorder import Recorder
from gateway.storage.checkpoint import Checkpoints
from tests.builders.fakes import FACTS, Homes, home
from tests.scenes.waiting import service, until
from tests.virtual.clock import loop_clock

RULES = IntervalRules(length_s=60, grace_s=5)


# -- supervisor ----------------------------------------------------------------------------------------------


def silent(fleet: Fleet) -> DeliveryRecords:
    """Records that are not published."""
    return DeliveryRecords(fleet, publishing=False)


@pytest.mark.fault("F41")
async def test_supervisor_service_that_fails_is_started_again_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_BASE_S", 0.001)
    supervisor = Supervisor(rng=random.Random(1), clock=SystemClock())
    starts: list[str] = []
    steady = asyncio.Event()

    async def shaky() -> None:
        starts.append("shaky")
        if len(starts) < 4:
            raise StorageError("disk full")
        await asyncio.Event().wait()

    async def sound() -> None:
        steady.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervisor.keep(n, s), name=n) for n, s in (("shaky", shaky), ("sound", sound))]
        await until(lambda: len(starts) == 4)
        await until(lambda: supervisor.health["shaky"].failing is None)
        assert steady.is_set()
        assert (supervisor.health["shaky"].restarts, supervisor.health["sound"].restarts) == (3, 0)
        for task in tasks:
            task.cancel()
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 3
    assert {record.__dict__["service"] for record in failures} == {"shaky"}


@pytest.mark.fault("F41")
async def test_supervisor_many_that_fail_for_ever_are_a_few_tracebacks_a_minute_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(rng=random.Random(1), clock=loop_clock())

    async def broken() -> None:
        raise KeyError("a bug")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(supervisor.keep("device-session", broken), name="broken") for _ in range(50)]
        await asyncio.sleep(600)
        for task in tasks:
            task.cancel()
    lines = [record for record in caplog.records if record.exc_info]
    assert supervisor.health["device-session"].restarts > 2_000
    assert 40 <= len(lines) <= 55
    counts = [record.__dict__["restarts"] for record in lines]
    assert counts == sorted(counts)
    assert counts[-1] > 1_800


async def test_supervisor_failing_service_says_why_while_it_waits() -> None:
    supervisor = Supervisor(rng=random.Random(1), clock=SystemClock())

    async def broken() -> None:
        raise ValueError("a bug")

    async with service(lambda: supervisor.keep("broken", broken)):
        await until(lambda: "broken" in supervisor.health and supervisor.health["broken"].failing is not None)
        assert supervisor.health["broken"].failing == "ValueError"


async def test_supervisor_cancelled_stops_the_service() -> None:
    ended = asyncio.Event()

    async def sound() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    supervisor = Supervisor(rng=random.Random(1), clock=SystemClock())
    async with service(lambda: supervisor.keep("sound", sound)):
        await until(lambda: "sound" in supervisor.health)
    assert ended.is_set()
    assert supervisor.health["sound"].restarts == 0


# -- logs ----------------------------------------------------------------------------------------------------


def logged(formatter: logging.Formatter, message: str, *, failure: Exception | None = None, **extra: object) -> str:
    formatter.converter = utc_struct
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("gateway.test")
    logger.addHandler(handler)
    logger.info(message, extra=extra, exc_info=failure)
    return stream.getvalue()


def test_json_lines_carry_time_level_and_fields() -> None:
    line = json.loads(logged(JsonLines(), "event decided", event="e-1", target_w=5.5, cancelled=False, why=None))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info", "logger": "gateway.test", "message": "event decided", "event": "e-1", "target_w": 5.5,
        "cancelled": False, "why": None,
    }  # fmt: skip


def test_json_lines_failure_carries_its_traceback_and_the_text_of_an_exception() -> None:
    failure = ValueError("broken")
    line = json.loads(logged(JsonLines(), "a service failed", failure=failure, error=str(failure)))
    assert line["error"] == "broken"
    assert line["traceback"].endswith("ValueError: broken")


@given(text=st.text(max_size=2_000))
def test_json_lines_foreign_text_stays_on_one_line_and_is_bounded(text: str) -> None:
    raw = logged(JsonLines(), "a message was refused", found=text, deep=[text])
    assert len(raw.split("\n")) == 2
    line = json.loads(raw)
    assert line["found"][:500] == text[:500]
    assert len(line["found"]) <= 503
    assert len(line["deep"]) <= 503


@given(text=st.text(max_size=200))
def test_human_lines_quote_foreign_text(text: str) -> None:
    raw = logged(HumanLines(), "a message was refused", found=text)
    assert raw.count("\n") == 1
    assert all(char.isprintable() for char in raw[:-1])


# -- metrics -------------------------------------------------------------------------------------------------


def samples(count: int) -> Iterable[Sample]:
    for number in range(count):
        labels = (("reason", f"r{number}"),)
        yield Sample(name="gateway_refusals", help="Refusals.", value=number, kind="counter", labels=labels)


async def test_metrics_many_series_of_one_family_are_one_family() -> None:
    text = (await Metrics([lambda: samples(1_000)], []).text()).decode()
    lines = text.splitlines()
    assert lines[:2] == ["# HELP gateway_refusals_total Refusals.", "# TYPE gateway_refusals_total counter"]
    assert len(lines) == 1_002
    assert all(line.startswith("gateway_refusals_total{") for line in lines[2:])


async def test_metrics_same_family_from_two_sources_is_merged() -> None:
    one = Sample(name="gateway_up", help="Up.", value=1, labels=(("name", "a"),))
    two = Sample(name="gateway_up", help="Up.", value=0, labels=(("name", "b"),))
    text = (await Metrics([lambda: [one], lambda: [two]], []).text()).decode()
    assert text.count("# TYPE") == 1
    assert 'gateway_up{name="a"} 1.0\ngateway_up{name="b"} 0.0\n' in text


async def test_metrics_label_values_are_escaped() -> None:
    labels = (("reason", 'a"b\\c\nd'),)
    text = await Metrics([lambda: [Sample(name="gateway_x", help="X.", value=1, labels=labels)]], []).text()
    assert rb'gateway_x{reason="a\"b\\c\nd"} 1.0' in text


async def test_histogram_counts_are_cumulative() -> None:
    waits = Histogram(histogram("gateway_wait_seconds", "Waits.", (0.1, 1.0)))
    for seconds in (0.05, 0.1, 0.5, 7):
        waits.observe(seconds)
    text = (await registry([], [waits]).text()).decode()
    assert "gateway_build_info{" in text
    for line in (
        'gateway_wait_seconds_bucket{le="0.1"} 2.0', 'gateway_wait_seconds_bucket{le="1.0"} 3.0',
        'gateway_wait_seconds_bucket{le="+Inf"} 4.0', "gateway_wait_seconds_count 4.0", "gateway_wait_seconds_sum 7.65",
    ):  # fmt: skip
        assert line in text


async def test_loop_lag_is_measured_in_its_own_histogram() -> None:
    lag = LoopLag(ManualClock())
    async with service(lag.run):
        await until(lambda: sum(lag.histogram.counts) >= 1)
    assert lag.worst_s == 0.0


# -- checkpoints ---------------------------------------------------------------------------------------------


def fleet_of(*names: str) -> Fleet:
    fleet = Fleet()
    for name in names:
        fleet.register(home(name), FACTS)
    return fleet


async def test_checkpoint_restored_readings_keep_their_true_ages(tmp_path: Path) -> None:
    clock = ManualClock()
    fleet = fleet_of("a", "b", "c")
    homes = Homes(fleet, clock)
    homes.silent.add(2)
    homes.soc_pct[:] = (40, 50, 60)
    homes.report()
    fleet.control.authority[1] = Authority.CONTROLLED
    fleet.control.setpoint_w[1] = -1_500
    fleet.control.lease_end_mono_ms[1] = clock.mono + 90_000
    fleet.live.unclear[1] = Unclear.OPT_OUT
    clock.advance(s=30)
    recorder = Recorder(Engine(RULES), ids=fleet.ids, clock=clock)
    checkpoints = Checkpoints(tmp_path)
    spool = recorder.open_spool(tmp_path / "spool", first_record=1)
    async with spool:
        recorder.begin(RULES, clock.now())
        checkpointer = Checkpointer(
            recorder=recorder, checkpoints=checkpoints, fleet=fleet, records=silent(fleet), clock=clock
        )
        await checkpointer.write()
    assert checkpoints.stats.written == 1

    # A minute later the wall clock is wrong; devices are registered in another order, one of them new.
    later = ManualClock(utc_ms=clock.utc - 3_600_000, mono_ms=clock.mono + 60_000)
    again = fleet_of("new", "c", "b", "a")
    found = Checkpoints(tmp_path).load()
    assert found is not None
    assert load_columns(again, found, later) == 3
    age_s = (later.mono - again.live.seen_mono_ms[:4]) / 1000
    assert age_s[2:].tolist() == [90.0, 90.0]
    assert again.live.seen_mono_ms[:2].tolist() == [NEVER_MS, NEVER_MS]
    assert again.live.soc_pct[2:4].tolist() == [50.0, 40.0]
    assert np.isnan(again.live.soc_pct[:2]).all()
    assert again.live.unclear[:4].tolist() == [0, 0, Unclear.OPT_OUT, 0]
    assert (again.control.setpoint_w[2], again.control.authority[2]) == (-1_500, Authority.CONTROLLED)
    assert again.control.lease_end_mono_ms[2] == later.mono

    # The file calls columns as the release before did; as the next one will call them they are read too.
    assert {"control/held", "control/bars"} <= set(found.columns)
    assert not {"control/authority", "control/exclusions"} & set(found.columns)
    names = {"control/held": "control/authority", "control/bars": "control/exclusions"}
    next_one = replace(found, columns={names.get(name, name): column for name, column in found.columns.items()})
    same = fleet_of("new", "c", "b", "a")
    assert load_columns(same, next_one, later) == 3
    for name in ("authority", "exclusions"):
        assert same.control.column(name)[:4].tolist() == again.control.column(name)[:4].tolist()
    assert same.control.authority[2] == Authority.CONTROLLED

    # Another run of the machine, whose wall clock is behind, right, or ahead: nothing that was read is young.
    for behind_ms in (3_600_000, -60_000, -(10**9)):
        rebooted = ManualClock(utc_ms=clock.utc - behind_ms, mono_ms=5_000, boot="two")
        anew = fleet_of("a", "b", "c")
        anew.live.reconnected_mono_ms[:] = NEVER_MS
        found.columns["live/reconnected_mono_ms"][0] = clock.mono - 10_000
        assert load_columns(anew, found, rebooted) == 3
        assert anew.live.seen_mono_ms[:3].tolist() == [NEVER_MS] * 3
        assert anew.live.reconnected_mono_ms[0] <= rebooted.mono
        assert anew.live.soc_pct[:2].tolist() == [40.0, 50.0]


def test_checkpoint_of_nobody_known_restores_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    columns = fleet_columns(fleet_of("a"), clock.now(), clock.boot)
    assert {name.split("/")[0] for name in columns} == {"live", "control", "clocks"}
    assert all(len(column) == 1 for name, column in columns.items() if not name.startswith("clocks/"))


async def test_checkpoint_that_cannot_be_written_is_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, fleet = ManualClock(), fleet_of("a")
    recorder = Recorder(Engine(RULES), ids=fleet.ids, clock=clock)
    directory = tmp_path / "gone"
    directory.mkdir()
    checkpoints = Checkpoints(directory)
    async with recorder.open_spool(tmp_path / "spool", first_record=1):
        recorder.begin(RULES, clock.now())
        checkpointer = Checkpointer(
            recorder=recorder, checkpoints=checkpoints, fleet=fleet, records=silent(fleet), clock=clock
        )
        directory.rmdir()
        directory.write_text("a file where a directory should be", encoding="utf-8")
        await checkpointer.write()
        await checkpointer.write()
        assert (checkpoints.stats.written, checkpoints.stats.failures) == (0, 2)
        directory.unlink()
        directory.mkdir()
        await checkpointer.write()
    assert checkpoints.stats.written == 1
    told = [record for record in caplog.records if "checkpoint could not be written" in record.message]
    assert len(told) == 1
    assert {s.name: s.value for s in checkpointer.samples() if "checkpoint" in s.name} == {
        "gateway_checkpoints": 1,
        "gateway_checkpoint_failures": 2,
        "gateway_checkpoint_bytes": checkpoints.stats.bytes,
        "gateway_recovery_corrupt_checkpoints": 0,
    }
