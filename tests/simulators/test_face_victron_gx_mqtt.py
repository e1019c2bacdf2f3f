"""The simulated Victron GX by MQTT: with victron-mqtt as an independent client, and by plain MQTT."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import orjson
import pytest
import victron_mqtt

from simulators.faces.plant import Connection, Face, Trouble
from simulators.faces.victron_gx_mqtt import VictronGxMqtt
from tests.scenes.brokers import require_mosquitto
from tests.scenes.mqtt_faces import Ear, ear_at, until
from tests.scenes.register_faces import NOON_S, controlled, go, make_plant

PORTAL = "c0619ab00000"
N, R, W = f"N/{PORTAL}", f"R/{PORTAL}", f"W/{PORTAL}"
SETPOINT = "hub4/0/Overrides/Setpoint"
CGWACS = "settings/0/Settings/CGwacs"
SUPPRESS = '{"keepalive-options": ["suppress-republish"]}'


@pytest.fixture
async def face() -> AsyncIterator[VictronGxMqtt]:
    product = VictronGxMqtt(make_plant(), broker="standin")
    yield product
    await product.stop()


@pytest.fixture
async def ear(face: VictronGxMqtt) -> AsyncIterator[Ear]:
    async with ear_at(await face.start(), f"{N}/#") as client:
        yield client


async def snapshot(ear: Ear, *, echo: str = "") -> dict[str, Any]:
    """Ask for everything; the values by path when the product says that this was all."""
    ear.clear()
    options = {"keepalive-options": [{"full-publish-completed-echo": echo}]} if echo else None
    await ear.say(f"{R}/keepalive", json.dumps(options) if options else "")
    await ear.hears(f"{N}/full_publish_completed")
    return {
        topic.removeprefix(f"{N}/"): orjson.loads(payloads[-1]).get("value")
        for topic, payloads in ear.heard.items()
        if payloads[-1]
    }


async def write(face: VictronGxMqtt, ear: Ear, path: str, value: object) -> None:
    """Returns when the product has heard it."""
    before = face.requests
    await ear.say(f"{W}/{path}", json.dumps({"value": value}))
    await until(lambda: face.requests > before, f"W {path}")


async def keep_alive(face: VictronGxMqtt, ear: Ear) -> None:
    before = face.requests
    await ear.say(f"{R}/keepalive", SUPPRESS)
    await until(lambda: face.requests > before, "keepalive")


# with victron-mqtt


def metric(hub: victron_mqtt.Hub, unique_id: str) -> victron_mqtt.Metric:
    found = hub.get_metric(unique_id)
    assert found is not None, unique_id
    return found


def writable(hub: victron_mqtt.Hub, unique_id: str) -> victron_mqtt.WritableMetric:
    found = metric(hub, unique_id)
    assert isinstance(found, victron_mqtt.WritableMetric)
    return found


def number(hub: victron_mqtt.Hub, unique_id: str) -> float:
    value = metric(hub, unique_id).value
    assert isinstance(value, int | float), unique_id
    return float(value)


async def hub_at(connection: Connection) -> victron_mqtt.Hub:
    address = urlsplit(connection.url)
    hub = victron_mqtt.Hub(
        address.hostname or "",
        address.port or 0,
        None,
        None,
        False,
        installation_id=connection.parameters["portal"],
        update_frequency_seconds=0,
    )
    await hub.connect()
    await hub.wait_for_first_refresh()
    return hub


async def test_face_victron_mqtt_library_reads_the_truth_and_moves_the_battery() -> None:
    require_mosquitto()  # the library speaks MQTT 3.1.1 only, the stand-in 5 only
    face = VictronGxMqtt(make_plant(pv_peak_w=4_000.0, time_s=NOON_S), broker="mosquitto")
    connection = await face.start()
    plant = face.plant
    go(face, 30)
    hub = await hub_at(connection)
    try:
        assert hub.installation_id == PORTAL
        assert {"system_0", "battery_512", "grid_30", "vebus_276", "hub4_0"} <= set(hub.devices)
        assert hub.devices["battery_512"].serial_number == "BAT00000000"
        assert plant.battery_w < 0
        assert number(hub, "system_0_system_dc_battery_power") == pytest.approx(-plant.battery_w, abs=1)
        assert number(hub, "system_0_system_dc_battery_soc") == plant.soc_pct
        assert number(hub, "battery_512_battery_temperature") == pytest.approx(plant.temp_c, abs=0.1)
        phases = [number(hub, f"system_0_system_grid_power_l{i}") for i in (1, 2, 3)]
        assert sum(phases) == pytest.approx(plant.grid_w, abs=1)
        loads = [number(hub, f"system_0_system_consumption_power_l{i}") for i in (1, 2, 3)]
        assert sum(loads) == pytest.approx(plant.load_w, abs=1)
        assert number(hub, "pvinverter_20_pvinverter_power_total") == pytest.approx(plant.pv_w, abs=1)
        assert number(hub, "battery_512_battery_charged_energy") == pytest.approx(plant.charged_wh / 1000, abs=0.01)
        await _library_controls(face, hub)
    finally:
        await hub.disconnect()
        await face.stop()


async def _library_controls(face: VictronGxMqtt, hub: victron_mqtt.Hub) -> None:
    plant, before = face.plant, face.settings()
    setpoint = writable(hub, "hub4_0_hub4_ac_grid_setpoint")
    assert setpoint.value is None
    setpoint.set(-3_000)
    await until(lambda: face.controlled, "the setpoint")
    go(face, 30)
    assert plant.grid_w == pytest.approx(-3_000, abs=150)
    assert plant.battery_w > 0
    await until(lambda: number(hub, "system_0_system_dc_battery_power") < -500, "a discharge on the topics")
    setpoint.set(2_000)
    await until(lambda: face.ess.overrides.grid_setpoint_w == 2_000, "the setpoint")
    go(face, 20)
    assert plant.grid_w == pytest.approx(2_000, abs=150)
    assert plant.battery_w < 0
    setpoint.set(None)
    await until(lambda: not face.controlled, "the release")
    writable(hub, "system_0_system_ess_min_soc_limit").set(35)
    await until(lambda: face.settings()["BatteryLife/MinimumSocLimit"] == 35, "the reserve")
    assert plant.reserve_pct == 35
    writable(hub, "system_0_system_ess_min_soc_limit").set(int(before["BatteryLife/MinimumSocLimit"]))
    await until(lambda: face.settings() == before, "the old reserve")


# by plain MQTT


@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
async def test_face_victron_mqtt_mosquitto_serves_both_versions(protocol: aiomqtt.ProtocolVersion) -> None:
    require_mosquitto()
    face = VictronGxMqtt(make_plant(), broker="mosquitto")
    async with ear_at(await face.start(), f"{N}/#", protocol=protocol) as ear:
        assert (await snapshot(ear))["system/0/Serial"] == PORTAL
    await face.stop()


async def test_face_victron_mqtt_connection_names_the_instances(face: VictronGxMqtt) -> None:
    product: Face = face
    connection = await product.start()
    assert product.profile == "victron-gx-mqtt"
    assert connection.parameters == {
        "portal": PORTAL,
        "vebus": "276",
        "battery": "512",
        "grid": "30",
        "pvinverter": "20",
    }


async def test_face_victron_mqtt_serial_alone_is_retained(face: VictronGxMqtt, ear: Ear) -> None:
    assert await ear.json(f"{N}/system/0/Serial") == {"value": PORTAL}
    go(face, 5)
    assert set(ear.heard) == {f"{N}/system/0/Serial"}
    values = await snapshot(ear)
    assert len(values) > 60
    async with ear_at(Connection(url=f"mqtt://127.0.0.1:{face._broker.port}"), f"{N}/#") as later:
        await later.hears(f"{N}/system/0/Serial")
        assert later.retained == {f"{N}/system/0/Serial"}


async def test_face_victron_mqtt_snapshot_ends_with_the_own_token(face: VictronGxMqtt, ear: Ear) -> None:
    go(face, 5)
    values = await snapshot(ear, echo="mine")
    assert list(ear.heard)[-1] == f"{N}/full_publish_completed"
    assert (await ear.json(f"{N}/full_publish_completed"))["full-publish-completed-echo"] == "mine"
    assert values["system/0/Dc/Battery/Power"] == round(-face.plant.battery_w)
    assert values["system/0/Ac/PvOnGrid/L1/Power"] == 0
    assert values["system/0/Dc/Pv/Power"] is None
    assert values[SETPOINT] is None
    assert await ear.json(f"{N}/{CGWACS}/Hub4Mode") == {"value": 2, "min": 1, "max": 3}


async def test_face_victron_mqtt_old_firmware_and_one_phase() -> None:
    face = VictronGxMqtt(make_plant(), broker="standin", echoes=False, phases=1)
    async with ear_at(await face.start(), f"{N}/#") as ear:
        go(face, 5)
        values = await snapshot(ear, echo="mine")
        assert "full-publish-completed-echo" not in await ear.json(f"{N}/full_publish_completed")
        assert values["system/0/Ac/Grid/L1/Power"] == round(face.plant.grid_w)
        assert values["system/0/Ac/Grid/L2/Power"] is None
    await face.stop()


async def test_face_victron_mqtt_keepalive_ends_publishing_and_suppression_sends_changes_only(
    face: VictronGxMqtt, ear: Ear
) -> None:
    await snapshot(ear)
    ear.clear()
    await keep_alive(face, ear)
    go(face, 2)
    await ear.hears(f"{N}/system/0/Ac/Consumption/L1/Power")
    assert f"{N}/battery/512/ProductName" not in ear.heard
    go(face, 1)
    await ear.hears(f"{N}/heartbeat")
    go(face, 60)
    assert not face.alive
    for _ in range(2):
        ear.clear()
        await ear.say(f"{R}/battery/512/Soh", "")
        await ear.hears(f"{N}/battery/512/Soh")
        go(face, 30)
    assert set(ear.heard) == {f"{N}/battery/512/Soh"}


async def test_face_victron_mqtt_read_of_a_branch_gives_its_leaves(face: VictronGxMqtt, ear: Ear) -> None:
    await ear.hears(f"{N}/system/0/Serial")
    ear.clear()
    await ear.say(f"{R}/battery/512/Dc/0", "")
    await until(lambda: len(ear.heard) == 4, "four leaves")
    assert set(ear.heard) == {f"{N}/battery/512/Dc/0/{leaf}" for leaf in ("Power", "Voltage", "Current", "Temperature")}


async def test_face_victron_mqtt_silent_controller_ends_after_a_minute(face: VictronGxMqtt, ear: Ear) -> None:
    before = face.settings()
    await write(face, ear, SETPOINT, -2_000)
    go(face, 50)
    assert face.plant.grid_w == pytest.approx(-2_000, abs=150)
    await write(face, ear, SETPOINT, -2_000)
    go(face, 55)
    assert controlled(face)
    await keep_alive(face, ear)
    ear.clear()
    go(face, 6)
    assert not controlled(face)
    await ear.hears(f"{N}/{SETPOINT}")
    assert (await ear.json(f"{N}/{SETPOINT}"))["value"] is None
    go(face, 20)
    assert face.plant.grid_w == pytest.approx(0, abs=150)
    assert face.settings() == before


async def test_face_victron_mqtt_null_releases_at_once(face: VictronGxMqtt, ear: Ear) -> None:
    await write(face, ear, SETPOINT, 1_000)
    await write(face, ear, "hub4/0/Overrides/MaxDischargePower", 500)
    await write(face, ear, SETPOINT, None)
    assert controlled(face)
    await write(face, ear, "hub4/0/Overrides/MaxDischargePower", None)
    assert not controlled(face)


async def test_face_victron_mqtt_setpoint_ends_at_the_ratings_and_limits(face: VictronGxMqtt, ear: Ear) -> None:
    await write(face, ear, SETPOINT, -20_000)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(5_000, abs=10)
    await write(face, ear, "hub4/0/Overrides/MaxDischargePower", 1_500)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(1_500, abs=10)
    await write(face, ear, "hub4/0/Overrides/MaxDischargePower", -1)
    await write(face, ear, f"{CGWACS}/MaxFeedInPower", 800)
    go(face, 20)
    assert face.plant.grid_w == pytest.approx(-800, abs=100)
    await write(face, ear, "hub4/0/Overrides/ForceCharge", 1)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(-5_000, abs=10)


async def test_face_victron_mqtt_external_mode_needs_repetition(face: VictronGxMqtt, ear: Ear) -> None:
    await write(face, ear, f"{CGWACS}/Hub4Mode", 3)
    for phase in (1, 2, 3):
        await write(face, ear, f"vebus/276/Hub4/L{phase}/AcPowerSetpoint", -500)
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(1_500, abs=10)
    go(face, 60)
    assert face.plant.battery_w == pytest.approx(0, abs=10)
    assert controlled(face)  # passthru, and still in mode 3
    await write(face, ear, f"{CGWACS}/Hub4Mode", 2)
    assert not controlled(face)


async def test_face_victron_mqtt_drops_what_it_does_not_take(face: VictronGxMqtt, ear: Ear) -> None:
    before = face.settings()
    for path, value in (
        (f"{CGWACS}/BatteryLife/MinimumSocLimit", 101),
        (f"{CGWACS}/BatteryLife/MinimumSocLimit", None),
        (f"{CGWACS}/Hub4Mode", 4),
        (SETPOINT, "many"),
        (SETPOINT, True),
        ("system/0/Dc/Battery/Soc", 100),
        ("hub4/0/Overrides/Nothing", 1),
    ):
        await write(face, ear, path, value)
    heard = face.requests
    for payload in ("1000", "{", '{"Value": 5}', ""):
        await ear.say(f"{W}/{SETPOINT}", payload)
    await until(lambda: face.requests == heard + 4, "four more")
    assert not controlled(face)
    assert face.settings() == before


async def test_face_victron_mqtt_reserve_holds_in_its_own_mode_only() -> None:
    face = VictronGxMqtt(make_plant(soc_start_pct=21.0, reserve_pct=30.0), broker="standin")
    async with ear_at(await face.start()) as ear:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await write(face, ear, SETPOINT, -2_000)
        go(face, 20)
        assert face.plant.battery_w > 1_500
    await face.stop()


async def test_face_victron_mqtt_dynamic_ess_wins_over_the_setpoint() -> None:
    face = VictronGxMqtt(make_plant(), broker="standin", dynamic_ess=True)
    async with ear_at(await face.start()) as ear:
        await write(face, ear, SETPOINT, -2_000)
        go(face, 20)
        assert face.plant.grid_w == pytest.approx(0, abs=150)
    await face.stop()


async def test_face_victron_mqtt_service_that_goes_sends_nothing_as_payload(face: VictronGxMqtt, ear: Ear) -> None:
    await snapshot(ear)
    ear.clear()
    face.lose("battery/512")
    assert await ear.hears(f"{N}/battery/512/Soc") == b""
    assert (await ear.json(f"{N}/system/0/Dc/Battery/Soc"))["value"] is None
    assert "battery/512/Soc" not in await snapshot(ear)
    face.regain("battery/512")
    go(face, 1)
    assert (await snapshot(ear))["battery/512/Soc"] == face.plant.soc_pct


async def test_face_victron_mqtt_reboot_forgets_the_override_and_keeps_settings(face: VictronGxMqtt, ear: Ear) -> None:
    await write(face, ear, f"{CGWACS}/BatteryLife/MinimumSocLimit", 33)
    await write(face, ear, SETPOINT, -2_000)
    face.reboot()
    assert not controlled(face)
    assert not face.alive
    assert face.settings()["BatteryLife/MinimumSocLimit"] == 33
    await until(lambda: face.connected, "a new broker")


async def test_face_victron_mqtt_reboot_after_writes_takes_effect_first(face: VictronGxMqtt, ear: Ear) -> None:
    face.reboot_after_writes(2)
    await write(face, ear, f"{CGWACS}/BatteryLife/MinimumSocLimit", 33)
    await ear.client.publish(f"{W}/{CGWACS}/BatteryLife/MinimumSocLimit", '{"value": 44}')
    await until(lambda: face.settings()["BatteryLife/MinimumSocLimit"] == 44, "the second write")
    assert not face.connected
    await until(lambda: face.connected, "a new broker")


async def test_face_victron_mqtt_overwrite_takes_control_away(face: VictronGxMqtt, ear: Ear) -> None:
    await snapshot(ear)
    ear.clear()
    await write(face, ear, SETPOINT, -2_000)
    assert (await ear.json(f"{N}/{SETPOINT}"))["value"] == -2_000
    ear.clear()
    face.overwrite()
    assert not controlled(face)
    assert (await ear.json(f"{N}/{SETPOINT}"))["value"] is None


async def test_face_victron_mqtt_counters_start_anew(face: VictronGxMqtt, ear: Ear) -> None:
    assert (await snapshot(ear))["battery/512/History/ChargedEnergy"] > 1
    face.plant.reset_counters()
    assert (await snapshot(ear))["battery/512/History/ChargedEnergy"] == 0


async def test_face_victron_mqtt_troubles_show_on_the_topics(face: VictronGxMqtt, ear: Ear) -> None:
    await snapshot(ear)
    face.trouble = Trouble.REFUSE
    await write(face, ear, SETPOINT, -2_000)
    assert not controlled(face)
    face.trouble = Trouble.GARBAGE
    ear.clear()
    await ear.say(f"{R}/battery/512/Soh", "")
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(await ear.hears(f"{N}/battery/512/Soh"))
    face.trouble, face.late_s = Trouble.LATE, 0.05
    ear.clear()
    await ear.say(f"{R}/battery/512/Soh", "")
    assert await ear.json(f"{N}/battery/512/Soh") == {"value": 100}
    face.trouble = Trouble.SILENT
    heard = face.requests
    await ear.say(f"{W}/{SETPOINT}", '{"value": -2000}')
    face.trouble = Trouble.NONE
    await write(face, ear, f"{CGWACS}/BatteryLife/MinimumSocLimit", 25)
    assert heard < face.requests
    assert face.settings()["BatteryLife/MinimumSocLimit"] == 25


@pytest.mark.parametrize("broker", ["standin", "auto"])
async def test_face_victron_mqtt_disconnect_takes_the_broker_away_and_back(broker: str) -> None:
    face = VictronGxMqtt(make_plant(), broker=broker)
    connection = await face.start()
    face.trouble = Trouble.DISCONNECT
    go(face, 1)
    assert not face.connected
    face.trouble = Trouble.NONE
    await until(lambda: face.connected, "a new broker")
    async with ear_at(connection, f"{N}/#") as ear:
        assert (await ear.json(f"{N}/system/0/Serial"))["value"] == PORTAL
    await face.stop()
