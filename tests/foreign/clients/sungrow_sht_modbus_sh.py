"""sungrow-sht-modbus: battery + = discharge, export + = export; forces the battery in the compulsory mode.

It serves the SH-T only, whose registers the older SH share.
"""

from typing import Any

import talk
from modbus_connection import ModbusTcpParams
from modbus_connection.tmodbus import ModbusConnection
from sungrow_inverter import SungrowInverter
from sungrow_inverter.control import DesiredState
from sungrow_inverter.enums import BatteryMode


async def read(host: str, port: int) -> dict[str, Any]:
    connection = ModbusConnection(ModbusTcpParams(host=host, port=port))
    try:
        inverter = SungrowInverter(connection.for_unit(1))
        realtime = await inverter.async_update_realtime()
        slow = await inverter.async_update_settings()
        return {
            "soc_pct": inverter.battery.battery_level,
            "battery_w": inverter.battery_power.battery_power,
            "grid_w": -inverter.flows.export_power,
            "load_w": inverter.flows.load_power,
            "pv_w": inverter.ac_dc.total_dc_power,
            "meter_w": inverter.meter.meter_active_power,
            "reserve_pct": inverter.settings.backup_reserve_soc,
            "model": inverter.model.name,
            "failed": {name: str(error) for name, error in (realtime.failed | slow.failed).items()},
        }
    finally:
        await connection.close()


async def apply(host: str, port: int, desired: DesiredState) -> dict[str, Any]:
    connection = ModbusConnection(ModbusTcpParams(host=host, port=port))
    try:
        inverter = SungrowInverter(connection.for_unit(1), battery_max_power_w=5000)
        await inverter.async_update_realtime()
        await inverter.async_update_settings()
        report = await inverter.battery_control.apply(desired)
        return {"verified": report.verified}
    finally:
        await connection.close()


async def steer(host: str, port: int, power_w: int) -> dict[str, Any]:
    mode = BatteryMode.FORCED_DISCHARGE if power_w >= 0 else BatteryMode.FORCED_CHARGE
    return await apply(host, port, DesiredState(mode, abs(power_w)))


async def release(host: str, port: int) -> dict[str, Any]:
    return await apply(host, port, DesiredState(BatteryMode.SELF_CONSUMPTION))


talk.serve(read=read, steer=steer, release=release)
