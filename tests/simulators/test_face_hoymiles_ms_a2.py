"""The simulated Hoymiles MS-A2, by plain MQTT: no client library for its broker topics is published for Python."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from simulators.faces.hoymiles_ms_a2 import HoymilesMsA2
from simulators.faces.plant import Connection, Face, Trouble
from tests.scenes.brokers import KINDS, BrokerProcess, broker_process
from tests.scenes.mqtt_faces import Ear, ear_at, until
from tests.scenes.register_faces import NOON_S, controlled, go, make_plant

DEVICE = "MSA-280000000000"
SENSOR = f"homeassistant/sensor/{DEVICE}"
QUICK, DEVICE_STATE, SYSTEM_STATE = f"{SENSOR}/quick/state", f"{SENSOR}/device/state", f"{SENSOR}/system/state"
MODE = f"homeassistant/select/{DEVICE}/ems_mode/command"
POWER = f"homeassistant/number/{DEVICE}/power_ctrl/set"
ONE_KW: dict[str, Any] = {"discharge_w_max": 1_000.0, "charge_w_max": 1_000.0, "capacity_wh": 2_240.0}


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    async with broker_process(request.param, tmp_path) as process:
        yield process


@pytest.fixture
async def face(broker: BrokerProcess) -> AsyncIterator[HoymilesMsA2]:
    product = HoymilesMsA2(make_plant(**ONE_KW), port=broker.port)
    await product.start()
    yield product
    await product.stop()


@pytest.fixture
async def ear(broker: BrokerProcess, face: HoymilesMsA2) -> AsyncIterator[Ear]:
    async with ear_at(Connection(url=broker.url), "homeassistant/sensor/#", "homeassistant/+/+/+/config") as client:
        await client.hears(SYSTEM_STATE if SYSTEM_STATE in client.heard else f"{SENSOR}/attributes")
        yield client


async def control(face: HoymilesMsA2, ear: Ear, power_w: float) -> None:
    await ear.say(MODE, "mqtt_ctrl")
    await until(lambda: face.controlled, "mqtt_ctrl")
    await ear.say(POWER, f"{power_w}")
    await settled(face, ear)


async def settled(face: HoymilesMsA2, ear: Ear) -> None:
    """Until everything said before has reached the face: a mark passes the same way after it."""
    before = face.heard
    await ear.say(POWER, "mark")
    await until(lambda: face.heard > before and face.last_heard == b"mark", "the mark")


async def test_face_hoymiles_start_names_broker_and_device(broker: BrokerProcess) -> None:
    face = HoymilesMsA2(make_plant(**ONE_KW), port=broker.port)
    product: Face = face
    connection = await product.start()
    assert product.profile == "hoymiles-ms-a2"
    assert connection.url == broker.url
    assert connection.parameters == {"device": DEVICE}
    assert face.connected
    await product.stop()


async def test_face_hoymiles_discovery_is_retained_and_bounds_the_setpoint(broker: BrokerProcess, ear: Ear) -> None:
    config = await ear.json(f"homeassistant/number/{DEVICE}/power_ctrl/config")
    assert (config["min"], config["max"], config["step"]) == (-1000, 1000, 0.1)
    assert config["command_topic"] == POWER
    assert config["device"]["manufacturer"] == "Hoymiles"
    assert config["device"]["model"] == "MS-A2"
    modes = await ear.json(f"homeassistant/select/{DEVICE}/ems_mode/config")
    assert modes["options"] == ["general", "mqtt_ctrl", "tou_plan"]
    topics = (await ear.json(f"{SENSOR}/attributes"))["supported_topics"]
    assert topics["quick_state"] == QUICK
    async with ear_at(Connection(url=broker.url), f"{SENSOR}/attributes") as later:
        await later.hears(f"{SENSOR}/attributes")
        assert later.retained == {f"{SENSOR}/attributes"}


async def test_face_hoymiles_states_tell_the_truth(broker: BrokerProcess) -> None:
    face = HoymilesMsA2(make_plant(pv_peak_w=3_000.0, time_s=NOON_S, **ONE_KW), port=broker.port)
    async with ear_at(Connection(url=broker.url), "homeassistant/sensor/#") as ear:
        # said once, when the product connects: whoever wants it listens before
        await face.start()
        await ear.json(SYSTEM_STATE)
        ear.clear()
        go(face, 299)
        await ear.json(QUICK)
        plant = face.plant
        assert DEVICE_STATE not in ear.heard  # each five minutes only
        go(face, 1)
        await until(lambda: SYSTEM_STATE in ear.heard and DEVICE_STATE in ear.heard, "slow states")
        quick = orjson.loads(ear.heard[QUICK][-1])
        assert plant.battery_w < 0
        assert quick["bat_p"] == pytest.approx(plant.battery_w, abs=5)
        assert quick["bat_sts"] == "charge"
        assert quick["soc"] == plant.soc_pct
        assert quick["sys_pv2_p"] + quick["sys_bat_p"] + quick["sys_grid_p"] == pytest.approx(
            quick["sys_load_p"], abs=0.5
        )
        device, system = await ear.json(DEVICE_STATE), await ear.json(SYSTEM_STATE)
        ports = {port["type"]: port for port in device["grid"]}
        assert ports["grid_on"]["etin"] == pytest.approx(plant.charged_wh, abs=2)
        assert ports["grid_on"]["etout"] == pytest.approx(plant.discharged_wh, abs=2)
        assert device["bat_temp"] == pytest.approx(plant.temp_c, abs=0.2)
        assert system["ems_mode"] == "general"
        assert 0 < system["chg_e"] == ports["inv"]["ein"] < 100
        plant.reset_counters()
        go(face, 301)
        await until(lambda: orjson.loads(ear.heard[DEVICE_STATE][-1])["grid"][0]["etin"] < 200, "counters anew")
        assert orjson.loads(ear.heard[SYSTEM_STATE][-1])["chg_e"] >= 0
    await face.stop()


async def test_face_hoymiles_old_firmware_sends_numbers_as_text(broker: BrokerProcess) -> None:
    face = HoymilesMsA2(make_plant(**ONE_KW), port=broker.port, numbers_as_text=True)
    async with ear_at(await face.start(), QUICK) as ear:
        go(face, 1)
        quick = await ear.json(QUICK)
    assert isinstance(quick["soc"], str)
    assert isinstance(quick["heat"], bool)
    await face.stop()


async def test_face_hoymiles_publishes_once_a_simulated_second(face: HoymilesMsA2, ear: Ear) -> None:
    ear.clear()
    for second in range(1, 4):
        go(face, 1, dt_s=0.1)
        await until(lambda wanted=second: len(ear.heard.get(QUICK, [])) == wanted, f"{second} messages")  # type: ignore[misc]


async def test_face_hoymiles_setpoint_moves_the_battery_and_general_releases(face: HoymilesMsA2, ear: Ear) -> None:
    before = face.settings()
    go(face, 10)
    import_w = face.plant.grid_w
    await control(face, ear, 900.0)
    soc_pct = float(face.plant.batteries.true_soc_pct[0])
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(900, abs=10)
    assert face.plant.batteries.true_soc_pct[0] < soc_pct
    assert face.plant.grid_w < import_w + 500
    await ear.say(POWER, "-600")
    await settled(face, ear)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(-600, abs=10)
    await ear.say(MODE, "general")
    await until(lambda: not face.controlled, "general")
    assert face.settings() == before


async def test_face_hoymiles_silent_controller_ends_after_a_minute(face: HoymilesMsA2, ear: Ear) -> None:
    await control(face, ear, 700.0)
    go(face, 55)
    await ear.say(POWER, "700.0")
    await settled(face, ear)
    go(face, 55)
    assert controlled(face)
    go(face, 6)
    assert not controlled(face)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(face.plant.load_w, rel=0.3)
    await ear.say(POWER, "700.0")  # the mode is gone, so this has no effect
    await settled(face, ear)
    go(face, 5)
    assert not controlled(face)


async def test_face_hoymiles_needing_change_is_not_renewed_by_the_same_value(broker: BrokerProcess) -> None:
    face = HoymilesMsA2(make_plant(**ONE_KW), port=broker.port, identical_refreshes=False)
    async with ear_at(await face.start()) as ear:
        await control(face, ear, 500.0)
        go(face, 40)
        await ear.say(POWER, "500.0")
        await settled(face, ear)
        go(face, 25)
        assert not controlled(face)
    await face.stop()


async def test_face_hoymiles_drops_what_it_does_not_take(face: HoymilesMsA2, ear: Ear) -> None:
    await ear.say(POWER, "500")  # not in mqtt_ctrl
    await ear.say(MODE, "turbo")
    await settled(face, ear)
    assert not controlled(face)
    await control(face, ear, 300.0)
    for bad in ("1000.1", "-1001", "nan", "much", ""):
        await ear.say(POWER, bad)
    await settled(face, ear)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(300, abs=5)


async def test_face_hoymiles_reserve_holds_only_in_its_own_mode(broker: BrokerProcess) -> None:
    face = HoymilesMsA2(make_plant(**(ONE_KW | {"soc_start_pct": 21.0, "reserve_pct": 30.0})), port=broker.port)
    async with ear_at(await face.start()) as ear:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await control(face, ear, 800.0)
        go(face, 20)
        assert face.plant.battery_w > 700
    await face.stop()


async def test_face_hoymiles_reboot_keeps_the_mode_and_forgets_the_setpoint(face: HoymilesMsA2, ear: Ear) -> None:
    await control(face, ear, 800.0)
    face.reboot()
    assert not face.connected
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    assert controlled(face)
    await until(lambda: face.connected, "a new connection")
    ear.clear()
    go(face, 45)
    assert not controlled(face)


async def test_face_hoymiles_reboot_after_writes_takes_effect_first(face: HoymilesMsA2, ear: Ear) -> None:
    face.reboot_after_writes(1)
    await ear.say(MODE, "tou_plan")
    await until(lambda: face.settings()["ems_mode"] == 2, "tou_plan")
    await until(lambda: face.connected, "a new connection")


async def test_face_hoymiles_overwrite_takes_control_away(face: HoymilesMsA2, ear: Ear) -> None:
    await control(face, ear, 800.0)
    face.overwrite()
    assert not controlled(face)


async def test_face_hoymiles_troubles_show_on_the_topics(face: HoymilesMsA2, ear: Ear) -> None:
    face.trouble = Trouble.GARBAGE
    ear.clear()
    go(face, 1)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(await ear.hears(QUICK))
    face.trouble = Trouble.REFUSE
    await ear.say(MODE, "mqtt_ctrl")
    await settled(face, ear)
    assert not controlled(face)
    face.trouble = Trouble.SILENT
    ear.clear()
    go(face, 5)
    face.trouble = Trouble.NONE
    go(face, 1)
    await ear.hears(QUICK)
    assert len(ear.heard[QUICK]) == 1
    face.trouble = Trouble.DISCONNECT
    go(face, 1)
    assert not face.connected
    face.trouble = Trouble.NONE
    await until(lambda: face.connected, "a new connection")


async def test_face_hoymiles_late_states_still_come(face: HoymilesMsA2, ear: Ear) -> None:
    face.trouble, face.late_s = Trouble.LATE, 0.05
    ear.clear()
    go(face, 1)
    assert (await ear.json(QUICK))["soc"] == face.plant.soc_pct


async def test_face_hoymiles_comes_back_after_the_broker(face: HoymilesMsA2, broker: BrokerProcess, ear: Ear) -> None:
    await broker.kill()
    await until(lambda: not face.connected, "the loss")
    await broker.start()
    await until(lambda: face.connected, "a new connection")
