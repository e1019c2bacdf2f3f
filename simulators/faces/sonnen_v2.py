"""A sonnenBatterie by its local API v2: plain HTTP, a token in each request, the setpoint's direction in the path.

Sources: weltmeyer/python_sonnenbatterie `sonnenbatterie2/` (paths, header, modes, strings, answers of PUT);
evcc-io/evcc `templates/definition/meter/sonnenbatterie.yaml` (order of writes, release); MarkusBiggus/sonnen_api_v2
`tests/` (answers of status, latestdata, battery, powermeter, inverter); ioBroker.sonnen#118 and ha_sonnenbatterie#92
(setpoints that fall back where the maker's own pool steers), ha_sonnenbatterie#97 (mode 11). Client code by third
parties, no vendor document.

No watchdog is documented: in manual mode the last setpoint stays. Not known, and chosen here for the worse: mode,
reserve and setpoint survive a reboot; a setpoint outside manual mode is answered `true` and forgotten; one above the
rating is limited without a word; the reserve is not kept in manual mode. `pool_s`: the maker's pool drops a setpoint
so long after it came. `empty_on_bad_token`: older firmware that answers `{}` with 200 instead of 401. Not simulated:
the login with a password, schedules of mode 10 (it serves the home).
"""

from typing import ClassVar

from aiohttp import web

from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.sonnen import (
    MANUAL,
    MODULE_EXTENSION,
    SELF_CONSUMPTION,
    TIME_OF_USE,
    WALL_BOX,
    LoadAverage,
    local_time,
    raw_soc_pct,
    status_of,
)
from simulators.faces.upkeep import Reboots
from simulators.faces.web import WebServer, answer, body_of

MODES = (MANUAL, SELF_CONSUMPTION, MODULE_EXTENSION, TIME_OF_USE, WALL_BOX)
PACK_V, MODULE_WH = 211.0, 5_000
API = "/api/v2"
TOKEN = "2c7e5a90-41d3-4b7b-9a0e-6f1d0c8e5b21"


class SonnenV2:
    """The product; `status_open`: GET status needs no token; `write_api`: writing is switched on in its settings."""

    profile: ClassVar[str] = "sonnen-v2"

    def __init__(
        self,
        plant: Plant,
        *,
        token: str = TOKEN,
        mode: str = SELF_CONSUMPTION,
        write_api: bool = True,
        status_open: bool = False,
        empty_on_bad_token: bool = False,
        remaining_doubled: bool = False,
        pool_s: float | None = None,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.token = token
        self._write_api = write_api
        self._status_open = status_open
        self._empty_on_bad_token = empty_on_bad_token
        self._doubled = remaining_doubled
        self._pool_s = pool_s
        self._stored = {"EM_OperatingMode": mode, "EM_USOC": str(round(plant.reserve_pct)), "EM_ToU_Schedule": "[]"}
        self._setpoint_w: float | None = None
        self._age_s = 0.0
        self._average = LoadAverage(plant)
        self.server = WebServer(self, self._routes())
        self._reboots = Reboots(self.reboot)
        self.server.after_write = self._reboots.wrote

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"http://127.0.0.1:{await self.server.start(port=port)}", token=self.token)

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        plant = self.plant
        self._average.step(dt_s)
        self._age_s += dt_s
        if self._pool_s is not None and self._age_s >= self._pool_s:
            self._setpoint_w = None
        plant.reserve_pct = float(self._stored["EM_USOC"])
        mode = self._stored["EM_OperatingMode"]
        if mode == MANUAL and (self._setpoint_w is not None or self._pool_s is None):
            plant.follow(self._setpoint_w or 0.0)
        elif mode == MODULE_EXTENSION:
            plant.follow(0.0)
        else:
            plant.serve_home()
        plant.step(dt_s)

    def reboot(self) -> None:
        """Mode, reserve and setpoint are stored."""
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {"operating_mode": float(self._stored["EM_OperatingMode"]), "reserve": float(self._stored["EM_USOC"])}

    def overwrite(self) -> None:
        self._stored["EM_OperatingMode"] = SELF_CONSUMPTION
        self._setpoint_w = None

    @property
    def controlled(self) -> bool:
        return self._stored["EM_OperatingMode"] == MANUAL

    # requests

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/status", self._status),
            web.get(f"{API}/latestdata", self._latest),
            web.get(f"{API}/battery", self._battery),
            web.get(f"{API}/inverter", self._inverter),
            web.get(f"{API}/powermeter", self._powermeter),
            web.get(f"{API}/io", self._io),
            web.get(f"{API}/configurations", self._configurations),
            web.get(f"{API}/configurations/{{item}}", self._configuration),
            web.put(f"{API}/configurations", self._configure),
            web.post(f"{API}/setpoint/{{direction:charge|discharge}}/{{power:\\d+}}", self._set),
        ]

    def _stranger(self, request: web.Request, *, writing: bool = False) -> web.Response | None:
        """What a client without the right token is told."""
        if request.headers.get("Auth-Token") != self.token:
            return answer({}) if self._empty_on_bad_token else answer({"error": "Unauthorized"}, status=401)
        if writing and not self._write_api:
            return answer({"error": "Forbidden"}, status=403)
        return None

    async def _status(self, request: web.Request) -> web.Response:
        if not self._status_open and (no := self._stranger(request)):
            return no
        mode, reserve = self._stored["EM_OperatingMode"], self._stored["EM_USOC"]
        average_w = self._average.value_w
        return answer(
            status_of(self.plant, mode=mode, reserve=reserve, load_average_w=average_w, doubled=self._doubled)
        )

    async def _latest(self, request: web.Request) -> web.Response:
        plant = self.plant
        stop_reasons = (
            "Critical BMS Alarm",
            "HW_Shutdown",
            "Inverter Over Temperature",
            "Minimum rSOC of System reached",
        )
        own_w = round(plant.battery_w)
        return self._stranger(request) or answer(
            {
                "FullChargeCapacity": round(plant.capacity_wh, 3),
                "GridFeedIn_W": -round(plant.grid_w),
                "Production_W": round(plant.pv_w),
                "Consumption_W": round(plant.load_w),
                "Pac_total_W": own_w,
                "RSOC": raw_soc_pct(plant),
                "SetPoint_W": round(self._setpoint_w or 0.0) if self.controlled else own_w,
                "Timestamp": local_time(plant),
                "USOC": round(plant.soc_pct),
                "UTC_Offet": 2,
                "ic_status": {
                    "DC Shutdown Reason": dict.fromkeys(stop_reasons, False),
                    "MISC Status Bits": {"Discharge not allowed": False, "Setpoint Timeout": False},
                    "nrbatterymodules": self._modules(),
                    "secondssincefullcharge": 0,
                    "statebms": "ready",
                    "statecorecontrolmodule": "offgrid" if plant.islanded else "ongrid",
                    "stateinverter": "running",
                },
            }
        )

    async def _battery(self, request: web.Request) -> web.Response:
        plant = self.plant
        return self._stranger(request) or answer(
            {
                "chargecurrentlimit": round(plant.charge_limit_w / PACK_V, 2),
                "cyclecount": round(plant.discharged_wh / plant.capacity_wh),
                "dischargecurrentlimit": round(plant.discharge_limit_w / PACK_V, 2),
                "fullchargecapacity": round(plant.capacity_wh / PACK_V, 3),
                "fullchargecapacitywh": round(plant.capacity_wh, 2),
                "maximumcelltemperature": round(plant.temp_c + 0.5, 2),
                "minimumcelltemperature": round(plant.temp_c - 0.5, 2),
                "maximummoduletemperature": -273.15,
                "minimummoduletemperature": -273.15,
                "relativestateofcharge": float(raw_soc_pct(plant)),
                "systemalarm": 0.0,
                "systemcurrent": round(-plant.battery_w / PACK_V, 2),
                "systemdcvoltage": PACK_V,
                "systemstatus": 49.0,
                "systemwarning": 0.0,
            }
        )

    async def _inverter(self, request: web.Request) -> web.Response:
        plant = self.plant
        return self._stranger(request) or answer(
            {
                "fac": 50.0,
                "pac_total": round(plant.battery_w, 1),
                "pbat": round(plant.battery_w, 1),
                "sac_total": round(abs(plant.battery_w), 1),
                "tmax": round(plant.temp_c + 12, 1),
                "uac": 237.0,
                "ubat": PACK_V,
            }
        )

    async def _powermeter(self, request: web.Request) -> web.Response:
        plant = self.plant
        load_wh = plant.imported_wh + plant.pv_wh + plant.discharged_wh - plant.exported_wh - plant.charged_wh
        meters = (("production", plant.pv_w, plant.pv_wh), ("consumption", plant.load_w, load_wh))
        return self._stranger(request) or answer(
            [
                {
                    "channel": channel,
                    "deviceid": 4,
                    "direction": direction,
                    "error": 0,
                    "kwh_exported": 0,
                    "kwh_imported": round(wh / 1000, 3),
                    "v_l1_n": 237.0,
                    "w_l1": round(w, 1),
                    "w_l2": 0,
                    "w_l3": 0,
                    "w_total": round(w, 1),
                }
                for channel, (direction, w, wh) in enumerate(meters, start=1)
            ]
        )

    async def _io(self, request: web.Request) -> web.Response:
        return self._stranger(request) or answer({"DO_12_Grid_Feed_In": 0, "DI_4_Shutdown": 0})

    async def _configurations(self, request: web.Request) -> web.Response:
        return self._stranger(request) or answer(self._settings_in_text())

    async def _configuration(self, request: web.Request) -> web.Response:
        item, values = request.match_info["item"], self._settings_in_text()
        if no := self._stranger(request):
            return no
        if item not in values:
            raise web.HTTPNotFound
        return answer({item: values[item]})

    def _settings_in_text(self) -> dict[str, str]:
        return self._stored | {
            "CM_MarketingModuleCapacity": str(MODULE_WH),
            "DE_Software": "1.14.5.1054302",
            "EM_Prognosis_Charging": "0",
            "IC_BatteryModules": str(self._modules()),
            "IC_InverterMaxPower_w": str(round(self.plant.discharge_w_max)),
        }

    def _modules(self) -> int:
        return max(1, round(self.plant.capacity_wh / MODULE_WH))

    async def _configure(self, request: web.Request) -> web.Response:
        if no := self._stranger(request, writing=True):
            return no
        wanted = await body_of(request)
        texts = {key: value for key, value in wanted.items() if isinstance(value, str) and self._fits(key, value)}
        if not wanted or texts.keys() != wanted.keys():
            raise web.HTTPBadRequest
        self._stored |= texts
        self.plant.reserve_pct = float(self._stored["EM_USOC"])
        return answer(texts)

    def _fits(self, key: str, value: str) -> bool:
        if key == "EM_OperatingMode":
            return value in MODES
        if key == "EM_USOC":
            return value.isascii() and value.isdigit() and int(value) <= 100
        return key == "EM_ToU_Schedule"

    async def _set(self, request: web.Request) -> web.Response:
        if no := self._stranger(request, writing=True):
            return no
        if self.controlled:
            power_w = float(request.match_info["power"])
            charging = request.match_info["direction"] == "charge"
            rating_w = self.plant.charge_w_max if charging else self.plant.discharge_w_max
            self._setpoint_w = min(power_w, rating_w) * (-1 if charging else 1)
            self._age_s = 0.0
        return answer(True)
