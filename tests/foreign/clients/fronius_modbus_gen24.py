"""fronius-modbus (GPL-3, hence a process): module powers by role, limits of the storage in percent of WChaMax.

It reads no meter, so it says nothing of the grid.
"""

from typing import Any

import talk
from fronius_modbus import FroniusModbusInverter
from modbus_connection.tmodbus import connect_tcp


async def read(host: str, port: int) -> dict[str, Any]:
    connection = await connect_tcp(host, port=port)
    try:
        inverter = FroniusModbusInverter(connection.for_unit(1))
        await inverter.discover()
        await inverter.async_update()
        power = {"pv": 0.0, "storage_charge": 0.0, "storage_discharge": 0.0}
        for module, role in zip(inverter.mppt.modules, inverter.mppt.module_roles, strict=True):
            power[role.value] += module.power
        return {
            "soc_pct": inverter.storage.state_of_charge,
            "battery_w": power["storage_discharge"] - power["storage_charge"],
            "pv_w": power["pv"],
            "ac_w": inverter.inverter.ac_power,
            "reserve_pct": inverter.storage.minimum_reserve,
            "model": inverter.common.model,
            "charged_wh": inverter.mppt.storage_charge_energy_total,
            "discharged_wh": inverter.mppt.storage_discharge_energy_total,
        }
    finally:
        await connection.close()


async def steer(host: str, port: int, power_w: float) -> dict[str, Any]:
    """+ = discharge: both limits closed round the wanted rate, the other way negative."""
    connection = await connect_tcp(host, port=port)
    try:
        inverter = FroniusModbusInverter(connection.for_unit(1))
        await inverter.discover()
        await inverter.async_update()
        rate = 100 * power_w / inverter.storage.charge_reference_power
        if power_w < 0:
            await inverter.storage.set_grid_charging(True)
        await inverter.storage.set_limits(charge=-rate, discharge=rate, revert_seconds=60)
        return {}
    finally:
        await connection.close()


async def release(host: str, port: int) -> dict[str, Any]:
    connection = await connect_tcp(host, port=port)
    try:
        inverter = FroniusModbusInverter(connection.for_unit(1))
        await inverter.discover()
        await inverter.storage.set_limits()
        return {}
    finally:
        await connection.close()


talk.serve(read=read, steer=steer, release=release)
