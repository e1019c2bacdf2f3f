"""The simulated Powerwall gateway, read and set by the independent client library `pypowerwall` over HTTPS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pypowerwall
import pytest

from simulators.faces.plant import Connection, Face, Trouble
from simulators.faces.tesla_powerwall import TeslaPowerwall
from tests.scenes.register_faces import NOON_S, go, make_plant
from tests.scenes.web_faces import Web, web_of

# pypowerwall turns certificate checks off, as it must with these gateways, and urllib3 says so each time
pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request:urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture
async def face() -> AsyncIterator[TeslaPowerwall]:
    product = TeslaPowerwall(make_plant(), tls=False)
    yield product
    await product.stop()


@pytest.fixture
async def web(face: TeslaPowerwall) -> AsyncIterator[Web]:
    async with web_of(await face.start()) as client:
        await login(client, face)
        yield client


async def login(web: Web, face: TeslaPowerwall) -> None:
    body = {"username": "customer", "password": face.password, "email": "owner@example.com", "force_sm_off": False}
    status, answer = await web.post("/api/login/Basic", body)
    assert status == 200
    web.headers["Authorization"] = f"Bearer {answer['token']}"


def _library(connection: Connection, directory: Path, authmode: str) -> Any:
    """It takes host:port, always speaks HTTPS, and verifies no certificate."""
    return pypowerwall.Powerwall(
        host=urlsplit(connection.url).netloc,
        password=connection.token,
        email=connection.parameters["email"],
        authmode=authmode,
        cachefile=str(directory / "session"),
        pwcacheexpire=0,
        poolmaxsize=0,
        failover=False,
    )


def test_face_powerwall_fits_the_protocol(face: TeslaPowerwall) -> None:
    product: Face = face
    assert product.profile == "tesla-powerwall"
    assert not product.controlled


@pytest.mark.parametrize("authmode", ["token", "cookie"])
async def test_face_powerwall_library_reads_the_truth(authmode: str, tmp_path: Path) -> None:
    face = TeslaPowerwall(make_plant(pv_peak_w=6_000.0, time_s=NOON_S))
    connection = await face.start()
    go(face, 60)
    plant = face.plant
    library = await asyncio.to_thread(_library, connection, tmp_path, authmode)
    assert await asyncio.to_thread(library.is_connected)
    assert await asyncio.to_thread(library.din) == face.din
    power = await asyncio.to_thread(library.power)
    assert power["battery"] == pytest.approx(plant.battery_w, abs=0.01)
    assert plant.battery_w < 0
    assert power["site"] == pytest.approx(plant.grid_w, abs=0.01)
    assert power["solar"] == pytest.approx(plant.pv_w, abs=0.01)
    assert power["load"] == pytest.approx(plant.load_w, abs=0.01)
    assert await asyncio.to_thread(library.level, scale=True) == pytest.approx(plant.soc_pct)
    assert await asyncio.to_thread(library.get_reserve) == pytest.approx(20)
    assert await asyncio.to_thread(library.get_mode) == "self_consumption"
    assert await asyncio.to_thread(library.grid_status) == "UP"
    status = await asyncio.to_thread(library.system_status)
    usable_wh = status["nominal_full_pack_energy"] * 0.95
    assert usable_wh == pytest.approx(plant.capacity_wh, abs=1)
    blocks = await asyncio.to_thread(library.battery_blocks)
    block = next(iter(blocks.values()))
    assert block["energy_charged"] == round(plant.charged_wh)
    meters = await asyncio.to_thread(library.poll, "/api/meters/aggregates")
    assert meters["battery"]["energy_exported"] == pytest.approx(plant.discharged_wh)
    assert meters["site"]["energy_imported"] == pytest.approx(plant.imported_wh)
    assert meters["solar"]["energy_exported"] == pytest.approx(plant.pv_wh)
    await face.stop()


async def test_face_powerwall_library_sets_reserve_and_mode(tmp_path: Path) -> None:
    face = TeslaPowerwall(make_plant(grid_charge_allowed=True))
    library = await asyncio.to_thread(_library, await face.start(), tmp_path, "token")
    before = face.settings()
    go(face, 20)
    assert face.plant.battery_w > 0
    await asyncio.to_thread(library.set_reserve, 62.0)  # raw scale: 60 % as the app shows it
    assert face.plant.reserve_pct == pytest.approx(60)
    await asyncio.to_thread(library.set_reserve, 100.0)
    go(face, 20)
    assert face.plant.battery_w < -1_000  # charges up to the reserve
    await asyncio.to_thread(library.set_operation, 24.0, "backup")
    assert face.settings() == {"real_mode": 2, "backup_reserve_percent": 24}
    face.end_sessions()  # the library logs in again by itself
    await asyncio.to_thread(library.set_mode, "self_consumption")
    assert face.settings() == before
    go(face, 20)
    assert face.plant.battery_w > 0
    await face.stop()


async def test_face_powerwall_sessions_are_needed_and_end(face: TeslaPowerwall) -> None:
    async with web_of(await face.start()) as web:
        assert (await web.get("/api/system_status/soe"))[0] == 403
        status, _ = await web.post("/api/login/Basic", {"username": "customer", "password": "wrong"})
        assert status == 401
        await login(web, face)
        assert (await web.get("/api/system_status/soe"))[0] == 200
        face.end_sessions()
        assert (await web.get("/api/system_status/soe"))[0] == 401
        await login(web, face)
        go(face, 86_401, dt_s=60)
        assert (await web.get("/api/system_status/soe"))[0] == 401
        await login(web, face)
        face.reboot()
        assert (await web.get("/api/system_status/soe"))[0] == 401
        assert face.logins == 4


async def test_face_powerwall_many_requests_bring_five_minutes_of_429() -> None:
    face = TeslaPowerwall(make_plant(), tls=False, requests_max=3)
    async with web_of(await face.start()) as web:
        await login(web, face)
        codes = [(await web.get("/api/system_status/soe"))[0] for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        go(face, 290, dt_s=5)
        assert (await web.get("/api/system_status/soe"))[0] == 429
        go(face, 15, dt_s=5)
        assert (await web.get("/api/system_status/soe"))[0] == 200
        assert face.refused_hasty == 3
    await face.stop()


async def test_face_powerwall_writes_are_checked_and_overwrite_fully(face: TeslaPowerwall, web: Web) -> None:
    before = face.settings()
    for body in (
        {"real_mode": "turbo", "backup_reserve_percent": 20},
        {"real_mode": "backup", "backup_reserve_percent": 101},
        {"real_mode": "backup", "backup_reserve_percent": "20"},
        {"real_mode": "backup", "backup_reserve_percent": None},
    ):
        assert (await web.post("/api/operation", body))[0] == 400
    assert face.settings() == before
    assert (await web.post("/api/operation", {"real_mode": "autonomous"}))[0] == 200
    assert face.settings() == {"real_mode": 1, "backup_reserve_percent": 0}
    assert face.plant.reserve_pct == 0
    assert (await web.get("/api/devices/vitals"))[0] == 404
    assert (await web.post("/api/setpoint", {"power": 1000}))[0] == 404


async def test_face_powerwall_settings_outlive_client_and_reboot(face: TeslaPowerwall, web: Web) -> None:
    await web.post("/api/operation", {"real_mode": "backup", "backup_reserve_percent": 81})
    go(face, 3_600, dt_s=5)
    face.reboot()
    assert face.settings() == {"real_mode": 2, "backup_reserve_percent": 81}
    face.overwrite()
    assert face.settings() == {"real_mode": 0, "backup_reserve_percent": 24}


async def test_face_powerwall_firmware_that_commits_or_forbids() -> None:
    face = TeslaPowerwall(make_plant(), tls=False, commit=True)
    async with web_of(await face.start()) as web:
        await login(web, face)
        await web.post("/api/operation", {"real_mode": "backup", "backup_reserve_percent": 50})
        assert face.settings()["real_mode"] == 0
        assert (await web.get("/api/config/completed"))[0] == 202
        assert face.settings()["real_mode"] == 2
    await face.stop()
    closed = TeslaPowerwall(make_plant(), tls=False, write_blocked=True)
    async with web_of(await closed.start()) as web:
        await login(web, closed)
        body = {"real_mode": "backup", "backup_reserve_percent": 50}
        assert (await web.post("/api/operation", body))[0] == 403
        assert closed.settings()["real_mode"] == 0
    await closed.stop()


async def test_face_powerwall_certificate_is_pinned_by_its_fingerprint() -> None:
    face = TeslaPowerwall(make_plant())
    connection = await face.start()
    good, bad = (aiohttp.Fingerprint(bytes.fromhex(text)) for text in (connection.parameters["fingerprint"], "00" * 32))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{connection.url}/api/status", ssl=good) as response:
            assert response.status == 403
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await session.get(f"{connection.url}/api/status", ssl=bad)
    await face.stop()


async def test_face_powerwall_reboot_after_writes_takes_effect_unanswered(face: TeslaPowerwall, web: Web) -> None:
    face.reboot_after_writes(1)
    with pytest.raises(aiohttp.ClientError):
        await web.post("/api/operation", {"real_mode": "backup", "backup_reserve_percent": 50})
    assert face.settings() == {"real_mode": 2, "backup_reserve_percent": 50}


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.DISCONNECT])
async def test_face_powerwall_trouble_gives_no_answer(face: TeslaPowerwall, trouble: Trouble) -> None:
    face.trouble = trouble
    async with web_of(await face.start(), timeout_s=0.2) as web:
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await web.get("/api/status")


async def test_face_powerwall_refusing_keeps_the_login(face: TeslaPowerwall, web: Web) -> None:
    face.trouble = Trouble.REFUSE
    await login(web, face)
    assert (await web.post("/api/operation", {"real_mode": "backup", "backup_reserve_percent": 50}))[0] == 403
    assert face.settings()["real_mode"] == 0
    face.trouble = Trouble.BUSY
    assert (await web.post("/api/login/Basic", {}))[0] == 429
    assert web.answer_headers["Retry-After"] == "300"
