"""Every published code by an input that earns it, and what passes although it looks odd."""

import pytest

from simulators.aggregator import Code, Judgement, Rules, judge
from tests.simulators.aggregator.asking import HEADER, METER, NOON_MS, OTHER_METER, line, quarters, start_ms, table

NO_ENERGY = {"energy_net_kwh": "", "energy_consumed_kwh": "", "energy_generated_kwh": ""}


def judged(content: bytes, **rules: object) -> Judgement:
    return judge(content, Rules(**({"meters": {METER}, "now_ms": NOON_MS} | rules)))  # type: ignore[arg-type]


def without(column: str) -> bytes:
    at = HEADER.split(",").index(column)
    return table(
        *(",".join(v for i, v in enumerate(row.split(",")) if i != at) for row in [line()]),
        header=",".join(name for name in HEADER.split(",") if name != column),
    )


LINES = [
    (Code.LIN_0001, None, f"{METER},2026-11-20T00:00:00Z"),
    (Code.LIN_0001, None, ""),
    (Code.MTR_0002, "meter_id", line(meter_id="device-7")),
    (Code.MTR_0002, "meter_id", line(meter_id="")),
    (Code.MTR_0002, "meter_id", line(meter_id=METER.replace("-", ""))),
    (Code.MTR_0002, "meter_id", line(meter_id=f" {METER}")),
    (Code.MTR_0003, "meter_id", line(meter_id=OTHER_METER)),
    (Code.STM_0001, "interval_start_time_utc", line(interval_start_time_utc="")),
    (Code.STM_0002, "interval_start_time_utc", line(interval_start_time_utc="5:00")),
    (Code.STM_0002, "interval_start_time_utc", line(interval_start_time_utc="2026-11-20T00:00:00")),
    (Code.STM_0002, "interval_start_time_utc", line(interval_start_time_utc="2026-11-19T16:00:00-08:00")),
    (Code.STM_0002, "interval_start_time_utc", line(interval_start_time_utc="2026-11-31T00:00:00Z")),
    (Code.ETM_0001, "interval_end_time_utc", line(interval_end_time_utc="")),
    (Code.ETM_0002, "interval_end_time_utc", line(interval_end_time_utc="1763597700")),
    (Code.GEN_0002, "energy_generated_kwh", line(energy_generated_kwh="nan")),
    (Code.GEN_0002, "energy_generated_kwh", line(energy_generated_kwh="1_0")),
    (Code.GEN_0003, "energy_generated_kwh", line(energy_net_kwh="", energy_generated_kwh="-0.25")),
    (Code.CON_0002, "energy_consumed_kwh", line(energy_consumed_kwh="5e-1")),
    (Code.CON_0002, "energy_consumed_kwh", line(energy_consumed_kwh="½")),
    (Code.CON_0003, "energy_consumed_kwh", line(energy_net_kwh="", energy_consumed_kwh="-0.5")),
    (Code.NET_0002, "energy_net_kwh", line(energy_net_kwh="inf")),
    (Code.NRG_0001, None, line(**NO_ENERGY)),
    (Code.NRG_0001, None, line(**NO_ENERGY | {"energy_generated_kwh": "0.25"})),
    (Code.NRG_0001, None, line(energy_consumed_kwh="")),
    (Code.NRG_0003, None, line(energy_net_kwh="-0.25")),
    (Code.NRG_0003, None, line(energy_net_kwh="0.2501")),
    (Code.REG_0002, "region", line(region="CAISO")),
    (Code.REG_0003, "region", line(region="ZZ")),
    (Code.FNL_0002, "final", line(final="yes")),
]
WHOLE_FILES = [
    (Code.MTR_0001, "meter_id", without("meter_id")),
    (Code.STM_0001, "interval_start_time_utc", without("interval_start_time_utc")),
    (Code.ETM_0001, "interval_end_time_utc", without("interval_end_time_utc")),
    (Code.NRG_0001, None, table(header="meter_id,interval_start_time_utc,interval_end_time_utc,energy_generated_kwh")),
    (Code.UNCATEGORISED, "final", table(header=f"{HEADER},final")),
    (Code.UNCATEGORISED, None, b"\xff\xfe" + table(line())),
]
DOUBLE = [
    ({"interval_start_time_utc": "2026-11-20T00:07:00Z"}, [Code.STM_0003, Code.DTR_0003]),
    ({"interval_start_time_utc": "2026-11-20T00:00:00.5Z"}, [Code.STM_0003, Code.DTR_0003]),
    ({"interval_end_time_utc": "2026-11-20T00:16:00Z"}, [Code.ETM_0003, Code.DTR_0003]),
    ({"interval_end_time_utc": "2026-11-20T00:30:00Z"}, [Code.DTR_0003]),
    ({"interval_end_time_utc": "2026-11-20T00:00:00Z"}, [Code.DTR_0003]),
    ({"meter_id": "x", "final": "1", "region": "ca"}, [Code.MTR_0002, Code.FNL_0002, Code.REG_0002]),
    ({"energy_generated_kwh": "-0.25"}, [Code.GEN_0003, Code.NRG_0003]),
]


@pytest.mark.parametrize(("code", "column", "bad"), LINES)
def test_csv_rules_bad_line_earns_its_code_and_the_others_stay_good(code: Code, column: str | None, bad: str) -> None:
    judgement = judged(table(line(1), bad, line(2)))
    assert [(e.line, e.code, e.column) for e in judgement.errors] == [(3, code, column)]
    assert [row.start_ms for row in judgement.rows] == [start_ms(1), start_ms(2)]


@pytest.mark.parametrize(("code", "column", "content"), WHOLE_FILES)
def test_csv_rules_bad_header_earns_its_code_once_on_its_own_line(
    code: Code, column: str | None, content: bytes
) -> None:
    judgement = judged(content)
    assert [(e.line, e.code, e.column) for e in judgement.errors] == [(1, code, column)]
    assert (judgement.rows, judgement.parsed) == ([], False)


@pytest.mark.parametrize(("values", "codes"), DOUBLE)
def test_csv_rules_line_with_several_errors_earns_each(values: dict[str, str], codes: list[Code]) -> None:
    assert [error.code for error in judged(table(line(**values))).errors] == codes


def test_csv_rules_every_published_code_has_an_input_that_earns_it() -> None:
    earned = {code for code, _, _ in LINES} | {code for code, _, _ in WHOLE_FILES}
    earned |= {code for _, codes in DOUBLE for code in codes}
    assert earned == set(Code)


def test_csv_rules_interval_that_ends_now_passes_and_one_that_runs_does_not() -> None:
    assert not judged(quarters([47])).errors
    (running,) = judged(quarters([48])).errors
    assert (running.code, running.column) == (Code.ETM_0003, "interval_end_time_utc")
    assert [error.code for error in judged(quarters([49])).errors] == [Code.STM_0003, Code.ETM_0003]


@pytest.mark.parametrize(
    "values",
    [
        {"energy_net_kwh": ""},
        {"energy_consumed_kwh": "", "energy_generated_kwh": ""},
        {"energy_net_kwh": "-.5", "energy_consumed_kwh": "0", "energy_generated_kwh": "0.5"},
        {"final": "", "region": ""},
        {"final": "false", "meter_id": METER.upper()},
        {"interval_start_time_utc": "2026-11-20T00:00:00.000+00:00"},
    ],
)
def test_csv_rules_line_of_another_right_form_passes(values: dict[str, str]) -> None:
    judgement = judged(table(line(**values)))
    assert judgement.errors == []
    assert [(row.meter, row.start_ms) for row in judgement.rows] == [(METER, start_ms(0))]


def test_csv_rules_columns_count_by_name_and_unknown_ones_and_long_lines_pass() -> None:
    header = "energy_net_kwh,note,interval_end_time_utc,meter_id,interval_start_time_utc"
    row = f"0.5,x,2026-11-20T00:15:00Z,{METER},2026-11-20T00:00:00Z,more"
    judgement = judged(table(row, header=header))
    assert judgement.errors == []
    assert judgement.rows[0][:7] == (METER, start_ms(0), 0.5, None, None, None, None)


def test_csv_rules_same_quarter_twice_passes_both() -> None:
    assert [row.line for row in judged(quarters([0, 0])).rows] == [2, 3]


def test_csv_rules_bytes_that_are_no_text_end_the_file_where_they_stand() -> None:
    judgement = judged(table(line(0)) + b"\xff" + table(line(1)))
    assert [(error.line, error.code) for error in judgement.errors] == [(3, Code.UNCATEGORISED)]
    assert [row.start_ms for row in judgement.rows] == [start_ms(0)]


def test_csv_rules_header_not_counted_lines_start_after_it() -> None:
    content = table(line(0), line(region="ZZ"))
    assert judged(content).errors[0].line == 3
    assert judged(content, header_is_line_1=False).errors[0].line == 2


def test_csv_rules_other_readings_let_their_own_pass() -> None:
    generated_less_consumed = table(line(energy_net_kwh="-0.25"))
    assert not judged(generated_less_consumed, net_is_consumed_less_generated=False).errors
    assert judged(quarters([0]), net_is_consumed_less_generated=False).errors[0].code == Code.NRG_0003
    assert not judged(table(line(energy_consumed_kwh="5e-1")), exponents=True).errors
    assert not judged(table(line(interval_start_time_utc="2026-11-20T00:00:00")), naive_times=True).errors
    assert not judged(table(line(energy_net_kwh="0.2501")), net_tolerance_kwh=0.001).errors


def test_csv_rules_file_without_lines_is_good_and_one_without_a_header_is_not() -> None:
    assert (judged(table()).errors, judged(table()).parsed) == ([], True)
    assert [error.code for error in judged(b"").errors] == [
        Code.MTR_0001, Code.STM_0001, Code.ETM_0001, Code.NRG_0001,
    ]  # fmt: skip
