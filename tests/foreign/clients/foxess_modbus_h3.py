"""foxess-modbus: battery and CT power in kW, CT + = export. Steers the stored work mode and the least SoC only."""

from typing import Any

import talk
from foxess_modbus import FoxEssH3Inverter
from modbus_connection import ModbusTcpParams
from modbus_connection.tmodbus import ModbusConnection


async def read(host: str, port: int) -> dict[str, Any]:
    connection = ModbusConnection(ModbusTcpParams(host=host, port=port))
    try:
        inverter = FoxEssH3Inverter(connection.for_unit(247))
        report = await inverter.async_update()
        return {
            "soc_pct": inverter.battery.battery_soc,
            "battery_w": inverter.battery.battery_power * 1000,
            "grid_w": -inverter.grid.ct_power * 1000,
            "pv_w": inverter.pv.pv_power * 1000,
            "load_w": inverter.grid.load_power * 1000,
            "reserve_pct": inverter.settings.min_soc_on_grid,
            "off_grid_reserve_pct": inverter.settings.min_soc,
            "mode": inverter.settings.work_mode.name,
            "model": inverter.model.name,
            "version": str(inverter.identity.manager_version),
            "failed": sorted(report.failed),
        }
    finally:
        await connection.close()


async def reserve(host: str, port: int, percent: int) -> dict[str, Any]:
    connection = ModbusConnection(ModbusTcpParams(host=host, port=port))
    try:
        inverter = FoxEssH3Inverter(connection.for_unit(247))
        await inverter.async_update()
        await inverter.settings.write("min_soc_on_grid", percent)
        return {}
    finally:
        await connection.close()


talk.serve(read=read, reserve=reserve)
