"""Asking the aggregator what it lacks."""

from pathlib import Path

import pytest

from gateway.ports.sinks import Keep, MissingInterval, Stop
from gateway.sinks.leap import missing
from simulators.aggregator import (
    Mischief,
    Operation,
    Pace,
    SearchNames,
    Wait,
    WindowRule,
    answer,
)
from tests.builders.interval_logs import T0, quarter
from tests.builders.leap import NOW_MS, meter_id
from tests.scenes.leap import QUARTER_MS, Rig, rig

TO = T0 + 4 * QUARTER_MS


async def lacking(r: Rig) -> list[tuple[str | None, int, int]]:
    """Device, first and last quarter (excluded) of what is missing in the first hour."""
    found = await r.sink.missing(T0, TO)
    assert isinstance(found, list)
    return [(lack.device, (lack.start_ms - T0) // QUARTER_MS, (lack.end_ms - T0) // QUARTER_MS) for lack in found]


async def test_leap_missing_is_asked_page_by_page_and_told_by_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing, "PAGE_SIZE", 2)
    async with rig(tmp_path) as r:
        await r.send(*(quarter(home, index=i) for home in (1, 2) for i in range(4) if (home, i) != (2, 2)))
        other = meter_id(9)
        r.aggregator.intervals.meters[other] = r.aggregator.intervals.meters[meter_id(1)]
        r.aggregator.intervals.points.deadline_s = 86_400
        found = await lacking(r)
        assert found == [("home-2", 2, 3), ("home-3", 0, 4), ("home-4", 0, 4), ("home-5", 0, 4), (None, 0, 4)]
        assert r.asked(Operation.MISSING) > 1
        everything = await r.sink.missing(T0, TO)
        assert isinstance(everything, list)
        midnight = T0 - T0 % 86_400_000 + 86_400_000
        assert everything[-1] == MissingInterval(
            device=None, meter_id=other, start_ms=T0, end_ms=TO, status="OPEN", data_type="LOAD_DATA",
            deadline_ms=midnight + 86_400_000,
        )  # fmt: skip


@pytest.mark.parametrize("window", list(WindowRule))
@pytest.mark.parametrize("outside", [False, True])
async def test_leap_missing_is_cut_to_what_was_asked_for(tmp_path: Path, window: WindowRule, outside: bool) -> None:
    """An entry may be longer than the window, and lie outside it where the aggregator does not know our names."""
    async with rig(tmp_path, homes=(1,)) as r:
        r.aggregator.intervals.points.window = window
        r.aggregator.mischief.outside_window = outside
        found = await lacking(r)
        if window is not WindowRule.START or outside:
            assert found == [("home-1", 0, 4)]


@pytest.mark.parametrize("known", list(SearchNames))
@pytest.mark.parametrize("sent", ["schema", "example"])
async def test_leap_missing_names_are_the_configured_ones_and_the_answer_is_cut_if_they_are_not_known(
    tmp_path: Path, known: SearchNames, sent: str
) -> None:
    async with rig(tmp_path, homes=(1, 2), missing_names=sent) as r:
        r.aggregator.intervals.points.search_names = known
        assert await lacking(r) == [("home-1", 0, 4), ("home-2", 0, 4)]
        (seen, *_) = r.aggregator.asked(Operation.MISSING)
        prefix = "missing_interval_window_" if sent == "schema" else ""
        assert f"{prefix}start_date_time_utc" in seen.json()
        assert (seen.unknown == []) is (sent == "schema")


async def test_leap_missing_without_what_no_field_must_have_is_missing_all_the_same(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1,)) as r:
        r.aggregator.mischief.sparse_missing = True
        assert await lacking(r) == [("home-1", 0, 4)]


async def test_leap_missing_that_is_being_processed_is_told_so(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1,), job_timeout_s=3) as r:
        r.aggregator.intervals.pace = Pace(queued=Wait(looks=None, s=None))
        assert isinstance(await r.send(quarter(1)), Keep)
        found = await r.sink.missing(T0, TO)
        assert isinstance(found, list)
        assert [lack.status for lack in found] == ["PROCESSING", "OPEN"]


async def test_leap_missing_with_unknown_fields_and_states_is_understood(tmp_path: Path) -> None:
    async with rig(tmp_path, homes=(1,)) as r:
        for name in Mischief.__dataclass_fields__:
            if name not in ("old_error_items", "outside_window"):
                setattr(r.aggregator.mischief, name, True)
        assert ("home-1", 0, 4) in await lacking(r)


async def test_leap_missing_trouble_and_pages_without_end_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as r:
        r.aggregator.script(
            Operation.MISSING, answer(429, Retry_After="9"), answer(200, b"{}"), answer(403), answer(400, b"bad")
        )
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="http_429", after_s=9.0)
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="reply_malformed")
        assert await r.sink.missing(T0, NOW_MS) == Stop(reason="http_403", retry_s=3600.0)
        assert await r.sink.missing(T0, NOW_MS) == Stop(reason="http_400", detail="bad")
        monkeypatch.setattr(missing, "PAGES_MAX", 3)
        endless = answer(200, b'{"missing_intervals": [], "next_page_token": "x"}')
        r.aggregator.script(Operation.MISSING, endless, endless, endless)
        assert await r.sink.missing(T0, NOW_MS) == Keep(reason="too_many_pages")
