"""goodwe: battery power + = discharge, active power + = export; sets the EMS mode with its power."""

from typing import Any

import goodwe
import talk


async def inverter_at(host: str, port: int) -> goodwe.ET:
    """The library speaks TCP on any port but its UDP one when the family is named."""
    inverter = goodwe.ET(host, port, timeout=5, retries=0)
    inverter.set_keep_alive(False)
    await inverter.read_device_info()
    return inverter


async def read(host: str, port: int) -> dict[str, Any]:
    inverter = await inverter_at(host, port)
    data = await inverter.read_runtime_data()
    return {
        "soc_pct": data["battery_soc"],
        "battery_w": data["pbattery1"],
        "grid_w": -data["meter_active_power_total"],
        "pv_w": data["ppv"],
        "load_w": data["load_ptotal"],
    }


async def steer(host: str, port: int, power_w: int) -> dict[str, Any]:
    inverter = await inverter_at(host, port)
    mode = goodwe.EMSMode.DISCHARGE_BATTERY if power_w >= 0 else goodwe.EMSMode.CHARGE_BATTERY
    await inverter.set_ems_mode(mode, abs(power_w))
    return {}


async def release(host: str, port: int) -> dict[str, Any]:
    inverter = await inverter_at(host, port)
    await inverter.set_operation_mode(goodwe.OperationMode.GENERAL)
    return {}


talk.serve(read=read, steer=steer, release=release)
