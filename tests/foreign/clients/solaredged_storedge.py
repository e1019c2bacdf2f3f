"""solaredged: battery DC power + = charge (as the vendor's register), meter power + = export; storage control block."""

from typing import Any

import talk
from modbus_connection.tmodbus import connect_tcp
from solaredged import SolarEdge
from solaredged.const import StorageChargePolicy, StorageControlMode, StorageMode


async def read(host: str, port: int) -> dict[str, Any]:
    connection = await connect_tcp(host, port=port)
    try:
        site = await SolarEdge.async_probe(connection.for_unit(1))
        report = await site.async_update()
        battery, meter, storage = site.batteries[0], site.meters[0], site.storage_control
        return {
            "soc_pct": battery.state_of_energy,
            "battery_w": -battery.dc_power,
            "grid_w": -meter.ac_power,
            "ac_w": site.inverter.ac_power,
            "reserve_pct": storage.backup_reserve,
            "control_mode": storage.control_mode.name,
            "model": site.common.model,
            "heatsink_c": site.inverter.temperature_heatsink,
            "failed": {name: str(error) for name, error in report.failed.items()},
            "silent": sorted(site.unresponsive_blocks),
            "power_control": site.power_control is not None,
        }
    finally:
        await connection.close()


async def steer(host: str, port: int, power_w: float) -> dict[str, Any]:
    """+ = discharge: remote control, the limit of the direction, then the command."""
    connection = await connect_tcp(host, port=port)
    try:
        storage = (await SolarEdge.async_probe(connection.for_unit(1))).storage_control
        await storage.set_control_mode(StorageControlMode.REMOTE_CONTROL)
        await storage.set_command_timeout(60)
        if power_w < 0:
            await storage.set_ac_charge_policy(StorageChargePolicy.ALWAYS)
            await storage.set_charge_limit(-power_w)
            await storage.set_command_mode(StorageMode.CHARGE_FROM_SOLAR_AND_GRID)
        else:
            await storage.set_discharge_limit(power_w)
            await storage.set_command_mode(StorageMode.DISCHARGE_TO_MAXIMIZE_EXPORT)
        return {}
    finally:
        await connection.close()


async def release(host: str, port: int) -> dict[str, Any]:
    connection = await connect_tcp(host, port=port)
    try:
        storage = (await SolarEdge.async_probe(connection.for_unit(1))).storage_control
        await storage.set_control_mode(StorageControlMode.MAXIMIZE_SELF_CONSUMPTION)
        return {}
    finally:
        await connection.close()


talk.serve(read=read, steer=steer, release=release)
