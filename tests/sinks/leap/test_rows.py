"""The aggregator's CSV: what is written, and that our check says the same as one written by somebody else."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.sinks.leap.rows import CODES, LeapMeter, render, validate
from simulators.aggregator import Rules, judge
from tests.builders.interval_logs import quarter
from tests.builders.leap import METERS, NOW_MS, meter_id

KNOWN = frozenset(meter.id for meter in METERS.values())
A, B = meter_id(1), meter_id(2)
HEADER = "meter_id,interval_start_time_utc,interval_end_time_utc,energy_generated_kwh,energy_consumed_kwh"
FULL = f"{HEADER},energy_net_kwh,region,final"
FINE = f"{A},2027-01-15T08:00:00Z,2027-01-15T08:15:00Z,0.25,0.5"
Found = list[tuple[int, str, str]]


def file(*lines: str, header: str = HEADER, end: str = "\n") -> bytes:
    return "".join(line + end for line in (header, *lines)).encode()


def ours(body: bytes, *, fast: bool = True) -> Found:
    faults = validate(body, meters=KNOWN, now_ms=NOW_MS, fast=fast)
    return [(fault.line, fault.column, fault.code) for fault in faults]


def theirs(body: bytes) -> Found:
    """What the stand-in's rules say, which were written from the published contract by somebody else. They know no sign
    of net energy here, and let a repetition and an unknown column pass."""
    rules = Rules(meters=KNOWN, now_ms=NOW_MS, net_tolerance_kwh=1e9)
    return [(error.line, error.column or "", error.code) for error in judge(body, rules).errors]


def row(**change: str) -> str:
    """A line under `FULL`, right but for what is changed."""
    fields = {
        "meter": A, "start": "2027-01-15T08:00:00Z", "end": "2027-01-15T08:15:00Z", "generated": "0.25",
        "consumed": "0.5", "net": "", "region": "CA", "final": "true",
    }  # fmt: skip
    return ",".join((fields | change).values())


def codes(found: Found) -> list[str]:
    return [code for _, _, code in found]


def test_render_writes_sorted_lines_with_discharge_as_generated() -> None:
    rows = [
        quarter(2, discharge_wh=0.0, charge_wh=1234.5678904),
        quarter(1, index=1, discharge_wh=-0.0, charge_wh=0.1 + 0.2),
        quarter(1, discharge_wh=250.0, charge_wh=0.0004),
    ]
    document = render(rows, range(3), METERS)
    assert document.body().decode().split("\n") == [
        HEADER,
        f"{A},2027-01-15T08:00:00Z,2027-01-15T08:15:00Z,0.250000,0.000000",
        f"{A},2027-01-15T08:15:00Z,2027-01-15T08:30:00Z,0.000000,0.000300",
        f"{B},2027-01-15T08:00:00Z,2027-01-15T08:15:00Z,0.000000,1.234568",
        "",
    ]
    assert document.positions == [2, 1, 0]


def test_render_unknown_energy_is_empty_and_never_zero() -> None:
    document = render([quarter(1, charge_wh=None)], [0], METERS)
    assert document.lines[0].endswith(",0.250000,")
    assert ours(document.body()) == [(2, "", "NRG_0001")]


def test_render_region_and_final_are_columns_only_where_they_are_told() -> None:
    meters = {DeviceId("home-1"): LeapMeter(id=A, region="CA"), DeviceId("home-2"): LeapMeter(id=B)}
    document = render([quarter(1), quarter(2)], [0, 1], meters, final=True)
    assert document.header == f"{HEADER},region,final"
    assert [line.split(",")[5:] for line in document.lines] == [["CA", "true"], ["", "true"]]
    assert ours(document.body()) == []


def test_document_without_rows_names_the_rest_by_their_position() -> None:
    document = render([quarter(3), quarter(1), quarter(2)], [0, 1, 2], METERS)
    rest = document.without({2})
    assert rest.positions == [1, 0]
    assert rest.body() == render([quarter(3), quarter(1)], [0, 1], METERS).body()


records = st.builds(
    quarter,
    st.integers(1, 4),
    index=st.integers(0, 40),
    charge_wh=st.floats(0, 1e6),
    discharge_wh=st.floats(0, 1e6),
)


@given(rows=st.lists(records, max_size=12, unique_by=lambda r: (r.device, r.start_ms)), seed=st.integers(0, 99))
def test_render_same_rows_in_any_order_are_the_same_bytes_and_pass_both_checks(
    rows: list[IntervalRecord], seed: int
) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    body = render(rows, range(len(rows)), METERS).body()
    assert render(shuffled, range(len(rows)), METERS).body() == body
    assert ours(body) == theirs(body) == []
    taken = judge(body, Rules(meters=KNOWN, now_ms=NOW_MS)).rows
    told = {(found.meter, found.start_ms): found.consumed_kwh for found in taken}
    for record in rows:
        assert record.charge_wh is not None
        assert float(told[METERS[record.device].id, record.start_ms] or 0) == pytest.approx(
            record.charge_wh / 1000, abs=5.1e-7
        )


CASES: Sequence[tuple[str, dict[str, str]]] = [
    ("MTR_0002", {"meter": ""}),
    ("MTR_0002", {"meter": "meter-7"}),
    ("MTR_0003", {"meter": meter_id(99)}),
    ("STM_0001", {"start": ""}),
    ("STM_0002", {"start": "2027-01-15 08:00:00Z"}),
    ("STM_0002", {"start": "2027-02-30T08:00:00Z"}),
    ("STM_0002", {"start": "2027-01-15T08:00:00+00:00"}),
    ("STM_0003 ETM_0003", {"start": "2027-01-15T08:01:00Z", "end": "2027-01-15T08:16:00Z"}),
    ("STM_0003 DTR_0003", {"start": "2027-01-15T08:01:00Z"}),
    ("ETM_0001", {"end": ""}),
    ("ETM_0002", {"end": "2027-01-15T24:00:00Z"}),
    ("ETM_0003", {"start": "2027-01-19T08:00:00Z", "end": "2027-01-19T08:15:00Z"}),
    ("STM_0003 ETM_0003", {"start": "2027-01-20T00:00:00Z", "end": "2027-01-20T00:15:00Z"}),
    ("ETM_0003 DTR_0003", {"end": "2027-01-15T08:14:00Z"}),
    ("DTR_0003", {"end": "2027-01-15T08:30:00Z"}),
    ("DTR_0003", {"end": "2027-01-15T08:00:00Z"}),
    ("GEN_0002", {"generated": "1e3"}),
    ("GEN_0002", {"generated": "nan"}),
    ("GEN_0002", {"generated": " 1"}),
    ("GEN_0002", {"generated": "."}),
    ("GEN_0003", {"generated": "-0.000001"}),
    ("CON_0002", {"consumed": "0,5".replace(",", "·")}),
    ("CON_0002", {"consumed": "٣"}),
    ("CON_0003", {"consumed": "-1"}),
    ("NET_0002", {"net": "--1"}),
    ("NRG_0001", {"generated": "", "consumed": ""}),
    ("NRG_0001", {"consumed": ""}),
    ("NRG_0003", {"net": "0.3"}),
    ("REG_0002", {"region": "California"}),
    ("REG_0003", {"region": "ZZ"}),
    ("FNL_0002", {"final": "yes"}),
]


@pytest.mark.parametrize(("code", "change"), CASES)
def test_validate_says_the_code_and_a_line_beside_it_is_none_the_worse(code: str, change: dict[str, str]) -> None:
    body = file(row(meter=B), row(**change), row(meter=meter_id(3)), header=FULL)
    faults = validate(body, meters=KNOWN, now_ms=NOW_MS)
    assert [(fault.line, fault.code, fault.message) for fault in faults] == [
        (3, one, CODES[one]) for one in code.split()
    ]
    if code == "NRG_0003" or change == {"start": "2027-01-15T08:00:00+00:00"}:
        return  # the sign of net is not known, and another way to write UTC is not ours
    assert [(line, found) for line, _, found in theirs(body)] == [(3, one) for one in code.split()]


@pytest.mark.parametrize(("code", "change"), [case for case in CASES if "net" not in case[1]])
def test_validate_says_the_same_where_most_lines_are_looked_at_briefly(code: str, change: dict[str, str]) -> None:
    lines = [line.split(",") for line in (row(meter=B), row(**change), row(meter=meter_id(3)))]
    for fields in lines:
        del fields[5]
    body = file(*(",".join(fields) for fields in lines), header=f"{HEADER},region,final")
    assert [(line, found) for line, _, found in ours(body)] == [(3, one) for one in code.split()]
    assert ours(body, fast=False) == ours(body)


def test_validate_meter_that_would_need_quotes_is_never_named_by_a_line() -> None:
    odd = '"m"'
    body = file(FINE, FINE.replace(A, odd), FINE.replace(A, f'"{A[:-1]}"'))
    for fast in (True, False):
        faults = validate(body, meters={A, odd}, now_ms=NOW_MS, fast=fast)
        assert [(fault.line, fault.code) for fault in faults] == [(3, "MTR_0002"), (4, "MTR_0002")]


@pytest.mark.parametrize(
    "change",
    [
        {"net": "0.25"}, {"net": "-0.25"}, {"net": "-0.2500010"}, {"generated": "", "consumed": "", "net": "-3"},
        {"generated": "-0.0"}, {"generated": ".25", "consumed": "7."}, {"region": "", "final": ""}, {"final": "false"},
        {"start": "2027-01-15T23:45:00Z", "end": "2027-01-16T00:00:00Z"}, {"meter": f'"{A}"'},
    ],
)  # fmt: skip
def test_validate_lets_through_what_is_allowed(change: dict[str, str]) -> None:
    body = file(row(**change), header=FULL)
    assert ours(body) == theirs(body) == []


def test_every_code_is_raised_by_a_case() -> None:
    by_case = {one for code, _ in CASES for one in code.split()}
    assert by_case | {"LIN_0001", "MTR_0001", "REPEATED"} == set(CODES)


def test_validate_interval_that_ends_now_is_not_in_the_future() -> None:
    body = file(FINE)
    end_ms = quarter(1).start_ms + 900_000
    assert validate(body, meters=KNOWN, now_ms=end_ms) == []
    assert [fault.code for fault in validate(body, meters=KNOWN, now_ms=end_ms - 1)] == ["ETM_0003"]


def test_validate_tells_all_that_is_wrong_with_a_line_in_order() -> None:
    body = file(row(meter="", start="x", end="", generated="-1", consumed="y", region="?"), header=FULL)
    assert codes(ours(body)) == ["MTR_0002", "STM_0002", "ETM_0001", "GEN_0003", "CON_0002", "REG_0002"]
    assert set(codes(theirs(body))) == set(codes(ours(body)))


@pytest.mark.parametrize("fast", [True, False])
def test_validate_second_line_of_a_meter_and_start_is_told_and_a_bad_first_one_does_not_count(fast: bool) -> None:
    bad_then_twice = file(FINE.replace("0.25", "-1"), FINE, FINE, FINE.replace(A, B))
    assert ours(bad_then_twice, fast=fast) == [
        (2, "energy_generated_kwh", "GEN_0003"),
        (4, "interval_start_time_utc", "REPEATED"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{FINE},",
        "a,b",
        f'"{FINE}',
        f'"{A}"x{FINE.removeprefix(A)}',
        f"{FINE}\r\r",
        FINE.replace(".", "\r."),
        FINE + "0" * 5000,
        FINE.replace(A, B) + "0" * 5000,
    ],
)
def test_validate_line_without_the_headers_fields_is_lin(line: str) -> None:
    body = file(FINE, line, FINE.replace(A, meter_id(3)))
    assert ours(body) == [(3, "", "LIN_0001")]


def test_validate_bytes_that_are_no_text_spoil_their_line_only() -> None:
    body = file(FINE, "?", FINE.replace(A, B)).replace(b"?", b"\xff\xc3")
    assert ours(body) == [(3, "", "LIN_0001")]
    assert {line for line, _, _ in theirs(body)} == {3}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", [(1, "", "LIN_0001")]),
        (b"\n", [(1, "", "LIN_0001")]),
        (HEADER.encode(), []),
        (file(FINE, header=HEADER.replace("meter_id", "meter")),
         [(1, "meter", "LIN_0001"), (1, "meter_id", "MTR_0001")]),
        (file(FINE, header=HEADER.replace("interval_start", "start")),
         [(1, "start_time_utc", "LIN_0001"), (1, "interval_start_time_utc", "STM_0001")]),
        (file(FINE, header=f"{HEADER},region,region"), [(1, "region", "LIN_0001")]),
        (file(FINE, header=f"\ufeff{HEADER}"), [(1, "\ufeffmeter_id", "LIN_0001"), (1, "meter_id", "MTR_0001")]),
        (file(FINE, header=HEADER.replace("energy_consumed_kwh", "region")), [(1, "", "NRG_0001")]),
    ],
)  # fmt: skip
def test_validate_fault_of_the_header_is_the_only_one(body: bytes, expected: Found) -> None:
    assert ours(body) == expected


def test_validate_takes_columns_in_any_order_and_crlf() -> None:
    header = "energy_consumed_kwh,region,interval_end_time_utc,meter_id,energy_generated_kwh,interval_start_time_utc"
    line = f"0.5,CA,2027-01-15T08:15:00Z,{A},0.25,2027-01-15T08:00:00Z"
    body = file(line, line, line.replace(A, B), header=header, end="\r\n")
    assert ours(body) == [(3, "interval_start_time_utc", "REPEATED")]
    assert theirs(body) == []


BASE = render([quarter(h, index=i) for h in (1, 2, 3) for i in range(4)], range(12), METERS)
PIECES = st.sampled_from(
    ["", ",", '"', '""', "\n", "\r", "\r\n", " ", "-", ".", "0", "7", "-1", "nan", "1e3", "Z", "é", "٣", "\x00", "true",
     "CA", "zz", A, B, meter_id(77), "meter-7", "2027-01-15T08:00:00Z", "2027-01-15T08:15:00Z", "2027-01-15T08:07:00Z",
     "2031-01-01T00:00:00Z", "2027-13-15T08:00:00Z", FINE]
)  # fmt: skip
HEADERS = (HEADER, FULL, f"{HEADER},region", f"{HEADER},final", f"{HEADER},energy_net_kwh")
TAILS = {
    HEADER: "",
    FULL: ",{net},{region},{final}",
    HEADERS[2]: ",{region}",
    HEADERS[3]: ",{final}",
    HEADERS[4]: ",{net}",
}


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file with fields swapped for others, pieces put in anywhere, lines doubled, and bytes spoilt."""
    header = draw(st.sampled_from(HEADERS))
    tail = TAILS[header].format(
        net=draw(st.sampled_from(["", "0.25", "1.25", "-1.25"])), region=draw(st.sampled_from(["", "CA"])), final="true"
    )
    lines = [line + tail for line in BASE.lines]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        fields = lines[at].split(",")
        fields[draw(st.integers(0, len(fields) - 1))] = draw(PIECES)
        lines[at] = ",".join(fields)
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
    text = "\n".join((header, *lines, ""))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.integers(0, 2)) :]
    body = text.encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at:]
    return body


@given(body=mutated())
def test_validate_lets_nothing_through_that_the_independent_check_refuses(body: bytes) -> None:
    found = ours(body)
    assert ours(body, fast=False) == found
    bad = {line for line, _, _ in found}
    if 1 in bad:
        return
    lines = body.replace(b"\r\n", b"\n").split(b"\n")
    rest = b"\n".join(line for number, line in enumerate(lines, 1) if number not in bad)
    assert ours(rest) == theirs(rest) == []


@given(body=mutated())
def test_validate_refuses_no_line_that_the_independent_check_takes(body: bytes) -> None:
    """But a repetition, a net energy of either sign, a column that nobody knows, and lines that end in odd ways."""
    if any(odd in body for odd in (b"\r", b'"', b"\xef\xbb\xbf")) or not body.isascii():
        return
    known = theirs(body)
    for line, _, code in ours(body):
        assert code in ("REPEATED", "LIN_0001", "NRG_0003") or line in {other for other, _, _ in known}


def test_render_length_other_than_a_quarter_is_told_and_not_hidden() -> None:
    five_minutes = replace(quarter(1), length_s=300)
    assert ours(render([five_minutes], [0], METERS).body()) == [
        (2, "interval_end_time_utc", "ETM_0003"),
        (2, "interval_end_time_utc", "DTR_0003"),
    ]
