"""A month without an official hour that counts by its 20th: the metric, the warning, and what is due."""

from datetime import date
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.domain.rules.calendar import HOUR_MS, local_ms
from gateway.programs.loader import load_program
from gateway.services.programs.official_watch import OFFICIAL_HOUR, OfficialHourWatch
from gateway.storage.programs.series import ProgramSeries, SeriesImport, SeriesKey

DSGS = load_program(Path(__file__).parents[3] / "config" / "programs" / "dsgs-option3.yaml").program
NAME = DSGS.id
DAY_MS = 24 * HOUR_MS


def at(month: int, day: int) -> int:
    return local_ms(DSGS.zone, date(2026, month, day), 12 * 60)


def watch(state_dir: Path, now_ms: int, *concerned: str) -> OfficialHourWatch:
    clock = ManualClock(utc_ms=now_ms)
    return OfficialHourWatch(state_dir, programs={NAME: DSGS}, concerned=lambda: concerned or (NAME,), clock=clock)


def official(state_dir: Path, area: str, *starts_ms: int, kind: str = "Capacity") -> None:
    about = SeriesImport(source="administrator", who="test", now_ms=0)
    rows = [(start_ms, kind, "administrator") for start_ms in starts_ms]
    ProgramSeries(state_dir).add_hours(SeriesKey(program=NAME, area=area), rows, about)


def undecided(one: OfficialHourWatch) -> dict[str, float]:
    return {dict(sample.labels)["program"]: sample.value for sample in one.samples()}


@pytest.mark.parametrize(("day", "months"), [(19, 0), (20, 1)])
async def test_a_month_is_alarmed_from_its_20th_on(tmp_path: Path, day: int, months: int) -> None:
    one = watch(tmp_path, at(5, day))
    await one.look()
    assert undecided(one) == {NAME: months}
    assert len(one.warnings()) == months
    (due,) = one.due(at(5, 19) + 40 * DAY_MS)
    assert (due.what, due.program, due.period, due.local.isoformat()) == (
        OFFICIAL_HOUR, NAME, "2026-05", "2026-05-20T00:00:00-07:00",
    )  # fmt: skip


async def test_an_hour_that_counts_decides_its_month_in_its_area_alone(tmp_path: Path) -> None:
    official(tmp_path, "north", at(5, 7))
    official(tmp_path, "south", at(5, 7), kind="Energy-Only")
    one = watch(tmp_path, at(5, 25))
    await one.look()
    assert one.warnings() == [f"{NAME}: 2026-05 is past its 20th and has no official hour that counts in south"]
    official(tmp_path, "south", at(5, 7), kind="Test Capacity")
    await one.look()
    assert (one.warnings(), undecided(one), one.due(at(6, 25))) == ([], {NAME: 0}, [])


async def test_a_program_that_nobody_is_in_is_not_watched(tmp_path: Path) -> None:
    one = watch(tmp_path, at(5, 25), "another")
    await one.look()
    assert (one.warnings(), undecided(one)) == ([], {})


async def test_a_file_that_cannot_be_read_is_said_and_the_last_look_stands(tmp_path: Path) -> None:
    one = watch(tmp_path, at(5, 25))
    await one.look()
    (tmp_path / "programs.sqlite").write_bytes(b"no database " * 100)
    await one.look()
    assert undecided(one) == {NAME: 1}
    assert "cannot be read" in one.warnings()[0]
