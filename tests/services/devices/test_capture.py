"""`gateway profiles capture` against every simulator: vectors are read back as all are, and say no serial."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Read
from gateway.profiles.loader import load_profiles
from gateway.services.devices.capture import captured
from gateway.services.devices.probe import Probe, ProbedPoint
from simulators.battery import Batteries
from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.plant import Connection, Face, Plant
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from tests.builders.homes import homes
from tests.cli.test_cli import run
from tests.profiles.test_vectors import PRODUCTS as VECTOR_PRODUCTS
from tests.profiles.test_vectors import disagreements, vector_of
from tests.scenes.http_rig import http_document
from tests.services.devices.test_probe import PRODUCTS, ROOT, listening

pytestmark = pytest.mark.real_time
PRIVATE = ("serial", "portal", "din", "device")


def asked(name: str, connection: Connection, file: Path) -> tuple[str, ...]:
    document = VECTOR_PRODUCTS[name].base.document
    wanted = (*(document.mqtt.variables if document.mqtt is not None else ()), "device", "fingerprint")
    given = [f"--param={key}={value}" for key, value in connection.parameters.items() if key in wanted]
    secret = ["--secret", "env:CAPTURED"] if connection.token else []
    return (
        "profiles", "capture", name, connection.url, "--dir", str(ROOT / "device_profiles"), "--out", str(file),
        "--username", connection.username, *given, *secret,
    )  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
async def test_capture_is_a_vector_that_the_profile_agrees_with_and_says_no_serial(name: str, tmp_path: Path) -> None:
    file = tmp_path / "vectors" / "capture.yaml"
    async with listening(name) as (connection, _, _):
        told = await asyncio.to_thread(run, *asked(name, connection, file), env={"CAPTURED": connection.token})
    assert told.exit_code == 0, told.output
    vectors = {path.name: vector_of(path) for path in file.parent.iterdir()}
    assert {path: disagreements(vector, VECTOR_PRODUCTS[name]) for path, vector in vectors.items()} == {
        path: [] for path in vectors
    }
    assert {vector.kind for vector in vectors.values()} == {"capture"}
    assert any(vector.readings.get("soc_pct") is not None for vector in vectors.values())
    text = "".join(path.read_text(encoding="utf-8") for path in file.parent.iterdir())
    hidden = [connection.token, *(value for key, value in connection.parameters.items() if key in PRIVATE)]
    assert [value for value in hidden if len(value) > 4 and value in text] == []
    identity = VECTOR_PRODUCTS[name].base.document.identity
    if identity is not None and identity.serial is not None:
        (serial,) = {vector.points[identity.serial] for vector in vectors.values() if identity.serial in vector.points}
        assert not set(str(serial)) & set("123456789")


def test_capture_replaces_no_file_and_asks_nobody_before_it_knows(tmp_path: Path) -> None:
    file = tmp_path / "there.yaml"
    file.write_text("kept", encoding="utf-8")
    told = run("profiles", "capture", "foxess-h3", "modbus://127.0.0.1:1", "--out", str(file))
    assert (told.exit_code, file.read_text(encoding="utf-8")) == (2, "kept")
    assert "is there already" in told.stderr


def test_capture_where_nobody_answers_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    told = run(
        "profiles", "capture", "foxess-h3", "modbus://127.0.0.1:1", "--dir", str(ROOT / "device_profiles"),
        "--out", str(file),
    )  # fmt: skip
    assert (told.exit_code, file.exists()) == (1, False)


async def test_capture_of_another_product_is_written_with_what_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    face = FoxessH3(Plant(Batteries(homes(1), guard=False), 0), model="KH8")
    connection = await face.start()
    try:
        told = await asyncio.to_thread(run, *asked("foxess-h3", connection, file), "--json")
    finally:
        await face.stop()
    assert told.exit_code == 1
    assert "not this product: model" in told.stderr
    assert json.loads(told.stdout)["problems"]
    assert vector_of(file).identity == ()


@pytest.mark.parametrize(
    ("profile", "build", "variant", "models"),
    [
        (
            "fronius-gen24",
            partial(FroniusGen24, product="Verto 25.0 Plus", mppts=3),
            "three-pv-inputs",
            {101, 160, 203},
        ),
        (
            "solaredge-storedge",
            partial(SolarEdgeStorEdge, meter_model=201, production_meter=True, batteries=2),
            "second-battery",
            {101, 201},
        ),
    ],
)
async def test_capture_of_another_build_is_read_back_as_that_build(
    profile: str, build: Callable[..., Face], variant: str, models: set[int], tmp_path: Path
) -> None:
    """Models, blocks and places are those that the device has."""
    file = tmp_path / "vectors" / "capture.yaml"
    face = build(Plant(Batteries(homes(1), guard=False), 0), inverter_model=101)
    connection = await face.start()
    try:
        told = await asyncio.to_thread(run, *asked(profile, connection, file))
    finally:
        await face.stop()
    assert told.exit_code == 0, told.output
    vectors = [vector_of(path) for path in file.parent.iterdir()]
    assert [disagreements(vector, VECTOR_PRODUCTS[profile]) for vector in vectors] == [[] for _ in vectors]
    assert {vector.variant for vector in vectors} == {variant}
    assert models <= {entry.model for vector in vectors for entry in vector.raw.sunspec}


def test_capture_masks_what_is_private_inside_a_text_that_is_kept() -> None:
    codec = load_profiles(ROOT / "device_profiles")["sonnen-v2"]
    said: dict[str, Read] = {
        "software": "1.14 of 00:1a:2B:3c:4d:5e", "system_status": "OnGrid for correct-horse", "operating_mode": "2",
        "soc": 50,
    }  # fmt: skip
    points = [ProbedPoint(name=name, raw=raw, value=None, unit="") for name, raw in said.items()]
    found = Probe(profile="sonnen-v2", variant="", problems=[], unmet=[], points=points, readings={})
    vectors = captured(codec, found, units={}, parameters={}, secret="correct-horse", source="a test")
    (text,) = [json.dumps(vector["raw"]) for vector in vectors.values()]
    assert "1.14 of 00:0x:0x:0x:0x:0x" in text
    assert "OnGrid for xxxxxxx-xxxxx" in text
    assert "Masked: software, system_status." in vectors["http"]["note"]


def test_capture_keeps_what_was_asked_for_and_which_element_was_chosen() -> None:
    codec = compile_profile(http_document())
    said: dict[str, Read] = {"power": -200, "asked": -800, "asked_soc": 55, "asked_else": 120, "chosen": 70}
    points = [ProbedPoint(name=name, raw=raw, value=None, unit="") for name, raw in said.items()]
    found = Probe(profile="made-up", variant="", problems=[], unmet=[], points=points, readings={})
    vectors = captured(codec, found, units={}, parameters={}, secret="", source="a test")
    assert vectors["http"]["raw"] == {
        "http": {
            "/status": {"Pac_total_W": -200},
            'POST /rpc {"method": "ES.GetStatus", "params": {"id": 0}}': {"result": {"bat_power": -800, "bat_soc": 55}},
            'POST /rpc {"method": "EM.GetStatus"}': {"result": {"total_power": 120}},
            "/packs": {"packs": [{"sn": "B2", "soc": 70}]},
        }
    }
