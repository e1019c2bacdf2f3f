"""A sonnenBatterie's status document, and the product as its older v1 port shows it: read-only, no token.

Sources: evcc-io/evcc `templates/definition/meter/sonnenbatterie.yaml` (v1 on its own port, signs); the README of
Cominch/homebridge-sonnenbatterie (a v1 answer); MarkusBiggus/sonnen_api_v2 `tests/` (answers of v2). Client code by
third parties, no vendor document.

`Pac_total_W` + = discharge, `GridFeedIn_W` + = export; mode and reserve are strings, phases 2 and 3 are null, the
timestamp is local time without a zone. USOC is the user's charge, RSOC the raw one (here 8 to 100 %).
"""

import datetime
from typing import ClassVar

from aiohttp import web

from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.web import WebServer, answer

MANUAL, SELF_CONSUMPTION, MODULE_EXTENSION, TIME_OF_USE, WALL_BOX = "1", "2", "6", "10", "11"
RAW_BOTTOM_PCT = 8.0
AVERAGE_S = 60.0
IDLE_W = 10.0
EPOCH = datetime.datetime(2026, 5, 4)  # noqa: DTZ001 - the product writes local time without a zone


def local_time(plant: Plant) -> str:
    return (EPOCH + datetime.timedelta(seconds=int(plant.batteries.time_s))).strftime("%Y-%m-%d %H:%M:%S")


def raw_soc_pct(plant: Plant) -> int:
    return round(RAW_BOTTOM_PCT + plant.soc_pct * (100 - RAW_BOTTOM_PCT) / 100)


def status_of(plant: Plant, *, mode: str, reserve: str, load_average_w: float, doubled: bool) -> dict[str, object]:
    """`doubled`: firmware that reports twice the remaining capacity."""
    battery_w, grid_w, pv_w, load_w = (round(w) for w in (plant.battery_w, plant.grid_w, plant.pv_w, plant.load_w))
    charging, discharging = battery_w < -IDLE_W, battery_w > IDLE_W
    return {
        "Apparent_output": abs(battery_w),
        "BackupBuffer": reserve,
        "BatteryCharging": charging,
        "BatteryDischarging": discharging,
        "Consumption_Avg": round(load_average_w),
        "Consumption_W": load_w,
        "Fac": 0.0 if plant.islanded else 50.00299835205078,
        "FlowConsumptionBattery": discharging,
        "FlowConsumptionGrid": grid_w > 0,
        "FlowConsumptionProduction": pv_w > 0,
        "FlowGridBattery": charging and grid_w > 0,
        "FlowProductionBattery": charging and pv_w > 0,
        "FlowProductionGrid": grid_w < 0 < pv_w,
        "GridFeedIn_W": -grid_w,
        "IsSystemInstalled": 1,
        "OperatingMode": mode,
        "Pac_total_W": battery_w,
        "Production_W": pv_w,
        "RSOC": raw_soc_pct(plant),
        "RemainingCapacity_Wh": round(plant.capacity_wh * plant.soc_pct / 100) * (2 if doubled else 1),
        "Sac1": abs(battery_w),
        "Sac2": None,
        "Sac3": None,
        "SystemStatus": "OffGrid" if plant.islanded else "OnGrid",
        "Timestamp": local_time(plant),
        "USOC": round(plant.soc_pct),
        "Uac": 237,
        "Ubat": 211,
        "dischargeNotAllowed": False,
        "generator_autostart": False,
    }


class LoadAverage:
    """The load of about the last minute."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.value_w = plant.load_w

    def step(self, dt_s: float) -> None:
        self.value_w += (self._plant.load_w - self.value_w) * min(dt_s / AVERAGE_S, 1.0)


class SonnenV1:
    """The read-only port: nothing outside can steer the product."""

    profile: ClassVar[str] = "sonnen-v1"

    def __init__(self, plant: Plant, *, mode: str = SELF_CONSUMPTION, remaining_doubled: bool = False) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self._mode = mode
        self._doubled = remaining_doubled
        self._average = LoadAverage(plant)
        self.server = WebServer(self, [web.get("/api/v1/status", self._status)])

    async def start(self, *, port: int = 0) -> Connection:
        return Connection(url=f"http://127.0.0.1:{await self.server.start(port=port)}")

    async def stop(self) -> None:
        await self.server.stop()

    def step(self, dt_s: float) -> None:
        self._average.step(dt_s)
        self.plant.serve_home()
        self.plant.step(dt_s)

    def reboot(self) -> None:
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        """This port takes no writes."""

    def settings(self) -> dict[str, float]:
        return {"operating_mode": float(self._mode), "reserve": self.plant.reserve_pct}

    def overwrite(self) -> None:
        """Nobody steers through this port."""

    @property
    def controlled(self) -> bool:
        return False

    async def _status(self, request: web.Request) -> web.Response:
        reserve = str(round(self.plant.reserve_pct))
        average_w = self._average.value_w
        return answer(
            status_of(self.plant, mode=self._mode, reserve=reserve, load_average_w=average_w, doubled=self._doubled)
        )
