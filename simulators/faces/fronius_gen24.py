"""A Fronius GEN24 hybrid inverter: SunSpec models 1, 103, 120 to 124, 160 (int + SF) on unit 1, a meter (203) on 200.

Modules 1 and 2 of model 160 are PV, 3 is charging and 4 discharging power, both magnitudes; 203.W + = import. The
larger sisters (Verto) have three or four PV inputs and the battery in the last two modules; without a battery they have
those of the PV alone. Single phase (Primo) it is model 101, and its meter may be 201. The scale factor of the modules'
powers moves with the largest of them: 0.01 W, 0.1 W or 1 W.
Control is model 124: OutWRte and InWRte are limits in percent of WChaMax, in force by bit 1 and bit 0 of StorCtl_Mod; a
negative limit forces power the other way. Any write to StorCtl_Mod, OutWRte, InWRte or RvrtTms restarts the timer
InOutWRte_RvrtTms (0 = never), after which the limits are off. RvrtTms is stored and stays as its last writer left it;
unknown and taken at its most dangerous: the mode and the limits survive a reboot too, and a forced discharge does not
stop at the reserve. ChaGriSet = 1 is taken but has no effect where the owner has not permitted charging from the grid.
Source: sunspec/models json/model_1..203.json, commit 7abdf89; evcc-io/evcc templates fronius-gen24, commit b29b49e30;
evcc#33037, evcc PR#33041, open-dynamic-export#68, fronius_modbus#69, #99, ha-sunspec#14, openbridgeserver#1255.
Unverified: forced discharge, the sign of 203.W.
"""

import math
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.sunspec import Model, SunSpecMap, Written, common, finest
from simulators.faces.upkeep import Reboots

COMMON_LENGTH = 65
CHARGE_LIMIT_ACTIVE = 1
DISCHARGE_LIMIT_ACTIVE = 2
DERTYP_PV_STOR = 82
PV_SHARE = 0.6
MODULE_RAW_MAX, MODULE_W_SF = 0xFFFE, -2
RANGES = {
    "123.Conn": (0, 1),
    "123.WMaxLimPct": (0, 100),
    "123.WMaxLim_Ena": (0, 1),
    "124.StorCtl_Mod": (0, 3),
    "124.MinRsvPct": (0, 100),
    "124.OutWRte": (-100, 100),
    "124.InWRte": (-100, 100),
    "124.InOutWRte_WinTms": (0, 300),
    "124.InOutWRte_RvrtTms": (0, 28_800),
    "124.ChaGriSet": (0, 1),
}
RESTARTS = ("124.StorCtl_Mod", "124.OutWRte", "124.InWRte", "124.InOutWRte_RvrtTms")
STORED = ("MinRsvPct", "InOutWRte_WinTms", "InOutWRte_RvrtTms", "ChaGriSet")


class FroniusGen24:
    """Simulated GEN24 with battery and smart meter.

    `revert_s`: the timer an earlier controller left behind. `grid_charge_permitted`: the owner's web setting.
    `reserve_works`: some firmware shows MinRsvPct as not implemented and ignores it. `mppts`: PV inputs.
    `inverter_model`, `meter_model`: their SunSpec ids.
    """

    profile: ClassVar[str] = "fronius-gen24"

    def __init__(
        self,
        plant: Plant,
        *,
        revert_s: int = 0,
        grid_charge_permitted: bool = True,
        reserve_works: bool = True,
        inverter_unit: int = 1,
        meter_unit: int = 200,
        firmware: str = "1.36.6-1",
        product: str = "Symo GEN24 10.0",
        mppts: int = 2,
        inverter_model: int = 103,
        meter_model: int = 203,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.alarms = 0
        self.grid_charge_permitted = grid_charge_permitted
        self._reserve_works = reserve_works
        self._mppts = mppts
        self._left_s = math.inf
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self)
        self.server.after_write = self._reboots.wrote
        self._units = {"inverter": inverter_unit, "meter": meter_unit}
        self.inverter, self.meter = SunSpecMap(), SunSpecMap()
        self.maps = {inverter_unit: self.inverter, meter_unit: self.meter}
        self._models: dict[int, Model] = {}
        for number in (1, inverter_model, 120, 121, 122, 123, 160, 124):
            length = COMMON_LENGTH if number == 1 else None
            self._models[number] = self.inverter.add(number, repeats=mppts + 2 if number == 160 else 0, length=length)
        self.inverter.end()
        meter_common = self.meter.add(1, length=COMMON_LENGTH)
        self._models[103] = self._models[inverter_model]
        self._models[203] = self.meter.add(meter_model)
        self.meter.end()
        common(self._models[1], maker="Fronius", product=product, firmware=firmware, serial=plant.id)
        common(
            meter_common, maker="Fronius", product="Smart Meter TS 65A-3", firmware="1.3", serial=f"{plant.id}-meter"
        )
        self._set_constants(revert_s)

    def _set_constants(self, revert_s: int) -> None:
        plant, models = self.plant, self._models
        rated_w = max(plant.discharge_w_max, plant.charge_w_max)
        models[103].set(A_SF=-1, V_SF=-1, W_SF=0, Hz_SF=-2, VA_SF=0, WH_SF=0, DCW_SF=0, Tmp_SF=-1)
        models[103].set(PhVphA=230, PhVphB=230, PhVphC=230, Hz=50, Evt1=0, Evt2=0)
        models[120].set(DERTyp=DERTYP_PV_STOR, WRtg_SF=1, WHRtg_SF=1, MaxChaRte_SF=1, MaxDisChaRte_SF=1)
        models[120].set(WRtg=rated_w, WHRtg=plant.capacity_wh)
        models[120].set(MaxChaRte=plant.charge_w_max, MaxDisChaRte=plant.discharge_w_max)
        models[121].set(WMax_SF=1, WMax=rated_w)
        models[122].set(PVConn=7, StorConn=7, ECPConn=1)
        models[123].set(WMaxLimPct_SF=-2, Conn=1, WMaxLimPct=100, WMaxLim_Ena=0, WMaxLimPct_RvrtTms=0)
        models[124].set(WChaMax_SF=0, WChaDisChaGra_SF=0, MinRsvPct_SF=-2, ChaState_SF=-2, InOutWRte_SF=-2)
        models[124].set(WChaMax=rated_w, WChaGra=100, WDisChaGra=100, StorCtl_Mod=0, OutWRte=100, InWRte=100)
        models[124].set(InOutWRte_WinTms=0, InOutWRte_RvrtTms=revert_s, ChaGriSet=0)
        mppts = self._mppts
        models[160].set(DCA_SF=-2, DCV_SF=-1, DCW_SF=0, DCWH_SF=0, Evt=0, N=mppts + 2)
        inputs = [f"MPPT {i + 1}" for i in range(mppts)]
        for i, name in enumerate((*inputs, f"StCha {mppts + 1}", f"StDisCha {mppts + 2}")):
            models[160].put(f"ID.{i}", i + 1)
            models[160].text(f"IDStr.{i}", name)
            models[160].put(f"DCSt.{i}", 4)
        models[203].set(A_SF=-1, V_SF=-1, Hz_SF=-2, W_SF=0, TotWh_SF=0, PhV=230, Hz=50, Evt=0)

    # connection

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(url=f"modbus://127.0.0.1:{port}", units=dict(self._units))

    async def stop(self) -> None:
        await self.server.stop()

    def reboot(self) -> None:
        self._restart_timer()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        registers = self._map(unit).registers
        self._measure()
        return registers.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        written = self._map(unit).written(address, values)
        for point in written:
            self._judge(point)
        for point in written:
            self._take(point)
        if any(point.name in RESTARTS for point in written):
            self._restart_timer()

    def _map(self, unit: int) -> SunSpecMap:
        if unit not in self.maps:
            raise ModbusRefused(Refusal.NO_TARGET)
        return self.maps[unit]

    def _judge(self, written: Written) -> None:
        allowed = RANGES.get(written.name)
        if allowed is None:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        if not allowed[0] <= written.value <= allowed[1]:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)

    def _take(self, written: Written) -> None:
        if written.name != "124.MinRsvPct":
            written.model.set_raw(written.key, written.raw)
        elif self._reserve_works:
            self.plant.reserve_pct = written.value

    def _restart_timer(self) -> None:
        timer_s = self._models[124].get("InOutWRte_RvrtTms")
        self._left_s = timer_s if timer_s > 0 and self.controlled else math.inf

    def _measure(self) -> None:
        plant, models = self.plant, self._models
        battery_w, pv_w, temp_c, grid_w = plant.battery_w, plant.pv_w, plant.temp_c, plant.grid_w
        ac_w = pv_w + battery_w
        models[103].set(W=ac_w, VA=abs(ac_w), A=abs(ac_w) / 230, DCW=ac_w, TmpCab=temp_c, Evt1=self.alarms)
        models[103].set(WH=plant.pv_wh + plant.discharged_wh, St=7 if self.alarms else 4 if abs(ac_w) >= 1 else 8)
        models[122].set(ActWh=plant.pv_wh + plant.discharged_wh)
        # the first input has the larger roof, the others share the rest
        others = self._mppts - 1
        shares = [PV_SHARE, *[(1 - PV_SHARE) / others] * others] if others else [1.0]
        inputs_w = [round(pv_w * share) for share in shares[:-1]]
        powers_w = (*inputs_w, round(pv_w) - sum(inputs_w), max(0.0, -battery_w), max(0.0, battery_w))
        energies_wh = (*(plant.pv_wh * share for share in shares), plant.charged_wh, plant.discharged_wh)
        models[160].set(DCW_SF=finest(max(powers_w), MODULE_RAW_MAX, at_least=MODULE_W_SF))
        for i, (power_w, energy_wh) in enumerate(zip(powers_w, energies_wh, strict=True)):
            models[160].put(f"DCW.{i}", power_w)
            models[160].put(f"DCWH.{i}", energy_wh)
            models[160].put(f"DCV.{i}", 400.0)
            models[160].put(f"DCA.{i}", power_w / 400.0)
            models[160].put(f"Tmp.{i}", temp_c)
        models[124].set(ChaState=plant.soc_pct, ChaSt=self._charge_state(battery_w, plant.soc_pct))
        models[124].set(MinRsvPct=plant.reserve_pct if self._reserve_works else math.nan)
        models[203].set(W=grid_w, WphA=grid_w / 3, WphB=grid_w / 3, WphC=grid_w / 3, A=abs(grid_w) / 230)
        models[203].set(TotWhImp=plant.imported_wh, TotWhExp=plant.exported_wh)

    @staticmethod
    def _charge_state(battery_w: float, soc_pct: float) -> int:
        if abs(battery_w) >= 10:
            return 3 if battery_w > 0 else 4
        return 5 if soc_pct >= 100 else 2 if soc_pct <= 0 else 6

    # time

    def step(self, dt_s: float) -> None:
        self._left_s -= dt_s
        if self._left_s <= 0:
            self._limits_off()
        self._steer()
        self.plant.step(dt_s)

    def _limits_off(self) -> None:
        self._left_s = math.inf
        self._models[124].set(StorCtl_Mod=0, OutWRte=100, InWRte=100)

    def _steer(self) -> None:
        plant, storage, immediate = self.plant, self._models[124], self._models[123]
        mode = int(storage.get("StorCtl_Mod"))
        limited = immediate.get("WMaxLim_Ena") == 1
        if immediate.get("Conn") == 0:
            plant.follow(0.0)
            return
        if mode == 0 and not limited:
            plant.serve_home()
            return
        target_w = plant.home_w()
        if plant.soc_pct <= plant.reserve_pct:
            target_w = min(target_w, 0.0)
        rated_w = storage.get("WChaMax")
        if mode & DISCHARGE_LIMIT_ACTIVE:
            target_w = min(target_w, storage.get("OutWRte") / 100 * rated_w)
        if mode & CHARGE_LIMIT_ACTIVE:
            target_w = max(target_w, -storage.get("InWRte") / 100 * rated_w)
        if not (storage.get("ChaGriSet") == 1 and self.grid_charge_permitted):
            target_w = max(target_w, -plant.pv_w)
        if limited:
            room_w = immediate.get("WMaxLimPct") / 100 * self._models[121].get("WMax") - plant.pv_w
            target_w = min(target_w, max(room_w, 0.0))
        plant.follow(target_w)

    # the owner

    def settings(self) -> dict[str, float]:
        self._measure()
        values = {f"124.{key}": self._models[124].get(key) for key in STORED}
        if not self._reserve_works:
            del values["124.MinRsvPct"]
        for key in ("Conn", "WMaxLimPct", "WMaxLim_Ena"):
            values[f"123.{key}"] = self._models[123].get(key)
        return values

    def overwrite(self) -> None:
        """As the energy cost assistant does."""
        self._limits_off()

    @property
    def controlled(self) -> bool:
        return self._models[124].get("StorCtl_Mod") != 0
