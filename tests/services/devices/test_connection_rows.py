"""Connections in an inventory: what fits the profile is taken, what does not is named, secrets are never told."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.fleet.fleet import Fleet
from gateway.profiles.compile import Codec
from gateway.services.devices.import_rows import Parsed, parse_rows
from gateway.services.devices.registry import DeviceRegistry
from tests.builders.fakes import MemoryJournal, message_product
from tests.builders.profiles import HTTP, MODBUS, MQTT, changed, compiled

FLEET_BROKER = changed(MQTT, lambda raw: (raw.update(profile="fleet"), raw["mqtt"].update(broker="fleet")))
CODECS: Mapping[str, Codec] = {
    "p": message_product(), "modbus": compiled(MODBUS), "http": compiled(HTTP), "mqtt": compiled(MQTT),
    "fleet": compiled(FLEET_BROKER),
}  # fmt: skip
RATINGS = {"site": "s", "capacity_wh": 10_000, "discharge_w_max": 5_000, "charge_w_max": 5_000, "reserve_pct": 20}
GOOD: dict[str, dict[str, object]] = {
    "p": {},
    "modbus": {"address": "modbus://10.0.0.5"},
    "http": {"address": "https://10.0.0.5", "secret": "env:TOKEN"},
    "mqtt": {"address": "mqtt://10.0.0.5:1884", "parameters": {"portal": "c0619ab4"}},
    "fleet": {"parameters": {"portal": "c0619ab4"}},
}


def row(profile: str, device: str = "a", /, **cells: object) -> dict[str, object]:
    return {"id": device, "profile": profile} | RATINGS | GOOD[profile] | cells


def parse(*rows: dict[str, object]) -> Parsed:
    return parse_rows("\n".join(map(json.dumps, rows)), form="jsonl", profiles=CODECS)


def taken(profile: str, /, **cells: object) -> Device:
    parsed = parse(row(profile, **cells))
    assert not parsed.bad, parsed.bad[0].problem
    return parsed.devices[0]


def refused(profile: str, /, **cells: object) -> str:
    parsed = parse(row(profile, **cells))
    assert not parsed.devices
    return parsed.bad[0].problem


def test_connection_in_csv_cells_is_read_as_in_json() -> None:
    text = (
        "id,profile,site,capacity_wh,discharge_w_max,charge_w_max,reserve_pct,address,units,parameters,username,secret,"
        "experimental\n"
        "a,modbus,s,1,1,1,20,MODBUS://Inverter.Local:1502/,main=225; meter=30,,,,\n"
        "b,mqtt,s,1,1,1,20,mqtts://[fe80:0::1]:8883,,portal=abc;device=x,user,file:/run/secrets/b,yes\n"
        "c,p,s,1,1,1,20,,,,,,no\n"
    )
    parsed = parse_rows(text, form="csv", profiles=CODECS)
    assert not parsed.bad
    assert [(d.connection, d.experimental) for d in parsed.devices] == [
        (DeviceConnection(url="modbus://inverter.local:1502", units=(("main", 225), ("meter", 30))), False),
        (
            DeviceConnection(
                url="mqtts://[fe80::1]:8883", parameters=(("device", "x"), ("portal", "abc")), username="user",
                secret="file:/run/secrets/b",
            ),
            True,
        ),
        (None, False),
    ]  # fmt: skip


@pytest.mark.parametrize("profile", GOOD)
def test_connection_that_fits_its_profile_is_taken(profile: str) -> None:
    device = taken(profile)
    assert (device.connection is None) == (profile == "p")


@pytest.mark.parametrize(
    ("profile", "cells", "complaint"),
    [
        ("p", {"address": "mqtt://10.0.0.5"}, "address: the device comes to us"),
        ("p", {"secret": "env:X"}, "address: the device comes to us"),
        ("modbus", {"address": ""}, "address: missing"),
        ("modbus", {"address": "http://10.0.0.5"}, "address: modbus:// is expected"),
        ("modbus", {"units": {"battery": 225}}, "units: 'battery' is none of the profile's (main, meter)"),
        ("modbus", {"units": {"main": 256}}, "units: main: "),
        ("modbus", {"units": "main=1;main=2"}, "units: a name stands there twice"),
        ("modbus", {"units": "main"}, "units: name=value"),
        ("modbus", {"parameters": {"portal": "x"}}, "parameters: 'portal' is none of the profile's"),
        ("modbus", {"username": "x"}, "secret: this product asks for none"),
        ("http", {"address": "http://10.0.0.5"}, "address: https:// is expected"),
        ("http", {"address": "mqtt://10.0.0.5"}, "address: http:// or https:// is expected"),
        ("http", {"secret": ""}, "secret: missing"),
        ("http", {"units": {"main": 1}}, "units: 'main'"),
        ("http", {"parameters": {"fingerprint": "ab"}}, "parameters: 'fingerprint'"),
        ("mqtt", {"parameters": {}}, "parameters: 'portal' is missing"),
        ("mqtt", {"parameters": {"portal": "a", "other": "b"}}, "parameters: 'other' is none"),
        ("mqtt", {"parameters": {"portal": "a/+"}}, "parameters: 'portal' is one level of a topic"),
        ("mqtt", {"parameters": {"portal": "#"}}, "parameters: 'portal' is one level of a topic"),
        ("mqtt", {"parameters": {"portal": "x" * 129}}, "parameters: portal: "),
        ("mqtt", {"parameters": {"portal": "a\r\nHost: x"}}, "parameters: portal: "),
        ("mqtt", {"parameters": {"Portal": "a"}}, "parameters: Portal: "),
        ("fleet", {"address": "mqtt://10.0.0.5"}, "address: the device is a client of our own broker"),
        ("fleet", {"username": "x"}, "secret: the device is a client"),
        ("fleet", {"parameters": {}}, "parameters: 'portal' is missing"),
    ],
)
def test_connection_that_does_not_fit_its_profile_is_named(
    profile: str, cells: dict[str, object], complaint: str
) -> None:
    assert complaint in refused(profile, **cells)


def test_connection_what_fits_besides_is_taken() -> None:
    assert taken("http", address="http://127.0.0.1:9").connection is not None
    assert taken("http", address="http://[::1]:9").connection is not None
    assert taken("http", parameters={"fingerprint": "aB" * 32}).connection is not None
    assert taken("modbus", parameters={"serial": "SM123"}).connection is not None
    assert taken("mqtt", username="u", secret="env:S", address="mqtts://h").connection is not None


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5", "modbus://", "modbus://:502", "modbus://h:", "modbus://h:0", "modbus://h:65536", "modbus://h:x",
        "modbus://user@h", "modbus://user:hunter2@h", "modbus://h/path", "modbus://h?x=hunter2", "modbus://h#f",
        "modbus://h ", "modbus://h\r\nX: y", "modbus://h\\..", "file:///etc/passwd", "javascript:alert(1)",
        "modbus://[::1", "modbus://[::g]", "modbus://..", "modbus://a..b", "modbus://-h", "modbus://hé",
        "modbus://" + "h" * 260, "modbus+ssh://h", "tcp://h", " modbus://h",
    ],
)  # fmt: skip
def test_connection_address_that_is_none_is_refused_and_not_repeated(address: str) -> None:
    problem = refused("modbus", address=address)
    assert problem.startswith("address: ")
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "secret",
    ["hunter2", "env:", "env:A B", "env:A=hunter2", "file:hunter2", "file:/a/../b", "env:X\n", "ENV:X", "file:/"],
)
def test_connection_secret_that_is_no_reference_is_refused_and_not_repeated(secret: str) -> None:
    problem = refused("http", secret=secret)
    assert problem.startswith("secret: ")
    assert "hunter2" not in problem


@given(
    address=st.text(max_size=30) | st.from_regex(r"(modbus|http|mqtt)://[ -~]{0,20}", fullmatch=True),
    units=st.text(max_size=20) | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    parameters=st.text(max_size=20) | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    profile=st.sampled_from(sorted(GOOD)),
)
def test_connection_any_cells_are_taken_as_an_address_or_named(
    address: str, units: object, parameters: object, profile: str
) -> None:
    parsed = parse(row(profile, address=address, units=units, parameters=parameters))
    assert len(parsed.devices) + len(parsed.bad) == 1
    for device in parsed.devices:
        again = device.connection.url if device.connection is not None else ""
        assert taken(profile, address=again, units=units, parameters=parameters) == device


# -- two at one place


def test_connection_second_device_at_one_place_is_refused_with_both_names() -> None:
    parsed = parse(
        row("modbus", "a"),
        row("modbus", "b", address="modbus://10.0.0.5:502"),
        row("modbus", "c", units={"main": 2}),
        row("modbus", "d", address="modbus://10.0.0.6"),
        row("mqtt", "e"),
        row("mqtt", "f", parameters={"portal": "other"}),
        row("mqtt", "g"),
        row("http", "h"),
        row("http", "i", address="https://10.0.0.5:8443"),
        row("fleet", "j"),
        row("fleet", "k"),
        row("p", "l"),
        row("p", "m"),
    )
    assert [device.id for device in parsed.devices] == ["a", "c", "d", "e", "f", "h", "j", "l", "m"]
    assert [bad.line for bad in parsed.bad] == [2, 7, 9, 11]
    for bad, pair in zip(parsed.bad, ["'b' and 'a'", "'g' and 'e'", "'i' and 'h'", "'k' and 'j'"], strict=True):
        assert pair in bad.problem


async def registered(*rows: dict[str, object]) -> tuple[DeviceRegistry, MemoryJournal]:
    journal = MemoryJournal()
    inventory = DeviceRegistry(clock=ManualClock(), fleet=Fleet(), journal=journal, codecs=CODECS)
    assert await inventory.register(parse(*rows).devices) == len(rows)
    return inventory, journal


def imported(inventory: DeviceRegistry, *rows: dict[str, object]) -> Parsed:
    text = "\n".join(map(json.dumps, rows))
    return parse_rows(text, form="jsonl", profiles=inventory.profiles, places=inventory.places)


async def test_connection_at_the_place_of_a_registered_device_is_refused_unless_that_one_moves() -> None:
    inventory, journal = await registered(row("modbus", "a"), row("modbus", "b", address="modbus://10.0.0.6"))
    parsed = imported(inventory, row("modbus", "c"), row("p", "d"))
    assert [device.id for device in parsed.devices] == ["d"]
    assert "'c' and 'a'" in parsed.bad[0].problem
    swapped = imported(inventory, row("modbus", "a", address="modbus://10.0.0.6"), row("modbus", "b"))
    assert not swapped.bad
    assert await inventory.register(swapped.devices) == 2
    assert {holder: place[0] for place, holder in inventory.places.items()} == {
        "a": "10.0.0.6:502",
        "b": "10.0.0.5:502",
    }
    again = DeviceRegistry(clock=ManualClock(), fleet=Fleet(), journal=journal, codecs=CODECS)
    again.load(journal.load().devices)
    assert again.places == inventory.places
    assert dict(again.devices) == dict(inventory.devices)


async def test_connection_row_that_stays_keeps_out_those_who_counted_on_its_move() -> None:
    inventory, _ = await registered(
        row("modbus", "a"), row("modbus", "b", address="modbus://10.0.0.6"),
        row("modbus", "c", address="modbus://10.0.0.7"),
    )  # fmt: skip
    parsed = imported(
        inventory,
        row("modbus", "a", address="modbus://10.0.0.6"),
        row("modbus", "b", address="modbus://10.0.0.7"),
    )
    assert not parsed.devices
    assert [bad.line for bad in parsed.bad] == [1, 2]


async def test_connection_claimed_by_another_import_meanwhile_registers_nothing() -> None:
    inventory, journal = await registered(row("modbus", "a"))
    kept = len(journal.kept)
    with pytest.raises(InvalidInput, match="'b' and 'a'"):
        await inventory.register(parse(row("p", "x"), row("modbus", "b")).devices)
    assert (len(journal.kept), set(inventory.devices)) == (kept, {"a"})
    journal.failing = True
    elsewhere = row("modbus", "c", address="modbus://10.0.0.9")
    with pytest.raises(StorageError):
        await inventory.register(parse(elsewhere).devices)
    journal.failing = False
    assert set(inventory.places.values()) == {"a"}
    assert await inventory.register(parse(elsewhere | {"id": "d"}).devices) == 1


# -- experimental


async def test_connection_experimental_product_is_read_only_until_its_operator_says_so() -> None:
    parsed = parse(row("mqtt"), row("mqtt", "b", experimental=True, parameters={"portal": "other"}))
    assert [(note.line, "experimental" in note.note) for note in parsed.notes] == [(1, True)]
    fleet = Fleet()
    inventory = DeviceRegistry(clock=ManualClock(), fleet=fleet, journal=MemoryJournal(), codecs=CODECS)
    assert await inventory.register(parsed.devices) == 2
    assert fleet.nameplate.steerable[:2].tolist() == [False, True]
    assert not parse(row("modbus")).notes


def test_model_that_the_profile_chooses_may_be_chosen_by_the_registration() -> None:
    product = changed(
        MODBUS,
        lambda raw: raw["modbus"].update(sunspec={"required": [], "models": {"grid": {"ids": [203]}}}),
    )
    text = json.dumps(row("modbus", parameters={"grid": "2"}))
    parsed = parse_rows(text, form="jsonl", profiles={"modbus": compiled(product)})
    assert parsed.devices[0].connection is not None
    assert parsed.devices[0].connection.parameters == (("grid", "2"),)
