"""A Victron GX with ESS, battery, grid meter and inverter/charger, by its own MQTT broker (Venus OS >= 3.20).

Sources: victronenergy/dbus-flashmq `README.md`, `src/state.cpp` and `src/types.cpp` (topics, keepalive of 60 s,
heartbeat, what is retained, payload with min and max, zero-length payload of a service that has gone); paths and units
of victronenergy/dbus_modbustcp `CCGX-Modbus-TCP-register-list.xlsx`. Steering: `ess.py`.

Topics `N/<portal>/<service>/<instance>/<path>`, QoS 0, not retained but for `system/0/Serial`. Powers in W: battery
+ = charge, grid + = import. A write that the product does not take is dropped without a word. Not simulated: TLS,
accounts, the cloud broker. DC powers and energies are the AC ones here.
"""

import time
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

import orjson

from simulators.faces.ess import Ess
from simulators.faces.gx_broker import GxBroker
from simulators.faces.gx_tree import BATTERY, CGWACS, GRID, OVERRIDES, PVINVERTER, VEBUS, GxTree, Value, service_of
from simulators.faces.mqtt import MqttLink
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.upkeep import Reboots

KEEPALIVE_S = 60.0
HEARTBEAT_S = 3.0


class Target(NamedTuple):
    """A writable path: how to take a value (False = refused), and the bounds it is published with."""

    take: Callable[[float | None], bool]
    least: float | None = None
    most: float | None = None


class VictronGxMqtt:
    """The product. `phases` 1 or 3; `broker`: see `GxBroker`; `echoes`: firmware from 3.50 returns the echo token."""

    profile: ClassVar[str] = "victron-gx-mqtt"

    def __init__(
        self,
        plant: Plant,
        *,
        portal: str = "",
        phases: int = 3,
        broker: str = "auto",
        override_s: float = 60.0,
        inverter_s: float = 60.0,
        keepalive_s: float = KEEPALIVE_S,
        guards_min_soc: bool = False,
        dynamic_ess: bool = False,
        echoes: bool = True,
        boot_s: float = 0.1,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.portal = portal or f"c0619ab{plant.index:05x}"
        self.ess = Ess(
            plant,
            override_s=override_s,
            inverter_s=inverter_s,
            guards_min_soc=guards_min_soc,
            dynamic_ess=dynamic_ess,
        )
        self.alive = False
        self.requests = 0
        self.writes_heard = 0
        self._phases = phases
        self._keepalive_s = keepalive_s
        self._echoes = echoes
        self._alive_left_s = 0.0
        self._since_s = 0.0
        self._heartbeat_s = 0.0
        self._snapshots = 0
        self._tree = GxTree(plant, self.ess, portal=self.portal, phases=phases, version="v3.70" if echoes else "v3.40")
        self._gone: set[str] = set()
        self._said: dict[str, bytes] = {}
        self._targets = self._writable()
        self._reboots = Reboots(self.reboot)
        self._broker = GxBroker(kind=broker, away=lambda: self.trouble is Trouble.DISCONNECT, boot_s=boot_s)
        self._link = MqttLink(
            self,
            client_id=f"gx-{self.portal}",
            subscriptions=[f"R/{self.portal}/#", f"W/{self.portal}/#"],
            on_connect=self._announce,
            on_message=self._request_came,
            boot_s=boot_s / 2,
        )

    # the face

    async def start(self, *, port: int = 0) -> Connection:
        await self._broker.start(port)
        await self._link.start("127.0.0.1", self._broker.port)
        instances = dict(service.split("/") for service in (VEBUS, BATTERY, GRID, PVINVERTER))
        return Connection(url=f"mqtt://127.0.0.1:{self._broker.port}", parameters={"portal": self.portal, **instances})

    async def stop(self) -> None:
        await self._link.stop()
        await self._broker.stop()

    def step(self, dt_s: float) -> None:
        if self.trouble is Trouble.DISCONNECT and self._link.connected:
            self._link.orphan()
            self._broker.drop()
        self.ess.step(dt_s)
        self.plant.step(dt_s)
        self._alive_left_s -= dt_s
        self.alive = self.alive and self._alive_left_s > 0
        self._since_s += dt_s
        self._heartbeat_s += dt_s
        if self._heartbeat_s >= HEARTBEAT_S - 1e-9 and self.alive:
            self._heartbeat_s = 0.0
            self._link.publish(f"N/{self.portal}/heartbeat", orjson.dumps({"value": int(time.time())}))
        if self._since_s >= 1.0 - 1e-9:
            self._since_s = 0.0
            self._publish_changes()

    def reboot(self) -> None:
        """Overrides, inverter setpoints and the keepalive are gone, settings stay; the broker starts anew."""
        self.ess.forget()
        self.alive = False
        self._said.clear()
        self._link.orphan()
        self._broker.drop()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    def settings(self) -> dict[str, float]:
        return self.ess.settings()

    def overwrite(self) -> None:
        self.ess.take_back()
        self._publish_changes()

    @property
    def controlled(self) -> bool:
        return self.ess.controlled

    @property
    def connected(self) -> bool:
        return self._link.connected

    def lose(self, service: str) -> None:
        """A device disappears from the bus, e.g. "battery/512"; all its topics get a zero-length payload."""
        self._gone.add(service)
        self._publish_changes()

    def regain(self, service: str) -> None:
        self._gone.discard(service)

    # requests

    def _announce(self) -> None:
        self._link.publish(f"N/{self.portal}/system/0/Serial", orjson.dumps({"value": self.portal}), retain=True)

    def _request_came(self, topic: str, payload: bytes) -> None:
        self.requests += 1
        kind, _, path = topic.split("/", 2)
        if kind == "W":
            self.writes_heard += 1
            if self.trouble not in (Trouble.REFUSE, Trouble.BUSY) and self._write(path, payload):
                self._reboots.wrote()
        elif path in ("keepalive", "system/0/Serial"):
            self._keepalive(payload)
        else:
            image = self._image()
            self._say_all(image, (at for at in image if at == path or at.startswith(f"{path}/")))

    def _keepalive(self, payload: bytes) -> None:
        if b"suppress-republish" not in payload:
            image = self._image()
            self._say_all(image, image)
            done: dict[str, object] = {"value": int(time.time())}
            echo = _echo(payload) if self._echoes else None
            if echo is not None:
                done["full-publish-completed-echo"] = echo
            self._snapshots = (self._snapshots + 1) % 16
            topic = f"N/{self.portal}/full_publish_completed"
            self._link.publish(topic, orjson.dumps(done), key=f"full {self._snapshots}")
        self.alive = True
        self._alive_left_s = self._keepalive_s

    def _write(self, path: str, payload: bytes) -> bool:
        target = self._targets.get(path)
        if target is None or service_of(path) in self._gone:
            return False
        try:
            body = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return False
        value = body.get("value", "") if isinstance(body, dict) else ""
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return False
        if value is not None and not self._fits(target, value):
            return False
        if not target.take(value):
            return False
        image = self._image()
        self._say_changes(image, (path,))
        return True

    @staticmethod
    def _fits(target: Target, value: float) -> bool:
        return (target.least is None or value >= target.least) and (target.most is None or value <= target.most)

    def _writable(self) -> dict[str, Target]:
        targets = {
            f"{CGWACS}/AcPowerSetPoint": Target(self._setting("grid_setpoint_w")),
            f"{CGWACS}/Hub4Mode": Target(self._setting("mode"), 1, 3),
            f"{CGWACS}/BatteryLife/State": Target(self._setting("state"), 0, 12),
            f"{CGWACS}/BatteryLife/MinimumSocLimit": Target(self._setting("minimum_soc_pct"), 0, 100),
            f"{CGWACS}/MaxDischargePower": Target(self._setting("discharge_w_max"), -1, 300_000),
            f"{CGWACS}/MaxChargePower": Target(self._setting("charge_w_max"), -1, 300_000),
            f"{CGWACS}/MaxFeedInPower": Target(self._setting("feed_in_w_max"), -1, 300_000),
            f"{OVERRIDES}/Setpoint": Target(self._override("grid_setpoint_w")),
            f"{OVERRIDES}/ForceCharge": Target(self._override("force_charge"), 0, 1),
            f"{OVERRIDES}/MaxChargePower": Target(self._override("charge_w_max"), -1),
            f"{OVERRIDES}/MaxDischargePower": Target(self._override("discharge_w_max"), -1),
            f"{VEBUS}/Hub4/DisableCharge": Target(self._lock("disable_charge"), 0, 1),
            f"{VEBUS}/Hub4/DisableFeedIn": Target(self._lock("disable_feed_in"), 0, 1),
        }
        for phase in range(self._phases):
            targets[f"{VEBUS}/Hub4/L{phase + 1}/AcPowerSetpoint"] = Target(self._inverter(phase))
        return targets

    def _setting(self, name: str) -> Callable[[float | None], bool]:
        def take(value: float | None) -> bool:
            if value is None:
                return False
            setattr(self.ess.stored, name, int(value) if name in ("mode", "state") else float(value))
            self.plant.reserve_pct = self.ess.stored.minimum_soc_pct
            return True

        return take

    def _override(self, name: str) -> Callable[[float | None], bool]:
        def take(value: float | None) -> bool:
            setattr(self.ess.overrides, name, value)
            self.ess.renew_overrides()
            return True

        return take

    def _lock(self, name: str) -> Callable[[float | None], bool]:
        def take(value: float | None) -> bool:
            if value is None:
                return False
            setattr(self.ess.inverter, name, int(value))
            return True

        return take

    def _inverter(self, phase: int) -> Callable[[float | None], bool]:
        def take(value: float | None) -> bool:
            if value is None:
                return False
            self.ess.inverter.setpoints_w[phase] = float(value)
            self.ess.renew_inverter()
            return True

        return take

    # what it says

    def _publish_changes(self) -> None:
        """What has changed is said while a keepalive holds; otherwise it is missed until it changes again."""
        image = self._image()
        self._say_changes(image, image)
        for path in self._said.keys() - image.keys():
            del self._said[path]
            self._link.publish(f"N/{self.portal}/{path}", b"")

    def _say_changes(self, image: dict[str, Value], paths: Iterable[str]) -> None:
        for path in paths:
            payload = self._payload(path, image[path])
            if self._said.get(path) == payload:
                continue
            if self.alive:
                self._say(path, payload)
            else:
                self._said[path] = payload

    def _say_all(self, image: dict[str, Value], paths: Iterable[str]) -> None:
        for path in paths:
            self._say(path, self._payload(path, image[path]))

    def _say(self, path: str, payload: bytes) -> None:
        self._said[path] = payload
        self._link.publish(f"N/{self.portal}/{path}", payload, retain=path == "system/0/Serial")

    def _payload(self, path: str, value: Value) -> bytes:
        body: dict[str, Value] = {}
        target = self._targets.get(path)
        if target is not None and path.startswith("settings/") and target.least is not None:
            body = {"max": target.most, "min": target.least}
        return orjson.dumps(body | {"value": value})

    def _image(self) -> dict[str, Value]:
        return self._tree.image(self._gone)


def _echo(payload: bytes) -> str | None:
    """The token of `{"keepalive-options": [{"full-publish-completed-echo": token}]}`."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    options = body.get("keepalive-options") if isinstance(body, dict) else None
    for option in options if isinstance(options, list) else []:
        if isinstance(option, dict) and "full-publish-completed-echo" in option:
            return str(option["full-publish-completed-echo"])
    return None
