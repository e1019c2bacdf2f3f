"""Every fault of a bad row is named, with its line, column and value, in CSV as in JSON."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput
from gateway.domain.fleet.fleet import Fleet
from gateway.profiles.compile import Codec
from gateway.services.devices.import_rows import MAX_REPORTED, Parsed, parse_rows
from gateway.services.devices.registry import DeviceRegistry
from gateway.services.devices.row_faults import FAULTS_MAX, RowFault
from tests.builders.fakes import MemoryJournal, message_product
from tests.builders.profiles import HTTP, MODBUS, compiled

CODECS: Mapping[str, Codec] = {"p": message_product(), "modbus": compiled(MODBUS), "http": compiled(HTTP)}
GOOD = {
    "id": "a", "profile": "modbus", "site": "s", "capacity_wh": "1000", "discharge_w_max": "500",
    "charge_w_max": "500", "reserve_pct": "20", "address": "modbus://10.0.0.5",
}  # fmt: skip
WRONG: dict[str, tuple[str, str | None]] = {
    "id": ("a b", "a b"),
    "site": ("", ""),
    "capacity_wh": ("none", "none"),
    "discharge_w_max": ("-1", "-1"),
    "charge_w_max": ("inf", "inf"),
    "reserve_pct": ("101", "101"),
    "export_allowed": ("perhaps", "perhaps"),
    "site_import_w_max": ("plenty", "plenty"),
    "address": ("http://10.0.0.5", None),
    "units": ("spare=7", None),
    "parameters": ("portal=x", None),
    "secret": ("hunter2", None),
}
"""By column: a value that is wrong in itself or for the product, and what a report shows of it."""


def parse(*rows: Mapping[str, object], form: str = "jsonl") -> Parsed:
    if form == "jsonl":
        return parse_rows("\n".join(map(json.dumps, rows)), form="jsonl", profiles=CODECS)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    return parse_rows("\n".join(lines), form="csv", profiles=CODECS)


def faults(*rows: Mapping[str, object], form: str = "jsonl") -> list[tuple[RowFault, ...]]:
    return [bad.faults for bad in parse(*rows, form=form).bad]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@given(columns=st.sets(st.sampled_from(sorted(WRONG)), min_size=1))
def test_row_with_several_faults_names_each_column_once_and_shows_no_secret(form: str, columns: set[str]) -> None:
    (found,) = faults(GOOD | {name: WRONG[name][0] for name in columns}, form=form)
    assert sorted(fault.column for fault in found) == sorted(columns)
    assert {fault.column: fault.value for fault in found} == {name: WRONG[name][1] for name in columns}
    assert "hunter2" not in str(found)


def test_row_is_the_same_in_csv_and_in_json() -> None:
    row = GOOD | {name: value for name, (value, _) in WRONG.items()}
    assert faults(row, form="csv") == faults(row)


def test_row_of_an_unknown_profile_with_other_faults_names_them_too() -> None:
    (found,) = faults(GOOD | {"profile": "unheard-of", "reserve_pct": "-1", "phases": "2"})
    assert [(fault.column, fault.value) for fault in found] == [
        ("reserve_pct", "-1"), ("phases", "2"), ("profile", "unheard-of"),
    ]  # fmt: skip


def test_row_whose_id_and_place_stand_there_already_names_both_and_what_else_is_wrong() -> None:
    second = GOOD | {"id": "b", "address": "modbus://10.0.0.6"}
    (found,) = faults(GOOD, second, second | {"id": "a", "capacity_wh": "0"})
    assert [(fault.column, fault.value) for fault in found] == [("capacity_wh", "0"), ("id", "a"), ("address", None)]
    assert "stands on line 1 already" in found[1].problem
    assert "'a' and 'b' are one and the same" in found[2].problem


def test_row_with_faults_takes_no_id_and_no_place_from_a_good_one() -> None:
    parsed = parse(GOOD | {"reserve_pct": "101"}, GOOD)
    assert ([device.id for device in parsed.devices], [bad.line for bad in parsed.bad]) == (["a"], [1])


def test_row_lacks_columns_and_has_unknown_ones() -> None:
    row: dict[str, object] = {name: value for name, value in GOOD.items() if name not in ("site", "capacity_wh")}
    (found,) = faults(row | {"scret": "hunter2", "address": 7})
    assert [(fault.column, fault.problem) for fault in found[:2]] == [("site", "required"), ("capacity_wh", "required")]
    assert [fault.column for fault in found[2:]] == ["address", "scret"]
    assert "hunter2" not in str(found)


def test_row_with_very_many_faults_names_a_bounded_number_and_counts_the_rest() -> None:
    (found,) = faults(GOOD | {f"x{i}": i for i in range(FAULTS_MAX + 5)})
    assert len(found) == FAULTS_MAX + 1
    assert str(found[-1]) == "and 5 more"


def test_rows_beyond_those_that_are_reported_keep_one_fault_each() -> None:
    bad = parse(*[GOOD | {"site": "", "reserve_pct": "-1"}] * (MAX_REPORTED + 2)).bad
    assert {len(row.faults) for row in bad[:MAX_REPORTED]} == {2}
    assert {len(row.faults) for row in bad[MAX_REPORTED:]} == {1}


async def test_row_with_a_fault_at_the_place_of_a_registered_device_names_both() -> None:
    registry = DeviceRegistry(clock=ManualClock(), fleet=Fleet(), journal=MemoryJournal(), codecs=CODECS)
    await registry.register(parse(GOOD).devices)
    text = json.dumps(GOOD | {"id": "b", "reserve_pct": "-1"})
    (bad,) = parse_rows(text, form="jsonl", profiles=CODECS, places=registry.places).bad
    assert [fault.column for fault in bad.faults] == ["reserve_pct", "address"]


def test_column_that_stands_twice_is_a_fault_of_its_row() -> None:
    """Which of two reserves is meant, nobody knows."""
    row = json.dumps(GOOD | {"reserve_pct": "50"})
    deep = '{"id": ' + "[" * 1_000 + "]" * 1_000 + "}"
    parsed = parse_rows(f'{row[:-1]}, "reserve_pct": "5"}}\n{deep}\n{row}', form="jsonl", profiles=CODECS)
    assert [bad.line for bad in parsed.bad] == [1, 2]
    assert "columns that stand twice: reserve_pct" in parsed.bad[0].problem
    assert [device.reserve_pct for device in parsed.devices] == [50.0]
    names, values = [*GOOD, "reserve_pct"], [*GOOD.values(), "5"]
    with pytest.raises(InvalidInput, match="column 'reserve_pct' stands twice"):
        parse_rows(",".join(names) + "\n" + ",".join(values), form="csv", profiles=CODECS)


def test_batteries_of_one_site_are_in_one_territory() -> None:
    here = GOOD | {"postcode": " 95404 ", "county": "Sonoma"}
    parsed = parse(
        here, here | {"id": "b", "address": "modbus://10.0.0.6", "county": "SONOMA"},
        here | {"id": "c", "address": "modbus://10.0.0.7", "postcode": "95405"},
        here | {"id": "d", "address": "modbus://10.0.0.8", "site": "t", "postcode": "95405", "utility": "x" * 65},
    )  # fmt: skip
    assert [(device.id, device.postcode) for device in parsed.devices] == [("a", "95404"), ("b", "95404")]
    other, long = parsed.bad
    assert [(fault.column, fault.problem, fault.value) for fault in other.faults] == [
        ("postcode", "its site has '95404' on line 1", "95405")
    ]
    assert [fault.column for fault in long.faults] == ["utility"]
