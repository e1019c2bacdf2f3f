"""What is kept of a device is declared once: columns, import, journal, answers and the reference agree."""

from dataclasses import fields

import numpy as np
import pytest

from gateway.api.views.fleet import device_fields
from gateway.domain.fleet.columns import ControlColumns, LiveColumns, Nameplate
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.table import Singles, Table, column, unit_of
from gateway.domain.types import UNLIMITED, Bools, DeviceId
from gateway.services.devices.import_rows import MEANINGS, DeviceFields, DeviceRow
from gateway.storage.journal.bodies import device_body, placed_body, read_device
from tests.builders.fakes import FACTS
from tests.fleet import DOCUMENT, document

EVERYTHING = Device(
    id=DeviceId("d"), profile="p", site="s", meter="m", feeder="f", postcode="94107", county="San Francisco",
    utility="PG&E", tags=("a", "b"), capacity_wh=10_000.0,
    discharge_w_max=5_000.0, charge_w_max=4_000.0, inverter_w_max=6_000.0, reserve_pct=30.0, export_allowed=True,
    grid_charge_allowed=True,
    site_import_w_max=UNLIMITED, site_export_w_max=9_000.0, site_phase_w_max=3_000.0, phases=3, fuse_protected=True,
    connection=DeviceConnection(url="modbus://10.0.0.1", units=(("main", 3),), parameters=(("serial", "x"),),
                                username="u", secret="env:S"),
    experimental=True,
)  # fmt: skip


class Pumps(Table):
    """A table of columns that are declared."""

    running: Bools = column(True, "Whether it runs.")
    head_w: Singles = column(np.nan, "What it takes.")


def test_declared_columns_are_arrays_of_their_kind_and_new_value() -> None:
    pumps = Pumps(2)
    pumps.grow(3)
    assert (str(pumps.running.dtype), pumps.running.tolist()) == ("bool", [True] * 3)
    assert (str(pumps.head_w.dtype), np.isnan(pumps.head_w).tolist()) == ("float32", [True] * 3)
    assert Pumps.COLUMNS["head_w"].meaning == "What it takes."
    assert not hasattr(Pumps, "running")


@pytest.mark.parametrize("table", [Nameplate, LiveColumns, ControlColumns])
def test_every_column_of_the_fleet_says_what_it_means(table: type[Table]) -> None:
    assert table.COLUMNS
    assert all(known.meaning.endswith(".") for known in table.COLUMNS.values())


@pytest.mark.parametrize(
    ("name", "unit"),
    [("discharge_w_max", "W"), ("moved_wh", "Wh"), ("drift_pct_per_cycle", "%"), ("temp_c", "°C"), ("phases", "")],
)
def test_unit_of_a_column_is_that_of_its_name(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_import_knows_every_attribute_of_a_device_and_no_other() -> None:
    assert set(DeviceRow.model_fields) == set(MEANINGS)
    assert set(DeviceRow.model_fields) - set(DeviceFields.model_fields) == {"secret"}


def test_journal_gives_back_every_attribute_of_a_device() -> None:
    body = device_body(EVERYTHING)
    # release 0.1 could not read them there
    placed = placed_body(EVERYTHING)
    assert set(placed) == {"meter", "postcode", "county", "utility"}
    assert set(body) == {member.name for member in fields(Device)} - set(placed)
    assert read_device(body, None, *placed.values()) == EVERYTHING


def test_answer_shows_every_attribute_of_a_device_but_the_reference_to_its_secret() -> None:
    shown = device_fields(EVERYTHING)
    assert DeviceRow.model_validate(shown.model_dump() | {"secret": "env:S"}).device() == EVERYTHING


def test_registered_device_has_its_ratings_in_the_columns_and_new_values_where_it_states_none() -> None:
    fleet = Fleet()
    slot = fleet.register(EVERYTHING, FACTS)
    plate = fleet.nameplate
    assert (plate.inverter_w_max[slot], plate.site_phase_w_max[slot], plate.phases[slot]) == (6_000, 3_000, 3)
    assert (plate.site_import_w_max[slot], plate.site_export_w_max[slot]) == (np.inf, 9_000)
    bare = Device(id=DeviceId("e"), profile="p", site="t", capacity_wh=1, discharge_w_max=1, charge_w_max=1,
                  reserve_pct=0, export_allowed=False, grid_charge_allowed=False)  # fmt: skip
    slot = fleet.register(bare, FACTS)
    assert plate.inverter_w_max[slot] == np.inf
    assert np.isnan([plate.site_import_w_max[slot], plate.site_export_w_max[slot], plate.site_phase_w_max[slot]]).all()


def test_document_of_the_fleet_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m tests.fleet --write"
