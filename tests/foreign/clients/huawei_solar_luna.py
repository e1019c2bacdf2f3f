"""huawei-solar 3 (AGPL-3, hence a process): storage + = charge, meter + = export; forced charge and discharge."""

from typing import Any

import talk
from huawei_solar import AsyncHuaweiSolarClient, create_device_instance, create_tcp_client
from huawei_solar import register_names as rn
from huawei_solar import register_values as rv

NAMES = [
    rn.STORAGE_STATE_OF_CAPACITY,
    rn.STORAGE_CHARGE_DISCHARGE_POWER,
    rn.POWER_METER_ACTIVE_POWER,
    rn.ACTIVE_POWER,
    rn.INPUT_POWER,
    rn.STORAGE_DISCHARGING_CUTOFF_CAPACITY,
    rn.STORAGE_TOTAL_CHARGE,
    rn.STORAGE_TOTAL_DISCHARGE,
]


async def connected(host: str, port: int) -> AsyncHuaweiSolarClient:
    """Without the rests that a real dongle needs."""
    return create_tcp_client(host, port=port, unit_id=1, wait_after_connect=0, wait_between_requests=0)


async def read(host: str, port: int) -> dict[str, Any]:
    device = await create_device_instance(await connected(host, port))
    try:
        told = {name: result.value for name, result in (await device.batch_update(NAMES)).items()}
        return {
            "soc_pct": told[rn.STORAGE_STATE_OF_CAPACITY],
            "battery_w": -told[rn.STORAGE_CHARGE_DISCHARGE_POWER],
            "grid_w": -told[rn.POWER_METER_ACTIVE_POWER],
            "ac_w": told[rn.ACTIVE_POWER],
            "pv_w": told[rn.INPUT_POWER],
            "reserve_pct": told[rn.STORAGE_DISCHARGING_CUTOFF_CAPACITY],
            "model": device.model_name,
            "charged_kwh": told[rn.STORAGE_TOTAL_CHARGE],
            "discharged_kwh": told[rn.STORAGE_TOTAL_DISCHARGE],
        }
    finally:
        await device.stop()


async def steer(host: str, port: int, power_w: int) -> dict[str, Any]:
    """+ = discharge; power and period first, the command last."""
    device = await create_device_instance(await connected(host, port))
    try:
        out = power_w >= 0
        if not out:
            await device.set(rn.STORAGE_CHARGE_FROM_GRID_FUNCTION, True)
        await device.set(rn.STORAGE_FORCIBLE_DISCHARGE_POWER if out else rn.STORAGE_FORCIBLE_CHARGE_POWER, abs(power_w))
        await device.set(rn.STORAGE_FORCED_CHARGING_AND_DISCHARGING_PERIOD, 2)
        direction = rv.StorageForcibleChargeDischarge
        command = direction.DISCHARGE if out else direction.CHARGE
        await device.set(rn.STORAGE_FORCIBLE_CHARGE_DISCHARGE_WRITE, command)
        return {}
    finally:
        await device.stop()


async def release(host: str, port: int) -> dict[str, Any]:
    device = await create_device_instance(await connected(host, port))
    try:
        await device.set(rn.STORAGE_FORCIBLE_CHARGE_DISCHARGE_WRITE, rv.StorageForcibleChargeDischarge.STOP)
        return {}
    finally:
        await device.stop()


talk.serve(read=read, steer=steer, release=release)
