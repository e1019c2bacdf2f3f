"""The job of daily columns: when days are written, what late data changes, and what a kill leaves."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import StorageError
from gateway.domain.programs.day_builder import SiteStay
from gateway.domain.programs.site_day import DayFrame, SiteChannel, SiteDays
from gateway.domain.programs.terms import DATA_DUE, DueRule, ProgramTerms, TermsVersion
from gateway.domain.rules.calendar import HOUR_MS
from gateway.domain.rules.rates import DateRange
from gateway.domain.rules.values import Certainty
from gateway.services.programs.daily_columns import DailyColumnsJob, StoredDays
from gateway.services.programs.frames import ProgramFrames
from gateway.services.settings import ProgramSettings
from gateway.storage.programs.daily import DailyColumns
from tests.builders.site_days import JULY, PACIFIC, logged, measured, placed, whole_day

NEXT = JULY + timedelta(days=1)
FROM_MS, UNTIL_MS = PACIFIC.span(JULY)
TERMS = ProgramTerms(
    zone=PACIFIC.zone, versions=(TermsVersion(name="one", days=DateRange(), interval_s=900, point="battery_ac"),)
)
FRAMES = ProgramFrames(terms={"dsgs": TERMS}, late_s=21_600.0)


def job(state_dir: Path, *, frames: ProgramFrames = FRAMES, keep_days: int = 400, **other: object) -> DailyColumnsJob:
    return DailyColumnsJob(state_dir, frames=frames, programs=("dsgs",), keep_days=keep_days, **other)  # type: ignore[arg-type]


def settled(one: DailyColumnsJob, now_ms: int) -> None:
    """Steps until there is nothing left to do."""
    for _ in range(200):
        if not one.step(now_ms).more:
            return
    raise AssertionError("it does not come to an end")


def stored(state_dir: Path, day: date = JULY, frame: DayFrame = PACIFIC) -> SiteDays | None:
    with DailyColumns(state_dir) as store:
        return next(store.days(frame, [day]), None)


async def history(state_dir: Path, devices: Sequence[str] = ("a",)) -> ManualClock:
    """A gateway that has run since two days before `JULY`; its records end with `NEXT`."""
    clock = ManualClock(utc_ms=FROM_MS - 48 * HOUR_MS)
    await placed(state_dir, [(device, f"site-{device}") for device in devices], clock)
    for number, day in enumerate((JULY - timedelta(days=1), JULY, NEXT), 1):
        clock.utc = PACIFIC.span(day)[1]
        rows = [row for device in devices for row in whole_day(device, day, discharge_wh=10.0, grid_w=-120.0)]
        await logged(state_dir, rows, clock, number=number)
    return clock


async def test_a_day_is_written_when_its_lateness_limit_has_passed(tmp_path: Path) -> None:
    await history(tmp_path)
    one = job(tmp_path)
    settled(one, UNTIL_MS + 6 * HOUR_MS - 1)
    assert stored(tmp_path) is None
    settled(one, UNTIL_MS + 6 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.sites == ("site-a",)
    assert found.totals_wh()[:, 0].tolist() == [0, 2880, 0, 2880]
    assert stored(tmp_path, NEXT) is None


async def test_a_day_that_is_not_complete_is_written_all_the_same(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=FROM_MS - 1)
    await placed(tmp_path, [("a", "site-a"), ("b", "site-b")], clock)
    clock.utc = UNTIL_MS
    await logged(tmp_path, [measured("a", FROM_MS + at * 300_000, discharge_wh=5.0) for at in range(3)], clock)
    settled(job(tmp_path), UNTIL_MS + 6 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.sites == ("site-a", "site-b")
    assert found.known[SiteChannel.DISCHARGE].sum(axis=1).tolist() == [1, 0]
    assert found.owed.all()


async def test_late_data_makes_a_new_version_of_that_site_alone_and_the_old_one_stays(tmp_path: Path) -> None:
    clock = await history(tmp_path, ("a", "b"))
    one = job(tmp_path)
    settled(one, UNTIL_MS + 30 * HOUR_MS)
    with DailyColumns(tmp_path) as store:
        before = store.size()[0]
    await logged(tmp_path, [measured("b", FROM_MS, discharge_wh=70.0, revision=2)], clock, number=9)
    settled(one, UNTIL_MS + 31 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.versions == (1, 2)
    assert found.energy_wh[SiteChannel.DISCHARGE, :, 0].tolist() == [30, 90]
    assert found.basis(1)[0].runs["revision"].tolist() == [2, 1]
    with DailyColumns(tmp_path) as store:
        (first,) = store.days(PACIFIC, [JULY], as_of_ms=UNTIL_MS + 30 * HOUR_MS)
        assert first.energy_wh[SiteChannel.DISCHARGE, :, 0].tolist() == [30, 30]
        assert store.size()[0] == before + 1


async def test_late_data_that_came_while_nobody_ran_is_found_by_the_next_run(tmp_path: Path) -> None:
    clock = await history(tmp_path)
    settled(job(tmp_path), UNTIL_MS + 30 * HOUR_MS)
    await logged(tmp_path, [measured("a", FROM_MS, discharge_wh=70.0, revision=2)], clock, number=9)
    settled(job(tmp_path), UNTIL_MS + 40 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.versions == (2,)


class Broken(StoredDays):
    """Stops at the `left`th day it makes, as a kill would."""

    left = 0

    def built(self, frame: DayFrame, day: date, stays: Sequence[SiteStay]) -> SiteDays:
        if self.left == 0:
            raise StorageError("killed")
        self.left -= 1
        return super().built(frame, day, stays)


@pytest.mark.parametrize("after", range(4))
async def test_a_run_that_is_cut_off_anywhere_leaves_what_the_next_one_completes_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr("gateway.services.programs.daily_columns.DEVICES", 1)
    clock = await history(tmp_path, ("a", "b"))
    monkeypatch.setattr(Broken, "left", after)
    with pytest.raises(StorageError, match="killed"):
        settled(job(tmp_path, stored=Broken), UNTIL_MS + 30 * HOUR_MS)
    settled(job(tmp_path), UNTIL_MS + 31 * HOUR_MS)
    assert [day and day.versions for day in (stored(tmp_path), stored(tmp_path, NEXT))] == [(1, 1), (1, 1)]
    # late data whose new version was not made yet
    await logged(tmp_path, [measured("a", FROM_MS, discharge_wh=70.0, revision=2)], clock, number=9)
    monkeypatch.setattr(Broken, "left", 0)
    with pytest.raises(StorageError, match="killed"):
        settled(job(tmp_path, stored=Broken), UNTIL_MS + 32 * HOUR_MS)
    settled(job(tmp_path), UNTIL_MS + 33 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.versions == (2, 1)


async def test_a_device_that_moves_is_at_both_sites_of_that_day(tmp_path: Path) -> None:
    clock = await history(tmp_path)
    clock.utc = FROM_MS + 10 * HOUR_MS
    await placed(tmp_path, [("a", "other")], clock)
    settled(job(tmp_path), UNTIL_MS + 6 * HOUR_MS)
    found = stored(tmp_path)
    assert found is not None
    assert found.sites == ("other", "site-a")
    assert found.totals_wh()[SiteChannel.DISCHARGE].tolist() == [14 * 120, 10 * 120]


async def test_programs_of_one_zone_and_interval_share_their_days(tmp_path: Path) -> None:
    await history(tmp_path)
    frames = ProgramFrames(
        terms={"dsgs": TERMS, "other": TERMS, "eastern": ProgramTerms(zone="America/New_York")}, length_s=3600
    )
    one = DailyColumnsJob(tmp_path, frames=frames, programs=("dsgs", "eastern", "other"), keep_days=400)
    settled(one, UNTIL_MS + 30 * HOUR_MS)
    with DailyColumns(tmp_path) as store:
        assert sorted(store.frames()) == [PACIFIC, DayFrame(zone="America/New_York", length_s=3600)]


async def test_a_program_whose_days_cannot_be_divided_is_said_and_the_others_are_written(tmp_path: Path) -> None:
    await history(tmp_path)
    frames = ProgramFrames(terms={"dsgs": TERMS, "odd": ProgramTerms(zone="Australia/Adelaide")}, length_s=3600)
    one = DailyColumnsJob(tmp_path, frames=frames, programs=("dsgs", "odd"), keep_days=400)
    told = one.step(UNTIL_MS + 30 * HOUR_MS)
    assert told.problems[0].startswith("program odd: Australia/Adelaide: midnight cuts an interval of 3600 s")
    settled(one, UNTIL_MS + 30 * HOUR_MS)
    assert stored(tmp_path) is not None


async def test_days_beyond_those_that_are_kept_go_and_do_not_come_back(tmp_path: Path) -> None:
    await history(tmp_path)
    one = job(tmp_path, keep_days=32)
    settled(one, UNTIL_MS + 30 * HOUR_MS)
    settled(one, UNTIL_MS + 32 * 24 * HOUR_MS)
    assert stored(tmp_path) is None
    assert stored(tmp_path, NEXT) is not None


async def test_a_day_whose_records_have_gone_from_the_log_is_not_made_of_what_is_left(tmp_path: Path) -> None:
    clock = await history(tmp_path)
    one = job(tmp_path)
    settled(one, UNTIL_MS + 30 * HOUR_MS)
    # the file that is left begins within the second day
    late = [measured("a", PACIFIC.span(day)[0], discharge_wh=70.0, revision=2) for day in (JULY, NEXT)]
    await logged(tmp_path, late, clock, number=9)
    for path in sorted((tmp_path / "intervals").glob("0*"))[:-1]:
        path.unlink()
    settled(one, UNTIL_MS + 73 * HOUR_MS)
    settled(job(tmp_path), UNTIL_MS + 74 * HOUR_MS)
    assert [day and day.versions for day in (stored(tmp_path), stored(tmp_path, NEXT))] == [(1,), (1,)]


def test_a_day_waits_no_longer_than_until_its_data_is_due() -> None:
    def due(days: int, by_min: int) -> ProgramFrames:
        rule = DueRule(what=DATA_DUE, per="day", days=days, by_min=by_min, certainty=Certainty.REPORTED)
        version = TermsVersion(name="one", days=DateRange(), due=(rule,))
        return ProgramFrames(terms={"p": ProgramTerms(zone=PACIFIC.zone, versions=(version,))}, late_s=21_600.0)

    assert due(1, 120).limit_ms("p", JULY) == UNTIL_MS + 2 * HOUR_MS
    assert due(2, 0).limit_ms("p", JULY) == UNTIL_MS + 6 * HOUR_MS
    assert due(0, 60).limit_ms("p", JULY) == UNTIL_MS + 6 * HOUR_MS


def test_an_interval_is_what_the_programs_file_says_else_the_configuration() -> None:
    frames = ProgramFrames(
        terms={"file": TERMS, "set": ProgramTerms()},
        settings={"set": ProgramSettings(interval_length_s=1800, time_zone="UTC"), "bare": ProgramSettings()},
        length_s=300,
    )
    assert [frames.frame(name, JULY).length_s for name in ("file", "set", "bare")] == [900, 1800, 300]
