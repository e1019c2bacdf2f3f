"""The simulated sonnenBatterie, read and steered by the independent client library `sonnenbatterie`."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
from sonnenbatterie import AsyncSonnenBatterie
from sonnenbatterie2 import AsyncSonnenBatterieV2

from simulators.faces.plant import Connection, Face, Trouble
from simulators.faces.sonnen_v1 import SonnenV1
from simulators.faces.sonnen_v2 import SonnenV2
from tests.scenes.register_faces import NOON_S, controlled, go, make_plant
from tests.scenes.web_faces import Web, web_of


@pytest.fixture
async def face() -> AsyncIterator[SonnenV2]:
    product = SonnenV2(make_plant())
    yield product
    await product.stop()


@pytest.fixture
async def web(face: SonnenV2) -> AsyncIterator[Web]:
    async with web_of(await face.start(), headers={"Auth-Token": face.token}) as client:
        yield client


@pytest.fixture
async def library(face: SonnenV2) -> AsyncIterator[AsyncSonnenBatterieV2]:
    """The library takes a port where it expects an address."""
    client = AsyncSonnenBatterieV2(_host(await face.start()), face.token)
    yield client
    await client.logout()


def _host(connection: Connection) -> str:
    return urlsplit(connection.url).netloc


def test_faces_sonnen_fit_the_protocol(face: SonnenV2) -> None:
    products: list[Face] = [face, SonnenV1(make_plant())]
    assert [product.profile for product in products] == ["sonnen-v2", "sonnen-v1"]


@pytest.mark.parametrize("time_s", [NOON_S, 64_800.0])
async def test_face_sonnen_v2_library_reads_the_truth(time_s: float) -> None:
    face = SonnenV2(make_plant(pv_peak_w=6_000.0, time_s=time_s))
    go(face, 60)
    plant = face.plant
    client = AsyncSonnenBatterieV2(_host(await face.start()), face.token)
    status = await client.get_status()
    assert status["Pac_total_W"] == round(plant.battery_w)
    assert status["BatteryCharging"] == (plant.battery_w < -10)
    assert status["GridFeedIn_W"] == round(-plant.grid_w)
    assert status["Production_W"] == round(plant.pv_w)
    assert status["Consumption_W"] == round(plant.load_w)
    assert status["Consumption_Avg"] == pytest.approx(plant.load_w, rel=0.3)
    assert status["USOC"] == await client.get_current_charge_level() == round(plant.soc_pct)
    assert status["BackupBuffer"] == "20"
    assert status["OperatingMode"] == "2"
    assert status["Sac2"] is None
    assert status["RemainingCapacity_Wh"] == pytest.approx(plant.capacity_wh * plant.soc_pct / 100, abs=1)
    latest = await client.get_latest_data()
    assert latest["FullChargeCapacity"] == plant.capacity_wh
    assert latest["UTC_Offet"] == 2
    battery = await client.get_battery_module_data()
    assert battery["maximumcelltemperature"] == pytest.approx(plant.temp_c + 0.5, abs=0.01)
    assert (await client.get_inverter_data())["pac_total"] == pytest.approx(plant.battery_w, abs=0.1)
    meters = {meter["direction"]: meter for meter in await client.get_powermeter_data()}
    assert meters["production"]["kwh_imported"] == pytest.approx(plant.pv_wh / 1000, abs=0.001)
    assert meters["consumption"]["w_total"] == pytest.approx(plant.load_w, abs=0.1)
    configurations = await client.get_configurations()
    assert configurations["IC_InverterMaxPower_w"] == "5000"
    assert await client.get_tou_schedule_json() == []
    assert await client.get_operating_mode_name() == "Automatic - Self-Consumption"
    await client.logout()
    await face.stop()


async def test_face_sonnen_v2_library_steers_and_releases(face: SonnenV2, library: AsyncSonnenBatterieV2) -> None:
    before = face.settings()
    go(face, 10)
    soc_pct, import_w = float(face.plant.batteries.true_soc_pct[0]), face.plant.grid_w
    assert await library.set_operating_mode(1) == 1
    assert await library.discharge_battery(3_000) is True
    go(face, 30)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(3_000, abs=20)
    assert face.plant.grid_w < import_w
    assert face.plant.batteries.true_soc_pct[0] < soc_pct
    assert (await library.get_latest_data())["SetPoint_W"] == 3_000
    await library.discharge_battery(0)
    await library.charge_battery(2_000)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
    await library.discharge_battery(0)
    await library.charge_battery(0)
    go(face, 30)
    assert face.plant.battery_w == pytest.approx(0, abs=5)
    assert await library.set_operating_mode(2) == 2
    assert not controlled(face)
    assert face.settings() == before


async def test_face_sonnen_v2_library_sets_the_reserve(face: SonnenV2, library: AsyncSonnenBatterieV2) -> None:
    assert await library.set_battery_reserve(35) == {"EM_USOC": "35"}
    assert await library.get_battery_reserve() == 35
    assert face.plant.reserve_pct == 35


async def test_face_sonnen_v2_silent_controller_is_followed_for_ever(face: SonnenV2, web: Web) -> None:
    await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"})
    await web.post("/api/v2/setpoint/discharge/1000")
    go(face, 3_600, dt_s=5)
    assert controlled(face)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)
    face.reboot()
    go(face, 10)
    assert face.plant.battery_w == pytest.approx(1_000, abs=20)


async def test_face_sonnen_v2_pool_of_the_maker_drops_a_setpoint() -> None:
    face = SonnenV2(make_plant(), pool_s=40)
    async with web_of(await face.start(), headers={"Auth-Token": face.token}) as web:
        await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"})
        await web.post("/api/v2/setpoint/charge/2000")
        go(face, 30)
        assert face.plant.battery_w == pytest.approx(-2_000, abs=20)
        go(face, 30)
        assert face.plant.battery_w > 0
        assert controlled(face)
    await face.stop()


async def test_face_sonnen_v2_setpoint_outside_manual_mode_is_forgotten(face: SonnenV2, web: Web) -> None:
    assert await web.post("/api/v2/setpoint/charge/2000") == (200, True)
    await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"})
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(0, abs=5)


async def test_face_sonnen_v2_reserve_holds_only_in_its_own_mode() -> None:
    face = SonnenV2(make_plant(soc_start_pct=21.0, reserve_pct=30.0))
    async with web_of(await face.start(), headers={"Auth-Token": face.token}) as web:
        go(face, 20)
        assert face.plant.battery_w <= 0
        await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"})
        await web.post("/api/v2/setpoint/discharge/2000")
        go(face, 20)
        assert face.plant.battery_w > 1_500
    await face.stop()


async def test_face_sonnen_v2_refuses_strangers_and_nonsense(face: SonnenV2, web: Web) -> None:
    for body in ({"EM_OperatingMode": "3"}, {"EM_OperatingMode": 1}, {"EM_USOC": "101"}, {"DE_Software": "1"}, {}):
        assert (await web.put("/api/v2/configurations", body))[0] == 400
    assert (await web.put("/api/v2/configurations", {"EM_USOC": "50", "EM_OperatingMode": "x"}))[0] == 400
    assert face.settings() == {"operating_mode": 2, "reserve": 20}
    assert (await web.post("/api/v2/setpoint/charge/-5"))[0] == 404
    assert (await web.post("/api/v2/setpoint/sideways/5"))[0] == 404
    assert (await web.get("/api/v2/configurations/NOTHING"))[0] == 404
    web.headers["Auth-Token"] = "wrong"
    assert await web.get("/api/v2/status") == (401, {"error": "Unauthorized"})
    assert (await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"}))[0] == 401
    assert not controlled(face)


async def test_face_sonnen_v2_older_and_read_only_firmware() -> None:
    face = SonnenV2(make_plant(), write_api=False, empty_on_bad_token=True, remaining_doubled=True)
    async with web_of(await face.start(), headers={"Auth-Token": face.token}) as web:
        status = (await web.get("/api/v2/status"))[1]
        assert status["RemainingCapacity_Wh"] == pytest.approx(2 * 10_000 * status["USOC"] / 100, abs=2)
        assert (await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"}))[0] == 403
        web.headers.clear()
        assert await web.get("/api/v2/status") == (200, {})
    await face.stop()


async def test_face_sonnen_v2_overwrite_returns_to_self_consumption(face: SonnenV2, web: Web) -> None:
    await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"})
    face.overwrite()
    assert not controlled(face)
    assert (await web.get("/api/v2/status"))[1]["OperatingMode"] == "2"


async def test_face_sonnen_v2_reboot_after_writes_takes_effect_unanswered(face: SonnenV2, web: Web) -> None:
    face.reboot_after_writes(2)
    assert (await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"}))[0] == 200
    with pytest.raises(aiohttp.ClientError):  # aiohttp would repeat a PUT by itself
        await web.post("/api/v2/setpoint/discharge/1500")
    go(face, 20)
    assert face.plant.battery_w == pytest.approx(1_500, abs=20)


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT])
async def test_face_sonnen_v2_trouble_gives_no_answer(face: SonnenV2, trouble: Trouble) -> None:
    face.trouble = trouble
    async with web_of(await face.start(), timeout_s=0.2) as web:
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await web.get("/api/v2/status")


async def test_face_sonnen_v2_other_troubles_say_so(face: SonnenV2, web: Web) -> None:
    face.trouble = Trouble.GARBAGE
    status, body = await web.get("/api/v2/status")
    assert status == 200
    assert str(body).startswith("<html>")
    face.trouble = Trouble.BUSY
    assert (await web.get("/api/v2/status"))[0] == 429
    assert web.answer_headers["Retry-After"] == "5"
    face.trouble = Trouble.REFUSE
    assert (await web.get("/api/v2/status"))[0] == 200
    assert (await web.put("/api/v2/configurations", {"EM_OperatingMode": "1"}))[0] == 403
    assert not controlled(face)
    face.trouble, face.late_s = Trouble.LATE, 0.05
    assert (await web.get("/api/v2/status"))[0] == 200


async def test_face_sonnen_v2_starts_again_on_its_port(face: SonnenV2) -> None:
    first = await face.start()
    await face.stop()
    assert await face.start(port=urlsplit(first.url).port or 0) == first


async def test_face_sonnen_v1_serves_status_only() -> None:
    face = SonnenV1(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    connection = await face.start()
    go(face, 60)
    async with web_of(connection) as web:
        code, status = await web.get("/api/v1/status")
        assert code == 200
        assert status["Pac_total_W"] == round(face.plant.battery_w) < 0
        assert status["GridFeedIn_W"] == round(-face.plant.grid_w)
        assert (await web.get("/api/v2/status"))[0] == 404
        assert (await web.put("/api/v1/status", {"EM_OperatingMode": "1"}))[0] == 405
    # the library logs in first, which this port does not offer: it is handed a session as if it had
    client = AsyncSonnenBatterie("User", "password", _host(connection))
    client.token = "none"
    client._session = aiohttp.ClientSession()
    assert (await client.get_status())["USOC"] == face.plant.soc_pct
    await client.logout()
    face.reboot()
    face.overwrite()
    face.reboot_after_writes(1)
    assert not face.controlled
    assert face.settings() == {"operating_mode": 2, "reserve": 20}
    await face.stop()
