"""sma-modbus (GPL-3, hence a process): charge and discharge in W apart. It knows the Smart Energy, whose battery
registers a Sunny Boy Storage shares; only those are asked for. The AC power of a Storage is its battery's."""

from typing import Any

import talk
from modbus_connection.tmodbus import connect_tcp
from sma_modbus import SunnyBoySmartEnergy

FIELDS = (
    "serial_number",
    "ac_power",
    "battery_state_of_charge",
    "battery_temperature",
    "battery_health",
    "battery_charge_power",
    "battery_discharge_power",
    "battery_charge_energy",
    "battery_discharge_energy",
)


async def read(host: str, port: int) -> dict[str, Any]:
    connection = await connect_tcp(host, port=port)
    try:
        inverter = SunnyBoySmartEnergy(connection, 3)
        inverter.register_ranges = None
        inverter.restrict_fields(FIELDS)
        await inverter.async_update()
        return {
            "soc_pct": inverter.battery_state_of_charge,
            "battery_w": inverter.battery_discharge_power - inverter.battery_charge_power,
            "battery_ac_w": inverter.ac_power,
            "health": inverter.battery_health and inverter.battery_health.name,
            "charged_wh": inverter.battery_charge_energy,
            "discharged_wh": inverter.battery_discharge_energy,
            "temp_c": inverter.battery_temperature,
            "serial": inverter.serial_number,
        }
    finally:
        await connection.close()


talk.serve(read=read)
