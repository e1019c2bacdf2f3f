"""`gateway programs price`: a table of hours priced by a program, offline, with every figure on the way."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import config, run
from tests.programs.test_shipped import HOURS

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"
MAY = """\
date,hour_end,event_type,caiso_lmp_usd_per_mwh,net_discharge_kw
2025-05-20,20,Test Non-Capacity,50.78548,5
2025-05-20,21,Test Non-Capacity,52.0416,5
2025-05-22,20,Test Capacity,51.75706,5
2025-05-22,21,Test Capacity,52.50963,5
2025-05-28,19,Test Capacity,53.47496,4.8
2025-05-28,20,Test Capacity,55.05001,4.6
2025-05-29,20,Test Capacity,61.67823,5
2025-05-29,21,Test Capacity,60.87,
"""


@pytest.fixture
def may(tmp_path: Path) -> Path:
    file = tmp_path / "may.csv"
    file.write_text(MAY, encoding="utf-8")
    return file


def price(hours: Path, *options: str, program: str = "dsgs-option3", on: str = "2025-05-31") -> Any:
    return run(
        "programs", "price", "--program", program, "--on", on, "--hours", str(hours), "--dir", str(PROGRAMS), *options
    )


def priced(hours: Path, *options: str) -> dict[str, Any]:
    result = price(hours, *options, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def test_may_2025_is_priced_with_every_figure_on_the_way(may: Path) -> None:
    told = priced(may, "--nominal-kw", "5")
    (month,) = told["periods"]
    assert (told["total"], told["currency"], told["baseline_kw"]) == ("30.32", "USD", "0.539495")
    assert (month["period"], month["quantity"], month["pay"], month["status"]) == (
        "2025-05", "3.455361", "30.32", "computed",
    )  # fmt: skip
    assert (month["hours_counted"], month["hours_missing"], month["weight_sum"]) == (6, 1, "335.33989")
    assert month["rate"]["amount_with_factors"] == "8.775"
    assert abs(Decimal(month["weighted_sum"]) / Decimal(month["weight_sum"]) - Decimal(month["quantity"])) < Decimal(
        "1e-6"
    )
    uncounted, missing = month["hours"][0], month["hours"][-1]
    assert (uncounted["counted"], uncounted["weight"]) == (False, "0")
    assert (missing["missing"], missing["net_discharge_kw"], missing["performance_kw"]) == (True, None, "-0.539495")
    assert missing["begins"] == "2025-05-30T03:00:00Z"
    unverified = {one["path"]: one["evidence"] for one in told["rests_on_unverified"]}
    assert unverified["factors.budget-share"] == "unverified"


def test_no_baseline_and_a_given_one(may: Path) -> None:
    assert priced(may, "--no-baseline")["total"] == "35.05"
    assert priced(may, "--no-baseline", "--nominal-kw", "5")["total"] == "35.05"
    both = priced(may, "--nominal-kw", "5", "--baseline-kw", "0")
    assert (both["total"], both["baseline_from"]) == ("35.05", "given")


def test_the_months_of_2025_at_one_figure_for_every_hour_are_the_rates(tmp_path: Path) -> None:
    told = priced(HOURS, "--net-discharge-kw", "1", "--no-baseline")
    assert [one["pay_exact"] for one in told["periods"]] == ["8.775", "9.074", "16.38", "17.55", "18.72", "10.244"]
    assert [one["hours_counted"] for one in told["periods"]] == [6, 12, 8, 10, 14, 10]
    second = tmp_path / "battery.csv"
    second.write_text("date,hour_end,net_discharge_kw\n2025-05-22,20,5\n", encoding="utf-8")
    assert priced(HOURS, "--discharge", str(second), "--no-baseline")["periods"][0]["hours_missing"] == 5


def test_a_missing_price_is_shown_as_a_range(may: Path) -> None:
    may.write_text(MAY.replace("61.67823", ""), encoding="utf-8")
    told = priced(may, "--nominal-kw", "5")
    (month,) = told["periods"]
    assert (month["status"], month["pay"], told["total"]) == ("provisional (price missing)", None, None)
    assert Decimal(month["pay_low"]) < Decimal(month["pay_high"])
    assert "between" in price(may, "--nominal-kw", "5").output


def test_the_text_says_what_is_not_verified(may: Path) -> None:
    shown = price(may, "--nominal-kw", "5").output
    assert "total: 30.32 USD" in shown
    assert "not verified: rates.may (reported, backtest)" in shown


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "a share of nominal power"),
        (("--no-baseline", "--baseline-kw", "1"), "said to have none"),
        (("--nominal-kw", "5", "--net-discharge-kw", "5"), "more than one way"),
        (("--nominal-kw", "five"), "--nominal-kw: a number is needed"),
        (("--nominal-kw", "-5"), "--nominal-kw: not below 0"),
        (("--nominal-kw", "nan"), "--nominal-kw: a number is needed"),
        (("--nominal-kw", "5", "--rate-class", "4h"), "no rate is of the class '4h': there are 2h"),
        (("--nominal-kw", "5", "--discharge", "nowhere.csv"), "nowhere.csv: cannot be read"),
        (("--nominal-kw", "5", "--enrolled", "May"), "--enrolled: a day is written"),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(may: Path, options: tuple[str, ...], why: str) -> None:
    result = price(may, *options)
    assert (result.exit_code, why in result.output) == (2, True), result.output


def test_a_program_a_day_and_a_file_that_are_not_there_are_refused(may: Path) -> None:
    for result, why in (
        (price(may, program="nobody"), "nobody: no such program"),
        (price(may, on="2025-12-31"), "no version is in force on 2025-12-31"),
        (price(may, "--nominal-kw", "5", on="2026-07-01"), "2025-05-20 is outside version 2026"),
        (price(may.with_name("none.csv"), "--nominal-kw", "5"), "none.csv: cannot be read"),
        (price(may, program="tou-daily", on="2026-07-01"), "what it pays is not worked out from hours"),
    ):
        assert (result.exit_code, why in result.output) == (2, True), result.output
    may.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in price(may, "--nominal-kw", "5").output


def test_a_column_that_nobody_reads_is_warned_of(may: Path) -> None:
    may.write_text(
        MAY.replace("event_type", "event_type,region", 1).replace("Capacity,", "Capacity,x,"), encoding="utf-8"
    )
    result = price(may, "--nominal-kw", "5")
    assert (result.exit_code, "columns that nobody reads: region" in result.output) == (0, True)


def imported(tmp_path: Path, text: str = MAY) -> str:
    """A configuration whose state directory has official hours and prices of May in one area."""
    table = tmp_path / "official.csv"
    table.write_text(text, encoding="utf-8")
    file = config(tmp_path, programs_dir=str(PROGRAMS), state_dir=str(tmp_path / "state"))
    of = ("--program", "dsgs-option3", "--config", file, "--area", "north", "--source", "a page")
    assert run("calendar", "import", str(table), *of, "--announced-by", "administrator").exit_code == 0
    assert run("prices", "import", str(table), *of).exit_code == 0
    return file


def test_stored_hours_of_a_month_are_priced_as_their_table_is(may: Path, tmp_path: Path) -> None:
    stored = ("--stored", "--config", imported(tmp_path), "--area", "north", "--discharge", str(may))
    result = run(
        "programs", "price", "--program", "dsgs-option3", "--on", "2025-05-31", *stored, "--nominal-kw", "5",
        "--dir", str(PROGRAMS), "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told, by_table = json.loads(result.stdout), priced(may, "--nominal-kw", "5")
    assert told == by_table
    assert told["total"] == "30.32"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--stored",), "give --hours, or --stored with --config and --area"),
        (("--stored", "--config", "{config}", "--area", "north"), "net_discharge_kw: give a second file"),
        (
            ("--stored", "--config", "{config}", "--area", "south", "--net-discharge-kw", "5"),
            "dsgs-option3, south: no official hour of 2025-05 is stored",
        ),
        (("--stored", "--config", "{config}", "--area", "north", "--hours", "{config}"), "give --hours, or --stored"),
        ((), "give --hours, or --stored"),
    ],
)
def test_what_stored_hours_lack_is_said(options: tuple[str, ...], fault: str, tmp_path: Path) -> None:
    file = imported(tmp_path)
    result = run(
        "programs", "price", "--program", "dsgs-option3", "--on", "2025-05-31", "--dir", str(PROGRAMS), "--no-baseline",
        *(one.format(config=file) for one in options),
    )  # fmt: skip
    assert result.exit_code == 2
    assert fault in result.output
