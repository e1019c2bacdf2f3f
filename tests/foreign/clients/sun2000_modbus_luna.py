"""sun2000-modbus: plain registers by name; storage + = charge, meter + = export, as the vendor's list."""

from typing import Any

import talk
from sun2000_modbus.inverter import Sun2000
from sun2000_modbus.registers import BatteryEquipmentRegister, InverterEquipmentRegister, MeterEquipmentRegister


async def read(host: str, port: int) -> dict[str, Any]:
    inverter = Sun2000(host, port=port, wait=0, device_id=1)
    try:
        inverter.connect()
        return {
            "soc_pct": inverter.read(BatteryEquipmentRegister.SOC),
            "battery_w": -inverter.read(BatteryEquipmentRegister.ChargeDischargePower),
            "grid_w": -inverter.read(MeterEquipmentRegister.ActivePower),
            "ac_w": inverter.read(InverterEquipmentRegister.ActivePower),
            "model": inverter.read(InverterEquipmentRegister.Model),
            "charged_kwh": inverter.read(BatteryEquipmentRegister.TotalCharge),
            "discharged_kwh": inverter.read(BatteryEquipmentRegister.TotalDischarge),
        }
    finally:
        inverter.disconnect()


async def steer(host: str, port: int, power_w: int) -> dict[str, Any]:
    """+ = discharge; power and period first, the command last."""
    register = BatteryEquipmentRegister
    inverter = Sun2000(host, port=port, wait=0, device_id=1)
    try:
        inverter.connect()
        power = register.ForcibleDischargePower if power_w >= 0 else register.ForcibleChargePower
        if power_w < 0:
            inverter.write(register.ChargeFromGridFunction, 1)
        inverter.write(power, abs(power_w))
        inverter.write(register.ForcedChargingAndDischargingPeriod, 2)
        inverter.write(register.ForcibleChargeDischarge, 2 if power_w >= 0 else 1)
        return {}
    finally:
        inverter.disconnect()


async def release(host: str, port: int) -> dict[str, Any]:
    inverter = Sun2000(host, port=port, wait=0, device_id=1)
    try:
        inverter.connect()
        inverter.write(BatteryEquipmentRegister.ForcibleChargeDischarge, 0)
        return {}
    finally:
        inverter.disconnect()


talk.serve(read=read, steer=steer, release=release)
