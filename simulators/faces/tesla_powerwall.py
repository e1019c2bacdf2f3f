"""A Tesla Powerwall 2 or + by the local API of its gateway: HTTPS with a certificate of its own, login, telemetry.

Source: jasonacox/pypowerwall `pypowerwall/local/`, `API.md`, `pwsimulator/stub.py` (paths, answers, login by token or
by two cookies, 401 and 403, five minutes of quiet after a 429, full overwrite of /api/operation, raw scale of
percents). Client code by third parties, no vendor document. `/api/powerwalls`, `/api/solars`, `/api/config` and the
members `loginTime`, `power_supply_mode`, `pinv_grid_state`, `wobble_detected`, `q_out` and `i_out` follow the questions
of the client `tesla-powerwall` 0.5.3, which was not written by us and is run against this face.

There is no setpoint: mode and reserve are stored settings, and they are all that can be written. The battery charges
from the grid, where that is allowed, in mode `backup` and below the reserve. Percents are on the raw scale: what the
app shows is (p - 5) / 0.95. Not known, and chosen here for the worse: a reserve that is left out of a write becomes 0,
a mode that is left out becomes self-consumption; tokens do not survive a reboot. Not simulated: tariffs of the mode
`autonomous` (it serves the home), vitals (404 as from firmware 23.44 on), Powerwall 3.
"""

import secrets
from typing import ClassVar

from aiohttp import web

from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots
from simulators.faces.web import Certificate, WebServer, answer, body_of

SELF_CONSUMPTION, AUTONOMOUS, BACKUP = MODES = ("self_consumption", "autonomous", "backup")
LOGIN, LOGOUT, OPERATION, COMMIT = "/api/login/Basic", "/api/logout", "/api/operation", "/api/config/completed"
PASSWORD, EMAIL = "PWRWL", "owner@example.com"
RATE_WINDOW_S, QUIET_S = 60.0, 300.0
HIDDEN = 0.05
SESSIONS_MAX = 100
NOMINAL_V = 240.0
PART = "2012170-25-E"


def raw_pct(shown_pct: float) -> float:
    """The raw scale, with the 5 % that the app hides."""
    return shown_pct * (1 - HIDDEN) + 100 * HIDDEN


def shown_pct(raw: float) -> float:
    return max(0.0, (raw - 100 * HIDDEN) / (1 - HIDDEN))


class TeslaPowerwall:
    """The gateway. `tls` = False: plain HTTP; `requests_max`: more within a simulated minute bring 429 for five
    minutes; `token_s`: life of a session; `commit`: a write counts after /api/config/completed only; `write_blocked`:
    firmware that forbids writing."""

    profile: ClassVar[str] = "tesla-powerwall"

    def __init__(
        self,
        plant: Plant,
        *,
        tls: bool = True,
        password: str = PASSWORD,
        mode: str = SELF_CONSUMPTION,
        requests_max: int | None = None,
        token_s: float = 86_400.0,
        commit: bool = False,
        write_blocked: bool = False,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.password = password
        self.din = f"1232100-00-E--TG{plant.index:012d}"
        self.logins = 0
        self.refused_hasty = 0
        self._tls = tls
        self._requests_max = requests_max
        self._token_s = token_s
        self._commit = commit
        self._write_blocked = write_blocked
        self._mode, self._reserve = mode, raw_pct(plant.reserve_pct)
        self._owners = (self._mode, self._reserve)
        self._pending: tuple[str, float] | None = None
        self._sessions: dict[str, float] = {}
        self._up_s = 0.0
        self._window = (0.0, 0)
        self._quiet_until_s = 0.0
        self._certificate: Certificate | None = None
        self.server = WebServer(self, self._routes(), reads=frozenset((LOGIN,)), busy_retry_s=300)
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        parameters = {"email": EMAIL, "din": self.din}
        if self._tls:
            self._certificate = self._certificate or await Certificate.make("powerwall")
            parameters["fingerprint"] = self._certificate.fingerprint
        port = await self.server.start(port=port, context=self._certificate.context if self._certificate else None)
        url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return Connection(url=url, parameters=parameters, username="customer", token=self.password)

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._up_s += dt_s
        plant = self.plant
        plant.reserve_pct = shown_pct(self._reserve)
        if self._mode == BACKUP or plant.soc_pct < plant.reserve_pct - 0.5:
            plant.serve_backup()
        else:
            plant.serve_home()
        plant.step(dt_s)

    def reboot(self) -> None:
        """Mode and reserve are stored, sessions and what was not committed are not."""
        self._sessions.clear()
        self._pending = None
        self._up_s = 0.0
        self._window, self._quiet_until_s = (0.0, 0), 0.0
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {"real_mode": float(MODES.index(self._mode)), "backup_reserve_percent": self._reserve}

    def overwrite(self) -> None:
        """The owner's app puts back what was set in the beginning."""
        self._mode, self._reserve = self._owners

    @property
    def controlled(self) -> bool:
        """There is nothing to be controlled by: mode and reserve are settings."""
        return False

    def end_sessions(self) -> None:
        """Every token becomes invalid."""
        self._sessions.clear()

    # requests

    def _routes(self) -> list[web.RouteDef]:
        documents = {
            "/api/status": self._status,
            "/api/site_info": self._site_info,
            "/api/site_info/site_name": lambda: {"site_name": "Home", "timezone": "Europe/Berlin"},
            "/api/sitemaster": self._sitemaster,
            "/api/powerwalls": self._powerwalls,
            "/api/solars": lambda: [{"brand": "Other", "model": "Inverter", "power_rating_watts": 10_000}],
            "/api/config": lambda: {"vin": self.din},
            "/api/meters/aggregates": self._aggregates,
            "/api/system_status": self._system_status,
            "/api/system_status/soe": lambda: {"percentage": raw_pct(self.plant.soc_pct)},
            "/api/system_status/grid_status": self._grid_status,
            "/api/system_status/grid_faults": list,
            "/api/solar_powerwall": dict,
            OPERATION: self._operation,
        }

        def reader(path: str) -> web.RouteDef:
            async def read(request: web.Request) -> web.Response:
                return self._stranger(request) or answer(documents[path]())

            return web.get(path, read)

        return [
            web.post(LOGIN, self._login),
            web.get(LOGOUT, self._logout),
            web.post(OPERATION, self._operate),
            web.get(COMMIT, self._completed),
            *(reader(path) for path in documents),
        ]

    def _hasty(self) -> web.Response | None:
        if self._requests_max is None:
            return None
        began_s, count = self._window
        if self._up_s - began_s >= RATE_WINDOW_S:
            began_s, count = self._up_s, 0
        self._window = (began_s, count + 1)
        if count >= self._requests_max and self._up_s >= self._quiet_until_s:
            self._quiet_until_s = self._up_s + QUIET_S
        if self._up_s >= self._quiet_until_s:
            return None
        self.refused_hasty += 1
        return answer({"code": 429, "error": "Too Many Requests", "message": "rate limited"}, status=429)

    def _stranger(self, request: web.Request) -> web.Response | None:
        """What a hasty client or one without a valid session is told."""
        if hasty := self._hasty():
            return hasty
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.cookies.get("AuthCookie")
        if not token:
            error = "Unable to GET to resource"
            return answer(
                {"code": 403, "error": error, "message": "User does not have adequate access rights"}, status=403
            )
        if self._up_s >= self._sessions.get(token, 0.0):
            return answer({"code": 401, "error": "invalid token", "message": "Token Expired"}, status=401)
        return None

    async def _login(self, request: web.Request) -> web.Response:
        """JSON or a form."""
        if hasty := self._hasty():
            return hasty
        given: dict[str, object] = dict(await request.post()) or await body_of(request)
        self.logins += 1
        if given.get("username") != "customer" or given.get("password") != self.password:
            return answer({"code": 401, "error": "bad credentials", "message": "Login Error"}, status=401)
        token = secrets.token_urlsafe(48)
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[token] = self._up_s + self._token_s
        email = str(given.get("email", ""))
        roles = {"email": email, "firstname": "Tesla", "lastname": "Energy", "roles": ["Home_Owner"]}
        response = answer(roles | {"token": token, "provider": "Basic", "loginTime": "2026-05-04T12:00:00+02:00"})
        response.set_cookie("AuthCookie", token)
        response.set_cookie("UserRecord", secrets.token_urlsafe(16))
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        if no := self._stranger(request):
            return no
        self._sessions.clear()
        return web.Response(status=204)

    async def _operate(self, request: web.Request) -> web.Response:
        if no := self._stranger(request):
            return no
        if self._write_blocked:
            return answer({"code": 403, "error": "Unable to POST to resource", "message": "Forbidden"}, status=403)
        body = await body_of(request)
        mode, reserve = body.get("real_mode", SELF_CONSUMPTION), body.get("backup_reserve_percent", 0)
        number = isinstance(reserve, int | float) and not isinstance(reserve, bool)
        if mode not in MODES or not number or not 0 <= float(str(reserve)) <= 100:
            raise web.HTTPBadRequest
        wanted = (str(mode), float(str(reserve)))
        if self._commit:
            self._pending = wanted
        else:
            self._take(wanted)
        return answer({"real_mode": wanted[0], "backup_reserve_percent": wanted[1]})

    async def _completed(self, request: web.Request) -> web.Response:
        if no := self._stranger(request):
            return no
        if self._pending is not None:
            self._take(self._pending)
            self._pending = None
        return web.Response(status=202)

    def _take(self, wanted: tuple[str, float]) -> None:
        self._mode, self._reserve = wanted
        self.plant.reserve_pct = shown_pct(self._reserve)

    # documents

    def _status(self) -> dict[str, object]:
        hours, rest_s = divmod(self._up_s, 3600)
        return {
            "din": self.din,
            "start_time": "2026-05-04 00:00:00 +0200",
            "up_time_seconds": f"{hours:.0f}h{rest_s // 60:.0f}m{rest_s % 60:.3f}s",
            "is_new": False,
            "version": "23.44.0 9064fc6a",
            "git_hash": "9064fc6a5b32425509f91f19556f2431cb7f6872",
            "commission_count": 0,
            "device_type": "teg",
            "sync_type": "v2.1",
            "can_reboot": True,
        }

    def _site_info(self) -> dict[str, object]:
        plant = self.plant
        energy_kwh, power_kw = plant.capacity_wh / 1000, plant.discharge_w_max / 1000
        return {
            "max_system_energy_kWh": energy_kwh,
            "max_system_power_kW": power_kw,
            "nominal_system_energy_kWh": energy_kwh,
            "nominal_system_power_kW": power_kw,
            "site_name": "Home",
            "timezone": "Europe/Berlin",
        }

    @staticmethod
    def _sitemaster() -> dict[str, object]:
        return {"status": "StatusUp", "running": True, "connected_to_tesla": True, "power_supply_mode": False}

    def _powerwalls(self) -> dict[str, object]:
        pack = {"PackagePartNumber": PART, "PackageSerialNumber": f"TG{self.plant.index:012d}"}
        return {"powerwalls": [pack], "gateway_din": self.din}

    def _aggregates(self) -> dict[str, object]:
        plant = self.plant
        load_wh = plant.imported_wh + plant.pv_wh + plant.discharged_wh - plant.exported_wh - plant.charged_wh
        meters = {
            "site": (plant.grid_w, plant.exported_wh, plant.imported_wh),
            "battery": (plant.battery_w, plant.discharged_wh, plant.charged_wh),
            "load": (plant.load_w, 0.0, load_wh),
            "solar": (plant.pv_w, plant.pv_wh, 0.0),
        }
        return {
            name: {
                "last_communication_time": "2026-05-04T12:00:00.290637169+02:00",
                "instant_power": round(power_w, 3),
                "instant_reactive_power": 0,
                "frequency": 0 if plant.islanded and name == "site" else 50.0,
                "energy_exported": out_wh,
                "energy_imported": in_wh,
                "instant_average_voltage": NOMINAL_V,
                "instant_total_current": round(power_w / NOMINAL_V, 2),
                "timeout": 1_500_000_000,
            }
            for name, (power_w, out_wh, in_wh) in meters.items()
        }

    def _system_status(self) -> dict[str, object]:
        plant = self.plant
        full_wh = plant.capacity_wh / (1 - HIDDEN)
        energies: dict[str, object] = {
            "nominal_full_pack_energy": round(full_wh),
            "nominal_energy_remaining": round(full_wh * raw_pct(plant.soc_pct) / 100),
        }
        block = energies | {
            "PackagePartNumber": PART,
            "PackageSerialNumber": f"TG{plant.index:012d}",
            "disabled_reasons": [],
            "pinv_state": "PINV_GridFollowing",
            "pinv_grid_state": "Grid_Uncompliant" if plant.islanded else "Grid_Compliant",
            "wobble_detected": False,
            "p_out": round(plant.battery_w),
            "q_out": 0,
            "i_out": round(plant.battery_w / NOMINAL_V, 1),
            "v_out": NOMINAL_V,
            "f_out": 50.0,
            "energy_charged": round(plant.charged_wh),
            "energy_discharged": round(plant.discharged_wh),
            "off_grid": plant.islanded,
            "backup_ready": True,
        }
        return energies | {
            "max_charge_power": plant.charge_w_max,
            "max_discharge_power": plant.discharge_w_max,
            "instantaneous_max_charge_power": round(plant.charge_limit_w),
            "instantaneous_max_discharge_power": round(plant.discharge_limit_w),
            "system_island_state": self._grid_status()["grid_status"],
            "available_blocks": 1,
            "battery_blocks": [block],
            "grid_faults": [],
        }

    def _grid_status(self) -> dict[str, object]:
        state = "SystemIslandedActive" if self.plant.islanded else "SystemGridConnected"
        return {"grid_status": state, "grid_services_active": False}

    def _operation(self) -> dict[str, object]:
        return {"real_mode": self._mode, "backup_reserve_percent": self._reserve, "freq_shift_load_shed_soe": 65}
