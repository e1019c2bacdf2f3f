"""A Hoymiles MS-A2 plug-in battery: an MQTT client of the home's broker, with Home Assistant's discovery topics.

Source: the maker's "MSA Micro Storage MQTT Protocol Development Guide" V0.1 and V0.3 (copies in
mcm4iob/ioBroker.hoymiles-ms); sign of `bat_p` and the numbers sent as text by older firmware from
Maverick3008/home-assistant-hoymiles-battery-mqtt and the Omnibattery driver's tests.

`power_ctrl` is the battery's AC power in W, + = discharge, and counts only in the mode `mqtt_ctrl`; a minute after the
last one the product goes back to its own mode. Not known, and chosen here for the worse: that return is to `general`
(the mode must be set again), values out of range and other text are dropped without a word, mqtt_ctrl is stored and
works below the reserve, `device/state` and `system/state` come at the connection and then each 5 minutes. Signs by a
dashboard card for these products only: `sys_grid_p` + = import, `grid_on_p` + = out of the product (`sys_plug_p` taken
alike). The daily energies are AC energies here (the maker: "battery side").
"""

import math
from typing import ClassVar

import orjson

from simulators.faces.mqtt import MqttLink
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots

MODES = ("general", "mqtt_ctrl", "tou_plan")
GENERAL, MQTT_CTRL, TOU_PLAN = range(3)
STATE_S = 300.0
DAY_S = 86_400.0
PACK_V = 51.2
STANDBY_W = 5.0


class HoymilesMsA2:
    """The product as a client of the broker at `host`:`port`.

    `timeout_s`: life of a setpoint. `identical_refreshes`: False = only a changed value renews that life.
    `numbers_as_text`: as older firmware. `units`: of the stack whose master it is; it has its part of the power.
    `heard`, `last_heard`: commands that reached it, taken or not.
    """

    profile: ClassVar[str] = "hoymiles-ms-a2"

    def __init__(
        self,
        plant: Plant,
        *,
        host: str = "127.0.0.1",
        port: int = 1883,
        device: str = "",
        timeout_s: float = 60.0,
        identical_refreshes: bool = True,
        numbers_as_text: bool = False,
        boot_s: float = 0.1,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.units = 1
        self.device = device or f"MSA-2800{plant.index:08d}"
        self._broker = (host, port)
        self._timeout_s = timeout_s
        self._identical_refreshes = identical_refreshes
        self._numbers_as_text = numbers_as_text
        self._mode = GENERAL
        self._setpoint_w = 0.0
        self._left_s = 0.0
        self._quick_s = 0.0
        self._state_s = 0.0
        self.heard = 0
        self.last_heard = b""
        self._day = self._today()
        self._day_start = self._totals()
        self._reboots = Reboots(self.reboot)
        self._link = MqttLink(
            self,
            client_id=self.device,
            subscriptions=[self._command("select", "ems_mode/command"), self._command("number", "power_ctrl/set")],
            on_connect=self._announce,
            on_message=self._command_came,
            boot_s=boot_s,
        )

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        """Connect to the broker; `port` has no meaning, the product does not listen."""
        host, broker_port = self._broker
        await self._link.start(host, broker_port)
        return Connection(url=f"mqtt://{host}:{broker_port}", parameters={"device": self.device})

    async def stop(self) -> None:
        await self._link.stop()

    def step(self, dt_s: float) -> None:
        self._link.tend()
        if self._mode == MQTT_CTRL:
            self._left_s -= dt_s
            if self._left_s <= 0:
                self._mode = GENERAL
        if self._mode == MQTT_CTRL:
            self.plant.follow(self._setpoint_w)
        else:
            self.plant.serve_home()
        self.plant.step(dt_s)
        self._turn_day()
        self._quick_s += dt_s
        self._state_s += dt_s
        if self._quick_s >= 1.0 - 1e-9:
            self._quick_s = 0.0
            self._send("quick/state", self._quick())
        if self._state_s >= STATE_S - 1e-9:
            self._send_states()

    def reboot(self) -> None:
        """The mode is stored, the setpoint is not; the minute begins anew."""
        self._setpoint_w = 0.0
        self._left_s = self._timeout_s
        self._link.drop()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return {"ems_mode": float(self._mode)}

    def overwrite(self) -> None:
        self._mode = GENERAL

    def set_mode(self, mode: str) -> None:
        """As the owner would in the app."""
        self._mode = MODES.index(mode)

    @property
    def controlled(self) -> bool:
        return self._mode == MQTT_CTRL

    @property
    def connected(self) -> bool:
        return self._link.connected

    @property
    def writes_heard(self) -> int:
        return self.heard

    # commands

    def _command(self, component: str, tail: str) -> str:
        return f"homeassistant/{component}/{self.device}/{tail}"

    def _command_came(self, topic: str, payload: bytes) -> None:
        self.heard += 1
        self.last_heard = payload
        if self.trouble in (Trouble.REFUSE, Trouble.BUSY):
            return
        text = payload.decode("utf-8", "replace").strip()
        took = self._take_mode(text) if topic.endswith("/command") else self._take_power(text)
        if took:
            self._reboots.wrote()

    def _take_mode(self, text: str) -> bool:
        if text not in MODES:
            return False
        if MODES.index(text) == MQTT_CTRL and self._mode != MQTT_CTRL:
            self._setpoint_w = 0.0
            self._left_s = self._timeout_s
        self._mode = MODES.index(text)
        return True

    def _take_power(self, text: str) -> bool:
        try:
            power_w = float(text)
        except ValueError:
            return False
        in_range = -self.plant.charge_w_max <= power_w <= self.plant.discharge_w_max
        if not math.isfinite(power_w) or not in_range or self._mode != MQTT_CTRL:
            return False
        if self._identical_refreshes or power_w != self._setpoint_w:
            self._left_s = self._timeout_s
        self._setpoint_w = round(power_w, 1)
        return True

    # what it says

    def _announce(self) -> None:
        """Discovery and attributes, retained, at each connection; then both slow states."""
        device = {"identifiers": [self.device], "name": self.device, "manufacturer": "Hoymiles", "model": "MS-A2"}
        quick = self._state_topic("quick/state")
        common: dict[str, object] = {"unique_id": self.device, "device": device}
        messages: dict[str, dict[str, object]] = {
            self._command("switch", "config"): common
            | {
                "state_topic": self._state_topic("device/state"),
                "command_topic": self._command("switch", "set"),
                "json_attributes_topic": self._state_topic("attributes"),
                "device": device | {"sw_version": "1.0.0"},
            },
            self._state_topic("attributes"): {"supported_topics": self._supported_topics()},
            self._command("select", "ems_mode/config"): common
            | {"command_topic": self._command("select", "ems_mode/command"), "options": list(MODES)},
            self._command("number", "power_ctrl/config"): common
            | {
                "name": None,
                "command_topic": self._command("number", "power_ctrl/set"),
                "device_class": "power",
                "unit_of_measurement": "w",
                "min": -round(self.plant.charge_w_max),
                "max": round(self.plant.discharge_w_max),
                "step": 0.1,
            },
        }
        for key, name, kind, unit in (("soc", "soc", "battery", "%"), ("bat_p", "bat_power", "power", "W")):
            messages[self._state_topic(f"{key}/config")] = {
                "name": name,
                "state_topic": quick,
                "value_template": f"{{{{ value_json.{key} }}}}",
                "device_class": kind,
                "unit_of_measurement": unit,
                "device": device,
            }
        for topic, body in messages.items():
            self._link.publish(topic, orjson.dumps(body), qos=1, retain=True)
        self._send_states()

    def _supported_topics(self) -> dict[str, str]:
        return {
            "quick_state": self._state_topic("quick/state"),
            "device_state": self._state_topic("device/state"),
            "system_state": self._state_topic("system/state"),
            "ems_mode": self._command("select", "ems_mode/command"),
            "power_ctrl": self._command("number", "power_ctrl/set"),
        }

    def _send_states(self) -> None:
        self._state_s = 0.0
        self._send("device/state", self._device_state(), qos=1)
        self._send("system/state", self._system_state(), qos=1)

    def _state_topic(self, tail: str) -> str:
        return f"homeassistant/sensor/{self.device}/{tail}"

    def _send(self, tail: str, body: dict[str, object], *, qos: int = 0) -> None:
        self._link.publish(self._state_topic(tail), orjson.dumps(self._in_text(body)), qos=qos)

    def _in_text(self, body: dict[str, object]) -> dict[str, object]:
        """Old firmware writes its numbers as text."""
        if not self._numbers_as_text:
            return body
        return {
            key: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
            for key, value in body.items()
        }

    def _battery(self) -> dict[str, object]:
        plant = self.plant
        power_w = round(plant.battery_w / self.units, 1)
        status = "standby" if abs(power_w) < STANDBY_W else "discharge" if power_w > 0 else "charge"
        if bool(plant.batteries.inhibited[plant.index]):
            status = "lock"
        above_pct = min(5.0, 100 - plant.soc_pct) if self.units > 1 else 0.0
        return {"bat_sts": status, "bat_p": power_w, "soc": round(plant.soc_pct + above_pct, 2)}

    def _quick(self) -> dict[str, object]:
        plant, battery = self.plant, self._battery()
        cold = plant.temp_c < 0
        return {
            "grid_on_p": 0.0 if plant.islanded else battery["bat_p"],
            "grid_off_p": battery["bat_p"] if plant.islanded else 0.0,
            **battery,
            "heat": cold,
            "sys_pv_p": 0.0,
            "sys_plug_p": 0.0 if plant.islanded else battery["bat_p"],
            "sys_bat_p": round(plant.battery_w, 1),
            "sys_grid_p": round(plant.grid_w, 1),
            "sys_load_p": round(plant.load_w, 1),
            "sys_sp_p": 0.0,
            "sys_soc": round(plant.soc_pct, 2),
            "sys_heat": cold,
            "sys_pv2_p": round(plant.pv_w, 1),
            "sys_eps_p": battery["bat_p"] if plant.islanded else 0.0,
        }

    def _device_state(self) -> dict[str, object]:
        plant, battery = self.plant, self._battery()
        in_wh, out_wh, _ = self._since_midnight()
        power_w = round(plant.battery_w, 1)
        port: dict[str, object] = {
            "v": 230.0,
            "i": round(abs(power_w) / 230.0, 2),
            "p": power_w,
            "q": 0.0,
            "ein": in_wh,
            "eout": out_wh,
            "etin": math.floor(plant.charged_wh),
            "etout": math.floor(plant.discharged_wh),
        }
        idle = dict.fromkeys(port, 0) | {"v": 0.0, "i": 0.0, "p": 0.0, "q": 0.0}
        return {
            "grid": [
                {"type": "grid_on", **port, "f": 50.0},
                {"type": "grid_off", **idle, "f": 0.0},
                {"type": "inv", **port},
            ],
            **battery,
            "bat_v": PACK_V,
            "bat_i": round(power_w / PACK_V, 2),
            "bat_temp": round(plant.temp_c, 1),
            "rssi": -58,
        }

    def _system_state(self) -> dict[str, object]:
        quick = self._quick()
        in_wh, out_wh, pv_wh = self._since_midnight()
        powers = {key: quick[f"sys_{key}"] for key in ("pv_p", "pv2_p", "plug_p", "bat_p", "grid_p", "load_p", "sp_p")}
        return {
            **powers,
            "eps_p": quick["sys_eps_p"],
            "soc": quick["sys_soc"],
            "pv_e": 0,
            "pv2_e": pv_wh,
            "dchg_e": out_wh,
            "chg_e": in_wh,
            "plug_out_e": out_wh,
            "plug_in_e": in_wh,
            "ems_mode": MODES[self._mode],
        }

    # energy of the day

    def _today(self) -> int:
        return int(self.plant.batteries.time_s // DAY_S)

    def _totals(self) -> tuple[float, float, float]:
        return self.plant.charged_wh, self.plant.discharged_wh, self.plant.pv_wh

    def _turn_day(self) -> None:
        lost = self._totals()[0] < self._day_start[0] or self._totals()[1] < self._day_start[1]
        if lost or self._today() != self._day:
            self._day, self._day_start = self._today(), self._totals()

    def _since_midnight(self) -> tuple[int, int, int]:
        self._turn_day()
        now, then = self._totals(), self._day_start
        return math.floor(now[0] - then[0]), math.floor(now[1] - then[1]), math.floor(now[2] - then[2])
