"""A SolarEdge StorEdge inverter: SunSpec 1, 103, a meter (1, 203 at 40121), storage control 0xE004, battery 0xE100.

Single phase it has model 101, with a meter 201 or 203. Every meter has a common block of its own, whose option text
says what it measures: "Production" or "Export+Import"; that of the PV may come first.

SunSpec is big-endian; everything from 0xE000 on has its least significant word first. 103.W is the inverter's AC power
(PV and battery), 203.W + = export, battery power 0xE174 + = charge. One TCP client only.
Remote control is StorageControl 4 with a command mode and unsigned limits; it needs AdvancedPwrControlEn, which is
stored by a commit (0xF100 = 1) that takes seconds of "busy". A write to 0xE00B..0xE011 renews the command time-out,
after which the command mode is the default mode (0xE00A); the limits stay. Time-out 0 is taken as "never". The command
mode reads back its old value for a while. Unknown and taken at its most dangerous: everything written to the storage
block, the command too, survives a reboot; mode 4 does not stop at the reserve; modes 5 and 7 do.
0xF704..0xF711 mirrors 0xE004..0xE011. The scale factors of powers move with them, as fine as 16 bits allow, and are 0
while the inverter gives nothing; a meter that sleeps says "not implemented" everywhere, its factors too.
Source: SolarEdge "Power Control Open Protocol for SolarEdge Inverters" and "SunSpec implementation technical note";
WillCodeForCats/solaredge-modbus-multi, commit f0ab4b1 (inverters 101 to 103, meters 201 to 204); evcc#2162,
solaredge_modbus#91, #106, modbus-multi#1007, dbus-solaredge#14; meters and their options: tjko/sunspec-monitor#4.
Unverified: stale read-back, time-out 0.
"""

import math
import struct
from typing import ClassVar

from simulators.faces.modbus import ModbusRefused, ModbusServer, Refusal, Registers
from simulators.faces.plant import Connection, Plant, Trouble
from simulators.faces.sunspec import Model, SunSpecMap, common, finest
from simulators.faces.upkeep import Reboots

UNIT = 1
COMMON_LENGTH = 65
POWER_RAW_MAX, POWER_SF = 0x7FFF, -2
ABSENT_F32 = -3.4028234663852886e38
MIRROR_FROM, MIRROR_TO, MIRROR_BY = 0xF704, 0xF711, 0x1700
BATTERY_FROM, BATTERY_TO = 0xE100, 0xE18B
BATTERIES_AT = (0x000, 0x100, 0x300)
SHARES = {1: (1.0,), 2: (0.6, 0.4), 3: (0.5, 0.3, 0.2)}
UNEQUAL_PCT = 10.0
COMMAND_FROM, COMMAND_TO = 0xE00B, 0xE011
COMMIT, RESTORE, REACTIVE, ADVANCED = 0xF100, 0xF101, 0xF104, 0xF142
CONTROL, POLICY, RESERVE, DEFAULT, TIMEOUT, COMMAND = 0xE004, 0xE005, 0xE008, 0xE00A, 0xE00B, 0xE00D
CHARGE_LIMIT, DISCHARGE_LIMIT = 0xE00E, 0xE010
REMOTE, BACKUP_ONLY, SELF_CONSUMPTION, OFF = 4, 3, 1, 0
COMMANDS = (0, 1, 2, 3, 4, 5, 7)
METER_COMMANDS = (5, 7)

WRITABLE = {
    0xE000: ("ExportControlMode", "u16"),
    0xE001: ("ExportLimitMode", "u16"),
    0xE002: ("SiteLimit", "f32"),
    CONTROL: ("ControlMode", "u16"),
    POLICY: ("AcChargePolicy", "u16"),
    0xE006: ("AcChargeLimit", "f32"),
    RESERVE: ("BackupReserve", "f32"),
    DEFAULT: ("DefaultMode", "u16"),
    TIMEOUT: ("CommandTimeout", "u32"),
    COMMAND: ("CommandMode", "u16"),
    CHARGE_LIMIT: ("ChargeLimit", "f32"),
    DISCHARGE_LIMIT: ("DischargeLimit", "f32"),
    COMMIT: ("Commit", "i16"),
    RESTORE: ("RestoreDefaults", "i16"),
    REACTIVE: ("ReactivePwrConfig", "i32"),
    ADVANCED: ("AdvancedPwrControlEn", "i32"),
}
# What a client asks at set-up, from the questions of `solaredged` 0.5.0, which was not written by us and is run against
# this face: external production, dynamic power control; ENABLED mirrors AdvancedPwrControlEn.
ASKED = {0xE012: ("f32", 0.0), 0xF000: ("u16", 0), 0xF001: ("u16", 100), 0xF002: ("f32", 1.0), 0xF106: ("i32", 0)}
ENABLED = 0xF108
FORMATS = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f"}
RANGES = {
    CONTROL: (0, 5),
    POLICY: (0, 3),
    RESERVE: (0, 100),
    TIMEOUT: (0, 86_400),
    CHARGE_LIMIT: (0, 1_000_000),
    DISCHARGE_LIMIT: (0, 1_000_000),
    COMMIT: (0, 1),
    RESTORE: (0, 1),
    REACTIVE: (0, 4),
    ADVANCED: (0, 1),
}
SETTINGS = (0xE000, 0xE001, CONTROL, POLICY, 0xE006, DEFAULT, TIMEOUT)


class SolarEdgeStorEdge:
    """Simulated StorEdge. `commit_s` and `readback_s` are simulated seconds, `reopen_s` and `idle_s` real ones.

    `advanced_power_control`: the installer has switched it on. `battery_asleep`, `meter_asleep`: their values are
    missing. `inverter_model`, `meter_model`: their SunSpec ids. `production_meter`: another meter, before that of the
    grid connection, measures what the inverter gives. `batteries`: how many, of unequal size and not equally full.
    """

    profile: ClassVar[str] = "solaredge-storedge"

    def __init__(
        self,
        plant: Plant,
        *,
        advanced_power_control: bool = True,
        backup_capable: bool = True,
        has_meter: bool = True,
        inverter_model: int = 103,
        meter_model: int = 203,
        production_meter: bool = False,
        batteries: int = 1,
        timeout_s: int = 3_600,
        default_mode: int = 1,
        commit_s: float = 6.0,
        readback_s: float = 3.0,
        reopen_s: float = 2.0,
        idle_s: float = 120.0,
    ) -> None:
        self.plant = plant
        self.trouble = Trouble.NONE
        self.late_s = 0.0
        self.battery_asleep = False
        self.meter_asleep = False
        self.commits = 0
        self._backup_capable = backup_capable
        self._has_meter = has_meter
        self._commit_s = commit_s
        self._readback_s = readback_s
        self._committing_s = 0.0
        self._left_s = math.inf
        self._expired = False
        self._stale: tuple[float, float] = (0.0, 0.0)
        self._reboots = Reboots(self.reboot)
        self.server = ModbusServer(self, clients_max=1, reopen_s=reopen_s, idle_s=idle_s)
        self.server.after_write = self._reboots.wrote
        self.map = SunSpecMap()
        self._common, self._inverter = self.map.add(1, length=COMMON_LENGTH), self.map.add(inverter_model)
        self._meter_model = meter_model
        self._shares = SHARES[batteries]
        self._meters: list[tuple[str, Model]] = []
        self._meter_options = ["Production"] * production_meter + ["Export+Import"] * has_meter
        self.registers = Registers(little=True)
        self._values: dict[int, float] = {
            **{0xE000: 0, 0xE001: 0, 0xE002: 0.0, CONTROL: SELF_CONSUMPTION, POLICY: 0, 0xE006: 0.0},
            **{DEFAULT: default_mode, TIMEOUT: timeout_s, COMMAND: 7},
            **{CHARGE_LIMIT: plant.charge_w_max, DISCHARGE_LIMIT: plant.discharge_w_max},
            **{REACTIVE: 0, ADVANCED: int(advanced_power_control)},
        }
        self._committed = {address: self._values[address] for address in (REACTIVE, ADVANCED)}
        self._set_constants()

    def _set_constants(self) -> None:
        plant = self.plant
        common(self._common, maker="SolarEdge", product="SE10K-RWS48", firmware="0004.0018.0231", serial=plant.id)
        self._inverter.set(A_SF=-1, V_SF=-1, W_SF=0, Hz_SF=-2, VA_SF=0, WH_SF=0, DCW_SF=0, Tmp_SF=-2)
        self._inverter.set(PhVphA=230, PhVphB=230, PhVphC=230, Hz=50, Evt1=0, Evt2=0)
        for option in self._meter_options:
            meter_common = self.map.add(1, length=COMMON_LENGTH)
            common(
                meter_common,
                maker="SolarEdge",
                product="SE-MTR-3Y-400V-A",
                firmware="75",
                serial=f"{plant.id}-meter" if option != "Production" else f"{plant.id}-pv",
                options=option,
            )
            self._meters.append((option, self.map.add(self._meter_model)))
        self.map.end()
        battery = self.registers
        for base in BATTERIES_AT[: len(self._shares)]:
            for address in range(BATTERY_FROM, BATTERY_TO + 1):
                battery.words[base + address] = 0
            texts = ((0x00, "SolarEdge"), (0x10, "Home Battery 48V"), (0x20, "2.12"), (0x30, f"{plant.id}-b"))
            for offset, text in texts:
                battery.text(base + BATTERY_FROM + offset, text, 16)
            battery.u16(base + 0xE140, 15)

    # connection

    async def start(self, *, port: int = 0) -> Connection:
        port = await self.server.start(port=port)
        return Connection(url=f"modbus://127.0.0.1:{port}", units={"inverter": UNIT})

    async def stop(self) -> None:
        await self.server.stop()

    def reboot(self) -> None:
        self._values |= self._committed
        self._committing_s = 0.0
        self._stale = (0.0, 0.0)
        self._renew()
        self.server.drop_all()

    def reboot_after_writes(self, n: int | None) -> None:
        self._reboots.after(n)

    # registers

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        if unit != UNIT:
            raise ModbusRefused(Refusal.NO_TARGET)
        if address < 0xE000:
            self._inverter.set(TmpSnk=self.plant.temp_c + 10)
            self._measure_sunspec()
            return self.map.registers.block(address, count)
        if MIRROR_FROM <= address <= MIRROR_TO:
            address -= MIRROR_BY
        self._measure_storage()
        return self.registers.block(address, count)

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        if unit != UNIT:
            raise ModbusRefused(Refusal.NO_TARGET)
        if MIRROR_FROM <= address <= MIRROR_TO:
            address -= MIRROR_BY
        if self._committing_s > 0:
            raise ModbusRefused(Refusal.BUSY)
        written = self._decode(address, values)
        for at, value in written:
            self._judge(at, value)
        for at, value in written:
            self._take(at, value)
        if any(COMMAND_FROM <= at <= COMMAND_TO for at, _ in written):
            self._expired = False
            self._renew()
        elif any(at == CONTROL for at, _ in written):
            self._renew()

    @staticmethod
    def _decode(address: int, words: list[int]) -> list[tuple[int, float]]:
        """The whole values a request covers."""
        found: list[tuple[int, float]] = []
        while words:
            _, kind = WRITABLE.get(address, ("", ""))
            size = struct.calcsize(FORMATS[kind]) // 2 if kind else 0
            if not kind or len(words) < size:
                raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
            data = struct.pack(f">{size}H", *reversed(words[:size]))
            found.append((address, float(struct.unpack(FORMATS[kind], data)[0])))
            address, words = address + size, words[size:]
        return found

    def _judge(self, address: int, value: float) -> None:
        low, high = RANGES.get(address, (-math.inf, math.inf))
        fine = low <= value <= high
        if address in (COMMAND, DEFAULT):
            fine = value in COMMANDS and (self._has_meter or value not in METER_COMMANDS)
        if address == RESERVE:
            fine = fine and self._backup_capable
        if not fine:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)

    def _take(self, address: int, value: float) -> None:
        if address == RESERVE:
            self.plant.reserve_pct = value
        elif address in (COMMIT, RESTORE):
            if value:
                self._committing_s = self._commit_s
                self.commits += 1
                if address == RESTORE:
                    self._values |= {REACTIVE: 0, ADVANCED: 0}
        else:
            if address == COMMAND and value != self._values[COMMAND]:
                self._stale = (self._values[COMMAND], self._readback_s)
            self._values[address] = value

    def _renew(self) -> None:
        timeout_s = self._values[TIMEOUT]
        self._left_s = timeout_s if timeout_s > 0 and self._values[CONTROL] == REMOTE else math.inf

    def _measure_sunspec(self) -> None:
        plant = self.plant
        ac_w, grid_w = plant.pv_w + plant.battery_w, plant.grid_w
        factor = finest(abs(ac_w), POWER_RAW_MAX, at_least=POWER_SF) if abs(ac_w) >= 1 else 0
        self._inverter.set(W_SF=factor, VA_SF=factor, DCW_SF=factor)
        self._inverter.set(W=ac_w, VA=abs(ac_w), A=abs(ac_w) / 230, DCW=ac_w, TmpCab=plant.temp_c)
        self._inverter.set(WH=plant.pv_wh + plant.discharged_wh, St=4 if abs(ac_w) >= 1 else 8)
        for option, meter in self._meters:
            if self.meter_asleep:
                meter.blank()
                continue
            out_w = ac_w if option == "Production" else -grid_w
            factor = finest(abs(out_w), POWER_RAW_MAX, at_least=POWER_SF)
            meter.set(A_SF=-1, V_SF=-1, Hz_SF=-2, W_SF=factor, TotWh_SF=0, PhV=230, Hz=50, Evt=0)
            meter.set(W=out_w, WphA=out_w / 3, WphB=out_w / 3, WphC=out_w / 3, A=abs(out_w) / 230)
            if option != "Production":
                meter.set(TotWhImp=plant.imported_wh, TotWhExp=plant.exported_wh)

    def _measure_storage(self) -> None:
        plant, registers = self.plant, self.registers
        stale, stale_s = self._stale
        shown = dict(self._values) | {COMMIT: 0, RESTORE: 0}
        shown[RESERVE] = plant.reserve_pct if self._backup_capable else ABSENT_F32
        if stale_s > 0:
            shown[COMMAND] = stale
        put = {"u16": registers.u16, "i16": registers.i16, "u32": registers.u32, "i32": registers.i32}
        shown_asked = ASKED | {ENABLED: ("i32", self._committed[ADVANCED])}
        for address, (kind, value) in shown_asked.items():
            put.get(kind, registers.f32)(address, value)
        for address, value in shown.items():
            put.get(WRITABLE[address][1], registers.f32)(address, value)
        apart_pct = min(UNEQUAL_PCT, plant.soc_pct, 100 - plant.soc_pct)
        # the first is fuller, the second emptier by as much energy
        fuller_pct = [apart_pct * self._shares[1], -apart_pct * self._shares[0], 0.0] if self._shares[1:] else [0.0]
        for base, share, more_pct in zip(BATTERIES_AT, self._shares, fuller_pct, strict=False):
            self._measure_battery(base, share, plant.soc_pct + more_pct)

    def _measure_battery(self, base: int, share: float, soc_pct: float) -> None:
        """One battery, which has this share of all that they have together."""
        plant, registers, asleep = self.plant, self.registers, self.battery_asleep
        battery_w, capacity_wh = share * plant.battery_w, share * plant.capacity_wh
        floats = {
            0xE142: capacity_wh,
            0xE144: share * plant.charge_w_max,
            0xE146: share * plant.discharge_w_max,
            0xE148: share * plant.charge_w_max,
            0xE14A: share * plant.discharge_w_max,
            0xE16C: plant.temp_c,
            0xE16E: plant.temp_c,
            0xE170: 50.0,
            0xE172: -battery_w / 50.0,
            0xE174: -battery_w,
            0xE17E: capacity_wh,
            0xE180: capacity_wh * soc_pct / 100,
            0xE182: 100.0,
            0xE184: soc_pct,
        }
        for address, value in floats.items():
            registers.f32(base + address, ABSENT_F32 if asleep else value)
        registers.u64(base + 0xE176, share * plant.discharged_wh)
        registers.u64(base + 0xE17A, share * plant.charged_wh)
        status = 0 if asleep else 7 if abs(battery_w) < 10 else 4 if battery_w > 0 else 3
        registers.u32(base + 0xE186, status)
        registers.u32(base + 0xE188, status)

    # time

    def step(self, dt_s: float) -> None:
        self._stale = (self._stale[0], max(0.0, self._stale[1] - dt_s))
        if self._committing_s > 0:
            self._committing_s = max(0.0, self._committing_s - dt_s)
            if self._committing_s == 0:
                self._committed = {address: self._values[address] for address in self._committed}
        self._left_s -= dt_s
        if self._left_s <= 0:
            self._left_s = math.inf
            self._expired = True
            self._values[COMMAND] = self._values[DEFAULT]
        self._steer()
        self.plant.step(dt_s)

    def _steer(self) -> None:
        mode = self._values[CONTROL] if self._committed[ADVANCED] else SELF_CONSUMPTION
        if mode == REMOTE:
            self.plant.follow(self._remote_w())
        elif mode == OFF:
            self.plant.follow(0.0)
        elif mode == BACKUP_ONLY:
            self.plant.serve_backup()
        else:
            self.plant.serve_home()

    def _remote_w(self) -> float:
        """What the command mode makes of home, PV and limits."""
        plant = self.plant
        charge_w, discharge_w = self._values[CHARGE_LIMIT], self._values[DISCHARGE_LIMIT]
        own_w = plant.home_w()
        if plant.soc_pct <= plant.reserve_pct:
            own_w = min(own_w, 0.0)
        from_pv_w = -min(plant.pv_w, charge_w)
        by_command = {
            0: 0.0,
            1: max(min(own_w, 0.0), -charge_w),
            2: from_pv_w,
            3: -charge_w if self._values[POLICY] else from_pv_w,
            4: discharge_w,
            5: min(max(own_w, 0.0), discharge_w),
            7: min(max(own_w, -charge_w), discharge_w),
        }
        return by_command[int(self._values[COMMAND])]

    # the owner

    def settings(self) -> dict[str, float]:
        values = {WRITABLE[address][0]: self._values[address] for address in (*SETTINGS, REACTIVE, ADVANCED)}
        if self._backup_capable:
            values["BackupReserve"] = self.plant.reserve_pct
        return values

    def overwrite(self) -> None:
        self._values[CONTROL] = SELF_CONSUMPTION
        self._left_s = math.inf

    @property
    def controlled(self) -> bool:
        if self._values[CONTROL] != REMOTE or self._expired or not self._committed[ADVANCED]:
            return False
        unlimited = (
            self._values[CHARGE_LIMIT] >= self.plant.charge_w_max
            and self._values[DISCHARGE_LIMIT] >= self.plant.discharge_w_max
        )
        return not (self._values[COMMAND] == 7 and unlimited)
