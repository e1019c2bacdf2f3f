"""sungrow-modbus: battery power signed with + = discharge, import and export apart. Read here only."""

from typing import Any

import talk
from modbus_connection import ModbusTcpParams
from modbus_connection.tmodbus import ModbusConnection
from sungrow_modbus import SungrowInverter


async def read(host: str, port: int) -> dict[str, Any]:
    connection = ModbusConnection(ModbusTcpParams(host=host, port=port))
    try:
        inverter = SungrowInverter(connection.for_unit(1))
        report = await inverter.async_update()
        return {
            "soc_pct": inverter.field("battery_level"),
            "battery_w": inverter.derived.battery_discharging_power_signed,
            "grid_w": inverter.derived.import_power - inverter.derived.export_power,
            "meter_w": inverter.field("meter_active_power"),
            "model": inverter.model,
            "serial": inverter.serial_number,
            "failed": sorted(report.failed),
        }
    finally:
        await connection.close()


talk.serve(read=read)
