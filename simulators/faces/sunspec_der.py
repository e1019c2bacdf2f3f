"""A battery inverter with the SunSpec DER models (1, 701, 702, 703, 704, 713, 714, 715), all as the standard asks.

AC coupled: 701.W is the battery's AC power, + = injection. A setpoint is 704.WSet (W) or WSetPct (% of WMax), + =
discharge, in force while WSetEna is 1. The reversion timer starts with a write of WSetEna = 1 or of WSetRvrtTms (also
of the same value), not with WSet; when it runs out Ena and set values become the "...Rvrt" ones. RvrtTms 0 = never.
Stored: 702, 703, WSetMod and all "...Rvrt" points. Volatile: WSetEna, WSet, WSetPct. The standard leaves all of this
open; the firmware does not protect the reserve against a setpoint. There is no reserve register.
Source: sunspec/models json/model_701..715.json, commit 7abdf89; timer details unverified.
"""

import math
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.sunspec import SunSpecMap, Written, common
from simulators.faces.upkeep import Reboots

NOMINAL_V = 230.0
PORT_ESS = 1
STORED = (
    "702.WMax",
    "702.WChaRteMax",
    "702.WDisChaRteMax",
    "703.ES",
    "704.WMaxLimPctEna",
    "704.WMaxLimPct",
    "704.WSetMod",
    "704.WSetRvrt",
    "704.WSetPctRvrt",
    "704.WSetEnaRvrt",
    "704.WSetRvrtTms",
)
SETPOINT_POINTS = ("704.WSet", "704.WSetRvrt")
PERCENT_POINTS = ("704.WSetPct", "704.WSetPctRvrt")
CHOICES = {
    "703.ES": (0, 1),
    "704.WSetEna": (0, 1),
    "704.WSetMod": (0, 1),
    "704.WSetEnaRvrt": (0, 1),
    "704.WMaxLimPctEna": (0, 1),
    "715.OpCtl": (0, 1, 2, 3),
}


class SunSpecDer:
    """Simulated SunSpec DER storage. `local_control`: an operator's panel holds it, writes to 704 are refused.

    `alarms`: what 701.Alrm shows.

    `heartbeat_s`: once a controller has counted 715.ControllerHb up, its standing still for so long ends the setpoint;
    None = the product ignores it.
    """

    profile: ClassVar[str] = "sunspec-der"

    def __init__(
        self,
        plant: Plant,
        *,
        unit: int = 1,
        base: int = 40_000,
        maker: str = "Example Storage",
        product: str = "DER-700",
        firmware: str = "1.4.2",
        heartbeat_s: float | None = None,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.local_control = False
        self.alarms = 0
        self._unit = unit
        self._heartbeat_s = heartbeat_s
        self._beat_age_s = math.inf
        self._on_s = 0.0
        self._left_s = math.inf
        self._stopped = False
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote
        self.map = SunSpecMap(base)
        chain = (1, 701, 702, 703, 704, 713, 714, 715)
        self._models = {n: self.map.add(n, repeats=1 if n == 714 else 0) for n in chain}
        self.map.end()
        common(self._models[1], maker=maker, product=product, firmware=firmware, serial=plant.id)
        self._set_constants()

    def _set_constants(self) -> None:
        plant, models = self.plant, self._models
        models[701].set(A_SF=-1, V_SF=-1, Hz_SF=-2, W_SF=0, PF_SF=-2, VA_SF=0, Var_SF=0, TotWh_SF=0, Tmp_SF=-1)
        models[701].set(ACType=0, Alrm=0, Hz=50.0, LNV=NOMINAL_V, VL1=NOMINAL_V, Var=0, PF=1, ThrotPct=0, ThrotSrc=0)
        rated_w = max(plant.discharge_w_max, plant.charge_w_max)
        models[702].set(W_SF=1, VA_SF=1, V_SF=0, CtrlModes=0b11, WMaxRtg=rated_w, WMax=rated_w, VAMaxRtg=rated_w)
        models[702].set(WChaRteMaxRtg=plant.charge_w_max, WDisChaRteMaxRtg=plant.discharge_w_max, VNomRtg=NOMINAL_V)
        models[702].set(WChaRteMax=plant.charge_w_max, WDisChaRteMax=plant.discharge_w_max)
        models[703].set(ES=1, V_SF=-1, Hz_SF=-2, ESDlyTms=300, ESRmpTms=60, ESDlyRemTms=0)
        models[704].set(WMaxLimPct_SF=-1, WSet_SF=-1, WSetPct_SF=-1, WMaxLimPctEna=0, WMaxLimPct=100)
        models[704].set(WSetMod=0, WSetRvrt=0, WSetPctRvrt=0, WSetEnaRvrt=0, WSetRvrtTms=0, AntiIslEna=1)
        models[713].set(WH_SF=1, Pct_SF=-1, WHRtg=plant.capacity_wh, SoH=100, Sta=0)
        models[714].set(DCA_SF=-1, DCV_SF=-1, DCW_SF=0, DCWH_SF=0, Tmp_SF=-1, NPrt=1, PrtAlrms=0)
        for key, value in (("PrtTyp", PORT_ESS), ("ID", 1), ("DCSta", 1), ("DCAlrm", 0)):
            models[714].put(f"{key}.0", value)
        models[714].text("IDStr.0", "BAT")
        models[715].set(LocRemCtl=0, DERHb=0, ControllerHb=0, AlarmReset=0, OpCtl=1)
        self._clear_volatile()

    def _clear_volatile(self) -> None:
        self._models[704].set(WSetEna=0, WSet=0, WSetPct=0, WSetRvrtRem=0)
        self._left_s = math.inf
        self._beat_age_s = math.inf
        self._stopped = False
        self._on_s = 0.0

    # connection

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(url=f"modbus://127.0.0.1:{port}", units={"inverter": self._unit})

    async def stop(self) -> None:
        await self.server.stop()

    def reboot(self) -> None:
        self._clear_volatile()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        self._check(unit, function)
        self._measure()
        return self.map.registers.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self._check(unit, function)
        written = self.map.written(address, values)
        for point in written:
            self._judge(point)
        for point in written:
            point.model.set_raw(point.key, point.raw)
        for point in written:
            self._act(point)

    def _check(self, unit: int, function: int) -> None:
        if unit != self._unit:
            raise ModbusRefused(Refusal.NO_TARGET)
        if function == 4:
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)

    def _judge(self, written: Written) -> None:
        """Refuse what is out of range."""
        value, limits = written.value, self._models[702]
        allowed = CHOICES.get(written.name)
        if allowed is not None:
            fine = value in allowed
        elif written.name in SETPOINT_POINTS:
            fine = -limits.get("WChaRteMax") <= value <= limits.get("WDisChaRteMax")
        elif written.name in PERCENT_POINTS:
            fine = abs(value) <= 100
        elif written.name in ("702.WChaRteMax", "702.WDisChaRteMax", "702.WMax"):
            fine = 0 <= value <= limits.get(f"{written.key}Rtg")
        elif written.name == "704.WMaxLimPct":
            fine = 0 <= value <= 100
        else:
            fine = True
        if not fine or (self.local_control and written.model.number == 704):
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)

    def _act(self, written: Written) -> None:
        if written.name == "715.ControllerHb":
            self._beat_age_s = 0.0
        elif written.name == "715.OpCtl":
            self._stopped = written.value in (0, 2)
        elif written.name in ("704.WSetEna", "704.WSetRvrtTms"):
            controls = self._models[704]
            timer_s = controls.get("WSetRvrtTms")
            self._left_s = timer_s if controls.get("WSetEna") == 1 and timer_s > 0 else math.inf
            controls.put("WSetRvrtRem", 0 if math.isinf(self._left_s) else self._left_s)

    def _measure(self) -> None:
        plant, measured = self.plant, self._models[701]
        battery_w, temp_c, islanded = plant.battery_w, plant.temp_c, plant.islanded
        running = abs(battery_w) >= 1
        measured.set(St=1, InvSt=6 if self.alarms else 3 if running else 7, ConnSt=0 if islanded else 1)
        measured.set(
            Alrm=self.alarms,
            DERMode=0b10 if islanded else 0b01,
            W=battery_w,
            VA=abs(battery_w),
            A=battery_w / NOMINAL_V,
        )
        measured.set(TotWhInj=plant.discharged_wh, TotWhAbs=plant.charged_wh, TmpCab=temp_c, WL1=battery_w)
        soc_pct = plant.soc_pct
        self._models[713].set(WHAvail=plant.capacity_wh * soc_pct / 100, SoC=soc_pct, Sta=2 if self.alarms else 0)
        storage = self._models[714]
        for suffix in ("", ".0"):
            for key, value in (
                ("DCW", battery_w),
                ("DCA", battery_w / 400.0),
                ("DCWhInj", plant.discharged_wh),
                ("DCWhAbs", plant.charged_wh),
            ):
                storage.put(key + suffix, value)
        storage.put("DCV.0", 400.0)
        storage.put("Tmp.0", temp_c)
        self._models[715].set(LocRemCtl=int(self.local_control), DERHb=int(self._on_s))

    # time

    def step(self, dt_s: float) -> None:
        self._on_s += dt_s
        self._left_s -= dt_s
        if self._left_s <= 0:
            self._revert()
        elif math.isfinite(self._left_s):
            self._models[704].put("WSetRvrtRem", math.ceil(self._left_s))
        self._beat_age_s += dt_s
        if self._heartbeat_s is not None and self._heartbeat_s < self._beat_age_s < math.inf:
            self._beat_age_s = math.inf
            self._models[704].set(WSetEna=0)
        self._steer()
        self.plant.step(dt_s)

    def _revert(self) -> None:
        self._left_s = math.inf
        controls = self._models[704]
        controls.set(WSetRvrtRem=0, WSetEna=controls.get("WSetEnaRvrt"))
        controls.set(WSet=controls.get("WSetRvrt"), WSetPct=controls.get("WSetPctRvrt"))

    def _steer(self) -> None:
        controls, limits = self._models[704], self._models[702]
        if self._stopped or self._models[703].get("ES") == 0:
            self.plant.follow(0.0)
        elif not self.controlled:
            self.plant.serve_home()
        else:
            watts = controls.get("WSetMod") == 1
            asked_w = controls.get("WSet") if watts else controls.get("WSetPct") / 100 * limits.get("WMax")
            most_w = min(limits.get("WDisChaRteMax"), limits.get("WMax"))
            if controls.get("WMaxLimPctEna") == 1:
                most_w = min(most_w, controls.get("WMaxLimPct") / 100 * limits.get("WMax"))
            self.plant.follow(min(max(asked_w, -limits.get("WChaRteMax")), most_w))

    # the owner

    def settings(self) -> dict[str, float]:
        values = {}
        for name in STORED:
            model, _, key = name.partition(".")
            values[name] = self._models[int(model)].get(key)
        return values

    def overwrite(self) -> None:
        self._models[704].set(WSetEna=0, WSetRvrtRem=0)
        self._left_s = math.inf

    @property
    def controlled(self) -> bool:
        return self._models[704].get("WSetEna") == 1
