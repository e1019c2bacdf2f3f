"""sigenergy2mqtt: ESS power + = charge, grid sensor + = import; steers by remote EMS, a mode and its limit in kW.

Its sensors are used without the MQTT broker they publish to.
"""

from typing import Any
from unittest.mock import MagicMock

import talk
from sigenergy2mqtt.modbus import ModbusClient
from sigenergy2mqtt.sensors.plant import read_only, read_write

PLANT = 0
CHARGE = "Command Charging (Consume power from the grid first)"
DISCHARGE = "Command Discharging (Output power from the battery first)"
SELF = "Maximum Self-consumption (Default)"


async def connected(host: str, port: int) -> ModbusClient:
    client = ModbusClient(host, port=port, timeout=2, retries=0)
    await client.connect()
    return client


async def read(host: str, port: int) -> dict[str, Any]:
    client = await connected(host, port)

    async def state(sensor: Any) -> Any:
        return await sensor.get_state(modbus_client=client)

    try:
        return {
            "soc_pct": await state(read_only.PlantBatterySoC(PLANT)),
            "battery_w": -await state(read_only.BatteryPower(PLANT)),
            "grid_w": await state(read_only.GridSensorActivePower(PLANT)),
            "pv_w": await state(read_only.PlantPVPower(PLANT)),
            "ac_w": 1000 * await state(read_only.PlantActivePower(PLANT)),
            "load_w": await state(read_only.TotalLoadPower(PLANT)),
            "reserve_pct": await state(read_write.ESSBackupSOC(PLANT)),
        }
    finally:
        client.close()


async def put(client: ModbusClient, sensor: Any, value: Any) -> None:
    sensor.configure_mqtt_topics("tests")
    if not await sensor.set_value(client, MagicMock(), value, sensor["command_topic"], MagicMock()):
        raise ValueError(f"{type(sensor).__name__} was not set to {value}")
    await sensor.get_state(modbus_client=client)


async def steer(host: str, port: int, power_w: float) -> dict[str, Any]:
    """+ = discharge. The library insists on its order: remote EMS, then the mode, then the direction's limit in kW."""
    client = await connected(host, port)
    try:
        remote = read_write.RemoteEMS(PLANT)
        mode = read_write.RemoteEMSControlMode(PLANT, remote)
        limit = read_write.MaxDischargingLimit if power_w >= 0 else read_write.MaxChargingLimit
        await put(client, remote, 1)
        await put(client, mode, DISCHARGE if power_w >= 0 else CHARGE)
        await put(client, limit(PLANT, remote, mode, 20.0), abs(power_w) / 1000)
        return {}
    finally:
        client.close()


async def release(host: str, port: int) -> dict[str, Any]:
    client = await connected(host, port)
    try:
        remote = read_write.RemoteEMS(PLANT)
        await remote.get_state(modbus_client=client)
        await put(client, read_write.RemoteEMSControlMode(PLANT, remote), SELF)
        await put(client, remote, 0)
        return {}
    finally:
        client.close()


talk.serve(read=read, steer=steer, release=release)
