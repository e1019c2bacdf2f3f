"""Inventory: good rows are taken, every bad row is named with its line, nothing else ever happens."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.fleet.fleet import Fleet
from gateway.services.devices.import_rows import DeviceRow, parse_rows
from gateway.services.devices.registry import DeviceRegistry
from tests.builders.fakes import MemoryJournal, home, message_product

CODECS = {"p": message_product()}
HEADER = "id,profile,site,capacity_wh,discharge_w_max,charge_w_max,reserve_pct,export_allowed,site_export_w_max,tags"
GOOD = {"id": "a", "profile": "p", "site": "s", "capacity_wh": "10000", "discharge_w_max": "5000",
        "charge_w_max": "5000", "reserve_pct": "20", "export_allowed": "false"}  # fmt: skip
CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "nan", "inf", "-1", "1e999", "unlimited", "true", "p", "a", "0", "\x00", '"', "\n", "\r"]),
)


def csv_line(**cells: str) -> str:
    return ",".join((GOOD | cells).get(name, "") for name in HEADER.split(","))


def one(**cells: object) -> str:
    """The problem of a JSONL row, or "" where it is good."""
    parsed = parse_rows(json.dumps(GOOD | cells), form="jsonl", profiles=CODECS)
    return parsed.bad[0].problem if parsed.bad else ""


def test_inventory_csv_good_rows_are_kept_and_bad_ones_named_with_their_line() -> None:
    lines = [
        HEADER,
        csv_line(id="a", export_allowed="yes", site_export_w_max="unlimited", tags="x; y"),
        csv_line(id="b c"),
        csv_line(id="a"),
        csv_line(id="d", profile="unheard-of"),
        "only,three,cells",
        "",
        csv_line(id="e", capacity_wh="nan"),
        csv_line(id="f", reserve_pct="101"),
        csv_line(id="g"),
    ]
    parsed = parse_rows("\r\n".join(lines), form="csv", profiles=CODECS)
    assert [device.id for device in parsed.devices] == ["a", "g"]
    first = parsed.devices[0]
    assert (first.export_allowed, first.site_export_w_max, first.tags) == (True, math.inf, ("x", "y"))
    assert [(row.line, row.problem.split(":")[0]) for row in parsed.bad] == [
        (3, "id"), (4, "id"), (5, "profile"), (6, "10 columns expected"), (8, "capacity_wh"), (9, "reserve_pct"),
    ]  # fmt: skip


def test_inventory_quoted_cell_over_lines_is_named_with_its_last_line() -> None:
    text = f"{HEADER}\n{csv_line(id='a', site=chr(34) + 'two' + chr(10) + 'lines' + chr(34))}\n{csv_line(id='b!')}"
    parsed = parse_rows(text, form="csv", profiles=CODECS)
    assert [device.site for device in parsed.devices] == ["two\nlines"]
    assert [row.line for row in parsed.bad] == [4]


@pytest.mark.parametrize(
    "text", ["", "id\n", HEADER + ",surplus\n", "\x00\n", '{"id": "x"}', '{"id":"x","id":"y"}', '"' * 3]
)
def test_inventory_that_is_no_inventory_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rows(text, form="csv", profiles=CODECS)
    assert caught.value.problems
    assert all(problem.startswith("line 1: ") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("field", "value"),
    [("site_export_w_max", -1), ("site_export_w_max", "plenty"), ("site_export_w_max", float("inf")),
     ("capacity_wh", 0), ("capacity_wh", "1e999"), ("discharge_w_max", True), ("reserve_pct", None),
     ("export_allowed", "perhaps"), ("tags", [""]), ("tags", ["x"] * 33), ("id", "x" * 65), ("surplus", 1)],
)  # fmt: skip
def test_inventory_bad_value_is_named_by_its_field(field: str, value: object) -> None:
    if value == float("inf"):
        assert one(site_export_w_max="inf").startswith("site_export_w_max")
    else:
        assert one(**{field: value}).startswith(field)


def test_inventory_unknown_site_limit_is_not_allowed_and_never_zero() -> None:
    parsed = parse_rows(json.dumps(GOOD), form="jsonl", profiles=CODECS)
    assert (parsed.devices[0].site_export_w_max, parsed.devices[0].export_allowed) == (None, False)
    zero = parse_rows(json.dumps(GOOD | {"site_export_w_max": 0}), form="jsonl", profiles=CODECS)
    assert zero.devices[0].site_export_w_max == 0.0


@given(rows=st.lists(st.lists(CELLS, max_size=12), max_size=8), header=st.booleans())
def test_inventory_any_csv_is_either_parsed_or_refused(rows: list[list[str]], header: bool) -> None:
    text = "\n".join([HEADER] * header + [",".join(cells) for cells in rows])
    try:
        parsed = parse_rows(text, form="csv", profiles=CODECS)
    except InvalidInput:
        return
    lines = text.count("\n") + text.count("\r") + 1
    assert all(1 < row.line <= lines and row.problem for row in parsed.bad)
    assert len({device.id for device in parsed.devices}) == len(parsed.devices)


@given(
    rows=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.dictionaries(st.sampled_from([*DeviceRow.model_fields, "x"]), CELLS | st.integers() | st.none()).map(
                lambda cells: json.dumps(GOOD | cells)
            ),
        ),
        max_size=8,
    )
)
def test_inventory_any_jsonl_names_every_bad_row(rows: list[str]) -> None:
    text = "\n".join(rows)
    parsed = parse_rows(text, form="jsonl", profiles=CODECS)
    filled = [line for line, content in enumerate(text.splitlines(), start=1) if content.strip()]
    assert len(parsed.devices) + len(parsed.bad) == len(filled)
    assert {row.line for row in parsed.bad} <= set(filled)


async def test_registry_registers_what_is_new_or_changed_after_it_is_durable() -> None:
    fleet, journal = Fleet(), MemoryJournal()
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=journal, codecs=CODECS)
    assert await inventory.register([home("a"), home("b")]) == 2
    assert await inventory.register([home("a"), home("b", reserve_pct=30.0)]) == 1
    assert (fleet.n, fleet.nameplate.owner_reserve_pct[:2].tolist()) == (2, [20.0, 30.0])
    journal.failing = True
    with pytest.raises(StorageError):
        await inventory.register([home("c")])
    assert (fleet.n, set(inventory.devices)) == (2, {"a", "b"})
    again = DeviceRegistry(clock=ManualClock(), fleet=Fleet(), journal=journal, codecs=CODECS)
    assert again.load(journal.load().devices) == []
    assert dict(again.devices) == dict(inventory.devices)


async def test_import_of_a_lower_reserve_keeps_the_higher_one_and_notes_the_row() -> None:
    fleet = Fleet()
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=MemoryJournal(), codecs=CODECS)
    await inventory.register([home("a", reserve_pct=30.0), home("b"), home("c", reserve_pct=10.0)])
    text = "\n".join([HEADER, *(csv_line(id=name, site=f"site-{name}") for name in "abcd")])
    done = await inventory.register_rows(parse_rows(text, form="csv", profiles=CODECS))
    assert fleet.nameplate.owner_reserve_pct[:4].tolist() == [30.0, 20.0, 20.0, 20.0]
    assert [(note.line, note.note) for note in done.notes] == [
        (2, "a: keeps its reserve of 30 %, not the lower 20 % of the row; only its owner lowers it, on the device")
    ]


def test_inventory_device_whose_profile_is_gone_is_an_orphan() -> None:
    fleet = Fleet()
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=MemoryJournal(), codecs=CODECS)
    assert inventory.load([home("a"), home("b", profile="gone")]) == ["b"]
    assert (set(fleet.slot_of), set(inventory.devices)) == ({"a"}, {"a", "b"})
